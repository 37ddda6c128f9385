//! The bytes of a journal.
//!
//! A journal is a run of records, all integers little-endian:
//!
//! ```text
//! len   u32   bytes of type and body, 1 ..= MAX_RECORD
//! crc   u32   CRC-32C of type and body
//! type  u8    1 Open, 2 InUse, 3 Install, 4 Done, 6 Clean, 7 OwnSeq (5 is reserved for lock bits)
//! body        CBOR, one array:
//!   Open     [version = 3, instance: bytes 16, boot id: bytes 16]
//!   InUse    [path: bytes, ...]                                            in byte order
//!   Install  [tx: uint, action: uint, path: bytes, expect: print / null,
//!             new: [node, mode: uint, mtime ns: int] / null, staged: print / null,
//!             from: [path: bytes, print] / null]                           action 0 put, 1 meta, 2 move, 3 remove, 4 restore,
//!                                                                            5 recorded (the same tx once more)
//!   Done     [tx: uint]
//!   Clean    []
//!   OwnSeq   [group: bytes 32, device: bytes 8, events: uint,              0 events: forgotten
//!             members: uint]
//!   print  = [ino: uint, size: uint, mtime ns: int, ctime ns: int, mode: uint]
//!   node   = [0, content: bytes 32, size: uint] / [1] / [2, target: bytes]
//! ```
//!
//! The first record of a file is Open or Clean, so the version is the first thing after the first header. The name
//! of an install's temporary file follows from its tx ([`Tx::slot`]).

use minicbor::data::Type;
use minicbor::decode::Error as CborError;
use minicbor::{Decoder, Encoder};
use p2p_sync_core::engine::OwnLogSize;
use p2p_sync_core::ids::{ContentHash, GroupId, ShortId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};

use super::own_log::OwnLog;

/// Version of the format.
const VERSION: u64 = 3;
/// Bytes of type and body: an in-use set ([`super::MAX_IN_USE_BYTES`]) with its framing fits twice.
pub(super) const MAX_RECORD: usize = 2 << 20;
/// Bytes before type and body.
const HEADER: usize = 8;

/// Names one install in the journal and its temporary files; unique over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tx(pub u64);

impl Tx {
    /// Returns the name of the install's temporary file: first the new entry, after the exchange the old one.
    #[must_use]
    pub fn slot(self) -> String {
        format!("i-{:016x}", self.0)
    }

    /// Returns the name of the second temporary file, which holds the old entry for an instant where the file system
    /// cannot exchange two names.
    #[must_use]
    pub fn aside(self) -> String {
        format!("x-{:016x}", self.0)
    }

    /// Returns its 16 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:016x}", self.0)
    }

    /// Reads the tx out of either name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let hex = name.strip_prefix("i-").or_else(|| name.strip_prefix("x-"))?;
        let plain = hex.len() == 16 && !hex.starts_with('+');
        plain.then(|| u64::from_str_radix(hex, 16).ok().map(Self))?
    }
}

/// What an install does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentAction {
    /// Puts `new` at the path.
    Put,
    /// Sets mode and mtime.
    SetMeta,
    /// Moves what is at `from` to the path.
    Move,
    /// Takes away what is at the path.
    Remove,
    /// Puts `new` at the path as the user's own edit.
    Restore,
    /// Nothing any more: the store has the outcome, and only what was replaced, `expect`, is still watched.
    Recorded,
}

/// An install about to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its name.
    pub tx: Tx,
    /// What it does.
    pub action: IntentAction,
    /// Where.
    pub path: RelPath,
    /// What must be there before; `None`: nothing.
    pub expect: Option<Fingerprint>,
    /// What will be there; `None` for a removal.
    pub new: Option<Entry>,
    /// The print of the new entry in its temporary file; `None` where there is none.
    pub staged: Option<Fingerprint>,
    /// For a move: where the file lies before, and what it must be.
    pub from: Option<(RelPath, Fingerprint)>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Open { instance: [u8; 16], boot_id: [u8; 16] },
    InUse(Vec<Vec<u8>>),
    Install(Intent),
    Done(Tx),
    Clean,
    OwnSeq(OwnLog, OwnLogSize),
}

