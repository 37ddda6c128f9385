//! The mass-delete guard: deletions that nobody saw happen are not believed if they are many.
//!
//! What a full scan finds gone vanished while nobody looked: the daemon was down, the watcher lost hints, or the folder
//! is not what it was. Such deletions wait for the end of the scan. Those that are renames are let go, since the same
//! thing was found elsewhere. If the others are many, and more than half of what stood in the folder, they are **held**:
//! nothing is published for them, and nothing is installed at their paths, until the user answers or the files come
//! back. Once some are held, all that scans find gone is held until the answer, however few they are by then.
//!
//! A directory waits with what lay in it: gone from the folder while they are still wanted, it would be made again.
//!
//! To confirm is to have the folder scanned once more: only what is still gone then is published. To restore is to
//! forget that the files stood here, so that they are wanted and fetched like any others.
//!
//! Lost in a crash: the paths, which the first scan of the next run finds again; that some were held is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Change, Local};
use crate::engine::{
    CommandError, CommandId, FoundBy, Observed, Output, Phase, Reply, StateView, SyncEngine,
};
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Now};
use crate::tree::{Entry, Fingerprint, Installed, Node};

/// Setting: present while held deletions wait for an answer.
pub(in crate::engine) const DELETIONS_HELD: &str = "deletions_held";

/// New entries of one scan that may turn out to be the other ends of renames; of what is beyond, the deletions count.
const MAX_ARRIVED: usize = 1 << 20;

/// What tells an entry that was renamed from others: what is in it, or, where that says little, its inode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Node(Node),
    Inode(u64),
}

impl Mark {
    fn of(entry: &Entry, print: &Fingerprint) -> Self {
        match &entry.node {
            Node::Dir | Node::Link { .. } | Node::File { size: 0, .. } => Self::Inode(print.ino),
            node @ Node::File { .. } => Self::Node(node.clone()),
        }
    }
}

/// See the module. `found` and `held` name installed paths only, so they are as bounded as the folder.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Deletions that are let through in any case; `None`: all are.
    limit: Option<usize>,
    /// Whether held deletions wait for an answer; durable.
    unanswered: bool,
    /// What the scan that is under way found gone, and when it looked.
    found: BTreeMap<RelPath, BootInstant>,
    /// Entries that stood in the folder when that scan began to tell.
    before: Option<u64>,
    /// Entries that came since then.
    arrived: BTreeMap<RelPath, Mark>,
    held: BTreeSet<RelPath>,
    /// Deletions that were held, of what an install may have put down since: nobody knows yet whether it is gone.
    unsettled: BTreeSet<RelPath>,
    /// Held deletions that the user confirmed, until a scan has proven them again.
    confirmed: BTreeSet<RelPath>,
    /// Files and links that stand where a directory was whose entries are found gone or held.
    in_place: BTreeMap<RelPath, Change>,
}

impl Guard {
    pub(super) fn new(limit: Option<usize>, unanswered: bool) -> Self {
        Self {
            limit,
            unanswered: unanswered && limit.is_some(),
            ..Self::default()
        }
    }

    /// Forgets what a scan has told so far; what is held stays so.
    pub(super) fn forget_seen(&mut self) {
        self.found.clear();
        self.before = None;
        self.arrived.clear();
        self.in_place.clear();
    }

