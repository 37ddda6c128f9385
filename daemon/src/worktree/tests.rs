use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use p2p_sync_core::engine::InstallAction;
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::tree::{Entry, Node};

use super::*;
use crate::root_dir::print_of;

const MTIME: i64 = 1_600_000_000_123_456_000;

struct Rig {
    dir: tempfile::TempDir,
    worktree: Option<Worktree>,
    modes: Modes,
}

fn rel(s: &str) -> RelPath {
    RelPath::parse(s).unwrap()
}

fn file_entry(bytes: &[u8]) -> Entry {
    let node = Node::File {
        content: ContentHash::of(bytes),
        size: bytes.len() as u64,
    };
    Entry {
        node,
        mode: 0o640,
        mtime_ns: MTIME,
    }
}

fn link_entry(target: &str) -> Entry {
    Entry {
        node: Node::Link {
            target: target.into(),
        },
        mode: 0o777,
        mtime_ns: MTIME,
    }
}

fn dir_entry() -> Entry {
    Entry {
        node: Node::Dir,
        mode: 0o750,
        mtime_ns: 0,
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(Modes::Full)
    }

    fn with(modes: Modes) -> Self {
        let mut rig = Self {
            dir: tempfile::tempdir().unwrap(),
            worktree: None,
            modes,
        };
        rig.start();
        rig
    }

    fn start(&mut self) {
        self.worktree = None;
        let journal = Arc::new(JournalService::new(self.dir.path()).unwrap());
        self.worktree = Some(Worktree::new(self.dir.path(), journal, self.modes).unwrap());
    }

    fn wt(&self) -> &Worktree {
        self.worktree.as_ref().unwrap()
    }

    fn path(&self, p: &str) -> PathBuf {
        self.dir.path().join(p)
    }

    fn fetch(&self, bytes: &[u8]) {
        let name = ContentHash::of(bytes).to_hex();
        fs::write(self.path(".p2p-sync/tmp").join(name), bytes).unwrap();
    }

    fn print(&self, p: &str) -> Option<Fingerprint> {
        self.wt().root.lstat(&rel(p)).unwrap().map(|s| print_of(&s))
    }

    fn read(&self, p: &str) -> String {
        fs::read_to_string(self.path(p)).unwrap()
    }

    fn put(&self, p: &str, entry: Entry) -> InstallJob {
        self.put_over(p, self.print(p), entry)
    }

    fn put_over(&self, p: &str, expect: Option<Fingerprint>, entry: Entry) -> InstallJob {
        InstallJob {
            path: rel(p),
            expect,
            action: InstallAction::Put { entry, keep: false },
        }
    }

    fn put_bytes(&self, p: &str, bytes: &str) -> InstallJob {
        self.fetch(bytes.as_bytes());
        self.put(p, file_entry(bytes.as_bytes()))
    }

    fn remove(&self, p: &str) -> InstallJob {
        InstallJob {
            path: rel(p),
            expect: self.print(p),
            action: InstallAction::Remove,
        }
    }

    fn move_job(&self, from: &str, to: &str, entry: Entry) -> InstallJob {
        let from_expect = self.print(from).unwrap();
        let action = InstallAction::Move {
            from: rel(from),
            from_expect,
            entry,
        };
        InstallJob {
            path: rel(to),
            expect: self.print(to),
            action,
        }
    }

    fn set_meta(&self, p: &str, entry: Entry) -> InstallJob {
        InstallJob {
            path: rel(p),
            expect: self.print(p),
            action: InstallAction::SetMeta { entry },
        }
    }

    fn install(&self, jobs: &[InstallJob]) -> Vec<InstallOutcome> {
        let batch = self.wt().install(jobs);
        for result in &batch.results {
            if let InstallOutcome::Done(print) = &result.outcome {
                assert_eq!(*print, self.print(&result.path.to_string()), "{}", result.path);
            }
        }
        self.wt().finish(batch.token).unwrap();
        batch.results.into_iter().map(|r| r.outcome).collect()
    }

    fn install_one(&self, job: InstallJob) -> InstallOutcome {
        self.install(&[job]).remove(0)
    }

    fn hook(&self, hook: impl FnMut(Step, &RelPath) + Send + 'static) {
        *self.wt().hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Lets a user do something once at a step.
    fn at(&self, step: Step, user: impl FnOnce() + Send + 'static) {
        let mut user = Some(user);
        self.hook(move |now, _| {
            if now == step
                && let Some(user) = user.take()
            {
                user();
            }
        });
    }

    /// All regular files outside tmp and the journal, by content.
    fn all_bytes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                let own = ["journal", "lock", "root-id", "index"]
                    .iter()
                    .any(|n| entry.file_name() == *n);
                if kind.is_dir() {
                    dirs.push(entry.path());
                } else if kind.is_file() && !own {
                    found.push(fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        found.sort();
        found
    }

    fn tmp_names(&self) -> usize {
        fs::read_dir(self.path(".p2p-sync/tmp")).unwrap().count()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|n| n != ".p2p-sync");
        names.sort();
        names
    }
}

/// What a program does when it saves: writes a new file and renames it over the old.
fn save(path: PathBuf, bytes: &'static str) -> impl FnOnce() + Send {
    move || {
        let new = path.with_extension("saving");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }
}

fn make(rig: &Rig, kind: &str) {
    match kind {
        "absent" => {}
        "file" => fs::write(rig.path("p"), "old").unwrap(),
        "link" => symlink("old", rig.path("p")).unwrap(),
        "dir" | "full" => {
            fs::create_dir(rig.path("p")).unwrap();
            if kind == "full" {
                fs::write(rig.path("p/child"), "c").unwrap();
            }
        }
        _ => unreachable!(),
    }
}

#[test]
fn every_kind_can_take_the_place_of_every_other() {
    for before in ["absent", "file", "link", "dir", "full"] {
        for after in ["absent", "file", "link", "dir"] {
            let rig = Rig::new();
            make(&rig, before);
            let outcome = rig.install_one(match after {
                "absent" => rig.remove("p"),
                "file" => rig.put_bytes("p", "new"),
                "link" => rig.put("p", link_entry("new")),
                _ => rig.put("p", dir_entry()),
            });
            let what = format!("{before} to {after}: {outcome:?}");
            if (before, after) == ("absent", "absent") {
                assert_eq!(outcome, InstallOutcome::Gone, "{what}");
                continue;
            }
            if before == "full" && after != "dir" {
                assert_eq!(outcome, InstallOutcome::NotEmpty(vec![rel("p/child")]), "{what}");
                assert_eq!(rig.read("p/child"), "c");
                continue;
            }
            assert!(matches!(outcome, InstallOutcome::Done(_)), "{what}");
            let meta = fs::symlink_metadata(rig.path("p"));
            match after {
                "absent" => assert!(meta.is_err(), "{what}"),
                "file" => {
                    assert_eq!(rig.read("p"), "new", "{what}");
                    let meta = meta.unwrap();
                    assert_eq!(meta.mode() & 0o777, 0o640);
                    assert_eq!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), MTIME);
                }
                "link" => assert_eq!(
                    fs::read_link(rig.path("p")).unwrap(),
                    PathBuf::from("new"),
                    "{what}"
                ),
                _ => assert_eq!(meta.unwrap().mode() & 0o777, 0o750, "{what}"),
            }
            if before == "file" {
                assert!(rig.all_bytes().contains(&"old".to_owned()), "{what}");
            }
            assert_eq!(rig.tmp_names(), 0, "{what}");
        }
    }
}

