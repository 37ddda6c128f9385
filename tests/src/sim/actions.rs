//! What users do to the files in their folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;

use super::disk::{FakeDisk, Kind, Place};
use super::rng::Rng;

/// Few paths, so that users get into each other's way; one below `.git`, whose copies lie elsewhere.
const PATHS: [&str; 12] = [
    "a",
    "b.txt",
    "c.tar.gz",
    "d",
    "d/x",
    "d/y",
    "d/e",
    "d/e/z",
    "f",
    "f/a",
    ".p",
    "g/.git/HEAD",
];
const FILE_MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o444];
const DIR_MODES: [u32; 3] = [0o755, 0o700, 0o775];
/// The mark in the name of a conflict copy.
const COPY_MARK: &[u8] = b" (conflict ";

/// All users' memory: what was written, and what somebody replaced or deleted having it before his eyes.
#[derive(Debug, Default)]
pub struct Users {
    written: Vec<Vec<u8>>,
    /// Contents, with the device on which each was written first.
    pub authors: BTreeMap<ContentHash, usize>,
    /// Contents that some user replaced or deleted; they may be gone.
    pub given_up: BTreeSet<ContentHash>,
    /// What was written into the daemon's own directory, where nothing is synced and copies come and go.
    pub unsynced: BTreeSet<ContentHash>,
    /// Renames of files: of which content, on which device, from where and to where; a copy's name is that of its file.
    renames: BTreeSet<(ContentHash, usize, RelPath, RelPath)>,
}

/// What a user did, for the trace, and where a watcher would see it.
#[derive(Debug)]
pub struct Action {
    what: String,
    /// Paths that changed.
    pub paths: Vec<RelPath>,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A user at one device.
#[derive(Debug)]
pub struct Hand<'a> {
    /// All users' memory.
    pub users: &'a mut Users,
    /// This device's disk.
    pub disk: &'a mut FakeDisk,
    /// This device.
    pub device: usize,
    /// Modification times to be had, nanoseconds.
    pub now_ns: i64,
    /// Writes that are made durable at once, of a hundred.
    pub syncs: u64,
}

