//! Checking, applying and making events (ledger.md 1 and 7).

use ed25519_dalek::SigningKey;

use super::{MAX_PUSHES, QUIET, Refused};
use crate::engine::sync::Asked;
use crate::engine::{
    GossipMessage, MAX_PUSH_BYTES, Notification, Output, Request, StateView, StoredEvent, SyncEngine,
};
use crate::ids::{DeviceId, EventId, ShortId};
use crate::ledger::{Body, EventKind, Header, Item, LogState, Seen, SignedEvent, VerifiedEvent};
use crate::time::{Hlc, Now};

/// So many events of a log.
type LogSize = (ShortId, u64);

impl SyncEngine {
    /// Checks an event in full and applies it (ledger.md 7).
    pub(in crate::engine) fn accept(
        &mut self,
        event: &SignedEvent,
        view: &impl StateView,
    ) -> Result<(), Refused> {
        let Some(group) = &self.group else {
            return Err(Refused::Gap);
        };
        let header = Header::from_bytes(&event.header).map_err(|_| Refused::Bad("a malformed header"))?;
        let founding = header.kind == EventKind::Genesis && event.id().as_group() == group.id;
        // It is signed for no group, so that anybody who has it could show it for the device's first event in any.
        if !founding && header.kind == EventKind::Genesis {
            return Err(Refused::Bad("the first event of another group"));
        }
        if !founding && !group.was_granted(&header.author) {
            return Err(Refused::Stranger);
        }
        if !founding && header.seq >= group.log_limit(header.author.short()) {
            return Err(Refused::Known);
        }
        let log = self.find_log(&header, event, view)?;
        let (seen, known) = self.check_past(&header, log.hlc, view)?;
        if log.check_next(&header, &known).is_err() {
            return Err(Refused::Bad("an event that does not continue its log"));
        }
        let verified = event
            .verify(&group.id)
            .map_err(|_| Refused::Bad("an event that does not verify"))?;
        if log.size() == log.left.map_or(u64::MAX, |left| left.size) {
            self.add_branch(&log);
        }
        let seen = self.with_shared(seen);
        let (name, seq) = (log.name, log.size());
        let late = self.is_late(&log);
        self.apply(&verified, log, &seen, view);
        if late {
            self.judge_again(&[(name, seq, seq + 1)], view);
        }
        Ok(())
    }

    /// Says whether events that were applied have seen the next one of a log: they came while its author was thought to be
    /// removed, and what they replaced of his was not here.
    fn is_late(&self, log: &LogState) -> bool {
        let (device, seq) = (log.author.short(), log.size());
        let has_seen = |other: &LogState| other.has_seen(log.name, seq) || other.has_seen(device, seq);
        let mut others = self.logs.values().filter(|other| other.author != log.author);
        others.any(has_seen)
    }

    /// Returns the log that an event continues; a new one if it branches off.
    fn find_log(
        &self,
        header: &Header,
        event: &SignedEvent,
        view: &impl StateView,
    ) -> Result<LogState, Refused> {
        let device = header.author.short();
        let id = event.id();
        if self.find_end(device, header.seq + 1, &id.id16(), view).is_some() {
            return Err(Refused::Known);
        }
        let logs = self.branches.logs(device).filter_map(|log| self.logs.get(&log));
        let continues = |log: &&LogState| log.size() == header.seq && log.peaks.root() == header.prev_root;
        let mut logs = logs.peekable();
        if logs.peek().is_none() {
            let first = LogState::empty(header.author);
            return if header.seq == 0 {
                Ok(first)
            } else {
                Err(Refused::Gap)
            };
        }
        let longest = self.logs_of(device).map(LogState::size).max().unwrap_or(0);
        if let Some(log) = logs.find(continues) {
            return Ok(log.clone());
        }
        if header.seq > longest {
            return Err(Refused::Gap);
        }
        let is_member = self
            .group
            .as_ref()
            .is_some_and(|group| group.is_member(&header.author));
        if !is_member {
            return Err(Refused::Known);
        }
        let Some(left) = self.find_fork(header, view) else {
            return Err(Refused::Branch(device));
        };
        let branch = self.branch_off(header.author, id, left, view);
        // One more than are taken; whoever makes so many is to be removed.
        branch.ok_or(Refused::Known)
    }

