use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;

use super::*;
use crate::ids::GroupId;
use crate::lock::{Claim, Known, Request, Resource, Token, Vote, Voter, VoterState};
use crate::signature;

const GROUP: GroupId = GroupId::new([9; 32]);

/// What a voter's ledger has.
#[derive(Debug, Default)]
struct Ledger {
    grants: BTreeSet<(DeviceId, Token)>,
    sizes: BTreeMap<DeviceId, u64>,
}

impl Known for Ledger {
    fn may_write(&self, _device: &DeviceId, _resources: &[Resource]) -> bool {
        true
    }

    fn may_choose_voters(&self, _device: &DeviceId) -> bool {
        false
    }

    fn highest_number(&self, _epoch: u64) -> u64 {
        self.grants.iter().map(|(_, token)| token.n).max().unwrap_or(0)
    }

    fn has_grant(&self, claim: &Claim) -> bool {
        self.grants.contains(&(claim.holder, claim.token))
    }

    fn has_log(&self, device: &DeviceId, size: u64) -> bool {
        self.sizes.get(device).copied().unwrap_or(0) >= size
    }
}

#[derive(Debug)]
struct Holder {
    manager: LockManager,
    lock: Option<LockNo>,
    claim: Option<Claim>,
    log: u64,
    seen: Vec<LockOutput>,
}

#[derive(Debug)]
enum Letter {
    Ask(usize, usize, AskNo, Request),
    Answer(usize, AskNo, Option<Voted>),
    /// A voter hears so much of a holder's log, and of this lock in it.
    Events(usize, usize, u64, Option<Claim>),
}

/// Voters and holders, and a network that takes its time.
#[derive(Debug)]
struct World {
    now: u64,
    seed: u64,
    /// Of a hundred questions, how many get lost.
    loss: u64,
    voters: Vec<(Voter, Ledger, SigningKey)>,
    holders: Vec<Holder>,
    post: BTreeMap<(u64, u64), Letter>,
    sent: u64,
    /// The tokens under which something was held, in order.
    held: Vec<(u64, usize)>,
}

impl World {
    fn new(voters: u8, holders: u8, seed: u64) -> Self {
        let voter = |at| {
            let state = VoterState::new(0, BTreeMap::new());
            let voter = Voter::new(state, BootInstant::default());
            (voter, Ledger::default(), signature::key_pair(&[at + 1; 32]))
        };
        let holder = |at| Holder {
            manager: LockManager::new(DeviceId::new([0x80 + at; 32])),
            lock: None,
            claim: None,
            log: 0,
            seen: Vec::new(),
        };
        Self {
            now: 1_000,
            seed,
            loss: 0,
            voters: (0..voters).map(voter).collect(),
            holders: (0..holders).map(holder).collect(),
            post: BTreeMap::new(),
            sent: 0,
            held: Vec::new(),
        }
    }

    fn boot(&self) -> BootInstant {
        BootInstant::from_millis(self.now)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % bound
    }

    fn device(key: &SigningKey) -> DeviceId {
        DeviceId::new(key.verifying_key().to_bytes())
    }

    fn electorate(&self, highest: u64) -> Electorate {
        Electorate {
            group: GROUP,
            epoch: 0,
            voters: self.voters.iter().map(|(.., key)| Self::device(key)).collect(),
            highest,
        }
    }

    fn send(&mut self, letter: Letter) {
        let at = self.now + 1 + self.below(200);
        self.sent += 1;
        self.post.insert((at, self.sent), letter);
    }

    fn acquire(&mut self, at: usize, wait_ms: Option<u64>) {
        let wanted = Wanted {
            resources: vec![Resource::parse(b"a").unwrap()],
            durable: true,
            wait_until: wait_ms.map(|ms| BootInstant::from_millis(self.now + ms)),
        };
        let (electorate, now, salt) = (self.electorate(0), self.boot(), self.below(u64::MAX));
        let lock = self.holders[at]
            .manager
            .acquire_lock(wanted, electorate, now, &mut fresh(salt));
        self.holders[at].lock = Some(lock);
        self.settle(at);
    }