    /// Forgets everything of a group that is left.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit, false);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.held.is_empty() && self.confirmed.is_empty() && self.in_place.is_empty()
    }

    /// Says whether a path is known to be gone and waits.
    fn covers(&self, path: &RelPath) -> bool {
        let waits = self.held.contains(path) || self.confirmed.contains(path);
        self.found.contains_key(path) || waits || self.unsettled.contains(path)
    }

    /// Takes a path that holds something again, or about which nothing waits any more.
    fn release(&mut self, path: &RelPath) {
        self.found.remove(path);
        self.held.remove(path);
        self.unsettled.remove(path);
        self.confirmed.remove(path);
        self.in_place.remove(path);
    }

    /// Says whether a path, or something below it, is known to be gone and waits.
    fn covers_at_or_below(&self, path: &RelPath) -> bool {
        self.covers(path) || self.covers_below(path)
    }

    /// Says whether something below a path is known to be gone and waits.
    fn covers_below(&self, dir: &RelPath) -> bool {
        let after = (Bound::Excluded(dir.clone()), Bound::Unbounded);
        let found = self.found.range(after.clone()).map(|(path, _)| path);
        is_any_below(found, dir)
            || is_any_below(self.held.range(after.clone()), dir)
            || is_any_below(self.confirmed.range(after), dir)
    }
}

/// Says whether any of these paths, which come in order after `dir`, lies below it.
fn is_any_below<'a>(mut paths: impl Iterator<Item = &'a RelPath>, dir: &RelPath) -> bool {
    let (_, end) = dir.below_range();
    // Names like `dir!` sort between `dir` and what lies in it.
    let next = paths.find(|path| path.is_below(dir) || path.as_bytes() >= &end[..]);
    next.is_some_and(|path| path.is_below(dir))
}

impl Local {
    /// Says whether a deletion at a path is held.
    pub(in crate::engine) fn holds_deletion(&self, path: &RelPath) -> bool {
        self.guard.held.contains(path)
    }

    /// Returns how many deletions are held.
    pub(in crate::engine) fn deletions_held(&self) -> usize {
        self.guard.held.len()
    }

    /// Returns the paths whose deletions are held.
    pub(in crate::engine) const fn held_deletions(&self) -> &BTreeSet<RelPath> {
        &self.guard.held
    }
}

impl SyncEngine {
    /// Keeps a deletion that nobody saw happen, and what hangs on one; returns any other change.
    pub(super) fn guarded(
        &mut self,
        path: &RelPath,
        change: Change,
        found_by: FoundBy,
        view: &impl StateView,
    ) -> Option<Change> {
        if self.local.guard.limit.is_none() {
            return Some(change);
        }
        if found_by == FoundBy::Scan {
            self.local.guard.before.get_or_insert(self.installed_count);
        }
        let Some(after) = &change.after else {
            return self.guarded_deletion(path, change, found_by);
        };
        self.local.guard.release(path);
        self.note_arrival(path, after, change.seen_at, view);
        let guard = &mut self.local.guard;
        if !after.entry.node.is_dir() && guard.covers_below(path) {
            guard.in_place.insert(path.clone(), change);
            return None;
        }
        Some(change)
    }

    fn guarded_deletion(&mut self, path: &RelPath, change: Change, found_by: FoundBy) -> Option<Change> {
        let local = &mut self.local;
        local.guard.arrived.remove(path);
        local.guard.in_place.remove(path);
        let seen = local.queue.get(path).is_some_and(|queued| queued.after.is_none());
        let target = local.moves.target(path);
        if target.is_some() || seen || found_by == FoundBy::Watcher {
            if let Some(target) = target {
                local.guard.arrived.remove(target);
            }
            local.guard.release(path);
            return Some(change);
        }
        if found_by == FoundBy::Look && !local.guard.covers_at_or_below(path) {
            return Some(change);
        }
        local.withdraw(path);
        local
            .guard
            .found
            .insert(path.clone(), change.seen_at.unwrap_or_default());
        None
    }

    /// Remembers an entry that may have been renamed from somewhere; what an install is putting down was not.
    fn note_arrival(
        &mut self,
        path: &RelPath,
        after: &Observed,
        seen_at: Option<BootInstant>,
        view: &impl StateView,
    ) {
        let guard = &self.local.guard;
        if guard.before.is_none() || guard.arrived.len() >= MAX_ARRIVED {
            return;
        }
        if self.work.is_busy(path) || seen_at.is_some_and(|at| self.work.is_outdated(path, at)) {
            return;
        }
        let known = self.pending.installed(view, path);
        let mark = Mark::of(&after.entry, &after.print);
        let stays = known.is_some_and(|row| Mark::of(&row.entry, &row.print) == mark);
        let content = after.entry.node.content().filter(|_| after.entry.node.size() > 0);
        let unknown = content.is_some_and(|content| view.path_with_content(&content).is_none());
        if !stays && !unknown {
            self.local.guard.arrived.insert(path.clone(), mark);
        }
    }

