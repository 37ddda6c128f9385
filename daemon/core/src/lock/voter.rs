//! One voter: what it keeps, and what it answers (locks.md 3).
//!
//! [`VoterState`] is what must be durable before an answer leaves; when a lease runs out is kept beside it, by the boot
//! clock, and begins anew with each start of the daemon. A voter that may have lost something of its state answers
//! nothing but [`Answer::Forgot`] until the epoch changes.

mod state;

use std::collections::BTreeMap;

use self::state::note_set;
pub(super) use self::state::write_slots;
pub use self::state::{Sealed, Slot, SlotId, VoterState, slots_from_bytes, slots_to_bytes};
use super::claim::{Claim, Nonce, Token};
use super::resource::Resource;
use super::succession::Report;
use crate::ids::{DeviceId, ShortId};
use crate::time::BootInstant;

/// What a device asks of a voter. Who asks is known from the connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// To be granted a claim.
    Acquire(Claim),
    /// To keep what was granted a while longer, or for good.
    Renew {
        /// The epoch of the voters asked; the claim may be from one before.
        epoch: u64,
        /// What was granted.
        claim: Claim,
        /// Whether it is to last until it is released or broken.
        durable: bool,
    },
    /// To let go.
    Release {
        /// The epoch of the voters asked.
        epoch: u64,
        /// What to let go.
        nonce: Nonce,
        /// Its token.
        token: Token,
        /// How many events of the holder's log the next holder must have.
        last: u64,
    },
    /// To vote in a set of voters if it comes to it. A device that never said so, or has forgotten that it did, does not.
    Stand {
        /// Which.
        next: [u8; 32],
    },
    /// To grant nothing more, for a new set of voters.
    Seal {
        /// The epoch that ends.
        epoch: u64,
        /// What comes after it.
        next: [u8; 32],
    },
    /// To go on after all.
    Unseal {
        /// What does not come after it.
        next: [u8; 32],
    },
}

/// What a voter answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// It is kept for whoever asked. To be signed, and to go with what the voter has of the resources.
    Granted,
    /// Somebody else has something of it.
    Busy {
        /// Who.
        holder: DeviceId,
        /// Under which token.
        token: Token,
        /// What.
        resources: Vec<Resource>,
    },
    /// The token is not above what was let go, or too far above it.
    Stale {
        /// The next is to be just above this.
        floor: u64,
    },
    /// It is a voter of another epoch.
    WrongEpoch {
        /// Which.
        epoch: u64,
    },
    /// It makes room for another set of voters.
    Sealed {
        /// Which.
        next: [u8; 32],
    },
    /// What it makes room with.
    Reported(Report),
    /// Whoever asks must not.
    Denied,
    /// An event that it needs has not arrived here.
    NotYet,
    /// It has too many slots.
    Full,
    /// It has lost its state and waits for the next epoch.
    Forgot,
    /// There is nothing of it to let go here: it ran out, or never came. Whoever the voter lets in next may do without the
    /// holder's last event.
    Gone,
    /// Done: let go, or unsealed.
    Done,
}

/// An [`Answer`] with what goes along with a granted claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voted {
    /// What.
    pub answer: Answer,
    /// The signature of the [`Vote`](super::Vote), if a claim was granted.
    pub sig: Option<[u8; 64]>,
    /// How many events of which logs the voter has that speak of what was granted, in order.
    pub has: Vec<(ShortId, u64)>,
}

impl From<Answer> for Voted {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            sig: None,
            has: Vec::new(),
        }
    }
}

/// What a voter's ledger says.
pub trait Known {
    /// Says whether `device` may change all of `resources`.
    fn may_write(&self, device: &DeviceId, resources: &[Resource]) -> bool;
    /// Says whether `device` may choose voters.
    fn may_choose_voters(&self, device: &DeviceId) -> bool;
    /// Returns the greatest number of a valid lock of this epoch; 0 if there is none.
    fn highest_number(&self, epoch: u64) -> u64;
    /// Says whether the lock of this claim is recorded, and not ended.
    fn has_grant(&self, claim: &Claim) -> bool;
    /// Says whether so many events of a device's log have arrived.
    fn has_log(&self, device: &DeviceId, size: u64) -> bool;
}

/// One voter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voter {
    state: VoterState,
    /// When each slot ends that does not last.
    ends: BTreeMap<SlotId, BootInstant>,
}

impl Voter {
    /// How far a token may be above all that are known, so that nobody uses up all numbers.
    pub const MAX_STEP: u64 = 65_536;
    /// Slots of one holder that last: as many as a person could still look through.
    pub const MAX_DURABLE: usize = 1_000;
    /// Slots of one holder: those that last, and leases enough for the files that one person edits. More would let one
    /// editor fill the voter.
    pub const MAX_OF_HOLDER: usize = Self::MAX_DURABLE + 64;
    /// Sets of voters that it stands for, or remembers not to make room for: more than are asked for within the life of a
    /// request.
    pub const MAX_SETS: usize = 16;
    /// Bytes of its slots with which it can make room for others: the reports of three fit into one event.
    pub const MAX_REPORT: usize = 256 << 10;
    /// Slots in all: some megabytes.
    pub const MAX_SLOTS: usize = 10_000;

