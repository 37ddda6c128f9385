use std::time::Duration;

use super::*;

const A: DeviceId = DeviceId::new([1; 32]);
const B: DeviceId = DeviceId::new([2; 32]);
const OWNER: DeviceId = DeviceId::new([3; 32]);
const VIEWER: DeviceId = DeviceId::new([4; 32]);
/// An owner, too.
const OTHER: DeviceId = DeviceId::new([5; 32]);
const TTL: Duration = Duration::from_mins(1);

/// A ledger in which all but one device may write, two owners choose voters, and these things have arrived.
#[derive(Debug, Default)]
struct Ledger {
    grants: Vec<Claim>,
    arrived: u64,
    highest: u64,
}

impl Known for Ledger {
    fn may_write(&self, device: &DeviceId, _resources: &[Resource]) -> bool {
        *device != VIEWER
    }

    fn may_choose_voters(&self, device: &DeviceId) -> bool {
        *device == OWNER || *device == OTHER
    }

    fn highest_number(&self, _epoch: u64) -> u64 {
        self.highest
    }

    fn has_grant(&self, claim: &Claim) -> bool {
        self.grants.contains(claim)
    }

    fn has_log(&self, _device: &DeviceId, size: u64) -> bool {
        size <= self.arrived
    }
}

#[derive(Debug)]
struct Desk {
    voter: Voter,
    ledger: Ledger,
    now: u64,
}

impl Desk {
    fn new() -> Self {
        Self {
            voter: Voter::new(VoterState::new(1, BTreeMap::new()), BootInstant::default()),
            ledger: Ledger::default(),
            now: 0,
        }
    }

    fn ask(&mut self, from: DeviceId, request: &Request) -> Answer {
        let now = BootInstant::from_millis(self.now);
        self.voter.handle_request(&from, request, &self.ledger, now)
    }

    fn acquire(&mut self, claim: &Claim) -> Answer {
        self.ask(claim.holder, &Request::Acquire(claim.clone()))
    }

    fn renew(&mut self, claim: &Claim, durable: bool) -> Answer {
        let renew = Request::Renew {
            epoch: 1,
            claim: claim.clone(),
            durable,
        };
        self.ask(claim.holder, &renew)
    }

    fn release(&mut self, claim: &Claim, last: u64) -> Answer {
        let release = Request::Release {
            epoch: 1,
            nonce: claim.nonce,
            token: claim.token,
            last,
        };
        self.ask(claim.holder, &release)
    }

    fn restart(&mut self) {
        let now = BootInstant::from_millis(self.now);
        self.voter = Voter::new(self.voter.state().clone(), now);
    }

    fn slots(&self) -> usize {
        self.voter.state().slots.len()
    }
}

fn claim(holder: DeviceId, n: u64, resource: &str) -> Claim {
    Claim {
        token: Token { epoch: 1, n },
        holder,
        nonce: Nonce([u8::try_from(n % 251).unwrap(); 16]),
        ttl: TTL,
        durable: false,
        resources: vec![Resource::parse(resource.as_bytes()).unwrap()],
    }
}

fn durable(holder: DeviceId, n: u64, resource: &str) -> Claim {
    Claim {
        durable: true,
        ..claim(holder, n, resource)
    }
}

fn busy(claim: &Claim) -> Answer {
    Answer::Busy {
        holder: claim.holder,
        token: claim.token,
        resources: claim.resources.clone(),
    }
}

#[test]
fn of_two_claims_that_overlap_the_second_is_busy() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "d/");
    assert_eq!(desk.acquire(&held), Answer::Granted);
    for other in ["d", "d/", "d/x", "d/x/y/"] {
        assert_eq!(desk.acquire(&claim(B, 2, other)), busy(&held), "{other}");
        assert_eq!(
            desk.acquire(&claim(A, 3, other)),
            busy(&held),
            "another of its own: {other}"
        );
    }
    assert_eq!(desk.acquire(&claim(B, 4, "e")), Answer::Granted);
}

#[test]
fn the_same_claim_again_is_granted_again_and_lasts_no_longer() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "a");
    desk.acquire(&held);
    desk.now = 59_000;
    assert_eq!(desk.acquire(&held), Answer::Granted);
    desk.now = 60_000;
    assert_eq!(desk.acquire(&claim(B, 2, "a")), Answer::Granted);
}

