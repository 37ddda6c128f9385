//! What is said to a lock manager, and what it says.

use super::super::claim::{Certificate, Token};
use super::super::resource::Resource;
use super::super::voter::Request;
use crate::ids::{DeviceId, GroupId, ShortId};
use crate::time::BootInstant;
use std::collections::BTreeMap;

/// Names a lock that this device wants or has, within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockNo(pub u64);

/// Names a question to a voter, within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskNo(pub u64);

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What, in order, each once.
    pub resources: Vec<Resource>,
    /// Whether it is to last until it is released or broken.
    pub durable: bool,
    /// Until when to wait for others who hold it; `None`: not at all.
    pub wait_until: Option<BootInstant>,
}

/// Whom to ask, as the ledger says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Electorate {
    /// The group.
    pub group: GroupId,
    /// The epoch.
    pub epoch: u64,
    /// Its voters.
    pub voters: Vec<DeviceId>,
    /// The greatest number of a lock of this epoch that is known; 0: none.
    pub highest: u64,
}

/// Why there is no lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Too few voters were reached.
    #[error("Only {reached} voters could be reached, {needed} are needed")]
    NoQuorum {
        /// How many answered.
        reached: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Somebody else holds something of it.
    #[error("Another device holds a lock on it")]
    Busy {
        /// Who.
        holder: DeviceId,
        /// Under which token.
        token: Token,
        /// What.
        resources: Vec<Resource>,
    },
    /// The role does not allow it, as a voter sees it.
    #[error("This device's role does not let it change that")]
    Denied,
    /// A voter lost its state or has no room.
    #[error("A voter has lost its state, or has no room for another lock")]
    Unfit,
    /// The voters are being replaced.
    #[error("The voters are being replaced; try again")]
    Sealed,
    /// Others took numbers faster.
    #[error("Other devices asked for locks at the same time; try again")]
    Contended,
    /// Not everything that the voters know of it is here.
    #[error("A newer version is not here yet")]
    Behind {
        /// Who has it.
        device: Option<DeviceId>,
    },
    /// It ran out, or was broken, before the voters kept it for good.
    #[error("The voters did not keep it in time")]
    Lapsed,
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockOutput {
    /// Ask a voter, which may be this device itself.
    Ask {
        /// Whom.
        voter: DeviceId,
        /// To be named with the answer.
        ask: AskNo,
        /// What.
        request: Request,
    },
    /// A majority granted it. Once everything is here that the voters have of it, the lock is to be recorded in the ledger,
    /// or to be released.
    Granted {
        /// Which.
        lock: LockNo,
        /// What proves it.
        certificate: Certificate,
        /// How many events of which logs the voters have that speak of it.
        has: BTreeMap<ShortId, u64>,
    },
    /// It is held: recorded, and if it is to last, kept by a majority.
    Held {
        /// Which.
        lock: LockNo,
    },
    /// There is no such lock (any more).
    Failed {
        /// Which.
        lock: LockNo,
        /// Why.
        error: LockError,
    },
    /// It was released.
    Released {
        /// Which.
        lock: LockNo,
        /// Whether a majority of the voters let it go; otherwise they will when they hear of it.
        by_majority: bool,
    },
}
