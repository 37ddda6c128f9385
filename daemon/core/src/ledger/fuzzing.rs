//! What must hold of any bytes that strangers send as a header, a body or a proof. The fuzz targets call these with
//! bytes of their making, the tests with the kept ones (`fuzz/corpus`).

mod seeds;

use super::event::{Body, EventKind, Header, Seen, SignedEvent};
use super::item::Item;
use super::proof;
use crate::merkle;
use crate::time::Hlc;

pub use seeds::{bodies, headers, proofs};

/// Memory that a decoded value may take for each byte it came from. The worst is a body of items of three bytes each.
const MAX_GROWTH: usize = 128;

/// Checks a header: what is read is written as the very same bytes, and takes memory in proportion.
///
/// # Panics
/// If it does not hold.
pub fn check_header(bytes: &[u8]) {
    let Ok(header) = Header::from_bytes(bytes) else {
        return;
    };
    assert_eq!(header.to_bytes(), bytes, "{header:?}");
    assert!(header.seen.capacity() * size_of::<Seen>() <= MAX_GROWTH * bytes.len());
}

/// Checks a body: the same, and that an event with this body is read back and shows each of its items.
///
/// # Panics
/// If it does not hold.
pub fn check_body(bytes: &[u8]) {
    let Ok(body) = Body::from_bytes(bytes) else {
        return;
    };
    let known = |item: &Item| !matches!(item, Item::Unknown { .. });
    if body.items.iter().all(known) {
        assert_eq!(body.to_bytes(), bytes, "{body:?}");
    }
    assert!(body.items.capacity() * size_of::<Item>() <= MAX_GROWTH * bytes.len());
    let header = header_of(bytes, &body);
    let event = SignedEvent {
        header: header.to_bytes().into(),
        signature: [0; 64],
        body: bytes.into(),
    };
    let read = event.read_stored().expect("the header was made for this body");
    assert_eq!(read.body, body);
    let last = header.n_items.saturating_sub(1);
    for index in [0, last] {
        let proof = event.item_proof(index);
        assert_eq!(proof.is_some(), index < header.n_items);
        assert!(proof.is_none_or(|proof| proof.holds(index, &header)));
    }
    assert_eq!(event.item_proof(header.n_items), None);
}

/// Checks a proof: what is read is written as the very same bytes, and checking it comes to a result.
///
/// # Panics
/// If it does not hold.
pub fn check_proof(bytes: &[u8]) {
    proof::fuzzing::check(bytes);
}

/// A header that names this body.
fn header_of(bytes: &[u8], body: &Body) -> Header {
    Header {
        author: super::samples::device(0),
        seq: 0,
        prev_root: merkle::empty_root(),
        hlc: Hlc::from_bits(1),
        wall_ms: 0,
        seen: Vec::new(),
        kind: EventKind::Work,
        n_items: u32::try_from(body.items.len()).expect("a body has few items"),
        body_len: u32::try_from(bytes.len()).expect("a body is short"),
        body_root: super::event::root_of_body(bytes).expect("the body was read"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::GroupId;

    /// Returns the inputs that are kept of a fuzz target.
    #[expect(clippy::disallowed_methods, reason = "kept inputs are files")]
    pub(crate) fn kept(target: &str) -> Vec<Vec<u8>> {
        let dir = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut paths: Vec<_> = std::fs::read_dir(&dir)
            .unwrap_or_else(|error| panic!("{dir}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        assert!(!paths.is_empty(), "{dir} holds nothing");
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[test]
    fn kept_headers_bodies_and_proofs_hold() {
        kept("header").iter().for_each(|bytes| check_header(bytes));
        kept("body").iter().for_each(|bytes| check_body(bytes));
        kept("proof").iter().for_each(|bytes| check_proof(bytes));
    }

    #[test]
    fn what_a_search_begins_with_is_read_and_holds() {
        for bytes in headers() {
            assert!(Header::from_bytes(&bytes).is_ok());
            check_header(&bytes);
        }
        for bytes in bodies() {
            assert!(Body::from_bytes(&bytes).is_ok());
            check_body(&bytes);
        }
        assert!(proofs().len() > 10);
        for bytes in proofs() {
            check_proof(&bytes);
            assert!(proof::check(&bytes, GroupId::new([0; 32])).is_err());
        }
    }

    #[test]
    fn a_body_of_the_most_elements_takes_memory_in_proportion() {
        let most = Body {
            seed: [0; 16],
            items: vec![Item::Unknown { tag: 127 }; crate::ledger::MAX_ITEMS],
        };
        check_body(&most.to_bytes());
    }
}
