use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::tree::{Entry, Node};

use super::*;
use crate::ignore_rules::RuleSource;
use crate::root_dir::print_of;

#[derive(Default)]
struct Index(Mutex<BTreeMap<RelPath, Installed>>);

impl InstalledIndex for Index {
    fn installed(&self, path: &RelPath) -> Option<Installed> {
        self.0.lock().unwrap().get(path).cloned()
    }

    fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)> {
        let all = self.0.lock().unwrap();
        let named = all
            .keys()
            .flat_map(|path| std::iter::once(path.clone()).chain(path.ancestors()));
        let inside: BTreeSet<RelPath> = named.filter(|path| path.parent().as_ref() == dir).collect();
        inside
            .into_iter()
            .map(|path| (path.clone(), all.get(&path).cloned()))
            .collect()
    }

    fn below(&self, dir: &RelPath) -> Vec<(RelPath, Installed)> {
        let all = self.0.lock().unwrap();
        let inside = all.iter().filter(|(path, _)| path.is_below(dir));
        inside
            .map(|(path, installed)| (path.clone(), installed.clone()))
            .collect()
    }

    fn same_file(&self, installed: &Installed) -> Vec<RelPath> {
        let all = self.0.lock().unwrap();
        let same = |other: &Installed| {
            (other.print.ino, &other.entry.node) == (installed.print.ino, &installed.entry.node)
        };
        let names = all.iter().filter(|(_, other)| same(other));
        names.map(|(path, _)| path.clone()).collect()
    }
}

#[derive(Default)]
struct Watched(Mutex<BTreeSet<PathBuf>>);

impl DirWatch for Watched {
    fn watch(&self, dir: &Path, _ino: u64) -> bool {
        self.0.lock().unwrap().insert(dir.to_owned())
    }

    fn scan_begins(&self) {}

    fn scan_ended(&self) {}

    fn is_complete(&self) -> bool {
        true
    }
}

struct Rig {
    dir: tempfile::TempDir,
    index: Arc<Index>,
    watched: Arc<Watched>,
    modes: Modes,
    stop: AtomicBool,
}

fn rel(s: &str) -> RelPath {
    RelPath::parse(s).unwrap()
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".p2p-sync/tmp")).unwrap();
        fs::write(dir.path().join(".p2p-sync/root-id"), "a".repeat(64) + "\n").unwrap();
        fs::write(dir.path().join(".p2p-sync/tmp/x"), "x").unwrap();
        Self {
            dir,
            index: Arc::default(),
            watched: Arc::default(),
            modes: Modes::Full,
            stop: AtomicBool::new(false),
        }
    }

    fn path(&self, p: &str) -> PathBuf {
        self.dir.path().join(p)
    }

    /// Writes a file whose time is long past, so that it is not a fresh one.
    fn write(&self, p: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(p).parent().unwrap()).unwrap();
        fs::write(self.path(p), bytes).unwrap();
        let age = Duration::from_secs(self.index.0.lock().unwrap().len() as u64 + 100);
        let file = fs::File::options().write(true).open(self.path(p)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    /// Returns the built-in rules with those of the folder's file.
    fn rules(&self) -> Arc<Rules> {
        Arc::new(RuleSource::new(true, Vec::new(), self.dir.path()).read().unwrap())
    }

    fn scanner(&self) -> Scanner {
        Scanner::new(
            self.dir.path(),
            self.index.clone(),
            self.modes,
            self.watched.clone(),
            self.rules(),
        )
        .unwrap()
    }

    fn run(
        &self,
        scan: impl FnOnce(&Scanner, &mut dyn FnMut(Vec<LocalChange>)) -> Result<ScanReport, ScanError>,
    ) -> (Vec<LocalChange>, ScanReport) {
        let mut changes = Vec::new();
        let report = scan(&self.scanner(), &mut |portion| changes.extend(portion)).unwrap();
        for change in &changes {
            let mut index = self.index.0.lock().unwrap();
            match &change.after {
                Some(after) => {
                    let (entry, print) = (after.entry.clone(), after.print);
                    index.insert(
                        change.path.clone(),
                        Installed {
                            entry,
                            print,
                            dots: Vec::new(),
                            copy_of: None,
                        },
                    );
                }
                None => {
                    index.remove(&change.path);
                }
            }
        }
        (changes, report)
    }

    fn scan(&self) -> Vec<LocalChange> {
        self.run(|s, emit| s.scan_all(&self.stop, emit)).0
    }

    fn scan_paths(&self, paths: &[&str], below: Below) -> Vec<LocalChange> {
        let paths: Vec<_> = paths.iter().map(|p| rel(p)).collect();
        self.run(|s, emit| s.scan_paths(&paths, below, &self.stop, emit))
            .0
    }
}

