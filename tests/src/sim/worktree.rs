//! Installs step by step, as the daemon's `worktree` does them: between any two of the steps a user may change the folder,
//! and the daemon or the whole machine may die.
//!
//! Of a round of jobs first every slot is made, then all slots are made durable, then all intents are written to the
//! journal. Only then the folder is touched, job by job (`worktree/change.rs`), and at last made durable. What was
//! replaced waits in its slot until the store knows, then it becomes an old version and is looked at once more. What
//! becomes of installs that were cut short stands in `worktree/recover.rs`.

mod change;
mod prints;
mod recover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use p2p_sync_core::engine::{InstallAction, InstallJob, InstallOutcome, InstallResult};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};

use self::change::Step;
use super::disk::{FakeDisk, Inode, Kind, Place};
use super::journal::{FakeJournal, Intent, IntentAction};
pub use recover::{Died, Recovery};

/// Names tried for a file that is put beside its path.
const NAME_TRIES: u32 = 100;
const LINK_MODE: u32 = 0o777;
/// Directories can always be worked in by their owner.
const OWNER_BITS: u32 = 0o700;

/// What an install did.
#[derive(Debug, Clone)]
pub struct Effect {
    outcome: InstallOutcome,
    /// What lies in the slot and is to be kept as a version.
    displaced: Option<Fingerprint>,
}

impl Effect {
    const fn of(outcome: InstallOutcome) -> Self {
        Self {
            outcome,
            displaced: None,
        }
    }
}

/// An install that waits for the store.
#[derive(Debug, Clone)]
pub struct Unfinished {
    tx: u64,
    path: RelPath,
    displaced: Option<Fingerprint>,
}

/// An old version that a program may still be writing to.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The install that took it out of the folder.
    pub tx: u64,
    path: RelPath,
    print: Fingerprint,
}

/// A device's folder with its journal, as long as something is done to them.
#[derive(Debug)]
pub struct Worktree<'d> {
    /// The disk.
    pub disk: &'d mut FakeDisk,
    /// The journal.
    pub journal: &'d mut FakeJournal,
}

/// One `Output::Install` in the doing.
#[derive(Debug)]
pub struct Round {
    jobs: Vec<InstallJob>,
    staged: Vec<Result<Intent, InstallOutcome>>,
    effects: VecDeque<Effect>,
    touched: BTreeSet<Place>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Stage,
    SyncSlots,
    Log,
    Change(Step),
    SyncFolder,
    Told,
}

/// What came of a step.
#[derive(Debug)]
pub enum Progress {
    /// There is more to do.
    More {
        /// The path that is being worked on.
        at: Option<RelPath>,
        /// Where a program finds the file that it opened at that path before.
        open: Option<Place>,
    },
    /// All is done and durable.
    Done {
        /// For the engine.
        results: Vec<InstallResult>,
        /// For [`Worktree::finish`], when the store knows.
        unfinished: Vec<Unfinished>,
        /// Paths whose entries changed.
        touched: Vec<RelPath>,
    },
}

impl Round {
    /// Takes jobs.
    #[must_use]
    pub fn new(jobs: Vec<InstallJob>) -> Self {
        let phase = if jobs.is_empty() {
            Phase::SyncFolder
        } else {
            Phase::Stage
        };
        Self {
            jobs,
            staged: Vec::new(),
            effects: VecDeque::new(),
            touched: BTreeSet::new(),
            phase,
        }
    }
}

