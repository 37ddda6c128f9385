//! Making a proof from a ledger. Every link is checked as a reader of the file will check it.

use std::cmp::Reverse;

use super::check::{Chain, check, covering};
use super::wire::{Committed, Link, Newest, Past, Power, Proof, Signed, Witness};
use super::{MAX_LINKS, MAX_PROOF, MAX_WITNESSES, ProofError};
use crate::access::Role;
use crate::ids::{DeviceId, EventId, GroupId, ShortId};
use crate::ledger::event::{EventKind, Header, SignedEvent};
use crate::ledger::item::{GrantVia, Item};
use crate::merkle::{Hash, InclusionPath, leaf_hash};

/// Witnesses are added while the proof stays within this many bytes.
const ROOM_FOR_WITNESSES: usize = 6 << 10;
/// Grants that are tried before no way to a role is believed to exist.
const MAX_TRIES: u32 = 256;

/// A ledger to make a proof from. Its events were checked before they were stored.
pub trait Source {
    /// Why it could not be read.
    type Error;

    /// Returns an event.
    ///
    /// # Errors
    /// As all methods: the source cannot be read.
    fn event(&self, author: ShortId, seq: u64) -> Result<Option<SignedEvent>, Self::Error>;

    /// Returns the last event of a log.
    ///
    /// # Errors
    /// The source cannot be read.
    fn newest(&self, author: ShortId) -> Result<Option<SignedEvent>, Self::Error>;

    /// Passes the ids of the first `size` events of a log on, in order.
    ///
    /// # Errors
    /// The source cannot be read.
    fn ids(&self, author: ShortId, size: u64, each: &mut dyn FnMut(EventId)) -> Result<(), Self::Error>;

    /// Returns how many events all branches of a log share; `None`: it has not forked.
    ///
    /// # Errors
    /// The source cannot be read.
    fn shared(&self, author: ShortId) -> Result<Option<u64>, Self::Error>;

    /// Returns all Genesis and Admin events, in the order in which they arrived.
    ///
    /// # Errors
    /// The source cannot be read.
    fn admin_events(&self) -> Result<Vec<SignedEvent>, Self::Error>;

    /// Returns an event of `by`, below `below`, whose own `seen` covers event `seq` of `of`; the earlier the better.
    ///
    /// # Errors
    /// The source cannot be read.
    fn first_sight(
        &self,
        by: ShortId,
        of: ShortId,
        seq: u64,
        below: u64,
    ) -> Result<Option<SignedEvent>, Self::Error>;

    /// Returns events of other devices whose own `seen` covers event `seq` of `of`, one of each device.
    ///
    /// # Errors
    /// The source cannot be read.
    fn sights(&self, of: ShortId, seq: u64) -> Result<Vec<SignedEvent>, Self::Error>;
}

/// Why no proof could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError<E> {
    /// The ledger cannot be read.
    #[error("The ledger cannot be read")]
    Source(E),
    /// There is no such item.
    #[error("There is no such item in the ledger")]
    NoSuchItem,
    /// The item is void: its author's role did not allow it then, as far as the ledger shows.
    #[error("The author's role did not allow this, or the ledger does not show it")]
    NotAllowed,
    /// A device whose log forked made the item, or what shows its author's role, after that: others cannot be shown which
    /// branch is meant.
    #[error("The log of {0} has forked, and what comes after that cannot be proven")]
    Forked(DeviceId),
    /// What was made does not check: the ledger is damaged.
    #[error("The ledger does not prove its own event; check it: syncctl ledger verify --full")]
    Damaged(#[source] ProofError),
}

