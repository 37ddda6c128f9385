//! The crash-recovery journal: what the daemon was about to do to the user's files when it stopped.
//!
//! It owns `<folder>/.p2p-sync/journal` and a lock on `<folder>/.p2p-sync/lock`, which keeps a second daemon away from
//! the folder. Worktree writes an [`Intent`] for each install and waits for it to be durable before it touches a path
//! of the user's; the event loop names the paths that it is hashing. The bytes are described in `journal/record.rs`.
//!
//! On a crash nothing that was acknowledged is lost: an intent is durable before its install, and a `Done` that is
//! lost with the last few records only makes recovery look at a path that is already as recorded. A torn last record
//! is cut off, since nothing was done in its name. A bad record with good ones after it means a damaged disk: then the
//! set to recover is `{"."}`, everything. After a failed write the journal refuses everything until restart, for
//! nobody knows what of it reached the disk; only a write for which there was no room is taken back and may be tried
//! again (`journal/fault.rs`).

mod fault;
mod own_log;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use p2p_sync_core::rel_path::OWN_DIR;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub use self::own_log::OwnLog;
use self::own_log::OwnLogs;
pub use self::record::{Intent, IntentAction, Tx};
use self::record::{Parsed, Record, append, parse};
use crate::root_dir::{PathError, RootDir};

/// Paths in one in-use set; the files hashed for one event are at most 4096. A greater set is kept as `{"."}`.
pub const MAX_IN_USE: usize = 8192;
/// Bytes of the paths in one in-use set, for the same reason: a record stays small.
pub const MAX_IN_USE_BYTES: usize = 1 << 20;
/// Bytes after which the journal is rewritten with only what is still open.
const ROTATE_BYTES: u64 = 1 << 20;
/// Bytes of a journal that are read; a greater one was not written by this program.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;

const JOURNAL: &str = "journal";
const JOURNAL_NEW: &str = "journal.new";
const LOCK: &str = "lock";

/// Why the journal cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another daemon serves this folder.
    #[error("Another daemon is already running on {}", .0.display())]
    InUse(PathBuf),
    /// A path of an in-use set is not relative to the folder.
    #[error("{} is not a path inside the folder", .0.display())]
    NotInFolder(PathBuf),
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// An earlier write failed.
    #[error("The journal could not be written earlier; nothing is accepted until the daemon is restarted")]
    Broken,
    /// The system gives no random bytes.
    #[error("Cannot get random bytes")]
    Random(#[source] getrandom::Error),
}

/// What a journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Paths in use, relative to the folder.
    pub in_use: Vec<PathBuf>,
    /// Installs begun and not finished.
    pub open_installs: u64,
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// The journal of one folder.
#[derive(Debug)]
pub struct JournalService {
    dir: OwnedFd,
    dir_path: PathBuf,
    instance: [u8; 16],
    boot_id: [u8; 16],
    found: Found,
    state: Mutex<State>,
    #[cfg(test)]
    planned: Mutex<Option<fault::Planned>>,
    _lock: OwnedFd,
}

/// What the last run left behind.
#[derive(Debug, Default)]
struct Found {
    missing: bool,
    damaged: bool,
    rebooted: bool,
    installs: Vec<Intent>,
}

#[derive(Debug)]
struct State {
    file: File,
    len: u64,
    compact_len: u64,
    /// Why nothing is accepted any more.
    broken: Option<String>,
    clean: bool,
    recover: BTreeSet<Vec<u8>>,
    in_use: BTreeSet<Vec<u8>>,
    open: BTreeMap<Tx, Intent>,
    own_logs: OwnLogs,
    next_tx: u64,
}

impl JournalService {
    /// Opens (or makes) the journal of the folder `sync_dir` and locks the folder for this process.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another daemon has it, [`JournalError::Io`], [`JournalError::Random`].
    pub fn new(sync_dir: &Path) -> Result<Self, JournalError> {
        let root = RootDir::open(sync_dir)?;
        let dir_path = sync_dir.join(OsStr::from_bytes(OWN_DIR));
        let dir = open_own_dir(&root, &dir_path)?;
        let lock = lock_folder(&dir, &dir_path, sync_dir)?;
        let bytes = read_journal(&dir, &dir_path)?;
        let boot_id = read_boot_id();
        let (found, replay) = replay(bytes.as_deref(), boot_id);
        let mut instance = [0; 16];
        getrandom::fill(&mut instance).map_err(JournalError::Random)?;
        let mut first_tx = [0; 8];
        getrandom::fill(&mut first_tx).map_err(JournalError::Random)?;
        let file = open_journal(&dir, &dir_path, replay.good_len)?;
        let service = Self {
            dir,
            dir_path,
            instance,
            boot_id,
            state: Mutex::new(State {
                file,
                len: replay.good_len,
                compact_len: 0,
                broken: None,
                clean: false,
                recover: replay.recover,
                in_use: BTreeSet::new(),
                open: replay.open,
                own_logs: replay.own_logs,
                next_tx: u64::from_le_bytes(first_tx) >> 1,
            }),
            found,
            #[cfg(test)]
            planned: Mutex::new(None),
            _lock: lock,
        };
        service.open_run()?;
        Ok(service)
    }

