//! Locks in the ledger: what they make of others' writes, on every device.
//!
//! The holder is a device that signs what it likes; the first owner is the only voter, but in `voters`.

mod voters;

use std::time::Duration;

use ed25519_dalek::SigningKey;
use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{
    Command, CommandError, Cut, LockCommand, LockReply, OwnLogSize, Reply, StateView,
};
use p2p_sync_core::ids::{ContentHash, Dot};
use p2p_sync_core::ledger::{EndReason, EventKind, Item, LockBreak, LockEnd, LockGrant, Put, PutFlags};
use p2p_sync_core::lock::{LockError, Nonce, Resource, Token, Vote};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Entry;

use crate::desk::{Desk, EPOCH_MS, File};

const VOTER: usize = 0;
const HOLDER: usize = 1;
const OTHER: usize = 2;

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

fn file(number: u64) -> Option<File> {
    Some(File {
        ino: number,
        content: number,
    })
}

fn entry(number: u64) -> Entry {
    file(number).expect("a file").observed().entry
}

impl Desk {
    /// Three devices with a file `a` that everybody has.
    fn locked(role: Role) -> Self {
        let mut desk = Self::three(role, Role::Editor);
        desk.report(OTHER, &[(path("a"), file(1))]);
        desk.pass(20_000);
        desk
    }

    fn next_dot(&self, by: usize, item: u32) -> Dot {
        Dot {
            device: self.seats[by].id().short(),
            seq: self.log(usize::from(by == 0), by).size(),
            item,
        }
    }

    fn grant(&self, what: &str, n: u64, voter: usize, durable: bool) -> Item {
        let mut grant = LockGrant {
            token: Token { epoch: 0, n },
            nonce: Nonce([1; 16]),
            ttl: Duration::from_mins(1),
            durable,
            resources: vec![Resource::parse(what.as_bytes()).expect("a resource")],
            votes: Vec::new(),
            until_ms: None,
            note: String::new(),
        };
        let claim = grant.certificate(self.seats[HOLDER].id()).claim;
        let key = SigningKey::from_bytes(&self.seats[voter].secret());
        let group = self.seats[VOTER].group().expect("a group");
        grant.votes = vec![Vote::sign(&key, &group, &claim)];
        Item::LockGrant(grant)
    }

    /// The holder says something, and everybody hears of it.
    fn say(&mut self, items: Vec<Item>) {
        self.say_as(HOLDER, items, &[VOTER, OTHER]);
    }

    fn say_as(&mut self, by: usize, items: Vec<Item>, to: &[usize]) {
        self.forge(by, EventKind::Work, items, None, to);
        self.connect(VOTER, OTHER);
        self.pass(20_000);
    }

    fn lock(&mut self, what: &str, n: u64) -> Dot {
        let dot = self.next_dot(HOLDER, 0);
        let grant = self.grant(what, n, VOTER, true);
        self.say(vec![grant]);
        dot
    }

    fn edit(&mut self, at: &str, number: u64) {
        self.report(OTHER, &[(path(at), file(number))]);
        self.pass(20_000);
    }

    /// The holder's write, naming what stands there.
    fn put(&self, at: &str, number: u64) -> Item {
        let base = self.dots(at);
        Item::Put(Put {
            path: path(at),
            entry: entry(number),
            base,
            flags: PutFlags::default(),
            moved_from: None,
        })
    }

    fn dots(&self, at: &str) -> Vec<Dot> {
        let state = self.seats[VOTER].store.durable().path_state(&path(at));
        state
            .iter()
            .flat_map(|state| &state.heads)
            .map(|head| head.dot)
            .collect()
    }

    /// What stands at a path, and what is shown beside it: the same on both.
    #[track_caller]
    fn expect(&self, at: &str, stands: Option<u64>, beside: &[u64]) {
        let content = |number: u64| entry(number).node.content().expect("a file");
        for index in [VOTER, OTHER] {
            let state = self.seats[index].store.durable().path_state(&path(at));
            let state = state.unwrap_or_default();
            let here = state.winner().and_then(|winner| winner.node()?.content());
            assert_eq!(here, stands.map(content), "device {index}: {state:?}");
            let copies = state
                .copies()
                .into_iter()
                .filter_map(|copy| copy.node()?.content());
            let expected: Vec<ContentHash> = beside.iter().copied().map(content).collect();
            assert_eq!(copies.collect::<Vec<_>>(), expected, "device {index}: {state:?}");
            assert_eq!(state.shown.len(), beside.len(), "device {index}: {state:?}");
        }
    }
}