impl Worktree<'_> {
    /// Does one step of a round.
    pub fn step(&mut self, round: &mut Round) -> Progress {
        let phase = std::mem::replace(&mut round.phase, Phase::Told);
        let index = round.effects.len();
        let at = round.jobs.get(index).map(|job| job.path.clone());
        let mut open = None;
        round.phase = match phase {
            Phase::Stage => {
                let job = &round.jobs[round.staged.len()];
                round.staged.push(self.stage(job));
                if round.staged.len() < round.jobs.len() {
                    Phase::Stage
                } else {
                    Phase::SyncSlots
                }
            }
            Phase::SyncSlots => {
                for intent in round
                    .staged
                    .iter()
                    .flatten()
                    .filter(|intent| intent.staged.is_some())
                {
                    self.disk.sync(&Place::Slot(intent.tx));
                }
                Phase::Log
            }
            Phase::Log => {
                self.journal.begin(round.staged.iter().flatten().cloned());
                Phase::Change(Step::Begin)
            }
            Phase::Change(step) => {
                let next = match &round.staged[index] {
                    Ok(intent) => self.change(intent, step, &mut round.touched),
                    Err(outcome) => Step::End(Effect::of(outcome.clone())),
                };
                if let Ok(intent) = &round.staged[index] {
                    open = self.taken_out(intent);
                }
                self.after_change(round, next)
            }
            Phase::SyncFolder | Phase::Told => {
                for place in std::mem::take(&mut round.touched) {
                    self.disk.sync(&place);
                }
                return self.close(round);
            }
        };
        Progress::More { at, open }
    }

    /// Returns the slot of an install if it holds what was taken out of the folder.
    fn taken_out(&self, intent: &Intent) -> Option<Place> {
        let slot = Place::Slot(intent.tx);
        let ours = intent.staged.map(|staged| staged.ino);
        let ino = self.print(&slot)?.ino;
        (Some(ino) != ours).then_some(slot)
    }

    fn after_change(&mut self, round: &mut Round, next: Step) -> Phase {
        let Step::End(effect) = next else {
            return Phase::Change(next);
        };
        round.effects.push_back(effect);
        if round.effects.len() < round.jobs.len() {
            Phase::Change(Step::Begin)
        } else {
            Phase::SyncFolder
        }
    }

    fn close(&mut self, round: &mut Round) -> Progress {
        let mut results = Vec::new();
        let mut unfinished = Vec::new();
        let mut touched = Vec::new();
        let effects = std::mem::take(&mut round.effects);
        for ((job, staged), effect) in round.jobs.iter().zip(&round.staged).zip(effects) {
            let done = matches!(effect.outcome, InstallOutcome::Done(_));
            if let Ok(intent) = staged {
                if done || effect.displaced.is_some() {
                    unfinished.push(Unfinished {
                        tx: intent.tx,
                        path: intent.path.clone(),
                        displaced: effect.displaced,
                    });
                } else {
                    // The slot of an install that did nothing goes only after its intent, or recovery would take it for done.
                    self.journal.done(intent.tx);
                    self.journal.begin([]);
                    self.unstage(intent);
                }
                touched.extend(intent.from.as_ref().map(|(from, _)| from.clone()));
            }
            touched.push(job.path.clone());
            results.push(InstallResult {
                path: job.path.clone(),
                outcome: effect.outcome,
            });
        }
        Progress::Done {
            results,
            unfinished,
            touched,
        }
    }

    /// Makes the slot of a job, if it needs one, and its intent.
    fn stage(&mut self, job: &InstallJob) -> Result<Intent, InstallOutcome> {
        let tx = self.journal.next_tx();
        let mut intent = Intent {
            tx,
            action: IntentAction::Remove,
            path: job.path.clone(),
            expect: job.expect,
            new: None,
            staged: None,
            from: None,
        };
        match &job.action {
            InstallAction::Put { entry, keep } => {
                intent.action = IntentAction::Put;
                intent.new = Some(entry.clone());
                let over_file = job.expect.is_some_and(|print| !prints::is_dir(&print));
                if !entry.node.is_dir() || over_file {
                    intent.staged = Some(self.stage_put(tx, entry, *keep)?);
                }
            }
            InstallAction::SetMeta { entry } => {
                intent.action = IntentAction::SetMeta;
                intent.new = Some(entry.clone());
            }
            InstallAction::Move {
                from,
                from_expect,
                entry,
            } => {
                intent.action = IntentAction::Move;
                intent.new = Some(entry.clone());
                intent.from = Some((from.clone(), *from_expect));
            }
            InstallAction::Remove => {}
        }
        Ok(intent)
    }

    fn stage_put(&mut self, tx: u64, entry: &Entry, keep: bool) -> Result<Fingerprint, InstallOutcome> {
        let (kind, mode) = match &entry.node {
            Node::Dir => (Kind::Dir, entry.mode | OWNER_BITS),
            Node::Link { target } => (Kind::Link(target.clone()), LINK_MODE),
            Node::File { size: 0, .. } => (Kind::File(Vec::new()), entry.mode),
            Node::File { content, .. } => {
                let bytes = self.disk.use_content(content, keep);
                (
                    Kind::File(bytes.ok_or(InstallOutcome::ContentMissing)?),
                    entry.mode,
                )
            }
        };
        self.disk.make(Place::Slot(tx), kind, mode, entry.mtime_ns);
        Ok(self.print(&Place::Slot(tx)).unwrap_or_default())
    }

    /// Takes back a slot that the folder never saw: its bytes get their content's name again.
    fn unstage(&mut self, intent: &Intent) {
        let slot = Place::Slot(intent.tx);
        let now = self.print(&slot);
        let untouched = intent.staged.is_some_and(|staged| now == Some(staged));
        if !untouched {
            return;
        }
        if let Some(Kind::File(bytes)) = self.disk.at(&slot).map(|inode| inode.kind.clone())
            && !bytes.is_empty()
        {
            self.disk.fetched(bytes);
        }
        self.disk.remove(slot);
    }

    /// Notes that the store knows of installs; the first half of closing them.
    pub fn record(&mut self, unfinished: &[Unfinished]) {
        for entry in unfinished.iter().filter(|entry| entry.displaced.is_some()) {
            self.journal.recorded(entry.tx);
        }
    }

    /// Makes old versions of what installs replaced, and closes the others; the second half. Returns what is to be looked
    /// at again.
    pub fn finish(&mut self, unfinished: Vec<Unfinished>) -> Vec<Watched> {
        let mut watched = Vec::new();
        for Unfinished { tx, path, displaced } in unfinished {
            let kept = displaced.is_some() && self.disk.rename_new(Place::Slot(tx), Place::Version(tx));
            match displaced.filter(|print| kept && prints::is_file(print)) {
                Some(print) => watched.push(Watched { tx, path, print }),
                None => self.journal.done(tx),
            }
        }
        watched
    }

    /// Looks at an old version: if a program went on writing to it, it comes to stand beside its path, which is returned.
    pub fn look_again(&mut self, watched: &Watched) -> Option<RelPath> {
        let version = Place::Version(watched.tx);
        let now = self.print(&version);
        let changed = now.is_some_and(|now| !prints::is_untouched(&watched.print, &now));
        let beside = changed
            .then(|| self.keep_beside(version, &watched.path))
            .flatten();
        self.disk.sync(&Place::Version(watched.tx));
        self.journal.done(watched.tx);
        beside
    }

    /// Removes what lies in slots that no open install names.
    pub fn sweep(&mut self) {
        let open = self.journal.open();
        for place in self.disk.own_places() {
            if let Place::Slot(tx) = place
                && !open.contains_key(&tx)
            {
                self.disk.remove(place);
            }
        }
        self.disk.sweep();
    }

    /// Moves something beside a path, under a name that says what it is; to the top of the folder if there is no place.
    fn keep_beside(&mut self, from: Place, path: &RelPath) -> Option<RelPath> {
        let top = RelPath::parse(path.file_name()).ok()?;
        for base in [path, &top] {
            for n in 1..=NAME_TRIES {
                let mut name = base.file_name().to_vec();
                name.extend(format!(" (displaced {n})").into_bytes());
                let to = base.with_file_name(&name).ok()?;
                if !self.make_parents(&to, &mut BTreeSet::new()) {
                    break;
                }
                let place = Place::Folder(to.clone());
                if self.disk.rename_new(from.clone(), place.clone()) {
                    self.disk.sync(&place);
                    return Some(to);
                }
            }
        }
        None
    }

    /// Makes the directories above a path; `false` if one of them is something else.
    fn make_parents(&mut self, path: &RelPath, touched: &mut BTreeSet<Place>) -> bool {
        const PARENT_MODE: u32 = 0o755;
        let above: Vec<RelPath> = path.ancestors().collect();
        let is_other = |dir: &RelPath| self.disk.lstat(dir).is_some_and(|inode| !inode.is_dir());
        if above.iter().any(is_other) {
            return false;
        }
        for dir in above.iter().rev() {
            if self.disk.lstat(dir).is_none() {
                self.disk.create(dir, Kind::Dir, PARENT_MODE, 0);
                touched.insert(Place::Folder(dir.clone()));
            }
        }
        true
    }

    fn print(&self, place: &Place) -> Option<Fingerprint> {
        self.disk.at(place).map(Inode::print)
    }
}
