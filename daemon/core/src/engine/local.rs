//! From changes on disk to events.
//!
//! Changes wait in a queue, one for each path, until the last event of this device's is durable and 50 ms old; then as
//! many as fit become one event. What a change means is decided at that moment against what is believed to stand on
//! disk, so a report that is outdated by then means nothing. Both ends of a rename go into one event (`moves`).

mod gone;
mod guard;
mod hidden;
mod joiner;
mod moves;
mod reject;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::gone::MAX_RECORDED;
pub(super) use self::guard::DELETIONS_HELD;
use self::guard::Guard;
pub(super) use self::joiner::JOIN_COUNTS;
use self::moves::Moves;
use super::times::Times;
use super::{BatchNo, JoinCounts, LocalChange, Notification, Observed, Output, Phase, StateView, SyncEngine};
use crate::ids::Dot;
use crate::ledger::{EventKind, Item, MAX_DOTS, MAX_ITEMS, Put, PutFlags};
use crate::lock::Resource;
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Now};
use crate::tree::{Fingerprint, Installed, Node};

/// Least time between two events of this device's: at most 20 a second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of items in one event; leaves room below the body's limit for the last item's largest size.
const MAX_ITEM_BYTES: usize = 900 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Local {
    queue: BTreeMap<RelPath, Change>,
    moves: Moves,
    /// Files of unknown descent, until the scan is over or the user has chosen.
    held: BTreeMap<RelPath, Observed>,
    /// Whether such files may wait to be published that were held.
    releasing: bool,
    /// Those of them at whose paths an install is under way.
    behind_installs: BTreeMap<RelPath, Change>,
    guard: Guard,
    /// Paths at which something is installed, and when the engine heard that the store has it: whoever looked before may
    /// not have found it there.
    recorded: Times<MAX_RECORDED>,
    /// What a joiner's files turned out to be; those that differ are `held`.
    counts: JoinCounts,
    published_at: Option<BootInstant>,
    published_in: BatchNo,
    /// Files that this device may not publish, at paths where the group has nothing.
    refused: BTreeMap<RelPath, Fingerprint>,
}

#[derive(Debug, Clone)]
struct Change {
    after: Option<Observed>,
    /// `None`: it was held back, and nothing was installed meanwhile.
    seen_at: Option<BootInstant>,
    import: bool,
}