/// Each change as `+path` or `-path`.
fn names(changes: &[LocalChange]) -> Vec<String> {
    let sign = |c: &LocalChange| if c.after.is_some() { '+' } else { '-' };
    changes.iter().map(|c| format!("{}{}", sign(c), c.path)).collect()
}

#[test]
fn everything_is_found_once_parents_first() {
    let rig = Rig::new();
    rig.write("b/c/d", "d");
    rig.write("a", "a");
    symlink("anywhere", rig.path("b/l")).unwrap();
    fs::create_dir(rig.path("empty")).unwrap();
    let changes = rig.scan();
    assert_eq!(names(&changes), ["+a", "+b", "+empty", "+b/c", "+b/l", "+b/c/d"]);
    let a = changes[0].after.as_ref().unwrap();
    assert_eq!(
        a.entry.node,
        Node::File {
            content: ContentHash::of(b"a"),
            size: 1
        }
    );
    assert!(a.manifest.is_none() && a.print.ctime_ns != 0);
    assert_eq!(
        changes[4].after.as_ref().unwrap().entry.node,
        Node::Link {
            target: b"anywhere".to_vec()
        }
    );
    assert_eq!(rig.scan(), []);
    let watched: Vec<_> = rig.watched.0.lock().unwrap().iter().cloned().collect();
    assert_eq!(watched, ["", "b", "b/c", "empty"].map(PathBuf::from));
}

#[test]
fn edits_are_found_by_any_part_of_the_print() {
    let rig = Rig::new();
    for p in ["size", "mode", "time", "kept", "ino"] {
        rig.write(p, "1234");
    }
    rig.scan();
    let kept = fs::metadata(rig.path("kept")).unwrap().modified().unwrap();
    rig.write("size", "12345");
    fs::set_permissions(rig.path("mode"), fs::Permissions::from_mode(0o755)).unwrap();
    rig.write("time", "4321");
    rig.write("kept", "4321");
    fs::File::options()
        .write(true)
        .open(rig.path("kept"))
        .unwrap()
        .set_modified(kept)
        .unwrap();
    fs::copy(rig.path("ino"), rig.path("new")).unwrap();
    fs::rename(rig.path("new"), rig.path("ino")).unwrap();
    let changes = rig.scan();
    assert_eq!(names(&changes), ["+ino", "+kept", "+mode", "+size", "+time"]);
    assert_eq!(changes[2].after.as_ref().unwrap().entry.mode, 0o755);
    assert_eq!(
        changes[1].after.as_ref().unwrap().entry.node.content(),
        Some(ContentHash::of(b"4321"))
    );
}

#[test]
fn a_deletion_comes_after_what_else_was_found() {
    let rig = Rig::new();
    rig.write("a/x", "x");
    rig.write("a/deep/y", "y");
    rig.write("gone", "g");
    rig.scan();
    fs::remove_dir_all(rig.path("a")).unwrap();
    fs::rename(rig.path("gone"), rig.path("there")).unwrap();
    let changes = rig.scan();
    assert_eq!(
        names(&changes),
        ["+there", "-a", "-a/deep", "-a/deep/y", "-a/x", "-gone"]
    );
    assert_eq!(rig.scan(), []);
}

#[test]
fn a_directory_that_gives_way_takes_its_contents_along() {
    let rig = Rig::new();
    rig.write("d/x", "x");
    rig.write("f", "f");
    rig.write("e/y", "y");
    rig.scan();
    fs::remove_dir_all(rig.path("d")).unwrap();
    symlink("e", rig.path("d")).unwrap();
    fs::remove_file(rig.path("f")).unwrap();
    rig.write("f/new", "n");
    let changes = rig.scan();
    assert_eq!(names(&changes), ["-d/x", "+d", "+f", "+f/new"]);
    assert!(matches!(
        &changes[1].after.as_ref().unwrap().entry.node,
        Node::Link { .. }
    ));
}

