use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::wire::{Newest, Proof};
use super::*;
use crate::ids::ShortId;
use crate::ledger::LogState;
use crate::ledger::event::{EventKind, Header, SignedEvent};
use crate::ledger::item::Grant;
use crate::ledger::samples::{World, device, grant, grown, put};
use crate::rel_path::RelPath;

fn made(world: &World, n: usize, seq: u64, index: u32) -> Result<Vec<u8>, MakeError<Infallible>> {
    make(world, world.group, device(n).short(), seq, index)
}

impl Source for World {
    type Error = Infallible;

    fn event(&self, author: ShortId, seq: u64) -> Result<Option<SignedEvent>, Infallible> {
        let mut all = self.arrived.iter();
        let found = all.find(|(short, header, _)| (*short, header.seq) == (author, seq));
        Ok(found.map(|(.., event)| event.clone()))
    }

    fn shared(&self, author: ShortId) -> Result<Option<u64>, Infallible> {
        Ok(self.forked.get(&author).copied())
    }

    fn newest(&self, author: ShortId) -> Result<Option<SignedEvent>, Infallible> {
        let last = self.arrived.iter().rev().find(|(short, ..)| *short == author);
        Ok(last.map(|(.., event)| event.clone()))
    }

    fn ids(&self, author: ShortId, size: u64, each: &mut dyn FnMut(EventId)) -> Result<(), Infallible> {
        let own = self
            .arrived
            .iter()
            .filter(|(short, h, _)| *short == author && h.seq < size);
        own.for_each(|(.., event)| each(event.id()));
        Ok(())
    }

    fn admin_events(&self) -> Result<Vec<SignedEvent>, Infallible> {
        let admin = self
            .arrived
            .iter()
            .filter(|(_, header, _)| header.kind.code() <= 1);
        Ok(admin.map(|(.., event)| event.clone()).collect())
    }

    fn first_sight(
        &self,
        by: ShortId,
        of: ShortId,
        seq: u64,
        below: u64,
    ) -> Result<Option<SignedEvent>, Infallible> {
        let saw = |header: &Header| header.seen.iter().any(|s| s.device == of && s.next_seq > seq);
        let mut own = self.arrived.iter().filter(|(short, ..)| *short == by);
        let first = own.find(|(_, header, _)| header.seq < below && saw(header));
        Ok(first.map(|(.., event)| event.clone()))
    }

    fn sights(&self, of: ShortId, seq: u64) -> Result<Vec<SignedEvent>, Infallible> {
        let mut first = BTreeMap::new();
        for (short, header, event) in &self.arrived {
            if header.seen.iter().any(|s| s.device == of && s.next_seq > seq) {
                first.entry(*short).or_insert_with(|| event.clone());
            }
        }
        Ok(first.into_values().collect())
    }
}

#[test]
fn a_proof_says_who_did_what_when_in_which_role_and_who_saw_it() {
    let (world, seq) = grown();
    let bytes = made(&world, 2, seq, 1).unwrap();
    let statement = check(&bytes, world.group).unwrap();
    assert_eq!(statement.item, put("docs/plan.odt"));
    let who = &statement.author;
    assert_eq!(
        (who.device, who.name.as_str(), who.role),
        (device(2), "device 2", Role::Editor)
    );
    assert_eq!((statement.dot.seq, statement.dot.item), (seq, 1));
    assert_eq!(statement.log_size, 3);
    let event = world.event(device(2).short(), seq).unwrap().unwrap();
    assert_eq!(statement.event, event.id());
    let mut saw: Vec<_> = (statement.seen_by.iter())
        .map(|s| (s.member.name.as_str(), s.member.role))
        .collect();
    saw.sort_unstable();
    assert_eq!(saw, [("device 0", Role::Owner), ("device 1", Role::Admin)]);
    assert_eq!(statement.chain[0].by.role, Role::Owner);
}

#[test]
fn the_other_items_of_the_event_are_not_in_the_file() {
    let mut world = World::founded();
    let seq = world.publish(0, EventKind::Work, vec![put("secret/name"), put("open")]);
    let bytes = made(&world, 0, seq, 1).unwrap();
    assert!(bytes.windows(4).any(|w| w == b"open"));
    assert!(!bytes.windows(6).any(|w| w == b"secret"));
}

#[test]
fn every_flipped_bit_makes_a_proof_fail() {
    let (world, seq) = grown();
    let bytes = made(&world, 2, seq, 1).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            check(&bad, world.group).is_err(),
            "bit {bit} of {}",
            bytes.len() * 8
        );
    }
}

