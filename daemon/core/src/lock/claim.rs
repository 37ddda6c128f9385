//! What an acquirer asks for, and the votes that make it a fact anybody can check.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::quorum;
use super::resource::Resource;
use crate::encoding::{self, Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible};
use crate::ids::{DeviceId, GroupId};
use crate::signature;

const VOTE_CONTEXT: &[u8] = b"p2p-sync/lockvote/1\0";

/// A fencing token: of two locks on one thing, the later one has the greater. The least one is no lock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token {
    /// Which set of voters gave it.
    pub epoch: u64,
    /// Its number within the epoch, from 1.
    pub n: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

/// Random bytes that tell two claims of one holder apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 16]);

/// A device wants these resources for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Under which token.
    pub token: Token,
    /// Who.
    pub holder: DeviceId,
    /// Which of its claims.
    pub nonce: Nonce,
    /// How long a voter keeps it without a renewal.
    pub ttl: Duration,
    /// Whether it is to last until it is released or broken, once the ledger shows it.
    pub durable: bool,
    /// What, in order, each once.
    pub resources: Vec<Resource>,
}

impl Claim {
    /// Resources one claim may name: as many as a batch of changed files that is locked at once.
    pub const MAX_RESOURCES: usize = 64;
    /// Bytes that their paths may have together.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// The longest time to live: how long a device that is gone may hold up the others.
    pub const MAX_TTL: Duration = Duration::from_mins(5);

    /// Returns what tells it from all others.
    #[must_use]
    pub const fn id(&self) -> (DeviceId, Nonce) {
        (self.holder, self.nonce)
    }

