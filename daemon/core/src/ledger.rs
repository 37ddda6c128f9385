//! Events: what they say, how they are written, and how they are checked (ledger.md 1–3).

pub mod audit;
mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grant;
mod item;
mod log;
mod person;
pub mod proof;
#[cfg(any(test, fuzzing))]
mod samples;

pub use event::{
    Body, BodyError, EventError, EventKind, FORMAT_VERSION, Header, ItemProof, MAX_BODY, MAX_HEADER,
    MAX_ITEMS, Seen, SignedEvent, VerifiedEvent,
};
pub(crate) use grant::grant_message;
pub use item::{
    EndReason, Genesis, Grant, GrantVia, Invite, Item, Keep, LockBreak, LockEnd, LockGrant, LogHead, Put,
    PutFlags, Revoke, SealedSlots, Voters,
};
pub(crate) use item::{MAX_DOTS, MAX_NAME, MAX_NOTE, MAX_REASON, read_dot, write_dot};
pub use log::{Left, LogError, LogState};
pub use person::{Person, PersonError};
