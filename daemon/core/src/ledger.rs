//! Events: what they say, how they are written, and how they are checked (ledger.md 1–3).

mod event;
mod item;
mod log;

pub use event::{
    Body, BodyError, EventError, EventKind, FORMAT_VERSION, Header, MAX_BODY, MAX_HEADER, MAX_ITEMS, Seen,
    SignedEvent, VerifiedEvent,
};
pub use item::{Genesis, Grant, GrantVia, Invite, Item, Keep, LogHead, Pin, Put, PutFlags, Revoke};
pub(crate) use item::{MAX_DOTS, MAX_NAME, MAX_REASON};
pub use log::{LogError, LogState};
