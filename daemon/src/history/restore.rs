//! Restores of one path, and of everything below one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures::future::join_all;
use p2p_sync_core::engine::StateView as _;
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Node};
use tokio::sync::{mpsc, oneshot};

use super::{Ask, Held, History, TRIES, facts};
use crate::control::{ControlError, Pick, RestoreProblem, RestoreStep};
use crate::store::StoreView;
use crate::worktree::{RestoreJob, RestoreOutcome, Worktree};

/// Paths restored at once.
const BATCH_PATHS: usize = 256;
/// Bytes of content held in the temporary directory at once; one larger file is held alone.
const BATCH_BYTES: u64 = 256 << 20;
/// Paths looked at before something is told.
const BATCH_LOOKED_AT: u64 = 10_000;

type Steps = mpsc::Sender<Result<RestoreStep, ControlError>>;

/// How far the walk over a directory is, and what it found.
#[derive(Debug, Default)]
struct Batch {
    jobs: Vec<RestoreJob>,
    unchanged: u64,
    /// The last path that was looked at.
    at: Option<RelPath>,
    /// There is nothing behind it.
    is_last: bool,
}

impl History {
    /// Puts versions at their paths, telling how far it is.
    pub(crate) fn restore(self: &Arc<Self>, path: Option<RelPath>, pick: Pick, steps: Steps) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let result = tokio::select! {
                () = steps.closed() => return,
                result = this.run_restore(path, pick, &steps) => result,
            };
            let last = result.map(|step| RestoreStep { done: true, ..step });
            let _ = steps.send(last).await;
        });
    }

    async fn run_restore(
        self: &Arc<Self>,
        path: Option<RelPath>,
        pick: Pick,
        steps: &Steps,
    ) -> Result<RestoreStep, ControlError> {
        let _permit = self
            .restoring
            .try_acquire()
            .map_err(|_| ControlError::Restoring)?;
        match (pick, path) {
            (Pick::Before(time), path) => self.restore_below(path, time, steps).await,
            (pick, Some(path)) => self.restore_one(path, pick).await,
            (Pick::Newest | Pick::Id(_), None) => {
                let why = "The whole folder can be restored to a time only".to_owned();
                Err(ControlError::NoVersion(why))
            }
        }
    }

    async fn restore_one(self: &Arc<Self>, path: RelPath, pick: Pick) -> Result<RestoreStep, ControlError> {
        let version = self.picked(path.clone(), pick).await?;
        let mut total = RestoreStep::default();
        if let Some(entry) = version.entry.clone() {
            let job = RestoreJob { path, entry };
            let stands = self.stands(&job).await?;
            if stands {
                total.unchanged = 1;
            } else {
                self.restore_batch(vec![job], &mut total).await?;
            }
        }
        total.version = Some(version);
        Ok(total)
    }

    async fn restore_below(
        self: &Arc<Self>,
        dir: Option<RelPath>,
        time: SystemTime,
        steps: &Steps,
    ) -> Result<RestoreStep, ControlError> {
        let mut total = RestoreStep::default();
        let mut at = None;
        loop {
            let (below, after, before_ms) = (dir.clone(), at.take(), facts::millis(time));
            let batch = self
                .blocking(move |this| {
                    this.read(|view| Ok(next_batch(view, &this.worktree, below.as_ref(), after, before_ms)))
                })
                .await?;
            total.unchanged += batch.unchanged;
            self.restore_batch(batch.jobs, &mut total).await?;
            if batch.is_last {
                break;
            }
            at = batch.at;
            let problems = std::mem::take(&mut total.problems);
            let step = RestoreStep {
                problems,
                ..total.clone()
            };
            if steps.send(Ok(step)).await.is_err() {
                break;
            }
        }
        if total.restored + total.unchanged + total.failed == 0 {
            let place = dir.map_or_else(|| "the folder".to_owned(), |dir| dir.to_string());
            let why = format!("Nothing stood at {place} or below it at that time");
            return Err(ControlError::NoVersion(why));
        }
        Ok(total)
    }

    /// Says whether exactly this stands at its path, on disk too.
    pub(super) async fn stands(self: &Arc<Self>, job: &RestoreJob) -> Result<bool, ControlError> {
        let job = job.clone();
        self.blocking(move |this| this.read(|view| Ok(stands(view, &this.worktree, &job.path, &job.entry))))
            .await
    }

    /// Restores a few paths; counts and problems go to `total`.
    pub(super) async fn restore_batch(
        self: &Arc<Self>,
        mut jobs: Vec<RestoreJob>,
        total: &mut RestoreStep,
    ) -> Result<(), ControlError> {
        for round in 1..=TRIES {
            if jobs.is_empty() {
                break;
            }
            let held = self.get_all(&mut jobs, total).await?;
            let done = self.put_all(&jobs).await?;
            drop(held);
            let mut again = Vec::new();
            for (job, outcome) in jobs.into_iter().zip(done) {
                match outcome {
                    RestoreOutcome::Done => total.restored += 1,
                    RestoreOutcome::ContentMissing if round < TRIES => again.push(job),
                    RestoreOutcome::ContentMissing => {
                        fail(
                            total,
                            job.path,
                            false,
                            "Its bytes were taken away again and again".to_owned(),
                        );
                    }
                    RestoreOutcome::Failed(why) => fail(total, job.path, false, why),
                }
            }
            jobs = again;
        }
        Ok(())
    }

    /// Gets the contents of all jobs; those whose bytes cannot be had go.
    async fn get_all(
        &self,
        jobs: &mut Vec<RestoreJob>,
        total: &mut RestoreStep,
    ) -> Result<Vec<Held>, ControlError> {
        let mut contents: BTreeMap<ContentHash, u64> = BTreeMap::new();
        for job in jobs.iter() {
            if let Node::File {
                content,
                size: size @ 1..,
            } = job.entry.node
            {
                contents.insert(content, size);
            }
        }
        let results = join_all(contents.iter().map(|(content, size)| self.get(*content, *size))).await;
        let mut held = Vec::new();
        let mut missing: BTreeMap<ContentHash, ControlError> = BTreeMap::new();
        for (content, result) in contents.into_keys().zip(results) {
            match result {
                Ok(content) => held.push(content),
                Err(ControlError::Stopping) => return Err(ControlError::Stopping),
                Err(error) => {
                    missing.insert(content, error);
                }
            }
        }
        let (lost, rest) = std::mem::take(jobs).into_iter().partition(|job| {
            job.entry
                .node
                .content()
                .is_some_and(|content| missing.contains_key(&content))
        });
        *jobs = rest;
        let lost: Vec<RestoreJob> = lost;
        for job in lost {
            let error = job.entry.node.content().and_then(|content| missing.get(&content));
            let not_at_hand = matches!(error, Some(ControlError::NotAtHand));
            let why = error.map(|error| crate::error_chain(error)).unwrap_or_default();
            fail(total, job.path, not_at_hand, why);
        }
        Ok(held)
    }

    async fn put_all(&self, jobs: &[RestoreJob]) -> Result<Vec<RestoreOutcome>, ControlError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Restore {
            jobs: jobs.to_vec(),
            reply,
        })?;
        let outcomes = answer
            .await
            .map_err(|_| ControlError::Stopping)?
            .map_err(ControlError::Read)?;
        let paths = jobs.iter().map(|job| job.path.clone()).collect();
        self.ask(Ask::Rescan(paths))?;
        Ok(outcomes)
    }
}