#[test]
fn a_hint_leads_to_the_topmost_unknown_directory() {
    let rig = Rig::new();
    rig.write("known/x", "x");
    rig.scan();
    rig.write("new/deep/er/f", "f");
    rig.write("known/y", "y");
    rig.write("other", "o");
    let changes = rig.scan_paths(&["new/deep/er/f", "known"], Below::Changed);
    assert_eq!(
        names(&changes),
        ["+new", "+new/deep", "+new/deep/er", "+new/deep/er/f"]
    );
    assert_eq!(names(&rig.scan_paths(&["known"], Below::All)), ["+known/y"]);
    fs::remove_dir_all(rig.path("known")).unwrap();
    assert_eq!(names(&rig.scan_paths(&["known/x"], Below::Changed)), ["-known/x"]);
    assert_eq!(
        names(&rig.scan_paths(&["known", ".p2p-sync/tmp/x", "nothing"], Below::All)),
        // The last is not known to the index, but may be to who was told of it a moment ago.
        ["-known", "-known/y", "-nothing"]
    );
    assert_eq!(names(&rig.scan()), ["+other"]);
}

#[test]
fn a_fresh_file_is_hashed_once_more() {
    let rig = Rig::new();
    fs::write(rig.path("f"), "1").unwrap();
    let (changes, report) = rig.run(|s, emit| s.scan_all(&rig.stop, emit));
    assert_eq!(changes[0].after.as_ref().unwrap().print.ctime_ns, 0);
    assert_eq!(report.retry, [rel("f")]);
    let file = fs::File::options().write(true).open(rig.path("f")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600))
        .unwrap();
    let (changes, report) = rig.run(|s, emit| s.scan_all(&rig.stop, emit));
    assert_eq!(names(&changes), ["+f"]);
    assert_eq!(report.retry, []);
    assert_eq!(rig.scan(), []);
}

#[test]
fn what_a_device_cannot_keep_is_repeated_from_what_was_installed() {
    let mut rig = Rig::new();
    rig.write("f", "f");
    fs::create_dir(rig.path("d")).unwrap();
    rig.scan();
    for installed in rig.index.0.lock().unwrap().values_mut() {
        installed.entry.mode = 0o421;
        installed.entry.mtime_ns += 7;
        installed.print.ino += 1;
    }
    let changes = rig.scan();
    let f = &changes
        .iter()
        .find(|c| c.path == rel("f"))
        .unwrap()
        .after
        .as_ref()
        .unwrap();
    assert_eq!((f.entry.mode, f.entry.mtime_ns), (0o421, f.print.mtime_ns + 7));
    let d = &changes
        .iter()
        .find(|c| c.path == rel("d"))
        .unwrap()
        .after
        .as_ref()
        .unwrap();
    assert_eq!((d.entry.mode, d.entry.mtime_ns), (0o421, 0));

    rig.modes = Modes::Exec;
    fs::set_permissions(rig.path("f"), fs::Permissions::from_mode(0o770)).unwrap();
    rig.write("new", "n");
    let changes = rig.scan();
    assert_eq!(names(&changes), ["+f", "+new"]);
    assert_eq!(changes[0].after.as_ref().unwrap().entry.mode, 0o521);
    assert_eq!(changes[1].after.as_ref().unwrap().entry.mode, 0o644);
}

#[test]
fn a_large_file_has_a_manifest() {
    let rig = Rig::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    rig.write("big", &bytes);
    for i in 0..20 {
        rig.write(&format!("s{i}"), format!("{i}"));
    }
    let changes = rig.scan();
    let after = changes[0].after.as_ref().unwrap();
    let manifest = after.manifest.as_ref().unwrap();
    assert_eq!(
        (manifest.content(), manifest.chunks().len()),
        (ContentHash::of(&bytes), 3)
    );
    for (i, change) in changes[1..].iter().enumerate() {
        let number = &change.path.to_string()[1..];
        let content = change.after.as_ref().unwrap().entry.node.content();
        assert_eq!(content, Some(ContentHash::of(number.as_bytes())), "{i}");
    }
}

