//! Notes of the own log's length, in case an old copy of the store is put back.

use p2p_sync_core::engine::{BatchNo, OwnLogSize};

use super::EventLoop;
use crate::install_task::DiskCommand;
use crate::journal::OwnLog;

/// The own log as it is issued and as the journal was told of it.
#[derive(Debug, Default)]
pub(super) struct OwnNotes {
    /// Which log the engine was told about.
    log: Option<OwnLog>,
    /// Its size after each batch that is not durable yet; only what is durable is noted, for the rest never happened if
    /// the machine stops now.
    issued: Vec<(BatchNo, OwnLogSize)>,
    noted: Option<(OwnLog, OwnLogSize)>,
}

impl OwnNotes {
    /// Takes the log that the engine was told about before its start.
    pub(super) const fn new(log: Option<OwnLog>) -> Self {
        Self {
            log,
            issued: Vec::new(),
            noted: None,
        }
    }
}

impl EventLoop {
    /// Remembers how long the own log is with a batch.
    pub(super) fn own_log_issued(&mut self, no: BatchNo) {
        self.own_notes.issued.push((no, self.engine.own_log_size()));
    }

    /// Has the journal remember how long the own log is. If it is in another group now, in which it was
    /// before, the engine learns how many it made there.
    pub(super) fn note_own_log(&mut self) {
        let durable = self.durable;
        let own = &mut self.own_notes;
        let durable_too = own.issued.iter().take_while(|(no, _)| *no <= durable).count();
        let Some((_, size)) = own.issued.drain(..durable_too).next_back() else {
            return;
        };
        let log = self.engine.own_log_name().map(OwnLog::from);
        if log != own.log {
            own.log = log;
            let known = log.map(|log| self.services.journal.own_log(&log));
            self.engine
                .expect_own_log(known.and_then(Result::ok).unwrap_or_default());
        }
        let Some(log) = log else { return };
        let note = Some((log, size));
        if note != own.noted && self.engine.own_events_missing() == 0 {
            own.noted = note;
            self.to_disk(DiskCommand::OwnLog(log, size));
        }
    }
}
