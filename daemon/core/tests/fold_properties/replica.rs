//! Events of one path, and what a device knows of them.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::fold::set::Outcome;
use p2p_sync_core::fold::{Fence, PathState, Rebuilt, Said, Standing, Version, WriteOrder};
use p2p_sync_core::ids::{ContentHash, DeviceId, Dot, ShortId};
use p2p_sync_core::lock::Token;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Node;

pub(crate) const DEVICES: usize = 4;

pub(crate) struct Event {
    pub(crate) device: usize,
    pub(crate) seq: u64,
    pub(crate) order: WriteOrder,
    /// How many events of each device its author had before it.
    pub(crate) seen: [u64; DEVICES],
    pub(crate) what: What,
}

pub(crate) enum What {
    Write(Version),
    Discard(Vec<Dot>),
    Lock(Token),
    /// The lock that an event took is over.
    Unlock(usize),
}

#[derive(Clone, Default)]
pub(crate) struct Replica {
    pub(crate) arrived: Vec<usize>,
    pub(crate) seen: [u64; DEVICES],
    pub(crate) clock: u64,
    pub(crate) state: PathState,
    pub(crate) known: BTreeMap<Dot, Version>,
    pub(crate) replaced: BTreeMap<Node, WriteOrder>,
    pub(crate) discarded: BTreeSet<Dot>,
    /// The locks that are not over, as far as is known here, by their events.
    pub(crate) open: BTreeSet<usize>,
    /// How often a lock came whose holder had not heard of a write.
    pub(crate) rebuilt: usize,
    /// The versions that the file on disk is, possibly long since replaced.
    pub(crate) work: Vec<Dot>,
}

/// How a write stands to these locks and their ends, by the rules as they are written.
pub(crate) fn judge(write: &Event, locks: &[(&Event, Token)], ends: &[(&Event, Dot)]) -> Standing {
    let had = |event: &Event, other: &Event| event.seen[other.device] > other.seq;
    let met = || locks.iter().filter(|(lock, _)| had(write, lock));
    let mut standing = Standing::default();
    if let Some(token) = met().map(|(_, token)| *token).max() {
        let is_over = |lock: &Event| ends.iter().any(|(end, of)| *of == place(lock) && had(write, end));
        let open = || met().filter(|(lock, of)| *of == token && !is_over(lock));
        standing.knew = token;
        if open().any(|(lock, _)| lock.device == write.device) {
            standing.token = token;
        } else if open().next().is_some() {
            return Standing {
                fenced: true,
                ..Standing::default()
            };
        }
    }
    let mut unheard = locks.iter().filter(|(lock, _)| !had(lock, write));
    if unheard.any(|(_, token)| *token > standing.knew) {
        standing = Standing {
            fenced: true,
            ..Standing::default()
        };
    }
    standing
}

impl Replica {
    pub(crate) fn take(&mut self, index: usize, event: &Event, events: &[Event]) {
        self.arrived.push(index);
        self.seen[event.device] = event.seq + 1;
        self.clock = self.clock.max(event.order.0.bits());
        match &event.what {
            What::Discard(drop) => {
                let dropped: Vec<Version> = drop.iter().map(|dot| self.known[dot].clone()).collect();
                self.state.discard(&dropped);
                self.discarded.extend(drop);
            }
            What::Write(version) => self.apply(version, event),
            What::Lock(token) => self.take_lock(index, event, *token, events),
            What::Unlock(lock) => {
                self.open.remove(lock);
                self.state.fences.end(place(&events[*lock]), place(event));
            }
        }
    }

    fn take_lock(&mut self, index: usize, event: &Event, token: Token, events: &[Event]) {
        self.open.insert(index);
        let fence = Fence {
            grant: place(event),
            token,
            holder: id_of(event.device),
            ends: Vec::new(),
        };
        self.state.fences.add(fence);
        let mut met = false;
        for version in self.known.values_mut() {
            let heard_of = event.seen[device_of(version.dot)] > version.dot.seq;
            met |= version.standing.meet(token, heard_of);
        }
        if met {
            self.rebuild(events);
        }
    }

    fn rebuild(&mut self, events: &[Event]) {
        self.rebuilt += 1;
        let mut said: Vec<&Event> = self.arrived.iter().map(|index| &events[*index]).collect();
        said.sort_by_key(|event| event.order);
        let mut rebuilt = Rebuilt::new(&self.state);
        for event in said {
            let what = match &event.what {
                What::Write(version) => Said::Write(self.known[&version.dot].clone()),
                What::Discard(drop) => Said::Discard(drop.clone()),
                What::Lock(_) | What::Unlock(_) => continue,
            };
            rebuilt.take(event.order, place(event), what);
        }
        (self.state, self.known, self.replaced) = (rebuilt.state, rebuilt.known, rebuilt.replaced);
    }

    fn apply(&mut self, version: &Version, event: &Event) {
        let mut version = version.clone();
        let past = |dot: Dot| event.seen[device_of(dot)] > dot.seq;
        version.standing = Standing::judge(&id_of(event.device), &past, [&self.state.fences]);
        let base: Vec<Version> = version.base.iter().map(|dot| self.known[dot].clone()).collect();
        version.origins = Version::origins_of(version.entry.as_ref(), &base);
        let by = version.node().and_then(|node| self.replaced.get(node).copied());
        let applied = self.state.apply(version.clone(), &base, by);
        let is_head = self.state.heads.iter().any(|head| head.dot == version.dot);
        assert_eq!(applied.is_head, is_head);
        for node in applied.replaced {
            let greatest = self.replaced.entry(node).or_insert(version.order());
            *greatest = version.order().max(*greatest);
        }
        self.known.insert(version.dot, version);
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            winner: self.state.winner().map(|v| v.dot),
            copies: self.state.copies().iter().map(|v| v.dot).collect(),
            heads: self.state.heads.iter().map(|v| v.dot).collect(),
            fenced: self.state.fenced.iter().map(|v| v.dot).collect(),
        }
    }
}

/// Where an event's only item stands.
pub(crate) fn place(event: &Event) -> Dot {
    dot(event.device, event.seq)
}

pub(crate) fn id_of(device: usize) -> DeviceId {
    DeviceId::new([device as u8; 32])
}

pub(crate) fn device_of(dot: Dot) -> usize {
    usize::from(dot.device.as_bytes()[0])
}

pub(crate) fn dot(device: usize, seq: u64) -> Dot {
    Dot {
        device: ShortId::new([device as u8; 8]),
        seq,
        item: 0,
    }
}

pub(crate) fn file(number: u64) -> Node {
    Node::File {
        content: ContentHash::of(&number.to_be_bytes()),
        size: 8,
    }
}

pub(crate) fn parse(path: &str) -> RelPath {
    RelPath::parse(path).expect("a path of this test")
}

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
