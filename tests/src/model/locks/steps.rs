//! What can happen, and what comes of it.

use std::collections::BTreeMap;

use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::lock::succession::take_over;
use p2p_sync_core::lock::{Answer, Request, SlotId, Token, Voter, VoterState};
use p2p_sync_core::time::BootInstant;

use super::{
    Action, DRIFT, Ledger, Locks, Message, Mistake, OWNER, Stage, State, TOKEN_NOT_ABOVE, UNMEASURED_MS,
    WITHOUT_LAST_WRITE, holder, voter_clock,
};

/// The name of the second set of voters, and of the one that the owner gave up.
const NEXT: [u8; 32] = [2; 32];
const GIVEN_UP: [u8; 32] = [1; 32];
/// How old a lease is when it is renewed.
const RENEW_MS: u64 = 20_000;
/// Longer than any lease.
const LONG_MS: u64 = 200_000;

impl Locks {
    pub(super) fn list_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now_ms < self.horizon_ms {
            actions.push(Action::Pass);
        }
        for at in 0..state.tries.len() {
            self.actions_of(state, at, actions);
        }
        for device in 0..self.devices() {
            let running = state.voters[device].is_some();
            if running && state.restarts < self.restarts {
                actions.push(Action::Restart(device));
            }
            if !self.changes_voters {
                continue;
            }
            if running && Self::voters(1) >> device & 1 == 1 && state.reports[device].is_none() {
                actions.push(Action::Seal(device));
            }
            if state.given_up {
                actions.push(Action::Unseal(device));
            }
            if state.second.is_some() && Self::voters(2) >> device & 1 == 1 {
                actions.push(Action::Learn(device));
            }
        }
        if self.changes_voters && state.second.is_none() {
            actions.push(Action::Publish);
        }
        if self.gives_up && !state.given_up && state.second.is_none() {
            actions.push(Action::GiveUp);
        }
    }

    fn actions_of(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let one = &state.tries[at];
        if one.stage == Stage::NotMade {
            let possible = self.tries[at] == 1 || state.second.is_some();
            let numbers = (1..=self.max_number).filter(|_| possible);
            actions.extend(numbers.map(|n| Action::Start(at, n)));
            return;
        }
        for device in 0..self.devices() {
            actions.push(Action::Deliver(at, Message::Acquire, device));
            if one.renewed_ms.is_some() {
                actions.push(Action::Deliver(at, Message::Renew, device));
            }
            if matches!(one.stage, Stage::Releasing | Stage::Done) {
                actions.push(Action::Deliver(at, Message::Release, device));
                actions.push(Action::Spread(at, device));
            }
        }
        let due = self.durable || state.now_ms >= one.started_ms + RENEW_MS;
        if self.renews && due && one.renewed_ms.is_none() && self.believes(state, at) {
            actions.push(Action::Renew(at));
        }
        if self.releases && self.believes(state, at) {
            actions.push(Action::Release(at));
        }
        if state.crashes < self.crashes && matches!(one.stage, Stage::Asking | Stage::Granted) {
            actions.push(Action::Crash(at));
        }
    }

    pub(super) fn take(&self, state: &mut State, action: Action) {
        let now_ms = state.now_ms;
        match action {
            Action::Pass => state.now_ms = self.next_deadline(state),
            Action::Start(at, n) => {
                let one = &mut state.tries[at];
                (one.stage, one.n, one.started_ms) = (Stage::Asking, n, now_ms);
            }
            Action::Deliver(at, message, device) => self.deliver(state, at, message, device),
            Action::Renew(at) => {
                let epoch = self.newest_epoch(state, at);
                let one = &mut state.tries[at];
                (one.renewed_ms, one.renewed_for) = (Some(now_ms), epoch);
            }
            Action::Release(at) => {
                let epoch = self.newest_epoch(state, at);
                let one = &mut state.tries[at];
                (one.stage, one.released_for) = (Stage::Releasing, epoch);
            }
            Action::Spread(at, device) => state.has[device] |= 1 << at,
            Action::Crash(at) => {
                state.crashes += 1;
                state.tries[at].stage = Stage::Crashed;
            }
            Action::Restart(device) => self.restart(state, device),
            Action::Seal(device) => {
                let next = self.next(state);
                let seal = Request::Seal { epoch: 1, next };
                if let Some(Answer::Reported(report)) = self.ask(state, device, OWNER, &seal) {
                    state.reports[device] = Some(report);
                }
            }
            Action::GiveUp => {
                state.given_up = true;
                if !self.has(Mistake::KeepsSeals) {
                    state.reports.fill(None);
                }
            }
            Action::Unseal(device) => {
                let unseal = Request::Unseal { next: GIVEN_UP };
                self.ask(state, device, OWNER, &unseal);
            }
            Action::Publish => self.publish(state),
            Action::Learn(device) => {
                let is_new = |voter: &Voter| voter.state().epoch == 2;
                if let Some(second) = &state.second
                    && !state.voters[device].as_ref().is_some_and(is_new)
                {
                    state.voters[device] = Some(Voter::new(second.clone(), voter_clock(now_ms)));
                }
            }
        }
    }

    /// Returns what voters are sealed for from now on.
    const fn next(&self, state: &State) -> [u8; 32] {
        if self.gives_up && !state.given_up {
            GIVEN_UP
        } else {
            NEXT
        }
    }

    /// Returns the epoch of the voters that a holder asks from now on.
    fn newest_epoch(&self, state: &State, at: usize) -> u64 {
        if state.second.is_some() { 2 } else { self.tries[at] }
    }

    /// Returns the next moment at which some voter drops a lease, or some holder stops to believe or may renew.
    fn next_deadline(&self, state: &State) -> u64 {
        let real = |at: BootInstant| (at.as_millis() * 1_000).div_ceil(1_000 + DRIFT);
        let voters = state.voters.iter().flatten();
        let drops = voters
            .flat_map(|voter| voter.ends().values())
            .map(|end| real(*end));
        let mut next = drops.filter(|at| *at > state.now_ms).min();
        for at in (0..state.tries.len()).filter(|at| self.believes(state, *at)) {
            next = self.end_of_belief(state, at, next);
            let renewal = state.tries[at].started_ms + RENEW_MS;
            if self.renews && !self.durable && renewal > state.now_ms {
                next = Some(next.map_or(renewal, |next| next.min(renewal)));
            }
        }
        next.unwrap_or(state.now_ms)
    }

    /// Returns when a holder stops to believe, if it does before `before`; otherwise `before`.
    fn end_of_belief(&self, state: &State, at: usize, before: Option<u64>) -> Option<u64> {
        let believes = |ms: u64| self.believes_at(&state.tries[at], ms);
        let last = before.unwrap_or(state.now_ms + LONG_MS);
        if believes(last) {
            return before;
        }
        let (mut yes, mut no) = (state.now_ms, last);
        while yes + 1 < no {
            let middle = u64::midpoint(yes, no);
            if believes(middle) {
                yes = middle;
            } else {
                no = middle;
            }
        }
        Some(no)
    }

    fn deliver(&self, state: &mut State, at: usize, message: Message, device: usize) {
        let one = state.tries[at];
        let Some(voter) = &state.voters[device] else {
            return;
        };
        let mut claim = self.claim(at, one.n);
        if self.has(Mistake::MixesEpochs) {
            claim.token.epoch = voter.state().epoch;
        }
        let request = match message {
            Message::Acquire => Request::Acquire(claim),
            Message::Renew => Request::Renew {
                epoch: one.renewed_for,
                claim,
                durable: self.durable,
            },
            Message::Release => Request::Release {
                epoch: one.released_for,
                nonce: claim.nonce,
                token: claim.token,
                last: 1,
            },
        };
        let answer = self.ask(state, device, holder(at), &request);
        self.hear(state, at, message, device, answer);
    }

    /// A holder takes a voter's answer.
    fn hear(&self, state: &mut State, at: usize, message: Message, device: usize, answer: Option<Answer>) {
        let (has, now_ms) = (state.has[device], state.now_ms);
        let one = &mut state.tries[at];
        match (message, answer, one.stage) {
            (Message::Acquire, Some(Answer::Granted), Stage::Asking) if one.votes >> device & 1 == 0 => {
                one.votes |= 1 << device;
                one.read |= has;
                one.answered_ms = now_ms;
                if self.is_quorum(one.votes, self.tries[at]) {
                    self.granted(state, at);
                }
            }
            (Message::Renew, Some(Answer::Granted), Stage::Granted) => one.renewals |= 1 << device,
            (Message::Release, Some(Answer::Done), Stage::Releasing) => {
                one.done |= 1 << device;
                if self.has(Mistake::DoneAtOne) || self.is_quorum(one.done, one.released_for) {
                    one.stage = Stage::Done;
                }
            }
            _ => {}
        }
    }

    fn granted(&self, state: &mut State, at: usize) {
        let one = &mut state.tries[at];
        one.stage = Stage::Granted;
        let token = Token {
            epoch: self.tries[at],
            n: one.n,
        };
        // A lease that is over before it is granted says nothing.
        if !self.believes(state, at) {
            return;
        }
        if state.greatest.is_some_and(|greatest| greatest >= token) {
            state.wrong = Some(TOKEN_NOT_ABOVE);
        }
        state.handed_over |= state.greatest.is_some();
        state.greatest = state.greatest.max(Some(token));
    }

    /// Notes that somebody holds without the last write of one who was done.
    pub(super) fn note_wrong(&self, state: &mut State) {
        let all = 0..state.tries.len();
        let done = |at: &usize| state.tries[*at].stage == Stage::Done;
        let lacks = |at: usize| {
            let holding = |other: &usize| *other != at && self.believes(state, *other);
            let mut holders = all.clone().filter(holding);
            holders.any(|other| state.tries[other].read >> at & 1 == 0)
        };
        if all.clone().filter(done).any(lacks) {
            state.wrong = Some(WITHOUT_LAST_WRITE);
        }
    }

    fn ask(&self, state: &mut State, device: usize, from: DeviceId, request: &Request) -> Option<Answer> {
        let known = Ledger {
            recorded: self.recorded(state),
            has: state.has[device],
        };
        let now = voter_clock(state.now_ms);
        let voter = state.voters[device].as_mut()?;
        let sealed = voter.state().sealed;
        if self.has(Mistake::GoesOnSealed) {
            *voter = changed(voter, |parts| parts.sealed = None);
        }
        let answer = voter.handle_request(&from, request, &known, now);
        if self.has(Mistake::GoesOnSealed) && sealed.is_some() {
            *voter = changed(voter, |parts| parts.sealed = sealed);
        }
        if self.has(Mistake::NoFloor) {
            *voter = changed(voter, |parts| parts.floor = 0);
        }
        Some(answer)
    }

    /// Returns the claims whose lock is in the ledger: a holder records it when it is granted.
    pub(super) fn recorded(&self, state: &State) -> Vec<SlotId> {
        let granted = |at: &usize| self.is_quorum(state.tries[*at].votes, self.tries[*at]);
        let tries = (0..state.tries.len()).filter(granted);
        tries.map(|at| self.claim(at, state.tries[at].n).id()).collect()
    }

    fn restart(&self, state: &mut State, device: usize) {
        let now = voter_clock(state.now_ms);
        let Some(voter) = &mut state.voters[device] else {
            return;
        };
        state.restarts += 1;
        let mut kept = voter.state().clone();
        if self.has(Mistake::SlotsLost) {
            kept.slots.clear();
        }
        if self.has(Mistake::FloorLost) {
            kept.floor = 0;
        }
        if self.has(Mistake::CountsTimeOff) {
            let earlier =
                |end: &BootInstant| BootInstant::from_millis(end.as_millis().saturating_sub(UNMEASURED_MS));
            let ends = voter.ends().iter().map(|(id, end)| (*id, earlier(end)));
            *voter = Voter::from_parts(kept, ends.collect());
        } else {
            *voter = Voter::new(kept, now);
        }
    }

    fn publish(&self, state: &mut State) {
        let sealed = (0..self.devices()).filter(|device| state.reports[*device].is_some());
        let bits = sealed.fold(0_u8, |bits, device| bits | 1 << device);
        if !self.is_quorum(bits, 1) {
            return;
        }
        let reports = state.reports.iter().flatten();
        let mut second = take_over(2, reports.clone().map(|report| &report.slots));
        if self.has(Mistake::TakesOverMajority) {
            let count = |id: &SlotId| {
                reports
                    .clone()
                    .filter(|report| report.slots.contains_key(id))
                    .count()
            };
            second.slots.retain(|id, _| count(id) > 1);
        }
        state.second = Some(second);
    }
}

fn changed(voter: &Voter, change: impl FnOnce(&mut VoterState)) -> Voter {
    let mut parts = voter.state().clone();
    change(&mut parts);
    let ends: BTreeMap<SlotId, BootInstant> = voter.ends().clone();
    Voter::from_parts(parts, ends)
}
