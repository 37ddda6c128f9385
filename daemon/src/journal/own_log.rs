//! How many events this device has made, as the folder knows it.
//!
//! The store knows it too, but a store may be an old copy that was put back: then the device would give a number to a
//! second event, and its log would have two branches. The folder's journal, which is not part of such a copy, tells.
//!
//! A note is on disk some time later, and at the latest with each [`SYNC_EVERY`]th event. What a failure of the machine
//! takes of it counts only if an old copy of the store is put back after the same failure.

use p2p_sync_core::engine::OwnLogSize;
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

/// Logs with their sizes, the one noted last at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnLogs(Vec<(OwnLog, OwnLogSize)>);

impl OwnLogs {
    /// Returns the size that was noted of a log, of none without a note.
    pub(super) fn get(&self, log: &OwnLog) -> OwnLogSize {
        let found = self.0.iter().find(|(other, _)| other == log);
        found.map_or_else(OwnLogSize::default, |(_, size)| *size)
    }

    /// Takes a note; no events forget the log.
    pub(super) fn note(&mut self, log: OwnLog, size: OwnLogSize) {
        self.0.retain(|(other, _)| *other != log);
        if size.events > 0 {
            self.0.push((log, size));
        }
        let over = self.0.len().saturating_sub(MAX_LOGS);
        self.0.drain(..over);
    }

    /// Returns the records that say the same.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.0.iter().map(|(log, size)| Record::OwnSeq(*log, *size))
    }
}

impl JournalService {
    /// Notes the size of this device's log, without events to forget it; durable some time later, see the module. Fewer
    /// events than before mean that those which nobody has are given up.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn note_own_log(&self, log: OwnLog, size: OwnLogSize) -> Result<(), JournalError> {
        let mut state = self.lock()?;
        let known = state.own_logs.get(&log);
        if size == known {
            return Ok(());
        }
        let due = size.events < known.events
            || size.members != known.members
            || size.events / SYNC_EVERY > known.events / SYNC_EVERY;
        let sync = if due { Sync::Now } else { Sync::Later };
        // First: if the file is rewritten for being long, this is in it.
        state.own_logs.note(log, size);
        self.append(&mut state, &[Record::OwnSeq(log, size)], sync)
    }

    /// Returns the size that this device's log has at least.
    ///
    /// # Errors
    /// [`JournalError::Broken`].
    pub fn own_log(&self, log: &OwnLog) -> Result<OwnLogSize, JournalError> {
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

    fn size(events: u64) -> OwnLogSize {
        OwnLogSize { events, members: 2 }
    }

    #[test]
    fn notes_outlive_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalService::new(dir.path()).unwrap();
        for events in [1, 2, 90, 70] {
            journal.note_own_log(log(1, 1), size(events)).unwrap();
        }
        journal.note_own_log(log(1, 2), size(5)).unwrap();
        journal.clear().unwrap();
        drop(journal);
        let journal = JournalService::new(dir.path()).unwrap();
        assert_eq!(journal.own_log(&log(1, 1)).unwrap(), size(70));
        assert_eq!(journal.own_log(&log(1, 2)).unwrap(), size(5));
        assert_eq!(journal.own_log(&log(2, 1)).unwrap(), OwnLogSize::default());
        journal.note_own_log(log(1, 1), size(0)).unwrap();
        drop(journal);
        let journal = JournalService::new(dir.path()).unwrap();
        assert_eq!(journal.own_log(&log(1, 1)).unwrap(), OwnLogSize::default());
        assert_eq!(journal.own_log(&log(1, 2)).unwrap(), size(5));
    }

    #[test]
    fn the_logs_noted_last_are_remembered() {
        let mut logs = OwnLogs::default();
        for group in 0..=u8::try_from(MAX_LOGS).unwrap() {
            logs.note(log(group, 0), size(9));
            logs.note(log(0, 0), size(9));
        }
        assert_eq!(logs.get(&log(0, 0)), size(9));
        assert_eq!(logs.get(&log(1, 0)), OwnLogSize::default());
        assert_eq!(logs.records().count(), MAX_LOGS);
    }
}
