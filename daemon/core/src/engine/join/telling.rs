//! The order in which admin events are shown to a device that has not the logs they stand in.
//!
//! Who reads them ([`read_chain`](super::admit::read_chain)) cannot look up what an author had heard of, and takes it that he
//! knew of what came before his event and concerned him. The hybrid clocks do not say that: a device may have been lowered
//! by an earlier clock in an event that it had not heard of. So what takes rights from a device is shown after those of
//! its events that had not heard of it. Where two took each other's rights, no order can say so; the clocks decide then.

use std::collections::BTreeMap;

use crate::access::{AdminEvent, Deed};
use crate::engine::SyncEngine;
use crate::ids::EventId;
use crate::ledger::SignedEvent;

impl SyncEngine {
    /// Returns events, which come in the order of their hybrid clocks, in the order of telling.
    pub(super) fn in_telling_order(&self, events: Vec<SignedEvent>) -> Vec<SignedEvent> {
        let Some(group) = &self.group else {
            return events;
        };
        let all: BTreeMap<EventId, &AdminEvent> =
            group.admin_events().map(|event| (event.id, event)).collect();
        let known: Vec<Option<&AdminEvent>> =
            events.iter().map(|event| all.get(&event.id()).copied()).collect();
        order(&known)
            .into_iter()
            .filter_map(|at| events.get(at).cloned())
            .collect()
    }
}

/// Returns the places of events in the order of telling; those that are not known stay where they are as far as possible.
fn order(events: &[Option<&AdminEvent>]) -> Vec<usize> {
    let both = |a: usize, b: usize| Some((events[a]?, events[b]?));
    let follows = |a, b| a != b && both(a, b).is_some_and(|(a, b)| has_seen(a, b));
    let waits = |a, b| a != b && both(a, b).is_some_and(|(a, b)| takes_unheard(a, b));
    let count = |a: usize, of: &dyn Fn(usize, usize) -> bool| (0..events.len()).filter(|b| of(a, *b)).count();
    let mut left: Vec<(usize, usize, usize)> = (0..events.len())
        .map(|a| (a, count(a, &follows), count(a, &waits)))
        .collect();
    let mut told = Vec::with_capacity(events.len());
    while !left.is_empty() {
        let free = left
            .iter()
            .position(|(_, follows, waits)| *follows == 0 && *waits == 0);
        let next = free.or_else(|| left.iter().position(|(_, follows, _)| *follows == 0));
        let (at, ..) = left.remove(next.unwrap_or(0));
        for (other, before, later) in &mut left {
            *before -= usize::from(follows(*other, at));
            *later -= usize::from(waits(*other, at));
        }
        told.push(at);
    }
    told
}

/// Says whether the author of `event` had `other`.
fn has_seen(event: &AdminEvent, other: &AdminEvent) -> bool {
    if event.log == other.log {
        return other.seq < event.seq;
    }
    event.seen.get(&other.log).is_some_and(|next| *next > other.seq)
}

/// Says whether `event` takes rights from the author of `other`, and neither had heard of the other.
fn takes_unheard(event: &AdminEvent, other: &AdminEvent) -> bool {
    let takes = event.deeds.iter().any(|(_, deed)| match deed {
        Deed::Revoke { device, .. } => *device == other.author,
        Deed::Grant(_) | Deed::Invite { .. } | Deed::Cancel { .. } => false,
    });
    takes && !has_seen(event, other) && !has_seen(other, event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Kept;
    use crate::ids::{DeviceId, ShortId};
    use crate::time::Hlc;

    fn event(by: u8, seq: u64, seen: &[(u8, u64)], takes: &[u8]) -> AdminEvent {
        let device = |n: u8| DeviceId::new([n; 32]);
        let revoke = |n: &u8| {
            let device = device(*n);
            (
                0,
                Deed::Revoke {
                    device,
                    keep: Kept::UntilSeen,
                },
            )
        };
        AdminEvent {
            id: EventId::new([by.wrapping_mul(16) + u8::try_from(seq).unwrap(); 32]),
            hlc: Hlc::from_bits(seq),
            author: device(by),
            log: device(by).short(),
            seq,
            seen: seen
                .iter()
                .map(|(n, next)| (device(*n).short(), *next))
                .collect::<BTreeMap<ShortId, u64>>(),
            deeds: takes.iter().map(revoke).collect(),
        }
    }

    fn told(events: &[AdminEvent]) -> Vec<usize> {
        order(&events.iter().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn what_takes_rights_is_told_after_what_had_not_heard_of_it() {
        let lowered = event(1, 1, &[], &[2]);
        let unheard = event(2, 0, &[(1, 1)], &[3]);
        assert_eq!(told(&[lowered.clone(), unheard.clone()]), [1, 0]);
        assert_eq!(told(&[unheard, lowered]), [0, 1]);
    }

    #[test]
    fn what_had_heard_of_it_is_told_after_it() {
        let lowered = event(1, 1, &[], &[2]);
        let heard = event(2, 0, &[(1, 2)], &[3]);
        assert_eq!(told(&[lowered, heard]), [0, 1]);
    }

    #[test]
    fn the_past_of_an_event_is_told_before_it() {
        let lowered = event(1, 1, &[], &[2]);
        let after_it = event(1, 2, &[], &[]);
        let unheard = event(2, 0, &[(1, 1)], &[]);
        assert_eq!(told(&[lowered, after_it, unheard]), [2, 0, 1]);
    }

    #[test]
    fn two_who_take_each_others_rights_keep_the_order_of_their_clocks() {
        let one = event(1, 1, &[], &[2]);
        let other = event(2, 1, &[], &[1]);
        assert_eq!(told(&[one, other]), [0, 1]);
    }
}
