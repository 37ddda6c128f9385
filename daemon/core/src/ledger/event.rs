//! Headers, bodies and signatures (ledger.md 1).
//!
//! ```text
//! Header = [v, author bstr32, seq, prev_root bstr32, hlc, wall_ms, [[ShortId bstr8, next_seq, id16 bstr16]…],
//!           kind, n_items, body_len, body_root bstr32]          at most 8 KiB
//! Body   = [seed bstr16, [item bstr…]]                          at most 1 MiB; each item is its own CBOR document
//! sig    = Ed25519("p2p-sync/event/1\0" ‖ GroupId ‖ header)     the group of a Genesis event is 32 zero bytes
//! id     = SHA-256(0x00 ‖ header)
//! salt_i = HMAC-SHA-256(seed, i as u32 big-endian)[..16] ; leaf_i = SHA-256(0x00 ‖ salt_i ‖ item_i)
//! ```
//!
//! The received bytes are hashed and verified, never a re-encoding of them.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::item::Item;
use crate::encoding::{self, Decoder, EncodingError, ShapeError, array_len, array_of, bytes_of, infallible};
use crate::ids::{DeviceId, EventId, GroupId, ShortId};
use crate::merkle;
use crate::signature;
use crate::time::Hlc;

/// The format number of this daemon; a daemon opens only groups of its own.
pub const FORMAT_VERSION: u8 = 0;
/// Bytes a header may have.
pub const MAX_HEADER: usize = 8 << 10;
/// Bytes a body may have.
pub const MAX_BODY: usize = 1 << 20;
/// Items a body may have.
pub const MAX_ITEMS: usize = 4096;

const SIGN_CONTEXT: &[u8] = b"p2p-sync/event/1\0";
/// Kinds with this bit must be understood by whoever folds the event.
const CRITICAL_KIND: u16 = 1 << 15;

/// What sort of event this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// The first event of a group.
    Genesis,
    /// Grants and invites.
    Admin,
    /// Puts, Dels, Discards.
    Work,
    /// A kind this daemon does not know: kept, relayed, ignored.
    Unknown(u16),
}

impl EventKind {
    /// Returns the header's number.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Genesis => 0,
            Self::Admin => 1,
            Self::Work => 2,
            Self::Unknown(code) => code,
        }
    }

    /// Returns the kind with this number.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => Self::Genesis,
            1 => Self::Admin,
            2 => Self::Work,
            other => Self::Unknown(other),
        }
    }

    /// Says whether whoever does not know this kind must not fold.
    #[must_use]
    pub const fn is_unknown_critical(self) -> bool {
        matches!(self, Self::Unknown(code) if code & CRITICAL_KIND != 0)
    }
}

/// One entry of `seen`: the author had all events of `device` below `next_seq`, the last of which starts with `id16`. Of a
/// log that forked there is one for each branch; of the author's own those that it is not on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Whose log.
    pub device: ShortId,
    /// How many events of it; at least 1.
    pub next_seq: u64,
    /// First half of the id of event `next_seq - 1`.
    pub id16: [u8; 16],
}

/// A header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who.
    pub author: DeviceId,
    /// Its place in the author's log.
    pub seq: u64,
    /// Tree head over the ids of the author's events before it.
    pub prev_root: merkle::Hash,
    /// For order only.
    pub hlc: Hlc,
    /// The author's clock, for display only.
    pub wall_ms: u64,
    /// What is newly seen of the others since the author's previous event, sorted.
    pub seen: Vec<Seen>,
    /// What sort.
    pub kind: EventKind,
    /// Items in the body.
    pub n_items: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// Tree head over the salted items.
    pub body_root: merkle::Hash,
}

/// A body's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// From which the salts are derived.
    pub seed: [u8; 16],
    /// What the event says.
    pub items: Vec<Item>,
}

/// The signed bytes of an event, as they travel and are stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedEvent {
    /// The header's bytes.
    pub header: Arc<[u8]>,
    /// The signature.
    pub signature: [u8; 64],
    /// The body's bytes.
    pub body: Arc<[u8]>,
}

impl std::fmt::Debug for SignedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedEvent({:?}, {} B)", self.id(), self.len())
    }
}

/// An event whose bytes, signature and body have been checked (not yet its place in a log).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvent {
    /// Its id.
    pub id: EventId,
    /// The header.
    pub header: Header,
    /// The body.
    pub body: Body,
    /// The bytes.
    pub signed: SignedEvent,
}

/// One item of an event, and that it is one, without the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemProof {
    /// Keeps the other leaves of the tree from being guessed.
    pub salt: [u8; 16],
    /// The item's bytes.
    pub item: Vec<u8>,
    /// Its audit path in the tree over the salted items.
    pub path: Vec<merkle::Hash>,
}