impl Hand<'_> {
    /// Puts files into the folder before the daemon is started for the first time; half of them are the same on
    /// all devices.
    pub fn move_in(&mut self, files: u64, rng: &mut Rng) {
        for _ in 0..files {
            let path = some_path(rng);
            let bytes = if rng.percent(50) {
                format!("house {path}").into_bytes()
            } else {
                self.fresh(rng)
            };
            self.write_file(&path, bytes, rng);
        }
    }

    /// Does one thing; `None` if what came to mind cannot be done.
    pub fn act(&mut self, rng: &mut Rng) -> Option<Action> {
        match rng.below(100) {
            0..24 => self.create_or_save(rng),
            24..36 => self.append(rng),
            36..44 => self.delete(rng),
            44..48 => self.delete_dir(rng),
            48..60 => self.rename(rng),
            60..65 => self.make_dir(rng),
            65..71 => self.chmod(rng),
            71..75 => self.link(rng),
            75..80 => self.restore(rng),
            80..84 => self.swap_kind(rng),
            84..88 => self.touch(rng),
            _ => self.handle_copy(rng),
        }
    }

    /// Does one thing at a path where an install is under way; `open` is where a program finds the file that it opened
    /// there before.
    pub fn meddle(&mut self, path: &RelPath, open: Option<&Place>, rng: &mut Rng) -> Option<Action> {
        let mtime = self.disk.lstat(path).map(|inode| inode.mtime_ns);
        if (path.is_own() || is_copy(path)) && mtime.is_none() {
            // Nobody makes files in the daemon's own directory, or with the name of a copy that he has not seen yet.
            return None;
        }
        match rng.below(12) {
            0..3 => {
                let bytes = self.fresh(rng);
                self.write_file(path, bytes, rng)
            }
            3 => self.extend(path, rng),
            4 | 5 => self.remove(path),
            6 => self.move_to(path, &some_path(rng)),
            7 => {
                let from = self.some_entry(rng)?;
                self.move_to(&from, path)
            }
            8 => {
                let mode = match self.disk.lstat(path)?.kind {
                    Kind::Dir => DIR_MODES[1],
                    Kind::File(_) => FILE_MODES[rng.index(2)],
                    Kind::Link(_) => return None,
                };
                self.disk.set_meta(path, mode, mtime?);
                done(format!("chmod {path}"), vec![path.clone()])
            }
            9 => {
                let mode = self.disk.lstat(path).filter(|inode| !inode.is_dir())?.mode;
                self.disk.set_meta(path, mode, self.now_ns);
                done(format!("touch {path}"), vec![path.clone()])
            }
            10 => {
                self.remove(path);
                if !self.make_parents(path) {
                    return None;
                }
                self.disk.create(path, Kind::Dir, 0o755, 0);
                let bytes = self.fresh(rng);
                self.write_file(&path.join(b"in").ok()?, bytes, rng)
            }
            _ => self.write_open(path, open?, rng),
        }
    }

    /// A program goes on writing to a file that was taken away from a path under it.
    fn write_open(&mut self, path: &RelPath, place: &Place, rng: &mut Rng) -> Option<Action> {
        let Kind::File(mut bytes) = self.disk.at(place)?.kind.clone() else {
            return None;
        };
        let old = bytes.clone();
        bytes.extend(b" + ");
        bytes.extend(self.fresh(rng));
        self.users.give_up(&old);
        self.users.remember(&bytes, self.device);
        if path.is_own() {
            self.users.unsynced.insert(ContentHash::of(&bytes));
        }
        let what = format!("write to {place:?} = {:?}", String::from_utf8_lossy(&bytes));
        self.disk.write_at(place, bytes, self.now_ns);
        done(what, Vec::new())
    }

    fn create_or_save(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = some_path(rng);
        let bytes = match rng.below(5) {
            0 => format!("house {path}").into_bytes(),
            1 if rng.percent(20) => Vec::new(),
            _ => self.fresh(rng),
        };
        self.write_file(&path, bytes, rng)
    }

    fn append(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = self.some_file(rng)?;
        self.extend(&path, rng)
    }

    fn extend(&mut self, path: &RelPath, rng: &mut Rng) -> Option<Action> {
        let mut bytes = self.bytes(path)?;
        if bytes.len() < 200 {
            bytes.extend_from_slice(b" +");
        }
        bytes.extend_from_slice(&self.fresh(rng));
        self.write_file(path, bytes, rng)
    }

    fn delete(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = self.some_entry(rng)?;
        self.remove(&path)
    }

    fn delete_dir(&mut self, rng: &mut Rng) -> Option<Action> {
        let dirs = self.paths(|kind| *kind == Kind::Dir);
        let path = rng.pick(&dirs)?.clone();
        self.remove(&path)
    }

    fn rename(&mut self, rng: &mut Rng) -> Option<Action> {
        let from = self.some_entry(rng)?;
        let to = some_path(rng);
        self.move_to(&from, &to)
    }

    fn make_dir(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = some_path(rng);
        if self.disk.lstat(&path).is_some() || !self.make_parents(&path) {
            return None;
        }
        let mode = DIR_MODES[rng.index(DIR_MODES.len())];
        self.disk.create(&path, Kind::Dir, mode, 0);
        done(format!("mkdir {path}"), vec![path])
    }

    fn chmod(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = self.some_entry(rng)?;
        let inode = self.disk.lstat(&path)?;
        let mtime = inode.mtime_ns;
        let mode = match inode.kind {
            Kind::File(_) => FILE_MODES[rng.index(FILE_MODES.len())],
            Kind::Dir => DIR_MODES[rng.index(DIR_MODES.len())],
            Kind::Link(_) => return None,
        };
        self.disk.set_meta(&path, mode, mtime);
        done(format!("chmod {mode:o} {path}"), vec![path])
    }

    fn touch(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = self.some_file(rng)?;
        let mode = self.disk.lstat(&path)?.mode;
        self.disk.set_meta(&path, mode, self.now_ns);
        done(format!("touch {path}"), vec![path])
    }

    fn link(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = some_path(rng);
        if !self.clear_for_file(&path) {
            return None;
        }
        let target = [&b"a"[..], b"../x", b"/etc/hosts"][rng.index(3)];
        self.disk
            .create(&path, Kind::Link(target.to_vec()), 0o777, self.now_ns);
        done(format!("ln -s {path}"), vec![path])
    }

    fn restore(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = some_path(rng);
        let bytes = rng.pick(&self.users.written)?.clone();
        self.write_file(&path, bytes, rng)
    }

    /// Replaces a file by a directory or a directory by a file.
    fn swap_kind(&mut self, rng: &mut Rng) -> Option<Action> {
        let path = self.some_entry(rng)?;
        let was_dir = self.disk.lstat(&path)?.kind == Kind::Dir;
        self.remove(&path);
        if was_dir {
            let bytes = self.fresh(rng);
            return self.write_file(&path, bytes, rng);
        }
        self.disk.create(&path, Kind::Dir, 0o755, 0);
        done(format!("replace file {path} by a directory"), vec![path])
    }

    fn handle_copy(&mut self, rng: &mut Rng) -> Option<Action> {
        let copies: Vec<RelPath> = self
            .paths(|kind| *kind != Kind::Dir)
            .into_iter()
            .filter(is_copy)
            .collect();
        let copy = rng.pick(&copies)?.clone();
        match rng.below(4) {
            0 => self.extend(&copy, rng),
            1 => self.move_to(&copy, &some_path(rng)),
            _ => self.remove(&copy),
        }
    }

    /// Writes a file in place or, half of the time, into a new inode.
    fn write_file(&mut self, path: &RelPath, bytes: Vec<u8>, rng: &mut Rng) -> Option<Action> {
        if !self.make_parents(path) {
            return None;
        }
        let what = format!("write {path} = {:?}", String::from_utf8_lossy(&bytes));
        match self.disk.lstat(path).map(|inode| inode.kind.clone()) {
            Some(Kind::Dir) => return None,
            Some(Kind::File(old)) => {
                self.users.remember(&bytes, self.device);
                if old != bytes {
                    self.users.give_up(&old);
                }
                if rng.percent(50) {
                    self.disk.write(path, bytes, self.now_ns);
                    self.maybe_sync(path, rng);
                    return done(what, vec![path.clone()]);
                }
            }
            Some(Kind::Link(_)) | None => self.users.remember(&bytes, self.device),
        }
        self.disk
            .create(path, Kind::File(bytes), FILE_MODES[rng.index(2)], self.now_ns);
        self.maybe_sync(path, rng);
        done(what, vec![path.clone()])
    }

    fn maybe_sync(&mut self, path: &RelPath, rng: &mut Rng) {
        if rng.percent(self.syncs) {
            self.disk.sync(&Place::Folder(path.clone()));
        }
    }

    fn move_to(&mut self, from: &RelPath, to: &RelPath) -> Option<Action> {
        if to == from || to.is_below(from) || from.is_below(to) || !self.clear_for_file(to) {
            return None;
        }
        self.disk.rename(from, to);
        self.note_rename(from, to);
        done(format!("mv {from} {to}"), vec![from.clone(), to.clone()])
    }

    /// Notes where the files at and below a path were before.
    fn note_rename(&mut self, from: &RelPath, to: &RelPath) {
        for (path, inode) in self.disk.tree() {
            let Kind::File(bytes) = &inode.kind else { continue };
            let Some(rest) = path.as_bytes().strip_prefix(to.as_bytes()) else {
                continue;
            };
            if path != to && !path.is_below(to) {
                continue;
            }
            let Ok(old) = RelPath::parse([from.as_bytes(), rest].concat()) else {
                continue;
            };
            let (content, old, new) = (ContentHash::of(bytes), shown_name(&old), shown_name(path));
            let renames = &mut self.users.renames;
            // Over a name in between it was renamed all the same.
            let over = renames
                .iter()
                .filter(|(of, here, _, to)| *of == content && *here == self.device && *to == old);
            let over: Vec<RelPath> = over.map(|(.., from, _)| from.clone()).collect();
            let froms = over.into_iter().chain([old]).filter(|from| *from != new);
            renames.extend(froms.map(|from| (content, self.device, from, new.clone())));
        }
    }

    /// Takes away a file that stands at a path; `false` if a directory does, or something is in the way above.
    fn clear_for_file(&mut self, path: &RelPath) -> bool {
        if self.disk.lstat(path).is_some_and(|inode| inode.kind == Kind::Dir) || !self.make_parents(path) {
            return false;
        }
        self.remove(path);
        true
    }

    fn remove(&mut self, path: &RelPath) -> Option<Action> {
        let mut gone = self.disk.below(path);
        gone.push(path.clone());
        for path in &gone {
            if let Some(bytes) = self.bytes(path) {
                self.users.give_up(&bytes);
            }
        }
        self.disk.remove_all(path);
        done(format!("rm -r {path}"), vec![path.clone()])
    }

    /// Removes all that the user sees.
    pub fn empty(&mut self) -> Option<Action> {
        let all = self.paths(|_| true);
        let top: Vec<RelPath> = all
            .into_iter()
            .filter(|path| path.ancestors().next().is_none())
            .collect();
        for path in &top {
            self.remove(path);
        }
        done("rm -r *".to_owned(), top)
    }

    fn make_parents(&mut self, path: &RelPath) -> bool {
        let above: Vec<RelPath> = path.ancestors().collect();
        let blocked = |dir: &RelPath| self.disk.lstat(dir).is_some_and(|inode| inode.kind != Kind::Dir);
        if above.iter().any(blocked) {
            return false;
        }
        for dir in above.iter().rev() {
            if self.disk.lstat(dir).is_none() {
                self.disk.create(dir, Kind::Dir, 0o755, 0);
            }
        }
        true
    }

    fn bytes(&self, path: &RelPath) -> Option<Vec<u8>> {
        match &self.disk.lstat(path)?.kind {
            Kind::File(bytes) => Some(bytes.clone()),
            Kind::Dir | Kind::Link(_) => None,
        }
    }

    fn some_file(&self, rng: &mut Rng) -> Option<RelPath> {
        let files = self.paths(|kind| matches!(kind, Kind::File(_)));
        rng.pick(&files).cloned()
    }

    fn some_entry(&self, rng: &mut Rng) -> Option<RelPath> {
        rng.pick(&self.paths(|_| true)).cloned()
    }

    /// Returns the paths that users touch; the daemon's own directory is not theirs, but for conflict copies in it.
    fn paths(&self, wanted: impl Fn(&Kind) -> bool) -> Vec<RelPath> {
        let ours = |path: &RelPath| !path.is_own() || is_copy(path);
        let all = self
            .disk
            .tree()
            .iter()
            .filter(|(path, inode)| ours(path) && wanted(&inode.kind));
        all.map(|(path, _)| path.clone()).collect()
    }

    fn fresh(&self, rng: &mut Rng) -> Vec<u8> {
        format!("{}.{:06x}", self.device, rng.below(1 << 24)).into_bytes()
    }
}

