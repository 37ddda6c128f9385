//! How a lock goes from one stage to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::attempt::{Attempt, Progress, Refusal};
use super::super::claim::{Claim, Nonce, Token};
use super::super::lease::Lease;
use super::super::quorum;
use super::super::voter::Request;
use super::{AskNo, Electorate, Fresh, LEASE, LockError, LockManager, LockNo, LockOutput, Wanted};
use crate::ids::{DeviceId, ShortId};
use crate::time::BootInstant;

/// How long the voters have to let go of what came to nothing.
const TAKE_BACK: Duration = Duration::from_secs(2);
/// Until what somebody else holds is asked for again: once, and doubled each time up to `BUSY_MAX`.
const BUSY: Duration = Duration::from_millis(100);
const BUSY_MAX: Duration = Duration::from_secs(5);
/// How often a token that was too low is replaced by a greater one.
const MAX_STALE: u32 = 8;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) wanted: Wanted,
    pub(super) electorate: Electorate,
    pub(super) stage: Stage,
    /// Whether an earlier run had it.
    pub(super) resumed: bool,
    pub(super) stale: u32,
    pub(super) busy: u32,
    pub(super) has: BTreeMap<ShortId, u64>,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The voters were asked to grant it.
    Asking(Attempt),
    /// What came to nothing is taken back, before it is asked for again or given up.
    TakingBack {
        open: BTreeSet<AskNo>,
        until: BootInstant,
        then: Then,
    },
    /// It is asked for again then.
    Waiting(BootInstant, u64),
    /// The caller looks whether all is here, and records it.
    Granted(Claim, BootInstant),
    /// The voters are asked to keep it for good, or a while longer; `held` says whether they did before.
    Keeping {
        claim: Claim,
        lease: Lease,
        round: u32,
        again: BTreeMap<DeviceId, BootInstant>,
        held: bool,
    },
    /// The voters are asked to let it go.
    Ending {
        claim: Claim,
        last: u64,
        gone: BTreeSet<DeviceId>,
        again: BTreeMap<DeviceId, BootInstant>,
        until: BootInstant,
    },
}

/// What comes after something was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// It is asked for again, with a number above this.
    Again(BootInstant, u64),
    Fail(LockError),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Acquire,
    Renew(u32),
    Release,
}

impl LockManager {
    pub(super) fn add(&mut self, wanted: Wanted, electorate: Electorate, stage: Stage) -> LockNo {
        self.next += 1;
        let lock = LockNo(self.next);
        let entry = Entry {
            wanted,
            electorate,
            stage,
            resumed: false,
            stale: 0,
            busy: 0,
            has: BTreeMap::new(),
        };
        self.entries.insert(lock, entry);
        lock
    }

    pub(super) fn ask(&mut self, lock: LockNo, voter: DeviceId, kind: Kind, request: Request) -> AskNo {
        self.next += 1;
        let ask = AskNo(self.next);
        self.asks.insert(ask, (lock, voter, kind));
        self.out.push_back(LockOutput::Ask { voter, ask, request });
        ask
    }

