//! The ledger in the order in which it arrived: for whoever follows it, and for the audit.

use std::collections::BTreeMap;

use p2p_sync_core::engine::Taken;
use p2p_sync_core::ids::{EventId, ShortId};
use p2p_sync_core::ledger::audit::Row;
use p2p_sync_core::ledger::{Header, LogState};
use p2p_sync_core::merkle::leaf_hash;
use p2p_sync_core::time::Hlc;
use rusqlite::Connection;

use super::super::StoreError;
use super::super::codec::read_log;
use super::super::rows::{RowError, bits, from_bits, optional, seq_column};
use super::{LedgerReader, event};
use crate::ledger_query::LedgerEvent;

/// Events of one reading, and bytes of their headers and bodies after which it ends: what an audit holds at once.
const READ_EVENTS: i64 = 1_000;
const READ_BYTES: usize = 4 << 20;

/// The end of the ledger as one moment saw it.
#[derive(Debug)]
pub struct LedgerEnd {
    /// What is believed of each log; `None`: it cannot be read.
    pub logs: BTreeMap<ShortId, Option<LogState>>,
    /// The id column of the first event: another one means that this is another ledger than before.
    pub first: Option<Vec<u8>>,
    /// What the store says of the group ([`Taken::SETTING`]).
    pub group: Option<Vec<u8>>,
}

impl LedgerReader {
    /// Returns how many events there are, and the arrival of the newest.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn extent(&self) -> Result<(u64, u64), StoreError> {
        self.read("the ledger's extent", |c| {
            let sql = "SELECT count(*), coalesce(max(arrival), 0) FROM events";
            let extent = optional(c, sql, [], |row| {
                Ok((from_bits(row.get(0)?), from_bits(row.get(1)?)))
            })?;
            Ok(extent.unwrap_or_default())
        })
    }

    /// Returns the first event that arrived after a moment.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn next_arrived(&self, after: u64) -> Result<Option<LedgerEvent>, StoreError> {
        self.read("new events", |c| {
            let sql = "SELECT short, seq FROM events WHERE arrival > ?1 ORDER BY arrival LIMIT 1";
            let at = optional(c, sql, [bits(after)], |row| {
                Ok((ShortId::new(row.get(0)?), from_bits(row.get(1)?)))
            })?;
            at.map_or(Ok(None), |(short, seq)| event(c, short, seq))
        })
    }

    /// Returns rows that arrived after a moment, the arrival of each beside it, and nothing believed of them; bodies
    /// and signatures are left empty if not wanted. No rows: there are no more.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn rows(&self, after: u64, whole: bool) -> Result<Vec<(u64, Row)>, StoreError> {
        self.read("the ledger's rows", |c| {
            let sql = if whole {
                "SELECT arrival, short, author, seq, kind, id, header, sig, body FROM events
                 WHERE arrival > ?1 ORDER BY arrival LIMIT ?2"
            } else {
                "SELECT arrival, short, author, seq, kind, id, header, x'', x'' FROM events
                 WHERE arrival > ?1 ORDER BY arrival LIMIT ?2"
            };
            let mut statement = c.prepare_cached(sql)?;
            let mut found = statement.query((bits(after), READ_EVENTS))?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while bytes < READ_BYTES
                && let Some(row) = found.next()?
            {
                let blob = |index: usize| Ok::<_, RowError>(row.get_ref(index)?.as_blob()?);
                let audited = Row {
                    short: blob(1)?.to_vec(),
                    author: blob(2)?.to_vec(),
                    seq: from_bits(row.get(3)?),
                    kind: row.get(4)?,
                    id: blob(5)?.to_vec(),
                    header: blob(6)?.into(),
                    signature: blob(7)?.to_vec(),
                    body: blob(8)?.into(),
                };
                bytes += audited.header.len() + audited.body.len();
                rows.push((from_bits(row.get(0)?), audited));
            }
            Ok(rows)
        })
    }

    /// Returns id and clock of an event, from its header's bytes; `None` if there is none or it is damaged.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn id_and_clock(&self, author: ShortId, seq: u64) -> Result<Option<(EventId, Hlc)>, StoreError> {
        self.read("an event's header", |c| {
            let sql = "SELECT header FROM events WHERE short = ?1 AND seq = ?2";
            let found = optional(c, sql, (author.as_bytes(), seq_column(seq)), |row| {
                let bytes = row.get_ref(0)?.as_blob()?;
                let header = Header::from_bytes(bytes).ok();
                Ok(header.map(|header| (EventId::new(leaf_hash(bytes)), header.hlc)))
            })?;
            Ok(found.flatten())
        })
    }

    /// Returns what is believed of each log; `None`: it cannot be read.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn logs(&self) -> Result<BTreeMap<ShortId, Option<LogState>>, StoreError> {
        self.read("the ledger's logs", all_logs)
    }

    /// Returns the end of the ledger, if nothing arrived after a moment; else `None`.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn end(&self, after: u64) -> Result<Option<LedgerEnd>, StoreError> {
        self.read("the ledger's end", |c| {
            let snapshot = c.unchecked_transaction()?;
            let newer = "SELECT 1 FROM events WHERE arrival > ?1 LIMIT 1";
            if snapshot.prepare_cached(newer)?.exists([bits(after)])? {
                return Ok(None);
            }
            let first = "SELECT id FROM events ORDER BY arrival LIMIT 1";
            let first = optional(&snapshot, first, [], |row| {
                Ok(row.get_ref(0)?.as_blob()?.to_vec())
            })?;
            let logs = all_logs(&snapshot)?;
            let group = "SELECT value FROM settings WHERE name = ?1";
            let group = optional(&snapshot, group, [Taken::SETTING], |row| {
                Ok(row.get_ref(0)?.as_blob()?.to_vec())
            })?;
            Ok(Some(LedgerEnd { logs, first, group }))
        })
    }
}

pub(super) fn all_logs(c: &Connection) -> Result<BTreeMap<ShortId, Option<LogState>>, RowError> {
    let mut statement = c.prepare_cached("SELECT short, state FROM logs")?;
    let mut rows = statement.query([])?;
    let mut logs = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let state = read_log(row.get_ref(1)?.as_blob()?).ok();
        logs.insert(ShortId::new(row.get(0)?), state);
    }
    Ok(logs)
}
