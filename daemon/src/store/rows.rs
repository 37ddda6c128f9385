//! What the reading modules share: how a row becomes a value, and what can be wrong with it.

use p2p_sync_core::content::ManifestError;
use p2p_sync_core::engine::StoredEvent;
use p2p_sync_core::ids::{ContentHash, DeviceId, EventId, ShortId};
use p2p_sync_core::ledger::SignedEvent;
use p2p_sync_core::rel_path::RelPath;
use rusqlite::{Connection, Params, Row};

use super::codec::CodecError;

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// SQLite refused, or the disk failed.
    #[error("SQLite failed")]
    Sql(#[from] rusqlite::Error),
    /// A column has another type than this daemon gives it.
    #[error("A column of the store has an unexpected type")]
    Type(#[from] rusqlite::types::FromSqlError),
    /// A blob is not what this daemon writes.
    #[error("A row cannot be read")]
    Codec(#[from] CodecError),
    /// A manifest's chunk hashes do not add up to its content.
    #[error("A manifest is damaged")]
    Manifest(#[from] ManifestError),
}

/// Spells the statement that reads whole events.
macro_rules! select_event {
    ($condition:literal) => {
        concat!(
            "SELECT author, seq, id, kind, header, sig, body, short FROM events ",
            $condition
        )
    };
}
pub(super) use select_event;

/// Returns the integer column that holds these 64 bits.
pub(super) const fn bits(value: u64) -> i64 {
    value.cast_signed()
}

/// Reads [`bits`] back.
pub(super) const fn from_bits(column: i64) -> u64 {
    column.cast_unsigned()
}

/// Returns the column of a place in a log, which must sort as a number; no log has 2^63 events.
pub(super) fn seq_column(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Reads the columns of [`select_event!`].
pub(super) fn stored_event(row: &Row<'_>) -> Result<StoredEvent, RowError> {
    Ok(StoredEvent {
        author: DeviceId::new(row.get(0)?),
        log: ShortId::new(row.get(7)?),
        seq: from_bits(row.get(1)?),
        id: EventId::new(row.get(2)?),
        kind: row.get(3)?,
        event: SignedEvent {
            header: row.get_ref(4)?.as_blob()?.into(),
            signature: row.get(5)?,
            body: row.get_ref(6)?.as_blob()?.into(),
        },
    })
}

/// Reads a path.
pub(super) fn path_column(row: &Row<'_>, index: usize) -> Result<RelPath, RowError> {
    Ok(RelPath::parse(row.get_ref(index)?.as_blob()?).map_err(CodecError::from)?)
}

/// Reads the row of a partial.
pub(super) fn partial(c: &Connection, content: &ContentHash) -> Result<Option<Vec<u8>>, RowError> {
    let sql = "SELECT bitmap FROM partials WHERE content = ?1";
    optional(c, sql, [content.as_bytes()], |row| Ok(row.get(0)?))
}

/// Runs a query of at most one row.
pub(super) fn optional<T>(
    c: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, RowError>,
) -> Result<Option<T>, RowError> {
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

/// Runs a query and reads each row.
pub(super) fn all<T, C: FromIterator<T>>(
    c: &Connection,
    sql: &str,
    mut read: impl FnMut(&Row<'_>) -> Result<T, RowError>,
) -> Result<C, RowError> {
    let mut statement = c.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut values = Vec::new();
    while let Some(row) = rows.next()? {
        values.push(read(row)?);
    }
    Ok(values.into_iter().collect())
}
