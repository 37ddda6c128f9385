//! What must hold for every world. A check returns how often it had something to say, or what is wrong.

use std::collections::BTreeMap;

use crate::roles::generate::{Rng, add_unaware};
use crate::roles::known::{Key, Known};
use crate::roles::oracle::solve;
use crate::roles::outcome::{Arrival, GrantOutcome, Outcome, grants};
use crate::roles::rule::Rule;
use crate::roles::world::{Deed, EVENTS_MAX, Keep, Place, Set, World};

/// Whoever evaluates a world.
pub(crate) type Judge<'a> = &'a dyn Fn(&World) -> Result<Outcome, String>;

/// A property.
pub(crate) type Check = fn(Judge<'_>, &World, &mut Rng) -> Result<usize, String>;

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
            Deed::Grant(_) | Deed::Invite { .. } | Deed::Cancel { .. } => None,
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
/// a Revoke or a Cancel that counts.
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
