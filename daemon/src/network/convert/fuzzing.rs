//! What must hold of any bytes that peers send. The fuzz target calls this with bytes of its making, a test with the
//! kept ones (`fuzz/corpus`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use p2p_sync_core::engine::{GossipMessage, Head, Here, Redeem, RefuseReason, Request, Response};
use p2p_sync_core::ids::{DeviceId, EventId, GroupId, ShortId};
use p2p_sync_core::ledger::SignedEvent;
use p2p_sync_core::lock::succession::Report;
use p2p_sync_core::lock::{self, Answer, Claim, Nonce, Resource, Slot, Token, Voted};
use p2p_sync_core::merkle;
use p2p_sync_proto::peer::v1 as wire;
use prost::Message;

use super::*;

/// Memory that a message may take for each byte it came from.
const MAX_GROWTH: usize = 4;

/// Checks a message; the first byte says on which protocol it came. What is read is written again, in no more bytes than
/// it came in, and says the same; the bytes of its events are the very same.
pub(in crate::network) fn check(bytes: &[u8]) {
    let Some((protocol, bytes)) = bytes.split_first() else {
        return;
    };
    match protocol {
        0 => again(
            bytes,
            ledger_request_from_wire,
            ledger_request_to_wire,
            of_request,
        ),
        1 => again(
            bytes,
            ledger_response_from_wire,
            ledger_response_to_wire,
            of_response,
        ),
        2 => again(bytes, join_request_from_wire, join_request_to_wire, of_request),
        3 => again(bytes, join_response_from_wire, join_response_to_wire, of_response),
        4 => again(
            bytes,
            gossip_from_wire,
            |gossip| Ok(gossip_to_wire(gossip)),
            of_gossip,
        ),
        _ => {
            let Ok(group) = wire::LanResponse::decode(bytes)
                .map_err(ConvertError::from)
                .and_then(lan_from_wire)
            else {
                return;
            };
            assert_eq!(lan_from_wire(lan_to_wire(group)), Ok(group));
        }
    }
}

fn again<M, T>(
    bytes: &[u8],
    from_wire: impl Fn(M) -> Result<T, ConvertError>,
    to_wire: impl Fn(T) -> Result<M, ConvertError>,
    weight: impl Fn(&T) -> usize,
) where
    M: Message + Default,
    T: Clone + PartialEq + std::fmt::Debug,
{
    let Ok(read) = decode::<M>(bytes).and_then(&from_wire) else {
        return;
    };
    assert!(weight(&read) <= MAX_GROWTH * bytes.len());
    let written = to_wire(read.clone()).expect("what came on a protocol belongs to it");
    let written = written.encode_to_vec();
    assert!(written.len() <= bytes.len());
    assert_eq!(decode::<M>(&written).and_then(&from_wire), Ok(read));
}

fn of_request(request: &Request) -> usize {
    match request {
        Request::Pull { have, .. } => size_of_val(have.as_slice()),
        Request::Push { events } | Request::Present { events } => of_events(events),
        Request::Lock(lock::Request::Acquire(claim) | lock::Request::Renew { claim, .. }) => {
            claim.to_bytes().len()
        }
        _ => 0,
    }
}

fn of_response(response: &Response) -> usize {
    match response {
        Response::Heads(heads) => size_of_val(heads.as_slice()),
        Response::Lock(voted) => match &voted.answer {
            Answer::Reported(report) => lock::slots_to_bytes(&report.slots).len(),
            _ => size_of_val(voted.has.as_slice()),
        },
        Response::Events { events, .. } | Response::Accepted { events } | Response::Removed { events } => {
            of_events(events)
        }
        _ => 0,
    }
}

fn of_gossip(gossip: &GossipMessage) -> usize {
    let GossipMessage::EventAnnounced { header, .. } = gossip;
    header.len()
}

fn of_events(events: &[SignedEvent]) -> usize {
    size_of_val(events)
        + events
            .iter()
            .map(|e| e.header.len() + e.body.len())
            .sum::<usize>()
}

/// Returns one message of each kind, from which a search begins.
pub(in crate::network) fn seeds() -> Vec<Vec<u8>> {
    let event = |byte| SignedEvent {
        header: Arc::from([byte; 120].as_slice()),
        signature: [byte; 64],
        body: Arc::from([byte; 30].as_slice()),
    };
    let events = [event(1), event(2)];
    let mut seeds = Vec::new();
    let mut add = |protocol: u8, message: Vec<u8>| seeds.push([vec![protocol], message].concat());
    for request in ledger_requests(&events) {
        add(0, written(ledger_request_to_wire(request)));
    }
    for response in ledger_responses(&events) {
        add(1, written(ledger_response_to_wire(response)));
    }
    for request in join_requests(&events) {
        add(2, written(join_request_to_wire(request)));
    }
    for response in join_responses(&events) {
        add(3, written(join_response_to_wire(response)));
    }
    let header: Arc<[u8]> = events[0].header.clone();
    let gossip = GossipMessage::EventAnnounced {
        author: DeviceId::new([1; 32]),
        seq: 4,
        id: EventId::new(merkle::leaf_hash(&header)),
        header,
        signature: [6; 64],
    };
    add(4, gossip_to_wire(gossip).encode_to_vec());
    add(5, lan_to_wire(Some(GroupId::new([3; 32]))).encode_to_vec());
    add(5, lan_to_wire(None).encode_to_vec());
    seeds
}

fn written<M: Message>(message: Result<M, ConvertError>) -> Vec<u8> {
    message.expect("it belongs to this protocol").encode_to_vec()
}

