//! Random histories of one path on four devices: taking up one version at a time equals the rules over the whole set,
//! all devices come to the same, and nothing vanishes.
//!
//! A history has new contents and repeated ones, links, partial gossip that respects `seen`, edits of copies of the file that
//! are older than what the device knows, joins, touches, deletions, edits that replace several heads, and Discards.
//! What a base may name and what is void is decided before the fold, so void versions are left out.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::fold::names::{copy_names, resolve};
use p2p_sync_core::fold::set::{Outcome, fold_set};
use p2p_sync_core::fold::{PathState, Version, WriteOrder};
use p2p_sync_core::ids::{ContentHash, Dot, EventId, ShortId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Node};

const RUNS: u64 = 10_000;
const STEPS_MAX: usize = 60;
const DEVICES: usize = 4;

#[test]
fn one_at_a_time_equals_the_whole_set_and_nothing_vanishes() {
    let (mut copies, mut deletes, mut heads) = (0, 0, 0);
    for seed in 0..RUNS {
        let world = run(seed);
        let outcome = world.outcome(0);
        copies += outcome.copies.len();
        heads += outcome.heads.len();
        deletes += usize::from(
            outcome
                .winner
                .is_some_and(|dot| world.version(dot).entry.is_none()),
        );
    }
    assert!(
        copies > 5_000 && deletes > 200 && heads > 10_000,
        "The histories are too tame: {copies} copies, {deletes} deleted, {heads} heads"
    );
}

#[test]
fn a_head_that_is_applied_last_gives_the_same_state() {
    for seed in 0..500 {
        let world = run(seed);
        let mut replica = world.replicas[0].clone();
        let before = replica.state.clone();
        // A touch lives on the origins that its head has kept, so it is not taken out.
        for head in before.heads.iter().filter(|head| head.origins.is_empty()) {
            let base: Vec<Version> = head.base.iter().map(|dot| world.version(*dot).clone()).collect();
            let by = head.node().and_then(|node| replica.replaced.get(node).copied());
            replica.state.heads.retain(|h| h.dot != head.dot);
            replica.state.apply(head.clone(), &base, by);
        }
        assert_eq!(replica.state, before, "seed {seed}");
    }
}

#[test]
fn names_of_copies_are_injective() {
    for seed in 0..2_000 {
        let mut rng = Rng(seed);
        let world = run(seed);
        let path = parse(["a.txt", "Makefile", ".profile", "d/.git/HEAD"][rng.below(4)]);
        let below = rng.chance(20);
        let resolution = resolve(&world.replicas[0].state, below);
        // A user's own files may have the names of a copy, but for the longest.
        let mut taken: BTreeSet<RelPath> = BTreeSet::from([path.clone()]);
        if let Some(version) = resolution.copies.first()
            && rng.chance(50)
        {
            let names = copy_names(&path, version.dot, &version.event.to_hex());
            taken.extend(names.into_iter().take(1 + rng.below(2)));
        }
        for copy in resolution.copies {
            let names = copy_names(&path, copy.dot, &copy.event.to_hex());
            let name = names.into_iter().find(|name| !taken.contains(name)).unwrap();
            assert!(taken.insert(name.clone()), "seed {seed}: {name} twice");
            assert!(name.file_name().len() <= RelPath::MAX_COMPONENT);
        }
    }
}

/// Plays one history to its end.
fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    let active = 2 + world.rng.below(DEVICES - 1);
    // Short histories too: in long ones a deletion rarely has the last word.
    for _ in 0..4 + world.rng.below(STEPS_MAX - 4) {
        let device = world.rng.below(active);
        world.step(device);
        world.check_replica(device);
    }
    for _ in 0..DEVICES {
        for to in 0..DEVICES {
            for from in 0..DEVICES {
                world.gossip(to, from, usize::MAX);
            }
        }
    }
    for device in 0..DEVICES {
        let replica = &world.replicas[device];
        assert_eq!(
            replica.arrived.len(),
            world.events.len(),
            "seed {seed}: gossip is complete"
        );
        world.check_replica(device);
        assert_eq!(
            world.outcome(device),
            world.outcome(0),
            "seed {seed}: device {device} differs"
        );
    }
    world.check_another_order();
    world.check_nothing_vanished();
    world
}

struct Event {
    device: usize,
    seq: u64,
    /// How many events of each device its author had before it.
    seen: [u64; DEVICES],
    what: What,
}

enum What {
    Write(Version),
    Discard(Vec<Dot>),
}

#[derive(Clone, Default)]
struct Replica {
    arrived: Vec<usize>,
    seen: [u64; DEVICES],
    clock: u64,
    state: PathState,
    known: BTreeMap<Dot, Version>,
    replaced: BTreeMap<Node, WriteOrder>,
    discarded: BTreeSet<Dot>,
    /// The versions that the file on disk is, possibly long since replaced.
    work: Vec<Dot>,
}

