//! The thread that looks at the folder: full scans when asked and every hour, single paths as the watcher hints. Where
//! not all of the folder is watched, full scans come as often as is cheap.
//!
//! What cannot be synced is remembered (`problems`), so that it is named from the moment it is seen until it is mended.
//!
//! Changes go out in batches over a bounded channel, so that a scan waits for the engine and not the other way round.

mod problems;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2p_sync_core::engine::{FoundBy, LocalChange, LookNo, ScanNo};
use p2p_sync_core::ignore::IgnoreRules as _;
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::mpsc;
use tracing::{debug, error, info, trace};

use self::problems::Problems;
use crate::ignore_rules::{RuleSource, Rules};
use crate::scanner::{Below, ScanError, ScanReport, Scanner};

/// Batches of changes under way to the engine.
pub(crate) const CHANGE_BATCHES: usize = 4;
/// Between two full scans that nobody asked for.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(3600);
/// Between two full scans at least while not all directories are watched.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(10);
/// The same in lengths of such a scan: they take a twentieth of one processor at most.
const UNWATCHED_LENGTHS: u32 = 20;
/// Until a folder that could not be scanned is tried again: it may be mounted again by then.
const FAILED_SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the folder itself: a scan would tell, but when nothing happens there is none.
const ROOT_INTERVAL: Duration = Duration::from_secs(30);
/// Until a file that changed while it was read, or just before, is looked at again; doubles while it goes on.
const RETRY_AFTER: Duration = Duration::from_millis(60);
/// Longest wait for a file that changes all the time.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Paths that one command may name before a full scan is cheaper.
const MAX_PATHS: usize = 10_000;

/// What the thread is asked to look at.
#[derive(Debug)]
pub(crate) enum ScanCommand {
    /// Everything; answered by [`ScanEvent::Finished`], with the newest of those numbers that came before it began.
    Full(ScanNo),
    /// These paths, and what lies below those that are new.
    Hint(Vec<RelPath>),
    /// These paths and everything below them.
    Paths(Vec<RelPath>),
    /// The same, answered by [`ScanEvent::Looked`] once nothing of it is to be looked at again.
    Look(LookNo, Vec<RelPath>),
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum ScanEvent {
    /// These paths differ from what is believed.
    Changes(Vec<LocalChange>),
    /// From now on these are the ignore rules.
    Rules(Arc<Rules>),
    /// The file of ignore patterns cannot be read, so the rules that hold stay; `None`: it can be read again.
    RulesFailed(Option<String>),
    /// A full scan is over that began after this one was asked for.
    Finished(ScanNo),
    /// These paths were looked at, and none of them is to be looked at again.
    Looked(LookNo),
    /// From now on these paths cannot be synced or looked at, with the reasons.
    Problems(Vec<(RelPath, String)>),
    /// The folder itself cannot be scanned.
    Failed(String),
}

/// The thread's handles.
#[derive(Debug)]
pub(crate) struct ScanTask {
    /// Commands; dropped to end the thread.
    pub(crate) commands: Sender<ScanCommand>,
    /// Set to make a scan end early.
    pub(crate) stop: Arc<AtomicBool>,
    /// The thread.
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread.
///
/// `source` is where the scanner's ignore `rules` come from; they are read again before each full scan.
pub(crate) fn spawn(
    scanner: Scanner,
    source: RuleSource,
    rules: Arc<Rules>,
    events: mpsc::Sender<ScanEvent>,
) -> std::io::Result<ScanTask> {
    let (commands, inbox) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let looker = Looker {
        scanner,
        source,
        rules,
        rules_failed: None,
        events,
        stop: stop.clone(),
        again: Again::default(),
        looks: Vec::new(),
        asked: ScanNo::default(),
        failed: false,
        problems: Problems::default(),
        full_at: Instant::now() + FULL_SCAN_INTERVAL,
        scanned: None,
        root_at: Instant::now() + ROOT_INTERVAL,
        root_lost: false,
    };
    let thread = std::thread::Builder::new()
        .name("scan".to_owned())
        .spawn(move || looker.run(&inbox))?;
    Ok(ScanTask {
        commands,
        stop,
        thread,
    })
}

struct Looker {
    scanner: Scanner,
    source: RuleSource,
    rules: Arc<Rules>,
    rules_failed: Option<String>,
    events: mpsc::Sender<ScanEvent>,
    stop: Arc<AtomicBool>,
    again: Again,
    /// What is to be told once nothing of these is to be looked at again.
    looks: Vec<(LookNo, Vec<RelPath>)>,
    /// The newest full scan that was asked for.
    asked: ScanNo,
    /// The last look came to nothing.
    failed: bool,
    problems: Problems,
    full_at: Instant,
    /// When the last full scan ended, and how long it took.
    scanned: Option<(Instant, Duration)>,
    /// When to see whether the folder is still there.
    root_at: Instant,
    root_lost: bool,
}

/// Files to look at again. Each waits longer the more often it was found unfit, and none waits for another.
#[derive(Debug, Default)]
struct Again {
    due: BTreeSet<(Instant, RelPath)>,
    /// How often each was put here lately, and when it is due.
    tries: BTreeMap<RelPath, (u32, Instant)>,
}

impl Again {
    fn add(&mut self, path: RelPath, now: Instant) {
        let before = self.tries.get(&path).copied();
        if let Some((_, due)) = before
            && !self.due.insert((due, path.clone()))
        {
            return;
        }
        let tries = before.map_or(0, |(tries, due)| {
            self.due.remove(&(due, path.clone()));
            if now.saturating_duration_since(due) > RETRY_MAX {
                0
            } else {
                tries + 1
            }
        });
        let at = now + RETRY_AFTER.saturating_mul(1 << tries.min(10)).min(RETRY_MAX);
        self.due.insert((at, path.clone()));
        self.tries.insert(path, (tries, at));
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Says whether one of these paths, or something below one, is to be looked at again.
    fn waits_in(&self, paths: &[RelPath]) -> bool {
        let mut due = self.due.iter().map(|(_, path)| path);
        due.any(|path| paths.iter().any(|above| path == above || path.is_below(above)))
    }

    fn take_due(&mut self, now: Instant) -> BTreeSet<RelPath> {
        let mut paths = BTreeSet::new();
        while let Some((at, path)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, path));
                break;
            }
            paths.insert(path);
        }
        self.tries
            .retain(|_, (_, due)| now.saturating_duration_since(*due) <= RETRY_MAX);
        paths
    }
}

