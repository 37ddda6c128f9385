//! Locks in the ledger: which are held, and how writes stand to them (ledger.md 4, rules 1 and 2).
//!
//! Of the locks on a file its path's state keeps what decides about writes; of those on directories, which are few, all of
//! that is kept here. A lock that arrives is held against what its holder had not heard of: the events that do not lie in
//! its past, however many came before. An item of a lock is a **mention** of each path that it names, whether it counts or
//! not, so that all of it is found again when somebody's rights turn out to be others ([`judge`]).
//!
//! A lock is over when its holder says so; if it was a lease, when anybody says that it lapsed who may write there; and
//! when somebody breaks it: an admin of the place, or, after the time that the holder gave, anybody who may write there.

mod judge;

pub(super) use self::judge::Fact;
use std::collections::{BTreeMap, BTreeSet};

use super::{Recovered, StateView, SyncEngine};
use crate::access::Role;
use crate::encoding::{self, Decoder, ShapeError, array_len, array_of, bytes_of, infallible};
use crate::fold::{Fence, Fences, Past, Standing};
use crate::ids::{DeviceId, Dot, ShortId};
use crate::ledger::{EndReason, Item, LockGrant, LogState, VerifiedEvent, read_dot, write_dot};
use crate::lock::{Claim, Resource, Token};
use crate::rel_path::RelPath;
use crate::time::Hlc;

/// Setting: the locks that are held, and those that decide about directories. CBOR:
///
/// ```text
/// [epoch uint, n uint, [dot…], [[path bstr, [[dot, epoch uint, n uint, holder bstr32, [dot…]]…]]…]]
/// dot = [device bstr8, seq uint, item uint]
/// ```
const LOCKS: &str = "locks";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Locks {
    /// The items that granted locks which count and are not over.
    held: BTreeSet<Dot>,
    /// The locks that decide about writes at and below a directory.
    trees: BTreeMap<RelPath, Fences>,
    /// Whether there ever was one, whether it counted or not.
    any: bool,
    /// The greatest token of one that counted.
    top: Token,
}

impl Locks {
    /// Takes up what was durable.
    pub(super) fn recover(recovered: &Recovered) -> Self {
        let bytes = recovered.settings.get(LOCKS);
        bytes
            .and_then(|bytes| Self::from_bytes(bytes).ok())
            .unwrap_or_default()
    }

    /// Returns the locks on the directories that a path lies in, or is.
    fn above(&self, path: &RelPath) -> Vec<&Fences> {
        if self.trees.is_empty() {
            return Vec::new();
        }
        let dirs = std::iter::once(path.clone()).chain(path.ancestors());
        dirs.filter_map(|dir| self.trees.get(&dir)).collect()
    }

    /// Returns the greatest number of a lock of this epoch that counted; 0: none.
    pub(super) const fn highest(&self, epoch: u64) -> u64 {
        if self.top.epoch == epoch { self.top.n } else { 0 }
    }

    fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| {
            infallible(e.array(4));
            infallible(e.u64(self.top.epoch));
            infallible(e.u64(self.top.n));
            infallible(e.array(self.held.len() as u64));
            self.held.iter().for_each(|dot| write_dot(e, dot));
            infallible(e.array(self.trees.len() as u64));
            for (path, fences) in &self.trees {
                infallible(e.array(2));
                infallible(e.bytes(path.as_bytes()));
                infallible(e.array(fences.as_slice().len() as u64));
                for fence in fences.as_slice() {
                    infallible(e.array(5));
                    write_dot(e, &fence.grant);
                    infallible(e.u64(fence.token.epoch));
                    infallible(e.u64(fence.token.n));
                    infallible(e.bytes(fence.holder.as_bytes()));
                    infallible(e.array(fence.ends.len() as u64));
                    fence.ends.iter().for_each(|end| write_dot(e, end));
                }
            }
        })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, ShapeError> {
        let d = &mut Decoder::new(bytes);
        array_of(d, 4)?;
        let top = Token {
            epoch: d.u64()?,
            n: d.u64()?,
        };
        let held = read_list(d, read_dot)?;
        let trees = read_list(d, |d| {
            array_of(d, 2)?;
            let path = RelPath::parse(d.bytes()?).map_err(|_| ShapeError::new())?;
            let fences = Fences::from_vec(read_list(d, read_fence)?);
            Ok((path, fences.ok_or(ShapeError::new())?))
        })?;
        Ok(Self {
            held: held.into_iter().collect(),
            trees: trees.into_iter().collect(),
            any: true,
            top,
        })
    }
}

fn read_fence(d: &mut Decoder<'_>) -> Result<Fence, ShapeError> {
    array_of(d, 5)?;
    Ok(Fence {
        grant: read_dot(d)?,
        token: Token {
            epoch: d.u64()?,
            n: d.u64()?,
        },
        holder: DeviceId::new(bytes_of(d)?),
        ends: read_list(d, read_dot)?,
    })
}

