//! An old copy of a device's store is put back: its own log has to be whole again before it grows.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{Command, CommandError, FolderState, Request};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::sim::store::Tables;

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

/// A pair in which the owner, 0, made an event after the copy of its store was taken, and that copy.
fn with_old_copy() -> (Desk, Tables) {
    let mut desk = Desk::pair();
    desk.report(0, &[(path("before"), file(1))]);
    desk.pass(10_000);
    let old = desk.seats[0].store.durable().clone();
    desk.report(0, &[(path("after"), file(2))]);
    desk.pass(10_000);
    (desk, old)
}

fn invite() -> Command {
    Command::CreateInvite {
        role: Role::Editor,
        expires_ms: None,
        max_uses: 1,
        scopes: p2p_sync_core::access::Scopes::whole(),
        person: None,
        secret: [9; 32],
    }
}

fn log_of(desk: &Desk, at: usize) -> Vec<[u8; 32]> {
    let author = desk.seats[0].id().short();
    let events = desk.seats[at].store.durable().events.values();
    let own = events.filter(|event| event.author.short() == author);
    own.map(|event| *event.id.as_bytes()).collect()
}

#[test]
fn no_event_is_made_before_the_newest_own_ones_are_back() {
    let (mut desk, old) = with_old_copy();
    let made = desk.seats[0].engine.own_seq();
    let log = desk.seats[0].engine.own_log_size();
    desk.seats[0].store.put_back(old);
    desk.seats[0].next_scan = vec![(path("before"), file(1)), (path("after"), file(2))];
    desk.restart_expecting(0, log);
    desk.report(0, &[(path("new"), file(3))]);
    desk.command(0, invite());
    desk.pass(10_000);
    let reply = desk.seats[0].replies.pop();
    assert_eq!(reply, Some(Err(CommandError::OwnEventsMissing)));
    let status = desk.seats[0].engine.status();
    assert_eq!(
        (status.own_events_missing, status.state),
        (1, FolderState::Starting)
    );
    assert_eq!(desk.seats[0].engine.own_seq(), made - 1);
    desk.connect(0, 1);
    desk.pass(10_000);
    let status = desk.seats[0].engine.status();
    assert_eq!(
        (status.own_events_missing, status.state),
        (0, FolderState::InSync)
    );
    desk.report(0, &[(path("new"), file(3))]);
    desk.pass(10_000);
    assert_eq!(log_of(&desk, 0), log_of(&desk, 1));
    assert_eq!(desk.seats[0].engine.own_seq(), made + 1);
    assert!(desk.seats[1].store.durable().installed.contains_key(&path("new")));
}

#[test]
fn events_that_no_member_has_are_given_up() {
    let (mut desk, old) = with_old_copy();
    desk.disconnect(0, 1);
    desk.report(0, &[(path("never told"), file(4))]);
    desk.pass(10_000);
    let made = desk.seats[0].engine.own_seq();
    let log = desk.seats[0].engine.own_log_size();
    desk.seats[0].store.put_back(old);
    desk.seats[0].next_scan = vec![
        (path("before"), file(1)),
        (path("after"), file(2)),
        (path("never told"), file(4)),
    ];
    desk.restart_expecting(0, log);
    desk.pass(10_000);
    assert_eq!(desk.seats[0].engine.status().own_events_missing, 2);
    desk.connect(0, 1);
    desk.pass(10_000);
    assert_eq!(log_of(&desk, 0), log_of(&desk, 1));
    // The file is published anew, with the number of the event that was given up.
    assert_eq!(desk.seats[0].engine.own_seq(), made);
    assert!(
        desk.seats[1]
            .store
            .durable()
            .installed
            .contains_key(&path("never told"))
    );
}

/// An owner's copy of before he invited anybody: whoever came since knows him, though he does not.
#[test]
fn no_event_is_made_before_those_are_heard_who_came_after_the_copy() {
    let mut desk = Desk::new(2, false);
    desk.pass(1_000);
    let old = desk.seats[0].store.durable().clone();
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    let log = desk.seats[0].engine.own_log_size();
    assert_eq!(log.members, 2);
    desk.disconnect(0, 1);
    desk.seats[0].store.put_back(old);
    desk.restart_expecting(0, log);
    desk.report(0, &[(path("new"), file(3))]);
    desk.pass(10_000);
    assert_eq!(desk.seats[0].engine.own_seq(), 1);
    assert_eq!(desk.seats[0].engine.status().own_events_missing, log.events - 1);
    desk.connect(0, 1);
    desk.pass(10_000);
    desk.report(0, &[(path("new"), file(3))]);
    desk.pass(10_000);
    assert_eq!(log_of(&desk, 0), log_of(&desk, 1));
    assert!(desk.seats[1].store.durable().installed.contains_key(&path("new")));
}

/// The owner let a device in, and an old copy of his state does not know: with another ticket he lets it in again.
#[test]
fn who_was_let_in_by_an_event_that_is_lost_joins_with_another_ticket() {
    let mut desk = Desk::new(2, false);
    desk.pass(1_000);
    let old = desk.seats[0].store.durable().clone();
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 1);
    // He is let in, and hears nothing of the ledger before that is lost.
    let clock = desk.clock();
    let let_in = clock.get();
    desk.loses_question = Box::new(move |_, _, request| {
        clock.get() < let_in + 20_000 && matches!(request, Request::Pull { .. } | Request::Push { .. })
    });
    desk.command(1, Command::Join { ticket });
    assert_eq!(desk.seats[0].group(), desk.seats[1].group());
    desk.disconnect(0, 1);
    desk.seats[0].store.put_back(old);
    desk.restart(0);
    desk.pass(30_000);
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 1);
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().role, None);
    desk.command(1, Command::Join { ticket });
    desk.pass(30_000);
    desk.report(0, &[(path("new"), file(3))]);
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().role, Some(Role::Editor));
    assert!(desk.seats[1].store.durable().installed.contains_key(&path("new")));
}

/// The copy knows of one other member, who has none of the newest events; the one who has them came later.
#[test]
fn who_came_after_the_copy_is_awaited_though_all_that_it_knows_of_were_asked() {
    let mut desk = Desk::new(3, false);
    desk.pass(1_000);
    let join = |desk: &mut Desk, guest: usize| {
        let ticket = desk.invite(0, Role::Editor);
        desk.connect(0, guest);
        desk.command(guest, Command::Join { ticket });
        desk.pass(10_000);
    };
    join(&mut desk, 1);
    let old = desk.seats[0].store.durable().clone();
    let made = desk.seats[0].engine.own_seq();
    desk.disconnect(0, 1);
    join(&mut desk, 2);
    let log = desk.seats[0].engine.own_log_size();
    assert_eq!(log.members, 3);
    desk.disconnect(0, 2);
    desk.seats[0].store.put_back(old);
    desk.restart_expecting(0, log);
    desk.connect(0, 1);
    desk.pass(60_000);
    assert_eq!(desk.seats[0].engine.own_seq(), made);
    assert_eq!(desk.seats[0].engine.status().state, FolderState::Starting);
    desk.connect(0, 2);
    desk.pass(60_000);
    let status = desk.seats[0].engine.status();
    assert_eq!(
        (status.own_events_missing, status.state),
        (0, FolderState::InSync)
    );
    assert_eq!(log_of(&desk, 0), log_of(&desk, 2));
}
