//! Starting after a crash in the middle of installs.

use p2p_sync_core::engine::RecoveredInstall;
use p2p_sync_core::rel_path::RelPath;

use crate::desk::{Desk, File};

#[test]
fn what_an_install_took_away_before_a_crash_is_not_taken_for_deleted_by_its_user() {
    let mut desk = Desk::pair();
    let path = RelPath::parse("f").expect("well-formed");
    let file = File { ino: 1, content: 1 };
    desk.report(0, &[(path.clone(), Some(file))]);
    desk.pass(10_000);
    // It was not wanted for a moment (its path was a directory's), went, and was wanted again before that was recorded.
    desk.seats[0].next_scan = vec![(path.clone(), None)];
    let (now, taken) = (None, path.clone());
    desk.restart_after(0, vec![RecoveredInstall { path: taken, now }]);
    desk.connect(0, 1);
    desk.pass(60_000);
    for seat in &desk.seats {
        assert!(seat.floor.0.contains_key(&path), "{:?}", seat.engine.status());
    }
}