#[test]
fn what_is_not_expected_is_left_alone() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let put = rig.put_bytes("p", "new");
    let remove = rig.remove("p");
    let meta = rig.set_meta("p", file_entry(b"old"));
    let moved = rig.move_job("p", "q", file_entry(b"old"));
    let unexpected = rig.put_over("p", None, file_entry(b"new"));
    fs::write(rig.path("p"), "edit").unwrap();
    for job in [put, remove, meta, moved, unexpected] {
        assert_eq!(rig.install_one(job), InstallOutcome::Changed);
        assert_eq!(rig.read("p"), "edit");
    }
    // The verified content can be installed still.
    let again = rig.put("p", file_entry(b"new"));
    assert!(matches!(rig.install_one(again), InstallOutcome::Done(_)));
    assert_eq!(rig.names(), ["p"]);
}

#[test]
fn jobs_may_build_on_each_other() {
    let rig = Rig::new();
    fs::create_dir(rig.path("old")).unwrap();
    fs::write(rig.path("old/f"), "f").unwrap();
    rig.fetch(b"x");
    let outcomes = rig.install(&[
        rig.put("d", dir_entry()),
        InstallJob {
            path: rel("d/a"),
            expect: None,
            action: InstallAction::Put {
                entry: file_entry(b"x"),
                keep: true,
            },
        },
        rig.put("d/deep/er/b", file_entry(b"x")),
        rig.put("d/empty", file_entry(b"")),
        rig.remove("old/f"),
        rig.remove("old"),
        rig.put("missing", file_entry(b"never fetched")),
    ]);
    let done = outcomes
        .iter()
        .filter(|o| matches!(o, InstallOutcome::Done(_)))
        .count();
    assert_eq!(
        (done, &outcomes[6]),
        (6, &InstallOutcome::ContentMissing),
        "{outcomes:?}"
    );
    assert_eq!(
        (rig.read("d/a"), rig.read("d/deep/er/b")),
        ("x".into(), "x".into())
    );
    assert_eq!(rig.names(), ["d"]);
}

#[test]
fn many_jobs_are_done_in_groups() {
    let rig = Rig::new();
    let jobs: Vec<_> = (0..GROUP_MAX + 40)
        .map(|i| rig.put_bytes(&format!("d{}/f{i}", i % 90), &format!("x{i}")))
        .collect();
    let outcomes = rig.install(&jobs);
    assert!(
        outcomes
            .iter()
            .all(|o| matches!(o, InstallOutcome::Done(Some(_))))
    );
    assert_eq!(rig.read("d7/f7"), "x7");
}

#[test]
fn a_save_in_the_instant_of_the_exchange_wins() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let job = rig.put_bytes("p", "new");
    rig.at(Step::Checked, save(rig.path("p"), "save"));
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    assert_eq!(rig.read("p"), "save");
    assert_eq!(rig.names(), ["p"]);
    // The content was seen by the folder, so it does not go back among the verified ones.
    assert_eq!(rig.tmp_names(), 0);
}

#[test]
fn a_change_of_mode_leaves_alone_what_was_saved_in_that_instant() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let job = rig.set_meta("p", file_entry(b"old"));
    rig.at(Step::Checked, save(rig.path("p"), "user"));
    let before = SystemTime::now() - Duration::from_secs(60);
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    assert_eq!(rig.read("p"), "user");
    assert!(fs::metadata(rig.path("p")).unwrap().modified().unwrap() > before);
}

#[test]
fn a_mode_that_was_set_after_a_crash_in_a_move_or_a_change_of_mode_stays() {
    quiet_panics();
    for is_move in [false, true] {
        let mut rig = Rig::new();
        fs::write(rig.path("p"), "p").unwrap();
        let job = if is_move {
            rig.move_job("p", "to", file_entry(b"p"))
        } else {
            rig.set_meta("p", file_entry(b"p"))
        };
        let to = rig.path(if is_move { "to" } else { "p" });
        rig.hook(|step, _| assert!(step != Step::Changed, "killed"));
        let jobs = [job];
        std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&jobs))).unwrap_err();
        fs::set_permissions(&to, PermissionsExt::from_mode(0o604)).unwrap();
        rig.start();
        let recovery = rig.wt().recover().unwrap();
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o604, "{recovery:?}");
        let now = rig.print(if is_move { "to" } else { "p" });
        for (_, print) in recovery
            .installs
            .iter()
            .filter_map(|install| install.now.as_ref())
        {
            assert!(Some(*print) != now, "{recovery:?}");
        }
        settle(&mut rig, recovery);
    }
}

#[test]
fn two_saves_around_the_exchange_are_both_kept() {
    let rig = Rig::new();
    fs::write(rig.path("p.txt"), "old").unwrap();
    let job = rig.put_bytes("p.txt", "new");
    let path = rig.path("p.txt");
    rig.hook(move |step, _| match step {
        Step::Checked => save(path.clone(), "first save")(),
        Step::PutBack => save(path.clone(), "second save")(),
        _ => {}
    });
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    let names = rig.names();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names[0].starts_with("p (displaced ") && names[0].ends_with(").txt"),
        "{names:?}"
    );
    let bytes = rig.all_bytes();
    assert!(
        bytes.contains(&"first save".into()) && bytes.contains(&"second save".into()),
        "{bytes:?}"
    );
}

#[test]
fn a_save_that_is_removed_again_comes_back() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let job = rig.put_bytes("p", "new");
    let path = rig.path("p");
    rig.hook(move |step, _| match step {
        Step::Checked => save(path.clone(), "save")(),
        Step::PutBack => fs::remove_file(&path).unwrap(),
        _ => {}
    });
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    assert_eq!(rig.read("p"), "save");
}

#[test]
fn a_file_that_appears_is_never_replaced() {
    let rig = Rig::new();
    fs::write(rig.path("from"), "moved").unwrap();
    let jobs = [
        rig.put_bytes("p", "new"),
        rig.put("p", link_entry("new")),
        rig.put("p", dir_entry()),
        rig.move_job("from", "p", file_entry(b"moved")),
    ];
    for job in jobs {
        let _ = fs::remove_file(rig.path("p"));
        rig.at(Step::Checked, save(rig.path("p"), "save"));
        assert_eq!(rig.install_one(job), InstallOutcome::Changed);
        assert_eq!(rig.read("p"), "save");
    }
    assert_eq!(rig.read("from"), "moved");
}

#[test]
fn a_removal_gives_back_what_was_saved_in_that_instant() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let job = rig.remove("p");
    rig.at(Step::Checked, save(rig.path("p"), "save"));
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    assert_eq!(rig.read("p"), "save");

    let job = rig.remove("p");
    let path = rig.path("p");
    rig.hook(move |step, _| match step {
        Step::Checked => save(path.clone(), "one")(),
        Step::PutBack => fs::write(&path, "two").unwrap(),
        _ => {}
    });
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    let bytes = rig.all_bytes();
    assert!(
        bytes.contains(&"one".into()) && bytes.contains(&"two".into()),
        "{bytes:?}"
    );
}

