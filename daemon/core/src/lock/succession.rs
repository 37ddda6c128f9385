//! How one set of voters follows another without two majorities at any time (locks.md 3, *Reconfiguration*).
//!
//! An owner asks the voters to make room for a set that he names. A voter that does is **sealed**: it grants, keeps and
//! releases nothing more, and says by its signature which slots it had. A majority of such seals is a [`Succession`]: no
//! claim of the old epoch can be granted any more, and every claim that was granted is in one of them at least, so the new
//! voters begin with all slots that any of them names.
//!
//! Seals are for one set, one owner and one try of his: who lets voters go on forgets the seals that he has, and nobody
//! else has any use for them.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};

use super::claim::Nonce;
use super::quorum;
use super::voter::{Slot, SlotId, VoterState, write_slots};
use crate::encoding::{self, infallible};
use crate::ids::{DeviceId, GroupId};
use crate::signature;

const NEXT_CONTEXT: &[u8] = b"p2p-sync/voters/1\0";
const SEAL_CONTEXT: &[u8] = b"p2p-sync/lockseal/1\0";

/// The voters that are to follow others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Next {
    /// Their epoch.
    pub epoch: u64,
    /// Who they are, in order: one, three or five.
    pub voters: Vec<DeviceId>,
    /// The owner who wants them.
    pub owner: DeviceId,
    /// Which of his tries it is.
    pub nonce: Nonce,
}

/// What a voter had when it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Report {
    /// The epoch that ends.
    pub epoch: u64,
    /// What it makes room for: [`Next::hash`].
    pub next: [u8; 32],
    /// Its slots.
    pub slots: BTreeMap<SlotId, Slot>,
}

/// A voter's word that it is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Whose.
    pub voter: DeviceId,
    /// What it had.
    pub report: Report,
    /// Its signature over [`Report::message`].
    pub sig: [u8; 64],
}

/// New voters, with the seals of those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// Who follows.
    pub next: Next,
    /// The seals of a majority.
    pub seals: Vec<Seal>,
}

/// Why new voters do not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionError {
    /// They are not one, three or five different devices in order.
    #[error("There can be one, three or five voters, each once")]
    Voters,
    /// Their epoch is not the next one.
    #[error("The epoch is not the one after the last")]
    Epoch,
    /// A seal is by no voter, by one that sealed already, or for something else.
    #[error("A seal is not one of a voter for this very set")]
    Seal,
    /// There are fewer seals than a majority.
    #[error("The seals are no majority")]
    Quorum,
}

impl Next {
    /// Returns its name: SHA-256 over a context, the group, and CBOR `[epoch uint, owner bstr32, nonce bstr16, voters
    /// [bstr32 …]]`.
    #[must_use]
    pub fn hash(&self, group: &GroupId) -> [u8; 32] {
        let fields = encoding::to_vec(|e| {
            infallible(e.array(4));
            infallible(e.u64(self.epoch));
            infallible(e.bytes(self.owner.as_bytes()));
            infallible(e.bytes(&self.nonce.0));
            infallible(e.array(self.voters.len() as u64));
            for voter in &self.voters {
                infallible(e.bytes(voter.as_bytes()));
            }
        });
        let hasher = Sha256::new().chain_update(NEXT_CONTEXT);
        hasher
            .chain_update(group.as_bytes())
            .chain_update(fields)
            .finalize()
            .into()
    }

    /// Says whether they are as many as there may be, each once.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        matches!(self.voters.len(), 1 | 3 | 5) && self.voters.is_sorted_by(|a, b| a < b)
    }
}

impl Report {
    /// Returns what the voter signs: a context, the group, and CBOR `[epoch uint, next bstr32, slots]`, as in
    /// [`slots_to_bytes`](super::slots_to_bytes).
    #[must_use]
    pub fn message(&self, group: &GroupId) -> Vec<u8> {
        let fields = encoding::to_vec(|e| {
            infallible(e.array(3));
            infallible(e.u64(self.epoch));
            infallible(e.bytes(&self.next));
            write_slots(e, &self.slots);
        });
        [SEAL_CONTEXT, group.as_bytes(), &fields].concat()
    }
}

impl Seal {
    /// Signs a report.
    #[must_use]
    pub fn sign(key: &SigningKey, group: &GroupId, report: Report) -> Self {
        Self {
            voter: DeviceId::new(key.verifying_key().to_bytes()),
            sig: signature::sign(key, &report.message(group)),
            report,
        }
    }

    /// Says whether it is one for these voters, of whom `next` is the hash, by a voter of `epoch`.
    #[must_use]
    pub fn holds(&self, group: &GroupId, epoch: u64, next: &[u8; 32]) -> bool {
        let named = |(id, slot): (&SlotId, &Slot)| *id == slot.claim.id();
        self.report.epoch == epoch
            && self.report.next == *next
            && self.report.slots.iter().all(named)
            && signature::holds(self.voter.as_bytes(), &self.sig, &self.report.message(group))
    }
}

impl Succession {
    /// Checks that these voters follow `voters` of `epoch`, and returns with what each of them begins.
    ///
    /// # Errors
    /// One of [`SuccessionError`].
    pub fn check(
        &self,
        group: &GroupId,
        epoch: u64,
        voters: &[DeviceId],
    ) -> Result<VoterState, SuccessionError> {
        if !self.next.is_well_formed() {
            return Err(SuccessionError::Voters);
        }
        if epoch.checked_add(1) != Some(self.next.epoch) {
            return Err(SuccessionError::Epoch);
        }
        let next = self.next.hash(group);
        let mut sealed = BTreeSet::new();
        for seal in &self.seals {
            let counts = voters.contains(&seal.voter) && sealed.insert(seal.voter);
            if !counts || !seal.holds(group, epoch, &next) {
                return Err(SuccessionError::Seal);
            }
        }
        if sealed.len() < quorum(voters.len()) {
            return Err(SuccessionError::Quorum);
        }
        let reported = self.seals.iter().map(|seal| &seal.report.slots);
        Ok(take_over(self.next.epoch, reported))
    }
}

/// Returns with what each voter of an epoch begins: all that any voter of the one before had. A majority of those holds
/// every claim that was granted, but perhaps only one of them does that is among the seals.
pub fn take_over<'a>(
    epoch: u64,
    reported: impl IntoIterator<Item = &'a BTreeMap<SlotId, Slot>>,
) -> VoterState {
    let mut slots: BTreeMap<SlotId, Slot> = BTreeMap::new();
    for (id, slot) in reported.into_iter().flatten() {
        let known = slots.entry(*id).or_insert_with(|| slot.clone());
        known.durable |= slot.durable;
    }
    VoterState::new(epoch, slots)
}

#[cfg(test)]
mod tests;
