//! Locks in the ledger: what they make of others' writes, on every device.
//!
//! The holder is a device that signs what it likes; the first owner is the only voter.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Cut, StateView};
use p2p_sync_core::ids::{ContentHash, Dot};
use p2p_sync_core::ledger::{EndReason, EventKind, Item, LockBreak, LockEnd, LockGrant, Put, PutFlags};
use p2p_sync_core::lock::{Nonce, Resource, Token, Vote};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Entry;

use crate::desk::{Desk, File};

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
