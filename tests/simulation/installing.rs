//! In which order paths are brought into their wanted states when they are in each other's way, and what the scanner sees
//! meanwhile.

use p2p_sync_core::engine::InstallOutcome;
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

/// Makes directories and files at one device, and lets the other follow.
fn made(desk: &mut Desk, dirs: &[&str], files: &[(&str, u64)]) {
    let dirs: Vec<RelPath> = dirs.iter().map(|dir| path(dir)).collect();
    desk.report_dirs(0, &dirs);
    let files: Vec<_> = files
        .iter()
        .map(|(name, number)| (path(name), file(*number)))
        .collect();
    desk.report(0, &files);
    desk.pass(10_000);
}

fn assert_followed(desk: &mut Desk) {
    desk.pass(10_000);
    assert_eq!(desk.seats[1].floor.0, desk.seats[0].floor.0);
    let status = desk.seats[1].engine.status();
    assert_eq!((status.files_needed, status.stuck), (0, vec![]));
}

#[test]
fn a_file_and_a_directory_that_change_places_and_hold_each_others_bytes_come_to_an_end() {
    let mut desk = Desk::pair();
    desk.fetches_late = true;
    made(&mut desk, &["d"], &[("f", 1), ("d/a", 2)]);
    // The directory becomes a file with the bytes of the file, and that a directory with the bytes of what was in it.
    // What comes within 50 ms of the first is one event.
    desk.report(0, &[(path("first"), file(9))]);
    desk.report(0, &[(path("d/a"), None), (path("d"), file(1)), (path("f"), None)]);
    desk.report_dirs(0, &[path("f")]);
    desk.report(0, &[(path("f/a"), file(2))]);
    assert_followed(&mut desk);
}

#[test]
fn directories_that_become_files_with_each_others_bytes_come_to_an_end() {
    let mut desk = Desk::pair();
    desk.fetches_late = true;
    made(&mut desk, &["d", "e"], &[("d/a", 1), ("e/a", 2)]);
    desk.report(0, &[(path("d/a"), None), (path("d"), file(2))]);
    desk.pass(50);
    desk.report(0, &[(path("e/a"), None), (path("e"), file(1))]);
    assert_followed(&mut desk);
}

#[test]
fn what_stood_at_a_path_in_the_middle_of_an_install_that_was_undone_says_nothing() {
    let mut desk = Desk::pair();
    made(&mut desk, &["d"], &[]);
    // The directory holds what nobody has seen yet, so it gets its place back from the file.
    desk.refuses = Some(InstallOutcome::NotEmpty(vec![path("d/new")]));
    desk.glimpse = vec![(path("d"), file(1))];
    desk.report(0, &[(path("d"), file(1))]);
    desk.pass(100);
    desk.refuses = None;
    assert!(desk.glimpse.is_empty());
    desk.report_dirs(1, &[path("d")]);
    desk.report(1, &[(path("d/new"), file(2))]);
    assert_followed(&mut desk);
    let nodes: Vec<_> = desk.seats[0].floor.0.values().collect();
    assert_eq!(nodes.iter().filter(|node| !node.is_dir()).count(), 2, "{nodes:?}");
}