/// Makes a proof of item `index` of event `seq` of `author`.
///
/// # Errors
/// One of [`MakeError`].
pub fn make<S: Source>(
    source: &S,
    group: GroupId,
    author: ShortId,
    seq: u64,
    index: u32,
) -> Result<Vec<u8>, MakeError<S::Error>> {
    let event = source.event(author, seq).map_err(MakeError::Source)?;
    let event = event.as_ref().and_then(At::read).ok_or(MakeError::NoSuchItem)?;
    if event.signed.item_proof(index).is_none() {
        return Err(MakeError::NoSuchItem);
    }
    let admin = source.admin_events().map_err(MakeError::Source)?;
    let mut maker = Maker {
        source,
        admin: admin.iter().filter_map(At::read).collect(),
        chain: Chain::new(group),
        links: Vec::new(),
        tries: MAX_TRIES,
    };
    let shown = maker.link(&event, index)?.ok_or(MakeError::NotAllowed)?;
    match maker.chain.link(&shown) {
        Ok(_) => {}
        Err(ProofError::Role) => return Err(MakeError::NotAllowed),
        Err(error) => return Err(MakeError::Damaged(error)),
    }
    maker.check_unforked(&event)?;
    let newest = maker.newest(&event)?;
    let proof = Proof {
        links: std::mem::take(&mut maker.links),
        shown,
        newest,
        witnesses: Vec::new(),
    };
    let bytes = maker.with_witnesses(proof, &event)?.to_bytes();
    if bytes.len() > MAX_PROOF {
        return Err(MakeError::Damaged(ProofError::TooLarge));
    }
    check(&bytes, group).map_err(MakeError::Damaged)?;
    Ok(bytes)
}

/// An event and its header.
struct At {
    signed: SignedEvent,
    header: Header,
    id: EventId,
    items: Vec<Item>,
}

impl At {
    fn read(signed: &SignedEvent) -> Option<Self> {
        let read = signed.read_stored().ok()?;
        Some(Self {
            signed: signed.clone(),
            header: read.header,
            id: read.id,
            items: read.body.items,
        })
    }

    fn author(&self) -> ShortId {
        self.header.author.short()
    }
}

struct Maker<'a, S> {
    source: &'a S,
    admin: Vec<At>,
    chain: Chain,
    links: Vec<Link>,
    tries: u32,
}

type Made<T, S> = Result<Option<T>, MakeError<<S as Source>::Error>>;