#[test]
fn ignored_and_special_entries_are_neither_published_nor_deleted() {
    let rig = Rig::new();
    rig.write("movie.part", "half");
    rig.write("f", "f");
    let socket = std::os::unix::net::UnixListener::bind(rig.path("socket")).unwrap();
    let (changes, report) = rig.run(|s, emit| s.scan_all(&rig.stop, emit));
    assert_eq!(names(&changes), ["+f"]);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].0, rel("socket"));
    drop(socket);
    let entry = Entry {
        node: Node::Dir,
        mode: 0o755,
        mtime_ns: 0,
    };
    let installed = Installed {
        entry,
        print: Default::default(),
        dots: Vec::new(),
        copy_of: None,
    };
    rig.index
        .0
        .lock()
        .unwrap()
        .insert(rel("other.part"), installed.clone());
    rig.index.0.lock().unwrap().insert(rel("socket"), installed);
    assert_eq!(rig.scan(), []);
}

#[test]
fn an_ignored_directory_is_neither_entered_nor_watched_nor_missed() {
    let rig = Rig::new();
    rig.write("build/deep/x", "x");
    rig.write("src/a", "a");
    rig.scan();
    rig.write(".p2p-sync/ignore", "build/\n/src/*.log\n!/src/kept.log\n");
    rig.watched.0.lock().unwrap().clear();
    rig.write("build/new", "n");
    rig.write("src/b.log", "b");
    rig.write("src/kept.log", "k");
    rig.write("b.log", "b");
    assert_eq!(names(&rig.scan()), ["+b.log", "+src/kept.log"]);
    let watched: Vec<_> = rig.watched.0.lock().unwrap().iter().cloned().collect();
    assert_eq!(watched, ["", "src"].map(PathBuf::from));
    assert_eq!(
        rig.scan_paths(&["build/new", "build", "src/b.log"], Below::All),
        []
    );
    fs::remove_dir_all(rig.path("build")).unwrap();
    assert_eq!(rig.scan(), []);
    assert_eq!(rig.scan_paths(&["build", "build/deep/x"], Below::All), []);
    // A pattern for directories says nothing of the file that takes the place of one.
    rig.write("build", "a file");
    assert_eq!(names(&rig.scan()), ["+build"]);
}

#[test]
fn an_ignored_child_is_not_missed_with_its_directory() {
    let rig = Rig::new();
    rig.write("d/x", "x");
    rig.write("d/e/y.o", "y");
    rig.scan();
    rig.write(".p2p-sync/ignore", "*.o");
    fs::remove_dir_all(rig.path("d")).unwrap();
    assert_eq!(names(&rig.scan()), ["-d", "-d/e", "-d/x"]);
}

#[test]
fn what_is_not_ignored_any_more_is_looked_at_again() {
    let rig = Rig::new();
    rig.write(".p2p-sync/ignore", "d");
    rig.write("d/x", "x");
    assert_eq!(rig.scan(), []);
    rig.write(".p2p-sync/ignore", "");
    assert_eq!(names(&rig.scan()), ["+d", "+d/x"]);
}

#[test]
fn hidden_conflict_copies_are_looked_at_and_nothing_else_of_the_daemons() {
    let rig = Rig::new();
    let copies =
        ["kept", "edited", "gone", "dir", "link"].map(|name| format!(".p2p-sync/conflicts/r/.git/{name}"));
    for copy in &copies {
        rig.write(copy, "c");
        let print = print_of(&rustix::fs::lstat(rig.path(copy)).unwrap());
        let entry = observe::observe(Node::Dir, print, None, Modes::Full).entry;
        let installed = Installed {
            entry,
            print,
            dots: Vec::new(),
            copy_of: Some(rel("r/.git/x")),
        };
        rig.index.0.lock().unwrap().insert(rel(copy), installed);
    }
    rig.write(".p2p-sync/conflicts/r/.git/stranger", "s");
    assert_eq!(rig.scan(), []);
    rig.write(&copies[1], "edited");
    for taken in &copies[2..] {
        fs::remove_file(rig.path(taken)).unwrap();
    }
    rig.write(&format!("{}/child", copies[3]), "in it");
    symlink("x", rig.path(&copies[4])).unwrap();
    let below = |sign: &str, name: &str| format!("{sign}.p2p-sync/conflicts/r/.git/{name}");
    let one = rig
        .run(|s, emit| s.scan_paths(&[rel(&copies[1])], Below::All, &rig.stop, emit))
        .0;
    assert_eq!(names(&one), [below("+", "edited")]);
    let others = [
        ".p2p-sync/conflicts/r/.git/stranger",
        ".p2p-sync/root-id",
        ".p2p-sync/conflicts",
    ];
    assert_eq!(rig.scan_paths(&others, Below::All), []);
    let found = rig.scan();
    assert_eq!(
        names(&found),
        [below("+", "dir"), below("+", "link"), below("-", "gone")]
    );
    assert!(found[0].after.as_ref().unwrap().entry.node.is_dir());
    assert_eq!(rig.scan(), []);
}

