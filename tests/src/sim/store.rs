//! The store in memory: what is durable, and batches that are not yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use p2p_sync_core::engine::{Batch, BatchNo, COMPARE, COMPARE_NOW, Recovered, StateView, StoredEvent, Write};
use p2p_sync_core::fold::{PathState, Version, WriteOrder};
use p2p_sync_core::ids::{ContentHash, Dot, EventId, ShortId};
use p2p_sync_core::ledger::{Header, LogState};
use p2p_sync_core::merkle::Hash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Installed, Node};

/// Kinds of events that are read again at start: Genesis and Admin.
const LAST_ADMIN_KIND: u16 = 1;

/// The tables; what a [`StateView`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// By author and place.
    pub events: BTreeMap<(ShortId, u64), StoredEvent>,
    /// In order of arrival.
    pub arrival: Vec<(ShortId, u64)>,
    /// By author.
    pub logs: BTreeMap<ShortId, LogState>,
    /// By path and dot.
    pub versions: BTreeMap<RelPath, BTreeMap<Dot, Version>>,
    /// Items that speak of a path without being versions of it.
    pub mentions: BTreeSet<(RelPath, Dot)>,
    /// By path.
    pub path_states: BTreeMap<RelPath, PathState>,
    /// By path and what was replaced.
    pub replaced: BTreeMap<(RelPath, Node), WriteOrder>,
    /// By path.
    pub installed: BTreeMap<RelPath, Installed>,
    /// By name on disk.
    pub copy_names: BTreeMap<RelPath, RelPath>,
    /// Paths that differ from what the ledger wants.
    pub needs: BTreeSet<RelPath>,
    /// Small named values.
    pub settings: BTreeMap<String, Vec<u8>>,
}

/// The tables with the batches that are on their way to them.
#[derive(Debug, Default)]
pub struct MemoryStore {
    durable: Tables,
    pending: VecDeque<Batch>,
}

impl MemoryStore {
    /// Returns what is durable.
    #[must_use]
    pub const fn durable(&self) -> &Tables {
        &self.durable
    }

    /// Takes a batch, not yet durable.
    pub fn push(&mut self, batch: Batch) {
        self.pending.push_back(batch);
    }

    /// Makes the oldest batch durable and returns it.
    pub fn commit_next(&mut self) -> Option<Batch> {
        let batch = self.pending.pop_front()?;
        for write in batch.writes.clone() {
            self.durable.write(write);
        }
        Some(batch)
    }

    /// Says whether nothing is on its way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the number of the newest batch taken in this run.
    #[must_use]
    pub fn newest_pending(&self) -> Option<BatchNo> {
        self.pending.back().map(|batch| batch.no)
    }

    /// The power goes: `survivors` of the batches on their way became durable, the others are gone.
    pub fn crash(&mut self, survivors: usize) {
        for _ in 0..survivors {
            self.commit_next();
        }
        self.pending.clear();
    }

    /// An old copy is put back, and what it says of the folder is forgotten: the engine compares the folder when its ledger
    /// is complete.
    pub fn put_back(&mut self, old: Tables) {
        self.pending.clear();
        self.durable = old;
        let tables = &mut self.durable;
        tables.installed.clear();
        let live = tables.path_states.keys().chain(tables.copy_names.keys());
        tables.needs.extend(live.cloned());
        tables.settings.insert(COMPARE.to_owned(), Vec::new());
    }

    /// As [`MemoryStore::put_back`], for a device whose group has nobody else: the folder is compared at once.
    pub fn put_back_alone(&mut self, old: Tables) {
        self.put_back(old);
        let how = COMPARE_NOW.to_vec();
        self.durable.settings.insert(COMPARE.to_owned(), how);
    }

    /// Takes these tables instead of its own.
    pub fn restore(&mut self, tables: Tables) {
        self.durable = tables;
        self.pending.clear();
    }

    /// Returns how many batches are on their way.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Returns what a starting engine is given.
    #[must_use]
    pub fn recover(&self) -> Recovered {
        let tables = &self.durable;
        let admin = tables.arrival.iter().filter_map(|key| tables.events.get(key));
        let copies = tables.installed.values().filter(|row| row.copy_of.is_some());
        Recovered {
            logs: tables.logs.clone(),
            admin_events: admin
                .filter(|event| event.kind <= LAST_ADMIN_KIND)
                .cloned()
                .collect(),
            needs: tables.needs.iter().cloned().collect(),
            settings: tables.settings.clone(),
            installed_count: tables.installed.len() as u64,
            copies_count: copies.count() as u64,
        }
    }
}

