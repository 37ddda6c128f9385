//! The ledger as people read it: events in an order, filtered, a page at a time.
//!
//! Within one log, arrival and the hybrid clock both grow with the place in it. So either order of all events is a merge
//! of the logs, a time in the past is found in a log by halving, and a page touches little more than what it shows,
//! however long the ledger is. Each reader has a connection of its own and never holds a transaction between pages.

mod audit;
mod rows;
mod source;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::path::PathBuf;
use std::sync::Arc;

use p2p_sync_core::ids::{Dot, EventId, ShortId};
use p2p_sync_core::ledger::Header;
use p2p_sync_core::rel_path::RelPath;
use rusqlite::Connection;

use self::rows::all_logs;
use super::StoreError;
use super::codec::{read_dot_key, read_path_state};
use super::lock::LockFile;
use super::rows::{RowError, from_bits, optional, select_event, seq_column, stored_event};
use super::schema::{Purpose, connect};
use crate::ledger_query::{LedgerEvent, LedgerOrder, LedgerPage, LedgerPlace, LedgerQuery};
pub use audit::{AuditEnd, AuditStep};
pub use rows::LedgerEnd;

/// Bytes of events after which a page ends though more were wanted; a page has one event at least. With the last of them
/// (1 MiB and a header at most), and all their items beside their bytes, a page still fits into a message of 4 MiB.
const PAGE_BYTES: usize = 256 << 10;

/// Opens readers of the ledger.
#[derive(Debug, Clone)]
pub struct LedgerFile {
    path: PathBuf,
    lock: Arc<LockFile>,
}

impl LedgerFile {
    pub(super) const fn new(path: PathBuf, lock: Arc<LockFile>) -> Self {
        Self { path, lock }
    }

    /// Opens a connection that reads.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn open(&self) -> Result<LedgerReader, StoreError> {
        Ok(LedgerReader {
            connection: connect(&self.path, Purpose::Read)?,
            _lock: Arc::clone(&self.lock),
        })
    }
}

/// A connection that reads the ledger.
#[derive(Debug)]
pub struct LedgerReader {
    connection: Connection,
    _lock: Arc<LockFile>,
}

impl LedgerReader {
    /// Returns a page of events.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn page(&self, query: &LedgerQuery) -> Result<LedgerPage, StoreError> {
        self.read("a page of the ledger", |c| match &query.path {
            Some(path) => page_of_path(c, path, query),
            None => page_of_logs(c, query),
        })
    }

    /// Returns one event.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn event(&self, author: ShortId, seq: u64) -> Result<Option<LedgerEvent>, StoreError> {
        self.read("an event", |c| event(c, author, seq))
    }

    /// Returns at most two events whose ids begin with these hexadecimal digits.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn events_with_id(&self, prefix: &str) -> Result<Vec<LedgerEvent>, StoreError> {
        let Some((least, most)) = id_range(prefix) else {
            return Ok(Vec::new());
        };
        self.read("events by id", |c| {
            let sql = "SELECT short, seq FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 2";
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query((least, most))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (short, seq) = (ShortId::new(row.get(0)?), from_bits(row.get(1)?));
                found.extend(event(c, short, seq)?);
            }
            Ok(found)
        })
    }

    /// Returns the version that stands at a path, which may be a deletion; `None` if the ledger has nothing of it.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn winner(&self, path: &RelPath) -> Result<Option<Dot>, StoreError> {
        self.read("a path", |c| {
            let sql = "SELECT state FROM paths WHERE path = ?1";
            let state = optional(c, sql, [path.as_bytes()], |row| {
                Ok(read_path_state(row.get_ref(0)?.as_blob()?)?)
            })?;
            Ok(state.and_then(|state| state.winner().map(|winner| winner.dot)))
        })
    }

    fn read<T>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> Result<T, StoreError> {
        read(&self.connection).map_err(|source| StoreError::Read { what, source })
    }
}

fn event(c: &Connection, author: ShortId, seq: u64) -> Result<Option<LedgerEvent>, RowError> {
    let at = (author.as_bytes(), seq_column(seq));
    let sql = "SELECT arrival FROM events WHERE short = ?1 AND seq = ?2";
    let Some(arrival) = optional(c, sql, at, |row| Ok(from_bits(row.get(0)?)))? else {
        return Ok(None);
    };
    let stored = optional(
        c,
        select_event!("WHERE short = ?1 AND seq = ?2"),
        at,
        stored_event,
    )?;
    Ok(stored.map(|stored| LedgerEvent { arrival, stored }))
}