#[test]
fn a_lease_ends_by_itself_and_its_number_is_not_given_again() {
    let mut desk = Desk::new();
    desk.acquire(&claim(A, 5, "a"));
    desk.now = 59_999;
    assert!(matches!(desk.acquire(&claim(B, 6, "a")), Answer::Busy { .. }));
    desk.now = 60_000;
    assert_eq!(desk.acquire(&claim(B, 5, "a")), Answer::Stale { floor: 5 });
    assert_eq!(desk.acquire(&claim(B, 6, "a")), Answer::Granted);
}

#[test]
fn a_renewal_keeps_it_and_none_brings_it_back() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "a");
    desk.acquire(&held);
    desk.now = 50_000;
    assert_eq!(desk.renew(&held, false), Answer::Granted);
    desk.now = 109_999;
    assert!(matches!(desk.acquire(&claim(B, 2, "a")), Answer::Busy { .. }));
    desk.now = 110_000;
    assert_eq!(desk.renew(&held, false), Answer::Stale { floor: 1 });
}

#[test]
fn a_renewal_of_what_never_came_here_is_judged_as_a_claim() {
    let mut desk = Desk::new();
    assert_eq!(desk.renew(&claim(A, 1, "a"), false), Answer::Granted);
    assert_eq!(desk.renew(&claim(B, 2, "a"), false), busy(&claim(A, 1, "a")));
}

#[test]
fn after_a_restart_a_lease_lasts_its_whole_time_again() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "a");
    desk.acquire(&held);
    desk.now = 59_000;
    desk.restart();
    desk.now = 118_999;
    assert_eq!(desk.acquire(&claim(B, 2, "a")), busy(&held));
    desk.now = 119_000;
    assert_eq!(desk.acquire(&claim(B, 2, "a")), Answer::Granted);
    desk.restart();
    assert_eq!(desk.voter.state().floor, 1);
}

#[test]
fn only_a_recorded_lock_lasts_and_it_lasts_through_restarts() {
    let mut desk = Desk::new();
    let held = durable(A, 1, "a");
    desk.acquire(&held);
    assert_eq!(desk.renew(&held, true), Answer::NotYet);
    desk.ledger.grants.push(held.clone());
    assert_eq!(desk.renew(&held, true), Answer::Granted);
    desk.now = 1 << 40;
    desk.restart();
    desk.now = 1 << 41;
    assert_eq!(desk.acquire(&claim(B, 2, "a")), busy(&held));
    assert_eq!(desk.renew(&held, false), Answer::Granted);
    desk.now = 1 << 42;
    assert_eq!(desk.acquire(&claim(B, 2, "a")), busy(&held));
}

#[test]
fn a_lease_cannot_be_made_to_last() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "a");
    desk.ledger.grants.push(held.clone());
    desk.acquire(&held);
    assert_eq!(desk.renew(&held, true), Answer::Denied);
}

#[test]
fn it_is_released_only_when_the_last_event_has_arrived() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "a");
    desk.acquire(&held);
    assert_eq!(desk.release(&held, 5), Answer::NotYet);
    assert_eq!(desk.slots(), 1);
    desk.ledger.arrived = 5;
    assert_eq!(desk.release(&held, 5), Answer::Done);
    assert_eq!(desk.release(&held, 5), Answer::Gone);
    assert_eq!(desk.acquire(&claim(B, 1, "a")), Answer::Stale { floor: 1 });
    assert_eq!(desk.acquire(&claim(B, 2, "a")), Answer::Granted);
}

#[test]
fn a_claim_that_arrives_after_its_release_is_not_granted() {
    let mut desk = Desk::new();
    let late = claim(A, 7, "a");
    assert_eq!(desk.release(&late, 0), Answer::Gone);
    assert_eq!(desk.acquire(&late), Answer::Stale { floor: 7 });
}

#[test]
fn nobody_uses_up_all_numbers() {
    let mut desk = Desk::new();
    let far = Voter::MAX_STEP + 1;
    assert_eq!(desk.acquire(&claim(A, far, "a")), Answer::Stale { floor: 0 });
    assert_eq!(desk.release(&claim(A, far, "a"), 0), Answer::Gone);
    assert_eq!(desk.voter.state().floor, 0);
    desk.ledger.highest = 1;
    assert_eq!(desk.acquire(&claim(A, far, "a")), Answer::Granted);
}

