//! How many parts a message has, found out before memory is taken for any.
//!
//! A part of a list may be two bytes long on the wire and takes up to 72 bytes in memory even if it is empty; a page of
//! 4 MiB full of them would take 150 MiB, only to be refused for their number.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{ConvertError, MAX_EVENTS, MAX_LOGS, at_most};

/// Fields that one message may have: its longest list, and what stands beside it.
const MAX_PARTS: usize = if MAX_EVENTS > MAX_LOGS {
    MAX_EVENTS
} else {
    MAX_LOGS
} + 8;

/// Reads a message whose kinds are messages themselves.
pub(in crate::network) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, ConvertError> {
    at_most("message", parts(bytes), MAX_PARTS)?;
    Ok(M::decode(bytes)?)
}

/// Counts the fields of what stands at the top. Counting ends where the decoder would give up.
fn parts(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while bytes.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else {
            break;
        };
        if wire_type != WireType::LengthDelimited {
            if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        }
        let len = decode_varint(&mut bytes)
            .ok()
            .and_then(|len| usize::try_from(len).ok());
        let Some((inner, rest)) = len.and_then(|len| bytes.split_at_checked(len)) else {
            break;
        };
        count += fields(inner);
        bytes = rest;
    }
    count
}

fn fields(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while bytes.has_remaining() {
        count += 1;
        let skipped = decode_key(&mut bytes)
            .and_then(|(tag, wire_type)| skip_field(wire_type, tag, &mut bytes, DecodeContext::default()));
        if skipped.is_err() {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use p2p_sync_proto::peer::v1 as wire;
    use p2p_sync_proto::peer::v1::ledger_request::Kind;

    use super::*;

    fn push(events: usize) -> Vec<u8> {
        let events = vec![wire::SignedEvent::default(); events];
        let kind = Some(Kind::Push(wire::PushRequest { events }));
        wire::LedgerRequest { kind }.encode_to_vec()
    }

    #[test]
    fn a_message_of_too_many_empty_parts_is_refused_before_they_are_read() {
        assert!(decode::<wire::LedgerRequest>(&push(MAX_PARTS)).is_ok());
        let refused = decode::<wire::LedgerRequest>(&push(MAX_PARTS + 1));
        let expected = ConvertError::TooLarge {
            field: "message",
            actual: MAX_PARTS + 1,
            max: MAX_PARTS,
        };
        assert_eq!(refused, Err(expected));
    }

    /// The decoder adds a list that comes in two pieces together.
    #[test]
    fn parts_are_counted_over_all_pieces_of_a_message() {
        let pieces = [push(MAX_PARTS / 2 + 1), push(MAX_PARTS / 2 + 1)].concat();
        assert_eq!(parts(&pieces), 2 * (MAX_PARTS / 2 + 1));
        assert!(decode::<wire::LedgerRequest>(&pieces).is_err());
    }

    #[test]
    fn what_is_no_message_is_left_to_the_decoder() {
        for bytes in [&[0x0a, 0xff][..], &[0xff; 20], &[0x0b, 0x0b]] {
            assert!(parts(bytes) <= 1);
            assert!(matches!(
                decode::<wire::LedgerRequest>(bytes),
                Err(ConvertError::Malformed(_))
            ));
        }
    }
}
