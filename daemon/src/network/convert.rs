//! Between wire messages and the engine's types, by hand. What does not fit exactly is refused: a missing or unknown
//! kind, a name of the wrong length, a field over its bound, a list out of order.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod locks;
mod pairing;
mod parts;

use std::sync::Arc;

use p2p_sync_core::engine::{
    GossipMessage, Head, MAX_PAGE_BYTES, MAX_PRESENT_BYTES, MAX_PUSH_BYTES, Redeem, RefuseReason, Request,
    Response,
};
use p2p_sync_core::ids::{DeviceId, EventId, GroupId, IdError, ShortId};
use p2p_sync_core::ledger::{MAX_BODY, MAX_HEADER, SignedEvent};
use p2p_sync_core::merkle;
use p2p_sync_proto::peer::v1 as wire;

pub(super) use self::parts::decode;

/// Bytes a device's name may have; for people, so more would only be abuse.
const MAX_NAME_BYTES: usize = 256;
/// Logs one message may name: far more than any group has devices, and below what fits a frame.
const MAX_LOGS: usize = 16_384;
/// Events one message may carry: a page of the smallest events. A header alone has over 100 bytes.
const MAX_EVENTS: usize = 16_384;

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The kind is missing or one this daemon does not know.
    #[error("The kind of this {message} is not known")]
    UnknownKind {
        /// Which message.
        message: &'static str,
    },
    /// A field does not have its exact length.
    #[error("{field} has the wrong length: {actual} bytes")]
    Length {
        /// Which field.
        field: &'static str,
        /// Its bytes.
        actual: usize,
    },
    /// A name is malformed.
    #[error("A name is malformed")]
    Id(#[from] IdError),
    /// A field or list is larger than allowed.
    #[error("{field} is too large: {actual}, at most {max}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Its size.
        actual: usize,
        /// Its bound.
        max: usize,
    },
    /// A list that must be strictly ascending is not.
    #[error("{field} is not in order")]
    Unsorted {
        /// Which list.
        field: &'static str,
    },
    /// The id of an announced event is not the hash of its header.
    #[error("The announced id is not the hash of the header")]
    WrongEventId,
    /// The bytes are not protobuf, or not of this message.
    #[error("The message is malformed")]
    Malformed(#[from] prost::DecodeError),
    /// This message does not travel on this protocol.
    #[error("This {message} does not belong to this protocol")]
    WrongProtocol {
        /// Which message.
        message: &'static str,
    },
}

/// Writes a request of the ledger protocol.
pub(super) fn ledger_request_to_wire(request: Request) -> Result<wire::LedgerRequest, ConvertError> {
    use wire::ledger_request::Kind;
    let kind = match request {
        Request::Heads { digest } => Kind::Heads(wire::HeadsRequest {
            digest: digest.to_vec(),
        }),
        Request::Pull { have, max_bytes } => Kind::Pull(wire::PullRequest {
            have: have.into_iter().map(head_to_wire).collect(),
            max_bytes,
        }),
        Request::Push { events } => Kind::Push(wire::PushRequest {
            events: events_to_wire(&events),
        }),
        Request::InSync { digest } => Kind::InSync(wire::InSyncRequest {
            digest: digest.to_vec(),
        }),
        Request::Lock(request) => Kind::Lock(locks::request_to_wire(request)),
        Request::JoinHello
        | Request::JoinRedeem(_)
        | Request::JoinTrustLan { .. }
        | Request::JoinWho
        | Request::JoinAsk { .. }
        | Request::JoinReveal { .. }
        | Request::Present { .. } => {
            return Err(ConvertError::WrongProtocol { message: "request" });
        }
    };
    Ok(wire::LedgerRequest { kind: Some(kind) })
}

/// Reads a request of the ledger protocol.
pub(super) fn ledger_request_from_wire(message: wire::LedgerRequest) -> Result<Request, ConvertError> {
    use wire::ledger_request::Kind;
    let kind = message.kind.ok_or(ConvertError::UnknownKind {
        message: "ledger request",
    })?;
    Ok(match kind {
        Kind::Heads(heads) => Request::Heads {
            digest: exact("digest", &heads.digest)?,
        },
        Kind::Pull(pull) => Request::Pull {
            have: heads_from_wire("have", pull.have)?,
            max_bytes: pull.max_bytes,
        },
        Kind::Push(push) => Request::Push {
            events: events_from_wire(push.events, MAX_PUSH_BYTES.max(MAX_EVENT_BYTES))?,
        },
        Kind::InSync(in_sync) => Request::InSync {
            digest: exact("digest", &in_sync.digest)?,
        },
        Kind::Lock(request) => Request::Lock(locks::request_from_wire(request)?),
    })
}

