//! Decides whom to dial when. It does no IO: the service reports what happened and dials what is due.
//!
//! There are two kinds of targets. *Addresses* given by the user or a ticket are dialled until they are forgotten.
//! *Peers* are devices found by mDNS, or members whose addresses are known from earlier connections. Each target has a
//! back-off of its own, 1 s doubling to 60 s, with jitter. A member's is reset by a connection that lasted; a
//! stranger's stays at its longest once it was reached, since there was nothing to talk about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

/// The first wait between two attempts.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two attempts: how late a device that comes back is noticed at worst.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A connection that lasted this long was good, and its loss is worth an immediate new attempt.
const STABLE: Duration = Duration::from_secs(10);
/// How long the side with the greater PeerId leaves the first attempt to the other, so that rarely both dial.
const SECOND_SIDE_DELAY: Duration = Duration::from_secs(2);
/// Attempts under way at a time; the others wait for their turn.
const MAX_DIALING: usize = 16;
/// Addresses given by hand or by tickets; further ones are refused.
const MAX_MANUAL: usize = 256;
/// Peers with known addresses; mDNS answers can be forged, so there must be an end.
const MAX_PEERS: usize = 1024;
/// Addresses kept of each peer and source; the oldest goes first.
const MAX_ADDRESSES: usize = 8;

/// One attempt to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// An address as given; it may name a peer.
    Address(Multiaddr),
    /// Any of a peer's addresses.
    Peer(PeerId, Vec<Multiaddr>),
}

/// The state; see the module.
#[derive(Debug)]
pub(super) struct Dialer {
    local: PeerId,
    members: BTreeSet<PeerId>,
    manual: BTreeMap<Multiaddr, Manual>,
    peers: BTreeMap<PeerId, Peer>,
    dialing: BTreeMap<ConnectionId, Target>,
    connected: BTreeMap<PeerId, Instant>,
    jitter: Jitter,
}

#[derive(Debug)]
struct Manual {
    /// Who answers there: as the address says, or as it turned out.
    peer: Option<PeerId>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Peer {
    discovered: VecDeque<Multiaddr>,
    known: VecDeque<Multiaddr>,
    backoff: Backoff,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Manual(Multiaddr),
    Peer(PeerId),
}

#[derive(Debug)]
struct Backoff {
    due: Instant,
    delay: Duration,
    dialing: bool,
}

impl Dialer {
    pub(super) const fn new(local: PeerId, seed: u64) -> Self {
        Self {
            local,
            members: BTreeSet::new(),
            manual: BTreeMap::new(),
            peers: BTreeMap::new(),
            dialing: BTreeMap::new(),
            connected: BTreeMap::new(),
            jitter: Jitter(seed),
        }
    }

    /// Returns the attempts to make now; each is to be followed by [`Self::started`] or [`Self::refused`].
    pub(super) fn due(&self, now: Instant) -> Vec<Attempt> {
        let free = MAX_DIALING.saturating_sub(self.dialing.len());
        let manual = self
            .waiting_manual()
            .filter(|(_, manual)| manual.backoff.due <= now);
        let peers = self.waiting_peers().filter(|(_, peer)| peer.backoff.due <= now);
        manual
            .map(|(address, _)| Attempt::Address(address.clone()))
            .chain(peers.map(|(id, peer)| Attempt::Peer(*id, peer.addresses())))
            .take(free)
            .collect()
    }

