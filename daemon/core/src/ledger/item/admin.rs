//! The items of admin events: who is in the group, and what each may do.

use super::{
    TAG_CANCEL, TAG_GENESIS, TAG_GRANT, TAG_INVITE, TAG_NAME, TAG_PERSON, TAG_REVOKE, header, read_path,
};
use crate::access::{GrantFlags, Role, Scopes};
use crate::encoding::{Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional};
use crate::ids::DeviceId;
use crate::ledger::person::Person;

/// Bytes a name for people may have.
pub(crate) const MAX_NAME: usize = 256;
/// Bytes a reason may have.
pub(crate) const MAX_REASON: usize = 1024;
/// Branches of a log that one Revoke may keep.
pub(crate) const MAX_KEPT_HEADS: u64 = 8;

/// The start of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// The group's name, for people.
    pub name: String,
    /// The Ed25519 public key of the recovery key, senior to every owner.
    pub recovery: [u8; 32],
}

/// A device's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub device: DeviceId,
    /// As what.
    pub role: Role,
    /// The device's name, for people.
    pub name: String,
    /// By whose power.
    pub via: GrantVia,
    /// Where it may write.
    pub scopes: Scopes,
    /// What else it may do.
    pub flags: GrantFlags,
    /// Whose device it is; `None`: it does not say. Of one that redeems an invite it counts if the invite says it, too.
    pub person: Option<Person>,
}

/// By whose power a Grant is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantVia {
    /// Its author's own.
    Author,
    /// An invite's.
    Invite {
        /// The invite's public key.
        key: [u8; 32],
        /// Signature by the invite's key over the group and the device.
        sig: [u8; 64],
    },
}

/// An invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The public key of the ticket's secret.
    pub key: [u8; 32],
    /// The role it gives; never owner.
    pub role: Role,
    /// When it ends, milliseconds since 1970. Checked by whoever admits, not by the fold.
    pub expires_ms: Option<u64>,
    /// How often it may be redeemed. Checked by whoever admits, not by the fold.
    pub max_uses: u32,
    /// Where it lets a device write.
    pub scopes: Scopes,
    /// Whose device it lets in; `None`: it does not say.
    pub person: Option<Person>,
}

/// The end of a device's grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// Whose.
    pub device: DeviceId,
    /// What of the device's log goes on to count.
    pub keep: Keep,
    /// Why, for people.
    pub reason: String,
}

/// What of a revoked device's log goes on to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Everything until the device had seen the Revoke.
    UntilSeen,
    /// These prefixes, one for each branch; none: nothing.
    Heads(Vec<LogHead>),
}

/// A log up to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogHead {
    /// How many events.
    pub size: u64,
    /// The RFC 6962 tree head over their ids.
    pub root: [u8; 32],
}

pub(super) fn write_genesis(e: &mut Encoder<'_>, genesis: &Genesis) {
    header(e, TAG_GENESIS, 2);
    infallible(e.str(&genesis.name));
    infallible(e.bytes(&genesis.recovery));
}

pub(super) fn read_genesis(d: &mut Decoder<'_>) -> Result<Genesis, ShapeError> {
    Ok(Genesis {
        name: read_name(d)?,
        recovery: bytes_of(d)?,
    })
}

pub(super) fn write_grant(e: &mut Encoder<'_>, grant: &Grant) {
    header(e, TAG_GRANT, 6 + u64::from(grant.person.is_some()));
    infallible(e.bytes(grant.device.as_bytes()));
    infallible(e.u8(grant.role.code()));
    infallible(e.str(&grant.name));
    match &grant.via {
        GrantVia::Author => infallible(e.null()),
        GrantVia::Invite { key, sig } => {
            infallible(e.array(2));
            infallible(e.bytes(key));
            infallible(e.bytes(sig));
        }
    }
    write_scopes(e, &grant.scopes);
    infallible(e.u8(grant.flags.bits()));
    if let Some(person) = &grant.person {
        infallible(e.str(person.as_str()));
    }
}

pub(super) fn read_grant(d: &mut Decoder<'_>, is_tagged: bool) -> Result<Grant, ShapeError> {
    Ok(Grant {
        device: DeviceId::new(bytes_of(d)?),
        role: read_role(d)?,
        name: read_name(d)?,
        via: optional(d, read_via)?.unwrap_or(GrantVia::Author),
        scopes: read_scopes(d)?,
        flags: GrantFlags::from_bits(d.u8()?).ok_or(ShapeError::new())?,
        person: is_tagged.then(|| read_person(d)).transpose()?,
    })
}