#[test]
fn a_directory_that_gets_a_child_stays() {
    let rig = Rig::new();
    fs::create_dir(rig.path("p")).unwrap();
    for job in [
        rig.put_bytes("p", "new"),
        rig.remove("p"),
        rig.put("p", link_entry("x")),
    ] {
        let child = rig.path("p/child");
        rig.at(Step::Checked, move || fs::write(child, "c").unwrap());
        let held = InstallOutcome::NotEmpty(vec![rel("p/child")]);
        assert_eq!(rig.install_one(job), held);
        assert_eq!(rig.read("p/child"), "c");
        fs::remove_file(rig.path("p/child")).unwrap();
    }
}

#[test]
fn a_parent_that_became_a_link_is_not_followed() {
    let rig = Rig::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "theirs").unwrap();
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/f"), "f").unwrap();
    let jobs = [
        rig.put_bytes("d/f", "new"),
        rig.put_bytes("d/g", "g"),
        rig.set_meta("d/f", file_entry(b"f")),
    ];
    let remove = rig.remove("d/f");
    fs::remove_dir_all(rig.path("d")).unwrap();
    symlink(outside.path(), rig.path("d")).unwrap();
    for job in jobs {
        assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    }
    assert_eq!(rig.install_one(remove), InstallOutcome::Gone);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("f")).unwrap(), "theirs");
}

#[test]
fn files_move_and_take_their_mode_and_time() {
    let rig = Rig::new();
    fs::write(rig.path("a"), "a").unwrap();
    fs::write(rig.path("b"), "b").unwrap();
    let outcome = rig.install_one(rig.move_job("a", "deep/c", file_entry(b"a")));
    assert!(
        matches!(outcome, InstallOutcome::Done(Some(p)) if p.mtime_ns == MTIME && p.mode & 0o777 == 0o640)
    );
    let outcome = rig.install_one(rig.move_job("deep/c", "b", file_entry(b"a")));
    assert!(matches!(outcome, InstallOutcome::Done(Some(_))), "{outcome:?}");
    assert_eq!(rig.read("b"), "a");
    assert!(rig.all_bytes().contains(&"b".into()));
    let job = rig.move_job("b", "d", file_entry(b"a"));
    rig.at(Step::Checked, save(rig.path("b"), "save"));
    assert_eq!(rig.install_one(job), InstallOutcome::Changed);
    assert_eq!(rig.read("b"), "save");
}

#[test]
fn a_move_whose_mode_or_time_the_disk_refuses_did_not_happen() {
    for over in [None, Some("there")] {
        let mut rig = Rig::new();
        rig.install_one(rig.put_bytes("from", "bytes"));
        over.into_iter()
            .for_each(|old| fs::write(rig.path("to"), old).unwrap());
        rig.worktree.as_mut().unwrap().refuses_meta = true;
        let outcome = rig.install_one(rig.move_job("from", "to", file_entry(b"bytes")));
        assert!(matches!(outcome, InstallOutcome::Failed(_)), "{outcome:?}");
        assert_eq!(rig.read("from"), "bytes");
        assert_eq!(fs::read_to_string(rig.path("to")).ok().as_deref(), over);
    }
}

#[test]
fn what_was_taken_back_from_a_path_and_kept_is_nobodys_edit_after_a_crash() {
    let mut rig = Rig::new();
    rig.install_one(InstallJob {
        path: rel("p"),
        expect: None,
        action: InstallAction::Put {
            entry: dir_entry(),
            keep: false,
        },
    });
    fs::write(rig.path("p/child"), "user").unwrap();
    let outcome = rig.install_one(rig.put_bytes("p", "new"));
    assert!(matches!(outcome, InstallOutcome::NotEmpty(_)), "{outcome:?}");
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    assert_eq!(recovery.displaced, []);
    assert_eq!(rig.read("p/child"), "user");
}

#[test]
fn a_mode_that_a_user_gives_a_directory_just_put_over_a_file_is_not_the_installed_one() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let path = rig.path("p");
    rig.at(Step::Changed, move || {
        fs::set_permissions(&path, PermissionsExt::from_mode(0o711)).unwrap();
    });
    let batch = rig.wt().install(&[rig.put("p", dir_entry())]);
    let InstallOutcome::Done(Some(told)) = batch.results[0].outcome else {
        panic!("{:?}", batch.results);
    };
    // The scanner sees the difference.
    assert_eq!(told.mode & 0o777, 0o750);
    assert_eq!(rig.print("p").unwrap().mode & 0o777, 0o711);
}

#[test]
fn modes_are_given_as_the_folder_wants_them() {
    let rig = Rig::with(Modes::Exec);
    let mut exec = file_entry(b"x");
    exec.mode = 0o755;
    rig.fetch(b"x");
    rig.install(&[
        rig.put("d/x", exec.clone()),
        rig.put("d/y", file_entry(b"")),
        rig.put("e", dir_entry()),
    ]);
    let mode = |p: &str| fs::metadata(rig.path(p)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("d/x"), mode("d/y"), mode("d"), mode("e")),
        (0o770, 0o660, 0o2770, 0o2770)
    );
    exec.mode = 0o644;
    rig.install_one(rig.set_meta("d/x", exec));
    assert_eq!(mode("d/x"), 0o660);

    let rig = Rig::new();
    let mut closed = dir_entry();
    closed.mode = 0o055;
    rig.install_one(rig.put("d", closed));
    assert_eq!(fs::metadata(rig.path("d")).unwrap().mode() & 0o777, 0o755);
    fs::set_permissions(rig.path("d"), fs::Permissions::from_mode(0o555)).unwrap();
    assert!(matches!(
        rig.install_one(rig.put_bytes("d/f", "f")),
        InstallOutcome::Done(_)
    ));
    assert_eq!(fs::metadata(rig.path("d")).unwrap().mode() & 0o777, 0o555);
    let mut link = link_entry("x");
    rig.install_one(rig.put("l", link.clone()));
    link.mtime_ns = -1_500_000_000;
    let outcome = rig.install_one(rig.set_meta("l", link));
    assert!(matches!(outcome, InstallOutcome::Done(Some(p)) if p.mtime_ns == -1_500_000_000));
}

#[test]
fn the_longest_paths_can_be_installed_and_removed() {
    let rig = Rig::new();
    let mut name = vec![b'n'; 255];
    let mut path = RelPath::parse(name.clone()).unwrap();
    name[0] = b'm';
    while let Ok(longer) = path.join(&name) {
        path = longer;
    }
    rig.fetch(b"x");
    let action = InstallAction::Put {
        entry: file_entry(b"x"),
        keep: false,
    };
    let batch = rig.wt().install(&[InstallJob {
        path: path.clone(),
        expect: None,
        action,
    }]);
    let InstallOutcome::Done(Some(print)) = batch.results[0].outcome else {
        panic!("{batch:?}")
    };
    rig.wt().finish(batch.token).unwrap();
    let remove = InstallJob {
        path: path.clone(),
        expect: Some(print),
        action: InstallAction::Remove,
    };
    let batch = rig.wt().install(&[remove]);
    assert_eq!(batch.results[0].outcome, InstallOutcome::Done(None));
    rig.wt().finish(batch.token).unwrap();
    assert!(rig.wt().root.lstat(&path).unwrap().is_none());
}