    /// Returns when [`Self::due`] will have something, if nothing else happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.dialing.len() >= MAX_DIALING {
            return None;
        }
        let manual = self.waiting_manual().map(|(_, manual)| manual.backoff.due);
        let peers = self.waiting_peers().map(|(_, peer)| peer.backoff.due);
        manual.chain(peers).min()
    }

    /// Says whether mDNS lists this peer.
    pub(super) fn is_discovered(&self, peer: &PeerId) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|peer| !peer.discovered.is_empty())
    }

    /// Keeps dialling an address; says whether there was room for it.
    pub(super) fn add_manual(&mut self, address: Multiaddr, now: Instant) -> bool {
        if self.manual.contains_key(&address) {
            return true;
        }
        if self.manual.len() >= MAX_MANUAL {
            return false;
        }
        let manual = Manual {
            peer: peer_in(&address),
            backoff: Backoff::new(now),
        };
        self.manual.insert(address, manual);
        true
    }

    /// Stops dialling an address. A connection stays.
    pub(super) fn remove_manual(&mut self, address: &Multiaddr) {
        self.manual.remove(address);
        let target = Target::Manual(address.clone());
        self.dialing.retain(|_, dialled| *dialled != target);
    }

    /// Takes note that mDNS lists an address of a peer.
    pub(super) fn discovered(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        let due = if self.local < peer {
            now
        } else {
            now + SECOND_SIDE_DELAY
        };
        if let Some(entry) = self.entry(peer, due) {
            remember(&mut entry.discovered, address);
        }
    }

    /// Takes note that mDNS does not list an address any more.
    pub(super) fn expired(&mut self, peer: PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            let address = without_peer(address);
            entry.discovered.retain(|known| *known != address);
        }
        self.forget_if_useless(peer);
    }

    /// Takes note of an address at which a member can be reached; others' are not kept.
    pub(super) fn learned(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        if !self.members.contains(&peer) {
            return;
        }
        if let Some(entry) = self.entry(peer, now) {
            remember(&mut entry.known, address);
        }
    }

    /// Replaces the members.
    pub(super) fn set_members(&mut self, members: BTreeSet<PeerId>, now: Instant) {
        let before = std::mem::replace(&mut self.members, members);
        let added: Vec<_> = self.members.difference(&before).copied().collect();
        added.into_iter().for_each(|peer| self.hurry(peer, now));
        let strangers = self
            .peers
            .iter_mut()
            .filter(|(peer, _)| !self.members.contains(peer));
        strangers.for_each(|(_, entry)| entry.known.clear());
        self.peers
            .retain(|_, entry| !entry.known.is_empty() || !entry.discovered.is_empty());
    }

    /// Makes a peer due at once, if any of its addresses is known.
    pub(super) fn hurry(&mut self, peer: PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.backoff.reset(now);
        }
        let manual = self
            .manual
            .values_mut()
            .filter(|manual| manual.peer == Some(peer));
        manual.for_each(|manual| manual.backoff.reset(now));
    }

    /// Makes all peers that mDNS lists, and all addresses given by hand, due at once.
    pub(super) fn seek(&mut self, now: Instant) {
        let discovered = self.peers.values_mut().filter(|peer| !peer.discovered.is_empty());
        discovered.for_each(|peer| peer.backoff.reset(now));
        self.manual
            .values_mut()
            .for_each(|manual| manual.backoff.reset(now));
    }

    /// Takes note that an address's name is being looked up; [`Self::started`] or [`Self::refused`] follows.
    pub(super) fn looking_up(&mut self, address: &Multiaddr) {
        if let Some(manual) = self.manual.get_mut(address) {
            manual.backoff.dialing = true;
        }
    }

    /// Takes note that an attempt is under way.
    pub(super) fn started(&mut self, attempt: &Attempt, connection: ConnectionId) {
        let target = attempt.target();
        if let Some(backoff) = self.backoff_mut(&target) {
            backoff.dialing = true;
        }
        self.dialing.insert(connection, target);
    }

    /// Takes note that an attempt could not even start.
    pub(super) fn refused(&mut self, attempt: &Attempt, now: Instant) {
        self.postpone(&attempt.target(), now);
    }

    /// Takes note that an attempt failed.
    pub(super) fn failed(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(target) = self.dialing.remove(&connection) {
            self.postpone(&target, now);
        }
    }

    /// Takes note of a connection.
    pub(super) fn connected(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) {
        self.connected.entry(peer).or_insert(now);
        let Some(target) = self.dialing.remove(&connection) else {
            return;
        };
        if let Some(backoff) = self.backoff_mut(&target) {
            backoff.dialing = false;
        }
        if let Target::Manual(address) = &target
            && let Some(manual) = self.manual.get_mut(address)
        {
            manual.peer = Some(peer);
        }
    }

    /// Takes note that the last connection to a peer is gone.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        let since = self.connected.remove(&peer).unwrap_or(now);
        let is_member = self.members.contains(&peer);
        let jitter = &mut self.jitter;
        let mut after_loss = |backoff: &mut Backoff| {
            if !is_member {
                backoff.delay = BACKOFF_MAX;
            } else if now.duration_since(since) >= STABLE {
                backoff.delay = BACKOFF_MIN;
            }
            backoff.postpone(now, jitter);
        };
        if let Some(entry) = self.peers.get_mut(&peer) {
            after_loss(&mut entry.backoff);
        }
        let manual = self
            .manual
            .values_mut()
            .filter(|manual| manual.peer == Some(peer));
        manual.for_each(|manual| after_loss(&mut manual.backoff));
        self.forget_if_useless(peer);
    }

    fn waiting_manual(&self) -> impl Iterator<Item = (&Multiaddr, &Manual)> {
        self.manual.iter().filter(|(_, manual)| {
            let is_connected = manual.peer.is_some_and(|peer| self.connected.contains_key(&peer));
            !is_connected && !manual.backoff.dialing
        })
    }

    fn waiting_peers(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers
            .iter()
            .filter(|(id, peer)| !self.connected.contains_key(id) && !peer.backoff.dialing)
    }

    fn entry(&mut self, peer: PeerId, due: Instant) -> Option<&mut Peer> {
        let is_room = self.peers.len() < MAX_PEERS || self.members.contains(&peer);
        if peer == self.local || (!is_room && !self.peers.contains_key(&peer)) {
            return None;
        }
        Some(self.peers.entry(peer).or_insert_with(|| Peer {
            discovered: VecDeque::new(),
            known: VecDeque::new(),
            backoff: Backoff::new(due),
        }))
    }

    fn forget_if_useless(&mut self, peer: PeerId) {
        let is_useless = |entry: &Peer| entry.discovered.is_empty() && entry.known.is_empty();
        if self.peers.get(&peer).is_some_and(is_useless) {
            self.peers.remove(&peer);
        }
    }

    fn backoff_mut(&mut self, target: &Target) -> Option<&mut Backoff> {
        match target {
            Target::Manual(address) => self.manual.get_mut(address).map(|manual| &mut manual.backoff),
            Target::Peer(peer) => self.peers.get_mut(peer).map(|entry| &mut entry.backoff),
        }
    }

    fn postpone(&mut self, target: &Target, now: Instant) {
        let mut jitter = self.jitter;
        if let Some(backoff) = self.backoff_mut(target) {
            backoff.postpone(now, &mut jitter);
        }
        self.jitter = jitter;
    }
}

