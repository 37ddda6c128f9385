//! Small histories in which an evaluation once went wrong, and those that show what the rules mean.

use p2p_sync_core::access::Role;

use crate::roles::generate::Rng;
use crate::roles::outcome::{Outcome, evaluated};
use crate::roles::properties::equals_the_oracle;
use crate::roles::world::{Deed, FOUNDER, Grant, Keep, RECOVERY, Scope, Set, World};

const ANN: usize = 2;
const BOB: usize = 3;
const DEVICES: usize = 5;

#[test]
fn a_head_that_the_revoker_had_not_seen_keeps_nothing() {
    let mut group = Group::new();
    let start = group.act(FOUNDER, &[], vec![grant(ANN, Role::Owner)]);
    let unseen = group.act(ANN, &[start], vec![grant(BOB, Role::Editor)]);
    let revoke = Deed::Revoke {
        device: ANN,
        keep: Keep::Heads(vec![unseen]),
    };
    group.act(FOUNDER, &[], vec![revoke]);
    let outcome = group.outcome();
    assert_eq!(outcome.at[unseen].0, None);
    assert_eq!(outcome.from_now_on[BOB].0, None);
}

#[test]
fn a_revoke_with_a_grant_keeps_one_branch_of_a_member() {
    let mut group = Group::new();
    let start = group.act(FOUNDER, &[], vec![grant(ANN, Role::Admin)]);
    let copied = group.act(ANN, &[start], vec![]);
    let other = group.fork(ANN, None, &[start]);
    let keeps = Deed::Revoke {
        device: ANN,
        keep: Keep::Heads(vec![copied]),
    };
    let decided = group.act(FOUNDER, &[copied, other], vec![keeps, grant(ANN, Role::Admin)]);
    let later = group.fork(ANN, Some(copied), &[decided]);
    let outcome = group.outcome();
    let role = |event: usize| outcome.at[event].0;
    assert_eq!((role(copied), role(other)), (Some(Role::Admin), None));
    assert_eq!(role(later), Some(Role::Admin));
}

#[test]
fn an_owner_made_by_the_recovery_key_may_remove_the_founder() {
    let mut group = Group::new();
    let rescue = group.act(RECOVERY, &[], vec![grant(ANN, Role::Owner)]);
    group.act(ANN, &[rescue], vec![revoke(FOUNDER)]);
    let founders = group.act(FOUNDER, &[rescue], vec![revoke(ANN), grant(BOB, Role::Admin)]);
    let outcome = group.outcome();
    assert_eq!(outcome.at[founders].0, None);
    assert_eq!(outcome.from_now_on[ANN].0, Some(Role::Owner));
    assert_eq!(outcome.from_now_on[BOB].0, None);
}

#[test]
fn an_owner_grant_has_its_rank_from_the_senior_grant_of_its_author() {
    let mut group = Group::new();
    group.act(
        FOUNDER,
        &[],
        vec![grant(FOUNDER, Role::Owner), grant(ANN, Role::Owner)],
    );
    // Appended to the founder's second rank, the place would be less than appended to the first.
    let anns = group.outcome().grants[3].clone().unwrap();
    assert_eq!(anns.rank, [(1, 0), (0, 3)]);
}

#[test]
fn rank_and_scopes_of_two_grants_are_never_mixed() {
    let mut group = Group::new();
    let docs = Deed::Grant(Grant {
        scope: Scope::Docs,
        ..Grant::plain(ANN, Role::Owner)
    });
    let first = group.act(
        FOUNDER,
        &[],
        vec![docs, grant(BOB, Role::Owner), grant(ANN, Role::Owner)],
    );
    let anns = group.act(ANN, &[first], vec![grant(4, Role::Owner)]);
    let given = group.outcome().grants[5].clone().unwrap();
    assert_eq!(given.rank, [(1, 0), (0, 5), (0, 1)]);
    // Bob is senior to the grant of Ann that counts everywhere, and so to what she gave by it.
    group.act(BOB, &[anns], vec![revoke(4)]);
    assert_eq!(group.outcome().from_now_on[4].0, None);
}

#[test]
fn an_invite_gives_no_power_of_an_owner() {
    let mut group = Group::new();
    let invite = Deed::Invite {
        key: 1,
        role: Role::Owner,
        scope: Scope::Whole,
    };
    group.act(FOUNDER, &[], vec![invite]);
    let redeemed = |device, role| {
        Deed::Grant(Grant {
            invite: Some(1),
            ..Grant::plain(device, role)
        })
    };
    group.act(
        FOUNDER,
        &[],
        vec![redeemed(ANN, Role::Owner), redeemed(BOB, Role::Admin)],
    );
    let outcome = group.outcome();
    assert_eq!(
        (outcome.from_now_on[ANN].0, outcome.from_now_on[BOB].0),
        (None, None)
    );
}

/// A world made by hand.
struct Group(World);

impl Group {
    const fn new() -> Self {
        Self(World::new(DEVICES))
    }

    /// Adds an event at the end of a device's log.
    fn act(&mut self, author: usize, seen: &[usize], deeds: Vec<Deed>) -> usize {
        let prev = self.0.events_of(author).last();
        self.0.add(author, prev, set(seen), deeds)
    }

    /// Adds an empty event after any of a device's.
    fn fork(&mut self, author: usize, prev: Option<usize>, seen: &[usize]) -> usize {
        self.0.add(author, prev, set(seen), Vec::new())
    }

    /// Returns what `evaluate` says, having held it against the oracle.
    fn outcome(&self) -> Outcome {
        let outcome =
            equals_the_oracle(&evaluated, &self.0, &mut Rng::new(0)).and_then(|_| evaluated(&self.0));
        outcome.expect("evaluate and the oracle agree")
    }
}

fn set(events: &[usize]) -> Set {
    events.iter().copied().collect()
}

fn grant(device: usize, role: Role) -> Deed {
    Deed::Grant(Grant::plain(device, role))
}

/// A Revoke that keeps nothing.
const fn revoke(device: usize) -> Deed {
    Deed::Revoke {
        device,
        keep: Keep::Heads(Vec::new()),
    }
}