impl Looker {
    fn run(mut self, inbox: &Receiver<ScanCommand>) {
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if let Some((ended, took)) = self.scanned.filter(|_| !self.scanner.is_watched()) {
                self.full_at = self.full_at.min(ended + unwatched_interval(took));
            }
            let due = self.full_at.min(self.root_at);
            let due = self.again.next().map_or(due, |at| at.min(due));
            match inbox.recv_timeout(due.saturating_duration_since(now)) {
                Ok(command) => self.take(command, inbox),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let again = self.again.take_due(Instant::now());
            self.paths(again, Below::Changed, FoundBy::Look);
            self.tell_looked();
            if self.root_at <= Instant::now() {
                self.check_root();
            }
            if self.full_at <= Instant::now() {
                self.full(&BTreeSet::new());
            }
        }
    }

    /// Tells which looks are over.
    fn tell_looked(&mut self) {
        if self.failed {
            return;
        }
        let again = &self.again;
        for (no, _) in self.looks.extract_if(.., |(_, paths)| !again.waits_in(paths)) {
            let _ = self.events.blocking_send(ScanEvent::Looked(no));
        }
    }

    /// Says so when the folder is gone; when it is back, all of it is looked at.
    fn check_root(&mut self) {
        self.root_at = Instant::now() + ROOT_INTERVAL;
        match self.scanner.check_root() {
            Ok(()) if self.root_lost => self.full_at = Instant::now(),
            Err(error) if !self.root_lost => self.failed(&error),
            Ok(()) | Err(_) => {}
        }
    }

