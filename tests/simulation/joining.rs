//! Joining when answers are lost, or come from a device that does not know enough.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, CommandError, FolderState, Input, RefuseReason, Reply, Response};

use p2p_sync_core::rel_path::RelPath;

use crate::desk::{Desk, File};

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

/// Two devices of a local network that trust each other; the first founds the group.
fn neighbours() -> Desk {
    let mut desk = Desk::new(2, true);
    hear(&mut desk, 0);
    hear(&mut desk, 1);
    desk.connect(0, 1);
    desk.pass(4_000);
    assert!(desk.seats[0].group().is_some() && desk.seats[1].group().is_none());
    desk
}

/// Lets a device hear what the other one tells the local network; nobody says it twice.
fn hear(desk: &mut Desk, index: usize) {
    let other = &desk.seats[1 - index];
    let (device, group) = (other.id(), other.announced.flatten());
    desk.tell(index, Input::LanPeer { device, group });
}

fn assert_together(desk: &Desk) {
    let group = desk.seats[0].group();
    assert!(group.is_some());
    for seat in &desk.seats {
        assert_eq!(seat.group(), group);
        assert!(seat.engine.status().role.is_some());
    }
}

#[test]
fn a_device_whose_admission_got_lost_asks_again_and_founds_no_group() {
    let mut desk = neighbours();
    let heals_at = desk.now_ms() + 40_000;
    let clock = desk.clock();
    desk.loses_answer = Box::new(move |asker, response| {
        asker == 1 && matches!(response, Response::Accepted { .. }) && clock.get() < heals_at
    });
    hear(&mut desk, 1);
    desk.pass(39_000);
    assert_eq!(desk.seats[1].group(), None);
    desk.pass(10_000);
    assert_together(&desk);
}

#[test]
fn a_device_that_was_admitted_without_knowing_leaves_the_group_that_it_founded_alone() {
    let mut desk = neighbours();
    desk.loses_answer =
        Box::new(|asker, response| asker == 1 && matches!(response, Response::Accepted { .. }));
    hear(&mut desk, 1);
    desk.disconnect(0, 1);
    desk.pass(60_000);
    assert!(desk.seats[1].group().is_some());
    assert_ne!(desk.seats[0].group(), desk.seats[1].group());
    desk.loses_answer = Box::new(|_, _| false);
    desk.connect(0, 1);
    desk.pass(10_000);
    assert_together(&desk);
}

#[test]
fn a_device_that_knows_of_no_group_is_told_by_who_admitted_it() {
    let mut desk = neighbours();
    desk.loses_answer =
        Box::new(|asker, response| asker == 1 && matches!(response, Response::Accepted { .. }));
    hear(&mut desk, 1);
    desk.restart(1);
    desk.loses_answer = Box::new(|_, _| false);
    desk.connect(0, 1);
    desk.pass(2_500);
    assert_together(&desk);
}

#[test]
fn a_device_that_the_first_neighbour_may_not_admit_asks_the_others() {
    let mut desk = Desk::new(3, true);
    let tell = |desk: &mut Desk, index: usize, other: usize| {
        let (device, group) = (desk.seats[other].id(), desk.seats[other].group());
        desk.tell(index, Input::LanPeer { device, group });
    };
    // The third waits for the first, which is brought into the second's group as one that may admit nobody.
    tell(&mut desk, 2, 0);
    desk.pass(4_000);
    let ticket = desk.invite(1, Role::Editor);
    desk.connect(0, 1);
    desk.command(0, Command::Join { ticket });
    desk.pass(10_000);
    assert_eq!(desk.seats[0].group(), desk.seats[1].group());
    assert_eq!(desk.seats[2].group(), None);
    // What it asks the one that may admit it gets lost for a while.
    let heals_at = desk.now_ms() + 1_000;
    let clock = desk.clock();
    desk.loses_question = Box::new(move |_, asked, _| asked == 1 && clock.get() < heals_at);
    desk.connect(0, 2);
    desk.connect(1, 2);
    tell(&mut desk, 2, 0);
    tell(&mut desk, 2, 1);
    desk.pass(30_000);
    assert_together(&desk);
}

#[test]
fn two_devices_with_groups_of_their_own_stay_apart() {
    let mut desk = Desk::new(2, true);
    desk.pass(30_000);
    let groups = [desk.seats[0].group(), desk.seats[1].group()];
    assert!(groups[0].is_some() && groups[0] != groups[1]);
    hear(&mut desk, 0);
    hear(&mut desk, 1);
    desk.connect(0, 1);
    desk.pass(100_000);
    assert_eq!([desk.seats[0].group(), desk.seats[1].group()], groups);
}

/// The third device has a ticket of the first, and reaches only the second, which has not heard of the invite.
fn unknown_invite() -> Desk {
    let mut desk = Desk::new(3, false);
    let ticket = desk.invite(0, Role::Admin);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    desk.disconnect(0, 1);
    desk.loses_question = Box::new(|a, b, _| a + b == 1);
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(1, 2);
    desk.command(2, Command::Join { ticket });
    desk.pass(5_000);
    assert_eq!(desk.seats[2].replies, []);
    desk
}

#[test]
fn a_member_that_does_not_know_the_invite_does_not_end_the_join() {
    let mut desk = unknown_invite();
    desk.loses_question = Box::new(|_, _, _| false);
    desk.connect(0, 1);
    desk.pass(5_000);
    assert!(matches!(desk.seats[2].replies[..], [Ok(Reply::Joined { .. })]));
    desk.pass(5_000);
    assert_together(&desk);
}

#[test]
fn an_invite_that_nobody_knows_is_refused_in_the_end() {
    let mut desk = unknown_invite();
    desk.pass(5_000);
    let refused = CommandError::Refused(RefuseReason::BadInvite);
    assert_eq!(desk.seats[2].replies, [Err(refused)]);
}

#[test]
fn the_end_of_a_scan_that_began_before_the_join_does_not_end_the_comparison() {
    let mut desk = Desk::new(2, false);
    let file = Some(File { ino: 1, content: 1 });
    desk.report(0, &[(path("same"), file)]);
    desk.pass(10_000);
    let before = desk.seats[1].scan_asked;
    let ticket = desk.invite(0, Role::Editor);
    desk.holds_scans = true;
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    assert!(
        desk.seats[1].scan_asked > before,
        "No scan was asked for since the join"
    );
    desk.tell(1, Input::ScanFinished(before));
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().state, FolderState::Scanning);
    desk.scan(1, &[(path("same"), file)]);
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().state, FolderState::InSync);
    assert!(
        desk.seats[1].installs.is_empty() && desk.seats[1].fetched == 0,
        "It got what it had"
    );
}
