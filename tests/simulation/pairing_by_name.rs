//! A device asks by name to be let in, and a member's user types the digits.

use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{
    Command, CommandError, CommandId, InboundId, Input, MembersCommand, Membership, PairCommand, PairError,
    PairReply, RefuseReason, Reply, Request, Response,
};
use p2p_sync_core::rel_path::RelPath;

use crate::desk::{Desk, File};

/// Milliseconds after which the local network was looked at.
const LOOKED: u64 = 5_000;

/// Two devices of the same local network, each in a group of its own.
fn neighbours() -> Desk {
    let mut desk = Desk::new(2, false);
    desk.connect(0, 1);
    desk
}

/// Lets a device ask another by its name, in capitals; returns the digits that it shows, and the command.
fn ask(desk: &mut Desk, asker: usize, answerer: usize) -> (String, CommandId) {
    let name = desk.name(answerer).to_uppercase();
    let id = desk.command(asker, Command::Pair(PairCommand::Join { name }));
    desk.pass(LOOKED);
    match desk.seats[asker].replies.pop() {
        Some(Ok(Reply::Pair(PairReply::Code { asked, code }))) => {
            assert_eq!(asked.device, desk.seats[answerer].id());
            (code.to_string(), id)
        }
        other => panic!("no digits but {other:?}"),
    }
}

/// The user of a device approves another, and is answered.
fn approve(desk: &mut Desk, here: usize, who: usize, code: &str, role: Role) -> Result<Reply, CommandError> {
    let device = desk.seats[who].id().short().label();
    let code = code.to_owned();
    desk.command(
        here,
        Command::Pair(PairCommand::Approve {
            device,
            code,
            role,
            person: None,
        }),
    );
    desk.seats[here]
        .replies
        .pop()
        .expect("an approval is answered at once")
}

fn refused(error: PairError) -> Result<Reply, CommandError> {
    Err(CommandError::Pair(error))
}

#[test]
fn a_device_is_let_in_by_its_digits_and_syncs() {
    let mut desk = neighbours();
    let (code, _) = ask(&mut desk, 1, 0);
    let shown = desk.seats[0].engine.status().join_requests;
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (shown[0].device, shown[0].code.to_string()),
        (desk.seats[1].id(), code.clone())
    );
    let (device, name, role) = (desk.seats[1].id(), desk.name(1), Role::Viewer);
    assert_eq!(
        approve(&mut desk, 0, 1, &code, role),
        Ok(Reply::Pair(PairReply::Approved { device, name, role }))
    );
    assert!(desk.seats[0].engine.status().join_requests.is_empty());
    desk.pass(10_000);
    let group = desk.seats[0].group().unwrap();
    assert_eq!(
        desk.seats[1].replies.pop(),
        Some(Ok(Reply::Joined { group, role }))
    );
    let file = File { ino: 1, content: 1 };
    desk.report(0, &[(RelPath::parse("a").expect("well-formed"), Some(file))]);
    desk.pass(10_000);
    assert_eq!(desk.seats[1].group(), Some(group));
    assert_eq!(
        desk.seats[0].engine.status().events,
        desk.seats[1].engine.status().events
    );
}

#[test]
fn nobody_is_let_in_who_did_not_ask_or_with_other_digits() {
    let mut desk = neighbours();
    let unasked = approve(&mut desk, 0, 1, "123456", Role::Editor);
    assert_eq!(unasked, refused(PairError::NoSuchRequest));
    let (code, _) = ask(&mut desk, 1, 0);
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for left in [2, 1, 0] {
        let answer = approve(&mut desk, 0, 1, wrong, Role::Editor);
        assert_eq!(answer, refused(PairError::WrongCode { left }));
    }
    let late = approve(&mut desk, 0, 1, &code, Role::Editor);
    assert_eq!(late, refused(PairError::NoSuchRequest));
    desk.pass(5_000);
    assert_eq!(
        desk.seats[1].replies.pop(),
        Some(Err(CommandError::Pair(PairError::TurnedDown)))
    );
    assert_ne!(desk.seats[0].group(), desk.seats[1].group());
    assert_eq!(desk.seats[0].engine.status().events, 1, "no Grant was made");
}

#[test]
fn a_lost_answer_is_fetched_again() {
    let mut desk = neighbours();
    let (code, _) = ask(&mut desk, 1, 0);
    let mut lost = 3;
    desk.loses_answer = Box::new(move |_, response| {
        let loses = matches!(response, Response::Accepted { .. }) && lost > 0;
        lost -= i32::from(loses);
        loses
    });
    approve(&mut desk, 0, 1, &code, Role::Editor).expect("the digits are right");
    // Letting somebody in renews the connection.
    desk.disconnect(0, 1);
    desk.pass(2_000);
    desk.connect(0, 1);
    desk.pass(20_000);
    assert_eq!(desk.seats[0].group(), desk.seats[1].group());
}

