//! What a set of events means, computed from the events alone, the whole set at once.
//!
//! Written from ledger.md 3 and 4 without a look at the engine: no incremental state, no order of arrival beyond what
//! `seen` asks for.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::access::{
    AdminEvent, Branch, Deed, GrantDeed, History as AdminHistory, Kept, LogPoint, Rights, evaluate,
};
use p2p_sync_core::fold::names::{Here, resolve};
use p2p_sync_core::fold::set::heads;
use p2p_sync_core::fold::{PathState, Version};
use p2p_sync_core::ids::{DeviceId, Dot, ShortId};
use p2p_sync_core::ledger::{EventKind, GrantVia, Item, Keep, LogHead, VerifiedEvent};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Node};

use super::store::Tables;

/// An event, the log in which it stands, and how much its author had of each log.
type Told = (VerifiedEvent, ShortId, Past);

/// How many events of each log; of one that another left at least those that they share.
type Past = BTreeMap<ShortId, u64>;

/// All versions of one path.
#[derive(Debug, Default)]
pub struct History {
    /// In order of their dots.
    pub versions: Vec<Version>,
    /// Versions that a Discard names.
    pub discarded: BTreeSet<Dot>,
}

/// The meaning of a set of events.
#[derive(Debug, Default)]
pub struct Oracle {
    /// By path.
    pub paths: BTreeMap<RelPath, History>,
    /// Who may do what.
    pub rights: Rights,
}

/// Returns a device's events in order of arrival, each with how much its author had of each log.
fn with_pasts(tables: &Tables) -> Result<Vec<Told>, String> {
    let mut pasts: BTreeMap<(ShortId, u64), Past> = BTreeMap::new();
    let mut events = Vec::new();
    for (log, seq) in &tables.arrival {
        let stored = tables
            .events
            .get(&(*log, *seq))
            .ok_or("An event of the order of arrival is missing")?;
        let event = stored.event.read_stored().map_err(|error| error.to_string())?;
        let before = seq
            .checked_sub(1)
            .map(|before| (tables.holder(*log, before), before));
        let mut past = before
            .and_then(|before| pasts.get(&before))
            .cloned()
            .unwrap_or_default();
        for entry in &event.header.seen {
            let last = entry.next_seq - 1;
            let mut holders = tables.logs_of(entry.device).map(|log| tables.holder(log, last));
            let is_it = |log: &ShortId| {
                let event = tables.events.get(&(*log, last));
                event.is_some_and(|event| event.id.id16() == entry.id16)
            };
            let seen = holders.find(is_it).unwrap_or(entry.device);
            extend(&mut past, tables, seen, entry.next_seq);
        }
        extend(&mut past, tables, *log, *seq);
        pasts.insert((*log, *seq), past.clone());
        events.push((event, *log, past));
    }
    Ok(events)
}

/// Adds the first `size` events on the way to the end of a log to a past.
fn extend(past: &mut Past, tables: &Tables, log: ShortId, size: u64) {
    let known = past.entry(log).or_default();
    *known = size.max(*known);
    if let Some(left) = tables.logs.get(&log).and_then(|log| log.left) {
        extend(past, tables, left.log, left.size.min(size));
    }
}

/// Returns a dot with the name that the log has here; nothing if it names an event that is not here, since its author was
/// removed. `None`: it names no event in a past.
fn named(tables: &Tables, past: &Past, dot: &Dot) -> Option<Option<Dot>> {
    let in_past = |log: &ShortId| past.get(log).is_some_and(|next| dot.seq < *next);
    let of_device: Vec<ShortId> = tables.logs_of(dot.device).collect();
    if of_device.len() == 1 && (in_past(&dot.device) || tables.logs.contains_key(&dot.device)) {
        return in_past(&dot.device).then_some(Some(*dot));
    }
    let is_device = of_device.len() > 1;
    let is_meant = |log: &ShortId| {
        let event = tables.events.get(&(*log, dot.seq));
        event.is_some_and(|event| {
            let is_it = event.id.as_bytes().starts_with(dot.device.as_bytes());
            if is_device {
                event.author.short() == dot.device
            } else {
                is_it
            }
        })
    };
    // Of a removed device's log the author may have had more than was taken here: not even the branch can be told then.
    let had = |log: &ShortId| {
        let author = tables.logs.get(log).map(|log| log.author.short());
        in_past(log) || (!is_device && author.is_some_and(|author| in_past(&author)))
    };
    let meant = tables.logs.keys().copied().filter(is_meant).filter(had);
    match meant.collect::<Vec<_>>()[..] {
        [device] => Some(Some(Dot { device, ..*dot })),
        [] if !is_device => Some(None),
        _ => None,
    }
}

