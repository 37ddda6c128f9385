//! Roles that change: who is removed or lowered, what of his events counts, and what becomes of his folder.

use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{
    Command, CommandError, Cut, FolderState, MembersCommand, MembersReply, Membership, Notification, Removal,
    Reply, StateView,
};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;

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

fn content(number: u64) -> Option<ContentHash> {
    file(number).map(File::observed)?.entry.node.content()
}

impl Desk {
    /// What the group has at a path, as a device knows it.
    fn winner(&self, index: usize, at: &str) -> Option<ContentHash> {
        let state = self.seats[index].store.durable().path_state(&path(at))?;
        state.winner()?.entry.as_ref()?.node.content()
    }

    pub(crate) fn remove(&mut self, by: usize, whom: usize, cut: Option<Cut>) -> Result<Reply, CommandError> {
        let how = Removal {
            cut,
            ..Removal::default()
        };
        let devices = vec![self.seats[whom].id()];
        self.members(by, MembersCommand::Remove { devices, how })
    }

    pub(crate) fn change_role(
        &mut self,
        by: usize,
        whom: usize,
        role: Role,
        at_once: bool,
    ) -> Result<Reply, CommandError> {
        let wanted = Membership {
            role,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
        };
        let device = self.seats[whom].id();
        self.members(
            by,
            MembersCommand::ChangeRole {
                device,
                wanted,
                at_once,
            },
        )
    }

    pub(crate) fn members(&mut self, by: usize, command: MembersCommand) -> Result<Reply, CommandError> {
        self.command(by, Command::Members(command));
        self.seats[by].replies.pop().expect("an answer")
    }

    pub(crate) fn role(&self, index: usize) -> Option<Role> {
        self.seats[index].engine.status().role
    }

    pub(crate) fn state(&self, index: usize) -> FolderState {
        self.seats[index].engine.status().state
    }

    /// Three members, all connected: the founder, and two in these roles.
    pub(crate) fn three(second: Role, third: Role) -> Self {
        let mut desk = Self::new(3, false);
        for (index, role) in [(1, second), (2, third)] {
            let ticket = desk.invite(0, role);
            desk.connect(0, index);
            desk.command(index, Command::Join { ticket });
            desk.pass(10_000);
        }
        desk.connect(1, 2);
        desk.pass(10_000);
        desk
    }
}

#[test]
fn edits_of_a_device_that_was_removed_meanwhile_count_nowhere_and_stay_in_its_own_folder() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    desk.report(1, &[(path("a"), file(1))]);
    desk.pass(10_000);
    desk.disconnect(0, 1);
    desk.disconnect(1, 2);
    desk.remove(0, 1, None).expect("removed");
    desk.report(1, &[(path("a"), file(2)), (path("b"), file(3))]);
    desk.pass(5_000);
    assert_eq!(desk.winner(1, "a"), content(2));
    desk.connect(0, 1);
    desk.connect(1, 2);
    desk.pass(120_000);
    for index in [0, 2] {
        assert_eq!(desk.winner(index, "a"), content(1), "device {index}");
        assert_eq!(desk.winner(index, "b"), None, "device {index}");
        assert!(desk.state(index) == FolderState::InSync, "device {index}");
    }
    assert!(desk.state(1) == FolderState::Removed);
    assert_eq!(desk.role(1), None);
    let installed = &desk.seats[1].store.durable().installed;
    let here = |at: &str| installed.get(&path(at)).and_then(|row| row.entry.node.content());
    assert_eq!((here("a"), here("b")), (content(2), content(3)));
    // What it does from now on it does alone, also after a restart.
    desk.restart(1);
    desk.report(1, &[(path("c"), file(4))]);
    desk.pass(10_000);
    assert!(desk.state(1) == FolderState::Removed);
    assert_eq!(desk.winner(1, "c"), None);
}

