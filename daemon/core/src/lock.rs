//! QLock: locks that exclude, by majorities of voters with durable state (locks.md 3).
//!
//! A group has one, three or five **voters**. Who wants a lock makes a **claim** with a token above every one it knows
//! and asks all voters; a majority that grants it is a **certificate**, which goes into the ledger. Two conflicting
//! claims of one epoch share a voter, and a voter never holds conflicting slots; it takes the second only after the
//! first was released, was broken or ran out, and then only with a greater token.
//!
//! Three clocks meet here. A **voter** counts a lease from when it took the claim. The **holder** counts it from before it
//! asked, and stops a little earlier, so clocks that run up to two per cent apart keep them in order. A restarted voter
//! counts every lease anew. A **durable** slot counts nothing and lasts until it is released or broken.
//!
//! Each piece is a plain state machine that is told the time: [`Voter`] (what a voter keeps and answers), [`Attempt`] and
//! [`Lease`] (what an acquirer may believe), [`LockManager`] (all that a device wants or has) and [`succession`] (how one set
//! of voters follows another). The model in
//! `tests/model` tries all orders of their messages, crashes and clocks.

mod attempt;
mod claim;
mod lease;
mod manager;
mod resource;
pub mod succession;
mod voter;

pub use attempt::{Attempt, Progress};
pub use claim::{Certificate, CertificateError, Claim, Nonce, Token, Vote};
pub use lease::Lease;
pub use manager::{AskNo, Electorate, LockError, LockManager, LockNo, LockOutput, Wanted};
pub use resource::{Resource, ResourceError};
pub use voter::{
    Answer, Known, Request, Sealed, Slot, SlotId, Voted, Voter, VoterState, slots_from_bytes, slots_to_bytes,
};

/// Voters there may be at most.
pub const MAX_VOTERS: usize = 5;

/// How many of `voters` are a majority.
#[must_use]
pub const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}
