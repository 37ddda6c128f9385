//! Why a path is not as it should be, for people.

use std::time::Duration;

use super::{CommandId, LockReport, Output, Reply, StateView, SyncEngine};
use crate::ids::DeviceId;
use crate::rel_path::RelPath;
use crate::time::Now;

/// What stands between a path and what the group wants there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Neither the ledger nor the folder, as far as it was looked at, has it.
    Unknown,
    /// The ledger says that it was deleted, and it is not here.
    Deleted,
    /// It is as the group wants it.
    InSync,
    /// There is no group yet, or its ledger is not complete.
    Starting,
    /// A change made here is about to be published.
    Publishing,
    /// It waits for its turn.
    Waiting,
    /// Its content is being had.
    Fetching {
        /// Bytes of it.
        size: u64,
        /// Connected members that are asked, best first.
        from: Vec<DeviceId>,
    },
    /// No connected member has its content.
    NoSource {
        /// Bytes of it.
        size: u64,
        /// Until they are asked again.
        retry_in: Option<Duration>,
    },
    /// Its content is here; it waits for the installs before it.
    Queued,
    /// It is being installed.
    Installing,
    /// The disk refused it, or it changed meanwhile.
    Parked {
        /// Why, once it failed often enough to tell.
        reason: Option<String>,
        /// Until it is tried again.
        retry_in: Option<Duration>,
    },
    /// It vanished while nobody looked, with many others; the user is to say whether that was meant.
    DeletionHeld,
    /// It was here before the group was joined and differs from the group's; the user is to choose.
    JoinHeld,
}

/// What is known about a path, for `syncctl why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyReport {
    /// Where.
    pub path: RelPath,
    /// What stands between it and what the group wants.
    pub cause: Cause,
    /// Whether it is to be taken away.
    pub removal: bool,
    /// Whether something is believed to stand there.
    pub present: bool,
    /// Whether the folder is paused.
    pub paused: bool,
    /// The member that wrote the version which is wanted.
    pub author: Option<DeviceId>,
    /// The locks on it or on a directory above it.
    pub locks: Vec<LockReport>,
    /// Names of its conflict copies.
    pub copies: Vec<RelPath>,
    /// The path that this is a conflict copy of.
    pub copy_of: Option<RelPath>,
    /// Connected members that did not say that they hold all that is known here.
    pub behind: Vec<DeviceId>,
}

impl SyncEngine {
    /// Answers what blocks or holds a path.
    pub(super) fn explain(&mut self, id: CommandId, path: RelPath, now: Now, view: &impl StateView) {
        let want = self.want(&path, view);
        let have = self.pending.installed(view, &path);
        let state = self.pending.path_state(view, &path).unwrap_or_default();
        let author = want.as_ref().and_then(|want| Self::author_of(want.dot));
        let author = author.or_else(|| Some(state.heads.first()?.dot.device));
        let known_author = author.and_then(|short| self.group.as_ref()?.device(short));
        let cause = self.cause_of(&path, now, view);
        let cause = match cause {
            Cause::Fetching { size, .. } => {
                let from = want.as_ref().map(|want| self.sources(want)).unwrap_or_default();
                Cause::Fetching { size, from }
            }
            other => other,
        };
        let copies = state.shown.iter().map(|(name, _)| name.clone()).collect();
        let mut locks = self.reports(now, view);
        locks.retain(|lock| lock.resources.iter().any(|resource| resource.covers(&path)));
        let report = WhyReport {
            locks,
            removal: self.work.is_removal(&path),
            copy_of: want.as_ref().and_then(|want| want.copy_of.clone()),
            present: have.is_some(),
            paused: self.paused,
            author: known_author,
            behind: self.behind(),
            cause,
            copies,
            path,
        };
        let reply = Ok(Reply::Why(Box::new(report)));
        self.emit(Output::Reply { id, reply });
    }

    fn cause_of(&self, path: &RelPath, now: Now, view: &impl StateView) -> Cause {
        if !self.takes_changes() {
            Cause::Starting
        } else if self.local.holds(path) {
            Cause::JoinHeld
        } else if self.local.holds_deletion(path) {
            Cause::DeletionHeld
        } else if self.local.is_waiting(path) {
            Cause::Publishing
        } else if let Some(cause) = self.work.cause(path, now.boot) {
            cause
        } else if self.pending.installed(view, path).is_some() || self.want(path, view).is_some() {
            Cause::InSync
        } else if self.pending.has_history(view, path) {
            Cause::Deleted
        } else {
            Cause::Unknown
        }
    }

    /// Returns the connected members that did not say that they hold all that is known here.
    fn behind(&self) -> Vec<DeviceId> {
        let members = self
            .peers
            .connected()
            .filter(|(device, _)| self.is_member(device));
        let behind = members.filter(|(_, peer)| !self.peers.holds_all(peer));
        behind.map(|(device, _)| *device).collect()
    }
}