impl<S: Source> Maker<'_, S> {
    /// Checks that all that is shown comes before any fork of its log.
    fn check_unforked(&self, event: &At) -> Result<(), MakeError<S::Error>> {
        let links = self
            .links
            .iter()
            .filter_map(|link| Header::from_bytes(&link.signed.header).ok());
        for header in links.chain([event.header.clone()]) {
            let shared = self
                .source
                .shared(header.author.short())
                .map_err(MakeError::Source)?;
            if shared.is_some_and(|shared| header.seq >= shared) {
                return Err(MakeError::Forked(header.author));
            }
        }
        Ok(())
    }

    /// Returns an item with all that shows its author's role; `None` if nothing does.
    fn link(&mut self, event: &At, index: u32) -> Made<Link, S> {
        let Some(proof) = event.signed.item_proof(index) else {
            return Ok(None);
        };
        let Some(signed) = self.signed(event, Some(index))? else {
            return Ok(None);
        };
        let invite = match event.items.get(index as usize) {
            Some(Item::Grant(grant)) => match &grant.via {
                GrantVia::Invite { key, .. } => {
                    let Some(power) = self.invite(event, index, key)? else {
                        return Ok(None);
                    };
                    Some(power)
                }
                GrantVia::Author => None,
            },
            _ => None,
        };
        Ok(Some(Link {
            signed,
            index,
            salt: proof.salt,
            item: proof.item,
            path: proof.path,
            invite,
        }))
    }

    fn signed(&mut self, event: &At, index: Option<u32>) -> Made<Signed, S> {
        let power = if event.header.kind == EventKind::Genesis {
            None
        } else {
            let Some(power) = self.power(event, index)? else {
                return Ok(None);
            };
            Some(power)
        };
        Ok(Some(Signed {
            header: event.signed.header.to_vec(),
            signature: event.signed.signature,
            power,
        }))
    }

    /// Finds what made the author of an event a member, the strongest first.
    fn power(&mut self, event: &At, index: Option<u32>) -> Made<Power, S> {
        let device = event.header.author;
        let mut grants: Vec<(Reverse<Role>, bool, usize, u32)> = Vec::new();
        for (number, at) in self.admin.iter().enumerate() {
            for (i, item) in (0..).zip(&at.items) {
                if let Some((role, bare)) = gives(item, at, device) {
                    grants.push((Reverse(role), bare, number, i));
                }
            }
        }
        grants.sort();
        let places = grants.into_iter().map(|(_, _, number, i)| (number, i));
        self.through_any(event, index, places.collect())
    }

    fn invite(&mut self, event: &At, index: u32, key: &[u8; 32]) -> Made<Power, S> {
        let mut places = Vec::new();
        for (number, at) in self.admin.iter().enumerate() {
            for (i, item) in (0..).zip(&at.items) {
                if matches!(item, Item::Invite(invite) if invite.key == *key) {
                    places.push((number, i));
                }
            }
        }
        self.through_any(event, Some(index), places)
    }

    /// Returns the first of these admin items that counts and lies in the event's past.
    fn through_any(&mut self, event: &At, index: Option<u32>, places: Vec<(usize, u32)>) -> Made<Power, S> {
        for place in places {
            let mark = self.links.len();
            if self.tries == 0 {
                break;
            }
            self.tries -= 1;
            if let Some(power) = self.through(event, index, place)? {
                return Ok(Some(power));
            }
            self.forget_after(mark);
        }
        Ok(None)
    }

    fn through(&mut self, event: &At, index: Option<u32>, (number, i): (usize, u32)) -> Made<Power, S> {
        let Some(past) = self.past((event, index), (&self.admin[number], i))? else {
            return Ok(None);
        };
        let id = self.admin[number].id;
        let known = self.chain.links.iter();
        let known = known.clone().position(|done| (done.id, done.index) == (id, i));
        let link = match known {
            Some(link) => link,
            None => {
                let at = At::read(&self.admin[number].signed).ok_or(MakeError::NoSuchItem)?;
                let Some(link) = self.link(&at, i)? else {
                    return Ok(None);
                };
                if self.links.len() >= MAX_LINKS || self.chain.add(&link).is_err() {
                    return Ok(None);
                }
                self.links.push(link);
                self.links.len() - 1
            }
        };
        let link = u32::try_from(link).unwrap_or(u32::MAX);
        Ok(Some(Power { link, past }))
    }

    fn forget_after(&mut self, mark: usize) {
        self.links.truncate(mark);
        self.chain.links.truncate(mark);
    }

    /// Returns what shows that `before` lies in the past of `event`; `None` if it does not.
    fn past(&self, (event, index): (&At, Option<u32>), (before, item): (&At, u32)) -> Made<Past, S> {
        if before.header.author == event.header.author {
            if before.id == event.id {
                return Ok(index
                    .is_some_and(|index| item < index)
                    .then(|| Past::Own(Vec::new())));
            }
            let path = self.path(event.author(), before.header.seq, event.header.seq)?;
            return Ok(path.map(Past::Own));
        }
        let (by, of, seq) = (event.author(), before.author(), before.header.seq);
        let (sight, seen) = if let Some(seen) = covering(&event.header, &before.header) {
            (None, *seen)
        } else {
            let first = self.source.first_sight(by, of, seq, event.header.seq);
            let Some(own) = first.map_err(MakeError::Source)?.as_ref().and_then(At::read) else {
                return Ok(None);
            };
            let Some(seen) = covering(&own.header, &before.header).copied() else {
                return Ok(None);
            };
            let Some(path) = self.path(by, own.header.seq, event.header.seq)? else {
                return Ok(None);
            };
            let header = own.signed.header.to_vec();
            (Some(Committed { header, path }), seen)
        };
        let tip = self.tip(before, seen.next_seq)?;
        Ok(tip.map(|tip| Past::Other { sight, tip }))
    }

    /// Returns the newest event that was seen, if it is not the event itself; the outer `None` if it is not there.
    fn tip(&self, event: &At, next_seq: u64) -> Made<Option<Committed>, S> {
        if next_seq == event.header.seq.saturating_add(1) {
            return Ok(Some(None));
        }
        let tip = self.source.event(event.author(), next_seq.saturating_sub(1));
        let Some(tip) = tip.map_err(MakeError::Source)? else {
            return Ok(None);
        };
        let path = self.path(event.author(), event.header.seq, next_seq.saturating_sub(1))?;
        let header = tip.header.to_vec();
        Ok(path.map(|path| Some(Committed { header, path })))
    }

    /// Returns the path of event `seq` in the tree over the first `size` events of a log.
    fn path(&self, author: ShortId, seq: u64, size: u64) -> Made<Vec<Hash>, S> {
        let Some(mut path) = InclusionPath::new(seq, size) else {
            return Ok(None);
        };
        let mut push = |id: EventId| path.push(*id.as_bytes());
        let read = self.source.ids(author, size, &mut push);
        read.map_err(MakeError::Source)?;
        Ok(path.finish())
    }

    fn newest(&self, event: &At) -> Made<Newest, S> {
        let newest = self.source.newest(event.author()).map_err(MakeError::Source)?;
        let Some(newest) = newest else { return Ok(None) };
        if EventId::new(leaf_hash(&newest.header)) == event.id {
            return Ok(None);
        }
        let Ok(header) = Header::from_bytes(&newest.header) else {
            return Ok(None);
        };
        let path = self.path(event.author(), event.header.seq, header.seq)?;
        Ok(path.map(|path| Newest {
            header: newest.header.to_vec(),
            signature: newest.signature,
            path,
        }))
    }

    /// Adds members who have seen the event, as long as there is room.
    fn with_witnesses(&mut self, mut proof: Proof, event: &At) -> Result<Proof, MakeError<S::Error>> {
        self.links = std::mem::take(&mut proof.links);
        let sights = self.source.sights(event.author(), event.header.seq);
        for sight in sights.map_err(MakeError::Source)?.iter().filter_map(At::read) {
            if proof.witnesses.len() >= MAX_WITNESSES || sight.header.author == event.header.author {
                continue;
            }
            let mark = self.links.len();
            let witness = self.witness(&sight, event)?;
            let added = witness.is_some();
            proof.witnesses.extend(witness);
            proof.links = self.links.clone();
            if !added || proof.to_bytes().len() > ROOM_FOR_WITNESSES {
                proof
                    .witnesses
                    .truncate(proof.witnesses.len() - usize::from(added));
                self.forget_after(mark);
            }
        }
        proof.links = std::mem::take(&mut self.links);
        let device = |witness: &Witness| Header::from_bytes(&witness.signed.header).map(|h| h.author).ok();
        proof.witnesses.sort_by_key(device);
        Ok(proof)
    }

    fn witness(&mut self, sight: &At, event: &At) -> Made<Witness, S> {
        let Some(seen) = covering(&sight.header, &event.header) else {
            return Ok(None);
        };
        let Some(tip) = self.tip(event, seen.next_seq)? else {
            return Ok(None);
        };
        let signed = self.signed(sight, None)?;
        Ok(signed.map(|signed| Witness { signed, tip }))
    }
}

/// Returns the role that an item gives to a device, and whether it is the Genesis item, which says no device's name.
fn gives(item: &Item, at: &At, device: DeviceId) -> Option<(Role, bool)> {
    match item {
        Item::Genesis(genesis) => {
            let recovery = genesis.recovery == *device.as_bytes();
            (at.header.author == device || recovery).then_some((Role::Owner, true))
        }
        Item::Grant(grant) if grant.device == device => Some((grant.role, false)),
        _ => None,
    }
}
