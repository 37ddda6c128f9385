//! The parts of a proof, and how they are written.

use super::{MAX_LINKS, MAX_PATH, MAX_PROOF, MAX_WITNESSES, ProofError, VERSION};
use crate::encoding::{
    self, Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional,
};
use crate::merkle::Hash;

const MAGIC: &str = "p2p-sync-proof";

/// See the module above for each of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) links: Vec<Link>,
    pub(super) shown: Link,
    pub(super) newest: Option<Newest>,
    pub(super) witnesses: Vec<Witness>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) signed: Signed,
    pub(super) index: u32,
    pub(super) salt: [u8; 16],
    pub(super) item: Vec<u8>,
    pub(super) path: Vec<Hash>,
    pub(super) invite: Option<Power>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) header: Vec<u8>,
    pub(super) signature: [u8; 64],
    pub(super) power: Option<Power>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Power {
    pub(super) link: u32,
    pub(super) past: Past,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Past {
    /// In the same log.
    Own(Vec<Hash>),
    /// In another's.
    Other {
        sight: Option<Committed>,
        tip: Option<Committed>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) header: Vec<u8>,
    pub(super) path: Vec<Hash>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) header: Vec<u8>,
    pub(super) signature: [u8; 64],
    pub(super) path: Vec<Hash>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) signed: Signed,
    pub(super) tip: Option<Committed>,
}

impl Proof {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| {
            infallible(e.array(6));
            infallible(e.str(MAGIC));
            infallible(e.u64(VERSION));
            infallible(e.array(self.links.len() as u64));
            self.links.iter().for_each(|link| link.write(e));
            self.shown.write(e);
            write_optional(e, self.newest.as_ref(), Newest::write);
            infallible(e.array(self.witnesses.len() as u64));
            self.witnesses.iter().for_each(|witness| witness.write(e));
        })
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > MAX_PROOF {
            return Err(ProofError::TooLarge);
        }
        let mut d = Decoder::new(bytes);
        let magic = array_len(&mut d).and_then(|_| Ok(d.str()?));
        if !magic.is_ok_and(|magic| magic == MAGIC) {
            return Err(ProofError::NotAProof);
        }
        let version = d.u64().map_err(ShapeError::from)?;
        if version != VERSION {
            return Err(ProofError::Version(version));
        }
        encoding::check(bytes)?;
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 6)?;
        d.str().and_then(|_| d.u64()).map_err(ShapeError::from)?;
        Ok(Self {
            links: list(&mut d, MAX_LINKS, Link::read)?,
            shown: Link::read(&mut d)?,
            newest: optional(&mut d, Newest::read)?,
            witnesses: list(&mut d, MAX_WITNESSES, Witness::read)?,
        })
    }
}

impl Link {
    fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(6));
        self.signed.write(e);
        infallible(e.u32(self.index));
        infallible(e.bytes(&self.salt));
        infallible(e.bytes(&self.item));
        write_path(e, &self.path);
        write_optional(e, self.invite.as_ref(), Power::write);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 6)?;
        Ok(Self {
            signed: Signed::read(d)?,
            index: d.u32()?,
            salt: bytes_of(d)?,
            item: d.bytes()?.to_vec(),
            path: read_path(d)?,
            invite: optional(d, Power::read)?,
        })
    }
}

impl Signed {
    fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(3));
        infallible(e.bytes(&self.header));
        infallible(e.bytes(&self.signature));
        write_optional(e, self.power.as_ref(), Power::write);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 3)?;
        Ok(Self {
            header: d.bytes()?.to_vec(),
            signature: bytes_of(d)?,
            power: optional(d, Power::read)?,
        })
    }
}

impl Power {
    fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(2));
        infallible(e.u32(self.link));
        match &self.past {
            Past::Own(path) => {
                infallible(e.array(1));
                write_path(e, path);
            }
            Past::Other { sight, tip } => {
                infallible(e.array(2));
                write_optional(e, sight.as_ref(), Committed::write);
                write_optional(e, tip.as_ref(), Committed::write);
            }
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 2)?;
        let link = d.u32()?;
        let past = match array_len(d)? {
            1 => Past::Own(read_path(d)?),
            2 => Past::Other {
                sight: optional(d, Committed::read)?,
                tip: optional(d, Committed::read)?,
            },
            _ => return Err(ShapeError::new()),
        };
        Ok(Self { link, past })
    }
}

impl Committed {
    fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(2));
        infallible(e.bytes(&self.header));
        write_path(e, &self.path);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 2)?;
        Ok(Self {
            header: d.bytes()?.to_vec(),
            path: read_path(d)?,
        })
    }
}

impl Newest {
    fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(3));
        infallible(e.bytes(&self.header));
        infallible(e.bytes(&self.signature));
        write_path(e, &self.path);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 3)?;
        Ok(Self {
            header: d.bytes()?.to_vec(),
            signature: bytes_of(d)?,
            path: read_path(d)?,
        })
    }
}

impl Witness {
    fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(2));
        self.signed.write(e);
        write_optional(e, self.tip.as_ref(), Committed::write);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 2)?;
        Ok(Self {
            signed: Signed::read(d)?,
            tip: optional(d, Committed::read)?,
        })
    }
}

fn write_optional<T>(e: &mut Encoder<'_>, value: Option<&T>, write: impl FnOnce(&T, &mut Encoder<'_>)) {
    match value {
        Some(value) => write(value, e),
        None => {
            infallible(e.null());
        }
    }
}

fn write_path(e: &mut Encoder<'_>, path: &[Hash]) {
    infallible(e.bytes(path.as_flattened()));
}

fn read_path(d: &mut Decoder<'_>) -> Result<Vec<Hash>, ShapeError> {
    match d.bytes()?.as_chunks() {
        (hashes, []) if hashes.len() <= MAX_PATH => Ok(hashes.to_vec()),
        _ => Err(ShapeError::new()),
    }
}

fn list<T>(
    d: &mut Decoder<'_>,
    most: usize,
    read: impl Fn(&mut Decoder<'_>) -> Result<T, ShapeError>,
) -> Result<Vec<T>, ProofError> {
    let len = array_len(d)?;
    if len > most as u64 {
        return Err(ProofError::TooLarge);
    }
    Ok((0..len).map(|_| read(d)).collect::<Result<_, _>>()?)
}
