//! The store against its model, and what a crash leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, channel};

use p2p_sync_core::engine::{Batch, StateView, Write};
use p2p_sync_core::ids::ShortId;
use p2p_sync_core::rel_path::RelPath;
use proptest::collection::vec;
use proptest::prelude::*;

use super::model::Model;
use super::samples::{self, contents, devices, event, nodes, paths};
use super::*;

type Reports = Receiver<Result<BatchNo, StoreError>>;

fn writer(store: &Store) -> (StoreWriter, Reports) {
    let (sender, reports) = channel();
    let writer = store.writer(move |report| sender.send(report).unwrap()).unwrap();
    (writer, reports)
}

fn batch(no: usize, writes: Vec<Write>) -> Batch {
    let no = BatchNo(no as u64);
    Batch { no, writes }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn marker(no: usize) -> Write {
    Write::Setting("own", Some(vec![no as u8]))
}

/// Puts events at the end of their logs, and tells the model.
fn settle(model: &mut Model, write: Write) -> Write {
    let write = match write {
        Write::Event(e) => {
            let seq = model.log_size(e.author.short());
            Write::Event(event(e.author, seq, e.kind, e.event.body.len()))
        }
        other => other,
    };
    model.apply(&write);
    write
}

fn assert_paths_agree(view: &StoreView, model: &Model) {
    let all = paths();
    for path in &all {
        assert_eq!(view.path_state(path), model.path_state(path));
        assert_eq!(view.installed(path), model.installed(path));
        assert_eq!(view.has_history(path), model.has_history(path));
        assert_eq!(view.versions_of(path), model.versions_of(path));
        assert_eq!(view.mentions(path), model.mentions(path));
        for after in [None, Some(path)] {
            let next = model.next_with_history(None, after);
            assert_eq!(view.next_with_history(None, after), next);
            for dir in &all {
                let next = model.next_with_history(Some(dir), after);
                assert_eq!(view.next_with_history(Some(dir), after), next);
            }
        }
        assert_eq!(view.copy_origin(path), model.copy_origin(path));
        assert_eq!(view.installed_children(Some(path)), model.children(Some(path)));
        for node in &nodes() {
            assert_eq!(view.versions_with(path, node), model.versions_with(path, node));
            assert_eq!(view.replaced(path, node), model.replaced(path, node));
        }
        for after in all.iter().map(Some).chain([None]) {
            for dir in [Some(path), None] {
                assert_eq!(
                    view.next_live_below(dir, after),
                    model.next_live_below(dir, after)
                );
                assert_eq!(
                    view.next_installed_below(dir, after),
                    model.next_installed_below(dir, after)
                );
            }
        }
    }
    for (path, dot) in model.group.versions.keys() {
        assert_eq!(view.version(path, *dot), model.version(path, *dot));
        let other = p2p_sync_core::ids::Dot { item: 9, ..*dot };
        assert_eq!(view.version(path, other), None);
    }
    assert_eq!(view.installed_children(None), model.children(None));
    for content in &contents() {
        assert_eq!(view.path_with_content(content), model.path_with_content(content));
        for limit in [0, 2, usize::MAX] {
            let expected: Vec<_> = model.with_content(content).into_iter().take(limit).collect();
            assert_eq!(view.paths_with_content(content, limit), expected);
        }
    }
}

fn assert_events_agree(view: &StoreView, model: &Model) {
    for device in devices() {
        for seq in 0..=model.log_size(device.short()) {
            assert_eq!(view.event(device.short(), seq), model.event(device.short(), seq));
        }
        assert_eq!(view.event(device.short(), u64::MAX), None);
    }
    assert_eq!(view.author_bytes(), model.author_bytes());
    for sizes in [[0, 0, 0], [1, 0, 3], [2, u64::MAX, 0], [9, 9, 1]] {
        let have = devices().iter().map(|device| device.short()).zip(sizes).collect();
        for max_bytes in [0, 500, usize::MAX] {
            assert_eq!(
                view.events_beyond(&have, max_bytes),
                model.events_beyond(&have, max_bytes)
            );
        }
    }
    let nobody = [(ShortId::new([3; 8]), 5)].into();
    assert_eq!(
        view.events_beyond(&nobody, 1000),
        model.events_beyond(&nobody, 1000)
    );
}

fn assert_agree(store: &Store, model: &Model) {
    let view = store.view().unwrap();
    assert_paths_agree(&view, model);
    assert_events_agree(&view, model);
    for manifest in samples::MANIFESTS.iter() {
        let expected = model.manifests.get(&manifest.content()).map(|m| (**m).clone());
        assert_eq!(view.manifest(&manifest.content()), expected);
    }
    let group = &model.group;
    let recovered = store.load().unwrap();
    let admin = |event: &&p2p_sync_core::engine::StoredEvent| event.kind <= 1;
    let copies = group.installed.values().filter(|i| i.copy_of.is_some()).count() as u64;
    let files = group
        .installed
        .values()
        .filter(|i| i.entry.node.content().is_some());
    assert_eq!(recovered.logs, group.logs);
    assert_eq!(recovered.settings, group.settings);
    assert_eq!(recovered.needs, group.needs.iter().cloned().collect::<Vec<_>>());
    assert_eq!(
        recovered.admin_events,
        group.events.iter().filter(admin).cloned().collect::<Vec<_>>()
    );
    assert_eq!(recovered.installed_count, group.installed.len() as u64);
    assert_eq!(recovered.copies_count, copies);
    let counts = Counts {
        events: group.events.len() as u64,
        installed: group.installed.len() as u64,
        files: files.count() as u64,
        copies,
        needs: group.needs.len() as u64,
    };
    assert_eq!(view.counts(), counts);
    assert!(!view.failed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reads_agree_with_the_model(
        batches in vec(vec(samples::write(), 0..40), 1..5),
        forget in proptest::option::weighted(0.3, 0..4_usize),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
        let (writer, _reports) = writer(&store);
        let mut model = Model::default();
        for (no, writes) in batches.into_iter().enumerate() {
            let before = (forget == Some(no)).then_some(Write::Forget);
            let writes = before.into_iter().chain(writes).map(|w| settle(&mut model, w)).collect();
            writer.submit(batch(no + 1, writes)).unwrap();
        }
        writer.close();
        assert_agree(&store, &model);
        drop((writer, store));
        assert_agree(&Store::open(&dir.path().join("store.sqlite")).unwrap(), &model);
    }
}

/// Copies the files as they are, as a crash would leave them.
fn snapshot(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in ["store.sqlite", "store.sqlite-wal"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Each batch leaves its number, marks two paths of its own, and unmarks one of the batch before.
fn numbered(no: usize) -> Batch {
    let mark = |no: usize, part: &str, need| Write::Need(path(&format!("{no}/{part}")), need);
    let writes = vec![
        mark(no, "a", true),
        marker(no),
        mark(no, "b", true),
        mark(no - 1, "b", false),
    ];
    batch(no, writes)
}

/// Returns how many numbered batches the store shows, after checking that it shows whole ones.
fn shown(store: &Store) -> usize {
    let recovered = store.load().unwrap();
    let last = recovered
        .settings
        .get("own")
        .map_or(0, |value| usize::from(value[0]));
    let mut expected: Vec<_> = (1..=last).map(|no| path(&format!("{no}/a"))).collect();
    expected.extend((last > 0).then(|| path(&format!("{last}/b"))));
    expected.sort();
    assert_eq!(recovered.needs, expected);
    last
}

#[test]
fn a_crash_leaves_exactly_the_committed_batches() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (sender, reports) = channel();
    let root = dir.path().to_path_buf();
    let writer = store
        .writer(move |report| {
            let no = report.unwrap().0;
            snapshot(&root, &root.join(no.to_string()));
            sender.send(no).unwrap();
        })
        .unwrap();
    for no in 1..=5 {
        writer.submit(numbered(no)).unwrap();
        assert_eq!(reports.recv().unwrap(), no as u64);
    }
    for no in 1..=5 {
        let copy = dir.path().join(no.to_string()).join("store.sqlite");
        assert_eq!(shown(&Store::open(&copy).unwrap()), no);
    }
}

#[test]
fn a_torn_log_shows_whole_batches_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (writer, reports) = writer(&store);
    for no in 1..=4 {
        writer.submit(numbered(no)).unwrap();
        reports.recv().unwrap().unwrap();
    }
    let whole = fs::metadata(dir.path().join("store.sqlite-wal")).unwrap().len();
    let mut last = 0;
    for (i, cut) in (0..=whole).step_by(1000).enumerate() {
        let copy = dir.path().join(format!("cut{i}"));
        snapshot(dir.path(), &copy);
        let log = fs::File::options()
            .write(true)
            .open(copy.join("store.sqlite-wal"))
            .unwrap();
        log.set_len(cut).unwrap();
        let now = shown(&Store::open(&copy.join("store.sqlite")).unwrap());
        assert!(now >= last && now <= 4, "{now} after {last}");
        last = now;
    }
    assert!(last >= 3);
}

#[test]
fn waiting_batches_share_a_transaction_and_the_highest_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (sender, reports) = channel();
    let (go, gate) = channel::<()>();
    let writer = store
        .writer(move |report| {
            sender.send(report.unwrap().0).unwrap();
            let _ = gate.recv();
        })
        .unwrap();
    writer.submit(batch(1, vec![marker(1)])).unwrap();
    assert_eq!(reports.recv().unwrap(), 1);
    for no in 2..=100 {
        writer.submit(batch(no, vec![marker(no)])).unwrap();
    }
    drop(go);
    writer.close();
    assert_eq!(reports.iter().collect::<Vec<_>>(), [65, 100]);
    assert!(!writer.is_behind());
    assert!(matches!(
        writer.submit(batch(101, vec![])),
        Err(StoreError::Refused)
    ));
    assert_eq!(store.load().unwrap().settings["own"], [100]);
}

#[test]
fn dropping_the_writer_makes_all_that_was_submitted_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (writer, reports) = writer(&store);
    for no in 1..=9 {
        writer.submit(numbered(no)).unwrap();
    }
    drop(writer);
    assert_eq!(reports.iter().last().unwrap().unwrap(), BatchNo(9));
    assert_eq!(shown(&store), 9);
}

