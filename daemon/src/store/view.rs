//! Reads: the engine's [`StateView`] and what the shell asks for besides.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use p2p_sync_core::content::Manifest;
use p2p_sync_core::engine::{StateView, StoredEvent};
use p2p_sync_core::fold::{PathState, Version};
use p2p_sync_core::ids::{ContentHash, DeviceId, Dot, EventId, ShortId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Installed, Node};
use rusqlite::Connection;

use super::beyond::events_beyond;
use super::codec::{
    CodecError, dot_key, node_key, prefix, read_dot_key, read_installed, read_path_state, read_version,
};
use super::load::{Counts, counts};
use super::lock::LockFile;
use super::rows::{
    RowError, from_bits, optional, partial, path_column, select_event, seq_column, stored_event,
};

/// A connection that reads what is durable.
///
/// Each read shows the state after some whole transaction of the writer's, the newest one there is. The engine's trait
/// leaves no room for errors: a read that fails is logged once, answers as if there were nothing, and latches
/// [`failed`](Self::failed); whoever drives the engine must look at that before acting on its outputs.
#[derive(Debug)]
pub struct StoreView {
    connection: Connection,
    failed: Cell<bool>,
    _lock: Arc<LockFile>,
}

impl StoreView {
    pub(super) fn new(connection: Connection, lock: Arc<LockFile>) -> Self {
        Self {
            connection,
            failed: Cell::new(false),
            _lock: lock,
        }
    }

    /// Says whether a read has failed since this view was made; what it returned then must not be relied on.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Returns the manifest of a content, if one was kept.
    #[must_use]
    pub fn manifest(&self, content: &ContentHash) -> Option<Manifest> {
        self.read("a manifest", |c| {
            let row = optional(
                c,
                "SELECT size, chunks FROM manifests WHERE content = ?1",
                [content.as_bytes()],
                |row| Ok((row.get(0)?, row.get_ref(1)?.as_blob()?.as_chunks().0.to_vec())),
            )?;
            row.map(|(size, chunks)| Ok(Manifest::new(*content, from_bits(size), chunks)?))
                .transpose()
        })
    }

    /// Returns how many bytes the events of each author have that has any, in order of their ids. It costs a row for each
    /// author, however long the ledger is.
    #[must_use]
    pub fn author_bytes(&self) -> Vec<(DeviceId, u64)> {
        self.read("the authors' bytes", |c| {
            let mut statement = c.prepare_cached("SELECT author, bytes FROM author_bytes ORDER BY author")?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((DeviceId::new(row.get(0)?), from_bits(row.get(1)?)));
            }
            Ok(found)
        })
    }

    /// Returns at most `limit` paths at which a content is installed, in byte order.
    #[must_use]
    pub fn paths_with_content(&self, content: &ContentHash, limit: usize) -> Vec<(RelPath, Installed)> {
        self.read("paths by content", |c| paths_with(c, content, limit))
    }

    /// Returns what is installed directly in a directory (`None`: the folder itself), in byte order; with `None` a path
    /// at which nothing is installed, but below it.
    ///
    /// What lies deeper is jumped over: one query more for each directory that holds something.
    #[must_use]
    pub fn installed_children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)> {
        self.read("a directory", |c| installed_children(c, dir))
    }

    /// Returns the first path with a version, in byte order, below `dir` (`None`: the folder itself) and after `after`.
    #[must_use]
    pub fn next_with_history(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        self.read("the next path with a history", |c| {
            let below = "SELECT path FROM versions WHERE path > ?1 AND path < ?2 ORDER BY path LIMIT 1";
            let Some(dir) = dir else {
                let after = after.map_or(&b""[..], RelPath::as_bytes);
                let all = "SELECT path FROM versions WHERE path > ?1 ORDER BY path LIMIT 1";
                return optional(c, all, [after], |row| path_column(row, 0));
            };
            next_below(c, below, Some(dir), after)
        })
    }

    /// Returns at most `limit` items that speak of a path without being versions of it and that the user has not decided
    /// about, in order of path and dot, after `after`.
    #[must_use]
    pub fn unsettled(&self, after: Option<&(RelPath, Dot)>, limit: usize) -> Vec<(RelPath, Dot)> {
        self.read("unsettled mentions", |c| {
            let mut statement = c.prepare_cached(
                "SELECT path, dot FROM mentions WHERE (path, dot) > (?1, ?2) AND settled = 0
                 ORDER BY path, dot LIMIT ?3",
            )?;
            let (path, dot) = after.map_or((&b""[..], Vec::new()), |(path, dot)| {
                (path.as_bytes(), dot_key(*dot).to_vec())
            });
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query((path, dot, limit))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let dot = read_dot_key(row.get_ref(1)?.as_blob()?)?;
                found.push((path_column(row, 0)?, dot));
            }
            Ok(found)
        })
    }

    /// Returns those of [`unsettled`](Self::unsettled) that speak of this path, in dot order.
    #[must_use]
    pub fn unsettled_of(&self, path: &RelPath) -> Vec<Dot> {
        self.read("a path's unsettled mentions", |c| {
            let sql = "SELECT dot FROM mentions WHERE path = ?1 AND settled = 0 ORDER BY dot";
            let mut statement = c.prepare_cached(sql)?;
            let mut rows = statement.query([path.as_bytes()])?;
            let mut dots = Vec::new();
            while let Some(row) = rows.next()? {
                dots.push(read_dot_key(row.get_ref(0)?.as_blob()?)?);
            }
            Ok(dots)
        })
    }

    /// Returns how many rows there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.read("counts", |c| Ok(counts(c)?))
    }

    /// Returns which chunks of a content are in the temporary directory, as it was last committed.
    #[must_use]
    pub fn partial(&self, content: &ContentHash) -> Option<Vec<u8>> {
        self.read("a partial", |c| partial(c, content))
    }

    fn read<T: Default>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> T {
        read(&self.connection).unwrap_or_else(|source| {
            if !self.failed.replace(true) {
                let error: &dyn std::error::Error = &source;
                tracing::error!(what, error, "The store cannot be read");
            }
            T::default()
        })
    }
}

