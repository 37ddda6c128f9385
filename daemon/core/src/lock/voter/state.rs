//! What a voter keeps, and how it is stored.

use std::collections::BTreeMap;

use super::super::claim::{Claim, Nonce};
use super::Voter;
use crate::encoding::{
    self, Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional,
};
use crate::ids::DeviceId;

/// What names a slot: [`Claim::id`].
pub type SlotId = (DeviceId, Nonce);

/// A claim that a voter has granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Which.
    pub claim: Claim,
    /// Whether it lasts until it is released or broken; otherwise as long as the claim says.
    pub durable: bool,
}

/// What a voter makes room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sealed {
    /// The set of voters: [`Next::hash`](crate::lock::succession::Next::hash).
    pub next: [u8; 32],
    /// Who asked for it.
    pub by: DeviceId,
}

/// What a voter must not forget.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VoterState {
    /// Of which set of voters it is one.
    pub epoch: u64,
    /// Which set that is: [`Next::hash`](crate::lock::succession::Next::hash); zeros: the group's first.
    pub set: [u8; 32],
    /// The last sets that it stands for, the newest last: it may vote in one of these, for it has not before.
    pub stands: Vec<[u8; 32]>,
    /// The set that it is to make room for: it grants nothing more.
    pub sealed: Option<Sealed>,
    /// The last sets that it is not to make room for any more, the newest last: what asks for one came late.
    pub unsealed: Vec<[u8; 32]>,
    /// The greatest token number of this epoch that it has let go.
    pub floor: u64,
    /// Whether something of it was lost, so that it must not answer.
    pub forgot: bool,
    /// What it has granted.
    pub slots: BTreeMap<SlotId, Slot>,
}

impl VoterState {
    /// Returns it as CBOR: `[epoch uint, set bstr32, [stands bstr32…], sealed null|[next bstr32, by bstr32], [unsealed
    /// bstr32…], floor uint, forgot bool, slots]`, the slots as in [`slots_to_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| {
            infallible(e.array(8));
            infallible(e.u64(self.epoch));
            infallible(e.bytes(&self.set));
            write_sets(e, &self.stands);
            match &self.sealed {
                Some(sealed) => {
                    infallible(e.array(2));
                    infallible(e.bytes(&sealed.next));
                    infallible(e.bytes(sealed.by.as_bytes()));
                }
                None => infallible(e.null()),
            }
            write_sets(e, &self.unsealed);
            infallible(e.u64(self.floor));
            infallible(e.bool(self.forgot));
            write_slots(e, &self.slots);
        })
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ShapeError`] if it is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShapeError> {
        let d = &mut Decoder::new(bytes);
        array_of(d, 8)?;
        let (epoch, set, stands) = (d.u64()?, bytes_of(d)?, read_sets(d)?);
        let sealed = optional(d, |d| {
            array_of(d, 2)?;
            let (next, by) = (bytes_of(d)?, DeviceId::new(bytes_of(d)?));
            Ok(Sealed { next, by })
        })?;
        let unsealed = read_sets(d)?;
        let (floor, forgot) = (d.u64()?, d.bool()?);
        Ok(Self {
            epoch,
            set,
            stands,
            sealed,
            unsealed,
            floor,
            forgot,
            slots: read_slots(d)?,
        })
    }

    /// Returns the state of a voter of an epoch that begins, with what it takes over from the one before.
    #[must_use]
    pub const fn new(epoch: u64, slots: BTreeMap<SlotId, Slot>) -> Self {
        Self {
            epoch,
            set: [0; 32],
            stands: Vec::new(),
            sealed: None,
            unsealed: Vec::new(),
            floor: 0,
            forgot: false,
            slots,
        }
    }
}

fn write_sets(e: &mut Encoder<'_>, sets: &[[u8; 32]]) {
    infallible(e.array(sets.len() as u64));
    for set in sets {
        infallible(e.bytes(set));
    }
}

fn read_sets(d: &mut Decoder<'_>) -> Result<Vec<[u8; 32]>, ShapeError> {
    (0..array_len(d)?).map(|_| bytes_of(d)).collect()
}

/// Notes a set, and forgets the oldest one where there are too many.
pub(super) fn note_set(sets: &mut Vec<[u8; 32]>, set: [u8; 32]) {
    if !sets.contains(&set) {
        sets.drain(..(sets.len() + 1).saturating_sub(Voter::MAX_SETS));
        sets.push(set);
    }
}

/// Returns slots as CBOR: `[[claim, durable bool]…]`, in order, each claim as in [`Claim::to_bytes`].
#[must_use]
pub fn slots_to_bytes(slots: &BTreeMap<SlotId, Slot>) -> Vec<u8> {
    encoding::to_vec(|e| write_slots(e, slots))
}

/// Reads what [`slots_to_bytes`] wrote.
///
/// # Errors
/// [`ShapeError`] if it is anything else: also if two slots are of one claim, or are not in order.
pub fn slots_from_bytes(bytes: &[u8]) -> Result<BTreeMap<SlotId, Slot>, ShapeError> {
    encoding::check(bytes).map_err(|_| ShapeError::new())?;
    read_slots(&mut Decoder::new(bytes))
}

pub(in crate::lock) fn write_slots(e: &mut Encoder<'_>, slots: &BTreeMap<SlotId, Slot>) {
    infallible(e.array(slots.len() as u64));
    for slot in slots.values() {
        infallible(e.array(2));
        slot.claim.write(e);
        infallible(e.bool(slot.durable));
    }
}

fn read_slots(d: &mut Decoder<'_>) -> Result<BTreeMap<SlotId, Slot>, ShapeError> {
    let mut slots: BTreeMap<SlotId, Slot> = BTreeMap::new();
    for _ in 0..array_len(d)? {
        array_of(d, 2)?;
        let (claim, durable) = (Claim::read(d)?, d.bool()?);
        let id = claim.id();
        if slots.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(ShapeError::new());
        }
        slots.insert(id, Slot { claim, durable });
    }
    Ok(slots)
}