#[test]
fn a_truncated_or_lengthened_file_fails() {
    let (world, seq) = grown();
    let mut bytes = made(&world, 2, seq, 1).unwrap();
    for len in 0..bytes.len() {
        assert!(check(&bytes[..len], world.group).is_err(), "{len}");
    }
    bytes.push(0);
    assert!(check(&bytes, world.group).is_err());
}

#[test]
fn a_proof_holds_for_its_own_group_only() {
    let (world, seq) = grown();
    let bytes = made(&world, 2, seq, 1).unwrap();
    let other = check(&bytes, GroupId::new([5; 32]));
    assert!(matches!(other, Err(ProofError::OtherGroup)), "{other:?}");
}

#[test]
fn each_kind_of_item_can_be_proven() {
    let (world, _) = grown();
    let mut proven = 0;
    for (short, header, event) in &world.arrived {
        for index in 0..header.n_items {
            let bytes = make(&world, world.group, *short, header.seq, index).unwrap();
            let statement = check(&bytes, world.group).unwrap();
            let read = event.read_stored().unwrap();
            assert_eq!(statement.item, read.body.items[index as usize]);
            assert_eq!(statement.author.device, header.author);
            proven += 1;
        }
    }
    assert_eq!(
        proven,
        world.arrived.iter().map(|(_, h, _)| h.n_items).sum::<u32>()
    );
}

#[test]
fn a_typical_proof_has_two_to_six_kilobytes() {
    let (mut world, _) = grown();
    for n in 0..600 {
        world.publish(n % 3, EventKind::Work, vec![put("a")]);
    }
    let seq = world.work(2, "a/path/of/some/length/as/people/make.odt");
    for n in 0..600 {
        world.publish(n % 3, EventKind::Work, vec![put("a")]);
    }
    let bytes = made(&world, 2, seq, 1).unwrap();
    assert!((2 << 10..=6 << 10).contains(&bytes.len()), "{}", bytes.len());
    assert!(!check(&bytes, world.group).unwrap().seen_by.is_empty());
}

#[test]
fn what_a_role_does_not_allow_cannot_be_proven() {
    let mut world = World::founded();
    world.publish(0, EventKind::Admin, vec![grant(1, Role::Viewer)]);
    let of_viewer = world.work(1, "x");
    let promoted = world.publish(1, EventKind::Admin, vec![grant(2, Role::Owner)]);
    let of_promoted = world.work(2, "x");
    for (n, seq) in [(1, of_viewer), (2, of_promoted)] {
        let refused = made(&world, n, seq, 1);
        assert!(matches!(refused, Err(MakeError::NotAllowed)), "{refused:?}");
    }
    assert!(matches!(made(&world, 1, promoted, 0), Err(MakeError::NotAllowed)));
}

#[test]
fn a_scope_reaches_no_further_than_its_paths() {
    let mut world = World::founded();
    let scopes = Scopes::new(vec![RelPath::parse("docs").unwrap()]).unwrap();
    let scoped = |n, role| match grant(n, role) {
        Item::Grant(grant) => Item::Grant(Grant {
            scopes: scopes.clone(),
            ..grant
        }),
        other => other,
    };
    world.publish(0, EventKind::Admin, vec![scoped(1, Role::Admin)]);
    let wide = world.publish(1, EventKind::Admin, vec![grant(2, Role::Editor)]);
    let narrow = world.publish(1, EventKind::Admin, vec![scoped(3, Role::Editor)]);
    let seq = world.publish(3, EventKind::Work, vec![put("docs/a"), put("else/b")]);
    assert!(matches!(made(&world, 1, wide, 0), Err(MakeError::NotAllowed)));
    assert!(made(&world, 1, narrow, 0).is_ok());
    assert!(made(&world, 3, seq, 0).is_ok());
    assert!(matches!(made(&world, 3, seq, 1), Err(MakeError::NotAllowed)));
}

#[test]
fn what_the_recovery_key_signs_has_an_owners_power() {
    let mut world = World::founded();
    let key = world.recovery();
    let seq = world.publish(key, EventKind::Admin, vec![grant(1, Role::Owner)]);
    let statement = check(&made(&world, key, seq, 0).unwrap(), world.group).unwrap();
    assert_eq!(statement.author.role, Role::Owner);
    let none = world.publish(5, EventKind::Admin, vec![grant(1, Role::Owner)]);
    assert!(matches!(made(&world, 5, none, 0), Err(MakeError::NotAllowed)));
}