/// Returns the ids between which all with a prefix lie.
fn id_range(prefix: &str) -> Option<([u8; 32], [u8; 32])> {
    if prefix.len() > 2 * EventId::LEN {
        return None;
    }
    let filled = |digit: &str| {
        let text = format!("{prefix}{}", digit.repeat(2 * EventId::LEN - prefix.len()));
        EventId::from_hex(&text).ok().map(|id| *id.as_bytes())
    };
    Some((filled("0")?, filled("f")?))
}

/// Where an event is, and by what it is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    place: LedgerPlace,
    author: ShortId,
    seq: u64,
}

/// Keeps to the page's bounds.
struct Filling<'a> {
    query: &'a LedgerQuery,
    page: LedgerPage,
    last: Option<LedgerPlace>,
    bytes: usize,
}

impl<'a> Filling<'a> {
    fn new(query: &'a LedgerQuery) -> Self {
        Self {
            query,
            page: LedgerPage::default(),
            last: None,
            bytes: 0,
        }
    }

    /// Takes an event; says whether there was room for it.
    fn take(&mut self, c: &Connection, spot: Spot) -> Result<bool, RowError> {
        if self.page.events.len() >= self.query.limit || self.bytes >= PAGE_BYTES {
            self.page.next = self.last;
            return Ok(false);
        }
        if let Some(event) = event(c, spot.author, spot.seq)? {
            self.bytes += event.stored.event.len();
            self.page.events.push(event);
            self.last = Some(spot.place);
        }
        Ok(true)
    }
}

/// Returns the events of a path's versions.
fn page_of_path(c: &Connection, path: &RelPath, query: &LedgerQuery) -> Result<LedgerPage, RowError> {
    let mut events = BTreeSet::new();
    let mut statement = c.prepare_cached("SELECT dot FROM versions WHERE path = ?1 ORDER BY dot")?;
    let mut rows = statement.query([path.as_bytes()])?;
    while let Some(row) = rows.next()? {
        let dot = read_dot_key(row.get_ref(0)?.as_blob()?)?;
        events.insert((dot.device, dot.seq));
    }
    let mut spots = Vec::new();
    for (author, seq) in events {
        if query.device.is_some_and(|wanted| wanted != author) {
            continue;
        }
        let Some((spot, clock_ms)) = spot(c, query.order, author, seq)? else {
            continue;
        };
        let is_beyond = match query.after {
            Some(after) if query.newest_first => spot.place < after,
            Some(after) => spot.place > after,
            None => true,
        };
        if is_beyond && query.since_ms.is_none_or(|since| clock_ms >= since) {
            spots.push(spot);
        }
    }
    spots.sort_unstable();
    if query.newest_first {
        spots.reverse();
    }
    let mut filling = Filling::new(query);
    for spot in spots {
        if !filling.take(c, spot)? {
            break;
        }
    }
    Ok(filling.page)
}

/// Returns events of all logs, or of one, merged.
fn page_of_logs(c: &Connection, query: &LedgerQuery) -> Result<LedgerPage, RowError> {
    // All statements must see the same logs.
    let snapshot = c.unchecked_transaction()?;
    let authors = match query.device {
        Some(device) => logs_of(&snapshot, device)?,
        None => authors(&snapshot)?,
    };
    let mut runs: Vec<Run> = Vec::new();
    // The first in the wanted order is popped first.
    let mut first_old = BinaryHeap::new();
    let mut first_new = BinaryHeap::new();
    let newest = query.newest_first;
    for author in authors {
        let mut run = Run::find(&snapshot, query, author)?;
        if let Some(spot) = run.next(&snapshot, query)? {
            push(&mut first_old, &mut first_new, newest, (spot, runs.len()));
            runs.push(run);
        }
    }
    let mut filling = Filling::new(query);
    loop {
        let next = if newest {
            first_new.pop()
        } else {
            first_old.pop().map(|Reverse(next)| next)
        };
        let Some((spot, number)) = next else { break };
        if !filling.take(&snapshot, spot)? {
            break;
        }
        if let Some(spot) = runs[number].next(&snapshot, query)? {
            push(&mut first_old, &mut first_new, newest, (spot, number));
        }
    }
    Ok(filling.page)
}

type Next = (Spot, usize);

