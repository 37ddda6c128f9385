//! How often devices ask each other, and how fast what was pulled goes on from device to device.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, Notification, Request, Response, StateView};
use p2p_sync_core::rel_path::RelPath;

use crate::desk::{Desk, File};

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

fn file(number: u64) -> Option<File> {
    Some(File {
        ino: number,
        content: number,
    })
}

fn has(desk: &Desk, index: usize, name: &str) -> bool {
    let state = desk.seats[index].store.durable().path_state(&path(name));
    state.is_some_and(|state| state.is_live())
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Heads { .. } => "heads",
        Request::Pull { .. } => "pull",
        _ => "other",
    }
}

#[test]
fn a_peer_that_sends_nothing_usable_is_asked_rarely_however_often_it_asks() {
    let mut desk = Desk::pair();
    let asked: Rc<RefCell<BTreeMap<(usize, &'static str), u32>>> = Rc::default();
    let count = asked.clone();
    desk.loses_question = Box::new(move |asker, _, request| {
        *count.borrow_mut().entry((asker, kind(request))).or_default() += 1;
        matches!(request, Request::Push { .. })
    });
    let count = asked.clone();
    // What is no answer to a pull comes of a pull.
    desk.forges_answer = Box::new(move |asker, request| {
        let forged = asker == 0 && matches!(request, Request::Pull { .. });
        if forged {
            *count.borrow_mut().entry((asker, kind(request))).or_default() += 1;
        }
        forged.then_some(Response::Same)
    });
    desk.report(1, &[(path("a"), file(1))]);
    desk.pass(300_000);
    let pulls = asked.borrow().get(&(0, "pull")).copied();
    assert!((1..=6).contains(&pulls.unwrap_or(0)), "{asked:?}");
    // The other asks no more than a device does that has nothing new.
    let heads = asked.borrow().get(&(1, "heads")).copied().unwrap_or(0);
    assert!(heads < 30, "{asked:?}");
    let told = desk.seats[0].notified.iter();
    let told = told.filter(|news| matches!(news, Notification::PeerMisbehaved { .. }));
    assert_eq!(told.count(), usize::try_from(pulls.unwrap_or(0)).unwrap_or(0));
    assert!(!has(&desk, 0, "a"));

    // It is asked again when the pause is over, and forgiven.
    desk.forges_answer = Box::new(|_, _| None);
    desk.pass(75_000);
    assert!(has(&desk, 0, "a"));
}

/// So many members, of whom only the first is connected with all others, and has none of the file `a` that the last made.
fn star(count: u8) -> Desk {
    let mut desk = Desk::new(count, false);
    let last = usize::from(count) - 1;
    for index in 1..=last {
        let ticket = desk.invite(0, Role::Editor);
        desk.connect(0, index);
        desk.command(index, Command::Join { ticket });
        desk.pass(10_000);
    }
    for one in 1..last {
        for other in 1..one {
            desk.connect(one, other);
        }
    }
    desk.pass(180_000);
    desk.disconnect(0, last);
    desk.report(last, &[(path("a"), file(1))]);
    desk.pass(10_000);
    desk
}

#[test]
fn what_was_pulled_is_everywhere_after_a_few_comparisons() {
    let mut desk = star(12);
    desk.connect(0, 11);
    desk.pass(1_000);
    assert!(has(&desk, 0, "a"), "it is pulled at once");
    desk.pass(20_000);
    let lacking: Vec<usize> = (0..12).filter(|index| !has(&desk, *index, "a")).collect();
    assert_eq!(lacking, Vec::<usize>::new());
}
