//! Checking, applying and making events (ledger.md 1 and 7).

use ed25519_dalek::SigningKey;

use super::{MAX_PUSHES, QUIET, Refused};
use crate::engine::sync::Asked;
use crate::engine::{
    GossipMessage, MAX_PUSH_BYTES, Notification, Output, Request, StateView, StoredEvent, SyncEngine,
};
use crate::ids::{DeviceId, EventId};
use crate::ledger::{Body, EventKind, Header, Item, LogError, LogState, Seen, SignedEvent, VerifiedEvent};
use crate::time::{Hlc, Now};

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
            return Err(Refused::Gap);
        }
        let short = header.author.short();
        if !founding && header.seq >= group.log_limit(short) {
            return Err(Refused::Known);
        }
        let log = self
            .logs
            .get(&short)
            .cloned()
            .unwrap_or_else(|| LogState::empty(header.author));
        match log.check_next(&header) {
            Err(LogError::Known) => return self.known_or_fork(&header, event, view),
            Err(LogError::Gap) => return Err(Refused::Gap),
            Err(_) => return Err(Refused::Bad("an event that does not continue its log")),
            Ok(()) => {}
        }
        let verified = event
            .verify(&group.id)
            .map_err(|_| Refused::Bad("an event that does not verify"))?;
        self.check_clock(&header, log.hlc, view)?;
        self.apply(&verified, log, view);
        Ok(())
    }

    pub(super) fn known_or_fork(
        &mut self,
        header: &Header,
        event: &SignedEvent,
        view: &impl StateView,
    ) -> Result<(), Refused> {
        let stored = self.pending.event(view, header.author.short(), header.seq);
        if stored.is_some_and(|stored| stored.id == event.id()) {
            return Err(Refused::Known);
        }
        Err(Refused::Bad("a second event for one place in a log"))
    }

    /// Checks what an event has seen, and that its clock does not use up what others need for theirs; `newest` is the
    /// clock of the event before it.
    fn check_clock(&self, header: &Header, mut newest: Hlc, view: &impl StateView) -> Result<(), Refused> {
        let mut all_known = true;
        for seen in &header.seen {
            match self.check_seen(seen, header.hlc, view)? {
                Some(clock) => newest = newest.max(clock),
                None => all_known = false,
            }
        }
        let fits = if all_known {
            header.hlc.may_follow(newest)
        } else {
            header.hlc.may_follow_unknown(newest)
        };
        if fits {
            Ok(())
        } else {
            Err(Refused::Bad("an event whose clock is ahead of all dates"))
        }
    }

    /// Checks one entry of `seen`: the event is here, is the named one, and is older by the hybrid clock, which is returned;
    /// `None` if it is none that is taken.
    pub(super) fn check_seen(
        &self,
        seen: &Seen,
        hlc: Hlc,
        view: &impl StateView,
    ) -> Result<Option<Hlc>, Refused> {
        // What is not taken cannot be asked for: its author's peers say what they had of it.
        if seen.next_seq > self.log_limit(seen.device) {
            return Ok(None);
        }
        let log = self.logs.get(&seen.device).ok_or(Refused::Gap)?;
        if log.size() < seen.next_seq {
            return Err(Refused::Gap);
        }
        let (id16, clock) = if log.size() == seen.next_seq {
            (log.last_id.id16(), log.hlc)
        } else {
            let stored = self
                .pending
                .event(view, seen.device, seen.next_seq - 1)
                .ok_or(Refused::Gap)?;
            let header = Header::from_bytes(&stored.event.header).map_err(|_| Refused::Gap)?;
            (stored.id.id16(), header.hlc)
        };
        if id16 != seen.id16 {
            return Err(Refused::Bad("an event that has seen another history"));
        }
        if clock >= hlc {
            return Err(Refused::Bad("an event older than what it has seen"));
        }
        Ok(Some(clock))
    }

    /// Applies a checked event to log, group and paths.
    pub(super) fn apply(&mut self, event: &VerifiedEvent, mut log: LogState, view: &impl StateView) {
        let author = event.header.author;
        let short = author.short();
        log.push(event);
        self.peers.heads_moved();
        self.pending.add_event(StoredEvent {
            author,
            seq: event.header.seq,
            id: event.id,
            kind: event.header.kind.code(),
            event: event.signed.clone(),
        });
        self.pending.set_log(short, log.clone());
        self.logs.insert(short, log.clone());
        let critical = event.body.items.iter().any(Item::is_unknown_critical);
        if critical || event.header.kind.is_unknown_critical() {
            self.notify(Notification::UpgradeNeeded { device: author });
            return;
        }
        self.apply_to_group(event, &log, view);
        if event.header.kind == EventKind::Work {
            self.apply_work(event, view);
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
        let (signed, id) = self.sign_event(key, &log, kind, items, now);
        let Ok(verified) = signed.read_stored() else {
            debug_assert!(false, "an event of our own making is well-formed");
            return;
        };
        self.apply(&verified, log, view);
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
        let seen = self
            .logs
            .iter()
            .filter(|(short, log)| {
                **short != author.short() && own.seen.get(short).copied().unwrap_or(0) < log.size()
            })
            .map(|(short, log)| Seen {
                device: *short,
                next_seq: log.size(),
                id16: log.last_id.id16(),
            })
            .collect();
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
