//! What lay below a path at which there is no directory any more, or another one.
//!
//! The scanner tells of all that it finds in the store. What it told a moment ago is in the queue, or recorded and was not
//! durable when it looked: the scanner did not know of that, and nobody would look at those paths again.

use super::{Change, Local};
use crate::engine::{Observed, Output, StateView, SyncEngine, below};
use crate::rel_path::RelPath;
use crate::time::BootInstant;

/// Paths that are remembered as recorded; what was seen before older ones is looked at again.
pub(super) const MAX_RECORDED: usize = 65_536;

impl Local {
    /// Takes note of paths at which something is installed, which the store has now.
    pub(in crate::engine) fn recorded(&mut self, paths: Vec<RelPath>, now: BootInstant) {
        for path in paths {
            self.recorded.note(path, now);
        }
    }

    /// Returns the paths below another of which something waits to be decided.
    fn known_below(&self, path: &RelPath) -> Vec<RelPath> {
        let queued = below(&self.queue, path).map(|(other, _)| other);
        let held = below(&self.held, path).map(|(other, _)| other);
        let moved = below(self.moves.waiting(), path).map(|(other, _)| other);
        queued.chain(held).chain(moved).cloned().collect()
    }
}

impl SyncEngine {
    /// Notes what a report about a path says of what lies below it.
    pub(super) fn look_below(
        &mut self,
        path: &RelPath,
        change: &Change,
        now: BootInstant,
        view: &impl StateView,
    ) {
        match change.after.as_ref().filter(|after| after.entry.node.is_dir()) {
            None => self.below_is_gone(path, change.seen_at, now),
            Some(dir) if self.is_other_dir(path, dir, view) => self.below_may_be_gone(path, change.seen_at),
            Some(_) => {}
        }
    }

    /// Says whether a directory took the place of the one that was seen at a path last.
    fn is_other_dir(&self, path: &RelPath, after: &Observed, view: &impl StateView) -> bool {
        let before = match self.local.queue.get(path) {
            Some(waiting) => waiting.after.as_ref().map(|before| before.print.ino),
            None => self.pending.installed(view, path).map(|have| have.print.ino),
        };
        before.is_some_and(|ino| ino != after.print.ino)
    }

    /// Returns the paths below another that the store may not have shown at a time.
    fn untold_below(&mut self, path: &RelPath, seen_at: Option<BootInstant>) -> Vec<RelPath> {
        let mut untold = self.local.known_below(path);
        untold.extend(self.pending.installed_below(path));
        if let Some(seen_at) = seen_at {
            let recorded = &self.local.recorded;
            untold.extend(recorded.below_since(path, seen_at).cloned());
            if recorded.has_forgotten(seen_at) {
                self.emit_now(Output::Rescan(vec![path.clone()]));
            }
        }
        untold
    }

    /// Notes that nothing can be below a path; what is being installed there shows when that is over.
    pub(super) fn below_is_gone(&mut self, path: &RelPath, seen_at: Option<BootInstant>, now: BootInstant) {
        self.work.rescan_below_after(path);
        for path in self.untold_below(path, seen_at) {
            let change = Change {
                after: None,
                seen_at,
                import: false,
            };
            self.local.add(path, change, None, now);
        }
    }

    /// Has whatever was known below a path looked at by its name.
    fn below_may_be_gone(&mut self, path: &RelPath, seen_at: Option<BootInstant>) {
        self.work.rescan_below_after(path);
        let paths = self.untold_below(path, seen_at);
        if !paths.is_empty() {
            self.emit_now(Output::Rescan(paths));
        }
    }
}