    /// Asks for what waits for it.
    pub(super) fn ask_for(&mut self, lock: LockNo, now: BootInstant, fresh: Fresh<'_>) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        let Stage::Waiting(_, above) = entry.stage else {
            return;
        };
        let nonce = fresh();
        let jump = if entry.stale == 0 {
            0
        } else {
            u64::from(nonce[0] % 8)
        };
        let claim = Claim {
            token: Token {
                epoch: entry.electorate.epoch,
                n: above.saturating_add(1).saturating_add(jump),
            },
            holder: self.me,
            nonce: Nonce(nonce),
            ttl: LEASE,
            durable: entry.wanted.durable,
            resources: entry.wanted.resources.clone(),
        };
        entry.has.clear();
        let voters = entry.electorate.voters.clone();
        entry.stage = Stage::Asking(Attempt::new(claim.clone(), &voters, now));
        for voter in voters {
            self.ask(lock, voter, Kind::Acquire, Request::Acquire(claim.clone()));
        }
    }

    /// Takes how far a try has come.
    pub(super) fn progress(&mut self, lock: LockNo, progress: Progress, now: BootInstant, fresh: Fresh<'_>) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        let Stage::Asking(attempt) = &entry.stage else {
            return;
        };
        match progress {
            Progress::Waiting => {}
            Progress::Granted(certificate) => {
                let (claim, started) = (certificate.claim.clone(), attempt.started());
                entry.stage = Stage::Granted(claim, started);
                let has = entry.has.clone();
                self.out.push_back(LockOutput::Granted {
                    lock,
                    certificate,
                    has,
                });
            }
            Progress::Refused(refusal) => {
                let above = attempt.claim().token.n;
                let then = entry.after(refusal, above, now, fresh);
                self.take_back(lock, then, now);
            }
        }
    }

    /// Has every voter that was asked let go of what came to nothing.
    pub(super) fn take_back(&mut self, lock: LockNo, then: Then, now: BootInstant) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        let claim = match &entry.stage {
            Stage::Asking(attempt) => Some(attempt.claim().clone()),
            Stage::Granted(claim, _) => Some(claim.clone()),
            _ => None,
        };
        let voters = entry.electorate.voters.clone();
        let (epoch, mut open) = (entry.electorate.epoch, BTreeSet::new());
        for (voter, claim) in voters.into_iter().zip(claim.iter().cycle()) {
            let request = release(epoch, claim, 0);
            open.insert(self.ask(lock, voter, Kind::Release, request));
        }
        let stage = Stage::TakingBack {
            open,
            until: now.after(TAKE_BACK),
            then,
        };
        if let Some(entry) = self.entries.get_mut(&lock) {
            entry.stage = stage;
        }
    }

    /// Has one lock asked for, kept or released at other voters.
    pub(super) fn meet_voters(&mut self, lock: LockNo, electorate: &Electorate, now: BootInstant) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        if let Stage::Asking(attempt) = &entry.stage {
            // Some may have granted it before they made room: it is taken back there and here, and asked for anew.
            let claim = attempt.claim().clone();
            self.take_back(lock, Then::Again(now, electorate.highest), now);
            for voter in &electorate.voters {
                self.ask(lock, *voter, Kind::Release, release(electorate.epoch, &claim, 0));
            }
        }
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        entry.electorate = electorate.clone();
        match &mut entry.stage {
            Stage::Waiting(_, above)
            | Stage::TakingBack {
                then: Then::Again(_, above),
                ..
            } => *above = electorate.highest,
            Stage::Keeping { .. } => self.keep(lock, now),
            Stage::Ending { gone, again, .. } => {
                gone.clear();
                *again = electorate.voters.iter().map(|voter| (*voter, now)).collect();
                self.ask_again(lock, now);
            }
            Stage::Asking(_) | Stage::Granted(..) | Stage::TakingBack { .. } => {}
        }
    }

    /// Asks the voters to keep a lock.
    pub(super) fn keep(&mut self, lock: LockNo, now: BootInstant) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        let Stage::Keeping {
            claim,
            lease,
            round,
            again,
            held,
        } = &mut entry.stage
        else {
            return;
        };
        if !claim.durable {
            *held = true;
            self.out.push_back(LockOutput::Held { lock });
            return;
        }
        *round = lease.renew(&entry.electorate.voters, true, now);
        *again = entry
            .electorate
            .voters
            .iter()
            .map(|voter| (*voter, now))
            .collect();
    }

    /// Does what is due for one lock.
    pub(super) fn go_on(&mut self, lock: LockNo, now: BootInstant, fresh: Fresh<'_>) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        match &entry.stage {
            Stage::Asking(attempt) => {
                let progress = attempt.progress(now);
                if !matches!(progress, Progress::Granted(_)) {
                    self.progress(lock, progress, now, fresh);
                }
            }
            Stage::TakingBack { open, until, then } if open.is_empty() || now >= *until => match then.clone()
            {
                Then::Again(at, above) => {
                    entry.stage = Stage::Waiting(at, above);
                    self.go_on(lock, now, fresh);
                }
                Then::Fail(error) => self.fail(lock, error),
            },
            Stage::Waiting(at, _) if now >= *at => self.ask_for(lock, now, fresh),
            Stage::Keeping { lease, held, .. }
                if !held && !entry.resumed && lease.until().is_some_and(|until| now >= until) =>
            {
                self.fail(lock, LockError::Lapsed);
            }
            Stage::Keeping { .. } | Stage::Ending { .. } => self.ask_again(lock, now),
            Stage::TakingBack { .. } | Stage::Waiting(..) | Stage::Granted(..) => {}
        }
    }

    pub(super) fn fail(&mut self, lock: LockNo, error: LockError) {
        self.forget(lock);
        self.out.push_back(LockOutput::Failed { lock, error });
    }

    /// Asks the voters whose turn has come once more to keep a lock, or to let it go.
    pub(super) fn ask_again(&mut self, lock: LockNo, now: BootInstant) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        let epoch = entry.electorate.epoch;
        let (again, kind, request) = match &mut entry.stage {
            Stage::Keeping {
                claim, round, again, ..
            } => {
                let request = Request::Renew {
                    epoch,
                    claim: claim.clone(),
                    durable: claim.durable,
                };
                (again, Kind::Renew(*round), request)
            }
            Stage::Ending {
                claim,
                last,
                gone,
                again,
                until,
            } => {
                let by_majority = gone.len() >= quorum(entry.electorate.voters.len());
                if by_majority || now >= *until {
                    self.forget(lock);
                    self.out.push_back(LockOutput::Released { lock, by_majority });
                    return;
                }
                let request = release(epoch, claim, *last);
                (again, Kind::Release, request)
            }
            _ => return,
        };
        let due: Vec<DeviceId> = again
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(voter, _)| *voter)
            .collect();
        again.retain(|_, at| *at > now);
        for voter in due {
            self.ask(lock, voter, kind, request.clone());
        }
    }
}

