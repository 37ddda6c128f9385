//! Who is in the group, and what they may do: the admin events, and what their evaluation says (roles.md).
//!
//! The outcome is a function of the set of admin events. All of them are kept here, as far as they decide about roles, and
//! evaluated anew when one comes or when a device has heard of what concerns it; both are rare. What was taken up is
//! kept in the store, so that a start does not read the events again.

mod codec;
mod deeds;
mod persons;
mod void;
mod voters;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::deeds::{grant_message, heads_in, nonce_message};
pub(super) use self::voters::Epoch;
use crate::access::{
    AdminEvent, Branch, Deed, GrantDeed, GrantFlags, History, Kept, LiveGrant, LogPoint, Rights, Role,
    Scopes, Writable, evaluate,
};
use crate::ids::{DeviceId, Dot, EventId, GroupId, ShortId};
use crate::ledger::{EventKind, Invite, Item, LogHead, LogState, Person, VerifiedEvent};
use crate::time::Hlc;

/// An invite, whether it still lets anybody in or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownInvite {
    pub(super) dot: Dot,
    pub(super) by: DeviceId,
    pub(super) invite: Invite,
}

/// An item that decides about roles.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownItem {
    item: Item,
    /// The heads it names that its author had, and where they stand.
    points: Vec<(LogHead, LogPoint)>,
}

/// What an event did to the group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Devices that became members.
    pub(super) added: Vec<DeviceId>,
    /// Devices that are members no more.
    pub(super) removed: Vec<DeviceId>,
    /// Devices that may write other paths than before.
    pub(super) current: Vec<DeviceId>,
    /// Whether the event says what its author may not say.
    pub(super) denied: bool,
    /// Whether the voters of an epoch are others than was thought.
    pub(super) other_voters: bool,
    /// Stretches of logs, as numbers from and up to, without, in which other paths may be written than before.
    pub(super) judged: Vec<(ShortId, u64, u64)>,
}

/// The id of events that are only thought of, after all others in the order.
const IMAGINED: EventId = EventId::new([0xff; 32]);

/// The admin events of a group and what they amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) id: GroupId,
    /// What the founder called it.
    name: String,
    /// `None` until the Genesis is here.
    history: Option<History>,
    rights: Rights,
    /// What devices call themselves.
    names: BTreeMap<DeviceId, (Hlc, String)>,
    /// Whose devices are whose.
    persons: BTreeMap<DeviceId, Person>,
    /// The voters, by epoch from 0; none until the Genesis is here.
    epochs: Vec<Epoch>,
    /// The items that decide about roles or voters, and those that say whose device one is.
    items: BTreeMap<Dot, KnownItem>,
    invites: BTreeMap<[u8; 32], KnownInvite>,
    /// The devices that grants name, valid or not.
    granted: BTreeSet<DeviceId>,
    /// The items that the logs of a device are watched for: the first event that has them in its past counts.
    watched: BTreeMap<DeviceId, Vec<Dot>>,
    /// Those of them that were met, by log, with the number of the event.
    met: BTreeMap<(ShortId, Dot), u64>,
}

impl Group {
    pub(super) fn new(id: GroupId) -> Self {
        Self {
            id,
            name: String::new(),
            history: None,
            rights: Rights::default(),
            names: BTreeMap::new(),
            persons: BTreeMap::new(),
            epochs: Vec::new(),
            items: BTreeMap::new(),
            invites: BTreeMap::new(),
            granted: BTreeSet::new(),
            watched: BTreeMap::new(),
            met: BTreeMap::new(),
        }
    }

    /// Returns the members, in order of their ids. The recovery key is none.
    pub(super) fn members(&self) -> impl Iterator<Item = (&DeviceId, Role, &str)> {
        let recovery = self.history.as_ref().map(|history| history.recovery);
        let devices = self
            .rights
            .devices()
            .filter(move |device| Some(**device) != recovery);
        devices.filter_map(|device| Some((device, self.rights.role(device)?, self.name_of(device))))
    }

