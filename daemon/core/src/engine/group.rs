//! Who is in the group, and what they may do: the fold of the admin events (roles.md, without revocations).
//!
//! A grant counts for an event if it lies in the event's past, so the outcome does not depend on the order in which
//! events arrive. What was evaluated is kept in the store; only new admin events are looked at.

use std::collections::BTreeMap;

use crate::access::Role;
use crate::encoding::{self, Decoder, ShapeError, array_len, array_of, bytes_of, infallible, optional};
use crate::ids::{DeviceId, Dot, GroupId, ShortId};
pub(super) use crate::ledger::grant_message;
use crate::ledger::{EventKind, Grant, GrantVia, Invite, Item, LogState, VerifiedEvent};
use crate::signature;

const NONCE_CONTEXT: &[u8] = b"p2p-sync/join/1\0";

/// A grant that was found valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveGrant {
    /// The item that made it.
    pub(super) dot: Dot,
    pub(super) role: Role,
    pub(super) name: String,
    /// The invite it redeems.
    pub(super) invite: Option<[u8; 32]>,
}

/// An invite that was found valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveInvite {
    pub(super) dot: Dot,
    pub(super) invite: Invite,
}

/// The members and invites of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) id: GroupId,
    members: BTreeMap<DeviceId, Vec<LiveGrant>>,
    shorts: BTreeMap<ShortId, DeviceId>,
    invites: BTreeMap<[u8; 32], LiveInvite>,
}

