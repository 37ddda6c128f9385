//! What is to be done on disk: needs become fetches, fetches become installs.
//!
//! A path with a need is in exactly one stage. What is wanted is looked up anew at each step, so a need never acts on
//! an outdated wish. One group of installs is under way at a time; fetching goes on meanwhile.

mod explain;
mod fetch;
mod install;
mod waiting;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::paths::Want;
use super::times::Times;
use super::{Output, Phase, StateView, SyncEngine};
use crate::ids::ContentHash;
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Now};

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
/// First wait before peers are asked again for a content that none of them had, though nothing says that one has it now;
/// doubles up to 64 times that.
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

/// A queued path that other paths need to stay as it is.
#[derive(Debug)]
struct Blocked {
    /// What stands there.
    content: ContentHash,
    queued: Queued,
    /// What it needed then. If that changes, other bytes than it fetched are wanted.
    need: Option<Need>,
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
    /// How often nobody had its content.
    unsourced: u32,
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
    blocked: Vec<Blocked>,
    /// Paths at which something else stands since those were looked at.
    replaced: BTreeSet<RelPath>,
    /// Paths that another has to give way to (`waiting`).
    waiting: Vec<Queued>,
    /// Something has changed since those were looked at.
    moved_on: bool,
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
    /// Contents that nobody had, and that now stand in the folder, or stood there and may be among the old versions.
    appeared: BTreeSet<ContentHash>,
    /// Paths that are left alone until the folder changes.
    given_up: BTreeSet<RelPath>,
    /// When the newest installs were over.
    done: Times<MAX_DONE>,
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

