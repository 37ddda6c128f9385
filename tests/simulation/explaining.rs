//! What `why` says about a path.

use p2p_sync_core::engine::{Cause, Command, FetchFailure, Input, InstallOutcome, Reply, WhyReport};
use p2p_sync_core::ids::ContentHash;
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

fn why(desk: &mut Desk, index: usize, name: &str) -> WhyReport {
    let path = path(name);
    desk.command(index, Command::Why { path });
    match desk.seats[index].replies.pop() {
        Some(Ok(Reply::Why(report))) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_at_rest_are_unknown_in_sync_or_deleted() {
    let mut desk = Desk::pair();
    assert_eq!(why(&mut desk, 1, "a").cause, Cause::Unknown);
    desk.report(0, &[(path("a"), file(1)), (path("d/b"), file(2))]);
    desk.pass(10_000);
    let report = why(&mut desk, 1, "a");
    assert_eq!((report.cause, report.present), (Cause::InSync, true));
    assert_eq!(report.author, Some(desk.seats[0].id()));
    assert_eq!(why(&mut desk, 1, "d").cause, Cause::InSync);
    desk.report(0, &[(path("a"), None)]);
    desk.pass(10_000);
    assert_eq!(why(&mut desk, 1, "a").cause, Cause::Deleted);
}

#[test]
fn a_path_is_followed_from_its_event_to_its_install() {
    let mut desk = Desk::pair();
    desk.holds_fetches = true;
    desk.report(0, &[(path("a"), file(1))]);
    let from = vec![desk.seats[0].id()];
    let report = why(&mut desk, 1, "a");
    assert_eq!(report.cause, Cause::Fetching { size: 8, from });
    let content = ContentHash::of(&1_u64.to_be_bytes());
    let reason = FetchFailure::NoSource;
    desk.tell(1, Input::FetchFailed { content, reason });
    let report = why(&mut desk, 1, "a");
    assert!(
        matches!(
            report.cause,
            Cause::NoSource {
                size: 8,
                retry_in: Some(_)
            }
        ),
        "{report:?}"
    );
    assert_eq!(report.author, Some(desk.seats[0].id()));
    let status = desk.seats[1].engine.status();
    let stuck = [(path("a"), "no connected device has its content".to_owned())];
    assert_eq!((status.stuck, status.stuck_count), (stuck.to_vec(), 1));
    // The next try finds it.
    desk.holds_fetches = false;
    desk.pass(11_000);
    assert_eq!(why(&mut desk, 1, "a").cause, Cause::InSync);
    assert_eq!(desk.seats[1].engine.status().stuck_count, 0);
}

#[test]
fn what_the_disk_refuses_is_told_with_the_next_try() {
    let mut desk = Desk::pair();
    desk.refuses = Some(InstallOutcome::Failed("Permission denied".to_owned()));
    desk.report(0, &[(path("a"), file(1))]);
    desk.pass(10_000);
    let report = why(&mut desk, 1, "a");
    let Cause::Parked { reason, retry_in } = report.cause else {
        panic!("{report:?}");
    };
    assert_eq!(reason.as_deref(), Some("Permission denied"));
    assert!(retry_in.is_some_and(|wait| wait.as_secs() <= 60));
    assert_eq!(desk.seats[1].engine.status().stuck_count, 1);
    desk.refuses = None;
    desk.pass(61_000);
    assert_eq!(why(&mut desk, 1, "a").cause, Cause::InSync);
}

#[test]
fn held_deletions_and_conflict_copies_are_told() {
    let mut desk = Desk::pair();
    let all: Vec<_> = (0..200).map(|i| (path(&format!("f{i}")), file(i + 1))).collect();
    desk.report(0, &all);
    desk.pass(10_000);
    let gone: Vec<_> = all.iter().map(|(path, _)| (path.clone(), None)).collect();
    desk.scan(1, &gone);
    assert_eq!(why(&mut desk, 1, "f7").cause, Cause::DeletionHeld);
    desk.command(1, Command::ConfirmDeletes { restore: true });
    desk.pass(10_000);
    desk.disconnect(0, 1);
    desk.report(0, &[(path("f7"), file(1_001))]);
    desk.report(1, &[(path("f7"), file(1_002))]);
    desk.pass(1_000);
    desk.connect(0, 1);
    desk.pass(10_000);
    let report = why(&mut desk, 1, "f7");
    assert_eq!((report.cause, report.copies.len()), (Cause::InSync, 1));
    let copy = report.copies[0].to_string();
    let report = why(&mut desk, 1, &copy);
    assert_eq!((report.cause, report.copy_of), (Cause::InSync, Some(path("f7"))));
    assert_eq!(why(&mut desk, 0, "f7").behind, []);
}
