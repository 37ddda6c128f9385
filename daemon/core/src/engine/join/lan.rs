//! Joining without a ticket: devices of the local network that trust each other (`--trust-lan`).
//!
//! The smallest of the devices that wait founds a group, the others ask it to be admitted; where there is a group
//! already, its devices are asked in turn, since not all of them may admit others. Admitting a device renews the
//! connection to it, which may drop the answer, so a device asks until it is in a group, and does not found one of its
//! own as long as it is connected to one that has a group. If it did nevertheless, being alone, it leaves it when
//! somebody who admitted it shows up.

use std::time::Duration;

use crate::engine::group::Group;
use crate::engine::sync::Asked;
use crate::engine::{Phase, Request, RequestFailed, Response, StateView, SyncEngine};
use crate::ids::{DeviceId, GroupId};
use crate::ledger::{EventKind, Header, SignedEvent};
use crate::ticket::Ticket;
use crate::time::Now;

/// How long the local network must have been quiet before a group is founded on it.
pub(super) const LAN_QUIET: Duration = Duration::from_secs(3);
/// How long to wait for another device to found the group that it should found.
const LAN_WAIT: Duration = Duration::from_secs(20);
/// Devices of the local network that are remembered.
const MAX_LAN: usize = 256;

impl SyncEngine {
    /// A device of the local network told about itself.
    pub(in crate::engine) fn lan_peer(&mut self, device: DeviceId, group: Option<GroupId>, now: Now) {
        if !self.trust_lan || (self.joining.lan.len() >= MAX_LAN && !self.joining.lan.contains_key(&device)) {
            return;
        }
        let known = self.joining.lan.insert(device, (group, now.boot));
        if self.phase != Phase::NoGroup || self.group.is_some() {
            return;
        }
        if known.map(|(group, _)| group) != Some(group) {
            self.joining.lan_found_at = Some(now.boot.after(LAN_QUIET));
        }
        self.ask_lan(device);
    }

    /// Asks a device of the local network that has a group to be admitted.
    pub(super) fn ask_lan(&mut self, device: DeviceId) {
        let has_group = self
            .joining
            .lan
            .get(&device)
            .is_some_and(|(group, _)| group.is_some());
        if has_group && self.group.is_none() {
            self.ask_admission(device);
        }
    }

    /// Asks the next of these, in the order of their ids, of those that are connected: the one that was asked last may
    /// not be allowed to admit anybody.
    fn ask_next(&mut self, mut grouped: Vec<DeviceId>) {
        grouped.retain(|device| self.peers.get(device).is_some());
        let after = |device: &&DeviceId| Some(**device) > self.joining.lan_last;
        if let Some(device) = grouped.iter().find(after).or(grouped.first()) {
            self.joining.lan_last = Some(*device);
            self.ask_lan(*device);
        }
    }

    /// Asks a device of the local network to be admitted, one at a time.
    fn ask_admission(&mut self, device: DeviceId) {
        if self.trust_lan && !self.joining.lan_asked && self.peers.get(&device).is_some() {
            self.joining.lan_asked = true;
            let name = self.name.clone();
            self.ask(device, Asked::TrustLan, Request::JoinTrustLan { name });
        }
    }

    /// A member of a group that is not ours shows its way in: it takes us for a member, since it admitted us and we did
    /// not get the answer. A device that has nobody else in its group asks once more.
    pub(super) fn shown_other_group(&mut self, from: DeviceId, events: &[SignedEvent]) {
        if self.joining.left.is_some() && founded_by(events) == self.joining.left {
            return;
        }
        let local = self.peers.get(&from).is_some_and(|peer| peer.local);
        if local && self.is_alone() {
            self.ask_admission(from);
        }
    }

    /// Says whether this device is in no group with others, nor about to be.
    fn is_alone(&self) -> bool {
        let alone = |group: &Group| group.members().count() == 1 && group.is_member(&self.me);
        let joins = self.joining.active.is_some() || self.joining.asking.is_some();
        !joins && self.group.as_ref().is_none_or(alone)
    }

    /// Takes the answer of a device of the local network that was asked to admit us.
    pub(super) fn lan_answered(&mut self, from: DeviceId, result: Result<Response, RequestFailed>, now: Now) {
        self.joining.lan_asked = false;
        let Ok(Response::Accepted { events }) = result else {
            return;
        };
        let group = founded_by(&events);
        let ours = self.group.as_ref().map(|group| group.id);
        let other = |group: &GroupId| Some(*group) != ours && Some(*group) != self.joining.left;
        if let Some(group) = group.filter(|group| other(group) && self.is_alone()) {
            let ticket = Ticket::new(group, [0; 32], []);
            self.joined(from, &ticket, &events, None, now);
        }
    }

    /// The smallest device makes the group; the others wait for it.
    pub(super) fn lan_is_quiet(&mut self, now: Now, view: &impl StateView) {
        let connected = |device: &DeviceId| self.peers.get(device).is_some();
        self.joining
            .lan
            .retain(|device, (_, heard)| connected(device) || now.boot.since(*heard) < LAN_WAIT);
        let has_group = |(_, (group, _)): &(&DeviceId, &(Option<GroupId>, _))| group.is_some();
        let grouped: Vec<DeviceId> = self
            .joining
            .lan
            .iter()
            .filter(has_group)
            .map(|(id, _)| *id)
            .collect();
        let smaller = self.joining.lan.keys().any(|device| *device < self.me);
        self.joining.lan_asked = false;
        if !grouped.is_empty() {
            self.joining.lan_found_at = Some(now.boot.after(LAN_QUIET));
            self.ask_next(grouped);
        } else if smaller {
            self.joining.lan_found_at = Some(now.boot.after(LAN_QUIET));
        } else {
            self.found_group(now, view);
        }
    }
}

/// Returns the group that one of these events founds.
fn founded_by(events: &[SignedEvent]) -> Option<GroupId> {
    let founds = |event: &&SignedEvent| {
        Header::from_bytes(&event.header).is_ok_and(|header| header.kind == EventKind::Genesis)
    };
    events.iter().find(founds).map(|event| event.id().as_group())
}
