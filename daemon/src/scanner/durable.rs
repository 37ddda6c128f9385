//! Making durable what changes tell of, before they are told.
//!
//! An event is durable before it is sent; the user's file that it describes must be as well. If the machine lost power
//! in between, the others would have bytes that this device has no more, and worse: a file whose length and times reached
//! the disk but whose bytes did not looks as published, though it is not, and one that was torn looks like a newer edit,
//! which replaces the good bytes everywhere. A renamed or deleted entry that comes back would look like a new one.
//!
//! So files are synced, and the directories in which something came or went; from [`SYNCFS_FROM`] of them the whole file
//! system at once. What the disk refuses is not told but named, and looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
#[cfg(test)]
use std::sync::Mutex;

use p2p_sync_core::engine::LocalChange;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Node;
use rustix::io::Errno;

use crate::root_dir::RootDir;

/// Files and directories from which one `syncfs` is cheaper than an fsync for each.
const SYNCFS_FROM: usize = 16;

/// The one way to the disk, so that tests see what was synced, and can refuse it.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Inodes that were synced; 0 for a whole file system.
    #[cfg(test)]
    pub(super) synced: Mutex<BTreeSet<u64>>,
    /// The inode that fails.
    #[cfg(test)]
    pub(super) refuses: Mutex<Option<u64>>,
}

impl Disk {
    fn fsync(&self, fd: impl AsFd) -> Result<(), Errno> {
        #[cfg(test)]
        {
            let ino = rustix::fs::fstat(&fd)?.st_ino;
            if *self.refuses.lock().unwrap() == Some(ino) {
                return Err(Errno::IO);
            }
            self.synced.lock().unwrap().insert(ino);
        }
        let _ = self;
        rustix::fs::fsync(fd)
    }

    fn syncfs(&self, root: &RootDir) -> Result<(), Errno> {
        #[cfg(test)]
        self.synced.lock().unwrap().insert(0);
        let _ = self;
        rustix::fs::syncfs(root.fd())
    }

    /// Syncs what these changes tell of, and takes out and returns those that the disk did not confirm, with its reason,
    /// or none if another entry stands there by now. Blocks as long as the disk needs.
    pub(super) fn make_durable(
        &self,
        root: &RootDir,
        changes: &mut Vec<LocalChange>,
    ) -> Vec<(RelPath, Option<String>)> {
        let dirs: BTreeSet<Option<RelPath>> = changes.iter().map(|change| change.path.parent()).collect();
        let entries = changes.iter().filter(|change| has_more_than_a_name(change));
        if dirs.len() + entries.count() >= SYNCFS_FROM && self.syncfs(root).is_ok() {
            return Vec::new();
        }
        let mut failed_dirs = BTreeMap::new();
        for dir in dirs {
            if let Err(e) = self.sync_dir(root, dir.as_ref()) {
                failed_dirs.insert(dir, e.to_string());
            }
        }
        let mut refused = Vec::new();
        changes.retain(|change| {
            let result = match failed_dirs.get(&change.path.parent()) {
                Some(why) => Err(Some(why.clone())),
                None if has_more_than_a_name(change) => self.sync_entry(root, change),
                None => Ok(()),
            };
            result
                .map_err(|why| refused.push((change.path.clone(), why)))
                .is_ok()
        });
        refused
    }

    /// Syncs a file or directory; the error is as in `make_durable`.
    fn sync_entry(&self, root: &RootDir, change: &LocalChange) -> Result<(), Option<String>> {
        let Some(after) = &change.after else { return Ok(()) };
        let opened = if after.entry.node.is_dir() {
            root.open_dir(Some(&change.path))
        } else {
            root.open_file(&change.path)
        };
        let reason = |e: io::Error| Some(e.to_string());
        match opened {
            Ok(file) => {
                self.sync(&file, root).map_err(reason)?;
                let stat = rustix::fs::fstat(&file).map_err(|e| reason(e.into()))?;
                (stat.st_ino == after.print.ino).then_some(()).ok_or(None)
            }
            Err(e) if is_gone(&e) => Err(None),
            // Not ours to open; the whole file system is.
            Err(_) => self.sync_all(root).map_err(reason),
        }
    }

    /// Syncs the nearest directory that is there: what lay in one that is gone went with it.
    fn sync_dir(&self, root: &RootDir, dir: Option<&RelPath>) -> io::Result<()> {
        let mut dir = dir.cloned();
        loop {
            match (root.open_dir(dir.as_ref()), dir) {
                (Ok(fd), _) => return self.sync(fd, root),
                (Err(e), Some(gone)) if is_gone(&e) => dir = gone.parent(),
                (Err(_), _) => return self.sync_all(root),
            }
        }
    }

    /// Syncs what is open; the whole file system where one file cannot be.
    fn sync(&self, fd: impl AsFd, root: &RootDir) -> io::Result<()> {
        match self.fsync(fd) {
            Err(Errno::INVAL | Errno::NOTSUP) => self.sync_all(root),
            other => Ok(other?),
        }
    }

    fn sync_all(&self, root: &RootDir) -> io::Result<()> {
        match self.syncfs(root) {
            // Nothing can be promised there, to nobody.
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Says whether something stands there that is more than its name, as a link is not.
fn has_more_than_a_name(change: &LocalChange) -> bool {
    let node = change.after.as_ref().map(|after| &after.entry.node);
    node.is_some_and(|node| !matches!(node, Node::Link { .. }))
}

fn is_gone(e: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(e),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}
