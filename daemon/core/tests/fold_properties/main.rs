//! Random histories of one path on four devices: taking up one version at a time equals the rules over the whole set,
//! all devices come to the same, and nothing vanishes.
//!
//! A history has new contents and repeated ones, links, partial gossip that respects `seen`, edits of copies of the file that
//! are older than what the device knows, joins, touches, deletions, edits that replace several heads, Discards; and, in
//! a second run, locks: held and released, lapsed without their holder's knowledge, and with tokens that no voter gave.
//! What a base may name and what is void is decided before the fold, so void versions are left out.

mod replica;

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::fold::names::{copy_names, resolve};
use p2p_sync_core::fold::set::{Outcome, fold_set};
use p2p_sync_core::fold::{Standing, Version};
use p2p_sync_core::ids::{Dot, EventId};
use p2p_sync_core::lock::Token;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Node};

use self::replica::{DEVICES, Event, Replica, Rng, What, device_of, dot, file, judge, parse, place};

const RUNS: u64 = 10_000;
const STEPS_MAX: usize = 60;

#[test]
fn one_at_a_time_equals_the_whole_set_and_nothing_vanishes() {
    let (mut copies, mut deletes, mut heads) = (0, 0, 0);
    for seed in 0..RUNS {
        let world = run(seed, Locks::None);
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
fn with_locks_one_at_a_time_equals_the_whole_set_and_nothing_vanishes() {
    let (mut fenced, mut held, mut knew, mut rebuilt) = (0, 0, 0, 0);
    for seed in 0..RUNS {
        let world = run(
            seed,
            if seed % 4 == 0 {
                Locks::Lying
            } else {
                Locks::Honest
            },
        );
        for version in world.versions() {
            fenced += usize::from(version.standing.fenced);
            held += usize::from(version.standing.token != Token::default());
            knew += usize::from(version.standing.knew > version.standing.token);
        }
        rebuilt += world
            .replicas
            .iter()
            .map(|replica| replica.rebuilt)
            .sum::<usize>();
    }
    assert!(
        fenced > 5_000 && held > 5_000 && knew > 4_000 && rebuilt > 500,
        "The histories are too tame: {fenced} fenced, {held} under a lock, {knew} after one, {rebuilt} rebuilt"
    );
}

/// In an epoch whose voters tell the truth, while nobody broke a lock or declared it lapsed, what stands at its path changes
/// by its holder alone.
#[test]
fn while_a_lock_is_held_only_its_holder_changes_the_file() {
    let mut checked = 0;
    for seed in 0..RUNS {
        let mut world = World::new(seed, Locks::Honest);
        for _ in 0..40 {
            let device = world.rng.below(DEVICES);
            world.step(device);
        }
        if world.held.is_some() {
            continue;
        }
        let holder = world.rng.below(DEVICES);
        world.acquire(holder);
        let Some((_, grant)) = world.held else { continue };
        for _ in 0..20 {
            let device = world.rng.below(DEVICES);
            if world.rng.chance(60) {
                world.edit(device);
            } else {
                let from = world.rng.below(DEVICES);
                world.gossip(device, from, usize::MAX);
            }
        }
        world.meet_all();
        for replica in &world.replicas {
            let Some(winner) = replica.state.winner() else {
                continue;
            };
            let before = winner.dot.seq < world.events[grant].seen[device_of(winner.dot)];
            assert!(
                before || device_of(winner.dot) == holder,
                "seed {seed}: {}",
                winner.dot
            );
            checked += 1;
        }
    }
    assert!(checked > 5_000, "{checked}");
}

#[test]
fn a_head_that_is_applied_last_gives_the_same_state() {
    for seed in 0..500 {
        let world = run(seed, Locks::None);
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
        let world = run(seed, Locks::Honest);
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
fn run(seed: u64, locks: Locks) -> World {
    let mut world = World::new(seed, locks);
    let active = 2 + world.rng.below(DEVICES - 1);
    // Short histories too: in long ones a deletion rarely has the last word.
    for _ in 0..4 + world.rng.below(STEPS_MAX - 4) {
        let device = world.rng.below(active);
        world.step(device);
        world.check_replica(device);
    }
    world.meet_all();
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

/// What locks there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locks {
    None,
    /// Tokens that truthful voters gave.
    Honest,
    /// Any tokens.
    Lying,
}

struct World {
    seed: u64,
    rng: Rng,
    events: Vec<Event>,
    replicas: Vec<Replica>,
    locks: Locks,
    /// The number of the last token that was given.
    given: u64,
    /// Who holds the lock by the voters' word, and by which event.
    held: Option<(usize, usize)>,
}

impl World {
    fn new(seed: u64, locks: Locks) -> Self {
        Self {
            locks,
            given: 0,
            held: None,
            seed,
            rng: Rng(seed),
            events: Vec::new(),
            replicas: vec![Replica::default(); DEVICES],
        }
    }

    fn step(&mut self, device: usize) {
        if self.locks != Locks::None && self.rng.chance(15) {
            match self.rng.below(10) {
                0..6 => self.acquire(device),
                6..9 => self.release(device),
                _ => self.lapse(device),
            }
            return;
        }
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

    /// Everybody hears of everything.
    fn meet_all(&mut self) {
        for _ in 0..DEVICES {
            for to in 0..DEVICES {
                for from in 0..DEVICES {
                    self.gossip(to, from, usize::MAX);
                }
            }
        }
    }

    /// Takes the lock if the voters have it. Who does so has heard of what the last holder wrote, and mostly of all else.
    fn acquire(&mut self, device: usize) {
        let lies = self.locks == Locks::Lying && self.rng.chance(50);
        if self.held.is_some() && !lies {
            return;
        }
        self.given += 1;
        let n = if lies {
            1 + self.rng.below(6) as u64
        } else {
            self.given
        };
        for from in 0..DEVICES {
            if !lies && self.rng.chance(70) {
                self.gossip(device, from, usize::MAX);
            }
        }
        let at = self.events.len();
        self.publish(device, What::Lock(Token { epoch: 0, n }));
        if !lies {
            self.held = Some((device, at));
        }
    }

    /// Lets go of a lock of this device's.
    fn release(&mut self, device: usize) {
        let own = |lock: &&usize| self.events[**lock].device == device;
        let lock = self.replicas[device].open.iter().find(own).copied();
        self.end(device, lock);
    }

    /// Says of somebody else's lock that it is over; he may not hear of it for long.
    fn lapse(&mut self, device: usize) {
        let lock = self.replicas[device].open.first().copied();
        self.end(device, lock);
    }

    fn end(&mut self, device: usize, lock: Option<usize>) {
        let Some(lock) = lock else { return };
        self.publish(device, What::Unlock(lock));
        if self.held.is_some_and(|(_, held)| held == lock) {
            self.held = None;
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
                replica.take(index, event, &self.events);
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
        let heads: Vec<Dot> = self.replicas[device].state.standing().map(|v| v.dot).collect();
        if heads.len() > 1 {
            let kept = heads[self.rng.below(heads.len())];
            let node = self.replicas[device].known[&kept].node().cloned();
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
        let entry = node.map(|node| Entry {
            node,
            mode: 0o600,
            mtime_ns: 0,
        });
        let base_versions: Vec<Version> = base.iter().map(|dot| replica.known[dot].clone()).collect();
        let version = Version {
            dot: dot(device, replica.seen[device]),
            // Those of its event, which is made in a moment.
            event: EventId::new([0; 32]),
            hlc: Hlc::default(),
            origins: Version::origins_of(entry.as_ref(), &base_versions),
            import: base.is_empty() && entry.is_some() && self.rng.chance(50),
            entry,
            base,
            standing: Standing::default(),
        };
        replica.work = vec![version.dot];
        self.publish(device, What::Write(version));
    }

    fn publish(&mut self, device: usize, mut what: What) {
        let id = EventId::new(std::array::from_fn(|_| self.rng.below(256) as u8));
        let replica = &mut self.replicas[device];
        let order = (Hlc::from_bits(replica.clock + 1), id);
        if let What::Write(version) = &mut what {
            (version.hlc, version.event) = order;
        }
        self.events.push(Event {
            device,
            seq: replica.seen[device],
            order,
            seen: replica.seen,
            what,
        });
        let at = self.events.len() - 1;
        replica.take(at, &self.events[at], &self.events);
    }

    fn outcome(&self, device: usize) -> Outcome {
        self.replicas[device].outcome()
    }

    fn version(&self, dot: Dot) -> &Version {
        self.versions()
            .find(|v| v.dot == dot)
            .expect("a dot of this history")
    }

    /// The versions as they are once everybody has heard of everything.
    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.replicas[0].known.values()
    }

    /// The versions that a device knows, with their standing by the rules as they are written.
    fn judged(&self, replica: &Replica) -> Vec<Version> {
        let arrived = || replica.arrived.iter().map(|index| &self.events[*index]);
        let locks: Vec<(&Event, Token)> = arrived()
            .filter_map(|event| match event.what {
                What::Lock(token) => Some((event, token)),
                _ => None,
            })
            .collect();
        let ends: Vec<(&Event, Dot)> = arrived()
            .filter_map(|event| match event.what {
                What::Unlock(lock) => Some((event, place(&self.events[lock]))),
                _ => None,
            })
            .collect();
        let write = |event: &Event| match &event.what {
            What::Write(version) => Some(Version {
                standing: judge(event, &locks, &ends),
                ..version.clone()
            }),
            _ => None,
        };
        arrived().filter_map(write).collect()
    }

    fn check_replica(&self, device: usize) {
        let replica = &self.replicas[device];
        let known = self.judged(replica);
        for version in &known {
            let standing = replica.known[&version.dot].standing;
            assert_eq!(standing, version.standing, "seed {}: {}", self.seed, version.dot);
        }
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
                replica.take(open.remove(at), event, &self.events);
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
            let stands = winner.is_some_and(|v| v.entry.is_some()) || put.standing.fenced;
            assert!(stands, "seed {}: a Del won against {}", self.seed, put.dot);
        }
    }

    fn is_given_up(&self, put: &Version, node: &Node) -> bool {
        let by_dot: BTreeMap<Dot, &Version> = self.versions().map(|v| (v.dot, v)).collect();
        // What is fenced replaced nothing; a touch stands for what it touches.
        let behind = |dots: &[Dot]| {
            let mut open = dots.to_vec();
            let mut behind = BTreeSet::new();
            while let Some(dot) = open.pop() {
                let version = by_dot[&dot];
                let reaches = !version.standing.fenced || !version.origins.is_empty();
                if behind.insert(dot) && reaches {
                    open.extend(&version.base);
                }
            }
            behind
        };
        let replaced = self.versions().any(|later| {
            let equal = |dot: &Dot| by_dot[dot].node() == Some(node);
            if later.standing.fenced {
                return put.standing.fenced && later.base.contains(&put.dot);
            }
            let other = later.node() != Some(node) && behind(&later.base).contains(&put.dot);
            let held = !put.standing.fenced && put.standing.token != Token::default();
            let older = !held && later.order() > put.order();
            let twin = later.origins.is_empty() && older && later.base.iter().any(equal);
            other || twin
        });
        let mut dropped = self.replicas[0].discarded.iter();
        replaced || dropped.any(|dot| by_dot[dot].node() == Some(node) && behind(&[*dot]).contains(&put.dot))
    }
}