fn push(old: &mut BinaryHeap<Reverse<Next>>, new: &mut BinaryHeap<Next>, newest_first: bool, next: Next) {
    if newest_first {
        new.push(next);
    } else {
        old.push(Reverse(next));
    }
}

/// What is still to be shown of one log: places from `from` up to `to`, which is not among them.
struct Run {
    author: ShortId,
    from: u64,
    to: u64,
}

impl Run {
    fn find(c: &Connection, query: &LedgerQuery, author: ShortId) -> Result<Self, RowError> {
        // A branch begins where it left its log.
        let sql = "SELECT min(seq), max(seq) FROM events WHERE short = ?1";
        let ends = optional(c, sql, [author.as_bytes()], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?))
        })?;
        let ends = ends
            .flatten()
            .map(|(first, last)| (from_bits(first), from_bits(last) + 1));
        let (from, to) = ends.unwrap_or_default();
        let mut run = Self { author, from, to };
        if let Some(since) = query.since_ms {
            run.from = run.first(c, query, |_, clock_ms| clock_ms >= since)?;
        }
        match query.after {
            Some(after) if query.newest_first => run.to = run.first(c, query, |place, _| place >= after)?,
            Some(after) => run.from = run.first(c, query, |place, _| place > after)?,
            None => {}
        }
        Ok(run)
    }

    /// Returns the first place of which something is true that stays true.
    fn first(
        &self,
        c: &Connection,
        query: &LedgerQuery,
        is_there: impl Fn(LedgerPlace, u64) -> bool,
    ) -> Result<u64, RowError> {
        let (mut from, mut to) = (self.from, self.to);
        while from < to {
            let middle = from + (to - from) / 2;
            let there = spot(c, query.order, self.author, middle)?;
            if there.is_some_and(|(spot, clock_ms)| is_there(spot.place, clock_ms)) {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        Ok(from)
    }

    fn next(&mut self, c: &Connection, query: &LedgerQuery) -> Result<Option<Spot>, RowError> {
        while self.from < self.to {
            let seq = if query.newest_first {
                self.to -= 1;
                self.to
            } else {
                self.from += 1;
                self.from - 1
            };
            if let Some((spot, _)) = spot(c, query.order, self.author, seq)? {
                return Ok(Some(spot));
            }
        }
        Ok(None)
    }
}

/// Returns where an event stands in an order, and its clock's milliseconds.
fn spot(
    c: &Connection,
    order: LedgerOrder,
    author: ShortId,
    seq: u64,
) -> Result<Option<(Spot, u64)>, RowError> {
    let sql = "SELECT arrival, id, header FROM events WHERE short = ?1 AND seq = ?2";
    optional(c, sql, (author.as_bytes(), seq_column(seq)), |row| {
        let header = Header::from_bytes(row.get_ref(2)?.as_blob()?);
        // A damaged header is for the audit to name.
        let hlc = header.map(|header| header.hlc).unwrap_or_default();
        let place = match order {
            LedgerOrder::Arrival => LedgerPlace {
                key: from_bits(row.get(0)?),
                id: EventId::new([0; EventId::LEN]),
            },
            LedgerOrder::Clock => LedgerPlace {
                key: hlc.bits(),
                id: EventId::new(row.get(1)?),
            },
        };
        Ok((Spot { place, author, seq }, hlc.wall_ms()))
    })
}

/// Returns the names of a device's logs: its own, and those of further branches.
fn logs_of(c: &Connection, device: ShortId) -> Result<Vec<ShortId>, RowError> {
    let logs = all_logs(c)?.into_iter();
    let branches = logs.filter(|(_, log)| {
        let log = log.as_ref().filter(|log| log.left.is_some());
        log.is_some_and(|log| log.author.short() == device)
    });
    Ok(std::iter::once(device)
        .chain(branches.map(|(name, _)| name))
        .collect())
}

/// Returns the logs that have events.
fn authors(c: &Connection) -> Result<Vec<ShortId>, RowError> {
    let mut authors = Vec::new();
    let sql = "SELECT short FROM events WHERE short > ?1 ORDER BY short LIMIT 1";
    let mut after = Vec::new();
    while let Some(short) = optional(c, sql, [&after[..]], |row| Ok(ShortId::new(row.get(0)?)))? {
        after = short.as_bytes().to_vec();
        authors.push(short);
    }
    Ok(authors)
}
