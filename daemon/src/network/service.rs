//! The task: its loop, and what it does with commands. What it does with the swarm's events is in `service/inbound`,
//! and how it dials in `service/dialing`.

mod dialing;
mod inbound;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use libp2p::gossipsub::PublishError;
use libp2p::{Multiaddr, PeerId, Stream, Swarm};
use p2p_sync_core::engine::{GossipMessage, InboundId, Request, RequestFailed, RequestId, Response};
use p2p_sync_core::ids::{DeviceId, GroupId};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::dialing::Lookup;
use super::behaviour::{Behaviour, CONTENT_PROTOCOL, build_swarm, topic};
use super::codec::LanQuestion;
use super::convert::gossip_to_wire;
use super::dialer::Dialer;
use super::identity::{keypair_of, peer_of};
use super::links::{Links, Told};
use super::pending::{Pending, Rpc};
use super::port::{self, PortClaim};
use super::streams::{STREAM_QUEUE, StreamOpener, accept};
use super::{
    COMMAND_QUEUE, EVENT_QUEUE, NetworkCommand, NetworkConfig, NetworkError, NetworkEvent, NetworkHandle,
};

/// How long an exchange that is under way may keep a connection open whose rights have changed.
pub const REGATE_PATIENCE: Duration = Duration::from_secs(5);
/// A connection is not closed sooner than this after an answer was sent: when the end of the connection arrives
/// together with the answer, libp2p drops the answer unread.
const ANSWER_LINGER: Duration = Duration::from_millis(500);
/// Strangers and questions to the local network are looked after this often.
const TICK: Duration = Duration::from_secs(1);
/// A device of the trusted local network that is no member is asked this often for its group.
const LAN_QUESTION_INTERVAL: Duration = Duration::from_secs(2);

/// The task that owns the swarm.
pub struct NetworkService {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<NetworkCommand>,
    events: mpsc::Sender<NetworkEvent>,
    /// Events that did not fit; the swarm rests until it is empty. A command adds at most one, so this is bounded by
    /// how many commands the event loop sends while it takes no events.
    backlog: VecDeque<NetworkEvent>,
    streams: mpsc::Receiver<(PeerId, Stream)>,
    stream_queue: mpsc::Sender<(PeerId, Stream)>,
    open: watch::Sender<BTreeSet<PeerId>>,
    listen: Vec<Multiaddr>,
    fallback_port: bool,
    claims: Vec<PortClaim>,
    dialer: Dialer,
    lookups: JoinSet<Lookup>,
    links: Links,
    pending: Pending,
    /// `None` until there is something to tell.
    announced: Option<Option<GroupId>>,
    /// What devices of the local network told.
    lan_groups: BTreeMap<PeerId, Option<GroupId>>,
    next_lan_question: Instant,
}