impl Attempt {
    fn target(&self) -> Target {
        match self {
            Self::Address(address) => Target::Manual(address.clone()),
            Self::Peer(peer, _) => Target::Peer(*peer),
        }
    }
}

impl Peer {
    fn addresses(&self) -> Vec<Multiaddr> {
        let mut addresses: Vec<_> = self.discovered.iter().cloned().collect();
        for address in &self.known {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }
}

impl Backoff {
    const fn new(due: Instant) -> Self {
        Self {
            due,
            delay: BACKOFF_MIN,
            dialing: false,
        }
    }

    const fn reset(&mut self, now: Instant) {
        self.due = now;
        self.delay = BACKOFF_MIN;
    }

    fn postpone(&mut self, now: Instant, jitter: &mut Jitter) {
        self.dialing = false;
        self.due = now + jitter.around(self.delay);
        self.delay = (self.delay * 2).min(BACKOFF_MAX);
    }
}

/// SplitMix64 (Steele et al. 2014): enough to keep devices out of step.
#[derive(Debug, Clone, Copy)]
struct Jitter(u64);

impl Jitter {
    /// Returns between three quarters and all of `delay`.
    fn around(&mut self, delay: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let quarter = delay / 4;
        let permille = u32::try_from((mixed >> 32) % 1000).unwrap_or(0);
        delay - quarter * permille / 1000
    }
}

fn remember(addresses: &mut VecDeque<Multiaddr>, address: Multiaddr) {
    let address = without_peer(&address);
    addresses.retain(|known| *known != address);
    addresses.push_back(address);
    if addresses.len() > MAX_ADDRESSES {
        addresses.pop_front();
    }
}

fn without_peer(address: &Multiaddr) -> Multiaddr {
    let parts = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
    parts.collect()
}

/// Returns the peer that an address names at its end.
pub(super) fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_dialled_at_once_and_then_ever_more_rarely() {
        let mut dialer = Dialer::new(peer(1), 7);
        let start = Instant::now();
        assert!(dialer.add_manual(address(1), start));
        let mut now = start;
        let mut waits = Vec::new();
        for id in 0..10 {
            let due = dialer.due(now);
            assert_eq!(due, vec![Attempt::Address(address(1))]);
            dialer.started(&due[0], ConnectionId::new_unchecked(id));
            assert_eq!(dialer.next_due(), None, "one attempt at a time");
            dialer.failed(ConnectionId::new_unchecked(id), now);
            let next = dialer.next_due().unwrap();
            waits.push(next - now);
            now = next;
        }
        assert!(waits[0] <= BACKOFF_MIN);
        assert!(waits[9] <= BACKOFF_MAX && waits[9] >= BACKOFF_MAX * 3 / 4);
    }

