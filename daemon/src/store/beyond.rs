//! What another device lacks.
//!
//! Within one author, arrival grows with seq (a log is taken up from its start, without gaps). So the events somebody
//! lacks are one run per author, each in order of arrival already; merging the runs by arrival touches what is missing
//! and nothing else, however long the ledger is and wherever in it the missing events lie.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use p2p_sync_core::engine::StoredEvent;
use p2p_sync_core::ids::ShortId;
use rusqlite::{Connection, OptionalExtension};

use super::rows::{RowError, optional, select_event, seq_column, stored_event};

/// Places of one author that are looked up at once: 64 mean one query per page of mid-sized events, and little waste
/// for each author of whom only one event is wanted.
const RUN: i64 = 64;

/// Reads events beyond `have` in order of arrival, at least one and then as many as fit in `max_bytes`, and says
/// whether there are more.
pub(super) fn events_beyond(
    c: &Connection,
    have: &BTreeMap<ShortId, u64>,
    max_bytes: usize,
) -> Result<(Vec<StoredEvent>, bool), RowError> {
    // All statements must see the same logs.
    let snapshot = c.unchecked_transaction()?;
    let mut runs = Vec::new();
    let mut next = BinaryHeap::new();
    let mut author = first_author(&snapshot, None)?;
    while let Some(short) = author {
        let from = have.get(&short).map_or(0, |size| seq_column(*size));
        let mut run = Run::new(short, from);
        if let Some(arrival) = run.next(&snapshot)? {
            next.push(Reverse((arrival, runs.len())));
            runs.push(run);
        }
        author = first_author(&snapshot, Some(short))?;
    }
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(Reverse((arrival, index))) = next.pop() {
        let Some(event) = by_arrival(&snapshot, arrival)? else {
            continue;
        };
        bytes += event.event.len();
        if bytes > max_bytes && !events.is_empty() {
            return Ok((events, true));
        }
        events.push(event);
        if let Some(arrival) = runs[index].next(&snapshot)? {
            next.push(Reverse((arrival, index)));
        }
    }
    Ok((events, false))
}

/// The arrivals of one author's events from a place on, looked up [`RUN`] at a time.
struct Run {
    author: ShortId,
    from: i64,
    arrivals: VecDeque<i64>,
}

impl Run {
    const fn new(author: ShortId, from: i64) -> Self {
        Self {
            author,
            from,
            arrivals: VecDeque::new(),
        }
    }

    fn next(&mut self, c: &Connection) -> Result<Option<i64>, RowError> {
        if self.arrivals.is_empty() {
            let mut statement = c.prepare_cached(
                "SELECT seq, arrival FROM events WHERE short = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
            )?;
            let mut rows = statement.query((self.author.as_bytes(), self.from, RUN))?;
            while let Some(row) = rows.next()? {
                self.from = row.get::<_, i64>(0)?.saturating_add(1);
                self.arrivals.push_back(row.get(1)?);
            }
        }
        Ok(self.arrivals.pop_front())
    }
}

fn first_author(c: &Connection, after: Option<ShortId>) -> Result<Option<ShortId>, RowError> {
    let sql = "SELECT short FROM events WHERE short > ?1 ORDER BY short LIMIT 1";
    let after = after.as_ref().map_or(&[][..], |short| short.as_bytes());
    let short = c
        .prepare_cached(sql)?
        .query_row([after], |row| row.get(0))
        .optional()?;
    Ok(short.map(ShortId::new))
}

fn by_arrival(c: &Connection, arrival: i64) -> Result<Option<StoredEvent>, RowError> {
    optional(c, select_event!("WHERE arrival = ?1"), [arrival], stored_event)
}