fn read_list<T>(
    d: &mut Decoder<'_>,
    mut read: impl FnMut(&mut Decoder<'_>) -> Result<T, ShapeError>,
) -> Result<Vec<T>, ShapeError> {
    let len = array_len(d)?;
    (0..len).map(|_| read(d)).collect()
}

/// A lock that somebody claims to have been granted.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) place: Dot,
    pub(super) hlc: Hlc,
    pub(super) holder: DeviceId,
    pub(super) item: LockGrant,
}

impl Grant {
    fn fence(&self) -> Fence {
        Fence {
            grant: self.place,
            token: self.item.token,
            holder: self.holder,
            ends: Vec::new(),
        }
    }
}

/// What comes before an item of the last event of a log.
struct Before<'l> {
    log: &'l LogState,
    place: Dot,
}

impl Past for Before<'_> {
    fn has(&self, place: Dot) -> bool {
        if place.device == self.log.name {
            (place.seq, place.item) < (self.place.seq, self.place.item)
        } else {
            self.log.has_seen(place.device, place.seq)
        }
    }
}

impl Before<'_> {
    /// Takes up that the item ends a lock, unless its author had heard of another end.
    fn end(&self, fences: &mut Fences, grant: Dot) {
        let mut same = fences.as_slice().iter().filter(|fence| fence.grant == grant);
        let knew = same.any(|fence| fence.ends.iter().any(|end| self.has(*end)));
        if !knew {
            fences.end(grant, self.place);
        }
    }
}

impl SyncEngine {
    /// Says how a write that arrives stands to the locks on its path; `log` is its author's, with its event as the last.
    pub(super) fn standing_of(&self, place: Dot, log: &LogState, path: &RelPath, own: &Fences) -> Standing {
        let above = self.locks.above(path);
        if own.as_slice().is_empty() && above.is_empty() {
            return Standing::default();
        }
        let fences = above.into_iter().chain([own]);
        Standing::judge(&log.author, &Before { log, place }, fences)
    }

    /// Applies an item that says something of a lock; returns the paths whose state changed, with whether each was live.
    pub(super) fn apply_lock_item(
        &mut self,
        event: &VerifiedEvent,
        place: Dot,
        item: &Item,
        log: &LogState,
        view: &impl StateView,
    ) -> Vec<(RelPath, bool)> {
        if let Item::LockGrant(item) = item {
            let grant = Grant {
                place,
                hlc: event.header.hlc,
                holder: event.header.author,
                item: item.clone(),
            };
            return self.take_grant(&grant, log, view);
        }
        let before = Before { log, place };
        let ended = item.ended_lock();
        if let Some(ended) = ended.and_then(|dot| self.lock_named(dot, log, place.seq, view))
            && before.has(ended.place)
        {
            self.take_end(&ended, &event.header.author, item, &before, view);
        }
        Vec::new()
    }

    fn take_grant(&mut self, grant: &Grant, log: &LogState, view: &impl StateView) -> Vec<(RelPath, bool)> {
        self.mention_lock(&grant.item, grant.place);
        if !self.counts_as_grant(grant) {
            return Vec::new();
        }
        self.locks.held.insert(grant.place);
        self.locks.top = self.locks.top.max(grant.item.token);
        let mut touched = Vec::new();
        let before = Before {
            log,
            place: grant.place,
        };
        for resource in &grant.item.resources {
            let mut paths = BTreeSet::new();
            if resource.is_subtree() {
                let tree = self.locks.trees.entry(resource.path().clone()).or_default();
                tree.add(grant.fence());
                let stretches = self.unheard_by(log);
                self.collect_paths(&stretches, resource, &mut paths, view);
            } else {
                let path = resource.path();
                let mut state = self.pending.path_state(view, path).unwrap_or_default();
                state.fences.add(grant.fence());
                self.pending.set_path_state(path, Some(state));
                paths.insert(path.clone());
            }
            for path in paths {
                touched.extend(self.meet_lock(&path, grant.item.token, &before, view));
            }
        }
        self.keep_locks();
        touched
    }

    /// Holds a lock against the versions of a path that its holder had not heard of.
    fn meet_lock(
        &mut self,
        path: &RelPath,
        token: Token,
        before: &Before<'_>,
        view: &impl StateView,
    ) -> Option<(RelPath, bool)> {
        let mut versions = self.pending.versions_of(view, path);
        let mut met = false;
        for (dot, version) in &mut versions {
            met |= version.standing.meet(token, before.has(*dot));
        }
        let was_live = self.is_live(path, view);
        (met && self.put_together(path, versions, &[], view)).then(|| (path.clone(), was_live))
    }