pub(super) fn write_invite(e: &mut Encoder<'_>, invite: &Invite) {
    header(e, TAG_INVITE, 5 + u64::from(invite.person.is_some()));
    infallible(e.bytes(&invite.key));
    infallible(e.u8(invite.role.code()));
    match invite.expires_ms {
        Some(ms) => infallible(e.u64(ms)),
        None => infallible(e.null()),
    }
    infallible(e.u32(invite.max_uses));
    write_scopes(e, &invite.scopes);
    if let Some(person) = &invite.person {
        infallible(e.str(person.as_str()));
    }
}

pub(super) fn read_invite(d: &mut Decoder<'_>, is_tagged: bool) -> Result<Invite, ShapeError> {
    Ok(Invite {
        key: bytes_of(d)?,
        role: read_role(d)?,
        expires_ms: optional(d, |d| Ok(d.u64()?))?,
        max_uses: d.u32()?,
        scopes: read_scopes(d)?,
        person: is_tagged.then(|| read_person(d)).transpose()?,
    })
}

pub(super) fn write_revoke(e: &mut Encoder<'_>, revoke: &Revoke) {
    header(e, TAG_REVOKE, 3);
    infallible(e.bytes(revoke.device.as_bytes()));
    match &revoke.keep {
        Keep::UntilSeen => infallible(e.null()),
        Keep::Heads(heads) => {
            infallible(e.array(heads.len() as u64));
            for head in heads {
                infallible(e.array(2));
                write_head(e, head);
            }
        }
    }
    infallible(e.str(&revoke.reason));
}

pub(super) fn read_revoke(d: &mut Decoder<'_>) -> Result<Revoke, ShapeError> {
    Ok(Revoke {
        device: DeviceId::new(bytes_of(d)?),
        keep: optional(d, read_kept)?.unwrap_or(Keep::UntilSeen),
        reason: read_text(d, MAX_REASON)?,
    })
}

pub(super) fn write_cancel(e: &mut Encoder<'_>, key: &[u8; 32]) {
    header(e, TAG_CANCEL, 1);
    infallible(e.bytes(key));
}

pub(super) fn write_name(e: &mut Encoder<'_>, name: &str) {
    header(e, TAG_NAME, 1);
    infallible(e.str(name));
}

pub(super) fn read_name(d: &mut Decoder<'_>) -> Result<String, ShapeError> {
    read_text(d, MAX_NAME)
}

pub(super) fn write_person(e: &mut Encoder<'_>, device: &DeviceId, person: Option<&Person>) {
    header(e, TAG_PERSON, 2);
    infallible(e.bytes(device.as_bytes()));
    match person {
        Some(person) => infallible(e.str(person.as_str())),
        None => infallible(e.null()),
    }
}

pub(super) fn read_person(d: &mut Decoder<'_>) -> Result<Person, ShapeError> {
    Person::parse(d.str()?).map_err(|_| ShapeError::new())
}

fn write_head(e: &mut Encoder<'_>, head: &LogHead) {
    infallible(e.u64(head.size));
    infallible(e.bytes(&head.root));
}

fn read_head(d: &mut Decoder<'_>) -> Result<LogHead, ShapeError> {
    let (size, root) = (d.u64()?, bytes_of(d)?);
    if size == 0 {
        return Err(ShapeError::new());
    }
    Ok(LogHead { size, root })
}

fn read_kept(d: &mut Decoder<'_>) -> Result<Keep, ShapeError> {
    let len = array_len(d)?;
    if len > MAX_KEPT_HEADS {
        return Err(ShapeError::new());
    }
    let heads = (0..len).map(|_| {
        array_of(d, 2)?;
        read_head(d)
    });
    Ok(Keep::Heads(heads.collect::<Result<_, _>>()?))
}

fn write_scopes(e: &mut Encoder<'_>, scopes: &Scopes) {
    infallible(e.array(scopes.paths().len() as u64));
    for path in scopes.paths() {
        infallible(e.bytes(path.as_bytes()));
    }
}

fn read_scopes(d: &mut Decoder<'_>) -> Result<Scopes, ShapeError> {
    let len = array_len(d)?;
    if len > Scopes::MAX as u64 {
        return Err(ShapeError::new());
    }
    let paths = (0..len).map(|_| read_path(d)).collect::<Result<_, _>>()?;
    Scopes::from_sorted(paths).map_err(|_| ShapeError::new())
}

fn read_via(d: &mut Decoder<'_>) -> Result<GrantVia, ShapeError> {
    array_of(d, 2)?;
    Ok(GrantVia::Invite {
        key: bytes_of(d)?,
        sig: bytes_of(d)?,
    })
}

fn read_role(d: &mut Decoder<'_>) -> Result<Role, ShapeError> {
    Role::from_code(d.u64()?).ok_or(ShapeError::new())
}

pub(super) fn read_text(d: &mut Decoder<'_>, max: usize) -> Result<String, ShapeError> {
    let text = d.str()?;
    if text.len() > max {
        Err(ShapeError::new())
    } else {
        Ok(text.to_owned())
    }
}