    /// Says that the folder cannot be scanned, once, and tries again soon: it may be mounted again by then.
    fn failed(&mut self, error: &ScanError) {
        self.root_lost = matches!(error, ScanError::RootChanged);
        let text = crate::error_chain(error);
        if self.failed {
            debug!(error = %text, "Still cannot scan the folder");
        } else {
            error!(error = %text, "Cannot scan the folder");
        }
        self.failed = true;
        self.full_at = Instant::now() + FAILED_SCAN_INTERVAL;
        let _ = self.events.blocking_send(ScanEvent::Failed(text));
    }

    /// Takes a command and whatever else waits, so that many hints become one look.
    fn take(&mut self, first: ScanCommand, inbox: &Receiver<ScanCommand>) {
        let mut hints = BTreeSet::new();
        let mut paths = BTreeSet::new();
        let mut full = None;
        for command in std::iter::once(first).chain(inbox.try_iter().take(1024)) {
            match command {
                ScanCommand::Full(number) => full = full.max(Some(number)),
                ScanCommand::Hint(more) => hints.extend(more),
                ScanCommand::Paths(more) => paths.extend(more),
                ScanCommand::Look(no, more) => {
                    paths.extend(more.iter().cloned());
                    self.looks.push((no, more));
                }
            }
        }
        self.asked = self.asked.max(full.unwrap_or_default());
        if full.is_some() || paths.len() + hints.len() > MAX_PATHS {
            self.full(&hints);
        } else {
            self.paths(hints, Below::Changed, FoundBy::Watcher);
            self.paths(paths, Below::All, FoundBy::Look);
        }
    }

    /// Reads the ignore patterns again. The loop hears of new ones before anything that is found by them.
    fn refresh_rules(&mut self) {
        let failed = match self.source.read() {
            Ok(rules) if rules.id() == self.rules.id() && rules.problems() == self.rules.problems() => None,
            Ok(rules) => {
                info!("The ignore patterns have changed");
                self.rules = Arc::new(rules);
                self.scanner.set_rules(self.rules.clone());
                let _ = self.events.blocking_send(ScanEvent::Rules(self.rules.clone()));
                None
            }
            Err(error) => Some(crate::error_chain(&error)),
        };
        if failed != self.rules_failed {
            self.rules_failed.clone_from(&failed);
            let _ = self.events.blocking_send(ScanEvent::RulesFailed(failed));
        }
    }

    /// Looks at everything; what lies at `hints` somebody saw change.
    fn full(&mut self, hints: &BTreeSet<RelPath>) {
        self.refresh_rules();
        self.full_at = Instant::now() + FULL_SCAN_INTERVAL;
        let started = Instant::now();
        let events = self.events.clone();
        let result = self.scanner.scan_all(&self.stop, &mut |changes| {
            send(&events, witnessed(changes, hints));
        });
        if let Some(report) = self.report(result) {
            self.root_lost = false;
            let took = started.elapsed();
            self.scanned = Some((Instant::now(), took));
            info!(files = report.files, ms = took.as_millis(), "Scanned the folder");
            if !report.stopped {
                self.problems.set(report.problems);
                self.tell_problems();
            }
            let _ = self.events.blocking_send(ScanEvent::Finished(self.asked));
        }
    }

    fn paths(&mut self, paths: BTreeSet<RelPath>, below: Below, found_by: FoundBy) {
        if paths.is_empty() {
            return;
        }
        let hints = match found_by {
            FoundBy::Watcher => paths.clone(),
            FoundBy::Look | FoundBy::Scan => BTreeSet::new(),
        };
        let paths: Vec<RelPath> = paths.into_iter().collect();
        debug!(paths = paths.len(), "Looking at paths");
        for path in &paths {
            trace!(%path, "Looking at a path");
        }
        let suspects = self.problems.at_or_below(&paths);
        let Some(found) = self.look(&paths, below, &hints) else {
            return;
        };
        let known = if suspects.is_empty() {
            Some(Vec::new())
        } else {
            self.look(&suspects, Below::All, &hints)
        };
        if let Some(known) = known {
            self.problems.replace(&suspects, found.into_iter().chain(known));
            self.tell_problems();
        }
    }

