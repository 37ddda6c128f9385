//! The format of a content stream, byte by byte; all integers little-endian.
//!
//! ```text
//! requester → provider   preamble   magic "p2pc" (4) | version u8 = 1
//! provider → requester   hello      version u8 = 1
//! requester → provider   request*   kind u8 | content (32) | size u64 | index u64                  49 bytes each
//! provider → requester   answer*    kind u8 | count u32 | payload                                  5 bytes + payload
//!
//! request kinds   1 Whole     a content of 1 byte to one chunk, whole; index = 0
//!                 2 Chunk     chunk `index` of a content of more than one chunk
//!                 3 Page      the chunk hashes `index` .. `index` + 32 768 (or the end); index a multiple of 32 768
//! answer kinds    1 Data      payload: `count` bytes, the whole content or the whole chunk
//!                 2 Zero      no payload: the content or chunk is `count` zero bytes
//!                 3 Page      payload: `count` chunk hashes of 32 bytes
//!                 4 NotFound  no payload, count = 0
//! ```
//!
//! Answers come in the order of the requests, one each, so they carry no name. `size` is the content's length as the
//! requester knows it from the ledger; a provider that knows another length answers NotFound. Every count is known to
//! the requester beforehand and anything else is refused before a byte of payload is read or stored.

use p2p_sync_core::content::{CHUNK_SIZE, chunk_count, chunk_len};
use p2p_sync_core::ids::ContentHash;

/// What the requester says first.
pub(super) const PREAMBLE: [u8; 5] = *b"p2pc\x01";
/// What the provider answers: its version.
pub(super) const HELLO: u8 = 1;
/// Bytes of one request.
pub(super) const REQUEST_LEN: usize = 49;
/// Bytes of an answer's header.
pub(super) const HEADER_LEN: usize = 5;
/// Bytes of payload an answer has at most; a chunk and a page of a manifest are equally long.
pub(super) const MAX_PAYLOAD: usize = CHUNK_SIZE as usize;
/// Chunk hashes in one page: 1 MiB of them, so that a page fits a chunk's buffer.
pub(super) const PAGE_CHUNKS: u64 = CHUNK_SIZE / 32;
/// Chunks a content may have: 16 TiB, the largest file of ext4. Its manifest takes 512 MiB of memory.
pub(super) const MAX_CHUNKS: u64 = 1 << 24;

/// Why bytes are not a frame of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream does not start as it should, or the other side has another version.
    #[error("The stream does not start as version 1 of the content protocol")]
    Preamble,
    /// The first byte of a request or answer is not a known kind.
    #[error("A frame has the unknown kind {0}")]
    Kind(u8),
    /// The request's size or index cannot be.
    #[error("A request asks for what a content of that size does not have")]
    Range,
    /// The answer is not one to the request.
    #[error("An answer does not fit its request")]
    Mismatch,
}

/// What is asked of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// All of it; it has at most one chunk.
    Whole,
    /// One chunk.
    Chunk(u64),
    /// The page of chunk hashes that starts at this chunk.
    Page(u64),
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) content: ContentHash,
    pub(super) size: u64,
    pub(super) want: Want,
}

impl Request {
    /// Returns the 49 bytes.
    pub(super) fn encode(&self) -> [u8; REQUEST_LEN] {
        let (kind, index) = match self.want {
            Want::Whole => (1, 0),
            Want::Chunk(index) => (2, index),
            Want::Page(first) => (3, first),
        };
        let mut bytes = [0; REQUEST_LEN];
        bytes[0] = kind;
        bytes[1..33].copy_from_slice(self.content.as_bytes());
        bytes[33..41].copy_from_slice(&self.size.to_le_bytes());
        bytes[41..].copy_from_slice(&index.to_le_bytes());
        bytes
    }

    /// Reads 49 bytes.
    ///
    /// # Errors
    /// [`WireError::Kind`] or [`WireError::Range`].
    pub(super) fn decode(bytes: &[u8; REQUEST_LEN]) -> Result<Self, WireError> {
        let mut content = [0; 32];
        content.copy_from_slice(&bytes[1..33]);
        let size = read_u64(&bytes[33..41]);
        let index = read_u64(&bytes[41..]);
        let (want, fits) = match bytes[0] {
            1 => (Want::Whole, size > 0 && size <= CHUNK_SIZE && index == 0),
            2 => (Want::Chunk(index), in_large(size, index)),
            3 => (
                Want::Page(index),
                in_large(size, index) && index.is_multiple_of(PAGE_CHUNKS),
            ),
            kind => return Err(WireError::Kind(kind)),
        };
        if !fits {
            return Err(WireError::Range);
        }
        Ok(Self {
            content: ContentHash::new(content),
            size,
            want,
        })
    }

    /// Returns the bytes (of [`Want::Page`]: hashes) that an answer to this must have.
    pub(super) fn expected_count(&self) -> u64 {
        match self.want {
            Want::Whole => self.size,
            Want::Chunk(index) => chunk_len(self.size, index),
            Want::Page(first) => chunk_count(self.size).saturating_sub(first).min(PAGE_CHUNKS),
        }
    }

    /// Returns the bytes of payload of a full answer.
    pub(super) fn payload_len(&self) -> usize {
        let unit = match self.want {
            Want::Whole | Want::Chunk(_) => 1,
            Want::Page(_) => 32,
        };
        usize::try_from(self.expected_count()).map_or(MAX_PAYLOAD, |count| (count * unit).min(MAX_PAYLOAD))
    }

