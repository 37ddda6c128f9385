//! Logs that forked (ledger.md 5).
//!
//! A device's log forks if its key makes two events with one number: an old copy of its state was put back and nobody could
//! tell, or two machines have the same key. A fork changes no event's validity: the log is a tree, and what its branches
//! say of a path are ordinary concurrent versions.
//!
//! Each branch is a log of its own here, as [`History`](crate::access::History) has it: the first that arrived has its
//! device's short name, each further one a name that this device makes up. What a branch shares with the log that it left
//! belongs to the other. Names of branches never leave the device:
//!
//! - An entry of `seen` and a head name a device and, by id, an event.
//! - A dot names the author's device, unless its log has forked below as far as the dot's author knew; then it has the
//!   first 8 bytes of the event's id instead. Whoever did not know of the fork meant the branch that he had.

use std::collections::{BTreeMap, BTreeSet};

use super::{StateView, StoredEvent, SyncEngine};
use crate::access::{Branch, LogPoint};
use crate::ids::{DeviceId, Dot, EventId, ShortId};
use crate::ledger::{Header, Item, Left, LogState, Seen};

/// Branches of one device's log that are taken at most: as many as a Revoke can keep. Whoever makes more has his key
/// elsewhere on purpose.
pub(super) const MAX_BRANCHES: usize = 8;

/// The logs that forked.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// The further branches of each device's log.
    of: BTreeMap<ShortId, BTreeSet<ShortId>>,
    /// Devices of whose logs a peer has branches that do not hang together with ours: it is told more of what is here.
    suspected: BTreeSet<ShortId>,
}

impl Branches {
    /// Returns those among these logs.
    pub(super) fn among(logs: &BTreeMap<ShortId, LogState>) -> Self {
        let mut branches = Self::default();
        for log in logs.values().filter(|log| log.left.is_some()) {
            branches.add(log);
        }
        branches
    }

    fn add(&mut self, log: &LogState) {
        self.of.entry(log.author.short()).or_default().insert(log.name);
    }

    /// Notes that a peer has a branch of a device's log that is not here; `true`: that is news.
    pub(super) fn suspect(&mut self, device: ShortId) -> bool {
        self.suspected.insert(device)
    }

    /// Returns how many devices' logs are told of with their earlier heads.
    pub(super) fn doubts(&self) -> usize {
        self.suspected.len()
    }

    /// Says whether a device's log forked.
    pub(super) fn forked(&self, device: ShortId) -> bool {
        self.of.contains_key(&device)
    }

    /// Says whether a peer may have branches of a device's log that are not here.
    pub(super) fn is_doubtful(&self, device: ShortId) -> bool {
        self.forked(device) || self.suspected.contains(&device)
    }

    /// Says whether no log forked.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Returns the devices whose logs forked.
    pub(super) fn devices(&self) -> impl Iterator<Item = ShortId> {
        self.of.keys().copied()
    }

    /// Returns the names of a device's logs, the first branch first.
    pub(super) fn logs(&self, device: ShortId) -> impl Iterator<Item = ShortId> + use<'_> {
        let further = self.of.get(&device).into_iter().flatten();
        std::iter::once(device).chain(further.copied())
    }
}

impl LogState {
    /// Says of what it is a branch.
    pub(super) fn branch(&self) -> Option<Branch> {
        self.left.map(|left| Branch {
            device: self.author,
            of: left.log,
            from: left.size,
        })
    }
}

impl SyncEngine {
    /// Returns the logs of a device.
    pub(super) fn logs_of(&self, device: ShortId) -> impl Iterator<Item = &LogState> {
        self.branches.logs(device).filter_map(|log| self.logs.get(&log))
    }

    /// Returns the log to which event `seq` on the way from the beginning to the end of `log` belongs.
    pub(super) fn holder(&self, log: ShortId, seq: u64) -> ShortId {
        let mut at = log;
        while let Some(left) = self.logs.get(&at).and_then(|log| log.left) {
            if seq >= left.size {
                break;
            }
            at = left.log;
        }
        at
    }

