//! Comparing heads: what is here, what a peer has of it, and what of the peer's is not here.
//!
//! Without forks a head is a number: who has event `n` of a log has all before it. Where a log forked, or two devices do not
//! know yet that it did, heads are compared by the ids of events; earlier heads, ever farther apart, show how far two
//! branches go together.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{Asked, FORKED_ROUND, GOSSIP_GRACE, MAX_PUSHES};
use crate::access::LogPoint;
use crate::engine::{Head, MAX_PUSH_BYTES, Request, StateView, SyncEngine};
use crate::ids::{DeviceId, ShortId};
use crate::ledger::{Header, LogState, SignedEvent};
use crate::time::Now;

/// The size of a head of a log of which nothing more is wanted.
const COMPLETE: u64 = u64::MAX;

impl SyncEngine {
    /// Returns the digest of all heads; computed again only when one moved.
    pub(in crate::engine) fn digest(&mut self) -> [u8; 32] {
        if let Some(digest) = self.peers.digest {
            return digest;
        }
        let mut heads: Vec<(ShortId, u64, [u8; 16])> = self
            .logs
            .values()
            .filter_map(|log| self.head_that_counts(log))
            .collect();
        heads.sort_unstable();
        let mut hasher = Sha256::new();
        for (device, size, id16) in heads {
            hasher.update(device.as_bytes());
            hasher.update(size.to_be_bytes());
            hasher.update(id16);
        }
        *self.peers.digest.insert(hasher.finalize().into())
    }

    /// Returns the end of what is taken of a log. `None`: nothing, or no more than belongs to other branches too.
    fn head_that_counts(&self, log: &LogState) -> Option<(ShortId, u64, [u8; 16])> {
        let limit = self.log_limit(log.name);
        let size = log.size().min(limit);
        let shared = log.left.map_or(0, |left| left.size);
        let goes_on = |branch: &LogState| {
            let left = branch.left.filter(|left| left.log == log.name);
            left.is_some_and(|left| left.size >= size && self.size_that_counts(branch) > left.size)
        };
        let device = log.author.short();
        if size <= shared || self.logs_of(device).any(goes_on) {
            return None;
        }
        // How much more of it than that somebody has is of no concern.
        let id16 = if size < limit { log.last_id.id16() } else { [0; 16] };
        Some((device, size, id16))
    }

    fn size_that_counts(&self, log: &LogState) -> u64 {
        log.size().min(self.log_limit(log.name))
    }

    pub(super) fn heads(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = self.logs.values().map(Head::of).collect();
        heads.sort_unstable();
        heads
    }

    /// Says whether something is missing here that a peer's head names.
    pub(super) fn lacks(&mut self, head: &Head, view: &impl StateView) -> bool {
        let counts = self
            .logs_of(head.device)
            .map(|log| self.log_limit(log.name))
            .max();
        let limit = counts.unwrap_or_else(|| self.log_limit(head.device));
        let longest = self.logs_of(head.device).map(LogState::size).max().unwrap_or(0);
        if longest < head.size.min(limit) {
            return true;
        }
        let known = head.size > limit || self.find_end(head.device, head.size, &head.id16, view).is_some();
        let author = self.logs.get(&head.device).map(|log| log.author);
        let forks = !known && author.is_some_and(|author| self.is_member(&author));
        if forks {
            self.branches.suspect(head.device);
        }
        forks
    }

    /// Returns what a peer is told that it need not send.
    pub(super) fn have(&self, view: &impl StateView) -> Vec<Head> {
        let mut have = BTreeSet::new();
        for log in self.logs.values() {
            let complete = log.size() >= self.log_limit(log.name);
            let device = log.author.short();
            if complete && !self.branches.is_doubtful(device) {
                have.insert(Head {
                    device,
                    size: COMPLETE,
                    id16: [0; 16],
                });
                continue;
            }
            have.insert(Head::of(log));
            if self.branches.is_doubtful(device) {
                have.extend(self.earlier_heads(log, view));
            }
        }
        have.into_iter().collect()
    }