    /// The holder is done: its log says so, and the voters hear of it some time.
    fn release(&mut self, at: usize) {
        let now = self.boot();
        let holder = &mut self.holders[at];
        holder.log += 1;
        let (lock, log) = (holder.lock.unwrap(), holder.log);
        holder.manager.release_lock(lock, log, None, now);
        for voter in 0..self.voters.len() {
            self.send(Letter::Events(voter, at, log, None));
        }
        self.settle(at);
    }

    /// Does what a holder's manager wants done.
    fn settle(&mut self, at: usize) {
        while let Some(output) = self.holders[at].manager.poll_output() {
            match &output {
                LockOutput::Ask { voter, ask, request } => {
                    let to = self
                        .voters
                        .iter()
                        .position(|(.., key)| Self::device(key) == *voter);
                    if self.below(100) < self.loss {
                        self.send(Letter::Answer(at, *ask, None));
                    } else {
                        self.send(Letter::Ask(to.unwrap(), at, *ask, request.clone()));
                    }
                }
                LockOutput::Granted {
                    lock, certificate, ..
                } => {
                    let voters = self.electorate(0).voters;
                    certificate.check(&GROUP, &voters).expect("a certificate");
                    let now = self.boot();
                    let holder = &mut self.holders[at];
                    holder.log += 1;
                    holder.claim = Some(certificate.claim.clone());
                    holder.manager.recorded(*lock, now);
                    let log = holder.log;
                    for voter in 0..self.voters.len() {
                        let claim = Some(certificate.claim.clone());
                        self.send(Letter::Events(voter, at, log, claim));
                    }
                }
                LockOutput::Held { .. } => {
                    let token = self.holders[at].claim.as_ref().unwrap().token;
                    self.held.push((token.n, at));
                }
                LockOutput::Failed { .. } | LockOutput::Released { .. } => self.holders[at].lock = None,
            }
            self.holders[at].seen.push(output);
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let now = self.boot();
        match letter {
            Letter::Ask(to, from, ask, request) => {
                let device = DeviceId::new([0x80 + u8::try_from(from).unwrap(); 32]);
                let (voter, ledger, key) = &mut self.voters[to];
                let answer = voter.handle_request(&device, &request, ledger, now);
                let sig = match (&request, &answer) {
                    (Request::Acquire(claim), Answer::Granted) => Some(Vote::sign(key, &GROUP, claim).sig),
                    _ => None,
                };
                let voted = Voted {
                    sig,
                    ..Voted::from(answer)
                };
                let lost = self.below(100) < self.loss;
                self.send(Letter::Answer(from, ask, (!lost).then_some(voted)));
            }
            Letter::Answer(to, ask, voted) => {
                let salt = self.below(u64::MAX);
                self.holders[to]
                    .manager
                    .handle_answer(ask, voted, now, &mut fresh(salt));
                self.settle(to);
            }
            Letter::Events(to, of, size, claim) => {
                let device = DeviceId::new([0x80 + u8::try_from(of).unwrap(); 32]);
                let (_, ledger, _) = &mut self.voters[to];
                let known = ledger.sizes.entry(device).or_default();
                *known = size.max(*known);
                ledger.grants.extend(claim.map(|claim| (device, claim.token)));
            }
        }
    }

    /// Lets time pass, until nothing is under way or so long.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let post = self.post.first_key_value().map(|((at, _), _)| *at);
            let due = |holder: &Holder| holder.manager.poll_timeout().map(BootInstant::as_millis);
            let timer = self
                .holders
                .iter()
                .filter_map(due)
                .min()
                .map(|at| at.max(self.now + 1));
            let Some(next) = post.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            if post == Some(next) {
                let (_, letter) = self.post.pop_first().unwrap();
                self.deliver(letter);
            } else {
                for at in 0..self.holders.len() {
                    let (now, salt) = (self.boot(), self.below(u64::MAX));
                    self.holders[at].manager.handle_timeout(now, &mut fresh(salt));
                    self.settle(at);
                }
            }
            self.check();
        }
    }

    fn holding(&self) -> Vec<usize> {
        let now = self.boot();
        let holds = |holder: &Holder| holder.lock.is_some_and(|lock| holder.manager.holds(lock, now));
        (0..self.holders.len())
            .filter(|at| holds(&self.holders[*at]))
            .collect()
    }

    #[track_caller]
    fn check(&self) {
        assert!(self.holding().len() <= 1, "two hold it: {:?}", self.holding());
        let rising = self.held.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rising, "a later lock has no greater token: {:?}", self.held);
    }

    fn last(&self, at: usize) -> &LockOutput {
        let seen = self.holders[at].seen.iter();
        let told = |output: &&LockOutput| !matches!(output, LockOutput::Ask { .. });
        seen.rev().find(told).expect("something was told")
    }
}

