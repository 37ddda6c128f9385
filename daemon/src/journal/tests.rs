use std::os::unix::fs::FileExt;

use p2p_sync_core::engine::OwnLogSize;
use p2p_sync_core::rel_path::RelPath;

use super::*;

fn set(paths: &[&str]) -> HashSet<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

fn intent(tx: Tx, path: &str) -> Intent {
    Intent {
        tx,
        action: IntentAction::Remove,
        path: RelPath::parse(path).unwrap(),
        expect: None,
        new: None,
        staged: None,
        from: None,
    }
}

fn journal_path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join(".p2p-sync/journal")
}

#[test]
fn paths_in_use_are_recovered_until_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    assert!(journal.was_missing());
    assert_eq!(journal.check_for_recovery().unwrap(), set(&[]));
    journal.log_activity(&set(&["a", "b/c"])).unwrap();
    drop(journal);
    for _ in 0..2 {
        let journal = JournalService::new(dir.path()).unwrap();
        assert_eq!(journal.check_for_recovery().unwrap(), set(&["a", "b/c"]));
        journal.log_activity(&set(&["d"])).unwrap();
        journal.log_activity(&set(&[])).unwrap();
    }
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["a", "b/c"]));
    journal.clear().unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&[]));
    drop(journal);
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&[]));
    assert!(!journal.was_missing() && !journal.was_rebooted());
}

#[test]
fn the_same_set_again_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    journal.log_activity(&set(&["a"])).unwrap();
    let len = std::fs::metadata(journal_path(&dir)).unwrap().len();
    journal.log_activity(&set(&["a"])).unwrap();
    assert_eq!(std::fs::metadata(journal_path(&dir)).unwrap().len(), len);
}

#[test]
fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = JournalService::new(dir.path()).unwrap();
    assert!(matches!(
        JournalService::new(dir.path()),
        Err(JournalError::InUse(_))
    ));
    first.clear().unwrap();
    assert!(matches!(
        JournalService::new(dir.path()),
        Err(JournalError::InUse(_))
    ));
    drop(first);
    JournalService::new(dir.path()).unwrap();
}

#[test]
fn open_installs_come_back_and_done_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    let (a, b) = (journal.next_tx().unwrap(), journal.next_tx().unwrap());
    journal.begin_installs(&[intent(a, "a"), intent(b, "b")]).unwrap();
    journal.done(&[a]).unwrap();
    journal.clear().unwrap();
    drop(journal);
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.open_installs(), &[intent(b, "b")]);
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["b"]));
    assert!(journal.is_open(b));
}

#[test]
fn a_torn_tail_is_cut_and_damage_in_the_middle_means_everything() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    journal.log_activity(&set(&["a"])).unwrap();
    let good = std::fs::metadata(journal_path(&dir)).unwrap().len();
    journal.log_activity(&set(&["a", "b"])).unwrap();
    drop(journal);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(journal_path(&dir))
        .unwrap();
    file.set_len(good + 5).unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["a"]));
    assert!(!journal.was_damaged());
    drop(journal);

    file.write_all_at(b"?", good - 1).unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["."]));
    assert!(journal.was_damaged());
    drop(journal);
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["."]));
    journal.clear().unwrap();
}

fn own_log() -> OwnLog {
    OwnLog {
        group: p2p_sync_core::ids::GroupId::new([1; 32]),
        device: p2p_sync_core::ids::ShortId::new([2; 8]),
    }
}

#[test]
fn a_long_journal_is_rewritten_with_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    let kept = journal.next_tx().unwrap();
    journal.begin_installs(&[intent(kept, "kept")]).unwrap();
    journal.log_activity(&set(&["used"])).unwrap();
    let size = OwnLogSize {
        events: 640,
        members: 2,
    };
    journal.note_own_log(own_log(), size).unwrap();
    let long = "d/".repeat(120) + "e";
    let before = std::fs::metadata(journal_path(&dir)).unwrap().len();
    for _ in 0..4 {
        let txs: Vec<_> = (0..1200).map(|_| journal.next_tx().unwrap()).collect();
        let intents: Vec<_> = txs.iter().map(|tx| intent(*tx, &long)).collect();
        journal.begin_installs(&intents).unwrap();
        journal.done(&txs).unwrap();
    }
    let after = std::fs::metadata(journal_path(&dir)).unwrap().len();
    assert!(after > before && after < 1_100_000, "{after}");
    drop(journal);
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.open_installs(), &[intent(kept, "kept")]);
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["kept", "used"]));
    assert_eq!(journal.own_log(&own_log()).unwrap(), size);
}

#[test]
fn paths_outside_are_refused_and_too_many_mean_everything() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalService::new(dir.path()).unwrap();
    for bad in ["/etc/passwd", "../x", ""] {
        assert!(matches!(
            journal.log_activity(&set(&[bad])),
            Err(JournalError::NotInFolder(_))
        ));
    }
    let many = (0..=MAX_IN_USE).map(|i| PathBuf::from(i.to_string())).collect();
    journal.log_activity(&many).unwrap();
    drop(journal);
    let journal = JournalService::new(dir.path()).unwrap();
    assert_eq!(journal.check_for_recovery().unwrap(), set(&["."]));
}

#[test]
fn links_in_place_of_own_files_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join(".p2p-sync")).unwrap();
    assert!(JournalService::new(dir.path()).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
