//! What the evaluation of roles looks at: the admin events of a group, and how the logs they stand in hang together.
//!
//! A log that forked is a tree of branches. Each branch is a **log** of its own here, named by a [`ShortId`]: the first
//! that arrived by its device's, each further one by a name of its own, with the log and the place from which it
//! branches off. What a branch shares with the log it left belongs to that log. So whatever is said of one log — up to
//! here, seen up to there — is a number.

use std::collections::{BTreeMap, BTreeSet};

use super::{GrantFlags, Role, Scopes};
use crate::ids::{DeviceId, Dot, EventId, ShortId};
use crate::time::Hlc;

/// What an admin event says, as far as it decides about roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminEvent {
    /// Its id.
    pub id: EventId,
    /// Its clock; greater than that of all events in its past.
    pub hlc: Hlc,
    /// Whose event it is.
    pub author: DeviceId,
    /// The log in which it stands.
    pub log: ShortId,
    /// Its place in the log.
    pub seq: u64,
    /// How many events of each other log its author had; of a log that another branches off, at least those they share.
    pub seen: BTreeMap<ShortId, u64>,
    /// Its items that matter here, with their places in the event, in order.
    pub deeds: Vec<(u32, Deed)>,
}

/// An item that decides about roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// See [`GrantDeed`].
    Grant(GrantDeed),
    /// Lets holders of a key become members.
    Invite {
        /// The public key.
        key: [u8; 32],
        /// The strongest role it gives.
        role: Role,
        /// The widest scopes it gives.
        scopes: Scopes,
    },
    /// Ends a device's grants.
    Revoke {
        /// Whose.
        device: DeviceId,
        /// What goes on to count.
        keep: Kept,
    },
    /// Ends an invite.
    Cancel {
        /// The invite's key.
        key: [u8; 32],
    },
}

/// A Grant whose invite, if it names one, has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantDeed {
    /// To whom.
    pub device: DeviceId,
    /// What.
    pub role: Role,
    /// Where.
    pub scopes: Scopes,
    /// What else.
    pub flags: GrantFlags,
    /// The key of the invite by whose power it is made; `None`: its author's own power.
    pub invite: Option<[u8; 32]>,
}

/// A log up to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPoint {
    /// The log.
    pub log: ShortId,
    /// How many events; more than the log shares with the one it branches off.
    pub size: u64,
}

/// What of a revoked device's log goes on to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// What it did before it had seen the Revoke.
    UntilSeen,
    /// What lies at or before one of these, as far as the Revoke's author had them.
    Points(Vec<LogPoint>),
}

/// Where a log branches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// Whose log it is.
    pub device: DeviceId,
    /// The log it left.
    pub of: ShortId,
    /// How many events they share.
    pub from: u64,
}

/// The admin events of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The first owner.
    pub founder: DeviceId,
    /// The recovery key, senior to the first owner.
    pub recovery: DeviceId,
    events: BTreeMap<(Hlc, EventId), AdminEvent>,
    branches: BTreeMap<ShortId, Branch>,
    first_seen: BTreeMap<(ShortId, Dot), u64>,
}

impl History {
    /// Returns the history of a group whose founder has done nothing yet.
    #[must_use]
    pub const fn new(founder: DeviceId, recovery: DeviceId) -> Self {
        Self {
            founder,
            recovery,
            events: BTreeMap::new(),
            branches: BTreeMap::new(),
            first_seen: BTreeMap::new(),
        }
    }

    /// Adds an event.
    pub fn add(&mut self, event: AdminEvent) {
        self.events.insert((event.hlc, event.id), event);
    }

    /// Adds a log that branches off another.
    pub fn add_branch(&mut self, log: ShortId, branch: Branch) {
        self.branches.insert(log, branch);
    }

    /// Says that event `seq` is the first of `log` whose author had the event in which `place` is.
    ///
    /// To be said of each Grant, and of each Revoke that keeps what its device did before it had seen it, for the logs
    /// of the device that it names.
    pub fn note_seen(&mut self, log: ShortId, place: Dot, seq: u64) {
        self.first_seen.insert((log, place), seq);
    }

    /// Returns the events in an order that respects their pasts.
    pub fn events(&self) -> impl Iterator<Item = &AdminEvent> {
        self.events.values()
    }

    /// Returns one event, if it is among them.
    #[must_use]
    pub fn event(&self, hlc: Hlc, id: EventId) -> Option<&AdminEvent> {
        self.events.get(&(hlc, id))
    }

    /// Returns the deeds in an order that respects their pasts, each with its place.
    pub fn deeds(&self) -> impl Iterator<Item = (Dot, &AdminEvent, &Deed)> {
        self.events.values().flat_map(|event| {
            let place = |item| Dot {
                device: event.log,
                seq: event.seq,
                item,
            };
            event
                .deeds
                .iter()
                .map(move |(item, deed)| (place(*item), event, deed))
        })
    }

    /// Returns the logs of a device.
    pub fn logs(&self, device: &DeviceId) -> impl Iterator<Item = ShortId> {
        let device = *device;
        let branches = self
            .branches
            .iter()
            .filter(move |(_, branch)| branch.device == device);
        std::iter::once(device.short()).chain(branches.map(|(log, _)| *log))
    }

    /// Returns where a log branches off another.
    #[must_use]
    pub fn branch(&self, log: ShortId) -> Option<&Branch> {
        self.branches.get(&log)
    }

    /// Returns how many events of `log` lie at or before a point: its own, not those it shares with the log it left.
    /// `None` if not even where `log` begins.
    #[must_use]
    pub fn reach(&self, log: ShortId, point: LogPoint) -> Option<u64> {
        let mut at = point;
        let mut passed = BTreeSet::new();
        while at.log != log {
            let branch = self.branches.get(&at.log).filter(|_| passed.insert(at.log))?;
            at = LogPoint {
                log: branch.of,
                size: branch.from.min(at.size),
            };
        }
        Some(at.size)
    }

    /// Returns the first place in `log` that has `place` in its past, as number and item. A place of the log itself, or
    /// of one it left, is in the past of what follows it in the event.
    #[must_use]
    pub fn first_seen(&self, log: ShortId, place: Dot) -> Option<(u64, u32)> {
        if place.device == log {
            return Some((place.seq, place.item.saturating_add(1)));
        }
        let left = self.branches.get(&log);
        let inherited = left.and_then(|branch| {
            let seen = self.first_seen(branch.of, place)?;
            (seen.0 < branch.from).then_some(seen)
        });
        let own = self.first_seen.get(&(log, place)).map(|seq| (*seq, 0));
        inherited.or(own)
    }
}

impl AdminEvent {
    /// Says whether its author had the event at which a point lies.
    #[must_use]
    pub fn has(&self, point: LogPoint) -> bool {
        if point.log == self.log {
            return point.size <= self.seq;
        }
        self.seen.get(&point.log).is_some_and(|next| point.size <= *next)
    }

    /// Says whether a place lies in the past of item `item` of this event.
    #[must_use]
    pub fn has_seen(&self, place: Dot, item: u32) -> bool {
        if place.device == self.log {
            return (place.seq, place.item) < (self.seq, item);
        }
        self.seen.get(&place.device).is_some_and(|next| place.seq < *next)
    }
}