#[test]
fn after_a_failed_transaction_everything_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (writer, reports) = writer(&store);
    let first = event(devices()[0], 0, 2, 5);
    writer
        .submit(batch(1, vec![Write::Event(first.clone()), marker(1)]))
        .unwrap();
    reports.recv().unwrap().unwrap();
    writer
        .submit(batch(2, vec![Write::Event(first.clone()), marker(2)]))
        .unwrap();
    assert_eq!(reports.recv().unwrap().unwrap(), BatchNo(2));
    let mut other = first.clone();
    other.id = p2p_sync_core::ids::EventId::new([9; 32]);
    writer
        .submit(batch(3, vec![marker(3), Write::Event(other)]))
        .unwrap();
    assert!(matches!(
        reports.recv().unwrap(),
        Err(StoreError::EventConflict { seq: 0, .. })
    ));
    assert!(matches!(
        writer.submit(batch(4, vec![marker(4)])),
        Err(StoreError::Refused)
    ));
    writer.close();
    assert!(reports.recv().is_err());
    assert_eq!(store.load().unwrap().settings["own"], [2]);
    assert_eq!(store.view().unwrap().event(first.author.short(), 0), Some(first));
}

#[test]
fn transfers_notes_are_read_at_once_and_outlive_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.sqlite");
    let store = Store::open(&file).unwrap();
    let (writer, reports) = writer(&store);
    let [kept, gone, _] = contents()[..] else {
        unreachable!()
    };
    let manifest = &samples::MANIFESTS[2];
    writer.set_partial(kept, vec![1]);
    writer.set_partial(kept, vec![3]);
    writer.set_partial(gone, vec![7]);
    assert_eq!(writer.partial(&kept), Some(vec![3]));
    writer.put_manifest(manifest.clone());
    writer.submit(batch(1, vec![marker(1)])).unwrap();
    reports.recv().unwrap().unwrap();
    assert_eq!(writer.partial(&kept), Some(vec![3]));
    writer.clear_partial(gone);
    assert_eq!(writer.partial(&gone), None);
    writer.submit(batch(2, vec![Write::Forget])).unwrap();
    drop((writer, store));
    let store = Store::open(&file).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.partial(&kept), Some(vec![3]));
    assert_eq!(view.partial(&gone), None);
    assert_eq!(view.manifest(&manifest.content()).as_ref(), Some(&**manifest));
    assert_eq!(store.load().unwrap().settings.len(), 0);
}

