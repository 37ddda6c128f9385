//! Starting after a crash in the middle of installs.

use p2p_sync_core::engine::{FolderState, RecoveredInstall};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Fingerprint, Node};

use crate::desk::{Desk, File, directory};

#[test]
fn what_an_install_took_away_before_a_crash_is_not_taken_for_deleted_by_its_user() {
    let mut desk = Desk::pair();
    let path = RelPath::parse("f").expect("well-formed");
    let file = File { ino: 1, content: 1 };
    desk.report(0, &[(path.clone(), Some(file))]);
    desk.pass(10_000);
    // It was not wanted for a moment (its path was a directory's), went, and was wanted again before that was recorded.
    desk.seats[0].next_scan = vec![(path.clone(), None)];
    let taken = RecoveredInstall {
        path: path.clone(),
        before: Some(desk.seats[0].store.durable().installed[&path].print),
        now: None,
        moved_from: None,
    };
    desk.restart_after(0, vec![taken]);
    desk.connect(0, 1);
    desk.pass(60_000);
    for seat in &desk.seats {
        assert!(seat.floor.0.contains_key(&path), "{:?}", seat.engine.status());
    }
}

#[test]
fn what_an_install_put_down_before_a_crash_is_not_taken_for_its_users_edit_though_it_is_not_wanted_any_more()
{
    let mut desk = Desk::pair();
    let [dir, below] = ["d", "d/e"].map(|name| RelPath::parse(name).expect("well-formed"));
    desk.report_dirs_as(0, std::slice::from_ref(&dir), 1);
    desk.report(0, &[(below.clone(), Some(File { ino: 2, content: 2 }))]);
    desk.pass(10_000);
    // The directory gave way to a file, and came back for what it holds elsewhere, until that was known to be gone.
    desk.holds_installs = true;
    desk.disconnect(0, 1);
    let file = File { ino: 3, content: 3 };
    desk.report(0, &[(dir.clone(), Some(file))]);
    desk.pass(1_000);
    let before = desk.seats[0].store.durable().installed[&dir].print;
    desk.report(0, &[(below, None)]);
    desk.pass(1_000);
    let events = desk.seats[0].engine.own_seq();
    let made = directory(4);
    let made_again = RecoveredInstall {
        path: dir.clone(),
        before: Some(before),
        now: Some((made.entry, made.print)),
        moved_from: None,
    };
    desk.seats[0].floor.set(&dir, Some(&Node::Dir));
    desk.seats[0].next_dirs = vec![(dir.clone(), 4)];
    desk.holds_installs = false;
    desk.restart_after(0, vec![made_again]);
    desk.connect(0, 1);
    desk.pass(60_000);
    assert_eq!(desk.seats[0].engine.own_seq(), events, "nobody did anything");
    for seat in &desk.seats {
        assert!(
            matches!(seat.floor.0.get(&dir), Some(Node::File { .. })),
            "{:?}",
            seat.floor
        );
    }
}

#[test]
fn what_a_user_made_after_a_removal_that_recovery_finds_again_and_deleted_stays_deleted() {
    let mut desk = Desk::pair();
    let path = RelPath::parse("f").expect("well-formed");
    desk.report(0, &[(path.clone(), Some(File { ino: 1, content: 1 }))]);
    desk.pass(10_000);
    let before = desk.seats[0].store.durable().installed[&path].print;
    // It was removed for the other device, and that recorded; then its user made another, and deleted it while the daemon
    // was down. The journal's note that the removal is over was lost with the machine.
    desk.report(1, &[(path.clone(), None)]);
    desk.pass(10_000);
    desk.report(0, &[(path.clone(), Some(File { ino: 2, content: 2 }))]);
    desk.pass(10_000);
    desk.seats[0].next_scan = vec![(path.clone(), None)];
    let found_again = RecoveredInstall {
        path: path.clone(),
        before: Some(before),
        now: None,
        moved_from: None,
    };
    desk.restart_after(0, vec![found_again]);
    desk.connect(0, 1);
    desk.pass(60_000);
    for seat in &desk.seats {
        assert!(seat.floor.0.is_empty(), "{:?}", seat.engine.status());
    }
}

#[test]
fn what_stands_where_a_copy_was_put_before_a_crash_and_is_none_any_more_is_left_alone() {
    let mut desk = Desk::pair();
    let path = RelPath::parse(".p2p-sync/conflicts/g/.git (conflict 00000000-1)").expect("well-formed");
    // The copy was put, recorded and given up by its user's edit; the journal's note that it was put is still open.
    let put = File { ino: 1, content: 1 }.observed();
    let found_again = RecoveredInstall {
        path: path.clone(),
        before: None,
        now: Some((put.entry, put.print)),
        moved_from: None,
    };
    let edited = Some(File { ino: 2, content: 2 });
    desk.seats[0].next_scan = vec![(path.clone(), edited)];
    desk.restart_after(0, vec![found_again]);
    desk.pass(60_000);
    assert_eq!(desk.seats[0].installs, []);
    assert_eq!(desk.seats[0].engine.status().state, FolderState::InSync);
}

#[test]
fn what_one_install_put_down_and_the_next_moved_away_before_a_crash_is_not_taken_for_deleted() {
    let mut desk = Desk::pair();
    let [path, copy] = ["f", "f (conflict)"].map(|name| RelPath::parse(name).expect("well-formed"));
    let file = File { ino: 1, content: 1 };
    desk.report(0, &[(path.clone(), Some(file))]);
    desk.pass(10_000);
    let put = file.observed();
    let later = Fingerprint {
        ctime_ns: put.print.ctime_ns + 1,
        ..put.print
    };
    // Both were found open; the store knows neither. What was moved had another time of change than when it was put.
    let installs = [
        (&path, None, Some((put.entry.clone(), put.print))),
        (&path, Some(later), None),
        (&copy, None, Some((put.entry, later))),
    ];
    let installs = installs.map(|(path, before, now)| RecoveredInstall {
        path: path.clone(),
        before,
        now,
        moved_from: None,
    });
    desk.seats[0].next_scan = vec![(path.clone(), None)];
    let events = desk.seats[0].engine.own_seq();
    desk.restart_after(0, installs.into());
    desk.pass(10_000);
    assert_eq!(desk.seats[0].engine.own_seq(), events, "nobody deleted it");
}
