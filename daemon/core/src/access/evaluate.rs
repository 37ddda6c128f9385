//! The evaluation of roles (roles.md 2–4): from the admin events to the grants that count.
//!
//! Owner grants are settled by rank, then admin grants, then the others in an order that respects their pasts. Each
//! looks only at what dominates or precedes it, so one pass settles all, and there is one outcome only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::history::{AdminEvent, Deed, GrantDeed, History, Kept};
use super::rights::{LiveGrant, Position, Rank, Rights, Span, level};
use super::{GrantFlags, Role, Scopes};
use crate::ids::{DeviceId, Dot, ShortId};

/// Ranks of the recovery key and of the first owner.
const RECOVERY: Position = (0, 0);
const FOUNDER: Position = (1, 0);

/// Evaluates a group's admin events.
#[must_use]
pub fn evaluate(history: &History) -> Rights {
    let mut evaluation = Evaluation::new(history);
    evaluation.settle_owners();
    for deeds_of in [1, 2] {
        evaluation.settle_level(deeds_of);
    }
    evaluation.rights
}

/// A deed with its place.
struct At<'a, T> {
    place: Dot,
    event: &'a AdminEvent,
    deed: &'a T,
}

impl<T> Clone for At<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for At<'_, T> {}

struct Evaluation<'a> {
    history: &'a History,
    rights: Rights,
    grants: Vec<At<'a, GrantDeed>>,
    by_author: BTreeMap<DeviceId, Vec<usize>>,
    revokes: BTreeMap<DeviceId, Vec<At<'a, Kept>>>,
    invites: BTreeMap<[u8; 32], Vec<At<'a, Deed>>>,
    cancels: BTreeMap<[u8; 32], Vec<At<'a, Deed>>>,
    events: BTreeMap<(ShortId, u64), &'a AdminEvent>,
}

impl<'a> Evaluation<'a> {
    fn new(history: &'a History) -> Self {
        let mut new = Self {
            history,
            rights: Rights::default(),
            grants: Vec::new(),
            by_author: BTreeMap::new(),
            revokes: BTreeMap::new(),
            invites: BTreeMap::new(),
            cancels: BTreeMap::new(),
            events: history
                .events()
                .map(|event| ((event.log, event.seq), event))
                .collect(),
        };
        for (place, event, deed) in history.deeds() {
            match deed {
                Deed::Grant(grant) => {
                    let of_author = new.by_author.entry(event.author).or_default();
                    of_author.push(new.grants.len());
                    new.grants.push(At {
                        place,
                        event,
                        deed: grant,
                    });
                }
                Deed::Revoke { device, keep } => {
                    let at = At {
                        place,
                        event,
                        deed: keep,
                    };
                    new.revokes.entry(*device).or_default().push(at);
                }
                Deed::Invite { key, .. } => {
                    let at = At { place, event, deed };
                    new.invites.entry(*key).or_default().push(at);
                }
                Deed::Cancel { key } => {
                    let at = At { place, event, deed };
                    new.cancels.entry(*key).or_default().push(at);
                }
            }
        }
        new.forget_twins();
        new
    }

