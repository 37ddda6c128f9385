//! The blobs in the store's rows, byte by byte.
//!
//! Each blob is one format byte ([`FORMAT`], 0) followed by the CBOR items below, one after the other, with nothing
//! after the last. Integers and lengths are in CBOR's shortest form; ids are byte strings of their fixed length.
//!
//! ```text
//! Dot       = device bstr8, seq uint, item uint
//! Dots      = array header n, n × Dot               the 3n items are not nested
//! Node      = 0, content bstr32, size uint            a file
//!           | 1                                       a directory
//!           | 2, target bstr                          a symbolic link
//! Entry     = Node, mode uint, mtime_ns int
//! Token     = epoch uint, n uint
//! Body      = event bstr32, hlc uint, flags uint, token Token and knew Token if flags & 8, Entry if flags & 4, Dots,
//!             array header n, n × Origin
//!             flags: 1 import, 4 a Put, 8 written where a lock was known, 16 fenced
//! Origin    = Dot, flags uint, Token if flags & 2, hlc uint, event bstr32
//!             flags: 1 plain, 2 written under a lock
//! Fence     = grant Dot, Token, holder bstr32, ends Dots
//!
//! versions.data   = 0x00, Body                        the dot is the row's key
//! paths.state     = 0x00, heads: array header n, n × (Dot, Body), copies: array header m, m × (name bstr, Dot),
//!                   and, unless there are none: what is fenced: array header k, k × (Dot, Body), locks: array header l, l × Fence
//! installed.data  = 0x00, Entry, ino uint, size uint, mtime_ns int, ctime_ns int, mode uint,
//!                   Dots, copy_of bstr | null
//! logs.state      = 0x00, author bstr32, size uint, array header n, n × peak bstr32, last_id bstr32, hlc uint,
//!                   array header m, m × (device bstr8, next_seq uint)
//! manifests.chunks = n × 32 bytes, without format byte: the manifest's own hash tells whether they are right
//! ```
//!
//! Keys, compared as bytes: a path is its bytes; a dot ([`dot_key`]) is device 8 B, seq 8 B, item 4 B, both big-endian,
//! so that rows sort as dots do; a node ([`node_key`]) is the BLAKE3 hash of the Node items above; `versions.node` and
//! `installed.content` ([`prefix`]) are the first 8 bytes, big-endian, of a node key and of a content: indexes stay
//! small, and who looks something up compares the whole value.

use std::collections::BTreeMap;
use std::convert::Infallible;

use minicbor::data::Type;
use p2p_sync_core::fold::{Fence, Fences, Origin, PathState, Standing, Version};
use p2p_sync_core::ids::{ContentHash, DeviceId, Dot, EventId, ShortId};
use p2p_sync_core::ledger::{Left, LogState};
use p2p_sync_core::lock::Token;
use p2p_sync_core::merkle::Peaks;
use p2p_sync_core::rel_path::{RelPath, RelPathError};
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Fingerprint, Installed, Node};

/// First byte of every blob.
const FORMAT: u8 = 0;

const KIND_FILE: u64 = 0;
const KIND_DIR: u64 = 1;
const KIND_LINK: u64 = 2;

const FLAG_IMPORT: u64 = 1;
const FLAG_PUT: u64 = 4;
const FLAG_LOCK: u64 = 8;
const FLAG_FENCED: u64 = 16;

const FLAG_PLAIN: u64 = 1;
const FLAG_HELD: u64 = 2;

/// Elements for which room is made on the word of a length field alone; longer lists grow as they are read.
const MAX_TRUSTED_LEN: u64 = 64;

/// Why a row's bytes are not what this daemon writes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The format byte is missing or of another daemon's.
    #[error("A row of the store has an unknown format")]
    Format,
    /// The bytes are cut short or are not the documented items.
    #[error("A row of the store is damaged")]
    Cbor(#[from] minicbor::decode::Error),
    /// The items are there, but their values or lengths make no sense.
    #[error("A row of the store holds impossible values")]
    Shape,
    /// A path is none.
    #[error("A row of the store holds an impossible path")]
    Path(#[from] RelPathError),
}

/// Returns the key of a version within its path.
pub(super) fn dot_key(dot: Dot) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(dot.device.as_bytes());
    key[8..16].copy_from_slice(&dot.seq.to_be_bytes());
    key[16..].copy_from_slice(&dot.item.to_be_bytes());
    key
}