#[test]
fn while_somebody_holds_a_lock_only_his_writes_become_the_file() {
    let mut desk = Desk::locked(Role::Editor);
    let lock = desk.lock("a", 1);
    desk.edit("a", 2);
    desk.expect("a", Some(1), &[2]);
    let write = desk.put("a", 3);
    desk.say(vec![write]);
    desk.expect("a", Some(3), &[2]);
    let last = desk.put("a", 4);
    let end = Item::LockEnd(LockEnd {
        grant: lock,
        reason: EndReason::Released,
    });
    // The last write is still the holder's, since it comes before the end.
    desk.say(vec![last, end]);
    desk.expect("a", Some(4), &[2]);
    desk.edit("a", 5);
    desk.expect("a", Some(5), &[2]);
}

#[test]
fn a_lock_fences_what_its_holder_had_not_heard_of() {
    let mut desk = Desk::locked(Role::Editor);
    let dot = desk.next_dot(HOLDER, 0);
    let grant = desk.grant("a", 1, VOTER, true);
    // It reaches the voter alone; the other edits meanwhile.
    desk.forge(HOLDER, EventKind::Work, vec![grant], None, &[VOTER]);
    desk.disconnect(VOTER, OTHER);
    desk.edit("a", 2);
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    desk.expect("a", Some(1), &[2]);
    desk.restart(OTHER);
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    desk.edit("a", 3);
    desk.expect("a", Some(1), &[2, 3]);
    let broken = Item::LockBreak(LockBreak {
        grant: dot,
        reason: "Away.".into(),
    });
    desk.say_as(VOTER, vec![broken], &[OTHER]);
    desk.pass(20_000);
    desk.edit("a", 4);
    desk.expect("a", Some(4), &[2, 3]);
}

#[test]
fn a_directory_is_locked_with_all_that_comes_into_it() {
    let mut desk = Desk::locked(Role::Editor);
    desk.report_dirs(OTHER, &[path("docs")]);
    desk.edit("docs/old", 2);
    desk.edit("other", 3);
    let lock = desk.lock("docs/", 1);
    desk.edit("docs/old", 4);
    desk.edit("docs/new", 5);
    desk.edit("other", 6);
    desk.expect("docs/old", Some(2), &[4]);
    desk.expect("docs/new", None, &[5]);
    desk.expect("other", Some(6), &[]);
    desk.restart(OTHER);
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    desk.edit("docs/old", 7);
    desk.expect("docs/old", Some(2), &[4, 7]);
    let end = Item::LockEnd(LockEnd {
        grant: lock,
        reason: EndReason::Released,
    });
    desk.say(vec![end]);
    desk.edit("docs/old", 8);
    desk.expect("docs/old", Some(8), &[4, 7]);
}

#[test]
fn what_no_voter_granted_or_its_author_may_not_have_is_no_lock() {
    for (role, voter, n) in [(Role::Editor, OTHER, 1), (Role::Viewer, VOTER, 1)] {
        let mut desk = Desk::locked(role);
        let grant = desk.grant("a", n, voter, true);
        desk.say(vec![grant]);
        desk.edit("a", 2);
        desk.expect("a", Some(2), &[]);
    }
}

#[test]
fn who_may_write_may_say_that_a_lease_lapsed_and_only_an_admin_breaks_what_lasts() {
    for durable in [false, true] {
        let mut desk = Desk::locked(Role::Editor);
        let dot = desk.next_dot(HOLDER, 0);
        let grant = desk.grant("a", 1, VOTER, durable);
        desk.say(vec![grant]);
        let lapsed = Item::LockEnd(LockEnd {
            grant: dot,
            reason: EndReason::Lapsed,
        });
        let broken = Item::LockBreak(LockBreak {
            grant: dot,
            reason: String::new(),
        });
        let write = desk.put("a", 2);
        // One event: what comes after the end knows of it.
        desk.say_as(OTHER, vec![broken, lapsed, write], &[VOTER]);
        desk.pass(20_000);
        let state = desk.seats[VOTER]
            .store
            .durable()
            .path_state(&path("a"))
            .expect("known");
        assert_eq!(state.fenced.len(), usize::from(durable), "{state:?}");
    }
}

#[test]
fn a_lock_of_one_who_was_removed_before_he_took_it_fences_nothing() {
    let mut desk = Desk::locked(Role::Editor);
    desk.lock("a", 1);
    desk.edit("a", 2);
    desk.expect("a", Some(1), &[2]);
    let before = desk.log(VOTER, HOLDER).size() - 1;
    desk.remove(VOTER, HOLDER, Some(Cut::Number(before)))
        .expect("removed");
    desk.pass(20_000);
    desk.expect("a", Some(2), &[]);
}

fn resource(text: &str) -> Resource {
    Resource::parse(text.as_bytes()).expect("a resource")
}

