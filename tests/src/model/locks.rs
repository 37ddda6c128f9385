//! The lock protocol with every order of its messages, crashes and clocks, in small groups (locks.md 5).
//!
//! Voters and leases are the product's. Around them are a network that delivers what was sent in any order, any number of
//! times or never; voters whose clocks run 1.5 % fast and holders whose clocks run as much slow; restarts, holders that
//! are gone for good, and one change of voters. Answers come at once: one that is lost is one to a request that comes
//! again.
//!
//! Time goes from one deadline to the next, since nothing that happens in between is told apart by anybody.
//!
//! The [`Mistake`]s are what a voter or holder could be wrong about. Each must break a rule, or the model looks
//! away.

pub mod cases;
mod rules;
mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::lock::succession::Report;
use p2p_sync_core::lock::{Claim, Known, Lease, Nonce, Resource, SlotId, Token, Voter, VoterState, quorum};
use p2p_sync_core::time::BootInstant;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property, Representative};

/// How long a voter keeps a lease.
const TTL: Duration = Duration::from_mins(1);
/// By how much clocks are wrong, in thousandths.
const DRIFT: u64 = 15;
/// What a voter cannot have measured of the time that it was off.
const UNMEASURED_MS: u64 = 30_000;
/// A claim was granted under a token that is not above all before.
const TOKEN_NOT_ABOVE: &str = "a token that is not above the last";
/// A claim was granted to somebody who does not know what the last holder wrote.
const WITHOUT_LAST_WRITE: &str = "a holder without the last write";
/// Who chooses voters.
/// The first byte of the ids of holders.
const HOLDERS_FROM: u8 = 0x80;
const OWNER: DeviceId = DeviceId::new([0xff; 32]);

/// What somebody gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// One voter is enough.
    QuorumOfOne,
    /// The holder believes for as long as the voters keep.
    NoGuard,
    /// The holder counts from the last answer.
    CountsFromAnswer,
    /// A voter's slots are gone after a restart.
    SlotsLost,
    /// A restarted voter takes off the time that it believes to have been off.
    CountsTimeOff,
    /// A voter takes any token.
    NoFloor,
    /// A restarted voter takes any token.
    FloorLost,
    /// New voters take over only what most of the old ones had.
    TakesOverMajority,
    /// A sealed voter goes on.
    GoesOnSealed,
    /// Voters of two epochs vote for one claim.
    MixesEpochs,
    /// A holder is done when one voter has its last write.
    DoneAtOne,
    /// An owner who let voters go on keeps the seals that he has.
    KeepsSeals,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::QuorumOfOne,
        Self::NoGuard,
        Self::CountsFromAnswer,
        Self::SlotsLost,
        Self::CountsTimeOff,
        Self::NoFloor,
        Self::FloorLost,
        Self::TakesOverMajority,
        Self::GoesOnSealed,
        Self::MixesEpochs,
        Self::DoneAtOne,
        Self::KeepsSeals,
    ];
}

/// What is looked at.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    /// For each claim that is made: the epoch of the voters it is for, counted from 1.
    pub tries: Vec<u64>,
    /// The greatest number that a claim may have; each may have any up to it.
    pub max_number: u64,
    /// Whether holders renew.
    pub renews: bool,
    /// Whether locks last until they are released.
    pub durable: bool,
    /// Whether holders write and release.
    pub releases: bool,
    /// Whether an owner changes the voters.
    pub changes_voters: bool,
    /// Whether he gives up once before.
    pub gives_up: bool,
    /// How often voters restart.
    pub restarts: u8,
    /// How many holders are gone for good.
    pub crashes: u8,
    /// When nothing more happens, in milliseconds.
    pub horizon_ms: u64,
    /// What is wrong.
    pub mistake: Option<Mistake>,
}

/// What came of looking at all states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many there are, voters put in one order.
    pub states: usize,
    /// What is not always so.
    pub broken: Vec<&'static str>,
    /// What never is so.
    pub impossible: Vec<&'static str>,
}

