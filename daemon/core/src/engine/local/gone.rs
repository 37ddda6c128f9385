//! What lay below a path at which there is no directory any more.
//!
//! The scanner tells of all that it finds in the store. What it told a moment ago is in the queue, or recorded and not
//! durable: the scanner does not know of that, and nobody would look at those paths again.

use super::{Change, Local};
use crate::engine::{SyncEngine, below};
use crate::rel_path::RelPath;
use crate::time::BootInstant;

impl Local {
    /// Returns the paths below another of which something waits to be decided.
    fn known_below(&self, path: &RelPath) -> Vec<RelPath> {
        let queued = below(&self.queue, path).map(|(other, _)| other);
        let held = below(&self.held, path).map(|(other, _)| other);
        let moved = below(self.moves.waiting(), path).map(|(other, _)| other);
        queued.chain(held).chain(moved).cloned().collect()
    }
}

impl SyncEngine {
    /// Notes that nothing can be below a path.
    pub(super) fn below_is_gone(&mut self, path: &RelPath, seen_at: Option<BootInstant>, now: BootInstant) {
        let mut gone = self.local.known_below(path);
        gone.extend(self.pending.installed_below(path));
        for path in gone {
            let change = Change {
                after: None,
                seen_at,
                import: false,
            };
            self.local.add(path, change, None, now);
        }
    }
}
