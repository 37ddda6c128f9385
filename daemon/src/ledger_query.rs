//! What can be asked of the ledger: words that the store, which answers, and the control API, which asks, have in common.

use std::sync::Arc;

use p2p_sync_core::engine::{StoredEvent, Verdict};
use p2p_sync_core::ids::{EventId, ShortId};
use p2p_sync_core::ledger::VerifiedEvent;
use p2p_sync_core::rel_path::RelPath;

/// An event, and when it arrived here among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEvent {
    /// Grows with each event that arrives; not without gaps.
    pub arrival: u64,
    /// The event.
    pub stored: StoredEvent,
}

/// An event that was read, and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedEvent {
    /// As it is stored.
    pub event: LedgerEvent,
    /// What it says.
    pub read: Arc<VerifiedEvent>,
    /// What of that counts, as is known here now.
    pub verdict: Verdict,
}

/// By what events are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerOrder {
    /// By when they arrived here.
    Arrival,
    /// By their hybrid clocks: what an event has seen comes before it.
    Clock,
}

/// Which events, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerQuery {
    /// By what they are ordered.
    pub order: LedgerOrder,
    /// Whether the last come first.
    pub newest_first: bool,
    /// Of this device only.
    pub device: Option<ShortId>,
    /// That wrote or removed this path, if their author might.
    pub path: Option<RelPath>,
    /// Not before this time, milliseconds since 1970 by the hybrid clock.
    pub since_ms: Option<u64>,
    /// Beyond this place.
    pub after: Option<LedgerPlace>,
    /// At most so many.
    pub limit: usize,
}

/// A place in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerPlace {
    /// Arrival, or bits of the clock.
    pub key: u64,
    /// Tells apart what has the same clock.
    pub id: EventId,
}

/// Events, and where the next page begins, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPage<E = LedgerEvent> {
    /// In the wanted order.
    pub events: Vec<E>,
    /// The place of the last of them, if more follow.
    pub next: Option<LedgerPlace>,
}

impl<E> Default for LedgerPage<E> {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            next: None,
        }
    }
}