    /// Goes on from what was stored; every lease begins anew, since nobody knows how long the daemon was off.
    #[must_use]
    pub fn new(state: VoterState, now: BootInstant) -> Self {
        let mut voter = Self {
            state,
            ends: BTreeMap::new(),
        };
        for slot in voter.state.slots.values().filter(|slot| !slot.durable) {
            voter.ends.insert(slot.claim.id(), now.after(slot.claim.ttl));
        }
        voter
    }

    /// Puts a voter together again that was taken apart, without a restart.
    #[must_use]
    pub const fn from_parts(state: VoterState, ends: BTreeMap<SlotId, BootInstant>) -> Self {
        Self { state, ends }
    }

    /// Answers a request of `from`. If the state changes, it must be durable before the answer leaves.
    pub fn handle_request(
        &mut self,
        from: &DeviceId,
        request: &Request,
        known: &impl Known,
        now: BootInstant,
    ) -> Answer {
        if let Request::Stand { next } = request {
            return self.stand(from, *next, known);
        }
        if self.state.forgot {
            return Answer::Forgot;
        }
        self.expire(now);
        match request {
            // See above.
            Request::Stand { .. } => Answer::Denied,
            Request::Acquire(claim) => self.acquire(from, claim, known, now),
            Request::Renew {
                epoch,
                claim,
                durable,
            } => self.renew(from, *epoch, claim, *durable, known, now),
            Request::Release {
                epoch,
                nonce,
                token,
                last,
            } => self.release(*epoch, (*from, *nonce), *token, *last, known),
            Request::Seal { epoch, next } => self.seal(from, *epoch, *next, known),
            Request::Unseal { next } => self.unseal(from, *next, known),
        }
    }

    /// Becomes a voter of another set, with what it takes over from the one before. If it does not stand for that, it must not
    /// vote in it: it may have before, and have forgotten.
    pub fn enter(&mut self, epoch: u64, set: [u8; 32], slots: BTreeMap<SlotId, Slot>, now: BootInstant) {
        let mut stands = std::mem::take(&mut self.state.stands);
        let stood = stands.contains(&set);
        stands.retain(|other| *other != set);
        let state = VoterState {
            set,
            stands,
            unsealed: std::mem::take(&mut self.state.unsealed),
            forgot: !stood,
            ..VoterState::new(epoch, slots)
        };
        *self = Self::new(state, now);
    }

    /// Lets go of what the ledger shows to be ended or broken.
    pub fn remove(&mut self, id: &SlotId) {
        let Some(slot) = self.state.slots.remove(id) else {
            return;
        };
        self.ends.remove(id);
        self.raise(slot.claim.token);
    }

    /// Returns what must be durable.
    #[must_use]
    pub const fn state(&self) -> &VoterState {
        &self.state
    }

    /// Returns when the leases end.
    #[must_use]
    pub const fn ends(&self) -> &BTreeMap<SlotId, BootInstant> {
        &self.ends
    }

    fn acquire(&mut self, from: &DeviceId, claim: &Claim, known: &impl Known, now: BootInstant) -> Answer {
        if let Some(refusal) = self.why_closed(claim.token.epoch) {
            return refusal;
        }
        let allowed =
            claim.holder == *from && claim.is_well_formed() && known.may_write(from, &claim.resources);
        if !allowed {
            return Answer::Denied;
        }
        let id = claim.id();
        match self.state.slots.get(&id) {
            Some(slot) if slot.claim == *claim => return Answer::Granted,
            Some(_) => return Answer::Denied,
            None => {}
        }
        let blocking = self
            .state
            .slots
            .values()
            .filter(|slot| slot.claim.conflicts_with(claim));
        if let Some(slot) = blocking.max_by_key(|slot| slot.claim.token) {
            return Answer::Busy {
                holder: slot.claim.holder,
                token: slot.claim.token,
                resources: slot.claim.resources.clone(),
            };
        }
        if claim.token.n <= self.state.floor {
            return Answer::Stale {
                floor: self.state.floor,
            };
        }
        if let Some(floor) = self.known_far_below(claim.token, known) {
            return Answer::Stale { floor };
        }
        let own = self
            .state
            .slots
            .keys()
            .filter(|(holder, _)| holder == from)
            .count();
        if own >= Self::MAX_OF_HOLDER || self.state.slots.len() >= Self::MAX_SLOTS {
            return Answer::Full;
        }
        self.ends.insert(id, now.after(claim.ttl));
        let slot = Slot {
            claim: claim.clone(),
            durable: false,
        };
        self.state.slots.insert(id, slot);
        Answer::Granted
    }