#[test]
fn nothing_is_deleted_in_a_folder_that_is_not_the_right_one() {
    let rig = Rig::new();
    rig.write("f", "f");
    rig.scan();
    let scanner = rig.scanner();
    fs::remove_file(rig.path("f")).unwrap();
    fs::write(rig.path(".p2p-sync/root-id"), "b".repeat(64)).unwrap();
    let scan = |scanner: &Scanner| {
        let mut found = Vec::new();
        let result = scanner.scan_all(&rig.stop, &mut |portion| found.extend(portion));
        (result.is_err(), found.len())
    };
    assert_eq!(scan(&scanner), (true, 0));
    fs::remove_file(rig.path(".p2p-sync/root-id")).unwrap();
    assert_eq!(scan(&scanner), (true, 0));
    fs::write(rig.path(".p2p-sync/root-id"), "a".repeat(64)).unwrap();
    assert_eq!(scan(&scanner), (false, 1));
}

#[test]
fn an_unmount_during_a_scan_deletes_nothing() {
    let rig = Rig::new();
    rig.write("a", "a");
    rig.write("z", "z");
    rig.scan();
    fs::remove_file(rig.path("z")).unwrap();
    // The index is asked in the middle of the scan; that is when the folder goes.
    struct Vanishing(Arc<Index>, PathBuf);
    impl InstalledIndex for Vanishing {
        fn installed(&self, path: &RelPath) -> Option<Installed> {
            self.0.installed(path)
        }
        fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)> {
            let _ = fs::rename(&self.1, self.1.with_extension("away"));
            self.0.children(dir)
        }
        fn below(&self, dir: &RelPath) -> Vec<(RelPath, Installed)> {
            self.0.below(dir)
        }
        fn same_file(&self, installed: &Installed) -> Vec<RelPath> {
            self.0.same_file(installed)
        }
    }
    let index = Arc::new(Vanishing(rig.index.clone(), rig.dir.path().to_owned()));
    let scanner = Scanner::new(
        rig.dir.path(),
        index,
        Modes::Full,
        rig.watched.clone(),
        rig.rules(),
    )
    .unwrap();
    let mut found = Vec::new();
    let result = scanner.scan_all(&rig.stop, &mut |portion| found.extend(portion));
    assert!(matches!(result, Err(ScanError::RootChanged)) && found.is_empty());
    fs::rename(rig.dir.path().with_extension("away"), rig.dir.path()).unwrap();
}

#[test]
fn a_hinted_file_is_found_though_its_directory_becomes_known_meanwhile() {
    let rig = Rig::new();
    rig.write("d/old", "old");
    rig.scan();
    rig.write("d/new", "new");
    // What the engine records between two looks of one scan: the directory, not the file.
    struct Learning(Arc<Index>, AtomicBool);
    impl InstalledIndex for Learning {
        fn installed(&self, path: &RelPath) -> Option<Installed> {
            let first = *path == rel("d") && !self.1.swap(true, Ordering::Relaxed);
            if first { None } else { self.0.installed(path) }
        }
        fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)> {
            self.0.children(dir)
        }
        fn below(&self, dir: &RelPath) -> Vec<(RelPath, Installed)> {
            self.0.below(dir)
        }
        fn same_file(&self, installed: &Installed) -> Vec<RelPath> {
            self.0.same_file(installed)
        }
    }
    let index = Arc::new(Learning(rig.index.clone(), AtomicBool::new(false)));
    let scanner = Scanner::new(
        rig.dir.path(),
        index,
        Modes::Full,
        rig.watched.clone(),
        rig.rules(),
    )
    .unwrap();
    let mut found = Vec::new();
    let paths = [rel("d/new")];
    scanner
        .scan_paths(&paths, Below::Changed, &rig.stop, &mut |portion| {
            found.extend(portion);
        })
        .unwrap();
    assert_eq!(names(&found), ["+d/new"]);
}