    /// A full scan is over: lets go of what it found gone, or holds it.
    pub(super) fn judge_deletions(&mut self, now: Now, view: &impl StateView) {
        let guard = &mut self.local.guard;
        let found = std::mem::take(&mut guard.found);
        let before = guard.before.take().unwrap_or(self.installed_count);
        let arrived = std::mem::take(&mut guard.arrived);
        let confirmed = std::mem::take(&mut guard.confirmed);
        let was_held = std::mem::take(&mut guard.held);
        guard.unsettled.clear();
        let limit = guard.limit;
        let mut marks: BTreeMap<Mark, u32> = BTreeMap::new();
        for mark in arrived.into_values() {
            *marks.entry(mark).or_default() += 1;
        }
        let (mut sure, mut doubtful, mut unsettled) = (Vec::new(), Vec::new(), Vec::new());
        for (path, seen_at) in found {
            let Some(have) = self.pending.installed(view, &path) else {
                continue;
            };
            if self.writes_anywhere() && self.is_unsettled(&path, seen_at) && !confirmed.contains(&path) {
                unsettled.push((path, seen_at));
            } else if confirmed.contains(&path) || self.is_sure(&have, &mut marks) {
                sure.push((path, seen_at));
            } else {
                doubtful.push((path, seen_at));
            }
        }
        let count = doubtful.len();
        let many = limit.is_some_and(|limit| count > limit) && count as u64 * 2 > before;
        // What nobody knows yet takes no question back.
        let any = count > 0 || !unsettled.is_empty();
        let hold = (count > 0 && many) || (any && self.local.guard.unanswered);
        if hold {
            // Looked at by its name, it would count as seen to go.
            self.look_again_at(&unsettled);
            self.local.guard.unsettled = unsettled.iter().map(|(path, _)| path.clone()).collect();
            doubtful.append(&mut unsettled);
            hold_above(&mut sure, &mut doubtful);
            self.local.guard.held = doubtful.into_iter().map(|(path, _)| path).collect();
        } else {
            sure.append(&mut doubtful);
            sure.append(&mut unsettled);
        }
        // Who may not write publishes nothing, and answers nothing by that: he may be let write again.
        if hold || self.writes_anywhere() {
            self.set_unanswered(hold);
        }
        for (path, seen_at) in sure {
            self.below_is_gone(&path, Some(seen_at), now.boot);
            self.local.add(path, gone(seen_at), None, now.boot);
        }
        self.release_in_place(now);
        // A confirmed one that stands there after all is as wanted or unwanted as any other.
        let touched: BTreeSet<RelPath> = was_held
            .into_iter()
            .chain(confirmed)
            .chain(self.local.guard.held.clone())
            .collect();
        for path in touched {
            self.update_need(&path, view);
        }
    }

    /// Says whether a path was looked at while an install was changing it, so that it has to be looked at again.
    fn is_unsettled(&self, path: &RelPath, seen_at: BootInstant) -> bool {
        self.work.is_busy(path) || self.work.is_outdated(path, seen_at)
    }

    /// Has paths looked at again, those that are being changed when that is over.
    fn look_again_at(&mut self, paths: &[(RelPath, BootInstant)]) {
        let (busy, settled): (Vec<RelPath>, Vec<RelPath>) = paths
            .iter()
            .map(|(path, _)| path.clone())
            .partition(|path| self.work.is_busy(path));
        busy.into_iter().for_each(|path| self.work.rescan_after(path));
        if !settled.is_empty() {
            self.emit(Output::Rescan(settled));
        }
    }

