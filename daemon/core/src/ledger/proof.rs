//! Proof files: one item of one event, shown to somebody who has nothing but the group's id (ledger.md 9).
//!
//! A proof holds the item with its salt and its path in the body's tree, so that the event's other items stay hidden;
//! the event's signed header; the author's newest signed header, whose `prev_root` commits to all events before it; the
//! Grants and Invites that lead from the Genesis event to the author, each shown in the same way; and signed headers of
//! other members whose `seen` covers the event. That a grant lies in the past of what was done with it is shown, too.
//!
//! ```text
//! Proof     = ["p2p-sync-proof", version 0, [Link…], Link, null | Newest, [Witness…]]    the second Link is what is shown
//! Link      = [Signed, index uint, salt bstr16, item bstr, Path, null | Power]           the Power is the redeemed invite's
//! Signed    = [header bstr, sig bstr64, null | Power]                                    null: the Genesis event itself
//! Power     = [link uint, Past]                                                          a Link that stands before this one
//! Past      = [Path]                                           an earlier event of the same log; no hash: the same event
//!           | [null | Committed, null | Committed]             the own earlier header that has seen it (null: this one),
//!                                                              the newest event it had seen (null: the very one)
//! Committed = [header bstr, Path]                              a header, and its or the earlier event's place in a log
//! Newest    = [header bstr, sig bstr64, Path]
//! Witness   = [Signed, null | Committed]                       in order of device ids
//! Path      = bstr of 32-byte hashes, deepest first
//! ```
//!
//! It is one deterministic CBOR document. Everything in it is checked or is covered by something that is, and each link
//! is used: a proof with one bit changed is no proof.
//!
//! What a proof does **not** show: that nobody revoked the author's role, or the role of whoever granted it, or cancelled
//! the invite, before the event; that a Revoke shown had power over its device; that no other item of the event, which stays hidden, makes the event void; that the version is still the one
//! at its path; that the author's clock was right (`wall_ms` is its word); or that the author signed no second history
//! for other readers.

mod check;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod make;
mod wire;

#[cfg(test)]
mod tests;

use super::event::EventError;
use super::item::Item;
use crate::access::{GrantFlags, Role, Scopes};
use crate::encoding::{EncodingError, ShapeError};
use crate::ids::{DeviceId, Dot, EventId, GroupId};
use crate::time::Hlc;

pub use check::check;
pub use make::{MakeError, Source, make};

/// Bytes a proof may have: each of its headers has 8 KiB at most, and there are few.
pub const MAX_PROOF: usize = 512 << 10;
/// The version this daemon writes and reads.
pub const VERSION: u64 = 0;
/// Links before the item: far longer chains than people make.
const MAX_LINKS: usize = 32;
/// Witnesses: more would add bytes, not trust.
const MAX_WITNESSES: usize = 8;
/// Hashes in a path; no log has 2^64 events.
const MAX_PATH: usize = 64;

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The group it was checked for.
    pub group: GroupId,
    /// The event that holds the item.
    pub event: EventId,
    /// The item's name.
    pub dot: Dot,
    /// Who signed it, and in which role by the grants shown.
    pub author: Member,
    /// What was signed.
    pub item: Item,
    /// The event's hybrid clock.
    pub hlc: Hlc,
    /// When, milliseconds since 1970 by the author's clock.
    pub wall_ms: u64,
    /// Events of the author's log that its newest header shown commits to, that one included.
    pub log_size: u64,
    /// How the author, and the witnesses, came to their roles, from the Genesis event on.
    pub chain: Vec<Step>,
    /// Other members that signed that they had the event, in order of their ids.
    pub seen_by: Vec<Sighting>,
}

/// A member, as the shown grants name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which device.
    pub device: DeviceId,
    /// Its name, for people.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Where it may write.
    pub scopes: Scopes,
    /// What else it may do.
    pub flags: GrantFlags,
}

/// One Genesis, Grant or Invite on the way to a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Who signed it.
    pub by: Member,
    /// What it says.
    pub item: Item,
    /// In which event.
    pub event: EventId,
    /// When, milliseconds since 1970 by its author's clock.
    pub wall_ms: u64,
}

/// A member's signed word that it had the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who.
    pub member: Member,
    /// In which event of its own.
    pub event: EventId,
    /// When, milliseconds since 1970 by its clock.
    pub wall_ms: u64,
}

/// Why bytes are not a proof of anything in this group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Larger than allowed, or with more parts.
    #[error("The proof is larger than allowed")]
    TooLarge,
    /// Not a proof file at all.
    #[error("This is not a proof file")]
    NotAProof,
    /// Of a later version.
    #[error("The proof is of version {0}, this program knows version {VERSION}")]
    Version(u64),
    /// Not deterministic CBOR.
    #[error("The proof is not deterministic CBOR")]
    Encoding(#[from] EncodingError),
    /// Not of the documented shape.
    #[error("The proof does not have the documented shape")]
    Shape(#[from] ShapeError),
    /// A header in it is malformed.
    #[error("An event in the proof is malformed")]
    Event(#[from] EventError),
    /// Its first event founds another group.
    #[error("The proof is of another group")]
    OtherGroup,
    /// A signature is wrong.
    #[error("A signature is wrong, or the proof is of another group")]
    Signature,
    /// An item is not in its event's tree.
    #[error("An item does not belong to the event it is shown with")]
    Item,
    /// The event is not in the log that the newest header commits to.
    #[error("The event is not in its author's log")]
    Log,
    /// A role does not follow from what is shown.
    #[error("The role of a signer does not follow from the grants shown")]
    Power,
    /// The role does not allow what was signed.
    #[error("The role of a signer does not allow what it signed")]
    Role,
    /// A grant was not known to whoever used it, or a witness had not seen the event.
    #[error("What is said to have come before did not")]
    Past,
    /// Something in it serves nothing.
    #[error("The proof holds something that proves nothing")]
    Unused,
}
