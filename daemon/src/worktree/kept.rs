//! Kept versions: what installs and restores took out of the folder, found again by path, content and time.
//!
//! They lie in `.p2p-sync/versions/<yyyymmdd>/<tx>-<name>`, moved there and not copied, so a file has its mode and
//! times still. Beside them an append-only `index` says which path each came from. All integers little-endian:
//!
//! ```text
//! len  u32   bytes of the body, 1 ..= MAX_RECORD
//! crc  u32   CRC-32C of the body
//! body       CBOR array [version = 1, name: bytes, path: bytes / null, kept at: uint ms since 1970, size: uint,
//!            mtime ns: int, mode: uint (type and permission bits), content: bytes 32 / null]
//! ```
//!
//! A record is written before its file is moved here; a later one with the same name stands in its place. The index is
//! a help and never the truth: a torn tail is cut, a record whose file is gone means nothing, a file without a record
//! is kept and gets one when it is found. What a crash loses is at most the path of the versions kept in its last
//! moments. Nothing here depends on the store; in memory there is a set of contents, 24 bytes each.

mod index;
mod keep;
mod purge;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::{OWN_DIR, RelPath};
use rustix::fs::{FileType, Mode, OFlags};

use self::index::{Record, Records};
pub(super) use self::keep::{Keep, KeepOutcome};
pub use self::purge::{Purged, Retention, SizeLimit};
use super::slots::{day_name, names, not_supported, open_dir};
use crate::journal::Tx;
use crate::root_dir::lstat_at;

/// The name of a day's index.
const INDEX: &[u8] = b"index";
/// Bytes of the original name that the name of a kept version repeats; with the tx in front it stays below 255.
const VERSION_NAME_BYTES: usize = 200;
/// Versions that are found by content; beyond it those kept later are found by path only.
const MAX_CONTENTS: usize = 4 << 20;
/// Bytes read at once to find a version's content.
const HASH_BUFFER: usize = 1 << 20;

/// A version that lies here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Where it lies, relative to the folder.
    pub place: RelPath,
    /// The install or restore that took it out of the folder, 16 hexadecimal digits.
    pub tx: String,
    /// The path it stood at; `None` if that was lost in a crash.
    pub path: Option<RelPath>,
    /// When it was taken out, milliseconds since 1970.
    pub kept_at_ms: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// File type and permission bits.
    pub mode: u32,
    /// The name of its bytes; `None` for a link, and while it is not known.
    pub content: Option<ContentHash>,
}

impl KeptFile {
    /// Says whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Symlink
    }
}

/// The kept versions of one folder.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    dir: OwnedFd,
    state: Mutex<State>,
    /// What the wall clock said when it was last noted, milliseconds since 1970; held while it is.
    noted: Mutex<Option<u64>>,
}

#[derive(Debug, Default)]
struct State {
    /// Content's first 8 bytes, day, place of the record in the day's index.
    contents: BTreeSet<(u64, u32, u64)>,
    /// Replaced files that wait in their slots for the store.
    slots: BTreeSet<(ContentHash, Tx)>,
    /// Versions that a program may still be writing to, by day and name.
    pinned: BTreeSet<(u32, Vec<u8>)>,
    /// The index that was last written to.
    open: Option<OpenIndex>,
    /// Bytes kept since the last purge.
    grown: u64,
}

#[derive(Debug)]
struct OpenIndex {
    day: u32,
    file: File,
    dir: OwnedFd,
    /// Something was written that is not durable.
    dirty: bool,
}

impl Kept {
    /// Takes the directory `versions`, open, and reads its indexes; torn tails are cut.
    pub(super) fn open(path: PathBuf, dir: OwnedFd) -> io::Result<Self> {
        let kept = Self {
            path,
            dir,
            state: Mutex::default(),
            noted: Mutex::default(),
        };
        for day in kept.days()? {
            if let Err(error) = kept.load(day) {
                tracing::warn!(day, %error, "Cannot read the index of old versions");
            }
        }
        Ok(kept)
    }