/// What lies at an offset of a journal.
pub(super) enum Parsed {
    Record(Box<Record>, usize),
    Bad,
    End,
}

/// Reads the record at the start of `bytes`; with it, how many bytes it takes.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::End;
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return Parsed::Bad;
    };
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&header[at..at + 4]);
        u32::from_le_bytes(word)
    };
    let len = word(0) as usize;
    if len == 0 || len > MAX_RECORD || len > rest.len() {
        return Parsed::Bad;
    }
    let payload = &rest[..len];
    if crc32c::crc32c(payload) != word(4) {
        return Parsed::Bad;
    }
    match decode(payload[0], &payload[1..]) {
        Ok(record) => Parsed::Record(Box::new(record), HEADER + len),
        Err(_) => Parsed::Bad,
    }
}

/// Appends a record's bytes.
pub(super) fn append(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    out.push(record_type(record));
    encode_body(&mut Encoder::new(&mut *out), record).unwrap_or_else(|e| match e {});
    let payload = &out[start + HEADER..];
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let crc = crc32c::crc32c(payload).to_le_bytes();
    out[start..start + 4].copy_from_slice(&len);
    out[start + 4..start + HEADER].copy_from_slice(&crc);
}

const fn record_type(record: &Record) -> u8 {
    match record {
        Record::Open { .. } => 1,
        Record::InUse(_) => 2,
        Record::Install(_) => 3,
        Record::Done(_) => 4,
        Record::Clean => 6,
        Record::OwnSeq(..) => 7,
    }
}

/// Writing CBOR to memory fails only if the memory does.
enum Never {}

impl From<minicbor::encode::Error<std::convert::Infallible>> for Never {
    fn from(_: minicbor::encode::Error<std::convert::Infallible>) -> Self {
        unreachable!("no value of the journal refuses to be encoded")
    }
}

type Cbor<'a> = Encoder<&'a mut Vec<u8>>;

fn encode_body(e: &mut Cbor<'_>, record: &Record) -> Result<(), Never> {
    match record {
        Record::Open { instance, boot_id } => {
            e.array(3)?.u64(VERSION)?.bytes(instance)?.bytes(boot_id)?;
        }
        Record::InUse(paths) => {
            e.array(paths.len() as u64)?;
            for path in paths {
                e.bytes(path)?;
            }
        }
        Record::Install(intent) => encode_intent(e, intent)?,
        Record::Done(tx) => {
            e.array(1)?.u64(tx.0)?;
        }
        Record::Clean => {
            e.array(0)?;
        }
        Record::OwnSeq(log, size) => {
            e.array(4)?
                .bytes(log.group.as_bytes())?
                .bytes(log.device.as_bytes())?
                .u64(size.events)?
                .u64(size.members)?;
        }
    }
    Ok(())
}

fn encode_intent(e: &mut Cbor<'_>, intent: &Intent) -> Result<(), Never> {
    let action = match intent.action {
        IntentAction::Put => 0,
        IntentAction::SetMeta => 1,
        IntentAction::Move => 2,
        IntentAction::Remove => 3,
        IntentAction::Restore => 4,
        IntentAction::Recorded => 5,
    };
    e.array(7)?
        .u64(intent.tx.0)?
        .u8(action)?
        .bytes(intent.path.as_bytes())?;
    encode_print(e, intent.expect.as_ref())?;
    match &intent.new {
        Some(entry) => encode_entry(e, entry)?,
        None => {
            e.null()?;
        }
    }
    encode_print(e, intent.staged.as_ref())?;
    match &intent.from {
        Some((path, print)) => {
            e.array(2)?.bytes(path.as_bytes())?;
            encode_print(e, Some(print))?;
        }
        None => {
            e.null()?;
        }
    }
    Ok(())
}

