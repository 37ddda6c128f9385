//! Events between peers: push and gossip are hints, heads and pulls are the truth (ledger.md 6).
//!
//! A pull asks for all events beyond the asker's log sizes, and gets them in the order in which they arrived at the
//! answerer. That order respects `seen`, so each event can be applied as it comes and nothing is ever buffered; what
//! does not fit is pulled instead.

mod accept;
mod heads;
mod limits;
mod pace;

use std::collections::BTreeMap;
use std::time::Duration;

use self::pace::{ASK_AGAIN, FORKED_ROUND, GOSSIP_GRACE, PENALTY, QUIET, ROUND};
use super::choosing::ChoiceNo;
use super::{
    GossipMessage, InboundId, MAX_PAGE_BYTES, Notification, Output, PeerStatus, Phase, RefuseReason, Request,
    RequestFailed, RequestId, Response, StateView, SyncEngine,
};
use crate::ids::{DeviceId, ShortId};
use crate::ledger::{LogState, SignedEvent};
use crate::lock::{AskNo, Voted};
use crate::time::{BootInstant, Now};

/// Pushes to one peer that wait for their acknowledgement; beyond it the peer pulls.
const MAX_PUSHES: u32 = 64;

/// What is known of a connected device.
#[derive(Debug)]
pub(super) struct Peer {
    address: String,
    pub(super) local: bool,
    pub(super) near: bool,
    pulling: bool,
    pushes: u32,
    /// The digest that this peer was told we are in sync with.
    told: Option<[u8; 32]>,
    /// The digest that this peer said it is in sync with.
    said: Option<[u8; 32]>,
    pub(super) in_sync: bool,
    ask_at: Option<BootInstant>,
    /// Until when it is asked for nothing.
    not_before: Option<BootInstant>,
    pub(super) caught_up: bool,
    /// How often it said that it does not take us for a member.
    refusals: u32,
}

/// Where a connected device is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) local: bool,
    pub(super) near: bool,
}

/// What a request of ours was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Heads,
    Pull,
    Push,
    InSync,
    Hello,
    Redeem,
    TrustLan,
    Who,
    PairAsk,
    PairReveal,
    Present,
    Lock(AskNo),
    Choice(ChoiceNo),
}

/// The connected devices and what is under way with them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    map: BTreeMap<DeviceId, Peer>,
    requests: BTreeMap<RequestId, (DeviceId, Asked)>,
    digest: Option<[u8; 32]>,
    round: Option<BootInstant>,
    quiet: Option<BootInstant>,
    /// Whether anything that came since heads were compared last was pulled.
    pulled: bool,
    limits: limits::Limits,
}

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is known.
    Known,
    /// Something before it is missing.
    Gap,
    /// Nobody is known to have let its author in. He who did may count no more where he did, so that nobody hears of it.
    Stranger,
    /// It comes after a branch of this device's log that is not here.
    Branch(ShortId),
    /// No honest daemon sends this.
    Bad(&'static str),
}

/// Returns what a voter answered, if it did.
fn voted(result: Result<Response, RequestFailed>) -> Option<Voted> {
    match result {
        Ok(Response::Lock(voted)) => Some(voted),
        _ => None,
    }
}

impl Peers {
    pub(super) fn connected(&self) -> impl Iterator<Item = (&DeviceId, &Peer)> {
        self.map.iter()
    }

    pub(super) fn get(&self, device: &DeviceId) -> Option<&Peer> {
        self.map.get(device)
    }

    /// Says whether a device is connected and has nothing that we lack.
    pub(super) fn has_caught_up(&self, device: &DeviceId) -> bool {
        self.map.get(device).is_some_and(|peer| peer.caught_up)
    }

    /// Says whether a connected peer said that it holds all that our heads name.
    pub(super) fn holds_all(&self, peer: &Peer) -> bool {
        peer.said.is_some() && peer.said == self.digest
    }

    pub(super) fn is_pulling(&self) -> bool {
        self.map.values().any(|peer| peer.pulling)
    }

    /// Has the digest computed again.
    pub(super) fn heads_moved(&mut self) {
        self.digest = None;
    }

