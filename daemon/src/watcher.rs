//! The watcher: hints that something changed, as fast as the kernel tells. The scan is the truth.
//!
//! `notify` watches each directory by itself; the scanner names them as it walks ([`FileWatcher::watch`]). Its handler
//! only puts names into a coalescing set (`watcher/coalesce.rs` says when they are due), from which [`Hints::next`]
//! takes. Opens and reads are dropped, so are the daemon's own directory and everything that is no path of the folder.
//!
//! When the kernel drops events, or too many paths wait, [`Hint::Overflow`] asks for a full scan. When it gives no more
//! watches, or no inotify instance at all, [`FileWatcher::degraded`] says which limit to raise; full scans carry on,
//! more often ([`FileWatcher::is_complete`]), and each of them asks the kernel once more. Nothing here survives a crash;
//! the scan at the start finds what was missed.

mod coalesce;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::Notify;

use self::coalesce::{Coalescer, Due, Kind};

/// Something that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// These paths, sorted; at most 4096.
    Paths(Vec<RelPath>),
    /// Anything: hints were lost.
    Overflow,
}

/// Watches one folder; stops when it is dropped.
#[derive(Debug, Clone)]
pub struct FileWatcher {
    root: PathBuf,
    shared: Arc<Shared>,
    /// `None` while the kernel gives none.
    inotify: Arc<Mutex<Option<INotifyWatcher>>>,
}

/// The receiving end of a [`FileWatcher`].
#[derive(Debug)]
pub struct Hints {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    coalescer: Coalescer,
    /// Watched directories, relative to the folder, with their inodes.
    watched: HashMap<PathBuf, u64>,
    /// Directories, by inode, that the kernel gave no watch for, with the number of the full scan that found so.
    refused: HashMap<u64, u64>,
    /// Full scans begun.
    scans: u64,
    /// The kernel gave no more watches; it is asked again by the next full scan.
    exhausted: bool,
    /// Why there is no inotify instance.
    missing: Option<String>,
    /// Directories whose parent went elsewhere: the kernel still watches them under their old name.
    stale: Vec<PathBuf>,
}

impl FileWatcher {
    /// Starts to watch `root`, in which nothing is watched until [`watch`](Self::watch) names a directory. Where the
    /// kernel gives no inotify instance, there is nothing to hear until a later scan gets one.
    #[must_use]
    pub fn start(root: &Path) -> (Self, Hints) {
        let shared = Arc::<Shared>::default();
        let watcher = Self {
            root: root.to_owned(),
            shared: Arc::clone(&shared),
            inotify: Arc::default(),
        };
        watcher.connect();
        (watcher, Hints { shared })
    }

    /// Asks the kernel for an inotify instance if there is none.
    fn connect(&self) {
        let mut inotify = self.inotify.lock().unwrap_or_else(PoisonError::into_inner);
        if inotify.is_some() {
            return;
        }
        let (into, base) = (Arc::clone(&self.shared), self.root.clone());
        let handler = move |event: notify::Result<Event>| into.take(event, &base);
        let config = Config::default().with_follow_symlinks(false);
        let made = INotifyWatcher::new(handler, config);
        self.shared.lock().missing = made.as_ref().err().map(ToString::to_string);
        *inotify = made.ok();
    }

    /// Notes that a full scan begins, which asks anew for what the kernel refused.
    pub fn scan_begins(&self) {
        self.connect();
        let mut state = self.shared.lock();
        state.scans += 1;
        state.exhausted = false;
    }

    /// Notes that a full scan has named every directory there is.
    pub fn scan_ended(&self) {
        let mut state = self.shared.lock();
        let now = state.scans;
        state.refused.retain(|_, scan| *scan == now);
    }

    /// Watches a directory, relative to the folder, and returns whether it was not watched before. Known ones cost
    /// nothing; safe to call for each directory of each scan.
    pub fn watch(&self, dir: &Path, ino: u64) -> bool {
        let Some(stale) = self.shared.lock().claim(dir, ino) else {
            return false;
        };
        let path = if dir.as_os_str().is_empty() {
            self.root.clone()
        } else {
            self.root.join(dir)
        };
        let result = {
            let mut inotify = self.inotify.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(inotify) = inotify.as_mut() else {
                self.shared.lock().watched.remove(dir);
                return false;
            };
            for old in stale {
                // An old name left in notify's tables would end the watch of the new one when it goes.
                let _ = inotify.unwatch(&self.root.join(old));
            }
            inotify.watch(&path, RecursiveMode::NonRecursive)
        };
        let mut state = self.shared.lock();
        let Err(error) = result else {
            state.refused.remove(&ino);
            return true;
        };
        state.watched.remove(dir);
        if matches!(error.kind, ErrorKind::MaxFilesWatch) {
            state.exhausted = true;
            state.refuse(ino);
        } else {
            // Gone again, or not ours to read: the scan says so.
            tracing::debug!(%error, "Cannot watch a directory");
        }
        false
    }