/// Evaluates the roles from all events at once.
fn rights(tables: &Tables, events: &[Told]) -> Rights {
    let genesis = events
        .iter()
        .find_map(|(event, ..)| match event.body.items.first() {
            Some(Item::Genesis(genesis)) => Some((event.header.author, DeviceId::new(genesis.recovery))),
            _ => None,
        });
    let Some((founder, recovery)) = genesis else {
        return Rights::default();
    };
    let mut admin = AdminHistory::new(founder, recovery);
    for log in tables.logs.values() {
        if let Some(left) = log.left {
            let branch = Branch {
                device: log.author,
                of: left.log,
                from: left.size,
            };
            admin.add_branch(log.name, branch);
        }
    }
    for (event, log, seen) in events {
        let log = *log;
        if !matches!(event.header.kind, EventKind::Genesis | EventKind::Admin) {
            continue;
        }
        let deeds: Vec<(u32, Deed)> = (0..)
            .zip(&event.body.items)
            .filter_map(|(i, item)| Some((i, deed(tables, item)?)))
            .collect();
        for (item, deed) in &deeds {
            let place = Dot {
                device: log,
                seq: event.header.seq,
                item: *item,
            };
            let whom = match deed {
                Deed::Grant(grant) => grant.device,
                Deed::Revoke { device, .. } => *device,
                _ => continue,
            };
            for of in tables.logs_of(whom.short()).filter(|of| *of != log) {
                let knows =
                    |(_, at, seen): &&Told| *at == of && seen.get(&log).is_some_and(|next| place.seq < *next);
                if let Some((first, ..)) = events.iter().find(knows) {
                    admin.note_seen(of, place, first.header.seq);
                }
            }
        }
        admin.add(AdminEvent {
            id: event.id,
            hlc: event.header.hlc,
            author: event.header.author,
            log,
            seq: event.header.seq,
            seen: seen.clone(),
            deeds,
        });
    }
    evaluate(&admin)
}

/// Returns what an item does to the roles; honest devices name heads that they have and invites that signed.
fn deed(tables: &Tables, item: &Item) -> Option<Deed> {
    Some(match item {
        Item::Grant(grant) => Deed::Grant(GrantDeed {
            device: grant.device,
            role: grant.role,
            scopes: grant.scopes.clone(),
            flags: grant.flags,
            invite: match &grant.via {
                GrantVia::Author => None,
                GrantVia::Invite { key, .. } => Some(*key),
            },
        }),
        Item::Invite(invite) => Deed::Invite {
            key: invite.key,
            role: invite.role,
            scopes: invite.scopes.clone(),
        },
        Item::Revoke(revoke) => Deed::Revoke {
            device: revoke.device,
            keep: match &revoke.keep {
                Keep::UntilSeen => Kept::UntilSeen,
                Keep::Heads(heads) => {
                    let points = heads
                        .iter()
                        .map(|head| kept_at(tables, revoke.device.short(), head));
                    Kept::Points(points.flatten().collect())
                }
            },
        },
        Item::Cancel { key } => Deed::Cancel { key: *key },
        _ => return None,
    })
}

/// Returns where a head of a device's log stands; one beyond all that was taken of it, at the end.
fn kept_at(tables: &Tables, device: ShortId, head: &LogHead) -> Option<LogPoint> {
    let mut logs = tables.logs_of(device);
    let log = logs.find(|log| tables.root_at(*log, head.size) == Some(head.root));
    let is_shorter = |log| tables.logs.get(&log).is_none_or(|log| log.size() < head.size);
    let log = match log {
        Some(log) => tables.holder(log, head.size.checked_sub(1)?),
        None if tables.logs_of(device).all(is_shorter) => device,
        None => return None,
    };
    Some(LogPoint { log, size: head.size })
}

/// What should stand at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Exactly this, but for the time.
    Entry(Node, u32),
    /// A directory with whatever mode.
    AnyDir,
}