    /// Returns an event on the way from the beginning to the end of a log.
    pub(super) fn event_at(&self, log: ShortId, seq: u64, view: &impl StateView) -> Option<StoredEvent> {
        self.pending.event(view, self.holder(log, seq), seq)
    }

    /// Returns id of the last of the first `size` events of a log, for `size` from 1.
    fn id_at(&self, log: ShortId, size: u64, view: &impl StateView) -> Option<EventId> {
        let state = self.logs.get(&log)?;
        if state.size() == size {
            return Some(state.last_id);
        }
        self.event_at(log, size.checked_sub(1)?, view)
            .map(|event| event.id)
    }

    /// Returns the log of a device whose first `size` events end with this one, and whose own that one is.
    pub(super) fn find_end(
        &self,
        device: ShortId,
        size: u64,
        id16: &[u8; 16],
        view: &impl StateView,
    ) -> Option<ShortId> {
        let logs = self.branches.logs(device).filter(|log| {
            let state = self.logs.get(log);
            state.is_some_and(|state| state.size() >= size)
        });
        let holders: BTreeSet<ShortId> = logs
            .filter_map(|log| Some(self.holder(log, size.checked_sub(1)?)))
            .collect();
        holders
            .into_iter()
            .find(|log| self.id_at(*log, size, view).is_some_and(|id| id.id16() == *id16))
    }

    /// Returns how many events of `log` lie at or before a point of another of the same device.
    pub(super) fn reach(&self, log: ShortId, point: LogPoint) -> u64 {
        let mut at = point;
        while at.log != log {
            let Some(left) = self.logs.get(&at.log).and_then(|log| log.left) else {
                return 0;
            };
            at = LogPoint {
                log: left.log,
                size: left.size.min(at.size),
            };
        }
        at.size
    }

    /// Finds the log of the author after whose first events, as many as its number says, an event comes: it branches off
    /// there. `None`: no log has just these.
    pub(super) fn find_fork(&self, header: &Header, view: &impl StateView) -> Option<Left> {
        let logs = self.branches.logs(header.author.short());
        logs.map(|log| self.holder(log, header.seq)).find_map(|log| {
            let other = self.pending.event(view, log, header.seq)?;
            let other = Header::from_bytes(&other.event.header).ok()?;
            (other.prev_root == header.prev_root).then_some(Left {
                log,
                size: header.seq,
            })
        })
    }

    /// Returns a branch before its first event. Reads all that it shares with the log that it leaves; forks are rare.
    pub(super) fn branch_off(
        &self,
        author: DeviceId,
        first: EventId,
        left: Left,
        view: &impl StateView,
    ) -> Option<LogState> {
        let mut state = LogState {
            name: self.free_name(author.short(), first)?,
            left: Some(left),
            ..LogState::empty(author)
        };
        for seq in 0..left.size {
            let event = self.event_at(left.log, seq, view)?;
            let header = Header::from_bytes(&event.event.header).ok()?;
            let seen = self.local_seen(&header, view);
            state.push(event.id, &header, &seen);
        }
        state.note_seen(&self.with_shared(vec![(left.log, left.size)]));
        Some(state)
    }

    /// Makes up a name that begins as the device's does, so that people see whose it is; `None` if it has too many
    /// branches.
    fn free_name(&self, device: ShortId, first: EventId) -> Option<ShortId> {
        if self.branches.logs(device).count() >= MAX_BRANCHES {
            return None;
        }
        let (begin, _) = device.as_bytes().split_at(ShortId::LEN / 2);
        let ends = first.as_bytes().windows(ShortId::LEN / 2);
        let names = ends.filter_map(|end| ShortId::from_slice(&[begin, end].concat()).ok());
        names.into_iter().find(|name| !self.logs.contains_key(name))
    }