impl Outcome {
    /// Looks at all states that can be reached; where something is wrong, until the first that shows it.
    #[must_use]
    pub fn of(model: Locks) -> Self {
        let finish = if model.mistake.is_some() {
            HasDiscoveries::AnyFailures
        } else {
            HasDiscoveries::All
        };
        let properties = model.properties();
        let checker = model
            .checker()
            .symmetry()
            .threads(2)
            .finish_when(finish)
            .spawn_dfs()
            .join();
        let found = |expectation: Expectation, is: bool| {
            let of = properties
                .iter()
                .filter(|property| property.expectation == expectation);
            of.map(|property| property.name)
                .filter(|name| checker.discovery(name).is_some() == is)
                .collect()
        };
        Self {
            states: checker.unique_state_count(),
            broken: found(Expectation::Always, true),
            impossible: found(Expectation::Sometimes, false),
        }
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    now_ms: u64,
    /// Devices that are or will be voters; `None`: not yet, or not any more.
    voters: Vec<Option<Voter>>,
    /// Of whose last writes each device knows, by claim.
    has: Vec<u8>,
    tries: Vec<Try>,
    /// What the voters of the first epoch said when they were sealed.
    reports: Vec<Option<Report>>,
    /// Whether the owner has given up once.
    given_up: bool,
    /// With what those of the second begin.
    second: Option<VoterState>,
    restarts: u8,
    crashes: u8,
    /// The greatest token that anybody was granted.
    greatest: Option<Token>,
    /// What went wrong on the way here.
    wrong: Option<&'static str>,
    handed_over: bool,
}

/// How far a claim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    NotMade,
    Asking,
    Granted,
    Releasing,
    /// Its last write is safe, as its holder believes.
    Done,
    /// Its holder is gone.
    Crashed,
}

/// One claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Try {
    stage: Stage,
    n: u64,
    started_ms: u64,
    /// When the last of its votes came.
    answered_ms: u64,
    /// The devices that granted it, as bits.
    votes: u8,
    /// Of whose last writes those knew.
    read: u8,
    /// When its renewal was sent.
    renewed_ms: Option<u64>,
    /// To the voters of which epoch.
    renewed_for: u64,
    renewals: u8,
    /// To the voters of which epoch it is released.
    released_for: u64,
    /// The devices that let go of it with its last write.
    done: u8,
}

/// What a holder sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// See [`Request::Acquire`](p2p_sync_core::lock::Request::Acquire).
    Acquire,
    /// See [`Request::Renew`](p2p_sync_core::lock::Request::Renew).
    Renew,
    /// See [`Request::Release`](p2p_sync_core::lock::Request::Release).
    Release,
}

/// What happens next. Claims and devices are named by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next deadline is over.
    Pass,
    /// A device makes a claim with this number.
    Start(usize, u64),
    /// What a holder sent reaches a device.
    Deliver(usize, Message, usize),
    /// A holder sends its renewal.
    Renew(usize),
    /// A holder makes its last write and lets go.
    Release(usize),
    /// A holder's last write reaches a device.
    Spread(usize, usize),
    /// A holder is gone.
    Crash(usize),
    /// A voter restarts.
    Restart(usize),
    /// A voter of the first epoch is sealed.
    Seal(usize),
    /// The owner gives up.
    GiveUp,
    /// A voter hears of that.
    Unseal(usize),
    /// The owner has seals enough.
    Publish,
    /// A voter of the second epoch hears of it.
    Learn(usize),
}

impl Locks {
    /// How many devices there are.
    const fn devices(&self) -> usize {
        if self.changes_voters { 4 } else { 3 }
    }

    /// Returns the voters of an epoch, as bits.
    const fn voters(epoch: u64) -> u8 {
        if epoch == 1 { 0b0111 } else { 0b1110 }
    }

