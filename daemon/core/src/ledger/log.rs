//! The state of one device's log: what the next event must fit to (ledger.md 1 and 7, steps 9–11).

use std::collections::BTreeMap;

use super::event::Header;
use crate::ids::{DeviceId, EventId, ShortId};
use crate::merkle::Peaks;
use crate::time::Hlc;

/// What is known of a log, or of one branch of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// Whose.
    pub author: DeviceId,
    /// What this device calls it: its author's short name, but for the branches that came after the first.
    pub name: ShortId,
    /// Where it branches off another log of its author; the events before that belong to the other.
    pub left: Option<Left>,
    /// The tree over the ids of its events.
    pub peaks: Peaks,
    /// The id of its last event; all zero for an empty log.
    pub last_id: EventId,
    /// The hybrid clock of its last event.
    pub hlc: Hlc,
    /// The full version vector at its last event: for each other log, how many of its events the author had. Whoever had
    /// something of a branch had of the log that it left what they share.
    pub seen: BTreeMap<ShortId, u64>,
}

/// Where a branch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// The log that it left.
    pub log: ShortId,
    /// How many events they share.
    pub size: u64,
}

/// Why an event does not fit to the end of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The event is already part of the log.
    #[error("The event is known")]
    Known,
    /// Events between the log's end and this one are missing.
    #[error("Events before this one are missing")]
    Gap,
    /// `prev_root` is not the log's tree head.
    #[error("The event does not continue the log")]
    PrevRoot,
    /// An entry of `seen` goes back.
    #[error("The event has seen less than the one before it")]
    SeenBack,
    /// The hybrid clock does not advance.
    #[error("The clock of the event does not advance")]
    Clock,
}

impl LogState {
    /// Returns the state of a log without events.
    #[must_use]
    pub fn empty(author: DeviceId) -> Self {
        Self {
            author,
            name: author.short(),
            left: None,
            peaks: Peaks::default(),
            last_id: EventId::new([0; 32]),
            hlc: Hlc::default(),
            seen: BTreeMap::new(),
        }
    }

    /// Returns a branch that leaves this log at its end, before the branch's first event.
    #[must_use]
    pub fn begin_branch(&self, name: ShortId, left: Left) -> Self {
        let mut branch = Self {
            name,
            left: Some(left),
            ..self.clone()
        };
        branch.seen.insert(self.name, self.size());
        branch
    }

    /// Returns the number of events.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.peaks.size()
    }

    /// Checks that a header continues this log; `seen` are the entries of its `seen`, with the names of the logs
    /// here, without what they share with others.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn check_next(&self, header: &Header, seen: &[(ShortId, u64)]) -> Result<(), LogError> {
        if header.seq < self.size() {
            return Err(LogError::Known);
        }
        if header.seq > self.size() {
            return Err(LogError::Gap);
        }
        if header.prev_root != self.peaks.root() {
            return Err(LogError::PrevRoot);
        }
        let back = |(log, next): &(ShortId, u64)| self.seen.get(log).is_some_and(|known| known >= next);
        if seen.iter().any(back) {
            return Err(LogError::SeenBack);
        }
        if header.hlc <= self.hlc {
            return Err(LogError::Clock);
        }
        Ok(())
    }

    /// Takes up an event that [`check_next`](Self::check_next) passed; `seen` with what is shared with other logs.
    pub fn push(&mut self, id: EventId, header: &Header, seen: &[(ShortId, u64)]) {
        self.peaks.push(*id.as_bytes());
        self.last_id = id;
        self.hlc = header.hlc;
        self.note_seen(seen);
    }

    /// Notes that the author had this much of these logs.
    pub fn note_seen(&mut self, seen: &[(ShortId, u64)]) {
        for (log, next) in seen {
            let known = self.seen.entry(*log).or_default();
            *known = next.max(known).to_owned();
        }
    }

    /// Says whether the author had event `seq` of `log` when it made its last event.
    #[must_use]
    pub fn has_seen(&self, log: ShortId, seq: u64) -> bool {
        if log == self.name {
            return seq < self.size();
        }
        self.seen.get(&log).is_some_and(|next| seq < *next)
    }
}