#[test]
fn what_a_peer_had_received_beyond_the_cut_is_taken_back() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    desk.report(0, &[(path("a"), file(1))]);
    desk.pass(10_000);
    desk.disconnect(0, 1);
    desk.disconnect(0, 2);
    desk.report(1, &[(path("a"), file(2)), (path("b"), file(3))]);
    desk.pass(10_000);
    assert_eq!(desk.winner(2, "a"), content(2));
    desk.remove(0, 1, None).expect("removed");
    desk.connect(0, 2);
    desk.pass(120_000);
    for index in [0, 2] {
        assert_eq!(desk.winner(index, "a"), content(1), "device {index}");
        assert_eq!(desk.winner(index, "b"), None, "device {index}");
        assert!(desk.state(index) == FolderState::InSync, "device {index}");
    }
    let installed = &desk.seats[2].store.durable().installed;
    assert_eq!(
        installed.get(&path("a")).and_then(|row| row.entry.node.content()),
        content(1)
    );
    assert!(!installed.contains_key(&path("b")));
}

#[test]
fn a_lower_cut_undoes_what_a_stolen_editor_did_on_all_peers() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    desk.report(
        0,
        &[(path("a"), file(1)), (path("b"), file(2)), (path("c"), file(3))],
    );
    desk.pass(10_000);
    let before = desk.seats[1].engine.own_seq();
    desk.report(
        1,
        &[(path("a"), file(7)), (path("b"), file(8)), (path("c"), None)],
    );
    desk.pass(10_000);
    // An honest edit on top of a bad one survives: as what it is, an edit.
    desk.report(2, &[(path("b"), file(9))]);
    desk.pass(10_000);
    assert_eq!(desk.winner(0, "a"), content(7));
    desk.remove(0, 1, Some(Cut::Number(before))).expect("removed");
    desk.pass(120_000);
    for index in [0, 2] {
        assert_eq!(desk.winner(index, "a"), content(1), "device {index}");
        assert_eq!(desk.winner(index, "b"), content(9), "device {index}");
        assert_eq!(desk.winner(index, "c"), content(3), "device {index}");
        assert!(desk.state(index) == FolderState::InSync, "device {index}");
    }
}

#[test]
fn a_cut_below_a_removal_says_that_removal_again() {
    let mut desk = Desk::three(Role::Admin, Role::Editor);
    let before = desk.seats[1].engine.own_seq();
    let editor = desk.seats[2].id();
    desk.remove(1, 2, None).expect("an admin removes an editor");
    desk.pass(10_000);
    let reply = desk.remove(0, 1, Some(Cut::Number(before))).expect("removed");
    let Reply::Members(MembersReply::Removed { again, .. }) = reply else {
        panic!("another answer");
    };
    assert_eq!(again, [editor]);
    let reply = desk.members(0, MembersCommand::List).expect("a list");
    let Reply::Members(MembersReply::Members(members)) = reply else {
        panic!("another answer");
    };
    let roles: Vec<Option<Role>> = members.iter().map(|member| member.role).collect();
    assert_eq!(roles.iter().flatten().collect::<Vec<_>>(), [&Role::Owner]);
}

#[test]
fn who_was_let_in_by_an_admin_beyond_his_cut_hears_that_he_is_out() {
    let mut desk = Desk::new(3, false);
    let ticket = desk.invite(0, Role::Admin);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    let before = desk.seats[1].engine.own_seq();
    let ticket = desk.invite(1, Role::Editor);
    desk.connect(1, 2);
    desk.command(2, Command::Join { ticket });
    desk.pass(10_000);
    desk.connect(0, 2);
    desk.report(2, &[(path("a"), file(1))]);
    desk.pass(10_000);
    assert_eq!(desk.winner(0, "a"), content(1));
    desk.remove(0, 1, Some(Cut::Number(before))).expect("removed");
    desk.report(2, &[(path("b"), file(2))]);
    desk.pass(120_000);
    assert!(desk.state(1) == FolderState::Removed && desk.state(2) == FolderState::Removed);
    assert_eq!((desk.winner(0, "a"), desk.winner(0, "b")), (None, None));
    // Admitted rightly, it brings its files along.
    desk.seats[2].next_scan = vec![(path("a"), file(1)), (path("b"), file(2))];
    let ticket = desk.invite(0, Role::Editor);
    desk.command(2, Command::Join { ticket });
    desk.pass(120_000);
    assert_eq!(
        (desk.winner(0, "a"), desk.winner(0, "b")),
        (content(1), content(2))
    );
    assert!(desk.state(0) == FolderState::InSync && desk.state(2) == FolderState::InSync);
}

