//! What is known of a path's versions: the ledger's, and what was replaced here and never published.
//!
//! What stood at a path at a former time is the fold of the versions written before it. Discards, which only take
//! losing copies of a conflict away, are left out of it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use p2p_sync_core::engine::StateView as _;
use p2p_sync_core::fold::{PathState, Version, WriteOrder};
use p2p_sync_core::ids::{ContentHash, Dot};
use p2p_sync_core::ledger::{Item, Put};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Node};

use crate::control::{AtHand, ControlError, HistoryPage, PathVersion, Pick};
use crate::store::StoreView;
use crate::worktree::{Kept, KeptFile};

/// A version, and where it is known from.
struct Row {
    version: PathVersion,
    dot: Option<Dot>,
}

/// Returns versions of a path, newest first.
pub(super) fn page(
    view: &StoreView,
    kept: &Kept,
    path: &RelPath,
    skip: usize,
    limit: usize,
) -> Result<HistoryPage, ControlError> {
    let rows = rows(view, kept, path)?;
    if rows.is_empty() {
        return Err(ControlError::NoVersion(match view.copy_origin(path) {
            Some(origin) => {
                format!(
                    "{path} is a conflict copy: its version is one of {origin}, see: syncctl history '{origin}'"
                )
            }
            None => format!("No version of {path} is known"),
        }));
    }
    let more = rows.len() > skip.saturating_add(limit);
    let shown = rows.into_iter().skip(skip).take(limit);
    let versions = shown.map(|row| complete(view, kept, row)).collect();
    Ok(HistoryPage { versions, more })
}

/// Returns the version that is meant; it is no deletion.
pub(super) fn pick(
    view: &StoreView,
    kept: &Kept,
    path: &RelPath,
    pick: &Pick,
) -> Result<PathVersion, ControlError> {
    let rows = match pick {
        Pick::Before(_) => Vec::new(),
        Pick::Newest | Pick::Id(_) => rows(view, kept, path)?,
    };
    let found = match pick {
        Pick::Newest => newest(rows),
        Pick::Id(id) => by_id(rows, id),
        Pick::Before(time) => {
            then(view, path, millis(*time)).map(|version| row(&version, &PathState::default()))
        }
    };
    let missing = || {
        ControlError::NoVersion(match pick {
            Pick::Newest => format!("No other version of {path} is known"),
            Pick::Id(id) => format!("{path} has no version {id}, or more than one that begins so"),
            Pick::Before(_) => format!("Nothing stood at {path} at that time"),
        })
    };
    let found = found.ok_or_else(missing)?;
    if found.version.entry.is_none() {
        let why = format!("That version removed {path}; choose the one before it");
        return Err(ControlError::NoVersion(why));
    }
    Ok(complete(view, kept, found))
}

fn newest(rows: Vec<Row>) -> Option<Row> {
    let current = rows.iter().find(|row| row.version.current);
    let current = current
        .and_then(|row| row.version.entry.as_ref())
        .map(|entry| entry.node.clone());
    rows.into_iter().find(|row| {
        let node = row.version.entry.as_ref().map(|entry| &entry.node);
        node.is_some() && node != current.as_ref()
    })
}

fn by_id(rows: Vec<Row>, id: &str) -> Option<Row> {
    let at = named(rows.iter().map(|row| row.version.id.as_str()), id)?;
    rows.into_iter().nth(at)
}

/// Returns the place of what has this id, or whose alone begins so.
pub(super) fn named<'a>(ids: impl Iterator<Item = &'a str> + Clone, id: &str) -> Option<usize> {
    let exact = ids.clone().position(|known| known == id);
    let mut matching = ids.enumerate().filter(|(_, known)| known.starts_with(id));
    match (exact, matching.next(), matching.next()) {
        (Some(at), _, _) => Some(at),
        (None, Some((at, _)), None) if !id.is_empty() => Some(at),
        _ => None,
    }
}

/// Returns a version that counts nowhere, as one of its path.
pub(super) fn void_row(view: &StoreView, kept: &Kept, version: &Version) -> PathVersion {
    complete(view, kept, row(version, &PathState::default()))
}

