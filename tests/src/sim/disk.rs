//! A file system in memory with inode numbers and times, on which users and the daemon work, and which knows what a power
//! cut would leave of it (`disk/power.rs`).
//!
//! Change times come from a counter that never repeats, so an entry that was touched never looks untouched.

mod files;
mod power;

use std::collections::BTreeMap;

use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};

pub use files::Place;
use files::{Files, Op};
use power::Cache;
pub use power::Loss;

use super::rng::Rng;

const FILE: u32 = 0o100_000;
const DIR: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
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

/// A device's disk: the folder, the temporary directory with the slots of installs, and old versions.
#[derive(Debug, Clone, Default)]
pub struct FakeDisk {
    files: Files,
    cache: Cache,
    temporary: BTreeMap<ContentHash, Vec<u8>>,
    next_ino: u64,
    ticks: i64,
    now_ms: u64,
    /// Whether it is a user who changes something at the moment.
    by_user: bool,
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

    /// Says whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
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
    /// Returns all entries of the folder in byte order of their paths.
    #[must_use]
    pub const fn tree(&self) -> &BTreeMap<RelPath, Inode> {
        &self.files.folder
    }

    /// Returns what stands at a path.
    #[must_use]
    pub fn lstat(&self, path: &RelPath) -> Option<&Inode> {
        self.files.folder.get(path)
    }

    /// Returns what stands at a place.
    #[must_use]
    pub fn at(&self, place: &Place) -> Option<&Inode> {
        self.files.get(place)
    }

    /// Returns the places of slots and versions that are taken.
    #[must_use]
    pub fn own_places(&self) -> Vec<Place> {
        self.files.own().map(|(place, _)| place.clone()).collect()
    }

    /// Returns the bytes of a content, wherever they lie.
    #[must_use]
    pub fn bytes_of(&self, content: &ContentHash) -> Option<Vec<u8>> {
        let own = self.files.own().map(|(_, inode)| inode);
        let mut all = self.files.folder.values().chain(own);
        let held = all.find(|inode| inode.entry().node.content() == Some(*content));
        let held = held.and_then(|inode| match &inode.kind {
            Kind::File(bytes) => Some(bytes.clone()),
            Kind::Dir | Kind::Link(_) => None,
        });
        held.or_else(|| self.temporary.get(content).cloned())
    }

    /// Says whether a content stands in the folder or among the old versions, from where it will not go by itself.
    #[must_use]
    pub fn keeps(&self, content: &ContentHash) -> bool {
        let own = self.files.own();
        let versions = own.filter(|(place, _)| matches!(place, Place::Version(_)));
        let mut all = self.files.folder.values().chain(versions.map(|(_, inode)| inode));
        all.any(|inode| inode.entry().node.content() == Some(*content))
    }

    /// Says whether a content lies among old versions or in a slot.
    #[must_use]
    pub fn put_aside(&self, content: &ContentHash) -> bool {
        let mut own = self.files.own();
        own.any(|(_, inode)| inode.entry().node.content() == Some(*content))
    }

    /// Puts fetched bytes into the temporary directory.
    pub fn fetched(&mut self, bytes: Vec<u8>) {
        self.temporary.insert(ContentHash::of(&bytes), bytes);
    }

    /// Returns the bytes of a temporary file; takes it away unless they are copied.
    pub fn use_content(&mut self, content: &ContentHash, copy: bool) -> Option<Vec<u8>> {
        if copy {
            self.temporary.get(content).cloned()
        } else {
            self.temporary.remove(content)
        }
    }

    /// Throws temporary files away.
    pub fn drop_contents(&mut self, contents: &[ContentHash]) {
        for content in contents {
            self.temporary.remove(content);
        }
    }

    /// Empties the temporary directory of all but slots.
    pub fn sweep(&mut self) {
        self.temporary.clear();
    }