impl Group {
    pub(super) fn new(id: GroupId) -> Self {
        Self {
            id,
            members: BTreeMap::new(),
            shorts: BTreeMap::new(),
            invites: BTreeMap::new(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&DeviceId, Role, &str)> {
        self.members.iter().filter_map(|(device, grants)| {
            let best = grants.iter().max_by_key(|grant| (grant.role, grant.dot))?;
            Some((device, best.role, best.name.as_str()))
        })
    }

    pub(super) fn is_member(&self, device: &DeviceId) -> bool {
        self.members.contains_key(device)
    }

    pub(super) fn role(&self, device: &DeviceId) -> Option<Role> {
        self.members.get(device)?.iter().map(|grant| grant.role).max()
    }

    pub(super) fn device(&self, short: ShortId) -> Option<DeviceId> {
        self.shorts.get(&short).copied()
    }

    pub(super) fn grants(&self, device: &DeviceId) -> &[LiveGrant] {
        self.members.get(device).map_or(&[], Vec::as_slice)
    }

    pub(super) fn invite(&self, key: &[u8; 32]) -> Option<&LiveInvite> {
        self.invites.get(key)
    }

    /// Returns how many grants redeem an invite.
    pub(super) fn uses(&self, key: &[u8; 32]) -> u32 {
        let all = self.members.values().flatten();
        u32::try_from(all.filter(|grant| grant.invite.as_ref() == Some(key)).count()).unwrap_or(u32::MAX)
    }

    /// Returns the strongest role among the grants of `log`'s author that lie in the past of the log's last event.
    pub(super) fn role_at(&self, log: &LogState) -> Option<Role> {
        let grants = self.grants(&log.author).iter();
        grants
            .filter(|grant| log.has_seen(grant.dot.device, grant.dot.seq))
            .map(|grant| grant.role)
            .max()
    }

    /// Takes up a Genesis or Admin event; `log` is its author's log with it as the last event. Returns the devices
    /// that became members.
    pub(super) fn apply(&mut self, event: &VerifiedEvent, log: &LogState) -> Vec<DeviceId> {
        let author = event.header.author;
        if event.header.kind == EventKind::Genesis {
            let dot = Dot {
                device: author.short(),
                seq: event.header.seq,
                item: 0,
            };
            if event.id.as_group() == self.id && self.members.is_empty() {
                self.admit(
                    author,
                    LiveGrant {
                        dot,
                        role: Role::Owner,
                        name: String::new(),
                        invite: None,
                    },
                );
                self.apply_items(event, log);
                return vec![author];
            }
            return Vec::new();
        }
        self.apply_items(event, log)
    }

    fn apply_items(&mut self, event: &VerifiedEvent, log: &LogState) -> Vec<DeviceId> {
        let author = event.header.author;
        let mut added = Vec::new();
        for (i, item) in event.body.items.iter().enumerate() {
            let dot = Dot {
                device: author.short(),
                seq: event.header.seq,
                item: u32::try_from(i).unwrap_or(u32::MAX),
            };
            let Some(role) = self.role_at(log) else {
                return added;
            };
            match item {
                Item::Grant(grant) if self.grant_is_valid(grant, role, log) => {
                    if !self.is_member(&grant.device) {
                        added.push(grant.device);
                    }
                    self.admit(grant.device, LiveGrant::of(grant, dot));
                }
                Item::Invite(invite) if invite.role != Role::Owner && role.may_give(invite.role) => {
                    self.invites.entry(invite.key).or_insert(LiveInvite {
                        dot,
                        invite: invite.clone(),
                    });
                }
                _ => {}
            }
        }
        added
    }

    fn grant_is_valid(&self, grant: &Grant, author_role: Role, log: &LogState) -> bool {
        let twin = self
            .shorts
            .get(&grant.device.short())
            .is_some_and(|known| *known != grant.device);
        if twin {
            return false;
        }
        match &grant.via {
            // An author may repeat its own grant to give itself a name.
            GrantVia::Author => {
                author_role.may_give(grant.role) || (grant.device == log.author && grant.role <= author_role)
            }
            GrantVia::Invite { key, sig } => self.invites.get(key).is_some_and(|live| {
                log.has_seen(live.dot.device, live.dot.seq)
                    && grant.role <= live.invite.role
                    && author_role >= Role::Admin
                    && author_role >= grant.role
                    && signature::holds(key, sig, &grant_message(&self.id, &grant.device))
            }),
        }
    }

    fn admit(&mut self, device: DeviceId, grant: LiveGrant) {
        self.shorts.insert(device.short(), device);
        self.members.entry(device).or_default().push(grant);
    }

    /// Encodes for the store: `[group, [[device, [[dot, role, name, invite]…]]…], [[key, dot, role, expires, uses]…]]`.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| {
            infallible(e.array(3));
            infallible(e.bytes(self.id.as_bytes()));
            infallible(e.array(self.members.len() as u64));
            for (device, grants) in &self.members {
                infallible(e.array(2));
                infallible(e.bytes(device.as_bytes()));
                infallible(e.array(grants.len() as u64));
                for grant in grants {
                    infallible(e.array(6));
                    write_dot(e, grant.dot);
                    infallible(e.u8(grant.role.code()));
                    infallible(e.str(&grant.name));
                    match &grant.invite {
                        Some(key) => infallible(e.bytes(key)),
                        None => infallible(e.null()),
                    }
                }
            }
            infallible(e.array(self.invites.len() as u64));
            for (key, live) in &self.invites {
                infallible(e.array(7));
                infallible(e.bytes(key));
                write_dot(e, live.dot);
                infallible(e.u8(live.invite.role.code()));
                match live.invite.expires_ms {
                    Some(ms) => infallible(e.u64(ms)),
                    None => infallible(e.null()),
                }
                infallible(e.u32(live.invite.max_uses));
            }
        })
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ShapeError> {
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 3)?;
        let mut group = Self::new(GroupId::new(bytes_of(&mut d)?));
        for _ in 0..array_len(&mut d)? {
            array_of(&mut d, 2)?;
            let device = DeviceId::new(bytes_of(&mut d)?);
            for _ in 0..array_len(&mut d)? {
                array_of(&mut d, 6)?;
                let dot = read_dot(&mut d)?;
                let role = Role::from_code(d.u64()?).ok_or(ShapeError::new())?;
                let name = d.str()?.to_owned();
                let invite = optional(&mut d, bytes_of)?;
                group.admit(
                    device,
                    LiveGrant {
                        dot,
                        role,
                        name,
                        invite,
                    },
                );
            }
        }
        for _ in 0..array_len(&mut d)? {
            array_of(&mut d, 7)?;
            let key = bytes_of(&mut d)?;
            let dot = read_dot(&mut d)?;
            let role = Role::from_code(d.u64()?).ok_or(ShapeError::new())?;
            let expires_ms = optional(&mut d, |d| Ok(d.u64()?))?;
            let max_uses = d.u32()?;
            let invite = Invite {
                key,
                role,
                expires_ms,
                max_uses,
            };
            group.invites.insert(key, LiveInvite { dot, invite });
        }
        Ok(group)
    }
}

impl LiveGrant {
    fn of(grant: &Grant, dot: Dot) -> Self {
        let invite = match &grant.via {
            GrantVia::Author => None,
            GrantVia::Invite { key, .. } => Some(*key),
        };
        Self {
            dot,
            role: grant.role,
            name: grant.name.clone(),
            invite,
        }
    }
}

fn write_dot(e: &mut encoding::Encoder<'_>, dot: Dot) {
    infallible(e.bytes(dot.device.as_bytes()));
    infallible(e.u64(dot.seq));
    infallible(e.u32(dot.item));
}

fn read_dot(d: &mut Decoder<'_>) -> Result<Dot, ShapeError> {
    Ok(Dot {
        device: ShortId::new(bytes_of(d)?),
        seq: d.u64()?,
        item: d.u32()?,
    })
}

/// Returns what an invite key signs for the listener.
pub(super) fn nonce_message(nonce: &[u8; 32], group: &GroupId, device: &DeviceId) -> Vec<u8> {
    [NONCE_CONTEXT, nonce, group.as_bytes(), device.as_bytes()].concat()
}
