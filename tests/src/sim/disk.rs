//! A file system in memory with inode numbers and times, on which users and the daemon work.
//!
//! Installs are compare-and-swap on the [`Fingerprint`], as `engine::io` documents. Change times come from a counter
//! that never repeats, so an entry that was touched never looks untouched.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::engine::{InstallAction, InstallJob, InstallOutcome};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};

const FILE: u32 = 0o100_000;
const DIR: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
/// Mode of a directory that an install makes on its way.
const PARENT_MODE: u32 = 0o755;
const LINK_MODE: u32 = 0o777;

/// What an entry is and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with its bytes.
    File(Vec<u8>),
    /// A directory.
    Dir,
    /// A symbolic link with its text.
    Link(Vec<u8>),
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number; never used twice.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Modification time in nanoseconds.
    pub mtime_ns: i64,
    /// Change time: a count.
    pub ctime_ns: i64,
}

/// A device's disk: the folder, the temporary directory, and what was put aside.
#[derive(Debug, Clone, Default)]
pub struct FakeDisk {
    tree: BTreeMap<RelPath, Inode>,
    temporary: BTreeMap<ContentHash, Vec<u8>>,
    put_aside: BTreeSet<ContentHash>,
    next_ino: u64,
    ticks: i64,
}

impl Inode {
    /// Returns what `lstat` says.
    #[must_use]
    pub fn print(&self) -> Fingerprint {
        let (kind, size) = match &self.kind {
            Kind::File(bytes) => (FILE, bytes.len() as u64),
            Kind::Link(target) => (LINK, target.len() as u64),
            Kind::Dir => (DIR, 0),
        };
        let is_dir = self.kind == Kind::Dir;
        Fingerprint {
            ino: self.ino,
            size,
            mtime_ns: if is_dir { 0 } else { self.mtime_ns },
            ctime_ns: if is_dir { 0 } else { self.ctime_ns },
            mode: kind | self.mode,
        }
    }

    /// Returns the entry as a scanner describes it.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let node = match &self.kind {
            Kind::File(bytes) => Node::File {
                content: ContentHash::of(bytes),
                size: bytes.len() as u64,
            },
            Kind::Link(target) => Node::Link {
                target: target.clone(),
            },
            Kind::Dir => Node::Dir,
        };
        let mtime_ns = if node.is_dir() { 0 } else { self.mtime_ns };
        Entry {
            node,
            mode: self.mode,
            mtime_ns,
        }
    }
}

impl FakeDisk {
    /// Returns all entries in byte order of their paths.
    #[must_use]
    pub const fn tree(&self) -> &BTreeMap<RelPath, Inode> {
        &self.tree
    }

    /// Returns what stands at a path.
    #[must_use]
    pub fn lstat(&self, path: &RelPath) -> Option<&Inode> {
        self.tree.get(path)
    }

    /// Returns the bytes of a content, wherever they lie in folder or temporary directory.
    #[must_use]
    pub fn bytes_of(&self, content: &ContentHash) -> Option<Vec<u8>> {
        let held = |inode: &&Inode| inode.entry().node.content() == Some(*content);
        let in_tree = self.tree.values().find(held).and_then(|inode| match &inode.kind {
            Kind::File(bytes) => Some(bytes.clone()),
            Kind::Dir | Kind::Link(_) => None,
        });
        in_tree.or_else(|| self.temporary.get(content).cloned())
    }

    /// Says whether a content lies among what was put aside before it was replaced.
    #[must_use]
    pub fn put_aside(&self, content: &ContentHash) -> bool {
        self.put_aside.contains(content)
    }

    /// Puts fetched bytes into the temporary directory.
    pub fn fetched(&mut self, bytes: Vec<u8>) {
        self.temporary.insert(ContentHash::of(&bytes), bytes);
    }

    /// Throws temporary files away.
    pub fn drop_contents(&mut self, contents: &[ContentHash]) {
        for content in contents {
            self.temporary.remove(content);
        }
    }

    /// Empties the temporary directory, as recovery may.
    pub fn sweep(&mut self) {
        self.temporary.clear();
    }