    /// Returns what a device is called; empty if nobody said.
    pub(super) fn name_of(&self, device: &DeviceId) -> &str {
        let own = self.names.get(device).map(|(_, name)| name);
        let places = self.rights.grants(device).iter().filter_map(|grant| grant.place);
        let given = places
            .filter_map(|place| match &self.items.get(&place)?.item {
                Item::Grant(grant) => Some(&grant.name),
                _ => None,
            })
            .rfind(|name| !name.is_empty());
        own.or(given).map_or("", String::as_str)
    }

    pub(super) fn is_member(&self, device: &DeviceId) -> bool {
        self.rights.role(device).is_some()
    }

    pub(super) fn role(&self, device: &DeviceId) -> Option<Role> {
        self.rights.role(device)
    }

    /// Returns how many events of a log are taken at most: all of a member's, and those of a former one that can count. What
    /// he goes on writing is nobody's business.
    pub(super) fn log_limit(&self, log: ShortId) -> u64 {
        let Some(device) = self.device(log) else {
            // Who was granted something once, by somebody who turned out to have no right to, has no log here.
            return if self.is_named(log) { 0 } else { u64::MAX };
        };
        if self.is_member(&device) || self.recovery() == Some(device) {
            return u64::MAX;
        }
        // Whether its author had heard of a grant before it ended, more of the log may show: that is no matter here, or
        // those who have more would take more.
        let ends = self
            .grants(&device)
            .iter()
            .filter_map(|grant| grant.ends.get(&log));
        ends.map(|to| to.0).max().unwrap_or(0)
    }

    /// Returns how many events of a log are here for certain, if it is that long: none of a device that nobody ever granted
    /// anything. What was written between a removal and the next admission may have come to others only.
    pub(super) fn taken(&self, log: ShortId) -> u64 {
        let Some(device) = self.device(log) else {
            return 0;
        };
        let ended = self.grants(&device).iter().filter(|grant| !grant.is_current());
        let ends = ended.map(|grant| grant.spans.get(&log).map_or(0, |span| span.to.0));
        ends.min().unwrap_or(u64::MAX).min(self.log_limit(log))
    }

    /// Says whether anybody ever granted the device of a log anything, rightly or not.
    pub(super) fn is_named(&self, log: ShortId) -> bool {
        self.device(log).is_some() || self.granted.range(log.devices()).next().is_some()
    }

    /// Says whether anybody ever granted a device anything, rightly or not.
    pub(super) fn was_granted(&self, device: &DeviceId) -> bool {
        self.granted.contains(device) || self.has_log_of(device)
    }

    /// Says whether a device is or was a member: its log is part of the group's ledger.
    pub(super) fn has_log_of(&self, device: &DeviceId) -> bool {
        !self.rights.grants(device).is_empty()
    }

    /// Returns whose log it is, if the device is or was a member.
    pub(super) fn device(&self, log: ShortId) -> Option<DeviceId> {
        let branch = self.history.as_ref().and_then(|history| history.branch(log));
        let short = branch.map_or(log, |branch| branch.device.short());
        self.rights.device(short).copied()
    }

    /// Takes up logs that branch off others.
    pub(super) fn add_branches(&mut self, branches: impl IntoIterator<Item = (ShortId, Branch)>) {
        let Some(history) = &mut self.history else { return };
        let mut any = false;
        for (log, branch) in branches {
            history.add_branch(log, branch);
            any = true;
        }
        if any {
            self.settle();
        }
    }

    /// Returns the valid grants of a device, ended ones too.
    pub(super) fn grants(&self, device: &DeviceId) -> &[LiveGrant] {
        self.rights.grants(device)
    }

    pub(super) fn invite(&self, key: &[u8; 32]) -> Option<&KnownInvite> {
        self.invites.get(key)
    }

    /// Returns the first owner; `None` until the Genesis is here.
    pub(super) fn founder(&self) -> Option<DeviceId> {
        self.history.as_ref().map(|history| history.founder)
    }

