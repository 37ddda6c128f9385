//! What must hold for every world. A check returns how often it had something to say, or what is wrong.

use std::collections::BTreeMap;

use p2p_sync_core::access::Role;

use crate::roles::generate::{Rng, add_unaware};
use crate::roles::oracle::{Rule, level, solve};
use crate::roles::outcome::{Arrival, GrantOutcome, Outcome, grants};
use crate::roles::world::{Deed, EVENTS_MAX, Grant, Keep, Place, Set, World};

/// Whoever evaluates a world.
pub(crate) type Judge<'a> = &'a dyn Fn(&World) -> Result<Outcome, String>;

/// A property.
pub(crate) type Check = fn(Judge<'_>, &World, &mut Rng) -> Result<usize, String>;

/// Where a grant was made, and to whom; a Genesis grant has no place.
type Key = (Option<Place>, usize);

/// Events that [`add_unaware`] may add, and the one that it is not aware of.
const ADDED_MAX: usize = 8;

/// Invariant 22.
pub(crate) fn equals_the_oracle(judge: Judge<'_>, world: &World, _: &mut Rng) -> Result<usize, String> {
    let Some(expected) = solve(world, Rule::Design) else {
        return Err("the rules have no solution, or more than one".to_owned());
    };
    same(&expected, &judge(world)?)?;
    Ok(1)
}

/// Invariant 1: neither the order in which events arrive counts, nor which branch of a log is taken for the first.
pub(crate) fn order_of_arrival_does_not_matter(
    judge: Judge<'_>,
    world: &World,
    rng: &mut Rng,
) -> Result<usize, String> {
    let expected = judge(world)?;
    for _ in 0..2 {
        let order = order_of_arrival(world, rng);
        let outcome = Arrival::new(world, &order, rng.next()).outcome(world)?;
        same(&expected, &outcome)
            .map_err(|difference| format!("{difference} if they arrive as {order:?}"))?;
    }
    Ok(usize::from(
        (0..world.devices).any(|device| world.heads(device).len() > 1),
    ))
}

/// Invariant 21: of two concurrent Revokes, never does each end a grant under which the other was made and counts.
pub(crate) fn no_two_revokes_end_each_other(
    judge: Judge<'_>,
    world: &World,
    _: &mut Rng,
) -> Result<usize, String> {
    let outcome = judge(world)?;
    let known = Known::new(world, &outcome);
    let mut pairs = 0;
    let revokes: Vec<(Place, usize)> = world
        .deeds()
        .filter_map(|(place, deed)| match deed {
            Deed::Revoke { device, .. } => Some((place, *device)),
            Deed::Grant(_) | Deed::Invite { .. } | Deed::Cancel { .. } | Deed::Pin { .. } => None,
        })
        .collect();
    for (one, of_other) in &revokes {
        let ends = known
            .valid()
            .any(|(grant, ..)| known.ends(*one, grant).next().is_some());
        let listed = known.valid().any(|(.., outcome)| outcome.ended_by.contains(one));
        if ends != listed {
            return Err(format!(
                "the Revoke {one:?} ends {listed}, but there is power to {ends}"
            ));
        }
        for (other, of_one) in &revokes {
            let mutual = world.events[one.0].author == *of_one && world.events[other.0].author == *of_other;
            if !mutual || world.sees(*one, *other) || world.sees(*other, *one) || one == other {
                continue;
            }
            pairs += 1;
            let under = |revoke: Place, grant: usize| known.ends(revoke, grant).collect::<Vec<_>>();
            for (grant, ..) in known.valid() {
                for back in under(*one, grant) {
                    if under(*other, back).contains(&grant) {
                        return Err(format!("{one:?} and {other:?} end each other"));
                    }
                }
            }
        }
    }
    Ok(pairs)
}

/// Invariant 10: whoever does not have some events judges all others as those do who have them, if none of the events is
/// a Revoke, a Pin or a Cancel that counts.
pub(crate) fn only_ends_change_what_was(
    judge: Judge<'_>,
    world: &World,
    rng: &mut Rng,
) -> Result<usize, String> {
    let outcome = judge(world)?;
    let ends = Known::new(world, &outcome).effective_ends();
    let keep_percent = rng.below(60);
    let some = (0..world.events.len()).filter(|event| ends.contains(*event) || rng.chance(keep_percent));
    let mut prefix = world.closure(some.collect());
    loop {
        let wider = world.closure(
            prefix
                .iter()
                .flat_map(|event| referred(&world.events[event].deeds))
                .collect(),
        );
        if wider.union(prefix) == prefix {
            break;
        }
        prefix = prefix.union(wider);
    }
    let (shorter, renamed) = world.restricted(prefix);
    let before = judge(&shorter)?;
    let old: BTreeMap<Key, Option<GrantOutcome>> = by_place(world, &outcome)
        .into_iter()
        .filter_map(|(key, outcome)| Some((rename(&renamed, key)?, outcome)))
        .map(|(key, outcome)| (key, outcome.map(|outcome| restrict(&renamed, outcome))))
        .collect();
    for (place, was) in by_place(&shorter, &before) {
        if old.get(&place) != Some(&was) {
            return Err(format!(
                "the grant {place:?} of {prefix:?} was {was:?} and is {:?}",
                old.get(&place)
            ));
        }
    }
    Ok(usize::from(shorter.events.len() < world.events.len()))
}

/// Invariant 24: an event without its items leaves all grants as they were, but for those that some grant of its author
/// that is live at it dominates, and those that it let in by invites, or that these let in.
pub(crate) fn an_event_touches_only_what_its_author_may_touch(
    judge: Judge<'_>,
    world: &World,
    rng: &mut Rng,
) -> Result<usize, String> {
    let mut world = world.clone();
    world.twins = None;
    let with = judge(&world)?;
    let candidates: Vec<usize> = (0..world.events.len())
        .filter(|event| !world.events[*event].deeds.is_empty())
        .collect();
    let mut changes = 0;
    for _ in 0..4 {
        let Some(event) = rng.pick(&candidates) else {
            return Ok(0);
        };
        let without_items = world.blanked(event);
        let without = by_place(&without_items, &judge(&without_items)?);
        let known = Known::new(&world, &with);
        let touchable = known.touchable(event, &without);
        for (grant, (place, given)) in known.grants.iter().enumerate() {
            let key = (*place, given.device);
            let here = place.is_some_and(|place| place.0 == event);
            let is_same = elsewhere(event, without.get(&key).cloned().flatten())
                == elsewhere(event, with.grants[grant].clone());
            changes += usize::from(!is_same && !here);
            if !here && !is_same && !touchable[grant] {
                let (was, is) = (without.get(&key), &with.grants[grant]);
                return Err(format!(
                    "event {event} touches the grant {place:?}: {was:?}, with it {is:?}"
                ));
            }
        }
    }
    Ok(changes)
}

/// Devices whose grants somebody has all ended do what they like, back-date it, fork, and work together: nothing that
/// lies beyond the cut counts, and nothing else changes.
pub(crate) fn revoked_devices_regain_nothing(
    judge: Judge<'_>,
    world: &World,
    rng: &mut Rng,
) -> Result<usize, String> {
    if world.events.len() + ADDED_MAX > EVENTS_MAX {
        return Ok(0);
    }
    let mut world = world.clone();
    world.twins = None;
    let everything: Set = (0..world.events.len()).collect();
    let author = rng.below(world.devices);
    let mut targets: Vec<usize> = (0..world.devices)
        .filter(|device| *device != author && rng.chance(40))
        .collect();
    let deeds = targets.iter().map(|device| {
        let own: Vec<usize> = world.events_of(*device).collect();
        let heads = (0..rng.below(3)).filter_map(|_| rng.pick(&own)).collect();
        Deed::Revoke {
            device: *device,
            keep: Keep::Heads(heads),
        }
    });
    let deeds = deeds.collect();
    let prev = world.events_of(author).last();
    let revoke = world.add(author, prev, everything, deeds);
    let before = judge(&world)?;
    let known = Known::new(&world, &before);
    targets.retain(|device| {
        let mut of_it = known.valid().filter(|(_, grant, _)| grant.device == *device);
        of_it.all(|(.., outcome)| outcome.ended_by.iter().any(|place| place.0 == revoke))
    });
    if targets.is_empty() {
        return Ok(0);
    }
    let had_power = known.valid().any(|(_, grant, _)| targets.contains(&grant.device));
    let extended = add_unaware(&world, &targets, revoke, rng);
    let after = judge(&extended)?;
    let was = by_place(&world, &before);
    for (place, is) in by_place(&extended, &after) {
        if was.get(&place).unwrap_or(&None) != &is {
            let was = was.get(&place);
            return Err(format!(
                "{targets:?}, revoked by {revoke}, changed the grant {place:?}: {was:?}, now {is:?}"
            ));
        }
    }
    Ok(usize::from(had_power))
}

/// A world's grants with what came of them.
struct Known<'a> {
    world: &'a World,
    outcome: &'a Outcome,
    grants: Vec<(Option<Place>, Grant)>,
}

