//! Role evaluation as roles.md 3 defines it, over explicit pasts, by trying until nothing changes.
//!
//! The definitions refer to each other. The oracle starts from any assignment, computes everything anew from it again and
//! again, and stops when that changes nothing: then the assignment is a solution. It knows nothing of the order in which
//! things can be settled.

use std::collections::BTreeSet;

use p2p_sync_core::access::{GrantFlags, Role};

use crate::roles::outcome::{GrantOutcome, Outcome, item_number};
use crate::roles::rule::Rule;
use crate::roles::world::{Deed, FOUNDER, Grant, Keep, Place, RECOVERY, Scope, World};

/// From which assignment the oracle starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Nothing,
    Everything,
    EverySecondGrant,
}

impl Start {
    const ALL: [Self; 3] = [Self::Nothing, Self::Everything, Self::EverySecondGrant];

    const fn counts(self, grant: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::EverySecondGrant => grant % 2 == 1,
        }
    }
}

/// A grant, and where it was made; the Genesis grants have no place.
#[derive(Debug, Clone, Copy)]
struct Given {
    place: Option<Place>,
    grant: Grant,
}

struct Oracle<'a> {
    world: &'a World,
    rule: Rule,
    grants: Vec<Given>,
    of_device: Vec<Vec<usize>>,
    revokes: Vec<Vec<(Place, &'a Keep)>>,
    state: State,
}

/// An assignment. `live[grant][event]` has one entry for each item of the event, and one for what lies behind them.
#[derive(Debug)]
struct State {
    valid: Vec<bool>,
    rank: Vec<Vec<(u64, u32)>>,
    ended_by: Vec<BTreeSet<Place>>,
    live: Vec<Vec<Vec<bool>>>,
}

/// Sweeps after which there is no solution to be found; each settles at least one more grant if there is one.
const SWEEPS_MAX: usize = 300;

/// Returns what the rules say, or `None` if they have no solution, or more than one.
pub(crate) fn solve(world: &World, rule: Rule) -> Option<Outcome> {
    let [one, other, third] = Start::ALL.map(|start| Oracle::new(world, rule, start).run());
    if one == other && one == third { one } else { None }
}

impl<'a> Oracle<'a> {
    fn new(world: &'a World, rule: Rule, start: Start) -> Self {
        let genesis = |device| Given {
            place: None,
            grant: Grant::plain(device, Role::Owner),
        };
        // The two stand at their devices' numbers.
        let mut grants = vec![genesis(RECOVERY), genesis(FOUNDER)];
        let mut revokes = vec![Vec::new(); world.devices];
        for (place, deed) in world.deeds() {
            match deed {
                Deed::Grant(grant) => grants.push(Given {
                    place: Some(place),
                    grant: *grant,
                }),
                Deed::Revoke { device, keep } => revokes[*device].push((place, keep)),
                Deed::Invite { .. } | Deed::Cancel { .. } => {}
            }
        }
        let of_device = (0..world.devices).map(|device| {
            let of_it = (0..grants.len()).filter(|grant| grants[*grant].grant.device == device);
            of_it.collect()
        });
        let nowhere: Vec<Vec<bool>> = world
            .events
            .iter()
            .map(|event| vec![false; event.deeds.len() + 1])
            .collect();
        let live = grants.iter().enumerate().map(|(grant, given)| {
            let mut live = nowhere.clone();
            let own = world.events_of(given.grant.device);
            own.for_each(|event| live[event].fill(start.counts(grant)));
            live
        });
        Self {
            world,
            rule,
            of_device: of_device.collect(),
            state: State {
                valid: (0..grants.len()).map(|grant| start.counts(grant)).collect(),
                rank: vec![Vec::new(); grants.len()],
                ended_by: vec![BTreeSet::new(); grants.len()],
                live: live.collect(),
            },
            grants,
            revokes,
        }
    }

    fn run(mut self) -> Option<Outcome> {
        for _ in 0..SWEEPS_MAX {
            let changes = (0..self.grants.len()).filter(|grant| self.update(*grant)).count();
            if changes == 0 {
                return Some(self.outcome());
            }
        }
        None
    }

    /// Computes anew what the rules say of a grant, and says whether that is something else than before.
    fn update(&mut self, grant: usize) -> bool {
        let valid = self.is_valid(grant);
        let mut changed = std::mem::replace(&mut self.state.valid[grant], valid) != valid;
        let rank = self.rank(grant);
        changed |= rank != self.state.rank[grant];
        self.state.rank[grant] = rank;
        let device = self.grants[grant].grant.device;
        let ending = self.revokes[device]
            .iter()
            .filter(|revoke| self.ends(revoke.0, grant));
        let ended_by = ending.map(|revoke| revoke.0).collect();
        changed |= ended_by != self.state.ended_by[grant];
        self.state.ended_by[grant] = ended_by;
        for event in self.world.events_of(device) {
            for item in 0..=self.world.events[event].deeds.len() {
                let live = self.is_live(grant, (event, item));
                changed |= std::mem::replace(&mut self.state.live[grant][event][item], live) != live;
            }
        }
        changed
    }

