//! What the evaluation of roles found: which grants count, where, and for which events.

use std::collections::BTreeMap;

use super::{GrantFlags, Role, Scopes};
use crate::ids::{DeviceId, Dot, ShortId};
use crate::rel_path::RelPath;

/// A place in a log: number of the event, and item.
pub type Position = (u64, u32);

/// Where owner grants stand: the smaller, the senior.
pub type Rank = Vec<Position>;

/// A stretch of a log in which a grant is live: from the first up to, without, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first place.
    pub from: Position,
    /// The first place behind it.
    pub to: Position,
}

/// A valid grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveGrant {
    /// The item that made it; `None`: the Genesis itself.
    pub place: Option<Dot>,
    /// To whom.
    pub device: DeviceId,
    /// What.
    pub role: Role,
    /// Its rank among owner grants; empty for others.
    pub rank: Rank,
    /// Where.
    pub scopes: Scopes,
    /// What else.
    pub flags: GrantFlags,
    /// The invite by whose power it was made.
    pub invite: Option<[u8; 32]>,
    /// In which stretch of each of the device's logs it is live; logs in which it never is are left out.
    pub spans: BTreeMap<ShortId, Span>,
    /// Where it ends in each of the device's logs, also where its author never heard of it, as far as the log is known.
    pub ends: BTreeMap<ShortId, Position>,
    /// The Revokes that end it.
    pub ended_by: Vec<Dot>,
}

/// The outcome of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    grants: BTreeMap<DeviceId, Vec<LiveGrant>>,
}

/// Where the author of an event may write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Writable(Vec<Scopes>);

impl Span {
    /// The end of a span that nothing ends.
    pub const OPEN: Position = (u64::MAX, u32::MAX);

    /// Says whether a place lies in it.
    #[must_use]
    pub fn contains(&self, at: Position) -> bool {
        self.from <= at && at < self.to
    }
}

impl LiveGrant {
    /// Returns 0 for an owner's, 1 for an admin's, 2 for any other.
    #[must_use]
    pub const fn level(&self) -> u8 {
        level(self.role)
    }

    /// Says whether it is live at a place.
    #[must_use]
    pub fn is_live_at(&self, log: ShortId, at: Position) -> bool {
        self.spans.get(&log).is_some_and(|span| span.contains(at))
    }

    /// Says whether it will count for what its device does once it has heard of everything.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.ended_by.is_empty()
    }
}

/// Returns a role's level: the smaller, the stronger.
#[must_use]
pub const fn level(role: Role) -> u8 {
    match role {
        Role::Owner => 0,
        Role::Admin => 1,
        Role::Editor | Role::Viewer => 2,
    }
}

impl Writable {
    /// Says whether this path is among them.
    #[must_use]
    pub fn covers(&self, path: &RelPath) -> bool {
        self.0.iter().any(|scopes| scopes.covers(path))
    }
}

impl Rights {
    pub(super) fn add(&mut self, grant: LiveGrant) {
        self.grants.entry(grant.device).or_default().push(grant);
    }

    /// Returns the valid grants of a device, live or ended.
    #[must_use]
    pub fn grants(&self, device: &DeviceId) -> &[LiveGrant] {
        self.grants.get(device).map_or(&[], Vec::as_slice)
    }

    /// Returns the devices that ever had a valid grant.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.grants.keys()
    }

    /// Returns the device of this short name that ever had a valid grant.
    #[must_use]
    pub fn device(&self, short: ShortId) -> Option<&DeviceId> {
        self.grants
            .range(short.devices())
            .next()
            .map(|(device, _)| device)
    }

    /// Returns a device's grants that are live at a place of one of its logs.
    pub fn live_at(&self, device: &DeviceId, log: ShortId, at: Position) -> impl Iterator<Item = &LiveGrant> {
        self.grants(device)
            .iter()
            .filter(move |grant| grant.is_live_at(log, at))
    }

    /// Returns the strongest role that a device has at a place of one of its logs.
    #[must_use]
    pub fn role_at(&self, device: &DeviceId, log: ShortId, seq: u64) -> Option<Role> {
        self.live_at(device, log, (seq, u32::MAX))
            .map(|grant| grant.role)
            .max()
    }

    /// Returns where the author of event `seq` of a log may write.
    #[must_use]
    pub fn writable_at(&self, device: &DeviceId, log: ShortId, seq: u64) -> Writable {
        let live = self.live_at(device, log, (seq, u32::MAX));
        Writable::of(live)
    }

    /// Returns a device's grants that count for what it does from now on.
    pub fn current(&self, device: &DeviceId) -> impl Iterator<Item = &LiveGrant> {
        self.grants(device).iter().filter(|grant| grant.is_current())
    }

    /// Returns the strongest role that a device has from now on; `None`: it is no member.
    #[must_use]
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.current(device).map(|grant| grant.role).max()
    }

    /// Returns where a device may write from now on.
    #[must_use]
    pub fn writable(&self, device: &DeviceId) -> Writable {
        Writable::of(self.current(device))
    }

    /// Returns the numbers at which what the author of a log may write changes, each with what holds from there on. The
    /// first is 0.
    #[must_use]
    pub fn steps(&self, device: &DeviceId, log: ShortId) -> BTreeMap<u64, Writable> {
        let spans = self
            .grants(device)
            .iter()
            .filter_map(|grant| grant.spans.get(&log));
        let mut edges: Vec<u64> = spans
            .flat_map(|span| [span.from.0, span.from.0.saturating_add(1), span.to.0])
            .collect();
        edges.push(0);
        edges.sort_unstable();
        edges.dedup();
        let mut steps: BTreeMap<u64, Writable> = BTreeMap::new();
        for seq in edges {
            let now = self.writable_at(device, log, seq);
            if steps.last_key_value().is_none_or(|(_, last)| *last != now) {
                steps.insert(seq, now);
            }
        }
        steps
    }
}

impl Writable {
    fn of<'a>(grants: impl Iterator<Item = &'a LiveGrant>) -> Self {
        let mut scopes: Vec<Scopes> = grants
            .filter(|grant| grant.role.may_write())
            .map(|grant| grant.scopes.clone())
            .collect();
        scopes.sort();
        scopes.dedup();
        Self(scopes)
    }
}