#[test]
fn the_daemons_own_files_are_no_place_for_installs() {
    let rig = Rig::new();
    for own in [
        ".p2p-sync",
        ".p2p-sync/journal",
        ".p2p-sync/tmp/x",
        ".p2p-sync/conflicts",
    ] {
        assert!(
            matches!(
                rig.install_one(rig.put(own, file_entry(b""))),
                InstallOutcome::Failed(_)
            ),
            "{own}"
        );
    }
    let outcome = rig.install_one(rig.put_bytes(".p2p-sync/conflicts/.git/config", "c"));
    assert!(matches!(outcome, InstallOutcome::Done(_)), "{outcome:?}");
}

#[test]
fn a_folder_that_was_replaced_is_not_touched() {
    let rig = Rig::new();
    let job = rig.put_bytes("p", "new");
    let moved = rig.dir.path().with_extension("moved");
    fs::rename(rig.dir.path(), &moved).unwrap();
    fs::create_dir(rig.dir.path()).unwrap();
    assert!(matches!(rig.install_one(job), InstallOutcome::Failed(_)));
    assert!(!moved.join("p").exists());
    fs::remove_dir_all(moved).unwrap();
}

#[test]
fn what_is_written_to_another_name_of_a_replaced_file_is_no_edit_of_it() {
    let rig = Rig::new();
    fs::write(rig.path("one"), "shared").unwrap();
    fs::hard_link(rig.path("one"), rig.path("two")).unwrap();
    rig.install(&[rig.put_bytes("one", "new")]);
    fs::write(rig.path("two"), "written by its other name").unwrap();
    let later = Instant::now() + Duration::from_secs(3);
    assert_eq!(rig.wt().check_displaced(later).unwrap(), []);
    assert_eq!(
        (rig.read("one"), rig.read("two")),
        ("new".to_owned(), "written by its other name".to_owned())
    );
}

#[test]
fn what_a_program_still_writes_to_a_replaced_file_is_not_lost() {
    let rig = Rig::new();
    for p in ["log.txt", "quiet"] {
        fs::write(rig.path(p), "line 1\n").unwrap();
    }
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(rig.path("log.txt"))
        .unwrap();
    rig.install(&[rig.put_bytes("log.txt", "new"), rig.put_bytes("quiet", "other")]);
    assert_eq!(rig.wt().check_displaced(Instant::now()).unwrap(), []);
    log.write_all(b"line 2\n").unwrap();
    let found = rig
        .wt()
        .check_displaced(Instant::now() + Duration::from_secs(3))
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, rel("log.txt"));
    assert_eq!(rig.read(&found[0].kept_at.to_string()), "line 1\nline 2\n");
    assert_eq!(rig.read("log.txt"), "new");
    log.write_all(b"line 3\n").unwrap();
    assert_eq!(
        rig.read(&found[0].kept_at.to_string()),
        "line 1\nline 2\nline 3\n"
    );
}

#[test]
fn a_hidden_copy_that_a_former_state_left_gives_way_and_is_kept() {
    let rig = Rig::new();
    let hidden = ".p2p-sync/conflicts/copy";
    fs::write(rig.path(hidden), "left behind").unwrap();
    let job = rig.put_over(hidden, None, file_entry(b"the copy"));
    rig.fetch(b"the copy");
    let batch = rig.wt().install(&[job]);
    assert!(
        matches!(batch.results[0].outcome, InstallOutcome::Done(_)),
        "{:?}",
        batch.results
    );
    assert_eq!(rig.read(hidden), "the copy");
    let kept = batch.token.entries[0].tx.to_hex() + "-copy";
    rig.wt().finish(batch.token).unwrap();
    let day = rig
        .path(".p2p-sync/versions")
        .join(slots::day_name(SystemTime::now()));
    assert_eq!(fs::read_to_string(day.join(kept)).unwrap(), "left behind");
}

#[test]
fn a_job_that_the_disk_refuses_stops_no_other_of_its_group() {
    let rig = Rig::new();
    fs::write(rig.path("in the way"), "a file").unwrap();
    let mut jobs: Vec<_> = (0..40)
        .map(|n| rig.put_bytes(&format!("good/{n}"), &format!("bytes {n}")))
        .collect();
    // The system refuses a link with so long a text.
    jobs.insert(0, rig.put_over("link", None, link_entry(&"t".repeat(5000))));
    for (at, bad) in [(20, "in the way/below"), (30, "gone")] {
        let entry = file_entry(format!("lost {bad}").as_bytes());
        if bad != "gone" {
            rig.fetch(format!("lost {bad}").as_bytes());
        }
        jobs.insert(at, rig.put_over(bad, None, entry));
    }
    let batch = rig.wt().install(&jobs);
    let bad: Vec<_> = batch
        .results
        .iter()
        .filter(|result| !matches!(result.outcome, InstallOutcome::Done(_)))
        .map(|result| &result.outcome)
        .collect();
    assert!(
        matches!(
            bad[..],
            [
                InstallOutcome::Failed(_),
                InstallOutcome::Changed,
                InstallOutcome::ContentMissing
            ]
        ),
        "{bad:?}"
    );
    for n in 0..40 {
        assert_eq!(rig.read(&format!("good/{n}")), format!("bytes {n}"));
    }
    rig.wt().finish(batch.token).unwrap();
}

#[test]
fn no_room_in_the_journal_fails_the_group_and_the_next_try_succeeds() {
    let rig = Rig::new();
    let jobs = [rig.put_bytes("a", "first"), rig.put_bytes("b", "second")];
    rig.wt().journal.fail_next("write", rustix::io::Errno::NOSPC);
    let batch = rig.wt().install(&jobs);
    for result in &batch.results {
        let InstallOutcome::Failed(why) = &result.outcome else {
            panic!("{result:?}")
        };
        assert!(why.contains("No space left"), "{why}");
    }
    assert!(!rig.wt().journal_failed() && !rig.path("a").exists());
    let batch = rig.wt().install(&jobs);
    assert!(
        batch
            .results
            .iter()
            .all(|result| matches!(result.outcome, InstallOutcome::Done(_)))
    );
    assert_eq!((rig.read("a"), rig.read("b")), ("first".into(), "second".into()));
    rig.wt().finish(batch.token).unwrap();
}

#[test]
fn an_old_version_that_cannot_be_kept_stops_no_other() {
    let rig = Rig::new();
    for name in ["a", "b"] {
        fs::write(rig.path(name), "old").unwrap();
    }
    let batch = rig.wt().install(&[
        rig.put_bytes("a", "new a"),
        rig.put_bytes("b", "new b"),
        rig.put_bytes("c", "new c"),
    ]);
    let first = batch.token.entries[0].tx;
    let slot = rig.path(".p2p-sync/tmp").join(first.slot());
    let day = rig
        .path(".p2p-sync/versions")
        .join(slots::day_name(SystemTime::now()));
    fs::create_dir_all(day.join(format!("{}-a/in the way", first.to_hex()))).unwrap();
    assert!(rig.wt().finish(batch.token).is_err());
    assert!(slot.exists(), "the old bytes are there for recovery");
    assert_eq!(
        rig.wt().journal.summary().open_installs,
        2,
        "b is watched, a is open"
    );
    assert_eq!(kept_bytes(&rig, "b"), ["old"]);
    let in_3_s = Instant::now() + Duration::from_secs(3);
    assert_eq!(rig.wt().check_displaced(in_3_s).unwrap(), []);
    assert_eq!(rig.wt().journal.summary().open_installs, 1, "b was looked at");
    let index = || fs::metadata(day.join("index")).unwrap().len();
    let noted = index();
    assert!(rig.wt().finish_late(in_3_s).is_err());
    assert_eq!(index(), noted, "a has its record");
    fs::remove_dir_all(day.join(format!("{}-a", first.to_hex()))).unwrap();
    rig.wt().finish_late(in_3_s + Duration::from_secs(2)).unwrap();
    assert!(!slot.exists());
    assert_eq!(kept_bytes(&rig, "a"), ["old"]);
}

