//! The recovery key: who has its words makes a device of the group an owner, when the owners are lost or one was stolen.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{
    Command, CommandError, FolderState, MembersCommand, MembersReply, RecoverySecret, Reply,
};

use crate::desk::Desk;

impl Desk {
    fn secret(&mut self, index: usize) -> Result<RecoverySecret, CommandError> {
        match self.members(index, MembersCommand::ShowRecovery)? {
            Reply::Members(MembersReply::Recovery(secret)) => Ok(secret),
            other => panic!("another answer: {other:?}"),
        }
    }

    fn use_words(&mut self, index: usize, secret: &RecoverySecret) -> Result<Reply, CommandError> {
        let secret = secret.clone();
        self.members(index, MembersCommand::UseRecovery { secret })
    }
}

#[test]
fn a_group_whose_owner_is_lost_gets_another_by_the_words() {
    let mut desk = Desk::three(Role::Editor, Role::Admin);
    let secret = desk.secret(0).expect("the founder has it");
    desk.disconnect(0, 1);
    desk.disconnect(0, 2);
    desk.use_words(1, &secret).expect("an owner");
    desk.pass(10_000);
    assert_eq!(desk.role(1), Some(Role::Owner));
    // It is senior to the lost owner, and so is what it does: the lost device comes back and is one no more.
    desk.remove(1, 0, None).expect("the old owner is removed");
    desk.pass(10_000);
    let before = desk.seats[2].engine.status().events;
    desk.connect(0, 2);
    desk.pass(60_000);
    assert!(desk.state(0) == FolderState::Removed);
    assert!(desk.seats[2].engine.status().events >= before);
    desk.remove(1, 2, None).expect("an owner removes an admin");
}

#[test]
fn the_old_owner_cannot_remove_whom_the_recovery_key_made_one() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    let secret = desk.secret(0).expect("the founder has it");
    desk.use_words(1, &secret).expect("an owner");
    desk.pass(10_000);
    assert_eq!(desk.remove(0, 1, None), Err(CommandError::Outranked));
    // The words work again, on the device that has seen what they were used for.
    desk.use_words(2, &secret).expect("an owner");
    desk.pass(10_000);
    for index in 0..3 {
        assert_eq!(desk.role(index), Some(Role::Owner), "device {index}");
    }
    assert_eq!(desk.remove(2, 1, None), Err(CommandError::Outranked));
    desk.remove(1, 2, None)
        .expect("the senior one removes the junior");
}

#[test]
fn another_groups_words_are_refused_before_anything_is_published() {
    let mut desk = Desk::new(3, false);
    let foreign = desk.secret(2).expect("a founder");
    let ticket = desk.invite(0, Role::Editor);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    let before = desk.seats[1].engine.status().events;
    for secret in [foreign, RecoverySecret::new([7; 32])] {
        assert_eq!(desk.use_words(1, &secret), Err(CommandError::WrongRecovery));
    }
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().events, before);
    assert_eq!(desk.role(1), Some(Role::Editor));
}

#[test]
fn the_secret_lies_with_the_founder_until_it_is_erased() {
    let mut desk = Desk::pair_as(Role::Editor);
    // Who joins another group has no use for the words of the one it left.
    assert_eq!(desk.secret(1), Err(CommandError::NoRecovery));
    assert!(!desk.seats[1].engine.status().recovery_unread);
    desk.restart(0);
    assert!(desk.seats[0].engine.status().recovery_unread);
    let secret = desk.secret(0).expect("it survives a restart");
    desk.members(0, MembersCommand::ForgetRecovery).expect("erased");
    for _ in 0..2 {
        assert_eq!(desk.secret(0), Err(CommandError::NoRecovery));
        assert!(!desk.seats[0].engine.status().recovery_unread);
        desk.restart(0);
    }
    desk.use_words(1, &secret).expect("the words still count");
}

#[test]
fn whom_a_stolen_owner_removed_comes_back_by_the_words_and_removes_it() {
    let mut desk = Desk::three(Role::Editor, Role::Editor);
    let secret = desk.secret(0).expect("the founder has it");
    desk.remove(0, 1, None).expect("the thief removes one");
    desk.remove(0, 2, None).expect("and the other");
    desk.pass(60_000);
    assert!(desk.state(1) == FolderState::Removed && desk.state(2) == FolderState::Removed);
    desk.use_words(1, &secret).expect("an owner again");
    desk.pass(120_000);
    assert_eq!(desk.role(1), Some(Role::Owner));
    assert!(
        desk.state(1) == FolderState::InSync,
        "{:?}",
        desk.seats[1].engine.status()
    );
    desk.remove(1, 0, None).expect("the thief is removed");
    desk.pass(60_000);
    assert!(desk.state(0) == FolderState::Removed);
}
