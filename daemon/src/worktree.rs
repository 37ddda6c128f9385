//! Installs: the one way by which a byte reaches the user's folder.
//!
//! A batch of jobs is done in groups. First every new entry is made in a *slot*, a temporary file under the install's
//! own name, with its mode and time, and all slots are made durable together. Then all intents are written with one
//! fsync of the journal. Only then the folder is touched, in the order of the jobs: what stands at the path must be
//! what the engine expects, and it is never overwritten but exchanged with the slot (or, where nothing is expected,
//! renamed without replacing). What came out of the exchange is looked at once more: if a user saved in that instant,
//! the user's bytes go back to the path. At last the touched directories are made durable together.
//!
//! The outcome goes to the engine and from there to the store; when the store has it, [`Worktree::finish`] moves what
//! was replaced to `.p2p-sync/versions/<day>/` and closes the intents; what it could not move is moved by
//! [`Worktree::finish_late`]. A program that has a replaced file still open may go on writing to it;
//! [`Worktree::check_displaced`] notices and puts the file beside its path, where the scanner finds it as a new one.
//!
//! On a crash nothing of the user's is lost: [`Worktree::recover`] looks at each open intent, its path and its slot,
//! and finishes the install, takes it back, or keeps both sides. A read-only directory that was made writable for an
//! install may stay so.

mod change;
mod displaced;
mod kept;
mod late;
mod meta;
mod recover;
mod restore;
mod session;
mod slots;
mod stage;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use p2p_sync_core::engine::{InstallJob, InstallOutcome, InstallResult, OwnLogSize, RecoveredInstall};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Fingerprint;
use rustix::fs::FileType;

pub use self::displaced::Displaced;
use self::displaced::Watched;
use self::kept::Keep;
pub use self::kept::{Kept, KeptFile, Purged, Retention, SizeLimit};
use self::late::Late;
pub use self::restore::{RestoreJob, RestoreOutcome};
use self::session::Session;
use self::slots::OwnDirs;
use crate::free_space::Reserve;
use crate::journal::{Intent, IntentAction, JournalError, JournalService, OwnLog, Tx};
pub use crate::root_dir::Modes;
use crate::root_dir::{PathError, RootDir, lstat_at, print_of};

/// Jobs done with one journal fsync: enough that its cost disappears, few enough that a crash leaves little to look at.
const GROUP_MAX: usize = 512;

/// Why the worktree cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorktreeError {
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The journal failed.
    #[error("The journal refuses")]
    Journal(#[from] JournalError),
    /// The folder is not the one that was opened, or not where it was.
    #[error("The folder was moved, replaced or unmounted")]
    RootChanged,
}

/// What came of a batch of jobs.
#[derive(Debug)]
pub struct InstallBatch {
    /// One for each job, in their order.
    pub results: Vec<InstallResult>,
    /// To be given to [`Worktree::finish`] when the store has the results.
    pub token: InstallToken,
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovery {
    /// What happened on disk though the store may not know, in order.
    pub installs: Vec<RecoveredInstall>,
    /// Files with a user's bytes that were put beside their path.
    pub displaced: Vec<Displaced>,
    /// To be given to [`Worktree::finish`] when the store has the installs.
    pub token: InstallToken,
}

/// Installs that wait for the store. If it is dropped, recovery looks at them after the next start.
#[derive(Debug, Default)]
#[must_use = "give it to Worktree::finish when the store has the results"]
pub struct InstallToken {
    entries: Vec<Unfinished>,
}

/// One install that waits for the store.
#[derive(Debug)]
struct Unfinished {
    tx: Tx,
    path: RelPath,
    /// What lies in the slot and is to be kept.
    displaced: Option<Fingerprint>,
    /// Its content, if it is known.
    content: Option<ContentHash>,
    /// The day in whose index of old versions it stands already.
    noted_on: Option<u32>,
}

/// What the daemon believes to stand in the folder.
pub trait Believed: Send + Sync {
    /// Returns the content of the file that stands at a path, if it is believed to be the one with this print.
    fn content(&self, path: &RelPath, print: &Fingerprint) -> Option<ContentHash>;
}

/// Moments of an install at which tests step in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Staged,
    Logged,
    Checked,
    Aside,
    Changed,
    PutBack,
    Synced,
}