/// Why bytes are not an event of this group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// Larger than allowed.
    #[error("The event is larger than allowed")]
    TooLarge,
    /// Not deterministic CBOR.
    #[error("The event is not deterministic CBOR")]
    Encoding(#[from] EncodingError),
    /// Not of the documented shape.
    #[error("The event does not have the documented shape")]
    Shape(#[from] ShapeError),
    /// Of another format number.
    #[error("The event is of format {0}, this daemon knows format {FORMAT_VERSION}")]
    Version(u64),
    /// The signature is wrong.
    #[error("The signature is wrong")]
    Signature,
    /// The body is not the one the header names.
    #[error("The body is not the one that the header names")]
    Body(#[from] BodyError),
}

/// Why a body is not the one its header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Length, number of items or tree head differ.
    #[error("Length, number of items or tree head differ")]
    Mismatch,
}

impl SignedEvent {
    /// Makes and signs an event. `header.n_items`, `body_len` and `body_root` are filled in from the body.
    ///
    /// A Genesis event is signed for the group of 32 zero bytes, since its id is the group.
    #[must_use]
    pub fn sign(key: &SigningKey, group: &GroupId, mut header: Header, body: &Body) -> (Self, EventId) {
        let items: Vec<Vec<u8>> = body.items.iter().map(Item::to_bytes).collect();
        let body_bytes = write_body(&body.seed, &items);
        header.n_items = u32::try_from(items.len()).unwrap_or(u32::MAX);
        header.body_len = u32::try_from(body_bytes.len()).unwrap_or(u32::MAX);
        header.body_root = body_root(&body.seed, items.iter().map(Vec::as_slice));
        let header_bytes = header.to_bytes();
        let signature = signature::sign(key, &signed_bytes(group, &header, &header_bytes));
        let signed = Self {
            header: header_bytes.into(),
            signature,
            body: body_bytes.into(),
        };
        let id = signed.id();
        (signed, id)
    }

    /// Returns the id: the RFC 6962 leaf hash of the header's bytes.
    #[must_use]
    pub fn id(&self) -> EventId {
        EventId::new(merkle::leaf_hash(&self.header))
    }

    /// Returns the bytes of header, signature and body together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.signature.len() + self.body.len()
    }

    /// Says whether there are no bytes at all; never true of an event that verifies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.is_empty() && self.body.is_empty()
    }

    /// Checks everything that needs no knowledge of the log.
    ///
    /// # Errors
    /// One of [`EventError`].
    pub fn verify(&self, group: &GroupId) -> Result<VerifiedEvent, EventError> {
        let header = Header::from_bytes(&self.header)?;
        if !header.is_signed(&self.header, &self.signature, group) {
            return Err(EventError::Signature);
        }
        let body = self.read_body(&header)?;
        Ok(VerifiedEvent {
            id: self.id(),
            header,
            body,
            signed: self.clone(),
        })
    }

    /// Reads an event that was verified before it was stored.
    ///
    /// # Errors
    /// [`EventError`] if the stored bytes are damaged; the signature is not checked again.
    pub fn read_stored(&self) -> Result<VerifiedEvent, EventError> {
        let header = Header::from_bytes(&self.header)?;
        let body = self.read_body(&header)?;
        Ok(VerifiedEvent {
            id: self.id(),
            header,
            body,
            signed: self.clone(),
        })
    }

    /// Returns what shows that one item belongs to this event, and nothing of the others; `None` if there is no such
    /// item or the stored body is damaged.
    #[must_use]
    pub fn item_proof(&self, index: u32) -> Option<ItemProof> {
        encoding::check(&self.body).ok()?;
        let mut d = Decoder::new(&self.body);
        array_of(&mut d, 2).ok()?;
        let seed = bytes_of(&mut d).ok()?;
        let count = array_len(&mut d)
            .ok()
            .filter(|count| *count <= MAX_ITEMS as u64)?;
        let raw = (0..count).map(|_| d.bytes().ok()).collect::<Option<Vec<_>>>()?;
        let salts = (0..).map(|i| salt(&seed, i));
        let leaves: Vec<merkle::Hash> = (raw.iter().zip(salts))
            .map(|(item, salt)| item_leaf(&salt, item))
            .collect();
        let at = usize::try_from(index).ok()?;
        Some(ItemProof {
            salt: salt(&seed, index),
            item: raw.get(at)?.to_vec(),
            path: merkle::inclusion_proof(&leaves, at),
        })
    }

    fn read_body(&self, header: &Header) -> Result<Body, EventError> {
        if self.body.len() > MAX_BODY {
            return Err(EventError::TooLarge);
        }
        if self.body.len() as u64 != u64::from(header.body_len) {
            return Err(BodyError::Mismatch.into());
        }
        encoding::check(&self.body)?;
        let mut d = Decoder::new(&self.body);
        array_of(&mut d, 2)?;
        let seed = bytes_of(&mut d)?;
        let count = array_len(&mut d)?;
        if count != u64::from(header.n_items) || count > MAX_ITEMS as u64 {
            return Err(BodyError::Mismatch.into());
        }
        let raw = (0..count)
            .map(|_| Ok(d.bytes()?))
            .collect::<Result<Vec<_>, ShapeError>>()?;
        if body_root(&seed, raw.iter().copied()) != header.body_root {
            return Err(BodyError::Mismatch.into());
        }
        let mut items = Vec::with_capacity(raw.len());
        for bytes in raw {
            encoding::check(bytes)?;
            items.push(Item::from_bytes(bytes)?);
        }
        Ok(Body { seed, items })
    }
}