#[test]
fn a_grant_does_not_reach_back_in_time() {
    let mut world = World::founded();
    let early = world.work(1, "early");
    world.publish(0, EventKind::Admin, vec![grant(1, Role::Editor)]);
    let late = world.work(1, "late");
    assert!(matches!(made(&world, 1, early, 1), Err(MakeError::NotAllowed)));
    assert!(made(&world, 1, late, 1).is_ok());
}

#[test]
fn an_event_of_a_log_that_the_newest_header_does_not_commit_to_fails() {
    let (world, seq) = grown();
    let good = Proof::from_bytes(&made(&world, 2, seq, 1).unwrap()).unwrap();
    let mut fork = world.clone();
    fork.logs[2] = LogState::empty(device(2));
    fork.arrived.retain(|(short, ..)| *short != device(2).short());
    for path in ["fork", "of", "a log"] {
        fork.work(2, path);
    }
    let newest = fork.newest(device(2).short()).unwrap().unwrap();
    let ids: Vec<_> = (0..2)
        .map(|seq| fork.event(device(2).short(), seq).unwrap().unwrap().id())
        .map(|id| *id.as_bytes())
        .collect();
    let spliced = Proof {
        newest: Some(Newest {
            header: newest.header.to_vec(),
            signature: newest.signature,
            path: crate::merkle::inclusion_proof(&ids, usize::try_from(seq).unwrap()),
        }),
        ..good
    };
    let refused = check(&spliced.to_bytes(), world.group);
    assert!(matches!(refused, Err(ProofError::Log)), "{refused:?}");
}

#[test]
fn a_link_that_serves_nothing_or_a_power_of_another_device_fails() {
    let (world, seq) = grown();
    let good = Proof::from_bytes(&made(&world, 2, seq, 1).unwrap()).unwrap();
    let mut extra = good.clone();
    extra.links.push(good.links[0].clone());
    let refused = check(&extra.to_bytes(), world.group);
    assert!(matches!(refused, Err(ProofError::Unused)), "{refused:?}");
    let mut borrowed = good;
    if let Some(power) = &mut borrowed.shown.signed.power {
        power.link = 0;
    }
    assert!(check(&borrowed.to_bytes(), world.group).is_err());
}

#[test]
fn a_witness_that_is_no_member_is_none() {
    let mut world = World::founded();
    let seq = world.work(0, "x");
    world.work(5, "a stranger who has seen it");
    let statement = check(&made(&world, 0, seq, 1).unwrap(), world.group).unwrap();
    assert_eq!(statement.seen_by, []);
}

#[test]
fn a_file_of_something_else_and_a_later_version_are_named() {
    let (world, seq) = grown();
    assert!(matches!(check(b"hello", world.group), Err(ProofError::NotAProof)));
    let mut later = made(&world, 2, seq, 1).unwrap();
    assert_eq!(later[..16], *b"\x86\x6ep2p-sync-proof");
    later[16] = 1;
    assert!(matches!(check(&later, world.group), Err(ProofError::Version(1))));
    let large = vec![0; MAX_PROOF + 1];
    assert!(matches!(check(&large, world.group), Err(ProofError::TooLarge)));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(check(&bytes, GroupId::new([0; 32])).is_err());
    }

    #[test]
    fn bytes_put_into_a_proof_are_refused_without_panic(
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut world = World::founded();
        let seq = world.work(0, "x");
        let mut proof = made(&world, 0, seq, 1).unwrap();
        let before = proof.clone();
        let at = at.index(proof.len());
        let end = (at + bytes.len()).min(proof.len());
        proof[at..end].copy_from_slice(&bytes[..end - at]);
        prop_assert!(proof == before || check(&proof, world.group).is_err());
    }
}

#[test]
fn nothing_is_proven_that_comes_after_a_fork() {
    let (mut world, seq) = grown();
    world.forked.insert(device(2).short(), seq + 1);
    assert!(made(&world, 2, seq, 1).is_ok(), "both branches have it");
    world.forked.insert(device(2).short(), seq);
    assert!(matches!(made(&world, 2, seq, 1), Err(MakeError::Forked(by)) if by == device(2)));
    // Nor what rests on such a grant.
    world.forked = BTreeMap::from([(device(0).short(), 0)]);
    assert!(matches!(made(&world, 2, seq, 1), Err(MakeError::Forked(by)) if by == device(0)));
}
