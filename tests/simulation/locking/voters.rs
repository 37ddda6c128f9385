//! Who grants locks: other voters follow, and what was granted before stays.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{
    Command, CommandError, LockCommand, LockReply, OwnLogSize, Response, VotersError, VotersReport,
};
use p2p_sync_core::lock::{Answer, LockError, Token};

use super::{HOLDER, OTHER, VOTER};
use crate::desk::Desk;

impl Desk {
    fn choose(&self, voters: &[usize], is_forced: bool) -> LockCommand {
        LockCommand::SetVoters {
            voters: voters.iter().map(|seat| self.seats[*seat].id()).collect(),
            is_forced,
        }
    }

    #[track_caller]
    fn set_voters(&mut self, by: usize, voters: &[usize], is_forced: bool) -> Result<u64, CommandError> {
        let command = self.choose(voters, is_forced);
        match self.lock_command(by, command)? {
            LockReply::Voters(report) => Ok(report.epoch),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn voters(&mut self, by: usize) -> VotersReport {
        match self.lock_command(by, LockCommand::ListVoters) {
            Ok(LockReply::Voters(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn token(&mut self, by: usize, what: &str) -> Token {
        match self.acquire(by, what) {
            Ok(LockReply::Held(lock)) => lock.token,
            other => panic!("{other:?}"),
        }
    }
}

fn all_connected(role: Role) -> Desk {
    let mut desk = Desk::locked(role.min(Role::Admin));
    desk.connect(VOTER, OTHER);
    desk.connect(HOLDER, OTHER);
    desk.connect(VOTER, HOLDER);
    desk.pass(20_000);
    if role == Role::Owner {
        let made = desk.change_role(VOTER, HOLDER, role, false);
        made.expect("it is an owner");
        desk.pass(20_000);
    }
    desk
}

#[test]
fn three_voters_take_over_what_is_locked_and_one_of_them_may_be_gone() {
    let mut desk = all_connected(Role::Editor);
    desk.acquire(OTHER, "a").expect("it is free");
    assert_eq!(desk.set_voters(VOTER, &[OTHER, VOTER, HOLDER], false), Ok(1));
    desk.pass(20_000);
    for seat in [VOTER, HOLDER, OTHER] {
        let report = desk.voters(seat);
        let founder = desk.seats[VOTER].id();
        assert_eq!(
            (report.epoch, report.chosen_by, report.is_forced),
            (1, Some(founder), false)
        );
        assert_eq!(report.voters.len(), 3);
        assert!(
            report
                .voters
                .iter()
                .all(|voter| voter.is_reached && voter.is_member)
        );
    }
    assert_eq!(desk.known_locks(OTHER), [("a".to_owned(), OTHER, true)]);
    assert!(matches!(desk.acquire(HOLDER, "a"), Err(CommandError::Locked(_))));
    desk.disconnect(VOTER, OTHER);
    desk.disconnect(VOTER, HOLDER);
    desk.restart(OTHER);
    desk.connect(HOLDER, OTHER);
    desk.pass(20_000);
    let confirmed = [("a".to_owned(), OTHER, true)];
    assert_eq!(desk.known_locks(OTHER), confirmed, "the new voters know of it");
    let Ok(LockReply::Ended { by_majority, .. }) = desk.release(OTHER, "a") else {
        panic!("not released");
    };
    assert!(by_majority, "two of three were told");
    assert_eq!(desk.token(HOLDER, "a"), Token { epoch: 1, n: 1 });
    desk.disconnect(HOLDER, OTHER);
    let refused = desk.acquire(OTHER, "b");
    let few = matches!(
        refused,
        Err(CommandError::Lock(LockError::NoQuorum { needed: 2, .. }))
    );
    assert!(few, "{refused:?}");
}

#[test]
fn only_an_owner_chooses_one_three_or_five_members_who_are_there() {
    let mut desk = all_connected(Role::Admin);
    let choose = |error| Err(CommandError::Voters(error));
    assert_eq!(
        desk.set_voters(HOLDER, &[HOLDER], false),
        Err(CommandError::NotAllowed)
    );
    assert_eq!(
        desk.set_voters(VOTER, &[VOTER, HOLDER], false),
        choose(VotersError::Count)
    );
    assert_eq!(
        desk.set_voters(VOTER, &[VOTER, HOLDER, HOLDER], false),
        choose(VotersError::Count)
    );
    assert_eq!(desk.set_voters(VOTER, &[VOTER], false), choose(VotersError::Same));
    desk.disconnect(VOTER, OTHER);
    let other = desk.seats[OTHER].id();
    let gone = choose(VotersError::Unreachable(other));
    assert_eq!(desk.set_voters(VOTER, &[VOTER, HOLDER, OTHER], false), gone);
    assert_eq!(desk.voters(VOTER).epoch, 0);
    desk.acquire(HOLDER, "a").expect("nobody made room");
}

#[test]
fn a_try_that_a_crash_cuts_short_is_called_off() {
    let mut desk = all_connected(Role::Editor);
    assert_eq!(desk.set_voters(VOTER, &[VOTER, HOLDER, OTHER], false), Ok(1));
    desk.pass(20_000);
    // A restart at each step: of the new voters standing, of the old ones making room.
    for delay in [0, 1, 2, 5, 10, 20, 50, 100, 200, 500] {
        let before = desk.voters(VOTER).epoch;
        let wanted = if before % 2 == 1 {
            vec![HOLDER]
        } else {
            vec![VOTER, HOLDER, OTHER]
        };
        let command = desk.choose(&wanted, false);
        desk.command(VOTER, Command::Lock(command));
        desk.pass(delay);
        desk.restart(VOTER);
        desk.connect(VOTER, OTHER);
        desk.connect(VOTER, HOLDER);
        desk.pass(20_000);
        let after = desk.voters(OTHER).epoch;
        assert!(
            after == before || after == before + 1,
            "{delay}: {before} to {after}"
        );
        assert_eq!(desk.token(OTHER, "b").epoch, after, "{delay}");
        desk.release(OTHER, "b").expect("it is its own");
    }
}

#[test]
fn an_old_copy_of_the_state_votes_in_no_set_that_it_stood_for() {
    let mut desk = all_connected(Role::Editor);
    assert_eq!(desk.set_voters(VOTER, &[VOTER, HOLDER, OTHER], false), Ok(1));
    desk.pass(20_000);
    desk.disconnect(VOTER, HOLDER);
    desk.disconnect(VOTER, OTHER);
    let own = OwnLogSize {
        events: 1_000,
        members: 3,
    };
    desk.restart_expecting(OTHER, own);
    desk.connect(HOLDER, OTHER);
    desk.pass(20_000);
    let unfit = Err(CommandError::Lock(LockError::Unfit));
    assert_eq!(desk.acquire(HOLDER, "b").map(|_| ()), unfit);
}

#[test]
fn who_made_room_for_nothing_grants_locks_again() {
    for crashes in [false, true] {
        let mut desk = all_connected(Role::Editor);
        assert_eq!(desk.set_voters(VOTER, &[VOTER, HOLDER, OTHER], false), Ok(1));
        desk.pass(20_000);
        // All make room, and nobody hears of it.
        desk.loses_answer = Box::new(|_, response| match response {
            Response::Lock(voted) => matches!(voted.answer, Answer::Reported(_)),
            _ => false,
        });
        let command = desk.choose(&[VOTER], false);
        desk.seats[VOTER].replies.clear();
        desk.command(VOTER, Command::Lock(command));
        desk.pass(1_000);
        if crashes {
            desk.restart(VOTER);
            desk.connect(VOTER, HOLDER);
            desk.connect(VOTER, OTHER);
        } else {
            let refused = desk.acquire(OTHER, "b").map(|_| ());
            assert_eq!(refused, Err(CommandError::Lock(LockError::Sealed)));
        }
        desk.pass(30_000);
        if !crashes {
            let reply = desk.seats[VOTER].replies.pop();
            let few = matches!(reply, Some(Err(CommandError::Lock(LockError::NoQuorum { .. }))));
            assert!(few, "{reply:?}");
        }
        assert_eq!(desk.voters(OTHER).epoch, 1);
        desk.acquire(OTHER, "a").expect("they grant locks again");
    }
}

#[test]
fn two_owners_who_choose_at_once_do_not_both_succeed_and_locks_go_on() {
    let mut desk = all_connected(Role::Owner);
    assert_eq!(desk.set_voters(VOTER, &[VOTER, HOLDER, OTHER], false), Ok(1));
    desk.pass(20_000);
    let (one, two) = (desk.choose(&[VOTER], false), desk.choose(&[HOLDER], false));
    desk.command(VOTER, Command::Lock(one));
    desk.command(HOLDER, Command::Lock(two));
    desk.pass(40_000);
    let reports = [VOTER, HOLDER, OTHER].map(|seat| desk.voters(seat));
    let first = &reports[0];
    assert!(reports.iter().all(|report| report.epoch == first.epoch));
    assert!(
        first.epoch == 1 || first.epoch == 2 || first.epoch == 3,
        "{first:?}"
    );
    let epoch = first.epoch;
    assert_eq!(desk.token(OTHER, "b").epoch, epoch);
}

#[test]
fn without_the_voters_an_owner_takes_over_by_force_and_what_the_ledger_shows_stays() {
    let mut desk = all_connected(Role::Owner);
    desk.acquire(OTHER, "a").expect("it is free");
    desk.disconnect(VOTER, OTHER);
    desk.disconnect(VOTER, HOLDER);
    let nobody = LockError::NoQuorum {
        reached: 0,
        needed: 1,
    };
    assert_eq!(
        desk.set_voters(HOLDER, &[HOLDER], false),
        Err(CommandError::Lock(nobody))
    );
    assert_eq!(desk.set_voters(HOLDER, &[HOLDER], true), Ok(1));
    desk.pass(20_000);
    assert_eq!(desk.known_locks(OTHER), [("a".to_owned(), OTHER, true)]);
    assert!(matches!(desk.acquire(HOLDER, "a"), Err(CommandError::Locked(_))));
    desk.restart(OTHER);
    desk.connect(HOLDER, OTHER);
    desk.pass(20_000);
    let confirmed = [("a".to_owned(), OTHER, true)];
    assert_eq!(desk.known_locks(OTHER), confirmed, "the new voter knows of it");
    desk.release(OTHER, "a").expect("it is its own");
    assert_eq!(desk.token(HOLDER, "a").epoch, 1);
    desk.connect(VOTER, HOLDER);
    desk.connect(VOTER, OTHER);
    desk.pass(20_000);
    let report = desk.voters(VOTER);
    assert!(report.is_forced && report.epoch == 1, "{report:?}");
    assert!(matches!(desk.acquire(VOTER, "a"), Err(CommandError::Locked(_))));
    assert_eq!(desk.token(VOTER, "c").epoch, 1);
}

#[test]
fn of_two_who_take_over_by_force_the_senior_owners_voters_count_and_no_others_locks() {
    let mut desk = all_connected(Role::Owner);
    desk.disconnect(VOTER, OTHER);
    desk.disconnect(VOTER, HOLDER);
    assert_eq!(desk.set_voters(HOLDER, &[HOLDER], true), Ok(1));
    desk.acquire(OTHER, "a")
        .expect("granted by the junior owner's voters");
    assert_eq!(desk.set_voters(VOTER, &[VOTER], true), Ok(1));
    desk.acquire(VOTER, "b")
        .expect("granted by the senior owner's voters");
    desk.connect(VOTER, HOLDER);
    desk.connect(VOTER, OTHER);
    desk.pass(40_000);
    let founder = desk.seats[VOTER].id();
    for seat in [VOTER, HOLDER, OTHER] {
        assert_eq!(desk.voters(seat).chosen_by, Some(founder));
        let locks = desk.known_locks(seat);
        assert_eq!(locks, [("b".to_owned(), VOTER, seat == VOTER)]);
    }
    desk.acquire(HOLDER, "a").expect("nobody has it");
}