    /// Returns the recovery key's device; `None` until the Genesis is here.
    pub(super) fn recovery(&self) -> Option<DeviceId> {
        self.history.as_ref().map(|history| history.recovery)
    }

    /// Returns all invites, in order of their keys.
    pub(super) fn invites(&self) -> impl Iterator<Item = &KnownInvite> {
        self.invites.values()
    }

    /// Returns the Revokes that end anybody's grants.
    pub(super) fn effective_revokes(&self) -> BTreeSet<Dot> {
        let all = self
            .rights
            .devices()
            .flat_map(|device| self.rights.grants(device));
        all.flat_map(|grant| grant.ended_by.iter().copied()).collect()
    }

    /// Returns the item that a place names, if it decides about roles.
    pub(super) fn item(&self, place: Dot) -> Option<&Item> {
        self.items.get(&place).map(|known| &known.item)
    }

    /// Returns the group as it would be if the author of a log, who has heard of everything, said this next.
    pub(super) fn imagine(
        &self,
        log: &LogState,
        items: &[Item],
        find: impl Fn(&DeviceId, &LogHead) -> Option<LogPoint>,
    ) -> Self {
        let mut imagined = self.clone();
        let place = |item| Dot {
            device: log.name,
            seq: log.size().saturating_sub(1),
            item,
        };
        let known = (0..).zip(items);
        let known = known
            .map(|(i, item)| (place(i), KnownItem::new(item.clone(), &find)))
            .collect();
        imagined.note_met(log, log.size().saturating_sub(1));
        imagined.add(IMAGINED, Hlc::from_bits(u64::MAX), log, known);
        imagined.settle();
        imagined
    }

    /// Says whether the author of a log, who has heard of everything, could let somebody in with an invite.
    pub(super) fn could_admit(&self, log: &LogState, key: &[u8; 32]) -> bool {
        let Some(known) = self.invites.get(key) else {
            return false;
        };
        // No device has this name: it is no point of the curve.
        let stranger = DeviceId::new([0xff; 32]);
        let grant = GrantDeed {
            device: stranger,
            role: known.invite.role,
            scopes: known.invite.scopes.clone(),
            flags: GrantFlags::default(),
            invite: Some(*key),
        };
        let mut imagined = self.clone();
        imagined.note_met(log, log.size().saturating_sub(1));
        let Some(history) = &mut imagined.history else {
            return false;
        };
        let deeds = vec![(0, Deed::Grant(grant))];
        history.add(last_event(IMAGINED, Hlc::from_bits(u64::MAX), log, deeds));
        evaluate(history).role(&stranger).is_some()
    }

