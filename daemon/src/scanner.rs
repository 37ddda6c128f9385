//! The scanner: what is different on disk from what the engine believes. It is the truth; the watcher only hints.
//!
//! A walk compares each entry's `lstat` with the print in the index, directory by directory, with one query for each.
//! Only what differs is read and hashed, and only if it is the same before and after. A file that changed a moment ago
//! may change once more within the same tick of the kernel's clock; its print is made so that it never matches, and it
//! is named in [`ScanReport::retry`], so that it is hashed once more.
//!
//! Nothing is called deleted unless the folder is proven to be the right one and the path to be absent; what cannot be
//! looked at is a problem, not a deletion. Deletions are proven twice, and sent after the additions of the same scan
//! (as far as `HELD_MAX`), so that both ends of a rename are seen together.
//!
//! What a change tells of is on the disk before it is told (`scanner/durable.rs`): a power cut never takes from this
//! device what the others have from it.
//!
//! Of a file with several names only the one by which it was changed is hinted at; the others that the index knows are
//! looked at with it.
//!
//! What is ignored is unknown: it is neither looked at nor missed, and an ignored directory is not entered or watched.
//! The daemon's own directory is left out but for the conflict copies in it that the index knows.
//!
//! The scanner keeps no state: a crash loses nothing, the next scan starts anew.

mod durable;
mod hash;
mod observe;
mod walk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use p2p_sync_core::engine::{FoundBy, LocalChange};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Installed;

use self::durable::Disk;
use self::walk::Walk;
use crate::ignore_rules::Rules;
pub use crate::root_dir::Modes;
use crate::root_dir::{PathError, RootDir};

/// Deletions that are held back until the end of a scan, about 100 bytes each: a renamed directory of so many files is
/// told whole, additions first. More are sent on the way.
const HELD_MAX: usize = 262_144;

/// What is believed to stand on disk.
pub trait InstalledIndex: Send + Sync {
    /// Returns what is believed to stand at a path.
    fn installed(&self, path: &RelPath) -> Option<Installed>;
    /// Returns what is believed to lie directly in a directory (`None`: the folder), sorted by path; with `None` a path of
    /// which nothing is believed but that something lies below it.
    fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)>;
    /// Returns what is believed to lie anywhere below a directory, sorted by path.
    fn below(&self, dir: &RelPath) -> Vec<(RelPath, Installed)>;
    /// Returns paths at which this very file is believed to stand, by content and inode.
    fn same_file(&self, installed: &Installed) -> Vec<RelPath>;
}

/// Whoever wants to know the directories that exist.
pub trait DirWatch: Send + Sync {
    /// A directory, relative to the folder (empty for the folder itself), with its inode, is about to be read. Returns
    /// whether it was not watched before: what changed in it since it was made was not heard of.
    fn watch(&self, dir: &Path, ino: u64) -> bool;
    /// A scan begins that will name every directory.
    fn scan_begins(&self);
    /// That scan has named them all.
    fn scan_ended(&self);
    /// Says whether whatever changes is heard of.
    fn is_complete(&self) -> bool;
}

/// Why a scan came to no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The folder is not the one that was opened, or not where it was: nothing found in it means anything.
    #[error(
        "The folder was moved, replaced or unmounted; put it back, then: syncctl rescan; if it was mounted anew, restart \
         the daemon"
    )]
    RootChanged,
}

/// What a scan leaves behind besides the changes.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// Paths to look at again in 50 ms or more: they changed while they were read, or too short a time before.
    pub retry: Vec<RelPath>,
    /// Paths that cannot be synced or looked at, with the reason.
    pub problems: Vec<(RelPath, String)>,
    /// Entries looked at.
    pub files: u64,
    /// Whether the scan was stopped before its end.
    pub stopped: bool,
}

/// Whether to look below directories that have not changed themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Only below those that are new or replaced; for the watcher's hints.
    Changed,
    /// Always.
    All,
}

/// Finds changes in one folder.
pub struct Scanner {
    root: RootDir,
    root_id: String,
    index: Arc<dyn InstalledIndex>,
    modes: Modes,
    watch: Arc<dyn DirWatch>,
    rules: Arc<Rules>,
    disk: Disk,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Scanner {
    /// Opens a folder that the worktree has prepared.
    ///
    /// # Errors
    /// [`ScanError::Io`] if it or its root id cannot be read.
    pub fn new(
        root: &Path,
        index: Arc<dyn InstalledIndex>,
        modes: Modes,
        watch: Arc<dyn DirWatch>,
        rules: Arc<Rules>,
    ) -> Result<Self, ScanError> {
        let root = RootDir::open(root)?;
        let root_id = root.read_root_id()?;
        Ok(Self {
            root,
            root_id,
            index,
            modes,
            watch,
            rules,
            disk: Disk::default(),
        })
    }

    /// Goes by other ignore rules from the next scan on.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
    }

    /// Sees whether the folder is the one that was opened, and where it was.
    ///
    /// # Errors
    /// [`ScanError::RootChanged`] if not; [`ScanError::Io`] if that cannot be said now.
    pub fn check_root(&self) -> Result<(), ScanError> {
        if self.root.is_root(&self.root_id)? {
            Ok(())
        } else {
            Err(ScanError::RootChanged)
        }
    }

    /// Looks at the whole folder; hands over changes in portions, parents before what lies in them. Blocks.
    ///
    /// # Errors
    /// [`ScanError`]; what was handed over before it still holds.
    pub fn scan_all(
        &self,
        stop: &AtomicBool,
        emit: &mut dyn FnMut(Vec<LocalChange>),
    ) -> Result<ScanReport, ScanError> {
        let mut walk = Walk::new(self, FoundBy::Scan, stop, emit)?;
        self.watch.scan_begins();
        walk.enter(None);
        walk.run(Below::All)?;
        walk.hidden_copies()?;
        let report = walk.finish()?;
        if !report.stopped {
            self.watch.scan_ended();
        }
        Ok(report)
    }

    /// Says whether whatever changes in the folder is heard of, so that scans have little to find.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.watch.is_complete()
    }

    /// Looks at these paths and below. Blocks.
    ///
    /// # Errors
    /// [`ScanError`]; what was handed over before it still holds.
    pub fn scan_paths(
        &self,
        paths: &[RelPath],
        below: Below,
        stop: &AtomicBool,
        emit: &mut dyn FnMut(Vec<LocalChange>),
    ) -> Result<ScanReport, ScanError> {
        let mut walk = Walk::new(self, FoundBy::Look, stop, emit)?;
        let mut starts = BTreeMap::new();
        let mut passed_by = Vec::new();
        for path in paths {
            let start = if path.is_own() {
                path.clone()
            } else {
                self.first_unknown(path)
            };
            // The index may learn of an unknown directory before it is looked at; the path below it must not be lost.
            let below = if start == *path {
                below
            } else {
                passed_by.push(path);
                Below::All
            };
            let known = starts.entry(start).or_insert(below);
            if below == Below::All {
                *known = Below::All;
            }
        }
        walk.follow_links();
        for (path, below) in starts {
            walk.look_at(&path, below)?;
            walk.run(below)?;
        }
        for path in passed_by {
            walk.look_if_gone(path);
        }
        walk.other_names()?;
        walk.finish()
    }

    /// Returns the topmost directory above a path that the index does not know, else the path itself.
    fn first_unknown(&self, path: &RelPath) -> RelPath {
        let mut first = path.clone();
        for above in path.ancestors() {
            if self.index.installed(&above).is_none() {
                first = above;
            }
        }
        first
    }
}

#[cfg(test)]
mod tests;
