//! What became of locks whose items count, or do not, against what was thought when they arrived.
//!
//! Found anew from the mentions of a path and of the directories above it. That reads the items of all locks there ever were
//! on them, and is done only where somebody's rights turned out to be others, or an event came after those that had seen
//! it.

use std::collections::BTreeSet;

use super::Grant;
use crate::engine::{StateView, SyncEngine};
use crate::fold::{Fences, Standing, Version};
use crate::ids::{DeviceId, Dot, ShortId};
use crate::ledger::{Header, Item, LogState};
use crate::lock::{Claim, Resource};
use crate::rel_path::RelPath;
use crate::time::Hlc;

/// So much of a log: its events from a number and up to another, without.
type Stretch = (ShortId, u64, u64);

/// An item, by its place and its event's clock.
type At = (Dot, Hlc);

/// A lock that counts.
pub(in crate::engine) struct Fact {
    grant: Grant,
    /// The items that end it and count.
    ends: Vec<At>,
}

impl SyncEngine {
    /// Returns the stretches of logs that the author of the last event of a log had not heard of.
    pub(super) fn unheard_by(&self, log: &LogState) -> Vec<Stretch> {
        let others = self.logs.values().filter(|other| other.name != log.name);
        let stretch = |other: &LogState| {
            let own = other.left.map_or(0, |left| left.size);
            let from = log.seen.get(&other.name).copied().unwrap_or(0).max(own);
            (other.name, from, other.size())
        };
        others.map(stretch).filter(|(_, from, to)| from < to).collect()
    }

    /// Adds the paths that a resource covers and of which events in these stretches speak.
    pub(super) fn collect_paths(
        &self,
        stretches: &[Stretch],
        resource: &Resource,
        paths: &mut BTreeSet<RelPath>,
        view: &impl StateView,
    ) {
        for (log, from, to) in stretches {
            for seq in *from..*to {
                let stored = self.pending.event(view, *log, seq);
                let Some(event) = stored.and_then(|stored| stored.event.read_stored().ok()) else {
                    continue;
                };
                let named = event.body.items.iter().filter_map(Item::path);
                paths.extend(named.filter(|path| resource.covers(path)).cloned());
            }
        }
    }

    /// Judges anew the locks of which an item of an event that was applied speaks, and adds the paths whose writes may stand
    /// to them otherwise now.
    pub(in crate::engine) fn judge_lock_item(
        &mut self,
        place: Dot,
        item: &Item,
        paths: &mut BTreeSet<RelPath>,
        view: &impl StateView,
    ) {
        let grant = match item {
            Item::LockGrant(_) => self.read_grant(place, view),
            item => item.ended_lock().and_then(|dot| {
                let log = self.past_of(place.device, place.seq, view)?;
                self.lock_named(dot, &log, place.seq, view)
            }),
        };
        let Some(grant) = grant else { return };
        for resource in &grant.item.resources {
            self.fence_again(resource, view);
            if resource.is_subtree() {
                let stretches = self.unheard_of(&grant, view);
                self.collect_paths(&stretches, resource, paths, view);
            } else {
                paths.insert(resource.path().clone());
            }
        }
        let facts = self.facts_at(grant.item.resources[0].path(), view);
        let fact = facts.iter().find(|fact| fact.grant.place == grant.place);
        if fact.is_some_and(|fact| fact.ends.is_empty()) {
            self.locks.held.insert(grant.place);
            self.locks.top = self.locks.top.max(grant.item.token);
        } else if self.locks.held.remove(&grant.place) {
            self.lock_over(&grant);
        }
        self.keep_locks();
    }

