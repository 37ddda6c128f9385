//! The thread that changes the folder: it runs the engine's installs one group after another.
//!
//! A group's old inodes are disposed of only when the store has recorded the group ([`DiskCommand::Finish`]); until
//! then a crash finds the intents in the journal.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2p_sync_core::engine::{InstallJob, InstallResult, OwnLogSize};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::journal::OwnLog;
use crate::worktree::{InstallToken, RestoreJob, RestoreOutcome, Worktree};

/// Between two looks at old inodes that a program may still be writing to, or that could not be moved away yet.
const DISPLACED_INTERVAL: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
#[derive(Debug)]
pub(crate) enum DiskCommand {
    /// Install a group.
    Install(Vec<InstallJob>),
    /// The store has recorded a group.
    Finish(InstallToken),
    /// Put versions at their paths as the user's edits.
    Restore {
        /// Which.
        jobs: Vec<RestoreJob>,
        /// What came of each, or why none was tried.
        reply: oneshot::Sender<Result<Vec<RestoreOutcome>, String>>,
    },
    /// Nobody needs these temporary files.
    Drop(Vec<ContentHash>),
    /// This device has made so many events.
    OwnLog(OwnLog, OwnLogSize),
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum DiskEvent {
    /// A group is done and durable.
    Installed {
        /// In the order of the jobs.
        results: Vec<InstallResult>,
        /// To be given back with [`DiskCommand::Finish`].
        token: InstallToken,
    },
    /// Bytes that a program wrote to a file after it was replaced now lie here.
    Displaced(Vec<RelPath>),
    /// The journal accepts nothing any more; told before the outcome of a group that it failed in.
    JournalFailed,
}

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn spawn(
    worktree: Arc<Worktree>,
    events: UnboundedSender<DiskEvent>,
) -> std::io::Result<(Sender<DiskCommand>, JoinHandle<()>)> {
    let (commands, inbox) = channel();
    let thread = std::thread::Builder::new()
        .name("install".to_owned())
        .spawn(move || run(&worktree, &inbox, &events))?;
    Ok((commands, thread))
}

fn run(worktree: &Worktree, inbox: &Receiver<DiskCommand>, events: &UnboundedSender<DiskEvent>) {
    let mut told = false;
    loop {
        if !told && worktree.journal_failed() {
            told = true;
            let _ = events.send(DiskEvent::JournalFailed);
        }
        match inbox.recv_timeout(DISPLACED_INTERVAL) {
            Ok(DiskCommand::Install(jobs)) => {
                let started = Instant::now();
                let batch = worktree.install(&jobs);
                debug!(
                    jobs = jobs.len(),
                    ms = started.elapsed().as_millis(),
                    "Installed a group"
                );
                if !told && worktree.journal_failed() {
                    told = true;
                    let _ = events.send(DiskEvent::JournalFailed);
                }
                let _ = events.send(DiskEvent::Installed {
                    results: batch.results,
                    token: batch.token,
                });
            }
            Ok(DiskCommand::Finish(token)) => {
                if let Err(error) = worktree.finish(token) {
                    error!(error = %crate::error_chain(&error), "Cannot record a finished install");
                }
            }
            Ok(DiskCommand::Restore { jobs, reply }) => {
                let outcomes = worktree
                    .restore(&jobs)
                    .map_err(|error| crate::error_chain(&error));
                // Whoever asked may have gone away; what was done stays.
                let _ = reply.send(outcomes);
            }
            Ok(DiskCommand::Drop(contents)) => {
                for content in contents {
                    if let Err(error) = worktree.drop_content(&content) {
                        warn!(error = %crate::error_chain(&error), "Cannot remove a temporary file");
                    }
                }
            }
            Ok(DiskCommand::OwnLog(log, size)) => {
                if let Err(error) = worktree.note_own_log(log, size) {
                    error!(error = %crate::error_chain(&error), "Cannot note the number of own events");
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if worktree.journal_failed() {
            continue;
        }
        if let Err(error) = worktree.finish_late(Instant::now()) {
            warn!(error = %crate::error_chain(&error), "Replaced files wait longer to become old versions");
        }
        let displaced = worktree.check_displaced(Instant::now()).unwrap_or_else(|error| {
            error!(error = %crate::error_chain(&error), "Cannot look at replaced files");
            Vec::new()
        });
        if !displaced.is_empty() {
            let paths = displaced.into_iter().map(|displaced| displaced.kept_at).collect();
            let _ = events.send(DiskEvent::Displaced(paths));
        }
    }
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::engine::{InstallAction, InstallOutcome};
    use p2p_sync_core::tree::{Entry, Node};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::journal::JournalService;
    use crate::root_dir::Modes;

    #[test]
    fn a_failed_journal_is_told_before_the_installs_that_it_failed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(JournalService::new(dir.path()).unwrap());
        let worktree = Arc::new(Worktree::new(dir.path(), journal.clone(), Modes::Full).unwrap());
        let (events, mut told) = unbounded_channel();
        let (commands, thread) = spawn(worktree, events).unwrap();
        journal.fail_next("sync", rustix::io::Errno::IO);
        let entry = Entry {
            node: Node::Dir,
            mode: 0o755,
            mtime_ns: 0,
        };
        let job = InstallJob {
            path: RelPath::parse("made").unwrap(),
            expect: None,
            action: InstallAction::Put { entry, keep: false },
        };
        commands.send(DiskCommand::Install(vec![job])).unwrap();
        assert!(matches!(told.blocking_recv(), Some(DiskEvent::JournalFailed)));
        let Some(DiskEvent::Installed { results, .. }) = told.blocking_recv() else {
            panic!("the group has no outcome")
        };
        assert!(matches!(results[0].outcome, InstallOutcome::Failed(_)));
        assert!(!dir.path().join("made").exists());
        drop(commands);
        thread.join().unwrap();
    }
}