#[test]
fn it_grants_for_the_requester_and_to_who_may_write_only() {
    let mut desk = Desk::new();
    let claimed = Request::Acquire(claim(A, 1, "a"));
    assert_eq!(desk.ask(B, &claimed), Answer::Denied);
    assert_eq!(desk.acquire(&claim(VIEWER, 1, "a")), Answer::Denied);
    desk.ask(A, &claimed);
    let foreign = Request::Release {
        epoch: 1,
        nonce: claim(A, 1, "a").nonce,
        token: Token { epoch: 1, n: 1 },
        last: 0,
    };
    desk.ask(B, &foreign);
    assert_eq!(desk.slots(), 1, "another's slot is not released");
}

#[test]
fn a_claim_beyond_the_limits_is_denied() {
    let mut desk = Desk::new();
    let mut long = claim(A, 1, "a");
    long.ttl = Claim::MAX_TTL * 2;
    assert_eq!(desk.acquire(&long), Answer::Denied);
    let mut two = claim(A, 1, "a");
    desk.acquire(&two);
    two.resources = vec![Resource::parse(b"b").unwrap()];
    assert_eq!(desk.acquire(&two), Answer::Denied, "one nonce names one claim");
}

#[test]
fn a_sealed_voter_grants_keeps_and_releases_nothing() {
    let mut desk = Desk::new();
    let held = claim(A, 1, "a");
    desk.acquire(&held);
    let seal = |next| Request::Seal { epoch: 1, next };
    assert_eq!(desk.ask(A, &seal([1; 32])), Answer::Denied);
    let reported = desk.ask(OWNER, &seal([1; 32]));
    assert!(matches!(&reported, Answer::Reported(report) if report.slots.len() == 1));
    assert_eq!(desk.ask(OWNER, &seal([1; 32])), reported);
    let sealed = Answer::Sealed { next: [1; 32] };
    assert_eq!(desk.ask(OWNER, &seal([2; 32])), sealed);
    assert_eq!(desk.acquire(&claim(B, 2, "b")), sealed);
    assert_eq!(desk.renew(&held, false), sealed);
    assert_eq!(desk.release(&held, 0), sealed);
    desk.restart();
    assert_eq!(desk.acquire(&claim(B, 2, "b")), sealed);
    assert_eq!(desk.ask(OWNER, &Request::Unseal { next: [2; 32] }), Answer::Done);
    assert_eq!(desk.acquire(&claim(B, 2, "b")), sealed);
    assert_eq!(
        desk.ask(OTHER, &Request::Unseal { next: [1; 32] }),
        Answer::Denied
    );
    assert_eq!(desk.acquire(&claim(B, 2, "b")), sealed);
    assert_eq!(desk.ask(OWNER, &Request::Unseal { next: [1; 32] }), Answer::Done);
    assert_eq!(desk.acquire(&claim(B, 2, "b")), Answer::Granted);
}

#[test]
fn what_asks_for_seals_that_were_thrown_away_comes_too_late() {
    let mut desk = Desk::new();
    let seal = |next| Request::Seal { epoch: 1, next };
    desk.ask(OWNER, &seal([1; 32]));
    desk.ask(OWNER, &Request::Unseal { next: [1; 32] });
    assert_eq!(desk.ask(OWNER, &Request::Unseal { next: [2; 32] }), Answer::Done);
    desk.restart();
    assert_eq!(desk.ask(OWNER, &seal([1; 32])), Answer::Denied);
    assert_eq!(desk.ask(OWNER, &seal([2; 32])), Answer::Denied);
    assert_eq!(desk.acquire(&claim(A, 1, "a")), Answer::Granted);
    for n in 3..3 + u8::try_from(Voter::MAX_SETS).unwrap() {
        desk.ask(OWNER, &Request::Unseal { next: [n; 32] });
    }
    assert_eq!(desk.voter.state().unsealed.len(), Voter::MAX_SETS);
}

#[test]
fn it_votes_once_in_a_set_that_it_stood_for() {
    let mut desk = Desk::new();
    let stand = |next| Request::Stand { next };
    assert_eq!(desk.ask(A, &stand([1; 32])), Answer::Denied);
    assert_eq!(desk.ask(OWNER, &stand([1; 32])), Answer::Done);
    desk.restart();
    let mut held = claim(A, 1, "a");
    held.token.epoch = 2;
    desk.voter
        .enter(2, [1; 32], BTreeMap::new(), BootInstant::default());
    assert_eq!(desk.acquire(&held), Answer::Granted);
    assert_eq!(desk.ask(OWNER, &stand([1; 32])), Answer::Denied);
    desk.voter
        .enter(3, [2; 32], BTreeMap::new(), BootInstant::default());
    held.token.epoch = 3;
    assert_eq!(desk.acquire(&held), Answer::Forgot, "it never stood for that");
    desk.voter
        .enter(2, [1; 32], BTreeMap::new(), BootInstant::default());
    assert_eq!(
        desk.acquire(&claim(A, 1, "a")),
        Answer::Forgot,
        "it was in that before"
    );
    assert_eq!(
        desk.ask(OWNER, &stand([3; 32])),
        Answer::Done,
        "a new one makes it good"
    );
    held.token.epoch = 4;
    desk.voter
        .enter(4, [3; 32], BTreeMap::new(), BootInstant::default());
    assert_eq!(desk.acquire(&held), Answer::Granted);
}

