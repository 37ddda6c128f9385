//! How a device hears that it is a member no more, and what it does then: it leaves its folder as it is, says so, and waits
//! to be admitted again.

use std::collections::{BTreeMap, BTreeSet};

use super::admit::read_chain;
use crate::engine::{MAX_PRESENT_BYTES, Phase, StateView, StoredEvent, SyncEngine};
use crate::ids::{DeviceId, Dot, EventId};
use crate::ledger::SignedEvent;
use crate::time::Now;

/// Setting: present while others say that this device is a member no more, though its own ledger does not.
const REMOVED: &str = "removed";

impl SyncEngine {
    /// Says whether this device is a member no more, as far as it knows.
    pub(super) fn is_removed(&self) -> bool {
        let ended = |group: &crate::engine::group::Group| {
            group.was_granted(&self.me) && !group.is_member(&self.me) && !self.joining.must_compare
        };
        self.joining.removed || self.group.as_ref().is_some_and(ended)
    }

    /// Returns the events that ended a device's grants, with the way of their authors into the group.
    pub(super) fn removal_of(&self, device: &DeviceId, view: &impl StateView) -> Vec<SignedEvent> {
        let Some(group) = &self.group else {
            return Vec::new();
        };
        let mut events: BTreeMap<(u64, EventId), StoredEvent> = BTreeMap::new();
        let mut ends: BTreeSet<Dot> = group
            .grants(device)
            .iter()
            .flat_map(|grant| grant.ended_by.iter().copied())
            .collect();
        if ends.is_empty() {
            // Its grant went with those of whoever gave it.
            ends = group.effective_revokes();
        }
        for end in ends {
            let Some(stored) = self.pending.event(view, end.device, end.seq) else {
                continue;
            };
            let way = self.chain_events(&stored.author, view);
            for stored in way.into_iter().chain([stored]) {
                if let Ok(read) = stored.event.read_stored() {
                    events.insert((read.header.hlc.bits(), stored.id), stored);
                }
            }
        }
        let mut room = MAX_PRESENT_BYTES;
        let fits = |stored: &StoredEvent| {
            let size = stored.event.len();
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        events
            .into_values()
            .take_while(fits)
            .map(|stored| stored.event)
            .collect()
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
        let shown = read_chain(group.id, Some(group), events);
        let removed = shown.is_some_and(|shown| !shown.is_member(&self.me));
        if removed && group.is_member(&self.me) && !self.joining.must_compare {
            self.joining.removed = true;
            self.pending.set_setting(REMOVED, Some(Vec::new()));
            self.phase = Phase::Removed;
        }
    }

    /// The ledger says that this device is a member no more, or one again.
    pub(super) fn own_membership_changed(&mut self) {
        if self.phase != Phase::Removed && self.is_removed() {
            self.phase = Phase::Removed;
        } else if self.phase == Phase::Removed && !self.is_removed() {
            self.admitted_again();
        }
    }

    /// Others take this device for a member again: it takes the group's ledger, and compares its folder as a joiner does.
    pub(in crate::engine) fn admitted_again(&mut self) {
        self.joining.removed = false;
        self.joining.must_compare = true;
        self.pending.set_setting(REMOVED, None);
        self.phase = Phase::CatchingUp;
        self.keep_join_settings();
    }
}

/// Says whether the settings tell of a removal that the ledger does not know of.
pub(super) fn was_removed(settings: &BTreeMap<String, Vec<u8>>) -> bool {
    settings.contains_key(REMOVED)
}