/// Writes a response of the ledger protocol.
pub(super) fn ledger_response_to_wire(response: Response) -> Result<wire::LedgerResponse, ConvertError> {
    use wire::ledger_response::Kind;
    let kind = match response {
        Response::Same => Kind::Same(wire::Same {}),
        Response::Heads(heads) => Kind::Heads(wire::HeadsResponse {
            heads: heads.into_iter().map(head_to_wire).collect(),
        }),
        Response::Events { events, more, forked } => Kind::Events(wire::EventsResponse {
            events: events_to_wire(&events),
            more,
            forked: forked.iter().map(|device| device.as_bytes().to_vec()).collect(),
        }),
        Response::Ack => Kind::Ack(wire::Ack {}),
        Response::Lock(voted) => Kind::Lock(locks::response_to_wire(voted)),
        Response::Refused(reason) => Kind::Refused(refused_to_wire(reason)),
        Response::Here(_)
        | Response::Challenge { .. }
        | Response::Accepted { .. }
        | Response::Removed { .. } => {
            return Err(ConvertError::WrongProtocol { message: "response" });
        }
    };
    Ok(wire::LedgerResponse { kind: Some(kind) })
}

/// Reads a response of the ledger protocol.
pub(super) fn ledger_response_from_wire(message: wire::LedgerResponse) -> Result<Response, ConvertError> {
    use wire::ledger_response::Kind;
    let kind = message.kind.ok_or(ConvertError::UnknownKind {
        message: "ledger response",
    })?;
    Ok(match kind {
        Kind::Same(wire::Same {}) => Response::Same,
        Kind::Heads(heads) => Response::Heads(heads_from_wire("heads", heads.heads)?),
        Kind::Events(page) => Response::Events {
            events: events_from_wire(page.events, MAX_PAGE_BYTES + MAX_EVENT_BYTES)?,
            more: page.more,
            forked: devices_from_wire("forked", &page.forked)?,
        },
        Kind::Ack(wire::Ack {}) => Response::Ack,
        Kind::Lock(voted) => Response::Lock(locks::response_from_wire(voted)?),
        Kind::Refused(refused) => Response::Refused(refused_from_wire(refused)?),
    })
}

/// Writes a request of the join protocol.
pub(super) fn join_request_to_wire(request: Request) -> Result<wire::JoinRequest, ConvertError> {
    use wire::join_request::Kind;
    let kind = match request {
        Request::JoinHello => Kind::Hello(wire::JoinHelloRequest {}),
        Request::JoinRedeem(redeem) => Kind::Redeem(wire::JoinRedeemRequest {
            group: redeem.group.as_bytes().to_vec(),
            invite: redeem.invite.to_vec(),
            name: redeem.name,
            nonce_sig: redeem.nonce_sig.to_vec(),
            grant_sig: redeem.grant_sig.to_vec(),
        }),
        Request::JoinTrustLan { name } => Kind::TrustLan(wire::JoinTrustLanRequest { name }),
        Request::JoinWho => Kind::Who(wire::JoinWhoRequest {}),
        Request::JoinAsk {
            group,
            name,
            commitment,
        } => Kind::Ask(pairing::ask_to_wire(group, name, commitment)),
        Request::JoinReveal { nonce } => Kind::Reveal(wire::JoinRevealRequest {
            nonce: nonce.to_vec(),
        }),
        Request::Present { events } => Kind::Present(wire::PresentRequest {
            events: events_to_wire(&events),
        }),
        Request::Heads { .. }
        | Request::Pull { .. }
        | Request::Push { .. }
        | Request::InSync { .. }
        | Request::Lock(_) => {
            return Err(ConvertError::WrongProtocol { message: "request" });
        }
    };
    Ok(wire::JoinRequest { kind: Some(kind) })
}

