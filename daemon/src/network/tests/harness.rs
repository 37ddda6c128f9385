//! A service under test, and what its event loop would do.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, Stream};
use p2p_sync_core::engine::{GossipMessage, InboundId, Request, RequestFailed, Response};
use p2p_sync_core::ids::{DeviceId, EventId};
use p2p_sync_core::ledger::{EventKind, Header};
use p2p_sync_core::merkle;
use p2p_sync_core::time::Hlc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::network::identity::keypair_of;
use crate::network::{
    NetworkCommand, NetworkConfig, NetworkError, NetworkEvent, NetworkService, StreamOpener, device_of,
};

pub(super) struct Node {
    pub(super) device: DeviceId,
    pub(super) streams: StreamOpener,
    commands: mpsc::Sender<NetworkCommand>,
    events: mpsc::Receiver<NetworkEvent>,
    passed: VecDeque<NetworkEvent>,
    address: Option<Multiaddr>,
    task: JoinHandle<Result<(), NetworkError>>,
}

/// Fails the test instead of hanging.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it takes too long")
}

pub(super) fn members(nodes: &[&Node]) -> NetworkCommand {
    NetworkCommand::Members(super::devices(nodes))
}

/// Returns a well-formed announcement of an event of this node's.
pub(super) fn announcement(node: &Node, seq: u64) -> GossipMessage {
    let header = Header {
        author: node.device,
        seq,
        prev_root: merkle::empty_root(),
        hlc: Hlc::from_bits(seq),
        wall_ms: 0,
        seen: Vec::new(),
        kind: EventKind::Work,
        n_items: 0,
        body_len: 0,
        body_root: merkle::empty_root(),
    };
    let header = header.to_bytes();
    GossipMessage::EventAnnounced {
        author: node.device,
        seq,
        id: EventId::new(merkle::leaf_hash(&header)),
        header: Arc::from(header),
        signature: [1; 64],
    }
}

impl Node {
    pub(super) fn start(byte: u8) -> Self {
        Self::start_with(byte, |_| {})
    }

    pub(super) fn start_with(byte: u8, change: impl FnOnce(&mut NetworkConfig)) -> Self {
        let mut config = NetworkConfig {
            secret: [byte; 32],
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            fallback_port: false,
            mdns: false,
            trust_lan: false,
        };
        change(&mut config);
        let peer = keypair_of(config.secret).unwrap().public().to_peer_id();
        let (service, handle) = NetworkService::new(config).unwrap();
        Self {
            device: device_of(&peer).unwrap(),
            streams: handle.streams,
            commands: handle.commands,
            events: handle.events,
            passed: VecDeque::new(),
            address: None,
            task: tokio::spawn(service.run()),
        }
    }

    pub(super) async fn stop(&mut self) {
        self.tell(NetworkCommand::Shutdown).await;
        within(&mut self.task).await.unwrap().unwrap();
    }

    pub(super) async fn tell(&self, command: NetworkCommand) {
        self.commands.send(command).await.unwrap();
    }

    pub(super) async fn ask(&self, to: &Self, id: u64, request: Request) {
        let id = super::request_id(id);
        let to = to.device;
        self.tell(NetworkCommand::Request { to, id, request }).await;
    }

    pub(super) async fn dial(&self, to: &mut Self) {
        let address = to.address().await.to_string();
        self.tell(NetworkCommand::Dial { address }).await;
    }

    pub(super) async fn address(&mut self) -> Multiaddr {
        if let Some(address) = &self.address {
            return address.clone();
        }
        let address = self
            .next(|event| match event {
                NetworkEvent::Listening(address) => ControlFlow::Break(address),
                other => ControlFlow::Continue(other),
            })
            .await;
        self.address = Some(address.clone());
        address
    }

    /// Waits for the next word that this device is connected; says whether as a member.
    pub(super) async fn connected(&mut self, other: &Self) -> bool {
        self.next(|event| match event {
            NetworkEvent::Connected { device, member, .. } if device == other.device => {
                ControlFlow::Break(member)
            }
            event => ControlFlow::Continue(event),
        })
        .await
    }

    pub(super) async fn disconnected(&mut self, other: &Self) {
        self.next(|event| match event {
            NetworkEvent::Disconnected { device } if device == other.device => ControlFlow::Break(()),
            event => ControlFlow::Continue(event),
        })
        .await;
    }

    pub(super) async fn request(&mut self) -> (DeviceId, InboundId, Request) {
        self.next(|event| match event {
            NetworkEvent::Request { from, id, request } => ControlFlow::Break((from, id, request)),
            other => ControlFlow::Continue(other),
        })
        .await
    }

    pub(super) async fn response(&mut self, wanted: u64) -> Result<Response, RequestFailed> {
        let wanted = super::request_id(wanted);
        self.next(|event| match event {
            NetworkEvent::Response { id, result } if id == wanted => ControlFlow::Break(result),
            other => ControlFlow::Continue(other),
        })
        .await
    }

    pub(super) async fn stream(&mut self) -> (DeviceId, Stream) {
        self.next(|event| match event {
            NetworkEvent::Stream { from, stream } => ControlFlow::Break((from, stream)),
            other => ControlFlow::Continue(other),
        })
        .await
    }

    pub(super) fn try_next(&mut self) -> Option<NetworkEvent> {
        self.passed.pop_front().or_else(|| self.events.try_recv().ok())
    }

    /// Waits for an event that `pick` takes; the others stay for later.
    pub(super) async fn next<T>(&mut self, pick: impl Fn(NetworkEvent) -> ControlFlow<T, NetworkEvent>) -> T {
        for _ in 0..self.passed.len() {
            let Some(event) = self.passed.pop_front() else {
                break;
            };
            match pick(event) {
                ControlFlow::Break(picked) => return picked,
                ControlFlow::Continue(other) => self.passed.push_back(other),
            }
        }
        within(async {
            loop {
                let event = self.events.recv().await.expect("the service is gone");
                match pick(event) {
                    ControlFlow::Break(picked) => return picked,
                    ControlFlow::Continue(other) => self.passed.push_back(other),
                }
            }
        })
        .await
    }
}