/// Puts a file where the versions of today (and tomorrow, should that be when it is asked) are to lie, and what is there
/// aside; returns what takes it back.
fn occupy_versions(rig: &Rig) -> impl FnOnce() + use<> {
    let now = SystemTime::now();
    let days = [now, now + Duration::from_secs(24 * 3600)]
        .map(|day| rig.path(".p2p-sync/versions").join(slots::day_name(day)));
    for day in &days {
        let _ = fs::rename(day, day.with_extension("aside"));
        fs::write(day, "in the way").unwrap();
    }
    move || {
        for day in days {
            fs::remove_file(&day).unwrap();
            let _ = fs::rename(day.with_extension("aside"), day);
        }
    }
}

#[test]
fn old_versions_that_could_not_be_kept_for_a_while_are_kept_without_a_restart() {
    let mut rig = Rig::new();
    fs::write(rig.path("log"), "1").unwrap();
    fs::write(rig.path("gone"), "2").unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(rig.path("log")).unwrap();
    let batch = rig.wt().install(&[
        rig.put_bytes("log", "new"),
        rig.remove("gone"),
        rig.put_bytes("c", "c"),
    ]);
    let make_free = occupy_versions(&rig);
    assert!(rig.wt().finish(batch.token).is_err());
    let (tmp, journal) = (rig.tmp_names(), rig.wt().journal.summary());
    let mut now = Instant::now();
    rig.wt().finish_late(now).unwrap();
    let mut tries = 0;
    for _ in 0..600 {
        now += Duration::from_secs(1);
        tries += usize::from(rig.wt().finish_late(now).is_err());
    }
    assert!((10..20).contains(&tries), "{tries} tries in ten minutes");
    assert_eq!(rig.tmp_names(), tmp);
    assert_eq!(rig.wt().journal.summary(), journal, "it grows with no try");
    make_free();
    log.write_all(b"+").unwrap();
    now += Duration::from_secs(61);
    rig.wt().finish_late(now).unwrap();
    assert_eq!(rig.tmp_names(), tmp - 2);
    assert_eq!(kept_bytes(&rig, "gone"), ["2"]);
    let displaced = rig.wt().check_displaced(now + Duration::from_secs(3)).unwrap();
    assert_eq!(rig.read(&displaced[0].kept_at.to_string()), "1+");
    assert_eq!(rig.wt().journal.summary().open_installs, 0);
    rig.start();
    assert!(rig.wt().recover().unwrap().installs.is_empty());
}

#[test]
fn a_journal_without_room_has_the_end_of_installs_tried_again() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let batch = rig
        .wt()
        .install(&[rig.put_bytes("p", "new"), rig.put_bytes("q", "q")]);
    let tmp = rig.tmp_names();
    rig.wt().journal.fail_next("write", rustix::io::Errno::NOSPC);
    assert!(rig.wt().finish(batch.token).is_err());
    let later = Instant::now() + Duration::from_secs(3);
    rig.wt().finish_late(later).unwrap();
    assert_eq!(rig.tmp_names(), tmp - 1);
    assert_eq!(kept_bytes(&rig, "p"), ["old"]);
    assert_eq!(rig.wt().journal.summary().open_installs, 1, "p is watched");
}

#[test]
fn a_killed_daemon_keeps_at_its_start_what_it_would_have_tried_again() {
    let mut rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let batch = rig.wt().install(&[rig.put_bytes("p", "new")]);
    let make_free = occupy_versions(&rig);
    assert!(rig.wt().finish(batch.token).is_err());
    make_free();
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    settle(&mut rig, recovery);
    assert!(rig.all_bytes().contains(&"old".to_owned()));
    assert_eq!(kept_bytes(&rig, "p"), ["old"]);
}

#[test]
fn a_replaced_file_that_could_not_be_looked_at_is_looked_at_again() {
    let rig = Rig::new();
    fs::write(rig.path("log"), "1").unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(rig.path("log")).unwrap();
    rig.install(&[rig.put_bytes("log", "new")]);
    log.write_all(b"2").unwrap();
    let make_free = occupy_versions(&rig);
    let now = Instant::now() + Duration::from_secs(3);
    assert_eq!(rig.wt().check_displaced(now).unwrap(), []);
    make_free();
    let now = now + Duration::from_secs(61);
    let displaced = rig.wt().check_displaced(now).unwrap();
    assert_eq!(displaced.len(), 1);
    assert_eq!(rig.read(&displaced[0].kept_at.to_string()), "12");
    assert_eq!(rig.wt().journal.summary().open_installs, 0);
}

#[test]
fn old_versions_go_after_thirty_days_and_temporary_files_when_nobody_wants_them() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    rig.install_one(rig.put_bytes("p", "new"));
    let now = SystemTime::now();
    rig.wt().kept().purge(&Retention::default(), now).unwrap();
    assert!(rig.all_bytes().contains(&"old".into()));
    let later = now + Duration::from_secs(32 * 24 * 3600);
    for day in [6, 12, 18, 24, 30] {
        let seen = now + Duration::from_secs(day * 24 * 3600);
        rig.wt().kept().purge(&Retention::default(), seen).unwrap();
    }
    rig.wt().kept().purge(&Retention::default(), later).unwrap();
    assert!(rig.all_bytes().contains(&"old".into()), "it is watched still");
    for hours in [1, 2, 4, 30, 60] {
        let at = Instant::now() + Duration::from_secs(hours * 3600);
        rig.wt().check_displaced(at).unwrap();
    }
    rig.wt().kept().purge(&Retention::default(), later).unwrap();
    assert!(!rig.all_bytes().contains(&"old".into()));
    rig.fetch(b"wanted");
    rig.fetch(b"unwanted");
    fs::write(rig.path(".p2p-sync/tmp/i-00000000000000aa"), "slot").unwrap();
    let wanted = ContentHash::of(b"wanted").to_hex();
    rig.wt().sweep_tmp(|name| name == wanted).unwrap();
    assert_eq!(rig.tmp_names(), 1);
}

/// Kills the daemon at a step of an install, starts it again and recovers. Returns what recovery reported.
fn crash(rig: &mut Rig, jobs: &[InstallJob], at: Step) -> Recovery {
    rig.hook(move |step, _| assert!(step != at, "killed"));
    let killed = std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(jobs)));
    assert!(killed.is_err(), "{at:?} is not reached");
    rig.start();
    rig.wt().recover().unwrap()
}