impl Desk {
    /// A user asks something about locks, and is answered within half a minute.
    #[track_caller]
    fn lock_command(&mut self, by: usize, command: LockCommand) -> Result<LockReply, CommandError> {
        self.seats[by].replies.clear();
        self.command(by, Command::Lock(command));
        self.pass(30_000);
        match self.seats[by].replies.pop().expect("an answer") {
            Ok(Reply::Lock(reply)) => Ok(*reply),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    }

    #[track_caller]
    fn acquire(&mut self, by: usize, what: &str) -> Result<LockReply, CommandError> {
        let command = LockCommand::Acquire {
            resource: resource(what),
            until_ms: None,
            note: "Figures".to_owned(),
            wait: Duration::ZERO,
        };
        self.lock_command(by, command)
    }

    #[track_caller]
    fn release(&mut self, by: usize, what: &str) -> Result<LockReply, CommandError> {
        let resource = resource(what);
        self.lock_command(by, LockCommand::Release { resource })
    }

    /// The locks that a device knows of: on what, whose, and whether it is its own and confirmed.
    fn known_locks(&mut self, by: usize) -> Vec<(String, usize, bool)> {
        let Ok(LockReply::List { locks, .. }) = self.lock_command(by, LockCommand::List) else {
            panic!("no list");
        };
        let holder = |device| {
            self.seats
                .iter()
                .position(|seat| seat.id() == device)
                .expect("a seat")
        };
        let told = locks.into_iter().map(|lock| {
            (
                lock.resources[0].to_string(),
                holder(lock.holder),
                lock.is_confirmed,
            )
        });
        told.collect()
    }
}

#[test]
fn a_lock_that_was_asked_for_is_known_to_all_and_keeps_others_writes_out_until_it_is_released() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    let Ok(LockReply::Held(lock)) = desk.acquire(OTHER, "a") else {
        panic!("not held");
    };
    assert_eq!(
        (lock.token.n, lock.note.as_str(), lock.is_confirmed),
        (1, "Figures", true)
    );
    assert_eq!(desk.known_locks(OTHER), [("a".to_owned(), OTHER, true)]);
    assert_eq!(desk.known_locks(VOTER), [("a".to_owned(), OTHER, false)]);
    desk.report(VOTER, &[(path("a"), file(7))]);
    desk.pass(20_000);
    desk.expect("a", Some(1), &[7]);
    desk.edit("a", 2);
    desk.expect("a", Some(2), &[7]);
    let Ok(LockReply::Ended { by_majority, .. }) = desk.release(OTHER, "a") else {
        panic!("not released");
    };
    assert!(by_majority);
    assert!(desk.known_locks(VOTER).is_empty());
    desk.report(VOTER, &[(path("a"), file(8))]);
    desk.pass(20_000);
    desk.expect("a", Some(8), &[7]);
}

#[test]
fn the_second_who_asks_hears_who_holds_it() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is free");
    for what in ["a", "a/"] {
        let Err(CommandError::Locked(lock)) = desk.acquire(VOTER, what) else {
            panic!("{what} is not locked");
        };
        assert_eq!(
            (lock.holder, lock.note.as_str()),
            (desk.seats[OTHER].id(), "Figures")
        );
    }
    assert_eq!(
        desk.release(VOTER, "a").map(|_| ()),
        Err(CommandError::Locked(Box::new(lock_of(&mut desk))))
    );
    desk.acquire(VOTER, "b").expect("another path");
}

/// The lock on `a`, as the voter knows it.
fn lock_of(desk: &mut Desk) -> p2p_sync_core::engine::LockReport {
    let Ok(LockReply::List { locks, .. }) = desk.lock_command(VOTER, LockCommand::List) else {
        panic!("no list");
    };
    locks
        .into_iter()
        .find(|lock| lock.resources == [resource("a")])
        .expect("it is held")
}

#[test]
fn a_lock_outlasts_restarts_of_its_holder_and_its_voter() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is free");
    desk.restart(OTHER);
    desk.restart(VOTER);
    desk.connect(VOTER, OTHER);
    desk.pass(3_600_000);
    assert_eq!(desk.known_locks(OTHER), [("a".to_owned(), OTHER, true)]);
    assert!(matches!(desk.acquire(VOTER, "a"), Err(CommandError::Locked(_))));
    desk.release(OTHER, "a").expect("it is its own");
    desk.acquire(VOTER, "a").expect("it is free again");
}

#[test]
fn without_a_voter_there_is_no_lock_but_who_holds_one_keeps_it() {
    let mut desk = Desk::locked(Role::Editor);
    let nobody = LockError::NoQuorum {
        reached: 0,
        needed: 1,
    };
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is free");
    desk.disconnect(HOLDER, OTHER);
    desk.disconnect(VOTER, OTHER);
    assert_eq!(
        desk.acquire(OTHER, "b").map(|_| ()),
        Err(CommandError::Lock(nobody))
    );
    assert_eq!(desk.known_locks(OTHER), [("a".to_owned(), OTHER, true)]);
    let Ok(LockReply::Ended { by_majority, .. }) = desk.release(OTHER, "a") else {
        panic!("not released");
    };
    assert!(!by_majority, "nobody could be told");
    assert!(
        matches!(desk.acquire(VOTER, "a"), Err(CommandError::Locked(_))),
        "it has not heard of the end"
    );
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    desk.acquire(VOTER, "a").expect("it is free again");
}

