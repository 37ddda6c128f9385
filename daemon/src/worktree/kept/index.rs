//! The bytes of an index; the format stands in the module above.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use minicbor::decode::Error as CborError;
use minicbor::{Decoder, Encoder};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use rustix::fs::FileType;

use super::{Keep, version_name};

/// Version of the format.
const VERSION: u64 = 1;
/// Bytes of a body: a path and a name at their longest fit twice.
const MAX_RECORD: usize = 16 << 10;
/// Bytes before a body.
const HEADER: usize = 8;
/// Bytes read ahead; for one record the buffer of a page suffices, but most reads go through a whole index.
const READ_AHEAD: usize = 64 << 10;
/// Bytes read ahead where one record is wanted.
const ONE_RECORD: usize = 1 << 10;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: Vec<u8>,
    pub(super) path: Option<RelPath>,
    pub(super) kept_at_ms: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) mode: u32,
    pub(super) content: Option<ContentHash>,
}

impl Record {
    pub(super) fn of(item: &Keep<'_>, kept_at_ms: u64) -> Self {
        Self {
            name: version_name(item.tx, item.path),
            path: item.path.cloned(),
            kept_at_ms,
            size: item.print.size,
            mtime_ns: item.print.mtime_ns,
            mode: item.print.mode,
            content: item.content,
        }
    }

    pub(super) fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Symlink
    }

    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        self.encode(&mut Encoder::new(&mut *out))
            .unwrap_or_else(|e| match e {});
        let body = &out[start + HEADER..];
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let crc = crc32c::crc32c(body).to_le_bytes();
        out[start..start + 4].copy_from_slice(&len);
        out[start + 4..start + HEADER].copy_from_slice(&crc);
    }

    fn encode(&self, e: &mut Encoder<&mut Vec<u8>>) -> Result<(), Never> {
        e.array(8)?.u64(VERSION)?.bytes(&self.name)?;
        match &self.path {
            Some(path) => e.bytes(path.as_bytes())?,
            None => e.null()?,
        };
        e.u64(self.kept_at_ms)?
            .u64(self.size)?
            .i64(self.mtime_ns)?
            .u32(self.mode)?;
        match &self.content {
            Some(content) => e.bytes(content.as_bytes())?,
            None => e.null()?,
        };
        Ok(())
    }

    fn decode(body: &[u8]) -> Result<Self, CborError> {
        let mut d = Decoder::new(body);
        if d.array()? != Some(8) || d.u64()? != VERSION {
            return Err(CborError::message("unknown version"));
        }
        let name = d.bytes()?.to_vec();
        if name.is_empty() || name.contains(&b'/') {
            return Err(CborError::message("not a name"));
        }
        let path = match optional_bytes(&mut d)? {
            Some(bytes) => Some(RelPath::parse(bytes).map_err(CborError::custom)?),
            None => None,
        };
        Ok(Self {
            name,
            path,
            kept_at_ms: d.u64()?,
            size: d.u64()?,
            mtime_ns: d.i64()?,
            mode: d.u32()?,
            content: match optional_bytes(&mut d)? {
                Some(bytes) => Some(ContentHash::from_slice(bytes).map_err(CborError::custom)?),
                None => None,
            },
        })
    }
}

fn optional_bytes<'b>(d: &mut Decoder<'b>) -> Result<Option<&'b [u8]>, CborError> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    d.bytes().map(Some)
}

/// Writing CBOR to memory fails only if the memory does.
enum Never {}

impl From<minicbor::encode::Error<std::convert::Infallible>> for Never {
    fn from(_: minicbor::encode::Error<std::convert::Infallible>) -> Self {
        unreachable!("no value of a record refuses to be encoded")
    }
}

/// The records of an index with their places, up to the first that is damaged.
pub(super) struct Records<'f> {
    reader: BufReader<&'f File>,
    at: u64,
    body: Vec<u8>,
}

impl<'f> Records<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        Self {
            reader: BufReader::with_capacity(READ_AHEAD, file),
            at: 0,
            body: Vec::new(),
        }
    }

    /// Begins with the record at `offset`.
    pub(super) fn from(file: &'f File, offset: u64) -> Self {
        let mut reader = BufReader::with_capacity(ONE_RECORD, file);
        // A file that cannot be sought has no records.
        let sought = reader.seek(SeekFrom::Start(offset)).is_ok();
        Self {
            reader,
            at: if sought { offset } else { u64::MAX },
            body: Vec::new(),
        }
    }

    /// Returns where the records that could be read end.
    pub(super) const fn end(&self) -> u64 {
        self.at
    }

    fn read(&mut self) -> io::Result<Option<Record>> {
        if self.at == u64::MAX || self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.reader.read_exact(&mut header)?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = word(0) as usize;
        if len == 0 || len > MAX_RECORD {
            return Ok(None);
        }
        self.body.resize(len, 0);
        self.reader.read_exact(&mut self.body)?;
        if crc32c::crc32c(&self.body) != word(4) {
            return Ok(None);
        }
        Ok(Record::decode(&self.body).ok())
    }
}

impl Iterator for Records<'_> {
    type Item = (u64, Record);

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.read().ok().flatten()?;
        let at = self.at;
        self.at += (HEADER + self.body.len()) as u64;
        Some((at, record))
    }
}
