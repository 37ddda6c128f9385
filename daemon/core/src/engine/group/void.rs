//! Whether an event says what its author may not say, so that people can be told.
//!
//! What counts is evaluated elsewhere; this only finds what did not. It is asked once, when the event is taken up.

use super::Group;
use crate::access::{LiveGrant, Role, dominates};
use crate::ids::{DeviceId, Dot, ShortId};
use crate::ledger::{Grant, Invite, Item, VerifiedEvent};

impl Group {
    /// Says whether an item of an admin event that was taken up has no effect for want of its author's rights.
    pub(super) fn is_denied(&self, event: &VerifiedEvent, log: ShortId) -> bool {
        let place = |item| Dot {
            device: log,
            seq: event.header.seq,
            item,
        };
        (0..)
            .zip(&event.body.items)
            .any(|(i, item)| self.is_void(&event.header.author, place(i), item))
    }

    fn is_void(&self, author: &DeviceId, place: Dot, item: &Item) -> bool {
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
            Item::Pin(pin) => {
                let held = self.grants(&pin.device);
                !acting().any(|by| held.iter().any(|grant| dominates(by, grant)))
            }
            Item::Genesis(_)
            | Item::Name(_)
            | Item::Put(_)
            | Item::Del { .. }
            | Item::Discard { .. }
            | Item::Unknown { .. } => false,
        }
    }

    fn is_valid(&self, grant: &Grant, place: Dot) -> bool {
        let mut valid = self.rights.grants(&grant.device).iter();
        valid.any(|valid| valid.place == Some(place))
    }
}

/// Says whether the holder of a grant may make an invite.
fn may_invite(by: &LiveGrant, invite: &Invite) -> bool {
    invite.role != Role::Owner && by.role.may_give(invite.role) && invite.scopes.within(&by.scopes)
}
