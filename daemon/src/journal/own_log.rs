//! How many events this device has made, as the folder knows it.
//!
//! The store knows it too, but a store may be an old copy that was put back: then the device would give a number to a
//! second event, and its log would have two branches. The folder's journal, which is not part of such a copy, tells.
//!
//! A note is on disk some time later, and at the latest with each [`SYNC_EVERY`]th event. What a failure of the machine
//! takes of it counts only if an old copy of the store is put back after the same failure.

use p2p_sync_core::ids::{GroupId, ShortId};

use super::record::Record;
use super::{JournalError, JournalService, Sync};

/// Events between two notes that are durable at once.
const SYNC_EVERY: u64 = 64;
/// Logs that are remembered: a device that leaves a group and comes back goes on with its old one.
const MAX_LOGS: usize = 16;

/// Names the log of a device in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLog {
    /// The group.
    pub group: GroupId,
    /// The device; another one if the state was lost and a new key made.
    pub device: ShortId,
}

impl From<(GroupId, ShortId)> for OwnLog {
    fn from((group, device): (GroupId, ShortId)) -> Self {
        Self { group, device }
    }
}

/// Logs with their numbers of events, the one noted last at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnLogs(Vec<(OwnLog, u64)>);

impl OwnLogs {
    /// Returns how many events a log has at least.
    pub(super) fn get(&self, log: &OwnLog) -> u64 {
        let found = self.0.iter().find(|(other, _)| other == log);
        found.map_or(0, |(_, events)| *events)
    }

    /// Takes a note; 0 forgets the log.
    pub(super) fn note(&mut self, log: OwnLog, events: u64) {
        self.0.retain(|(other, _)| *other != log);
        if events > 0 {
            self.0.push((log, events));
        }
        let over = self.0.len().saturating_sub(MAX_LOGS);
        self.0.drain(..over);
    }

    /// Returns the records that say the same.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.0.iter().map(|(log, events)| Record::OwnSeq(*log, *events))
    }
}

impl JournalService {
    /// Notes how many events this device has made, 0 to forget it; durable some time later, see the module. Fewer than
    /// before means that those which nobody has are given up.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn note_own_events(&self, log: OwnLog, events: u64) -> Result<(), JournalError> {
        let mut state = self.lock()?;
        let known = state.own_logs.get(&log);
        if events == known {
            return Ok(());
        }
        let sync = if events < known || events / SYNC_EVERY > known / SYNC_EVERY {
            Sync::Now
        } else {
            Sync::Later
        };
        // First: if the file is rewritten for being long, this is in it.
        state.own_logs.note(log, events);
        self.append(&mut state, &[Record::OwnSeq(log, events)], sync)
    }

    /// Returns how many events this device has made at least.
    ///
    /// # Errors
    /// [`JournalError::Broken`].
    pub fn own_events(&self, log: &OwnLog) -> Result<u64, JournalError> {
        Ok(self.lock()?.own_logs.get(log))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(group: u8, device: u8) -> OwnLog {
        OwnLog {
            group: GroupId::new([group; 32]),
            device: ShortId::new([device; 8]),
        }
    }

    #[test]
    fn notes_outlive_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalService::new(dir.path()).unwrap();
        for events in [1, 2, 90, 70] {
            journal.note_own_events(log(1, 1), events).unwrap();
        }
        journal.note_own_events(log(1, 2), 5).unwrap();
        journal.clear().unwrap();
        drop(journal);
        let journal = JournalService::new(dir.path()).unwrap();
        assert_eq!(journal.own_events(&log(1, 1)).unwrap(), 70);
        assert_eq!(journal.own_events(&log(1, 2)).unwrap(), 5);
        assert_eq!(journal.own_events(&log(2, 1)).unwrap(), 0);
        journal.note_own_events(log(1, 1), 0).unwrap();
        drop(journal);
        let journal = JournalService::new(dir.path()).unwrap();
        assert_eq!(journal.own_events(&log(1, 1)).unwrap(), 0);
        assert_eq!(journal.own_events(&log(1, 2)).unwrap(), 5);
    }

    #[test]
    fn the_logs_noted_last_are_remembered() {
        let mut logs = OwnLogs::default();
        for group in 0..=u8::try_from(MAX_LOGS).unwrap() {
            logs.note(log(group, 0), 9);
            logs.note(log(0, 0), 9);
        }
        assert_eq!(logs.get(&log(0, 0)), 9);
        assert_eq!(logs.get(&log(1, 0)), 0);
        assert_eq!(logs.records().count(), MAX_LOGS);
    }
}
