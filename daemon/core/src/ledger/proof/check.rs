//! Checking a proof, with nothing but its bytes and the group's id.

use super::wire::{Committed, Link, Newest, Past, Power, Proof, Signed, Witness};
use super::{Member, ProofError, Sighting, Statement, Step};
use crate::access::{GrantFlags, Role, Scopes, level};
use crate::encoding;
use crate::ids::{DeviceId, Dot, EventId, GroupId};
use crate::ledger::event::{EventKind, Header, ItemProof, Seen};
use crate::ledger::grant_message;
use crate::ledger::item::{Grant, GrantVia, Item, Put};
use crate::merkle::{self, Hash};
use crate::signature;

/// Checks a proof file. `genesis` is the group's id, which the reader must have from a source of its own trust.
///
/// # Errors
/// One of [`ProofError`]; then nothing is proven.
pub fn check(bytes: &[u8], genesis: GroupId) -> Result<Statement, ProofError> {
    let proof = Proof::from_bytes(bytes)?;
    let mut chain = Chain::new(genesis);
    for link in &proof.links {
        chain.add(link)?;
    }
    let shown = chain.link(&proof.shown)?;
    let log_size = match &proof.newest {
        Some(newest) => chain.newest(newest, &shown)?,
        None => shown.header.seq.saturating_add(1),
    };
    let seen_by: Vec<Sighting> = proof
        .witnesses
        .iter()
        .map(|witness| chain.witness(witness, &shown))
        .collect::<Result<_, _>>()?;
    let in_order = |pair: &[Sighting]| pair[0].member.device < pair[1].member.device;
    if !seen_by.windows(2).all(in_order) || chain.links.iter().any(|link| !link.used) {
        return Err(ProofError::Unused);
    }
    Ok(Statement {
        group: genesis,
        event: shown.id,
        dot: Dot {
            device: shown.header.author.short(),
            seq: shown.header.seq,
            item: shown.index,
        },
        hlc: shown.header.hlc,
        wall_ms: shown.header.wall_ms,
        author: shown.by,
        item: shown.item,
        log_size,
        chain: chain.links.into_iter().map(Done::into_step).collect(),
        seen_by,
    })
}

/// The links that were found good.
#[derive(Debug)]
pub(super) struct Chain {
    group: GroupId,
    pub(super) links: Vec<Done>,
}

/// A link that was found good.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) header: Header,
    pub(super) id: EventId,
    pub(super) index: u32,
    pub(super) item: Item,
    by: Member,
    used: bool,
}

/// A signed header, and what its author may do.
struct Speaker {
    header: Header,
    id: EventId,
    by: Member,
}

impl Chain {
    pub(super) const fn new(group: GroupId) -> Self {
        Self {
            group,
            links: Vec::new(),
        }
    }

    /// Checks a link and takes it up.
    pub(super) fn add(&mut self, link: &Link) -> Result<(), ProofError> {
        let done = self.link(link)?;
        if !matches!(done.item, Item::Genesis(_) | Item::Grant(_) | Item::Invite(_)) {
            return Err(ProofError::Unused);
        }
        self.links.push(done);
        Ok(())
    }

    /// Checks a link: that its author signed it and was allowed to.
    pub(super) fn link(&mut self, link: &Link) -> Result<Done, ProofError> {
        let speaker = self.speaker(&link.signed, Some(link.index))?;
        encoding::check(&link.item)?;
        let proof = ItemProof {
            salt: link.salt,
            item: link.item.clone(),
            path: link.path.clone(),
        };
        if !proof.holds(link.index, &speaker.header) {
            return Err(ProofError::Item);
        }
        let item = Item::from_bytes(&link.item)?;
        let Speaker { header, id, by } = speaker;
        let invite = link.invite.as_ref();
        let founding = header.kind == EventKind::Genesis;
        let admin = founding || header.kind == EventKind::Admin;
        let allowed = match &item {
            Item::Grant(grant) if admin => self.may_grant(grant, &by, invite, (&header, id, link.index))?,
            _ if invite.is_some() => return Err(ProofError::Unused),
            Item::Genesis(_) => founding,
            Item::Invite(invite) if admin => {
                invite.role != Role::Owner
                    && by.role.may_give(invite.role)
                    && invite.scopes.within(&by.scopes)
            }
            Item::Revoke(_) | Item::Cancel { .. } | Item::Person { .. } if admin => by.role >= Role::Admin,
            Item::Name(_) => admin,
            Item::Put(Put { path, .. }) | Item::Del { path, .. } | Item::Discard { path, .. } => {
                header.kind == EventKind::Work && by.role.may_write() && by.scopes.covers(path)
            }
            _ => false,
        };
        if !allowed {
            return Err(ProofError::Role);
        }
        Ok(Done {
            header,
            id,
            index: link.index,
            item,
            by,
            used: false,
        })
    }