    /// Says whether a deletion needs no guard: nothing would come of it, or the entry was renamed.
    fn is_sure(&self, have: &Installed, marks: &mut BTreeMap<Mark, u32>) -> bool {
        if !self.writes_anywhere() {
            return true;
        }
        let Some(left) = marks.get_mut(&Mark::of(&have.entry, &have.print)) else {
            return false;
        };
        let renamed = *left > 0;
        *left = left.saturating_sub(1);
        renamed
    }

    fn writes_anywhere(&self) -> bool {
        let role = self.my_role().filter(|_| self.phase != Phase::Removed);
        role.is_some_and(crate::access::Role::may_write)
    }

    /// Publishes what stands where directories were, but for those of whose entries something still waits.
    fn release_in_place(&mut self, now: Now) {
        for (path, change) in std::mem::take(&mut self.local.guard.in_place) {
            if self.local.guard.covers_below(&path) {
                self.local.guard.in_place.insert(path, change);
            } else {
                self.local.add(path, change, None, now.boot);
            }
        }
    }

    fn set_unanswered(&mut self, unanswered: bool) {
        if self.local.guard.unanswered != unanswered {
            self.local.guard.unanswered = unanswered;
            self.pending
                .set_setting(DELETIONS_HELD, unanswered.then(Vec::new));
        }
    }

    /// A full scan came to no result: what it found gone proves nothing.
    pub(in crate::engine) fn scan_failed(&mut self) {
        let guard = &mut self.local.guard;
        guard.found.clear();
        guard.arrived.clear();
        guard.before = None;
        // What the next scan finds again, it tells again.
        let in_place = std::mem::take(&mut guard.in_place);
        guard.in_place = in_place
            .into_iter()
            .filter(|(path, _)| guard.covers_below(path))
            .collect();
    }

    /// The group does not want any more what stood at a path whose deletion is held: then both agree, unless it stands there
    /// after all and is still to be removed. The deletion of a conflict copy says more than that, and still waits: its version
    /// may be wanted elsewhere.
    pub(in crate::engine) fn forget_held_deletion(&mut self, path: &RelPath, view: &impl StateView) {
        if !self.local.holds_deletion(path) {
            return;
        }
        let have = self.pending.installed(view, path);
        if have.is_none_or(|have| have.copy_of.is_none()) {
            if self.local.guard.unsettled.contains(path) {
                // Whoever looks at it tells what the install left.
                self.local.guard.held.remove(path);
            } else {
                self.local.guard.release(path);
                self.record_installed(path, None, view);
            }
        }
    }

    /// Takes the user's answer about held deletions.
    pub(in crate::engine) fn confirm_deletes(
        &mut self,
        id: CommandId,
        restore: bool,
        now: Now,
        view: &impl StateView,
    ) {
        let held = std::mem::take(&mut self.local.guard.held);
        let reply = if held.is_empty() {
            Err(CommandError::Invalid("No deletions wait for an answer"))
        } else {
            self.set_unanswered(false);
            if restore {
                for path in held {
                    self.record_installed(&path, None, view);
                    self.update_need(&path, view);
                }
                self.release_in_place(now);
            } else {
                self.local.guard.confirmed = held;
                self.ask_scan();
            }
            Ok(Reply::Done)
        };
        self.emit(Output::Reply { id, reply });
    }
}

/// Has directories wait below which something waits.
fn hold_above(sure: &mut Vec<(RelPath, BootInstant)>, doubtful: &mut Vec<(RelPath, BootInstant)>) {
    let above: BTreeSet<RelPath> = doubtful.iter().flat_map(|(path, _)| path.ancestors()).collect();
    doubtful.extend(sure.extract_if(.., |(path, _)| above.contains(path)));
}

fn gone(seen_at: BootInstant) -> Change {
    Change {
        after: None,
        seen_at: Some(seen_at),
        import: false,
    }
}