#[test]
fn a_voter_of_a_new_epoch_knows_what_it_took_over_by_its_old_token() {
    let mut desk = Desk::new();
    let held = claim(A, 9, "a");
    let gone = claim(A, 8, "b");
    let slot = Slot {
        claim: held.clone(),
        durable: false,
    };
    let slots = BTreeMap::from([((A, held.nonce), slot)]);
    desk.voter = Voter::new(VoterState::new(2, slots), BootInstant::default());
    assert_eq!(desk.renew(&held, false), Answer::WrongEpoch { epoch: 2 });
    let renew = |claim: &Claim| Request::Renew {
        epoch: 2,
        claim: claim.clone(),
        durable: false,
    };
    assert_eq!(desk.ask(A, &renew(&held)), Answer::Granted);
    assert_eq!(desk.ask(A, &renew(&gone)), Answer::Stale { floor: 0 });
    let mut next = claim(B, 1, "a");
    next.token.epoch = 2;
    assert_eq!(desk.acquire(&next), busy(&held));
    desk.voter.remove(&(A, held.nonce));
    assert_eq!(
        desk.voter.state().floor,
        0,
        "numbers of another epoch are no floor"
    );
    assert_eq!(desk.acquire(&next), Answer::Granted);
}

#[test]
fn one_that_lost_its_state_answers_nothing() {
    let mut desk = Desk::new();
    let mut state = VoterState::new(1, BTreeMap::new());
    state.forgot = true;
    desk.voter = Voter::new(state, BootInstant::default());
    assert_eq!(desk.acquire(&claim(A, 1, "a")), Answer::Forgot);
    assert_eq!(
        desk.ask(
            OWNER,
            &Request::Seal {
                epoch: 1,
                next: [1; 32]
            }
        ),
        Answer::Forgot
    );
}

#[test]
fn slots_that_last_are_limited_for_each_holder() {
    let mut desk = Desk::new();
    let count = u64::try_from(Voter::MAX_DURABLE).unwrap();
    for n in 1..=count + 1 {
        let mut held = durable(A, n, &format!("f{n}"));
        held.nonce = Nonce(u128::from(n).to_be_bytes());
        desk.ledger.grants = vec![held.clone()];
        assert_eq!(desk.acquire(&held), Answer::Granted);
        let expect = if n > count { Answer::Full } else { Answer::Granted };
        assert_eq!(desk.renew(&held, true), expect, "{n}");
    }
}

#[test]
fn one_holder_does_not_fill_a_voter() {
    let mut desk = Desk::new();
    let count = u64::try_from(Voter::MAX_OF_HOLDER).unwrap();
    for n in 1..=count + 1 {
        let mut held = claim(A, n, &format!("f{n}"));
        held.nonce = Nonce(u128::from(n).to_be_bytes());
        let expect = if n > count { Answer::Full } else { Answer::Granted };
        assert_eq!(desk.acquire(&held), expect, "{n}");
    }
    assert_eq!(desk.acquire(&claim(B, count + 2, "g")), Answer::Granted);
}

#[test]
fn what_it_must_not_forget_is_read_back() {
    let mut desk = Desk::new();
    desk.acquire(&claim(A, 1, "a"));
    let lasting = durable(B, 2, "b/");
    desk.acquire(&lasting);
    desk.ledger.grants.push(lasting.clone());
    assert_eq!(desk.renew(&lasting, true), Answer::Granted);
    desk.release(&claim(A, 1, "a"), 0);
    desk.ask(
        OWNER,
        &Request::Seal {
            epoch: 1,
            next: [7; 32],
        },
    );
    let state = desk.voter.state();
    assert_eq!((state.slots.len(), state.floor), (1, 1));
    assert_eq!(
        VoterState::from_bytes(&state.to_bytes()).ok().as_ref(),
        Some(state)
    );
}