    fn renew(
        &mut self,
        from: &DeviceId,
        epoch: u64,
        claim: &Claim,
        durable: bool,
        known: &impl Known,
        now: BootInstant,
    ) -> Answer {
        if let Some(refusal) = self.why_closed(epoch) {
            return refusal;
        }
        if claim.holder != *from || (durable && !claim.durable) {
            return Answer::Denied;
        }
        // Before anything else, since what is taken up here again lasts no longer than it would without.
        if durable && !known.has_grant(claim) {
            return Answer::NotYet;
        }
        let id = claim.id();
        if !self.state.slots.contains_key(&id) {
            // One of an epoch before, which nobody brought over, has no number to be judged by.
            if claim.token.epoch != self.state.epoch {
                return Answer::Stale {
                    floor: self.state.floor,
                };
            }
            let answer = self.acquire(from, claim, known, now);
            if answer != Answer::Granted {
                return answer;
            }
        }
        self.keep(&id, claim, durable, now)
    }

    /// Keeps a slot that is there, as its holder asked.
    fn keep(&mut self, id: &SlotId, claim: &Claim, durable: bool, now: BootInstant) -> Answer {
        let kept = self
            .state
            .slots
            .values()
            .filter(|slot| slot.durable && slot.claim.holder == id.0);
        let full = kept.count() >= Self::MAX_DURABLE;
        let Some(slot) = self.state.slots.get_mut(id).filter(|slot| slot.claim == *claim) else {
            return Answer::Denied;
        };
        if durable && !slot.durable {
            if full {
                return Answer::Full;
            }
            slot.durable = true;
        }
        if slot.durable {
            self.ends.remove(id);
        } else {
            self.ends.insert(*id, now.after(claim.ttl));
        }
        Answer::Granted
    }

    fn release(&mut self, epoch: u64, id: SlotId, token: Token, last: u64, known: &impl Known) -> Answer {
        // What was reported when it was sealed comes back with the next epoch: let go now, nobody would let it go there.
        if let Some(refusal) = self.why_closed(epoch) {
            return refusal;
        }
        if !known.has_log(&id.0, last) {
            return Answer::NotYet;
        }
        match self.state.slots.get(&id) {
            Some(slot) if slot.claim.token != token => return Answer::Denied,
            Some(_) => self.remove(&id),
            None => {
                // An Acquire that is still on its way must not be granted when it comes.
                if self.known_far_below(token, known).is_none() {
                    self.raise(token);
                }
                return Answer::Gone;
            }
        }
        Answer::Done
    }

    fn stand(&mut self, from: &DeviceId, next: [u8; 32], known: &impl Known) -> Answer {
        // It was in it already: what it granted then it may have forgotten since.
        if self.state.set == next || !known.may_choose_voters(from) {
            return Answer::Denied;
        }
        note_set(&mut self.state.stands, next);
        Answer::Done
    }

    fn seal(&mut self, from: &DeviceId, epoch: u64, next: [u8; 32], known: &impl Known) -> Answer {
        if epoch != self.state.epoch {
            return Answer::WrongEpoch {
                epoch: self.state.epoch,
            };
        }
        if !known.may_choose_voters(from) {
            return Answer::Denied;
        }
        // Its seals were thrown away, or will be if they come now.
        if self.state.unsealed.contains(&next) {
            return Answer::Denied;
        }
        if slots_to_bytes(&self.state.slots).len() > Self::MAX_REPORT {
            return Answer::Full;
        }
        let wanted = Sealed { next, by: *from };
        let sealed = *self.state.sealed.get_or_insert(wanted);
        if sealed != wanted {
            return Answer::Sealed { next: sealed.next };
        }
        Answer::Reported(Report {
            epoch,
            next,
            slots: self.state.slots.clone(),
        })
    }

    fn unseal(&mut self, from: &DeviceId, next: [u8; 32], known: &impl Known) -> Answer {
        let may = match self.state.sealed {
            // Only who has the seals can throw them away.
            Some(sealed) if sealed.next == next => sealed.by == *from,
            _ => known.may_choose_voters(from),
        };
        if !may {
            return Answer::Denied;
        }
        if self.state.sealed.is_some_and(|sealed| sealed.next == next) {
            self.state.sealed = None;
        }
        note_set(&mut self.state.unsealed, next);
        Answer::Done
    }

    /// Returns why nothing of this epoch is granted, kept or released here.
    const fn why_closed(&self, epoch: u64) -> Option<Answer> {
        if epoch != self.state.epoch {
            return Some(Answer::WrongEpoch {
                epoch: self.state.epoch,
            });
        }
        match self.state.sealed {
            Some(sealed) => Some(Answer::Sealed { next: sealed.next }),
            None => None,
        }
    }

    /// Returns the greatest number that is known, if this one is too far above it.
    fn known_far_below(&self, token: Token, known: &impl Known) -> Option<u64> {
        let highest = self.state.floor.max(known.highest_number(self.state.epoch));
        (token.n > highest.saturating_add(Self::MAX_STEP)).then_some(highest)
    }

    /// Drops the leases that have run out.
    fn expire(&mut self, now: BootInstant) {
        let over: Vec<SlotId> = self
            .ends
            .iter()
            .filter(|(_, end)| **end <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.remove(&id);
        }
    }

    fn raise(&mut self, token: Token) {
        if token.epoch == self.state.epoch {
            self.state.floor = self.state.floor.max(token.n);
        }
    }
}

#[cfg(test)]
mod tests;