    /// Returns the grants of a device that are live at a place in its log.
    fn live_at(&self, place: Place) -> impl Iterator<Item = usize> {
        let author = self.world.events[place.0].author;
        let live = move |grant: &&usize| self.state.live[**grant][place.0][place.1];
        self.of_device[author].iter().filter(live).copied()
    }

    fn rank(&self, grant: usize) -> Vec<(u64, u32)> {
        let given = &self.grants[grant];
        if given.grant.role != Role::Owner {
            return Vec::new();
        }
        let Some(place) = given.place else {
            return vec![(if given.grant.device == RECOVERY { 0 } else { 1 }, 0)];
        };
        // Rank and scopes of different grants are never mixed.
        let is_giver = |by: &usize| {
            let any = self.rule == Rule::RankOfAnotherGrant || self.rule == Rule::OwnerByInvite;
            self.grants[*by].grant.role == Role::Owner && (any || self.may_give(*by, &given.grant))
        };
        let owners = self.live_at(place).filter(is_giver);
        let at = (self.world.events[place.0].seq, item_number(place.1));
        let lent = |mut rank: Vec<(u64, u32)>| {
            rank.push(at);
            rank
        };
        let ranks = owners.map(|by| self.state.rank[by].clone());
        if self.rule == Rule::SmallestRankLent {
            return ranks.map(lent).min().unwrap_or_default();
        }
        lent(ranks.min().unwrap_or_default())
    }

    fn dominates(&self, by: usize, grant: usize) -> bool {
        let (strong, weak) = (
            level(self.grants[by].grant.role),
            level(self.grants[grant].grant.role),
        );
        let ranks = (&self.state.rank[by], &self.state.rank[grant]);
        let senior = ranks.0 < ranks.1 || (self.rule == Rule::EqualRankDominates && ranks.0 == ranks.1);
        let equals = self.rule == Rule::EqualLevelDominates && strong == 1 && weak == 1;
        if self.rule == Rule::FounderAboveOwners && grant == FOUNDER && by != RECOVERY {
            return false;
        }
        (strong < weak && strong <= 1) || (strong == 0 && weak == 0 && senior) || equals
    }

    fn is_valid(&self, grant: usize) -> bool {
        let given = &self.grants[grant];
        let Some(place) = given.place else {
            return true;
        };
        if self.has_twin(given.grant.device, place) {
            return false;
        }
        match given.grant.invite {
            None => self.live_at(place).any(|by| self.may_give(by, &given.grant)),
            Some(key) => self.is_let_in(place, &given.grant, key),
        }
    }

    fn may_give(&self, by: usize, given: &Grant) -> bool {
        let by = &self.grants[by].grant;
        let role = match by.role {
            Role::Owner => true,
            Role::Admin => given.role == Role::Editor || given.role == Role::Viewer,
            Role::Editor | Role::Viewer => false,
        };
        let owners_flag = given.flags.archive || given.flags.voter;
        let flags = !owners_flag || by.role == Role::Owner || self.rule == Rule::FlagsByAnybody;
        let scopes = given.scope.within(by.scope) || self.rule == Rule::WideningScopes;
        role && flags && scopes
    }

    /// Says whether a device with the same short name was granted something not after `place`.
    fn has_twin(&self, device: usize, place: Place) -> bool {
        let Some(twins) = self.world.twins else {
            return false;
        };
        let twin = match twins {
            (one, other) if device == one => other,
            (one, other) if device == other => one,
            _ => return false,
        };
        self.of_device[twin].iter().any(|other| {
            let Some(other) = self.grants[*other].place else {
                return true;
            };
            match self.rule {
                Rule::TwinsApartStay => self.world.sees(place, other),
                _ => !self.world.sees(other, place),
            }
        })
    }

    /// Says whether an invite with this key lets a device in.
    fn is_let_in(&self, place: Place, grant: &Grant, key: u8) -> bool {
        if grant.flags != GrantFlags::default() && self.rule != Rule::FlagsByAnybody {
            return false;
        }
        let redeemer = self.live_at(place).any(|by| {
            let box_ = &self.grants[by].grant;
            let strong = level(box_.role) <= 1 || box_.flags.admit || self.rule == Rule::AnybodyRedeems;
            strong && (level(box_.role) <= level(grant.role) || self.rule == Rule::BoxAboveLevel)
        });
        redeemer
            && self.world.deeds().any(|(invited, deed)| match deed {
                Deed::Invite { key: of, role, scope } if *of == key => {
                    self.is_let_in_by(place, grant, invited, (*role, *scope))
                        && !self.is_cancelled(place, key, *role)
                }
                Deed::Invite { .. } | Deed::Grant(_) | Deed::Cancel { .. } | Deed::Revoke { .. } => false,
            })
    }