    /// Takes up a branch before its first event.
    pub(super) fn add_branch(&mut self, log: &LogState) {
        self.branches.add(log);
        if let (Some(group), Some(branch)) = (&mut self.group, log.branch()) {
            group.add_branches([(log.name, branch)]);
        }
    }

    /// Returns what an event's author had of each log, with the names of the logs here. What is not here has its author's.
    pub(super) fn local_seen(&self, header: &Header, view: &impl StateView) -> Vec<(ShortId, u64)> {
        let local = |seen: &Seen| {
            let log = if self.branches.forked(seen.device) {
                self.find_end(seen.device, seen.next_seq, &seen.id16, view)
            } else {
                None
            };
            (log.unwrap_or(seen.device), seen.next_seq)
        };
        let named: Vec<_> = header.seen.iter().map(local).collect();
        self.with_shared(named)
    }

    /// Adds what is shared with the logs that these left.
    pub(super) fn with_shared(&self, named: Vec<(ShortId, u64)>) -> Vec<(ShortId, u64)> {
        let mut all: BTreeMap<ShortId, u64> = BTreeMap::new();
        for (log, next) in named {
            let mut at = (log, next);
            loop {
                let known = all.entry(at.0).or_default();
                *known = at.1.max(*known);
                let Some(left) = self.logs.get(&at.0).and_then(|log| log.left) else {
                    break;
                };
                at = (left.log, left.size.min(at.1));
            }
        }
        all.into_iter().collect()
    }

    /// Returns an item with the dots that it names as they are called here; `None` if one of them is of no event in the
    /// past of event `seq` of `log`, which has seen all that its author had (ledger.md 3, base rule).
    ///
    /// Whether it is a version of the item's path is not looked at: that can depend on events without authority, which not
    /// every device has.
    pub(super) fn localize(
        &self,
        item: &Item,
        log: &LogState,
        seq: u64,
        view: &impl StateView,
    ) -> Option<Item> {
        let mut item = item.clone();
        if let Some(dots) = dots_of(&mut item) {
            let mut here = Vec::with_capacity(dots.len());
            for dot in dots.iter() {
                let device = self.log_of_dot(*dot, log, seq, view).ok()?;
                here.extend(device.map(|device| Dot { device, ..*dot }));
            }
            *dots = here;
        }
        Some(item)
    }

    /// Returns the log that a dot names; `None`: one that is not here, since nothing of it counts. Numbers decide where there
    /// is no fork, also for logs of which not every device has all.
    pub(super) fn log_of_dot(
        &self,
        dot: Dot,
        log: &LogState,
        seq: u64,
        view: &impl StateView,
    ) -> Result<Option<ShortId>, NotInPast> {
        let had = |other: ShortId| {
            if other == log.name {
                dot.seq < seq
            } else {
                log.has_seen(other, dot.seq)
            }
        };
        if self.branches.forked(dot.device) {
            let logs = self.branches.logs(dot.device);
            let logs: BTreeSet<ShortId> = logs.map(|log| self.holder(log, dot.seq)).collect();
            let mut meant = logs.into_iter().filter(|log| had(*log));
            let first = meant.next().ok_or(NotInPast)?;
            return if meant.next().is_none() {
                Ok(Some(first))
            } else {
                Err(NotInPast)
            };
        }
        if had(dot.device) {
            return Ok(Some(dot.device));
        }
        if self.branches.is_empty() || self.logs.contains_key(&dot.device) {
            return Err(NotInPast);
        }
        let is_named = |log: &ShortId| {
            let event = self.pending.event(view, *log, dot.seq);
            event.is_some_and(|event| event.id.as_bytes().starts_with(dot.device.as_bytes()))
        };
        let all = self
            .branches
            .devices()
            .flat_map(|device| self.branches.logs(device));
        let mut logs = all.map(|log| self.holder(log, dot.seq));
        // Of a removed device's log its author may have had more than is taken: then not even the branch can be told.
        let had_more = |log: ShortId| {
            let author = self.logs.get(&log).map(|log| log.author);
            author.is_some_and(|author| !self.is_member(&author) && had(author.short()))
        };
        Ok(logs.find(|log| is_named(log) && (had(*log) || had_more(*log))))
    }