fn ledger_requests(events: &[SignedEvent]) -> Vec<Request> {
    let head = |byte, size| Head {
        device: ShortId::new([byte; 8]),
        size,
        id16: [byte; 16],
    };
    let have = vec![head(1, 3), head(1, 4), head(2, u64::MAX)];
    vec![
        Request::Heads { digest: [1; 32] },
        Request::Pull { have, max_bytes: 77 },
        Request::Push {
            events: events.to_vec(),
        },
        Request::InSync { digest: [2; 32] },
        Request::Lock(lock::Request::Acquire(claim())),
        Request::Lock(lock::Request::Renew {
            epoch: 1,
            claim: claim(),
            durable: true,
        }),
        Request::Lock(lock::Request::Release {
            epoch: 1,
            nonce: claim().nonce,
            token: claim().token,
            last: 12,
        }),
        Request::Lock(lock::Request::Stand { next: [6; 32] }),
        Request::Lock(lock::Request::Seal {
            epoch: 1,
            next: [6; 32],
        }),
        Request::Lock(lock::Request::Unseal { next: [6; 32] }),
    ]
}

fn claim() -> Claim {
    Claim {
        token: Token { epoch: 0, n: 4 },
        holder: DeviceId::new([3; 32]),
        nonce: Nonce([4; 16]),
        ttl: Duration::from_mins(1),
        durable: true,
        resources: vec![Resource::parse(b"docs/").expect("a directory")],
    }
}

fn lock_responses() -> Vec<Response> {
    let busy = Answer::Busy {
        holder: claim().holder,
        token: claim().token,
        resources: claim().resources,
    };
    let granted = Voted {
        answer: Answer::Granted,
        sig: Some([5; 64]),
        has: vec![(ShortId::new([1; 8]), 3), (ShortId::new([2; 8]), 9)],
    };
    let slot = Slot {
        claim: claim(),
        durable: true,
    };
    let reported = Voted {
        sig: Some([7; 64]),
        ..Voted::from(Answer::Reported(Report {
            epoch: 1,
            next: [6; 32],
            slots: BTreeMap::from([(claim().id(), slot)]),
        }))
    };
    let others = [
        busy,
        Answer::Granted,
        Answer::Stale { floor: 7 },
        Answer::WrongEpoch { epoch: 2 },
        Answer::Sealed { next: [6; 32] },
        Answer::Denied,
        Answer::NotYet,
        Answer::Full,
        Answer::Forgot,
        Answer::Gone,
        Answer::Done,
    ];
    let others = others.into_iter().map(Voted::from);
    [granted, reported]
        .into_iter()
        .chain(others)
        .map(Response::Lock)
        .collect()
}

fn ledger_responses(events: &[SignedEvent]) -> Vec<Response> {
    let head = |byte| Head {
        device: ShortId::new([byte; 8]),
        size: 12,
        id16: [byte; 16],
    };
    vec![
        Response::Same,
        Response::Heads(vec![head(1), head(5)]),
        Response::Events {
            events: events.to_vec(),
            more: true,
            forked: vec![ShortId::new([1; 8])],
        },
        Response::Ack,
        Response::Refused(RefuseReason::NotMember),
    ]
    .into_iter()
    .chain(lock_responses())
    .collect()
}

fn join_requests(events: &[SignedEvent]) -> Vec<Request> {
    vec![
        Request::JoinHello,
        Request::JoinRedeem(Box::new(Redeem {
            group: GroupId::new([1; 32]),
            invite: [2; 32],
            name: "laptop".to_owned(),
            nonce_sig: [3; 64],
            grant_sig: [4; 64],
        })),
        Request::JoinTrustLan {
            name: "desk".to_owned(),
        },
        Request::JoinWho,
        Request::JoinAsk {
            group: GroupId::new([1; 32]),
            name: "ben".to_owned(),
            commitment: [2; 32],
        },
        Request::JoinReveal { nonce: [3; 32] },
        Request::Present {
            events: events.to_vec(),
        },
    ]
}

fn join_responses(events: &[SignedEvent]) -> Vec<Response> {
    let events = events.to_vec();
    vec![
        Response::Challenge { nonce: [5; 32] },
        Response::Accepted {
            events: events.clone(),
        },
        Response::Removed { events },
        Response::Here(Here {
            group: GroupId::new([1; 32]),
            group_name: "photos".to_owned(),
            device_name: "anna".to_owned(),
        }),
        Response::Ack,
        Response::Refused(RefuseReason::NotAsked),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn kept_messages_hold() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/message");
        let kept = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let checked = kept.map(|path| check(&fs::read(path).unwrap())).count();
        assert!(checked > 0);
    }

    #[test]
    fn what_a_search_begins_with_is_read_and_holds() {
        let seeds = seeds();
        for (protocol, read) in [(0, 10), (1, 18), (2, 7), (3, 6), (4, 1), (5, 2)] {
            let of_protocol = seeds.iter().filter(|seed| seed[0] == protocol);
            assert_eq!(of_protocol.count(), read);
        }
        for seed in seeds {
            assert!(is_read(&seed), "{seed:?}");
            check(&seed);
        }
    }

    fn is_read(seed: &[u8]) -> bool {
        let bytes = &seed[1..];
        match seed[0] {
            0 => decode(bytes).and_then(ledger_request_from_wire).is_ok(),
            1 => decode(bytes).and_then(ledger_response_from_wire).is_ok(),
            2 => decode(bytes).and_then(join_request_from_wire).is_ok(),
            3 => decode(bytes).and_then(join_response_from_wire).is_ok(),
            4 => decode(bytes).and_then(gossip_from_wire).is_ok(),
            _ => decode(bytes).and_then(lan_from_wire).is_ok(),
        }
    }
}