impl<'a> Known<'a> {
    fn new(world: &'a World, outcome: &'a Outcome) -> Self {
        Self {
            world,
            outcome,
            grants: grants(world),
        }
    }

    fn valid(&self) -> impl Iterator<Item = (usize, Grant, &GrantOutcome)> {
        let all = self.grants.iter().zip(&self.outcome.grants).enumerate();
        all.filter_map(|(number, ((_, grant), outcome))| Some((number, *grant, outcome.as_ref()?)))
    }

    fn live_at(&self, place: Place) -> impl Iterator<Item = (usize, Grant, &GrantOutcome)> {
        self.valid()
            .filter(move |(.., outcome)| outcome.live.contains(&place))
    }

    /// Returns the grants by whose power a Revoke ends a grant.
    fn ends(&self, revoke: Place, grant: usize) -> impl Iterator<Item = usize> {
        let ended = self.outcome.grants[grant].as_ref();
        let ended = ended.filter(|outcome| outcome.ended_by.contains(&revoke));
        let weak = self.grants[grant].1.role;
        ended.into_iter().flat_map(move |ended| {
            let by = self.live_at(revoke);
            by.filter(move |(_, by, outcome)| dominates((by.role, &outcome.rank), (weak, &ended.rank)))
                .map(|(by, ..)| by)
        })
    }

