//! What is read once, at the start, and how rows are counted.

use p2p_sync_core::engine::Recovered;
use p2p_sync_core::ids::ShortId;
use rusqlite::Connection;

use super::StoreError;
use super::codec::read_log;
use super::rows::{RowError, all, from_bits, path_column, select_event, stored_event};

/// How many rows there are. Counting walks through an index: some ten milliseconds for a million rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events in all logs.
    pub events: u64,
    /// Paths with an installed row.
    pub installed: u64,
    /// Files among them.
    pub files: u64,
    /// Conflict copies among them.
    pub copies: u64,
    /// Paths marked as needed.
    pub needs: u64,
}

/// Counts rows.
pub(super) fn counts(c: &Connection) -> rusqlite::Result<Counts> {
    let count = |sql: &str| -> rusqlite::Result<u64> {
        c.prepare_cached(sql)?
            .query_row([], |row| row.get(0).map(from_bits))
    };
    Ok(Counts {
        events: count("SELECT count(*) FROM events")?,
        installed: count("SELECT count(*) FROM installed")?,
        files: count("SELECT count(*) FROM installed WHERE content IS NOT NULL")?,
        copies: count("SELECT count(*) FROM installed WHERE copy = 1")?,
        needs: count("SELECT count(*) FROM needs")?,
    })
}

/// Reads all that the engine wants at its start.
pub(super) fn recovered(c: &Connection) -> Result<Recovered, StoreError> {
    let read = |what| move |source: RowError| StoreError::Read { what, source };
    let counts = counts(c).map_err(RowError::from).map_err(read("counts"))?;
    Ok(Recovered {
        logs: all(c, "SELECT short, state FROM logs", |row| {
            let log = read_log(row.get_ref(1)?.as_blob()?)?;
            Ok((ShortId::new(row.get(0)?), log))
        })
        .map_err(read("logs"))?,
        admin_events: all(c, select_event!("WHERE kind <= 1 ORDER BY arrival"), stored_event)
            .map_err(read("admin events"))?,
        needs: all(c, "SELECT path FROM needs ORDER BY path", |row| {
            path_column(row, 0)
        })
        .map_err(read("needs"))?,
        settings: all(c, "SELECT name, value FROM settings", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(read("settings"))?,
        installed_count: counts.installed,
        copies_count: counts.copies,
    })
}