    fn is_quorum(&self, devices: u8, epoch: u64) -> bool {
        let needed = if self.has(Mistake::QuorumOfOne) {
            1
        } else {
            quorum(3)
        };
        let voters = if self.has(Mistake::MixesEpochs) {
            0b1111
        } else {
            Self::voters(epoch)
        };
        (devices & voters).count_ones() as usize >= needed
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn claim(&self, at: usize, n: u64) -> Claim {
        let name = u8::try_from(at).unwrap_or(u8::MAX);
        Claim {
            token: Token {
                epoch: self.tries[at],
                n,
            },
            holder: holder(at),
            nonce: Nonce([name; 16]),
            ttl: TTL,
            durable: self.durable,
            resources: Resource::parse(b"a").into_iter().collect(),
        }
    }

    /// Says whether the holder of a claim acts on it.
    fn believes(&self, state: &State, at: usize) -> bool {
        let one = &state.tries[at];
        one.stage == Stage::Granted && self.believes_at(one, state.now_ms)
    }

    /// Says whether the holder of a granted claim would act on it at some time, by its clock.
    fn believes_at(&self, one: &Try, now_ms: u64) -> bool {
        let begun = if self.has(Mistake::CountsFromAnswer) {
            one.answered_ms
        } else {
            one.started_ms
        };
        let now = holder_clock(now_ms);
        if self.has(Mistake::NoGuard) {
            return now < holder_clock(begun).after(TTL);
        }
        let mut lease = Lease::new(holder_clock(begun), TTL);
        if let Some(sent) = one.renewed_ms {
            let of = |bits: u8| (0..self.devices()).filter(move |device| bits >> device & 1 == 1);
            let voters: Vec<DeviceId> = of(Self::voters(one.renewed_for)).map(device_id).collect();
            let number = lease.renew(&voters, self.durable, holder_clock(sent));
            for device in of(one.renewals) {
                lease.handle_granted(&device_id(device), number);
            }
        }
        lease.holds(now)
    }
}

impl Model for Locks {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = |device: usize| {
            let is_voter = Self::voters(1) >> device & 1 == 1;
            is_voter.then(|| Voter::new(VoterState::new(1, BTreeMap::new()), voter_clock(0)))
        };
        let unmade = Try {
            stage: Stage::NotMade,
            n: 0,
            started_ms: 0,
            answered_ms: 0,
            votes: 0,
            read: 0,
            renewed_ms: None,
            renewed_for: 0,
            renewals: 0,
            released_for: 0,
            done: 0,
        };
        vec![State {
            now_ms: 0,
            voters: (0..self.devices()).map(first).collect(),
            has: vec![0; self.devices()],
            tries: vec![unmade; self.tries.len()],
            reports: vec![None; self.devices()],
            given_up: false,
            second: None,
            restarts: 0,
            crashes: 0,
            greatest: None,
            wrong: None,
            handed_over: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.list_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        self.take(&mut next, action);
        if next == *last {
            return None;
        }
        self.note_wrong(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::properties()
    }
}

impl Representative for State {
    /// Puts voters that nobody tells apart in one order.
    fn representative(&self) -> Self {
        if self.voters.len() > 3 {
            return self.clone();
        }
        let bits = |device: usize| {
            let bit = |of: u8| of >> device & 1;
            let of = |one: &Try| (bit(one.votes), bit(one.renewals), bit(one.done));
            self.tries.iter().map(of).collect::<Vec<_>>()
        };
        let mut order: Vec<usize> = (0..self.voters.len()).collect();
        order.sort_by_cached_key(|device| (self.voters[*device].clone(), self.has[*device], bits(*device)));
        let permuted = |of: u8| {
            let moved = order.iter().enumerate();
            moved.fold(0, |bits, (to, from)| bits | ((of >> from & 1) << to))
        };
        let mut other = self.clone();
        for (to, from) in order.iter().enumerate() {
            other.voters[to].clone_from(&self.voters[*from]);
            other.has[to] = self.has[*from];
        }
        for one in &mut other.tries {
            one.votes = permuted(one.votes);
            one.renewals = permuted(one.renewals);
            one.done = permuted(one.done);
        }
        other
    }
}

/// What a voter knows: everybody may write, and the lock of a claim that a majority granted is recorded.
#[derive(Debug)]
struct Ledger {
    recorded: Vec<SlotId>,
    has: u8,
}

impl Known for Ledger {
    fn may_write(&self, _device: &DeviceId, _resources: &[Resource]) -> bool {
        true
    }

    fn may_choose_voters(&self, device: &DeviceId) -> bool {
        *device == OWNER
    }

    fn highest_number(&self, _epoch: u64) -> u64 {
        0
    }

    fn has_grant(&self, claim: &Claim) -> bool {
        self.recorded.contains(&claim.id())
    }

    fn has_log(&self, device: &DeviceId, size: u64) -> bool {
        size == 0 || self.has >> (device.as_bytes()[0] - HOLDERS_FROM) & 1 == 1
    }
}

fn holder(at: usize) -> DeviceId {
    DeviceId::new([HOLDERS_FROM + u8::try_from(at).unwrap_or(u8::MAX); 32])
}

fn device_id(at: usize) -> DeviceId {
    DeviceId::new([u8::try_from(at).unwrap_or(u8::MAX); 32])
}

/// Voters' clocks run fast.
const fn voter_clock(ms: u64) -> BootInstant {
    BootInstant::from_millis(ms * (1_000 + DRIFT) / 1_000)
}

/// Holders' clocks run slow.
const fn holder_clock(ms: u64) -> BootInstant {
    BootInstant::from_millis(ms * (1_000 - DRIFT) / 1_000)
}
