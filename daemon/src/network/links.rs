//! The established connections, by peer.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use p2p_sync_core::ids::DeviceId;
use tokio::time::Instant;

/// A stranger's connection without a join under way is closed after this time.
pub(super) const STRANGER_IDLE: Duration = Duration::from_secs(30);
/// A stranger's connection is closed after this time whatever it does, so that it cannot hold its place for ever.
const STRANGER_LIFE: Duration = Duration::from_secs(300);

/// What the event loop was last told of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) member: bool,
    pub(super) local: bool,
    pub(super) near: bool,
}

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) address: Multiaddr,
    /// Whether it carries members' protocols on this side.
    pub(super) is_open: bool,
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct PeerLinks {
    pub(super) device: DeviceId,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    pub(super) told: Option<Told>,
    /// When its connections of the wrong kind are closed at the latest.
    pub(super) regate_by: Option<Instant>,
    /// Until when an answer may still be on its way to it.
    pub(super) linger_until: Option<Instant>,
    since: Instant,
    last_busy: Instant,
}

impl PeerLinks {
    fn regate_due(&self) -> Option<Instant> {
        let deadline = self.regate_by?;
        Some(self.linger_until.map_or(deadline, |linger| linger.min(deadline)))
    }
}

/// The table; no peer in it is without a connection.
#[derive(Debug, Default)]
pub(super) struct Links {
    peers: BTreeMap<PeerId, PeerLinks>,
}

impl Links {
    pub(super) fn get(&self, peer: &PeerId) -> Option<&PeerLinks> {
        self.peers.get(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut PeerLinks> {
        self.peers.get_mut(peer)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.keys()
    }

    pub(super) fn add(
        &mut self,
        peer: PeerId,
        device: DeviceId,
        connection: ConnectionId,
        link: Link,
        now: Instant,
    ) {
        let entry = self.peers.entry(peer).or_insert_with(|| PeerLinks {
            device,
            links: BTreeMap::new(),
            told: None,
            regate_by: None,
            linger_until: None,
            since: now,
            last_busy: now,
        });
        entry.links.insert(connection, link);
    }

    /// Takes note that a peer takes part in a join, so that it is not idle.
    pub(super) fn busy(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.last_busy = now;
        }
    }

    /// Forgets a connection; returns the peer's entry if it was the last one.
    pub(super) fn remove(&mut self, peer: &PeerId, connection: ConnectionId) -> Option<PeerLinks> {
        let entry = self.peers.get_mut(peer)?;
        entry.links.remove(&connection);
        if entry.links.is_empty() {
            return self.peers.remove(peer);
        }
        None
    }

    /// Returns the connections whose kind is not what membership asks for.
    pub(super) fn wrong(&self, peer: &PeerId, should_be_open: bool) -> Vec<ConnectionId> {
        let links = self.peers.get(peer).into_iter().flat_map(|entry| &entry.links);
        links
            .filter(|(_, link)| link.is_open != should_be_open)
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// Returns the strangers whose time is over.
    pub(super) fn expired_strangers(
        &mut self,
        is_member: impl Fn(&PeerId) -> bool,
        is_busy: impl Fn(&PeerId) -> bool,
        now: Instant,
    ) -> Vec<PeerId> {
        let mut expired = Vec::new();
        for (peer, entry) in &mut self.peers {
            if is_member(peer) {
                entry.since = now;
                entry.last_busy = now;
                continue;
            }
            if is_busy(peer) {
                entry.last_busy = now;
            }
            let is_idle = now.duration_since(entry.last_busy) >= STRANGER_IDLE;
            if is_idle || now.duration_since(entry.since) >= STRANGER_LIFE {
                expired.push(*peer);
            }
        }
        expired
    }

    /// Returns the peers whose connections may have to be made anew by now.
    pub(super) fn regating(&self, now: Instant) -> Vec<PeerId> {
        let waiting = self
            .peers
            .iter()
            .filter(|(_, entry)| entry.regate_due().is_some_and(|due| due <= now));
        waiting.map(|(peer, _)| *peer).collect()
    }

    /// Returns when [`Self::regating`] will name a peer, if nothing else happens.
    pub(super) fn next_regate(&self) -> Option<Instant> {
        self.peers.values().filter_map(PeerLinks::regate_due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stranger_expires_and_a_busy_one_later() {
        let mut links = Links::default();
        let start = Instant::now();
        let (idle, busy, member) = (PeerId::random(), PeerId::random(), PeerId::random());
        for (number, peer) in [idle, busy, member].into_iter().enumerate() {
            let connection = ConnectionId::new_unchecked(number);
            links.add(peer, DeviceId::new([0; 32]), connection, link(), start);
        }
        let mut expired =
            |after| links.expired_strangers(|peer| *peer == member, |peer| *peer == busy, start + after);
        assert_eq!(expired(STRANGER_IDLE - Duration::from_secs(1)), vec![]);
        assert_eq!(expired(STRANGER_IDLE), vec![idle]);
        assert!(expired(STRANGER_LIFE).contains(&busy));
    }

    #[test]
    fn a_stranger_that_asks_now_and_then_is_not_idle_but_has_an_end() {
        let mut links = Links::default();
        let (start, peer) = (Instant::now(), PeerId::random());
        let connection = ConnectionId::new_unchecked(1);
        links.add(peer, DeviceId::new([0; 32]), connection, link(), start);
        let step = STRANGER_IDLE - Duration::from_secs(1);
        let mut time = Duration::ZERO;
        while time + step < STRANGER_LIFE {
            time += step;
            assert!(
                links
                    .expired_strangers(|_| false, |_| false, start + time)
                    .is_empty()
            );
            links.busy(&peer, start + time);
        }
        let end = start + STRANGER_LIFE;
        assert_eq!(links.expired_strangers(|_| false, |_| false, end), vec![peer]);
    }

    #[test]
    fn a_peer_is_gone_with_its_last_connection() {
        let mut links = Links::default();
        let peer = PeerId::random();
        let ids = [1, 2].map(ConnectionId::new_unchecked);
        for id in ids {
            links.add(peer, DeviceId::new([0; 32]), id, link(), Instant::now());
        }
        assert_eq!(links.wrong(&peer, true), ids.to_vec());
        assert!(links.remove(&peer, ids[0]).is_none());
        assert!(links.remove(&peer, ids[1]).is_some());
        assert!(links.get(&peer).is_none());
    }

    fn link() -> Link {
        Link {
            address: "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
            is_open: false,
        }
    }
}