/// Reads a request of the join protocol.
pub(super) fn join_request_from_wire(message: wire::JoinRequest) -> Result<Request, ConvertError> {
    use wire::join_request::Kind;
    let kind = message.kind.ok_or(ConvertError::UnknownKind {
        message: "join request",
    })?;
    Ok(match kind {
        Kind::Hello(wire::JoinHelloRequest {}) => Request::JoinHello,
        Kind::Redeem(redeem) => Request::JoinRedeem(Box::new(Redeem {
            group: GroupId::from_slice(&redeem.group)?,
            invite: exact("invite", &redeem.invite)?,
            name: bounded_name(redeem.name)?,
            nonce_sig: exact("nonce_sig", &redeem.nonce_sig)?,
            grant_sig: exact("grant_sig", &redeem.grant_sig)?,
        })),
        Kind::TrustLan(trust_lan) => Request::JoinTrustLan {
            name: bounded_name(trust_lan.name)?,
        },
        Kind::Who(wire::JoinWhoRequest {}) => Request::JoinWho,
        Kind::Ask(ask) => pairing::ask_from_wire(ask)?,
        Kind::Reveal(reveal) => Request::JoinReveal {
            nonce: exact("nonce", &reveal.nonce)?,
        },
        Kind::Present(present) => Request::Present {
            events: events_from_wire(present.events, MAX_PRESENT_BYTES)?,
        },
    })
}

/// Writes a response of the join protocol.
pub(super) fn join_response_to_wire(response: Response) -> Result<wire::JoinResponse, ConvertError> {
    use wire::join_response::Kind;
    let kind = match response {
        Response::Challenge { nonce } => Kind::Challenge(wire::ChallengeResponse {
            nonce: nonce.to_vec(),
        }),
        Response::Accepted { events } => Kind::Accepted(wire::AcceptedResponse {
            events: events_to_wire(&events),
        }),
        Response::Here(here) => Kind::Here(pairing::here_to_wire(here)),
        Response::Removed { events } => Kind::Removed(wire::RemovedResponse {
            events: events_to_wire(&events),
        }),
        Response::Ack => Kind::Ack(wire::Ack {}),
        Response::Refused(reason) => Kind::Refused(refused_to_wire(reason)),
        Response::Same | Response::Heads(_) | Response::Events { .. } | Response::Lock(_) => {
            return Err(ConvertError::WrongProtocol { message: "response" });
        }
    };
    Ok(wire::JoinResponse { kind: Some(kind) })
}

/// Reads a response of the join protocol.
pub(super) fn join_response_from_wire(message: wire::JoinResponse) -> Result<Response, ConvertError> {
    use wire::join_response::Kind;
    let kind = message.kind.ok_or(ConvertError::UnknownKind {
        message: "join response",
    })?;
    Ok(match kind {
        Kind::Challenge(challenge) => Response::Challenge {
            nonce: exact("nonce", &challenge.nonce)?,
        },
        Kind::Accepted(accepted) => Response::Accepted {
            events: events_from_wire(accepted.events, MAX_ACCEPTED_BYTES)?,
        },
        Kind::Here(here) => pairing::here_from_wire(here)?,
        Kind::Removed(removed) => Response::Removed {
            events: events_from_wire(removed.events, MAX_ACCEPTED_BYTES)?,
        },
        Kind::Ack(wire::Ack {}) => Response::Ack,
        Kind::Refused(refused) => Response::Refused(refused_from_wire(refused)?),
    })
}

/// Writes a broadcast.
pub(super) fn gossip_to_wire(message: GossipMessage) -> wire::GossipMessage {
    let GossipMessage::EventAnnounced {
        author,
        seq,
        id,
        header,
        signature,
    } = message;
    let announced = wire::EventAnnounced {
        author: author.as_bytes().to_vec(),
        seq,
        id: id.as_bytes().to_vec(),
        header: header.to_vec(),
        signature: signature.to_vec(),
    };
    wire::GossipMessage {
        kind: Some(wire::gossip_message::Kind::EventAnnounced(announced)),
    }
}

/// Reads a broadcast; its id is checked against its header.
pub(super) fn gossip_from_wire(message: wire::GossipMessage) -> Result<GossipMessage, ConvertError> {
    let Some(wire::gossip_message::Kind::EventAnnounced(announced)) = message.kind else {
        return Err(ConvertError::UnknownKind {
            message: "gossip message",
        });
    };
    at_most("header", announced.header.len(), MAX_HEADER)?;
    let id = EventId::from_slice(&announced.id)?;
    if merkle::leaf_hash(&announced.header) != *id.as_bytes() {
        return Err(ConvertError::WrongEventId);
    }
    Ok(GossipMessage::EventAnnounced {
        author: DeviceId::from_slice(&announced.author)?,
        seq: announced.seq,
        id,
        header: Arc::from(announced.header),
        signature: exact("signature", &announced.signature)?,
    })
}

