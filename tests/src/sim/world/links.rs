//! The network: cables that can be cut, messages that take time, get lost, come twice or overtake each other, and a
//! stranger who talks to everybody.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use p2p_sync_core::engine::{GossipMessage, InboundId, Input, Request, RequestFailed, RequestId, Response};
use p2p_sync_core::ids::DeviceId;

use super::{Event, Work, World};
use crate::sim::rng::Rng;
use crate::sim::ticket;

/// How long an asker waits at most for an answer.
const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// How long two devices take at most to notice that one does not hear the other.
const NOTICED_MS: u64 = 40_000;
/// How late a broadcast may arrive once more.
const LATE_MS: u64 = 120_000;
/// Stands for whatever connection there is.
const ANY_EPOCH: u64 = 0;
/// Devices that pass a broadcast on, one after the other.
const GOSSIP_HOPS: u8 = 2;

/// What is under way between two devices.
#[derive(Debug)]
pub(super) enum Message {
    Request {
        run: u32,
        id: RequestId,
        request: Request,
    },
    Response {
        run: u32,
        id: RequestId,
        response: Response,
    },
    Gossip {
        message: GossipMessage,
        hops: u8,
    },
}

/// What the stranger was told that he should not have been.
#[derive(Debug, Default)]
pub struct StrangerSaw {
    /// Answers that carry events or heads.
    pub secrets: Vec<String>,
    /// Questions asked.
    pub asked: u64,
}

/// Who asked a question that is to be answered.
#[derive(Debug)]
enum Asker {
    Device {
        device: usize,
        run: u32,
        id: RequestId,
        epoch: u64,
    },
    Stranger,
}

/// Cables, connections and open questions.
#[derive(Debug)]
pub(super) struct Links {
    cut: BTreeSet<(usize, usize)>,
    /// With the number of the connection, so that what belongs to an earlier one is dropped.
    up: BTreeMap<(usize, usize), u64>,
    epochs: u64,
    inbound: BTreeMap<InboundId, (usize, Asker)>,
    next_inbound: u64,
    /// Who is not heard, by whom, and until when.
    deaf: BTreeMap<(usize, usize), u64>,
    /// How long messages take at most, where it is long.
    slow: BTreeMap<(usize, usize), u64>,
    dice: BTreeMap<(usize, usize), Rng>,
    seed: u64,
    open: BTreeSet<(usize, u32, RequestId)>,
    stranger: DeviceId,
}