/// Reads [`dot_key`] back.
pub(super) fn read_dot_key(key: &[u8]) -> Result<Dot, CodecError> {
    let (device, rest) = key.split_first_chunk::<8>().ok_or(CodecError::Shape)?;
    let (seq, rest) = rest.split_first_chunk::<8>().ok_or(CodecError::Shape)?;
    let item: [u8; 4] = rest.try_into().map_err(|_| CodecError::Shape)?;
    Ok(Dot {
        device: ShortId::new(*device),
        seq: u64::from_be_bytes(*seq),
        item: u32::from_be_bytes(item),
    })
}

/// Returns the bytes by which a node is told from others.
pub(super) fn node_key(node: &Node) -> [u8; 32] {
    let mut out = Writer::without_format();
    out.node(node);
    *blake3::hash(&out.finish()).as_bytes()
}

/// Returns the first 8 bytes of a hash, as an index holds them.
pub(super) fn prefix(hash: &[u8; 32]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

/// Returns `versions.data`.
pub(super) fn write_version(version: &Version) -> Vec<u8> {
    let mut out = Writer::new();
    out.version_body(version);
    out.finish()
}

/// Reads `versions.data`.
pub(super) fn read_version(dot: Dot, bytes: &[u8]) -> Result<Version, CodecError> {
    let mut input = Reader::new(bytes)?;
    let version = input.version_body(dot)?;
    input.end(version)
}

/// Returns `paths.state`.
pub(super) fn write_path_state(state: &PathState) -> Vec<u8> {
    let mut out = Writer::new();
    out.versions(&state.heads);
    out.array(state.shown.len());
    for (name, dot) in &state.shown {
        out.bytes(name.as_bytes());
        out.dot(*dot);
    }
    let fences = state.fences.as_slice();
    if !state.fenced.is_empty() || !fences.is_empty() {
        out.versions(&state.fenced);
        out.array(fences.len());
        fences.iter().for_each(|fence| out.fence(fence));
    }
    out.finish()
}

/// Reads `paths.state`.
pub(super) fn read_path_state(bytes: &[u8]) -> Result<PathState, CodecError> {
    let mut input = Reader::new(bytes)?;
    let mut state = PathState {
        heads: input.list(Reader::version)?,
        shown: input.list(|r| Ok((r.path()?, r.dot()?)))?,
        ..PathState::default()
    };
    if !input.is_at_end() {
        state.fenced = input.list(Reader::version)?;
        state.fences = Fences::from_vec(input.list(Reader::fence)?).ok_or(CodecError::Shape)?;
    }
    input.end(state)
}

/// Returns `installed.data`.
pub(super) fn write_installed(installed: &Installed) -> Vec<u8> {
    let mut out = Writer::new();
    out.entry(&installed.entry);
    let print = &installed.print;
    out.uint(print.ino);
    out.uint(print.size);
    out.int(print.mtime_ns);
    out.int(print.ctime_ns);
    out.uint(print.mode.into());
    out.dots(&installed.dots);
    match &installed.copy_of {
        Some(origin) => out.bytes(origin.as_bytes()),
        None => out.null(),
    }
    out.finish()
}

/// Reads `installed.data`.
pub(super) fn read_installed(bytes: &[u8]) -> Result<Installed, CodecError> {
    let mut input = Reader::new(bytes)?;
    let installed = Installed {
        entry: input.entry()?,
        print: Fingerprint {
            ino: input.uint()?,
            size: input.uint()?,
            mtime_ns: input.int()?,
            ctime_ns: input.int()?,
            mode: input.u32()?,
        },
        dots: input.list(Reader::dot)?,
        copy_of: input.optional(Reader::path)?,
    };
    input.end(installed)
}

/// Returns `logs.state`.
pub(super) fn write_log(log: &LogState) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(log.author.as_bytes());
    out.bytes(log.name.as_bytes());
    out.array(usize::from(log.left.is_some()) * 2);
    if let Some(left) = log.left {
        out.bytes(left.log.as_bytes());
        out.uint(left.size);
    }
    out.uint(log.peaks.size());
    out.array(log.peaks.hashes().len());
    log.peaks.hashes().iter().for_each(|peak| out.bytes(peak));
    out.bytes(log.last_id.as_bytes());
    out.uint(log.hlc.bits());
    out.array(log.seen.len());
    for (device, next_seq) in &log.seen {
        out.bytes(device.as_bytes());
        out.uint(*next_seq);
    }
    out.finish()
}

