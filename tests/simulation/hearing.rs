//! How a device hears that it is a member no more, or one again, from others that show it a few events of a ledger that it
//! may not have.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, FolderState};
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

/// Founder, another, and an editor, who cannot reach each other.
fn apart(second: Role) -> Desk {
    let mut desk = Desk::three(
        if second == Role::Owner {
            Role::Admin
        } else {
            second
        },
        Role::Editor,
    );
    if second == Role::Owner {
        desk.change_role(0, 1, Role::Owner, false).expect("an owner");
    }
    desk.pass(10_000);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        desk.disconnect(one, other);
    }
    desk
}

#[test]
fn who_was_lowered_and_removed_at_once_hears_that_he_is_out() {
    for removed_first in [true, false] {
        let mut desk = apart(Role::Admin);
        for removes in [removed_first, !removed_first] {
            if removes {
                desk.remove(1, 2, None).expect("removed");
            } else {
                desk.change_role(0, 2, Role::Viewer, false).expect("lowered");
            }
            desk.pass(3_000);
        }
        desk.connect(0, 1);
        desk.pass(10_000);
        let device = desk.seats[2].id();
        for index in [0, 1] {
            let peers = desk.seats[index].engine.status().peers;
            let found = peers.into_iter().find(|peer| peer.device == device);
            assert_eq!(found.and_then(|peer| peer.role), None, "on {index}");
        }
        desk.connect(0, 2);
        desk.pass(10_000);
        assert!(
            desk.state(2) == FolderState::Removed,
            "removed first: {removed_first}"
        );
    }
}

#[test]
fn who_was_removed_by_an_owner_whose_removal_was_void_is_a_member_again() {
    for restarts in [false, true] {
        let mut desk = apart(Role::Owner);
        desk.remove(1, 2, None).expect("removed");
        desk.connect(1, 2);
        desk.pass(10_000);
        assert!(desk.state(2) == FolderState::Removed);
        desk.disconnect(1, 2);
        if restarts {
            desk.restart(2);
            assert!(desk.state(2) == FolderState::Removed);
        }
        // The founder had not heard of it, so that it counts no more.
        desk.remove(0, 1, None).expect("removed");
        desk.report(0, &[(path("a"), file(1))]);
        desk.pass(5_000);
        desk.connect(0, 2);
        desk.pass(60_000);
        assert_eq!(desk.role(2), Some(Role::Editor), "restarts: {restarts}");
        assert!(
            desk.state(2) == FolderState::InSync,
            "restarts: {restarts}: {:?}",
            desk.seats[2].engine.status()
        );
        desk.report(2, &[(path("b"), file(2))]);
        desk.pass(10_000);
        for (index, at) in [(0, "b"), (2, "a")] {
            let installed = &desk.seats[index].store.durable().installed;
            assert!(installed.contains_key(&path(at)), "{at} on {index}");
        }
        desk.connect(0, 1);
        desk.pass(10_000);
        assert!(desk.state(1) == FolderState::Removed);
    }
}

#[test]
fn who_took_his_remover_for_removed_hears_that_he_is_out() {
    let mut desk = Desk::new(4, false);
    for (index, role) in [(1, Role::Admin), (2, Role::Admin), (3, Role::Editor)] {
        let ticket = desk.invite(0, role);
        desk.connect(0, index);
        desk.command(index, Command::Join { ticket });
        desk.pass(10_000);
    }
    for index in [1, 2] {
        desk.change_role(0, index, Role::Owner, false).expect("an owner");
        desk.pass(10_000);
    }
    for index in 1..4 {
        desk.disconnect(0, index);
    }
    // 2, the junior, removes 3; 1 removes 2, which 3 hears of; the founder, who had heard of neither, removes 1.
    desk.remove(2, 3, None).expect("removed");
    desk.remove(1, 2, None).expect("removed");
    desk.connect(1, 3);
    desk.pass(10_000);
    desk.disconnect(1, 3);
    assert_eq!(desk.role(3), Some(Role::Editor));
    desk.remove(0, 1, None).expect("removed");
    desk.connect(0, 2);
    desk.pass(10_000);
    desk.connect(0, 3);
    desk.pass(10_000);
    assert!(desk.state(3) == FolderState::Removed, "{:?}", desk.role(3));
    assert!(desk.state(2) == FolderState::InSync);
}

#[test]
fn an_old_copy_of_a_removed_devices_store_hears_that_it_is_out() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    desk.report(2, &[(path("a"), file(1))]);
    desk.pass(10_000);
    let old = desk.seats[2].store.durable().clone();
    desk.report(2, &[(path("a"), file(2))]);
    desk.pass(10_000);
    let log = desk.seats[2].engine.own_log_size();
    desk.remove(0, 2, None).expect("removed");
    desk.pass(60_000);
    assert!(desk.state(2) == FolderState::Removed);
    desk.seats[2].store.put_back(old);
    desk.seats[2].next_scan = vec![(path("a"), file(2)), (path("b"), file(3))];
    desk.restart_expecting(2, log);
    desk.connect(1, 2);
    desk.pass(10_000);
    assert!(desk.state(2) == FolderState::Removed);
    // Admitted again it takes its own event back, too.
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 2);
    desk.command(2, Command::Join { ticket });
    desk.pass(120_000);
    let status = desk.seats[2].engine.status();
    assert!(status.state == FolderState::InSync, "{status:?}");
    assert_eq!(status.own_events_missing, 0);
    for index in 0..3 {
        let installed = &desk.seats[index].store.durable().installed;
        assert!(installed.contains_key(&path("b")), "on {index}");
    }
}