impl ItemProof {
    /// Says whether this is item `index` of an event with this header.
    #[must_use]
    pub fn holds(&self, index: u32, header: &Header) -> bool {
        let leaf = item_leaf(&self.salt, &self.item);
        let (index, size) = (u64::from(index), u64::from(header.n_items));
        merkle::verify_inclusion(&leaf, index, size, &self.path, &header.body_root)
    }
}

impl Header {
    /// Says whether `signature` is the author's over these bytes, which this header was read from.
    pub(super) fn is_signed(&self, bytes: &[u8], signature: &[u8; 64], group: &GroupId) -> bool {
        let message = signed_bytes(group, self, bytes);
        signature::holds(self.author.as_bytes(), signature, &message)
    }

    /// Returns the deterministic bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| {
            infallible(e.array(11));
            infallible(e.u8(FORMAT_VERSION));
            infallible(e.bytes(self.author.as_bytes()));
            infallible(e.u64(self.seq));
            infallible(e.bytes(&self.prev_root));
            infallible(e.u64(self.hlc.bits()));
            infallible(e.u64(self.wall_ms));
            infallible(e.array(self.seen.len() as u64));
            for seen in &self.seen {
                infallible(e.array(3));
                infallible(e.bytes(seen.device.as_bytes()));
                infallible(e.u64(seen.next_seq));
                infallible(e.bytes(&seen.id16));
            }
            infallible(e.u16(self.kind.code()));
            infallible(e.u32(self.n_items));
            infallible(e.u32(self.body_len));
            infallible(e.bytes(&self.body_root));
        })
    }

    /// Reads a header; the signature is not checked.
    ///
    /// # Errors
    /// [`EventError`]: size, encoding, shape or format number.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > MAX_HEADER {
            return Err(EventError::TooLarge);
        }
        encoding::check(bytes)?;
        let mut d = Decoder::new(bytes);
        let fields = array_len(&mut d)?;
        let version = d.u64().map_err(ShapeError::from)?;
        if version != u64::from(FORMAT_VERSION) {
            return Err(EventError::Version(version));
        }
        if fields != 11 {
            return Err(ShapeError::new().into());
        }
        Ok(Self::read_fields(&mut d)?)
    }

    fn read_fields(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        let author = DeviceId::new(bytes_of(d)?);
        let seq = d.u64()?;
        let prev_root = bytes_of(d)?;
        let hlc = Hlc::from_bits(d.u64()?);
        let wall_ms = d.u64()?;
        let seen = (0..array_len(d)?)
            .map(|_| Seen::read(d))
            .collect::<Result<Vec<_>, _>>()?;
        let sorted = seen.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = seen.iter().all(|s| s.next_seq > 0);
        if !sorted || !in_range {
            return Err(ShapeError::new());
        }
        Ok(Self {
            author,
            seq,
            prev_root,
            hlc,
            wall_ms,
            seen,
            kind: EventKind::from_code(d.u16()?),
            n_items: d.u32()?,
            body_len: d.u32()?,
            body_root: bytes_of(d)?,
        })
    }
}

impl Seen {
    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 3)?;
        Ok(Self {
            device: ShortId::new(bytes_of(d)?),
            next_seq: d.u64()?,
            id16: bytes_of(d)?,
        })
    }
}

fn signed_bytes(group: &GroupId, header: &Header, header_bytes: &[u8]) -> Vec<u8> {
    let group = if header.kind == EventKind::Genesis {
        &[0; GroupId::LEN]
    } else {
        group.as_bytes()
    };
    [SIGN_CONTEXT, group, header_bytes].concat()
}

fn write_body(seed: &[u8; 16], items: &[Vec<u8>]) -> Vec<u8> {
    encoding::to_vec(|e| {
        infallible(e.array(2));
        infallible(e.bytes(seed));
        infallible(e.array(items.len() as u64));
        for item in items {
            infallible(e.bytes(item));
        }
    })
}

