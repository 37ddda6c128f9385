//! Tables, migrations, and how connections are set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;

/// Marks a SQLite file as a store of this daemon ("p2ps").
const APPLICATION_ID: i32 = 0x7032_7073;

/// Bytes of a page; fixed when the file is made.
const PAGE_SIZE: i64 = 4096;

/// Pages in the write-ahead log (64 MiB) after which a commit copies them into the file. SQLite's 1000 makes bulk
/// imports copy the same pages over and over; much more makes the next start slow.
const CHECKPOINT_PAGES: i64 = 16384;

/// Bytes to which the write-ahead log is cut back after it was copied.
const LOG_SIZE_LIMIT: i64 = CHECKPOINT_PAGES * PAGE_SIZE;

/// Prepared statements a connection keeps; more than there are statements in this module.
const STATEMENTS: usize = 64;

/// How long a statement waits for another connection of this process (a checkpoint, recovery at the first open).
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Writes; 64 MiB of pages are kept, so that random inserts into the content index find theirs.
    Write,
    /// Reads; 16 MiB of pages are kept.
    Read,
}

/// Steps from an empty file to this daemon's tables. Append only: `user_version` counts the steps a file has taken.
///
/// * `events`: `short` is the first 8 bytes of `author`; within an author, arrival grows with seq.
/// * `versions`: `node` is the prefix of the node's key, NULL for a Del.
/// * `events_id` finds events by the beginning of an id that a person typed.
/// * `mentions`: `settled` is 1 once the user decided about a Put that counts nowhere.
/// * `author_bytes`: of all events of an author, on all branches of his log, as they are signed. Derived once from those that
///   were there, then counted with each event that is added.
/// * `installed`: `content` is the prefix of a file's content, NULL for others; `copy` is 1 for a conflict copy.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE events (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT,
        short BLOB NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL,
        author BLOB NOT NULL, id BLOB NOT NULL, sig BLOB NOT NULL, header BLOB NOT NULL, body BLOB NOT NULL,
        UNIQUE (short, seq)
    ) STRICT;
    CREATE INDEX events_admin ON events (kind) WHERE kind <= 1;
    CREATE TABLE logs (short BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE versions (
        path BLOB NOT NULL, dot BLOB NOT NULL, node INTEGER, data BLOB NOT NULL,
        PRIMARY KEY (path, dot)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX versions_node ON versions (path, node, dot) WHERE node IS NOT NULL;
    CREATE TABLE paths (
        path BLOB PRIMARY KEY, live INTEGER NOT NULL, state BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX paths_live ON paths (path) WHERE live = 1;
    CREATE TABLE replaced (
        path BLOB NOT NULL, node BLOB NOT NULL, hlc INTEGER NOT NULL, event BLOB NOT NULL,
        PRIMARY KEY (path, node)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE installed (
        path BLOB PRIMARY KEY, content INTEGER, copy INTEGER NOT NULL, data BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX installed_content ON installed (content, path);
    CREATE INDEX installed_copies ON installed (copy) WHERE copy = 1;
    CREATE TABLE copy_names (name BLOB PRIMARY KEY, origin BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE needs (path BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE manifests (content BLOB PRIMARY KEY, size INTEGER NOT NULL, chunks BLOB NOT NULL) STRICT;
    CREATE TABLE partials (content BLOB PRIMARY KEY, bitmap BLOB NOT NULL) STRICT;
", "
    CREATE TABLE mentions (path BLOB NOT NULL, dot BLOB NOT NULL, PRIMARY KEY (path, dot)) STRICT, WITHOUT ROWID;
", "
    CREATE INDEX events_id ON events (id);
", "
    ALTER TABLE mentions ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
", "
    CREATE TABLE author_bytes (author BLOB PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO author_bytes
        SELECT author, sum(length(sig) + length(header) + length(body)) FROM events GROUP BY author;
", "
    -- The rows of versions and paths may say how they stand to locks: no table changes, but daemons before cannot read them.
"];

/// Opens a connection to an existing file.
pub(super) fn connect(path: &Path, purpose: Purpose) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|source| StoreError::open(path, source))?;
    set_up(&connection, purpose).map_err(|source| StoreError::open(path, source))?;
    Ok(connection)
}

fn set_up(connection: &Connection, purpose: Purpose) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE_LIMIT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let kib = match purpose {
        Purpose::Write => 64 << 10,
        Purpose::Read => 16 << 10,
    };
    connection.pragma_update(None, "cache_size", -kib)?;
    connection.pragma_update(None, "query_only", matches!(purpose, Purpose::Read))
}

/// Brings a file up to this daemon's tables, and checks that it is one of ours.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::open(path, source);
    let found = integer(connection, "user_version").map_err(open)?;
    let owner = integer(connection, "application_id").map_err(open)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(open)?;
    if tables > 0 && owner != i64::from(APPLICATION_ID) {
        return Err(StoreError::Foreign { path: path.into() });
    }
    let known = MIGRATIONS.len();
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(steps) = MIGRATIONS.get(done..) else {
        return Err(StoreError::Newer {
            path: path.into(),
            found,
            known,
        });
    };
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(open)?;
    if mode != "wal" {
        return Err(StoreError::NoWal { path: path.into() });
    }
    for (step, sql) in steps.iter().enumerate() {
        take_step(connection, sql, done + step + 1).map_err(|source| StoreError::Migrate {
            path: path.into(),
            step: done + step + 1,
            source,
        })?;
    }
    Ok(())
}

fn take_step(connection: &mut Connection, sql: &str, version: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i64::try_from(version).unwrap_or(i64::MAX))?;
    transaction.commit()
}

fn integer(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}