#[test]
fn who_lacks_the_newest_version_gets_no_lock_until_it_is_here() {
    let mut desk = Desk::locked(Role::Editor);
    desk.disconnect(VOTER, OTHER);
    desk.report(VOTER, &[(path("a"), file(5))]);
    desk.pass(1_000);
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is fetched first");
    desk.expect("a", Some(5), &[]);
    let installed = desk.seats[OTHER].store.durable().installed(&path("a"));
    assert_eq!(installed.expect("it stands there").entry, entry(5));
}

#[test]
fn an_admin_breaks_a_lock_and_its_holder_knows() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is free");
    let lost = LockCommand::Break {
        resource: resource("a"),
        reason: "On holiday".to_owned(),
    };
    desk.lock_command(VOTER, lost.clone()).expect("it is an owner");
    desk.pass(20_000);
    assert!(desk.known_locks(OTHER).is_empty());
    desk.acquire(VOTER, "a").expect("it is free");
    assert_eq!(
        desk.lock_command(OTHER, lost).map(|_| ()),
        Err(CommandError::NotAllowed)
    );
}

#[test]
fn who_is_removed_holds_no_lock_any_more() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.connect(VOTER, HOLDER);
    desk.acquire(OTHER, "a").expect("it is free");
    desk.remove(VOTER, OTHER, None).expect("removed");
    desk.pass(20_000);
    for seat in [VOTER, HOLDER] {
        assert!(desk.known_locks(seat).is_empty());
    }
    desk.acquire(HOLDER, "a").expect("it is free");
}

#[test]
fn a_lock_for_a_time_is_released_when_it_is_over() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    let command = LockCommand::Acquire {
        resource: resource("a"),
        until_ms: Some(EPOCH_MS + desk.now_ms() + 600_000),
        note: String::new(),
        wait: Duration::ZERO,
    };
    desk.lock_command(OTHER, command).expect("it is free");
    desk.pass(500_000);
    assert_eq!(desk.known_locks(OTHER).len(), 1);
    desk.pass(200_000);
    assert!(desk.known_locks(OTHER).is_empty());
    desk.acquire(VOTER, "a").expect("it is free again");
}

#[test]
fn who_waits_gets_the_lock_when_it_is_released() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is free");
    desk.seats[VOTER].replies.clear();
    let command = LockCommand::Acquire {
        resource: resource("a"),
        until_ms: None,
        note: String::new(),
        wait: Duration::from_mins(10),
    };
    desk.command(VOTER, Command::Lock(command));
    desk.pass(60_000);
    assert!(desk.seats[VOTER].replies.is_empty(), "it waits");
    desk.release(OTHER, "a").expect("it is its own");
    desk.pass(20_000);
    assert!(matches!(
        desk.seats[VOTER].replies.pop(),
        Some(Ok(Reply::Lock(_)))
    ));
}

#[test]
fn a_voter_that_lost_its_state_grants_nothing_even_after_a_restart() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.acquire(OTHER, "a").expect("it is free");
    desk.restart_expecting(
        VOTER,
        OwnLogSize {
            events: 1_000,
            members: 3,
        },
    );
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    let refused = desk.acquire(OTHER, "b").map(|_| ());
    assert_eq!(refused, Err(CommandError::Lock(LockError::Unfit)));
    desk.restart(VOTER);
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    let refused = desk.acquire(OTHER, "b").map(|_| ());
    assert_eq!(refused, Err(CommandError::Lock(LockError::Unfit)));
}

#[test]
fn who_waits_for_a_lock_hears_of_it_when_the_group_is_left() {
    let mut desk = Desk::locked(Role::Editor);
    desk.connect(VOTER, OTHER);
    desk.acquire(VOTER, "a").expect("it is free");
    desk.seats[OTHER].replies.clear();
    let command = LockCommand::Acquire {
        resource: resource("a"),
        until_ms: None,
        note: String::new(),
        wait: Duration::from_mins(10),
    };
    desk.command(OTHER, Command::Lock(command));
    desk.pass(10_000);
    desk.command(OTHER, Command::Leave);
    desk.pass(10_000);
    let replies = &desk.seats[OTHER].replies;
    assert!(replies.contains(&Err(CommandError::NoGroup)), "{replies:?}");
    desk.acquire(OTHER, "a")
        .expect("it is alone in a group of its own");
    desk.restart(OTHER);
    desk.acquire(OTHER, "b").expect("it is the voter there");
}
