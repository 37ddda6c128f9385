//! Whether this device's own log is whole.
//!
//! If an old copy of the store was put back, the newest events of this device are known to its peers only. One more event
//! made now would have the number of one that they hold, and they would refuse it and all that follow. So the device makes
//! none, and takes its own events back from its peers, until its log is as long as the folder's journal says. Events that
//! no other member has were never told to anybody, and are given up: their numbers are free.
//!
//! The copy may be of a time before others came to the group. They know this device, and find it; until as many are known
//! as there were, not all have been asked.

use crate::ids::{GroupId, ShortId};

use super::{BatchNo, SyncEngine};

/// How long this device's log is, and how many could have parts of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnLogSize {
    /// Events that this device made.
    pub events: u64,
    /// Members of the group, this device among them.
    pub members: u64,
}

/// What the folder's journal is to know of the own log: how long it is, as far as that is durable. What is not never
/// happened if the machine stops now.
#[derive(Debug, Default)]
pub struct OwnLogNotes {
    /// The log whose size the engine was told to expect.
    told: Option<OwnLogName>,
    /// The log and its size after each batch that is not durable yet.
    issued: Vec<(BatchNo, Option<OwnLogName>, OwnLogSize)>,
    noted: Option<(OwnLogName, OwnLogSize)>,
}

/// Names a device's log: by group and device, which has another name if the state was lost and a new key made.
pub type OwnLogName = (GroupId, ShortId);

impl OwnLogNotes {
    /// Takes the log that the engine was told about before its start.
    #[must_use]
    pub const fn new(told: Option<OwnLogName>) -> Self {
        Self {
            told,
            issued: Vec::new(),
            noted: None,
        }
    }

    /// A batch is on its way to the store.
    pub fn issued(&mut self, no: BatchNo, engine: &SyncEngine) {
        self.issued
            .push((no, engine.own_log_name(), engine.own_log_size()));
    }

    /// All batches up to one are durable: returns what the journal is to note, if that is news. `known` says what the
    /// journal knows of a log; it is asked if the device has come into a group, in which it may have been before.
    pub fn durable(
        &mut self,
        no: BatchNo,
        engine: &mut SyncEngine,
        known: impl FnOnce(&OwnLogName) -> OwnLogSize,
    ) -> Option<(OwnLogName, OwnLogSize)> {
        let durable = self
            .issued
            .iter()
            .take_while(|(issued, ..)| *issued <= no)
            .count();
        let (_, log_then, size) = self.issued.drain(..durable).next_back()?;
        let log = engine.own_log_name();
        if log != self.told {
            self.told = log;
            engine.expect_own_log(log.as_ref().map(known).unwrap_or_default());
        }
        // A batch of the group that was left says nothing of the log in the group that was joined.
        let log = log.filter(|log| log_then.as_ref() == Some(log))?;
        let note = (log, size);
        if self.noted == Some(note) || engine.own_events_missing() > 0 {
            return None;
        }
        self.noted = Some(note);
        Some(note)
    }
}

impl SyncEngine {
    /// Names this device's log. `None` without a group.
    #[must_use]
    pub fn own_log_name(&self) -> Option<OwnLogName> {
        self.group.as_ref().map(|group| (group.id, self.me.short()))
    }

    /// Returns the size of this device's log, made durable or not.
    #[must_use]
    pub fn own_log_size(&self) -> OwnLogSize {
        OwnLogSize {
            events: self.own_seq(),
            members: self.members_count(),
        }
    }

    fn members_count(&self) -> u64 {
        self.group
            .as_ref()
            .map_or(0, |group| group.members().count() as u64)
    }

    /// Says what size this device's log in its group had once, as far as anything but the store tells. To be called
    /// before [`Input::Start`](super::Input::Start), and when the group has changed.
    pub const fn expect_own_log(&mut self, size: OwnLogSize) {
        self.expected_log = size;
    }

    /// Returns how many of its own events this device lacks; 0 also if it is alone, for nobody could give them back.
    #[must_use]
    pub fn own_events_missing(&self) -> u64 {
        if self.members_count().max(self.expected_log.members) < 2 {
            return 0;
        }
        self.expected_log.events.saturating_sub(self.own_seq())
    }

    /// Says whether own events are missing that somebody may still have: all members are asked.
    pub(super) fn awaits_own_events(&self) -> bool {
        let everybody = || {
            let mut members = self.group.iter().flat_map(|group| group.members());
            let asked = members.all(|(device, ..)| *device == self.me || self.peers.has_caught_up(device));
            asked && self.members_count() >= self.expected_log.members
        };
        self.own_events_missing() > 0 && !everybody()
    }
}