#[test]
fn two_admins_cannot_remove_each_other_and_nobody_an_owner() {
    let mut desk = Desk::three(Role::Admin, Role::Admin);
    for (by, whom) in [(1, 2), (2, 1), (1, 0), (2, 0)] {
        assert_eq!(
            desk.remove(by, whom, None),
            Err(CommandError::Outranked),
            "{by} removes {whom}"
        );
    }
    desk.pass(10_000);
    let roles = [desk.role(0), desk.role(1), desk.role(2)];
    assert_eq!(roles, [Some(Role::Owner), Some(Role::Admin), Some(Role::Admin)]);
    // An owner that the first made is its junior.
    desk.change_role(0, 1, Role::Owner, false).expect("made an owner");
    desk.pass(10_000);
    assert_eq!(desk.role(1), Some(Role::Owner));
    assert_eq!(desk.remove(1, 0, None), Err(CommandError::Outranked));
    desk.remove(1, 2, None).expect("an owner removes an admin");
    desk.remove(0, 1, None)
        .expect("the senior owner removes the junior");
    desk.pass(60_000);
    assert!(desk.state(1) == FolderState::Removed && desk.state(2) == FolderState::Removed);
}

#[test]
fn who_is_lowered_gently_keeps_what_he_did_before_he_heard_of_it() {
    for at_once in [false, true] {
        let mut desk = Desk::three(Role::Editor, Role::Editor);
        desk.disconnect(0, 1);
        desk.disconnect(1, 2);
        desk.change_role(0, 1, Role::Viewer, at_once).expect("lowered");
        desk.report(1, &[(path("a"), file(1))]);
        desk.pass(5_000);
        desk.connect(0, 1);
        desk.pass(60_000);
        let expected = if at_once { None } else { content(1) };
        assert_eq!(desk.winner(0, "a"), expected, "at once: {at_once}");
        let device = desk.seats[1].id();
        let denied = Notification::Denied {
            device,
            path: Some(path("a")),
        };
        assert_eq!(desk.seats[0].notified.contains(&denied), at_once);
        assert_eq!(desk.winner(2, "a"), expected, "at once: {at_once}");
        assert_eq!(desk.role(1), Some(Role::Viewer));
        desk.report(1, &[(path("later"), file(2))]);
        desk.pass(10_000);
        assert_eq!(desk.winner(0, "later"), None);
        assert_eq!(desk.winner(1, "later"), None);
    }
}

#[test]
fn a_viewers_edit_is_put_right_and_his_new_file_left_alone_until_he_may_write() {
    let mut desk = Desk::pair_as(Role::Viewer);
    desk.report(0, &[(path("a"), file(1)), (path("gone"), file(2))]);
    desk.pass(10_000);
    desk.report(
        1,
        &[
            (path("a"), file(7)),
            (path("gone"), None),
            (path("mine"), file(8)),
        ],
    );
    desk.pass(30_000);
    let rejected = |notification: &Notification| matches!(notification, Notification::ChangeRejected { .. });
    assert_eq!(desk.seats[1].notified.iter().filter(|n| rejected(n)).count(), 3);
    for index in [0, 1] {
        assert_eq!(desk.winner(index, "a"), content(1), "device {index}");
        assert_eq!(desk.winner(index, "gone"), content(2), "device {index}");
        assert_eq!(desk.winner(index, "mine"), None, "device {index}");
    }
    let installed = desk.seats[1].store.durable().installed.clone();
    let here = |at: &str| installed.get(&path(at)).and_then(|row| row.entry.node.content());
    assert_eq!(
        (here("a"), here("gone"), here("mine")),
        (content(1), content(2), None)
    );
    assert_eq!(desk.seats[1].engine.status().rejected, 3);
    let touched = desk.seats[1].installs.iter().any(|job| job.path == path("mine"));
    assert!(!touched, "A file that nobody else has was taken away");
    desk.seats[1].next_scan = vec![(path("mine"), file(8))];
    desk.change_role(0, 1, Role::Editor, false).expect("raised");
    desk.pass(30_000);
    assert_eq!(desk.winner(0, "mine"), content(8));
}

