//! What it means to ignore a path: two devices, of which the second changes its rules. Each case runs twice, with rules
//! that change while the daemon runs and with rules that change while it is down.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use p2p_sync_core::engine::{Command, CommandId, FolderState, Input};
use p2p_sync_core::ignore::IgnoreRules;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::sim::disk::Kind;
use p2p_sync_tests::sim::plan::Plan;
use p2p_sync_tests::sim::trace::Sink;
use p2p_sync_tests::sim::world::World;

/// Time in which two devices without faults have done all that they will do.
const REST_MS: u64 = 5 * 60_000;
/// The device whose user ignores nothing, and the one whose user does.
const PLAIN: usize = 0;
const CHOOSY: usize = 1;

/// Ignores these paths and what lies below them.
#[derive(Debug)]
struct Paths(BTreeSet<RelPath>);

impl IgnoreRules for Paths {
    fn is_ignored(&self, path: &RelPath, _: bool) -> bool {
        self.0.contains(path) || path.ancestors().any(|above| self.0.contains(&above))
    }

    fn id(&self) -> [u8; 32] {
        let mut id = [1_u8; 32];
        for (at, byte) in self.0.iter().flat_map(|path| path.as_bytes()).enumerate() {
            id[at % 32] = id[at % 32].wrapping_mul(31).wrapping_add(*byte);
        }
        id
    }
}

fn rules(names: &[&str]) -> Arc<dyn IgnoreRules> {
    Arc::new(Paths(names.iter().map(|name| path(name)).collect()))
}

fn path(name: &str) -> RelPath {
    RelPath::parse(name).unwrap()
}

struct Rig {
    world: World,
    /// Whether rules change while the daemon is down.
    restarts: bool,
    clock: i64,
}

/// Runs a case both ways.
fn both_ways(case: impl Fn(&mut Rig)) {
    for restarts in [false, true] {
        let world = World::with_plan(Plan::quiet(2), Sink::Drop, Vec::new());
        let mut rig = Rig {
            world,
            restarts,
            clock: 1,
        };
        rig.rest();
        case(&mut rig);
    }
}

impl Rig {
    /// Has both devices look at their folders, and waits until nothing happens any more.
    fn rest(&mut self) {
        for device in [PLAIN, CHOOSY] {
            let input = Input::Command {
                id: CommandId(1 << 40),
                command: Command::Rescan { path: None },
            };
            self.world.tell(device, input).unwrap();
        }
        self.world.pass(REST_MS).unwrap();
    }

    fn rest_in_sync(&mut self) {
        self.rest();
        for device in &self.world.devices {
            let status = device.status();
            assert_eq!(
                (status.state, status.files_needed),
                (FolderState::InSync, 0),
                "{}: {status:?}",
                device.index
            );
        }
    }

    fn ignore(&mut self, names: &[&str]) {
        if self.restarts {
            self.world.restart_with(CHOOSY, rules(names)).unwrap();
        } else {
            self.world.ignore(CHOOSY, rules(names)).unwrap();
        }
    }

    fn write(&mut self, device: usize, name: &str, text: &str) {
        self.clock += 1;
        let disk = &mut self.world.devices[device].disk;
        for above in path(name).ancestors() {
            if disk.lstat(&above).is_none() {
                disk.create(&above, Kind::Dir, 0o755, 0);
            }
        }
        if disk.lstat(&path(name)).is_some() {
            disk.write(&path(name), text.into(), self.clock);
        } else {
            disk.create(&path(name), Kind::File(text.into()), 0o644, self.clock);
        }
    }

    fn remove(&mut self, device: usize, name: &str) {
        self.world.devices[device].disk.remove_all(&path(name));
    }

    /// Returns the files in a device's folder as `name=text`.
    fn files(&self, device: usize) -> Vec<String> {
        let tree = self.world.devices[device].disk.tree().iter();
        let files = tree.filter_map(|(path, inode)| match &inode.kind {
            Kind::File(bytes) => Some(format!("{path}={}", String::from_utf8_lossy(bytes))),
            Kind::Dir | Kind::Link(_) => None,
        });
        files.collect()
    }