/// Writes the answer to "which group are you in?".
pub(super) fn lan_to_wire(group: Option<GroupId>) -> wire::LanResponse {
    wire::LanResponse {
        group: group.map(|group| group.as_bytes().to_vec()),
    }
}

/// Reads the answer to "which group are you in?".
pub(super) fn lan_from_wire(message: wire::LanResponse) -> Result<Option<GroupId>, ConvertError> {
    let group = message
        .group
        .map(|group| GroupId::from_slice(&group))
        .transpose()?;
    Ok(group)
}

const MAX_EVENT_BYTES: usize = MAX_HEADER + MAX_BODY + 64;
/// The largest answer to a join; the frame's bound, less room for the fields around the events.
const MAX_ACCEPTED_BYTES: usize = 128 << 10;

fn at_most(field: &'static str, actual: usize, max: usize) -> Result<(), ConvertError> {
    if actual > max {
        return Err(ConvertError::TooLarge { field, actual, max });
    }
    Ok(())
}

fn exact<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
    bytes.try_into().map_err(|_| ConvertError::Length {
        field,
        actual: bytes.len(),
    })
}

fn bounded_name(name: String) -> Result<String, ConvertError> {
    at_most("name", name.len(), MAX_NAME_BYTES)?;
    Ok(name)
}

fn events_to_wire(events: &[SignedEvent]) -> Vec<wire::SignedEvent> {
    let to_wire = |event: &SignedEvent| wire::SignedEvent {
        header: event.header.to_vec(),
        signature: event.signature.to_vec(),
        body: event.body.to_vec(),
    };
    events.iter().map(to_wire).collect()
}

fn events_from_wire(
    events: Vec<wire::SignedEvent>,
    max_bytes: usize,
) -> Result<Vec<SignedEvent>, ConvertError> {
    at_most("events", events.len(), MAX_EVENTS)?;
    let bytes = events
        .iter()
        .map(|event| event.header.len() + event.body.len() + 64);
    at_most("events", bytes.sum(), max_bytes)?;
    events.into_iter().map(event_from_wire).collect()
}

fn event_from_wire(event: wire::SignedEvent) -> Result<SignedEvent, ConvertError> {
    at_most("header", event.header.len(), MAX_HEADER)?;
    at_most("body", event.body.len(), MAX_BODY)?;
    Ok(SignedEvent {
        header: Arc::from(event.header),
        signature: exact("signature", &event.signature)?,
        body: Arc::from(event.body),
    })
}

fn head_to_wire(head: Head) -> wire::Head {
    wire::Head {
        device: head.device.as_bytes().to_vec(),
        size: head.size,
        id16: head.id16.to_vec(),
    }
}

fn heads_from_wire(field: &'static str, heads: Vec<wire::Head>) -> Result<Vec<Head>, ConvertError> {
    at_most(field, heads.len(), MAX_LOGS)?;
    let read = |head: wire::Head| {
        Ok(Head {
            device: ShortId::from_slice(&head.device)?,
            size: head.size,
            id16: exact("id16", &head.id16)?,
        })
    };
    let heads = heads
        .into_iter()
        .map(read)
        .collect::<Result<Vec<_>, ConvertError>>()?;
    if !heads.is_sorted_by(|a, b| a < b) {
        return Err(ConvertError::Unsorted { field });
    }
    Ok(heads)
}

fn devices_from_wire(field: &'static str, devices: &[Vec<u8>]) -> Result<Vec<ShortId>, ConvertError> {
    at_most(field, devices.len(), MAX_LOGS)?;
    let devices = devices.iter().map(|device| ShortId::from_slice(device));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    if !devices.is_sorted_by(|a, b| a < b) {
        return Err(ConvertError::Unsorted { field });
    }
    Ok(devices)
}