struct World {
    seed: u64,
    rng: Rng,
    events: Vec<Event>,
    replicas: Vec<Replica>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: Rng(seed),
            events: Vec::new(),
            replicas: vec![Replica::default(); DEVICES],
        }
    }

    fn step(&mut self, device: usize) {
        match self.rng.below(100) {
            0..35 => {
                let from = self.rng.below(DEVICES);
                let limit = if self.rng.chance(70) {
                    usize::MAX
                } else {
                    self.rng.below(8)
                };
                self.gossip(device, from, limit);
            }
            35..55 => self.materialise(device),
            55..80 => self.edit(device),
            80..84 => self.touch(device),
            84..92 => self.delete(device),
            92..96 => self.resolve_conflict(device),
            _ => self.discard(device),
        }
    }

    /// Hands over what respects `seen`, at most `limit` events.
    fn gossip(&mut self, to: usize, from: usize, limit: usize) {
        let mut taken = 0;
        for index in self.replicas[from].arrived.clone() {
            let event = &self.events[index];
            let replica = &mut self.replicas[to];
            let next = replica.seen[event.device] == event.seq;
            let covered = event
                .seen
                .iter()
                .zip(&replica.seen)
                .all(|(needs, has)| needs <= has);
            if next && covered && taken < limit {
                replica.take(index, event);
                taken += 1;
            }
        }
    }

    /// Brings the file on disk up to the winner.
    fn materialise(&mut self, device: usize) {
        let replica = &mut self.replicas[device];
        replica.work = match replica.state.winner() {
            Some(winner) => replica.state.heads_with(winner.node()),
            None => Vec::new(),
        };
    }

    fn edit(&mut self, device: usize) {
        let node = match self.rng.below(10) {
            0..4 => file(self.rng.below(4) as u64),
            4..9 => file(1_000 + self.events.len() as u64),
            _ => Node::Link {
                target: vec![b'a' + self.rng.below(2) as u8],
            },
        };
        let base = self.replicas[device].work.clone();
        self.write(device, Some(node), base);
    }

    fn touch(&mut self, device: usize) {
        let replica = &self.replicas[device];
        let held = replica
            .work
            .first()
            .and_then(|dot| replica.known[dot].node().cloned());
        if held.is_some() {
            let base = replica.work.clone();
            self.write(device, held, base);
        }
    }

    fn delete(&mut self, device: usize) {
        let replica = &self.replicas[device];
        let holds = replica
            .work
            .first()
            .is_some_and(|dot| replica.known[dot].entry.is_some());
        if holds {
            let base = replica.work.clone();
            self.write(device, None, base);
        }
    }

    /// A user looks at winner and copies and writes what is to stand.
    fn resolve_conflict(&mut self, device: usize) {
        self.materialise(device);
        let heads: Vec<Dot> = self.replicas[device].state.heads.iter().map(|v| v.dot).collect();
        if heads.len() > 1 {
            let kept = heads[self.rng.below(heads.len())];
            let node = self.version(kept).node().cloned();
            self.write(device, node, heads);
        }
    }

    fn discard(&mut self, device: usize) {
        let copies: Vec<Dot> = self.replicas[device]
            .state
            .copies()
            .iter()
            .map(|v| v.dot)
            .collect();
        if let Some(copy) = copies.first() {
            self.publish(device, What::Discard(vec![*copy]));
        }
    }

    fn write(&mut self, device: usize, node: Option<Node>, base: Vec<Dot>) {
        let replica = &mut self.replicas[device];
        replica.clock += 1;
        let entry = node.map(|node| Entry {
            node,
            mode: 0o600,
            mtime_ns: 0,
        });
        let base_versions: Vec<Version> = base.iter().map(|dot| replica.known[dot].clone()).collect();
        let version = Version {
            dot: dot(device, replica.seen[device]),
            event: EventId::new(std::array::from_fn(|_| self.rng.below(256) as u8)),
            hlc: Hlc::from_bits(replica.clock),
            origins: Version::origins_of(entry.as_ref(), &base_versions),
            import: base.is_empty() && entry.is_some() && self.rng.chance(50),
            entry,
            base,
        };
        replica.work = vec![version.dot];
        self.publish(device, What::Write(version));
    }

    fn publish(&mut self, device: usize, what: What) {
        let replica = &mut self.replicas[device];
        let event = Event {
            device,
            seq: replica.seen[device],
            seen: replica.seen,
            what,
        };
        replica.take(self.events.len(), &event);
        self.events.push(event);
    }

    fn outcome(&self, device: usize) -> Outcome {
        self.replicas[device].outcome()
    }

    fn version(&self, dot: Dot) -> &Version {
        self.versions()
            .find(|v| v.dot == dot)
            .expect("a dot of this history")
    }

    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.events.iter().filter_map(|event| match &event.what {
            What::Write(version) => Some(version),
            What::Discard(_) => None,
        })
    }

    fn check_replica(&self, device: usize) {
        let replica = &self.replicas[device];
        let known: Vec<Version> = replica.known.values().cloned().collect();
        let whole = fold_set(&known, &replica.discarded);
        assert_eq!(replica.outcome(), whole, "seed {}: device {device}", self.seed);
    }

    /// One more order that respects `seen`, drawn at random.
    fn check_another_order(&mut self) {
        let mut replica = Replica::default();
        let mut open: Vec<usize> = (0..self.events.len()).collect();
        while !open.is_empty() {
            let at = self.rng.below(open.len());
            let event = &self.events[open[at]];
            let next = replica.seen[event.device] == event.seq;
            if next
                && event
                    .seen
                    .iter()
                    .zip(&replica.seen)
                    .all(|(needs, has)| needs <= has)
            {
                replica.take(open.remove(at), event);
            }
        }
        assert_eq!(
            replica.outcome(),
            self.outcome(0),
            "seed {}: another order",
            self.seed
        );
    }

    /// Invariants 14 and 17: a content is shown, or somebody who had it in his working copy put something else in
    /// its place, or an equal content was replaced by a later write, or somebody said that it need not be shown.
    fn check_nothing_vanished(&self) {
        let outcome = self.outcome(0);
        let shown: BTreeSet<&Node> = outcome
            .winner
            .iter()
            .chain(&outcome.copies)
            .filter_map(|dot| self.version(*dot).node())
            .collect();
        let winner = outcome.winner.map(|dot| self.version(dot));
        for put in self.versions().filter(|v| v.origins.is_empty()) {
            let Some(node) = put.node() else { continue };
            if self.is_given_up(put, node) {
                continue;
            }
            assert!(
                shown.contains(node),
                "seed {}: the content of {} vanished",
                self.seed,
                put.dot
            );
            let stands = winner.is_some_and(|v| v.entry.is_some());
            assert!(stands, "seed {}: a Del won against {}", self.seed, put.dot);
        }
    }

    fn is_given_up(&self, put: &Version, node: &Node) -> bool {
        let by_dot: BTreeMap<Dot, &Version> = self.versions().map(|v| (v.dot, v)).collect();
        let behind = |dots: &[Dot]| {
            let mut open = dots.to_vec();
            let mut behind = BTreeSet::new();
            while let Some(dot) = open.pop() {
                if behind.insert(dot) {
                    open.extend(&by_dot[&dot].base);
                }
            }
            behind
        };
        let replaced = self.versions().any(|later| {
            let equal = |dot: &Dot| by_dot[dot].node() == Some(node);
            let other = later.node() != Some(node) && behind(&later.base).contains(&put.dot);
            let twin =
                later.origins.is_empty() && later.order() > put.order() && later.base.iter().any(equal);
            other || twin
        });
        let mut dropped = self.replicas[0].discarded.iter();
        replaced || dropped.any(|dot| by_dot[dot].node() == Some(node) && behind(&[*dot]).contains(&put.dot))
    }
}

