//! The holder's side: from the wish for a lock to its end (locks.md 3, *Acquirer*).
//!
//! [`LockManager`] asks voters, tries again with a greater token where one was too low, waits where somebody else holds what
//! is wanted, and takes back at every voter what came to nothing. What it cannot know it leaves to its caller: whether all
//! that the voters name is here ([`LockOutput::Granted`]), and when the ledger shows the lock
//! ([`LockManager::recorded`]) or its end ([`LockManager::release_lock`]).

mod steps;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use self::steps::{Entry, Kind, Stage, Then, keeping};
pub use self::words::{AskNo, Electorate, LockError, LockNo, LockOutput, Wanted};
use super::claim::Claim;
use super::lease::Lease;
use super::voter::{Answer, Voted};
use crate::ids::DeviceId;
use crate::time::BootInstant;

/// How long voters keep a claim that is not renewed.
pub(super) const LEASE: Duration = Duration::from_mins(1);
/// Until a voter is asked again that lacks an event.
const NOT_YET: Duration = Duration::from_millis(100);
/// Until a voter is asked again that could not be reached.
const LOST: Duration = Duration::from_secs(2);
/// Until a voter is asked again that did not keep a lock.
const REFUSED: Duration = Duration::from_secs(10);

/// All locks that this device wants or has. The voters' answers come through [`Self::handle_answer`], and after each call
/// [`Self::poll_output`] is to be drained.
#[derive(Debug)]
pub struct LockManager {
    me: DeviceId,
    entries: BTreeMap<LockNo, Entry>,
    asks: BTreeMap<AskNo, (LockNo, DeviceId, Kind)>,
    next: u64,
    out: VecDeque<LockOutput>,
}

/// Fresh random bytes.
pub(super) type Fresh<'f> = &'f mut dyn FnMut() -> [u8; 16];

impl LockManager {
    /// How long voters are asked to let go of a lock that the ledger shows to be over.
    pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Makes it, for a device without locks.
    #[must_use]
    pub const fn new(me: DeviceId) -> Self {
        Self {
            me,
            entries: BTreeMap::new(),
            asks: BTreeMap::new(),
            next: 0,
            out: VecDeque::new(),
        }
    }

    /// Begins to ask for a lock. [`LockOutput::Granted`] or [`LockOutput::Failed`] follows.
    pub fn acquire_lock(
        &mut self,
        wanted: Wanted,
        electorate: Electorate,
        now: BootInstant,
        fresh: Fresh<'_>,
    ) -> LockNo {
        let above = electorate.highest;
        let lock = self.add(wanted, electorate, Stage::Waiting(now, above));
        self.ask_for(lock, now, fresh);
        lock
    }

    /// Takes up a lasting lock that the ledger shows, after a start. [`LockOutput::Held`] follows once the voters were asked,
    /// or [`LockOutput::Failed`].
    pub fn resume(&mut self, claim: Claim, electorate: Electorate, now: BootInstant) -> LockNo {
        let wanted = Wanted {
            resources: claim.resources.clone(),
            durable: claim.durable,
            wait_until: None,
        };
        let lease = Lease::unproven(claim.ttl, now);
        let lock = self.add(wanted, electorate, keeping(claim, lease));
        if let Some(entry) = self.entries.get_mut(&lock) {
            entry.resumed = true;
        }
        self.keep(lock, now);
        lock
    }

