//! When local changes become events, and which go together.

use p2p_sync_core::engine::{FoundBy, Input, InstallAction, LocalChange};
use p2p_sync_core::ledger::Item;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::BootInstant;

use crate::desk::{Desk, File};

/// Least time between two events, as the ledger has it.
const INTERVAL_MS: u64 = 50;

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

fn file(number: u64) -> Option<File> {
    Some(File {
        ino: number,
        content: number,
    })
}

fn own_events(desk: &Desk) -> u64 {
    desk.seats[0].engine.own_seq()
}

/// The items of the newest event of the first device.
fn newest(desk: &Desk) -> Vec<Item> {
    let tables = desk.seats[0].store.durable();
    let key = tables.arrival.last().expect("an event");
    let event = tables.events[key].event.read_stored();
    event.expect("readable").body.items
}

#[test]
fn the_first_change_after_a_pause_is_published_at_once_and_those_behind_it_together() {
    let mut desk = Desk::new(1, false);
    desk.pass(1_000);
    for round in 0..3 {
        let before = own_events(&desk);
        let number = round * 100;
        desk.report(0, &[(path(&format!("first{round}")), file(number + 1))]);
        assert_eq!(own_events(&desk), before + 1, "at once");
        desk.pass(1);
        for i in 2..10 {
            desk.report(0, &[(path(&format!("next{round}-{i}")), file(number + i))]);
            desk.pass(1);
        }
        desk.pass(INTERVAL_MS - 10);
        assert_eq!(own_events(&desk), before + 1, "not before its time");
        desk.pass(1);
        assert_eq!(own_events(&desk), before + 2);
        assert_eq!(newest(&desk).len(), 8);
        desk.pass(INTERVAL_MS);
    }
}

#[test]
fn a_device_that_never_rests_makes_at_most_twenty_events_a_second() {
    let mut desk = Desk::new(1, false);
    desk.pass(1_000);
    let before = own_events(&desk);
    for i in 0..999 {
        desk.report(0, &[(path("hot"), file(i))]);
        desk.pass(1);
    }
    assert_eq!(own_events(&desk) - before, 1_000 / INTERVAL_MS);
}

#[test]
fn a_renamed_directory_is_moved_by_the_others_and_not_copied() {
    const FILES: u64 = 10_000;
    const PORTION: usize = 512;
    let mut desk = Desk::pair();
    let tree = |dir: &str| -> Vec<(RelPath, Option<File>)> {
        let names = (0..FILES).map(|i| path(&format!("{dir}/{i}")));
        names.zip(0..).map(|(path, i)| (path, file(i + 1))).collect()
    };
    let tell = |desk: &mut Desk, found: &[(RelPath, Option<File>)]| {
        for portion in found.chunks(PORTION) {
            desk.report(0, portion);
            desk.pass(100);
        }
    };
    tell(&mut desk, &tree("old"));
    desk.pass(10_000);
    let (fetched, installs) = (desk.seats[1].fetched, desk.seats[1].installs.len());
    assert_eq!(fetched as u64, FILES);
    // As the scanner does: what is new first, what is gone at the end.
    tell(&mut desk, &tree("new"));
    let gone: Vec<_> = tree("old").into_iter().map(|(path, _)| (path, None)).collect();
    tell(&mut desk, &gone);
    desk.pass(10_000);
    let jobs = &desk.seats[1].installs[installs..];
    let moves = jobs
        .iter()
        .filter(|job| matches!(job.action, InstallAction::Move { .. }));
    assert_eq!(moves.count() as u64, FILES);
    assert_eq!(desk.seats[1].fetched, fetched);
}