/// Reads `logs.state`.
pub(super) fn read_log(bytes: &[u8]) -> Result<LogState, CodecError> {
    let mut input = Reader::new(bytes)?;
    let author = DeviceId::new(input.fixed()?);
    let name = ShortId::new(input.fixed()?);
    let left = match input.0.array()? {
        Some(0) => None,
        Some(2) => Some(Left {
            log: ShortId::new(input.fixed()?),
            size: input.uint()?,
        }),
        _ => return Err(CodecError::Shape),
    };
    let size = input.uint()?;
    let peaks = input.list(Reader::fixed)?;
    let log = LogState {
        author,
        name,
        left,
        peaks: Peaks::from_parts(size, peaks).ok_or(CodecError::Shape)?,
        last_id: EventId::new(input.fixed()?),
        hlc: Hlc::from_bits(input.uint()?),
        seen: {
            let seen = input.list(|r| Ok((ShortId::new(r.fixed()?), r.uint()?)))?;
            BTreeMap::from_iter(seen)
        },
    };
    input.end(log)
}

/// Writes the items of one blob.
struct Writer(minicbor::Encoder<Vec<u8>>);

impl Writer {
    fn new() -> Self {
        Self(minicbor::Encoder::new(Vec::from([FORMAT])))
    }

    fn without_format() -> Self {
        Self(minicbor::Encoder::new(Vec::new()))
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }

    fn uint(&mut self, value: u64) {
        infallible(self.0.u64(value));
    }

    fn int(&mut self, value: i64) {
        infallible(self.0.i64(value));
    }

    fn bytes(&mut self, value: &[u8]) {
        infallible(self.0.bytes(value));
    }

    fn null(&mut self) {
        infallible(self.0.null());
    }

    fn array(&mut self, len: usize) {
        infallible(self.0.array(len as u64));
    }

    fn dot(&mut self, dot: Dot) {
        self.bytes(dot.device.as_bytes());
        self.uint(dot.seq);
        self.uint(dot.item.into());
    }

    fn dots(&mut self, dots: &[Dot]) {
        self.array(dots.len());
        dots.iter().for_each(|dot| self.dot(*dot));
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::File { content, size } => {
                self.uint(KIND_FILE);
                self.bytes(content.as_bytes());
                self.uint(*size);
            }
            Node::Dir => self.uint(KIND_DIR),
            Node::Link { target } => {
                self.uint(KIND_LINK);
                self.bytes(target);
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.node(&entry.node);
        self.uint(entry.mode.into());
        self.int(entry.mtime_ns);
    }

    fn versions(&mut self, versions: &[Version]) {
        self.array(versions.len());
        for version in versions {
            self.dot(version.dot);
            self.version_body(version);
        }
    }

    fn version_body(&mut self, version: &Version) {
        self.bytes(version.event.as_bytes());
        self.uint(version.hlc.bits());
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let Standing { token, knew, fenced } = version.standing;
        let locked = (token, knew) != (Token::default(), Token::default());
        self.uint(
            flag(version.import, FLAG_IMPORT)
                | flag(version.entry.is_some(), FLAG_PUT)
                | flag(locked, FLAG_LOCK)
                | flag(fenced, FLAG_FENCED),
        );
        if locked {
            self.token(token);
            self.token(knew);
        }
        if let Some(entry) = &version.entry {
            self.entry(entry);
        }
        self.dots(&version.base);
        self.array(version.origins.len());
        version.origins.iter().for_each(|origin| self.origin(origin));
    }

    fn token(&mut self, token: Token) {
        self.uint(token.epoch);
        self.uint(token.n);
    }

    fn fence(&mut self, fence: &Fence) {
        self.dot(fence.grant);
        self.token(fence.token);
        self.bytes(fence.holder.as_bytes());
        self.dots(&fence.ends);
    }

    fn origin(&mut self, origin: &Origin) {
        self.dot(origin.dot);
        let held = origin.token != Token::default();
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        self.uint(flag(origin.plain, FLAG_PLAIN) | flag(held, FLAG_HELD));
        if held {
            self.token(origin.token);
        }
        self.uint(origin.order.0.bits());
        self.bytes(origin.order.1.as_bytes());
    }
}

fn infallible<T>(result: Result<T, minicbor::encode::Error<Infallible>>) {
    debug_assert!(result.is_ok(), "writing CBOR to memory cannot fail");
}

/// Reads the items of one blob.
struct Reader<'b>(minicbor::Decoder<'b>);