    /// Names all paths that are in use; durable before return if the set grew. The same set again costs nothing.
    ///
    /// # Errors
    /// [`JournalError::NotInFolder`], [`JournalError::Io`], [`JournalError::Broken`].
    pub fn log_activity(&self, in_use_paths: &HashSet<PathBuf>) -> Result<(), JournalError> {
        let set = bounded_set(in_use_paths)?;
        let mut state = self.lock()?;
        if set == state.in_use {
            return Ok(());
        }
        let grew = !set.is_subset(&state.in_use);
        // Until clear(), the last run's paths are still to be looked at.
        let all = set.union(&state.recover).cloned().collect();
        self.append(
            &mut state,
            &[Record::InUse(all)],
            if grew { Sync::Now } else { Sync::Later },
        )?;
        state.in_use = set;
        Ok(())
    }

    /// Returns the paths, relative to the folder, that the last run may have left half done: nothing after a clean
    /// stop, `{"."}` for everything. Says the same until [`clear`](Self::clear), also over restarts.
    ///
    /// # Errors
    /// [`JournalError::Broken`].
    pub fn check_for_recovery(&self) -> Result<HashSet<PathBuf>, JournalError> {
        let state = self.lock()?;
        Ok(state
            .recover
            .iter()
            .map(|p| PathBuf::from(OsString::from_vec(p.clone())))
            .collect())
    }

