//! What devices say to each other about the ledger. Content travels on streams of its own and never passes here.

use std::sync::Arc;

use crate::ids::{DeviceId, EventId, GroupId, ShortId};
use crate::ledger::SignedEvent;
use crate::lock;

/// A question to a peer; each gets exactly one [`Response`] or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// "These are my heads": the SHA-256 over the sorted (device, size, id16) of all logs. Members only.
    Heads {
        /// The digest.
        digest: [u8; 32],
    },
    /// "Send me what I lack": all events beyond the given heads, in an order that respects `seen`. Members only.
    Pull {
        /// The heads of the asker's logs, sorted; a log not named has size 0. A head of size `u64::MAX` says that nothing of
        /// the log is wanted. Of logs that forked, or may have, there are heads of earlier times too.
        have: Vec<Head>,
        /// Bytes of events wanted at most.
        max_bytes: u32,
    },
    /// "This is new": events of the sender's, in log order. A hint; what does not fit is pulled. Members only.
    Push {
        /// At most [`MAX_PUSH_BYTES`] together.
        events: Vec<SignedEvent>,
    },
    /// "I hold all contents named by these heads": the digest as in [`Request::Heads`]. Members only.
    InSync {
        /// The digest.
        digest: [u8; 32],
    },
    /// Asks a voter about a lock; answered by [`Response::Lock`]. Members only.
    Lock(lock::Request),
    /// Asks for a nonce, to redeem an invite. Anybody.
    JoinHello,
    /// Redeems an invite. Anybody.
    JoinRedeem(Box<Redeem>),
    /// Asks to be admitted as a fresh device of the local network; answered only with `--trust-lan`. Anybody.
    JoinTrustLan {
        /// The asking device's name, for people.
        name: String,
    },
    /// Asks a device of the local network what it and its group are called. Anybody near.
    JoinWho,
    /// Asks to be let in by the device's user, and shows the hash of the asker's nonce. Anybody near.
    JoinAsk {
        /// The group.
        group: GroupId,
        /// The asking device's name, for people.
        name: String,
        /// Binds the asker's nonce before it knows the other.
        commitment: [u8; 32],
    },
    /// Shows the asker's nonce; the same again asks whether it was let in. Anybody near.
    JoinReveal {
        /// Fresh random bytes of the asker's.
        nonce: [u8; 32],
    },
    /// Shows a member's way into the group to a peer that has not heard of it yet: admin events from genesis to the
    /// presenter's Grant. Anybody.
    Present {
        /// At most [`MAX_PRESENT_BYTES`] together.
        events: Vec<SignedEvent>,
    },
}

impl Request {
    /// Says whether a device that is no member may ask this.
    #[must_use]
    pub const fn is_join(&self) -> bool {
        match self {
            Self::JoinHello
            | Self::JoinRedeem(_)
            | Self::JoinTrustLan { .. }
            | Self::JoinWho
            | Self::JoinAsk { .. }
            | Self::JoinReveal { .. }
            | Self::Present { .. } => true,
            Self::Heads { .. }
            | Self::Pull { .. }
            | Self::Push { .. }
            | Self::InSync { .. }
            | Self::Lock(_) => false,
        }
    }
}

/// The proof that a device holds an invite's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeem {
    /// The group the ticket names.
    pub group: GroupId,
    /// The invite's public key.
    pub invite: [u8; 32],
    /// The joining device's name, for people.
    pub name: String,
    /// Signature by the invite key over the listener's nonce, the group and the device: fresh.
    pub nonce_sig: [u8; 64],
    /// Signature by the invite key over the group and the device: goes into the Grant.
    pub grant_sig: [u8; 64],
}

/// What a device tells its neighbours about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Its group.
    pub group: GroupId,
    /// The name that the group was founded with; empty if its beginning is not here yet.
    pub group_name: String,
    /// The device's name.
    pub device_name: String,
}

/// An answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// Heads are equal.
    Same,
    /// The answerer's heads: log sizes and the id16 of each log's last event, sorted.
    Heads(Vec<Head>),
    /// Events, and whether there are more.
    Events {
        /// In an order that respects `seen`.
        events: Vec<SignedEvent>,
        /// Whether the asker should ask again.
        more: bool,
        /// Devices whose logs, by the heads that the asker named, have branches that are not here: nothing is sent of them
        /// until the asker names earlier heads. Sorted.
        forked: Vec<ShortId>,
    },
    /// Taken note of.
    Ack,
    /// What a voter says.
    Lock(lock::Voted),
    /// What the answerer and its group are called.
    Here(Here),
    /// The nonce for [`Redeem::nonce_sig`], or for the digits of [`Request::JoinAsk`].
    Challenge {
        /// Fresh random bytes of the listener's.
        nonce: [u8; 32],
    },
    /// Admitted: the signed admin events from genesis to the new device's Grant.
    Accepted {
        /// In an order that respects `seen`.
        events: Vec<SignedEvent>,
    },
    /// To a device that shows its way in and is no member any more: the events that ended its grants, and the way of
    /// their authors into the group.
    Removed {
        /// In the order of their hybrid clocks.
        events: Vec<SignedEvent>,
    },
    /// Not admitted, or not a member.
    Refused(RefuseReason),
}

/// An event of a log, and so all before it; in [`Response::Heads`] the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// The author.
    pub device: ShortId,
    /// Events in the log.
    pub size: u64,
    /// First 16 bytes of the id of the last of them.
    pub id16: [u8; 16],
}

/// Why a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseReason {
    /// The asker is no member of this group.
    NotMember,
    /// The ticket is of another group.
    OtherGroup,
    /// No such invite, or its signatures are wrong.
    BadInvite,
    /// The invite's time is over.
    Expired,
    /// The invite was used as often as it may be.
    UsedUp,
    /// This device may not admit anybody, or does not trust the local network.
    MayNotAdmit,
    /// This device cannot answer now; ask again later.
    Busy,
    /// No such request to be let in is open (any more).
    NotAsked,
}

/// What is broadcast over gossip: a hint of at most 8 KiB, never the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipMessage {
    /// A new event exists; whoever lacks it pulls.
    EventAnnounced {
        /// The author.
        author: DeviceId,
        /// Its place in the author's log.
        seq: u64,
        /// Its id.
        id: EventId,
        /// Its signed header, without body.
        header: Arc<[u8]>,
        /// The author's signature.
        signature: [u8; 64],
    },
}

/// Bytes of events in one [`Request::Push`].
pub const MAX_PUSH_BYTES: usize = 1 << 20;
/// Bytes of events in one [`Request::Present`].
pub const MAX_PRESENT_BYTES: usize = 64 << 10;
/// Bytes of events in one page of [`Response::Events`]; one event may be larger than a page (8 KiB + 1 MiB).
pub const MAX_PAGE_BYTES: usize = 1 << 20;