    /// Reads an answer's header.
    ///
    /// # Errors
    /// [`WireError::Kind`], or [`WireError::Mismatch`] if it is no answer to this request.
    pub(super) fn read_header(&self, header: &[u8; HEADER_LEN]) -> Result<Answer, WireError> {
        let count = u64::from(u32::from_le_bytes([header[1], header[2], header[3], header[4]]));
        let bytes_wanted = !matches!(self.want, Want::Page(_));
        let full = count == self.expected_count();
        match header[0] {
            1 if bytes_wanted && full => Ok(Answer::Data),
            2 if bytes_wanted && full => Ok(Answer::Zero),
            3 if !bytes_wanted && full => Ok(Answer::Page),
            4 if count == 0 => Ok(Answer::NotFound),
            1..=4 => Err(WireError::Mismatch),
            kind => Err(WireError::Kind(kind)),
        }
    }
}

/// What an answer is; its length follows from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Data,
    Zero,
    Page,
    NotFound,
}

impl Answer {
    /// Returns the 5 bytes.
    pub(super) fn header(self, count: u32) -> [u8; HEADER_LEN] {
        let kind = match self {
            Self::Data => 1,
            Self::Zero => 2,
            Self::Page => 3,
            Self::NotFound => 4,
        };
        let [a, b, c, d] = count.to_le_bytes();
        [kind, a, b, c, d]
    }
}

fn in_large(size: u64, index: u64) -> bool {
    let chunks = chunk_count(size);
    size > CHUNK_SIZE && chunks <= MAX_CHUNKS && index < chunks
}

fn read_u64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(want: Want, size: u64) -> Request {
        Request {
            content: ContentHash::new([0xab; 32]),
            size,
            want,
        }
    }

    #[test]
    fn frames_have_the_documented_bytes() {
        assert_eq!(PREAMBLE, [0x70, 0x32, 0x70, 0x63, 0x01]);
        let mut golden = vec![2];
        golden.extend([0xab; 32]);
        golden.extend([0x01, 0x00, 0x30, 0, 0, 0, 0, 0]);
        golden.extend([0x03, 0, 0, 0, 0, 0, 0, 0]);
        let chunk = request(Want::Chunk(3), 3 * CHUNK_SIZE + 1);
        assert_eq!(chunk.encode().to_vec(), golden);
        assert_eq!(Request::decode(&chunk.encode()), Ok(chunk));
        let whole = request(Want::Whole, 7);
        golden[0] = 1;
        golden[33..].copy_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(whole.encode().to_vec(), golden);
        assert_eq!(Answer::Data.header(0x0102), [1, 2, 1, 0, 0]);
        assert_eq!(Answer::Zero.header(1), [2, 1, 0, 0, 0]);
        assert_eq!(Answer::Page.header(1), [3, 1, 0, 0, 0]);
        assert_eq!(Answer::NotFound.header(0), [4, 0, 0, 0, 0]);
    }

    #[test]
    fn a_request_for_what_cannot_be_is_refused() {
        let big = 3 * CHUNK_SIZE + 1;
        for bad in [
            request(Want::Whole, 0),
            request(Want::Whole, CHUNK_SIZE + 1),
            request(Want::Chunk(0), CHUNK_SIZE),
            request(Want::Chunk(4), big),
            request(Want::Chunk(u64::MAX), u64::MAX),
            request(Want::Page(1), big),
            request(Want::Page(PAGE_CHUNKS), big),
        ] {
            assert_eq!(Request::decode(&bad.encode()), Err(WireError::Range), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_of_another_length_or_kind_is_refused() {
        let page = request(Want::Page(0), 3 * CHUNK_SIZE + 1);
        assert_eq!(page.read_header(&Answer::Page.header(4)), Ok(Answer::Page));
        for bad in [
            Answer::Page.header(3),
            Answer::Page.header(5),
            Answer::Data.header(4),
        ] {
            assert_eq!(page.read_header(&bad), Err(WireError::Mismatch));
        }
        let tail = request(Want::Chunk(3), 3 * CHUNK_SIZE + 1);
        assert_eq!(tail.read_header(&Answer::Data.header(1)), Ok(Answer::Data));
        assert_eq!(
            tail.read_header(&Answer::Zero.header(2)),
            Err(WireError::Mismatch)
        );
        assert_eq!(
            tail.read_header(&Answer::NotFound.header(0)),
            Ok(Answer::NotFound)
        );
        assert_eq!(tail.read_header(&[9, 0, 0, 0, 0]), Err(WireError::Kind(9)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            head in any::<[u8; 25]>(), tail in any::<[u8; 24]>(), kind in 0u8..5, header in any::<[u8; 5]>(),
        ) {
            let mut bytes = [0; REQUEST_LEN];
            bytes[..25].copy_from_slice(&head);
            bytes[25..].copy_from_slice(&tail);
            bytes[0] = kind;
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
                prop_assert!(request.payload_len() <= MAX_PAYLOAD);
                let _ = request.read_header(&header);
            }
        }

        #[test]
        fn requests_that_make_sense_are_read_back(size in 1u64..(1 << 44), index in any::<u64>()) {
            let index = index % chunk_count(size);
            let want = if size <= CHUNK_SIZE { Want::Whole } else { Want::Chunk(index) };
            let request = request(want, size);
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            prop_assert!(request.payload_len() <= MAX_PAYLOAD);
        }
    }
}