#[test]
fn a_hinted_deletion_is_told_though_the_index_does_not_know_the_directory_yet() {
    let rig = Rig::new();
    // Both were told a moment ago, and are not durable.
    rig.write("d/stays", "stays");
    let found = rig.scan_paths(&["d/gone"], Below::Changed);
    assert_eq!(names(&found), ["+d", "+d/stays", "-d/gone"]);
}

/// The row of a directory may go before those of what lay in it: then they are still found.
#[test]
fn what_lay_in_a_directory_without_a_row_is_found_gone() {
    let rig = Rig::new();
    for name in ["d/e/f", "d/e/g/h", "x/y", "z/kept"] {
        rig.write(name, name);
    }
    rig.scan();
    let forget = |names: &[&str]| {
        names
            .iter()
            .for_each(|name| drop(rig.index.0.lock().unwrap().remove(&rel(name))));
    };
    forget(&["d", "d/e", "d/e/g", "x", "z"]);
    fs::remove_dir_all(rig.path("d")).unwrap();
    fs::remove_dir_all(rig.path("x")).unwrap();
    rig.write("x", "a file now");
    let gone = |found: &[LocalChange]| -> BTreeSet<String> {
        names(found)
            .into_iter()
            .filter(|name| name.starts_with('-'))
            .collect()
    };
    let expected = ["-d", "-d/e", "-d/e/f", "-d/e/g", "-d/e/g/h", "-x/y"];
    let mut scan = Vec::new();
    let report = rig
        .scanner()
        .scan_all(&rig.stop, &mut |portion| scan.extend(portion))
        .unwrap();
    assert!(report.problems.is_empty());
    assert_eq!(gone(&scan), expected.map(str::to_owned).into());
    let hints = rig.scan_paths(&["d", "x"], Below::Changed);
    assert_eq!(gone(&hints), expected.map(str::to_owned).into());
}

#[test]
fn directories_that_installs_made_are_watched_to_the_bottom() {
    let rig = Rig::new();
    rig.write("one/two/three/f", "f");
    rig.scan();
    // The engine knows what it installed; only the topmost directory was made in a watched one, and is hinted at.
    rig.watched.0.lock().unwrap().clear();
    rig.write("one/two/three/missed", "changed before the watch");
    let found = rig.scan_paths(&["one"], Below::Changed);
    assert_eq!(names(&found), ["+one/two/three/missed"]);
    let watched = rig.watched.0.lock().unwrap();
    assert!(
        ["one", "one/two", "one/two/three"]
            .iter()
            .all(|dir| watched.contains(Path::new(dir)))
    );
}

#[test]
fn a_stopped_scan_says_so() {
    let rig = Rig::new();
    rig.write("f", "f");
    rig.stop.store(true, Ordering::Relaxed);
    let (changes, report) = rig.run(|s, emit| s.scan_all(&rig.stop, emit));
    assert!(changes.is_empty() && report.stopped);
}

#[test]
fn deep_and_wide_folders_are_walked_in_portions() {
    let rig = Rig::new();
    let deep = "d/".repeat(200) + "f";
    rig.write(&deep, "f");
    for i in 0..700 {
        fs::write(rig.path(&format!("w{i}")), "").unwrap();
    }
    let mut portions = Vec::new();
    rig.scanner()
        .scan_all(&rig.stop, &mut |portion| portions.push(portion.len()))
        .unwrap();
    assert!(
        portions.iter().all(|n| *n <= 512) && portions.iter().sum::<usize>() == 901,
        "{portions:?}"
    );
    let meta = fs::metadata(rig.path(&deep)).unwrap();
    assert!(meta.ino() > 0);
}

