use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::root_dir::print_of;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Rig {
    dir: tempfile::TempDir,
    kept: Kept,
    next_tx: u64,
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

fn open(dir: &Path) -> Kept {
    let path = dir.join(".p2p-sync/versions");
    let fd = open_dir(rustix::fs::CWD, path.as_os_str().as_bytes()).unwrap();
    Kept::open(path, fd).unwrap()
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for own in ["tmp", "versions"] {
            fs::create_dir_all(dir.path().join(".p2p-sync").join(own)).unwrap();
        }
        let kept = open(dir.path());
        Self {
            dir,
            kept,
            next_tx: 1,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn reopen(&mut self) {
        self.kept = open(self.dir.path());
    }

    /// Keeps a file; returns where it lies.
    fn keep(&mut self, path: &str, bytes: &str) -> RelPath {
        let tx = Tx(self.next_tx);
        self.next_tx += 1;
        fs::write(self.path(".p2p-sync/tmp").join(tx.slot()), bytes).unwrap();
        self.keep_slot(tx, path, Some(ContentHash::of(bytes.as_bytes())))
    }

    fn keep_slot(&self, tx: Tx, path: &str, content: Option<ContentHash>) -> RelPath {
        let tmp = open_dir(rustix::fs::CWD, self.path(".p2p-sync/tmp").as_os_str().as_bytes()).unwrap();
        let slot = tx.slot();
        let print = print_of(&lstat_at(&tmp, slot.as_bytes()).unwrap().unwrap());
        let path = rel(path);
        let item = Keep {
            slot: &slot,
            tx,
            path: Some(&path),
            print,
            content,
            noted_on: None,
        };
        let mut outcome = self.kept.keep(&tmp, &[item]).unwrap();
        outcome.places.remove(0).unwrap().unwrap()
    }

    fn places(&self, path: &str) -> Vec<RelPath> {
        let found = self.kept.of_path(&rel(path)).unwrap();
        found.into_iter().map(|file| file.place).collect()
    }

    fn with(&self, bytes: &str) -> Vec<RelPath> {
        self.kept.with_content(&ContentHash::of(bytes.as_bytes()), 8)
    }

    fn index(&self) -> PathBuf {
        let day = day_text(self.kept.days().unwrap()[0]);
        self.path(".p2p-sync/versions").join(day).join("index")
    }

    fn purge(&self, retention: Retention, later: Duration) -> Purged {
        self.kept.purge(&retention, SystemTime::now() + later).unwrap()
    }
}

fn bytes_limit(bytes: u64) -> Retention {
    Retention {
        max_size: SizeLimit::Bytes(bytes),
        ..Retention::default()
    }
}

#[test]
fn a_version_is_found_by_path_and_by_content_also_by_the_next_run() {
    let mut rig = Rig::new();
    let first = rig.keep("a/b", "one");
    let second = rig.keep("a/b", "two");
    rig.keep("a/c", "two");
    for _ in 0..2 {
        assert_eq!(rig.places("a/b"), [second.clone(), first.clone()]);
        assert_eq!(rig.with("one"), std::slice::from_ref(&first));
        assert_eq!(rig.with("two").len(), 2);
        assert_eq!(rig.with("three"), []);
        rig.reopen();
    }
    let found = rig.kept.of_path(&rel("a/b")).unwrap();
    assert_eq!(
        (found[0].size, found[0].content),
        (3, Some(ContentHash::of(b"two")))
    );
    assert_eq!(fs::read_to_string(rig.path(&first.to_string())).unwrap(), "one");
}

#[test]
fn a_file_that_waits_in_its_slot_is_found_by_content() {
    let mut rig = Rig::new();
    let tx = Tx(7);
    fs::write(rig.path(".p2p-sync/tmp").join(tx.slot()), "one").unwrap();
    rig.kept.hold_slot(tx, ContentHash::of(b"one"));
    assert_eq!(rig.with("one"), [rel(".p2p-sync/tmp/i-0000000000000007")]);
    let place = rig.keep_slot(tx, "p", Some(ContentHash::of(b"one")));
    assert_eq!(rig.with("one"), [place]);
    rig.next_tx = 8;
}

#[test]
fn a_torn_tail_loses_only_itself_and_nothing_written_later() {
    let mut rig = Rig::new();
    let first = rig.keep("p", "one");
    let whole = fs::metadata(rig.index()).unwrap().len();
    let torn = rig.keep("p", "two");
    let end = fs::metadata(rig.index()).unwrap().len();
    for cut in [whole + 1, whole + 8, end - 1] {
        let file = fs::OpenOptions::new().write(true).open(rig.index()).unwrap();
        file.set_len(cut).unwrap();
        rig.reopen();
        assert_eq!(fs::metadata(rig.index()).unwrap().len(), whole, "cut at {cut}");
        assert_eq!(rig.places("p"), std::slice::from_ref(&first));
        let more = rig.keep("p", "three");
        rig.reopen();
        assert_eq!(rig.places("p"), [more.clone(), first.clone()]);
        fs::remove_file(rig.path(&more.to_string())).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(rig.index())
            .unwrap()
            .set_len(whole)
            .unwrap();
        rig.reopen();
    }
    assert!(rig.path(&torn.to_string()).exists());
}

#[test]
fn a_version_without_a_record_is_kept_and_gets_one() {
    let mut rig = Rig::new();
    let place = rig.keep("p", "one");
    rig.keep_slot_without_content("q", "two");
    fs::remove_file(rig.index()).unwrap();
    rig.reopen();
    assert_eq!((rig.with("one"), rig.with("two")), (vec![], vec![]));
    rig.kept.complete(&|| false).unwrap();
    for _ in 0..2 {
        assert_eq!(rig.with("one"), std::slice::from_ref(&place));
        assert_eq!(rig.with("two").len(), 1);
        assert!(rig.kept.all().unwrap().iter().all(|file| file.path.is_none()));
        rig.reopen();
    }
    let len = fs::metadata(rig.index()).unwrap().len();
    rig.kept.complete(&|| false).unwrap();
    assert_eq!(
        fs::metadata(rig.index()).unwrap().len(),
        len,
        "nothing is noted twice"
    );
}

impl Rig {
    fn keep_slot_without_content(&mut self, path: &str, bytes: &str) -> RelPath {
        let tx = Tx(self.next_tx);
        self.next_tx += 1;
        fs::write(self.path(".p2p-sync/tmp").join(tx.slot()), bytes).unwrap();
        self.keep_slot(tx, path, None)
    }
}

#[test]
fn a_content_that_was_not_known_is_found_and_keeps_its_path() {
    let mut rig = Rig::new();
    let place = rig.keep_slot_without_content("p", "one");
    assert_eq!(rig.with("one"), []);
    let file = rig.kept.of_path(&rel("p")).unwrap().remove(0);
    assert_eq!(rig.kept.content_of(&file).unwrap(), ContentHash::of(b"one"));
    assert_eq!(rig.with("one"), std::slice::from_ref(&place));
    rig.keep_slot_without_content("p", "two");
    rig.kept.complete(&|| false).unwrap();
    rig.reopen();
    assert_eq!((rig.with("two").len(), rig.places("p").len()), (1, 2));
}

#[test]
fn a_link_is_kept_as_a_link() {
    let mut rig = Rig::new();
    let tx = Tx(3);
    symlink("target", rig.path(".p2p-sync/tmp").join(tx.slot())).unwrap();
    let place = rig.keep_slot(tx, "l", None);
    rig.kept.complete(&|| false).unwrap();
    rig.reopen();
    assert!(rig.kept.of_path(&rel("l")).unwrap()[0].is_link());
    assert_eq!(
        fs::read_link(rig.path(&place.to_string())).unwrap(),
        Path::new("target")
    );
}

#[test]
fn the_oldest_go_when_there_is_no_room() {
    let mut rig = Rig::new();
    let places: Vec<RelPath> = (0..5)
        .map(|n| rig.keep(&format!("p{n}"), &n.to_string().repeat(100)))
        .collect();
    places.iter().for_each(|place| rig.kept.unpin(place));
    assert_eq!(rig.purge(bytes_limit(500), Duration::ZERO), Purged::default());
    let purged = rig.purge(bytes_limit(250), Duration::ZERO);
    assert_eq!(purged, Purged { files: 3, bytes: 300 });
    let there = |n: usize| rig.path(&places[n].to_string()).exists();
    assert_eq!(
        [there(0), there(1), there(2), there(3), there(4)],
        [false, false, false, true, true]
    );
    assert_eq!((rig.with(&"0".repeat(100)), rig.places("p0")), (vec![], vec![]));
    assert_eq!(rig.with(&"4".repeat(100)).len(), 1);
}

#[test]
fn what_a_program_may_still_write_to_stays() {
    let mut rig = Rig::new();
    let pinned = rig.keep("p", "one");
    assert_eq!(rig.purge(bytes_limit(0), 40 * DAY).files, 0);
    rig.kept.unpin(&pinned);
    assert_eq!(rig.purge(bytes_limit(0), Duration::ZERO).files, 1);
}

#[test]
fn old_versions_go_with_their_day() {
    let mut rig = Rig::new();
    let place = rig.keep("p", "one");
    rig.kept.unpin(&place);
    for day in [6, 12, 18, 24, 29] {
        assert_eq!(rig.purge(Retention::default(), day * DAY).files, 0);
    }
    assert_eq!(rig.purge(Retention::default(), 31 * DAY).files, 1);
    assert!(rig.kept.days().unwrap().is_empty());
    rig.keep("p", "two");
    rig.reopen();
    assert_eq!((rig.with("one").len(), rig.with("two").len()), (0, 1));
}

#[test]
fn a_clock_that_leaps_by_years_takes_no_version_with_it() {
    let mut rig = Rig::new();
    let place = rig.keep("p", "one");
    rig.kept.unpin(&place);
    rig.purge(Retention::default(), Duration::ZERO);
    // Forwards, over a restart, and as long as it stays there.
    for day in [3650, 3651, 3670] {
        rig.reopen();
        assert_eq!(rig.purge(Retention::default(), day * DAY).files, 0);
    }
    // Set right again, it counts as before.
    for day in [20, 27, 29] {
        assert_eq!(rig.purge(Retention::default(), day * DAY).files, 0);
    }
    assert_eq!(rig.purge(Retention::default(), 31 * DAY).files, 1);
    assert!(rig.kept.days().unwrap().is_empty());
}

#[test]
fn what_is_kept_while_the_clock_is_years_behind_stays_when_it_is_set_right() {
    let mut rig = Rig::new();
    rig.purge(Retention::default(), 7300 * DAY);
    let place = rig.keep("p", "one");
    rig.kept.unpin(&place);
    rig.reopen();
    assert_eq!(rig.purge(Retention::default(), 7300 * DAY).files, 0);
    assert_eq!(rig.purge(Retention::default(), 7306 * DAY).files, 0);
}

#[test]
fn a_day_begins_at_midnight() {
    for seconds in [0, 951_782_400, 951_868_800, 1_795_305_600, 4_107_456_000] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(day_start_ms(day_number(time)), seconds * 1000);
    }
}

#[test]
fn a_directory_that_was_emptied_by_hand_is_written_anew() {
    let mut rig = Rig::new();
    rig.keep("p", "one");
    let day = rig.index().parent().unwrap().to_owned();
    fs::remove_dir_all(day).unwrap();
    let place = rig.keep("p", "two");
    rig.reopen();
    assert_eq!(rig.places("p"), [place]);
}

#[test]
fn a_version_that_the_user_wants_gone_goes_at_once_unless_somebody_wrote_to_it() {
    let mut rig = Rig::new();
    let unwanted = rig.keep("p", "one");
    let written = rig.keep("p", "two");
    rig.keep("q", "one");
    let files = rig.kept.of_path(&rel("p")).unwrap();
    fs::write(rig.path(&written.to_string()), "longer than it was").unwrap();
    let purged = rig.kept.forget(&files).unwrap();
    assert_eq!((purged.files, purged.bytes), (1, 3));
    assert!(!rig.path(&unwanted.to_string()).exists());
    assert_eq!(rig.places("p"), [written]);
    assert_eq!(rig.with("one").len(), 1, "that of another path stays");
    assert_eq!(rig.kept.forget(&files).unwrap(), Purged::default());
}
