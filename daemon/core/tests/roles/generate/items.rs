//! Random items.

use p2p_sync_core::access::{GrantFlags, Role};

use super::Maker;
use crate::roles::world::{Deed, FOUNDER, Grant, Keep, RECOVERY, Scope, Set};

impl Maker {
    pub(super) fn role(&mut self) -> Role {
        match self.rng.below(100) {
            0..28 => Role::Owner,
            28..62 => Role::Admin,
            62..84 => Role::Editor,
            _ => Role::Viewer,
        }
    }

    pub(super) fn flags(&mut self) -> GrantFlags {
        let bits = match self.rng.below(10) {
            0..6 => 0,
            6..9 => 4,
            _ => self.rng.below(8) as u8,
        };
        GrantFlags::from_bits(bits).unwrap_or_default()
    }

    pub(super) fn scope(&mut self) -> Scope {
        let any = Scope::ALL[self.rng.below(Scope::ALL.len())];
        if self.rng.chance(75) { Scope::Whole } else { any }
    }

    pub(super) fn deeds(&mut self, author: usize, past: Set) -> Vec<Deed> {
        let count = match self.rng.below(10) {
            0 => 0,
            1..6 => 1,
            6..9 => 2,
            _ => 3,
        };
        (0..count).flat_map(|_| self.deed(author, past)).collect()
    }

    /// Makes an item, or the two with which a device is lowered.
    pub(super) fn deed(&mut self, author: usize, past: Set) -> Vec<Deed> {
        match self.rng.below(100) {
            0..28 => vec![Deed::Grant(self.grant(author))],
            28..42 => vec![self.invite(author)],
            42..48 => self
                .rng
                .pick(&self.keys.clone())
                .map(|key| Deed::Cancel { key })
                .into_iter()
                .collect(),
            48..56 => {
                let device = self.forked();
                self.kept_branch(device, past)
            }
            56..66 => {
                let device = self.target();
                let revoke = self.revoke(device, past);
                let mut grant = self.grant(author);
                grant.device = device;
                let (first, second) = (revoke, Deed::Grant(grant));
                if self.rng.chance(80) {
                    vec![first, second]
                } else {
                    vec![second, first]
                }
            }
            _ => {
                let device = self.target();
                vec![self.revoke(device, past)]
            }
        }
    }

    pub(super) fn target(&mut self) -> usize {
        let device = self.rng.below(self.world.devices);
        if device == RECOVERY && self.rng.chance(80) {
            FOUNDER
        } else {
            device
        }
    }

    pub(super) fn grant(&mut self, author: usize) -> Grant {
        let mut role = self.role();
        if self.best[author] == Role::Admin && self.rng.chance(70) {
            role = [Role::Editor, Role::Viewer][self.rng.below(2)];
        }
        Grant {
            device: self.target(),
            role,
            scope: self.scope(),
            flags: self.flags(),
            invite: None,
        }
    }

    pub(super) fn invite(&mut self, author: usize) -> Deed {
        let fresh = self.keys.len() as u8;
        let key = match self.rng.pick(&self.keys) {
            Some(key) if self.rng.chance(5) => key,
            _ => fresh,
        };
        let mut role = self.role();
        if role == Role::Owner && self.rng.chance(70)
            || self.best[author] == Role::Admin && self.rng.chance(70)
        {
            role = Role::Editor;
        }
        Deed::Invite {
            key,
            role,
            scope: self.scope(),
        }
    }

    pub(super) fn revoke(&mut self, device: usize, past: Set) -> Deed {
        let mut own: Vec<usize> = self.world.events_of(device).collect();
        if self.rng.chance(92) {
            own.retain(|event| past.contains(*event));
        }
        let keep = match self.rng.below(100) {
            0..25 => Keep::Heads(Vec::new()),
            25..45 => Keep::UntilSeen,
            45..65 => Keep::Heads(own.last().copied().into_iter().collect()),
            _ => Keep::Heads(
                (0..self.rng.below(3))
                    .filter_map(|_| self.rng.pick(&own))
                    .collect(),
            ),
        };
        Deed::Revoke { device, keep }
    }

    pub(super) fn forked(&mut self) -> usize {
        let is_forked = |device: &usize| self.world.heads(*device).len() > 1;
        let forked: Vec<usize> = (0..self.world.devices).filter(is_forked).collect();
        match self.rng.pick(&forked) {
            Some(device) if self.rng.chance(90) => device,
            _ => self.target(),
        }
    }

    /// Makes a Revoke that keeps one branch of a device's log, often with a Grant behind it: so the device stays, without
    /// its other branches.
    pub(super) fn kept_branch(&mut self, device: usize, past: Set) -> Vec<Deed> {
        let mut own: Vec<usize> = self.world.events_of(device).collect();
        if self.rng.chance(92) {
            own.retain(|event| past.contains(*event));
        }
        let Some(keep) = self.rng.pick(&own) else {
            return Vec::new();
        };
        let mut deeds = vec![Deed::Revoke {
            device,
            keep: Keep::Heads(vec![keep]),
        }];
        if self.rng.chance(70) {
            let role = self.best[device];
            deeds.push(Deed::Grant(Grant::plain(device, role)));
        }
        deeds
    }
}
