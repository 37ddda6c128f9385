//! Writes that are not durable yet, laid over the store's view.
//!
//! Every change of state goes through here: it is visible to the engine at once, and [`Pending::close`] turns what
//! changed since the last call into one [`Batch`](super::Batch). When the batch is durable its entries are dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::io::{BatchNo, StateView, StoredEvent, Write};
use crate::content::Manifest;
use crate::fold::{PathState, Version, WriteOrder};
use crate::ids::{Dot, ShortId};
use crate::ledger::LogState;
use crate::rel_path::RelPath;
use crate::tree::{Installed, Node};

/// A row that a batch wrote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Path(RelPath),
    Installed(RelPath),
    CopyName(RelPath),
    Replaced(RelPath, Node),
    Version(RelPath, Dot),
    Mention(RelPath, Dot),
    Event(ShortId, u64),
    Need(RelPath),
    Log(ShortId),
    Setting(&'static str),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    open: BatchNo,
    paths: BTreeMap<RelPath, (BatchNo, Option<PathState>)>,
    installed: BTreeMap<RelPath, (BatchNo, Option<Installed>)>,
    copy_names: BTreeMap<RelPath, (BatchNo, Option<RelPath>)>,
    replaced: BTreeMap<RelPath, BTreeMap<Node, (BatchNo, Option<WriteOrder>)>>,
    versions: BTreeMap<RelPath, BTreeMap<Dot, (BatchNo, Option<Version>)>>,
    mentions: BTreeMap<RelPath, BTreeMap<Dot, (BatchNo, bool)>>,
    events: BTreeMap<(ShortId, u64), (BatchNo, StoredEvent)>,
    /// Values of rows that the engine itself holds in memory: only the newest is written.
    needs: BTreeMap<RelPath, bool>,
    logs: BTreeMap<ShortId, LogState>,
    settings: BTreeMap<&'static str, Option<Vec<u8>>>,
    manifests: Vec<Arc<Manifest>>,
    appended: Vec<StoredEvent>,
    touched: BTreeSet<Key>,
    closed: VecDeque<(BatchNo, BTreeSet<Key>)>,
    /// While set, the view still shows a group that was left.
    forgotten: Option<BatchNo>,
    forget: bool,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            open: BatchNo(1),
            ..Self::default()
        }
    }

    /// Forgets the group: nothing of the view counts any more.
    pub(super) fn forget(&mut self) {
        *self = Self {
            open: self.open,
            closed: std::mem::take(&mut self.closed),
            manifests: std::mem::take(&mut self.manifests),
            forgotten: Some(self.open),
            forget: true,
            ..Self::default()
        };
    }

    pub(super) fn path_state(&self, view: &impl StateView, path: &RelPath) -> Option<PathState> {
        match self.paths.get(path) {
            Some((_, state)) => state.clone(),
            None => self.ask(view, |v| v.path_state(path)),
        }
    }

    pub(super) fn installed(&self, view: &impl StateView, path: &RelPath) -> Option<Installed> {
        match self.installed.get(path) {
            Some((_, installed)) => installed.clone(),
            None => self.ask(view, |v| v.installed(path)),
        }
    }

    pub(super) fn copy_origin(&self, view: &impl StateView, name: &RelPath) -> Option<RelPath> {
        match self.copy_names.get(name) {
            Some((_, origin)) => origin.clone(),
            None => self.ask(view, |v| v.copy_origin(name)),
        }
    }

    pub(super) fn replaced(&self, view: &impl StateView, path: &RelPath, node: &Node) -> Option<WriteOrder> {
        match self.replaced.get(path).and_then(|nodes| nodes.get(node)) {
            Some((_, order)) => *order,
            None => self.ask(view, |v| v.replaced(path, node)),
        }
    }

    pub(super) fn version(&self, view: &impl StateView, path: &RelPath, dot: Dot) -> Option<Version> {
        match self.versions.get(path).and_then(|dots| dots.get(&dot)) {
            Some((_, version)) => version.clone(),
            None => self.ask(view, |v| v.version(path, dot)),
        }
    }

    /// Returns all versions of a path.
    pub(super) fn versions_of(&self, view: &impl StateView, path: &RelPath) -> BTreeMap<Dot, Version> {
        let stored = self.ask(view, |v| Some(v.versions_of(path))).unwrap_or_default();
        let mut all: BTreeMap<Dot, Version> = stored.into_iter().map(|v| (v.dot, v)).collect();
        for (dot, (_, version)) in self.versions.get(path).into_iter().flatten() {
            match version {
                Some(version) => drop(all.insert(*dot, version.clone())),
                None => drop(all.remove(dot)),
            }
        }
        all
    }

    /// Returns the items that speak of a path without being versions of it.
    pub(super) fn mentions(&self, view: &impl StateView, path: &RelPath) -> BTreeSet<Dot> {
        let stored = self.ask(view, |v| Some(v.mentions(path))).unwrap_or_default();
        let mut all: BTreeSet<Dot> = stored.into_iter().collect();
        for (dot, (_, there)) in self.mentions.get(path).into_iter().flatten() {
            if *there {
                all.insert(*dot);
            } else {
                all.remove(dot);
            }
        }
        all
    }

    pub(super) fn versions_with(&self, view: &impl StateView, path: &RelPath, node: &Node) -> Vec<Dot> {
        let mut dots = if self.forgotten.is_some() {
            Vec::new()
        } else {
            view.versions_with(path, node)
        };
        for (dot, (_, version)) in self.versions.get(path).into_iter().flatten() {
            dots.retain(|known| known != dot);
            if version.as_ref().and_then(Version::node) == Some(node) {
                dots.push(*dot);
            }
        }
        dots.sort();
        dots
    }

    pub(super) fn has_history(&self, view: &impl StateView, path: &RelPath) -> bool {
        match self.versions.get(path) {
            Some(dots) if dots.values().any(|(_, version)| version.is_some()) => true,
            Some(_) => !self.versions_of(view, path).is_empty(),
            None => self.forgotten.is_none() && view.has_history(path),
        }
    }

    pub(super) fn event(&self, view: &impl StateView, log: ShortId, seq: u64) -> Option<StoredEvent> {
        match self.events.get(&(log, seq)) {
            Some((_, event)) => Some(event.clone()),
            None => self.ask(view, |v| v.event(log, seq)),
        }
    }

    /// Returns the paths below another at which something is installed that the store may not know of yet.
    pub(super) fn installed_below(&self, path: &RelPath) -> Vec<RelPath> {
        let below = super::below(&self.installed, path);
        below
            .filter(|(_, (_, there))| there.is_some())
            .map(|(other, _)| other.clone())
            .collect()
    }

    /// Returns the paths whose state, or what is installed there, is not durable yet.
    pub(super) fn paths_under_way(&self) -> BTreeSet<RelPath> {
        self.paths.keys().chain(self.installed.keys()).cloned().collect()
    }

    /// Says whether any path below `dir` has a Put among its heads.
    pub(super) fn has_live_below(&self, view: &impl StateView, dir: &RelPath) -> bool {
        let (from, to) = dir.below_range();
        let start = RelPath::parse(&from[..from.len() - 1]);
        let Ok(start) = start else { return false };
        let laid_over = self
            .paths
            .range(start..)
            .skip_while(|(path, _)| path.as_bytes() < &from[..])
            .take_while(|(path, _)| path.as_bytes() < &to[..])
            .any(|(_, (_, state))| state.as_ref().is_some_and(PathState::is_live));
        if laid_over || self.forgotten.is_some() {
            return laid_over;
        }
        let mut after: Option<RelPath> = None;
        while let Some(path) = view.next_live_below(Some(dir), after.as_ref()) {
            if !self.paths.contains_key(&path) {
                return true;
            }
            after = Some(path);
        }
        false
    }

    pub(super) fn set_path_state(&mut self, path: &RelPath, state: Option<PathState>) {
        self.paths.insert(path.clone(), (self.open, state));
        self.touched.insert(Key::Path(path.clone()));
    }

    pub(super) fn set_installed(&mut self, path: &RelPath, installed: Option<Installed>) {
        self.installed.insert(path.clone(), (self.open, installed));
        self.touched.insert(Key::Installed(path.clone()));
    }

    pub(super) fn set_copy_name(&mut self, name: &RelPath, origin: Option<RelPath>) {
        self.copy_names.insert(name.clone(), (self.open, origin));
        self.touched.insert(Key::CopyName(name.clone()));
    }

    pub(super) fn set_replaced(&mut self, path: &RelPath, node: Node, order: Option<WriteOrder>) {
        self.touched.insert(Key::Replaced(path.clone(), node.clone()));
        self.replaced
            .entry(path.clone())
            .or_default()
            .insert(node, (self.open, order));
    }

    pub(super) fn set_version(&mut self, path: &RelPath, dot: Dot, version: Option<Version>) {
        self.touched.insert(Key::Version(path.clone(), dot));
        self.versions
            .entry(path.clone())
            .or_default()
            .insert(dot, (self.open, version));
    }

    pub(super) fn set_mention(&mut self, path: &RelPath, dot: Dot, there: bool) {
        self.touched.insert(Key::Mention(path.clone(), dot));
        self.mentions
            .entry(path.clone())
            .or_default()
            .insert(dot, (self.open, there));
    }

    pub(super) fn add_event(&mut self, event: StoredEvent) {
        let key = (event.log, event.seq);
        self.touched.insert(Key::Event(key.0, key.1));
        self.appended.push(event.clone());
        self.events.insert(key, (self.open, event));
    }

    pub(super) fn set_log(&mut self, log: LogState) {
        self.touched.insert(Key::Log(log.name));
        self.logs.insert(log.name, log);
    }

    pub(super) fn set_need(&mut self, path: &RelPath, needed: bool) {
        self.touched.insert(Key::Need(path.clone()));
        self.needs.insert(path.clone(), needed);
    }

    pub(super) fn set_setting(&mut self, name: &'static str, value: Option<Vec<u8>>) {
        self.touched.insert(Key::Setting(name));
        self.settings.insert(name, value);
    }

    pub(super) fn add_manifest(&mut self, manifest: Arc<Manifest>) {
        self.manifests.push(manifest);
    }

    /// Returns what was written since the last call as a batch; `None` if nothing was.
    pub(super) fn close(&mut self) -> Option<super::Batch> {
        if self.touched.is_empty() && self.manifests.is_empty() && !self.forget {
            return None;
        }
        let no = self.open;
        let touched = std::mem::take(&mut self.touched);
        let mut writes = Vec::with_capacity(touched.len() + 1);
        if std::mem::take(&mut self.forget) {
            writes.push(Write::Forget);
        }
        writes.extend(
            std::mem::take(&mut self.manifests)
                .into_iter()
                .map(Write::Manifest),
        );
        writes.extend(std::mem::take(&mut self.appended).into_iter().map(Write::Event));
        writes.extend(touched.iter().filter_map(|key| self.write_of(key)));
        self.needs.clear();
        self.logs.clear();
        self.settings.clear();
        self.closed.push_back((no, touched));
        self.open = BatchNo(no.0 + 1);
        Some(super::Batch { no, writes })
    }

    /// Drops what is durable; returns the paths at which something is installed that became durable.
    pub(super) fn persisted(&mut self, through: BatchNo) -> Vec<RelPath> {
        let mut installed = Vec::new();
        if self.forgotten.is_some_and(|no| no <= through) {
            self.forgotten = None;
        }
        while self.closed.front().is_some_and(|(no, _)| *no <= through) {
            let Some((no, keys)) = self.closed.pop_front() else {
                break;
            };
            for key in keys {
                let there = |path| matches!(self.installed.get(path), Some((at, Some(_))) if *at == no);
                if let Key::Installed(path) = &key
                    && there(path)
                {
                    installed.push(path.clone());
                }
                self.drop_if(&key, no);
            }
        }
        installed
    }

    fn drop_if(&mut self, key: &Key, no: BatchNo) {
        match key {
            Key::Path(path) => remove_if(&mut self.paths, path, no),
            Key::Installed(path) => remove_if(&mut self.installed, path, no),
            Key::CopyName(name) => remove_if(&mut self.copy_names, name, no),
            Key::Event(log, seq) => remove_if(&mut self.events, &(*log, *seq), no),
            Key::Replaced(path, node) => remove_below(&mut self.replaced, path, node, no),
            Key::Version(path, dot) => remove_below(&mut self.versions, path, dot, no),
            Key::Mention(path, dot) => remove_below(&mut self.mentions, path, dot, no),
            Key::Need(_) | Key::Log(_) | Key::Setting(_) => {}
        }
    }

    fn write_of(&self, key: &Key) -> Option<Write> {
        Some(match key {
            Key::Path(path) => Write::PathState(path.clone(), self.paths.get(path)?.1.clone()),
            Key::Installed(path) => Write::Installed(path.clone(), self.installed.get(path)?.1.clone()),
            Key::CopyName(name) => Write::CopyName {
                name: name.clone(),
                origin: self.copy_names.get(name)?.1.clone(),
            },
            Key::Replaced(path, node) => {
                Write::Replaced(path.clone(), node.clone(), self.replaced.get(path)?.get(node)?.1)
            }
            Key::Version(path, dot) => {
                Write::Version(path.clone(), *dot, self.versions.get(path)?.get(dot)?.1.clone())
            }
            Key::Mention(path, dot) => {
                Write::Mention(path.clone(), *dot, self.mentions.get(path)?.get(dot)?.1)
            }
            Key::Need(path) => Write::Need(path.clone(), *self.needs.get(path)?),
            Key::Log(log) => Write::Log(*log, self.logs.get(log)?.clone()),
            Key::Setting(name) => Write::Setting(name, self.settings.get(name)?.clone()),
            Key::Event(..) => return None,
        })
    }

    fn ask<V: StateView, T>(&self, view: &V, read: impl FnOnce(&V) -> Option<T>) -> Option<T> {
        if self.forgotten.is_some() {
            None
        } else {
            read(view)
        }
    }
}

fn remove_if<K: Ord, T>(map: &mut BTreeMap<K, (BatchNo, T)>, key: &K, no: BatchNo) {
    if map.get(key).is_some_and(|(at, _)| *at == no) {
        map.remove(key);
    }
}

fn remove_below<K: Ord, T>(
    map: &mut BTreeMap<RelPath, BTreeMap<K, (BatchNo, T)>>,
    path: &RelPath,
    key: &K,
    no: BatchNo,
) {
    if let Some(inner) = map.get_mut(path) {
        remove_if(inner, key, no);
        if inner.is_empty() {
            map.remove(path);
        }
    }
}
