//! The store: what this device knows durably, in one SQLite file.
//!
//! It holds the ledger's events, what the fold made of them, what is believed to stand on disk, and transfer's notes.
//! One thread writes ([`StoreWriter`]), in the order in which the engine said; any number of views read
//! ([`StoreView`]), each on a connection of its own, and see whole transactions only. Nothing here decides anything.
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`: what was reported as persisted survives the loss of
//! power. With `NORMAL` a committed own event could be lost after it was sent, and the next one would fork the log.
//! A crash loses the batches not yet reported, from the end and never a part of one.
//!
//! Rows are keyed by path bytes, so that path order is key order: scans and imports, which go in path order, append
//! to the trees instead of scattering over them, and what lies below a directory is one range.
//!
//! The file has mode 0600, since it holds names of files; SQLite gives `-wal` and `-shm` beside it the same mode.

mod apply;
mod beyond;
mod codec;
mod folder;
mod ledger;
mod load;
mod lock;
mod rows;
mod schema;
mod view;
mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use p2p_sync_core::engine::{BatchNo, Recovered};
use p2p_sync_core::ids::DeviceId;
use rusqlite::Connection;

use lock::LockFile;
use schema::{Purpose, connect, migrate};

pub use codec::CodecError;
pub use folder::Compare;
pub use ledger::{AuditEnd, AuditStep, LedgerEnd, LedgerFile, LedgerReader};
pub use load::Counts;
pub use rows::RowError;
pub use view::StoreView;
pub use writer::StoreWriter;

/// Permission bits of the file.
const MODE: u32 = 0o600;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file or its lock file could not be made, opened or given its mode.
    #[error("Cannot prepare {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon uses the store.
    #[error("Another daemon{} uses the store {}", pid.map_or_else(String::new, |pid| format!(" (process {pid})")), path.display())]
    Locked {
        /// The store.
        path: PathBuf,
        /// The other's process id, if it left one.
        pid: Option<u32>,
    },
    /// SQLite cannot open the file, or it is damaged.
    #[error("Cannot open the store {}", path.display())]
    Open {
        /// The store.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is a SQLite file of another program.
    #[error("{} is not a store of this program", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer daemon has used the store.
    #[error("The store {} has version {found}; this daemon knows {known}", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// The version it has.
        found: i64,
        /// The newest version that this daemon knows.
        known: usize,
    },
    /// The file system cannot hold a write-ahead log.
    #[error("The file system of the store {} does not support shared memory files", path.display())]
    NoWal {
        /// The store.
        path: PathBuf,
    },
    /// Tables could not be brought up to date; the store is as it was before this step.
    #[error("Cannot bring the store {} to version {step}", path.display())]
    Migrate {
        /// The store.
        path: PathBuf,
        /// The version that could not be reached.
        step: usize,
        /// Why.
        source: rusqlite::Error,
    },
    /// Rows could not be read.
    #[error("Cannot read {what} from the store")]
    Read {
        /// Which.
        what: &'static str,
        /// Why.
        source: RowError,
    },
    /// A transaction failed; nothing of it is stored.
    #[error("Cannot write to the store")]
    Write {
        /// Why.
        source: rusqlite::Error,
    },
    /// A batch has an event for a place in a log where another one stands; nothing of its transaction is stored.
    #[error("Another event of {author} stands at {seq}")]
    EventConflict {
        /// The author.
        author: DeviceId,
        /// The place.
        seq: u64,
    },
    /// The writer has failed or was closed.
    #[error("The store takes no more writes")]
    Refused,
    /// The system gives no thread.
    #[error("Cannot start the store's writer")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

impl StoreError {
    fn open(path: &Path, source: rusqlite::Error) -> Self {
        Self::Open {
            path: path.into(),
            source,
        }
    }
}

/// The opened store. No other process opens it while this, its writer or one of its views lives.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
    lock: Arc<LockFile>,
}

impl Store {
    /// Opens the store, making it if there is none; its directory must exist.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another daemon uses it; [`StoreError::Io`], [`StoreError::Open`],
    /// [`StoreError::Foreign`], [`StoreError::Newer`], [`StoreError::NoWal`] or [`StoreError::Migrate`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = Arc::new(LockFile::acquire(path)?);
        make_private(path).map_err(|source| StoreError::Io {
            path: path.into(),
            source,
        })?;
        let mut connection = connect(path, Purpose::Write)?;
        migrate(&mut connection, path)?;
        Ok(Self {
            path: path.into(),
            connection,
            lock,
        })
    }

    /// Reads what the engine takes up at its start.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn load(&self) -> Result<Recovered, StoreError> {
        load::recovered(&self.connection)
    }

    /// Starts the writer; there is to be one. `on_persisted` is called on its thread, once for each transaction that
    /// holds batches, with the highest batch in it, or once with the error after which everything is refused. It must
    /// not wait for whoever submits.
    ///
    /// # Errors
    /// [`StoreError::Open`] or [`StoreError::Thread`].
    pub fn writer(
        &self,
        on_persisted: impl FnMut(Result<BatchNo, StoreError>) + Send + 'static,
    ) -> Result<StoreWriter, StoreError> {
        let writes = connect(&self.path, Purpose::Write)?;
        let reads = connect(&self.path, Purpose::Read)?;
        StoreWriter::start(writes, reads, Arc::clone(&self.lock), on_persisted)
    }

    /// Opens a view of what is durable; each thread that reads needs its own.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn view(&self) -> Result<StoreView, StoreError> {
        let connection = connect(&self.path, Purpose::Read)?;
        Ok(StoreView::new(connection, Arc::clone(&self.lock)))
    }

    /// Returns what opens readers of the ledger.
    #[must_use]
    pub fn ledger(&self) -> LedgerFile {
        LedgerFile::new(self.path.clone(), Arc::clone(&self.lock))
    }
}

/// Makes the file, durably and readable by its owner only, before SQLite sees it.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE);
    match options.create_new(true).open(path) {
        Ok(_) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, Permissions::from_mode(MODE))
        }
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