#[test]
fn both_ends_of_a_rename_are_in_one_event_and_name_each_other() {
    let mut desk = Desk::new(1, false);
    desk.report(0, &[(path("a"), file(1))]);
    desk.pass(1_000);
    let before = own_events(&desk);
    desk.report(0, &[(path("b"), file(1))]);
    desk.pass(1_000);
    assert_eq!(own_events(&desk), before, "it waits for the other end");
    desk.report(0, &[(path("a"), None)]);
    assert_eq!(own_events(&desk), before + 1);
    let items = newest(&desk);
    assert_eq!(items.len(), 2);
    for item in items {
        match item {
            Item::Put(put) => assert_eq!(put.moved_from, Some(path("a"))),
            Item::Del { moved_to, .. } => assert_eq!(moved_to, Some(path("b"))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_hard_link_waits_for_no_deletion_longer_than_two_seconds() {
    let mut desk = Desk::new(1, false);
    desk.report(0, &[(path("a"), file(1))]);
    desk.pass(1_000);
    let before = own_events(&desk);
    desk.report(0, &[(path("link"), file(1))]);
    desk.pass(1_999);
    assert_eq!(own_events(&desk), before);
    desk.pass(1);
    assert_eq!(own_events(&desk), before + 1);
    assert_eq!(desk.seats[0].store.durable().installed.len(), 2);
}

#[test]
fn what_lay_in_a_directory_that_is_gone_is_gone_though_nobody_told_of_it() {
    let mut desk = Desk::new(1, false);
    desk.pass(1_000);
    desk.report(0, &[(path("first"), file(1))]);
    let before = own_events(&desk);
    desk.report_dirs(0, &[path("d"), path("d/sub"), path("e")]);
    desk.report(
        0,
        &[
            (path("d/sub/a"), file(2)),
            (path("d!"), file(3)),
            (path("e/b"), file(4)),
        ],
    );
    // The store knows none of them, so the scanner finds but the paths that it was asked to look at.
    desk.report(0, &[(path("d"), None), (path("e"), file(5))]);
    desk.pass(10_000);
    assert_eq!(own_events(&desk), before + 1);
    let written: Vec<RelPath> = newest(&desk).iter().filter_map(Item::path).cloned().collect();
    assert_eq!(written, ["d!", "e"].map(path));
    let installed = &desk.seats[0].store.durable().installed;
    assert_eq!(
        installed.keys().cloned().collect::<Vec<_>>(),
        ["d!", "e", "first"].map(path)
    );
}

/// A directory that was gone before the store had the rows of what lay in it: the scanner tells of the directory only.
#[test]
fn what_was_recorded_while_the_scanner_looked_at_its_directory_goes_with_it() {
    let mut desk = Desk::pair();
    desk.report_dirs(0, &[path("d")]);
    desk.pass(1_000);
    let looked = BootInstant::from_millis(desk.now_ms());
    desk.pass(100);
    desk.report(0, &[(path("d/f"), file(1))]);
    desk.pass(1_000);
    let has = |desk: &Desk, index: usize| {
        let installed = &desk.seats[index].store.durable().installed;
        installed.contains_key(&path("d/f"))
    };
    assert!(has(&desk, 0) && has(&desk, 1));
    let gone = LocalChange {
        path: path("d"),
        seen_at: looked,
        after: None,
        found_by: FoundBy::Look,
    };
    desk.tell(0, Input::LocalChanges(vec![gone]));
    desk.pass(10_000);
    assert!(!has(&desk, 0) && !has(&desk, 1));
}

/// A directory was made anew while the store did not know what lay in the one before it: the scanner misses nothing there.
#[test]
fn what_was_told_of_a_directory_that_another_replaced_is_looked_at_by_its_name() {
    let mut desk = Desk::new(1, false);
    desk.pass(1_000);
    desk.report_dirs_as(0, &[path("d")], 1);
    desk.report(0, &[(path("d/told"), file(1)), (path("d!"), file(2))]);
    desk.report_dirs_as(0, &[path("d")], 1);
    assert!(desk.seats[0].rescans.is_empty(), "it is the same directory");
    desk.report_dirs_as(0, &[path("d")], 2);
    assert_eq!(desk.seats[0].rescans, [path("d/told")]);
    desk.pass(1_000);
    desk.report_dirs_as(0, &[path("d")], 3);
    assert_eq!(
        desk.seats[0].rescans.len(),
        1,
        "the store knows, and so does the scanner"
    );
}

/// A directory goes while a file is being installed in it: what came of that is seen when it is over.
#[test]
fn what_was_being_installed_below_a_directory_that_went_is_looked_at_afterwards() {
    let mut desk = Desk::pair();
    desk.report_dirs(0, &[path("d")]);
    desk.pass(1_000);
    desk.holds_installs = true;
    desk.report(0, &[(path("d/f"), file(1))]);
    desk.pass(1_000);
    desk.report(1, &[(path("d"), None)]);
    desk.seats[1].rescans.clear();
    desk.let_install();
    assert_eq!(desk.seats[1].rescans, [path("d/f")]);
}
