//! Whether this device's own log is whole.
//!
//! If an old copy of the store was put back, the newest events of this device are known to its peers only. One more event
//! made now would have the number of one that they hold, and they would refuse it and all that follow. So the device makes
//! none, and takes its own events back from its peers, until its log is as long as the folder's journal says. Events that
//! no other member has were never told to anybody, and are given up: their numbers are free.

use crate::ids::{GroupId, ShortId};

use super::SyncEngine;

impl SyncEngine {
    /// Names this device's log: by group and device. `None` without a group.
    #[must_use]
    pub fn own_log_name(&self) -> Option<(GroupId, ShortId)> {
        self.group.as_ref().map(|group| (group.id, self.me.short()))
    }

    /// Says how many events this device has made at least in its group, as far as anything but the store tells. To be
    /// called before [`Input::Start`](super::Input::Start), and when the group has changed.
    pub const fn expect_own_events(&mut self, events: u64) {
        self.own_events = events;
    }

    /// Returns how many of its own events this device lacks; 0 also if it is alone, for nobody could give them back.
    #[must_use]
    pub fn own_events_missing(&self) -> u64 {
        let alone = self
            .group
            .as_ref()
            .is_none_or(|group| group.members().count() < 2);
        if alone {
            return 0;
        }
        self.own_events.saturating_sub(self.own_seq())
    }

    /// Says whether own events are missing that somebody may still have: all members are asked.
    pub(super) fn awaits_own_events(&self) -> bool {
        let everybody = || {
            let mut members = self.group.iter().flat_map(|group| group.members());
            members.all(|(device, ..)| *device == self.me || self.peers.has_caught_up(device))
        };
        self.own_events_missing() > 0 && !everybody()
    }
}