#[test]
fn a_file_that_was_changed_by_one_of_its_names_is_found_changed_by_all() {
    let rig = Rig::new();
    rig.write("a/one", "shared");
    rig.write("other", "shared");
    for name in ["b", "c/d"] {
        fs::create_dir_all(rig.path(name).parent().unwrap()).unwrap();
        fs::hard_link(rig.path("a/one"), rig.path(name)).unwrap();
    }
    assert_eq!(rig.scan().len(), 6);
    rig.write("b", "changed");
    let mut changes = rig.scan_paths(&["b"], Below::Changed);
    changes.sort_by(|one, two| one.path.cmp(&two.path));
    assert_eq!(names(&changes), ["+a/one", "+b", "+c/d"]);
    fs::set_permissions(rig.path("c/d"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(rig.scan_paths(&["c/d"], Below::Changed).len(), 3);
    assert_eq!(rig.scan_paths(&["a/one", "b", "c/d"], Below::Changed), []);
}

/// Scans and hands over what was told together with the inodes that had been synced by then.
fn scan_with_syncs(scanner: &Scanner) -> (Vec<(LocalChange, BTreeSet<u64>)>, ScanReport) {
    let mut told = Vec::new();
    let report = scanner
        .scan_all(&AtomicBool::new(false), &mut |changes| {
            let synced = scanner.disk.synced.lock().unwrap().clone();
            told.extend(changes.into_iter().map(|change| (change, synced.clone())));
        })
        .unwrap();
    (told, report)
}

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn what_is_told_is_on_the_disk_with_the_directory_it_lies_in() {
    let rig = Rig::new();
    rig.write("dir/file", "bytes");
    symlink("nowhere", rig.path("link")).unwrap();
    let (told, _) = scan_with_syncs(&rig.scanner());
    assert_eq!(told.len(), 3);
    for (change, synced) in told {
        let path = rig.path(&change.path.to_string());
        assert!(synced.contains(&ino(path.parent().unwrap())), "{}", change.path);
        let is_link = path.is_symlink();
        assert!(is_link || synced.contains(&ino(&path)), "{}", change.path);
    }
}

#[test]
fn a_deletion_is_on_the_disk_before_it_is_told_also_with_its_directory() {
    let rig = Rig::new();
    rig.write("dir/file", "bytes");
    rig.scan();
    fs::remove_dir_all(rig.path("dir")).unwrap();
    let (told, _) = scan_with_syncs(&rig.scanner());
    assert_eq!(told.len(), 2);
    assert!(
        told.iter()
            .all(|(_, synced)| synced.contains(&ino(rig.dir.path())))
    );
}

#[test]
fn many_changes_cost_one_sync() {
    let rig = Rig::new();
    (0..40).for_each(|number| rig.write(&format!("file{number}"), "bytes"));
    let (told, _) = scan_with_syncs(&rig.scanner());
    assert_eq!(told.len(), 40);
    assert!(told.iter().all(|(_, synced)| *synced == BTreeSet::from([0])));
}

#[test]
fn what_the_disk_does_not_take_is_named_and_not_told() {
    let rig = Rig::new();
    rig.write("bad/inside", "bytes");
    rig.write("file", "bytes");
    rig.write("good", "bytes");
    for refused in ["file", "bad"] {
        let scanner = rig.scanner();
        *scanner.disk.refuses.lock().unwrap() = Some(ino(&rig.path(refused)));
        let (told, report) = scan_with_syncs(&scanner);
        let told: Vec<String> = told.iter().map(|(change, _)| change.path.to_string()).collect();
        let named: Vec<String> = report.problems.iter().map(|(path, _)| path.to_string()).collect();
        let (expect_told, expect_named): (&[&str], &[&str]) = match refused {
            "file" => (&["bad", "bad/inside", "good"], &["file"]),
            _ => (&["file", "good"], &["bad", "bad/inside"]),
        };
        assert_eq!(
            (told.len(), named),
            (
                expect_told.len(),
                expect_named.iter().map(ToString::to_string).collect()
            )
        );
        assert!(
            expect_told.iter().all(|path| told.contains(&(*path).to_owned())),
            "{told:?}"
        );
        assert!(
            expect_named.iter().all(|path| report.retry.contains(&rel(path))),
            "{:?}",
            report.retry
        );
    }
}