#[test]
fn notes_alone_are_committed_without_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (writer, reports) = writer(&store);
    writer.set_partial(contents()[0], vec![5]);
    writer.close();
    assert!(reports.recv().is_err());
    let view = store.view().unwrap();
    assert_eq!(view.partial(&contents()[0]), Some(vec![5]));
    assert_eq!(writer.partial(&contents()[0]), Some(vec![5]));
}

#[test]
fn a_second_daemon_is_refused_while_any_part_lives() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.sqlite");
    let store = Store::open(&file).unwrap();
    let own = Some(std::process::id());
    let refused = || matches!(Store::open(&file), Err(StoreError::Locked { pid, .. }) if pid == own);
    assert!(refused());
    let (writer, _reports) = writer(&store);
    let view = store.view().unwrap();
    drop(store);
    assert!(refused());
    drop(writer);
    assert!(refused());
    drop(view);
    assert!(Store::open(&file).is_ok());
}

#[test]
fn only_the_owner_can_read_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.sqlite");
    fs::write(&file, b"").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&file).unwrap();
    let (writer, reports) = writer(&store);
    writer.submit(batch(1, vec![marker(1)])).unwrap();
    reports.recv().unwrap().unwrap();
    let modes: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777)
        .collect();
    assert_eq!(modes, [MODE; 4]);
}