fn fail(total: &mut RestoreStep, path: RelPath, not_at_hand: bool, reason: String) {
    total.failed += 1;
    total.problems.push(RestoreProblem {
        path,
        not_at_hand,
        reason,
    });
}

/// Says whether exactly this stands at a path, on disk too.
fn stands(view: &StoreView, worktree: &Worktree, path: &RelPath, entry: &Entry) -> bool {
    let installed = view.installed(path).filter(|installed| installed.entry == *entry);
    installed.is_some_and(|installed| worktree.stands(path, &installed.print))
}

/// Looks at the paths behind `after`, the directory itself first.
fn next_batch(
    view: &StoreView,
    worktree: &Worktree,
    dir: Option<&RelPath>,
    after: Option<RelPath>,
    before_ms: u64,
) -> Batch {
    let mut batch = Batch {
        at: after,
        ..Batch::default()
    };
    let (mut bytes, mut looked_at) = (0, 0);
    while batch.jobs.len() < BATCH_PATHS && bytes < BATCH_BYTES && looked_at < BATCH_LOOKED_AT {
        looked_at += 1;
        let next = match (&batch.at, dir) {
            (None, Some(dir)) => Some(dir.clone()),
            (at, _) => view.next_with_history(dir, at.as_ref()),
        };
        let Some(path) = next else {
            batch.is_last = true;
            break;
        };
        batch.at = Some(path.clone());
        let Some(entry) = facts::then(view, &path, before_ms).and_then(|version| version.entry) else {
            continue;
        };
        if stands(view, worktree, &path, &entry) {
            batch.unchanged += 1;
            continue;
        }
        bytes += entry.node.size();
        batch.jobs.push(RestoreJob { path, entry });
    }
    batch
}
