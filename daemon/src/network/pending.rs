//! Requests that have not had their answer, both ways.

use std::collections::BTreeMap;

use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};
use p2p_sync_core::engine::{InboundId, RequestId, Response};

/// Joins that wait for the engine at a time. Whoever comes beyond is told to come back.
pub(super) const MAX_JOINS: usize = 8;
/// Joins of one device, until their answers are written: as many as may be under way on one connection, however many
/// connections it has.
const MAX_JOINS_OF_ONE: usize = 4;
/// Ledger requests that wait for the engine at a time: a few of each of many members.
const MAX_LEDGER: usize = 256;
/// Ledger requests of one member, until their answers are written, which may be a page of events each: as many as may be
/// under way on one connection, however many connections it has.
const MAX_LEDGER_OF_ONE: usize = 32;

/// Which request-response protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rpc {
    Ledger,
    Join,
}

/// An answer's way back.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) rpc: Rpc,
    pub(super) channel: ResponseChannel<Response>,
}

/// The tables.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last_inbound: u64,
    waiting: BTreeMap<InboundId, Waiting>,
    /// From arrival until the answer is written or has failed.
    inbound: BTreeMap<(Rpc, InboundRequestId), (PeerId, InboundId)>,
    outbound: BTreeMap<(Rpc, OutboundRequestId), (PeerId, RequestId)>,
}

impl Pending {
    /// Takes in a request, or gives the channel back if too many wait already.
    pub(super) fn admit(
        &mut self,
        rpc: Rpc,
        peer: PeerId,
        wire_id: InboundRequestId,
        channel: ResponseChannel<Response>,
    ) -> Result<InboundId, ResponseChannel<Response>> {
        let waiting = self.waiting.values().filter(|waiting| waiting.rpc == rpc);
        let unsettled = self.inbound.iter();
        let of_one = unsettled.filter(|((other, _), (asker, _))| *other == rpc && *asker == peer);
        if !has_room(rpc, waiting.count(), of_one.count()) {
            return Err(channel);
        }
        self.last_inbound += 1;
        let id = InboundId(self.last_inbound);
        self.waiting.insert(id, Waiting { rpc, channel });
        self.inbound.insert((rpc, wire_id), (peer, id));
        Ok(id)
    }

    /// Returns the way back for an answer; `None` if it comes too late.
    pub(super) fn take(&mut self, id: InboundId) -> Option<Waiting> {
        self.waiting.remove(&id)
    }

    /// Forgets a request that was answered, or cannot be any more; returns whose it was.
    pub(super) fn settle_inbound(&mut self, rpc: Rpc, wire_id: InboundRequestId) -> Option<PeerId> {
        let (peer, id) = self.inbound.remove(&(rpc, wire_id))?;
        self.waiting.remove(&id);
        Some(peer)
    }

    /// Drops a peer's ledger requests unanswered.
    pub(super) fn drop_ledger_of(&mut self, peer: &PeerId) {
        let dropped = self
            .inbound
            .iter()
            .filter(|((rpc, _), (asker, _))| *rpc == Rpc::Ledger && asker == peer);
        for (_, id) in dropped.map(|(_, value)| value) {
            self.waiting.remove(id);
        }
    }

    /// Takes note of a request that was sent.
    pub(super) fn asked(&mut self, rpc: Rpc, wire_id: OutboundRequestId, peer: PeerId, id: RequestId) {
        self.outbound.insert((rpc, wire_id), (peer, id));
    }

    /// Returns which request was answered or failed, and by whom.
    pub(super) fn settle_outbound(
        &mut self,
        rpc: Rpc,
        wire_id: OutboundRequestId,
    ) -> Option<(PeerId, RequestId)> {
        self.outbound.remove(&(rpc, wire_id))
    }

    /// Says whether an exchange with this peer is under way that closing the connection would break.
    pub(super) fn is_busy(&self, peer: &PeerId) -> bool {
        self.outbound.values().any(|(asked, _)| asked == peer)
            || self
                .inbound
                .iter()
                .any(|((rpc, _), (asker, _))| *rpc == Rpc::Join && asker == peer)
    }
}

/// Says whether one more request may wait beside so many, of which so many are of the same device or were a moment ago.
const fn has_room(rpc: Rpc, waiting: usize, of_one: usize) -> bool {
    let (max, max_of_one) = match rpc {
        Rpc::Ledger => (MAX_LEDGER, MAX_LEDGER_OF_ONE),
        Rpc::Join => (MAX_JOINS, MAX_JOINS_OF_ONE),
    };
    waiting < max && of_one < max_of_one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_cannot_take_the_room_of_all() {
        for (rpc, most) in [(Rpc::Ledger, MAX_LEDGER_OF_ONE), (Rpc::Join, MAX_JOINS_OF_ONE)] {
            assert!(has_room(rpc, most - 1, most - 1));
            assert!(!has_room(rpc, most, most));
            assert!(has_room(rpc, most, 0));
        }
    }

    #[test]
    fn there_is_an_end_to_what_waits() {
        for (rpc, most) in [(Rpc::Ledger, MAX_LEDGER), (Rpc::Join, MAX_JOINS)] {
            assert!(has_room(rpc, most - 1, 0));
            assert!(!has_room(rpc, most, 0));
        }
    }
}