#[test]
fn whoever_is_far_or_switched_it_off_says_nothing() {
    let mut desk = Desk::new(2, false);
    desk.near = false;
    desk.connect(0, 1);
    let answers = |desk: &mut Desk, request| {
        let (from, id) = (desk.seats[1].id(), InboundId(9_999));
        desk.tell(0, Input::Request { from, id, request });
        desk.answers.remove(&id)
    };
    let group = desk.seats[0].group().unwrap();
    let asks = || {
        let name = "ben".to_owned();
        let commitment = [0; 32];
        Request::JoinAsk {
            group,
            name,
            commitment,
        }
    };
    let nothing = Some(Response::Refused(RefuseReason::MayNotAdmit));
    assert_eq!(answers(&mut desk, Request::JoinWho), nothing);
    assert_eq!(answers(&mut desk, asks()), nothing);
    desk.disconnect(0, 1);
    desk.near = true;
    desk.connect(0, 1);
    assert!(matches!(
        answers(&mut desk, Request::JoinWho),
        Some(Response::Here(here)) if here.group == group
    ));
    assert!(matches!(
        answers(&mut desk, asks()),
        Some(Response::Challenge { .. })
    ));
    desk.switch_pairing_off(0);
    desk.connect(0, 1);
    assert_eq!(answers(&mut desk, Request::JoinWho), nothing);
    assert_eq!(answers(&mut desk, asks()), nothing);
}

#[test]
fn an_editor_is_not_asked_and_lets_nobody_in() {
    lets_nobody_in(Role::Editor, Scopes::whole());
}

#[test]
fn an_admin_of_a_part_of_the_folder_cannot_let_anybody_into_all_of_it() {
    let part = RelPath::parse("docs").expect("well-formed");
    lets_nobody_in(Role::Admin, Scopes::new(vec![part]).expect("one place"));
}

/// A member who may do this much is asked, and his user approves all the same.
fn lets_nobody_in(role: Role, scopes: Scopes) {
    let mut desk = Desk::new(3, false);
    let ticket = desk.invite(0, Role::Viewer);
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    let (device, at_once) = (desk.seats[1].id(), false);
    let wanted = Membership {
        role,
        scopes,
        flags: GrantFlags::default(),
    };
    let change = MembersCommand::ChangeRole {
        device,
        wanted,
        at_once,
    };
    desk.command(0, Command::Members(change));
    desk.pass(10_000);
    assert_eq!(desk.seats[1].engine.status().role, Some(role));
    desk.connect(1, 2);
    let name = desk.name(1);
    desk.command(2, Command::Pair(PairCommand::Join { name }));
    desk.pass(LOOKED);
    assert_eq!(
        desk.seats[2].replies.pop(),
        Some(Err(CommandError::Pair(PairError::MayNotAdmit)))
    );
    let answer = approve(&mut desk, 1, 2, "123456", Role::Viewer);
    assert_eq!(answer, Err(CommandError::NotAllowed));
}

#[test]
fn a_join_that_is_given_up_is_forgotten_there_and_another_can_begin() {
    let mut desk = neighbours();
    let (code, join) = ask(&mut desk, 1, 0);
    let name = desk.name(0);
    desk.command(1, Command::Pair(PairCommand::Join { name }));
    assert_eq!(desk.seats[1].replies.pop(), Some(Err(CommandError::Busy)));
    give_up(&mut desk, join);
    desk.pass(40_000);
    assert!(desk.seats[0].engine.status().join_requests.is_empty());
    let late = approve(&mut desk, 0, 1, &code, Role::Editor);
    assert_eq!(late, refused(PairError::NoSuchRequest));
    ask(&mut desk, 1, 0);
}

#[test]
fn who_is_let_in_without_wanting_it_any_more_stays_where_it_is() {
    let mut desk = neighbours();
    let before = desk.seats[1].group();
    let (code, join) = ask(&mut desk, 1, 0);
    give_up(&mut desk, join);
    approve(&mut desk, 0, 1, &code, Role::Editor).expect("it asked a moment ago");
    desk.disconnect(0, 1);
    desk.connect(0, 1);
    desk.pass(60_000);
    assert_eq!(desk.seats[1].group(), before);
}

#[test]
fn nobody_who_is_in_a_group_with_others_asks() {
    let mut desk = Desk::pair();
    let name = "anybody".to_owned();
    desk.command(1, Command::Pair(PairCommand::Join { name }));
    assert_eq!(
        desk.seats[1].replies.pop(),
        Some(Err(CommandError::AlreadyInGroup))
    );
}

#[test]
fn a_name_that_nobody_has_is_an_error_that_says_who_is_there() {
    let mut desk = neighbours();
    let name = "nobody".to_owned();
    desk.command(1, Command::Pair(PairCommand::Join { name }));
    desk.pass(10_000);
    let Some(Err(CommandError::Pair(PairError::NoSuchName { found, .. }))) = desk.seats[1].replies.pop()
    else {
        panic!("another answer");
    };
    assert_eq!(found[0].device, desk.seats[0].id());
}

/// The user of the second device gives its join up.
fn give_up(desk: &mut Desk, join: CommandId) {
    desk.command(1, Command::Pair(PairCommand::Cancel { join }));
    let given_up = refused(PairError::GivenUp);
    assert!(desk.seats[1].replies.contains(&given_up));
}

#[test]
fn who_looks_around_is_told_who_is_there() {
    let mut desk = Desk::new(3, false);
    desk.connect(0, 1);
    desk.connect(0, 2);
    desk.command(0, Command::Pair(PairCommand::List));
    desk.pass(LOOKED);
    let Some(Ok(Reply::Pair(PairReply::Found(found)))) = desk.seats[0].replies.pop() else {
        panic!("no list");
    };
    let ids: Vec<_> = found.iter().map(|found| found.device).collect();
    assert_eq!(ids, [desk.seats[1].id(), desk.seats[2].id()]);
    assert_eq!(found[0].here.group_name, found[0].here.device_name);
}