    /// Returns the paths below a directory, deepest last.
    #[must_use]
    pub fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        let all = self.files.folder.keys();
        all.filter(|path| path.is_below(dir)).cloned().collect()
    }

    /// Returns what lies below a directory that an install took out of the folder.
    pub fn taken_out_below(&self, place: &Place) -> impl Iterator<Item = &Inode> {
        self.files.in_own_dir(place)
    }

    /// Says whether nothing lies below a place.
    #[must_use]
    pub fn is_empty_dir(&self, place: &Place) -> bool {
        self.files.is_empty_dir(place)
    }

    /// Says whether something can be made at this path: all above it are directories.
    #[must_use]
    pub fn has_parent(&self, path: &RelPath) -> bool {
        path.ancestors()
            .all(|dir| self.lstat(&dir).is_some_and(Inode::is_dir))
    }

    /// Sets the clock by which changes become durable.
    pub const fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Says who makes the next changes.
    pub const fn set_by_user(&mut self, by_user: bool) {
        self.by_user = by_user;
    }

    /// Somebody makes an entry, or puts one in the place of what is there (a new inode, as editors do).
    pub fn create(&mut self, path: &RelPath, kind: Kind, mode: u32, mtime_ns: i64) {
        self.make(Place::Folder(path.clone()), kind, mode, mtime_ns);
    }

    /// As [`FakeDisk::create`], wherever.
    pub fn make(&mut self, place: Place, kind: Kind, mode: u32, mtime_ns: i64) {
        let inode = self.inode(kind, mode, mtime_ns);
        self.apply(Op::Make(place, inode));
    }

    /// A user writes into a file in place.
    pub fn write(&mut self, path: &RelPath, bytes: Vec<u8>, mtime_ns: i64) {
        self.write_at(&Place::Folder(path.clone()), bytes, mtime_ns);
    }

    /// As [`FakeDisk::write`], wherever; a program that has a file open writes to it though it was moved.
    pub fn write_at(&mut self, place: &Place, bytes: Vec<u8>, mtime_ns: i64) {
        let ctime_ns = self.tick();
        let Some(ino) = self.at(place).map(|inode| inode.ino) else {
            return;
        };
        self.apply(Op::Write {
            ino,
            bytes,
            mtime_ns,
            ctime_ns,
        });
    }

    /// Somebody sets mode and modification time.
    pub fn set_meta(&mut self, path: &RelPath, mode: u32, mtime_ns: i64) {
        let ctime_ns = self.tick();
        let Some(ino) = self.lstat(path).map(|inode| inode.ino) else {
            return;
        };
        self.apply(Op::Meta {
            ino,
            mode,
            mtime_ns,
            ctime_ns,
        });
    }

    /// Somebody removes an entry and all below it.
    pub fn remove_all(&mut self, path: &RelPath) {
        self.remove(Place::Folder(path.clone()));
    }

    /// As [`FakeDisk::remove_all`], wherever.
    pub fn remove(&mut self, place: Place) {
        if self.at(&place).is_some() {
            self.apply(Op::Remove(place));
        }
    }

    /// A user renames an entry, with all below it, to where nothing or no directory is.
    pub fn rename(&mut self, from: &RelPath, to: &RelPath) {
        self.remove_all(to);
        self.rename_new(Place::Folder(from.clone()), Place::Folder(to.clone()));
    }

    /// Renames without replacing; `false` if nothing is at the first place or something at the second.
    pub fn rename_new(&mut self, from: Place, to: Place) -> bool {
        if self.at(&from).is_none() || self.at(&to).is_some() {
            return false;
        }
        let ctime_ns = self.tick();
        self.apply(Op::Rename(from, to, ctime_ns));
        true
    }

    /// Exchanges what stands at two places; `false` if one is empty.
    pub fn exchange(&mut self, a: Place, b: Place) -> bool {
        if self.at(&a).is_none() || self.at(&b).is_none() {
            return false;
        }
        let ctime_ns = self.tick();
        self.apply(Op::Exchange(a, b, ctime_ns));
        true
    }

    /// Makes what stands at a place durable, and with it all names.
    pub fn sync(&mut self, place: &Place) {
        let ino = self.at(place).map(|inode| inode.ino);
        self.cache.sync(ino, self.now_ms);
    }

    /// The power fails.
    pub fn power_cut(&mut self, rng: &mut Rng) -> Loss {
        let (files, loss) = self.cache.power_cut(self.now_ms, rng);
        self.files = files;
        self.temporary.clear();
        loss
    }

    fn apply(&mut self, op: Op) {
        self.files.apply(op.clone());
        self.cache.note(op, self.now_ms, self.by_user);
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

    fn text(disk: &FakeDisk, name: &str) -> Option<String> {
        match &disk.lstat(&path(name))?.kind {
            Kind::File(bytes) => Some(String::from_utf8(bytes.clone()).unwrap()),
            Kind::Dir | Kind::Link(_) => None,
        }
    }

    #[test]
    fn renaming_a_directory_takes_along_what_lies_in_it() {
        let mut disk = FakeDisk::default();
        disk.create(&path("d"), Kind::Dir, 0o755, 0);
        disk.create(&path("d/x"), Kind::File(b"1".to_vec()), 0o644, 0);
        disk.rename(&path("d"), &path("e"));
        assert_eq!(disk.below(&path("e")), [path("e/x")]);
        assert!(disk.lstat(&path("d")).is_none());
        disk.make(Place::Slot(1), Kind::Dir, 0o700, 0);
        assert!(disk.exchange(Place::Slot(1), Place::Folder(path("e"))));
        assert!(!disk.is_empty_dir(&Place::Slot(1)) && disk.is_empty_dir(&Place::Folder(path("e"))));
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_the_names_before_it() {
        for seed in 0..100 {
            let mut disk = FakeDisk::default();
            disk.set_by_user(true);
            disk.create(&path("synced"), Kind::File(b"synced".to_vec()), 0o644, 0);
            disk.create(&path("torn"), Kind::File(b"torn".to_vec()), 0o644, 0);
            disk.sync(&Place::Folder(path("synced")));
            disk.create(&path("late"), Kind::File(b"late".to_vec()), 0o644, 0);
            disk.remove_all(&path("synced"));
            let loss = disk.power_cut(&mut Rng::new(seed));
            if disk.lstat(&path("synced")).is_some() {
                assert_eq!(text(&disk, "synced").as_deref(), Some("synced"));
            } else {
                assert!(disk.lstat(&path("late")).is_some(), "names come in order");
            }
            let torn = text(&disk, "torn").unwrap();
            assert!("torn".starts_with(&torn));
            assert_eq!(loss.contents.contains(&ContentHash::of(b"torn")), torn != "torn");
        }
    }

    #[test]
    fn an_empty_file_whose_name_is_not_durable_is_told_as_lost() {
        let lost = |seed| {
            let mut disk = FakeDisk::default();
            disk.set_by_user(true);
            disk.create(&path("empty"), Kind::File(Vec::new()), 0o644, 0);
            let loss = disk.power_cut(&mut Rng::new(seed));
            let is_there = disk.lstat(&path("empty")).is_some();
            assert_eq!(loss.contents.contains(&ContentHash::of(b"")), !is_there);
            !is_there
        };
        assert!((0..100).any(lost));
    }

    #[test]
    fn after_half_a_minute_everything_is_durable() {
        let mut disk = FakeDisk::default();
        disk.create(&path("a"), Kind::File(b"1".to_vec()), 0o644, 0);
        disk.write(&path("a"), b"22".to_vec(), 1);
        disk.set_time(30_000);
        assert!(disk.power_cut(&mut Rng::new(1)).contents.is_empty());
        assert_eq!(text(&disk, "a").as_deref(), Some("22"));
    }
}
