use p2p_sync_core::engine::{InstallAction, InstallJob, InstallOutcome};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Node};

use super::{Died, Progress, Round, Unfinished, Worktree};
use crate::sim::disk::{FakeDisk, Inode, Kind, Place};
use crate::sim::journal::FakeJournal;
use crate::sim::rng::Rng;

/// A folder in which `a` holds `old` and is to hold `new`.
#[derive(Clone, Default)]
struct Desk {
    disk: FakeDisk,
    journal: FakeJournal,
}

fn path(s: &str) -> RelPath {
    RelPath::parse(s).unwrap()
}

fn file(bytes: &[u8]) -> Entry {
    Entry {
        node: Node::File {
            content: ContentHash::of(bytes),
            size: bytes.len() as u64,
        },
        mode: 0o644,
        mtime_ns: 7,
    }
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self::default();
        desk.write("a", "old");
        desk.disk.fetched(b"new".to_vec());
        desk.disk.sync(&Place::Folder(path("a")));
        desk
    }

    fn write(&mut self, name: &str, text: &str) {
        self.disk.create(&path(name), Kind::File(text.into()), 0o644, 1);
    }

    fn text(&self, place: &Place) -> Option<String> {
        match &self.disk.at(place)?.kind {
            Kind::File(bytes) => Some(String::from_utf8(bytes.clone()).unwrap()),
            Kind::Dir | Kind::Link(_) => None,
        }
    }

    fn a(&self) -> Option<String> {
        self.text(&Place::Folder(path("a")))
    }

    /// All texts of users, wherever they can find them.
    fn texts(&self) -> Vec<String> {
        let places = self.disk.tree().keys().cloned().map(Place::Folder);
        places.filter_map(|place| self.text(&place)).collect()
    }

    fn job(&self, action: InstallAction) -> InstallJob {
        InstallJob {
            path: path("a"),
            expect: self.disk.lstat(&path("a")).map(Inode::print),
            action,
        }
    }

    fn put(&self) -> InstallJob {
        self.job(InstallAction::Put {
            entry: file(b"new"),
            keep: false,
        })
    }

    fn worktree(&mut self) -> Worktree<'_> {
        Worktree {
            disk: &mut self.disk,
            journal: &mut self.journal,
        }
    }

    /// Does a round, with something in between after so many steps; returns the outcome if it came to an end.
    fn install(
        &mut self,
        job: InstallJob,
        steps: u32,
        between: impl FnOnce(&mut Self),
    ) -> (InstallOutcome, Vec<Unfinished>) {
        let mut round = Round::new(vec![job]);
        let mut between = Some(between);
        for step in 0.. {
            if step == steps
                && let Some(between) = between.take()
            {
                between(self);
            }
            if let Progress::Done {
                mut results,
                unfinished,
                ..
            } = self.worktree().step(&mut round)
            {
                return (results.remove(0).outcome, unfinished);
            }
        }
        unreachable!()
    }
}

#[test]
fn an_install_puts_the_old_file_among_the_versions() {
    let mut desk = Desk::new();
    let (outcome, unfinished) = desk.install(desk.put(), 99, |_| ());
    assert!(matches!(outcome, InstallOutcome::Done(Some(_))));
    assert_eq!(desk.a().as_deref(), Some("new"));
    let mut worktree = desk.worktree();
    worktree.record(&unfinished);
    let watched = worktree.finish(unfinished);
    assert!(worktree.look_again(&watched[0]).is_none());
    assert!(worktree.journal.open().is_empty());
    assert_eq!(desk.text(&Place::Version(1)).as_deref(), Some("old"));
}

#[test]
fn a_save_between_any_two_steps_stays() {
    for action in [0, 1, 2] {
        for steps in 0..7 {
            let mut desk = Desk::new();
            desk.write("b", "new");
            let job = match action {
                0 => desk.put(),
                1 => desk.job(InstallAction::Remove),
                _ => desk.job(InstallAction::Move {
                    from: path("b"),
                    from_expect: desk.disk.lstat(&path("b")).unwrap().print(),
                    entry: file(b"new"),
                }),
            };
            desk.install(job, steps, |desk| desk.write("a", "saved"));
            let texts = desk.texts();
            assert!(texts.contains(&"saved".to_owned()), "{action} {steps}: {texts:?}");
        }
    }
}

#[test]
fn a_crash_between_any_two_steps_leaves_the_old_file_or_the_new_one() {
    for power in [false, true] {
        for steps in 0..8 {
            for seed in 0..20 {
                let mut desk = Desk::new();
                let mut round = Round::new(vec![desk.put()]);
                for _ in 0..steps {
                    desk.worktree().step(&mut round);
                }
                let rng = &mut Rng::new(seed);
                if power {
                    desk.disk.power_cut(rng);
                    desk.journal.power_cut(rng);
                }
                if matches!(desk.worktree().recover(Some(0)), Err(Died)) {
                    assert_eq!(desk.journal.open().len(), 1);
                }
                let recovery = desk.worktree().recover(None).unwrap();
                let told = recovery.installs.iter().any(|install| {
                    install
                        .now
                        .as_ref()
                        .is_some_and(|(entry, _)| *entry == file(b"new"))
                });
                let a = desk.a().unwrap();
                assert_eq!(a == "new", told, "{power} {steps} {seed}: {a}");
                assert!(a == "new" || a == "old");
            }
        }
    }
}

#[test]
fn a_directory_that_is_not_empty_comes_back() {
    let mut desk = Desk::default();
    desk.disk.create(&path("a"), Kind::Dir, 0o755, 0);
    desk.write("a/x", "kept");
    desk.disk.fetched(b"new".to_vec());
    let (outcome, _) = desk.install(desk.put(), 99, |_| ());
    assert_eq!(outcome, InstallOutcome::NotEmpty(vec![path("a/x")]));
    assert_eq!(desk.texts(), ["kept"]);
    let (outcome, _) = desk.install(desk.job(InstallAction::Remove), 99, |_| ());
    assert_eq!(outcome, InstallOutcome::NotEmpty(vec![path("a/x")]));
}

#[test]
fn parents_are_made_but_files_do_not_become_directories() {
    let mut desk = Desk::new();
    let mut deep = desk.put();
    deep.path = path("p/q/r");
    deep.expect = None;
    let (outcome, _) = desk.install(deep.clone(), 99, |_| ());
    assert!(matches!(outcome, InstallOutcome::Done(Some(_))));
    deep.path = path("a/x");
    desk.disk.fetched(b"new".to_vec());
    let (outcome, _) = desk.install(deep, 99, |_| ());
    assert_eq!(outcome, InstallOutcome::Changed);
}