#[test]
fn files_of_others_and_of_the_future_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str, sql: &str| {
        let file = dir.path().join(name);
        drop(Store::open(&file));
        let connection = Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        Store::open(&file)
    };
    assert!(matches!(
        open("foreign", "PRAGMA application_id = 5"),
        Err(StoreError::Foreign { .. })
    ));
    assert!(matches!(
        open("newer", "PRAGMA user_version = 99"),
        Err(StoreError::Newer { found: 99, .. })
    ));
    let text = dir.path().join("text");
    fs::write(&text, "no database at all\n".repeat(300)).unwrap();
    assert!(matches!(Store::open(&text), Err(StoreError::Open { .. })));
}

#[test]
fn a_damaged_row_latches_the_view() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let view = store.view().unwrap();
    let sql = "INSERT INTO installed (path, content, copy, data) VALUES (X'61', NULL, 0, X'00FF')";
    store.connection.execute_batch(sql).unwrap();
    assert_eq!(view.installed(&path("b")), None);
    assert!(!view.failed());
    assert_eq!(view.installed(&path("a")), None);
    assert!(view.failed());
}

#[test]
fn the_store_is_durable_and_journalled_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    for (pragma, value) in [
        ("synchronous", 2),
        ("wal_autocheckpoint", 16384),
        ("page_size", 4096),
        ("user_version", 6),
    ] {
        let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let found = store.connection.pragma_query_value(None, pragma, read).unwrap();
        assert_eq!(found, value, "{pragma}");
    }
    let mode: String = store
        .connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn what_a_user_decided_about_is_listed_no_more_until_it_is_judged_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let (writer, reports) = writer(&store);
    let view = store.view().unwrap();
    let dot = |seq| p2p_sync_core::ids::Dot {
        device: ShortId::new([7; 8]),
        seq,
        item: 0,
    };
    let said: Vec<(RelPath, p2p_sync_core::ids::Dot)> = [("a", 1), ("a", 2), ("a-b", 3), ("a/b", 4)]
        .map(|(at, seq)| (path(at), dot(seq)))
        .into();
    let mention = |(path, dot): &(RelPath, _), there| Write::Mention(path.clone(), *dot, there);
    let all = said.iter().map(|item| mention(item, true)).collect();
    writer.submit(batch(1, all)).unwrap();
    reports.recv().unwrap().unwrap();
    assert_eq!(view.unsettled(None, 9), said);
    assert_eq!(view.unsettled(None, 2), said[..2]);
    assert_eq!(view.unsettled(Some(&said[1]), 9), said[2..]);

    writer.settle(path("a"), vec![dot(1), dot(9)]).unwrap();
    assert_eq!(view.unsettled(None, 9), said[1..]);
    assert_eq!(view.unsettled_of(&path("a")), [dot(2)]);
    assert_eq!(view.mentions(&path("a")), [dot(1), dot(2)], "it is still said");
    writer.submit(batch(2, vec![mention(&said[0], true)])).unwrap();
    reports.recv().unwrap().unwrap();
    assert_eq!(
        view.unsettled_of(&path("a")),
        [dot(2)],
        "saying it again changes nothing"
    );

    let judged = vec![mention(&said[0], false), Write::Setting("other", None)];
    writer.submit(batch(3, judged)).unwrap();
    writer.submit(batch(4, vec![mention(&said[0], true)])).unwrap();
    while reports.recv().unwrap().unwrap() < BatchNo(4) {}
    assert_eq!(view.unsettled(None, 9), said);

    writer.close();
    let refused = writer.settle(path("a"), vec![dot(1)]);
    assert!(matches!(refused, Err(StoreError::Refused)), "{refused:?}");
}