impl Links {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let key = SigningKey::from_bytes(&rng.bytes32());
        Self {
            cut: BTreeSet::new(),
            up: BTreeMap::new(),
            epochs: 0,
            inbound: BTreeMap::new(),
            next_inbound: 0,
            deaf: BTreeMap::new(),
            slow: BTreeMap::new(),
            dice: BTreeMap::new(),
            seed: rng.bits(),
            open: BTreeSet::new(),
            stranger: DeviceId::new(key.verifying_key().to_bytes()),
        }
    }

    /// Says whether what the first sends would reach the second.
    pub(super) fn hears(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&pair(from, to)) && !self.deaf.contains_key(&(from, to))
    }

    /// Returns the chance that rules between two devices.
    pub(super) fn dice(&mut self, a: usize, b: usize) -> &mut Rng {
        let place = pair(a, b);
        let seed = self.seed ^ ((place.0 as u64) << 32) ^ place.1 as u64;
        self.dice.entry(place).or_insert_with(|| Rng::new(seed))
    }

    pub(super) fn slow_down(&mut self, a: usize, b: usize, delay_ms: u64) {
        self.slow.insert(pair(a, b), delay_ms);
    }

    pub(super) fn quicken(&mut self, a: usize, b: usize) {
        self.slow.remove(&pair(a, b));
    }

    /// Ends all that is wrong with lines but for cuts.
    pub(super) fn heal(&mut self) {
        self.deaf.clear();
        self.slow.clear();
    }

    pub(super) fn are_connected(&self, a: usize, b: usize) -> bool {
        self.up.contains_key(&pair(a, b))
    }

    /// Returns the devices to which this one has a connection.
    pub(super) fn peers(&self, device: usize) -> Vec<usize> {
        let both = self.up.keys().filter(|(a, b)| *a == device || *b == device);
        both.map(|(a, b)| if *a == device { *b } else { *a }).collect()
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    pub(super) fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let runs = |device: usize| self.devices[device].engine.is_some();
        let dialled = |from: usize, to: usize| self.devices[from].dials.contains(&to);
        let wanted = self.plan.lan || dialled(a, b) || dialled(b, a);
        let reachable = self.links.hears(a, b) && self.links.hears(b, a);
        if !wanted || !runs(a) || !runs(b) || !reachable || self.links.are_connected(a, b) {
            return Ok(());
        }
        self.links.epochs += 1;
        self.links.up.insert(pair(a, b), self.links.epochs);
        self.last_activity_ms = self.time_ms;
        for (device, peer) in [(a, b), (b, a)] {
            let input = Input::Connected {
                device: self.devices[peer].id,
                address: ticket::address(peer),
                local: self.plan.lan,
                near: self.plan.lan,
            };
            self.tell(device, input)?;
            self.later(device, 1, Work::LanPeer(peer));
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) -> Result<(), String> {
        if self.links.up.remove(&pair(a, b)).is_none() {
            return Ok(());
        }
        self.last_activity_ms = self.time_ms;
        for (device, peer) in [(a, b), (b, a)] {
            let id = self.devices[peer].id;
            self.tell(device, Input::Disconnected { device: id })?;
        }
        self.schedule_connect(a, b);
        Ok(())
    }

    pub(super) fn drop_links(&mut self, device: usize) -> Result<(), String> {
        self.links.inbound.retain(|_, (answerer, _)| *answerer != device);
        for peer in self.links.peers(device) {
            self.disconnect(device, peer)?;
        }
        Ok(())
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) -> Result<(), String> {
        self.links.cut.insert(pair(a, b));
        self.disconnect(a, b)
    }

    /// What one sends does not reach the other. A connection that is up stays so for a while, and no other comes up.
    pub(super) fn deafen(&mut self, from: usize, to: usize, until: u64) {
        self.links.deaf.insert((from, to), until);
        let noticed = self.links.dice(from, to).between(NOTICED_MS / 4, NOTICED_MS);
        if self.time_ms + noticed < until {
            self.at(self.time_ms + noticed, Event::Reconnect(from, to));
        }
    }

    pub(super) fn undeafen(&mut self, from: usize, to: usize) {
        self.links.deaf.remove(&(from, to));
        self.schedule_connect(from, to);
        self.later(to, 1, Work::LanPeer(from));
    }

    pub(super) fn mend(&mut self, a: usize, b: usize) {
        self.links.cut.remove(&pair(a, b));
        self.schedule_connect(a, b);
        for (device, peer) in [(a, b), (b, a)] {
            self.later(device, 1, Work::LanPeer(peer));
        }
    }

    /// Connections to devices whose membership changed are made anew, as the shell does.
    pub(super) fn set_members(&mut self, device: usize, members: BTreeSet<DeviceId>) {
        let old = std::mem::replace(&mut self.devices[device].members, members);
        for peer in self.links.peers(device) {
            let id = self.devices[peer].id;
            if old.contains(&id) != self.devices[device].members.contains(&id) {
                self.at(self.time_ms, Event::Reconnect(device, peer));
            }
        }
    }

    pub(super) fn send_request(&mut self, from: usize, to: &DeviceId, id: RequestId, request: Request) {
        let run = self.devices[from].run;
        self.links.open.insert((from, run, id));
        let mut patience = REQUEST_TIMEOUT_MS;
        let to = self
            .index_of(to)
            .and_then(|to| Some((to, *self.links.up.get(&pair(from, to))?)));
        if let Some((to, epoch)) = to {
            self.send(from, to, epoch, Message::Request { run, id, request });
        } else {
            patience = self.devices[from].dice.between(1, 100);
        }
        self.at(
            self.time_ms + patience,
            Event::RequestFails {
                device: from,
                run,
                id,
            },
        );
    }

    fn send(&mut self, from: usize, to: usize, epoch: u64, message: Message) {
        let longest = self.links.slow.get(&pair(from, to)).copied();
        let longest = longest.unwrap_or(2 + self.plan.delay_max_ms);
        let lossy = self.time_ms >= self.plan.faults_from_ms;
        let dice = self.links.dice(from, to);
        if lossy && dice.percent(self.plan.loss) {
            return;
        }
        let mut at = self.time_ms + dice.between(1, longest);
        // Half of what is not heard is repeated by the transport until it is, if the connection lives so long.
        let repeated = dice.percent(50);
        match self.links.deaf.get(&(from, to)) {
            Some(until) if repeated => at = at.max(*until),
            Some(_) => return,
            None => {}
        }
        self.at(
            at,
            Event::Message {
                epoch,
                from,
                to,
                message,
            },
        );
    }

    pub(super) fn deliver(
        &mut self,
        epoch: u64,
        from: usize,
        to: usize,
        message: Message,
    ) -> Result<(), String> {
        let up = self.links.up.get(&pair(from, to));
        if up.is_none_or(|up| *up != epoch && epoch != ANY_EPOCH) {
            return Ok(());
        }
        let asker = self.devices[from].id;
        match message {
            Message::Request { run, id, request } => {
                let known = Asker::Device {
                    device: from,
                    run,
                    id,
                    epoch,
                };
                let inbound = self.inbound(to, known);
                self.tell(
                    to,
                    Input::Request {
                        from: asker,
                        id: inbound,
                        request,
                    },
                )
            }
            Message::Response { run, id, response } => {
                let waits = self.devices[to].run == run && self.links.open.remove(&(to, run, id));
                if !waits {
                    return Ok(());
                }
                let result = Ok(response);
                self.tell(to, Input::Response { id, result })
            }
            Message::Gossip { message, hops } => {
                if hops > 0 && self.links.dice(from, to).percent(50) {
                    self.spread(to, &message, hops - 1);
                }
                self.tell(to, Input::Gossip { from: asker, message })
            }
        }
    }

    fn inbound(&mut self, answerer: usize, asker: Asker) -> InboundId {
        self.links.next_inbound += 1;
        let id = InboundId(self.links.next_inbound);
        self.links.inbound.insert(id, (answerer, asker));
        id
    }

    pub(super) fn send_response(
        &mut self,
        device: usize,
        id: InboundId,
        response: Response,
    ) -> Result<(), String> {
        let Some((answerer, asker)) = self.links.inbound.remove(&id) else {
            return Err(format!("Device {device} answers {id:?} twice, or nobody"));
        };
        if answerer != device {
            return Err(format!(
                "Device {device} answers {id:?} in the place of device {answerer}"
            ));
        }
        match asker {
            Asker::Device {
                device: asker,
                run,
                id,
                epoch,
            } => self.send(device, asker, epoch, Message::Response { run, id, response }),
            Asker::Stranger => self.stranger.hear(device, &response),
        }
        Ok(())
    }

    pub(super) fn request_fails(&mut self, device: usize, run: u32, id: RequestId) -> Result<(), String> {
        if self.devices[device].run != run || !self.links.open.remove(&(device, run, id)) {
            return Ok(());
        }
        let result = Err(RequestFailed);
        self.tell(device, Input::Response { id, result })
    }

    pub(super) fn broadcast(&mut self, device: usize, message: &GossipMessage) {
        self.spread(device, message, GOSSIP_HOPS);
    }

    fn spread(&mut self, from: usize, message: &GossipMessage, hops: u8) {
        for peer in self.links.peers(from) {
            let both = self.devices[from].members.contains(&self.devices[peer].id)
                && self.devices[peer].members.contains(&self.devices[from].id);
            let Some(epoch) = self.links.up.get(&pair(from, peer)).copied() else {
                continue;
            };
            if !both {
                continue;
            }
            let dice = self.links.dice(from, peer);
            let again = dice.percent(self.plan.duplicates);
            let late = dice.percent(50).then(|| dice.below(LATE_MS));
            let gossip = |message: &GossipMessage| Message::Gossip {
                message: message.clone(),
                hops,
            };
            self.send(from, peer, epoch, gossip(message));
            match late {
                _ if !again => {}
                None => self.send(from, peer, epoch, gossip(message)),
                Some(late) => self.at(
                    self.time_ms + late,
                    Event::Message {
                        epoch: ANY_EPOCH,
                        from,
                        to: peer,
                        message: gossip(message),
                    },
                ),
            }
        }
    }

    /// Somebody without a grant asks for what only members may have, and sends what only members may send.
    pub(super) fn stranger_asks(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        if self.devices[device].engine.is_none() {
            return Ok(());
        }
        let events = self.devices[self.rng.index(self.devices.len())]
            .store
            .durable()
            .events
            .values();
        let events = events.take(5).map(|stored| stored.event.clone()).collect();
        let digest = self.rng.bytes32();
        let request = match self.rng.below(6) {
            0 => Request::Heads { digest },
            1 => Request::Pull {
                have: Vec::new(),
                max_bytes: 1 << 20,
            },
            2 => Request::Push { events },
            3 => Request::InSync { digest },
            4 => Request::Present { events },
            _ => Request::JoinTrustLan {
                name: "stranger".to_owned(),
            },
        };
        self.stranger.asked += 1;
        let from = self.links.stranger;
        let address = "sim/stranger".to_owned();
        let local = false;
        self.tell(
            device,
            Input::Connected {
                device: from,
                address,
                local,
                near: local,
            },
        )?;
        let id = self.inbound(device, Asker::Stranger);
        self.tell(device, Input::Request { from, id, request })?;
        self.tell(device, Input::Disconnected { device: from })
    }

    /// Returns how many questions each running device has not answered, though it is long since they came.
    #[must_use]
    pub fn unanswered(&self) -> Vec<usize> {
        let alive = |device: &usize| self.devices[*device].engine.is_some();
        self.links
            .inbound
            .values()
            .map(|(device, _)| *device)
            .filter(alive)
            .collect()
    }

    /// Hands a device all events of another, as a push of an old message would.
    ///
    /// # Errors
    /// What an observer found in the outputs.
    pub fn push_again(&mut self, from: usize, to: usize) -> Result<(), String> {
        let tables = self.devices[from].store.durable();
        let order = tables.arrival.iter().filter_map(|key| tables.events.get(key));
        let events = order.map(|stored| stored.event.clone()).collect();
        let asker = self.devices[from].id;
        let id = self.inbound(to, Asker::Stranger);
        self.tell(
            to,
            Input::Request {
                from: asker,
                id,
                request: Request::Push { events },
            },
        )
    }
}

impl StrangerSaw {
    fn hear(&mut self, device: usize, response: &Response) {
        match response {
            Response::Heads(_)
            | Response::Events { .. }
            | Response::Accepted { .. }
            | Response::Lock(_)
            | Response::Same => {
                self.secrets
                    .push(format!("Device {device} told a stranger {response:?}"));
            }
            // Who was a member once may hear why it is none.
            Response::Removed { .. } => {}
            Response::Ack | Response::Here(_) | Response::Challenge { .. } | Response::Refused(_) => {}
        }
    }
}