    /// Returns where the versions lie.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where this content lies, relative to the folder; whoever reads it must check the bytes.
    #[must_use]
    pub fn with_content(&self, content: &ContentHash, limit: usize) -> Vec<RelPath> {
        let state = self.state();
        let slots = state.slots.range((*content, Tx(0))..=(*content, Tx(u64::MAX)));
        let mut places: Vec<RelPath> = slots.filter_map(|(_, tx)| slot_path(*tx)).take(limit).collect();
        let key = prefix(content);
        let range = (key, 0, 0)..=(key, u32::MAX, u64::MAX);
        let found: Vec<(u32, u64)> = state
            .contents
            .range(range)
            .map(|(_, day, at)| (*day, *at))
            .collect();
        drop(state);
        for (day, at) in found.into_iter().rev() {
            if places.len() >= limit {
                break;
            }
            let Ok(Some(record)) = self.read_at(day, at) else {
                continue;
            };
            if record.content == Some(*content) && self.exists(day, &record.name) {
                places.extend(place(day, &record.name));
            }
        }
        places
    }

    /// Returns the versions that stood at a path, newest first. Reads all indexes.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn of_path(&self, path: &RelPath) -> io::Result<Vec<KeptFile>> {
        self.find(|record| record.path.as_ref() == Some(path))
    }

    /// Returns all versions, newest first.
    ///
    /// # Errors
    /// As [`of_path`](Self::of_path).
    pub fn all(&self) -> io::Result<Vec<KeptFile>> {
        self.find(|_| true)
    }

    fn find(&self, wanted: impl Fn(&Record) -> bool) -> io::Result<Vec<KeptFile>> {
        let mut found = Vec::new();
        for day in self.days()?.into_iter().rev() {
            let records = self.records(day)?.into_values().map(|(_, record)| record);
            let mut files: Vec<KeptFile> = records
                .filter(|record| wanted(record) && self.exists(day, &record.name))
                .filter_map(|record| kept_file(day, record))
                .collect();
            files.sort_by(|a, b| (b.kept_at_ms, &b.place).cmp(&(a.kept_at_ms, &a.place)));
            found.extend(files);
        }
        Ok(found)
    }

    /// Finds the content of a version of which it is not known, and notes it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn content_of(&self, file: &KeptFile) -> io::Result<ContentHash> {
        if let Some(content) = file.content {
            return Ok(content);
        }
        let (day, name) = day_and_name(&file.place)?;
        let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
        let content = hash(&dir, &name, &|| false)?;
        let known = self.records(day)?.remove(&name).map(|(_, record)| record);
        self.note_content(day, &dir, name, known, content)?;
        Ok(content)
    }

    /// Returns the text of a link.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn link_text(&self, file: &KeptFile) -> io::Result<Vec<u8>> {
        let (day, name) = day_and_name(&file.place)?;
        let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
        Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
    }

    /// Notes that a replaced file with this content waits in the slot of an install.
    pub(super) fn hold_slot(&self, tx: Tx, content: ContentHash) {
        self.state().slots.insert((content, tx));
    }

    /// Takes note that nobody looks any more whether a program still writes to this version.
    pub(super) fn unpin(&self, place: &RelPath) {
        if let Ok(key) = day_and_name(place) {
            self.state().pinned.remove(&key);
        }
    }

    /// Makes what was kept durable; one flush for all of it.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let Some(open) = state.open.as_mut().filter(|open| open.dirty) else {
            return Ok(());
        };
        rustix::fs::fsync(&open.file).or_else(not_supported)?;
        rustix::fs::fsync(&open.dir).or_else(not_supported)?;
        open.dirty = false;
        Ok(())
    }

    /// Returns where the version that an install of the last day kept lies, if it does.
    pub(super) fn find_version(&self, tx: Tx, of: &RelPath) -> io::Result<Option<RelPath>> {
        let now = SystemTime::now();
        let name = version_name(tx, Some(of));
        for day in [now, now - Duration::from_secs(24 * 3600)].map(day_number) {
            if self.exists(day, &name) {
                return Ok(place(day, &name));
            }
        }
        Ok(None)
    }

    /// Gives every version without a record one, and every file its content. Reads what it has to find the content of;
    /// ends early when `stop` says so.
    ///
    /// # Errors
    /// If a directory cannot be read; a version that cannot be read is left as it is.
    pub fn complete(&self, stop: &dyn Fn() -> bool) -> io::Result<()> {
        for day in self.days()? {
            let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
            let mut records = self.records(day)?;
            for name in names(&dir)? {
                if stop() {
                    return Ok(());
                }
                let known = records.remove(&name).map(|(_, record)| record);
                let is_complete = known.as_ref().is_some_and(|r| r.content.is_some() || r.is_link());
                if name == INDEX || is_complete {
                    continue;
                }
                match hash(&dir, &name, stop) {
                    Ok(content) => self.note_content(day, &dir, name, known, content)?,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
                    Err(error) => tracing::debug!(%error, "Cannot read an old version"),
                }
            }
        }
        Ok(())
    }

    fn note_content(
        &self,
        day: u32,
        dir: &OwnedFd,
        name: Vec<u8>,
        known: Option<Record>,
        content: ContentHash,
    ) -> io::Result<()> {
        let Some(stat) = lstat_at(dir, &name)? else {
            return Ok(());
        };
        let print = crate::root_dir::print_of(&stat);
        let record = Record {
            content: Some(content),
            ..known.unwrap_or_else(|| Record {
                name,
                path: None,
                kept_at_ms: day_start_ms(day),
                size: print.size,
                mtime_ns: print.mtime_ns,
                mode: print.mode,
                content: None,
            })
        };
        self.append(day, dir, &[record])
    }

    /// Appends records to a day's index with one write.
    fn append(&self, day: u32, dir: &OwnedFd, records: &[Record]) -> io::Result<()> {
        let mut state = self.state();
        // Somebody may have emptied the directory by hand.
        let is_good = |open: &OpenIndex| open.day == day && is_linked(&open.file);
        if !state.open.as_ref().is_some_and(is_good) {
            if let Some(open) = state.open.as_ref().filter(|open| open.dirty) {
                rustix::fs::fsync(&open.file).or_else(not_supported)?;
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(dir, INDEX, flags, Mode::RUSR | Mode::WUSR)?);
            let (dir, dirty) = (dir.try_clone()?, false);
            state.open = Some(OpenIndex {
                day,
                file,
                dir,
                dirty,
            });
        }
        let Some(open) = state.open.as_mut() else {
            return Ok(());
        };
        let mut at = open.file.metadata()?.len();
        let mut bytes = Vec::new();
        let mut offsets = Vec::with_capacity(records.len());
        for record in records {
            let len = bytes.len();
            record.append_to(&mut bytes);
            offsets.push(at);
            at += (bytes.len() - len) as u64;
        }
        open.dirty = true;
        let start = offsets.first().copied().unwrap_or(at);
        if let Err(e) = io::Write::write_all(&mut open.file, &bytes) {
            // Half a record would hide those that follow.
            let _ = open.file.set_len(start);
            return Err(e);
        }
        for (record, offset) in records.iter().zip(offsets) {
            state.note(day, offset, record);
        }
        Ok(())
    }

    /// Reads a day's index into memory and cuts its torn tail.
    fn load(&self, day: u32) -> io::Result<()> {
        let Some(file) = self.open_index(day, OFlags::RDWR)? else {
            return Ok(());
        };
        let mut records = Records::new(&file);
        for (offset, record) in records.by_ref() {
            self.state().note(day, offset, &record);
        }
        let end = records.end();
        if file.metadata()?.len() > end {
            file.set_len(end)?;
        }
        Ok(())
    }

    /// Returns the last record of each name, with its place.
    fn records(&self, day: u32) -> io::Result<BTreeMap<Vec<u8>, (u64, Record)>> {
        let Some(file) = self.open_index(day, OFlags::RDONLY)? else {
            return Ok(BTreeMap::new());
        };
        Ok(Records::new(&file)
            .map(|(offset, record)| (record.name.clone(), (offset, record)))
            .collect())
    }

    fn read_at(&self, day: u32, offset: u64) -> io::Result<Option<Record>> {
        let file = self.open_index(day, OFlags::RDONLY)?;
        Ok(file
            .and_then(|file| Records::from(&file, offset).next())
            .map(|(_, record)| record))
    }

    fn open_index(&self, day: u32, access: OFlags) -> io::Result<Option<File>> {
        let result = open_dir(&self.dir, day_text(day).as_bytes()).and_then(|dir| {
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(rustix::fs::openat(dir, INDEX, flags, Mode::empty())?)
        });
        match result {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn exists(&self, day: u32, name: &[u8]) -> bool {
        open_dir(&self.dir, day_text(day).as_bytes())
            .and_then(|dir| lstat_at(dir, name))
            .is_ok_and(|stat| stat.is_some())
    }

    /// Returns the days of which there are versions, oldest first.
    fn days(&self) -> io::Result<Vec<u32>> {
        let mut days: Vec<u32> = names(&self.dir)?.iter().filter_map(|name| day_of(name)).collect();
        days.sort_unstable();
        Ok(days)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left no half-made change behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, day: u32, offset: u64, record: &Record) {
        if let Some(content) = record.content.filter(|_| self.contents.len() < MAX_CONTENTS) {
            self.contents.insert((prefix(&content), day, offset));
        }
    }
}

fn is_linked(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink > 0)
}