impl StateView for StoreView {
    fn path_state(&self, path: &RelPath) -> Option<PathState> {
        self.read("a path", |c| {
            let sql = "SELECT state FROM paths WHERE path = ?1";
            optional(c, sql, [path.as_bytes()], |row| {
                Ok(read_path_state(row.get_ref(0)?.as_blob()?)?)
            })
        })
    }

    fn version(&self, path: &RelPath, dot: Dot) -> Option<Version> {
        self.read("a version", |c| {
            let sql = "SELECT data FROM versions WHERE path = ?1 AND dot = ?2";
            optional(c, sql, (path.as_bytes(), dot_key(dot)), |row| {
                Ok(read_version(dot, row.get_ref(0)?.as_blob()?)?)
            })
        })
    }

    fn versions_of(&self, path: &RelPath) -> Vec<Version> {
        self.read("a path's versions", |c| {
            let mut statement =
                c.prepare_cached("SELECT dot, data FROM versions WHERE path = ?1 ORDER BY dot")?;
            let mut rows = statement.query([path.as_bytes()])?;
            let mut versions = Vec::new();
            while let Some(row) = rows.next()? {
                let dot = read_dot_key(row.get_ref(0)?.as_blob()?)?;
                versions.push(read_version(dot, row.get_ref(1)?.as_blob()?)?);
            }
            Ok(versions)
        })
    }

    fn mentions(&self, path: &RelPath) -> Vec<Dot> {
        self.read("a path's mentions", |c| {
            let mut statement = c.prepare_cached("SELECT dot FROM mentions WHERE path = ?1 ORDER BY dot")?;
            let mut rows = statement.query([path.as_bytes()])?;
            let mut dots = Vec::new();
            while let Some(row) = rows.next()? {
                dots.push(read_dot_key(row.get_ref(0)?.as_blob()?)?);
            }
            Ok(dots)
        })
    }

    fn versions_with(&self, path: &RelPath, node: &Node) -> Vec<Dot> {
        self.read("versions by content", |c| versions_with(c, path, node))
    }

    fn has_history(&self, path: &RelPath) -> bool {
        self.read("a path's history", |c| {
            let sql = "SELECT 1 FROM versions WHERE path = ?1 LIMIT 1";
            Ok(c.prepare_cached(sql)?.exists([path.as_bytes()])?)
        })
    }

    fn replaced(&self, path: &RelPath, node: &Node) -> Option<(Hlc, EventId)> {
        self.read("a replaced node", |c| {
            let sql = "SELECT hlc, event FROM replaced WHERE path = ?1 AND node = ?2";
            optional(c, sql, (path.as_bytes(), node_key(node)), |row| {
                Ok((Hlc::from_bits(from_bits(row.get(0)?)), EventId::new(row.get(1)?)))
            })
        })
    }

    fn installed(&self, path: &RelPath) -> Option<Installed> {
        self.read("an installed row", |c| {
            let sql = "SELECT data FROM installed WHERE path = ?1";
            optional(c, sql, [path.as_bytes()], |row| {
                Ok(read_installed(row.get_ref(0)?.as_blob()?)?)
            })
        })
    }

