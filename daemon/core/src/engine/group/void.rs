//! Whether an event says what its author may not say, so that people can be told.
//!
//! What counts is evaluated elsewhere; this only finds what did not. It is asked when the event is taken up, and when
//! somebody reads the ledger.

use std::collections::BTreeSet;

use super::Group;
use crate::access::{LiveGrant, Role};
use crate::ids::{Dot, ShortId};
use crate::ledger::{EventKind, Grant, Invite, Item, VerifiedEvent};
use crate::rel_path::RelPath;

impl Group {
    /// Returns the places of the items of an event that was taken up which have no effect: for want of its author's rights,
    /// or because events of its kind do not say such a thing.
    pub(in crate::engine) fn void_items(&self, event: &VerifiedEvent, log: ShortId) -> Vec<u32> {
        let (author, seq) = (&event.header.author, event.header.seq);
        let writable = self.writable_at(author, log, seq);
        let mut written = BTreeSet::new();
        let mut is_void = |i: u32, item| match event.header.kind {
            EventKind::Work => match Item::path(item) {
                Some(path) => !writable.covers(path) || is_second(&mut written, path, item),
                // Of locks the engine knows.
                None => !matches!(item, Item::Unknown { .. }) && !item.is_of_lock(),
            },
            EventKind::Genesis | EventKind::Admin => {
                let place = Dot {
                    device: log,
                    seq,
                    item: i,
                };
                let is_late = matches!(item, Item::Genesis(_)) && event.header.kind == EventKind::Admin;
                item.path().is_some() || is_late || self.is_void(event, place, item)
            }
            EventKind::Unknown(_) => false,
        };
        let items = (0..).zip(&event.body.items);
        items
            .filter_map(|(i, item)| is_void(i, item).then_some(i))
            .collect()
    }

    /// Says whether an item of an admin event that was taken up has no effect for want of its author's rights.
    pub(super) fn is_denied(&self, event: &VerifiedEvent, log: ShortId) -> bool {
        let place = |item| Dot {
            device: log,
            seq: event.header.seq,
            item,
        };
        let is_owner = || self.role_at(&event.header.author, log, event.header.seq) == Some(Role::Owner);
        (0..).zip(&event.body.items).any(|(i, item)| {
            // Of two owners who choose voters at once, one comes to nothing.
            let is_second = matches!(item, Item::Voters(_)) && is_owner();
            !is_second && self.is_void(event, place(i), item)
        })
    }

    fn is_void(&self, event: &VerifiedEvent, place: Dot, item: &Item) -> bool {
        let author = &event.header.author;
        let acting = || self.rights.live_at(author, place.device, (place.seq, place.item));
        match item {
            Item::Grant(grant) => !self.is_valid(grant, place),
            Item::Invite(invite) => !acting().any(|by| may_invite(by, invite)),
            Item::Cancel { key } => {
                let role = self.invite(key).map_or(Role::Viewer, |known| known.invite.role);
                !acting().any(|by| by.role.may_give(role))
            }
            Item::Revoke(revoke) => {
                let held = self.grants(&revoke.device);
                let ends = held.iter().any(|grant| grant.ended_by.contains(&place));
                // Where nothing is left to end, it still says what its author may say of others.
                !ends && (!held.is_empty() || !acting().any(|by| by.role.may_give(Role::Viewer)))
            }
            Item::Person { device, .. } => {
                let history = self.history.as_ref();
                let known = history.and_then(|history| history.event(event.header.hlc, event.id));
                !known.is_some_and(|known| self.may_tag(known, place, device))
            }
            Item::Voters(_) => !self.is_followed(place),
            // Only events of work say such things.
            Item::LockGrant(_) | Item::LockEnd(_) | Item::LockBreak(_) => true,
            Item::Genesis(_)
            | Item::Name(_)
            | Item::Put(_)
            | Item::Del { .. }
            | Item::Discard { .. }
            | Item::Unknown { .. } => false,
        }
    }

    pub(super) fn is_valid(&self, grant: &Grant, place: Dot) -> bool {
        let mut valid = self.rights.grants(&grant.device).iter();
        valid.any(|valid| valid.place == Some(place))
    }
}

/// Says whether the holder of a grant may make an invite.
fn may_invite(by: &LiveGrant, invite: &Invite) -> bool {
    invite.role != Role::Owner && by.role.may_give(invite.role) && invite.scopes.within(&by.scopes)
}

/// Says whether an item writes a path that an earlier one of its event wrote.
fn is_second<'a>(written: &mut BTreeSet<&'a RelPath>, path: &'a RelPath, item: &Item) -> bool {
    !matches!(item, Item::Discard { .. }) && !written.insert(path)
}
