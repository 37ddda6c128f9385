//! What a proof is made from.

use p2p_sync_core::ids::{EventId, ShortId};
use p2p_sync_core::ledger::proof::Source;
use p2p_sync_core::ledger::{Header, SignedEvent};

use super::super::StoreError;
use super::super::rows::{all, from_bits, optional, select_event, seq_column, stored_event};
use super::LedgerReader;

/// Events after the one to prove among which witnesses are looked for: active members have published by then.
const WITNESS_EVENTS: i64 = 10_000;
/// Witnesses handed over; a proof has room for fewer.
const MAX_SIGHTS: usize = 16;

impl Source for LedgerReader {
    type Error = StoreError;

    fn event(&self, author: ShortId, seq: u64) -> Result<Option<SignedEvent>, StoreError> {
        Ok(Self::event(self, author, seq)?.map(|event| event.stored.event))
    }

    fn newest(&self, author: ShortId) -> Result<Option<SignedEvent>, StoreError> {
        self.read("a log's newest event", |c| {
            let sql = select_event!("WHERE short = ?1 ORDER BY seq DESC LIMIT 1");
            let newest = optional(c, sql, [author.as_bytes()], stored_event)?;
            Ok(newest.map(|stored| stored.event))
        })
    }

    fn ids(&self, author: ShortId, size: u64, each: &mut dyn FnMut(EventId)) -> Result<(), StoreError> {
        self.read("a log's ids", |c| {
            let sql = "SELECT id FROM events WHERE short = ?1 AND seq < ?2 ORDER BY seq";
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query((author.as_bytes(), seq_column(size)))?;
            while let Some(row) = rows.next()? {
                each(EventId::new(row.get(0)?));
            }
            Ok(())
        })
    }

    fn shared(&self, author: ShortId) -> Result<Option<u64>, StoreError> {
        let logs = self.logs()?.into_values().flatten();
        let branches = logs
            .filter(|log| log.author.short() == author)
            .filter_map(|log| log.left);
        Ok(branches.map(|left| left.size).min())
    }

    fn admin_events(&self) -> Result<Vec<SignedEvent>, StoreError> {
        self.read("admin events", |c| {
            let sql = select_event!("WHERE kind <= 1 ORDER BY arrival");
            all(c, sql, |row| Ok(stored_event(row)?.event))
        })
    }

    fn first_sight(
        &self,
        by: ShortId,
        of: ShortId,
        seq: u64,
        below: u64,
    ) -> Result<Option<SignedEvent>, StoreError> {
        let found = self.read("what a device has seen", |c| {
            // What has seen an event arrived after it.
            let sql = "SELECT seq, header FROM events WHERE short = ?1 AND seq < ?2
                       AND arrival > (SELECT arrival FROM events WHERE short = ?3 AND seq = ?4) ORDER BY seq";
            let mut statement = c.prepare_cached(sql)?;
            let at = (by.as_bytes(), seq_column(below), of.as_bytes(), seq_column(seq));
            let mut rows = statement.query(at)?;
            while let Some(row) = rows.next()? {
                if covers(row.get_ref(1)?.as_blob()?, of, seq) {
                    return Ok(Some(from_bits(row.get(0)?)));
                }
            }
            Ok(None)
        })?;
        found.map_or(Ok(None), |seq| Source::event(self, by, seq))
    }

    fn sights(&self, of: ShortId, seq: u64) -> Result<Vec<SignedEvent>, StoreError> {
        let found = self.read("who has seen an event", |c| {
            let sql = "SELECT short, seq, header FROM events
                       WHERE arrival > (SELECT arrival FROM events WHERE short = ?1 AND seq = ?2)
                       ORDER BY arrival LIMIT ?3";
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query((of.as_bytes(), seq_column(seq), WITNESS_EVENTS))?;
            let mut found: Vec<(ShortId, u64)> = Vec::new();
            while found.len() < MAX_SIGHTS
                && let Some(row) = rows.next()?
            {
                let short = ShortId::new(row.get(0)?);
                let known = short == of || found.iter().any(|(known, _)| *known == short);
                if !known && covers(row.get_ref(2)?.as_blob()?, of, seq) {
                    found.push((short, from_bits(row.get(1)?)));
                }
            }
            Ok(found)
        })?;
        let events = found
            .into_iter()
            .map(|(short, seq)| Source::event(self, short, seq));
        events.filter_map(Result::transpose).collect()
    }
}

/// Says whether an event's own `seen` covers event `seq` of `of`.
fn covers(header: &[u8], of: ShortId, seq: u64) -> bool {
    Header::from_bytes(header).is_ok_and(|header| {
        header
            .seen
            .iter()
            .any(|seen| seen.device == of && seen.next_seq > seq)
    })
}
