//! Leaving a group: what is forgotten, what stays, and that nobody draws the device back.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, CommandError, FolderState, Input, Reply};
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

/// A pair with a file, which the second device leaves; its folder still holds the file.
fn left() -> Desk {
    let mut desk = Desk::pair();
    desk.report(0, &[(path("a"), file(1))]);
    desk.pass(10_000);
    let group = desk.seats[0].group();
    desk.seats[1].next_scan = vec![(path("a"), file(1))];
    desk.command(1, Command::Leave);
    let reply = desk.seats[1].replies.pop();
    assert!(matches!(reply, Some(Ok(Reply::Left { .. }))), "{reply:?}");
    desk.pass(10_000);
    assert_ne!(desk.seats[1].group(), group);
    assert_eq!(desk.seats[0].group(), group);
    desk
}

#[test]
fn who_leaves_keeps_the_files_in_a_group_of_his_own() {
    let desk = left();
    let status = desk.seats[1].engine.status();
    assert_eq!(
        (status.role, status.state),
        (Some(Role::Owner), FolderState::InSync)
    );
    let members = status.peers.iter().filter(|peer| peer.role.is_some());
    assert_eq!(members.count(), 1);
    assert_eq!(desk.seats[1].store.durable().installed.len(), 1);
    // Genesis and the file.
    assert_eq!(status.events, 2);
    let removed = desk.seats[1]
        .installs
        .iter()
        .any(|job| job.path == path("a") && job.expect.is_some());
    assert!(!removed, "The file was touched");
}

#[test]
fn what_happens_afterwards_stays_on_either_side() {
    let mut desk = left();
    desk.report(0, &[(path("theirs"), file(2))]);
    desk.report(1, &[(path("mine"), file(3))]);
    desk.pass(300_000);
    let has = |index: usize, name| {
        desk.seats[index]
            .store
            .durable()
            .installed
            .contains_key(&path(name))
    };
    assert!(has(0, "theirs") && has(1, "mine") && !has(0, "mine") && !has(1, "theirs"));
}

#[test]
fn the_others_do_not_ask_again_and_again() {
    let mut desk = left();
    let asked = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = asked.clone();
    desk.loses_question = Box::new(move |_, _, _| {
        count.set(count.get() + 1);
        false
    });
    desk.pass(600_000);
    assert!(asked.get() < 50, "{} questions in ten minutes", asked.get());
}

#[test]
fn who_left_may_join_again_with_a_ticket() {
    let mut desk = left();
    let ticket = desk.invite(0, Role::Editor);
    desk.seats[1].next_scan = vec![(path("a"), file(1))];
    desk.command(1, Command::Join { ticket });
    desk.pass(20_000);
    assert_eq!(desk.seats[0].group(), desk.seats[1].group());
    desk.report(1, &[(path("mine"), file(3))]);
    desk.pass(10_000);
    let rows = &desk.seats[0].store.durable().installed;
    assert!(rows.contains_key(&path("mine")) && rows.len() == 2, "{rows:?}");
}

#[test]
fn there_must_be_somebody_to_leave() {
    let mut desk = Desk::new(1, false);
    desk.command(0, Command::Leave);
    let alone = CommandError::Invalid("This device is alone in its group");
    assert_eq!(desk.seats[0].replies, [Err(alone)]);
}

#[test]
fn a_local_network_that_is_trusted_does_not_draw_it_back() {
    let mut desk = Desk::new(2, true);
    let hear = |desk: &mut Desk, index: usize| {
        let other = &desk.seats[1 - index];
        let (device, group) = (other.id(), other.announced.flatten());
        desk.tell(index, Input::LanPeer { device, group });
    };
    hear(&mut desk, 0);
    hear(&mut desk, 1);
    desk.connect(0, 1);
    desk.pass(4_000);
    hear(&mut desk, 1);
    desk.pass(10_000);
    let group = desk.seats[0].group();
    assert!(group.is_some() && group == desk.seats[1].group());
    desk.command(1, Command::Leave);
    for restarted in [false, true] {
        if restarted {
            desk.restart(1);
            desk.connect(0, 1);
        }
        hear(&mut desk, 1);
        desk.pass(300_000);
        assert_ne!(desk.seats[1].group(), group);
    }
}