#[cfg(test)]
type Hook = Box<dyn FnMut(Step, &RelPath) + Send>;

/// Installs into one folder.
pub struct Worktree {
    root: RootDir,
    own: OwnDirs,
    journal: Arc<JournalService>,
    modes: Modes,
    reserve: Reserve,
    root_id: String,
    watched: Mutex<Watched>,
    late: Mutex<Late>,
    believed: OnceLock<Box<dyn Believed>>,
    #[cfg(test)]
    hook: Mutex<Option<Hook>>,
    /// Whether to behave as on a file system without `RENAME_EXCHANGE`.
    #[cfg(test)]
    plain: bool,
    /// Whether the disk takes no mode or time of what stands in the folder.
    #[cfg(test)]
    refuses_meta: bool,
}

impl std::fmt::Debug for Worktree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worktree")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Worktree {
    /// Opens the folder and makes the daemon's own directories in it.
    ///
    /// # Errors
    /// [`WorktreeError::Io`].
    pub fn new(root: &Path, journal: Arc<JournalService>, modes: Modes) -> Result<Self, WorktreeError> {
        let root = RootDir::open(root)?;
        let own = OwnDirs::open(&root)?;
        let root_id = root.read_root_id()?;
        Ok(Self {
            root,
            own,
            journal,
            modes,
            reserve: Reserve::Bytes(0),
            root_id,
            watched: Mutex::default(),
            late: Mutex::default(),
            believed: OnceLock::new(),
            #[cfg(test)]
            hook: Mutex::new(None),
            #[cfg(test)]
            plain: false,
            #[cfg(test)]
            refuses_meta: false,
        })
    }

    /// Lets it know the contents of the files that it replaces, so that they are found by content at once; to be called
    /// before anything is recovered or installed.
    pub fn set_believed(&self, believed: Box<dyn Believed>) {
        // A second call would change nothing of what is true.
        let _ = self.believed.set(believed);
    }

    /// Returns the versions that are kept.
    #[must_use]
    pub fn kept(&self) -> Arc<Kept> {
        Arc::clone(&self.own.kept)
    }

    /// Has contents copied only where this much stays free; without it, wherever there is room.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve, ..self }
    }

    /// Returns the folder's own random name, 64 hexadecimal digits.
    #[must_use]
    pub fn root_id(&self) -> &str {
        &self.root_id
    }

    /// Says whether the journal accepts nothing any more, so that no install can begin.
    #[must_use]
    pub fn journal_failed(&self) -> bool {
        self.journal.failure().is_some()
    }

    /// Notes in the journal how many events this device has made.
    ///
    /// # Errors
    /// [`WorktreeError`].
    pub fn note_own_log(&self, log: OwnLog, size: OwnLogSize) -> Result<(), WorktreeError> {
        Ok(self.journal.note_own_log(log, size)?)
    }

    /// Brings paths into the wanted states, in order; what is answered as done is durable. Blocks.
    pub fn install(&self, jobs: &[InstallJob]) -> InstallBatch {
        let mut batch = InstallBatch {
            results: Vec::with_capacity(jobs.len()),
            token: InstallToken::default(),
        };
        for group in jobs.chunks(GROUP_MAX) {
            self.install_group(group, IntentAction::Put, &mut batch);
        }
        batch
    }

    /// Moves a slot of which little is known to the versions.
    fn keep_unseen(&self, slot: &str, tx: Tx, path: Option<&RelPath>) -> io::Result<()> {
        let stat = lstat_at(&self.own.tmp, slot.as_bytes())?;
        let item = Keep {
            slot,
            tx,
            path,
            print: stat.map(|stat| print_of(&stat)).unwrap_or_default(),
            content: None,
            noted_on: None,
        };
        let kept = self.own.kept.keep(&self.own.tmp, &[item])?;
        kept.places.into_iter().try_for_each(|place| place.map(drop))
    }

    /// Returns the content of what was replaced, if it is what was believed to stand there.
    fn believed_content(
        &self,
        path: &RelPath,
        expect: Option<&Fingerprint>,
        displaced: Option<&Fingerprint>,
    ) -> Option<ContentHash> {
        let file = displaced.filter(|p| FileType::from_raw_mode(p.mode) == FileType::RegularFile);
        let expect = expect?;
        file.filter(|file| file.ino == expect.ino)
            .and(self.believed.get()?.content(path, expect))
    }

    /// Removes temporary files that `keep` does not want (it is asked for every name that is not an install's own).
    ///
    /// # Errors
    /// [`WorktreeError::Io`].
    pub fn sweep_tmp(&self, keep: impl Fn(&str) -> bool) -> Result<(), WorktreeError> {
        let path = self.root.path().join(".p2p-sync/tmp");
        self.sweep(keep).map_err(PathError::of("clean", path))?;
        Ok(())
    }

    /// Removes the temporary files of a content that nobody needs any more, complete or not.
    ///
    /// # Errors
    /// [`WorktreeError`]; a file that is gone already is none.
    pub fn drop_content(&self, content: &ContentHash) -> Result<(), WorktreeError> {
        let hex = content.to_hex();
        for name in [format!("{hex}.part"), hex] {
            match rustix::fs::unlinkat(&self.own.tmp, &name, rustix::fs::AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    let path = self.root.path().join(".p2p-sync/tmp").join(name);
                    return Err(PathError::of("remove", path)(error).into());
                }
            }
        }
        Ok(())
    }

    fn sweep(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        for name in slots::names(&self.own.tmp)? {
            let text = std::str::from_utf8(&name).unwrap_or_default();
            match Tx::of_name(text) {
                Some(tx) if self.journal.is_open(tx) => {}
                // With part of the journal lost, a slot may be the only place where a user's bytes are.
                Some(tx) if self.journal.was_damaged() => {
                    self.keep_unseen(text, tx, None)?;
                }
                None if keep(text) => {}
                Some(_) | None => stage::remove_tmp(&self.own.tmp, &name)?,
            }
        }
        Ok(())
    }

    /// Does one group; its Puts have the action `put`.
    fn install_group(&self, jobs: &[InstallJob], put: IntentAction, batch: &mut InstallBatch) {
        let mut session = Session::new(&self.root, self.modes);
        let staged = self.stage_group(jobs, put);
        let mut effects = Vec::with_capacity(jobs.len());
        for (job, staged) in jobs.iter().zip(&staged) {
            effects.push(match staged {
                Ok(intent) => self.change(intent, &mut session),
                Err(outcome) => Effect::of(outcome.clone()),
            });
            self.at(Step::Changed, &job.path);
        }
        let failed = session.make_durable();
        let mut closed = Vec::new();
        let mut unused = Vec::new();
        for ((job, staged), mut effect) in jobs.iter().zip(staged).zip(effects) {
            self.at(Step::Synced, &job.path);
            let done = matches!(effect.outcome, InstallOutcome::Done(_));
            let undurable = if done {
                failed_for(&job.path, &failed)
            } else {
                None
            };
            if let Some(why) = undurable {
                // The intent stays open: recovery will say what really is on disk.
                effect.outcome = InstallOutcome::Failed(why);
            } else if let Ok(intent) = staged {
                if done || effect.displaced.is_some() {
                    let displaced = effect.displaced;
                    let content =
                        self.believed_content(&intent.path, intent.expect.as_ref(), displaced.as_ref());
                    if let Some(content) = content {
                        self.own.kept.hold_slot(intent.tx, content);
                    }
                    batch.token.entries.push(Unfinished {
                        tx: intent.tx,
                        path: intent.path,
                        displaced,
                        content,
                        noted_on: None,
                    });
                } else if effect.unused && intent.staged.is_some() {
                    unused.push(intent);
                } else if !effect.stuck {
                    closed.push(intent.tx);
                }
            }
            batch.results.push(InstallResult {
                path: job.path.clone(),
                outcome: effect.outcome,
            });
        }
        if let Err(error) = self.journal.done(&closed) {
            tracing::warn!(%error, "Cannot close installs in the journal");
        }
        self.take_back(&unused);
    }

    /// Closes installs whose slots the folder never saw, and only then takes the slots back: an open intent whose slot is
    /// gone means that it was put in place, and what a user put there before would pass for an edit of it.
    fn take_back(&self, unused: &[Intent]) {
        let txs: Vec<Tx> = unused.iter().map(|intent| intent.tx).collect();
        match self.journal.abandoned(&txs) {
            Ok(()) => unused.iter().for_each(|intent| self.unstage(intent)),
            // Recovery drops the slots.
            Err(error) => tracing::warn!(%error, "Cannot close installs in the journal"),
        }
    }

    fn check_root(&self) -> Result<(), WorktreeError> {
        if self.root.is_root(&self.root_id)? {
            Ok(())
        } else {
            Err(WorktreeError::RootChanged)
        }
    }

    /// Makes the slots and intents of a group durable; an error stands for a job that goes no further.
    fn stage_group(&self, jobs: &[InstallJob], put: IntentAction) -> Vec<Result<Intent, InstallOutcome>> {
        if let Err(error) = self.check_root() {
            let why = crate::error_chain(&error);
            return vec![Err(InstallOutcome::Failed(why)); jobs.len()];
        }
        let mut staged: Vec<_> = jobs.iter().map(|job| self.stage(job, put)).collect();
        self.sync_slots(&mut staged);
        jobs.iter().for_each(|job| self.at(Step::Staged, &job.path));
        let intents: Vec<_> = staged.iter().flatten().cloned().collect();
        if let Err(error) = self.journal.begin_installs(&intents) {
            // What a failed fsync leaves may be read at the next start, and an open intent whose slot is gone means that it
            // was put in place: what its user never saw would pass for deleted by him. Recovery drops such slots.
            if !self.journal_failed() {
                intents.iter().for_each(|intent| self.unstage(intent));
            }
            let failed = InstallOutcome::Failed(crate::error_chain(&error));
            staged
                .iter_mut()
                .filter(|s| s.is_ok())
                .for_each(|s| *s = Err(failed.clone()));
        }
        jobs.iter().for_each(|job| self.at(Step::Logged, &job.path));
        staged
    }

    #[cfg(test)]
    fn at(&self, step: Step, path: &RelPath) {
        let mut hook = self.hook.lock().unwrap();
        if let Some(hook) = hook.as_mut() {
            hook(step, path);
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests step in here")]
    fn at(&self, _step: Step, _path: &RelPath) {}
}

/// What one install did.
#[derive(Debug)]
struct Effect {
    outcome: InstallOutcome,
    /// What lies in the slot and is to be kept as a version.
    displaced: Option<Fingerprint>,
    /// A user's bytes are still in the slot: the intent must stay open.
    stuck: bool,
    /// The folder never saw the slot: it goes when its intent is closed.
    unused: bool,
}

impl Effect {
    const fn of(outcome: InstallOutcome) -> Self {
        Self {
            outcome,
            displaced: None,
            stuck: false,
            unused: false,
        }
    }
}

fn failed_for(path: &RelPath, failed: &BTreeSet<Option<RelPath>>) -> Option<String> {
    let hit = failed.contains(&path.parent()) || failed.contains(&Some(path.clone()));
    hit.then(|| "The disk did not confirm the change".to_owned())
}

#[cfg(test)]
mod tests;
