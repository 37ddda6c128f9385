//! Which deletions are held until the user confirms them, and what becomes of them.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, CommandError, FolderState, Input, InstallAction, Reply};
use p2p_sync_core::ledger::Item;
use p2p_sync_core::rel_path::RelPath;

use crate::desk::{Desk, File};

type Found = Vec<(RelPath, Option<File>)>;

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

fn files(numbers: std::ops::Range<u64>) -> Found {
    let file = |i| File {
        ino: i + 1,
        content: i + 1,
    };
    numbers
        .map(|i| (path(&format!("f{i:05}")), Some(file(i))))
        .collect()
}

fn gone(numbers: std::ops::Range<u64>) -> Found {
    files(numbers).into_iter().map(|(path, _)| (path, None)).collect()
}

/// A pair that holds so many files.
fn pair_with(count: u64, role: Role) -> Desk {
    let mut desk = Desk::pair_as(role);
    desk.report(0, &files(0..count));
    desk.pass(10_000);
    assert_eq!(desk.seats[1].store.durable().installed.len() as u64, count);
    desk
}

fn held(desk: &Desk) -> u64 {
    desk.seats[1].engine.status().deletions_held
}

/// The deletions that the second device published.
fn deleted(desk: &Desk) -> usize {
    let seat = &desk.seats[1];
    let own = seat.store.durable().events.iter();
    let own = own.filter(|((author, _), _)| *author == seat.id().short());
    let items = own.flat_map(|(_, stored)| stored.event.read_stored().expect("readable").body.items);
    items.filter(|item| matches!(item, Item::Del { .. })).count()
}

fn answer(desk: &mut Desk, restore: bool) {
    desk.command(1, Command::ConfirmDeletes { restore });
    assert_eq!(desk.seats[1].replies.pop(), Some(Ok(Reply::Done)));
}

#[test]
fn more_than_a_hundred_deletions_and_more_than_half_are_held() {
    for (count, vanished, holds) in [
        (300, 300, true),
        (120, 100, false),
        (150, 101, true),
        (302, 151, false),
    ] {
        let mut desk = pair_with(count, Role::Editor);
        desk.scan(1, &gone(0..vanished));
        desk.pass(10_000);
        let expected = if holds { (vanished, 0) } else { (0, vanished) };
        assert_eq!(
            (held(&desk), deleted(&desk) as u64),
            expected,
            "{vanished} of {count}"
        );
    }
}

#[test]
fn deletions_that_the_watcher_saw_are_never_held() {
    let mut desk = pair_with(300, Role::Editor);
    desk.report(1, &gone(0..300));
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 300));
    assert!(desk.seats[0].store.durable().installed.is_empty());
}

#[test]
fn what_the_watcher_saw_vanish_is_let_go_though_a_scan_found_it_first() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..200));
    assert_eq!(held(&desk), 200);
    desk.part_of_scan(1, &gone(200..300));
    desk.witness(1, &gone(0..300));
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 300));
}

/// A directory's row was let go of while those of what lay in it were held.
#[test]
fn a_directory_is_held_with_what_lay_in_it() {
    let there: Found = files(0..300)
        .into_iter()
        .map(|(file, f)| (path(&format!("d/{file}")), f))
        .collect();
    let away: Found = there.iter().map(|(path, _)| (path.clone(), None)).collect();
    for looked_at in [false, true] {
        let mut desk = Desk::pair_as(Role::Editor);
        desk.report_dirs_as(1, &[path("d")], 7);
        desk.report(1, &there);
        desk.pass(10_000);
        if looked_at {
            desk.scan(1, &away);
            desk.report(1, &[(path("d"), None)]);
        } else {
            // Its inode serves another directory by now, so it passes for renamed.
            desk.part_of_scan(1, &away);
            desk.part_of_scan(1, &[(path("d"), None)]);
            desk.scan_dirs(1, &[path("new")], 7);
        }
        desk.pass(10_000);
        assert!(held(&desk) >= 300 && deleted(&desk) == 0);
        assert!(desk.seats[1].store.durable().installed.contains_key(&path("d")));
        desk.seats[1].next_scan = away.clone();
        desk.seats[1].next_scan.push((path("d"), None));
        answer(&mut desk, false);
        desk.pass(10_000);
        assert_eq!((held(&desk), deleted(&desk)), (0, 301));
    }
}

