use std::time::Duration;

use super::asking::{Asking, Decision};
use super::requests::{
    ASK_BURST, ASK_EVERY, MAX_REQUESTS, MAX_WRONG, REQUEST_LIFE, REQUEST_SILENCE, Requests, Revealed,
};
use super::{Exchange, LanDevice, PairCode, PairError};
use crate::engine::{CommandId, Here, RefuseReason, Request};
use crate::ids::{DeviceId, GroupId};
use crate::time::{BootInstant, Now};

const GROUP: GroupId = GroupId::new([7; 32]);

#[test]
fn both_sides_show_the_same_six_digits_and_they_let_the_asker_in() {
    let (mut asking, mut requests) = (asks(1, 2), Requests::default());
    let shown = exchange(&mut asking, id(1), &mut requests, id(2), at(0));
    let request = requests.shown().remove(0);
    assert_eq!((request.device, request.name.as_str()), (id(1), "ben"));
    assert_eq!(shown, request.code);
    let digits = shown.to_string();
    assert!(digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(requests.approve("0101", &digits, at(1)), Ok(request));
    assert!(requests.shown().is_empty(), "it is shown no more");
    assert_eq!(poll(&mut asking, &mut requests, at(2)), Ok(Revealed::Approved));
    assert_eq!(asking.accepted(&id(2)), Some(GROUP));
}

#[test]
fn the_digits_depend_on_the_group_both_keys_and_both_nonces() {
    let same = || Exchange {
        group: GROUP,
        asker: id(1),
        answerer: id(2),
    };
    let code = same().code(&[3; 32], &[4; 32]);
    assert_eq!(code, same().code(&[3; 32], &[4; 32]));
    let mut other = [same(), same(), same()];
    other[0].group = GroupId::new([8; 32]);
    other[1].asker = id(9);
    other[2].answerer = id(9);
    for other in other {
        assert_ne!(code, other.code(&[3; 32], &[4; 32]));
        assert_ne!(same().commitment(&[3; 32]), other.commitment(&[3; 32]));
    }
    assert_ne!(code, same().code(&[5; 32], &[4; 32]));
    assert_ne!(code, same().code(&[3; 32], &[5; 32]));
}

#[test]
fn somebody_in_the_middle_gets_other_digits_on_both_sides() {
    let (mut asking, mut requests) = (asks(1, 9), Requests::default());
    // He answers the asker in his own name, as a member of a group of his own or of the real one.
    let theirs = exchange(&mut asking, id(1), &mut Requests::default(), id(9), at(0));
    // And asks the member with his own key, and with the nonce that he was shown.
    let mut his = asks(9, 2);
    his.begin(lan(2, 7, "anna", "anna"), [1; 32]);
    let ours = exchange(&mut his, id(9), &mut requests, id(2), at(0));
    assert_ne!(theirs, ours);
    let wrong = requests.approve(&id(9).to_hex(), &theirs.to_string(), at(1));
    assert_eq!(wrong, Err(PairError::WrongCode { left: 2 }));
    let asked = requests.approve(&id(1).to_hex(), &theirs.to_string(), at(1));
    assert_eq!(
        asked,
        Err(PairError::NoSuchRequest),
        "the asker itself never asked here"
    );
}

#[test]
fn a_nonce_other_than_the_one_that_was_promised_ends_the_request() {
    let (mut asking, mut requests) = (asks(1, 2), Requests::default());
    exchange(&mut asking, id(1), &mut requests, id(2), at(0));
    let to = Exchange {
        group: GROUP,
        asker: id(1),
        answerer: id(2),
    };
    let chosen = requests.reveal(to, &[0xee; 32], at(1));
    assert_eq!(chosen, Err(RefuseReason::NotAsked));
    assert!(requests.shown().is_empty());
}

#[test]
fn three_wrong_codes_drop_the_request() {
    let (mut asking, mut requests) = (asks(1, 2), Requests::default());
    let code = exchange(&mut asking, id(1), &mut requests, id(2), at(0));
    let wrong = if code.to_string() == "000000" {
        "000001"
    } else {
        "000000"
    };
    for left in (0..MAX_WRONG).rev() {
        let refused = requests.approve("01010101", wrong, at(1));
        assert_eq!(refused, Err(PairError::WrongCode { left }));
    }
    let late = requests.approve("01010101", &code.to_string(), at(1));
    assert_eq!(late, Err(PairError::NoSuchRequest));
    assert_eq!(
        poll(&mut asking, &mut requests, at(2)),
        Err(RefuseReason::NotAsked)
    );
    assert_eq!(
        asking.refused(RefuseReason::NotAsked),
        Decision::Fail(PairError::TurnedDown)
    );
}

#[test]
fn who_did_not_ask_cannot_be_approved() {
    let mut requests = Requests::default();
    assert_eq!(
        requests.approve("0101", "123456", at(0)),
        Err(PairError::NoSuchRequest)
    );
    // A question without its nonce has no digits yet.
    requests
        .ask(id(1), "ben".into(), [0; 32], [4; 32], at(0))
        .unwrap();
    assert!(requests.shown().is_empty());
    assert_eq!(
        requests.approve("0101", "123456", at(0)),
        Err(PairError::NoSuchRequest)
    );
}

#[test]
fn an_acceptance_that_nobody_asked_for_counts_for_nothing() {
    let mut asking = Asking::new(Some("anna".into()), CommandId(1), at(0));
    assert_eq!(asking.accepted(&id(2)), None, "nobody was asked");
    let mut asking_2 = asks(1, 2);
    assert_eq!(asking_2.accepted(&id(2)), None, "no digits were shown");
    exchange(&mut asking_2, id(1), &mut Requests::default(), id(2), at(0));
    assert_eq!(asking_2.accepted(&id(3)), None, "another device was asked");
    assert_eq!(asking_2.accepted(&id(2)), Some(GROUP));
    asking.unanswered();
}

#[test]
fn the_first_nonce_counts() {
    let (mut asking, mut requests) = (asks(1, 2), Requests::default());
    let code = exchange(&mut asking, id(1), &mut requests, id(2), at(0));
    asking.challenged(id(1), &[0xaa; 32]);
    assert_eq!(poll(&mut asking, &mut requests, at(1)), Ok(Revealed::Waiting));
    assert_eq!(requests.shown()[0].code, code);
}

#[test]
fn a_request_lapses_when_its_device_is_silent_and_in_any_case_after_ten_minutes() {
    let (mut asking, mut requests) = (asks(1, 2), Requests::default());
    let code = exchange(&mut asking, id(1), &mut requests, id(2), at(0)).to_string();
    assert_eq!(requests.deadline(), Some(at(0).boot.after(REQUEST_SILENCE)));
    let step = REQUEST_SILENCE - Duration::from_secs(1);
    let mut time = Duration::ZERO;
    while time + step < REQUEST_LIFE {
        time += step;
        assert_eq!(
            poll(&mut asking, &mut requests, after(time)),
            Ok(Revealed::Waiting)
        );
    }
    let late = requests.approve("0101", &code, after(REQUEST_LIFE));
    assert_eq!(late, Err(PairError::NoSuchRequest));
    let (mut asking, mut requests) = (asks(1, 2), Requests::default());
    let code = exchange(&mut asking, id(1), &mut requests, id(2), at(0)).to_string();
    let silent = requests.approve("0101", &code, after(REQUEST_SILENCE));
    assert_eq!(silent, Err(PairError::NoSuchRequest));
}

#[test]
fn eight_may_ask_at_a_time() {
    let mut requests = Requests::default();
    let mut ask = |byte, now| requests.ask(id(byte), String::new(), [0; 32], [0; 32], now);
    for byte in 0..u8::try_from(MAX_REQUESTS).unwrap() {
        assert_eq!(ask(byte, at(0)), Ok(()));
    }
    let later = after(ASK_EVERY - Duration::from_secs(1));
    assert_eq!(ask(100, later), Err(RefuseReason::Busy));
    assert_eq!(ask(100, after(ASK_EVERY)), Ok(()), "the silent ones have lapsed");
}

#[test]
fn who_asks_again_and_again_is_let_through_rarely() {
    let mut requests = Requests::default();
    let mut asked = 0;
    for seconds in 0..REQUEST_LIFE.as_secs() {
        let now = after(Duration::from_secs(seconds));
        let byte = u8::try_from(seconds % 200).unwrap();
        asked += u64::from(
            requests
                .ask(id(byte), String::new(), [0; 32], [0; 32], now)
                .is_ok(),
        );
    }
    let most = u64::from(ASK_BURST) + REQUEST_LIFE.as_secs() / ASK_EVERY.as_secs();
    assert!(asked <= most, "{asked} of at most {most}");
}

#[test]
fn an_id_that_begins_like_two_names_neither() {
    let mut requests = Requests::default();
    let (mut first, mut second) = (asks(1, 2), asks(1, 2));
    let mut twin = [1; 32];
    twin[31] = 2;
    let twin = DeviceId::new(twin);
    exchange(&mut first, id(1), &mut requests, id(2), at(0));
    let code = exchange(&mut second, twin, &mut requests, id(2), at(0)).to_string();
    assert_eq!(
        requests.approve("0101-0101", &code, at(0)),
        Err(PairError::NotUnique)
    );
    assert!(requests.approve(&twin.to_hex(), &code, at(0)).is_ok());
}

#[test]
fn codes_are_read_with_spaces_and_hyphens_and_must_have_six_digits() {
    assert_eq!(PairCode::parse("012 345"), PairCode::parse("012-345"));
    assert_eq!(PairCode::parse("012345").unwrap().to_string(), "012345");
    for bad in ["", "12345", "1234567", "+12345", "12345a", "١٢٣٤٥٦"] {
        assert_eq!(PairCode::parse(bad), None, "{bad}");
    }
}

#[test]
fn names_are_matched_whatever_their_case_and_several_groups_are_an_error() {
    let look = |name: &str, found: &[LanDevice]| {
        let mut asking = Asking::new(Some(name.into()), CommandId(1), at(0));
        found.iter().for_each(|found| asking.heard(found.clone()));
        assert_eq!(asking.decide(at(2)), Decision::Look, "others may answer, too");
        (asking.decide(at(4)), asking.decide(at(9)))
    };
    let anna = lan(2, 7, "Photos", "Anna");
    let ben = lan(3, 7, "Photos", "ben");
    let other = lan(4, 8, "photos", "cleo");
    let members = [anna.clone(), ben.clone()];
    assert_eq!(look("ANNA", &members).0, Decision::Ask(anna.clone()));
    assert_eq!(look("Ben", &members).0, Decision::Ask(ben.clone()));
    assert_eq!(look("photos", &members).0, Decision::Ask(anna.clone()));
    let all = [anna.clone(), ben.clone(), other.clone()];
    let (name, found) = ("photos".to_owned(), all.to_vec());
    assert_eq!(
        look("photos", &all).0,
        Decision::Fail(PairError::Ambiguous { name, found })
    );
    assert_eq!(look("0404-0404", &all).0, Decision::Ask(other));
    let (name, found) = ("dora".to_owned(), all.to_vec());
    let nobody = PairError::NoSuchName { name, found };
    assert!(nobody.to_string().contains("ben (03030303) in the group Photos"));
    assert_eq!(look("dora", &all), (Decision::Look, Decision::Fail(nobody)));
}

#[test]
fn another_device_of_the_group_is_asked_if_one_may_not_let_anybody_in() {
    let (anna, ben) = (lan(2, 7, "photos", "anna"), lan(3, 7, "photos", "ben"));
    let mut asking = Asking::new(Some("photos".into()), CommandId(1), at(0));
    asking.heard(anna.clone());
    asking.heard(ben.clone());
    asking.begin(anna, [3; 32]);
    assert_eq!(
        asking.refused(RefuseReason::MayNotAdmit),
        Decision::Ask(ben.clone())
    );
    asking.begin(ben, [3; 32]);
    assert_eq!(
        asking.refused(RefuseReason::MayNotAdmit),
        Decision::Fail(PairError::MayNotAdmit)
    );
}

/// Lets one device ask another up to the digits, and returns those that the asker shows.
fn exchange(
    asking: &mut Asking,
    asker: DeviceId,
    requests: &mut Requests,
    answerer: DeviceId,
    now: Now,
) -> PairCode {
    let Some((_, Request::JoinAsk { commitment, name, .. })) = asking.next_question(asker, "ben") else {
        panic!("it does not ask");
    };
    requests.ask(asker, name, commitment, [4; 32], now).unwrap();
    asking.challenged(asker, &[4; 32]);
    let Some((_, Request::JoinReveal { nonce })) = asking.next_question(asker, "ben") else {
        panic!("it does not show its nonce");
    };
    let group = GROUP;
    let exchange = Exchange {
        group,
        asker,
        answerer,
    };
    let shown = requests.reveal(exchange, &nonce, now).unwrap();
    assert!(matches!(shown, Revealed::Shown(_)), "{shown:?}");
    let (asked, code) = asking.acknowledged().expect("the digits are shown");
    assert_eq!(asked.device, answerer);
    code
}

/// Asks again whether device 1 was let in by device 2.
fn poll(asking: &mut Asking, requests: &mut Requests, now: Now) -> Result<Revealed, RefuseReason> {
    let Some((_, Request::JoinReveal { nonce })) = asking.next_question(id(1), "ben") else {
        panic!("it does not ask again");
    };
    asking.unanswered();
    let exchange = Exchange {
        group: GROUP,
        asker: id(1),
        answerer: id(2),
    };
    requests.reveal(exchange, &nonce, now)
}

/// Somebody with the nonce of his own number who asks a device.
fn asks(from: u8, to: u8) -> Asking {
    let mut asking = Asking::new(Some("anna".into()), CommandId(1), at(0));
    asking.begin(lan(to, 7, "anna", "anna"), [from; 32]);
    asking
}

fn lan(device: u8, group: u8, group_name: &str, device_name: &str) -> LanDevice {
    LanDevice {
        device: id(device),
        here: Here {
            group: GroupId::new([group; 32]),
            group_name: group_name.to_owned(),
            device_name: device_name.to_owned(),
        },
    }
}

fn id(byte: u8) -> DeviceId {
    DeviceId::new([byte; 32])
}

fn at(seconds: u64) -> Now {
    after(Duration::from_secs(seconds))
}

fn after(time: Duration) -> Now {
    let boot = BootInstant::from_millis(1_000).after(time);
    Now { boot, wall_ms: 0 }
}