    /// Checks what an event has seen, and that its clock does not use up what others need for theirs; `newest` is the
    /// clock of the event before it. Returns what it has seen with the names of the logs here, and as much of it as is here: of
    /// a removed device's log that is not taken nobody can say which branch is meant.
    fn check_past(
        &self,
        header: &Header,
        mut newest: Hlc,
        view: &impl StateView,
    ) -> Result<(Vec<LogSize>, Vec<LogSize>), Refused> {
        let (mut past, mut known) = (Vec::with_capacity(header.seen.len()), Vec::new());
        for seen in &header.seen {
            // If all the rest is here, whoever let this one in did so where his own log counts no more: nobody who has not
            // seen that ever hears who it is.
            if self.is_nobodys(seen.device) {
                past.push((seen.device, seen.next_seq));
                continue;
            }
            let (here, clock) = self.check_seen(seen, header.hlc, view)?;
            past.push(here);
            if let Some(clock) = clock {
                newest = newest.max(clock);
                known.push(here);
            }
        }
        let fits = if known.len() == past.len() {
            header.hlc.may_follow(newest)
        } else {
            header.hlc.may_follow_unknown(newest)
        };
        if fits {
            Ok((past, known))
        } else {
            Err(Refused::Bad("an event whose clock is ahead of all dates"))
        }
    }

