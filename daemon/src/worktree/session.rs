//! What the installs of one group share: open directories, and the list of what is to be made durable at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use p2p_sync_core::rel_path::RelPath;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::{meta, slots};
use crate::root_dir::{Modes, RootDir};

/// Directories held open at once; well below the usual limit of 1024 descriptors.
const DIRS_OPEN: usize = 64;
/// Entries from which one `syncfs` is cheaper than an fsync for each.
const SYNCFS_FROM: usize = 24;
/// Threads that fsync at the same time; the disk merges their flushes.
const SYNC_THREADS: usize = 8;

/// See the module.
pub(super) struct Session<'a> {
    root: &'a RootDir,
    modes: Modes,
    dirs: BTreeMap<Option<RelPath>, Rc<OwnedFd>>,
    touched_dirs: BTreeSet<Option<RelPath>>,
    touched_files: BTreeSet<RelPath>,
}

/// Whether missing directories are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Fail,
}

impl<'a> Session<'a> {
    pub(super) const fn new(root: &'a RootDir, modes: Modes) -> Self {
        Self {
            root,
            modes,
            dirs: BTreeMap::new(),
            touched_dirs: BTreeSet::new(),
            touched_files: BTreeSet::new(),
        }
    }

    /// Returns the directory that `path` lies in.
    pub(super) fn parent(&mut self, path: &RelPath, missing: Missing) -> io::Result<Rc<OwnedFd>> {
        self.dir(path.parent(), missing)
    }

    /// Says that an entry in the directory of `path` was changed.
    pub(super) fn touch(&mut self, path: &RelPath) {
        self.touched_dirs.insert(path.parent());
    }

    /// Says that mode or times of a file, or of a directory, were changed.
    pub(super) fn touch_itself(&mut self, path: &RelPath) {
        self.touched_files.insert(path.clone());
    }

    /// Forgets open directories, because one may have gone or come.
    pub(super) fn forget_dirs(&mut self) {
        self.dirs.clear();
    }

    fn dir(&mut self, dir: Option<RelPath>, missing: Missing) -> io::Result<Rc<OwnedFd>> {
        if let Some(fd) = self.dirs.get(&dir) {
            return Ok(Rc::clone(fd));
        }
        let fd = match (self.root.open_dir(dir.as_ref()), &dir) {
            (Err(e), Some(path)) if missing == Missing::Make && e.kind() == io::ErrorKind::NotFound => {
                self.make_dir(path)?
            }
            (fd, _) => fd?,
        };
        let fd = Rc::new(fd);
        if self.dirs.len() >= DIRS_OPEN {
            self.dirs.clear();
        }
        self.dirs.insert(dir, Rc::clone(&fd));
        Ok(fd)
    }

    fn make_dir(&mut self, path: &RelPath) -> io::Result<OwnedFd> {
        let parent = self.dir(path.parent(), Missing::Make)?;
        let name = path.file_name();
        let mode = if path.is_own() {
            Mode::RWXU
        } else {
            meta::dir_mode(self.modes, 0o755)
        };
        match writable(&parent, || slots::new_dir(&parent, name, mode)) {
            Ok(()) => {
                let fd = slots::open_dir(&parent, name)?;
                meta::set_dir(&fd, mode)?;
                self.touch(path);
                Ok(fd)
            }
            Err(Errno::EXIST) => slots::open_dir(&parent, name),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes all that was touched durable; returns what could not be.
    pub(super) fn make_durable(mut self) -> BTreeSet<Option<RelPath>> {
        self.dirs.clear();
        let count = self.touched_dirs.len() + self.touched_files.len();
        if count == 0 || count >= SYNCFS_FROM && rustix::fs::syncfs(self.root.fd()).is_ok() {
            return BTreeSet::new();
        }
        let files = self.touched_files.iter().map(|f| (Some(f.clone()), true));
        let all: Vec<_> = self
            .touched_dirs
            .iter()
            .map(|d| (d.clone(), false))
            .chain(files)
            .collect();
        let results = in_parallel(&all, |(path, is_file)| match (path, is_file) {
            (Some(path), true) => sync_opened(self.root.open_file(path), self.root),
            (dir, _) => sync_opened(self.root.open_dir(dir.as_ref()), self.root),
        });
        let failed = all.into_iter().zip(results).filter(|(_, result)| result.is_err());
        failed.map(|((path, _), _)| path).collect()
    }
}

fn sync_opened(fd: io::Result<OwnedFd>, root: &RootDir) -> io::Result<()> {
    match fd {
        Ok(fd) => Ok(sync(fd, root)?),
        // Gone again, or unreadable for us: no bytes of ours are at stake that a whole-system sync would not cover.
        Err(_) => Ok(rustix::fs::syncfs(root.fd())?),
    }
}

/// Makes an open file durable, by `syncfs` where the file system has no fsync for it.
pub(super) fn sync(fd: impl AsFd, root: &RootDir) -> Result<(), Errno> {
    match rustix::fs::fsync(fd) {
        Err(Errno::INVAL | Errno::NOTSUP) => rustix::fs::syncfs(root.fd()),
        other => other,
    }
}

/// Makes files durable that `sync_one` knows to: one by one in parallel, or all at once when they are many.
pub(super) fn sync_many<T: Sync>(
    root: &RootDir,
    items: &[T],
    sync_one: impl Fn(&T) -> io::Result<()> + Sync,
) -> Vec<io::Result<()>> {
    if items.len() >= SYNCFS_FROM && rustix::fs::syncfs(root.fd()).is_ok() {
        return items.iter().map(|_| Ok(())).collect();
    }
    in_parallel(items, sync_one)
}

fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> io::Result<()> + Sync) -> Vec<io::Result<()>> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let part = items.len().div_ceil(SYNC_THREADS);
    let work = &work;
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(part)
            .map(|part| {
                (
                    part.len(),
                    scope.spawn(move || part.iter().map(work).collect::<Vec<_>>()),
                )
            })
            .collect();
        let lost = |len| {
            (0..len)
                .map(|_| Err(io::Error::other("The thread died")))
                .collect()
        };
        parts
            .into_iter()
            .flat_map(|(len, part)| part.join().unwrap_or_else(|_| lost(len)))
            .collect()
    })
}

/// Does something in a directory, making it writable for that instant if its owner, this user, made it read-only.
pub(super) fn writable<T>(dir: impl AsFd, work: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let refused = match work() {
        Err(e @ (Errno::ACCESS | Errno::PERM)) => e,
        other => return other,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode & 0o7777);
    if mode.contains(Mode::RWXU) {
        return Err(refused);
    }
    rustix::fs::fchmod(&dir, mode | Mode::RWXU).map_err(|_| refused)?;
    let result = work();
    if let Err(error) = rustix::fs::fchmod(&dir, mode) {
        tracing::warn!(%error, "Cannot make a directory read-only again");
    }
    result
}
