//! What devices do on purpose to each other.

use p2p_sync_core::access::{GrantFlags, Role};

use super::{Maker, invite_key};
use crate::roles::world::{Deed, Grant, Keep, Place, Scope, Set};

impl Maker {
    pub(super) fn revokes(&self) -> Vec<(Place, usize)> {
        let revokes = self.world.deeds().filter_map(|(place, deed)| match deed {
            Deed::Revoke { device, .. } => Some((place, *device)),
            Deed::Grant(_) | Deed::Invite { .. } | Deed::Cancel { .. } => None,
        });
        revokes.collect()
    }

    /// Lets a revoked device, which says that it has not seen it, revoke its revoker.
    pub(super) fn retaliate(&mut self) {
        let Some((place, device)) = self.rng.pick(&self.revokes()) else {
            return;
        };
        if self.is_twin(device) {
            return;
        }
        let revoker = self.world.events[place.0].author;
        let unaware = |event: &usize| *event != place.0 && !self.world.events[*event].past.contains(place.0);
        let own: Vec<usize> = self.world.events_of(device).filter(unaware).collect();
        let prev = if self.rng.chance(70) {
            own.last().copied()
        } else {
            self.rng.pick(&own)
        };
        let seen: Set = if self.rng.chance(50) {
            self.world.events[place.0].past
        } else {
            Set::default()
        };
        let past = self.world.closure(seen.iter().chain(prev).collect());
        let mut deeds = vec![self.revoke(revoker, past)];
        deeds.extend(self.rng.chance(30).then(|| self.grant(device)).map(Deed::Grant));
        self.add(device, prev, seen, deeds);
    }

    /// Revokes a revoker up to just before what it revoked.
    pub(super) fn undo_revoker(&mut self) {
        let Some((place, _)) = self.rng.pick(&self.revokes()) else {
            return;
        };
        let revoker = self.world.events[place.0].author;
        let before = self.world.events[place.0].prev;
        let keep = Keep::Heads(before.into_iter().collect());
        let by = self.actor();
        let seen: Set = if self.rng.chance(70) {
            [place.0].into_iter().collect()
        } else {
            before.into_iter().collect()
        };
        let prev = self.prev(by);
        self.add(
            by,
            prev,
            seen,
            vec![Deed::Revoke {
                device: revoker,
                keep,
            }],
        );
    }

    /// Redeems an invite, with what its inviter and its canceller did meanwhile seen or not.
    pub(super) fn redeem(&mut self) {
        let invites: Vec<(Place, u8, Role, Scope)> = self
            .world
            .deeds()
            .filter_map(|(place, deed)| match deed {
                Deed::Invite { key, role, scope } => Some((place, *key, *role, *scope)),
                Deed::Grant(_) | Deed::Cancel { .. } | Deed::Revoke { .. } => None,
            })
            .collect();
        let Some((place, key, mut role, mut scope)) = self.rng.pick(&invites) else {
            return;
        };
        if self.rng.chance(30) {
            role = self.role();
        }
        if self.rng.chance(20) {
            scope = self.scope();
        }
        let grant = Grant {
            device: self.rng.below(self.world.devices),
            role,
            scope,
            flags: if self.rng.chance(95) {
                GrantFlags::default()
            } else {
                self.flags()
            },
            invite: Some(key),
        };
        let by = match self.rng.pick(&self.boxes) {
            Some(device) if self.rng.chance(40) && !self.is_twin(device) => device,
            _ => self.device(),
        };
        let mut seen = self.view(by);
        if self.rng.chance(85) {
            seen.insert(place.0);
        }
        let prev = self.prev(by);
        self.add(by, prev, seen, vec![Deed::Grant(grant)]);
    }

    pub(super) fn remove_each_other(&mut self) {
        let (one, other) = (self.actor(), self.actor());
        let common: Set = self.known[one]
            .iter()
            .filter(|event| self.known[other].contains(*event))
            .collect();
        for (by, device) in [(one, other), (other, one)] {
            let unaware = |event: &usize| common.contains(*event);
            let prev = self.world.events_of(by).rfind(unaware);
            let mut deeds = vec![self.revoke(device, common)];
            if self.rng.chance(20) {
                deeds.insert(0, Deed::Grant(self.grant(by)));
            }
            self.add(by, prev, common, deeds);
        }
    }

    /// Keeps one branch of a log, and does it again: the same device or another, having seen the first or not.
    pub(super) fn keep_branch(&mut self) {
        let (mut by, device) = (self.actor(), self.forked());
        let own = self.world.events_of(device).collect();
        let mut seen = if self.rng.chance(50) { own } else { self.known[by] };
        for _ in 0..2 {
            let deeds = self.kept_branch(device, seen);
            if deeds.is_empty() {
                return;
            }
            let prev = self.prev(by);
            let kept = self.add(by, prev, seen, deeds);
            if self.rng.chance(50) {
                by = self.actor();
            }
            if self.rng.chance(50) {
                seen.insert(kept);
            }
        }
    }

    pub(super) fn ends_inviter(&mut self) {
        let inviters: Vec<usize> = self
            .world
            .deeds()
            .filter(|(_, deed)| invite_key(deed).is_some())
            .map(|(place, _)| self.world.events[place.0].author)
            .collect();
        let Some(inviter) = self.rng.pick(&inviters) else {
            return;
        };
        let by = self.actor();
        let deed = self.revoke(inviter, self.known[by]);
        self.act(by, Some(vec![deed]));
    }
}
