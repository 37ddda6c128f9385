//! The state of one device's log: what the next event must fit to (ledger.md 1 and 7, steps 9–11).

use std::collections::BTreeMap;

use super::event::{Header, Seen, VerifiedEvent};
use crate::ids::{DeviceId, EventId, ShortId};
use crate::merkle::Peaks;
use crate::time::Hlc;

/// What is known of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// Whose.
    pub author: DeviceId,
    /// The tree over the ids of its events.
    pub peaks: Peaks,
    /// The id of its last event; all zero for an empty log.
    pub last_id: EventId,
    /// The hybrid clock of its last event.
    pub hlc: Hlc,
    /// The full version vector at its last event: for each other device, how many of its events the author had.
    pub seen: BTreeMap<ShortId, u64>,
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
    /// A different event has this place in the log.
    #[error("The log has forked")]
    Fork,
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
            peaks: Peaks::default(),
            last_id: EventId::new([0; 32]),
            hlc: Hlc::default(),
            seen: BTreeMap::new(),
        }
    }

    /// Returns the number of events.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.peaks.size()
    }

    /// Checks that a header continues this log.
    ///
    /// # Errors
    /// [`LogError`]; [`LogError::Known`] and [`LogError::Fork`] cannot be told apart here and both give `Known`.
    pub fn check_next(&self, header: &Header) -> Result<(), LogError> {
        if header.seq < self.size() {
            return Err(LogError::Known);
        }
        if header.seq > self.size() {
            return Err(LogError::Gap);
        }
        if header.prev_root != self.peaks.root() {
            return Err(LogError::PrevRoot);
        }
        let back = |s: &Seen| self.seen.get(&s.device).is_some_and(|known| *known >= s.next_seq);
        if header.seen.iter().any(back) {
            return Err(LogError::SeenBack);
        }
        if header.hlc <= self.hlc {
            return Err(LogError::Clock);
        }
        Ok(())
    }

    /// Takes up an event that [`check_next`](Self::check_next) passed.
    pub fn push(&mut self, event: &VerifiedEvent) {
        self.peaks.push(*event.id.as_bytes());
        self.last_id = event.id;
        self.hlc = event.header.hlc;
        for seen in &event.header.seen {
            self.seen.insert(seen.device, seen.next_seq);
        }
    }

    /// Says whether the author had event `seq` of `device` when it made its last event.
    #[must_use]
    pub fn has_seen(&self, device: ShortId, seq: u64) -> bool {
        if device == self.author.short() {
            return seq < self.size();
        }
        self.seen.get(&device).is_some_and(|next| seq < *next)
    }
}
