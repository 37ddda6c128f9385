//! What of an event counts, for people who read the ledger.
//!
//! It is found from the rights as they are known here now, in time that depends on the event and on its author's grants
//! alone. What a later Revoke takes away, or gives back, is judged anew when somebody asks anew.

use super::SyncEngine;
use crate::access::Role;
use crate::ids::ShortId;
use crate::ledger::{EventKind, VerifiedEvent};

/// What of an event counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// The strongest role that the author had in it; `None`: it had none, or was removed before.
    pub role: Option<Role>,
    /// The places of the items that count nowhere: the author had no right to them, or an event of its kind cannot say
    /// them.
    pub void: Vec<u32>,
    /// Whether nothing that it says counts.
    pub is_void: bool,
}

impl SyncEngine {
    /// Says what of an event counts; `log` is the name under which its author's log, or a branch of it, is kept here.
    #[must_use]
    pub fn verdict(&self, log: ShortId, event: &VerifiedEvent) -> Verdict {
        let Some(group) = &self.group else {
            return Verdict::default();
        };
        let role = group.role_at(&event.header.author, log, event.header.seq);
        let mut void = group.void_items(event, log);
        if event.header.kind == EventKind::Work {
            void.extend(self.void_locks(log, event));
            void.sort_unstable();
        }
        let is_void = match event.body.items.len() {
            0 => role.is_none(),
            items => void.len() == items,
        };
        Verdict { role, void, is_void }
    }
}
