//! The peers: a task that owns the libp2p swarm, commands in, events out.
//!
//! TCP, Noise and yamux; mDNS finds devices on the local network, addresses given by hand reach the rest. There are
//! four protocols: `/p2p-sync/ledger/1` (requests about the ledger), `/p2p-sync/content/1` (streams of chunks) and
//! gossip (hints of new events) are for members only: towards anybody else this device does not even offer them
//! (`gate`). `/p2p-sync/join/1` is open to all, within narrow limits; `/p2p-sync/lan/1` exists only if the local
//! network is trusted.
//!
//! A connection keeps the rights it was made with. When a device becomes or stops being a member, its connections are
//! closed as soon as the exchange that is under way is finished ([`REGATE_PATIENCE`] at most), and made anew. Until
//! then what a former member sends is dropped here. Both sides decide for themselves: if the other side does not take
//! this device for a member, requests fail, and the engine presents itself over the join protocol.
//!
//! The task never waits for the event loop: when its outbox is full it stops polling the swarm, so that back-pressure
//! reaches the peers, and still takes commands, so that the two cannot wait for each other.
//!
//! Nothing here survives a crash and nothing needs to: addresses are learned again, requests are asked again.

mod behaviour;
mod codec;
mod convert;
mod dialer;
mod gate;
mod identity;
mod links;
mod pending;
mod port;
mod service;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use libp2p::{Multiaddr, Stream, noise};
use p2p_sync_core::engine::{GossipMessage, InboundId, Request, RequestFailed, RequestId, Response};
use p2p_sync_core::ids::{DeviceId, GroupId};
use tokio::sync::mpsc;

pub use behaviour::{CONTENT_PROTOCOL, JOIN_PROTOCOL, LAN_PROTOCOL, LEDGER_PROTOCOL, REQUEST_TIMEOUT};
pub use codec::{MAX_JOIN_REQUEST, MAX_JOIN_RESPONSE, MAX_LEDGER_REQUEST, MAX_LEDGER_RESPONSE};
pub use convert::ConvertError;
pub use identity::{IdentityError, device_of, peer_of};
pub use service::{NetworkService, REGATE_PATIENCE};
pub use streams::{OpenError, StreamOpener};

/// Commands that wait for the task; it takes them at once, so this only evens out bursts.
pub const COMMAND_QUEUE: usize = 256;
/// Events that wait for the event loop; when it is full the swarm is not polled.
pub const EVENT_QUEUE: usize = 256;

/// How the network is set up.
#[derive(Clone)]
pub struct NetworkConfig {
    /// The device's Ed25519 secret key.
    pub secret: [u8; 32],
    /// Where to listen; port 0 is any free one.
    pub listen: Vec<Multiaddr>,
    /// Whether to listen on a free port when the one in [`Self::listen`] is taken.
    pub fallback_port: bool,
    /// Whether to find devices, and be found, on the local network.
    pub mdns: bool,
    /// Whether devices of the local network are told the group, and asked for theirs.
    pub trust_lan: bool,
}

impl std::fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkConfig")
            .field("listen", &self.listen)
            .field("fallback_port", &self.fallback_port)
            .field("mdns", &self.mdns)
            .field("trust_lan", &self.trust_lan)
            .finish_non_exhaustive()
    }
}

/// What the network can be told to do.
#[derive(Debug)]
pub enum NetworkCommand {
    /// Ask a connected device; answered by one [`NetworkEvent::Response`], at once if it is not connected.
    Request {
        /// Whom.
        to: DeviceId,
        /// Named again in the response.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// Answer a [`NetworkEvent::Request`]. Too late an answer is dropped.
    Respond {
        /// Which.
        id: InboundId,
        /// The answer.
        response: Response,
    },
    /// Broadcast to the connected members.
    Gossip(GossipMessage),
    /// Replace the members; connections whose rights change are made anew.
    Members(BTreeSet<DeviceId>),
    /// What to tell the local network, if it is trusted; until the first such command nothing is told.
    Announce {
        /// `None` while waiting for a group.
        group: Option<GroupId>,
    },
    /// Dial at once all that mDNS lists and all that is to be dialled, members or not.
    SeekLan,
    /// Keep dialling an address while nobody who answers there is connected. A `/p2p/…` at its end is checked; without
    /// it whoever answers is taken.
    Dial {
        /// A multiaddress: IP address or host name, TCP port.
        address: String,
    },
    /// Stop dialling an address; connections stay.
    Forget {
        /// As it was given.
        address: String,
    },
    /// Close all connections of a device. They may be made again.
    Disconnect(DeviceId),
    /// End [`NetworkService::run`].
    Shutdown,
}

/// What happens on the network.
#[derive(Debug)]
pub enum NetworkEvent {
    /// Connections are accepted at this address.
    Listening(Multiaddr),
    /// No connections are accepted (any more) at an address; the others are not affected.
    ListenFailed {
        /// The address as configured.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// A device is connected. Comes with its first connection, and again when `member`, `local` or `near` has become
    /// true since; between two of them with less, there is a [`NetworkEvent::Disconnected`].
    Connected {
        /// Who; proven by the handshake.
        device: DeviceId,
        /// The other end of the connection, for people.
        address: String,
        /// Whether mDNS lists the device.
        local: bool,
        /// Whether it does, or the other end's address is one of a local network or of this machine.
        near: bool,
        /// Whether members' protocols can be used; the other side may still refuse them.
        member: bool,
    },
    /// The last connection of a device is gone.
    Disconnected {
        /// Who.
        device: DeviceId,
    },
    /// A device asks; to be answered with [`NetworkCommand::Respond`] within [`REQUEST_TIMEOUT`].
    Request {
        /// Who. A request that is not [`Request::is_join`] comes from a member.
        from: DeviceId,
        /// To be named in the answer.
        id: InboundId,
        /// What.
        request: Request,
    },
    /// A device answered, or did not.
    Response {
        /// Which request.
        id: RequestId,
        /// The answer.
        result: Result<Response, RequestFailed>,
    },
    /// A member broadcast something.
    Gossip {
        /// The neighbour that passed it on; a member.
        from: DeviceId,
        /// What it says.
        message: GossipMessage,
    },
    /// A device found by mDNS told its group, or that this changed. Only if the local network is trusted.
    LanPeer {
        /// Who.
        device: DeviceId,
        /// `None`: it waits for a group.
        group: Option<GroupId>,
    },
    /// A member opened a stream of content.
    Stream {
        /// Who.
        from: DeviceId,
        /// The stream.
        stream: Stream,
    },
}

/// The ends that the rest of the daemon holds.
#[derive(Debug)]
pub struct NetworkHandle {
    /// To the task; [`COMMAND_QUEUE`].
    pub commands: mpsc::Sender<NetworkCommand>,
    /// From the task; [`EVENT_QUEUE`].
    pub events: mpsc::Receiver<NetworkEvent>,
    /// Opens streams of content.
    pub streams: StreamOpener,
}

/// Why the network cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The secret key is unusable.
    #[error("The device's key cannot be used")]
    Identity(#[from] IdentityError),
    /// Noise could not be set up.
    #[error("Cannot set up encryption")]
    Noise(#[source] noise::Error),
    /// Gossip could not be set up.
    #[error("Cannot set up gossip")]
    Gossip,
    /// Streams could not be set up.
    #[error("Cannot accept streams of content")]
    Streams,
    /// The system gave no randomness.
    #[error("Cannot get randomness")]
    Random(#[source] getrandom::Error),
}