    /// Returns the stretches of logs of which a lock's holder had not heard when he took it. Reads back from what he had heard
    /// of since.
    fn unheard_of(&self, grant: &Grant, view: &impl StateView) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        for other in self.logs.values() {
            let own = other.left.map_or(0, |left| left.size);
            let dot = |seq| Dot {
                device: other.name,
                seq,
                item: 0,
            };
            let mut from = other.size();
            while from > own {
                let Some(event) = self.pending.event(view, other.name, from - 1) else {
                    break;
                };
                let Ok(header) = Header::from_bytes(&event.event.header) else {
                    break;
                };
                if self.is_before((dot(from - 1), header.hlc), (grant.place, grant.hlc), view) {
                    break;
                }
                from -= 1;
            }
            stretches.push((other.name, from, other.size()));
        }
        stretches
    }

    /// Puts together anew what decides about writes of the locks on just this resource.
    fn fence_again(&mut self, resource: &Resource, view: &impl StateView) {
        let mut fences = Fences::default();
        let path = resource.path();
        for fact in self.facts_at(path, view) {
            if fact.grant.item.resources.contains(resource) {
                fences.add(fact.grant.fence());
                for (end, _) in &fact.ends {
                    fences.end(fact.grant.place, *end);
                }
            }
        }
        if !resource.is_subtree() {
            let mut state = self.pending.path_state(view, path).unwrap_or_default();
            state.fences = fences;
            self.pending.set_path_state(path, Some(state));
        } else if fences.as_slice().is_empty() {
            self.locks.trees.remove(path);
        } else {
            self.locks.trees.insert(path.clone(), fences);
        }
    }

    /// Returns the locks that count of those that cover a path.
    pub(in crate::engine) fn facts_on(&self, path: &RelPath, view: &impl StateView) -> Vec<Fact> {
        if !self.locks.any {
            return Vec::new();
        }
        let mut facts = Vec::new();
        for dir in std::iter::once(path.clone()).chain(path.ancestors()) {
            let here = self.facts_at(&dir, view).into_iter().filter(|fact| {
                let mut at = fact.grant.item.resources.iter().filter(|r| *r.path() == dir);
                at.any(|resource| resource.covers(path))
            });
            facts.extend(here);
        }
        facts.sort_by_key(|fact| fact.grant.place);
        facts.dedup_by_key(|fact| fact.grant.place);
        facts
    }

    /// Returns the locks that count of those that name this very path, with or without what is below it.
    fn facts_at(&self, path: &RelPath, view: &impl StateView) -> Vec<Fact> {
        let mut facts: Vec<Fact> = Vec::new();
        let mut ends = Vec::new();
        for place in self.pending.mentions(view, path) {
            if let Some(grant) = self.read_grant(place, view) {
                if self.counts_as_grant(&grant) {
                    let ends = Vec::new();
                    facts.push(Fact { grant, ends });
                }
            } else if let Some(end) = self.read_end(place, view) {
                ends.push(end);
            }
        }
        for (of, at, author, item) in ends {
            let fact = facts.iter_mut().find(|fact| fact.grant.place == of);
            if let Some(fact) = fact
                && self.counts_as_end(&fact.grant, &author, at.0, at.1, &item)
            {
                fact.ends.push(at);
            }
        }
        facts
    }

    /// Says whether the lock of a claim was recorded, and is over.
    pub(in crate::engine) fn is_claim_over(&self, claim: &Claim, view: &impl StateView) -> bool {
        let facts = self.facts_at(claim.resources[0].path(), view);
        let same = |fact: &&Fact| fact.grant.item.certificate(fact.grant.holder).claim == *claim;
        facts.iter().find(same).is_some_and(|fact| !fact.ends.is_empty())
    }

    pub(super) fn read_grant(&self, place: Dot, view: &impl StateView) -> Option<Grant> {
        let stored = self.pending.event(view, place.device, place.seq)?;
        let event = stored.event.read_stored().ok()?;
        match event.body.items.get(usize::try_from(place.item).ok()?)? {
            Item::LockGrant(item) => Some(Grant {
                place,
                hlc: event.header.hlc,
                holder: event.header.author,
                item: item.clone(),
            }),
            _ => None,
        }
    }

    /// Returns an item that ends a lock: of which, where it stands, and whose it is.
    fn read_end(&self, place: Dot, view: &impl StateView) -> Option<(Dot, At, DeviceId, Item)> {
        let stored = self.pending.event(view, place.device, place.seq)?;
        let event = stored.event.read_stored().ok()?;
        let item = event.body.items.get(usize::try_from(place.item).ok()?)?;
        let log = self.past_of(place.device, place.seq, view)?;
        let ended = self.lock_named(item.ended_lock()?, &log, place.seq, view)?;
        let at = (place, event.header.hlc);
        let is_known = self.is_before((ended.place, ended.hlc), at, view);
        is_known.then(|| (ended.place, at, event.header.author, item.clone()))
    }

    /// Returns the lock that an item in event `seq` of a log names.
    pub(super) fn lock_named(
        &self,
        dot: Dot,
        log: &LogState,
        seq: u64,
        view: &impl StateView,
    ) -> Option<Grant> {
        let device = self.log_of_dot(dot, log, seq, view).ok()??;
        self.read_grant(Dot { device, ..dot }, view)
    }

    /// Judges a version by all locks that count.
    pub(in crate::engine) fn stand_again(
        &self,
        version: &Version,
        facts: &[Fact],
        view: &impl StateView,
    ) -> Standing {
        let here = (version.dot, version.hlc);
        let Some(author) = self.logs.get(&version.dot.device).map(|log| log.author) else {
            return version.standing;
        };
        let mut known = Fences::default();
        for fact in facts {
            let grant = (fact.grant.place, fact.grant.hlc);
            if self.is_before(grant, here, view) {
                known.add(fact.grant.fence());
                let met = fact.ends.iter().filter(|end| self.is_before(**end, here, view));
                met.for_each(|(end, _)| known.end(fact.grant.place, *end));
            }
        }
        let mut standing = Standing::judge(&author, &|_: Dot| true, [&known]);
        for fact in facts {
            let token = fact.grant.item.token;
            if !standing.fenced && standing.knew < token {
                let heard_of = self.is_before(here, (fact.grant.place, fact.grant.hlc), view);
                standing.meet(token, heard_of);
            }
        }
        standing
    }

    /// Says whether the author of one item had heard of another. Reads the headers between the two by the later one's log.
    fn is_before(&self, one: At, two: At, view: &impl StateView) -> bool {
        let ((one, then), (two, now)) = (one, two);
        if self.holder(two.device, one.seq) == one.device {
            return (one.seq, one.item) < (two.seq, two.item);
        }
        let knows = |log: &LogState| log.has_seen(one.device, one.seq);
        if then >= now || !self.logs.get(&two.device).is_some_and(knows) {
            return false;
        }
        for seq in (0..=two.seq).rev() {
            let event = self.event_at(two.device, seq, view);
            let Some(header) = event.and_then(|event| Header::from_bytes(&event.event.header).ok()) else {
                return false;
            };
            if header.hlc <= then {
                return false;
            }
            let seen = self.local_seen(&header, view);
            if let Some((_, next)) = seen.iter().find(|(log, _)| *log == one.device) {
                return *next > one.seq;
            }
        }
        false
    }
}