fn refused_to_wire(reason: RefuseReason) -> wire::Refused {
    let reason = match reason {
        RefuseReason::NotMember => wire::RefuseReason::NotMember,
        RefuseReason::OtherGroup => wire::RefuseReason::OtherGroup,
        RefuseReason::BadInvite => wire::RefuseReason::BadInvite,
        RefuseReason::Expired => wire::RefuseReason::Expired,
        RefuseReason::UsedUp => wire::RefuseReason::UsedUp,
        RefuseReason::MayNotAdmit => wire::RefuseReason::MayNotAdmit,
        RefuseReason::Busy => wire::RefuseReason::Busy,
        RefuseReason::NotAsked => wire::RefuseReason::NotAsked,
    };
    wire::Refused {
        reason: reason.into(),
    }
}

fn refused_from_wire(refused: wire::Refused) -> Result<RefuseReason, ConvertError> {
    let unknown = ConvertError::UnknownKind { message: "refusal" };
    match wire::RefuseReason::try_from(refused.reason) {
        Ok(wire::RefuseReason::NotMember) => Ok(RefuseReason::NotMember),
        Ok(wire::RefuseReason::OtherGroup) => Ok(RefuseReason::OtherGroup),
        Ok(wire::RefuseReason::BadInvite) => Ok(RefuseReason::BadInvite),
        Ok(wire::RefuseReason::Expired) => Ok(RefuseReason::Expired),
        Ok(wire::RefuseReason::UsedUp) => Ok(RefuseReason::UsedUp),
        Ok(wire::RefuseReason::MayNotAdmit) => Ok(RefuseReason::MayNotAdmit),
        Ok(wire::RefuseReason::Busy) => Ok(RefuseReason::Busy),
        Ok(wire::RefuseReason::NotAsked) => Ok(RefuseReason::NotAsked),
        Ok(wire::RefuseReason::Unspecified) | Err(_) => Err(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ledger_message_is_read_back() {
        let requests = [
            Request::Heads { digest: [1; 32] },
            Request::Pull {
                have: vec![head(1), head(2)],
                max_bytes: 77,
            },
            Request::Push {
                events: vec![event(3)],
            },
            Request::InSync { digest: [2; 32] },
        ];
        for request in requests {
            assert!(!request.is_join());
            let message = ledger_request_to_wire(request.clone()).unwrap();
            assert_eq!(ledger_request_from_wire(message), Ok(request.clone()));
            assert!(join_request_to_wire(request).is_err());
        }
        let heads = vec![head(1), head(5)];
        let events = vec![event(1), event(2)];
        let responses = [
            Response::Same,
            Response::Heads(heads),
            Response::Events {
                events,
                more: true,
                forked: vec![short(1), short(2)],
            },
            Response::Ack,
            Response::Refused(RefuseReason::NotMember),
        ];
        for response in responses {
            let message = ledger_response_to_wire(response.clone()).unwrap();
            assert_eq!(ledger_response_from_wire(message), Ok(response));
        }
    }

    #[test]
    fn every_join_message_is_read_back() {
        let redeem = Redeem {
            group: GroupId::new([1; 32]),
            invite: [2; 32],
            name: "laptop".to_owned(),
            nonce_sig: [3; 64],
            grant_sig: [4; 64],
        };
        let requests = [
            Request::JoinHello,
            Request::JoinRedeem(Box::new(redeem)),
            Request::JoinTrustLan {
                name: "desk".to_owned(),
            },
            Request::Present {
                events: vec![event(9)],
            },
        ];
        for request in requests {
            assert!(request.is_join());
            let message = join_request_to_wire(request.clone()).unwrap();
            assert_eq!(join_request_from_wire(message), Ok(request.clone()));
            assert!(ledger_request_to_wire(request).is_err());
        }
        let mut responses = vec![
            Response::Challenge { nonce: [5; 32] },
            Response::Accepted {
                events: vec![event(1)],
            },
            Response::Removed {
                events: vec![event(2)],
            },
            Response::Ack,
        ];
        responses.extend(REASONS.map(Response::Refused));
        for response in responses {
            let message = join_response_to_wire(response.clone()).unwrap();
            assert_eq!(join_response_from_wire(message), Ok(response));
        }
    }

    #[test]
    fn gossip_is_read_back_and_its_id_is_checked() {
        let gossip = announced(b"header");
        let message = gossip_to_wire(gossip.clone());
        assert_eq!(gossip_from_wire(message), Ok(gossip));
        let GossipMessage::EventAnnounced {
            author,
            seq,
            id,
            signature,
            ..
        } = announced(b"one");
        let forged = GossipMessage::EventAnnounced {
            author,
            seq,
            id,
            header: Arc::from(&b"other"[..]),
            signature,
        };
        let read = gossip_from_wire(gossip_to_wire(forged));
        assert_eq!(read, Err(ConvertError::WrongEventId));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let empty = wire::LedgerRequest { kind: None };
        assert!(matches!(
            ledger_request_from_wire(empty),
            Err(ConvertError::UnknownKind { .. })
        ));
        let mut unsorted = wire::PullRequest {
            have: vec![head_to_wire(head(2)), head_to_wire(head(1))],
            max_bytes: 1,
        };
        assert_eq!(
            pull(unsorted.clone()),
            Err(ConvertError::Unsorted { field: "have" })
        );
        unsorted.have = vec![head_to_wire(head(1)); 2];
        assert!(pull(unsorted.clone()).is_err(), "a log named twice");
        unsorted.have = vec![wire::Head {
            device: vec![0; 7],
            ..head_to_wire(head(1))
        }];
        assert!(matches!(pull(unsorted), Err(ConvertError::Id(_))));
        let reason = wire::Refused { reason: 99 };
        assert!(refused_from_wire(reason).is_err());
    }

    #[test]
    fn lists_of_logs_and_events_over_their_bounds_are_refused() {
        let logs = |count: usize| (0..count as u64).map(|n| ShortId::new(n.to_be_bytes()));
        let heads = |count| logs(count).map(|device| head_to_wire(Head { device, ..head(0) }));
        assert!(heads_from_wire("heads", heads(MAX_LOGS).collect()).is_ok());
        assert!(heads_from_wire("heads", heads(MAX_LOGS + 1).collect()).is_err());
        let forked = |count| {
            logs(count)
                .map(|device| device.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        assert!(devices_from_wire("forked", &forked(MAX_LOGS)).is_ok());
        assert!(devices_from_wire("forked", &forked(MAX_LOGS + 1)).is_err());
        let events = vec![event(1); MAX_EVENTS + 1];
        assert!(events_from_wire(events_to_wire(&events), usize::MAX).is_err());
        assert!(events_from_wire(events_to_wire(&events[1..]), usize::MAX).is_ok());
    }

    #[test]
    fn messages_over_their_bounds_are_refused() {
        let mut large = event(1);
        large.body = Arc::from(vec![0; MAX_BODY + 1]);
        let wired = events_to_wire(&[large]);
        assert!(matches!(
            events_from_wire(wired, usize::MAX),
            Err(ConvertError::TooLarge { field: "body", .. })
        ));
        let mut body = event(1);
        body.body = Arc::from(vec![0; MAX_PRESENT_BYTES]);
        let present = Request::Present { events: vec![body] };
        let message = join_request_to_wire(present).unwrap();
        assert!(matches!(
            join_request_from_wire(message),
            Err(ConvertError::TooLarge { .. })
        ));
        assert!(bounded_name("x".repeat(MAX_NAME_BYTES + 1)).is_err());
    }

    const REASONS: [RefuseReason; 8] = [
        RefuseReason::NotMember,
        RefuseReason::OtherGroup,
        RefuseReason::BadInvite,
        RefuseReason::Expired,
        RefuseReason::UsedUp,
        RefuseReason::MayNotAdmit,
        RefuseReason::Busy,
        RefuseReason::NotAsked,
    ];

    fn pull(pull: wire::PullRequest) -> Result<Request, ConvertError> {
        ledger_request_from_wire(wire::LedgerRequest {
            kind: Some(wire::ledger_request::Kind::Pull(pull)),
        })
    }

    fn short(byte: u8) -> ShortId {
        ShortId::new([byte; 8])
    }

    fn head(byte: u8) -> Head {
        Head {
            device: short(byte),
            size: 12,
            id16: [byte; 16],
        }
    }

    fn event(byte: u8) -> SignedEvent {
        SignedEvent {
            header: Arc::from([byte; 120].as_slice()),
            signature: [byte; 64],
            body: Arc::from([byte; 30].as_slice()),
        }
    }

    fn announced(header: &[u8]) -> GossipMessage {
        GossipMessage::EventAnnounced {
            author: DeviceId::new([1; 32]),
            seq: 4,
            id: EventId::new(merkle::leaf_hash(header)),
            header: Arc::from(header),
            signature: [6; 64],
        }
    }
}
