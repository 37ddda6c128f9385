//! How a device hears that it is a member no more, and what it does then: it leaves its folder as it is, says so, and waits
//! to be admitted again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::admit::read_chain;
use crate::access::LiveGrant;
use crate::encoding::{self, Decoder, ShapeError, array_len, array_of, bytes_of, infallible};
use crate::engine::{MAX_PRESENT_BYTES, Phase, StateView, StoredEvent, SyncEngine};
use crate::ids::{DeviceId, Dot, EventId};
use crate::ledger::{Header, SignedEvent};
use crate::time::{Hlc, Now};

/// Setting: present while others say that this device is a member no more, though its own ledger does not; the events that
/// say so, as an array of [header, signature, body].
const REMOVED: &str = "removed";
/// Removals of others that are shown at most: each takes a look at how its author came in.
const MAX_OTHERS: usize = 64;
/// Events that one setting has at most: more than fit into what shows them.
const MAX_SHOWN: u64 = MAX_PRESENT_BYTES as u64;

impl SyncEngine {
    /// Says whether this device is a member no more, as far as it knows.
    pub(super) fn is_removed(&self) -> bool {
        let ended = |group: &crate::engine::group::Group| {
            group.was_granted(&self.me) && !group.is_member(&self.me) && !self.joining.must_compare
        };
        self.joining.removed.is_some() || self.group.as_ref().is_some_and(ended)
    }

    /// Returns the events that ended a device's grants, with the way of their authors into the group; then, as far as there
    /// is room, the newest others that ended anybody's: the device may have heard of one that they make void.
    pub(super) fn removal_of(&self, device: &DeviceId, view: &impl StateView) -> Vec<SignedEvent> {
        let Some(group) = &self.group else {
            return Vec::new();
        };
        let ended = |grant: &LiveGrant| grant.ended_by.clone();
        let own: BTreeSet<Dot> = group.grants(device).iter().flat_map(ended).collect();
        let all = group.effective_revokes();
        let newest = |end: &Dot| {
            let stored = self.pending.event(view, end.device, end.seq)?;
            Some((header_of(&stored)?.hlc, *end))
        };
        let mut others: Vec<(Hlc, Dot)> = all.difference(&own).filter_map(newest).collect();
        others.sort_unstable_by_key(|other| Reverse(*other));
        let others = others.into_iter().take(MAX_OTHERS).map(|(_, end)| end);
        let ends = own.iter().copied().chain(others);
        let mut events: BTreeMap<(u64, EventId), SignedEvent> = BTreeMap::new();
        let mut room = MAX_PRESENT_BYTES;
        for mut shown in ends.filter_map(|end| self.event_with_way(end, view)) {
            shown.retain(|at, _| !events.contains_key(at));
            let size: usize = shown.values().map(SignedEvent::len).sum();
            if size <= room {
                room -= size;
                events.append(&mut shown);
            }
        }
        self.in_telling_order(events.into_values().collect(), view)
    }

    /// Returns an event and those that lead from genesis to its author's grants, in the order of their hybrid clocks.
    fn event_with_way(
        &self,
        at: Dot,
        view: &impl StateView,
    ) -> Option<BTreeMap<(u64, EventId), SignedEvent>> {
        let stored = self.pending.event(view, at.device, at.seq)?;
        let way = self.chain_events(&stored.author, view);
        let clocked = |stored: StoredEvent| {
            let hlc = header_of(&stored)?.hlc;
            Some(((hlc.bits(), stored.id), stored.event))
        };
        Some(way.into_iter().chain([stored]).filter_map(clocked).collect())
    }

    /// A member shows that this device is one no more.
    pub(super) fn shown_removal(
        &mut self,
        from: DeviceId,
        events: &[SignedEvent],
        now: Now,
        view: &impl StateView,
    ) {
        self.peers.leave_alone(&from, now);
        if self.phase == Phase::Removed || !self.contradicts_nothing(events, view) {
            return;
        }
        let Some(group) = &self.group else { return };
        // Who was admitted again hears of its removal from those who have not heard of that; but not whose state is an old
        // copy, from before it was removed.
        let is_settled = !self.joining.must_compare || self.own_events_missing() > 0;
        if group.is_member(&self.me) && is_settled && self.ends_membership(events) {
            self.joining.removed = Some(events.to_vec());
            self.pending.set_setting(REMOVED, Some(write(events)));
            self.phase = Phase::Removed;
        }
    }

    /// Says whether these events, on top of what is known here, make this device a member no more.
    fn ends_membership(&self, events: &[SignedEvent]) -> bool {
        let group = self.group.as_ref();
        let shown = group.and_then(|group| read_chain(group.id, Some(group), events));
        shown.is_some_and(|shown| !shown.is_member(&self.me))
    }

    /// The ledger says that this device is a member no more, or one again.
    pub(super) fn own_membership_changed(&mut self) {
        // What others showed can turn out to be void.
        let shown = self.joining.removed.take();
        self.joining.removed = shown.filter(|events| self.ends_membership(events));
        if self.phase != Phase::Removed && self.is_removed() {
            self.phase = Phase::Removed;
            self.note_released();
        } else if self.phase == Phase::Removed && !self.is_removed() {
            self.admitted_again();
        }
    }

    /// Others take this device for a member again: it takes the group's ledger, and compares its folder as a joiner does.
    pub(in crate::engine) fn admitted_again(&mut self) {
        self.joining.removed = None;
        self.joining.must_compare = true;
        self.pending.set_setting(REMOVED, None);
        self.phase = Phase::CatchingUp;
        self.keep_join_settings();
        // It was seen with what the device had then, and deletions of it may have been held.
        self.local.forget_seen();
    }
}

fn header_of(stored: &StoredEvent) -> Option<Header> {
    Header::from_bytes(&stored.event.header).ok()
}

/// Returns the events of a removal that the settings tell of and the ledger does not know.
pub(super) fn shown_before(settings: &BTreeMap<String, Vec<u8>>) -> Option<Vec<SignedEvent>> {
    let bytes = settings.get(REMOVED)?;
    Some(read(bytes).unwrap_or_default())
}

fn write(events: &[SignedEvent]) -> Vec<u8> {
    encoding::to_vec(|e| {
        infallible(e.array(events.len() as u64));
        for event in events {
            infallible(e.array(3));
            infallible(e.bytes(&event.header));
            infallible(e.bytes(&event.signature));
            infallible(e.bytes(&event.body));
        }
    })
}

fn read(bytes: &[u8]) -> Result<Vec<SignedEvent>, ShapeError> {
    encoding::check(bytes).map_err(|_| ShapeError::new())?;
    let mut d = Decoder::new(bytes);
    let len = array_len(&mut d)?;
    if len > MAX_SHOWN {
        return Err(ShapeError::new());
    }
    let event = |d: &mut Decoder<'_>| {
        array_of(d, 3)?;
        Ok(SignedEvent {
            header: d.bytes()?.into(),
            signature: bytes_of(d)?,
            body: d.bytes()?.into(),
        })
    };
    (0..len).map(|_| event(&mut d)).collect()
}