    fn may_grant(
        &mut self,
        grant: &Grant,
        by: &Member,
        invite: Option<&Power>,
        at: (&Header, EventId, u32),
    ) -> Result<bool, ProofError> {
        let (key, sig) = match (&grant.via, invite) {
            (GrantVia::Author, None) => return Ok(may_give(by, grant)),
            (GrantVia::Invite { key, sig }, Some(_)) => (key, sig),
            _ => return Err(ProofError::Power),
        };
        let message = grant_message(&self.group, &grant.device);
        let redeemed = self.reach(invite, (at.0, at.1, Some(at.2)))?;
        let given = matches!(&redeemed.item, Item::Invite(invite) if invite.key == *key
            && grant.role <= invite.role && grant.scopes.within(&invite.scopes));
        let redeemer = (level(by.role) <= 1 || by.flags.admit) && level(by.role) <= level(grant.role);
        let plain = grant.flags == GrantFlags::default();
        Ok(given && redeemer && plain && signature::holds(key, sig, &message))
    }

    /// Checks a signature, and finds out what its author may do.
    fn speaker(&mut self, signed: &Signed, index: Option<u32>) -> Result<Speaker, ProofError> {
        let header = Header::from_bytes(&signed.header)?;
        let id = EventId::new(merkle::leaf_hash(&signed.header));
        let founding = header.kind == EventKind::Genesis;
        if founding && id.as_group() != self.group {
            return Err(ProofError::OtherGroup);
        }
        if !header.is_signed(&signed.header, &signed.signature, &self.group) {
            return Err(ProofError::Signature);
        }
        let device = header.author;
        let by = if founding && signed.power.is_none() {
            owner(device)
        } else if founding {
            return Err(ProofError::Unused);
        } else {
            let link = self.reach(signed.power.as_ref(), (&header, id, index))?;
            granted(link, device).ok_or(ProofError::Power)?
        };
        Ok(Speaker { header, id, by })
    }

    /// Finds the link that a power comes from, which must lie in the past of `at`.
    fn reach(
        &mut self,
        power: Option<&Power>,
        at: (&Header, EventId, Option<u32>),
    ) -> Result<&Done, ProofError> {
        let power = power.ok_or(ProofError::Power)?;
        let number = usize::try_from(power.link).map_err(|_| ProofError::Power)?;
        let link = self.links.get_mut(number).ok_or(ProofError::Power)?;
        if !is_past(&power.past, at, link) {
            return Err(ProofError::Past);
        }
        link.used = true;
        Ok(link)
    }

    /// Checks the author's newest header; returns the size of its log.
    fn newest(&self, newest: &Newest, shown: &Done) -> Result<u64, ProofError> {
        let header = Header::from_bytes(&newest.header)?;
        if !header.is_signed(&newest.header, &newest.signature, &self.group) {
            return Err(ProofError::Signature);
        }
        if header.author != shown.header.author || !commits(&header, shown.id, shown.header.seq, &newest.path)
        {
            return Err(ProofError::Log);
        }
        Ok(header.seq.saturating_add(1))
    }

    fn witness(&mut self, witness: &Witness, shown: &Done) -> Result<Sighting, ProofError> {
        let speaker = self.speaker(&witness.signed, None)?;
        let Speaker { header, id, by } = speaker;
        let saw = saw(&header, (&shown.header, shown.id), witness.tip.as_ref());
        if by.device == shown.header.author || !saw {
            return Err(ProofError::Past);
        }
        Ok(Sighting {
            member: by,
            event: id,
            wall_ms: header.wall_ms,
        })
    }
}

