//! A group whose devices lie: their logs fork, and their events hide what their authors knew.
//!
//! Every event has the set of all events in its past, written out. Events stand in an order that respects their pasts.

use std::fmt;

use p2p_sync_core::access::{GrantFlags, Role};

/// The device that holds the recovery key.
pub(crate) const RECOVERY: usize = 0;
/// The device that made the group.
pub(crate) const FOUNDER: usize = 1;
/// Events that a world may have; a [`Set`] has no room for more.
pub(crate) const EVENTS_MAX: usize = 128;

/// A set of events, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set(u128);

/// Item `1` of event `0`, or what lies behind all items of that event.
pub(crate) type Place = (usize, usize);

/// Where a grant counts: some of the paths of [`Scope::PATHS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Whole,
    Docs,
    DocsOld,
    Source,
    DocsAndSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keep {
    UntilSeen,
    /// Events of the revoked device, up to which its log counts.
    Heads(Vec<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) device: usize,
    pub(crate) role: Role,
    pub(crate) scope: Scope,
    pub(crate) flags: GrantFlags,
    pub(crate) invite: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Grant(Grant),
    Invite { key: u8, role: Role, scope: Scope },
    Cancel { key: u8 },
    Revoke { device: usize, keep: Keep },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) author: usize,
    /// The event before it in its log.
    pub(crate) prev: Option<usize>,
    pub(crate) seq: u64,
    /// All events in its past.
    pub(crate) past: Set,
    pub(crate) clock: u64,
    pub(crate) id: u64,
    pub(crate) deeds: Vec<Deed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) devices: usize,
    /// Two devices with one short name; the second never acts.
    pub(crate) twins: Option<(usize, usize)>,
    pub(crate) events: Vec<Event>,
}

impl Set {
    pub(crate) fn insert(&mut self, event: usize) {
        self.0 |= 1 << event;
    }

    pub(crate) const fn contains(self, event: usize) -> bool {
        self.0 >> event & 1 == 1
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..EVENTS_MAX).filter(move |event| self.contains(*event))
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(events: I) -> Self {
        let mut set = Self::default();
        events.into_iter().for_each(|event| set.insert(event));
        set
    }
}

impl Scope {
    pub(crate) const ALL: [Self; 5] = [
        Self::Whole,
        Self::Docs,
        Self::DocsOld,
        Self::Source,
        Self::DocsAndSource,
    ];
    /// What a scope is measured by.
    pub(crate) const PATHS: [&'static str; 7] = [
        "readme",
        "docs",
        "docs/new",
        "docs/old",
        "docs/old/x",
        "docs2",
        "src/a",
    ];

    /// The paths that it names.
    pub(crate) const fn named(self) -> &'static [&'static str] {
        match self {
            Self::Whole => &[],
            Self::Docs => &["docs"],
            Self::DocsOld => &["docs/old"],
            Self::Source => &["src"],
            Self::DocsAndSource => &["docs", "src"],
        }
    }

    /// Which of [`Self::PATHS`] it reaches, as bits, counted by hand.
    pub(crate) const fn reach(self) -> u8 {
        match self {
            Self::Whole => 0b111_1111,
            Self::Docs => 0b001_1110,
            Self::DocsOld => 0b001_1000,
            Self::Source => 0b100_0000,
            Self::DocsAndSource => 0b101_1110,
        }
    }

    pub(crate) const fn within(self, other: Self) -> bool {
        self.reach() & !other.reach() == 0
    }
}

impl Grant {
    /// A grant everywhere, by its author's own power.
    pub(crate) fn plain(device: usize, role: Role) -> Self {
        Self {
            device,
            role,
            scope: Scope::Whole,
            flags: GrantFlags::default(),
            invite: None,
        }
    }
}

impl World {
    pub(crate) const fn new(devices: usize) -> Self {
        Self {
            devices,
            twins: None,
            events: Vec::new(),
        }
    }