fn encode_print(e: &mut Cbor<'_>, print: Option<&Fingerprint>) -> Result<(), Never> {
    match print {
        Some(p) => e
            .array(5)?
            .u64(p.ino)?
            .u64(p.size)?
            .i64(p.mtime_ns)?
            .i64(p.ctime_ns)?
            .u32(p.mode)?,
        None => e.null()?,
    };
    Ok(())
}

fn encode_entry(e: &mut Cbor<'_>, entry: &Entry) -> Result<(), Never> {
    e.array(3)?;
    match &entry.node {
        Node::File { content, size } => e.array(3)?.u8(0)?.bytes(content.as_bytes())?.u64(*size)?,
        Node::Dir => e.array(1)?.u8(1)?,
        Node::Link { target } => e.array(2)?.u8(2)?.bytes(target)?,
    };
    e.u32(entry.mode)?.i64(entry.mtime_ns)?;
    Ok(())
}

fn decode(kind: u8, body: &[u8]) -> Result<Record, CborError> {
    let mut d = Decoder::new(body);
    let record = match kind {
        1 => {
            expect_array(&mut d, 3)?;
            if d.u64()? != VERSION {
                return Err(CborError::message("unknown version"));
            }
            Record::Open {
                instance: fixed(d.bytes()?)?,
                boot_id: fixed(d.bytes()?)?,
            }
        }
        2 => {
            let count = d.array()?.ok_or_else(|| CborError::message("indefinite"))?;
            Record::InUse(
                (0..count)
                    .map(|_| d.bytes().map(<[u8]>::to_vec))
                    .collect::<Result<_, _>>()?,
            )
        }
        3 => Record::Install(decode_intent(&mut d)?),
        4 => {
            expect_array(&mut d, 1)?;
            Record::Done(Tx(d.u64()?))
        }
        6 => {
            expect_array(&mut d, 0)?;
            Record::Clean
        }
        7 => {
            expect_array(&mut d, 4)?;
            let group = GroupId::new(fixed(d.bytes()?)?);
            let device = ShortId::new(fixed(d.bytes()?)?);
            let (events, members) = (d.u64()?, d.u64()?);
            Record::OwnSeq(OwnLog { group, device }, OwnLogSize { events, members })
        }
        _ => return Err(CborError::message("unknown type")),
    };
    if d.position() == body.len() {
        Ok(record)
    } else {
        Err(CborError::message("bytes after the record"))
    }
}

fn decode_intent(d: &mut Decoder<'_>) -> Result<Intent, CborError> {
    expect_array(d, 7)?;
    Ok(Intent {
        tx: Tx(d.u64()?),
        action: match d.u8()? {
            0 => IntentAction::Put,
            1 => IntentAction::SetMeta,
            2 => IntentAction::Move,
            3 => IntentAction::Remove,
            4 => IntentAction::Restore,
            5 => IntentAction::Recorded,
            _ => return Err(CborError::message("unknown action")),
        },
        path: decode_path(d)?,
        expect: optional(d, decode_print)?,
        new: optional(d, decode_entry)?,
        staged: optional(d, decode_print)?,
        from: optional(d, |d| {
            expect_array(d, 2)?;
            Ok((decode_path(d)?, decode_print(d)?))
        })?,
    })
}

fn decode_path(d: &mut Decoder<'_>) -> Result<RelPath, CborError> {
    RelPath::parse(d.bytes()?).map_err(CborError::custom)
}

fn decode_print(d: &mut Decoder<'_>) -> Result<Fingerprint, CborError> {
    expect_array(d, 5)?;
    Ok(Fingerprint {
        ino: d.u64()?,
        size: d.u64()?,
        mtime_ns: d.i64()?,
        ctime_ns: d.i64()?,
        mode: d.u32()?,
    })
}