/// Returns the content of a regular file of a day.
fn hash(dir: &OwnedFd, name: &[u8], stop: &dyn Fn() -> bool) -> io::Result<ContentHash> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BUFFER];
    loop {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(ContentHash::new(*hasher.finalize().as_bytes())),
            count => hasher.update(&buffer[..count]),
        };
    }
}

fn kept_file(day: u32, record: Record) -> Option<KeptFile> {
    Some(KeptFile {
        place: place(day, &record.name)?,
        tx: String::from_utf8(record.name.get(..16)?.to_vec()).ok()?,
        path: record.path,
        kept_at_ms: record.kept_at_ms,
        size: record.size,
        mtime_ns: record.mtime_ns,
        mode: record.mode,
        content: record.content,
    })
}

/// Returns the name under which a version is kept; one whose path is not known is `unknown`.
fn version_name(tx: Tx, of: Option<&RelPath>) -> Vec<u8> {
    let name = of.map_or(&b"unknown"[..], RelPath::file_name);
    let name = &name[..name.len().min(VERSION_NAME_BYTES)];
    [tx.to_hex().as_bytes(), b"-", name].concat()
}

fn place(day: u32, name: &[u8]) -> Option<RelPath> {
    RelPath::parse([OWN_DIR, b"/versions/", day_text(day).as_bytes(), b"/", name].concat()).ok()
}