    /// Says whether each directory that scans have found is watched.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let state = self.shared.lock();
        state.missing.is_none() && state.refused.is_empty()
    }

    /// Says, for people, what keeps changes from being noticed at once; `None` if nothing does.
    #[must_use]
    pub fn degraded(&self) -> Option<String> {
        let state = self.shared.lock();
        if let Some(why) = &state.missing {
            return Some(format!(
                "The folder is not watched, but scanned from time to time ({why}); raise \
                 fs.inotify.max_user_instances or the daemon's limit of open files"
            ));
        }
        if state.refused.is_empty() {
            return None;
        }
        let needed = state.watched.len() + state.refused.len();
        Some(format!(
            "Only {} of {needed} directories are watched, the rest is scanned from time to time; raise \
             fs.inotify.max_user_watches by at least {}",
            state.watched.len(),
            state.refused.len(),
        ))
    }

    /// Returns how many directories are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.shared.lock().watched.len()
    }
}

impl Hints {
    /// Waits for the next hint.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Hint {
        loop {
            let notified = self.shared.changed.notified();
            let deadline = {
                let mut state = self.shared.lock();
                match state.coalescer.poll(Instant::now()) {
                    Some(Due::Paths(paths)) => return Hint::Paths(paths),
                    Some(Due::Overflow) => return Hint::Overflow,
                    None => state.coalescer.deadline(),
                }
            };
            match deadline {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), notified).await;
                }
                None => notified.await,
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what notify says; runs on its thread.
    fn take(&self, event: notify::Result<Event>, root: &Path) {
        let now = Instant::now();
        let mut state = self.lock();
        let news = match event {
            Ok(event) => state.take_event(&event, root, now),
            Err(error) => {
                tracing::debug!(%error, "The watcher failed");
                state.lost(now);
                true
            }
        };
        drop(state);
        if news {
            self.changed.notify_one();
        }
    }
}

impl State {
    /// Counts a directory as watched, before the kernel is asked: what is heard of its end meanwhile, which ends the new
    /// watch as well, then takes it off again. Returns the names to be forgotten first, `None` if there is nothing to ask.
    fn claim(&mut self, dir: &Path, ino: u64) -> Option<Vec<PathBuf>> {
        if self.watched.get(dir) == Some(&ino) {
            return None;
        }
        if self.exhausted {
            self.refuse(ino);
            return None;
        }
        self.watched.insert(dir.to_owned(), ino);
        Some(std::mem::take(&mut self.stale))
    }

    fn refuse(&mut self, ino: u64) {
        self.refused.insert(ino, self.scans);
    }

    /// Returns whether there is something to be done.
    fn take_event(&mut self, event: &Event, root: &Path, now: Instant) -> bool {
        if event.need_rescan() {
            self.lost(now);
            return true;
        }
        let paths: Vec<_> = event.paths.iter().filter_map(|p| relative(p, root)).collect();
        let kind = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Kind::Closed,
            EventKind::Access(_) => return false,
            EventKind::Create(CreateKind::Folder) => Kind::NewDir,
            EventKind::Create(_) => Kind::NewFile,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                paths.iter().for_each(|p| self.unwatch(p));
                Kind::Gone
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                let [from, to] = &paths[..] else { return false };
                self.coalescer.renamed(from.clone(), to.clone(), now);
                return true;
            }
            // What is moved here may be a directory, so it counts as one. A scan may have found it here already; that
            // watch is the old name's, and ended with it.
            EventKind::Modify(ModifyKind::Name(_)) => {
                paths.iter().for_each(|p| self.unwatch(p));
                Kind::NewDir
            }
            EventKind::Modify(_) | EventKind::Any | EventKind::Other => Kind::Written,
        };
        let news = !paths.is_empty();
        for path in paths {
            self.coalescer.hint(path, kind, now);
        }
        news
    }

    /// A directory that is gone is watched no more, nor is what lies below it; its name may come back with the same
    /// inode.
    fn unwatch(&mut self, path: &RelPath) {
        let dir = Path::new(OsStr::from_bytes(path.as_bytes()));
        if self.watched.remove(dir).is_some() {
            let stale = self.watched.extract_if(|watched, _| watched.starts_with(dir));
            self.stale.extend(stale.map(|(path, _)| path));
        }
    }

    fn lost(&mut self, now: Instant) {
        // Among what was lost may be the end of a watched directory.
        self.watched.clear();
        self.coalescer.overflow(now);
    }
}