#[test]
fn the_bytes_of_each_authors_events_are_counted_as_they_come_and_derived_for_a_store_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.sqlite");
    let store = Store::open(&file).unwrap();
    let (writer, reports) = writer(&store);
    let view = store.view().unwrap();
    let (one, other) = (DeviceId::new([1; 32]), DeviceId::new([2; 32]));
    let mut branch = event(one, 1, 2, 700);
    branch.log = ShortId::new([9; 8]);
    let events = [
        event(one, 0, 2, 10),
        event(one, 1, 2, 2_000),
        branch,
        event(other, 0, 2, 5),
    ];
    let len = |of: DeviceId| {
        let of = events.iter().filter(|event| event.author == of);
        of.map(|event| event.event.len() as u64).sum::<u64>()
    };
    let expected = vec![(one, len(one)), (other, len(other))];
    for (no, event) in (1..).zip(&events) {
        writer
            .submit(batch(no, vec![Write::Event(event.clone())]))
            .unwrap();
    }
    // What is there already counts once.
    writer
        .submit(batch(5, vec![Write::Event(events[1].clone())]))
        .unwrap();
    while reports.recv().unwrap().unwrap() < BatchNo(5) {}
    assert_eq!(view.author_bytes(), expected);

    writer.close();
    drop((writer, view));
    let before = "DROP TABLE author_bytes; PRAGMA user_version = 4;";
    store.connection.execute_batch(before).unwrap();
    drop(store);
    let store = Store::open(&file).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.author_bytes(), expected);

    let (writer, reports) = self::writer(&store);
    writer.submit(batch(6, vec![Write::Forget])).unwrap();
    reports.recv().unwrap().unwrap();
    assert_eq!(view.author_bytes(), []);
    assert!(!view.failed());
}