#[test]
fn what_came_in_the_same_scan_does_not_make_the_folder_larger() {
    let mut desk = pair_with(150, Role::Editor);
    let mut found = files(1_000..1_500);
    found.extend(gone(0..150));
    desk.scan(1, &found);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (150, 0));
    assert_eq!(desk.seats[0].store.durable().installed.len(), 650);
}

#[test]
fn held_deletions_are_published_by_no_later_look_and_no_restart() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..300));
    desk.report(1, &gone(0..300));
    desk.pass(10_000);
    desk.scan(1, &gone(0..300));
    // By now all but a few are back, and still nobody has answered.
    desk.scan(1, &gone(0..10));
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (10, 0));
    desk.seats[1].next_scan = gone(0..10);
    desk.restart(1);
    desk.connect(0, 1);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (10, 0));
    assert!(desk.seats[1].engine.status().state != FolderState::InSync);
    // When all are back, the next deletions are judged anew.
    desk.scan(1, &[]);
    assert_eq!(held(&desk), 0);
    desk.scan(1, &gone(0..10));
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 10));
}

#[test]
fn a_file_that_comes_back_is_not_held_any_more() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..300));
    let back = File {
        ino: 9_999,
        content: 1,
    };
    desk.report(1, &[(path("f00000"), Some(back))]);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (299, 0));
}

#[test]
fn confirming_deletes_what_is_still_gone_and_nothing_else() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..300));
    desk.seats[1].next_scan = gone(0..200);
    answer(&mut desk, false);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 200));
    assert_eq!(desk.seats[0].store.durable().installed.len(), 100);
    assert!(desk.seats[1].engine.status().state == FolderState::InSync);
    desk.command(1, Command::ConfirmDeletes { restore: false });
    let nothing = CommandError::Invalid("No deletions wait for an answer");
    assert_eq!(desk.seats[1].replies.pop(), Some(Err(nothing)));
}

#[test]
fn an_answer_counts_for_one_scan() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..300));
    answer(&mut desk, false);
    desk.pass(10_000);
    // The scan that the answer asked for found nothing gone, so nothing is confirmed any more.
    desk.scan(1, &gone(0..300));
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (300, 0));
    desk.tell(1, Input::ScanFailed);
    desk.scan(1, &gone(0..300));
    assert_eq!((held(&desk), deleted(&desk)), (300, 0));
}

#[test]
fn what_a_failed_scan_found_gone_is_forgotten() {
    let mut desk = pair_with(300, Role::Editor);
    let changes = gone(0..50);
    desk.part_of_scan(1, &changes);
    desk.tell(1, Input::ScanFailed);
    desk.scan(1, &[]);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 0));
}

#[test]
fn restoring_fetches_the_files_and_publishes_nothing() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..300));
    let installs = desk.seats[1].installs.len();
    answer(&mut desk, true);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 0));
    assert_eq!(desk.seats[1].installs.len() - installs, 300);
    assert_eq!(desk.seats[1].store.durable().installed.len(), 300);
    assert!(desk.seats[1].engine.status().state == FolderState::InSync);
}