impl Tables {
    fn write(&mut self, write: Write) {
        match write {
            Write::Event(event) => {
                let key = (event.log, event.seq);
                if self.events.insert(key, event).is_none() {
                    self.arrival.push(key);
                }
            }
            Write::Log(device, log) => {
                self.logs.insert(device, log);
            }
            Write::Version(path, dot, version) => {
                let dots = self.versions.entry(path.clone()).or_default();
                set(dots, dot, version);
                if dots.is_empty() {
                    self.versions.remove(&path);
                }
            }
            Write::Mention(path, dot, true) => {
                self.mentions.insert((path, dot));
            }
            Write::Mention(path, dot, false) => {
                self.mentions.remove(&(path, dot));
            }
            Write::PathState(path, state) => set(&mut self.path_states, path, state),
            Write::Replaced(path, node, order) => set(&mut self.replaced, (path, node), order),
            Write::Installed(path, row) => set(&mut self.installed, path, row),
            Write::CopyName { name, origin } => set(&mut self.copy_names, name, origin),
            Write::Need(path, true) => {
                self.needs.insert(path);
            }
            Write::Need(path, false) => {
                self.needs.remove(&path);
            }
            Write::Manifest(_) => {}
            Write::Setting(name, value) => set(&mut self.settings, name.to_owned(), value),
            Write::Forget => *self = Self::default(),
        }
    }

    /// Says whether this event, with these bytes, is durable.
    #[must_use]
    pub fn holds(&self, device: ShortId, seq: u64, id: &EventId) -> bool {
        let mut events = self
            .logs_of(device)
            .filter_map(|log| self.events.get(&(log, seq)));
        events.any(|event| event.id == *id)
    }

    /// Returns the names of a device's logs: its own, and those of further branches.
    pub fn logs_of(&self, device: ShortId) -> impl Iterator<Item = ShortId> {
        let further = self.logs.values();
        let further = further.filter(move |log| log.left.is_some() && log.author.short() == device);
        std::iter::once(device).chain(further.map(|log| log.name))
    }

    /// Returns a path's state with its dots as all devices call them: once a device's log has forked, by the beginning of the
    /// event's id.
    #[must_use]
    pub fn told(&self, state: &PathState) -> PathState {
        let mut told = state.clone();
        for head in &mut told.heads {
            let dots = head
                .base
                .iter_mut()
                .chain(head.origins.iter_mut().map(|origin| &mut origin.dot));
            for dot in dots.chain([&mut head.dot]) {
                *dot = self.told_dot(*dot);
            }
            head.base.sort();
            head.origins.sort();
        }
        told.heads.sort_by_key(|head| head.dot);
        told.shown
            .iter_mut()
            .for_each(|(_, dot)| *dot = self.told_dot(*dot));
        told
    }

    fn told_dot(&self, dot: Dot) -> Dot {
        let Some(log) = self.logs.get(&dot.device) else {
            return dot;
        };
        let device = log.author.short();
        let forked = self.logs_of(device).nth(1).is_some();
        let event = self.events.get(&(dot.device, dot.seq)).filter(|_| forked);
        let id = event.and_then(|event| ShortId::from_slice(&event.id.as_bytes()[..ShortId::LEN]).ok());
        Dot {
            device: id.unwrap_or(device),
            ..dot
        }
    }

    /// Returns the tree head over the first `size` events of a log.
    #[must_use]
    pub fn root_at(&self, log: ShortId, size: u64) -> Option<Hash> {
        let state = self.logs.get(&log)?;
        if state.size() == size {
            return Some(state.peaks.root());
        }
        let next = self.events.get(&(self.holder(log, size), size))?;
        Some(Header::from_bytes(&next.event.header).ok()?.prev_root)
    }

