//! Why a path is not as it should be, for people.

use super::{Cause, CommandId, Output, Phase, Reply, StateView, SyncEngine, WhyReport};
use crate::ids::DeviceId;
use crate::rel_path::RelPath;
use crate::time::Now;

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
        let report = WhyReport {
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
        if matches!(self.phase, Phase::NoGroup | Phase::CatchingUp | Phase::Removed) {
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