    fn take_end(
        &mut self,
        ended: &Grant,
        author: &DeviceId,
        item: &Item,
        before: &Before<'_>,
        view: &impl StateView,
    ) {
        self.mention_lock(&ended.item, before.place);
        if !self.counts_as_end(ended, author, before.place, before.log.hlc, item) {
            return;
        }
        self.locks.held.remove(&ended.place);
        self.lock_over(ended);
        for resource in &ended.item.resources {
            let path = resource.path();
            if resource.is_subtree() {
                let tree = self.locks.trees.get_mut(path);
                tree.into_iter()
                    .for_each(|fences| before.end(fences, ended.place));
            } else if let Some(mut state) = self.pending.path_state(view, path) {
                before.end(&mut state.fences, ended.place);
                self.pending.set_path_state(path, Some(state));
            }
        }
        self.keep_locks();
    }

    /// Says whether a grant proves a lock: its author may write there, and a majority of voters gave it.
    fn counts_as_grant(&self, grant: &Grant) -> bool {
        let Some(group) = &self.group else { return false };
        let Dot { device: log, seq, .. } = grant.place;
        let writable = group.writable_at(&grant.holder, log, seq);
        let mut all = grant.item.resources.iter();
        let may = all.all(|resource| writable.covers(resource.path()));
        let certificate = grant.item.certificate(grant.holder);
        let voters = group.voters(grant.item.token.epoch);
        may && voters.is_some_and(|voters| certificate.check(&group.id, &voters).is_ok())
    }

    /// Returns the places of an event's items that speak of locks without the right to.
    pub(super) fn void_locks(&self, log: ShortId, event: &VerifiedEvent) -> Vec<u32> {
        let author = event.header.author;
        let is_void = |number: u32, item: &Item| {
            let place = Dot {
                device: log,
                seq: event.header.seq,
                item: number,
            };
            match item {
                Item::LockGrant(item) => !self.counts_as_grant(&Grant {
                    place,
                    hlc: event.header.hlc,
                    holder: author,
                    item: item.clone(),
                }),
                item => {
                    let role = self
                        .group
                        .as_ref()
                        .and_then(|group| group.role_at(&author, log, place.seq));
                    item.is_of_lock() && role.is_none()
                }
            }
        };
        let items = (0..).zip(&event.body.items);
        items
            .filter_map(|(number, item)| is_void(number, item).then_some(number))
            .collect()
    }

    /// Says whether who says that a lock is over may say so.
    fn counts_as_end(&self, grant: &Grant, author: &DeviceId, place: Dot, hlc: Hlc, item: &Item) -> bool {
        let Some(group) = &self.group else { return false };
        let writable = group.writable_at(author, place.device, place.seq);
        let covers = |resource: &Resource| writable.covers(resource.path());
        let resources = &grant.item.resources;
        match item {
            Item::LockEnd(end) => {
                let lapsed = end.reason == EndReason::Lapsed && !grant.item.durable;
                *author == grant.holder || (lapsed && resources.iter().any(covers))
            }
            Item::LockBreak(_) => {
                let is_over = grant.item.until_ms.is_some_and(|until| hlc.wall_ms() >= until);
                let role = group.role_at(author, place.device, place.seq);
                let may = is_over || role.is_some_and(|role| role >= Role::Admin);
                may && resources.iter().all(covers)
            }
            _ => false,
        }
    }

    /// Notes that an item of a lock speaks of the lock's paths.
    fn mention_lock(&mut self, lock: &LockGrant, place: Dot) {
        if !std::mem::replace(&mut self.locks.any, true) {
            self.keep_locks();
        }
        for resource in &lock.resources {
            self.pending.set_mention(resource.path(), place, true);
        }
    }

    /// Returns the locks that are held.
    pub(super) fn held_locks(&self, view: &impl StateView) -> Vec<Grant> {
        let held = self.locks.held.iter();
        held.filter_map(|place| self.read_grant(*place, view)).collect()
    }

    /// Says whether the lock of a claim is held.
    pub(super) fn held_claim(&self, claim: &Claim, view: &impl StateView) -> bool {
        let log = claim.holder.short();
        let own = self.locks.held.iter().filter(|place| place.device == log);
        let mut grants = own.filter_map(|place| self.read_grant(*place, view));
        grants.any(|grant| grant.item.certificate(grant.holder).claim == *claim)
    }

    /// Lets go of a lock that is over, as its voter and as its holder.
    fn lock_over(&mut self, grant: &Grant) {
        self.drop_slot(&(grant.holder, grant.item.nonce));
        if grant.holder == self.me {
            self.forget_lock(grant.place);
        }
    }

    fn keep_locks(&mut self) {
        self.pending.set_setting(LOCKS, Some(self.locks.to_bytes()));
    }
}