#[test]
fn an_install_that_the_journal_could_not_note_is_not_taken_for_done_and_deleted_since() {
    let mut rig = Rig::new();
    rig.wt().journal.fail_next("sync", rustix::io::Errno::IO);
    let outcome = rig.wt().install(&[rig.put_bytes("f", "new")]).results[0]
        .outcome
        .clone();
    assert!(matches!(outcome, InstallOutcome::Failed(_)), "{outcome:?}");
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    // The intent could be read all the same, so it was done now.
    assert_eq!(recovery.installs.len(), 1);
    assert_eq!(rig.read("f"), "new");
    settle(&mut rig, recovery);
}

fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("killed") {
            eprintln!("{info}");
        }
    }));
}

fn settle(rig: &mut Rig, recovery: Recovery) {
    rig.wt().finish(recovery.token).unwrap();
    rig.wt()
        .check_displaced(Instant::now() + Duration::from_secs(3))
        .unwrap();
    rig.wt().sweep_tmp(|_| false).unwrap();
    assert_eq!(rig.tmp_names(), 0);
    rig.start();
    assert_eq!(rig.wt().journal.open_installs(), []);
}

const CRASHES: [Step; 5] = [
    Step::Staged,
    Step::Logged,
    Step::Checked,
    Step::Changed,
    Step::Synced,
];

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_and_says_which() {
    quiet_panics();
    for at in CRASHES {
        for before in ["absent", "file", "link", "dir"] {
            for after in ["absent", "file", "link", "dir"] {
                if (before == "absent" || before == "dir") && after == "absent" && at == Step::Checked {
                    continue;
                }
                let mut rig = Rig::new();
                make(&rig, before);
                let old = rig.print("p");
                let job = match after {
                    "absent" => rig.remove("p"),
                    "file" => rig.put_bytes("p", "new"),
                    "link" => rig.put("p", link_entry("new")),
                    _ => rig.put("p", dir_entry()),
                };
                let recovery = crash(&mut rig, &[job], at);
                let what = format!("{before} to {after} at {at:?}: {recovery:?}");
                let now = rig.print("p");
                if let [install] = &recovery.installs[..] {
                    assert_eq!(install.path, rel("p"), "{what}");
                    assert_eq!(install.now.as_ref().map(|(_, print)| *print), now, "{what}");
                    assert!(at != Step::Staged, "{what}");
                    match after {
                        "absent" => assert_eq!(now, None, "{what}"),
                        "file" => assert_eq!(rig.read("p"), "new", "{what}"),
                        "link" => assert!(fs::read_link(rig.path("p")).unwrap().ends_with("new"), "{what}"),
                        _ => assert!(rig.path("p").is_dir(), "{what}"),
                    }
                } else {
                    assert!(recovery.installs.is_empty(), "{what}");
                    assert_eq!(now, old, "{what}");
                    assert!(!matches!(at, Step::Changed | Step::Synced), "{what}");
                }
                assert!(recovery.displaced.is_empty(), "{what}");
                settle(&mut rig, recovery);
                if before == "file" {
                    assert!(
                        rig.all_bytes().contains(&"old".into()),
                        "{before} to {after} at {at:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_crash_during_a_move_or_a_change_of_mode_is_finished_or_undone() {
    quiet_panics();
    for at in CRASHES {
        for replace in [false, true] {
            let mut rig = Rig::new();
            fs::write(rig.path("from"), "moved").unwrap();
            if replace {
                fs::write(rig.path("to"), "old").unwrap();
            }
            let job = rig.move_job("from", "to", file_entry(b"moved"));
            let recovery = crash(&mut rig, &[job], at);
            let what = format!("{replace} at {at:?}: {recovery:?}");
            if let [from, to] = &recovery.installs[..] {
                assert_eq!((&from.path, &from.now), (&rel("from"), &None), "{what}");
                assert_eq!(to.now.as_ref().map(|(_, p)| *p), rig.print("to"), "{what}");
                assert_eq!(
                    (rig.print("from"), rig.read("to")),
                    (None, "moved".into()),
                    "{what}"
                );
                assert_eq!(rig.print("to").unwrap().mtime_ns, MTIME, "{what}");
            } else {
                assert!(recovery.installs.is_empty(), "{what}");
                assert_eq!(rig.read("from"), "moved", "{what}");
                assert_eq!(rig.path("to").exists(), replace, "{what}");
            }
            settle(&mut rig, recovery);
            assert_eq!(rig.all_bytes().contains(&"old".into()), replace, "at {at:?}");
        }
        let mut rig = Rig::new();
        fs::write(rig.path("p"), "p").unwrap();
        let job = rig.set_meta("p", file_entry(b"p"));
        let recovery = crash(&mut rig, &[job], at);
        assert_eq!(recovery.installs.len(), usize::from(at != Step::Staged), "{at:?}");
        settle(&mut rig, recovery);
        assert_eq!(rig.read("p"), "p");
    }
}

#[test]
fn a_users_work_between_crash_and_recovery_is_kept() {
    quiet_panics();
    type User = fn(PathBuf);
    let edits: [(&str, User); 5] = [
        ("save", |p| save(p, "user")()),
        ("in place", |p| fs::write(p, "user").unwrap()),
        ("remove", |p| fs::remove_file(p).unwrap_or_default()),
        ("chmod", |p| {
            fs::set_permissions(p, PermissionsExt::from_mode(0o604)).unwrap_or_default();
        }),
        ("mkdir", |p| {
            let _ = fs::remove_file(&p);
            fs::create_dir(p).unwrap();
        }),
    ];
    for at in CRASHES {
        for before in ["absent", "file"] {
            for remove in [false, true] {
                for (edit, user) in edits {
                    if before == "absent" && (matches!(edit, "remove" | "chmod") || remove) {
                        continue;
                    }
                    let mut rig = Rig::new();
                    make(&rig, before);
                    let job = if remove {
                        rig.remove("p")
                    } else {
                        rig.put_bytes("p", "new")
                    };
                    rig.hook(move |step, _| assert!(step != at, "killed"));
                    let jobs = [job];
                    std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&jobs))).unwrap_err();
                    user(rig.path("p"));
                    rig.start();
                    let recovery = rig.wt().recover().unwrap();
                    let what = format!("{before}, remove {remove}, at {at:?}, {edit}: {recovery:?}");
                    let now = rig.print("p");
                    for install in &recovery.installs {
                        // Whatever is reported as installed, the scanner must see the user's change on top of it.
                        let print = install.now.as_ref().map(|(_, print)| *print);
                        let gone = now.is_none() && (edit == "remove" || edit == "chmod");
                        assert!(print != now || gone, "{what}");
                    }
                    match edit {
                        "save" | "in place" => {
                            assert_eq!(rig.read("p"), "user", "{what}");
                        }
                        "remove" => assert!(now.is_none(), "{what}"),
                        "chmod" => assert!(now.is_none_or(|now| now.mode & 0o777 == 0o604), "{what}"),
                        _ => assert!(rig.path("p").is_dir(), "{what}"),
                    }
                    settle(&mut rig, recovery);
                }
            }
        }
    }
}

#[test]
fn a_crash_between_exchange_and_put_back_keeps_the_users_save() {
    quiet_panics();
    for second in [false, true] {
        let mut rig = Rig::new();
        fs::write(rig.path("p"), "old").unwrap();
        let job = rig.put_bytes("p", "new");
        let path = rig.path("p");
        rig.hook(move |step, _| match step {
            Step::Checked => save(path.clone(), "save")(),
            Step::PutBack => {
                if second {
                    save(path.clone(), "second")();
                }
                panic!("killed");
            }
            _ => {}
        });
        let jobs = [job];
        std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&jobs))).unwrap_err();
        rig.start();
        let recovery = rig.wt().recover().unwrap();
        assert!(recovery.installs.is_empty(), "{recovery:?}");
        assert_eq!(rig.read("p"), if second { "second" } else { "save" });
        assert_eq!(recovery.displaced.len(), usize::from(second));
        settle(&mut rig, recovery);
        assert!(rig.all_bytes().contains(&"save".into()));
    }
}