    #[test]
    fn the_greater_peer_leaves_the_first_attempt_to_the_smaller() {
        let (small, great) = (peer(1).min(peer(2)), peer(1).max(peer(2)));
        let now = Instant::now();
        let mut first = Dialer::new(small, 1);
        first.discovered(great, address(1), now);
        assert_eq!(first.next_due(), Some(now));
        let mut second = Dialer::new(great, 1);
        second.discovered(small, address(1), now);
        assert_eq!(second.next_due(), Some(now + SECOND_SIDE_DELAY));
    }

    #[test]
    fn a_lost_member_is_dialled_soon_and_a_lost_stranger_late() {
        let now = Instant::now();
        let mut dialer = Dialer::new(peer(1), 1);
        dialer.set_members(BTreeSet::from([peer(2)]), now);
        for other in [peer(2), peer(3)] {
            dialer.discovered(other, address(1), now);
            dialer.connected(ConnectionId::new_unchecked(9), other, now);
        }
        assert_eq!(dialer.next_due(), None);
        let later = now + STABLE;
        dialer.disconnected(peer(3), later);
        assert!(dialer.next_due().unwrap() >= later + BACKOFF_MAX * 3 / 4);
        dialer.disconnected(peer(2), later);
        assert!(dialer.next_due().unwrap() <= later + BACKOFF_MIN);
    }

    #[test]
    fn strangers_of_the_local_network_are_dialled_at_once_when_somebody_is_sought() {
        let now = Instant::now();
        let mut dialer = Dialer::new(peer(1), 1);
        dialer.add_manual(address(2), now);
        dialer.discovered(peer(3), address(3), now);
        for attempt in dialer.due(now) {
            dialer.refused(&attempt, now);
        }
        for id in [4, 5] {
            dialer.connected(ConnectionId::new_unchecked(id), peer(3), now);
            dialer.disconnected(peer(3), now);
        }
        assert_eq!(dialer.due(now), vec![]);
        dialer.seek(now);
        assert_eq!(dialer.due(now).len(), 2);
    }

    #[test]
    fn only_members_addresses_are_remembered_and_they_outlive_mdns() {
        let now = Instant::now();
        let mut dialer = Dialer::new(peer(1), 1);
        dialer.learned(peer(2), address(2), now);
        assert_eq!(dialer.next_due(), None);
        dialer.set_members(BTreeSet::from([peer(2)]), now);
        dialer.learned(peer(2), address(2), now);
        dialer.discovered(peer(2), address(3), now);
        dialer.expired(peer(2), &address(3));
        assert_eq!(dialer.due(now), vec![Attempt::Peer(peer(2), vec![address(2)])]);
        dialer.set_members(BTreeSet::new(), now);
        assert_eq!(dialer.next_due(), None);
    }

    #[test]
    fn a_bare_address_rests_while_its_peer_is_connected() {
        let now = Instant::now();
        let mut dialer = Dialer::new(peer(1), 1);
        dialer.add_manual(address(1), now);
        let due = dialer.due(now);
        let connection = ConnectionId::new_unchecked(1);
        dialer.started(&due[0], connection);
        dialer.connected(connection, peer(2), now);
        assert_eq!(dialer.next_due(), None);
        dialer.disconnected(peer(2), now);
        assert!(dialer.next_due().is_some());
        dialer.remove_manual(&address(1));
        assert_eq!(dialer.next_due(), None);
    }

    #[test]
    fn everything_has_a_bound() {
        let now = Instant::now();
        let mut dialer = Dialer::new(peer(1), 1);
        for port in 0..2000 {
            dialer.add_manual(address(port), now);
            dialer.discovered(PeerId::random(), address(port), now);
        }
        assert_eq!(dialer.manual.len(), MAX_MANUAL);
        assert_eq!(dialer.peers.len(), MAX_PEERS);
        assert_eq!(dialer.due(now).len(), MAX_DIALING);
    }

    fn peer(byte: u8) -> PeerId {
        let keypair = crate::network::identity::keypair_of([byte; 32]).unwrap();
        keypair.public().to_peer_id()
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }
}