    /// Returns the events with a Revoke, a Pin or a Cancel that counts; and with Grants to devices of one short name.
    fn effective_ends(&self) -> Set {
        let counts = |place: Place, deed: &Deed| match deed {
            Deed::Revoke { .. } => self
                .valid()
                .any(|(.., outcome)| outcome.ended_by.contains(&place)),
            Deed::Cancel { key } => self.world.deeds().any(|(_, deed)| match deed {
                Deed::Invite { key: of, role, .. } => {
                    key == of && self.live_at(place).any(|(_, by, _)| by.role.may_give(*role))
                }
                Deed::Grant(_) | Deed::Cancel { .. } | Deed::Revoke { .. } | Deed::Pin { .. } => false,
            }),
            Deed::Pin { device, keep } => {
                let known = self.world.events[place.0].past.contains(*keep);
                let mut pinned = self.valid().filter(|(_, grant, _)| grant.device == *device);
                known
                    && self.world.events[*keep].author == *device
                    && pinned.any(|(_, grant, outcome)| {
                        let weak = (grant.role, &outcome.rank);
                        self.live_at(place)
                            .any(|(_, by, outcome)| dominates((by.role, &outcome.rank), weak))
                    })
            }
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
    fn touchable(&self, event: usize, without: &BTreeMap<Key, Option<GrantOutcome>>) -> Vec<bool> {
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

fn by_place(world: &World, outcome: &Outcome) -> BTreeMap<Key, Option<GrantOutcome>> {
    let keys = grants(world)
        .into_iter()
        .map(|(place, grant)| (place, grant.device));
    keys.zip(outcome.grants.iter().cloned()).collect()
}

fn rename(renamed: &[Option<usize>], key: Key) -> Option<Key> {
    match key {
        (None, _) => Some(key),
        (Some((event, item)), device) => Some((Some((renamed[event]?, item)), device)),
    }
}

/// Returns what of an outcome does not lie in an event.
fn elsewhere(event: usize, outcome: Option<GrantOutcome>) -> Option<GrantOutcome> {
    outcome.map(|mut outcome| {
        outcome.live.retain(|place| place.0 != event);
        outcome
    })
}

/// Returns what of an outcome lies in a shorter world.
fn restrict(renamed: &[Option<usize>], outcome: GrantOutcome) -> GrantOutcome {
    let within = |(event, item): Place| Some((renamed[event]?, item));
    GrantOutcome {
        rank: outcome.rank,
        ended_by: outcome.ended_by.into_iter().filter_map(within).collect(),
        live: outcome.live.into_iter().filter_map(within).collect(),
    }
}

/// Returns the events that items name.
fn referred(deeds: &[Deed]) -> Vec<usize> {
    let named = deeds.iter().flat_map(|deed| match deed {
        Deed::Pin { keep, .. } => vec![*keep],
        Deed::Revoke {
            keep: Keep::Heads(heads),
            ..
        } => heads.clone(),
        Deed::Revoke { .. } | Deed::Grant(_) | Deed::Invite { .. } | Deed::Cancel { .. } => Vec::new(),
    });
    named.collect()
}

/// Returns an order in which the events may arrive.
fn order_of_arrival(world: &World, rng: &mut Rng) -> Vec<usize> {
    let mut left: Vec<usize> = (0..world.events.len()).collect();
    let mut order = Vec::new();
    let mut arrived = Set::default();
    while !left.is_empty() {
        let may = |event: &usize| world.events[*event].past.union(arrived) == arrived;
        let next: Vec<usize> = left.iter().copied().filter(may).collect();
        let event = rng
            .pick(&next)
            .expect("events stand in an order that respects pasts");
        left.retain(|other| *other != event);
        arrived.insert(event);
        order.push(event);
    }
    order
}

/// Compares two outcomes, and says where they first differ.
fn same(expected: &Outcome, actual: &Outcome) -> Result<(), String> {
    let grants = expected.grants.iter().zip(&actual.grants).enumerate();
    for (number, (expected, actual)) in grants {
        if expected != actual {
            return Err(format!("grant {number} should be {expected:?}, is {actual:?}"));
        }
    }
    let events = expected.at.iter().zip(&actual.at).enumerate();
    for (number, (expected, actual)) in events {
        if expected != actual {
            return Err(format!(
                "at event {number} its author should have {expected:?}, has {actual:?}"
            ));
        }
    }
    if expected.from_now_on != actual.from_now_on {
        let (expected, actual) = (&expected.from_now_on, &actual.from_now_on);
        return Err(format!(
            "from now on the devices should have {expected:?}, have {actual:?}"
        ));
    }
    Ok(())
}
