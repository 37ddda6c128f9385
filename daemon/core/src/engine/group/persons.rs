//! Whose devices are whose, for people: the tags in Grants, Invites and Persons. They give no rights.
//!
//! Of what was said of a device the newest counts, in the order in which admin events are evaluated, so all devices that have
//! the same events agree. A Grant without a tag says nothing, and leaves what was said before. Who may say it: an owner of any
//! device, an admin of his own and of those that were no admins or owners as far as he had heard; what others say is void.

use std::collections::{BTreeMap, BTreeSet};

use super::Group;
use crate::access::{AdminEvent, History, LiveGrant, Role};
use crate::ids::{DeviceId, Dot};
use crate::ledger::{Grant, GrantVia, Item, Person};

impl Group {
    /// Returns whose device one is, if anybody said.
    pub(in crate::engine) fn person_of(&self, device: &DeviceId) -> Option<&Person> {
        self.persons.get(device)
    }

    /// Finds out whose devices are whose.
    pub(super) fn find_persons(&self) -> BTreeMap<DeviceId, Person> {
        let invited: BTreeSet<([u8; 32], &Person)> = self
            .items
            .values()
            .filter_map(|known| match &known.item {
                Item::Invite(invite) => Some((invite.key, invite.person.as_ref()?)),
                _ => None,
            })
            .collect();
        let mut persons = BTreeMap::new();
        for event in self.history.iter().flat_map(History::events) {
            for (place, item) in self.items_of(event) {
                let (device, person) = match item {
                    Item::Grant(grant) if self.is_valid(grant, place) => {
                        let said = grant
                            .person
                            .as_ref()
                            .filter(|said| is_said(grant, said, &invited));
                        let Some(said) = said else { continue };
                        (grant.device, Some(said))
                    }
                    Item::Person { device, person } if self.may_tag(event, place, device) => {
                        (*device, person.as_ref())
                    }
                    _ => continue,
                };
                match person {
                    Some(person) => persons.insert(device, person.clone()),
                    None => persons.remove(&device),
                };
            }
        }
        persons
    }

    /// Says whether the author of an event may say there whose device one is.
    pub(super) fn may_tag(&self, event: &AdminEvent, place: Dot, device: &DeviceId) -> bool {
        let is_senior = |grant: &LiveGrant| {
            let heard = grant.place.is_none_or(|made| event.has_seen(made, place.item));
            grant.level() <= 1 && heard
        };
        let held = self.rights.grants(device);
        let at = (place.seq, place.item);
        let mut acting = self.rights.live_at(&event.author, place.device, at);
        acting.any(|by| match by.role {
            Role::Owner => !held.is_empty(),
            Role::Admin => *device == event.author || (!held.is_empty() && !held.iter().any(is_senior)),
            Role::Editor | Role::Viewer => false,
        })
    }

    pub(super) fn items_of(&self, event: &AdminEvent) -> impl Iterator<Item = (Dot, &Item)> {
        let from = Dot {
            device: event.log,
            seq: event.seq,
            item: 0,
        };
        let to = Dot {
            item: u32::MAX,
            ..from
        };
        self.items
            .range(from..=to)
            .map(|(place, known)| (*place, &known.item))
    }
}

/// Says whether a Grant's tag counts: the power of an invite goes no further than what it says.
fn is_said(grant: &Grant, person: &Person, invited: &BTreeSet<([u8; 32], &Person)>) -> bool {
    match &grant.via {
        GrantVia::Author => true,
        GrantVia::Invite { key, .. } => invited.contains(&(*key, person)),
    }
}
