//! When peers are asked: after a change, now and then, and not for a while if nothing usable comes of it.
//!
//! A pause is a floor. The peer may go on asking, and is answered; what it asks has it asked in turn no sooner, for two
//! devices that cannot agree would else ask each other as fast as they can. A connection that is made anew forgets it: how
//! often that happens is bounded by whoever dials.

use std::time::Duration;

use super::{Peers, SyncEngine};
use crate::engine::Notification;
use crate::ids::DeviceId;
use crate::time::{BootInstant, Now};

/// Between two exchanges of heads with some neighbour, when nothing happens.
pub(super) const ROUND: Duration = Duration::from_secs(60);
/// As [`ROUND`], of a device whose log forked, and after which all are asked who may lack a branch: what is asked of such a
/// device, or pushed to it, reaches one of its machines only.
pub(super) const FORKED_ROUND: Duration = Duration::from_secs(5);
/// Spread of [`ROUND`], so that devices do not ask in step.
pub(super) const ROUND_JITTER_MS: u64 = 10_000;
/// After the last change, until heads are compared with a neighbour.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// After gossip named an unknown event, until its neighbour is asked; the push is usually faster.
pub(super) const GOSSIP_GRACE: Duration = Duration::from_millis(500);
/// Until a peer that did not answer is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Refusals of a peer to take us for a member after which it is asked rarely.
pub(super) const REFUSALS: u32 = 5;
/// Until a peer that sent nothing usable is asked again.
pub(super) const PENALTY: Duration = Duration::from_secs(60);
/// Neighbours with whom heads are compared after events were pulled: who had them to give pushed them to nobody but us, if
/// at all. With one, what is pulled would reach a group of hundreds in minutes only; with three it does in a few times
/// [`QUIET`].
const SPREAD: usize = 3;

impl Peers {
    pub(in crate::engine) fn deadline(&self) -> Option<(BootInstant, &'static str)> {
        let asks = self
            .map
            .values()
            .filter_map(|peer| Some((peer.ask_at?, "ask a peer for its heads")));
        let round = self.round.map(|at| (at, "compare heads with some neighbour"));
        let quiet = self.quiet.map(|at| (at, "compare heads after a change"));
        asks.chain(round).chain(quiet).min()
    }

    /// Has a peer that does not want us, and said so often, asked again after a long while only.
    pub(in crate::engine) fn leave_alone(&mut self, device: &DeviceId, now: Now) {
        if let Some(peer) = self.map.get_mut(device) {
            peer.refusals = peer.refusals.saturating_add(1);
            if peer.refusals <= REFUSALS {
                return;
            }
            peer.ask_at = Some(now.boot.after(PENALTY));
        }
    }

    /// Has a peer asked for its heads, at this time or before; not before its pause is over.
    pub(in crate::engine) fn ask_at(&mut self, device: &DeviceId, at: BootInstant) {
        if let Some(peer) = self.map.get_mut(device) {
            let at = peer.not_before.map_or(at, |floor| at.max(floor));
            peer.ask_at = Some(peer.ask_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Has a peer asked for nothing for a while, whatever it says meanwhile.
    pub(super) fn pause(&mut self, device: &DeviceId, now: Now) {
        if let Some(peer) = self.map.get_mut(device) {
            let until = now.boot.after(PENALTY);
            peer.not_before = Some(until);
            peer.ask_at = Some(until);
        }
    }

    /// Says whether a peer is not to be asked yet.
    pub(super) fn is_paused(&self, device: &DeviceId, now: Now) -> bool {
        let floor = self.map.get(device).and_then(|peer| peer.not_before);
        floor.is_some_and(|floor| now.boot < floor)
    }
}

impl SyncEngine {
    /// Compares heads where it is time to.
    pub(in crate::engine) fn sync_timeout(&mut self, now: Now) {
        let due: Vec<DeviceId> = self
            .peers
            .map
            .iter()
            .filter(|(_, peer)| peer.ask_at.is_some_and(|at| at <= now.boot))
            .map(|(device, _)| *device)
            .collect();
        for device in due {
            if self.is_member(&device) {
                self.ask_heads(device);
            } else if let Some(peer) = self.peers.map.get_mut(&device) {
                peer.ask_at = None;
            }
        }
        if self.peers.quiet.is_some_and(|at| at <= now.boot) {
            self.peers.quiet = None;
            let pulled = std::mem::take(&mut self.peers.pulled);
            self.ask_neighbours(if pulled { SPREAD } else { 1 }, now);
        }
        if self.peers.round.is_some_and(|at| at <= now.boot) {
            let jitter = Duration::from_millis(self.random.below(2 * ROUND_JITTER_MS));
            let next = ROUND - Duration::from_millis(ROUND_JITTER_MS) + jitter;
            let forked = self.branches.forked(self.me.short());
            self.peers.round = Some(now.boot.after(if forked { FORKED_ROUND } else { next }));
            // Who waits for the group's ledger may have members that refuse it among its neighbours.
            let count = if self.is_about_to_compare() { SPREAD } else { 1 };
            self.ask_neighbours(count, now);
        }
    }

    /// Compares heads with so many members, chosen at random; fewer if there are fewer that may be asked.
    fn ask_neighbours(&mut self, count: usize, now: Now) {
        let devices = self.peers.map.keys();
        let may_ask = |device: &&DeviceId| self.is_member(device) && !self.peers.is_paused(device, now);
        let mut members: Vec<DeviceId> = devices.filter(may_ask).copied().collect();
        for _ in 0..count.min(members.len()) {
            let chosen = self.random.below(members.len() as u64);
            let Ok(chosen) = usize::try_from(chosen) else {
                return;
            };
            let device = members.swap_remove(chosen);
            self.ask_heads(device);
        }
    }

    /// Notes that a peer sent what no honest daemon sends, or nothing usable.
    pub(super) fn misbehaved(&mut self, device: DeviceId, reason: &'static str, now: Now) {
        self.peers.pause(&device, now);
        self.notify(Notification::PeerMisbehaved { device, reason });
    }
}
