//! One scan: a walk with its own stack; `walk/portion.rs` hands over what it found.

mod portion;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use p2p_sync_core::engine::{FoundBy, LocalChange};
use p2p_sync_core::ignore::IgnoreRules as _;
use p2p_sync_core::rel_path::{OWN_DIR, RelPath};
use p2p_sync_core::time::BootInstant;
use p2p_sync_core::tree::{Fingerprint, Installed, Node};
use rustix::fs::{Dir, FileType, Stat};
use rustix::io::Errno;

use super::observe::observe;
use super::{Below, HELD_MAX, ScanError, ScanReport, Scanner};
use crate::clock;
use crate::root_dir::{PathError, lstat_at, print_of};

/// Changes handed over at once.
const PORTION: usize = 512;
/// Bytes of files hashed before what is there is handed over (one larger file is hashed alone).
const PORTION_BYTES: u64 = 4 << 20;
/// Longest time that found changes wait.
const PORTION_TIME: Duration = Duration::from_secs(2);
/// Problems that a report names.
const PROBLEMS_MAX: usize = 1000;

/// A change found but not handed over yet.
enum Found {
    Ready(LocalChange),
    /// A file to be hashed.
    Hash(RelPath, Option<Installed>),
}

/// See the module.
pub(super) struct Walk<'a> {
    scanner: &'a Scanner,
    stop: &'a AtomicBool,
    found_by: FoundBy,
    emit: &'a mut dyn FnMut(Vec<LocalChange>),
    stack: Vec<Option<RelPath>>,
    found: Vec<Found>,
    found_bytes: u64,
    found_at: Instant,
    held: Vec<RelPath>,
    /// Other names of changed files, if they are to be looked at.
    other_names: Option<BTreeSet<RelPath>>,
    /// Since when what is found now has been looked at.
    seen_at: BootInstant,
    report: ScanReport,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        scanner: &'a Scanner,
        found_by: FoundBy,
        stop: &'a AtomicBool,
        emit: &'a mut dyn FnMut(Vec<LocalChange>),
    ) -> Result<Self, ScanError> {
        let walk = Self {
            scanner,
            stop,
            found_by,
            emit,
            stack: Vec::new(),
            found: Vec::new(),
            found_bytes: 0,
            found_at: Instant::now(),
            held: Vec::new(),
            other_names: None,
            seen_at: clock::now().boot,
            report: ScanReport::default(),
        };
        walk.check_root()?;
        Ok(walk)
    }

    /// Puts a directory on the list of those to be read.
    pub(super) fn enter(&mut self, dir: Option<RelPath>) {
        self.stack.push(dir);
    }

    /// From now on notes the other names of files that have changed.
    pub(super) fn follow_links(&mut self) {
        self.other_names = Some(BTreeSet::new());
    }

    /// Looks at the other names of the files that have changed.
    pub(super) fn other_names(&mut self) -> Result<(), ScanError> {
        for path in self.other_names.take().into_iter().flatten() {
            self.look_at(&path, Below::Changed)?;
        }
        Ok(())
    }

    fn note_other_names(&mut self, path: &RelPath, stat: &Stat, installed: Option<&Installed>) {
        let (Some(names), Some(installed)) = (&mut self.other_names, installed) else {
            return;
        };
        if stat.st_nlink > 1 && !names.contains(path) {
            names.extend(self.scanner.index.same_file(installed));
        }
        names.remove(path);
    }

    /// Reads all directories on the list.
    pub(super) fn run(&mut self, below: Below) -> Result<(), ScanError> {
        while let Some(dir) = self.stack.pop() {
            if self.stopped() {
                self.stack.clear();
                break;
            }
            if let Err(e) = self.read_dir(dir.as_ref(), below) {
                self.dir_failed(dir.as_ref(), &e)?;
            }
            self.flush_if_due()?;
        }
        Ok(())
    }

    /// Looks at one path by its name.
    pub(super) fn look_at(&mut self, path: &RelPath, below: Below) -> Result<(), ScanError> {
        if self.stopped() {
            return Ok(());
        }
        let installed = self.scanner.index.installed(path);
        if path.is_own() {
            return self.hidden_copy(path, installed);
        }
        self.seen_at = clock::now().boot;
        match self.scanner.root.lstat(path) {
            Ok(Some(stat)) if self.is_below_ignored(path, is_dir(&stat)) => {}
            Ok(Some(stat)) => {
                if installed.is_none() && !is_dir(&stat) {
                    self.below_is_gone(path, true);
                }
                self.entry(path.clone(), &stat, installed, below);
            }
            Ok(None) if self.is_below_ignored(path, was_dir(installed.as_ref())) => {}
            // What was told a moment ago the index may not know yet; who was told does.
            Ok(None) => self.gone(path.clone(), true),
            Err(e) => self.problem(path.clone(), &e),
        }
        self.flush_if_due()
    }

    /// Tells of a path if nothing is there. A walk of the directory above it, which the index does not know yet, has told
    /// of what it found, and the index could not say what is missing.
    pub(super) fn look_if_gone(&mut self, path: &RelPath) {
        let gone = matches!(self.scanner.root.lstat(path), Ok(None));
        if gone && !self.stopped() && !self.is_below_ignored(path, false) {
            self.gone(path.clone(), true);
        }
    }

    /// Hands over what is left, deletions last.
    pub(super) fn finish(mut self) -> Result<ScanReport, ScanError> {
        if self.stopped() {
            self.report.stopped = true;
            self.found.clear();
            return Ok(self.report);
        }
        self.release_held()?;
        self.flush()?;
        self.report.retry.sort();
        self.report.retry.dedup();
        Ok(self.report)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_below_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        self.scanner.rules.is_ignored(path, is_dir)
    }

    fn check_root(&self) -> Result<(), ScanError> {
        self.scanner.check_root()
    }

    fn watch(&self, dir: Option<&RelPath>, ino: u64) -> bool {
        let path = dir.map_or(Path::new(""), |d| Path::new(OsStr::from_bytes(d.as_bytes())));
        self.scanner.watch.watch(path, ino)
    }

    fn dir_failed(&mut self, dir: Option<&RelPath>, e: &io::Error) -> Result<(), ScanError> {
        let Some(dir) = dir else {
            let source = io::Error::new(e.kind(), e.to_string());
            return Err(PathError::of("read", self.scanner.root.path())(source).into());
        };
        if matches!(
            Errno::from_io_error(e),
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
        ) {
            // Replaced since its entry was seen.
            self.report.retry.push(dir.clone());
        } else {
            self.problem(dir.clone(), e);
        }
        Ok(())
    }

    fn read_dir(&mut self, dir: Option<&RelPath>, below: Below) -> io::Result<()> {
        self.seen_at = clock::now().boot;
        let fd = self.scanner.root.open_dir(dir)?;
        // Watched before it is read, so that nothing falls between.
        self.watch(dir, rustix::fs::fstat(&fd)?.st_ino);
        let names = read_names(&fd)?;
        let mut known: BTreeMap<_, _> = self.scanner.index.children(dir).into_iter().collect();
        let mut subdirs = self.stack.len();
        for name in names {
            let path = match dir {
                Some(dir) => dir.join(&name),
                None => RelPath::parse(name),
            };
            let Ok(path) = path else {
                if let Some(dir) = dir {
                    self.name_problem(
                        dir.clone(),
                        "A path in it is longer than 4096 bytes or 256 levels",
                    );
                }
                continue;
            };
            let believed = known.remove(&path);
            if path.is_own() {
                continue;
            }
            match lstat_at(&fd, path.file_name()) {
                Ok(Some(stat)) if self.scanner.rules.matches(&path, is_dir(&stat)) => {}
                Ok(Some(stat)) => {
                    if matches!(believed, Some(None)) && !is_dir(&stat) {
                        self.below_is_gone(&path, true);
                    }
                    self.entry(path, &stat, believed.flatten(), below);
                }
                Ok(None) => known.extend(believed.map(|believed| (path, believed))),
                Err(e) => self.problem(path, &e),
            }
            if self.stopped() {
                return Ok(());
            }
        }
        for (path, installed) in known {
            let was_dir = installed.is_none_or(|installed| installed.entry.node.is_dir());
            if path.is_own() || self.scanner.rules.matches(&path, was_dir) {
                continue;
            }
            match lstat_at(&fd, path.file_name()) {
                Ok(None) => self.gone(path, true),
                Ok(Some(_)) => self.report.retry.push(path),
                Err(e) => self.problem(path, &e),
            }
        }
        // The stack gives back the last first.
        subdirs = subdirs.min(self.stack.len());
        self.stack[subdirs..].reverse();
        Ok(())
    }

    /// Compares the conflict copies in the daemon's own directory with the index.
    pub(super) fn hidden_copies(&mut self) -> Result<(), ScanError> {
        let Ok(dir) = RelPath::parse([OWN_DIR, b"/conflicts"].concat()) else {
            return Ok(());
        };
        for (path, installed) in self.scanner.index.below(&dir) {
            if self.stopped() {
                break;
            }
            self.hidden_copy(&path, Some(installed))?;
        }
        Ok(())
    }

    /// Compares one conflict copy in the daemon's own directory with the index. Whatever else lies there is not synced,
    /// and what stands in a copy's place is not gone into.
    fn hidden_copy(&mut self, path: &RelPath, installed: Option<Installed>) -> Result<(), ScanError> {
        let Some(installed) = installed else { return Ok(()) };
        self.seen_at = clock::now().boot;
        self.report.files += 1;
        match self.scanner.root.lstat(path) {
            Ok(Some(stat)) => {
                let print = print_of(&stat);
                match FileType::from_raw_mode(stat.st_mode) {
                    _ if print == installed.print => {}
                    FileType::RegularFile => {
                        self.push(Found::Hash(path.clone(), Some(installed)), print.size);
                    }
                    FileType::Symlink => self.link(path.clone(), print, Some(&installed)),
                    FileType::Directory => {
                        let after = observe(Node::Dir, print, Some(&installed), self.scanner.modes);
                        let change = LocalChange {
                            path: path.clone(),
                            seen_at: self.seen_at,
                            found_by: self.found_by,
                            after: Some(after),
                        };
                        self.push(Found::Ready(change), 0);
                    }
                    _ => self.name_problem(path.clone(), "Sockets, fifos and devices are not synced"),
                }
            }
            Ok(None) => self.held.push(path.clone()),
            Err(e) => self.problem(path.clone(), &e),
        }
        self.flush_if_due()
    }

    /// Compares an entry with the index.
    fn entry(&mut self, path: RelPath, stat: &Stat, installed: Option<Installed>, below: Below) {
        self.report.files += 1;
        let print = print_of(stat);
        let changed = installed.as_ref().is_none_or(|i| i.print != print);
        let was_dir = was_dir(installed.as_ref());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if !self.scanner.root.same_device(stat) {
                    return self.name_problem(path, "Another file system is mounted here; it is not synced");
                }
                if changed {
                    let after = observe(Node::Dir, print, installed.as_ref(), self.scanner.modes);
                    self.push(
                        Found::Ready(LocalChange {
                            path: path.clone(),
                            seen_at: self.seen_at,
                            after: Some(after),
                            found_by: self.found_by,
                        }),
                        0,
                    );
                }
                let same_dir = installed
                    .as_ref()
                    .is_some_and(|i| was_dir && i.print.ino == print.ino);
                // A directory that an install made is known, but nobody may have listened when something was put in it.
                let unheard = self.watch(Some(&path), print.ino);
                if below == Below::All || !same_dir || unheard {
                    self.stack.push(Some(path));
                }
            }
            _ if !changed => {}
            FileType::RegularFile => {
                self.below_is_gone(&path, was_dir);
                self.note_other_names(&path, stat, installed.as_ref());
                self.push(Found::Hash(path, installed), print.size);
            }
            FileType::Symlink => {
                self.below_is_gone(&path, was_dir);
                self.link(path, print, installed.as_ref());
            }
            _ => {
                self.below_is_gone(&path, was_dir);
                self.name_problem(path, "Sockets, fifos and devices are not synced");
            }
        }
    }

    fn link(&mut self, path: RelPath, print: Fingerprint, installed: Option<&Installed>) {
        let target = self
            .scanner
            .root
            .open_parent(&path)
            .and_then(|dir| Ok(rustix::fs::readlinkat(dir, path.file_name(), Vec::new())?.into_bytes()));
        match target {
            Ok(target) if target.len() <= Node::MAX_TARGET => {
                let after = observe(Node::Link { target }, print, installed, self.scanner.modes);
                self.push(
                    Found::Ready(LocalChange {
                        path,
                        seen_at: self.seen_at,
                        after: Some(after),
                        found_by: self.found_by,
                    }),
                    0,
                );
            }
            Ok(_) => self.name_problem(path, "The link's text is longer than 4096 bytes"),
            Err(_) => self.report.retry.push(path),
        }
    }

    fn push(&mut self, found: Found, bytes: u64) {
        if self.found.is_empty() {
            self.found_at = Instant::now();
        }
        self.found_bytes = self.found_bytes.saturating_add(bytes);
        self.found.push(found);
    }

    /// Notes a path that is absent, with all that the index knows below it.
    fn gone(&mut self, path: RelPath, known: bool) {
        let mut paths = Vec::new();
        if known {
            paths.push(path.clone());
        }
        self.collect_below(&path, &mut paths);
        self.held.extend(paths);
    }

    /// A directory gave way to something else: what lay in it is gone, and is said to be so before the new entry.
    fn below_is_gone(&mut self, path: &RelPath, was_dir: bool) {
        if !was_dir {
            return;
        }
        let mut paths = Vec::new();
        self.collect_below(path, &mut paths);
        for path in paths {
            self.push(
                Found::Ready(LocalChange {
                    path,
                    seen_at: self.seen_at,
                    after: None,
                    found_by: self.found_by,
                }),
                0,
            );
        }
    }

    fn collect_below(&self, path: &RelPath, paths: &mut Vec<RelPath>) {
        if self.is_below_ignored(path, true) {
            return;
        }
        let mut dirs = vec![path.clone()];
        while let Some(dir) = dirs.pop() {
            for (child, installed) in self.scanner.index.children(Some(&dir)) {
                let was_dir = installed.is_none_or(|installed| installed.entry.node.is_dir());
                if self.scanner.rules.matches(&child, was_dir) {
                    continue;
                }
                if was_dir {
                    dirs.push(child.clone());
                }
                paths.push(child);
            }
        }
        paths.sort();
    }

    fn problem(&mut self, path: RelPath, e: &io::Error) {
        self.name_problem(path, &e.to_string());
    }

    fn name_problem(&mut self, path: RelPath, why: &str) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push((path, why.to_owned()));
        }
    }

    fn release_held(&mut self) -> Result<(), ScanError> {
        for path in std::mem::take(&mut self.held) {
            self.push(
                Found::Ready(LocalChange {
                    path,
                    seen_at: self.seen_at,
                    after: None,
                    found_by: self.found_by,
                }),
                0,
            );
            if self.found.len() >= 2 * PORTION {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), ScanError> {
        if self.held.len() > HELD_MAX {
            self.release_held()?;
        }
        let due = self.found.len() >= PORTION
            || self.found_bytes >= PORTION_BYTES
            || !self.found.is_empty() && self.found_at.elapsed() >= PORTION_TIME;
        if due { self.flush() } else { Ok(()) }
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn was_dir(installed: Option<&Installed>) -> bool {
    installed.is_some_and(|installed| installed.entry.node.is_dir())
}

/// Returns the names in a directory in byte order, the daemon's own left to the caller.
fn read_names(fd: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