    /// Returns heads that a log had, each twice as far from its end as the one before, down to the first.
    fn earlier_heads(&self, log: &LogState, view: &impl StateView) -> Vec<Head> {
        let mut heads = Vec::new();
        let mut back = 1;
        let mut size = log.size();
        while size > 1 {
            size = log.size().saturating_sub(back).max(1);
            back *= 2;
            let event = self.event_at(log.name, size - 1, view);
            heads.extend(event.map(|event| Head {
                device: log.author.short(),
                size,
                id16: event.id.id16(),
            }));
        }
        heads
    }

    /// Returns how much a peer that named these heads has of each log here, and the devices of whose logs that is not clear.
    pub(super) fn held_by(
        &self,
        have: &[Head],
        view: &impl StateView,
    ) -> (BTreeMap<ShortId, u64>, Vec<ShortId>) {
        let mut named: BTreeMap<ShortId, Vec<&Head>> = BTreeMap::new();
        for head in have {
            named.entry(head.device).or_default().push(head);
        }
        let mut held = BTreeMap::new();
        let mut unclear = Vec::new();
        for (device, heads) in named {
            let wants_none = heads.iter().any(|head| head.size == COMPLETE);
            let found = |head: &&Head| {
                let log = self.find_end(device, head.size, &head.id16, view)?;
                Some(LogPoint { log, size: head.size })
            };
            let points: Vec<LogPoint> = heads.iter().filter_map(found).collect();
            let longest = self.logs_of(device).map(LogState::size).max().unwrap_or(0);
            let first = heads.iter().map(|head| head.size).min().unwrap_or(0);
            // A peer whose log is longer has this one, or finds out otherwise when we ask it.
            let is_unclear = points.is_empty() && first > 1 && !wants_none;
            if is_unclear && first <= longest {
                unclear.push(device);
            }
            for log in self.logs_of(device) {
                let reach = points.iter().map(|point| self.reach(log.name, *point)).max();
                let none = wants_none || is_unclear;
                held.insert(log.name, if none { COMPLETE } else { reach.unwrap_or(0) });
            }
        }
        (held, unclear)
    }
}

impl SyncEngine {
    /// If this device's log forked, sends a peer what it lacks of it, for what the peer asks may reach another machine with
    /// this device's key; `true` if there was anything.
    pub(super) fn push_own_branches(&mut self, to: DeviceId, heads: &[Head], view: &impl StateView) -> bool {
        let own = self.me.short();
        let busy = self.peers.get(&to).is_none_or(|peer| peer.pushes >= MAX_PUSHES);
        if !self.branches.forked(own) || busy {
            return false;
        }
        let heads: Vec<Head> = heads.iter().filter(|head| head.device == own).copied().collect();
        let (mut held, _) = self.held_by(&heads, view);
        for log in self.logs.values() {
            // Of a head that is not here the peer is told when that is.
            let unknown = if log.author == self.me { 0 } else { COMPLETE };
            held.entry(log.name).or_insert(unknown);
        }
        let (events, _) = view.events_beyond(&held, MAX_PUSH_BYTES);
        let fit = events.len() > 1 || events.iter().all(|event| event.event.len() <= MAX_PUSH_BYTES);
        if events.is_empty() || !fit {
            return false;
        }
        if let Some(peer) = self.peers.map.get_mut(&to) {
            peer.pushes += 1;
        }
        let events = events.into_iter().map(|stored| stored.event).collect();
        self.ask(to, Asked::Push, Request::Push { events });
        true
    }

    /// After an event of a device whose log forked, compares heads with everybody.
    pub(super) fn ask_all_of_branches(&mut self, event: &SignedEvent, now: Now) {
        if self.branches.is_empty() {
            return;
        }
        let author = Header::from_bytes(&event.header).map(|header| header.author.short());
        if !author.is_ok_and(|author| self.branches.forked(author)) {
            return;
        }
        if self.branches.forked(self.me.short()) {
            let soon = now.boot.after(FORKED_ROUND);
            self.peers.round = self.peers.round.map(|round| round.min(soon));
        }
        let devices: Vec<DeviceId> = self.peers.map.keys().copied().collect();
        for device in devices {
            self.peers.ask_at(&device, now.boot.after(GOSSIP_GRACE));
        }
    }
}

impl Head {
    fn of(log: &LogState) -> Self {
        Self {
            device: log.author.short(),
            size: log.size(),
            id16: log.last_id.id16(),
        }
    }
}