fn slot_path(tx: Tx) -> Option<RelPath> {
    RelPath::parse([OWN_DIR, b"/tmp/", tx.slot().as_bytes()].concat()).ok()
}

fn day_and_name(place: &RelPath) -> io::Result<(u32, Vec<u8>)> {
    let day = place.components().nth(2).and_then(day_of);
    let day = day.ok_or_else(|| io::Error::other("not the place of an old version"))?;
    Ok((day, place.file_name().to_vec()))
}

fn day_of(name: &[u8]) -> Option<u32> {
    let is_day = name.len() == 8 && name.iter().all(u8::is_ascii_digit);
    is_day.then(|| std::str::from_utf8(name).ok()?.parse().ok())?
}

fn day_text(day: u32) -> String {
    format!("{day:08}")
}

fn day_number(now: SystemTime) -> u32 {
    day_name(now).parse().unwrap_or_default()
}

/// Returns when a day begins, milliseconds since 1970 UTC.
fn day_start_ms(day: u32) -> u64 {
    let (year, month, of_month) = (
        u64::from(day / 10_000),
        u64::from(day / 100 % 100),
        u64::from(day % 100),
    );
    // Days before each month of a year that begins in March.
    let shifted = (month + 9) % 12;
    let year = year - u64::from(month <= 2);
    let of_year = (153 * shifted + 2) / 5 + of_month.saturating_sub(1);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
    days.saturating_sub(719_468) * 86_400_000
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn prefix(content: &ContentHash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&content.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// Returns the directory of kept versions as a path for messages.
pub(super) fn versions_path(root: &Path) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(OWN_DIR)).join("versions")
}

#[cfg(test)]
mod tests;
