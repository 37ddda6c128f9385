//! Paths that another has to give way to: what belongs below a file that is to become a directory, and what takes the
//! place of a directory from which something has yet to go.
//!
//! An install of such a path would be refused, and would have let go of its temporary file for that. But the other may
//! wait for just that file to be safe, because it holds the only other copy of its bytes: a file and a directory that
//! changed places would wait for each other for ever. So a path waits here, and keeps its temporary file.

use super::{MAX_QUEUED, Need, Queued, Work};
use crate::engine::paths::Want;
use crate::engine::{StateView, SyncEngine, below};
use crate::lock::Resource;
use crate::rel_path::RelPath;
use crate::tree::Installed;

impl Work {
    /// Returns a path that a resource covers and that needs something.
    pub(in crate::engine) fn needed_in(&self, resource: &Resource) -> Option<RelPath> {
        let path = resource.path();
        if self.needs(path) {
            return Some(path.clone());
        }
        let mut lower = below(&self.needs, path).filter(|_| resource.is_subtree());
        lower.next().map(|(path, _)| path.clone())
    }
}

impl Work {
    /// Puts paths back into the queue that another had to give way to, if anything has changed.
    pub(super) fn look_again(&mut self) {
        if std::mem::take(&mut self.moved_on) {
            self.queue.extend(self.waiting.drain(..));
        }
    }

    /// Says whether an install of a path was tried in vain.
    pub(super) fn was_refused(&self, path: &RelPath) -> bool {
        self.needs.get(path).is_some_and(|state| state.attempts > 0)
    }

    /// Says whether something below a path is to go and is not going right now.
    fn is_to_be_emptied(&self, path: &RelPath) -> bool {
        let below = below(&self.needs, path);
        let mut going = below.filter(|(_, state)| matches!(state.need, Need::Remove { .. }));
        going.any(|(other, _)| !self.is_busy(other))
    }
}

impl SyncEngine {
    /// Says whether a queued path has to wait for another; the jobs of the same group that come before it are made.
    pub(super) fn must_wait(
        &self,
        queued: &Queued,
        want: &Want,
        have: Option<&Installed>,
        view: &impl StateView,
    ) -> bool {
        if queued.move_from.is_some() || self.work.waiting.len() >= MAX_QUEUED {
            return false;
        }
        let path = &queued.path;
        let is_dir = |there: &Installed| there.entry.node.is_dir();
        if have.is_some_and(is_dir) && !want.entry.node.is_dir() && self.work.is_to_be_emptied(path) {
            return true;
        }
        let mut above = path.ancestors();
        above.any(|above| {
            let changes = self.work.needs(&above) && !self.work.is_busy(&above);
            let there = self.pending.installed(view, &above).filter(|_| changes);
            there.is_some_and(|there| !is_dir(&there))
        })
    }
}
