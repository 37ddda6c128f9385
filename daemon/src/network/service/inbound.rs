//! What the task does with the swarm's events.

use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::request_response::{self, ResponseChannel};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, identify, mdns, ping};
use p2p_sync_core::engine::{GossipMessage, RefuseReason, Request, RequestFailed, Response};
use p2p_sync_core::ids::GroupId;
use p2p_sync_core::ledger::{EventError, Header};
use p2p_sync_proto::peer::v1 as wire;
use prost::Message;
use tokio::time::Instant;

use super::{ANSWER_LINGER, NetworkService};
use crate::network::NetworkEvent;
use crate::network::behaviour::{BehaviourEvent, MemberBehaviourEvent};
use crate::network::codec::LanQuestion;
use crate::network::convert::gossip_from_wire;
use crate::network::identity::device_of;
use crate::network::links::Link;
use crate::network::pending::Rpc;
use crate::network::port;

/// Addresses taken from what one member says of itself.
const MAX_IDENTIFIED: usize = 4;

impl NetworkService {
    pub(super) fn handle_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.handle_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.handle_established(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "Connection closed");
                self.handle_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id, error, ..
            } => {
                tracing::debug!(%error, "Dialling failed");
                self.dialer.failed(connection_id, Instant::now());
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "An incoming connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.emit(NetworkEvent::Listening(address)),
            SwarmEvent::ListenerClosed {
                addresses,
                reason: Err(error),
                ..
            } => {
                for address in addresses {
                    let reason = error.to_string();
                    self.emit(NetworkEvent::ListenFailed { address, reason });
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::debug!(%error, "Accepting a connection failed");
            }
            _ => {}
        }
    }

    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Members(MemberBehaviourEvent::Ledger(event)) => {
                self.handle_rpc(Rpc::Ledger, event);
            }
            BehaviourEvent::Members(MemberBehaviourEvent::Gossip(event)) => self.handle_gossip(event),
            BehaviourEvent::Members(MemberBehaviourEvent::Identify(event)) => self.handle_identify(event),
            BehaviourEvent::Members(MemberBehaviourEvent::Streams(())) => {}
            BehaviourEvent::Join(event) => self.handle_rpc(Rpc::Join, event),
            BehaviourEvent::Lan(event) => self.handle_lan(event),
            BehaviourEvent::Ping(event) => self.handle_ping(event),
            BehaviourEvent::Mdns(event) => self.handle_mdns(event),
            BehaviourEvent::Limits(never) => match never {},
        }
    }

    fn handle_established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let Ok(device) = device_of(&peer) else {
            self.swarm.close_connection(connection);
            return;
        };
        let address = endpoint.get_remote_address().clone();
        self.dialer.connected(connection, peer, now);
        let is_member = self.swarm.behaviour().members.is_member(&peer);
        if is_member && endpoint.is_dialer() {
            self.dialer.learned(peer, address.clone(), now);
        }
        let link = Link {
            address,
            is_open: self
                .swarm
                .behaviour()
                .members
                .is_open_connection(&peer, connection),
        };
        self.links.add(peer, device, connection, link, now);
        self.publish_open();
        self.tell_connected(&peer);
        self.ask_lan(&peer);
    }

    fn handle_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let last = self.links.remove(&peer, connection);
        self.publish_open();
        let Some(entry) = last else {
            return;
        };
        let now = Instant::now();
        self.dialer.disconnected(peer, now);
        let members = &self.swarm.behaviour().members;
        let was_member = entry.told.is_some_and(|told| told.member);
        if members.is_member(&peer) && !was_member {
            // Closed to be made anew with a member's rights.
            self.dialer.hurry(peer, now);
        }
        self.lan_groups.remove(&peer);
        self.emit(NetworkEvent::Disconnected { device: entry.device });
    }

    pub(super) fn handle_stream(&mut self, peer: PeerId, stream: Stream) {
        if !self.swarm.behaviour().members.is_member(&peer) {
            return;
        }
        if let Ok(from) = device_of(&peer) {
            self.emit(NetworkEvent::Stream { from, stream });
        }
    }

    pub(super) fn answer(&mut self, rpc: Rpc, channel: ResponseChannel<Response>, response: Response) {
        let behaviour = self.swarm.behaviour_mut();
        let sent = match rpc {
            Rpc::Ledger => behaviour
                .members
                .inner_mut()
                .ledger
                .send_response(channel, response),
            Rpc::Join => behaviour.join.send_response(channel, response),
        };
        if sent.is_err() {
            tracing::debug!("An answer came too late: the connection is gone or the time is over");
        }
    }

    fn handle_rpc(&mut self, rpc: Rpc, event: request_response::Event<Request, Response>) {
        let settled = match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request {
                    request_id,
                    request,
                    channel,
                } => {
                    self.handle_request(rpc, peer, request_id, request, channel);
                    None
                }
                request_response::Message::Response { request_id, response } => {
                    self.settle(rpc, request_id, Ok(response))
                }
            },
            request_response::Event::OutboundFailure {
                peer,
                request_id,
                error,
                ..
            } => {
                tracing::debug!(%peer, ?rpc, %error, "A request failed");
                self.settle(rpc, request_id, Err(RequestFailed))
            }
            request_response::Event::InboundFailure {
                peer,
                request_id,
                error,
                ..
            } => {
                tracing::debug!(%peer, ?rpc, %error, "A request of a peer failed");
                self.pending.settle_inbound(rpc, request_id)
            }
            request_response::Event::ResponseSent { peer, request_id, .. } => {
                if let Some(entry) = self.links.get_mut(&peer) {
                    entry.linger_until = Some(Instant::now() + ANSWER_LINGER);
                }
                self.pending.settle_inbound(rpc, request_id)
            }
        };
        if let Some(peer) = settled {
            self.regate(&peer);
        }
    }

    fn settle(
        &mut self,
        rpc: Rpc,
        request: request_response::OutboundRequestId,
        result: Result<Response, RequestFailed>,
    ) -> Option<PeerId> {
        let (peer, id) = self.pending.settle_outbound(rpc, request)?;
        self.emit(NetworkEvent::Response { id, result });
        Some(peer)
    }

    fn handle_request(
        &mut self,
        rpc: Rpc,
        peer: PeerId,
        request_id: request_response::InboundRequestId,
        request: Request,
        channel: ResponseChannel<Response>,
    ) {
        let Ok(from) = device_of(&peer) else {
            return;
        };
        // A connection outlives its membership by a moment.
        if rpc == Rpc::Ledger && !self.swarm.behaviour().members.is_member(&peer) {
            return;
        }
        if rpc == Rpc::Join {
            self.links.busy(&peer, Instant::now());
        }
        match self.pending.admit(rpc, peer, request_id, channel) {
            Ok(id) => self.emit(NetworkEvent::Request { from, id, request }),
            Err(channel) => self.answer(rpc, channel, Response::Refused(RefuseReason::Busy)),
        }
    }

    fn handle_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            } => {
                let verdict = self.judge(&propagation_source, &message.data);
                let acceptance = match &verdict {
                    Ok(_) => MessageAcceptance::Accept,
                    Err(acceptance) => *acceptance,
                };
                let gossip = &mut self.swarm.behaviour_mut().members.inner_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
                if let (Ok(message), Ok(from)) = (verdict, device_of(&propagation_source)) {
                    self.emit(NetworkEvent::Gossip { from, message });
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "A peer does not keep up with broadcasts");
            }
            gossipsub::Event::Subscribed { .. }
            | gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    /// Rejects what is provably bad, and ignores what cannot be judged: an author unknown here, a newer format.
    fn judge(&self, source: &PeerId, bytes: &[u8]) -> Result<GossipMessage, MessageAcceptance> {
        let members = &self.swarm.behaviour().members;
        if !members.is_member(source) {
            return Err(MessageAcceptance::Ignore);
        }
        let message = wire::GossipMessage::decode(bytes).map_err(|_| MessageAcceptance::Reject)?;
        if message.kind.is_none() {
            return Err(MessageAcceptance::Ignore);
        }
        let message = gossip_from_wire(message).map_err(|_| MessageAcceptance::Reject)?;
        let GossipMessage::EventAnnounced {
            author, seq, header, ..
        } = &message;
        let header = Header::from_bytes(header).map_err(|error| match error {
            EventError::Version(_) => MessageAcceptance::Ignore,
            _ => MessageAcceptance::Reject,
        })?;
        if header.author != *author || header.seq != *seq {
            return Err(MessageAcceptance::Reject);
        }
        let is_known = crate::network::peer_of(author)
            .is_ok_and(|peer| members.is_member(&peer) || peer == *self.swarm.local_peer_id());
        if !is_known {
            return Err(MessageAcceptance::Ignore);
        }
        Ok(message)
    }

    /// Remembers where a member on the local network listens, to dial it when the connection is lost.
    fn handle_identify(&mut self, event: identify::Event) {
        let identify::Event::Received {
            connection_id,
            peer_id,
            info,
        } = event
        else {
            return;
        };
        let link = self
            .links
            .get(&peer_id)
            .and_then(|entry| entry.links.get(&connection_id));
        let Some(is_same_machine) = link.map(|link| port::is_loopback(&link.address)) else {
            return;
        };
        let is_useful = |address: &Multiaddr| {
            port::is_dialable(address)
                && port::is_local(address)
                && (is_same_machine || !port::is_loopback(address))
        };
        let now = Instant::now();
        for address in info
            .listen_addrs
            .into_iter()
            .filter(is_useful)
            .take(MAX_IDENTIFIED)
        {
            self.dialer.learned(peer_id, address, now);
        }
    }

    fn handle_lan(&mut self, event: request_response::Event<LanQuestion, Option<GroupId>>) {
        let request_response::Event::Message { peer, message, .. } = event else {
            return;
        };
        match message {
            request_response::Message::Request { channel, .. } => self.answer_lan(&peer, channel),
            request_response::Message::Response { response, .. } => {
                let Ok(device) = device_of(&peer) else {
                    return;
                };
                if self.lan_groups.insert(peer, response) != Some(response) {
                    self.emit(NetworkEvent::LanPeer {
                        device,
                        group: response,
                    });
                }
            }
        }
    }

    /// Answers only the local network: the question may also come from far, through an address that the user gave.
    fn answer_lan(&mut self, peer: &PeerId, channel: ResponseChannel<Option<GroupId>>) {
        let link = self.links.get(peer).and_then(|entry| entry.links.values().next());
        let is_near =
            self.dialer.is_discovered(peer) || link.is_some_and(|link| port::is_local(&link.address));
        let Some(group) = self.announced.filter(|_| is_near) else {
            return;
        };
        if let Some(lan) = self.swarm.behaviour_mut().lan.as_mut() {
            // An error says that the connection is gone.
            let _gone = lan.send_response(channel, group);
        }
    }

    fn handle_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(_) | Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                tracing::debug!(peer = %event.peer, %error, "Closing a dead connection");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    fn handle_mdns(&mut self, event: mdns::Event) {
        let now = Instant::now();
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    tracing::debug!(%peer, %address, "Found on the local network");
                    self.dialer.discovered(peer, address, now);
                    self.tell_connected(&peer);
                }
            }
            mdns::Event::Expired(lost) => {
                for (peer, address) in lost {
                    self.dialer.expired(peer, &address);
                }
            }
        }
    }
}
