//! What users ask about locks, and what they are told.

use std::time::Duration;

use crate::engine::{VoterReport, VotersReport};
use crate::ids::{DeviceId, Dot};
use crate::lock::{Resource, Token};

/// A command about locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockCommand {
    /// Have a lock for this device.
    Acquire {
        /// On what.
        resource: Resource,
        /// When it is to be released again, milliseconds since 1970; `None`: when the user says.
        until_ms: Option<u64>,
        /// What for, for people; at most 1024 bytes.
        note: String,
        /// How long to wait while somebody else holds it, or too few voters are reached.
        wait: Duration,
    },
    /// Release a lock of this device's.
    Release {
        /// On what.
        resource: Resource,
    },
    /// End somebody else's lock.
    Break {
        /// On what.
        resource: Resource,
        /// Why, for people; at most 1024 bytes.
        reason: String,
    },
    /// List the locks that are held.
    List,
    /// Choose who grants locks.
    SetVoters {
        /// Who: one, three or five.
        voters: Vec<DeviceId>,
        /// Whether those before are not asked to make room.
        is_forced: bool,
    },
    /// Tell who grants locks.
    ListVoters,
}

/// What a command about locks comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockReply {
    /// It is held.
    Held(LockReport),
    /// It is over.
    Ended {
        /// What was held.
        lock: LockReport,
        /// Whether a majority of the voters have let it go; otherwise they will when they hear of it.
        by_majority: bool,
    },
    /// Who grants locks.
    Voters(VotersReport),
    /// The locks that are held, in order of what they cover.
    List {
        /// Which.
        locks: Vec<LockReport>,
        /// The voters.
        voters: Vec<VoterReport>,
    },
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReport {
    /// The item that granted it.
    pub place: Dot,
    /// On what, in order.
    pub resources: Vec<Resource>,
    /// By whom.
    pub holder: DeviceId,
    /// Under which token.
    pub token: Token,
    /// Whether it lasts until it is released or broken.
    pub durable: bool,
    /// Since when, milliseconds since 1970, by its holder's clock.
    pub since_ms: u64,
    /// When its holder means to release it, milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// What for.
    pub note: String,
    /// Whether it is this device's.
    pub is_own: bool,
    /// Whether it is this device's, and a majority of the voters said so in this run.
    pub is_confirmed: bool,
}
