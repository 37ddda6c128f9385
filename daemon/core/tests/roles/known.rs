//! Who could do what to whom, read off an outcome.

use std::collections::BTreeMap;

use p2p_sync_core::access::Role;

use crate::roles::oracle::level;
use crate::roles::outcome::{GrantOutcome, Outcome, grants};
use crate::roles::world::{Deed, Grant, Place, Set, World};

/// Where a grant was made, and to whom; a Genesis grant has no place.
pub(crate) type Key = (Option<Place>, usize);

/// A world's grants with what came of them.
pub(crate) struct Known<'a> {
    world: &'a World,
    outcome: &'a Outcome,
    pub(crate) grants: Vec<(Option<Place>, Grant)>,
}

impl<'a> Known<'a> {
    pub(crate) fn new(world: &'a World, outcome: &'a Outcome) -> Self {
        Self {
            world,
            outcome,
            grants: grants(world),
        }
    }

    pub(crate) fn valid(&self) -> impl Iterator<Item = (usize, Grant, &GrantOutcome)> {
        let all = self.grants.iter().zip(&self.outcome.grants).enumerate();
        all.filter_map(|(number, ((_, grant), outcome))| Some((number, *grant, outcome.as_ref()?)))
    }

    pub(crate) fn live_at(&self, place: Place) -> impl Iterator<Item = (usize, Grant, &GrantOutcome)> {
        self.valid()
            .filter(move |(.., outcome)| outcome.live.contains(&place))
    }

    /// Returns the grants by whose power a Revoke ends a grant.
    pub(crate) fn ends(&self, revoke: Place, grant: usize) -> impl Iterator<Item = usize> {
        let ended = self.outcome.grants[grant].as_ref();
        let ended = ended.filter(|outcome| outcome.ended_by.contains(&revoke));
        let weak = self.grants[grant].1.role;
        ended.into_iter().flat_map(move |ended| {
            let by = self.live_at(revoke);
            by.filter(move |(_, by, outcome)| dominates((by.role, &outcome.rank), (weak, &ended.rank)))
                .map(|(by, ..)| by)
        })
    }

    /// Returns the events with a Revoke or a Cancel that counts; and with Grants to devices of one short name.
    pub(crate) fn effective_ends(&self) -> Set {
        let counts = |place: Place, deed: &Deed| match deed {
            Deed::Revoke { .. } => self
                .valid()
                .any(|(.., outcome)| outcome.ended_by.contains(&place)),
            Deed::Cancel { key } => self.world.deeds().any(|(_, deed)| match deed {
                Deed::Invite { key: of, role, .. } => {
                    key == of && self.live_at(place).any(|(_, by, _)| by.role.may_give(*role))
                }
                Deed::Grant(_) | Deed::Cancel { .. } | Deed::Revoke { .. } => false,
            }),
            Deed::Grant(grant) => self
                .world
                .twins
                .is_some_and(|twins| grant.device == twins.0 || grant.device == twins.1),
            Deed::Invite { .. } => false,
        };
        self.world
            .deeds()
            .filter(|(place, deed)| counts(*place, deed))
            .map(|(place, _)| place.0)
            .collect()
    }

    /// Says of each grant whether the author of an event may touch it. `without`: what comes of grants without the event.
    pub(crate) fn touchable(&self, event: usize, without: &BTreeMap<Key, Option<GrantOutcome>>) -> Vec<bool> {
        let live_here = |outcome: &GrantOutcome| outcome.live.iter().any(|place| place.0 == event);
        let own: Vec<_> = self.valid().filter(|(.., outcome)| live_here(outcome)).collect();
        let mut touchable: Vec<bool> = vec![false; self.grants.len()];
        let mut let_in: Vec<usize> = Vec::new();
        // A grant is let in later than those that let it in, so one pass finds all.
        for (number, (place, grant)) in self.grants.iter().enumerate() {
            let outcomes = [
                without.get(&(*place, grant.device)).and_then(Option::as_ref),
                self.outcome.grants[number].as_ref(),
            ];
            let dominated = outcomes.iter().flatten().any(|outcome| {
                own.iter()
                    .any(|(_, by, has)| dominates((by.role, &has.rank), (grant.role, &outcome.rank)))
            });
            let by_let_in = |place: Place| {
                let_in.iter().any(|by| {
                    let key = (self.grants[*by].0, self.grants[*by].1.device);
                    let both = [
                        without.get(&key).and_then(Option::as_ref),
                        self.outcome.grants[*by].as_ref(),
                    ];
                    both.iter().flatten().any(|outcome| outcome.live.contains(&place))
                })
            };
            let here = |place: Place| place.0 == event;
            let is_let_in =
                grant.invite.is_some() && place.is_some_and(|place| here(place) || by_let_in(place));
            if is_let_in {
                let_in.push(number);
            }
            touchable[number] = dominated || is_let_in;
        }
        touchable
    }
}

fn dominates(by: (Role, &Vec<(u64, u32)>), weak: (Role, &Vec<(u64, u32)>)) -> bool {
    match (level(by.0), level(weak.0)) {
        (0, 0) => by.1 < weak.1,
        (strong, weak) => strong < weak && strong < 2,
    }
}