    /// Forgets what was said about a group that is left; the connections stay until the network drops them.
    pub(super) fn forget_group(&mut self) {
        self.requests.clear();
        for peer in self.map.values_mut() {
            peer.pulling = false;
            peer.pushes = 0;
            peer.told = None;
            peer.said = None;
            peer.in_sync = false;
            peer.ask_at = None;
            peer.not_before = None;
            peer.caught_up = false;
        }
        self.heads_moved();
    }
}

impl SyncEngine {
    pub(super) fn is_member(&self, device: &DeviceId) -> bool {
        let known = self.group.as_ref().is_some_and(|group| group.is_member(device));
        known || self.joining.presented.contains(device)
    }

    pub(super) fn ask(&mut self, to: DeviceId, asked: Asked, request: Request) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.peers.requests.insert(id, (to, asked));
        self.emit(Output::Request { to, id, request });
    }

    pub(super) fn respond(&mut self, id: InboundId, response: Response) {
        self.emit(Output::Respond { id, response });
    }

    pub(super) fn connected(&mut self, device: DeviceId, address: String, place: Place, now: Now) {
        if device == self.me {
            return;
        }
        let peer = Peer {
            address,
            local: place.local,
            near: place.near,
            pulling: false,
            pushes: 0,
            told: None,
            said: None,
            in_sync: false,
            ask_at: None,
            not_before: None,
            caught_up: false,
            refusals: 0,
        };
        self.peers.map.insert(device, peer);
        self.peers.round.get_or_insert(now.boot.after(ROUND));
        if self.is_member(&device) {
            self.notify(Notification::PeerConnected { device });
            self.ask_heads(device);
            self.work.sources_changed();
        } else {
            self.stranger_connected(device);
        }
    }

    pub(super) fn disconnected(&mut self, device: DeviceId) {
        if self.peers.map.remove(&device).is_some() && self.is_member(&device) {
            self.notify(Notification::PeerDisconnected { device });
        }
        if self.peers.map.is_empty() {
            self.peers.round = None;
        }
    }

    pub(super) fn ask_heads(&mut self, device: DeviceId) {
        if let Some(peer) = self.peers.map.get_mut(&device) {
            peer.ask_at = None;
            if peer.pulling {
                return;
            }
        }
        let digest = self.digest();
        self.ask(device, Asked::Heads, Request::Heads { digest });
    }

    fn pull(&mut self, device: DeviceId, view: &impl StateView) {
        let Some(peer) = self.peers.map.get_mut(&device) else {
            return;
        };
        if peer.pulling {
            return;
        }
        peer.pulling = true;
        let have = self.have(view);
        let max_bytes = u32::try_from(MAX_PAGE_BYTES).unwrap_or(u32::MAX);
        self.ask(device, Asked::Pull, Request::Pull { have, max_bytes });
    }

    /// Returns how many events of a log are taken at most.
    pub(in crate::engine) fn log_limit(&self, log: ShortId) -> u64 {
        self.group.as_ref().map_or(u64::MAX, |group| group.log_limit(log))
    }

    /// Answers a peer.
    pub(super) fn request(
        &mut self,
        from: DeviceId,
        id: InboundId,
        request: Request,
        now: Now,
        view: &impl StateView,
    ) {
        if !request.is_join() && !self.is_member(&from) {
            self.respond(id, Response::Refused(RefuseReason::NotMember));
            return;
        }
        match request {
            Request::Heads { digest } => {
                if digest == self.digest() {
                    self.respond(id, Response::Same);
                } else {
                    let heads = self.heads();
                    self.respond(id, Response::Heads(heads));
                    self.peers
                        .ask_at(&from, now.boot.after(Duration::from_millis(50)));
                }
            }
            Request::Pull { have, max_bytes } => {
                let (have, forked) = self.held_by(&have, view);
                let max = usize::try_from(max_bytes)
                    .unwrap_or(usize::MAX)
                    .min(MAX_PAGE_BYTES);
                let (events, more) = view.events_beyond(&have, max);
                let events = events.into_iter().map(|stored| stored.event).collect();
                self.respond(id, Response::Events { events, more, forked });
            }
            Request::Push { mut events } => {
                self.respond(id, Response::Ack);
                self.limit_pushed(from, &mut events, now);
                self.take_events(from, events, false, now, view);
            }
            Request::InSync { digest } => {
                self.respond(id, Response::Ack);
                let same = digest == self.digest();
                if let Some(peer) = self.peers.map.get_mut(&from) {
                    peer.said = Some(digest);
                    peer.in_sync = same;
                }
                self.work.sources_changed();
            }
            Request::Lock(request) => {
                let voted = self.vote(&from, &request, now, view);
                self.respond(id, Response::Lock(voted));
            }
            Request::JoinHello => self.join_hello(from, id),
            Request::JoinRedeem(redeem) => self.join_redeem(from, id, &redeem, now, view),
            Request::JoinTrustLan { name } => self.join_trust_lan(from, id, name, now, view),
            Request::JoinWho => self.join_who(from, id, now, view),
            Request::JoinAsk {
                group,
                name,
                commitment,
            } => self.join_ask(from, id, group, name, commitment, now),
            Request::JoinReveal { nonce } => self.join_reveal(from, id, &nonce, now, view),
            Request::Present { events } => self.present_received(from, id, &events, view),
        }
    }

    /// Takes an answer.
    pub(super) fn response(
        &mut self,
        id: RequestId,
        result: Result<Response, RequestFailed>,
        now: Now,
        view: &impl StateView,
    ) {
        let Some((from, asked)) = self.peers.requests.remove(&id) else {
            return;
        };
        match asked {
            Asked::Heads => self.heads_answered(from, result, now, view),
            Asked::Pull => self.pull_answered(from, result, now, view),
            Asked::Push => {
                if let Some(peer) = self.peers.map.get_mut(&from) {
                    peer.pushes = peer.pushes.saturating_sub(1);
                }
            }
            Asked::Lock(ask) => self.vote_answered(ask, voted(result), now),
            Asked::Choice(no) => self.choice_answered(no, voted(result), now),
            Asked::InSync => {
                if result != Ok(Response::Ack)
                    && let Some(peer) = self.peers.map.get_mut(&from)
                {
                    // It is told again when it has answered something else: told at once, it would refuse at once.
                    peer.told = None;
                    peer.caught_up = false;
                    self.peers.ask_at(&from, now.boot.after(ASK_AGAIN));
                }
            }
            Asked::Hello | Asked::Redeem | Asked::TrustLan | Asked::Present => {
                self.join_answered(from, asked, result, now, view);
            }
            Asked::Who | Asked::PairAsk | Asked::PairReveal => self.pair_answered(from, asked, result, now),
        }
    }

    fn heads_answered(
        &mut self,
        from: DeviceId,
        result: Result<Response, RequestFailed>,
        now: Now,
        view: &impl StateView,
    ) {
        match result {
            Ok(Response::Same) => self.caught_up(from, view),
            Ok(Response::Heads(heads)) => {
                let lacking = heads.iter().filter(|head| self.lacks(head, view)).count();
                if self.push_own_branches(from, &heads, view) {
                    self.peers.ask_at(&from, now.boot.after(ASK_AGAIN));
                }
                if lacking > 0 {
                    self.pull(from, view);
                } else {
                    self.caught_up(from, view);
                }
            }
            Ok(Response::Refused(_)) | Err(RequestFailed) => {
                let removed = self.phase == Phase::Removed;
                self.present(from, view);
                self.peers
                    .ask_at(&from, now.boot.after(if removed { PENALTY } else { ASK_AGAIN }));
            }
            Ok(_) => self.misbehaved(from, "an answer of the wrong kind", now),
        }
    }

    fn pull_answered(
        &mut self,
        from: DeviceId,
        result: Result<Response, RequestFailed>,
        now: Now,
        view: &impl StateView,
    ) {
        if let Some(peer) = self.peers.map.get_mut(&from) {
            peer.pulling = false;
        }
        match result {
            Ok(Response::Events { events, more, forked }) => {
                let before = self.digest();
                let doubts = self.branches.doubts();
                let good = self.take_events(from, events, true, now, view);
                for device in forked {
                    self.branches.suspect(device);
                }
                let moved = before != self.digest();
                if good && (doubts != self.branches.doubts() || (more && moved)) {
                    self.pull(from, view);
                } else if good && !more {
                    self.caught_up(from, view);
                    if self.branches.forked(self.me.short()) {
                        // What it lacks of this device's it may ask of another machine with this key.
                        self.peers.ask_at(&from, now.boot.after(ASK_AGAIN));
                    }
                } else {
                    self.peers.ask_at(&from, now.boot.after(PENALTY));
                }
            }
            Ok(Response::Refused(_)) | Err(RequestFailed) => {
                self.peers.ask_at(&from, now.boot.after(ASK_AGAIN));
            }
            Ok(_) => self.misbehaved(from, "an answer of the wrong kind", now),
        }
    }

    /// Applies a peer's events in order; `false` if one was bad.
    fn take_events(
        &mut self,
        from: DeviceId,
        events: Vec<SignedEvent>,
        is_pull: bool,
        now: Now,
        view: &impl StateView,
    ) -> bool {
        let mut strangers = false;
        for event in events {
            match self.accept(&event, view) {
                Ok(()) => {
                    self.peers.quiet = Some(now.boot.after(QUIET));
                    self.peers.pulled |= is_pull;
                    self.ask_all_of_branches(&event, now);
                }
                Err(Refused::Known) => {}
                Err(Refused::Stranger) => strangers = true,
                Err(Refused::Gap) => {
                    if !self.peers.is_paused(&from, now) {
                        self.pull(from, view);
                    }
                    return true;
                }
                Err(Refused::Branch(device)) => {
                    // Once it was told of earlier heads, a peer sends branches before what comes after them.
                    if !self.branches.suspect(device) && is_pull {
                        self.misbehaved(from, "an event after a branch of a log that nobody has", now);
                        return false;
                    }
                    if !self.peers.is_paused(&from, now) {
                        self.pull(from, view);
                    }
                    return true;
                }
                Err(Refused::Bad(reason)) => {
                    self.misbehaved(from, reason, now);
                    return false;
                }
            }
        }
        if strangers && !is_pull && !self.peers.is_paused(&from, now) {
            self.pull(from, view);
        }
        true
    }

    /// A peer has nothing that we lack.
    fn caught_up(&mut self, from: DeviceId, view: &impl StateView) {
        if let Some(peer) = self.peers.map.get_mut(&from) {
            peer.caught_up = true;
        }
        if self.phase == Phase::CatchingUp {
            self.ledger_complete(view);
        }
    }

    /// Takes a broadcast: a hint that somebody has something new.
    pub(super) fn gossip(&mut self, from: DeviceId, message: &GossipMessage, now: Now) {
        let GossipMessage::EventAnnounced { author, seq, .. } = message;
        if !self.may_announce(from, now) {
            return;
        }
        let known = self.logs.get(&author.short()).map_or(0, LogState::size);
        if *seq >= known {
            self.peers.ask_at(&from, now.boot.after(GOSSIP_GRACE));
        }
    }

    /// Tells members once that everything our heads name is here.
    pub(super) fn tell_in_sync(&mut self) {
        if self.phase != Phase::Running || !self.work.is_empty() || !self.local.is_empty() {
            return;
        }
        let digest = self.digest();
        let untold: Vec<DeviceId> = self
            .peers
            .map
            .iter()
            .filter(|(device, peer)| peer.caught_up && peer.told != Some(digest) && self.is_member(device))
            .map(|(device, _)| *device)
            .collect();
        for device in untold {
            if let Some(peer) = self.peers.map.get_mut(&device) {
                peer.told = Some(digest);
                peer.in_sync = peer.said == Some(digest);
            }
            self.ask(device, Asked::InSync, Request::InSync { digest });
        }
    }

    pub(super) fn peer_statuses(&self) -> Vec<PeerStatus> {
        let mut all = BTreeMap::new();
        for (device, role, name) in self.group.iter().flat_map(|group| group.members()) {
            let status = PeerStatus {
                device: *device,
                name: name.to_owned(),
                person: self.person_of(device).cloned(),
                role: Some(role),
                connected: false,
                address: None,
                in_sync: false,
            };
            all.insert(*device, status);
        }
        for (device, peer) in &self.peers.map {
            let status = all.entry(*device).or_insert_with(|| PeerStatus {
                device: *device,
                name: String::new(),
                person: None,
                role: None,
                connected: true,
                address: None,
                in_sync: false,
            });
            status.connected = true;
            status.address = Some(peer.address.clone());
            status.in_sync = self.peers.holds_all(peer);
        }
        all.into_values().collect()
    }
}