    /// Returns the paths below a directory, deepest last.
    #[must_use]
    pub fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        self.tree
            .keys()
            .filter(|path| path.is_below(dir))
            .cloned()
            .collect()
    }

    /// Says whether something can be made at this path: all above it are directories.
    #[must_use]
    pub fn has_parent(&self, path: &RelPath) -> bool {
        path.ancestors()
            .all(|dir| self.tree.get(&dir).is_some_and(|inode| inode.kind == Kind::Dir))
    }

    /// A user makes an entry, or puts one in the place of what is there (a new inode, as editors do).
    pub fn create(&mut self, path: &RelPath, kind: Kind, mode: u32, mtime_ns: i64) {
        let inode = self.inode(kind, mode, mtime_ns);
        self.tree.insert(path.clone(), inode);
    }

    /// A user writes into a file in place.
    pub fn write(&mut self, path: &RelPath, bytes: Vec<u8>, mtime_ns: i64) {
        let ctime_ns = self.tick();
        if let Some(inode) = self.tree.get_mut(path) {
            inode.kind = Kind::File(bytes);
            inode.mtime_ns = mtime_ns;
            inode.ctime_ns = ctime_ns;
        }
    }

    /// Somebody sets mode and modification time.
    pub fn set_meta(&mut self, path: &RelPath, mode: u32, mtime_ns: i64) {
        let ctime_ns = self.tick();
        if let Some(inode) = self.tree.get_mut(path) {
            inode.mode = mode;
            inode.mtime_ns = mtime_ns;
            inode.ctime_ns = ctime_ns;
        }
    }

    /// A user removes an entry and all below it.
    pub fn remove_all(&mut self, path: &RelPath) {
        self.tree
            .retain(|other, _| other != path && !other.is_below(path));
    }

    /// A user renames an entry, with all below it, to where nothing or no directory is.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) {
        let ctime_ns = self.tick();
        let moved: Vec<RelPath> = self
            .tree
            .keys()
            .filter(|path| *path == from || path.is_below(from))
            .cloned()
            .collect();
        for path in moved {
            let Some(mut inode) = self.tree.remove(&path) else {
                continue;
            };
            let mut target = to.as_bytes().to_vec();
            target.extend_from_slice(&path.as_bytes()[from.as_bytes().len()..]);
            if path == *from {
                inode.ctime_ns = ctime_ns;
            }
            if let Ok(target) = RelPath::parse(target) {
                self.tree.insert(target, inode);
            }
        }
    }

    /// The daemon does one install.
    pub fn install(&mut self, job: &InstallJob) -> InstallOutcome {
        match &job.action {
            InstallAction::Put { entry, keep } => self.put(job, entry, *keep),
            InstallAction::SetMeta { entry } => {
                if !self.is_as(&job.path, job.expect.as_ref()) || job.expect.is_none() {
                    return InstallOutcome::Changed;
                }
                self.set_meta(&job.path, entry.mode, entry.mtime_ns);
                self.done(&job.path)
            }
            InstallAction::Move {
                from,
                from_expect,
                entry,
            } => self.move_here(job, from, from_expect, entry),
            InstallAction::Remove => self.remove(job),
        }
    }

    fn put(&mut self, job: &InstallJob, entry: &Entry, keep: bool) -> InstallOutcome {
        if !self.is_as(&job.path, job.expect.as_ref()) {
            return InstallOutcome::Changed;
        }
        let here = self.tree.get(&job.path).map(|inode| inode.kind.clone());
        if here == Some(Kind::Dir) && entry.node.is_dir() {
            self.set_meta(&job.path, entry.mode, 0);
            return self.done(&job.path);
        }
        if here == Some(Kind::Dir) && !self.below(&job.path).is_empty() {
            return InstallOutcome::NotEmpty(self.below(&job.path));
        }
        let (kind, mode) = match &entry.node {
            Node::Dir => (Kind::Dir, entry.mode),
            Node::Link { target } => (Kind::Link(target.clone()), LINK_MODE),
            Node::File { size: 0, .. } => (Kind::File(Vec::new()), entry.mode),
            Node::File { content, .. } => {
                let bytes = if keep {
                    self.temporary.get(content).cloned()
                } else {
                    self.temporary.remove(content)
                };
                let Some(bytes) = bytes else {
                    return InstallOutcome::ContentMissing;
                };
                (Kind::File(bytes), entry.mode)
            }
        };
        if !self.make_parents(&job.path) {
            return InstallOutcome::Changed;
        }
        self.take_out(&job.path);
        self.create(&job.path, kind, mode, entry.mtime_ns);
        self.done(&job.path)
    }

    fn move_here(
        &mut self,
        job: &InstallJob,
        from: &RelPath,
        from_expect: &Fingerprint,
        entry: &Entry,
    ) -> InstallOutcome {
        if !self.is_as(&job.path, job.expect.as_ref()) || !self.is_as(from, Some(from_expect)) {
            return InstallOutcome::Changed;
        }
        if !self.below(&job.path).is_empty() {
            return InstallOutcome::NotEmpty(self.below(&job.path));
        }
        if !self.make_parents(&job.path) {
            return InstallOutcome::Changed;
        }
        self.take_out(&job.path);
        self.rename(from, &job.path);
        self.set_meta(&job.path, entry.mode, entry.mtime_ns);
        self.done(&job.path)
    }

    fn remove(&mut self, job: &InstallJob) -> InstallOutcome {
        if !self.is_as(&job.path, job.expect.as_ref()) {
            return InstallOutcome::Changed;
        }
        if !self.below(&job.path).is_empty() {
            return InstallOutcome::NotEmpty(self.below(&job.path));
        }
        self.take_out(&job.path);
        InstallOutcome::Done(None)
    }

    /// Makes the directories above a path; `false` if one of them is something else.
    fn make_parents(&mut self, path: &RelPath) -> bool {
        let above: Vec<RelPath> = path.ancestors().collect();
        if above
            .iter()
            .any(|dir| self.tree.get(dir).is_some_and(|inode| inode.kind != Kind::Dir))
        {
            return false;
        }
        for dir in above.iter().rev() {
            if !self.tree.contains_key(dir) {
                self.create(dir, Kind::Dir, PARENT_MODE, 0);
            }
        }
        true
    }

    fn take_out(&mut self, path: &RelPath) {
        if let Some(inode) = self.tree.remove(path)
            && let Some(content) = inode.entry().node.content()
        {
            self.put_aside.insert(content);
        }
    }

    fn is_as(&self, path: &RelPath, expect: Option<&Fingerprint>) -> bool {
        self.tree.get(path).map(Inode::print).as_ref() == expect
    }

    fn done(&self, path: &RelPath) -> InstallOutcome {
        InstallOutcome::Done(self.tree.get(path).map(Inode::print))
    }

    fn inode(&mut self, kind: Kind, mode: u32, mtime_ns: i64) -> Inode {
        self.next_ino += 1;
        let mode = if matches!(kind, Kind::Link(_)) {
            LINK_MODE
        } else {
            mode
        };
        Inode {
            ino: self.next_ino,
            kind,
            mode,
            mtime_ns,
            ctime_ns: self.tick(),
        }
    }

    const fn tick(&mut self) -> i64 {
        self.ticks += 1;
        self.ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    fn put(disk: &FakeDisk, at: &str, node: Node) -> InstallJob {
        InstallJob {
            path: path(at),
            expect: disk.lstat(&path(at)).map(Inode::print),
            action: InstallAction::Put {
                entry: Entry {
                    node,
                    mode: 0o644,
                    mtime_ns: 7,
                },
                keep: false,
            },
        }
    }

    fn file(bytes: &[u8]) -> Node {
        Node::File {
            content: ContentHash::of(bytes),
            size: bytes.len() as u64,
        }
    }

    #[test]
    fn an_install_over_an_edit_changes_nothing() {
        let mut disk = FakeDisk::default();
        disk.create(&path("a"), Kind::File(b"1".to_vec()), 0o644, 1);
        disk.fetched(b"2".to_vec());
        let job = put(&disk, "a", file(b"2"));
        disk.write(&path("a"), b"3".to_vec(), 1);
        assert_eq!(disk.install(&job), InstallOutcome::Changed);
        let again = put(&disk, "a", file(b"2"));
        assert!(matches!(disk.install(&again), InstallOutcome::Done(Some(_))));
        assert!(disk.put_aside(&ContentHash::of(b"3")));
        let third = put(&disk, "a", file(b"2"));
        assert_eq!(disk.install(&third), InstallOutcome::ContentMissing);
    }

    #[test]
    fn a_directory_goes_only_when_it_is_empty() {
        let mut disk = FakeDisk::default();
        disk.create(&path("d"), Kind::Dir, 0o755, 0);
        disk.create(&path("d/x"), Kind::File(vec![]), 0o644, 0);
        let job = InstallJob {
            path: path("d"),
            expect: disk.lstat(&path("d")).map(Inode::print),
            action: InstallAction::Remove,
        };
        let held = InstallOutcome::NotEmpty(vec![path("d/x")]);
        assert_eq!(disk.install(&job), held);
        disk.remove_all(&path("d/x"));
        assert_eq!(disk.install(&job), InstallOutcome::Done(None));
    }

    #[test]
    fn parents_are_made_but_files_do_not_become_directories() {
        let mut disk = FakeDisk::default();
        disk.create(&path("f"), Kind::File(vec![]), 0o644, 0);
        let deep = put(&disk, "p/q/r", file(b""));
        assert!(matches!(disk.install(&deep), InstallOutcome::Done(Some(_))));
        assert_eq!(disk.lstat(&path("p/q")).unwrap().kind, Kind::Dir);
        let under = put(&disk, "f/x", file(b""));
        assert_eq!(disk.install(&under), InstallOutcome::Changed);
    }

    #[test]
    fn renaming_a_directory_takes_along_what_lies_in_it() {
        let mut disk = FakeDisk::default();
        disk.create(&path("d"), Kind::Dir, 0o755, 0);
        disk.create(&path("d/x"), Kind::File(b"1".to_vec()), 0o644, 0);
        disk.rename(&path("d"), &path("e"));
        assert_eq!(disk.below(&path("e")), [path("e/x")]);
        assert!(disk.lstat(&path("d")).is_none());
    }
}
