//! One try to have a claim granted: who was asked, what each said, and what follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::{Certificate, Claim, Token, Vote};
use super::quorum;
use super::resource::Resource;
use super::voter::Answer;
use crate::ids::{DeviceId, GroupId};
use crate::time::BootInstant;

/// A claim that is being asked for at all voters of its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    claim: Claim,
    /// When it was begun, before anything was sent: from then on the lease counts.
    started: BootInstant,
    /// The voters, and what came of asking each.
    asked: BTreeMap<DeviceId, Reply>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    Awaited,
    Granted(Vote),
    Refused(Refusal),
    /// It is not connected, or said nothing that could be used.
    Lost,
}

/// How far a try has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More answers are needed.
    Waiting,
    /// A majority granted it.
    Granted(Certificate),
    /// No majority can grant it any more: it is to be released at every voter that was asked.
    Refused(Refusal),
}

/// Why a claim was not granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Too few voters were reached.
    NoQuorum {
        /// How many answered.
        reached: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A voter lost its state, or has no room.
    Unfit,
    /// The token is too low: the next is to be above this.
    Stale {
        /// The greatest number that a voter named.
        floor: u64,
    },
    /// The voters make room for others.
    Sealed,
    /// The requester may not, as a voter sees it.
    Denied,
    /// Somebody else holds something of it.
    Busy {
        /// Under which token.
        token: Token,
        /// Who.
        holder: DeviceId,
        /// What.
        resources: Vec<Resource>,
    },
    /// There are other voters by now.
    WrongEpoch {
        /// Of this epoch.
        epoch: u64,
    },
}

impl Attempt {
    /// How long the voters have for their answers.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// Begins a try; to be called before anything is sent.
    #[must_use]
    pub fn new(claim: Claim, voters: &[DeviceId], now: BootInstant) -> Self {
        Self {
            claim,
            started: now,
            asked: voters.iter().map(|voter| (*voter, Reply::Awaited)).collect(),
        }
    }

    /// Takes a voter's answer; `sig` is that of its vote, if it granted the claim. What comes a second time, too late or from
    /// somebody else, changes nothing.
    pub fn handle_answer(
        &mut self,
        group: &GroupId,
        voter: &DeviceId,
        answer: &Answer,
        sig: Option<[u8; 64]>,
        now: BootInstant,
    ) -> Progress {
        if now < self.deadline()
            && let Some(reply @ Reply::Awaited) = self.asked.get_mut(voter)
        {
            let vote = sig.map(|sig| Vote { voter: *voter, sig });
            *reply = match vote.filter(|vote| *answer == Answer::Granted && vote.holds(group, &self.claim)) {
                Some(vote) => Reply::Granted(vote),
                None => refusal_of(answer).map_or(Reply::Lost, Reply::Refused),
            };
        }
        self.progress(now)
    }

    /// Takes that a voter cannot be reached.
    pub fn handle_lost(&mut self, voter: &DeviceId, now: BootInstant) -> Progress {
        if let Some(reply @ Reply::Awaited) = self.asked.get_mut(voter) {
            *reply = Reply::Lost;
        }
        self.progress(now)
    }

    /// Says how far it has come.
    #[must_use]
    pub fn progress(&self, now: BootInstant) -> Progress {
        let needed = quorum(self.asked.len());
        let votes: Vec<Vote> = self.replies(|reply| match reply {
            Reply::Granted(vote) => Some(vote.clone()),
            Reply::Awaited | Reply::Refused(_) | Reply::Lost => None,
        });
        if votes.len() >= needed {
            let claim = self.claim.clone();
            return Progress::Granted(Certificate { claim, votes });
        }
        let late = now >= self.deadline();
        let open = self
            .replies(|reply| (*reply == Reply::Awaited && !late).then_some(()))
            .len();
        if votes.len() + open >= needed {
            return Progress::Waiting;
        }
        let refusals = self.replies(|reply| match reply {
            Reply::Refused(refusal) => Some(refusal.clone()),
            Reply::Awaited | Reply::Granted(_) | Reply::Lost => None,
        });
        let reached = votes.len() + refusals.len();
        let worst = refusals.into_iter().max();
        Progress::Refused(worst.unwrap_or(Refusal::NoQuorum { reached, needed }))
    }

    /// Returns what is asked for.
    #[must_use]
    pub const fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Returns when it was begun.
    #[must_use]
    pub const fn started(&self) -> BootInstant {
        self.started
    }

    /// Returns when it is given up.
    #[must_use]
    pub fn deadline(&self) -> BootInstant {
        self.started.after(Self::TIMEOUT)
    }

    fn replies<T>(&self, of: impl Fn(&Reply) -> Option<T>) -> Vec<T> {
        self.asked.values().filter_map(of).collect()
    }
}

