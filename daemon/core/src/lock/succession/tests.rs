use std::time::Duration;

use super::*;
use crate::lock::claim::{Claim, Token};
use crate::lock::resource::Resource;

const GROUP: GroupId = GroupId::new([9; 32]);
const HOLDER: DeviceId = DeviceId::new([7; 32]);

fn key(at: u8) -> SigningKey {
    signature::key_pair(&[at; 32])
}

fn device(at: u8) -> DeviceId {
    DeviceId::new(key(at).verifying_key().to_bytes())
}

fn voters(keys: &[u8]) -> Vec<DeviceId> {
    let mut voters: Vec<DeviceId> = keys.iter().map(|at| device(*at)).collect();
    voters.sort();
    voters
}

fn next() -> Next {
    Next {
        epoch: 2,
        voters: voters(&[3, 4, 5]),
        owner: HOLDER,
        nonce: Nonce([1; 16]),
    }
}

fn slot(nonce: u8, durable: bool) -> (SlotId, Slot) {
    let claim = Claim {
        token: Token { epoch: 1, n: 4 },
        holder: HOLDER,
        nonce: Nonce([nonce; 16]),
        ttl: Duration::from_mins(1),
        durable: true,
        resources: vec![Resource::parse(b"a").unwrap()],
    };
    ((HOLDER, claim.nonce), Slot { claim, durable })
}

fn seal(by: u8, slots: &[(SlotId, Slot)]) -> Seal {
    let report = Report {
        epoch: 1,
        next: next().hash(&GROUP),
        slots: slots.iter().cloned().collect(),
    };
    Seal::sign(&key(by), &GROUP, report)
}

fn check(next: Next, seals: Vec<Seal>) -> Result<VoterState, SuccessionError> {
    Succession { next, seals }.check(&GROUP, 1, &voters(&[1, 2, 3]))
}

fn first(seal: &mut Seal) -> &mut Slot {
    seal.report.slots.values_mut().next().unwrap()
}

#[test]
fn new_voters_begin_with_all_that_any_seal_names() {
    let seals = vec![
        seal(1, &[slot(1, false), slot(2, true)]),
        seal(2, &[slot(1, true)]),
    ];
    let state = check(next(), seals).unwrap();
    let expect = BTreeMap::from([slot(1, true), slot(2, true)]);
    assert_eq!(state, VoterState::new(2, expect));
}

#[test]
fn fewer_foreign_or_repeated_seals_do_not_do() {
    use SuccessionError::{Quorum, Seal};
    assert_eq!(check(next(), vec![seal(1, &[])]), Err(Quorum));
    assert_eq!(check(next(), vec![seal(1, &[]), seal(1, &[])]), Err(Seal));
    assert_eq!(check(next(), vec![seal(1, &[]), seal(4, &[])]), Err(Seal));
}

#[test]
fn a_seal_is_for_one_set_one_owner_and_one_try_of_his() {
    let seals = || vec![seal(1, &[]), seal(2, &[])];
    let with = |change: fn(&mut Next)| {
        let mut next = next();
        change(&mut next);
        check(next, seals())
    };
    assert!(with(|_| ()).is_ok());
    assert_eq!(
        with(|next| next.voters = voters(&[3, 4, 6])),
        Err(SuccessionError::Seal)
    );
    assert_eq!(with(|next| next.owner = device(1)), Err(SuccessionError::Seal));
    assert_eq!(
        with(|next| next.nonce = Nonce([2; 16])),
        Err(SuccessionError::Seal)
    );
    assert_eq!(with(|next| next.epoch = 3), Err(SuccessionError::Epoch));
    assert_eq!(with(|next| next.voters.truncate(2)), Err(SuccessionError::Voters));
    assert_eq!(
        with(|next| next.voters[1] = next.voters[0]),
        Err(SuccessionError::Voters)
    );
    assert_eq!(with(|next| next.voters.reverse()), Err(SuccessionError::Voters));
}

#[test]
fn a_seal_holds_for_every_slot_it_names() {
    let change = |change: fn(&mut Seal)| {
        let mut changed = seal(1, &[slot(1, true)]);
        change(&mut changed);
        check(next(), vec![changed, seal(2, &[])])
    };
    assert!(change(|_| ()).is_ok());
    let changes: [fn(&mut Seal); 4] = [
        |seal| seal.report.slots.clear(),
        |seal| first(seal).durable = false,
        |seal| first(seal).claim.token.n += 1,
        |seal| {
            let slots = std::mem::take(&mut seal.report.slots);
            let renamed = slots
                .into_iter()
                .map(|((holder, _), slot)| ((holder, Nonce([8; 16])), slot));
            seal.report.slots = renamed.collect();
        },
    ];
    for changed in changes {
        assert_eq!(change(changed), Err(SuccessionError::Seal));
    }
    let elsewhere = Succession {
        next: next(),
        seals: vec![seal(1, &[]), seal(2, &[])],
    };
    let other = GroupId::new([8; 32]);
    assert_eq!(
        elsewhere.check(&other, 1, &voters(&[1, 2, 3])),
        Err(SuccessionError::Seal)
    );
}