impl Oracle {
    /// Reads a device's events.
    ///
    /// # Errors
    /// An item that no honest device makes: damaged, void, or out of order.
    pub fn read(tables: &Tables) -> Result<Self, String> {
        let events = with_pasts(tables)?;
        let mut oracle = Self {
            rights: rights(tables, &events),
            ..Self::default()
        };
        for (event, log, seen) in &events {
            if event.header.kind == EventKind::Work {
                oracle.take(tables, event, *log, seen)?;
            }
        }
        for history in oracle.paths.values_mut() {
            history.versions.sort_by_key(|version| version.dot);
        }
        Ok(oracle)
    }

    fn take(
        &mut self,
        tables: &Tables,
        event: &VerifiedEvent,
        log: ShortId,
        past: &Past,
    ) -> Result<(), String> {
        let writable = self
            .rights
            .writable_at(&event.header.author, log, event.header.seq);
        let mut written = BTreeSet::new();
        for (item, place) in event.body.items.iter().zip(0..) {
            let dot = Dot {
                device: log,
                seq: event.header.seq,
                item: place,
            };
            let (path, dots, entry, import) = match item {
                Item::Put(put) => (&put.path, &put.base, Some(put.entry.clone()), put.flags.import),
                Item::Del { path, base, .. } => (path, base, None, false),
                Item::Discard { path, drop } => (path, drop, None, false),
                _ => continue,
            };
            let history = self.paths.entry(path.clone()).or_default();
            let known = |dot: &Dot| history.versions.iter().find(|version| version.dot == *dot);
            let named: Option<Vec<Option<Dot>>> = dots.iter().map(|dot| named(tables, past, dot)).collect();
            let Some(named) = named.map(|named| named.into_iter().flatten().collect::<Vec<Dot>>()) else {
                return Err(format!(
                    "{dot} at {path} names versions that its author did not know: {dots:?}"
                ));
            };
            let is_write = !matches!(item, Item::Discard { .. });
            if is_write && !written.insert(path.clone()) {
                return Err(format!("{dot} writes {path} a second time in one event"));
            }
            if !writable.covers(path) {
                continue;
            }
            if !is_write {
                history
                    .discarded
                    .extend(named.iter().filter(|dot| known(dot).is_some()));
                continue;
            }
            let base: Vec<Version> = named.iter().filter_map(known).cloned().collect();
            history.versions.push(Version {
                dot,
                event: event.id,
                hlc: event.header.hlc,
                base: named.clone(),
                origins: Version::origins_of(entry.as_ref(), &base),
                entry,
                import,
                standing: p2p_sync_core::fold::Standing::default(),
            });
        }
        Ok(())
    }

    /// Folds all paths; names of copies are not given.
    #[must_use]
    pub fn states(&self) -> BTreeMap<RelPath, PathState> {
        let fold = |history: &History| {
            let (heads, fenced) = heads(&history.versions, &history.discarded);
            PathState {
                heads,
                fenced,
                ..PathState::default()
            }
        };
        self.paths
            .iter()
            .map(|(path, history)| (path.clone(), fold(history)))
            .collect()
    }

    /// Returns the tree that these states come to, with the copies under the given names.
    #[must_use]
    pub fn tree(
        states: &BTreeMap<RelPath, PathState>,
        names: &BTreeMap<(RelPath, Dot), RelPath>,
    ) -> BTreeMap<RelPath, Standing> {
        let mut tree = BTreeMap::new();
        let live: Vec<&RelPath> = states
            .iter()
            .filter(|(_, state)| state.is_live())
            .map(|(path, _)| path)
            .collect();
        for path in &live {
            for dir in path.ancestors() {
                tree.insert(dir, Standing::AnyDir);
            }
        }
        for (path, state) in states {
            let below = live.iter().any(|other| other.is_below(path));
            let resolution = resolve(state, below);
            match resolution.here {
                Here::Version(version) => {
                    if let Some(entry) = &version.entry {
                        tree.insert(path.clone(), exactly(entry));
                    }
                }
                Here::ImpliedDir | Here::Nothing => {}
            }
            for copy in resolution.copies {
                if let (Some(name), Some(entry)) = (names.get(&(path.clone(), copy.dot)), &copy.entry) {
                    tree.insert(name.clone(), exactly(entry));
                }
            }
        }
        tree
    }
}

fn exactly(entry: &Entry) -> Standing {
    Standing::Entry(entry.node.clone(), entry.mode)
}