impl Done {
    fn into_step(self) -> Step {
        Step {
            by: self.by,
            item: self.item,
            event: self.id,
            wall_ms: self.header.wall_ms,
        }
    }
}

/// Returns what a link makes of a device.
fn granted(link: &Done, device: DeviceId) -> Option<Member> {
    match &link.item {
        Item::Genesis(_) if link.header.author == device => Some(owner(device)),
        Item::Genesis(genesis) if genesis.recovery == *device.as_bytes() => Some(owner(device)),
        Item::Grant(grant) if grant.device == device => Some(Member {
            device,
            name: grant.name.clone(),
            role: grant.role,
            scopes: grant.scopes.clone(),
            flags: grant.flags,
        }),
        _ => None,
    }
}

/// Returns an owner by the Genesis event, which says no device's name.
fn owner(device: DeviceId) -> Member {
    Member {
        device,
        name: String::new(),
        role: Role::Owner,
        scopes: Scopes::whole(),
        flags: GrantFlags::default(),
    }
}

/// Says whether a member may make a Grant by its own power.
fn may_give(by: &Member, grant: &Grant) -> bool {
    let flags = by.role == Role::Owner || !(grant.flags.archive || grant.flags.voter);
    flags && by.role.may_give(grant.role) && grant.scopes.within(&by.scopes)
}

/// Says whether `past` shows that a link comes before an event, or before an item of it.
fn is_past(past: &Past, (header, id, index): (&Header, EventId, Option<u32>), link: &Done) -> bool {
    let own = link.header.author == header.author;
    match past {
        Past::Own(path) if own && link.id == id => {
            path.is_empty() && index.is_some_and(|index| link.index < index)
        }
        Past::Own(path) => own && commits(header, link.id, link.header.seq, path),
        Past::Other { sight, tip } => {
            let event = (&link.header, link.id);
            let saw = match sight {
                None => saw(header, event, tip.as_ref()),
                Some(sight) => earlier(header, sight).is_some_and(|own| saw(&own, event, tip.as_ref())),
            };
            !own && saw
        }
    }
}

/// Returns an earlier header of the same log, if it is one.
fn earlier(header: &Header, sight: &Committed) -> Option<Header> {
    let own = Header::from_bytes(&sight.header).ok()?;
    let id = EventId::new(merkle::leaf_hash(&sight.header));
    (own.author == header.author && commits(header, id, own.seq, &sight.path)).then_some(own)
}

/// Says whether `header` had seen an event of another device; `tip` is the newest that it had seen, if not that one.
///
/// The witness vouches for the id of the tip, the tip's `prev_root` for the event: the tip needs no signature.
fn saw(header: &Header, (event, id): (&Header, EventId), tip: Option<&Committed>) -> bool {
    let Some(seen) = covering(header, event) else {
        return false;
    };
    let Some(tip) = tip else {
        return seen.next_seq == event.seq.saturating_add(1) && seen.id16 == id.id16();
    };
    let Ok(newer) = Header::from_bytes(&tip.header) else {
        return false;
    };
    let tip_id = EventId::new(merkle::leaf_hash(&tip.header));
    newer.author == event.author
        && newer.seq.checked_add(1) == Some(seen.next_seq)
        && tip_id.id16() == seen.id16
        && commits(&newer, id, event.seq, &tip.path)
}

/// Returns the entry of `seen` that covers an event.
pub(super) fn covering<'a>(header: &'a Header, event: &Header) -> Option<&'a Seen> {
    let short = event.author.short();
    let mut seen = header.seen.iter();
    seen.find(|seen| seen.device == short && seen.next_seq > event.seq)
}

/// Says whether a header's log has this event at this place before it.
fn commits(header: &Header, id: EventId, seq: u64, path: &[Hash]) -> bool {
    merkle::verify_inclusion(id.as_bytes(), seq, header.seq, path, &header.prev_root)
}