fn body_root<'a>(seed: &[u8; 16], items: impl Iterator<Item = &'a [u8]>) -> merkle::Hash {
    let mut peaks = merkle::Peaks::default();
    for (i, item) in items.enumerate() {
        let salt = salt(seed, u32::try_from(i).unwrap_or(u32::MAX));
        peaks.push(item_leaf(&salt, item));
    }
    peaks.root()
}

fn item_leaf(salt: &[u8; 16], item: &[u8]) -> merkle::Hash {
    merkle::leaf_hash(&[&salt[..], item].concat())
}

fn salt(seed: &[u8; 16], index: u32) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(seed).expect("HMAC takes keys of any length");
    mac.update(&index.to_be_bytes());
    let mut salt = [0; 16];
    salt.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    salt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Genesis;
    use proptest::prelude::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn sample(kind: EventKind) -> (SignedEvent, EventId, GroupId) {
        let group = GroupId::new([8; 32]);
        let author = DeviceId::new(key(1).verifying_key().to_bytes());
        let header = Header {
            author,
            seq: 3,
            prev_root: [7; 32],
            hlc: Hlc::from_bits(99),
            wall_ms: 1_700_000_000_000,
            seen: vec![Seen {
                device: ShortId::new([2; 8]),
                next_seq: 4,
                id16: [5; 16],
            }],
            kind,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let item = Item::Genesis(Genesis {
            name: "home".into(),
            recovery: [6; 32],
        });
        let body = Body {
            seed: [3; 16],
            items: vec![item.clone(), item],
        };
        let (event, id) = SignedEvent::sign(&key(1), &group, header, &body);
        (event, id, group)
    }

    #[test]
    fn a_signed_event_verifies_in_its_group_only() {
        let (event, id, group) = sample(EventKind::Work);
        let verified = event.verify(&group).unwrap();
        assert_eq!(verified.id, id);
        assert_eq!(verified.header.n_items, 2);
        assert!(matches!(
            event.verify(&GroupId::new([9; 32])),
            Err(EventError::Signature)
        ));
    }

    #[test]
    fn a_genesis_event_needs_no_group() {
        let (event, ..) = sample(EventKind::Genesis);
        assert!(event.verify(&GroupId::new([77; 32])).is_ok());
    }

    /// A golden vector: it changes only together with the format.
    #[test]
    fn the_id_of_the_sample_event_is_known() {
        let (_, id, _) = sample(EventKind::Work);
        assert_eq!(
            id.to_hex(),
            "829586ba1a0affe03c6d2bd3e5d73d0a3c43bb759bf1ff8101d48ab8f11925b3"
        );
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let (event, id, group) = sample(EventKind::Work);
        for i in 0..event.header.len() * 8 {
            let mut header = event.header.to_vec();
            header[i / 8] ^= 1 << (i % 8);
            let bad = SignedEvent {
                header: header.into(),
                ..event.clone()
            };
            assert!(bad.verify(&group).is_err(), "header bit {i}");
            assert_ne!(bad.id(), id);
        }
        for i in 0..event.body.len() * 8 {
            let mut body = event.body.to_vec();
            body[i / 8] ^= 1 << (i % 8);
            let bad = SignedEvent {
                body: body.into(),
                ..event.clone()
            };
            assert!(bad.verify(&group).is_err(), "body bit {i}");
        }
        for i in 0..512 {
            let mut bad = event.clone();
            bad.signature[i / 8] ^= 1 << (i % 8);
            assert!(bad.verify(&group).is_err(), "signature bit {i}");
        }
    }

    #[test]
    fn an_item_is_shown_without_the_others() {
        let (event, _, group) = sample(EventKind::Work);
        let verified = event.verify(&group).unwrap();
        for index in 0..2 {
            let proof = event.item_proof(index).unwrap();
            assert_eq!(proof.item, verified.body.items[index as usize].to_bytes());
            assert!(proof.holds(index, &verified.header));
            assert!(!proof.holds(1 - index, &verified.header));
            let other = ItemProof {
                item: b"another".to_vec(),
                ..proof
            };
            assert!(!other.holds(index, &verified.header));
        }
        assert_eq!(event.item_proof(2), None);
    }

    #[test]
    fn another_format_number_is_named() {
        let (event, _, group) = sample(EventKind::Work);
        let mut header = event.header.to_vec();
        header[1] = 1;
        let other = SignedEvent {
            header: header.into(),
            ..event
        };
        assert!(matches!(other.verify(&group), Err(EventError::Version(1))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(
            header in proptest::collection::vec(any::<u8>(), 0..120),
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let event = SignedEvent { header: header.into(), signature: [0; 64], body: body.into() };
            prop_assert!(event.verify(&GroupId::new([0; 32])).is_err());
        }
    }
}
