//! What the store must do, with maps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use p2p_sync_core::content::Manifest;
use p2p_sync_core::engine::{StateView, StoredEvent, Write};
use p2p_sync_core::fold::{PathState, Version};
use p2p_sync_core::ids::{ContentHash, DeviceId, Dot, EventId, ShortId};
use p2p_sync_core::ledger::LogState;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Installed, Node};

#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    pub(super) group: Group,
    pub(super) manifests: BTreeMap<ContentHash, Arc<Manifest>>,
}

/// What [`Write::Forget`] forgets.
#[derive(Debug, Default, Clone)]
pub(super) struct Group {
    pub(super) events: Vec<StoredEvent>,
    pub(super) logs: BTreeMap<ShortId, LogState>,
    pub(super) versions: BTreeMap<(RelPath, Dot), Version>,
    pub(super) mentions: BTreeSet<(RelPath, Dot)>,
    pub(super) paths: BTreeMap<RelPath, PathState>,
    pub(super) replaced: BTreeMap<(RelPath, Node), (Hlc, EventId)>,
    pub(super) installed: BTreeMap<RelPath, Installed>,
    pub(super) copy_names: BTreeMap<RelPath, RelPath>,
    pub(super) needs: BTreeSet<RelPath>,
    pub(super) settings: BTreeMap<String, Vec<u8>>,
}

impl Model {
    pub(super) fn apply(&mut self, write: &Write) {
        let group = &mut self.group;
        match write.clone() {
            Write::Event(event) => group.events.push(event),
            Write::Log(short, log) => drop(group.logs.insert(short, log)),
            Write::Version(path, dot, version) => set(&mut group.versions, (path, dot), version),
            Write::Mention(path, dot, true) => drop(group.mentions.insert((path, dot))),
            Write::Mention(path, dot, false) => drop(group.mentions.remove(&(path, dot))),
            Write::PathState(path, state) => set(&mut group.paths, path, state),
            Write::Replaced(path, node, order) => set(&mut group.replaced, (path, node), order),
            Write::Installed(path, installed) => set(&mut group.installed, path, installed),
            Write::CopyName { name, origin } => set(&mut group.copy_names, name, origin),
            Write::Need(path, true) => drop(group.needs.insert(path)),
            Write::Need(path, false) => drop(group.needs.remove(&path)),
            Write::Manifest(manifest) => drop(self.manifests.insert(manifest.content(), manifest)),
            Write::Setting(name, value) => set(&mut group.settings, name.into(), value),
            Write::Forget => *group = Group::default(),
        }
    }

    /// Returns the size of an author's log.
    pub(super) fn log_size(&self, author: ShortId) -> u64 {
        let own = |event: &&StoredEvent| event.log == author;
        self.group.events.iter().filter(own).count() as u64
    }

    /// Returns how many bytes the events of each author have.
    pub(super) fn author_bytes(&self) -> Vec<(DeviceId, u64)> {
        let mut bytes = BTreeMap::new();
        for event in &self.group.events {
            *bytes.entry(event.author).or_insert(0) += event.event.len() as u64;
        }
        bytes.into_iter().collect()
    }

    pub(super) fn next_with_history(
        &self,
        dir: Option<&RelPath>,
        after: Option<&RelPath>,
    ) -> Option<RelPath> {
        let behind = |path: &&RelPath| {
            dir.is_none_or(|dir| path.is_below(dir)) && after.is_none_or(|after| *path > after)
        };
        let mut paths = self.group.versions.keys().map(|(path, _)| path);
        paths.find(behind).cloned()
    }

    pub(super) fn with_content(&self, content: &ContentHash) -> Vec<(RelPath, Installed)> {
        let has = |(_, i): &(&RelPath, &Installed)| i.entry.node.content() == Some(*content);
        let found = self.group.installed.iter().filter(has);
        found.map(|(path, i)| (path.clone(), i.clone())).collect()
    }

    pub(super) fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)> {
        let paths = self.group.installed.keys();
        let named = paths.flat_map(|path| std::iter::once(path.clone()).chain(path.ancestors()));
        let direct: BTreeSet<RelPath> = named.filter(|path| path.parent().as_ref() == dir).collect();
        let rows = direct.into_iter().map(|path| {
            let row = self.group.installed.get(&path).cloned();
            (path, row)
        });
        rows.collect()
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn next<V>(
    map: &BTreeMap<RelPath, V>,
    dir: Option<&RelPath>,
    after: Option<&RelPath>,
    wanted: impl Fn(&V) -> bool,
) -> Option<RelPath> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    map.range((from, Bound::Unbounded))
        .find(|(path, value)| dir.is_none_or(|dir| path.is_below(dir)) && wanted(value))
        .map(|(path, _)| path.clone())
}

impl StateView for Model {
    fn path_state(&self, path: &RelPath) -> Option<PathState> {
        self.group.paths.get(path).cloned()
    }

    fn version(&self, path: &RelPath, dot: Dot) -> Option<Version> {
        self.group.versions.get(&(path.clone(), dot)).cloned()
    }

    fn versions_of(&self, path: &RelPath) -> Vec<Version> {
        let of = self.group.versions.iter().filter(|((at, _), _)| at == path);
        of.map(|(_, version)| version.clone()).collect()
    }

    fn mentions(&self, path: &RelPath) -> Vec<Dot> {
        let of = self.group.mentions.iter().filter(|(at, _)| at == path);
        of.map(|(_, dot)| *dot).collect()
    }

    fn versions_with(&self, path: &RelPath, node: &Node) -> Vec<Dot> {
        let has =
            |((at, _), version): &(&(RelPath, Dot), &Version)| at == path && version.node() == Some(node);
        self.group
            .versions
            .iter()
            .filter(has)
            .map(|((_, dot), _)| *dot)
            .collect()
    }

    fn has_history(&self, path: &RelPath) -> bool {
        self.group.versions.keys().any(|(at, _)| at == path)
    }

    fn replaced(&self, path: &RelPath, node: &Node) -> Option<(Hlc, EventId)> {
        self.group.replaced.get(&(path.clone(), node.clone())).copied()
    }

    fn installed(&self, path: &RelPath) -> Option<Installed> {
        self.group.installed.get(path).cloned()
    }

    fn next_live_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        next(&self.group.paths, dir, after, PathState::is_live)
    }

    fn next_installed_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        next(&self.group.installed, dir, after, |_| true)
    }

    fn copy_origin(&self, name: &RelPath) -> Option<RelPath> {
        self.group.copy_names.get(name).cloned()
    }

    fn event(&self, author: ShortId, seq: u64) -> Option<StoredEvent> {
        let is = |event: &&StoredEvent| event.log == author && event.seq == seq;
        self.group.events.iter().find(is).cloned()
    }

    fn events_beyond(&self, have: &BTreeMap<ShortId, u64>, max_bytes: usize) -> (Vec<StoredEvent>, bool) {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for event in &self.group.events {
            if have.get(&event.log).is_some_and(|size| event.seq < *size) {
                continue;
            }
            bytes += event.event.len();
            if bytes > max_bytes && !events.is_empty() {
                return (events, true);
            }
            events.push(event.clone());
        }
        (events, false)
    }

    fn path_with_content(&self, content: &ContentHash) -> Option<RelPath> {
        self.with_content(content)
            .into_iter()
            .next()
            .map(|(path, _)| path)
    }
}
