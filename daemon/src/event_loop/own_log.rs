//! Notes of the own log's length, in case an old copy of the store is put back.

use super::EventLoop;
use crate::install_task::DiskCommand;
use crate::journal::OwnLog;

impl EventLoop {
    /// Has the journal remember how long the own log is.
    pub(super) fn note_own_log(&mut self) {
        let journal = &self.services.journal;
        let note = self.own_notes.durable(self.durable, &mut self.engine, |log| {
            journal.own_log(&OwnLog::from(*log)).unwrap_or_default()
        });
        if let Some((log, size)) = note {
            self.to_disk(DiskCommand::OwnLog(log.into(), size));
        }
    }
}