    /// Says that recovery is done and nothing is in use: writes the clean marker, unless installs are still open.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn clear(&self) -> Result<(), JournalError> {
        let mut state = self.lock()?;
        state.recover.clear();
        state.in_use.clear();
        state.clean = state.open.is_empty();
        self.rewrite(&mut state)
    }

    /// Returns a name for a new install.
    ///
    /// # Errors
    /// [`JournalError::Broken`].
    pub fn next_tx(&self) -> Result<Tx, JournalError> {
        let mut state = self.lock()?;
        state.next_tx = state.next_tx.wrapping_add(1);
        Ok(Tx(state.next_tx))
    }

    /// Makes these intents durable, with one fsync for all.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn begin_installs(&self, intents: &[Intent]) -> Result<(), JournalError> {
        if intents.is_empty() {
            return Ok(());
        }
        let mut state = self.lock()?;
        let records: Vec<_> = intents.iter().cloned().map(Record::Install).collect();
        self.append(&mut state, &records, Sync::Now)?;
        state.open.extend(intents.iter().map(|i| (i.tx, i.clone())));
        Ok(())
    }

    /// Notes that the store knows the outcome of these installs, though what they replaced is still watched: from now on
    /// the path is its user's, and recovery leaves it alone. Durable some time later, and at once for all but a failure
    /// of the machine; then recovery looks at the path once more. Those that are noted already cost nothing.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn recorded(&self, txs: &[Tx]) -> Result<(), JournalError> {
        let mut state = self.lock()?;
        let known = txs.iter().filter_map(|tx| state.open.get(tx));
        let recorded: Vec<Intent> = known
            .filter(|intent| intent.action != IntentAction::Recorded)
            .map(|intent| Intent {
                action: IntentAction::Recorded,
                new: None,
                from: None,
                ..intent.clone()
            })
            .collect();
        if recorded.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = recorded.iter().cloned().map(Record::Install).collect();
        self.append(&mut state, &records, Sync::Later)?;
        state
            .open
            .extend(recorded.into_iter().map(|intent| (intent.tx, intent)));
        Ok(())
    }

    /// Closes installs whose outcome the store knows; durable some time later.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn done(&self, txs: &[Tx]) -> Result<(), JournalError> {
        self.close(txs, Sync::Later)
    }

    /// Closes installs that did nothing, durably.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Broken`].
    pub fn abandoned(&self, txs: &[Tx]) -> Result<(), JournalError> {
        self.close(txs, Sync::Now)
    }

    fn close(&self, txs: &[Tx], sync: Sync) -> Result<(), JournalError> {
        let mut state = self.lock()?;
        let records: Vec<_> = txs
            .iter()
            .filter(|tx| state.open.remove(tx).is_some())
            .map(|tx| Record::Done(*tx))
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        self.append(&mut state, &records, sync)
    }

    /// Returns the installs that the last run left open, in their order.
    #[must_use]
    pub fn open_installs(&self) -> &[Intent] {
        &self.found.installs
    }

    /// Says whether an install is open at the moment.
    #[must_use]
    pub fn is_open(&self, tx: Tx) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.contains_key(&tx)
    }

    /// Returns what the journal holds now, for people.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let path = |bytes: &Vec<u8>| PathBuf::from(OsStr::from_bytes(bytes));
        Summary {
            in_use: state.in_use.iter().map(path).collect(),
            open_installs: state.open.len() as u64,
            size_bytes: state.len,
        }
    }

    /// Says whether there was no journal: a new folder, or one whose journal was taken away.
    #[must_use]
    pub fn was_missing(&self) -> bool {
        self.found.missing
    }

    /// Says whether records in the middle of the journal were damaged.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.found.damaged
    }

    /// Says whether the machine was started anew since the last run.
    #[must_use]
    pub fn was_rebooted(&self) -> bool {
        self.found.rebooted
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, JournalError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.broken.is_some() {
            Err(JournalError::Broken)
        } else {
            Ok(state)
        }
    }

    fn open_run(&self) -> Result<(), JournalError> {
        let mut state = self.lock()?;
        if self.found.damaged {
            self.rewrite(&mut state)
        } else {
            let open = self.open_record();
            self.append(&mut state, &[open], Sync::Now)?;
            sync_dir(&self.dir, &self.dir_path)
                .inspect_err(|error| state.broken = Some(crate::error_chain(error)))
        }
    }

    const fn open_record(&self) -> Record {
        Record::Open {
            instance: self.instance,
            boot_id: self.boot_id,
        }
    }

    fn append(&self, state: &mut State, records: &[Record], sync: Sync) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        if state.clean {
            append(&mut bytes, &self.open_record());
            state.clean = false;
        }
        records.iter().for_each(|r| append(&mut bytes, r));
        self.write(state, &bytes, sync)?;
        state.len += bytes.len() as u64;
        if state.len > ROTATE_BYTES.max(2 * state.compact_len) {
            // The caller adds to the state what it just wrote only after this returns.
            let pending = records.iter().filter(|r| !matches!(r, Record::Done(_)));
            return match self.rewrite_with(state, pending) {
                // The old file holds everything still, and the next record tries again.
                Err(error) if state.broken.is_none() => {
                    tracing::warn!(error = %crate::error_chain(&error), "The journal stays long");
                    Ok(())
                }
                other => other,
            };
        }
        Ok(())
    }

    fn rewrite(&self, state: &mut State) -> Result<(), JournalError> {
        self.rewrite_with(state, std::iter::empty())
    }

    fn rewrite_with<'a>(
        &self,
        state: &mut State,
        pending: impl Iterator<Item = &'a Record>,
    ) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        append(&mut bytes, &self.open_record());
        state
            .own_logs
            .records()
            .for_each(|record| append(&mut bytes, &record));
        if state.clean {
            append(&mut bytes, &Record::Clean);
        } else {
            let all: Vec<_> = state.in_use.union(&state.recover).cloned().collect();
            append(&mut bytes, &Record::InUse(all));
            state
                .open
                .values()
                .for_each(|i| append(&mut bytes, &Record::Install(i.clone())));
            pending.for_each(|r| append(&mut bytes, r));
        }
        let replaced = self.replace(state, &bytes)?;
        state.file = replaced;
        state.len = bytes.len() as u64;
        state.compact_len = state.len;
        Ok(())
    }
}

/// When an appended record must be durable.
#[derive(Clone, Copy)]
enum Sync {
    Now,
    Later,
}

/// What the records of the last run add up to.
#[derive(Debug, Default)]
struct Replay {
    good_len: u64,
    recover: BTreeSet<Vec<u8>>,
    open: BTreeMap<Tx, Intent>,
    own_logs: OwnLogs,
}