    fn expect(&self, plain: &[&str], choosy: &[&str]) {
        let found = (self.files(PLAIN), self.files(CHOOSY));
        assert_eq!(
            (&found.0[..], &found.1[..]),
            (&owned(plain)[..], &owned(choosy)[..]),
            "restarts: {}",
            self.restarts
        );
    }

    /// Both hold this file and one conflict copy with this text.
    fn expect_copy(&self, winner: &str, copy: &str) {
        let found = self.files(PLAIN);
        assert_eq!(found, self.files(CHOOSY));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|file| file == winner), "{found:?}");
        assert!(
            found
                .iter()
                .any(|file| file.contains("(conflict") && file.ends_with(copy)),
            "{found:?}"
        );
    }

    /// Shares a file and has the second device ignore it from then on.
    fn share_then_ignore(&mut self) {
        self.write(PLAIN, "x", "one");
        self.rest_in_sync();
        self.expect(&["x=one"], &["x=one"]);
        self.ignore(&["x"]);
        self.rest_in_sync();
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_is_ignored_from_the_start_is_neither_published_nor_installed() {
    both_ways(|rig| {
        rig.ignore(&["x", "d"]);
        rig.write(PLAIN, "x", "theirs");
        rig.write(PLAIN, "d/y", "theirs");
        rig.write(CHOOSY, "d/z", "ours");
        rig.write(CHOOSY, "x", "ours");
        rig.write(CHOOSY, "kept", "both");
        rig.rest_in_sync();
        rig.expect(
            &["d/y=theirs", "kept=both", "x=theirs"],
            &["d/z=ours", "kept=both", "x=ours"],
        );
    });
}

#[test]
fn what_is_deleted_while_ignored_stays_elsewhere_and_comes_back() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.remove(CHOOSY, "x");
        rig.rest_in_sync();
        rig.expect(&["x=one"], &[]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["x=one"], &["x=one"]);
        rig.remove(CHOOSY, "x");
        rig.rest_in_sync();
        rig.expect(&[], &[]);
    });
}

#[test]
fn a_whole_directory_deleted_while_ignored_comes_back() {
    both_ways(|rig| {
        rig.write(PLAIN, "d/e/x", "one");
        rig.write(PLAIN, "d/y", "two");
        rig.rest_in_sync();
        rig.ignore(&["d"]);
        rig.rest_in_sync();
        rig.remove(CHOOSY, "d");
        rig.rest_in_sync();
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["d/e/x=one", "d/y=two"], &["d/e/x=one", "d/y=two"]);
    });
}

#[test]
fn a_version_that_was_never_installed_here_is_not_deleted_by_an_old_deletion() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.remove(CHOOSY, "x");
        rig.write(PLAIN, "x", "two");
        rig.rest_in_sync();
        rig.expect(&["x=two"], &[]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["x=two"], &["x=two"]);
    });
}

#[test]
fn an_edit_made_while_ignored_is_an_ordinary_edit_afterwards() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.write(CHOOSY, "x", "edited");
        rig.rest_in_sync();
        rig.expect(&["x=one"], &["x=edited"]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["x=edited"], &["x=edited"]);
    });
}

#[test]
fn edits_of_both_sides_leave_one_winner_and_one_copy() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.write(CHOOSY, "x", "ours");
        rig.write(PLAIN, "x", "theirs");
        rig.rest_in_sync();
        rig.expect(&["x=theirs"], &["x=ours"]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        let found = rig.files(PLAIN);
        assert_eq!(found, rig.files(CHOOSY));
        assert_eq!(found.len(), 2, "{found:?}");
        for text in ["=ours", "=theirs"] {
            assert!(found.iter().any(|file| file.ends_with(text)), "{found:?}");
        }
    });
}

