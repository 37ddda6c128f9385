//! What is to be done on disk: needs become fetches, fetches become installs.
//!
//! A path with a need is in exactly one stage. What is wanted is looked up anew at each step, so a need never acts on
//! an outdated wish. One group of installs is under way at a time; fetching goes on meanwhile.

mod explain;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::paths::Want;
use super::{
    FetchFailure, FetchJob, InstallAction, InstallJob, InstallOutcome, InstallResult, Notification, Output,
    Phase, StateView, SyncEngine,
};
use crate::ids::{ContentHash, DeviceId};
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Now};
use crate::tree::{Installed, Node};

/// Installs in one group: large enough to spread the cost of making them durable, small enough to show progress.
const INSTALL_GROUP: usize = 512;
/// Contents being fetched at once; bounds the fetcher's queue.
const MAX_FETCHING: usize = 4096;
/// Bytes being fetched at once (one larger content may be fetched alone).
const MAX_FETCHING_BYTES: u64 = 256 << 20;
/// Paths waiting for their group; bounds the contents that lie in the temporary directory.
const MAX_QUEUED: usize = 4096;
/// First wait before a refused path is tried again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait before a refused path is tried again.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Wait before peers are asked again for a content that none of them had.
const SOURCE_RETRY: Duration = Duration::from_secs(10);
/// Installs whose end is remembered one by one: those of the last groups. What was seen before older ones is looked at
/// again wherever it is.
const MAX_DONE: usize = 16_384;
/// Tries after which a path counts as stuck.
const STUCK_AFTER: u32 = 3;

/// What a path needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// An entry, with so many bytes of content to be had.
    Put {
        bytes: u64,
        /// The content, if it is to be had.
        content: Option<ContentHash>,
    },
    /// To be taken away; a file's content may serve as the source of a move.
    Remove { content: Option<ContentHash> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Ready,
    Fetching,
    Queued,
    Installing,
    /// Waits for a time, a source or a scan.
    Parked,
}

#[derive(Debug)]
struct NeedState {
    need: Need,
    stage: Stage,
    attempts: u32,
}

#[derive(Debug, Clone)]
struct Queued {
    path: RelPath,
    /// The temporary file it holds.
    fetched: Option<ContentHash>,
    move_from: Option<RelPath>,
}

