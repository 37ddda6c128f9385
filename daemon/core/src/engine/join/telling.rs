//! The order in which admin events are shown to a device that has not the logs they stand in.
//!
//! Who reads them ([`read_chain`](super::admit::read_chain)) cannot look up what an author had heard of, and takes it that he
//! knew of what came before his event and concerned him. The hybrid clocks do not say that: a device may have been lowered
//! by an earlier clock in an event that it had not heard of. So what takes rights from a device is shown after those of
//! its events that had not heard of it. Where two took each other's rights, no order can say so; the clocks decide then.
//! Nor does an order say that somebody gave rights after he had heard that another had taken them: that event of his is
//! shown, too, whose header says that he had.

use std::collections::BTreeMap;

use super::admit::takes_rights;
use crate::access::{AdminEvent, Deed};
use crate::engine::{MAX_PRESENT_BYTES, StateView, SyncEngine};
use crate::ids::{EventId, ShortId};
use crate::ledger::{Header, SignedEvent};

/// Events that are looked through for those that say what their author had heard of; people give rights soon after they
/// heard of what they answer.
const MAX_READ: usize = 4_096;

impl SyncEngine {
    /// Returns events, which come in the order of their hybrid clocks, in the order of telling.
    pub(super) fn in_telling_order(
        &self,
        events: Vec<SignedEvent>,
        view: &impl StateView,
    ) -> Vec<SignedEvent> {
        let Some(group) = &self.group else {
            return events;
        };
        let all: BTreeMap<EventId, &AdminEvent> =
            group.admin_events().map(|event| (event.id, event)).collect();
        let known: Vec<Option<&AdminEvent>> =
            events.iter().map(|event| all.get(&event.id()).copied()).collect();
        let ordered = order(&known);
        let told = ordered
            .into_iter()
            .filter_map(|at| Some((events.get(at)?.clone(), *known.get(at)?)));
        self.with_what_was_heard(told.collect(), view)
    }

    /// Puts before each event those that say that its author had heard of what took rights, as far as there is room.
    fn with_what_was_heard(
        &self,
        told: Vec<(SignedEvent, Option<&AdminEvent>)>,
        view: &impl StateView,
    ) -> Vec<SignedEvent> {
        let takers: Vec<&AdminEvent> = told
            .iter()
            .filter_map(|(event, known)| known.filter(|_| takes(event)))
            .collect();
        let size: usize = told.iter().map(|(event, _)| event.len()).sum();
        let mut room = MAX_PRESENT_BYTES.saturating_sub(size);
        let mut reads = MAX_READ;
        let mut said: BTreeMap<ShortId, BTreeMap<ShortId, u64>> = BTreeMap::new();
        let mut all = Vec::with_capacity(told.len());
        for (event, known) in told {
            let Some(known) = known else {
                all.push(event);
                continue;
            };
            let own = said.entry(known.log).or_default();
            note_said(own, &event);
            for taker in &takers {
                let is_said = own.get(&taker.log).is_some_and(|next| *next > taker.seq);
                if is_said || known.log == taker.log || !has_seen(known, taker) {
                    continue;
                }
                let found = self.where_heard(known, taker, &mut reads, view);
                if let Some(found) = found.filter(|found| found.len() <= room) {
                    room -= found.len();
                    note_said(own, &found);
                    all.push(found);
                }
            }
            all.push(event);
        }
        all
    }

    /// Returns the event in whose header the author of `event` says that he had `taker`.
    fn where_heard(
        &self,
        event: &AdminEvent,
        taker: &AdminEvent,
        reads: &mut usize,
        view: &impl StateView,
    ) -> Option<SignedEvent> {
        for seq in (0..event.seq).rev() {
            *reads = reads.checked_sub(1)?;
            let stored = self.pending.event(view, event.log, seq)?;
            if says(&stored.event, taker) && !takes(&stored.event) {
                return Some(stored.event);
            }
        }
        None
    }
}

/// Says whether an event takes rights from anybody.
fn takes(event: &SignedEvent) -> bool {
    let read = event.read_stored();
    read.is_ok_and(|read| read.body.items.iter().any(takes_rights))
}

/// Says whether an event's own header says that its author had `other`.
fn says(event: &SignedEvent, other: &AdminEvent) -> bool {
    let header = Header::from_bytes(&event.header);
    header.is_ok_and(|header| {
        let mut seen = header.seen.iter();
        seen.any(|seen| seen.device == other.log && seen.next_seq > other.seq)
    })
}

/// Notes what an event's header says that its author had.
fn note_said(said: &mut BTreeMap<ShortId, u64>, event: &SignedEvent) {
    for seen in Header::from_bytes(&event.header)
        .iter()
        .flat_map(|header| &header.seen)
    {
        let known = said.entry(seen.device).or_default();
        *known = seen.next_seq.max(*known);
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
