//! The items of locks: that one was granted, that it is over, and that it was broken (locks.md 3).

use std::time::Duration;

use super::admin::{MAX_REASON, read_text};
use super::{TAG_LOCK_BREAK, TAG_LOCK_END, TAG_LOCK_GRANT, header, read_dot, write_dot};
use crate::encoding::{Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional};
use crate::ids::{DeviceId, Dot};
use crate::lock::{Certificate, Claim, MAX_VOTERS, Nonce, Resource, Token, Vote};

/// Bytes a note may have.
pub(crate) const MAX_NOTE: usize = 1024;

/// Its author holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockGrant {
    /// Under which token.
    pub token: Token,
    /// Which of its author's claims.
    pub nonce: Nonce,
    /// How long voters kept it before it was shown here.
    pub ttl: Duration,
    /// Whether it lasts until it is ended or broken.
    pub durable: bool,
    /// What, in order, each once.
    pub resources: Vec<Resource>,
    /// Who granted it: a majority of the voters of its epoch.
    pub votes: Vec<Vote>,
    /// When its holder means to end it, milliseconds since 1970; `None`: he does not say.
    pub until_ms: Option<u64>,
    /// What for, for people.
    pub note: String,
}

/// A lock is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockEnd {
    /// The item that granted it.
    pub grant: Dot,
    /// Why.
    pub reason: EndReason,
}

/// Why a lock is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its holder is done.
    Released,
    /// Nobody renewed it: somebody who waited for it says so.
    Lapsed,
}

/// A lock is over, whatever its holder wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockBreak {
    /// The item that granted it.
    pub grant: Dot,
    /// Why, for people.
    pub reason: String,
}

impl LockGrant {
    /// Returns what proves it, if `holder` is the author.
    #[must_use]
    pub fn certificate(&self, holder: DeviceId) -> Certificate {
        Certificate {
            claim: Claim {
                token: self.token,
                holder,
                nonce: self.nonce,
                ttl: self.ttl,
                durable: self.durable,
                resources: self.resources.clone(),
            },
            votes: self.votes.clone(),
        }
    }
}

pub(super) fn write_grant(e: &mut Encoder<'_>, grant: &LockGrant) {
    header(e, TAG_LOCK_GRANT, 9);
    infallible(e.u64(grant.token.epoch));
    infallible(e.u64(grant.token.n));
    infallible(e.bytes(&grant.nonce.0));
    infallible(e.u64(u64::try_from(grant.ttl.as_millis()).unwrap_or(u64::MAX)));
    infallible(e.bool(grant.durable));
    infallible(e.array(grant.resources.len() as u64));
    for resource in &grant.resources {
        infallible(e.bytes(&resource.to_bytes()));
    }
    infallible(e.array(grant.votes.len() as u64));
    for vote in &grant.votes {
        infallible(e.array(2));
        infallible(e.bytes(vote.voter.as_bytes()));
        infallible(e.bytes(&vote.sig));
    }
    match grant.until_ms {
        Some(ms) => infallible(e.u64(ms)),
        None => infallible(e.null()),
    }
    infallible(e.str(&grant.note));
}

pub(super) fn read_grant(d: &mut Decoder<'_>) -> Result<LockGrant, ShapeError> {
    let grant = LockGrant {
        token: Token {
            epoch: d.u64()?,
            n: d.u64()?,
        },
        nonce: Nonce(bytes_of(d)?),
        ttl: Duration::from_millis(d.u64()?),
        durable: d.bool()?,
        resources: read_resources(d)?,
        votes: read_votes(d)?,
        until_ms: optional(d, |d| Ok(d.u64()?))?,
        note: read_text(d, MAX_NOTE)?,
    };
    // What holds for every claim; its holder matters not.
    let claim = grant.certificate(DeviceId::new([0; 32])).claim;
    if claim.is_well_formed() {
        Ok(grant)
    } else {
        Err(ShapeError::new())
    }
}

fn read_resources(d: &mut Decoder<'_>) -> Result<Vec<Resource>, ShapeError> {
    let len = array_len(d)?;
    if len > Claim::MAX_RESOURCES as u64 {
        return Err(ShapeError::new());
    }
    let read = |d: &mut Decoder<'_>| Resource::parse(d.bytes()?).map_err(|_| ShapeError::new());
    (0..len).map(|_| read(d)).collect()
}

fn read_votes(d: &mut Decoder<'_>) -> Result<Vec<Vote>, ShapeError> {
    let len = array_len(d)?;
    if len > MAX_VOTERS as u64 {
        return Err(ShapeError::new());
    }
    let votes = (0..len).map(|_| {
        array_of(d, 2)?;
        Ok(Vote {
            voter: DeviceId::new(bytes_of(d)?),
            sig: bytes_of(d)?,
        })
    });
    votes.collect()
}

