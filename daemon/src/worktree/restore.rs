//! Restores: a version put at its path again as the user's own edit.
//!
//! It goes the way of an install, with the same journal and the same exchange, and what stood at the path is kept as a
//! version first. But the engine is not told: the scanner finds the difference and publishes it like any edit.

use std::fs::File;
use std::io;

use p2p_sync_core::engine::{InstallAction, InstallJob, InstallOutcome};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint};
use rustix::fs::{Mode, OFlags};

use super::{GROUP_MAX, InstallBatch, InstallToken, Worktree, WorktreeError, meta};
use crate::journal::IntentAction;
use crate::root_dir::{is_dir_print, print_of};

/// A path to be given an entry; a file's bytes are in the temporary directory, and stay there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreJob {
    /// Where.
    pub path: RelPath,
    /// What.
    pub entry: Entry,
}

/// What came of a [`RestoreJob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// It stands at the path and is durable.
    Done,
    /// The temporary file is missing: get the content again.
    ContentMissing,
    /// It could not be put there; nothing was changed.
    Failed(String),
}

impl Worktree {
    /// Puts entries at their paths, in order, whatever stands there now; that is kept as a version. Blocks.
    ///
    /// # Errors
    /// [`WorktreeError`] if what was replaced cannot be kept; it is tried again as that of installs.
    pub fn restore(&self, jobs: &[RestoreJob]) -> Result<Vec<RestoreOutcome>, WorktreeError> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        for group in jobs.chunks(GROUP_MAX) {
            let mut batch = InstallBatch {
                results: Vec::new(),
                token: InstallToken::default(),
            };
            let jobs: Vec<Result<InstallJob, RestoreOutcome>> =
                group.iter().map(|job| self.job_of(job)).collect();
            let installs: Vec<InstallJob> = jobs.iter().flatten().cloned().collect();
            self.install_group(&installs, IntentAction::Restore, &mut batch);
            let mut results = batch.results.into_iter().map(|result| outcome(result.outcome));
            for job in jobs {
                outcomes.push(match job {
                    Ok(_) => results
                        .next()
                        .unwrap_or_else(|| RestoreOutcome::Failed("It was not tried".to_owned())),
                    Err(outcome) => outcome,
                });
            }
            self.finish(batch.token)?;
        }
        Ok(outcomes)
    }

    /// Says whether what stands at a path has this print.
    #[must_use]
    pub fn stands(&self, path: &RelPath, print: &Fingerprint) -> bool {
        let now = self.root.lstat(path).ok().flatten().map(|stat| print_of(&stat));
        meta::is_expected(Some(print), now.as_ref())
    }

    /// Opens a complete content of the temporary directory for reading.
    ///
    /// # Errors
    /// Not found if it is not there.
    pub fn open_content(&self, content: &ContentHash) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = content.to_hex();
        Ok(File::from(rustix::fs::openat(
            &self.own.tmp,
            name,
            flags,
            Mode::empty(),
        )?))
    }

    fn job_of(&self, job: &RestoreJob) -> Result<InstallJob, RestoreOutcome> {
        let failed = |e: io::Error| RestoreOutcome::Failed(format!("Cannot look at the path: {e}"));
        let now = self
            .root
            .lstat(&job.path)
            .map_err(failed)?
            .map(|stat| print_of(&stat));
        // A directory that is there is given its mode, not made.
        let is_there = job.entry.node.is_dir() && now.as_ref().is_some_and(is_dir_print);
        Ok(InstallJob {
            path: job.path.clone(),
            expect: now.filter(|_| !is_there),
            action: InstallAction::Put {
                entry: job.entry.clone(),
                keep: true,
            },
        })
    }
}

fn outcome(outcome: InstallOutcome) -> RestoreOutcome {
    match outcome {
        InstallOutcome::Done(_) => RestoreOutcome::Done,
        InstallOutcome::ContentMissing => RestoreOutcome::ContentMissing,
        InstallOutcome::Changed | InstallOutcome::Gone => {
            RestoreOutcome::Failed("It changed at this very moment; try again".to_owned())
        }
        InstallOutcome::NotEmpty(_) => {
            RestoreOutcome::Failed("A directory that is not empty stands there".to_owned())
        }
        InstallOutcome::Failed(why) => RestoreOutcome::Failed(why),
    }
}
