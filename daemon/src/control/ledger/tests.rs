use p2p_sync_core::engine::{PeerStatus, Status as EngineStatus};
use p2p_sync_core::ids::EventId;

use super::*;
use crate::ledger_query::LedgerPlace;

fn names() -> StatusSnapshot {
    let mut names = StatusSnapshot::starting("atlas".into(), "/srv/sync".into(), SystemTime::UNIX_EPOCH);
    names.engine = EngineStatus {
        device: Some(DeviceId::new([0xaa; 32])),
        peers: [(0xab, "laptop"), (0xcd, "nas"), (0xce, "nas")]
            .map(|(byte, name)| PeerStatus {
                device: DeviceId::new([byte; 32]),
                name: name.into(),
                person: None,
                role: None,
                connected: false,
                address: None,
                in_sync: false,
            })
            .to_vec(),
        ..EngineStatus::default()
    };
    names
}

#[test]
fn devices_are_found_by_name_and_by_the_beginning_of_their_ids() {
    let names = names();
    let short = |byte| Some(DeviceId::new([byte; 32]).short());
    for (text, expected) in [
        ("atlas", short(0xaa)),
        ("laptop", short(0xab)),
        ("abab", short(0xab)),
        ("cdcdcdcd", short(0xcd)),
        ("nas", None),
        ("aba", None),
        ("ffff", None),
        ("ffffffffffffffff", short(0xff)),
        ("nobody", None),
    ] {
        assert_eq!(device(text, &names).ok(), expected, "{text}");
    }
}

#[test]
fn events_are_named_by_id_or_by_place() {
    let names = names();
    let at = |byte, seq| EventRef::At(DeviceId::new([byte; 32]).short(), seq);
    for (text, expected) in [
        ("laptop:7", Some(at(0xab, 7))),
        ("cdcd:0", Some(at(0xcd, 0))),
        ("01234567", Some(EventRef::Id("01234567".into()))),
        ("0123456", None),
        ("0123456X", None),
        ("laptop:x", None),
        ("", None),
    ] {
        assert_eq!(event_ref(text, &names).ok(), expected, "{text}");
    }
}

#[test]
fn a_page_token_is_good_for_its_own_question_only() {
    let names = names();
    let request = |path: &[u8], oldest_first, page_token: &str| v1::ListEventsRequest {
        path: path.to_vec(),
        oldest_first,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let asked = query(&request(b"a", false, ""), &names).unwrap();
    assert_eq!((asked.limit, asked.order), (DEFAULT_PAGE, LedgerOrder::Clock));
    let place = LedgerPlace {
        key: 7,
        id: EventId::new([9; 32]),
    };
    let token = token::write(&asked, place);
    let next = query(&request(b"a", false, &token), &names).unwrap();
    assert_eq!(next.after, Some(place));
    for other in [
        request(b"b", false, &token),
        request(b"a", true, &token),
        request(b"a", false, "x"),
        request(b"a", false, "eA"),
    ] {
        assert!(query(&other, &names).is_err(), "{other:?}");
    }
}

#[test]
fn pages_and_items_are_bounded() {
    let request = |page_size| v1::ListEventsRequest {
        page_size,
        ..Default::default()
    };
    assert_eq!(query(&request(5_000), &names()).unwrap().limit, MAX_PAGE);
    assert!(query(&request(-1), &names()).is_err());
    assert_eq!((items(0), items(5), items(u32::MAX)), (10, 5, 4096));
}