impl std::fmt::Debug for NetworkService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkService")
            .field("peer", self.swarm.local_peer_id())
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl NetworkService {
    /// Sets everything up; nothing is listened to or dialled before [`Self::run`]. Needs a running tokio runtime.
    ///
    /// # Errors
    /// [`NetworkError`]. A machine without multicast is not an error: mDNS is left out with a warning.
    pub fn new(config: NetworkConfig) -> Result<(Self, NetworkHandle), NetworkError> {
        let keypair = keypair_of(config.secret)?;
        let swarm = build_swarm(&config, keypair)?;
        let seed = getrandom::u64().map_err(NetworkError::Random)?;
        let dialer = Dialer::new(*swarm.local_peer_id(), seed);
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
        let (stream_queue, streams) = mpsc::channel(STREAM_QUEUE);
        let (open, open_receiver) = watch::channel(BTreeSet::new());
        let mut service = Self {
            swarm,
            commands,
            events,
            backlog: VecDeque::new(),
            streams,
            stream_queue,
            open,
            listen: config.listen,
            fallback_port: config.fallback_port,
            claims: Vec::new(),
            dialer,
            lookups: JoinSet::new(),
            links: Links::default(),
            pending: Pending::default(),
            announced: None,
            lan_groups: BTreeMap::new(),
            next_lan_question: Instant::now(),
        };
        let control = service
            .swarm
            .behaviour_mut()
            .members
            .inner_mut()
            .streams
            .new_control();
        let handle = NetworkHandle {
            commands: command_sender,
            events: event_receiver,
            streams: StreamOpener::new(control, open_receiver),
        };
        Ok((service, handle))
    }

    /// Runs until [`NetworkCommand::Shutdown`], or until either end of the handle is dropped. All connections are
    /// closed then.
    ///
    /// # Errors
    /// [`NetworkError::Streams`] if streams cannot be accepted.
    ///
    /// # Cancel safety
    /// Dropping the future closes everything without a word to the peers; nothing durable is lost.
    pub async fn run(mut self) -> Result<(), NetworkError> {
        let mut control = self
            .swarm
            .behaviour_mut()
            .members
            .inner_mut()
            .streams
            .new_control();
        let incoming = control
            .accept(CONTENT_PROTOCOL)
            .map_err(|_| NetworkError::Streams)?;
        let acceptor = tokio::spawn(accept(incoming, self.stream_queue.clone()));
        self.start_listening();
        self.run_loop().await;
        acceptor.abort();
        // It was aborted: the only result is that it was cancelled.
        let _cancelled = acceptor.await;
        Ok(())
    }

    async fn run_loop(&mut self) {
        let mut tick = tokio::time::interval(TICK);
        let events = self.events.clone();
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let regate = self.links.next_regate();
            let due = self.dialer.next_due().into_iter().chain(regate).min();
            let is_drained = self.backlog.is_empty();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None | Some(NetworkCommand::Shutdown) => return,
                    Some(command) => self.handle_command(command),
                },
                permit = events.reserve(), if !is_drained => match (permit, self.backlog.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    (Ok(_), None) => {}
                    (Err(_), _) => return,
                },
                _ = tick.tick() => self.handle_tick(),
                () = sleep_until(due) => self.handle_due(),
                Some(found) = self.lookups.join_next() => self.handle_lookup(found),
                Some((peer, stream)) = self.streams.recv(), if is_drained => self.handle_stream(peer, stream),
                event = self.swarm.select_next_some(), if is_drained => self.handle_swarm_event(event),
            }
        }
    }

    fn start_listening(&mut self) {
        for address in std::mem::take(&mut self.listen) {
            if let Err(reason) = self.listen_on(&address) {
                self.emit(NetworkEvent::ListenFailed { address, reason });
            }
        }
    }

    fn listen_on(&mut self, address: &Multiaddr) -> Result<(), String> {
        let (claim, address) = match port::claim(address) {
            Ok(claim) => (claim, address.clone()),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && self.fallback_port => {
                tracing::info!(%address, "The port is taken; listening on a free one");
                let free = port::with_free_port(address);
                (port::claim(&free).map_err(|error| error.to_string())?, free)
            }
            Err(error) => return Err(error.to_string()),
        };
        self.swarm.listen_on(address).map_err(|error| error.to_string())?;
        self.claims.push(claim);
        Ok(())
    }

    fn handle_command(&mut self, command: NetworkCommand) {
        match command {
            NetworkCommand::Request { to, id, request } => self.send_request(to, id, request),
            NetworkCommand::Respond { id, response } => self.send_response(id, response),
            NetworkCommand::Gossip(message) => self.publish(message),
            NetworkCommand::Members(members) => self.set_members(&members),
            NetworkCommand::Announce { group } => self.announced = Some(group),
            NetworkCommand::SeekLan => self.dialer.seek(Instant::now()),
            NetworkCommand::Dial { address } => self.add_address(&address),
            NetworkCommand::Forget { address } => {
                if let Ok(address) = address.parse() {
                    self.dialer.remove_manual(&address);
                }
            }
            NetworkCommand::Disconnect(device) => {
                if let Ok(peer) = peer_of(&device) {
                    self.close_all(&peer);
                }
            }
            NetworkCommand::Shutdown => {}
        }
    }

    fn send_request(&mut self, to: DeviceId, id: RequestId, request: Request) {
        let sent = peer_of(&to).ok().and_then(|peer| {
            let (rpc, wire_id) = self.send_to(peer, request)?;
            self.pending.asked(rpc, wire_id, peer, id);
            Some(())
        });
        if sent.is_none() {
            self.emit(NetworkEvent::Response {
                id,
                result: Err(RequestFailed),
            });
        }
    }

    fn send_to(
        &mut self,
        peer: PeerId,
        request: Request,
    ) -> Option<(Rpc, libp2p::request_response::OutboundRequestId)> {
        let behaviour = self.swarm.behaviour_mut();
        if request.is_join() {
            self.links.get(&peer)?;
            self.links.busy(&peer, Instant::now());
            return Some((Rpc::Join, behaviour.join.send_request(&peer, request)));
        }
        if !behaviour.members.is_member(&peer) || !behaviour.members.is_open(&peer) {
            return None;
        }
        let ledger = &mut behaviour.members.inner_mut().ledger;
        Some((Rpc::Ledger, ledger.send_request(&peer, request)))
    }

    fn send_response(&mut self, id: InboundId, response: Response) {
        let Some(waiting) = self.pending.take(id) else {
            tracing::debug!(?id, "An answer came too late");
            return;
        };
        self.answer(waiting.rpc, waiting.channel, response);
    }

    fn publish(&mut self, message: GossipMessage) {
        let bytes = gossip_to_wire(message).encode_to_vec();
        let gossip = &mut self.swarm.behaviour_mut().members.inner_mut().gossip;
        match gossip.publish(topic(), bytes) {
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {}
            Err(error) => tracing::debug!(%error, "A broadcast was not sent"),
        }
    }

    fn set_members(&mut self, members: &BTreeSet<DeviceId>) {
        let local = *self.swarm.local_peer_id();
        let peers: BTreeSet<PeerId> = members
            .iter()
            .filter_map(|device| peer_of(device).ok())
            .filter(|peer| *peer != local)
            .collect();
        let now = Instant::now();
        self.dialer.set_members(peers.clone(), now);
        let changed = self.swarm.behaviour_mut().members.set_members(peers);
        self.publish_open();
        for peer in changed {
            if let Some(entry) = self.links.get_mut(&peer) {
                entry.regate_by.get_or_insert(now + REGATE_PATIENCE);
            }
            if !self.swarm.behaviour().members.is_member(&peer) {
                self.pending.drop_ledger_of(&peer);
            }
            self.regate(&peer);
        }
    }

    /// Closes a peer's connections of the wrong kind, unless an exchange is under way and there is still time.
    fn regate(&mut self, peer: &PeerId) {
        let now = Instant::now();
        let Some(entry) = self.links.get_mut(peer) else {
            return;
        };
        let Some(deadline) = entry.regate_by else {
            return;
        };
        entry.linger_until = entry.linger_until.filter(|until| now < *until);
        let is_in_use = entry.linger_until.is_some() || self.pending.is_busy(peer);
        if is_in_use && now < deadline {
            return;
        }
        let is_member = self.swarm.behaviour().members.is_member(peer);
        for connection in self.links.wrong(peer, is_member) {
            self.swarm.close_connection(connection);
        }
        if let Some(entry) = self.links.get_mut(peer) {
            entry.regate_by = None;
        }
    }

    fn close_all(&mut self, peer: &PeerId) {
        // An error says that there was no connection.
        let _none = self.swarm.disconnect_peer_id(*peer);
    }

    fn handle_due(&mut self) {
        let now = Instant::now();
        for peer in self.links.regating(now) {
            self.regate(&peer);
        }
        self.dial_due(now);
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        let members = &self.swarm.behaviour().members;
        let pending = &self.pending;
        let expired =
            self.links
                .expired_strangers(|peer| members.is_member(peer), |peer| pending.is_busy(peer), now);
        for peer in expired {
            tracing::debug!(%peer, "Closing an idle connection of a device that is no member");
            self.close_all(&peer);
        }
        if now >= self.next_lan_question {
            self.next_lan_question = now + LAN_QUESTION_INTERVAL;
            let peers: Vec<_> = self.links.peers().copied().collect();
            peers.iter().for_each(|peer| self.ask_lan(peer));
        }
    }

    /// Asks a device that mDNS found for its group, if the local network is trusted and it is no member yet.
    fn ask_lan(&mut self, peer: &PeerId) {
        let behaviour = self.swarm.behaviour_mut();
        if !self.dialer.is_discovered(peer) || behaviour.members.is_member(peer) {
            return;
        }
        if let Some(lan) = behaviour.lan.as_mut() {
            lan.send_request(peer, LanQuestion);
        }
    }

    /// Tells the event loop of a connected peer whatever it does not know yet.
    fn tell_connected(&mut self, peer: &PeerId) {
        let local = self.dialer.is_discovered(peer);
        let member = self.swarm.behaviour().members.is_member(peer);
        let Some(entry) = self.links.get_mut(peer) else {
            return;
        };
        let open = entry.links.values().find(|link| link.is_open && member);
        let told = entry.told.unwrap_or_default();
        let current = Told {
            member: told.member || open.is_some(),
            local: told.local || local,
            near: told.near,
        };
        let Some(link) = open.or_else(|| entry.links.values().next()) else {
            return;
        };
        let near = current.local || entry.links.values().any(|link| port::is_local(&link.address));
        let current = Told {
            near: told.near || near,
            ..current
        };
        let address = link.address.to_string();
        if entry.told == Some(current) {
            return;
        }
        entry.told = Some(current);
        let device = entry.device;
        self.emit(NetworkEvent::Connected {
            device,
            address,
            local: current.local,
            near: current.near,
            member: current.member,
        });
    }

    /// Lets the stream opener know who is connected as a member.
    fn publish_open(&mut self) {
        let members = &self.swarm.behaviour().members;
        let open: BTreeSet<PeerId> = self
            .links
            .peers()
            .filter(|peer| members.is_member(peer) && members.is_open(peer))
            .copied()
            .collect();
        self.open.send_if_modified(|known| {
            let is_changed = *known != open;
            *known = open;
            is_changed
        });
    }

    fn emit(&mut self, event: NetworkEvent) {
        self.backlog.push_back(event);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