    fn is_let_in_by(&self, place: Place, grant: &Grant, invited: Place, offer: (Role, Scope)) -> bool {
        let offered = Grant {
            scope: offer.1,
            ..Grant::plain(grant.device, offer.0)
        };
        let no_owner = offer.0 != Role::Owner || self.rule == Rule::OwnerByInvite;
        let scopes = grant.scope.within(offer.1) || self.rule == Rule::WideningScopes;
        let known = self.world.sees(place, invited) || self.rule == Rule::OpenInvite;
        if !no_owner || !scopes || !known || grant.role > offer.0 {
            return false;
        }
        let inviter = self.world.events[invited.0].author;
        self.live_at(invited).any(|by| {
            let before = |revoke: &(Place, &Keep)| {
                let spared = self.rule == Rule::RevokeSparesInvites;
                spared || !self.ends(revoke.0, by) || self.world.sees(revoke.0, place)
            };
            self.may_give(by, &offered) && self.revokes[inviter].iter().all(before)
        })
    }

    fn is_cancelled(&self, place: Place, key: u8, role: Role) -> bool {
        self.world.deeds().any(|(cancel, deed)| {
            let of_it = *deed == Deed::Cancel { key };
            let mut by = self.live_at(cancel);
            let reaches = match self.rule {
                Rule::WeakCancel => self.world.sees(place, cancel),
                _ => !self.world.sees(cancel, place),
            };
            let may = |by: usize| match self.grants[by].grant.role {
                Role::Owner => true,
                Role::Admin => role == Role::Editor || role == Role::Viewer,
                Role::Editor | Role::Viewer => false,
            };
            of_it && reaches && by.any(may)
        })
    }

    /// Says whether a Revoke of the grant's device ends it, whatever it keeps.
    fn ends(&self, revoke: Place, grant: usize) -> bool {
        let after = self.grants[grant]
            .place
            .is_some_and(|place| self.world.sees(place, revoke));
        let spared = after && self.rule != Rule::RevokeEndsLaterGrants;
        let device = self.grants[grant].grant.device;
        let dominated = |by: usize| match self.rule {
            Rule::RevokeEndsDevice => self.of_device[device]
                .iter()
                .any(|other| self.dominates(by, *other)),
            _ => self.dominates(by, grant),
        };
        !spared && self.live_at(revoke).any(dominated)
    }

    fn is_live(&self, grant: usize, place: Place) -> bool {
        let given = self.grants[grant].place;
        let started = given.is_none_or(|given| self.world.sees(place, given));
        let revokes = &self.revokes[self.grants[grant].grant.device];
        let mut ending = revokes
            .iter()
            .filter(|revoke| self.state.ended_by[grant].contains(&revoke.0));
        self.state.valid[grant] && started && ending.all(|(revoke, keep)| self.is_kept(place, *revoke, keep))
    }

    fn is_kept(&self, place: Place, revoke: Place, keep: &Keep) -> bool {
        let Keep::Heads(heads) = keep else {
            return !self.world.sees(place, revoke) && self.rule != Rule::UntilSeenIsNow;
        };
        let author = self.world.events[place.0].author;
        heads.iter().any(|head| {
            let of_it = self.world.events[*head].author == author;
            let known = self.world.events[revoke.0].past.contains(*head) || self.rule == Rule::UnseenHeads;
            let within = match self.rule {
                Rule::CutByNumber => self.world.events[place.0].seq <= self.world.events[*head].seq,
                _ => self.world.is_at_or_before(place.0, *head),
            };
            of_it && known && within
        })
    }

    fn outcome(&self) -> Outcome {
        let world = self.world;
        let grants = (0..self.grants.len()).map(|grant| {
            let device = self.grants[grant].grant.device;
            let places = world
                .events_of(device)
                .flat_map(|event| (0..=world.events[event].deeds.len()).map(move |item| (event, item)));
            let live = places.filter(|place| self.state.live[grant][place.0][place.1]);
            self.state.valid[grant].then(|| GrantOutcome {
                rank: self.state.rank[grant].clone(),
                ended_by: self.state.ended_by[grant].clone(),
                live: live.collect(),
            })
        });
        let at = |event: usize| {
            let behind = world.events[event].deeds.len();
            self.summary(self.live_at((event, behind)))
        };
        let from_now_on = |device: usize| {
            let current = |grant: &usize| self.state.valid[*grant] && self.state.ended_by[*grant].is_empty();
            self.summary(self.of_device[device].iter().copied().filter(current))
        };
        Outcome {
            grants: grants.collect(),
            at: (0..world.events.len()).map(at).collect(),
            from_now_on: (0..world.devices).map(from_now_on).collect(),
        }
    }

    /// Returns the strongest of some grants' roles, and what they reach.
    fn summary(&self, grants: impl Iterator<Item = usize>) -> (Option<Role>, u8) {
        grants.fold((None, 0), |(role, reach), grant| {
            let grant = &self.grants[grant].grant;
            let writes = matches!(grant.role, Role::Owner | Role::Admin | Role::Editor);
            let more = if writes { grant.scope.reach() } else { 0 };
            (role.max(Some(grant.role)), reach | more)
        })
    }
}

/// Returns 0 for owners, 1 for admins, 2 for the others.
pub(crate) const fn level(role: Role) -> u8 {
    match role {
        Role::Owner => 0,
        Role::Admin => 1,
        Role::Editor | Role::Viewer => 2,
    }
}