    fn next_live_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        self.read("the next live path", |c| {
            let sql = "SELECT path FROM paths INDEXED BY paths_live
                       WHERE live = 1 AND path > ?1 AND path < ?2 ORDER BY path LIMIT 1";
            next_below(c, sql, dir, after)
        })
    }

    fn next_installed_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath> {
        self.read("the next installed path", |c| {
            let sql = "SELECT path FROM installed WHERE path > ?1 AND path < ?2 ORDER BY path LIMIT 1";
            next_below(c, sql, dir, after)
        })
    }

    fn copy_origin(&self, name: &RelPath) -> Option<RelPath> {
        self.read("a copy's origin", |c| {
            let sql = "SELECT origin FROM copy_names WHERE name = ?1";
            optional(c, sql, [name.as_bytes()], |row| path_column(row, 0))
        })
    }

    fn event(&self, author: ShortId, seq: u64) -> Option<StoredEvent> {
        self.read("an event", |c| {
            let sql = select_event!("WHERE short = ?1 AND seq = ?2");
            optional(c, sql, (author.as_bytes(), seq_column(seq)), stored_event)
        })
    }

    fn events_beyond(&self, have: &BTreeMap<ShortId, u64>, max_bytes: usize) -> (Vec<StoredEvent>, bool) {
        self.read("events", |c| events_beyond(c, have, max_bytes))
    }

    fn path_with_content(&self, content: &ContentHash) -> Option<RelPath> {
        let paths = self.paths_with_content(content, 1);
        paths.into_iter().next().map(|(path, _)| path)
    }
}

fn versions_with(c: &Connection, path: &RelPath, node: &Node) -> Result<Vec<Dot>, RowError> {
    let mut statement = c.prepare_cached(
        "SELECT dot, data FROM versions INDEXED BY versions_node WHERE path = ?1 AND node = ?2 ORDER BY dot",
    )?;
    let mut rows = statement.query((path.as_bytes(), prefix(&node_key(node))))?;
    let mut dots = Vec::new();
    while let Some(row) = rows.next()? {
        let dot = read_dot_key(row.get_ref(0)?.as_blob()?)?;
        if read_version(dot, row.get_ref(1)?.as_blob()?)?.node() == Some(node) {
            dots.push(dot);
        }
    }
    Ok(dots)
}

fn next_below(
    c: &Connection,
    sql: &str,
    dir: Option<&RelPath>,
    after: Option<&RelPath>,
) -> Result<Option<RelPath>, RowError> {
    // No path begins with more bytes than a component has, so this comes after all of them.
    let everything = || (Vec::new(), vec![0xff; RelPath::MAX_COMPONENT + 1]);
    let (from, to) = dir.map_or_else(everything, RelPath::below_range);
    // `from` ends in a slash and is no path, so an exclusive bound serves for both.
    let from = after.map_or(&from[..], |after| after.as_bytes().max(&from));
    optional(c, sql, (from, to), |row| path_column(row, 0))
}

fn paths_with(
    c: &Connection,
    content: &ContentHash,
    limit: usize,
) -> Result<Vec<(RelPath, Installed)>, RowError> {
    let mut statement =
        c.prepare_cached("SELECT path, data FROM installed WHERE content = ?1 ORDER BY path")?;
    let mut rows = statement.query([prefix(content.as_bytes())])?;
    let mut paths = Vec::new();
    while paths.len() < limit {
        let Some(row) = rows.next()? else { break };
        let installed = read_installed(row.get_ref(1)?.as_blob()?)?;
        if installed.entry.node.content() == Some(*content) {
            paths.push((path_column(row, 0)?, installed));
        }
    }
    Ok(paths)
}

fn installed_children(
    c: &Connection,
    dir: Option<&RelPath>,
) -> Result<Vec<(RelPath, Option<Installed>)>, RowError> {
    let within = dir.map_or_else(Vec::new, |dir| dir.below_range().0);
    let mut statement =
        c.prepare_cached("SELECT path, data FROM installed WHERE path >= ?1 ORDER BY path")?;
    let mut children = BTreeMap::new();
    let mut from = Some(within.clone());
    while let Some(start) = from.take() {
        let mut rows = statement.query([start])?;
        while let Some(row) = rows.next()? {
            let path = row.get_ref(0)?.as_blob()?;
            let Some(name) = path.strip_prefix(&within[..]) else {
                break;
            };
            if let Some(slash) = name.iter().position(|b| *b == b'/') {
                let child = [&within, &name[..slash]].concat();
                from = Some([&child[..], &[b'/' + 1]].concat());
                let child = RelPath::parse(child).map_err(CodecError::from)?;
                children.entry(child).or_insert(None);
                break;
            }
            let installed = read_installed(row.get_ref(1)?.as_blob()?)?;
            children.insert(path_column(row, 0)?, Some(installed));
        }
    }
    Ok(children.into_iter().collect())
}
