//! Random worlds, in which what is hard to judge is common: mutual removals, low cuts, branches that hide what they knew,
//! invites of those who are gone.

mod items;
mod schemes;

use p2p_sync_core::access::Role;

use crate::roles::world::{Deed, EVENTS_MAX, FOUNDER, Grant, RECOVERY, Set, World};

/// Branches of one device; a Revoke may keep as many.
const BRANCHES_MAX: usize = 5;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
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

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// Returns the world of a seed.
pub(crate) fn world(seed: u64) -> World {
    let mut maker = Maker::new(seed);
    maker.found();
    let events = match maker.rng.below(20) {
        0 => 40 + maker.rng.below(EVENTS_MAX - 40),
        1..5 => 20 + maker.rng.below(20),
        _ => 6 + maker.rng.below(16),
    };
    while maker.world.events.len() + 3 < events {
        maker.step();
    }
    maker.world
}

/// Adds random events of some devices to a world, none of which has seen `hidden`.
pub(crate) fn add_unaware(world: &World, authors: &[usize], hidden: usize, rng: &mut Rng) -> World {
    let mut maker = Maker {
        rng: rng.clone(),
        best: vec![Role::Owner; world.devices],
        boxes: Vec::new(),
        known: vec![Set::default(); world.devices],
        keys: world.deeds().filter_map(|(_, deed)| invite_key(deed)).collect(),
        world: world.clone(),
    };
    let unaware =
        |maker: &Maker, event: usize| event != hidden && !maker.world.events[event].past.contains(hidden);
    let count = 1 + rng.below(6);
    for _ in 0..count {
        let author = authors[rng.below(authors.len())];
        let own: Vec<usize> = maker
            .world
            .events_of(author)
            .filter(|event| unaware(&maker, *event))
            .collect();
        let prev = if rng.chance(70) {
            own.last().copied()
        } else {
            rng.pick(&own)
        };
        let seen = (0..maker.world.events.len()).filter(|event| unaware(&maker, *event) && rng.chance(30));
        let seen = seen.collect();
        let deeds = maker.deeds(author, maker.world.closure(seen));
        maker.add(author, prev, seen, deeds);
    }
    maker.world
}

struct Maker {
    rng: Rng,
    world: World,
    /// What each device knows.
    known: Vec<Set>,
    /// The strongest role that somebody gave to each device, rightly or not.
    best: Vec<Role>,
    /// Devices that somebody allowed to admit others.
    boxes: Vec<usize>,
    keys: Vec<u8>,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        rng.next();
        let devices = 4 + rng.below(6);
        let mut world = World::new(devices);
        if devices > 5 && rng.chance(10) {
            let twin = if rng.chance(10) { FOUNDER } else { devices - 2 };
            world.twins = Some((twin, devices - 1));
        }
        let mut best = vec![Role::Viewer; devices];
        best[RECOVERY] = Role::Owner;
        best[FOUNDER] = Role::Owner;
        Self {
            rng,
            world,
            known: vec![Set::default(); devices],
            best,
            boxes: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Lets the founder and those it makes owners give out the first roles.
    fn found(&mut self) {
        let mut by = FOUNDER;
        for device in FOUNDER + 1..self.world.devices {
            if self.rng.chance(15) {
                continue;
            }
            let role = self.role();
            let mut grant = Grant::plain(device, role);
            grant.flags = self.flags();
            let prev = self.world.heads(by).pop();
            let mut deeds = vec![Deed::Grant(grant)];
            if self.rng.chance(10) {
                let scope = self.scope();
                deeds.insert(0, Deed::Grant(Grant { scope, ..grant }));
            }
            self.add(by, prev, self.known[by], deeds);
            let all = self.known[by];
            self.known.iter_mut().for_each(|known| *known = known.union(all));
            if role == Role::Owner && self.rng.chance(50) {
                by = device;
            }
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..20 => self.gossip(),
            20..50 => {
                let author = self.actor();
                self.act(author, None);
            }
            50..58 => self.retaliate(),
            58..65 => self.undo_revoker(),
            65..79 => self.redeem(),
            79..87 => self.remove_each_other(),
            87..95 => self.keep_branch(),
            _ => self.ends_inviter(),
        }
    }

    fn gossip(&mut self) {
        let (to, from) = (self.device(), self.device());
        let news = self.known[from];
        let events: Vec<usize> = news.iter().collect();
        let learned = match self.rng.pick(&events) {
            Some(event) if self.rng.chance(50) => self.world.closure([event].into_iter().collect()),
            _ => news,
        };
        self.known[to] = self.known[to].union(learned);
    }

    /// Adds an event of a device, with these items or random ones.
    fn act(&mut self, author: usize, deeds: Option<Vec<Deed>>) -> usize {
        let prev = self.prev(author);
        let view = self.view(author);
        let past = self.world.closure(view.iter().chain(prev).collect());
        let deeds = deeds.unwrap_or_else(|| self.deeds(author, past));
        self.add(author, prev, view, deeds)
    }

    fn add(&mut self, author: usize, prev: Option<usize>, view: Set, deeds: Vec<Deed>) -> usize {
        for deed in &deeds {
            if let Deed::Grant(grant) = deed {
                self.best[grant.device] = self.best[grant.device].max(grant.role);
                if grant.flags.admit {
                    self.boxes.push(grant.device);
                }
            }
        }
        self.keys.extend(deeds.iter().filter_map(invite_key));
        let event = self.world.add(author, prev, view, deeds);
        let jump = if self.rng.chance(20) {
            self.rng.below(10)
        } else {
            self.rng.below(2)
        };
        let id = self.rng.next();
        let made = &mut self.world.events[event];
        made.clock += jump as u64;
        made.id = id;
        self.known[author] = self.known[author].union(made.past);
        self.known[author].insert(event);
        event
    }

    /// Picks the event to go on from: mostly the last one, else a branch's end, else any, which makes a new branch.
    fn prev(&mut self, author: usize) -> Option<usize> {
        let heads = self.world.heads(author);
        let own: Vec<usize> = self.world.events_of(author).collect();
        match self.rng.below(100) {
            0..82 => own.last().copied(),
            82..92 => self.rng.pick(&heads),
            _ if heads.len() >= BRANCHES_MAX => self.rng.pick(&heads),
            92..94 => None,
            _ => self.rng.pick(&own),
        }
    }

    /// Picks what an event says that its author has seen besides its own log.
    fn view(&mut self, author: usize) -> Set {
        match self.rng.below(100) {
            0..60 => self.known[author],
            60..80 => Set::default(),
            _ if self.world.events.is_empty() => Set::default(),
            _ => {
                let count = 1 + self.rng.below(3);
                (0..count)
                    .map(|_| self.rng.below(self.world.events.len()))
                    .collect()
            }
        }
    }

    /// A device; the twin never acts.
    fn device(&mut self) -> usize {
        let acting = self.world.devices - usize::from(self.world.twins.is_some());
        self.rng.below(acting)
    }

    fn is_twin(&self, device: usize) -> bool {
        self.world.twins.is_some_and(|twins| twins.1 == device)
    }

    fn actor(&mut self) -> usize {
        let device = self.device();
        let weak = self.best[device] < Role::Admin || device == RECOVERY;
        if weak && self.rng.chance(75) {
            self.device()
        } else {
            device
        }
    }
}

const fn invite_key(deed: &Deed) -> Option<u8> {
    match deed {
        Deed::Invite { key, .. } => Some(*key),
        Deed::Grant(_) | Deed::Cancel { .. } | Deed::Revoke { .. } => None,
    }
}
