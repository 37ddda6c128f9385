//! The two ends of a rename in one event, so that those who get it move the file instead of copying it.
//!
//! The scanner tells what is new as it finds it and what is gone at its end. A new file with the inode and the content
//! of one that is believed to stand elsewhere was moved from there, most likely: it waits until that path is told to be
//! gone, as long as reports keep coming. If it is a hard link, the wait is in vain, and the file is published alone.
//!
//! Lost in a crash: what waits; the next scan finds it again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Change, Draft, Local};
use crate::engine::{Phase, StateView, SyncEngine};
use crate::rel_path::RelPath;
use crate::time::BootInstant;
use crate::tree::Node;

/// How long a moved file waits after the last report; longer than the scanner takes from one to the next.
const WAIT: Duration = Duration::from_secs(2);
/// Longest wait, while reports keep coming: a scan that takes longer has its renames published as copies.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Files that may wait; they do not count as backlog, since what they wait for comes after them.
const MAX_WAITING: usize = 65_536;

/// Renames of which one end or both are known and not published.
#[derive(Debug, Default)]
pub(super) struct Moves {
    to_of: BTreeMap<RelPath, RelPath>,
    from_of: BTreeMap<RelPath, RelPath>,
    /// New files whose old path is not known to be gone, by the new path.
    waiting: BTreeMap<RelPath, Change>,
    waiting_since: BootInstant,
    heard_at: BootInstant,
}

impl Moves {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) const fn waiting(&self) -> &BTreeMap<RelPath, Change> {
        &self.waiting
    }

    pub(super) fn deadline(&self) -> Option<BootInstant> {
        let quiet = self.heard_at.after(WAIT);
        (!self.waiting.is_empty()).then(|| quiet.min(self.waiting_since.after(WAIT_MAX)))
    }

    pub(super) fn is_waiting(&self, path: &RelPath) -> bool {
        self.waiting.contains_key(path)
    }

    /// Returns where a file that is moved away from a path goes.
    pub(super) fn target(&self, from: &RelPath) -> Option<&RelPath> {
        self.to_of.get(from)
    }

    fn link(&mut self, from: RelPath, to: RelPath) {
        self.to_of.insert(from.clone(), to.clone());
        self.from_of.insert(to, from);
    }

    /// Forgets the rename that has this end; returns the other one.
    fn unlink(&mut self, path: &RelPath) -> Option<RelPath> {
        if let Some(to) = self.to_of.remove(path) {
            self.from_of.remove(&to);
            return Some(to);
        }
        let from = self.from_of.remove(path)?;
        self.to_of.remove(&from);
        Some(from)
    }
}

impl Local {
    /// Takes a change; `from` says where the file was moved from, if it was.
    pub(super) fn add(&mut self, path: RelPath, change: Change, from: Option<RelPath>, now: BootInstant) {
        self.moves.heard_at = now;
        if self.moves.waiting.remove(&path).is_some() || change.after.is_some() {
            self.moves.unlink(&path);
        } else if let Some(to) = self.moves.to_of.get(&path)
            && let Some(moved) = self.moves.waiting.remove(to)
        {
            self.queue.insert(to.clone(), moved);
        }
        let from = from.filter(|from| !self.moves.to_of.contains_key(from));
        let Some(from) = from else {
            self.queue.insert(path, change);
            return;
        };
        let gone = self.queue.get(&from).is_some_and(|change| change.after.is_none());
        if !gone && self.moves.waiting.len() >= MAX_WAITING {
            self.queue.insert(path, change);
            return;
        }
        self.moves.link(from, path.clone());
        if gone {
            self.queue.insert(path, change);
            return;
        }
        self.queue.remove(&path);
        if self.moves.waiting.is_empty() {
            self.moves.waiting_since = now;
        }
        self.moves.waiting.insert(path, change);
    }

    /// Takes back a change that waits: there is nothing at the path any more.
    pub(super) fn withdraw(&mut self, path: &RelPath) {
        self.queue.remove(path);
        if self.moves.waiting.remove(path).is_some() {
            self.moves.unlink(path);
        }
    }

    /// Lets files go that waited in vain.
    pub(super) fn give_up_waiting(&mut self, now: BootInstant) {
        if self.moves.deadline().is_some_and(|at| at <= now) {
            for (path, change) in std::mem::take(&mut self.moves.waiting) {
                self.moves.unlink(&path);
                self.queue.insert(path, change);
            }
        }
    }

    /// Takes the other end of a rename out of the queue, and notes the rename in the draft.
    pub(super) fn other_end(
        &mut self,
        path: &RelPath,
        change: &Change,
        draft: &mut Draft,
    ) -> Option<(RelPath, Change)> {
        let other = self.moves.unlink(path)?;
        let end = self.queue.remove(&other)?;
        let (from, to, there) = match (&change.after, &end.after) {
            (Some(there), None) => (&other, path, there),
            (None, Some(there)) => (path, &other, there),
            _ => return Some((other, end)),
        };
        draft.moved.insert(from.clone(), to.clone());
        let file = (there.print.ino, there.entry.node.clone());
        draft.vanished.insert(file, from.clone());
        Some((other, end))
    }
}

impl SyncEngine {
    /// Returns the path that a new file was moved from: one where a file of the same inode and content is believed to
    /// stand.
    pub(super) fn moved_from(
        &self,
        path: &RelPath,
        change: &Change,
        view: &impl StateView,
    ) -> Option<RelPath> {
        let after = change.after.as_ref()?;
        let joining = self.phase == Phase::Scanning { joining: true };
        let Node::File { content, size } = after.entry.node else {
            return None;
        };
        if size == 0 || joining || change.import || self.pending.installed(view, path).is_some() {
            return None;
        }
        let from = view.path_with_content(&content)?;
        let busy = self.work.is_busy(path) || self.work.is_busy(&from);
        if from == *path || from.is_own() || path.is_own() || busy {
            return None;
        }
        let row = self.pending.installed(view, &from)?;
        let same = row.entry.node == after.entry.node && row.print.ino == after.print.ino;
        same.then_some(from)
    }
}
