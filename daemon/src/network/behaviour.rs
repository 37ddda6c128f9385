//! The libp2p behaviours, and how they are set up. What strangers may touch is listed here and nowhere else.

use std::time::Duration;

use libp2p::connection_limits::ConnectionLimits;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, connection_limits, identify, mdns, noise, ping, tcp, yamux,
};
use p2p_sync_core::engine::GossipMessage;
use p2p_sync_core::merkle;
use p2p_sync_proto::peer::v1 as wire;
use prost::Message;

use super::codec::{JoinCodec, LanCodec, LedgerCodec};
use super::convert::gossip_from_wire;
use super::gate::Gated;
use super::{NetworkConfig, NetworkError};

/// Heads, pulls and pushes; members only.
pub const LEDGER_PROTOCOL: StreamProtocol = StreamProtocol::new("/p2p-sync/ledger/1");
/// Joining and presenting; anybody.
pub const JOIN_PROTOCOL: StreamProtocol = StreamProtocol::new("/p2p-sync/join/1");
/// "Which group are you in?"; only with a trusted local network.
pub const LAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/p2p-sync/lan/1");
/// Streams of chunks; members only.
pub const CONTENT_PROTOCOL: StreamProtocol = StreamProtocol::new("/p2p-sync/content/1");

/// How long a peer may take over a request; a 4 MiB page at 1 Mbit/s is just out.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole of it. Limits come first: whoever is denied must not have reached another behaviour.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) members: Gated<MemberBehaviour>,
    pub(super) join: request_response::Behaviour<JoinCodec>,
    pub(super) lan: Toggle<request_response::Behaviour<LanCodec>>,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What only members have.
#[derive(NetworkBehaviour)]
pub(super) struct MemberBehaviour {
    pub(super) ledger: request_response::Behaviour<LedgerCodec>,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) streams: libp2p_stream::Behaviour,
    identify: identify::Behaviour,
}

/// Returns the topic of all broadcasts. It needs no group in its name: only members of one group ever hear it.
pub(super) fn topic() -> IdentTopic {
    IdentTopic::new("p2p-sync/events/1")
}

/// Builds the swarm. Needs a running tokio runtime.
pub(super) fn build_swarm(
    config: &NetworkConfig,
    keypair: Keypair,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let behaviour = build_behaviour(config, &keypair)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(NetworkError::Noise)?
        .with_behaviour(|_| behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(swarm)
}

/// Idle connections are the normal state of a folder in sync. Strangers are closed by the service's own rule, and dead
/// peers by ping, so this is only what catches a mistake in those.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Ping finds dead peers within [`PING_INTERVAL`] + [`PING_TIMEOUT`], and keeps NATs from forgetting the connection.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Handshakes under way at a time, each way; beyond it new ones are turned away, which costs them a retry.
const MAX_PENDING: u32 = 32;
/// Connections of one peer: both sides may dial at once, and the remains of a crashed peer linger until ping notices.
const MAX_PER_PEER: u32 = 4;
/// Connections in all: more members than any group is meant to have.
const MAX_CONNECTIONS: u32 = 512;
/// Requests and answers under way on one connection; members pull page by page, so this is generous.
const MAX_LEDGER_STREAMS: usize = 32;
/// Joins under way on one connection: one, and one that presents itself at the same time, each way.
const MAX_JOIN_STREAMS: usize = 4;
/// Questions about the group under way on one connection, each way.
const MAX_LAN_STREAMS: usize = 4;
/// Bytes of a broadcast. A header that does not fit is not broadcast: gossip is a hint.
pub(super) const MAX_GOSSIP: usize = 8 << 10;
/// mDNS asks this often; devices announce themselves when they start, so this only finds what was lost.
const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(60);

fn build_behaviour(config: &NetworkConfig, keypair: &Keypair) -> Result<Behaviour, NetworkError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let join = request_response::Behaviour::new(
        [(JOIN_PROTOCOL, ProtocolSupport::Full)],
        rpc_config(MAX_JOIN_STREAMS),
    );
    let lan = config.trust_lan.then(|| {
        request_response::Behaviour::new(
            [(LAN_PROTOCOL, ProtocolSupport::Full)],
            rpc_config(MAX_LAN_STREAMS),
        )
    });
    let ping = ping::Config::new()
        .with_interval(PING_INTERVAL)
        .with_timeout(PING_TIMEOUT);
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        members: Gated::new(build_member_behaviour(keypair)?),
        join,
        lan: Toggle::from(lan),
        ping: ping::Behaviour::new(ping),
        mdns: Toggle::from(build_mdns(config, keypair)),
    })
}

fn build_member_behaviour(keypair: &Keypair) -> Result<MemberBehaviour, NetworkError> {
    let ledger = request_response::Behaviour::new(
        [(LEDGER_PROTOCOL, ProtocolSupport::Full)],
        rpc_config(MAX_LEDGER_STREAMS),
    );
    let gossip = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(MAX_GOSSIP)
        .build()
        .map_err(|_| NetworkError::Gossip)?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, gossip)
        .map_err(|_| NetworkError::Gossip)?;
    gossip.subscribe(&topic()).map_err(|_| NetworkError::Gossip)?;
    let identify = identify::Config::new("p2p-sync/1".to_owned(), keypair.public())
        .with_agent_version(concat!("p2p-sync/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    Ok(MemberBehaviour {
        ledger,
        gossip,
        streams: libp2p_stream::Behaviour::new(),
        identify: identify::Behaviour::new(identify),
    })
}

/// A machine without multicast still syncs with the addresses it is given, so this is a warning and not an error.
fn build_mdns(config: &NetworkConfig, keypair: &Keypair) -> Option<mdns::tokio::Behaviour> {
    if !config.mdns {
        return None;
    }
    let mdns_config = mdns::Config {
        query_interval: MDNS_QUERY_INTERVAL,
        ..mdns::Config::default()
    };
    match mdns::tokio::Behaviour::new(mdns_config, keypair.public().to_peer_id()) {
        Ok(mdns) => Some(mdns),
        Err(error) => {
            tracing::warn!(%error, "Devices on the local network cannot be found: mDNS failed");
            None
        }
    }
}

fn rpc_config(max_streams: usize) -> request_response::Config {
    request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(max_streams)
}

/// The event's id, so that every copy of an announcement counts once, whoever sent it; for bytes that are no
/// announcement, their hash. Conversion has checked that the id is the header's hash, so it cannot be squatted.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let announced = wire::GossipMessage::decode(message.data.as_slice())
        .ok()
        .and_then(|message| gossip_from_wire(message).ok());
    match announced {
        Some(GossipMessage::EventAnnounced { id, .. }) => MessageId::new(id.as_bytes()),
        None => MessageId::new(&merkle::leaf_hash(&message.data)),
    }
}
