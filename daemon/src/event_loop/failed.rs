//! What goes on after the store or the journal failed.
//!
//! Nothing is written, installed, published or acknowledged any more, and no failed write is ever tried again as if it
//! might succeed: what the engine still had to say stays unsaid for ever. The process stays, so that `status` can tell
//! why, and so that peers can still read contents; those are checked against their names when they are read. What was
//! durable before is taken up by the next start, as after a crash.

use std::time::Duration;

use tracing::error;

use super::{Channels, EventLoop, LoopError, alive_ticks};
use crate::control::ControlCommand;
use crate::network::NetworkEvent;

/// What a person is to do; the end of every failure's text.
const NEXT_STEP: &str = "nothing is written, installed or published any more. Check the disk (is it full or broken?), then \
                         restart: systemctl restart p2p-sync";

/// Between two snapshots for `status`: little changes any more.
const FAILED_STATUS_INTERVAL: Duration = Duration::from_secs(1);

impl LoopError {
    /// Says whether the process can stay and tell about it.
    pub(crate) const fn is_of_disk(&self) -> bool {
        match self {
            Self::Store(_) | Self::View | Self::Journal(_) => true,
            Self::ServiceEnded(_) => false,
        }
    }
}

impl EventLoop {
    /// Says whether something that had to be durable is not.
    pub(crate) const fn has_failed(&self) -> bool {
        self.fatal.is_some()
    }

    /// Fails if the journal accepts nothing any more.
    pub(super) fn check_journal(&self) -> Result<(), LoopError> {
        self.services
            .journal
            .failure()
            .map_or(Ok(()), |why| Err(LoopError::Journal(why)))
    }

    /// Tells why nothing goes on, until shutdown is asked for.
    pub(crate) async fn run_failed(&mut self, channels: &mut Channels, error: &LoopError) {
        let why = format!("{}; {NEXT_STEP}", crate::error_chain(error));
        error!(error = %why, "The folder is not kept any more");
        self.stand_still(&why);
        let mut status = tokio::time::interval(FAILED_STATUS_INTERVAL);
        let mut alive = alive_ticks();
        loop {
            tokio::select! {
                biased;
                _ = channels.shutdown.changed() => return,
                _ = alive.tick() => crate::service_manager::alive(),
                _ = status.tick() => self.publish_status(),
                Some(command) = channels.control.recv() => self.answer_failed(command),
                Some(question) = channels.judges.recv() => self.judge(question),
                Some(event) = channels.network.recv() => self.serve_only(event),
                Some(_) = channels.fetch.recv() => {}
                Some(_) = channels.disk.recv() => {}
                Some(_) = channels.persisted.recv() => {}
            }
        }
    }

    fn stand_still(&mut self, why: &str) {
        self.services.journal.refuse(why);
        self.services.writer.refuse();
        self.services.fetcher.cancel_all();
        self.fatal = Some(why.to_owned());
        self.publish_status();
        // Whoever waits finds the answer in the status.
        self.waiting.clear();
        crate::service_manager::status(&format!("Failed: {why}"));
    }

    /// Answers what needs no more than the journal or the ledger as it is stored; all else is dropped, and the caller
    /// finds the reason in the status.
    fn answer_failed(&self, command: ControlCommand) {
        match command {
            ControlCommand::GetJournal { reply } => drop(reply.send(Ok(self.journal_summary()))),
            ControlCommand::Ledger(command) => self.read_ledger(command),
            _ => {}
        }
    }

    /// Gives contents to those who ask; all else is left unanswered, since what is believed may not be durable.
    fn serve_only(&self, event: NetworkEvent) {
        if let NetworkEvent::Stream { from, stream } = event {
            self.serve(from, stream);
        }
    }
}