fn decode_entry(d: &mut Decoder<'_>) -> Result<Entry, CborError> {
    expect_array(d, 3)?;
    let fields = d.array()?;
    let node = match (fields, d.u8()?) {
        (Some(3), 0) => Node::File {
            content: ContentHash::new(fixed(d.bytes()?)?),
            size: d.u64()?,
        },
        (Some(1), 1) => Node::Dir,
        (Some(2), 2) => Node::Link {
            target: d.bytes()?.to_vec(),
        },
        _ => return Err(CborError::message("unknown node")),
    };
    Ok(Entry {
        node,
        mode: d.u32()?,
        mtime_ns: d.i64()?,
    })
}

fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, CborError>,
) -> Result<Option<T>, CborError> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    read(d).map(Some)
}

fn expect_array(d: &mut Decoder<'_>, len: u64) -> Result<(), CborError> {
    if d.array()? == Some(len) {
        Ok(())
    } else {
        Err(CborError::message("wrong number of fields"))
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CborError> {
    bytes.try_into().map_err(|_| CborError::message("wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(ino: u64) -> Fingerprint {
        Fingerprint {
            ino,
            size: 5,
            mtime_ns: -1,
            ctime_ns: 1_700_000_000_000_000_000,
            mode: 0o100_644,
        }
    }

    fn intent() -> Intent {
        Intent {
            tx: Tx(0x0102),
            action: IntentAction::Move,
            path: RelPath::parse("a/b").unwrap(),
            expect: None,
            new: Some(Entry {
                node: Node::File {
                    content: ContentHash::new([7; 32]),
                    size: 5,
                },
                mode: 0o644,
                mtime_ns: -1,
            }),
            staged: Some(print(9)),
            from: Some((RelPath::parse("c").unwrap(), print(3))),
        }
    }

    #[test]
    fn every_record_is_read_back() {
        let put_link = Intent {
            action: IntentAction::Put,
            expect: Some(print(1)),
            new: Some(Entry {
                node: Node::Link {
                    target: b"x".to_vec(),
                },
                mode: 0o777,
                mtime_ns: 0,
            }),
            from: None,
            ..intent()
        };
        let records = [
            Record::Open {
                instance: [1; 16],
                boot_id: [2; 16],
            },
            Record::InUse(vec![b"a".to_vec(), vec![0xff]]),
            Record::Install(intent()),
            Record::Install(put_link),
            Record::Done(Tx(5)),
            Record::OwnSeq(
                OwnLog {
                    group: GroupId::new([3; 32]),
                    device: ShortId::new([4; 8]),
                },
                OwnLogSize {
                    events: 64,
                    members: 3,
                },
            ),
            Record::Clean,
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|r| append(&mut bytes, r));
        let mut at = 0;
        for record in records {
            let Parsed::Record(read, len) = parse(&bytes[at..]) else {
                panic!("at {at}")
            };
            assert_eq!(*read, record);
            at += len;
        }
        assert!(matches!(parse(&bytes[at..]), Parsed::End));
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mut bytes = Vec::new();
        append(&mut bytes, &Record::Done(Tx(0x0102)));
        append(&mut bytes, &Record::InUse(vec![b"a/b".to_vec()]));
        append(&mut bytes, &Record::Clean);
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        assert_eq!(
            hex,
            "05000000b392f935048119010206000000be53fe88028143612f6202000000981d581a0680"
        );
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        append(&mut bytes, &Record::Install(intent()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(matches!(parse(&damaged), Parsed::Bad), "byte {at}");
        }
    }

    #[test]
    fn names_of_temporary_files_are_read_back() {
        assert_eq!(Tx::of_name(&Tx(77).slot()), Some(Tx(77)));
        assert_eq!(Tx::of_name(&Tx(77).aside()), Some(Tx(77)));
        assert_eq!(Tx::of_name("i-77"), None);
    }
}