    /// Returns the log to which event `seq` on the way to the end of `log` belongs.
    #[must_use]
    pub fn holder(&self, log: ShortId, seq: u64) -> ShortId {
        let mut at = log;
        while let Some(left) = self.logs.get(&at).and_then(|log| log.left)
            && seq < left.size
        {
            at = left.log;
        }
        at
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// Returns the first key below `dir` and after `after` whose value passes.
fn next_below<V>(
    map: &BTreeMap<RelPath, V>,
    dir: Option<&RelPath>,
    after: Option<&RelPath>,
    passes: impl Fn(&V) -> bool,
) -> Option<RelPath> {
    let end = dir.map(|dir| dir.below_range().1);
    let from = after.max(dir).map_or(Bound::Unbounded, Bound::Excluded);
    map.range((from, Bound::Unbounded))
        .take_while(|(path, _)| end.as_ref().is_none_or(|end| path.as_bytes() < &end[..]))
        .find(|(path, value)| dir.is_none_or(|dir| path.is_below(dir)) && passes(value))
        .map(|(path, _)| path.clone())
}

impl StateView for Tables {
    fn path_state(&self, path: &RelPath) -> Option<PathState> {
        self.path_states.get(path).cloned()
    }

    fn version(&self, path: &RelPath, dot: Dot) -> Option<Version> {
        self.versions.get(path)?.get(&dot).cloned()
    }

    fn versions_of(&self, path: &RelPath) -> Vec<Version> {
        let versions = self.versions.get(path).into_iter().flatten();
        versions.map(|(_, version)| version.clone()).collect()
    }

    fn mentions(&self, path: &RelPath) -> Vec<Dot> {
        let of = self.mentions.iter().filter(|(at, _)| at == path);
        of.map(|(_, dot)| *dot).collect()
    }

    fn versions_with(&self, path: &RelPath, node: &Node) -> Vec<Dot> {
        let versions = self.versions.get(path).into_iter().flatten();
        versions
            .filter(|(_, version)| version.node() == Some(node))
            .map(|(dot, _)| *dot)
            .collect()
    }

    fn has_history(&self, path: &RelPath) -> bool {
        self.versions.contains_key(path)
    }

    fn replaced(&self, path: &RelPath, node: &Node) -> Option<(Hlc, EventId)> {
        self.replaced.get(&(path.clone(), node.clone())).copied()
    }

    fn installed(&self, path: &RelPath) -> Option<Installed> {
        self.installed.get(path).cloned()
    }

    fn next_live_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        next_below(&self.path_states, dir, after, PathState::is_live)
    }

    fn next_installed_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        next_below(&self.installed, dir, after, |_| true)
    }

    fn copy_origin(&self, name: &RelPath) -> Option<RelPath> {
        self.copy_names.get(name).cloned()
    }

    fn event(&self, author: ShortId, seq: u64) -> Option<StoredEvent> {
        self.events.get(&(author, seq)).cloned()
    }

    fn events_beyond(&self, have: &BTreeMap<ShortId, u64>, max_bytes: usize) -> (Vec<StoredEvent>, bool) {
        let mut page = Vec::new();
        let mut bytes = 0;
        for key in &self.arrival {
            if key.1 < have.get(&key.0).copied().unwrap_or(0) {
                continue;
            }
            let Some(event) = self.events.get(key) else {
                continue;
            };
            if !page.is_empty() && bytes + event.event.len() > max_bytes {
                return (page, true);
            }
            bytes += event.event.len();
            page.push(event.clone());
        }
        (page, false)
    }

    fn path_with_content(&self, content: &ContentHash) -> Option<RelPath> {
        let holds = |row: &&Installed| row.entry.node.content() == Some(*content);
        self.installed
            .iter()
            .find(|(_, row)| holds(row))
            .map(|(path, _)| path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    fn setting(no: u64, value: u8) -> Batch {
        Batch {
            no: BatchNo(no),
            writes: vec![Write::Setting("k", Some(vec![value]))],
        }
    }

    #[test]
    fn what_is_not_durable_is_lost_in_a_crash() {
        let mut store = MemoryStore::default();
        store.push(setting(1, 1));
        assert_eq!(store.durable().settings.get("k"), None);
        store.commit_next();
        store.push(setting(2, 2));
        store.push(setting(3, 3));
        store.crash(1);
        assert_eq!(store.recover().settings.get("k"), Some(&vec![2]));
        assert!(store.is_settled());
    }

    #[test]
    fn what_lies_below_a_directory_is_listed_in_byte_order() {
        let mut map = BTreeMap::new();
        for name in ["d", "d-x", "d/a", "d/b", "d0", "e"] {
            map.insert(path(name), ());
        }
        let dir = path("d");
        let mut found = Vec::new();
        let mut after: Option<RelPath> = None;
        while let Some(next) = next_below(&map, Some(&dir), after.as_ref(), |()| true) {
            found.push(next.to_string());
            after = Some(next);
        }
        assert_eq!(found, ["d/a", "d/b"]);
    }
}
