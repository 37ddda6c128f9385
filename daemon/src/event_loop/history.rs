//! What the tasks that read and restore versions want done.

use p2p_sync_core::engine::{CommandError, FetchFailure, FetchJob, FolderState};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::ignore::IgnoreRules as _;
use p2p_sync_core::rel_path::RelPath;

use super::EventLoop;
use crate::control::{ControlError, QuarantineCommand};
use crate::history::Ask;
use crate::install_task::DiskCommand;

impl EventLoop {
    pub(super) fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Get { content, size, reply } => {
                self.wanted.add(content, reply);
                let peers = self.engine.status().peers;
                let members = peers
                    .into_iter()
                    .filter(|peer| peer.connected && peer.role.is_some());
                let from = members.map(|peer| peer.device).collect();
                self.services
                    .fetcher
                    .fetch(vec![FetchJob { content, size, from }]);
            }
            Ask::Release(content) => {
                if self.wanted.release(&content) && !self.engine.uses_content(&content) {
                    self.drop_content(vec![content]);
                }
            }
            Ask::Restore { jobs, reply } => self.to_disk(DiskCommand::Restore { jobs, reply }),
            Ask::Rescan(paths) => self.rescan(paths),
        }
    }

    /// Says why versions cannot be restored on this device; `None` if they can.
    pub(super) fn may_not_restore(&self) -> Option<ControlError> {
        let status = self.engine.status();
        match status.role {
            None => Some(CommandError::NoGroup.into()),
            Some(role) if !role.may_write() => Some(CommandError::NotAllowed.into()),
            // Until the first scan is over a change could be taken for an old copy.
            Some(_) if matches!(status.state, FolderState::Starting | FolderState::Scanning) => {
                Some(ControlError::NotReady)
            }
            Some(_) => None,
        }
    }

    /// Hands on what is asked about the quarantine.
    pub(super) fn quarantine(&self, command: QuarantineCommand) {
        let history = &self.services.history;
        match command {
            QuarantineCommand::List { after, limit, reply } => history.quarantined(after, limit, reply),
            QuarantineCommand::Accept { path, version, reply } => match self.may_not_accept(&path) {
                // Whoever asked may be gone.
                Some(error) => drop(reply.send(Err(error))),
                None => history.accept(path, version, reply),
            },
            QuarantineCommand::Drop { path, version, reply } => {
                history.drop_quarantined(path, version, reply);
            }
        }
    }

    /// Says why what is put at a path would not be published; `None` if it would.
    fn may_not_accept(&self, path: &RelPath) -> Option<ControlError> {
        let (path, role) = (path.clone(), self.engine.status().role);
        if role.is_some() && !self.engine.may_write(&path) {
            return Some(ControlError::MayNotWrite { path, role });
        }
        let rules = self.rules.as_ref();
        if rules.is_some_and(|rules| rules.is_ignored(&path, false)) {
            return Some(ControlError::Ignored { path });
        }
        self.may_not_restore()
    }

    /// Tells tasks which contents came; returns those that are for the engine.
    pub(super) fn came(&mut self, mut contents: Vec<ContentHash>) -> Vec<ContentHash> {
        contents.retain(|content| {
            let wanted = self.wanted.contains(content);
            self.wanted.tell(content, &Ok(()));
            !wanted || self.engine.is_fetching(content)
        });
        contents
    }

    /// Tells tasks that a content did not come.
    pub(super) fn came_not(&mut self, content: &ContentHash, reason: &FetchFailure) {
        self.wanted.tell(content, &Err(reason.clone()));
    }
}