fn replay(bytes: Option<&[u8]>, boot_id: [u8; 16]) -> (Found, Replay) {
    let mut found = Found {
        missing: bytes.is_none(),
        ..Found::default()
    };
    let mut replay = Replay::default();
    let bytes = bytes.unwrap_or_default();
    let mut order = Vec::new();
    let mut at = 0;
    loop {
        match parse(&bytes[at..]) {
            Parsed::Record(record, len) => {
                apply(*record, &mut found, &mut replay, &mut order, boot_id);
                at += len;
                replay.good_len = at as u64;
            }
            Parsed::End => break,
            Parsed::Bad => {
                match (at + 1..bytes.len()).find(|i| matches!(parse(&bytes[*i..]), Parsed::Record(..))) {
                    Some(good) => {
                        found.damaged = true;
                        at = good;
                    }
                    None => break,
                }
            }
        }
    }
    found.installs = order
        .into_iter()
        .filter_map(|tx| replay.open.get(&tx).cloned())
        .collect();
    replay
        .recover
        .extend(found.installs.iter().map(|i| i.path.as_bytes().to_vec()));
    if found.damaged {
        replay.recover = BTreeSet::from([b".".to_vec()]);
    }
    (found, replay)
}

fn apply(record: Record, found: &mut Found, replay: &mut Replay, order: &mut Vec<Tx>, this_boot: [u8; 16]) {
    match record {
        Record::Open { boot_id, .. } => found.rebooted = boot_id != this_boot,
        Record::InUse(paths) => replay.recover = paths.into_iter().collect(),
        Record::Install(intent) => {
            let tx = intent.tx;
            if replay.open.insert(tx, intent).is_none() {
                order.push(tx);
            }
        }
        Record::Done(tx) => {
            replay.open.remove(&tx);
        }
        Record::Clean => replay.recover.clear(),
        Record::OwnSeq(log, size) => replay.own_logs.note(log, size),
    }
}

fn bounded_set(paths: &HashSet<PathBuf>) -> Result<BTreeSet<Vec<u8>>, JournalError> {
    let mut set = BTreeSet::new();
    let mut bytes = 0;
    for path in paths {
        let inside = path
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside || path.as_os_str().is_empty() {
            return Err(JournalError::NotInFolder(path.clone()));
        }
        bytes += path.as_os_str().len();
        set.insert(path.as_os_str().as_bytes().to_vec());
    }
    if set.len() > MAX_IN_USE || bytes > MAX_IN_USE_BYTES {
        return Ok(BTreeSet::from([b".".to_vec()]));
    }
    Ok(set)
}

fn open_own_dir(root: &RootDir, path: &Path) -> Result<OwnedFd, JournalError> {
    match rustix::fs::mkdirat(root.fd(), OWN_DIR, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(PathError::of("make", path)(e).into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir =
        rustix::fs::openat(root.fd(), OWN_DIR, flags, Mode::empty()).map_err(PathError::of("open", path))?;
    sync_dir(root.fd(), root.path())?;
    Ok(dir)
}

fn lock_folder(dir: &OwnedFd, dir_path: &Path, sync_dir: &Path) -> Result<OwnedFd, JournalError> {
    let path = dir_path.join(LOCK);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let lock = rustix::fs::openat(dir, LOCK, flags, mode).map_err(PathError::of("open", &path))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(JournalError::InUse(sync_dir.to_owned())),
        Err(e) => Err(PathError::of("lock", path)(e).into()),
    }
}

fn read_journal(dir: &OwnedFd, dir_path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, JOURNAL, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(PathError::of("open", dir_path.join(JOURNAL))(e).into()),
    };
    let mut bytes = Vec::new();
    let read = File::from(fd).take(MAX_JOURNAL_BYTES).read_to_end(&mut bytes);
    read.map_err(PathError::of("read", dir_path.join(JOURNAL)))?;
    Ok(Some(bytes))
}

/// Opens the journal for appending after its last good record.
fn open_journal(dir: &OwnedFd, dir_path: &Path, good_len: u64) -> Result<File, JournalError> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = dir_path.join(JOURNAL);
    let fd = rustix::fs::openat(dir, JOURNAL, flags, Mode::RUSR | Mode::WUSR)
        .map_err(PathError::of("open", &path))?;
    rustix::fs::ftruncate(&fd, good_len).map_err(PathError::of("cut", &path))?;
    Ok(File::from(fd))
}

fn sync_dir(dir: impl AsFd, path: &Path) -> Result<(), JournalError> {
    match rustix::fs::fsync(dir) {
        // Some file systems have no fsync of directories.
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        Err(e) => Err(PathError::of("sync", path)(e).into()),
    }
}

/// Returns the kernel's id of this boot; zeros where there is none.
fn read_boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap_or_default();
    bytes.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
