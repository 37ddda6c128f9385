//! Two machines with the key of one device: its log forks, and nobody's changes are lost.

use std::collections::BTreeSet;

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, Cut, FolderState, Notification, StateView};
use p2p_sync_core::fold::{PathState, Version};
use p2p_sync_core::ids::{ContentHash, DeviceId, EventId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::sim::oracle::Oracle;
use p2p_sync_tests::sim::store::Tables;

use crate::desk::{Desk, File};
use crate::floor::Floor;

/// A machine that is switched off.
struct Twin {
    tables: Tables,
    floor: Floor,
}

impl Desk {
    /// Another machine with the key of a device, and with what is durable there, takes its place: all there is of it, which
    /// then stands as it did. The other is given back, switched off.
    fn twin(&mut self, index: usize) -> Twin {
        let seat = &mut self.seats[index];
        let twin = Twin {
            tables: seat.store.durable().clone(),
            floor: Floor(seat.floor.0.clone()),
        };
        let is_settled = seat.store.is_settled();
        assert!(is_settled, "a desk's store has nothing on its way");
        self.restart(index);
        twin
    }

    /// Puts one machine with a device's key in the place of another.
    fn swap(&mut self, index: usize, twin: &mut Twin) {
        let seat = &mut self.seats[index];
        let tables = std::mem::replace(&mut twin.tables, seat.store.durable().clone());
        seat.store.restore(tables);
        std::mem::swap(&mut seat.floor, &mut twin.floor);
        self.restart(index);
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

fn file(number: u64) -> Option<File> {
    Some(File {
        ino: number,
        content: number,
    })
}

fn content(number: u64) -> Option<ContentHash> {
    file(number).map(File::observed)?.entry.node.content()
}

/// The founder, an editor, and another editor, all connected; and a machine with the first editor's key.
fn with_twin() -> (Desk, Twin) {
    let mut desk = Desk::new(3, false);
    for index in [1, 2] {
        let ticket = desk.invite(0, Role::Editor);
        desk.connect(0, index);
        desk.command(index, Command::Join { ticket });
        desk.pass(10_000);
    }
    desk.report(0, &[(path("shared"), file(1))]);
    desk.pass(10_000);
    let twin = desk.twin(1);
    (desk, twin)
}

/// What each device believes of a path, with everything that has a name of its own there.
fn state(desk: &Desk, index: usize, at: &str) -> (Option<ContentHash>, BTreeSet<(RelPath, ContentHash)>) {
    let tables = desk.seats[index].store.durable();
    let state = tables.path_state(&path(at)).unwrap_or_default();
    let content_of = |version: &Version| version.entry.as_ref()?.node.content();
    let winner = state.winner().and_then(content_of);
    let shown = |state: &PathState| -> BTreeSet<(RelPath, ContentHash)> {
        let shown = state.shown.iter();
        shown
            .filter_map(|(name, dot)| Some((name.clone(), content_of(state.head(*dot)?)?)))
            .collect()
    };
    (winner, shown(&state))
}

fn events(desk: &Desk, index: usize) -> BTreeSet<(DeviceId, u64, EventId)> {
    let events = desk.seats[index].store.durable().events.values();
    events.map(|event| (event.author, event.seq, event.id)).collect()
}

/// Everybody has the same ledger, and says that all is in sync.
fn assert_equal(desk: &Desk, among: &[usize]) {
    let first = events(desk, among[0]);
    for index in among {
        assert_eq!(events(desk, *index), first, "device {index} has other events");
        let status = desk.seats[*index].engine.status();
        assert_eq!(
            status.state,
            FolderState::InSync,
            "device {index}: {:?}",
            status.stuck
        );
    }
    for index in among {
        let tables = desk.seats[*index].store.durable();
        let oracle = Oracle::read(tables).expect("only what honest devices make");
        for (path, state) in oracle.states() {
            let known = tables.path_state(&path).unwrap_or_default();
            assert_eq!(known.heads, state.heads, "device {index} at {path}");
        }
    }
}

/// Both machines change something while nobody hears them, and are heard in turn by the founder, who is connected to the
/// third.
fn forked(changes: [&[(RelPath, Option<File>)]; 2]) -> (Desk, Twin) {
    let (mut desk, mut twin) = with_twin();
    desk.report(1, changes[0]);
    desk.pass(1_000);
    desk.swap(1, &mut twin);
    desk.report(1, changes[1]);
    desk.pass(1_000);
    desk.connect(0, 1);
    desk.pass(70_000);
    desk.disconnect(0, 1);
    desk.swap(1, &mut twin);
    desk.connect(0, 1);
    desk.pass(70_000);
    (desk, twin)
}

#[test]
fn both_branches_of_a_log_reach_everybody() {
    let (mut desk, mut twin) = forked([&[(path("here"), file(2))], &[(path("there"), file(3))]]);
    desk.connect(0, 2);
    desk.pass(70_000);
    assert_equal(&desk, &[0, 1, 2]);
    for index in 0..3 {
        assert_eq!(state(&desk, index, "here").0, content(2), "device {index}");
        assert_eq!(state(&desk, index, "there").0, content(3), "device {index}");
    }
    desk.swap(1, &mut twin);
    desk.connect(0, 1);
    desk.pass(70_000);
    assert_equal(&desk, &[0, 1, 2]);
}

#[test]
fn what_both_branches_say_of_a_path_is_one_winner_and_one_copy_with_one_name_everywhere() {
    let (mut desk, mut twin) = forked([&[(path("shared"), file(2))], &[(path("shared"), file(3))]]);
    desk.connect(0, 2);
    desk.pass(70_000);
    assert_equal(&desk, &[0, 1, 2]);
    let told = state(&desk, 0, "shared");
    let contents: BTreeSet<ContentHash> = told.1.iter().map(|copy| copy.1).chain(told.0).collect();
    assert_eq!(contents, content(2).into_iter().chain(content(3)).collect());
    for index in 1..3 {
        assert_eq!(state(&desk, index, "shared"), told, "device {index}");
    }
    desk.swap(1, &mut twin);
    desk.connect(0, 1);
    desk.pass(70_000);
    assert_eq!(
        state(&desk, 1, "shared"),
        told,
        "the twin, which has its own branch first"
    );
}

#[test]
fn a_removal_undoes_one_branch_from_an_event_on_and_keeps_the_other() {
    let changes = [(path("here"), file(2)), (path("shared"), file(4))];
    let others = [(path("there"), file(3)), (path("shared"), file(5))];
    let (mut desk, _twin) = forked([&changes, &others]);
    desk.connect(0, 2);
    desk.pass(70_000);
    let states = desk.seats[2].store.durable().path_state(&path("there"));
    let dot = states
        .and_then(|state| Some(state.winner()?.dot))
        .expect("a version");
    let cut = Cut::Event {
        log: dot.device,
        seq: dot.seq,
    };
    desk.remove(0, 1, Some(cut)).expect("removed");
    desk.pass(70_000);
    for index in [0, 2] {
        assert_eq!(state(&desk, index, "here").0, content(2), "device {index}");
        assert_eq!(state(&desk, index, "there").0, None, "device {index}");
        let (shared, copies) = state(&desk, index, "shared");
        assert_eq!((shared, copies.len()), (content(4), 0), "device {index}");
    }
}

#[test]
fn a_change_after_a_fork_takes_the_place_of_what_both_branches_made() {
    let (mut desk, mut twin) = forked([&[(path("shared"), file(2))], &[(path("shared"), file(3))]]);
    desk.connect(0, 2);
    desk.pass(70_000);
    let (_, copies) = state(&desk, 2, "shared");
    let copy = copies.first().expect("one of them is a copy").0.clone();
    // The third decides: its user deletes the copy and edits the file.
    desk.witness(2, &[(copy, None), (path("shared"), file(9))]);
    desk.pass(70_000);
    for machine in 0..2 {
        assert_equal(&desk, &[0, 1, 2]);
        for index in 0..3 {
            let (winner, copies) = state(&desk, index, "shared");
            assert_eq!(
                (winner, copies.len()),
                (content(9), 0),
                "device {index}, machine {machine}"
            );
        }
        desk.swap(1, &mut twin);
        desk.connect(0, 1);
        desk.pass(70_000);
    }
}

#[test]
fn branches_that_go_on_stay_apart_and_everybody_hears_of_both() {
    let (mut desk, mut twin) = forked([&[(path("a0"), file(10))], &[(path("b0"), file(20))]]);
    desk.connect(0, 2);
    for round in 1..4 {
        for name in ["a", "b"] {
            let number = if name == "a" { 10 + round } else { 20 + round };
            desk.report(1, &[(path(&format!("{name}{round}")), file(number))]);
            desk.pass(70_000);
            desk.disconnect(0, 1);
            desk.swap(1, &mut twin);
            desk.connect(0, 1);
            desk.pass(70_000);
        }
        assert_equal(&desk, &[0, 1, 2]);
    }
    for (name, first) in [("a", 10), ("b", 20)] {
        for round in 0..4 {
            let at = format!("{name}{round}");
            assert_eq!(state(&desk, 2, &at).0, content(first + round), "{at}");
        }
    }
}

#[test]
fn a_restart_changes_nothing_of_a_fork() {
    let (mut desk, _) = forked([&[(path("shared"), file(2))], &[(path("shared"), file(3))]]);
    desk.connect(0, 2);
    desk.pass(70_000);
    let before = events(&desk, 0);
    for index in 0..3 {
        desk.restart(index);
    }
    desk.connect(0, 1);
    desk.connect(0, 2);
    desk.pass(70_000);
    assert_equal(&desk, &[0, 1, 2]);
    assert_eq!(events(&desk, 0), before);
    assert!(
        desk.seats.iter().all(|seat| !seat
            .notified
            .iter()
            .any(|news| matches!(news, Notification::PeerMisbehaved { .. }))),
        "somebody was blamed"
    );
}

#[test]
fn a_group_knows_which_device_has_a_twin() {
    let (mut desk, _) = forked([&[(path("here"), file(2))], &[(path("there"), file(3))]]);
    desk.connect(0, 2);
    desk.pass(70_000);
    let forked = vec![desk.seats[1].id()];
    for index in 0..3 {
        assert_eq!(desk.seats[index].engine.status().forked, forked, "device {index}");
    }
}

#[test]
fn copies_of_events_with_one_number_have_two_names() {
    // The third's version wins over both: it comes last.
    let (mut desk, mut twin) = with_twin();
    desk.disconnect(0, 1);
    desk.report(1, &[(path("shared"), file(2))]);
    desk.pass(1_000);
    desk.swap(1, &mut twin);
    desk.report(1, &[(path("shared"), file(3))]);
    desk.pass(1_000);
    desk.report(2, &[(path("shared"), file(4))]);
    desk.pass(1_000);
    for _ in 0..2 {
        desk.connect(0, 1);
        desk.connect(0, 2);
        desk.pass(70_000);
        desk.disconnect(0, 1);
        desk.swap(1, &mut twin);
    }
    desk.connect(0, 1);
    desk.pass(70_000);
    assert_equal(&desk, &[0, 1, 2]);
    let told = state(&desk, 0, "shared");
    assert_eq!((told.0, told.1.len()), (content(4), 2), "{:?}", told.1);
    let names: BTreeSet<&RelPath> = told.1.iter().map(|copy| &copy.0).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for index in 1..3 {
        assert_eq!(state(&desk, index, "shared"), told, "device {index}");
    }
}

/// What a branch of a branch has in its past is also what the other had when they parted.
#[test]
fn a_machine_that_was_copied_twice_has_the_past_of_the_one_it_was_copied_from() {
    let (mut desk, _) = forked([&[(path("here"), file(2))], &[(path("there"), file(3))]]);
    // This machine's branch came second, and has seen the first.
    desk.report(1, &[(path("seen"), file(4))]);
    desk.pass(1_000);
    desk.disconnect(0, 1);
    let mut third = desk.twin(1);
    desk.report(1, &[(path("by the second"), file(5))]);
    desk.pass(1_000);
    desk.connect(0, 1);
    desk.pass(70_000);
    desk.swap(1, &mut third);
    desk.report(1, &[(path("there"), file(6))]);
    desk.pass(1_000);
    desk.connect(0, 1);
    desk.connect(0, 2);
    desk.pass(70_000);
    assert_equal(&desk, &[0, 1, 2]);
    for index in 0..3 {
        let there = state(&desk, index, "there");
        assert_eq!((there.0, there.1.len()), (content(6), 0), "device {index}");
    }
}
