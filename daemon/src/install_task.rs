//! The thread that changes the folder: it runs the engine's installs one group after another.
//!
//! A group's old inodes are disposed of only when the store has recorded the group ([`DiskCommand::Finish`]); until
//! then a crash finds the intents in the journal.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2p_sync_core::engine::{InstallJob, InstallResult};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::worktree::{InstallToken, RestoreJob, RestoreOutcome, Worktree};

/// Between two looks at old inodes that a program may still be writing to.
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
    loop {
        match inbox.recv_timeout(DISPLACED_INTERVAL) {
            Ok(DiskCommand::Install(jobs)) => {
                let started = Instant::now();
                let batch = worktree.install(&jobs);
                debug!(
                    jobs = jobs.len(),
                    ms = started.elapsed().as_millis(),
                    "Installed a group"
                );
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
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
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