impl Replica {
    fn take(&mut self, index: usize, event: &Event) {
        self.arrived.push(index);
        self.seen[event.device] = event.seq + 1;
        match &event.what {
            What::Discard(drop) => {
                let dropped: Vec<Version> = drop.iter().map(|dot| self.known[dot].clone()).collect();
                self.state.discard(&dropped);
                self.discarded.extend(drop);
            }
            What::Write(version) => self.apply(version),
        }
    }

    fn apply(&mut self, version: &Version) {
        self.clock = self.clock.max(version.hlc.bits());
        let base: Vec<Version> = version.base.iter().map(|dot| self.known[dot].clone()).collect();
        let by = version.node().and_then(|node| self.replaced.get(node).copied());
        let applied = self.state.apply(version.clone(), &base, by);
        assert_eq!(applied.is_head, self.state.head(version.dot).is_some());
        for node in applied.replaced {
            let greatest = self.replaced.entry(node).or_insert(version.order());
            *greatest = version.order().max(*greatest);
        }
        self.known.insert(version.dot, version.clone());
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            winner: self.state.winner().map(|v| v.dot),
            copies: self.state.copies().iter().map(|v| v.dot).collect(),
            heads: self.state.heads.iter().map(|v| v.dot).collect(),
        }
    }
}

fn dot(device: usize, seq: u64) -> Dot {
    Dot {
        device: ShortId::new([device as u8; 8]),
        seq,
        item: 0,
    }
}

fn file(number: u64) -> Node {
    Node::File {
        content: ContentHash::of(&number.to_be_bytes()),
        size: 8,
    }
}

fn parse(path: &str) -> RelPath {
    RelPath::parse(path).expect("a path of this test")
}

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