    /// Takes that the ledger shows the lock: the voters are asked to keep it for good if it is to last.
    pub fn recorded(&mut self, lock: LockNo, now: BootInstant) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        let Stage::Granted(claim, started) = &entry.stage else {
            return;
        };
        let lease = Lease::new(*started, claim.ttl);
        entry.stage = keeping(claim.clone(), lease);
        self.keep(lock, now);
    }

    /// Has the voters let go of a lock: of one that was granted and not recorded, because of `why`; or of one that is over
    /// by the ledger, of whose holder's log the next holder must have `last` events.
    pub fn release_lock(&mut self, lock: LockNo, last: u64, why: Option<LockError>, now: BootInstant) {
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        match (&entry.stage, why) {
            (Stage::Waiting(..), why) => self.fail(lock, why.unwrap_or(LockError::Lapsed)),
            (Stage::Granted(..) | Stage::Asking(_), why) => {
                let error = why.unwrap_or(LockError::Lapsed);
                self.take_back(lock, Then::Fail(error), now);
            }
            (Stage::Keeping { claim, .. }, _) => {
                let claim = claim.clone();
                let again = entry.electorate.voters.iter().map(|voter| (*voter, now));
                entry.stage = Stage::Ending {
                    claim,
                    last,
                    gone: BTreeSet::new(),
                    again: again.collect(),
                    until: now.after(Self::RELEASE_TIMEOUT),
                };
                self.ask_again(lock, now);
            }
            (Stage::TakingBack { .. } | Stage::Ending { .. }, _) => {}
        }
    }

    /// Takes that others are the voters now. They know what those before had granted.
    pub fn replace_voters(&mut self, electorate: &Electorate, now: BootInstant) {
        let locks: Vec<LockNo> = self.entries.keys().copied().collect();
        for lock in locks {
            self.meet_voters(lock, electorate, now);
        }
    }

    /// Forgets a lock that is over without its voters: they hear of it from the ledger.
    pub fn forget(&mut self, lock: LockNo) {
        self.entries.remove(&lock);
        self.asks.retain(|_, (of, ..)| *of != lock);
    }

    /// Takes a voter's answer; `None`: there was none.
    pub fn handle_answer(&mut self, ask: AskNo, answer: Option<Voted>, now: BootInstant, fresh: Fresh<'_>) {
        let Some((lock, voter, kind)) = self.asks.remove(&ask) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&lock) else {
            return;
        };
        match (&mut entry.stage, kind) {
            (Stage::Asking(attempt), Kind::Acquire) => {
                let progress = match &answer {
                    Some(voted) => {
                        let group = entry.electorate.group;
                        attempt.handle_answer(&group, &voter, &voted.answer, voted.sig, now)
                    }
                    None => attempt.handle_lost(&voter, now),
                };
                if let Some(voted) = answer.filter(|voted| voted.answer == Answer::Granted) {
                    for (log, size) in voted.has {
                        let known = entry.has.entry(log).or_default();
                        *known = size.max(*known);
                    }
                }
                self.progress(lock, progress, now, fresh);
            }
            (Stage::TakingBack { open, .. }, _) => {
                open.remove(&ask);
            }
            (
                Stage::Keeping {
                    lease, again, held, ..
                },
                Kind::Renew(round),
            ) => match answer.map(|voted| voted.answer) {
                Some(Answer::Granted) => {
                    if lease.handle_granted(&voter, round) && !std::mem::replace(held, true) {
                        self.out.push_back(LockOutput::Held { lock });
                    }
                }
                Some(Answer::NotYet) => drop(again.insert(voter, now.after(NOT_YET))),
                Some(_) => drop(again.insert(voter, now.after(REFUSED))),
                None => drop(again.insert(voter, now.after(LOST))),
            },
            (Stage::Ending { gone, again, .. }, Kind::Release) => match answer.map(|voted| voted.answer) {
                Some(Answer::Done | Answer::Gone) => drop(gone.insert(voter)),
                Some(Answer::NotYet) => drop(again.insert(voter, now.after(NOT_YET))),
                Some(_) | None => drop(again.insert(voter, now.after(LOST))),
            },
            _ => {}
        }
        self.go_on(lock, now, fresh);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: BootInstant, fresh: Fresh<'_>) {
        let locks: Vec<LockNo> = self.entries.keys().copied().collect();
        for lock in locks {
            self.go_on(lock, now, fresh);
        }
    }

    /// Returns the next thing to do; to be called until it returns `None`.
    pub fn poll_output(&mut self) -> Option<LockOutput> {
        self.out.pop_front()
    }

    /// Returns the next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        let due = |entry: &Entry| match &entry.stage {
            Stage::Asking(attempt) => Some(attempt.deadline()),
            Stage::TakingBack { until, .. } => Some(*until),
            Stage::Waiting(at, _) => Some(*at),
            Stage::Granted(..) => None,
            Stage::Keeping {
                lease, again, held, ..
            } => {
                let over = lease.until().filter(|_| !held && !entry.resumed);
                again.values().min().copied().into_iter().chain(over).min()
            }
            Stage::Ending { again, until, .. } => {
                again.values().min().map(|at| *at.min(until)).or(Some(*until))
            }
        };
        self.entries.values().filter_map(due).min()
    }

    /// Returns until when a granted lock may be recorded: later, others may have it.
    #[must_use]
    pub fn granted_until(&self, lock: LockNo) -> Option<BootInstant> {
        match &self.entries.get(&lock)?.stage {
            Stage::Granted(claim, started) => Lease::new(*started, claim.ttl).until(),
            _ => None,
        }
    }

    /// Says whether a lock is held: the voters said so, and their word is good.
    #[must_use]
    pub fn holds(&self, lock: LockNo, now: BootInstant) -> bool {
        let stage = self.entries.get(&lock).map(|entry| &entry.stage);
        matches!(stage, Some(Stage::Keeping { lease, held: true, .. }) if lease.holds(now))
    }
}

#[cfg(test)]
mod tests;
