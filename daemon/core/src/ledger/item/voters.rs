//! The item by which other devices grant locks from then on (locks.md 3, *Reconfiguration*).

use std::collections::BTreeMap;

use super::{TAG_VOTERS, header};
use crate::encoding::{Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional};
use crate::ids::{DeviceId, GroupId};
use crate::lock::succession::{Next, Report, Seal, Succession};
use crate::lock::{MAX_VOTERS, Nonce, Slot, SlotId, slots_from_bytes, slots_to_bytes};

/// Its author, an owner, names the voters of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voters {
    /// Which epoch.
    pub epoch: u64,
    /// Which of its author's tries.
    pub nonce: Nonce,
    /// Who, in order, each once: one, three or five.
    pub voters: Vec<DeviceId>,
    /// What a majority of the voters before had when they were sealed; `None`: they were not asked.
    pub seals: Option<Vec<SealedSlots>>,
}

/// What one voter had when it was sealed for a set of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSlots {
    /// Whose.
    pub voter: DeviceId,
    /// Its signature over [`Report::message`].
    pub sig: [u8; 64],
    /// What it had granted.
    pub slots: BTreeMap<SlotId, Slot>,
}

impl Voters {
    /// Returns the item by which `next` follows by these seals, or without any.
    #[must_use]
    pub fn new(next: Next, seals: Option<Vec<Seal>>) -> Self {
        let sealed = |seal: Seal| SealedSlots {
            voter: seal.voter,
            sig: seal.sig,
            slots: seal.report.slots,
        };
        Self {
            epoch: next.epoch,
            nonce: next.nonce,
            voters: next.voters,
            seals: seals.map(|seals| seals.into_iter().map(sealed).collect()),
        }
    }

    /// Returns whom it names, if `owner` is the author.
    #[must_use]
    pub fn next(&self, owner: DeviceId) -> Next {
        Next {
            epoch: self.epoch,
            voters: self.voters.clone(),
            owner,
            nonce: self.nonce,
        }
    }

    /// Returns what proves that they follow, if `owner` is the author; `None`: nothing does, they follow by his word.
    #[must_use]
    pub fn succession(&self, owner: DeviceId, group: &GroupId) -> Option<Succession> {
        let next = self.next(owner);
        let hash = next.hash(group);
        let seal = |sealed: &SealedSlots| Seal {
            voter: sealed.voter,
            report: Report {
                epoch: self.epoch.saturating_sub(1),
                next: hash,
                slots: sealed.slots.clone(),
            },
            sig: sealed.sig,
        };
        let seals = self.seals.as_ref()?.iter().map(seal).collect();
        Some(Succession { next, seals })
    }
}

pub(super) fn write_voters(e: &mut Encoder<'_>, item: &Voters) {
    header(e, TAG_VOTERS, 4);
    infallible(e.u64(item.epoch));
    infallible(e.bytes(&item.nonce.0));
    infallible(e.array(item.voters.len() as u64));
    for voter in &item.voters {
        infallible(e.bytes(voter.as_bytes()));
    }
    let Some(seals) = &item.seals else {
        infallible(e.null());
        return;
    };
    infallible(e.array(seals.len() as u64));
    for seal in seals {
        infallible(e.array(3));
        infallible(e.bytes(seal.voter.as_bytes()));
        infallible(e.bytes(&seal.sig));
        infallible(e.bytes(&slots_to_bytes(&seal.slots)));
    }
}

pub(super) fn read_voters(d: &mut Decoder<'_>) -> Result<Voters, ShapeError> {
    let (epoch, nonce) = (d.u64()?, Nonce(bytes_of(d)?));
    let voters = read_few(d, |d| Ok(DeviceId::new(bytes_of(d)?)))?;
    let seals = optional(d, |d| {
        read_few(d, |d| {
            array_of(d, 3)?;
            Ok(SealedSlots {
                voter: DeviceId::new(bytes_of(d)?),
                sig: bytes_of(d)?,
                slots: slots_from_bytes(d.bytes()?)?,
            })
        })
    })?;
    Ok(Voters {
        epoch,
        nonce,
        voters,
        seals,
    })
}