    /// Returns the devices that ever had a valid grant.
    pub(super) fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.rights.devices()
    }

    /// Returns the widest scopes with which a device may give a role from now on.
    pub(super) fn scopes_to_give(&self, device: &DeviceId, role: Role) -> Option<Scopes> {
        let current = self
            .rights
            .current(device)
            .filter(|grant| grant.role.may_give(role));
        let mut scopes: Vec<&Scopes> = current.map(|grant| &grant.scopes).collect();
        scopes.sort_by_key(|scopes| (!scopes.paths().is_empty(), scopes.paths().len()));
        scopes.first().map(|scopes| (*scopes).clone())
    }

    /// Says whether a device may give a role with these scopes from now on.
    pub(super) fn may_give(&self, device: &DeviceId, role: Role, scopes: &Scopes) -> bool {
        let mut current = self.rights.current(device);
        current.any(|grant| grant.role.may_give(role) && scopes.within(&grant.scopes))
    }

    /// Returns the admin events that were taken up.
    pub(super) fn admin_events(&self) -> impl Iterator<Item = &AdminEvent> {
        self.history.iter().flat_map(History::events)
    }

    /// Says whether an admin event was taken up.
    pub(super) fn has_event(&self, event: &VerifiedEvent) -> bool {
        self.admin_events().any(|known| known.id == event.id)
    }

    /// Returns how many grants redeem an invite.
    pub(super) fn uses(&self, key: &[u8; 32]) -> u32 {
        let all = self
            .rights
            .devices()
            .flat_map(|device| self.rights.grants(device));
        u32::try_from(all.filter(|grant| grant.invite.as_ref() == Some(key)).count()).unwrap_or(u32::MAX)
    }

    /// Returns where a device may write from now on.
    pub(super) fn writable(&self, device: &DeviceId) -> Writable {
        self.rights.writable(device)
    }

    /// Returns where the author of event `seq` of a log may write.
    pub(super) fn writable_at(&self, author: &DeviceId, log: ShortId, seq: u64) -> Writable {
        self.rights.writable_at(author, log, seq)
    }

    /// Returns the strongest role that the author of event `seq` of a log had in it.
    pub(super) fn role_at(&self, author: &DeviceId, log: ShortId, seq: u64) -> Option<Role> {
        self.rights.role_at(author, log, seq)
    }

    /// Takes up an event of any kind; `log` is its author's log with it as the last event, `find` returns where a head
    /// of a device's log stands, if the author had it. `None`: nothing changed.
    pub(super) fn apply(
        &mut self,
        event: &VerifiedEvent,
        log: &LogState,
        find: impl Fn(&DeviceId, &LogHead) -> Option<LogPoint>,
    ) -> Option<Change> {
        if event.header.kind == EventKind::Genesis && !self.found(event) {
            return None;
        }
        let is_admin = matches!(event.header.kind, EventKind::Genesis | EventKind::Admin);
        let met = self.note_met(log, event.header.seq);
        if !is_admin && !met {
            return None;
        }
        if is_admin {
            let place = |item| Dot {
                device: log.name,
                seq: event.header.seq,
                item,
            };
            let items = (0..).zip(&event.body.items);
            let known = items.map(|(i, item)| (place(i), KnownItem::new(item.clone(), &find)));
            self.add(event.id, event.header.hlc, log, known.collect());
        }
        self.history.as_ref()?;
        let (before, epochs) = (std::mem::take(&mut self.rights), std::mem::take(&mut self.epochs));
        self.settle();
        let mut change = self.change_since(&before);
        let begins = |epoch: &Epoch| {
            let at = |place: Dot| (place.device, place.seq) == (log.name, event.header.seq);
            epoch.place.is_none_or(at)
        };
        // Whoever was granted something by voters that begin with this very event comes after it.
        let follow = self.epochs.strip_prefix(epochs.as_slice());
        change.other_voters = !follow.is_some_and(|new| new.iter().all(begins));
        change.denied = is_admin && self.is_denied(event, log.name);
        Some(change)
    }

    /// Finds anew what all that was taken up amounts to.
    fn settle(&mut self) {
        if let Some(history) = &self.history {
            self.rights = evaluate(history);
            self.persons = self.find_persons();
            self.epochs = self.find_epochs();
        }
    }

    /// Adds an admin event.
    fn add(&mut self, id: EventId, hlc: Hlc, log: &LogState, items: Vec<(Dot, KnownItem)>) {
        let mut deeds = Vec::new();
        for (place, known) in items {
            self.take_words(place, &log.author, hlc, &known.item);
            if let Some(deed) = known.deed(&self.id) {
                if let Deed::Grant(grant) = &deed {
                    self.granted.insert(grant.device);
                }
                self.watch(place, &deed);
                deeds.push((place.item, deed));
                self.items.insert(place, known);
            } else if matches!(known.item, Item::Person { .. } | Item::Voters(_)) {
                self.items.insert(place, known);
            }
        }
        if let Some(history) = &mut self.history {
            history.add(last_event(id, hlc, log, deeds));
        }
    }

    /// Takes up the Genesis; `false` if it is another group's, or known.
    fn found(&mut self, event: &VerifiedEvent) -> bool {
        let Some(Item::Genesis(genesis)) = event.body.items.first() else {
            return false;
        };
        if self.history.is_some() || event.id.as_group() != self.id || event.header.seq != 0 {
            return false;
        }
        self.name.clone_from(&genesis.name);
        self.history = Some(History::new(event.header.author, DeviceId::new(genesis.recovery)));
        true
    }

    /// Keeps what an item says to people.
    fn take_words(&mut self, place: Dot, author: &DeviceId, hlc: Hlc, item: &Item) {
        match item {
            Item::Name(name) => {
                let known = self.names.get(author);
                if known.is_none_or(|(at, _)| *at < hlc) {
                    self.names.insert(*author, (hlc, name.clone()));
                }
            }
            Item::Invite(invite) => {
                self.invites.entry(invite.key).or_insert(KnownInvite {
                    dot: place,
                    by: *author,
                    invite: invite.clone(),
                });
            }
            _ => {}
        }
    }

    /// Has the logs of the device that a deed names watched for it.
    fn watch(&mut self, place: Dot, deed: &Deed) {
        let device = match deed {
            Deed::Grant(grant) => grant.device,
            Deed::Revoke {
                device,
                keep: Kept::UntilSeen,
            } => *device,
            _ => return,
        };
        self.watched.entry(device).or_default().push(place);
    }

    /// Notes the items that the author of a log has in the past of its last event, and had not before.
    fn note_met(&mut self, log: &LogState, seq: u64) -> bool {
        let Some(history) = &mut self.history else {
            return false;
        };
        let key = log.name;
        let mut any = false;
        for place in self.watched.get(&log.author).into_iter().flatten() {
            let seen = place.device != key && log.has_seen(place.device, place.seq);
            if seen && !self.met.contains_key(&(key, *place)) {
                self.met.insert((key, *place), seq);
                history.note_seen(key, *place, seq);
                any = true;
            }
        }
        any
    }

    /// Says what has changed.
    fn change_since(&self, before: &Rights) -> Change {
        let mut change = Change::default();
        let devices: BTreeSet<&DeviceId> = before.devices().chain(self.rights.devices()).collect();
        for device in devices {
            let (was, is) = (before.role(device).is_some(), self.rights.role(device).is_some());
            if is && !was {
                change.added.push(*device);
            }
            if was && !is {
                change.removed.push(*device);
            }
            if before.writable(device) != self.rights.writable(device) {
                change.current.push(*device);
            }
            for log in self.history.iter().flat_map(|history| history.logs(device)) {
                let (old, new) = (before.steps(device, log), self.rights.steps(device, log));
                change
                    .judged
                    .extend(differences(&old, &new).map(|(from, to)| (log, from, to)));
            }
        }
        change
    }
}

/// Returns the last event of a log, as far as it decides about roles.
fn last_event(id: EventId, hlc: Hlc, log: &LogState, deeds: Vec<(u32, Deed)>) -> AdminEvent {
    AdminEvent {
        id,
        hlc,
        author: log.author,
        log: log.name,
        seq: log.size().saturating_sub(1),
        seen: log.seen.clone(),
        deeds,
    }
}

/// Returns the stretches in which two step functions differ.
fn differences(
    old: &BTreeMap<u64, Writable>,
    new: &BTreeMap<u64, Writable>,
) -> impl Iterator<Item = (u64, u64)> + use<> {
    let edges: BTreeSet<u64> = old.keys().chain(new.keys()).copied().collect();
    let value = |steps: &BTreeMap<u64, Writable>, at: u64| {
        let step = steps.range(..=at).next_back();
        step.map(|(_, writable)| writable.clone()).unwrap_or_default()
    };
    let ends = edges.iter().skip(1).copied().chain([u64::MAX]);
    let stretches: Vec<(u64, u64)> = edges
        .iter()
        .zip(ends)
        .filter(|(from, _)| value(old, **from) != value(new, **from))
        .map(|(from, to)| (*from, to))
        .collect();
    stretches.into_iter()
}
