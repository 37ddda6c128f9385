//! The fake of the thread that changes the folder, and what happens to it between two steps.

use p2p_sync_core::engine::{FoundBy, Input, InstallJob, InstallOutcome, InstallResult};
use p2p_sync_core::rel_path::RelPath;

use super::{Ambush, AmbushKind, Event, Work, World};
use crate::sim::device::Task;
use crate::sim::disk::Place;
use crate::sim::rng::Rng;
use crate::sim::worktree::{Progress, Round, Unfinished};

/// After how long an old version is looked at again.
const LOOK_AGAIN_MS: u64 = 2_000;

impl World {
    pub(super) fn queue_installs(&mut self, device: usize, jobs: Vec<InstallJob>) {
        self.queue_task(device, Task::Install(Round::new(jobs)));
    }

    fn queue_task(&mut self, device: usize, task: Task) {
        let here = &mut self.devices[device];
        here.tasks.push_back(task);
        if here.tasks.len() == 1 {
            let delay = here.dice.between(1, 50);
            self.later(device, delay, Work::InstallStep);
        }
    }

    /// Takes installs whose outcome the engine was just told; they are finished when what it wrote of them is durable.
    pub(super) fn note_unfinished(&mut self, device: usize, unfinished: Vec<Unfinished>) {
        let here = &mut self.devices[device];
        here.unfinished.push_back((here.last_batch, unfinished));
        self.finish_installs(device);
    }

    /// Has the installs finished that the store knows.
    pub(super) fn finish_installs(&mut self, device: usize) {
        let here = &mut self.devices[device];
        let durable = here.durable_batch;
        let mut ready = Vec::new();
        while here.unfinished.front().is_some_and(|(no, _)| *no <= durable) {
            ready.extend(here.unfinished.pop_front().map(|(_, unfinished)| unfinished));
        }
        for unfinished in ready {
            self.queue_task(device, Task::Record(unfinished));
        }
    }

    /// Does one step of what the thread is asked to do.
    pub(super) fn install_step(&mut self, device: usize) -> Result<(), String> {
        let time_ms = self.time_ms;
        let here = &mut self.devices[device];
        let Some(task) = here.tasks.pop_front() else {
            return Ok(());
        };
        let mut path = None;
        let mut open = None;
        let mut outcome = None;
        match task {
            Task::Install(mut round) => match here.worktree(time_ms).step(&mut round) {
                Progress::More { at, open: place } => {
                    (path, open) = (at, place);
                    here.tasks.push_front(Task::Install(round));
                }
                Progress::Done {
                    results,
                    unfinished,
                    touched,
                } => outcome = Some((results, unfinished, touched)),
            },
            Task::Record(unfinished) => {
                here.worktree(time_ms).record(&unfinished);
                here.tasks.push_front(Task::Finish(unfinished));
            }
            Task::Finish(unfinished) => {
                let watched = here.worktree(time_ms).finish(unfinished);
                open = watched.last().map(|watched| Place::Version(watched.tx));
                let count = watched.len();
                here.watched.extend(watched);
                for _ in 0..count {
                    self.later(device, LOOK_AGAIN_MS, Work::LookAgain);
                }
            }
        }
        if !self.devices[device].tasks.is_empty() {
            let delay = self.devices[device].dice.between(1, 50);
            self.later(device, delay, Work::InstallStep);
        }
        if self.spring(device, path.as_ref(), open.as_ref())? {
            return Ok(());
        }
        match outcome {
            Some((results, unfinished, touched)) => self.installed(device, results, unfinished, touched),
            None => Ok(()),
        }
    }

    /// Tells the engine what came of a round; the watcher sees it like any other change.
    fn installed(
        &mut self,
        device: usize,
        results: Vec<InstallResult>,
        unfinished: Vec<Unfinished>,
        touched: Vec<RelPath>,
    ) -> Result<(), String> {
        self.trace
            .line(format_args!("{:>8} {device} installed {results:?}", self.time_ms));
        let here = &mut self.devices[device];
        here.note_what_is_back();
        for result in &results {
            // A user may have taken it away again by now.
            if matches!(result.outcome, InstallOutcome::Done(Some(_))) {
                here.guarded.remove(&result.path);
            }
        }
        if here.dice.percent(50) {
            let delay = here.dice.between(1, 500);
            self.later(device, delay, Work::Look(touched, FoundBy::Watcher));
        }
        self.tell(device, Input::Installed(results))?;
        self.note_unfinished(device, unfinished);
        Ok(())
    }

    /// Lets happen what waited for this step; `true` if the daemon died.
    fn spring(
        &mut self,
        device: usize,
        path: Option<&RelPath>,
        open: Option<&Place>,
    ) -> Result<bool, String> {
        let mut due = Vec::new();
        self.devices[device].ambushes.retain_mut(|ambush| {
            let is_due = ambush.steps == 0;
            ambush.steps = ambush.steps.saturating_sub(1);
            if is_due {
                due.push(*ambush);
            }
            !is_due
        });
        for Ambush { what, .. } in due {
            match what {
                AmbushKind::Meddle { seed } => self.meddle(device, path, open, seed),
                AmbushKind::Die { until, power } => {
                    self.crash(device, power)?;
                    let until = until.max(self.time_ms + 1);
                    self.at(until, Event::Start(device));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn meddle(&mut self, device: usize, path: Option<&RelPath>, open: Option<&Place>, seed: u64) {
        let root = RelPath::parse("a");
        let Some(path) = path.or(root.as_ref().ok()) else {
            return;
        };
        let action = self.with_hand(device, |hand| hand.meddle(path, open, &mut Rng::new(seed)));
        if let Some(action) = action {
            self.acted(device, &action);
        }
    }

    /// Looks at an old version once more; what somebody wrote to it comes to stand beside its path.
    pub(super) fn look_again(&mut self, device: usize) {
        let time_ms = self.time_ms;
        let here = &mut self.devices[device];
        let Some(watched) = here.watched.pop_front() else {
            return;
        };
        if let Some(beside) = here.worktree(time_ms).look_again(&watched) {
            self.trace
                .line(format_args!("{:>8} {device} displaced {beside}", self.time_ms));
            self.last_activity_ms = self.time_ms;
            self.later(device, 1, Work::Look(vec![beside], FoundBy::Look));
        }
    }
}