/// Returns all versions of a path, newest first.
fn rows(view: &StoreView, kept: &Kept, path: &RelPath) -> Result<Vec<Row>, ControlError> {
    let state = view.path_state(path).unwrap_or_default();
    let mut versions = view.versions_of(path);
    versions.sort_by_key(|version| std::cmp::Reverse((version.order(), version.dot)));
    let mut known: Vec<Node> = versions
        .iter()
        .filter_map(|version| version.node().cloned())
        .collect();
    let mut rows: Vec<Row> = versions.iter().map(|version| row(version, &state)).collect();
    let files = kept.of_path(path).map_err(|source| ControlError::Io {
        path: kept.path().to_owned(),
        source,
    })?;
    for file in files {
        let Some(entry) = entry_of(kept, &file) else {
            continue;
        };
        if !known.contains(&entry.node) {
            known.push(entry.node.clone());
            rows.push(kept_row(&file, entry));
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.version.time_ms));
    Ok(rows)
}

fn row(version: &Version, state: &PathState) -> Row {
    let current = state.winner().is_some_and(|winner| winner.dot == version.dot);
    let conflict = state.copies().iter().any(|copy| copy.dot == version.dot);
    Row {
        version: PathVersion {
            id: id_of(version.dot),
            author: Some(version.dot.device),
            time_ms: version.hlc.wall_ms(),
            entry: version.entry.clone(),
            current,
            conflict,
            moved: None,
            at_hand: AtHand::NotNeeded,
        },
        dot: Some(version.dot),
    }
}

fn kept_row(file: &KeptFile, entry: Entry) -> Row {
    Row {
        version: PathVersion {
            id: format!("kept-{}", file.tx),
            author: None,
            time_ms: file.kept_at_ms,
            entry: Some(entry),
            current: false,
            conflict: false,
            moved: None,
            at_hand: AtHand::NotNeeded,
        },
        dot: None,
    }
}

/// Returns what a kept file was; `None` if it cannot be read.
pub(super) fn entry_of(kept: &Kept, file: &KeptFile) -> Option<Entry> {
    let node = if file.is_link() {
        Node::Link {
            target: kept.link_text(file).ok()?,
        }
    } else {
        Node::File {
            content: kept.content_of(file).ok()?,
            size: file.size,
        }
    };
    Some(Entry {
        node,
        mode: file.mode & 0o777,
        mtime_ns: file.mtime_ns,
    })
}

/// Adds what is looked up for each version that is shown.
fn complete(view: &StoreView, kept: &Kept, row: Row) -> PathVersion {
    let Row { mut version, dot } = row;
    version.moved = dot.and_then(|dot| moved(view, dot));
    version.at_hand = match version.entry.as_ref().map(|entry| &entry.node) {
        Some(Node::File { content, size: 1.. }) => at_hand(view, kept, content),
        _ => AtHand::NotNeeded,
    };
    version
}

fn at_hand(view: &StoreView, kept: &Kept, content: &ContentHash) -> AtHand {
    if view.path_with_content(content).is_some() {
        AtHand::Folder
    } else if kept.with_content(content, 1).is_empty() {
        AtHand::No
    } else {
        AtHand::Versions
    }
}

fn moved(view: &StoreView, dot: Dot) -> Option<RelPath> {
    let event = view.event(dot.device, dot.seq)?.event.read_stored().ok()?;
    let mut items = event.body.items.into_iter();
    match items.nth(usize::try_from(dot.item).ok()?)? {
        Item::Put(Put { moved_from, .. }) => moved_from,
        Item::Del { moved_to, .. } => moved_to,
        _ => None,
    }
}

pub(super) fn id_of(dot: Dot) -> String {
    format!("{}-{}-{}", dot.device.label(), dot.seq, dot.item)
}

/// Returns what stood at a path before a time, milliseconds since 1970; it may be a deletion.
pub(super) fn then(view: &StoreView, path: &RelPath, before_ms: u64) -> Option<Version> {
    let mut versions = view.versions_of(path);
    versions.retain(|version| version.hlc.wall_ms() < before_ms);
    fold(versions).winner().cloned()
}

/// Folds versions; their order respects what each had seen.
fn fold(mut versions: Vec<Version>) -> PathState {
    versions.sort_by_key(|version| (version.order(), version.dot));
    let mut state = PathState::default();
    let mut known: BTreeMap<Dot, Version> = BTreeMap::new();
    let mut replaced: BTreeMap<Node, WriteOrder> = BTreeMap::new();
    for version in versions {
        let base: Vec<Version> = version
            .base
            .iter()
            .filter_map(|dot| known.get(dot).cloned())
            .collect();
        let replaced_by = version.node().and_then(|node| replaced.get(node).copied());
        let order = version.order();
        known.insert(version.dot, version.clone());
        for node in state.apply(version, &base, replaced_by).replaced {
            let greatest = replaced.entry(node).or_insert(order);
            *greatest = order.max(*greatest);
        }
    }
    state
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