/// Returns a path of the folder; `None` for the folder itself, the daemon's own directory, and what is no path.
fn relative(path: &Path, root: &Path) -> Option<RelPath> {
    let inside = path.strip_prefix(root).ok()?;
    let path = RelPath::parse(inside.as_os_str().as_bytes()).ok()?;
    (!path.is_own()).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rel(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    async fn until(hints: &mut Hints, path: &str) {
        loop {
            let Hint::Paths(paths) = hints.next().await else {
                continue;
            };
            if paths.contains(&rel(path)) {
                return;
            }
        }
    }

    #[tokio::test]
    async fn changes_in_watched_directories_are_hinted_at() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".p2p-sync")).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let (watcher, mut hints) = FileWatcher::start(dir.path());
        watcher.watch(Path::new(""), 1);
        watcher.watch(Path::new("d"), 2);
        watcher.watch(Path::new("d"), 2);
        assert_eq!((watcher.watched(), watcher.degraded()), (2, None));
        fs::write(dir.path().join(".p2p-sync/x"), "own").unwrap();
        fs::write(dir.path().join("d/f"), "f").unwrap();
        until(&mut hints, "d/f").await;
        fs::create_dir(dir.path().join("new")).unwrap();
        until(&mut hints, "new").await;
        fs::rename(dir.path().join("d/f"), dir.path().join("g")).unwrap();
        until(&mut hints, "g").await;
        fs::remove_file(dir.path().join("g")).unwrap();
        until(&mut hints, "g").await;
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_can_be_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        let (watcher, mut hints) = FileWatcher::start(dir.path());
        for (path, ino) in [("", 1), ("d", 2), ("d/e", 3)] {
            watcher.watch(Path::new(path), ino);
        }
        fs::rename(dir.path().join("d"), dir.path().join("moved")).unwrap();
        until(&mut hints, "moved").await;
        assert_eq!(watcher.watched(), 1);
        watcher.watch(Path::new("moved"), 2);
        watcher.watch(Path::new("moved/e"), 3);
        fs::write(dir.path().join("moved/e/f"), "f").unwrap();
        until(&mut hints, "moved/e/f").await;
    }

    #[test]
    fn what_was_refused_is_named_until_a_scan_has_found_every_directory_watched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let (watcher, _hints) = FileWatcher::start(dir.path());
        watcher.scan_begins();
        assert!(watcher.watch(Path::new(""), 1));
        // As if the kernel had refused the next one.
        watcher.shared.lock().exhausted = true;
        assert!(!watcher.watch(Path::new("a"), 2) && !watcher.watch(Path::new("b"), 3));
        watcher.scan_ended();
        let why = watcher.degraded().unwrap();
        assert!(
            why.contains("1 of 3") && why.contains("max_user_watches by at least 2"),
            "{why}"
        );
        // A full scan asks again; of the two one has gone meanwhile, which only the scan's end shows.
        watcher.scan_begins();
        assert!(watcher.watch(Path::new("a"), 2) && !watcher.is_complete());
        watcher.scan_ended();
        assert!(watcher.is_complete() && watcher.degraded().is_none());
    }

    #[test]
    fn an_end_heard_of_while_a_directory_is_being_watched_counts_for_the_new_one_too() {
        let mut state = State::default();
        let (root, now, dir) = (Path::new("/folder"), Instant::now(), Path::new("d"));
        let removed = Event::new(EventKind::Remove(notify::event::RemoveKind::Folder));
        // Made again with another inode before the first one's end was heard of.
        assert!(state.claim(dir, 1).is_some() && state.claim(dir, 2).is_some());
        assert!(state.claim(dir, 2).is_none());
        state.take_event(&removed.add_path("/folder/d".into()), root, now);
        assert!(state.claim(dir, 2).is_some());
    }

    #[test]
    fn a_directory_that_a_scan_found_before_its_move_was_heard_of_is_watched_again() {
        let mut state = State::default();
        let (root, now) = (Path::new("/folder"), Instant::now());
        let name =
            |mode, path: &str| Event::new(EventKind::Modify(ModifyKind::Name(mode))).add_path(path.into());
        for (dir, ino) in [("d", 2), ("d/e", 3), ("moved", 2), ("moved/e", 3)] {
            assert!(state.claim(Path::new(dir), ino).is_some());
        }
        state.take_event(&name(RenameMode::From, "/folder/d"), root, now);
        state.take_event(&name(RenameMode::To, "/folder/moved"), root, now);
        let mut stale = state.claim(Path::new("moved"), 2).unwrap();
        stale.sort();
        assert_eq!(stale, [Path::new("d/e"), Path::new("moved/e")]);
        assert!(state.claim(Path::new("moved/e"), 3).is_some());
    }

    #[test]
    fn opens_own_files_and_foreign_paths_are_no_news() {
        let mut state = State::default();
        let root = Path::new("/folder");
        let event = |kind, path: &str| Event::new(kind).add_path(PathBuf::from(path));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let now = Instant::now();
        assert!(!state.take_event(&event(open, "/folder/f"), root, now));
        assert!(!state.take_event(&event(close, "/folder/.p2p-sync/journal"), root, now));
        assert!(!state.take_event(&event(close, "/folder"), root, now));
        assert!(!state.take_event(&event(close, "/elsewhere/f"), root, now));
        assert!(state.take_event(&event(close, "/folder/f"), root, now));
        assert_eq!(state.coalescer.poll(now), Some(Due::Paths(vec![rel("f")])));
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(state.take_event(&lost, root, now));
    }
}