fn fresh(salt: u64) -> impl FnMut() -> [u8; 16] {
    let mut count = 0_u64;
    move || {
        count += 1;
        let mixed = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ count;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&mixed.to_be_bytes());
        bytes[8..].copy_from_slice(&salt.to_be_bytes());
        bytes
    }
}

#[test]
fn who_asks_first_holds_and_the_other_hears_who() {
    for voters in [1, 3, 5] {
        let mut world = World::new(voters, 2, 1);
        world.acquire(0, None);
        world.pass(5_000);
        assert!(matches!(world.last(0), LockOutput::Held { .. }));
        world.acquire(1, None);
        world.pass(5_000);
        let holder = DeviceId::new([0x80; 32]);
        let LockOutput::Failed {
            error: LockError::Busy { holder: named, .. },
            ..
        } = world.last(1)
        else {
            panic!("{:?}", world.last(1));
        };
        assert_eq!(*named, holder);
        world.pass(3_600_000);
        assert_eq!(world.holding(), [0], "a lasting lock runs out by no clock");
    }
}

#[test]
fn who_waits_gets_it_once_it_is_released() {
    let mut world = World::new(3, 2, 2);
    world.acquire(0, None);
    world.pass(5_000);
    world.acquire(1, Some(60_000));
    world.pass(20_000);
    assert_eq!(world.holding(), [0]);
    world.release(0);
    world.pass(20_000);
    assert_eq!(world.holding(), [1]);
    assert!(matches!(
        world.last(0),
        LockOutput::Released {
            by_majority: true,
            ..
        }
    ));
}

#[test]
fn without_a_majority_there_is_no_lock_and_nothing_is_left_of_the_try() {
    let mut world = World::new(3, 1, 3);
    world.loss = 100;
    world.acquire(0, None);
    world.pass(10_000);
    let LockOutput::Failed {
        error: LockError::NoQuorum {
            reached: 0,
            needed: 2,
        },
        ..
    } = world.last(0)
    else {
        panic!("{:?}", world.last(0));
    };
    world.loss = 0;
    world.acquire(0, None);
    world.pass(5_000);
    assert_eq!(world.holding(), [0]);
}

#[test]
fn whatever_gets_lost_two_never_hold_it_and_tokens_rise() {
    let mut rounds = 0;
    for seed in 0..300_u64 {
        let mut world = World::new([1, 3, 5][usize::try_from(seed % 3).unwrap()], 3, seed);
        world.loss = [0, 10, 30][usize::try_from(seed / 3 % 3).unwrap()];
        for _ in 0..40 {
            let at = usize::try_from(world.below(3)).unwrap();
            if world.holders[at].lock.is_none() {
                let wait = [None, Some(3_000)][usize::try_from(world.below(2)).unwrap()];
                world.acquire(at, wait);
            } else if world.holding() == [at] {
                world.release(at);
            }
            let ms = world.below(4_000);
            world.pass(ms);
        }
        rounds += world.held.len();
    }
    assert!(rounds > 1_000, "only {rounds} locks were held");
}

#[test]
fn after_a_restart_it_is_held_again_when_the_voters_say_so() {
    let mut world = World::new(3, 1, 5);
    world.acquire(0, None);
    world.pass(5_000);
    let claim = world.holders[0].claim.clone().unwrap();
    world.holders[0].manager = LockManager::new(claim.holder);
    let (electorate, now) = (world.electorate(1), world.boot());
    let lock = world.holders[0].manager.resume(claim, electorate, now);
    world.holders[0].lock = Some(lock);
    world.held.clear();
    assert!(world.holding().is_empty());
    world.pass(5_000);
    assert_eq!(world.holding(), [0]);
}