    /// Adds an event whose author had seen `seen` and all in their pasts.
    pub(crate) fn add(&mut self, author: usize, prev: Option<usize>, seen: Set, deeds: Vec<Deed>) -> usize {
        let number = self.events.len();
        let past = self.closure(seen.iter().chain(prev).collect());
        let clock = past
            .iter()
            .map(|event| self.events[event].clock)
            .max()
            .unwrap_or(0)
            + 1;
        self.events.push(Event {
            author,
            prev,
            seq: prev.map_or(0, |prev| self.events[prev].seq + 1),
            past,
            clock,
            id: (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            deeds,
        });
        number
    }

    /// Returns the events and all that lie in their pasts.
    pub(crate) fn closure(&self, events: Set) -> Set {
        events
            .iter()
            .fold(events, |all, event| all.union(self.events[event].past))
    }

    /// Says whether `event` is `later`, or before it in its log.
    pub(crate) fn is_at_or_before(&self, event: usize, later: usize) -> bool {
        let mut at = Some(later);
        while let Some(passed) = at {
            if passed == event {
                return true;
            }
            at = self.events[passed].prev;
        }
        false
    }

    /// Says whether an item lies in the past of a place.
    pub(crate) fn sees(&self, place: Place, item: Place) -> bool {
        let earlier = place.0 == item.0 && item.1 < place.1;
        earlier || self.events[place.0].past.contains(item.0)
    }

    pub(crate) fn events_of(&self, device: usize) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.events.len()).filter(move |event| self.events[*event].author == device)
    }

    /// Returns the events of a device with which its branches end.
    pub(crate) fn heads(&self, device: usize) -> Vec<usize> {
        let goes_on = |event: usize| self.events.iter().any(|later| later.prev == Some(event));
        self.events_of(device).filter(|event| !goes_on(*event)).collect()
    }

    /// Returns all items with their places.
    pub(crate) fn deeds(&self) -> impl Iterator<Item = (Place, &Deed)> {
        let items = |event: usize| self.events[event].deeds.iter().enumerate();
        (0..self.events.len())
            .flat_map(move |event| items(event).map(move |(item, deed)| ((event, item), deed)))
    }

    /// Returns the world without the items of an event.
    pub(crate) fn blanked(&self, event: usize) -> Self {
        let mut world = self.clone();
        world.events[event].deeds.clear();
        world
    }

    /// Returns the world as those see it who have these events only; they contain their own pasts. The second is where
    /// each event stands then.
    pub(crate) fn restricted(&self, to: Set) -> (Self, Vec<Option<usize>>) {
        let mut world = self.clone();
        let mut renamed: Vec<Option<usize>> = (0..self.events.len()).map(Some).collect();
        for event in (0..self.events.len()).rev().filter(|event| !to.contains(*event)) {
            world = world.without(event);
            renamed[event] = None;
            renamed[event + 1..]
                .iter_mut()
                .flatten()
                .for_each(|later| *later -= 1);
        }
        (world, renamed)
    }

    /// Returns the world as if an event had never been; what followed it in its log follows the one before it.
    pub(crate) fn without(&self, gone: usize) -> Self {
        let mut world = self.clone();
        let before = world.events[gone].prev;
        let follow = |event: usize| if event == gone { before } else { Some(event) };
        let rename = |event: usize| if event > gone { event - 1 } else { event };
        for event in &mut world.events {
            event.past = event
                .past
                .iter()
                .filter(|other| *other != gone)
                .map(rename)
                .collect();
            event.prev = event.prev.and_then(follow).map(rename);
            for deed in &mut event.deeds {
                match deed {
                    Deed::Revoke {
                        keep: Keep::Heads(heads),
                        ..
                    } => {
                        *heads = heads
                            .iter()
                            .filter_map(|head| follow(*head))
                            .map(rename)
                            .collect();
                    }
                    Deed::Revoke { .. } | Deed::Grant(_) | Deed::Invite { .. } | Deed::Cancel { .. } => {}
                }
            }
        }
        world.events.remove(gone);
        for event in 0..world.events.len() {
            let before = world.events[event].prev;
            world.events[event].seq = before.map_or(0, |before| world.events[before].seq + 1);
        }
        world
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} devices, twins {:?}", self.devices, self.twins)?;
        for (number, event) in self.events.iter().enumerate() {
            let (author, seq, prev) = (event.author, event.seq, event.prev);
            writeln!(
                f,
                "{number}: device {author}, {seq} after {prev:?}, seen {:?}",
                event.past
            )?;
            for deed in &event.deeds {
                writeln!(f, "    {deed:?}")?;
            }
        }
        Ok(())
    }
}
