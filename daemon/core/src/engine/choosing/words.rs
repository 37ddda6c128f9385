//! What is told about voters.

use crate::ids::DeviceId;

/// Who grants locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VotersReport {
    /// Which set of voters it is; the one that the group was founded with is 0.
    pub epoch: u64,
    /// Who, in order.
    pub voters: Vec<VoterReport>,
    /// The owner who chose them; `None`: the group was founded with them.
    pub chosen_by: Option<DeviceId>,
    /// Whether they follow by his word alone: those before had not made room.
    pub is_forced: bool,
}

/// One who grants locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoterReport {
    /// Who.
    pub device: DeviceId,
    /// Whether it can be asked now.
    pub is_reached: bool,
    /// Whether it is a member: one that was removed counts as a voter until others are chosen.
    pub is_member: bool,
}

/// Why there are no other voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VotersError {
    /// There can be one, three or five, each once.
    #[error("Locks are granted by one, three or five different devices")]
    Count,
    /// They are the voters.
    #[error("These devices grant the locks already")]
    Same,
    /// One that is to be a voter is not connected, or does not answer.
    #[error("A device that is to grant locks cannot be reached now")]
    Unreachable(DeviceId),
    /// One that is to be a voter does not know this device as an owner.
    #[error("A device that is to grant locks has not heard that this device is an owner; try again later")]
    Refused(DeviceId),
    /// Another owner chooses voters, or did so first.
    #[error("Another owner chooses who grants locks at the same time; try again later")]
    Contended,
    /// They do not fit into an event.
    #[error("There are too many locks for others to take over; have some released first")]
    TooManyLocks,
}