fn refusal_of(answer: &Answer) -> Option<Refusal> {
    Some(match answer {
        Answer::Busy {
            holder,
            token,
            resources,
        } => Refusal::Busy {
            token: *token,
            holder: *holder,
            resources: resources.clone(),
        },
        Answer::Stale { floor } => Refusal::Stale { floor: *floor },
        Answer::WrongEpoch { epoch } => Refusal::WrongEpoch { epoch: *epoch },
        Answer::Sealed { .. } => Refusal::Sealed,
        Answer::Denied => Refusal::Denied,
        Answer::Full | Answer::Forgot => Refusal::Unfit,
        Answer::Granted | Answer::Reported(_) | Answer::NotYet | Answer::Gone | Answer::Done => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::lock::claim::Nonce;
    use crate::signature;

    const GROUP: GroupId = GroupId::new([9; 32]);
    const NOW: BootInstant = BootInstant::from_millis(1_000);

    fn key(at: u8) -> SigningKey {
        signature::key_pair(&[at; 32])
    }

    fn voter(at: u8) -> DeviceId {
        DeviceId::new(key(at).verifying_key().to_bytes())
    }

    fn attempt(voters: u8) -> Attempt {
        let claim = Claim {
            token: Token { epoch: 1, n: 4 },
            holder: DeviceId::new([7; 32]),
            nonce: Nonce([3; 16]),
            ttl: Duration::from_mins(1),
            durable: false,
            resources: vec![Resource::parse(b"a").unwrap()],
        };
        let voters: Vec<DeviceId> = (1..=voters).map(voter).collect();
        Attempt::new(claim, &voters, NOW)
    }

    fn grant(attempt: &mut Attempt, by: u8) -> Progress {
        let sig = Vote::sign(&key(by), &GROUP, attempt.claim()).sig;
        attempt.handle_answer(&GROUP, &voter(by), &Answer::Granted, Some(sig), NOW)
    }

    fn refuse(attempt: &mut Attempt, by: u8, answer: &Answer) -> Progress {
        attempt.handle_answer(&GROUP, &voter(by), answer, None, NOW)
    }

    fn busy(n: u64) -> Answer {
        Answer::Busy {
            holder: DeviceId::new([8; 32]),
            token: Token { epoch: 1, n },
            resources: vec![Resource::parse(b"a/").unwrap()],
        }
    }

    #[test]
    fn a_majority_makes_a_certificate_that_holds() {
        let mut three = attempt(3);
        assert_eq!(grant(&mut three, 2), Progress::Waiting);
        let Progress::Granted(certificate) = grant(&mut three, 3) else {
            panic!("two of three are a majority");
        };
        let voters: Vec<DeviceId> = (1..=3).map(voter).collect();
        assert_eq!(certificate.check(&GROUP, &voters), Ok(()));
        assert!(matches!(grant(&mut attempt(1), 1), Progress::Granted(_)));
    }

    #[test]
    fn one_voter_counts_once_and_nobody_else_counts() {
        let mut five = attempt(5);
        for _ in 0..3 {
            assert_eq!(grant(&mut five, 1), Progress::Waiting);
            assert_eq!(grant(&mut five, 6), Progress::Waiting);
        }
        assert_eq!(grant(&mut five, 2), Progress::Waiting);
        assert!(matches!(grant(&mut five, 3), Progress::Granted(_)));
    }

    #[test]
    fn a_vote_for_something_else_is_none() {
        let mut three = attempt(3);
        let other = Claim {
            durable: true,
            ..three.claim().clone()
        };
        for by in 1..=2 {
            let sig = Vote::sign(&key(by), &GROUP, &other).sig;
            three.handle_answer(&GROUP, &voter(by), &Answer::Granted, Some(sig), NOW);
        }
        let refused = Refusal::NoQuorum {
            reached: 0,
            needed: 2,
        };
        assert_eq!(three.progress(NOW), Progress::Refused(refused));
    }

    #[test]
    fn it_is_refused_as_soon_as_no_majority_is_left_and_says_who_is_in_the_way() {
        let mut three = attempt(3);
        assert_eq!(
            refuse(&mut three, 1, &Answer::Stale { floor: 6 }),
            Progress::Waiting
        );
        let refused = refuse(&mut three, 2, &busy(3));
        assert!(
            matches!(refused, Progress::Refused(Refusal::Busy { .. })),
            "{refused:?}"
        );
        let mut three = attempt(3);
        refuse(&mut three, 1, &Answer::Stale { floor: 6 });
        let refused = refuse(&mut three, 2, &Answer::Stale { floor: 9 });
        assert_eq!(refused, Progress::Refused(Refusal::Stale { floor: 9 }));
    }

    #[test]
    fn who_does_not_answer_in_time_is_not_waited_for() {
        let mut three = attempt(3);
        grant(&mut three, 1);
        three.handle_lost(&voter(2), NOW);
        let late = three.deadline();
        assert_eq!(three.progress(NOW), Progress::Waiting);
        let sig = Vote::sign(&key(3), &GROUP, three.claim()).sig;
        let answered = three.handle_answer(&GROUP, &voter(3), &Answer::Granted, Some(sig), late);
        let refused = Refusal::NoQuorum {
            reached: 1,
            needed: 2,
        };
        assert_eq!(answered, Progress::Refused(refused));
    }
}