#[test]
fn a_change_by_another_device_is_not_installed_at_a_held_path_before_the_answer() {
    let mut desk = pair_with(300, Role::Editor);
    desk.scan(1, &gone(0..300));
    let installs = desk.seats[1].installs.len();
    let edited = File {
        ino: 1,
        content: 7_777,
    };
    desk.report(0, &[(path("f00000"), Some(edited))]);
    desk.report(0, &[(path("f00001"), None)]);
    desk.pass(1_000_000);
    assert_eq!(desk.seats[1].installs.len(), installs);
    // What another device deleted is not wanted any more.
    assert_eq!((held(&desk), deleted(&desk)), (299, 0));
    desk.seats[1].next_scan = gone(0..300);
    answer(&mut desk, false);
    desk.pass(10_000);
    // An edit survives a deletion beside it.
    let left: Vec<_> = desk.seats[1].store.durable().installed.keys().collect();
    assert_eq!(left, [&path("f00000")]);
    assert!(desk.seats[1].engine.status().state == FolderState::InSync);
}

#[test]
fn renamed_files_are_no_deletions() {
    for same_inode in [true, false] {
        let mut desk = pair_with(10_000, Role::Editor);
        let moved = |(path_, file): (RelPath, Option<File>)| {
            let file = file.map(|file| File {
                ino: if same_inode {
                    file.ino
                } else {
                    file.ino + 1_000_000
                },
                ..file
            });
            (path(&format!("new/{path_}")), file)
        };
        let mut found: Found = files(0..10_000).into_iter().map(moved).collect();
        found.extend(gone(0..10_000));
        desk.scan(1, &found);
        desk.pass(60_000);
        assert_eq!(
            (held(&desk), deleted(&desk)),
            (0, 10_000),
            "same inode: {same_inode}"
        );
        assert_eq!(desk.seats[0].store.durable().installed.len(), 10_000);
    }
}

#[test]
fn one_copy_does_not_make_a_thousand_equal_files_renamed() {
    let mut desk = Desk::pair();
    let equal = |i: u64| {
        (
            path(&format!("f{i:05}")),
            Some(File {
                ino: i + 1,
                content: 1,
            }),
        )
    };
    desk.report(0, &(0..300).map(equal).collect::<Found>());
    desk.pass(10_000);
    let mut found = vec![(
        path("other"),
        Some(File {
            ino: 5_000,
            content: 1,
        }),
    )];
    found.extend(gone(0..300));
    desk.scan(1, &found);
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (299, 1));
}

#[test]
fn a_file_in_place_of_a_held_directory_waits_with_it() {
    let mut desk = Desk::pair();
    let inside = |i: u64| path(&format!("d/{i:03}"));
    let tree: Found = (0..300)
        .map(|i| {
            (
                inside(i),
                Some(File {
                    ino: i + 1,
                    content: i + 1,
                }),
            )
        })
        .collect();
    desk.report(0, &tree);
    desk.pass(10_000);
    let link = (
        path("d"),
        Some(File {
            ino: 5_000,
            content: 5_000,
        }),
    );
    let mut found: Found = tree.iter().map(|(path, _)| (path.clone(), None)).collect();
    found.push(link.clone());
    let events = desk.seats[1].engine.own_seq();
    desk.scan(1, &found);
    desk.report(1, &[link]);
    desk.pass(10_000);
    assert_eq!((held(&desk), desk.seats[1].engine.own_seq()), (300, events));
    desk.seats[1].next_scan = found;
    answer(&mut desk, false);
    desk.pass(10_000);
    assert_eq!(deleted(&desk), 300);
    for seat in &desk.seats {
        let names: Vec<_> = seat.store.durable().installed.keys().collect();
        assert_eq!(names, [&path("d")]);
    }
}

#[test]
fn a_viewers_deletions_are_undone_as_ever() {
    let mut desk = pair_with(300, Role::Viewer);
    let installs = desk.seats[1].installs.len();
    desk.scan(1, &gone(0..300));
    desk.pass(10_000);
    assert_eq!((held(&desk), deleted(&desk)), (0, 0));
    let again = &desk.seats[1].installs[installs..];
    let puts = again
        .iter()
        .filter(|job| matches!(job.action, InstallAction::Put { .. }));
    assert_eq!(puts.count(), 300);
}