pub(super) fn write_end(e: &mut Encoder<'_>, end: &LockEnd) {
    header(e, TAG_LOCK_END, 2);
    write_dot(e, &end.grant);
    infallible(e.u8(match end.reason {
        EndReason::Released => 0,
        EndReason::Lapsed => 1,
    }));
}

pub(super) fn read_end(d: &mut Decoder<'_>) -> Result<LockEnd, ShapeError> {
    let grant = read_dot(d)?;
    let reason = match d.u64()? {
        0 => EndReason::Released,
        1 => EndReason::Lapsed,
        _ => return Err(ShapeError::new()),
    };
    Ok(LockEnd { grant, reason })
}

pub(super) fn write_break(e: &mut Encoder<'_>, broken: &LockBreak) {
    header(e, TAG_LOCK_BREAK, 2);
    write_dot(e, &broken.grant);
    infallible(e.str(&broken.reason));
}

pub(super) fn read_break(d: &mut Decoder<'_>) -> Result<LockBreak, ShapeError> {
    Ok(LockBreak {
        grant: read_dot(d)?,
        reason: read_text(d, MAX_REASON)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding;
    use crate::ids::ShortId;
    use crate::ledger::Item;

    const GRANT: Dot = Dot {
        device: ShortId::new([1; 8]),
        seq: 300,
        item: 0,
    };

    fn grant(resources: &[&str]) -> LockGrant {
        let resources = resources
            .iter()
            .map(|text| Resource::parse(text.as_bytes()).unwrap());
        LockGrant {
            token: Token { epoch: 1, n: 57 },
            nonce: Nonce([3; 16]),
            ttl: Duration::from_mins(1),
            durable: true,
            resources: resources.collect(),
            votes: vec![Vote {
                voter: DeviceId::new([2; 32]),
                sig: [4; 64],
            }],
            until_ms: Some(1_750_000_000_000),
            note: "Figures".into(),
        }
    }

    fn read_back(item: &Item) -> bool {
        let bytes = item.to_bytes();
        assert_eq!(encoding::check(&bytes), Ok(()));
        Item::from_bytes(&bytes).is_ok_and(|read| read == *item)
    }

    #[test]
    fn the_items_of_locks_are_read_back() {
        let forever = LockGrant {
            until_ms: None,
            note: String::new(),
            votes: Vec::new(),
            ..grant(&["a", "a b/", "c/d"])
        };
        assert!(read_back(&Item::LockGrant(grant(&["docs/"]))));
        assert!(read_back(&Item::LockGrant(forever)));
        for reason in [EndReason::Released, EndReason::Lapsed] {
            assert!(read_back(&Item::LockEnd(LockEnd { grant: GRANT, reason })));
        }
        assert!(read_back(&Item::LockBreak(LockBreak {
            grant: GRANT,
            reason: "He left.".into(),
        })));
    }

    #[test]
    fn the_encoding_is_as_written_down() {
        let hex = |item: Item| data_encoding::HEXLOWER.encode(&item.to_bytes());
        let nonce = "03".repeat(16);
        let (voter, sig) = ("02".repeat(32), "04".repeat(64));
        assert_eq!(
            hex(Item::LockGrant(grant(&["docs/"]))),
            format!(
                "8a1301183950{nonce}19ea60f58145646f63732f81825820{voter}5840{sig}1b000001977420dc006746696775726573"
            )
        );
        let end = LockEnd {
            grant: GRANT,
            reason: EndReason::Lapsed,
        };
        assert_eq!(
            hex(Item::LockEnd(end)),
            "831483480101010101010101 19012c0001".replace(' ', "")
        );
        let broken = LockBreak {
            grant: GRANT,
            reason: "x".into(),
        };
        assert_eq!(
            hex(Item::LockBreak(broken)),
            "831583480101010101010101 19012c006178".replace(' ', "")
        );
    }

    #[test]
    fn claims_that_break_a_limit_and_reasons_nobody_knows_are_refused() {
        for resources in [&[][..], &["b", "a"], &["a", "a"]] {
            let item = Item::LockGrant(grant(resources));
            assert!(!read_back(&item), "{resources:?}");
        }
        let zero = LockGrant {
            ttl: Duration::ZERO,
            ..grant(&["a"])
        };
        assert!(!read_back(&Item::LockGrant(zero)));
        let end = LockEnd {
            grant: GRANT,
            reason: EndReason::Lapsed,
        };
        let mut bytes = Item::LockEnd(end).to_bytes();
        *bytes.last_mut().unwrap() = 2;
        assert!(Item::from_bytes(&bytes).is_err());
    }
}
