//! This device as a voter: what it keeps for others, and what it answers them (locks.md 3).
//!
//! What it must not forget is a setting, so it is durable before an answer leaves. A voter whose state is an old copy, or gone,
//! answers only that it forgot. What the ledger shows to be over it lets go by itself: there the holder's last write has
//! come before.

use std::collections::BTreeMap;

use super::{Recovered, StateView, SyncEngine};
use crate::access::Role;
use crate::ids::{DeviceId, ShortId};
use crate::ledger::{Item, LogState, Voters};
use crate::lock::succession::{Seal, take_over};
use crate::lock::{Answer, Claim, Known, Request, Resource, Slot, SlotId, Vote, Voted, Voter, VoterState};
use crate::time::Now;

/// Setting: what this device keeps as a voter, as [`VoterState::to_bytes`].
const VOTER: &str = "voter";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Voting {
    /// What was durable, until the time is known from which its leases count.
    recovered: Option<VoterState>,
    voter: Option<Voter>,
    /// Whether nothing can have been voted before: the group was founded here, or by a daemon that knew no locks.
    is_new: bool,
}

impl Voting {
    /// Takes up what was durable; `in_group` says whether there is a group.
    pub(super) fn recover(recovered: &Recovered, in_group: bool) -> Self {
        let bytes = recovered.settings.get(VOTER);
        Self {
            recovered: bytes.and_then(|bytes| VoterState::from_bytes(bytes).ok()),
            voter: None,
            is_new: in_group && bytes.is_none(),
        }
    }
}

/// What this device's ledger says, to its voter.
struct Ledger<'e, V> {
    engine: &'e SyncEngine,
    view: &'e V,
}

impl<V: StateView> Known for Ledger<'_, V> {
    fn may_write(&self, device: &DeviceId, resources: &[Resource]) -> bool {
        self.engine.may_lock(device, resources)
    }

    fn may_choose_voters(&self, device: &DeviceId) -> bool {
        let group = self.engine.group.as_ref();
        group.is_some_and(|group| group.role(device) == Some(Role::Owner))
    }

    fn highest_number(&self, epoch: u64) -> u64 {
        self.engine.locks.highest(epoch)
    }

    fn has_grant(&self, claim: &Claim) -> bool {
        self.engine.held_claim(claim, self.view)
    }

    fn has_log(&self, device: &DeviceId, size: u64) -> bool {
        let log = self.engine.logs.get(&device.short());
        size == 0 || log.is_some_and(|log| log.size() >= size)
    }
}

impl SyncEngine {
    /// Takes up what this device kept as a voter. Of an old copy of the state nothing is believed.
    pub(super) fn start_voting(&mut self, now: Now) {
        if self.own_events_missing() > 0 {
            let mut state = self.voting.recovered.take().unwrap_or_else(first_state);
            state.forgot = true;
            // It may have voted in these since.
            state.stands.clear();
            self.pending.set_setting(VOTER, Some(state.to_bytes()));
            self.voting.recovered = Some(state);
        }
        let recovered = self.voting.recovered.take();
        self.voting.voter = recovered.map(|state| Voter::new(state, now.boot));
    }

    /// Begins in a group that was founded just now.
    pub(super) fn founded_as_voter(&mut self) {
        self.pending.set_setting(VOTER, Some(first_state().to_bytes()));
        self.voting = Voting {
            is_new: true,
            ..Voting::default()
        };
    }

    /// Begins in a group that was not founded here, or not with the state that is here: if this device is a voter in it, it may
    /// have voted before, and must not vote before the voters are chosen anew.
    pub(super) fn joined_as_voter(&mut self) {
        let mut state = first_state();
        state.forgot = true;
        self.pending.set_setting(VOTER, Some(state.to_bytes()));
        self.voting = Voting::default();
    }

    /// Says whether a device may have a lock on all of this.
    pub(super) fn may_lock(&self, device: &DeviceId, resources: &[Resource]) -> bool {
        self.group.as_ref().is_some_and(|group| {
            let writable = group.writable(device);
            resources.iter().all(|resource| writable.covers(resource.path()))
        })
    }

    /// Answers what a device asks of this one as a voter.
    pub(super) fn vote(
        &mut self,
        from: &DeviceId,
        request: &Request,
        now: Now,
        view: &impl StateView,
    ) -> Voted {
        if let Some(refusal) = self.why_no_voter(request) {
            return Voted::from(refusal);
        }
        let mut voter = self.take_voter(now);
        self.enter_set(&mut voter, now, view);
        let answer = voter.handle_request(from, request, &Ledger { engine: self, view }, now.boot);
        if matches!(
            answer,
            Answer::Granted | Answer::Done | Answer::Gone | Answer::Reported(_)
        ) {
            self.pending.set_setting(VOTER, Some(voter.state().to_bytes()));
        }
        self.voting.voter = Some(voter);
        let Some(group) = self.group.as_ref().map(|group| group.id) else {
            return Voted::from(answer);
        };
        match (request, answer) {
            (Request::Acquire(claim), answer @ Answer::Granted) => Voted {
                sig: Some(Vote::sign(&self.key, &group, claim).sig),
                has: self.what_speaks_of(&claim.resources, view),
                answer,
            },
            (_, Answer::Reported(report)) => Voted {
                sig: Some(Seal::sign(&self.key, &group, report.clone()).sig),
                ..Voted::from(Answer::Reported(report))
            },
            (_, answer) => Voted::from(answer),
        }
    }

