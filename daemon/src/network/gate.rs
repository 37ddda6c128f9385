//! Keeps a behaviour to members: for everybody else it does not exist.
//!
//! A connection is open or gated for its whole life, decided when it is established: libp2p fixes a connection's
//! handlers then. On a gated connection the inner behaviour's protocols are not offered, and the inner behaviour never
//! hears of the connection, so it cannot send anything there by mistake. Whoever changes the membership closes the
//! affected connections ([`Gated::set_members`] names them), and they are made anew.
//!
//! The inner behaviour must see a consistent world: the counts of other connections that libp2p passes along are
//! rewritten to count open ones only, and a message for "any" handler goes to an open one.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{
    AddressChange, ConnectionClosed, ConnectionEstablished, NewExternalAddrOfPeer,
};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Strangers' connections at a time. Enough for a room full of devices that join at once; a stranger beyond it is
/// turned away after the handshake and may try again.
pub(super) const MAX_STRANGERS: usize = 16;

/// A stranger was turned away because of [`MAX_STRANGERS`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("Too many connections of devices that are no members")]
pub(super) struct TooManyStrangers;

/// The wrapper; see the module.
pub(super) struct Gated<B> {
    inner: B,
    members: BTreeSet<PeerId>,
    /// Established open connections; of no peer is the set empty.
    open: BTreeMap<PeerId, BTreeSet<ConnectionId>>,
    gated: BTreeMap<ConnectionId, PeerId>,
}

impl<B> Gated<B> {
    pub(super) const fn new(inner: B) -> Self {
        Self {
            inner,
            members: BTreeSet::new(),
            open: BTreeMap::new(),
            gated: BTreeMap::new(),
        }
    }

    /// Returns the inner behaviour. It knows only of open connections.
    pub(super) const fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Replaces the members; returns the connected peers whose connections are of the wrong kind from now on.
    pub(super) fn set_members(&mut self, members: BTreeSet<PeerId>) -> BTreeSet<PeerId> {
        self.members = members;
        let lost = self.open.keys().filter(|peer| !self.members.contains(peer));
        let won = self.gated.values().filter(|peer| self.members.contains(peer));
        lost.chain(won).copied().collect()
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.members.contains(peer)
    }

    /// Says whether some connection of the peer carries the inner behaviour's protocols.
    pub(super) fn is_open(&self, peer: &PeerId) -> bool {
        self.open.contains_key(peer)
    }

    /// Says whether this connection carries the inner behaviour's protocols.
    pub(super) fn is_open_connection(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.open.get(peer).is_some_and(|open| open.contains(&connection))
    }

    fn is_gated(&self, connection: ConnectionId) -> bool {
        self.gated.contains_key(&connection)
    }

    fn count_open(&self, peer: &PeerId) -> usize {
        self.open.get(peer).map_or(0, BTreeSet::len)
    }

    fn on_established(&mut self, event: &ConnectionEstablished<'_>) -> Option<usize> {
        if !self.members.contains(&event.peer_id) {
            self.gated.insert(event.connection_id, event.peer_id);
            return None;
        }
        let others = self.count_open(&event.peer_id);
        self.open
            .entry(event.peer_id)
            .or_default()
            .insert(event.connection_id);
        Some(others)
    }

    fn on_closed(&mut self, event: &ConnectionClosed<'_>) -> Option<usize> {
        if self.gated.remove(&event.connection_id).is_some() {
            return None;
        }
        if let Some(connections) = self.open.get_mut(&event.peer_id) {
            connections.remove(&event.connection_id);
            if connections.is_empty() {
                self.open.remove(&event.peer_id);
            }
        }
        Some(self.count_open(&event.peer_id))
    }

    fn open_connection(&self, peer: &PeerId, wanted: NotifyHandler) -> Option<ConnectionId> {
        match wanted {
            NotifyHandler::One(connection) => (!self.is_gated(connection)).then_some(connection),
            NotifyHandler::Any => self.open.get(peer)?.first().copied(),
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gated<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.members.contains(&peer) {
            let handler = self
                .inner
                .handle_established_inbound_connection(connection, peer, local, remote)?;
            return Ok(Either::Left(handler));
        }
        if self.gated.len() >= MAX_STRANGERS {
            return Err(ConnectionDenied::new(TooManyStrangers));
        }
        Ok(Either::Right(dummy::ConnectionHandler))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.members.contains(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let handler = self
            .inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)?;
        Ok(Either::Left(handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let passed = match event {
            FromSwarm::ConnectionEstablished(event) => {
                let Some(other_established) = self.on_established(&event) else {
                    return;
                };
                FromSwarm::ConnectionEstablished(ConnectionEstablished {
                    other_established,
                    ..event
                })
            }
            FromSwarm::ConnectionClosed(event) => {
                let Some(remaining_established) = self.on_closed(&event) else {
                    return;
                };
                FromSwarm::ConnectionClosed(ConnectionClosed {
                    remaining_established,
                    ..event
                })
            }
            FromSwarm::AddressChange(AddressChange { connection_id, .. }) if self.is_gated(connection_id) => {
                return;
            }
            FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer { peer_id, .. })
                if !self.members.contains(&peer_id) =>
            {
                return;
            }
            other => other,
        };
        self.inner.on_swarm_event(passed);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let action = match self.inner.poll(cx) {
                Poll::Ready(action) => action,
                Poll::Pending => return Poll::Pending,
            };
            let ToSwarm::NotifyHandler {
                peer_id,
                handler,
                event,
            } = action
            else {
                return Poll::Ready(action.map_in(Either::Left));
            };
            // A gated connection's handler cannot take the event, and would panic.
            if let Some(connection) = self.open_connection(&peer_id, handler) {
                return Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::One(connection),
                    event: Either::Left(event),
                });
            }
        }
    }
}