    /// Returns a log as it was when its event `seq` was its last, as far as the past of that event goes. Reads the whole log
    /// if any has forked.
    pub(super) fn past_of(&self, log: ShortId, seq: u64, view: &impl StateView) -> Option<LogState> {
        let mut state = self.logs.get(&log)?.clone();
        if self.branches.is_empty() {
            return Some(state);
        }
        let mut seen = Vec::new();
        for seq in 0..=seq {
            let event = self.event_at(log, seq, view)?;
            seen.extend(self.local_seen(&Header::from_bytes(&event.event.header).ok()?, view));
        }
        if let Some(left) = state.left {
            seen.extend(self.with_shared(vec![(left.log, left.size)]));
        }
        state.seen = self.with_shared(seen).into_iter().collect();
        Some(state)
    }

    /// Returns an item with its dots as all devices call them.
    pub(super) fn to_wire(&self, mut item: Item, view: &impl StateView) -> Item {
        for dot in dots_of(&mut item).into_iter().flatten() {
            *dot = self.to_wire_dot(*dot, view);
        }
        match &mut item {
            Item::LockEnd(end) => end.grant = self.to_wire_dot(end.grant, view),
            Item::LockBreak(broken) => broken.grant = self.to_wire_dot(broken.grant, view),
            _ => {}
        }
        item
    }

    fn to_wire_dot(&self, dot: Dot, view: &impl StateView) -> Dot {
        let Some(log) = self.logs.get(&dot.device) else {
            return dot;
        };
        let device = log.author.short();
        let forks = self
            .branches
            .logs(device)
            .filter_map(|log| self.logs.get(&log)?.left);
        let first = forks.map(|left| left.size).min();
        if first.is_none_or(|first| dot.seq < first) {
            return Dot { device, ..dot };
        }
        let event = self.pending.event(view, dot.device, dot.seq);
        let id = event.and_then(|event| ShortId::from_slice(&event.id.as_bytes()[..ShortId::LEN]).ok());
        id.map_or(dot, |device| Dot { device, ..dot })
    }

    /// Returns the members whose logs forked, unless one branch has taken up all others and none of them has gone on since: a
    /// device that was put back from an old copy does so with its next event.
    pub(super) fn forked_members(&self) -> Vec<DeviceId> {
        let is_open = |device: &ShortId| {
            let logs: Vec<&LogState> = self.logs_of(*device).collect();
            let own = |log: &LogState| log.left.map_or(0, |left| left.size);
            let has_all = |log: &&LogState| {
                logs.iter()
                    .all(|other| log.has_seen(other.name, other.size() - 1))
            };
            let knows = |log: &LogState, other: &LogState| log.has_seen(other.name, own(other).max(own(log)));
            let both_live = |log: &&LogState| {
                let mut others = logs.iter().filter(|other| other.name != log.name);
                others.any(|other| knows(log, other) && knows(other, log))
            };
            !logs.iter().any(has_all) || logs.iter().any(both_live)
        };
        let forked = self.branches.devices().filter(is_open);
        let authors = forked.filter_map(|device| Some(self.logs.get(&device)?.author));
        authors.filter(|author| self.is_member(author)).collect()
    }

    /// Says whether a log is one of this device's own.
    pub(super) fn is_own(&self, log: ShortId) -> bool {
        log == self.me.short() || self.logs.get(&log).is_some_and(|log| log.author == self.me)
    }
}

/// A dot names an event that its author had not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotInPast;

fn dots_of(item: &mut Item) -> Option<&mut Vec<Dot>> {
    match item {
        Item::Put(put) => Some(&mut put.base),
        Item::Del { base, .. } => Some(base),
        Item::Discard { drop, .. } => Some(drop),
        _ => None,
    }
}