/// Reads as many as there can be voters.
fn read_few<T>(
    d: &mut Decoder<'_>,
    mut read: impl FnMut(&mut Decoder<'_>) -> Result<T, ShapeError>,
) -> Result<Vec<T>, ShapeError> {
    let len = array_len(d)?;
    if len > MAX_VOTERS as u64 {
        return Err(ShapeError::new());
    }
    (0..len).map(|_| read(d)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::encoding;
    use crate::ledger::Item;
    use crate::lock::{Claim, Resource, Token};
    use crate::signature;

    const GROUP: GroupId = GroupId::new([9; 32]);

    fn next() -> Next {
        Next {
            epoch: 1,
            voters: [1, 2, 3].map(|at| DeviceId::new([at; 32])).to_vec(),
            owner: DeviceId::new([7; 32]),
            nonce: Nonce([4; 16]),
        }
    }

    fn slot(at: u8) -> (SlotId, Slot) {
        let claim = Claim {
            token: Token { epoch: 0, n: 5 },
            holder: DeviceId::new([at; 32]),
            nonce: Nonce([3; 16]),
            ttl: Duration::from_mins(1),
            durable: true,
            resources: vec![Resource::parse(b"docs/").unwrap()],
        };
        (claim.id(), Slot { claim, durable: true })
    }

    fn seal(slots: &[(SlotId, Slot)]) -> Seal {
        let report = Report {
            epoch: 0,
            next: next().hash(&GROUP),
            slots: slots.iter().cloned().collect(),
        };
        Seal::sign(&signature::key_pair(&[1; 32]), &GROUP, report)
    }

    fn item(seals: Option<Vec<Seal>>) -> Voters {
        Voters::new(next(), seals)
    }

    fn read(bytes: &[u8]) -> Option<Item> {
        encoding::check(bytes).ok()?;
        Item::from_bytes(bytes).ok()
    }

    #[test]
    fn it_is_read_back_and_proves_what_its_seals_do() {
        let founder = seal(&[]).voter;
        for seals in [None, Some(Vec::new()), Some(vec![seal(&[slot(5), slot(6)])])] {
            let voters = item(seals.clone());
            let bytes = Item::Voters(voters.clone()).to_bytes();
            assert_eq!(read(&bytes), Some(Item::Voters(voters.clone())));
            let succession = voters.succession(next().owner, &GROUP);
            let holds = succession
                .as_ref()
                .map(|s| s.check(&GROUP, 0, &[founder]).is_ok());
            assert_eq!(holds, seals.map(|seals| !seals.is_empty()));
            let others = voters.succession(DeviceId::new([8; 32]), &GROUP);
            assert!(others.is_none_or(|s| s.check(&GROUP, 0, &[founder]).is_err()));
        }
    }

    #[test]
    fn the_bytes_do_not_change() {
        let voters = item(Some(vec![seal(&[])]));
        let text = data_encoding::HEXLOWER.encode(&Item::Voters(voters.clone()).to_bytes());
        let id = |at: u8| format!("5820{}", format!("{at:02x}").repeat(32));
        let (nonce, ids) = ("04".repeat(16), [id(1), id(2), id(3)].concat());
        let sealed = &voters.seals.unwrap()[0];
        let by = data_encoding::HEXLOWER.encode(sealed.voter.as_bytes());
        let sig = data_encoding::HEXLOWER.encode(&sealed.sig);
        assert_eq!(text, format!("850a0150{nonce}83{ids}81835820{by}5840{sig}4180"));
    }

    #[test]
    fn more_than_there_can_be_and_slots_out_of_order_are_refused() {
        let mut many = item(None);
        many.voters = (1..=6).map(|at| DeviceId::new([at; 32])).collect();
        assert_eq!(read(&Item::Voters(many).to_bytes()), None);
        let mut bytes = Item::Voters(item(Some(vec![seal(&[slot(5), slot(6)])]))).to_bytes();
        let at = |bytes: &[u8], id: u8| bytes.windows(32).position(|w| w == [id; 32]).unwrap();
        let (five, six) = (at(&bytes, 5), at(&bytes, 6));
        bytes[five..five + 32].fill(6);
        bytes[six..six + 32].fill(5);
        assert_eq!(read(&bytes), None);
    }
}