#[test]
fn a_file_left_alone_is_brought_up_to_date() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.write(PLAIN, "x", "two");
        rig.rest_in_sync();
        rig.expect(&["x=two"], &["x=one"]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["x=two"], &["x=two"]);
    });
}

#[test]
fn a_file_that_was_never_the_groups_becomes_a_copy_beside_it() {
    both_ways(|rig| {
        rig.ignore(&["x"]);
        rig.write(PLAIN, "x", "theirs");
        rig.rest_in_sync();
        rig.write(CHOOSY, "x", "ours");
        rig.rest_in_sync();
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect_copy("x=theirs", "=ours");
    });
}

#[test]
fn an_equal_file_is_taken_for_the_groups() {
    both_ways(|rig| {
        rig.ignore(&["x"]);
        rig.write(PLAIN, "x", "same");
        rig.write(CHOOSY, "x", "same");
        rig.rest_in_sync();
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["x=same"], &["x=same"]);
        assert!(rig.world.devices[CHOOSY].disk.lstat(&path("x")).is_some());
    });
}

#[test]
fn a_deletion_elsewhere_takes_an_untouched_file_once_it_is_not_ignored() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.remove(PLAIN, "x");
        rig.rest_in_sync();
        rig.expect(&[], &["x=one"]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&[], &[]);
    });
}

#[test]
fn a_deletion_elsewhere_does_not_take_a_file_that_was_edited() {
    both_ways(|rig| {
        rig.share_then_ignore();
        rig.remove(PLAIN, "x");
        rig.write(CHOOSY, "x", "edited");
        rig.rest_in_sync();
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["x=edited"], &["x=edited"]);
    });
}

#[test]
fn a_directory_that_holds_an_ignored_file_stays_and_says_why() {
    both_ways(|rig| {
        rig.ignore(&["d/secret"]);
        rig.write(PLAIN, "d/x", "one");
        rig.rest_in_sync();
        rig.write(CHOOSY, "d/secret", "ours");
        rig.rest_in_sync();
        rig.remove(PLAIN, "d");
        rig.rest();
        rig.expect(&[], &["d/secret=ours"]);
        let stuck = rig.world.devices[CHOOSY].status().stuck;
        assert_eq!(
            stuck,
            [(
                path("d"),
                "the directory still holds d/secret, which is ignored here".to_owned()
            )]
        );
        rig.remove(CHOOSY, "d/secret");
        rig.rest_in_sync();
        assert!(rig.world.devices[CHOOSY].disk.lstat(&path("d")).is_none());
    });
}

#[test]
fn a_local_deletion_of_a_directory_does_not_reach_the_ignored_file_in_it() {
    both_ways(|rig| {
        rig.write(PLAIN, "d/x", "one");
        rig.write(PLAIN, "d/y", "two");
        rig.rest_in_sync();
        rig.ignore(&["d/y"]);
        rig.rest_in_sync();
        rig.remove(CHOOSY, "d");
        rig.rest_in_sync();
        rig.expect(&["d/y=two"], &[]);
        rig.ignore(&[]);
        rig.rest_in_sync();
        rig.expect(&["d/y=two"], &["d/y=two"]);
    });
}

#[test]
fn rules_that_change_faster_than_they_are_applied_end_with_the_last() {
    both_ways(|rig| {
        for number in 0..600 {
            rig.write(PLAIN, &format!("f{number:03}"), "one");
        }
        rig.rest_in_sync();
        rig.ignore(&["f000", "f599"]);
        // Long enough for the first portion.
        rig.world.pass(6).unwrap();
        rig.ignore(&["f599"]);
        rig.rest_in_sync();
        for name in ["f000", "f599"] {
            rig.remove(CHOOSY, name);
        }
        rig.rest_in_sync();
        let (plain, choosy) = (rig.files(PLAIN), rig.files(CHOOSY));
        assert_eq!((plain.len(), choosy.len()), (599, 598));
        assert!(plain.iter().any(|file| file == "f599=one"));
    });
}