    /// Says why this device answers no such request: it is no voter now.
    fn why_no_voter(&self, request: &Request) -> Option<Answer> {
        let group = self.group.as_ref();
        let epoch = group.map_or(0, |group| group.epoch());
        let voters = group.and_then(|group| group.voters(epoch)).unwrap_or_default();
        let asked = match request {
            // Of these its own state says enough.
            Request::Stand { .. } | Request::Unseal { .. } => return None,
            Request::Acquire(claim) => claim.token.epoch,
            Request::Renew { epoch, .. } | Request::Release { epoch, .. } | Request::Seal { epoch, .. } => {
                *epoch
            }
        };
        if voters.contains(&self.me) {
            None
        } else if asked != epoch {
            Some(Answer::WrongEpoch { epoch })
        } else {
            Some(Answer::Denied)
        }
    }

    /// Has this device's voter be one of the newest set, if it is in that.
    fn enter_set(&mut self, voter: &mut Voter, now: Now, view: &impl StateView) {
        let Some(group) = &self.group else { return };
        let number = group.epoch();
        let Some(epoch) = group.epoch_at(number) else {
            return;
        };
        if epoch.set == voter.state().set || !epoch.voters.contains(&self.me) {
            return;
        }
        let (set, item) = (epoch.set, epoch.place.and_then(|place| group.item(place)));
        let slots = match item {
            Some(Item::Voters(Voters {
                seals: Some(seals), ..
            })) => {
                let reported = seals.iter().map(|seal| &seal.slots);
                let mut slots = take_over(number, reported).slots;
                slots.retain(|_, slot| !self.is_claim_over(&slot.claim, view));
                slots
            }
            // Nobody said what those before had; what the ledger shows nobody else is to have.
            _ => self.slots_shown(view),
        };
        voter.enter(number, set, slots, now.boot);
        self.pending.set_setting(VOTER, Some(voter.state().to_bytes()));
    }

    /// Returns the slots of the locks that the ledger shows to be held.
    fn slots_shown(&self, view: &impl StateView) -> BTreeMap<SlotId, Slot> {
        let slot = |grant: super::locks::Grant| {
            let claim = grant.item.certificate(grant.holder).claim;
            let durable = claim.durable;
            (claim.id(), Slot { claim, durable })
        };
        self.held_locks(view).into_iter().map(slot).collect()
    }

    /// Lets go of what the ledger shows to be over.
    pub(super) fn drop_slot(&mut self, id: &SlotId) {
        let Some(voter) = &mut self.voting.voter else {
            return;
        };
        if voter.state().slots.contains_key(id) {
            voter.remove(id);
            let bytes = voter.state().to_bytes();
            self.pending.set_setting(VOTER, Some(bytes));
        }
    }

    fn take_voter(&mut self, now: Now) -> Voter {
        if let Some(voter) = self.voting.voter.take() {
            return voter;
        }
        let mut state = first_state();
        state.forgot = !self.voting.is_new;
        Voter::new(state, now.boot)
    }

    /// Returns how many events of which logs the next holder must have: of a file those that its versions and locks stand in;
    /// of a directory all, since whatever is below it may be in any.
    fn what_speaks_of(&self, resources: &[Resource], view: &impl StateView) -> Vec<(ShortId, u64)> {
        let mut has: BTreeMap<ShortId, u64> = BTreeMap::new();
        if resources.iter().any(Resource::is_subtree) {
            let logs = self.logs.values().map(|log| (log.name, LogState::size(log)));
            return logs.collect();
        }
        for resource in resources {
            let state = self.pending.path_state(view, resource.path()).unwrap_or_default();
            let heads = state.heads.iter().map(|head| head.dot);
            let fences = state.fences.as_slice().iter();
            let locks =
                fences.flat_map(|fence| std::iter::once(fence.grant).chain(fence.ends.iter().copied()));
            for dot in heads.chain(locks) {
                let size = has.entry(dot.device).or_default();
                *size = (dot.seq + 1).max(*size);
            }
        }
        has.into_iter().collect()
    }
}

fn first_state() -> VoterState {
    VoterState::new(0, BTreeMap::new())
}
