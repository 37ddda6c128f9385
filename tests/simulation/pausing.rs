//! A paused device changes nothing and tells nothing, and catches up when it is resumed.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, FolderState, JoinChoice};
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

fn pause(desk: &mut Desk, paused: bool) {
    desk.command(1, Command::SetPaused { paused });
    desk.seats[1].replies.clear();
}

fn names(desk: &Desk, index: usize) -> Vec<String> {
    let rows = desk.seats[index].store.durable().installed.keys();
    rows.map(ToString::to_string).collect()
}

#[test]
fn a_paused_device_installs_and_publishes_nothing_and_keeps_the_ledger_over_a_restart() {
    let mut desk = Desk::pair();
    pause(&mut desk, true);
    let own = desk.seats[1].engine.own_seq();
    for restarted in [false, true] {
        if restarted {
            desk.restart(1);
            desk.connect(0, 1);
        }
        let number = 10 + u64::from(restarted);
        desk.report(0, &[(path(&format!("theirs{number}")), file(number))]);
        desk.report(1, &[(path(&format!("mine{number}")), file(number + 100))]);
        desk.pass(100_000);
        assert_eq!(desk.seats[1].engine.own_seq(), own);
        assert_eq!(names(&desk, 1), Vec::<String>::new());
        let [there, here] = [0, 1].map(|i: usize| desk.seats[i].engine.status());
        assert_eq!((here.state, here.events), (FolderState::Paused, there.events));
        assert!(here.files_needed > 0);
    }
    pause(&mut desk, false);
    desk.pass(10_000);
    // What was seen before the restart is found again by the scan, which this test does not make.
    let all = ["mine11", "theirs10", "theirs11"];
    assert_eq!(
        (names(&desk, 0), names(&desk, 1)),
        (all.map(String::from).into(), all.map(String::from).into())
    );
    assert_eq!(desk.seats[1].engine.status().state, FolderState::InSync);
    desk.restart(1);
    assert_ne!(desk.seats[1].engine.status().state, FolderState::Paused);
}

#[test]
fn a_joiner_that_is_paused_compares_its_files_when_it_is_resumed() {
    let mut desk = Desk::new(2, false);
    desk.report(0, &[(path("plan"), file(1))]);
    desk.pass(1_000);
    pause(&mut desk, true);
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 1);
    desk.seats[1].next_scan = vec![(path("plan"), file(2))];
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    assert_eq!(names(&desk, 1), Vec::<String>::new());
    desk.seats[1].next_scan = vec![(path("plan"), file(2))];
    pause(&mut desk, false);
    desk.pass(10_000);
    // The joiner's file did not win, as it would have as an ordinary edit.
    let copy = names(&desk, 0).into_iter().find(|name| name.contains("conflict"));
    assert!(copy.is_some(), "{:?}", names(&desk, 0));
    let plan = &desk.seats[1].store.durable().installed[&path("plan")];
    assert_eq!(
        plan.entry,
        desk.seats[0].store.durable().installed[&path("plan")].entry
    );
}

#[test]
fn what_a_joiner_brought_is_counted_while_files_are_held_over_a_restart_too() {
    let mut desk = Desk::new(2, false);
    let group: Vec<_> = (0..300)
        .map(|i| (path(&format!("f{i:03}")), file(i + 1)))
        .collect();
    desk.report(0, &group);
    desk.pass(1_000);
    let edited: Vec<_> = (0..20)
        .map(|i| (path(&format!("f{i:03}")), file(i + 501)))
        .collect();
    desk.report(0, &edited);
    desk.pass(1_000);
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 1);
    // Twenty as they once were, thirty as they are, seven that nobody knows, and the others different.
    let mut brought: Vec<_> = group[..50].to_vec();
    brought.extend((0..7).map(|i| (path(&format!("new{i}")), file(i + 1_001))));
    let differing: Vec<_> = (50..250)
        .map(|i| (path(&format!("f{i:03}")), file(i + 2_000)))
        .collect();
    brought.extend(differing.clone());
    desk.seats[1].next_scan = brought;
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    for restarted in [false, true] {
        if restarted {
            desk.seats[1].next_scan = differing.clone();
            desk.restart(1);
            desk.connect(0, 1);
            desk.pass(10_000);
        }
        let status = desk.seats[1].engine.status();
        let counts = status.join.expect("files are held");
        assert_eq!(
            (counts.same, counts.old, counts.new, counts.differing),
            (30, 20, 7, 200)
        );
        assert_eq!(status.join_held, 200);
    }
    desk.command(
        1,
        Command::ResolveJoin {
            choice: JoinChoice::PreferGroup,
        },
    );
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().join, None);
}
