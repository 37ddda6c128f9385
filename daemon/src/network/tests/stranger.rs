//! A stranger that speaks libp2p but keeps to none of our rules.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Control, OpenStreamError};
use p2p_sync_core::engine::{RefuseReason, Request, Response};
use p2p_sync_core::ids::GroupId;

use super::harness::{Node, within};
use crate::network::gate::MAX_STRANGERS;
use crate::network::{
    CONTENT_PROTOCOL, JOIN_PROTOCOL, LAN_PROTOCOL, LEDGER_PROTOCOL, MAX_JOIN_REQUEST, NetworkCommand,
};

/// Everything that is for members, gossip in all its versions and identify included.
const FOR_MEMBERS: [StreamProtocol; 8] = [
    LEDGER_PROTOCOL,
    CONTENT_PROTOCOL,
    StreamProtocol::new("/meshsub/1.3.0"),
    StreamProtocol::new("/meshsub/1.2.0"),
    StreamProtocol::new("/meshsub/1.1.0"),
    StreamProtocol::new("/meshsub/1.0.0"),
    StreamProtocol::new("/ipfs/id/1.0.0"),
    StreamProtocol::new("/ipfs/id/push/1.0.0"),
];

#[tokio::test]
async fn a_stranger_is_offered_no_protocol_of_members() {
    let mut node = Node::start(1);
    let (mut control, peer) = connect(&mut node).await;
    for protocol in FOR_MEMBERS.into_iter().chain([LAN_PROTOCOL]) {
        let opened = within(control.open_stream(peer, protocol.clone())).await;
        assert!(
            matches!(opened, Err(OpenStreamError::UnsupportedProtocol(_))),
            "{protocol}: {opened:?}"
        );
    }
}

#[tokio::test]
async fn a_stranger_may_join() {
    let mut node = Node::start(1);
    let (mut control, peer) = connect(&mut node).await;
    let mut stream = within(control.open_stream(peer, JOIN_PROTOCOL)).await.unwrap();
    // JoinRequest { hello {} }
    stream.write_all(&[2, 0, 0, 0, 0x0a, 0]).await.unwrap();
    let (_, id, request) = node.request().await;
    assert_eq!(request, Request::JoinHello);
    let response = Response::Refused(RefuseReason::MayNotAdmit);
    node.tell(NetworkCommand::Respond { id, response }).await;
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [4, 0, 0, 0, 0x22, 2, 8, 6]);
}

#[tokio::test]
async fn a_frame_that_is_too_large_or_senseless_is_refused() {
    let mut node = Node::start(1);
    let (mut control, peer) = connect(&mut node).await;
    let too_large = u32::try_from(MAX_JOIN_REQUEST).unwrap() + 1;
    let frames = [
        too_large.to_le_bytes().to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        vec![0, 0, 0, 0],
        vec![2, 0, 0, 0, 0xff, 0xff],
    ];
    for frame in frames {
        let mut stream = within(control.open_stream(peer, JOIN_PROTOCOL)).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        // The stream ends or breaks; either way nothing is said.
        let _end = within(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    }
    let mut stream = within(control.open_stream(peer, JOIN_PROTOCOL)).await.unwrap();
    stream.write_all(&[2, 0, 0, 0, 0x0a, 0]).await.unwrap();
    let (_, _, request) = node.request().await;
    assert_eq!(request, Request::JoinHello, "the only request that came through");
}

#[tokio::test]
async fn a_trusting_daemon_tells_its_group_to_the_local_network() {
    let mut node = Node::start_with(1, |config| config.trust_lan = true);
    node.tell(NetworkCommand::Announce {
        group: Some(GroupId::new([9; 32])),
    })
    .await;
    let (mut control, peer) = connect(&mut node).await;
    let mut stream = within(control.open_stream(peer, LAN_PROTOCOL)).await.unwrap();
    stream.write_all(&[0, 0, 0, 0]).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer[..6], [34, 0, 0, 0, 10, 32]);
    assert_eq!(answer[6..], [9; 32]);
}

#[tokio::test]
async fn strangers_beyond_the_limit_are_turned_away() {
    let mut node = Node::start(1);
    let mut held = Vec::new();
    for _ in 0..MAX_STRANGERS {
        held.push(connect(&mut node).await);
    }
    let (address, peer) = target(&mut node).await;
    let mut swarm = stranger();
    swarm.dial(options(peer, address)).unwrap();
    within(async {
        loop {
            match swarm.select_next_some().await {
                // It learns that it was turned away as its finished handshake is followed by the end.
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(held.len(), MAX_STRANGERS);
}

async fn connect(node: &mut Node) -> (Control, PeerId) {
    let (address, peer) = target(node).await;
    let mut swarm = stranger();
    swarm.dial(options(peer, address)).unwrap();
    within(async {
        while !matches!(
            swarm.select_next_some().await,
            SwarmEvent::ConnectionEstablished { .. }
        ) {}
    })
    .await;
    let control = swarm.behaviour().new_control();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (control, peer)
}

async fn target(node: &mut Node) -> (Multiaddr, PeerId) {
    let peer = crate::network::peer_of(&node.device).unwrap();
    (node.address().await, peer)
}

fn options(peer: PeerId, address: Multiaddr) -> DialOpts {
    DialOpts::peer_id(peer).addresses(vec![address]).build()
}

fn stranger() -> Swarm<libp2p_stream::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(600)))
        .build()
}