#[test]
fn an_install_that_gave_way_to_a_new_file_is_not_taken_for_done_after_a_crash() {
    quiet_panics();
    let mut rig = Rig::new();
    let job = rig.put_bytes("p", "new");
    let path = rig.path("p");
    rig.hook(move |step, _| match step {
        Step::Checked => save(path.clone(), "save")(),
        Step::Synced => panic!("killed"),
        _ => {}
    });
    let jobs = [job];
    std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&jobs))).unwrap_err();
    // The second time as after a crash before anybody was told.
    for _ in 0..2 {
        rig.start();
        let recovery = rig.wt().recover().unwrap();
        // Else the user's file would pass for an edit of what he never saw.
        assert_eq!(recovery.installs, []);
        assert_eq!(rig.read("p"), "save");
    }
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    settle(&mut rig, recovery);
}

#[test]
fn an_install_that_finds_its_place_blocked_after_a_crash_is_closed_before_its_slot_goes() {
    quiet_panics();
    let mut rig = Rig::new();
    let job = rig.put_bytes("dir/p", "new");
    rig.hook(|step, _| assert!(step != Step::Logged, "killed"));
    std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&[job]))).unwrap_err();
    fs::write(rig.path("dir"), "user").unwrap();
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    assert_eq!(recovery.installs, []);
    // Were it closed later, and a power cut took that back, the install without a slot would pass for done.
    assert_eq!(rig.wt().journal.summary().open_installs, 0);
    assert_eq!(rig.tmp_names(), 0);
    settle(&mut rig, recovery);
    assert_eq!(rig.read("dir"), "user");
}

#[test]
fn a_file_that_its_user_deleted_is_not_told_as_removed_by_an_install_that_was_cut_short() {
    quiet_panics();
    let mut rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let job = rig.remove("p");
    rig.hook(|step, _| assert!(step != Step::Checked, "killed"));
    std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&[job]))).unwrap_err();
    fs::remove_file(rig.path("p")).unwrap();
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    // It may be another file than the install meant: then the end of that install is what the journal lost.
    assert_eq!(recovery.installs, []);
    settle(&mut rig, recovery);
}

#[test]
fn a_token_that_never_comes_back_is_recovered() {
    let mut rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let batch = rig.wt().install(&[rig.put_bytes("p", "new")]);
    drop(batch);
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    assert_eq!(recovery.installs.len(), 1);
    settle(&mut rig, recovery);
}

#[test]
fn names_that_are_no_text_are_installed() {
    let rig = Rig::new();
    let path = RelPath::parse(b"caf\xe9\xff".to_vec()).unwrap();
    let entry = file_entry(b"");
    let job = InstallJob {
        path,
        expect: None,
        action: InstallAction::Put { entry, keep: false },
    };
    assert!(matches!(
        rig.wt().install(&[job]).results[0].outcome,
        InstallOutcome::Done(_)
    ));
    assert!(
        rig.path("")
            .join(std::ffi::OsStr::from_bytes(b"caf\xe9\xff"))
            .exists()
    );
}

impl Rig {
    fn plain() -> Self {
        let mut rig = Self::new();
        rig.worktree.as_mut().unwrap().plain = true;
        rig
    }
}

#[test]
fn a_file_system_that_cannot_exchange_loses_nothing_either() {
    let rig = Rig::plain();
    fs::write(rig.path("p"), "old").unwrap();
    let outcome = rig.install_one(rig.put_bytes("p", "new"));
    assert!(matches!(outcome, InstallOutcome::Done(_)), "{outcome:?}");
    assert!(rig.read("p") == "new" && rig.all_bytes().contains(&"old".into()));

    for step in [Step::Checked, Step::Aside] {
        let rig = Rig::plain();
        fs::write(rig.path("p"), "old").unwrap();
        let job = rig.put_bytes("p", "new");
        rig.at(step, save(rig.path("p"), "save"));
        assert_eq!(rig.install_one(job), InstallOutcome::Changed);
        assert_eq!(rig.read("p"), "save", "{step:?}");
        rig.wt().sweep_tmp(|_| false).unwrap();
        if step == Step::Aside {
            assert!(rig.all_bytes().contains(&"old".into()), "{:?}", rig.all_bytes());
        }
    }
}

#[test]
fn a_crash_while_the_old_file_is_aside_brings_it_back() {
    quiet_panics();
    for user in [false, true] {
        let mut rig = Rig::plain();
        fs::write(rig.path("p"), "old").unwrap();
        let job = rig.put_bytes("p", "new");
        let path = rig.path("p");
        rig.hook(move |step, _| {
            if step == Step::Aside {
                if user {
                    fs::write(&path, "save").unwrap();
                }
                panic!("killed");
            }
        });
        let jobs = [job];
        std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&jobs))).unwrap_err();
        rig.start();
        let recovery = rig.wt().recover().unwrap();
        assert_eq!(rig.read("p"), if user { "save" } else { "new" });
        assert_eq!(recovery.installs.len(), usize::from(!user));
        settle(&mut rig, recovery);
        assert!(rig.all_bytes().contains(&"old".into()));
    }
}

#[test]
fn a_rename_made_of_link_and_unlink_is_finished() {
    quiet_panics();
    let mut rig = Rig::new();
    let job = rig.put_bytes("p", "new");
    let tmp = rig.path(".p2p-sync/tmp");
    let path = rig.path("p");
    rig.hook(move |step, _| {
        if step == Step::Checked {
            let slot = fs::read_dir(&tmp).unwrap().next().unwrap().unwrap().path();
            fs::hard_link(slot, &path).unwrap();
            panic!("killed");
        }
    });
    let jobs = [job];
    std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&jobs))).unwrap_err();
    rig.start();
    let recovery = rig.wt().recover().unwrap();
    assert_eq!(recovery.installs.len(), 1);
    settle(&mut rig, recovery);
    assert_eq!(rig.read("p"), "new");
}

#[test]
fn a_program_that_goes_on_writing_is_noticed_after_a_restart() {
    for finished in [false, true] {
        let mut rig = Rig::new();
        fs::write(rig.path("log"), "1").unwrap();
        let mut log = fs::OpenOptions::new().append(true).open(rig.path("log")).unwrap();
        let batch = rig.wt().install(&[rig.put_bytes("log", "new")]);
        if finished {
            rig.wt().finish(batch.token).unwrap();
        }
        log.write_all(b"2").unwrap();
        rig.start();
        let recovery = rig.wt().recover().unwrap();
        assert_eq!(recovery.installs.len(), usize::from(!finished));
        assert_eq!(recovery.displaced.len(), 1, "{finished}");
        assert_eq!(rig.read(&recovery.displaced[0].kept_at.to_string()), "12");
        settle(&mut rig, recovery);
    }
}