impl Users {
    fn remember(&mut self, bytes: &[u8], device: usize) {
        self.authors.entry(ContentHash::of(bytes)).or_insert(device);
        self.written.push(bytes.to_vec());
    }

    fn give_up(&mut self, bytes: &[u8]) {
        self.given_up.insert(ContentHash::of(bytes));
    }

    /// Says whether two users renamed a file at a time, each to the name that the other took from it, be it in several steps:
    /// both names are gone, and it is among the old versions.
    #[must_use]
    pub fn crossed(&self, content: &ContentHash) -> bool {
        let of_it = || self.renames.iter().filter(|(of, ..)| of == content);
        of_it().any(|(_, here, from, to)| {
            of_it().any(|(_, there, other, back)| here != there && other == to && back == from)
        })
    }
}

/// Says whether a path has the name of a conflict copy.
#[must_use]
pub fn is_copy(path: &RelPath) -> bool {
    path.file_name()
        .windows(COPY_MARK.len())
        .any(|part| part == COPY_MARK)
}

/// Returns the name of the file of which this is a conflict copy; else the path itself.
fn shown_name(path: &RelPath) -> RelPath {
    let bytes = path.as_bytes();
    let at = bytes.windows(COPY_MARK.len()).position(|part| part == COPY_MARK);
    let Some((before, mark)) = at.and_then(|at| bytes.split_at_checked(at)) else {
        return path.clone();
    };
    let before = before.strip_prefix(b".p2p-sync/conflicts/").unwrap_or(before);
    let after = mark
        .iter()
        .position(|byte| *byte == b')')
        .and_then(|end| mark.get(end + 1..));
    RelPath::parse([before, after.unwrap_or_default()].concat()).unwrap_or_else(|_| path.clone())
}

fn some_path(rng: &mut Rng) -> RelPath {
    let name = PATHS[rng.index(PATHS.len())];
    RelPath::parse(name).expect("the paths above are well-formed")
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "every caller returns it as its own outcome"
)]
fn done(what: String, paths: Vec<RelPath>) -> Option<Action> {
    Some(Action { what, paths })
}