    /// Says whether a log is of a device that nobody ever granted anything, by what is known here.
    fn is_nobodys(&self, log: ShortId) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| !group.is_named(log)) && self.logs_of(log).next().is_none()
    }

    /// Checks one entry of `seen`: the event is here, and is older by the hybrid clock. Returns it with the name of the log,
    /// and its clock; no clock if it is none that is taken.
    pub(super) fn check_seen(
        &self,
        seen: &Seen,
        hlc: Hlc,
        view: &impl StateView,
    ) -> Result<(LogSize, Option<Hlc>), Refused> {
        // What is not taken cannot be asked for: its author's peers say what they had of it.
        if seen.next_seq > self.log_limit(seen.device) {
            return Ok(((seen.device, seen.next_seq), None));
        }
        let longest = self.logs_of(seen.device).map(LogState::size).max().unwrap_or(0);
        if longest < seen.next_seq {
            return Err(Refused::Gap);
        }
        let Some(log) = self.find_end(seen.device, seen.next_seq, &seen.id16, view) else {
            let author = self.logs.get(&seen.device).map(|log| log.author);
            // No further branch of a removed device's log is taken.
            return match author.filter(|author| !self.is_member(author)) {
                Some(_) => Ok(((seen.device, seen.next_seq), None)),
                None => Err(Refused::Branch(seen.device)),
            };
        };
        let clock = match self.logs.get(&log) {
            Some(state) if state.size() == seen.next_seq => state.hlc,
            _ => {
                let stored = self.event_at(log, seen.next_seq - 1, view).ok_or(Refused::Gap)?;
                Header::from_bytes(&stored.event.header)
                    .map_err(|_| Refused::Gap)?
                    .hlc
            }
        };
        if clock >= hlc {
            return Err(Refused::Bad("an event older than what it has seen"));
        }
        Ok(((log, seen.next_seq), Some(clock)))
    }

    /// Applies a checked event to log, group and paths.
    pub(super) fn apply(
        &mut self,
        event: &VerifiedEvent,
        mut log: LogState,
        seen: &[(ShortId, u64)],
        view: &impl StateView,
    ) {
        let author = event.header.author;
        log.push(event.id, &event.header, seen);
        self.peers.heads_moved();
        self.pending.add_event(StoredEvent {
            author,
            log: log.name,
            seq: event.header.seq,
            id: event.id,
            kind: event.header.kind.code(),
            event: event.signed.clone(),
        });
        self.pending.set_log(log.clone());
        self.logs.insert(log.name, log.clone());
        let critical = event.body.items.iter().any(Item::is_unknown_critical);
        if critical || event.header.kind.is_unknown_critical() {
            self.notify(Notification::UpgradeNeeded { device: author });
            return;
        }
        self.apply_to_group(event, &log, view);
        if event.header.kind == EventKind::Work {
            self.apply_work(event, &log, view);
        }
    }

    /// Makes an event of this device's, applies it, and tells the members once it is durable.
    pub(in crate::engine) fn publish(
        &mut self,
        kind: EventKind,
        items: Vec<Item>,
        now: Now,
        view: &impl StateView,
    ) {
        let key = self.key.clone();
        self.publish_as(&key, kind, items, now, view);
    }

    /// Makes an event of the device that has this key, as [`Self::publish`] does for this device.
    pub(in crate::engine) fn publish_as(
        &mut self,
        key: &SigningKey,
        kind: EventKind,
        items: Vec<Item>,
        now: Now,
        view: &impl StateView,
    ) {
        let log = self.log_of(DeviceId::new(key.verifying_key().to_bytes()));
        let items = items.into_iter().map(|item| self.to_wire(item, view)).collect();
        let (signed, id) = self.sign_event(key, &log, kind, items, now);
        let Ok(verified) = signed.read_stored() else {
            debug_assert!(false, "an event of our own making is well-formed");
            return;
        };
        let seen = self.local_seen(&verified.header, view);
        self.apply(&verified, log, &seen, view);
        self.peers.quiet = Some(now.boot.after(QUIET));
        self.broadcast(&signed, &verified.header, id);
    }

    pub(in crate::engine) fn own_log(&self) -> LogState {
        self.log_of(self.me)
    }

    fn log_of(&self, device: DeviceId) -> LogState {
        let known = self.logs.get(&device.short()).cloned();
        known.unwrap_or_else(|| LogState::empty(device))
    }

    pub(super) fn sign_event(
        &mut self,
        key: &SigningKey,
        own: &LogState,
        kind: EventKind,
        items: Vec<Item>,
        now: Now,
    ) -> (SignedEvent, EventId) {
        let author = own.author;
        let newest = self.logs.values().map(|log| log.hlc).max().unwrap_or_default();
        let unseen = self.logs.iter().filter(|(name, log)| {
            **name != own.name && own.seen.get(name).copied().unwrap_or(0) < log.size()
        });
        let mut seen: Vec<Seen> = unseen
            .map(|(_, log)| Seen {
                device: log.author.short(),
                next_seq: log.size(),
                id16: log.last_id.id16(),
            })
            .collect();
        seen.sort_unstable();
        let header = Header {
            author,
            seq: own.size(),
            prev_root: own.peaks.root(),
            hlc: newest.next(now.wall_ms),
            wall_ms: now.wall_ms,
            seen,
            kind,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let body = Body {
            seed: self.random.bytes16(),
            items,
        };
        let group = self
            .group
            .as_ref()
            .map_or_else(|| crate::ids::GroupId::new([0; 32]), |group| group.id);
        SignedEvent::sign(key, &group, header, &body)
    }

    pub(super) fn broadcast(&mut self, event: &SignedEvent, header: &Header, id: EventId) {
        let members: Vec<DeviceId> = self
            .peers
            .map
            .iter()
            .filter(|(device, peer)| self.is_member(device) && peer.pushes < MAX_PUSHES)
            .map(|(device, _)| *device)
            .collect();
        if members.is_empty() {
            return;
        }
        if event.len() <= MAX_PUSH_BYTES {
            for device in &members {
                if let Some(peer) = self.peers.map.get_mut(device) {
                    peer.pushes += 1;
                }
                self.ask(
                    *device,
                    Asked::Push,
                    Request::Push {
                        events: vec![event.clone()],
                    },
                );
            }
        }
        let message = GossipMessage::EventAnnounced {
            author: header.author,
            seq: header.seq,
            id,
            header: event.header.clone(),
            signature: event.signature,
        };
        self.emit(Output::Gossip(message));
    }
}