impl<'b> Reader<'b> {
    fn new(bytes: &'b [u8]) -> Result<Self, CodecError> {
        match bytes.split_first() {
            Some((&FORMAT, items)) => Ok(Self(minicbor::Decoder::new(items))),
            _ => Err(CodecError::Format),
        }
    }

    fn is_at_end(&self) -> bool {
        self.0.position() == self.0.input().len()
    }

    fn end<T>(&self, value: T) -> Result<T, CodecError> {
        if self.is_at_end() {
            Ok(value)
        } else {
            Err(CodecError::Shape)
        }
    }

    fn uint(&mut self) -> Result<u64, CodecError> {
        Ok(self.0.u64()?)
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(self.0.u32()?)
    }

    fn int(&mut self) -> Result<i64, CodecError> {
        Ok(self.0.i64()?)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        self.0.bytes()?.try_into().map_err(|_| CodecError::Shape)
    }

    fn path(&mut self) -> Result<RelPath, CodecError> {
        Ok(RelPath::parse(self.0.bytes()?)?)
    }

    fn optional<T>(
        &mut self,
        item: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.0.datatype()? == Type::Null {
            self.0.null()?;
            return Ok(None);
        }
        item(self).map(Some)
    }

    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let len = self.0.array()?.ok_or(CodecError::Shape)?;
        let mut list = Vec::with_capacity(len.min(MAX_TRUSTED_LEN) as usize);
        for _ in 0..len {
            list.push(item(self)?);
        }
        Ok(list)
    }

    fn dot(&mut self) -> Result<Dot, CodecError> {
        Ok(Dot {
            device: ShortId::new(self.fixed()?),
            seq: self.uint()?,
            item: self.u32()?,
        })
    }

    fn node(&mut self) -> Result<Node, CodecError> {
        match self.uint()? {
            KIND_FILE => Ok(Node::File {
                content: ContentHash::new(self.fixed()?),
                size: self.uint()?,
            }),
            KIND_DIR => Ok(Node::Dir),
            KIND_LINK => Ok(Node::Link {
                target: self.0.bytes()?.to_vec(),
            }),
            _ => Err(CodecError::Shape),
        }
    }

    fn entry(&mut self) -> Result<Entry, CodecError> {
        Ok(Entry {
            node: self.node()?,
            mode: self.u32()?,
            mtime_ns: self.int()?,
        })
    }

    fn origin(&mut self) -> Result<Origin, CodecError> {
        let dot = self.dot()?;
        let flags = self.flags(FLAG_PLAIN | FLAG_HELD)?;
        let token = if flags & FLAG_HELD != 0 {
            self.token()?
        } else {
            Token::default()
        };
        Ok(Origin {
            dot,
            token,
            plain: flags & FLAG_PLAIN != 0,
            order: (Hlc::from_bits(self.uint()?), EventId::new(self.fixed()?)),
        })
    }

    fn flags(&mut self, known: u64) -> Result<u64, CodecError> {
        let flags = self.uint()?;
        if flags & !known == 0 {
            Ok(flags)
        } else {
            Err(CodecError::Shape)
        }
    }

    fn token(&mut self) -> Result<Token, CodecError> {
        Ok(Token {
            epoch: self.uint()?,
            n: self.uint()?,
        })
    }

    fn fence(&mut self) -> Result<Fence, CodecError> {
        Ok(Fence {
            grant: self.dot()?,
            token: self.token()?,
            holder: DeviceId::new(self.fixed()?),
            ends: self.list(Self::dot)?,
        })
    }

    fn version(&mut self) -> Result<Version, CodecError> {
        let dot = self.dot()?;
        self.version_body(dot)
    }

    fn version_body(&mut self, dot: Dot) -> Result<Version, CodecError> {
        let event = EventId::new(self.fixed()?);
        let hlc = Hlc::from_bits(self.uint()?);
        let flags = self.flags(FLAG_IMPORT | FLAG_PUT | FLAG_LOCK | FLAG_FENCED)?;
        let locked = flags & FLAG_LOCK != 0;
        let mut token = || {
            if locked {
                self.token()
            } else {
                Ok(Token::default())
            }
        };
        let standing = Standing {
            token: token()?,
            knew: token()?,
            fenced: flags & FLAG_FENCED != 0,
        };
        let entry = (flags & FLAG_PUT != 0).then(|| self.entry()).transpose()?;
        Ok(Version {
            dot,
            event,
            hlc,
            entry,
            base: self.list(Self::dot)?,
            import: flags & FLAG_IMPORT != 0,
            origins: self.list(Self::origin)?,
            standing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            version in samples::version(),
            state in samples::path_state(),
            installed in samples::installed(),
            log in samples::log(),
        ) {
            prop_assert_eq!(read_dot_key(&dot_key(version.dot)).unwrap(), version.dot);
            prop_assert_eq!(read_version(version.dot, &write_version(&version)).unwrap(), version);
            prop_assert_eq!(read_path_state(&write_path_state(&state)).unwrap(), state);
            prop_assert_eq!(read_installed(&write_installed(&installed)).unwrap(), installed);
            prop_assert_eq!(read_log(&write_log(&log)).unwrap(), log);
        }

        #[test]
        fn dot_keys_sort_as_dots(a in samples::any_dot(), b in samples::any_dot()) {
            prop_assert_eq!(dot_key(a).cmp(&dot_key(b)), a.cmp(&b));
        }

        #[test]
        fn damaged_blobs_are_errors_and_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
            installed in samples::installed(),
            cut in any::<prop::sample::Index>(),
        ) {
            let framed = [&[FORMAT], &bytes[..]].concat();
            let dot = Dot { device: ShortId::new([0; 8]), seq: 0, item: 0 };
            let _ = read_version(dot, &framed);
            let _ = read_path_state(&framed);
            let _ = read_installed(&framed);
            let _ = read_log(&framed);
            let whole = write_installed(&installed);
            prop_assert!(read_installed(&whole[..cut.index(whole.len())]).is_err());
            prop_assert!(read_installed(&[&whole[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let installed = Installed {
            entry: Entry {
                node: Node::Link {
                    target: b"t".to_vec(),
                },
                mode: 0o777,
                mtime_ns: -1,
            },
            print: Fingerprint {
                ino: 5,
                size: 1,
                mtime_ns: 2,
                ctime_ns: 24,
                mode: 0o120_777,
            },
            dots: vec![Dot {
                device: ShortId::new([9; 8]),
                seq: 1,
                item: 2,
            }],
            copy_of: None,
        };
        let mut expected = vec![0, 2, 0x41, b't', 0x19, 0x01, 0xff, 0x20];
        expected.extend([5, 1, 2, 0x18, 24, 0x19, 0xa1, 0xff]);
        expected.extend([0x81, 0x48, 9, 9, 9, 9, 9, 9, 9, 9, 1, 2, 0xf6]);
        assert_eq!(write_installed(&installed), expected);
        let other = [&[FORMAT + 1], &expected[1..]].concat();
        assert!(matches!(read_installed(&other), Err(CodecError::Format)));
    }
}