#[derive(Debug)]
struct Installing {
    path: RelPath,
    want: Option<Want>,
    move_from: Option<RelPath>,
    /// It was begun for a group that was left since: what came of it says nothing about this one.
    of_former_group: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Work {
    needs: BTreeMap<RelPath, NeedState>,
    bytes: u64,
    ready_puts: BTreeSet<RelPath>,
    ready_removes: BTreeSet<RelPath>,
    removable: BTreeMap<ContentHash, BTreeSet<RelPath>>,
    /// Paths that lack a content.
    wanted: BTreeMap<ContentHash, BTreeSet<RelPath>>,
    /// Paths that hold a content which others lack, and wait until it is in the temporary directory.
    blocked: Vec<(ContentHash, Queued)>,
    fetching: BTreeMap<ContentHash, (u64, Vec<RelPath>)>,
    fetching_bytes: u64,
    /// Contents that may lie in the temporary directory, in part or whole, though nobody fetches them.
    failed: BTreeSet<ContentHash>,
    /// Temporary files that nobody waits for, though installs that are under way may read them.
    unused: BTreeSet<ContentHash>,
    /// Complete temporary files, and how many queued paths hold each.
    held: BTreeMap<ContentHash, usize>,
    queue: VecDeque<Queued>,
    installing: Vec<Installing>,
    busy: BTreeSet<RelPath>,
    rescan_after: BTreeSet<RelPath>,
    /// When the newest installs were over, and the same in order of time.
    done: BTreeMap<RelPath, BootInstant>,
    done_order: VecDeque<(BootInstant, RelPath)>,
    /// Up to when installs were over that are not remembered one by one any more.
    done_before: Option<BootInstant>,
    retry: BTreeSet<(BootInstant, RelPath)>,
    unsourced: BTreeSet<RelPath>,
    reasons: BTreeMap<RelPath, Cow<'static, str>>,
    /// Paths of an earlier run whose needs are to be looked up once the engine runs.
    recovered: Vec<RelPath>,
}

impl Work {
    pub(super) fn new(recovered: Vec<RelPath>) -> Self {
        Self {
            recovered,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.needs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.needs.is_empty()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn deadline(&self) -> Option<(BootInstant, &'static str)> {
        self.retry.first().map(|(at, _)| (*at, "try a path again"))
    }

    pub(super) fn is_installing(&self) -> bool {
        !self.installing.is_empty()
    }

    /// Says whether the disk at a path is being changed by us right now.
    pub(super) fn is_busy(&self, path: &RelPath) -> bool {
        self.busy.contains(path)
    }

    /// Says whether something was installed at a path since it was looked at.
    pub(super) fn is_outdated(&self, path: &RelPath, seen_at: BootInstant) -> bool {
        let done = self.done.get(path).copied().max(self.done_before);
        done.is_some_and(|done| seen_at <= done)
    }

    /// Notes that an install at a path, which may have made the directories above it, is over.
    fn note_done(&mut self, path: &RelPath, at: BootInstant) {
        for path in std::iter::once(path.clone()).chain(path.ancestors()) {
            if self.done.insert(path.clone(), at) != Some(at) {
                self.done_order.push_back((at, path));
            }
        }
        while self.done_order.len() > MAX_DONE {
            let Some((at, path)) = self.done_order.pop_front() else {
                break;
            };
            self.done_before = Some(at);
            if self.done.get(&path) == Some(&at) {
                self.done.remove(&path);
            }
        }
    }

    /// Has a path looked at again when its install is over.
    pub(super) fn rescan_after(&mut self, path: RelPath) {
        self.rescan_after.insert(path);
    }

    /// Notes what a path needs; returns whether it needed anything before.
    pub(super) fn set(&mut self, path: &RelPath, need: Option<Need>) -> bool {
        let old = self.needs.get(path).map(|state| (state.need, state.stage));
        if let Some((was, _)) = old {
            self.bytes -= bytes_of(was);
            match was {
                Need::Remove {
                    content: Some(content),
                } => remove_from(&mut self.removable, &content, path),
                Need::Put {
                    content: Some(content),
                    ..
                } => remove_from(&mut self.wanted, &content, path),
                Need::Remove { content: None } | Need::Put { content: None, .. } => {}
            }
            self.ready_puts.remove(path);
            self.ready_removes.remove(path);
            self.unsourced.remove(path);
        }
        let Some(need) = need else {
            self.needs.remove(path);
            self.reasons.remove(path);
            return old.is_some();
        };
        self.bytes += bytes_of(need);
        let (map, content) = match need {
            Need::Remove { content } => (&mut self.removable, content),
            Need::Put { content, .. } => (&mut self.wanted, content),
        };
        if let Some(content) = content {
            map.entry(content).or_default().insert(path.clone());
        }
        let state = self.needs.entry(path.clone()).or_insert(NeedState {
            need,
            stage: Stage::Ready,
            attempts: 0,
        });
        state.need = need;
        if matches!(state.stage, Stage::Ready | Stage::Parked) {
            self.make_ready(path);
        }
        old.is_some()
    }

    fn make_ready(&mut self, path: &RelPath) {
        let Some(state) = self.needs.get_mut(path) else {
            return;
        };
        state.stage = Stage::Ready;
        self.unsourced.remove(path);
        match state.need {
            Need::Put { .. } => self.ready_puts.insert(path.clone()),
            Need::Remove { .. } => self.ready_removes.insert(path.clone()),
        };
    }

    fn set_stage(&mut self, path: &RelPath, stage: Stage) {
        if let Some(state) = self.needs.get_mut(path) {
            state.stage = stage;
        }
    }

    fn removes(&self, path: &RelPath) -> bool {
        let need = self.needs.get(path).map(|state| state.need);
        matches!(need, Some(Need::Remove { .. }))
    }

    fn stage(&self, path: &RelPath) -> Option<Stage> {
        self.needs.get(path).map(|state| state.stage)
    }

    /// Tries a path again later; waits longer each time.
    fn park(&mut self, path: &RelPath, reason: Option<String>, now: Now) {
        let Some(state) = self.needs.get_mut(path) else {
            return;
        };
        state.stage = Stage::Parked;
        let wait = RETRY_MIN
            .saturating_mul(1 << state.attempts.min(10))
            .min(RETRY_MAX);
        state.attempts += 1;
        if let Some(reason) = reason
            && state.attempts >= STUCK_AFTER
        {
            self.reasons.insert(path.clone(), reason.into());
        }
        self.retry.insert((now.boot.after(wait), path.clone()));
    }

    /// Makes paths ready that waited for somebody to have their content.
    pub(super) fn sources_changed(&mut self) {
        for path in std::mem::take(&mut self.unsourced) {
            if self.stage(&path) == Some(Stage::Parked) {
                self.make_ready(&path);
            }
        }
    }

    /// Drops everything, for another group.
    pub(super) fn forget(&mut self) {
        let busy = std::mem::take(&mut self.busy);
        let mut installing = std::mem::take(&mut self.installing);
        installing.iter_mut().for_each(|job| job.of_former_group = true);
        *self = Self {
            busy,
            installing,
            ..Self::default()
        };
    }

    fn may_fetch(&self, size: u64) -> bool {
        self.fetching.len() < MAX_FETCHING
            && self.queue.len() < MAX_QUEUED
            && (self.fetching.is_empty() || self.fetching_bytes + size <= MAX_FETCHING_BYTES)
    }

    fn enqueue(&mut self, queued: Queued) {
        self.set_stage(&queued.path, Stage::Queued);
        self.queue.push_back(queued);
    }

    /// Lets go of a temporary file; returns it if nobody holds it any more.
    fn release(&mut self, content: ContentHash) -> Option<ContentHash> {
        let count = self.held.get_mut(&content)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.held.remove(&content);
        Some(content)
    }

    /// Returns a path that lacks this content and may be given the file at `from`.
    fn in_want_of(&self, content: &ContentHash, from: &RelPath) -> Option<RelPath> {
        let takers = self.wanted.get(content)?.iter();
        let mut free = takers.filter(|path| *path != from && !path.is_below(from) && !self.is_busy(path));
        free.next().cloned()
    }

    /// Says whether some other path lacks the content that lies at `from`, and has it nowhere else yet.
    fn must_stay(&self, content: &ContentHash, from: &RelPath) -> bool {
        let others = |map: &BTreeMap<ContentHash, BTreeSet<RelPath>>, free: bool| {
            let mut paths = map.get(content).into_iter().flatten();
            paths.any(|path| path != from && !(free && self.is_busy(path)))
        };
        others(&self.wanted, false) && !others(&self.removable, true) && !self.held.contains_key(content)
    }

    /// Puts paths back into the queue whose content is safe.
    fn unblock(&mut self) {
        for (content, queued) in std::mem::take(&mut self.blocked) {
            let waits = self.stage(&queued.path) == Some(Stage::Queued);
            if waits && self.must_stay(&content, &queued.path) {
                self.blocked.push((content, queued));
            } else {
                self.queue.push_back(queued);
            }
        }
    }

    /// Returns a path that is to be removed and holds this content.
    fn move_source(&mut self, content: &ContentHash) -> Option<RelPath> {
        let candidates = self.removable.get(content)?;
        let path = candidates
            .iter()
            .find(|path| self.ready_removes.contains(*path))?
            .clone();
        self.ready_removes.remove(&path);
        self.set_stage(&path, Stage::Queued);
        Some(path)
    }
}

fn bytes_of(need: Need) -> u64 {
    match need {
        Need::Put { bytes, .. } => bytes,
        Need::Remove { .. } => 0,
    }
}

fn remove_from(map: &mut BTreeMap<ContentHash, BTreeSet<RelPath>>, content: &ContentHash, path: &RelPath) {
    if let Some(paths) = map.get_mut(content) {
        paths.remove(path);
        if paths.is_empty() {
            map.remove(content);
        }
    }
}

impl SyncEngine {
    /// Looks up needs that an earlier run left.
    pub(super) fn recover_needs(&mut self, view: &impl StateView) {
        for path in std::mem::take(&mut self.work.recovered) {
            self.update_need(&path, view);
            if self.work.stage(&path).is_none() {
                self.pending.set_need(&path, false);
            }
        }
    }

    /// Starts what can be started.
    pub(super) fn schedule(&mut self, view: &impl StateView) {
        if self.phase != Phase::Running || self.paused {
            return;
        }
        self.work.unblock();
        self.schedule_puts(view);
        self.schedule_removes();
        if self.work.is_empty() && !self.work.failed.is_empty() {
            let failed = std::mem::take(&mut self.work.failed);
            self.work.unused.extend(failed);
        }
        self.drop_unused();
        if self.work.installing.is_empty() {
            self.start_installs(view);
            self.drop_unused();
        }
    }

    /// Lets go of temporary files. One that an install of the same group copies is let go of when the group is over.
    fn drop_unused(&mut self) {
        if self.work.unused.is_empty() || self.work.is_installing() {
            return;
        }
        let mut unused = std::mem::take(&mut self.work.unused);
        unused.retain(|content| {
            !self.work.held.contains_key(content) && !self.work.fetching.contains_key(content)
        });
        if !unused.is_empty() {
            self.emit_now(Output::DropContent(unused.into_iter().collect()));
        }
    }

    fn schedule_puts(&mut self, view: &impl StateView) {
        let mut jobs = Vec::new();
        while let Some(path) = self.work.ready_puts.pop_first() {
            if let Some(reason) = self.waits_for_answer(&path) {
                self.work.wait_for_answer(path, reason);
                continue;
            }
            let Some(want) = self.want(&path, view) else {
                self.update_need(&path, view);
                continue;
            };
            let have = self.pending.installed(view, &path);
            if !self.work.may_fetch(want.entry.node.size()) {
                self.work.ready_puts.insert(path);
                break;
            }
            self.schedule_put(path, &want, have.as_ref(), &mut jobs);
        }
        if !jobs.is_empty() {
            self.emit_now(Output::Fetch(jobs));
        }
    }

    fn schedule_put(
        &mut self,
        path: RelPath,
        want: &Want,
        have: Option<&Installed>,
        jobs: &mut Vec<FetchJob>,
    ) {
        let Node::File { content, size } = want.entry.node else {
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: None,
            });
            return;
        };
        if size == 0 || have.is_some_and(|have| have.entry.node == want.entry.node) {
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: None,
            });
            return;
        }
        if have.is_none()
            && let Some(from) = self.work.move_source(&content)
        {
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: Some(from),
            });
            return;
        }
        self.work.set_stage(&path, Stage::Fetching);
        if let Some((_, waiters)) = self.work.fetching.get_mut(&content) {
            waiters.push(path);
            return;
        }
        self.work.fetching.insert(content, (size, vec![path]));
        self.work.fetching_bytes += size;
        jobs.push(FetchJob {
            content,
            size,
            from: self.sources(want),
        });
    }

    /// Returns the connected members to ask for a content: its author first, then those that hold all.
    pub(super) fn sources(&self, want: &Want) -> Vec<DeviceId> {
        let author = Self::author_of(want.dot)
            .and_then(|short| self.group.as_ref().and_then(|group| group.device(short)));
        let mut peers: Vec<(bool, bool, DeviceId)> = self
            .peers
            .connected()
            .filter(|(device, _)| self.is_member(device))
            .map(|(device, peer)| (Some(*device) != author, !peer.in_sync, *device))
            .collect();
        peers.sort();
        peers.into_iter().map(|(.., device)| device).collect()
    }

    /// Removes go after puts, so that a file that only moved is not thrown away first; deepest first. No more than the
    /// next group are made ready: until then a file may yet turn out to have moved.
    fn schedule_removes(&mut self) {
        if !self.work.ready_puts.is_empty() {
            return;
        }
        while self.work.queue.len() < INSTALL_GROUP {
            let Some(path) = self.work.ready_removes.pop_last() else {
                break;
            };
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: None,
            });
        }
    }

    fn start_installs(&mut self, view: &impl StateView) {
        let count = self.work.queue.len().min(INSTALL_GROUP);
        let group: Vec<Queued> = self.work.queue.drain(..count).collect();
        let removes = |queued: &Queued| self.work.removes(&queued.path);
        let (gone, mut put): (Vec<Queued>, Vec<Queued>) = group.into_iter().partition(removes);
        // A directory comes before what lies in it, but what lies in it goes before it becomes something else.
        put.sort_by(|a, b| a.path.cmp(&b.path));
        let inside = |queued: &Queued| put.iter().any(|other| queued.path.is_below(&other.path));
        let (first, last): (Vec<Queued>, Vec<Queued>) = gone.into_iter().partition(inside);
        let mut jobs = Vec::new();
        for queued in first.into_iter().chain(put).chain(last) {
            jobs.extend(self.install_job(queued, view));
        }
        if !jobs.is_empty() {
            self.emit(Output::Install(jobs));
        }
    }

    /// Makes a job of a queued path by what is wanted now.
    fn install_job(&mut self, queued: Queued, view: &impl StateView) -> Option<InstallJob> {
        let wanted = self.work.stage(&queued.path) == Some(Stage::Queued);
        let want = self.want(&queued.path, view).filter(|_| wanted);
        let have = self.pending.installed(view, &queued.path);
        let same = matches!((&want, &have), (Some(w), Some(h)) if w.entry.node == h.entry.node);
        let displaced = have.as_ref().filter(|_| wanted && !same);
        let endangered = displaced
            .filter(|have| have.entry.node.size() > 0)
            .and_then(|have| have.entry.node.content());
        // A content in the temporary directory is safe; moving a file there instead would have its temporary file dropped,
        // on which others in this group rely.
        let taker = endangered
            .filter(|content| !self.work.held.contains_key(content))
            .and_then(|content| self.taker_of(&content, &queued.path, view));
        if let Some(content) = endangered
            && taker.is_none()
            && self.work.must_stay(&content, &queued.path)
        {
            self.work.blocked.push((content, queued));
            return None;
        }
        let Queued {
            path,
            fetched,
            move_from,
        } = queued;
        let content = want
            .as_ref()
            .filter(|w| !same && w.entry.node.size() > 0)
            .and_then(Want::content);
        let source = move_from
            .as_ref()
            .and_then(|from| self.pending.installed(view, from));
        let movable = have.is_none()
            && content.is_some()
            && source
                .as_ref()
                .is_some_and(|source| source.entry.node.content() == content);
        let keep =
            fetched.is_some_and(|content| self.work.held.get(&content).is_some_and(|count| *count > 1));
        let released = fetched.and_then(|content| self.work.release(content));
        let usable = content.is_none() || content == fetched || movable;
        if let Some(content) = released
            && (content_of(&want) != Some(content) || same)
        {
            self.work.unused.insert(content);
        }
        let nothing = want.is_none() && have.is_none();
        if !wanted || !usable || nothing {
            for again in [Some(path), move_from].into_iter().flatten() {
                if self.work.is_busy(&again) {
                    continue;
                }
                self.work.set_stage(&again, Stage::Parked);
                self.update_need(&again, view);
            }
            return None;
        }
        if let Some(taker) = taker
            && let Some(have) = &have
        {
            if let Some(content) = released.filter(|content| content_of(&want) == Some(*content)) {
                self.work.unused.insert(content);
            }
            return self.rescue(&path, have, taker, view);
        }
        if let Some(unused) = move_from
            .as_ref()
            .filter(|from| !movable && !self.work.is_busy(from))
        {
            self.work.set_stage(unused, Stage::Parked);
            self.update_need(unused, view);
        }
        let move_from = move_from.filter(|_| movable);
        let expect = have.as_ref().map(|have| have.print);
        let action = match (&want, &move_from, source) {
            (None, ..) => InstallAction::Remove,
            (Some(want), Some(from), Some(source)) => InstallAction::Move {
                from: from.clone(),
                from_expect: source.print,
                entry: want.entry.clone(),
            },
            (Some(want), ..) if same => InstallAction::SetMeta {
                entry: want.entry.clone(),
            },
            (Some(want), ..) => InstallAction::Put {
                entry: want.entry.clone(),
                keep,
            },
        };
        for busy in [Some(&path), move_from.as_ref()].into_iter().flatten() {
            self.work.busy.insert(busy.clone());
            self.work.set_stage(busy, Stage::Installing);
        }
        self.work.installing.push(Installing {
            path: path.clone(),
            want,
            move_from,
            of_former_group: false,
        });
        Some(InstallJob { path, expect, action })
    }

    /// Returns a path that lacks a content and where nothing stands, nor a file above it, so that the file at `from` can
    /// be moved there.
    fn taker_of(&self, content: &ContentHash, from: &RelPath, view: &impl StateView) -> Option<RelPath> {
        self.work.in_want_of(content, from).filter(|taker| {
            self.pending.installed(view, taker).is_none()
                && !self.is_below_file(taker, view)
                && self.want(taker, view).and_then(|want| want.content()) == Some(*content)
        })
    }

    /// Says whether something stands above a path that is no directory, so that nothing can be put there yet.
    fn is_below_file(&self, path: &RelPath, view: &impl StateView) -> bool {
        path.ancestors().any(|above| {
            let there = self.pending.installed(view, &above);
            there.is_some_and(|there| !there.entry.node.is_dir())
        })
    }

    /// What is about to be replaced or removed may be the only copy of bytes that another path lacks: gives them to
    /// that path first.
    fn rescue(
        &mut self,
        path: &RelPath,
        have: &Installed,
        taker: RelPath,
        view: &impl StateView,
    ) -> Option<InstallJob> {
        let want = self.want(&taker, view)?;
        let action = InstallAction::Move {
            from: path.clone(),
            from_expect: have.print,
            entry: want.entry.clone(),
        };
        for busy in [&taker, path] {
            self.work.busy.insert(busy.clone());
            self.work.set_stage(busy, Stage::Installing);
        }
        self.work.installing.push(Installing {
            path: taker.clone(),
            want: Some(want),
            move_from: Some(path.clone()),
            of_former_group: false,
        });
        Some(InstallJob {
            path: taker,
            expect: None,
            action,
        })
    }

    /// Takes the outcome of a group of installs.
    pub(super) fn installs_done(&mut self, results: Vec<InstallResult>, now: Now, view: &impl StateView) {
        let installing = std::mem::take(&mut self.work.installing);
        self.work.busy.clear();
        let mut rescan: BTreeSet<RelPath> = std::mem::take(&mut self.work.rescan_after);
        for (job, result) in installing.into_iter().zip(results) {
            debug_assert_eq!(job.path, result.path, "results come in the order of the jobs");
            self.install_done(job, result.outcome, now, view, &mut rescan);
        }
        if !rescan.is_empty() {
            self.emit(Output::Rescan(rescan.into_iter().collect()));
        }
    }

    fn install_done(
        &mut self,
        job: Installing,
        outcome: InstallOutcome,
        now: Now,
        view: &impl StateView,
        rescan: &mut BTreeSet<RelPath>,
    ) {
        let Installing {
            path,
            want,
            move_from,
            of_former_group,
        } = job;
        if of_former_group {
            // What stands there is a joiner's, like all that the folder holds: the scanner tells.
            for path in std::iter::once(path).chain(move_from) {
                self.work.note_done(&path, now.boot);
                rescan.insert(path);
            }
            return;
        }
        if !matches!(outcome, InstallOutcome::Done(_)) {
            self.work.failed.extend(content_of(&want));
        }
        let reason = match outcome {
            InstallOutcome::Done(print) => {
                for path in [Some(&path), move_from.as_ref()].into_iter().flatten() {
                    self.work.note_done(path, now.boot);
                }
                self.installed(&path, want.zip(print), move_from.as_ref(), view);
                None
            }
            InstallOutcome::Changed => {
                rescan.insert(path.clone());
                rescan.extend(move_from.clone());
                Some(None)
            }
            InstallOutcome::ContentMissing => Some(None),
            InstallOutcome::NotEmpty => {
                rescan.insert(path.clone());
                Some(Some(
                    "the directory still holds something that is not synced".to_owned(),
                ))
            }
            InstallOutcome::Failed(reason) => {
                self.notify(Notification::PathStuck {
                    path: path.clone(),
                    reason: reason.clone(),
                });
                Some(Some(reason))
            }
        };
        for path in [Some(path), move_from].into_iter().flatten() {
            self.work.set_stage(&path, Stage::Parked);
            match &reason {
                None => self.update_need(&path, view),
                Some(reason) => self.work.park(&path, reason.clone(), now),
            }
        }
    }

    fn installed(
        &mut self,
        path: &RelPath,
        now_there: Option<(Want, crate::tree::Fingerprint)>,
        move_from: Option<&RelPath>,
        view: &impl StateView,
    ) {
        let removed = now_there.is_none();
        let author = now_there.as_ref().and_then(|(want, _)| Self::author_of(want.dot));
        if let Some(from) = move_from {
            self.record_installed(from, None, view);
        }
        let installed = now_there.map(|(want, print)| Installed {
            entry: want.entry,
            print,
            dots: want.dots,
            copy_of: want.copy_of,
        });
        self.record_installed(path, installed, view);
        self.notify(Notification::PathSynced {
            path: path.clone(),
            removed,
            author,
        });
    }

    /// Takes contents that are complete in the temporary directory.
    pub(super) fn fetched(&mut self, contents: &[ContentHash], view: &impl StateView) {
        for content in contents {
            let Some((size, waiters)) = self.work.fetching.remove(content) else {
                self.work.unused.insert(*content);
                continue;
            };
            self.work.fetching_bytes -= size;
            self.work.failed.remove(content);
            let takers: Vec<RelPath> = waiters
                .into_iter()
                .filter(|path| self.work.stage(path) == Some(Stage::Fetching))
                .collect();
            let mut count = 0;
            for path in takers {
                if self.want(&path, view).and_then(|want| want.content()) == Some(*content) {
                    count += 1;
                    self.work.reasons.remove(&path);
                    self.work.enqueue(Queued {
                        path,
                        fetched: Some(*content),
                        move_from: None,
                    });
                } else {
                    self.work.set_stage(&path, Stage::Parked);
                    self.update_need(&path, view);
                }
            }
            if count > 0 {
                *self.work.held.entry(*content).or_default() += count;
            } else {
                self.work.unused.insert(*content);
            }
        }
    }

    /// Takes a content that could not be had.
    pub(super) fn fetch_failed(
        &mut self,
        content: ContentHash,
        reason: FetchFailure,
        now: Now,
        view: &impl StateView,
    ) {
        let Some((size, waiters)) = self.work.fetching.remove(&content) else {
            return;
        };
        self.work.fetching_bytes -= size;
        self.work.failed.insert(content);
        for path in waiters {
            if self.work.stage(&path) != Some(Stage::Fetching) {
                continue;
            }
            self.work.set_stage(&path, Stage::Parked);
            if self.want(&path, view).and_then(|want| want.content()) != Some(content) {
                self.update_need(&path, view);
                continue;
            }
            match &reason {
                FetchFailure::NoSource => {
                    self.work.has_no_source(&path);
                    self.work.retry.insert((now.boot.after(SOURCE_RETRY), path));
                }
                FetchFailure::Disk(text) => {
                    self.notify(Notification::PathStuck {
                        path: path.clone(),
                        reason: text.clone(),
                    });
                    self.work.park(&path, Some(text.clone()), now);
                }
            }
        }
    }

    /// Makes paths ready whose wait is over.
    pub(super) fn work_timeout(&mut self, now: Now) {
        while let Some((at, path)) = self.work.retry.first().cloned() {
            if at > now.boot {
                break;
            }
            self.work.retry.pop_first();
            let parked = self.work.stage(&path) == Some(Stage::Parked);
            let alone = self.work.unsourced.contains(&path) && self.peers.connected().next().is_none();
            if parked && !alone {
                self.work.make_ready(&path);
            }
        }
    }
}

fn content_of(want: &Option<Want>) -> Option<ContentHash> {
    want.as_ref().and_then(Want::content)
}