impl Local {
    /// Makes it; `delete_guard` as in [`EngineConfig`](super::EngineConfig), `held` says whether deletions wait for an
    /// answer since an earlier run, `counts` what was counted in it.
    pub(super) fn new(delete_guard: Option<usize>, held: bool, counts: Option<&Vec<u8>>) -> Self {
        Self {
            counts: counts.map(|bytes| joiner::read_counts(bytes)).unwrap_or_default(),
            guard: Guard::new(delete_guard, held),
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        let waits = !self.behind_installs.is_empty() || !self.moves.is_empty();
        self.queue.is_empty() && !waits && self.guard.is_empty()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn holds(&self, path: &RelPath) -> bool {
        self.held.contains_key(path)
    }

    /// Says whether a change at a path waits to be published.
    pub(super) fn is_waiting(&self, path: &RelPath) -> bool {
        self.queue.contains_key(path) || self.moves.is_waiting(path)
    }

    /// Says whether a change at a path that a resource covers waits to be published.
    pub(super) fn waits_in(&self, resource: &Resource) -> bool {
        let path = resource.path();
        let below = || super::below(&self.queue, path).next().is_some();
        let behind = |other: &RelPath| resource.covers(other);
        self.is_waiting(path)
            || (resource.is_subtree() && (below() || !self.moves.is_empty()))
            || self.behind_installs.keys().any(behind)
    }

    pub(super) fn deadline(&self, may_publish: bool) -> Option<(BootInstant, &'static str)> {
        let publish = (!self.queue.is_empty() && may_publish).then(|| self.next_at());
        let publish = publish.map(|at| (at, "publish local changes"));
        let moved = self.moves.deadline();
        let moved = moved.map(|at| (at, "publish files without what they were moved from"));
        publish.into_iter().chain(moved).min()
    }

    fn next_at(&self) -> BootInstant {
        self.published_at
            .map_or(BootInstant::default(), |at| at.after(PUBLISH_INTERVAL))
    }

    /// Forgets what waits to be published, and for the end of a scan: a new one sees all of it again.
    pub(super) fn forget_seen(&mut self) {
        self.queue.clear();
        self.moves = Moves::default();
        self.guard.forget_seen();
    }

    pub(super) fn clear(&mut self) {
        let mut guard = std::mem::take(&mut self.guard);
        guard.clear();
        *self = Self {
            guard,
            ..Self::default()
        };
    }
}

/// An event in the making.
#[derive(Debug, Default)]
struct Draft {
    items: Vec<Item>,
    /// Versions to be discarded; they come last, when it is known what stays.
    discards: Vec<(RelPath, Vec<Dot>)>,
    /// Versions that were found to stand on disk.
    found: BTreeSet<(RelPath, Dot)>,
    bytes: usize,
    /// Paths that have a Put or Del in it.
    written: BTreeSet<RelPath>,
    seq: u64,
    /// Files that vanished, by inode and node: where they may have been moved from.
    vanished: BTreeMap<(u64, Node), RelPath>,
    /// Where such files went.
    moved: BTreeMap<RelPath, RelPath>,
}

impl Draft {
    fn is_full(&self) -> bool {
        // A change adds at most two items, and the other end of a rename comes with it.
        self.items.len() + self.discards.len() + 4 > MAX_ITEMS || self.bytes >= MAX_ITEM_BYTES
    }

    fn next_dot(&self, device: crate::ids::ShortId) -> Dot {
        Dot {
            device,
            seq: self.seq,
            item: u32::try_from(self.items.len()).unwrap_or(u32::MAX),
        }
    }

    /// Adds the discards of what stands nowhere any more.
    fn finish(&mut self) {
        for (path, mut drop) in std::mem::take(&mut self.discards) {
            drop.retain(|dot| !self.found.contains(&(path.clone(), *dot)));
            if !drop.is_empty() {
                self.add(Item::Discard { path, drop });
            }
        }
    }

    fn add(&mut self, item: Item) {
        self.bytes += item.to_bytes().len() + 3;
        self.items.push(item);
    }
}

impl SyncEngine {
    /// Takes what the scanner found.
    pub(super) fn local_changes(&mut self, changes: Vec<LocalChange>, now: Now, view: &impl StateView) {
        if !self.takes_changes() {
            // The scan that follows sees it again.
            return;
        }
        for change in changes {
            let LocalChange {
                path,
                seen_at,
                after,
                found_by,
            } = change;
            // A joiner's file that waits to be published stays one when it is seen again.
            let import = self.local.queue.get(&path).is_some_and(|waiting| waiting.import);
            let seen_at = Some(seen_at);
            let change = Change {
                after,
                seen_at,
                import,
            };
            let Some(change) = self.guarded(&path, change, found_by, view) else {
                continue;
            };
            self.look_below(&path, &change, now.boot, view);
            let from = self.moved_from(&path, &change, view);
            self.local.add(path, change, from, now.boot);
        }
    }

    /// Says whether what the scanner finds is taken, or left to the scan that follows.
    pub(super) const fn takes_changes(&self) -> bool {
        !matches!(self.phase, Phase::NoGroup | Phase::CatchingUp | Phase::Removed)
    }

    /// Says whether this device's last event is durable.
    pub(super) fn may_publish(&self) -> bool {
        self.local.published_in <= self.persisted
    }

    /// Turns waiting changes into an event, if it is time.
    pub(super) fn publish_local(&mut self, now: Now, view: &impl StateView) {
        self.local.give_up_waiting(now.boot);
        self.release_behind_installs(view);
        if self.paused
            || self.phase == Phase::Removed
            || self.local.queue.is_empty()
            || !self.may_publish()
            || now.boot < self.local.next_at()
        {
            return;
        }
        let mut draft = Draft {
            seq: self.own_log().size(),
            ..Draft::default()
        };
        let mut adopted = Vec::new();
        let mut outdated = Vec::new();
        let counts = self.local.counts;
        self.find_moves(&mut draft, view);
        while !draft.is_full() {
            let Some((path, change)) = self.local.queue.pop_first() else {
                break;
            };
            let other = self.local.other_end(&path, &change, &mut draft);
            for (path, change) in std::iter::once((path, change)).chain(other) {
                if self.work.is_busy(&path) && change.import {
                    // Looked at again, it would pass for an edit.
                    self.local.behind_installs.insert(path, change);
                } else if self.work.is_busy(&path) {
                    self.work.rescan_after(path);
                } else if self.is_outdated(&path, &change, view) {
                    outdated.push(path);
                } else {
                    self.take_change(path, change, &mut draft, &mut adopted, view);
                }
            }
        }
        draft.finish();
        if !draft.items.is_empty() {
            self.publish_draft(draft, now, view);
        }
        for path in adopted {
            self.update_need(&path, view);
        }
        if counts != self.local.counts {
            self.keep_join_counts();
        }
        self.note_released();
        if !outdated.is_empty() {
            self.emit_now(Output::Rescan(outdated));
        }
    }

    /// Takes up what waited for the end of installs: those that gave way left it where it was.
    fn release_behind_installs(&mut self, view: &impl StateView) {
        let settled = |path: &RelPath, _: &mut Change| !self.work.is_busy(path);
        let settled: Vec<_> = self.local.behind_installs.extract_if(.., settled).collect();
        for (path, change) in settled {
            if self.pending.installed(view, &path).is_none() {
                self.local.queue.entry(path).or_insert(change);
            } else {
                self.emit_now(Output::Rescan(vec![path]));
            }
        }
    }

    /// Says whether a change was seen before an install at its path was over. What a joiner brought stays what it is when
    /// an install gave way to it: seen once more, it would pass for an edit.
    fn is_outdated(&self, path: &RelPath, change: &Change, view: &impl StateView) -> bool {
        let outdated = change.seen_at.is_some_and(|at| self.work.is_outdated(path, at));
        outdated && !(change.import && self.pending.installed(view, path).is_none())
    }

    fn publish_draft(&mut self, draft: Draft, now: Now, view: &impl StateView) {
        for item in &draft.items {
            if let Item::Put(Put { path, .. }) | Item::Del { path, .. } = item {
                let removed = matches!(item, Item::Del { .. });
                self.notify(Notification::PathPublished {
                    path: path.clone(),
                    removed,
                });
            }
        }
        self.publish(EventKind::Work, draft.items, now, view);
        self.local.published_at = Some(now.boot);
        self.local.published_in = BatchNo(self.issued.0 + 1);
    }

    /// Finds files that vanished from one path and appeared at another.
    fn find_moves(&self, draft: &mut Draft, view: &impl StateView) {
        let mut vanished = BTreeMap::new();
        for (path, change) in self.local.queue.iter().take(MAX_ITEMS) {
            if change.after.is_none()
                && let Some(have) = self.pending.installed(view, path)
                && matches!(have.entry.node, Node::File { .. })
            {
                // What was set aside in the daemon's own directory is a copy of nothing, and its place is named in no event.
                let from = have.copy_of.unwrap_or_else(|| path.clone());
                if !from.is_own() {
                    vanished.insert((have.print.ino, have.entry.node), from);
                }
            }
        }
        if vanished.is_empty() {
            return;
        }
        for (path, change) in self.local.queue.iter().take(MAX_ITEMS) {
            let Some(after) = change.after.as_ref().filter(|_| !path.is_own()) else {
                continue;
            };
            if let Some(from) = vanished.get(&(after.print.ino, after.entry.node.clone())) {
                draft.moved.insert(from.clone(), path.clone());
            }
        }
        draft.vanished = vanished;
    }

    /// Decides what one change means.
    fn take_change(
        &mut self,
        path: RelPath,
        change: Change,
        draft: &mut Draft,
        adopted: &mut Vec<RelPath>,
        view: &impl StateView,
    ) {
        let have = self.pending.installed(view, &path);
        if self.is_report_ignored(&path, change.after.as_ref(), have.as_ref()) {
            return;
        }
        if path.is_own() && have.as_ref().is_none_or(|have| have.copy_of.is_none()) {
            self.hidden_place_taken(path, change, draft, adopted, view);
            return;
        }
        if change.after.is_none() && self.local.refused.remove(&path).is_some() {
            self.work.retry_given_up();
        }
        if self.local.holds(&path) && !change.import {
            self.held_changed(path, change.after, adopted);
            return;
        }
        let joining = self.phase == Phase::Scanning { joining: true };
        let brought = |after: &Observed| joining && have.is_none() && !after.entry.node.is_dir();
        let brought = !change.import && change.after.as_ref().is_some_and(brought);
        if self.is_known(&path, &change, have.as_ref(), draft, view) {
            self.local.counts.same += u64::from(brought);
            adopted.push(path);
            return;
        }
        if self.reject(&path, &change, have.as_ref(), view) {
            adopted.push(path);
            return;
        }
        match change.after {
            Some(after) if path.is_own() => {
                self.hidden_copy_changed(&path, have, after, draft, adopted, view);
            }
            Some(after) if have.is_none() && !change.import && (joining || self.is_unseen(&path, view)) => {
                self.joiner_entry(path, after, joining, draft, adopted, view);
            }
            Some(after) => self.changed(path, have, after, change.import, draft, view),
            None if have.as_ref().is_some_and(Installed::is_set_aside) => {
                self.record_installed(&path, None, view);
                adopted.push(path);
            }
            None => {
                self.vanished(&path, have, draft, view);
                adopted.push(path);
            }
        }
    }

    /// Says whether a change is none: the disk holds what is believed, or what is wanted anyway. Records the latter,
    /// and that its user gave up what was there before.
    fn is_known(
        &mut self,
        path: &RelPath,
        change: &Change,
        have: Option<&Installed>,
        draft: &mut Draft,
        view: &impl StateView,
    ) -> bool {
        let Some(after) = &change.after else {
            return have.is_none();
        };
        if let Some(have) = have.filter(|have| have.entry == after.entry) {
            if have.print != after.print {
                let installed = Installed {
                    print: after.print,
                    ..have.clone()
                };
                self.record_installed(path, Some(installed), view);
            }
            return true;
        }
        let Some(want) = self.want(path, view).filter(|want| want.is_met_by(&after.entry)) else {
            return false;
        };
        self.keep_manifest(after);
        if let Some(have) = have {
            self.give_up(path, have, &want.dots, draft, view);
        }
        let origin = want.copy_of.as_ref().unwrap_or(path);
        draft
            .found
            .extend(want.dots.iter().map(|dot| (origin.clone(), *dot)));
        let installed = Installed {
            entry: after.entry.clone(),
            print: after.print,
            dots: want.dots,
            copy_of: want.copy_of,
        };
        self.record_installed(path, Some(installed), view);
        true
    }

    fn keep_manifest(&mut self, after: &Observed) {
        if let Some(manifest) = &after.manifest {
            self.pending.add_manifest(manifest.clone());
        }
    }

    /// A path holds something new.
    fn changed(
        &mut self,
        path: RelPath,
        have: Option<Installed>,
        after: Observed,
        import: bool,
        draft: &mut Draft,
        view: &impl StateView,
    ) {
        self.keep_manifest(&after);
        let origin = self.discard_copy(have.as_ref(), draft, view);
        let mut base = Vec::new();
        let mut metadata = false;
        if origin.is_none() && !import {
            base = self.base_of(&path, have.as_ref(), view);
            metadata = have
                .as_ref()
                .is_some_and(|have| have.entry.node == after.entry.node);
        }
        let moved_from = origin.or_else(|| {
            draft
                .vanished
                .get(&(after.print.ino, after.entry.node.clone()))
                .cloned()
        });
        let dot = draft.next_dot(self.own_log().name);
        let flags = PutFlags { import, metadata };
        let entry = after.entry;
        let installed = Installed {
            entry: entry.clone(),
            print: after.print,
            dots: vec![dot],
            copy_of: None,
        };
        self.record_installed(&path, Some(installed), view);
        draft.written.insert(path.clone());
        draft.add(Item::Put(Put {
            path,
            entry,
            base,
            flags,
            moved_from,
        }));
    }

    /// A path holds nothing any more.
    fn vanished(
        &mut self,
        path: &RelPath,
        have: Option<Installed>,
        draft: &mut Draft,
        view: &impl StateView,
    ) {
        if self.discard_copy(have.as_ref(), draft, view).is_none() {
            let base = self.base_of(path, have.as_ref(), view);
            if !base.is_empty() {
                let moved_to = draft.moved.get(path).cloned();
                draft.written.insert(path.clone());
                draft.add(Item::Del {
                    path: path.clone(),
                    base,
                    moved_to,
                });
            }
        }
        self.record_installed(path, None, view);
    }

    /// What becomes of a conflict copy is the user's decision about it: the version it shows is discarded. Returns the
    /// path it was a copy of.
    fn discard_copy(
        &self,
        have: Option<&Installed>,
        draft: &mut Draft,
        view: &impl StateView,
    ) -> Option<RelPath> {
        let have = have.filter(|have| have.copy_of.is_some())?;
        let origin = have.copy_of.clone()?;
        // A copy that was moved to the path itself, and is wanted there, is kept.
        let own = self
            .pending
            .installed(view, &origin)
            .map(|own| own.dots)
            .unwrap_or_default();
        let mut kept = self.want(&origin, view).map(|want| want.dots).unwrap_or_default();
        kept.retain(|dot| own.contains(dot));
        self.give_up(&origin, have, &kept, draft, view);
        Some(origin)
    }

    /// Discards the versions that stood on disk and that are heads still, but for those in `kept`.
    fn give_up(
        &self,
        path: &RelPath,
        have: &Installed,
        kept: &[Dot],
        draft: &mut Draft,
        view: &impl StateView,
    ) {
        let path = have.copy_of.as_ref().unwrap_or(path);
        let heads = self.pending.path_state(view, path).unwrap_or_default();
        let gone = |dot: &&Dot| heads.head(**dot).is_some() && !kept.contains(dot);
        let drop: Vec<Dot> = have.dots.iter().filter(gone).copied().collect();
        if !drop.is_empty() {
            draft.bytes += path.as_bytes().len() + drop.len() * 16;
            draft.discards.push((path.clone(), drop));
        }
    }

    /// Returns the versions that a change of the working copy replaces: those it came from, and every head of the same
    /// kind and content.
    fn base_of(&self, path: &RelPath, have: Option<&Installed>, view: &impl StateView) -> Vec<Dot> {
        let state = self.pending.path_state(view, path).unwrap_or_default();
        let mut base = have.map(|have| have.dots.clone()).unwrap_or_default();
        base.extend(state.heads_with(have.map(|have| &have.entry.node)));
        base.sort();
        base.dedup();
        base.truncate(usize::try_from(MAX_DOTS).unwrap_or(usize::MAX));
        base
    }
}