#[test]
fn who_is_admitted_again_keeps_what_he_did_alone_as_a_copy() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    desk.report(0, &[(path("a"), file(1))]);
    desk.pass(10_000);
    desk.disconnect(0, 1);
    desk.disconnect(1, 2);
    desk.remove(0, 1, None).expect("removed");
    desk.report(1, &[(path("a"), file(2))]);
    desk.pass(5_000);
    desk.connect(0, 1);
    desk.pass(60_000);
    assert!(desk.state(1) == FolderState::Removed);
    desk.seats[1].next_scan = vec![(path("a"), file(2))];
    let ticket = desk.invite(0, Role::Editor);
    desk.command(1, Command::Join { ticket });
    desk.pass(120_000);
    assert_eq!(desk.role(1), Some(Role::Editor));
    assert!(
        desk.state(1) == FolderState::InSync,
        "{:?}",
        desk.seats[1].engine.status()
    );
    for index in [0, 1] {
        let state = desk.seats[index]
            .store
            .durable()
            .path_state(&path("a"))
            .expect("known");
        let contents: Vec<_> = state
            .heads
            .iter()
            .filter_map(|head| head.entry.as_ref()?.node.content())
            .collect();
        assert!(
            contents.contains(&content(1).expect("a hash")),
            "device {index}: {state:?}"
        );
        assert!(
            contents.contains(&content(2).expect("a hash")),
            "device {index}: {state:?}"
        );
        assert_eq!(state.shown.len(), 1, "device {index}");
    }
}

#[test]
fn an_invite_for_a_part_of_the_folder_lets_write_there_only() {
    let mut desk = Desk::new(2, false);
    let docs = Scopes::new(vec![path("docs")]).expect("one path");
    let ticket = desk.invite_to(0, Role::Editor, docs);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    assert_eq!(desk.role(1), Some(Role::Editor));
    desk.report_dirs(1, &[path("docs")]);
    desk.report(1, &[(path("docs/a"), file(1)), (path("b"), file(2))]);
    desk.pass(30_000);
    assert_eq!(
        (desk.winner(0, "docs/a"), desk.winner(0, "b")),
        (content(1), None)
    );
}

#[test]
fn who_may_write_one_path_may_give_up_a_copy_of_it_wherever_it_is_shown() {
    for at in ["docs/.git/HEAD", "plan"] {
        let mut desk = Desk::new(2, false);
        let scopes = Scopes::new(vec![path("docs"), path("plan")]).expect("two paths");
        let ticket = desk.invite_to(0, Role::Editor, scopes);
        desk.connect(0, 1);
        desk.command(1, Command::Join { ticket });
        desk.pass(10_000);
        desk.disconnect(0, 1);
        for (index, number) in [(0, 1), (1, 2)] {
            desk.report(index, &[(path(at), file(number))]);
        }
        desk.pass(1_000);
        desk.connect(0, 1);
        desk.pass(30_000);
        let shown = |desk: &Desk, index: usize| {
            let state = desk.seats[index].store.durable().path_state(&path(at));
            state
                .expect("a file")
                .shown
                .into_iter()
                .map(|(name, _)| name)
                .next()
        };
        let copy = shown(&desk, 1).expect("a copy");
        assert_eq!(shown(&desk, 0), Some(copy.clone()));
        desk.report(1, &[(copy, None)]);
        desk.pass(30_000);
        assert_eq!((shown(&desk, 0), shown(&desk, 1)), (None, None), "{at}");
    }
}

#[test]
fn a_cancelled_invite_lets_nobody_in() {
    let mut desk = Desk::new(2, false);
    let ticket = desk.invite(0, Role::Editor);
    let Ok(Reply::Members(MembersReply::Invites(invites))) = desk.members(0, MembersCommand::ListInvites)
    else {
        panic!("no list");
    };
    assert!(invites[0].is_open);
    let key = invites[0].key;
    desk.members(0, MembersCommand::CancelInvite { key })
        .expect("cancelled");
    let Ok(Reply::Members(MembersReply::Invites(invites))) = desk.members(0, MembersCommand::ListInvites)
    else {
        panic!("no list");
    };
    assert!(!invites[0].is_open);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(120_000);
    assert_ne!(desk.seats[0].group(), desk.seats[1].group());
}