    /// Takes out the grants of devices that share the short form of their names with another: events could not be told
    /// apart. Nobody can make a twin of a device he does not know; who knows it gets none in.
    fn forget_twins(&mut self) {
        let mut devices: BTreeMap<ShortId, BTreeSet<DeviceId>> = BTreeMap::new();
        let founders = [self.history.founder, self.history.recovery];
        let granted = self.grants.iter().map(|grant| grant.deed.device);
        for device in founders.into_iter().chain(granted) {
            devices.entry(device.short()).or_default().insert(device);
        }
        let has_twin = |device: &DeviceId| devices.get(&device.short()).is_some_and(|same| same.len() > 1);
        if !self.grants.iter().any(|grant| has_twin(&grant.deed.device)) {
            return;
        }
        let all = self.grants.clone();
        let is_void = |grant: &At<'a, GrantDeed>| {
            let twin =
                |other: &DeviceId| *other != grant.deed.device && other.short() == grant.deed.device.short();
            founders.iter().any(twin)
                || all.iter().any(|other| {
                    twin(&other.deed.device) && !other.event.has_seen(grant.place, other.place.item)
                })
        };
        for indices in self.by_author.values_mut() {
            indices.retain(|i| !is_void(&all[*i]));
        }
    }

    /// Settles the owner grants by rank. Those that the recovery key made are senior to the founder's own.
    fn settle_owners(&mut self) {
        let mut offered = BTreeSet::new();
        let mut open = BinaryHeap::from([Reverse((vec![RECOVERY], None)), Reverse((vec![FOUNDER], None))]);
        while let Some(Reverse((rank, index))) = open.pop() {
            let device = match index {
                Some(index) => {
                    let At { place, event, deed } = self.grants[index];
                    self.settle(Some((place, event)), deed, rank);
                    deed.device
                }
                None => self.settle_genesis(rank),
            };
            let newest = self.rights.grants(&device).len() - 1;
            open.extend(self.offers(&device, newest, &mut offered).map(Reverse));
        }
    }

    /// Settles the recovery key's or the founder's own grant, and returns whose it is.
    fn settle_genesis(&mut self, rank: Rank) -> DeviceId {
        let is_recovery = rank == [RECOVERY];
        let device = if is_recovery {
            self.history.recovery
        } else {
            self.history.founder
        };
        let genesis = GrantDeed {
            device,
            role: Role::Owner,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
            invite: None,
        };
        self.settle(None, &genesis, rank);
        device
    }

    /// Returns the owner grants that a device made under its grant number `by`, with their ranks, but for those that it
    /// made under a senior grant of its own: as grants are settled by rank, that one has offered them before.
    fn offers(
        &self,
        device: &DeviceId,
        by: usize,
        offered: &mut BTreeSet<usize>,
    ) -> impl Iterator<Item = (Rank, Option<usize>)> + use<> {
        let giver = &self.rights.grants(device)[by];
        let mut offers = Vec::new();
        for index in self.by_author.get(device).into_iter().flatten() {
            let At { place, event, deed } = self.grants[*index];
            let at = (place.seq, place.item);
            let is_given = deed.role == Role::Owner
                && deed.invite.is_none()
                && giver.is_live_at(event.log, at)
                && may_give(giver, deed);
            if is_given && offered.insert(*index) {
                let mut rank = giver.rank.clone();
                rank.push(at);
                offers.push((rank, Some(*index)));
            }
        }
        offers.into_iter()
    }

    /// Settles the grants of a level, whose dominators are settled.
    fn settle_level(&mut self, wanted: u8) {
        let mut indices: Vec<usize> = self.by_author.values().flatten().copied().collect();
        indices.sort_unstable();
        for index in indices {
            let at = self.grants[index];
            if level(at.deed.role) == wanted && self.is_valid(&at) {
                self.settle(Some((at.place, at.event)), at.deed, Rank::new());
            }
        }
    }

    fn is_valid(&self, grant: &At<'a, GrantDeed>) -> bool {
        match &grant.deed.invite {
            None => self.acting(grant).any(|giver| may_give(giver, grant.deed)),
            Some(key) => {
                let redeemer = |by: &LiveGrant| {
                    (by.level() <= 1 || by.flags.admit) && by.level() <= level(grant.deed.role)
                };
                let invites = self.invites.get(key).into_iter().flatten();
                grant.deed.flags == GrantFlags::default()
                    && self.acting(grant).any(redeemer)
                    && invites.into_iter().any(|invite| self.lets_in(invite, grant))
            }
        }
    }

    /// Says whether an invite makes a grant valid.
    fn lets_in(&self, invite: &At<'a, Deed>, grant: &At<'a, GrantDeed>) -> bool {
        let Deed::Invite { key, role, scopes } = invite.deed else {
            return false;
        };
        let fits = *role != Role::Owner && grant.deed.role <= *role && grant.deed.scopes.within(scopes);
        if !fits || !grant.event.has_seen(invite.place, grant.place.item) {
            return false;
        }
        let before = |end: Dot| {
            let event = self.events.get(&(end.device, end.seq));
            event.is_some_and(|event| event.has_seen(grant.place, end.item))
        };
        let inviter = |by: &LiveGrant| {
            by.role.may_give(*role) && scopes.within(&by.scopes) && by.ended_by.iter().all(|end| before(*end))
        };
        let cancelled = |cancel: &At<'a, Deed>| {
            self.acting(cancel).any(|by| by.role.may_give(*role)) && !before(cancel.place)
        };
        self.acting(invite).any(inviter) && !self.cancels.get(key).into_iter().flatten().any(cancelled)
    }

    /// Returns the settled grants under which a deed is done.
    fn acting<T>(&self, at: &At<'a, T>) -> impl Iterator<Item = &LiveGrant> + use<'_, 'a, T> {
        let position = (at.place.seq, at.place.item);
        self.rights.live_at(&at.event.author, at.event.log, position)
    }

    /// Takes a valid grant, whose dominators are settled, and finds for which events it is live.
    fn settle(&mut self, made: Option<(Dot, &AdminEvent)>, deed: &GrantDeed, rank: Rank) {
        let mut grant = LiveGrant {
            place: made.map(|(place, _)| place),
            device: deed.device,
            role: deed.role,
            rank,
            scopes: deed.scopes.clone(),
            flags: deed.flags,
            invite: deed.invite,
            spans: BTreeMap::new(),
            ends: BTreeMap::new(),
            ended_by: Vec::new(),
        };
        let revokes = self.revokes.get(&deed.device).into_iter().flatten();
        let ends: Vec<&At<'a, Kept>> = revokes
            .filter(|revoke| {
                let earlier = made.is_some_and(|(place, event)| event.has_seen(revoke.place, place.item));
                !earlier && self.acting(revoke).any(|by| dominates(by, &grant))
            })
            .collect();
        for log in self.history.logs(&deed.device) {
            let from = match grant.place {
                None => Some((0, 0)),
                Some(place) => self.history.first_seen(log, place),
            };
            let to = ends
                .iter()
                .map(|revoke| self.limit(log, revoke))
                .min()
                .unwrap_or(Span::OPEN);
            grant.ends.insert(log, to);
            if let Some(from) = from.filter(|from| *from < to) {
                grant.spans.insert(log, Span { from, to });
            }
        }
        grant.ended_by = ends.iter().map(|revoke| revoke.place).collect();
        self.rights.add(grant);
    }

    /// Returns where a Revoke ends what counts of a log.
    fn limit(&self, log: ShortId, revoke: &At<'a, Kept>) -> Position {
        match revoke.deed {
            Kept::UntilSeen => self.history.first_seen(log, revoke.place).unwrap_or(Span::OPEN),
            Kept::Points(points) => {
                let known = points.iter().filter(|point| revoke.event.has(**point));
                let reach = known.filter_map(|point| self.history.reach(log, *point));
                (reach.max().unwrap_or(0), 0)
            }
        }
    }
}

/// Says whether the holder of a grant may give another.
fn may_give(giver: &LiveGrant, deed: &GrantDeed) -> bool {
    let flags = match giver.role {
        Role::Owner => true,
        Role::Admin => !deed.flags.archive && !deed.flags.voter,
        Role::Editor | Role::Viewer => false,
    };
    flags && giver.role.may_give(deed.role) && deed.scopes.within(&giver.scopes)
}

/// Says whether a grant may end another.
#[must_use]
pub fn dominates(grant: &LiveGrant, other: &LiveGrant) -> bool {
    let level = grant.level();
    (level < other.level() && level <= 1) || (level == 0 && other.level() == 0 && grant.rank < other.rank)
}