impl Entry {
    /// Decides what follows a refusal.
    fn after(&mut self, refusal: Refusal, above: u64, now: BootInstant, fresh: Fresh<'_>) -> Then {
        let error = match refusal {
            Refusal::Stale { floor } if self.stale < MAX_STALE => {
                self.stale += 1;
                return Then::Again(now, floor.max(self.electorate.highest));
            }
            Refusal::Stale { .. } => LockError::Contended,
            Refusal::Busy {
                holder,
                token,
                resources,
            } => LockError::Busy {
                holder,
                token,
                resources,
            },
            Refusal::NoQuorum { reached, needed } => LockError::NoQuorum { reached, needed },
            Refusal::Denied => LockError::Denied,
            Refusal::Unfit => LockError::Unfit,
            Refusal::Sealed | Refusal::WrongEpoch { .. } => LockError::Sealed,
        };
        let patient = matches!(
            error,
            LockError::Busy { .. } | LockError::NoQuorum { .. } | LockError::Sealed
        );
        let pause = BUSY.saturating_mul(1 << self.busy.min(10)).min(BUSY_MAX);
        let share = u32::from(fresh()[0]);
        let at = now.after(pause + pause * share / 256);
        match self.wanted.wait_until {
            Some(until) if patient && at < until => {
                self.busy += 1;
                Then::Again(at, above)
            }
            _ => Then::Fail(error),
        }
    }
}

pub(super) fn keeping(claim: Claim, lease: Lease) -> Stage {
    Stage::Keeping {
        claim,
        lease,
        round: 0,
        again: BTreeMap::new(),
        held: false,
    }
}

fn release(epoch: u64, claim: &Claim, last: u64) -> Request {
    Request::Release {
        epoch,
        nonce: claim.nonce,
        token: claim.token,
        last,
    }
}
