//! The thread that looks at the folder: full scans when asked and every hour, single paths as the watcher hints.
//!
//! Changes go out in batches over a bounded channel, so that a scan waits for the engine and not the other way round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2p_sync_core::engine::LocalChange;
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::mpsc;
use tracing::{debug, error, info};

use crate::scanner::{ScanError, ScanReport, Scanner};

/// Batches of changes under way to the engine.
pub(crate) const CHANGE_BATCHES: usize = 4;
/// Between two full scans that nobody asked for.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(3600);
/// Until a file that changed while it was read is read again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Longest wait for a file that changes all the time.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Paths that one command may name before a full scan is cheaper.
const MAX_PATHS: usize = 10_000;

/// What the thread is asked to look at.
#[derive(Debug)]
pub(crate) enum ScanCommand {
    /// Everything; answered by [`ScanEvent::Finished`].
    Full,
    /// These paths and what lies below them.
    Paths(Vec<RelPath>),
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum ScanEvent {
    /// These paths differ from what is believed.
    Changes(Vec<LocalChange>),
    /// A full scan is over: files found, and what could not be read.
    Finished {
        /// Files, directories and links.
        files: u64,
        /// Paths that could not be looked at, with the reason.
        problems: Vec<(RelPath, String)>,
    },
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
pub(crate) fn spawn(scanner: Scanner, events: mpsc::Sender<ScanEvent>) -> std::io::Result<ScanTask> {
    let (commands, inbox) = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let looker = Looker {
        scanner,
        events,
        stop: stop.clone(),
        again: BTreeSet::new(),
        again_at: None,
        again_wait: RETRY_AFTER,
        full_at: Instant::now() + FULL_SCAN_INTERVAL,
    };
    let thread = std::thread::Builder::new().name("scan".to_owned()).spawn(move || looker.run(&inbox))?;
    Ok(ScanTask { commands, stop, thread })
}

struct Looker {
    scanner: Scanner,
    events: mpsc::Sender<ScanEvent>,
    stop: Arc<AtomicBool>,
    again: BTreeSet<RelPath>,
    again_at: Option<Instant>,
    again_wait: Duration,
    full_at: Instant,
}

impl Looker {
    fn run(mut self, inbox: &Receiver<ScanCommand>) {
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = self.again_at.map_or(self.full_at, |at| at.min(self.full_at));
            match inbox.recv_timeout(due.saturating_duration_since(now)) {
                Ok(command) => self.take(command, inbox),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.again_at.is_some_and(|at| at <= Instant::now()) {
                self.again_at = None;
                let paths = std::mem::take(&mut self.again);
                self.paths(paths);
            }
            if self.full_at <= Instant::now() {
                self.full();
            }
        }
    }

    /// Takes a command and whatever else waits, so that many hints become one look.
    fn take(&mut self, first: ScanCommand, inbox: &Receiver<ScanCommand>) {
        let mut paths = BTreeSet::new();
        let mut full = false;
        for command in std::iter::once(first).chain(inbox.try_iter().take(1024)) {
            match command {
                ScanCommand::Full => full = true,
                ScanCommand::Paths(more) => paths.extend(more),
            }
        }
        if full || paths.len() > MAX_PATHS {
            self.full();
        } else {
            self.paths(paths);
        }
    }

    fn full(&mut self) {
        self.full_at = Instant::now() + FULL_SCAN_INTERVAL;
        let started = Instant::now();
        let events = self.events.clone();
        let result = self.scanner.scan_all(&self.stop, &mut |changes| send(&events, changes));
        if let Some(report) = self.report(result) {
            info!(files = report.0, ms = started.elapsed().as_millis(), "Scanned the folder");
            let _ = self.events.blocking_send(ScanEvent::Finished { files: report.0, problems: report.1 });
        }
    }

    fn paths(&mut self, paths: BTreeSet<RelPath>) {
        if paths.is_empty() {
            return;
        }
        let paths: Vec<RelPath> = paths.into_iter().collect();
        debug!(paths = paths.len(), "Looking at paths");
        let events = self.events.clone();
        let result = self.scanner.scan_paths(&paths, &self.stop, &mut |changes| send(&events, changes));
        self.report(result);
    }

    fn report(&mut self, result: Result<ScanReport, ScanError>) -> Option<(u64, Vec<(RelPath, String)>)> {
        match result {
            Ok(report) => {
                if report.retry.is_empty() {
                    self.again_wait = RETRY_AFTER;
                } else {
                    self.again.extend(report.retry);
                    self.again_at = Some(Instant::now() + self.again_wait);
                    self.again_wait = (self.again_wait * 2).min(RETRY_MAX);
                }
                Some((report.files, report.problems))
            }
            Err(error) => {
                let text = crate::error_chain(&error);
                error!(error = %text, "Cannot scan the folder");
                let _ = self.events.blocking_send(ScanEvent::Failed(text));
                None
            }
        }
    }
}

fn send(events: &mpsc::Sender<ScanEvent>, changes: Vec<LocalChange>) {
    // Fails only at shutdown, when nobody needs the changes: the next start finds them again.
    let _ = events.blocking_send(ScanEvent::Changes(changes));
}