    /// Looks at paths and returns the problems there; `None` if not all were looked at.
    fn look(
        &mut self,
        paths: &[RelPath],
        below: Below,
        hints: &BTreeSet<RelPath>,
    ) -> Option<Vec<(RelPath, String)>> {
        let events = self.events.clone();
        let result = self.scanner.scan_paths(paths, below, &self.stop, &mut |changes| {
            send(&events, witnessed(changes, hints));
        });
        let report = self.report(result)?;
        (!report.stopped).then_some(report.problems)
    }

    fn tell_problems(&mut self) {
        if let Some(problems) = self.problems.news() {
            let _ = self.events.blocking_send(ScanEvent::Problems(problems));
        }
    }

    fn report(&mut self, result: Result<ScanReport, ScanError>) -> Option<ScanReport> {
        match result {
            Ok(mut report) => {
                self.failed = false;
                for path in &report.retry {
                    trace!(%path, "To be looked at again");
                }
                let now = Instant::now();
                std::mem::take(&mut report.retry)
                    .into_iter()
                    .for_each(|path| self.again.add(path, now));
                Some(report)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }
}

/// Returns the time between full scans of such a length while they have to find what nobody hears of.
fn unwatched_interval(took: Duration) -> Duration {
    let interval = took.saturating_mul(UNWATCHED_LENGTHS);
    interval.clamp(UNWATCHED_INTERVAL, FULL_SCAN_INTERVAL)
}

/// Marks changes that the watcher hinted at, there or above.
fn witnessed(mut changes: Vec<LocalChange>, hints: &BTreeSet<RelPath>) -> Vec<LocalChange> {
    if !hints.is_empty() {
        for change in &mut changes {
            let hinted = |path: &RelPath| hints.contains(path);
            if hinted(&change.path) || change.path.ancestors().any(|above| hinted(&above)) {
                change.found_by = FoundBy::Watcher;
            }
        }
    }
    changes
}

fn send(events: &mpsc::Sender<ScanEvent>, changes: Vec<LocalChange>) {
    for change in &changes {
        trace!(path = %change.path, gone = change.after.is_none(), "Found a change");
    }
    // Fails only at shutdown, when nobody needs the changes: the next start finds them again.
    let _ = events.blocking_send(ScanEvent::Changes(changes));
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::time::BootInstant;

    use super::*;

    #[test]
    fn scans_of_an_unwatched_folder_are_frequent_but_leave_the_machine_alone() {
        let after = |ms| unwatched_interval(Duration::from_millis(ms)).as_secs();
        assert_eq!([0, 500, 3_000, 1_000_000].map(after), [10, 10, 60, 3600]);
    }

    #[test]
    fn what_the_watcher_hinted_at_was_seen_to_happen_though_a_full_scan_finds_it() {
        let rel = |s: &str| RelPath::parse(s).unwrap();
        let found = |path| LocalChange {
            path: rel(path),
            seen_at: BootInstant::default(),
            after: None,
            found_by: FoundBy::Scan,
        };
        let changes: Vec<_> = ["a", "d/e/f", "other"].map(found).into();
        let told = witnessed(changes, &BTreeSet::from([rel("a"), rel("d")]));
        let found_by: Vec<FoundBy> = told.iter().map(|change| change.found_by).collect();
        assert_eq!(found_by, [FoundBy::Watcher, FoundBy::Watcher, FoundBy::Scan]);
    }

    #[test]
    fn a_file_that_never_rests_waits_longer_and_keeps_no_other_waiting() {
        let (hot, calm) = (RelPath::parse("hot").unwrap(), RelPath::parse("calm").unwrap());
        let mut again = Again::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..12 {
            again.add(hot.clone(), now);
            again.add(hot.clone(), now);
            waits.push(again.next().unwrap() - now);
            now = again.next().unwrap();
            assert_eq!(again.take_due(now), BTreeSet::from([hot.clone()]));
        }
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert_eq!((waits[0], waits[11]), (RETRY_AFTER, RETRY_MAX));
        again.add(hot, now);
        again.add(calm.clone(), now);
        assert_eq!(again.next(), Some(now + RETRY_AFTER));
        assert_eq!(again.take_due(now + RETRY_AFTER), BTreeSet::from([calm]));
    }
}
