//! Messages about pairing by name.

use p2p_sync_core::engine::{Here, Request, Response};
use p2p_sync_core::ids::GroupId;
use p2p_sync_proto::peer::v1 as wire;

use super::{ConvertError, bounded_name, exact};

pub(super) fn ask_to_wire(group: GroupId, name: String, commitment: [u8; 32]) -> wire::JoinAskRequest {
    wire::JoinAskRequest {
        group: group.as_bytes().to_vec(),
        name,
        commitment: commitment.to_vec(),
    }
}

pub(super) fn ask_from_wire(ask: wire::JoinAskRequest) -> Result<Request, ConvertError> {
    Ok(Request::JoinAsk {
        group: GroupId::from_slice(&ask.group)?,
        name: bounded_name(ask.name)?,
        commitment: exact("commitment", &ask.commitment)?,
    })
}

pub(super) fn here_to_wire(here: Here) -> wire::HereResponse {
    wire::HereResponse {
        group: here.group.as_bytes().to_vec(),
        group_name: here.group_name,
        device_name: here.device_name,
    }
}

pub(super) fn here_from_wire(here: wire::HereResponse) -> Result<Response, ConvertError> {
    Ok(Response::Here(Here {
        group: GroupId::from_slice(&here.group)?,
        group_name: bounded_name(here.group_name)?,
        device_name: bounded_name(here.device_name)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::{
        MAX_NAME_BYTES, join_request_from_wire, join_request_to_wire, join_response_from_wire,
        join_response_to_wire, ledger_request_to_wire,
    };
    use super::*;

    #[test]
    fn every_message_about_pairing_is_read_back() {
        let ask = Request::JoinAsk {
            group: GroupId::new([1; 32]),
            name: "ben".to_owned(),
            commitment: [2; 32],
        };
        for request in [Request::JoinWho, ask, Request::JoinReveal { nonce: [3; 32] }] {
            assert!(request.is_join());
            let message = join_request_to_wire(request.clone()).unwrap();
            assert_eq!(join_request_from_wire(message), Ok(request.clone()));
            assert!(ledger_request_to_wire(request).is_err());
        }
        let response = here("photos", "anna");
        let message = join_response_to_wire(response.clone()).unwrap();
        assert_eq!(join_response_from_wire(message), Ok(response));
    }

    #[test]
    fn names_over_their_bound_and_odd_lengths_are_refused() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for response in [here(&long, "anna"), here("photos", &long)] {
            let message = join_response_to_wire(response).unwrap();
            assert!(join_response_from_wire(message).is_err());
        }
        let ask = |name: &str, bytes| wire::JoinAskRequest {
            group: vec![1; 32],
            name: name.to_owned(),
            commitment: vec![2; bytes],
        };
        assert!(ask_from_wire(ask("ben", 32)).is_ok());
        assert!(ask_from_wire(ask(&long, 32)).is_err());
        assert!(ask_from_wire(ask("ben", 31)).is_err());
    }

    fn here(group_name: &str, device_name: &str) -> Response {
        Response::Here(Here {
            group: GroupId::new([1; 32]),
            group_name: group_name.to_owned(),
            device_name: device_name.to_owned(),
        })
    }
}