    /// Says whether a path needs anything.
    pub(super) fn needs(&self, path: &RelPath) -> bool {
        self.needs.contains_key(path)
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

    pub(super) fn is_fetching(&self, content: &ContentHash) -> bool {
        self.fetching.contains_key(content)
    }

    /// Says whether a path waits with a fetched content to be installed.
    pub(super) fn is_holding(&self, content: &ContentHash) -> bool {
        self.held.contains_key(content)
    }

    /// Says whether the disk at a path is being changed by us right now.
    pub(super) fn is_busy(&self, path: &RelPath) -> bool {
        self.busy.contains(path)
    }

    /// Says whether an install at a path, whatever came of it, was over only after the path was looked at.
    pub(super) fn is_outdated(&self, path: &RelPath, seen_at: BootInstant) -> bool {
        self.done.last(path).is_some_and(|done| seen_at <= done)
    }

    /// Notes that an install at a path, which may have made the directories above it, is over.
    fn note_done(&mut self, path: &RelPath, at: BootInstant) {
        for path in std::iter::once(path.clone()).chain(path.ancestors()) {
            self.done.note(path, at);
        }
    }

    /// Has a path looked at again when its install is over.
    pub(super) fn rescan_after(&mut self, path: RelPath) {
        self.rescan_after.insert(path);
    }

    /// As [`Work::rescan_after`], for all paths below another at which something is being installed.
    pub(super) fn rescan_below_after(&mut self, path: &RelPath) {
        let busy = self.busy.iter().filter(|busy| busy.is_below(path));
        self.rescan_after.extend(busy.cloned());
    }

    /// Notes what a path needs; returns whether it needed anything before.
    pub(super) fn set(&mut self, path: &RelPath, need: Option<Need>) -> bool {
        self.moved_on = true;
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
            unsourced: 0,
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
        self.given_up.remove(path);
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

    /// Leaves a path alone until something changes.
    fn give_up_for_now(&mut self, path: &RelPath, reason: &'static str) {
        if let Some(state) = self.needs.get_mut(path) {
            state.attempts = state.attempts.max(STUCK_AFTER);
            self.reasons.insert(path.clone(), reason.into());
            self.given_up.insert(path.clone());
        }
    }

    /// Tries those paths again that were left alone.
    pub(super) fn retry_given_up(&mut self) {
        for path in std::mem::take(&mut self.given_up) {
            if self.stage(&path) == Some(Stage::Parked) {
                self.make_ready(&path);
            }
        }
    }

    /// Makes all paths ready that wait for anything.
    pub(super) fn wake(&mut self) {
        let parked = self
            .needs
            .iter()
            .filter(|(_, state)| state.stage == Stage::Parked);
        let parked: Vec<RelPath> = parked.map(|(path, _)| path.clone()).collect();
        parked.iter().for_each(|path| self.make_ready(path));
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

    /// Returns the path that lacks this content and may be given the file at `from`. If several lack it, none may: before
    /// the others have copied it from there, its user may delete it, and knows nothing of them.
    fn in_want_of(&self, content: &ContentHash, from: &RelPath) -> Option<RelPath> {
        let mut takers = self.wanted.get(content)?.iter().filter(|path| *path != from);
        let taker = takers
            .next()
            .filter(|path| !path.is_below(from) && !self.is_busy(path))?;
        takers.next().is_none().then(|| taker.clone())
    }

    /// Says whether some other path lacks the content that lies at `from`, and has it nowhere else yet. One that cannot be
    /// installed as things are is not waited for: what stands at `from` would stay as long as that does.
    fn must_stay(&self, content: &ContentHash, from: &RelPath) -> bool {
        let is_stuck = |path: &RelPath| {
            let state = self.needs.get(path);
            state.is_some_and(|state| state.attempts >= STUCK_AFTER)
        };
        let mut takers = others(&self.wanted, content, from);
        let mut doomed = others(&self.removable, content, from);
        takers.any(|path| !is_stuck(path))
            && !doomed.any(|path| !self.is_busy(path))
            && !self.held.contains_key(content)
    }

    /// Notes that something else stands at a path than did, or nothing.
    pub(super) fn note_replaced(&mut self, path: &RelPath) {
        if !self.blocked.is_empty() {
            self.replaced.insert(path.clone());
        }
    }

    /// Puts paths back into the queue whose content is safe, or is not there any more.
    fn unblock(&mut self) {
        let replaced = std::mem::take(&mut self.replaced);
        for blocked in std::mem::take(&mut self.blocked) {
            let Blocked {
                content,
                queued,
                need,
            } = &blocked;
            let waits = self.stage(&queued.path) == Some(Stage::Queued)
                && self.need(&queued.path) == *need
                && !replaced.contains(&queued.path);
            if waits && self.must_stay(content, &queued.path) {
                self.blocked.push(blocked);
            } else {
                self.queue.push_back(blocked.queued);
            }
        }
    }

    /// Has a path wait until the content that stands there is safe elsewhere, or it needs something else.
    fn block(&mut self, content: ContentHash, queued: Queued) {
        let need = self.need(&queued.path);
        self.blocked.push(Blocked {
            content,
            queued,
            need,
        });
    }

    fn need(&self, path: &RelPath) -> Option<Need> {
        self.needs.get(path).map(|state| state.need)
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
    pub(super) fn schedule(&mut self, now: Now, view: &impl StateView) {
        if self.phase != Phase::Running || self.paused {
            return;
        }
        self.work.unblock();
        self.work.look_again();
        self.work.try_what_appeared(now);
        self.schedule_puts(view);
        self.schedule_removes();
        if self.work.is_empty() && !self.work.failed.is_empty() {
            let failed = std::mem::take(&mut self.work.failed);
            self.work.unused.extend(failed);
        }
        self.drop_unused();
        // What is put down before the comparison is over for good would pass for another group's after a crash.
        if self.work.installing.is_empty() && !self.local.is_releasing() {
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
            if self.ignoring.holds(&path) {
                self.work.set_stage(&path, Stage::Parked);
                continue;
            }
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
            self.schedule_put(path, &want, have.as_ref(), &mut jobs, view);
        }
        if !jobs.is_empty() {
            self.emit_now(Output::Fetch(jobs));
        }
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

    /// Makes paths ready whose wait is over.
    pub(super) fn work_timeout(&mut self, now: Now) {
        while let Some((at, path)) = self.work.retry.first().cloned() {
            if at > now.boot {
                break;
            }
            self.work.retry.pop_first();
            let parked = self.work.stage(&path) == Some(Stage::Parked);
            let alone = self.work.unsourced.contains(&path) && self.peers.connected().next().is_none();
            // Its wait may have been for something else, before it was left alone.
            if parked && !alone && !self.work.given_up.contains(&path) {
                self.work.make_ready(&path);
            }
        }
    }
}

/// Returns the paths of a content but for one.
fn others<'a>(
    map: &'a BTreeMap<ContentHash, BTreeSet<RelPath>>,
    content: &ContentHash,
    but: &'a RelPath,
) -> impl Iterator<Item = &'a RelPath> {
    let paths = map.get(content).into_iter().flatten();
    paths.filter(move |path| *path != but)
}

fn content_of(want: &Option<Want>) -> Option<ContentHash> {
    want.as_ref().and_then(Want::content)
}
