//! From items to deeds, and what is signed by invites.

use super::KnownItem;
use crate::access::{Deed, GrantDeed, Kept, LogPoint};
use crate::ids::{DeviceId, GroupId};
pub(in crate::engine) use crate::ledger::grant_message;
use crate::ledger::{GrantVia, Item, Keep, LogHead, Revoke};
use crate::signature;

const NONCE_CONTEXT: &[u8] = b"p2p-sync/join/1\0";

impl KnownItem {
    /// Takes an item; `find` returns where a head of a device's log stands, if the item's author had it.
    pub(super) fn new(item: Item, find: impl Fn(&DeviceId, &LogHead) -> Option<LogPoint>) -> Self {
        let points = heads_in(&item)
            .into_iter()
            .filter_map(|(device, head)| Some((head, find(&device, &head)?)))
            .collect();
        Self { item, points }
    }

    /// Returns what the item does to the roles; `None`: nothing.
    pub(super) fn deed(&self, group: &GroupId) -> Option<Deed> {
        Some(match &self.item {
            Item::Grant(grant) => {
                let invite = match &grant.via {
                    GrantVia::Author => None,
                    GrantVia::Invite { key, sig } => {
                        let signed = signature::holds(key, sig, &grant_message(group, &grant.device));
                        Some(*key).filter(|_| signed)
                    }
                };
                if invite.is_none() && grant.via != GrantVia::Author {
                    return None;
                }
                Deed::Grant(GrantDeed {
                    device: grant.device,
                    role: grant.role,
                    scopes: grant.scopes.clone(),
                    flags: grant.flags,
                    invite,
                })
            }
            Item::Invite(invite) => Deed::Invite {
                key: invite.key,
                role: invite.role,
                scopes: invite.scopes.clone(),
            },
            Item::Revoke(revoke) => Deed::Revoke {
                device: revoke.device,
                keep: match &revoke.keep {
                    Keep::UntilSeen => Kept::UntilSeen,
                    Keep::Heads(_) => Kept::Points(self.points.iter().map(|(_, point)| *point).collect()),
                },
            },
            Item::Cancel { key } => Deed::Cancel { key: *key },
            _ => return None,
        })
    }
}

/// Returns the heads of devices' logs that an item names.
pub(in crate::engine) fn heads_in(item: &Item) -> Vec<(DeviceId, LogHead)> {
    match item {
        Item::Revoke(Revoke {
            device,
            keep: Keep::Heads(heads),
            ..
        }) => heads.iter().map(|head| (*device, *head)).collect(),
        _ => Vec::new(),
    }
}

/// Returns what an invite key signs for the listener.
pub(in crate::engine) fn nonce_message(nonce: &[u8; 32], group: &GroupId, device: &DeviceId) -> Vec<u8> {
    [NONCE_CONTEXT, nonce, group.as_bytes(), device.as_bytes()].concat()
}
