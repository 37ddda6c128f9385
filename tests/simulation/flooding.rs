//! Members who tell more than they may: nobody is kept from anything by it, and nothing is lost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use p2p_sync_core::engine::{
    FolderState, GossipMessage, InboundId, Input, MAX_PAGE_BYTES, Notification, Request, StateView,
};
use p2p_sync_core::ledger::SignedEvent;
use p2p_sync_core::rel_path::RelPath;

use crate::desk::{Desk, File};

/// Events that an honest daemon publishes in a second at most.
const RATE: u64 = 20;
/// Events that may come at once.
const BURST: u64 = 200;

/// A pair of which the second published `count` events that the first has not heard of, and those events.
fn unheard(count: u64) -> (Desk, Vec<SignedEvent>) {
    let mut desk = Desk::pair();
    desk.disconnect(0, 1);
    let known = desk.seats[1].engine.own_seq();
    for number in 1..=count {
        let path = RelPath::parse(format!("f{number}")).expect("well-formed");
        let file = File {
            ino: number,
            content: number,
        };
        desk.witness(1, &[(path, Some(file))]);
        desk.pass(50);
    }
    let me = desk.seats[1].id();
    let have = BTreeMap::from([(me.short(), known), (desk.seats[0].id().short(), u64::MAX)]);
    let (stored, more) = desk.seats[1].store.durable().events_beyond(&have, MAX_PAGE_BYTES);
    assert!(!more);
    let events: Vec<SignedEvent> = stored.into_iter().map(|stored| stored.event).collect();
    assert_eq!(events.len() as u64, count);
    (desk, events)
}

/// How many events of the second the first has.
fn heard(desk: &Desk) -> u64 {
    let author = desk.seats[1].id();
    let log = desk.seats[0].store.durable().logs.get(&author.short());
    log.map_or(0, |log| log.size())
}

fn limited(desk: &Desk) -> usize {
    let device = desk.seats[1].id();
    let all = desk.seats[0].notified.iter();
    all.filter(|told| **told == Notification::PeerLimited { device })
        .count()
}

fn push(desk: &mut Desk, number: usize, events: Vec<SignedEvent>) {
    let from = desk.seats[1].id();
    let id = InboundId(1_000_000 + number as u64);
    desk.tell(
        0,
        Input::Request {
            from,
            id,
            request: Request::Push { events },
        },
    );
    assert!(desk.answers.remove(&id).is_some(), "a push is acknowledged");
}

#[test]
fn who_pushes_ten_times_the_rate_is_limited_and_all_of_it_comes_by_pulls() {
    let (mut desk, events) = unheard(2_000);
    let before = heard(&desk);
    let asked = Rc::new(Cell::new(0));
    let counted = asked.clone();
    // What the first would pull does not come while it lasts, so that only pushes are seen.
    desk.loses_question = Box::new(move |asker, _, request| {
        let pulled = asker == 0 && !matches!(request, Request::InSync { .. });
        counted.set(counted.get() + u64::from(pulled));
        pulled
    });
    desk.connect(0, 1);
    for (number, event) in events.into_iter().enumerate() {
        push(&mut desk, number, vec![event]);
        desk.pass(5);
    }
    let taken = heard(&desk) - before;
    assert!((BURST..=BURST + 10 * RATE).contains(&taken), "{taken}");
    // Each push that is taken may find a gap and ask once; those that are dropped ask nothing.
    assert!(asked.get() <= 10 * RATE + 20, "{}", asked.get());
    assert_eq!(limited(&desk), 1);
    desk.loses_question = Box::new(|_, _, _| false);
    desk.pass(10_000);
    assert_eq!(heard(&desk) - before, 2_000);
    desk.pass(60_000);
    assert!(desk.seats[0].engine.status().state == FolderState::InSync);
}

#[test]
fn a_push_of_very_many_events_is_taken_in_part() {
    let (mut desk, events) = unheard(300);
    let before = heard(&desk);
    desk.loses_question = Box::new(|asker, _, _| asker == 0);
    desk.connect(0, 1);
    push(&mut desk, 0, events);
    assert_eq!(heard(&desk) - before, BURST);
    desk.loses_question = Box::new(|_, _, _| false);
    desk.pass(5_000);
    assert_eq!(heard(&desk) - before, 300);
}

#[test]
fn a_new_connection_is_no_new_budget() {
    let (mut desk, events) = unheard(400);
    let before = heard(&desk);
    desk.loses_question = Box::new(|asker, _, _| asker == 0);
    for (number, events) in events.chunks(BURST as usize).enumerate() {
        desk.connect(0, 1);
        push(&mut desk, number, events.to_vec());
        desk.disconnect(0, 1);
    }
    assert_eq!(heard(&desk) - before, BURST);
}

#[test]
fn who_publishes_as_fast_as_a_daemon_does_is_never_limited() {
    let (mut desk, events) = unheard(2_000);
    let before = heard(&desk);
    desk.loses_question = Box::new(|asker, _, _| asker == 0);
    desk.connect(0, 1);
    for (number, event) in events.into_iter().enumerate() {
        push(&mut desk, number, vec![event]);
        desk.pass(1_000 / RATE);
    }
    assert_eq!(heard(&desk) - before, 2_000);
    assert_eq!(limited(&desk), 0);
}

#[test]
fn announcements_beyond_the_rate_are_not_looked_at_and_what_they_told_of_comes() {
    let (mut desk, events) = unheard(3);
    let before = heard(&desk);
    let asked = Rc::new(Cell::new(0));
    let counted = asked.clone();
    desk.loses_question = Box::new(move |asker, _, request| {
        let heads = asker == 0 && matches!(request, Request::Heads { .. });
        counted.set(counted.get() + u64::from(heads));
        heads
    });
    desk.connect(0, 1);
    let author = desk.seats[1].id();
    for number in 0..20_000_u64 {
        let event = &events[2];
        let message = GossipMessage::EventAnnounced {
            author,
            seq: before + 2 + number,
            id: event.id(),
            header: event.header.clone(),
            signature: event.signature,
        };
        desk.tell(
            0,
            Input::Gossip {
                from: author,
                message,
            },
        );
        if number % 2 == 0 {
            desk.pass(1);
        }
    }
    assert_eq!(limited(&desk), 1);
    // Every half second, and once more each time the second shows its way into the group.
    assert!(asked.get() <= 10 * 4 + 20, "{}", asked.get());
    desk.loses_question = Box::new(|_, _, _| false);
    desk.pass(5_000);
    assert_eq!(heard(&desk) - before, 3);
}

#[test]
fn users_hear_of_a_limited_device_once_a_minute() {
    let (mut desk, events) = unheard(1);
    desk.connect(0, 1);
    let flood = vec![events[0].clone(); 2 * BURST as usize];
    for number in 0..240 {
        push(&mut desk, number, flood.clone());
        desk.pass(1_000);
    }
    assert_eq!(limited(&desk), 4);
}