    /// Says whether somebody else's claim cannot stand beside this one.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.id() != other.id()
            && self
                .resources
                .iter()
                .any(|one| other.resources.iter().any(|two| one.overlaps(two)))
    }

    /// Says whether it keeps to the limits.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let bytes: usize = self.resources.iter().map(|r| r.path().as_bytes().len() + 1).sum();
        (1..=Self::MAX_RESOURCES).contains(&self.resources.len())
            && bytes <= Self::MAX_BYTES
            && self.resources.is_sorted_by(|a, b| a < b)
            && self.token.n > 0
            && !self.ttl.is_zero()
            && self.ttl <= Self::MAX_TTL
    }

    /// Returns what a voter signs: a context, the group, and CBOR `[epoch uint, n uint, holder bstr32, nonce bstr16,
    /// ttl_ms uint, durable bool, resources [bstr …]]`.
    #[must_use]
    pub fn vote_message(&self, group: &GroupId) -> Vec<u8> {
        let fields = encoding::to_vec(|e| self.write(e));
        [VOTE_CONTEXT, group.as_bytes(), &fields].concat()
    }

    /// Returns it as CBOR, as in [`Self::vote_message`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| self.write(e))
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ShapeError`] if it is anything else, or the claim breaks a limit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShapeError> {
        encoding::check(bytes).map_err(|_| ShapeError::new())?;
        Self::read(&mut Decoder::new(bytes))
    }

    pub(super) fn read(d: &mut Decoder<'_>) -> Result<Self, ShapeError> {
        array_of(d, 7)?;
        let token = Token {
            epoch: d.u64()?,
            n: d.u64()?,
        };
        let (holder, nonce) = (DeviceId::new(bytes_of(d)?), Nonce(bytes_of(d)?));
        let (ttl, durable) = (Duration::from_millis(d.u64()?), d.bool()?);
        let len = array_len(d)?;
        if len > Self::MAX_RESOURCES as u64 {
            return Err(ShapeError::new());
        }
        let resource = |d: &mut Decoder<'_>| Resource::parse(d.bytes()?).map_err(|_| ShapeError::new());
        let claim = Self {
            token,
            holder,
            nonce,
            ttl,
            durable,
            resources: (0..len).map(|_| resource(d)).collect::<Result<_, _>>()?,
        };
        if claim.is_well_formed() {
            Ok(claim)
        } else {
            Err(ShapeError::new())
        }
    }

    pub(super) fn write(&self, e: &mut Encoder<'_>) {
        infallible(e.array(7));
        infallible(e.u64(self.token.epoch));
        infallible(e.u64(self.token.n));
        infallible(e.bytes(self.holder.as_bytes()));
        infallible(e.bytes(&self.nonce.0));
        infallible(e.u64(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX)));
        infallible(e.bool(self.durable));
        infallible(e.array(self.resources.len() as u64));
        for resource in &self.resources {
            infallible(e.bytes(&resource.to_bytes()));
        }
    }
}

/// A voter's word that it keeps a claim's resources for its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Whose.
    pub voter: DeviceId,
    /// Its signature over [`Claim::vote_message`].
    pub sig: [u8; 64],
}

impl Vote {
    /// Signs a claim.
    #[must_use]
    pub fn sign(key: &SigningKey, group: &GroupId, claim: &Claim) -> Self {
        Self {
            voter: DeviceId::new(key.verifying_key().to_bytes()),
            sig: signature::sign(key, &claim.vote_message(group)),
        }
    }

    /// Says whether it is a vote for this very claim.
    #[must_use]
    pub fn holds(&self, group: &GroupId, claim: &Claim) -> bool {
        signature::holds(self.voter.as_bytes(), &self.sig, &claim.vote_message(group))
    }
}

/// A claim with the votes of a majority: nobody else had these resources when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What was asked for.
    pub claim: Claim,
    /// Who granted it.
    pub votes: Vec<Vote>,
}

/// Why a claim with votes proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The claim breaks a limit.
    #[error("The claim breaks a limit")]
    Claim,
    /// A vote is by a device that is no voter of the epoch, or by one that has voted already.
    #[error("A vote is not by a voter of its epoch, or is its second")]
    Voter,
    /// A signature is not over this claim.
    #[error("A vote is not for this claim")]
    Signature,
    /// There are fewer votes than a majority.
    #[error("The votes are no majority")]
    Quorum,
}

impl Certificate {
    /// Checks the votes against the voters of the claim's epoch.
    ///
    /// # Errors
    /// One of [`CertificateError`].
    pub fn check(&self, group: &GroupId, voters: &[DeviceId]) -> Result<(), CertificateError> {
        if !self.claim.is_well_formed() {
            return Err(CertificateError::Claim);
        }
        let mut voted = BTreeSet::new();
        for vote in &self.votes {
            if !voters.contains(&vote.voter) || !voted.insert(vote.voter) {
                return Err(CertificateError::Voter);
            }
            if !vote.holds(group, &self.claim) {
                return Err(CertificateError::Signature);
            }
        }
        if voted.len() < quorum(voters.len()) {
            return Err(CertificateError::Quorum);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new([9; 32]);

    fn keys() -> Vec<SigningKey> {
        (1..=4).map(|seed| signature::key_pair(&[seed; 32])).collect()
    }

    fn device(key: &SigningKey) -> DeviceId {
        DeviceId::new(key.verifying_key().to_bytes())
    }

    fn claim() -> Claim {
        Claim {
            token: Token { epoch: 1, n: 57 },
            holder: DeviceId::new([7; 32]),
            nonce: Nonce([3; 16]),
            ttl: Duration::from_secs(60),
            durable: false,
            resources: vec![Resource::parse(b"docs/plan.odt").unwrap()],
        }
    }

    fn certificate(votes: &[usize]) -> Certificate {
        let claim = claim();
        let votes = votes.iter().map(|at| Vote::sign(&keys()[*at], &GROUP, &claim));
        Certificate {
            votes: votes.collect(),
            claim,
        }
    }

    fn voters() -> Vec<DeviceId> {
        keys()[..3].iter().map(device).collect()
    }

    #[test]
    fn a_majority_of_the_epochs_voters_makes_a_certificate() {
        assert_eq!(certificate(&[0, 2]).check(&GROUP, &voters()), Ok(()));
        assert_eq!(certificate(&[0, 1, 2]).check(&GROUP, &voters()), Ok(()));
    }

    #[test]
    fn fewer_foreign_or_repeated_votes_make_none() {
        use CertificateError::{Quorum, Voter};
        assert_eq!(certificate(&[0]).check(&GROUP, &voters()), Err(Quorum));
        assert_eq!(certificate(&[0, 0]).check(&GROUP, &voters()), Err(Voter));
        assert_eq!(certificate(&[0, 3]).check(&GROUP, &voters()), Err(Voter));
    }

    #[test]
    fn votes_hold_for_every_field_of_their_claim_and_their_group_only() {
        let other = |change: fn(&mut Claim)| {
            let mut forged = certificate(&[0, 1]);
            change(&mut forged.claim);
            forged.check(&GROUP, &voters())
        };
        let changes: [fn(&mut Claim); 7] = [
            |claim| claim.token.epoch += 1,
            |claim| claim.token.n += 1,
            |claim| claim.holder = DeviceId::new([8; 32]),
            |claim| claim.nonce = Nonce([4; 16]),
            |claim| claim.ttl *= 2,
            |claim| claim.durable = true,
            |claim| claim.resources = vec![Resource::parse(b"docs/").unwrap()],
        ];
        for change in changes {
            assert_eq!(other(change), Err(CertificateError::Signature));
        }
        let replayed = certificate(&[0, 1]).check(&GroupId::new([8; 32]), &voters());
        assert_eq!(replayed, Err(CertificateError::Signature));
    }

    #[test]
    fn a_claim_keeps_to_its_limits() {
        let with = |change: fn(&mut Claim)| {
            let mut claim = claim();
            change(&mut claim);
            claim.is_well_formed()
        };
        assert!(with(|_| ()));
        assert!(!with(|claim| claim.resources.clear()));
        assert!(!with(|claim| claim.resources.push(claim.resources[0].clone())));
        assert!(!with(|claim| claim.ttl = Duration::ZERO));
        assert!(!with(
            |claim| claim.ttl = Claim::MAX_TTL + Duration::from_millis(1)
        ));
        assert!(!with(|claim| claim.token.n = 0));
        assert!(!with(|claim| {
            let names = (0..=Claim::MAX_RESOURCES).map(|i| format!("{i:03}"));
            claim.resources = names.map(|n| Resource::parse(n.as_bytes()).unwrap()).collect();
        }));
        assert!(!with(|claim| {
            let dir = ["d".repeat(255).as_str(); 15].join("/");
            let names = (0..20).map(|i| format!("{dir}/{i:02}"));
            claim.resources = names.map(|n| Resource::parse(n.as_bytes()).unwrap()).collect();
        }));
    }

    #[test]
    fn a_claim_is_read_back_and_one_beyond_the_limits_is_not() {
        let claim = claim();
        assert_eq!(Claim::from_bytes(&claim.to_bytes()).ok(), Some(claim.clone()));
        let long = Claim {
            ttl: Claim::MAX_TTL * 2,
            ..claim.clone()
        };
        let empty = Claim {
            resources: Vec::new(),
            ..claim
        };
        assert!(Claim::from_bytes(&long.to_bytes()).is_err());
        assert!(Claim::from_bytes(&empty.to_bytes()).is_err());
    }

    #[test]
    fn the_signed_bytes_do_not_change() {
        let message = claim().vote_message(&GROUP);
        let fields = &message[VOTE_CONTEXT.len() + GroupId::LEN..];
        let holder = "07".repeat(32);
        let nonce = "03".repeat(16);
        let expect = format!("870118395820{holder}50{nonce}19ea60f4814d646f63732f706c616e2e6f6474");
        assert_eq!(data_encoding::HEXLOWER.encode(fields), expect);
        assert!(encoding::check(fields).is_ok());
    }
}