#[test]
fn a_path_is_its_users_again_once_the_store_knows_of_the_install() {
    type User = fn(PathBuf);
    let edits: [User; 3] = [
        |p| save(p, "user")(),
        |p| fs::remove_file(p).unwrap_or_default(),
        |p| drop(fs::set_permissions(p, PermissionsExt::from_mode(0o604))),
    ];
    for user in edits {
        for kind in ["put", "move", "remove"] {
            let mut rig = Rig::new();
            fs::write(rig.path("p"), "old").unwrap();
            fs::write(rig.path("from"), "new").unwrap();
            let job = match kind {
                "put" => rig.put_bytes("p", "new"),
                "move" => rig.move_job("from", "p", file_entry(b"new")),
                _ => rig.remove("p"),
            };
            rig.install_one(job);
            user(rig.path("p"));
            let now = rig.print("p");
            rig.start();
            let recovery = rig.wt().recover().unwrap();
            assert!(recovery.installs.is_empty(), "{kind}: {recovery:?}");
            assert_eq!(rig.print("p"), now, "{kind}");
            settle(&mut rig, recovery);
            assert!(rig.all_bytes().contains(&"old".to_owned()), "{kind}");
        }
    }
}

/// Believes one thing of every path.
struct Belief(Option<(Fingerprint, ContentHash)>);

impl Believed for Belief {
    fn content(&self, _: &RelPath, print: &Fingerprint) -> Option<ContentHash> {
        let (known, content) = self.0?;
        (known == *print).then_some(content)
    }
}

fn kept_bytes(rig: &Rig, path: &str) -> Vec<String> {
    let found = rig.wt().kept().of_path(&rel(path)).unwrap();
    found
        .iter()
        .map(|file| rig.read(&file.place.to_string()))
        .collect()
}

#[test]
fn what_was_replaced_is_found_by_path_and_content_whenever_the_daemon_is_killed() {
    quiet_panics();
    for at in [Step::Changed, Step::Synced] {
        for action in ["put", "remove"] {
            let mut rig = Rig::new();
            fs::write(rig.path("p"), "old").unwrap();
            let belief = rig.print("p").map(|print| (print, ContentHash::of(b"old")));
            let job = match action {
                "put" => rig.put_bytes("p", "new"),
                _ => rig.remove("p"),
            };
            rig.hook(move |step, _| assert!(step != at, "killed"));
            let killed = std::panic::catch_unwind(AssertUnwindSafe(|| rig.wt().install(&[job])));
            assert!(killed.is_err());
            rig.start();
            rig.wt().set_believed(Box::new(Belief(belief)));
            let recovery = rig.wt().recover().unwrap();
            settle(&mut rig, recovery);
            assert_eq!(kept_bytes(&rig, "p"), ["old"], "{action} {at:?}");
            let places = rig.wt().kept().with_content(&ContentHash::of(b"old"), 8);
            assert_eq!(places.len(), 1, "{action} {at:?}");
        }
    }
}

#[test]
fn what_waits_for_the_store_is_found_by_content() {
    let rig = Rig::new();
    fs::write(rig.path("p"), "old").unwrap();
    let belief = rig.print("p").map(|print| (print, ContentHash::of(b"old")));
    rig.wt().set_believed(Box::new(Belief(belief)));
    let batch = rig.wt().install(&[rig.put_bytes("p", "new")]);
    let places = || rig.wt().kept().with_content(&ContentHash::of(b"old"), 8);
    assert_eq!(rig.read(&places()[0].to_string()), "old");
    rig.wt().finish(batch.token).unwrap();
    assert_eq!(places().len(), 1);
    assert_eq!(rig.read(&places()[0].to_string()), "old");
}

fn restore(rig: &Rig, p: &str, entry: Entry) -> RestoreOutcome {
    let path = rel(p);
    rig.wt().restore(&[RestoreJob { path, entry }]).unwrap().remove(0)
}

#[test]
fn a_restore_keeps_what_stood_at_the_path_whatever_it_was() {
    let rig = Rig::new();
    rig.fetch(b"then");
    for (number, before) in ["file", "link", "empty directory", "nothing", "full directory"]
        .into_iter()
        .enumerate()
    {
        let p = format!("d/{number}");
        fs::create_dir_all(rig.path("d")).unwrap();
        match before {
            "file" => fs::write(rig.path(&p), "now").unwrap(),
            "link" => symlink("now", rig.path(&p)).unwrap(),
            "empty directory" => fs::create_dir(rig.path(&p)).unwrap(),
            "full directory" => fs::create_dir_all(rig.path(&p).join("below")).unwrap(),
            _ => {}
        }
        let outcome = restore(&rig, &p, file_entry(b"then"));
        if before == "full directory" {
            assert!(matches!(outcome, RestoreOutcome::Failed(_)), "{outcome:?}");
            assert!(rig.path(&p).join("below").is_dir());
            continue;
        }
        assert_eq!(outcome, RestoreOutcome::Done, "{before}");
        assert_eq!(rig.read(&p), "then");
        let meta = fs::metadata(rig.path(&p)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o640);
        assert_eq!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), MTIME);
        let kept = rig.wt().kept().of_path(&rel(&p)).unwrap();
        match before {
            "file" => assert_eq!(kept_bytes(&rig, &p), ["now"]),
            "link" => assert!(kept[0].is_link()),
            _ => assert!(kept.is_empty(), "{before}"),
        }
    }
    assert_eq!(restore(&rig, "new/dir", dir_entry()), RestoreOutcome::Done);
    assert_eq!(
        fs::metadata(rig.path("new/dir")).unwrap().permissions().mode() & 0o777,
        0o750
    );
    assert_eq!(restore(&rig, "lnk", link_entry("away")), RestoreOutcome::Done);
    assert_eq!(
        restore(&rig, "x", file_entry(b"not fetched")),
        RestoreOutcome::ContentMissing
    );
    assert_eq!(rig.wt().journal.open_installs().len(), 0);
}

#[test]
fn a_restore_that_was_cut_short_is_not_told_as_an_install_and_loses_nothing() {
    quiet_panics();
    for at in CRASHES {
        let mut rig = Rig::new();
        fs::write(rig.path("p"), "now").unwrap();
        rig.fetch(b"then");
        rig.hook(move |step, _| assert!(step != at, "killed"));
        let entry = file_entry(b"then");
        let killed = std::panic::catch_unwind(AssertUnwindSafe(|| restore(&rig, "p", entry)));
        assert!(killed.is_err(), "{at:?} is not reached");
        rig.start();
        let recovery = rig.wt().recover().unwrap();
        assert_eq!(recovery.installs, [], "{at:?}");
        settle(&mut rig, recovery);
        let now = rig.read("p");
        assert!(now == "now" || now == "then", "{at:?}: {now}");
        assert!(rig.all_bytes().contains(&"now".into()), "{at:?}");
    }
}
