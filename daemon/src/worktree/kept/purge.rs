//! How long versions are kept, and how much of them. Their age is the time that was seen to pass (`seen`).

use std::fs::File;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::seen::{self, SeenClock};
use super::{INDEX, Kept, KeptFile, day_and_name, day_number, day_start_ms, day_text, millis, prefix};
use crate::root_dir::{lstat_at, print_of};
use crate::worktree::slots::{names, not_supported, open_dir};

/// Bytes kept since the last purge after which another one is worth its walk.
const WORTH_A_PURGE: u64 = 1 << 30;

/// What was seen of the wall clock, beside the days.
const CLOCK: &str = "clock";
/// Milliseconds between the clock and its last note, hourly otherwise, that are a leap.
const LEAP_MS: u64 = 2 * 3600 * 1000;
/// Its next state until it is renamed.
const CLOCK_NEW: &str = "clock.new";

/// How much room versions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeLimit {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that the folder lies on.
    Percent(u8),
}

/// Which versions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For how long.
    pub keep: Duration,
    /// How much of them; beyond it the oldest go first.
    pub max_size: SizeLimit,
}

impl Default for Retention {
    /// 30 days, a quarter of the file system.
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(30 * 24 * 3600),
            max_size: SizeLimit::Percent(25),
        }
    }
}

/// What a purge removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Versions.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A version as the purge sees it.
struct Candidate {
    kept_at_ms: u64,
    name: Vec<u8>,
    size: u64,
    /// The entry of the set of contents.
    content: Option<(u64, u32, u64)>,
}

impl Kept {
    /// Says whether so much was kept since the last purge that another should not wait.
    #[must_use]
    pub fn has_grown(&self) -> bool {
        self.state().grown >= WORTH_A_PURGE
    }

    /// Removes versions that are too old, then the oldest until the rest has room. Versions that a program may still be
    /// writing to (a day at most) stay.
    ///
    /// # Errors
    /// If a directory cannot be read. A version that cannot be removed is left.
    pub fn purge(&self, retention: &Retention, now: SystemTime) -> io::Result<Purged> {
        self.state().grown = 0;
        let (now_ms, limit) = (millis(now), self.limit(retention.max_size));
        let keep_ms = u64::try_from(retention.keep.as_millis()).unwrap_or(u64::MAX);
        let clock = self.see_clock(now_ms);
        let is_old = |kept_at_ms| clock.age(kept_at_ms, now_ms) > keep_ms;
        let mut total = self.total()?;
        let mut purged = Purged::default();
        for day in self.days()? {
            if total <= limit && !is_old(day_start_ms(day)) {
                break;
            }
            let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
            let mut left = false;
            for file in self.candidates(day)? {
                let goes = is_old(file.kept_at_ms) || total > limit;
                if !goes || self.state().pinned.contains(&(day, file.name.clone())) {
                    left = true;
                    continue;
                }
                if let Err(error) = rustix::fs::unlinkat(&dir, &file.name[..], AtFlags::empty()) {
                    tracing::warn!(day, %error, "Cannot remove an old version");
                    left = true;
                    continue;
                }
                if let Some(key) = file.content {
                    self.state().contents.remove(&key);
                }
                total -= file.size.min(total);
                purged.files += 1;
                purged.bytes += file.size;
            }
            if !left && day < day_number(now) {
                self.remove_day(day)?;
            }
        }
        Ok(purged)
    }

    /// Removes these versions, since the user wants them gone; one that a program wrote to since it was kept stays, for it
    /// is another.
    ///
    /// # Errors
    /// If one cannot be removed; the others before it are.
    pub fn forget(&self, files: &[KeptFile]) -> io::Result<Purged> {
        let mut purged = Purged::default();
        for file in files {
            let (day, name) = day_and_name(&file.place)?;
            let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
            let print = lstat_at(&dir, &name)?.map(|stat| print_of(&stat));
            if print.is_none_or(|now| (now.size, now.mtime_ns) != (file.size, file.mtime_ns)) {
                continue;
            }
            rustix::fs::unlinkat(&dir, &name[..], AtFlags::empty())?;
            self.state().pinned.remove(&(day, name));
            purged.files += 1;
            purged.bytes += file.size;
        }
        Ok(purged)
    }

    /// Notes the wall clock before something is kept by it, if it has leapt since the last note.
    pub(super) fn see_leap(&self, now_ms: u64) {
        let noted = *self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none_or(|noted| noted.abs_diff(now_ms) > LEAP_MS) {
            self.see_clock(now_ms);
        }
    }

    /// Notes what the wall clock says, so that the next purge knows how much of a step to count.
    fn see_clock(&self, now_ms: u64) -> SeenClock {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = Some(now_ms);
        let mut clock = self.read_clock().unwrap_or_default();
        clock.see(now_ms);
        if let Err(error) = self.write_clock(&clock) {
            tracing::warn!(%error, "Cannot note the time beside old versions");
        }
        clock
    }

    fn read_clock(&self) -> Option<SeenClock> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, CLOCK, flags, Mode::empty()).ok()?;
        let mut text = String::new();
        let mut file = io::Read::take(File::from(file), seen::FILE_MAX);
        io::Read::read_to_string(&mut file, &mut text).ok()?;
        SeenClock::from_text(&text)
    }

    fn write_clock(&self, clock: &SeenClock) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, CLOCK_NEW, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        io::Write::write_all(&mut file, clock.to_text().as_bytes())?;
        rustix::fs::fsync(&file).or_else(not_supported)?;
        Ok(rustix::fs::renameat(&self.dir, CLOCK_NEW, &self.dir, CLOCK)?)
    }

    fn limit(&self, max: SizeLimit) -> u64 {
        match max {
            SizeLimit::Bytes(bytes) => bytes,
            SizeLimit::Percent(percent) => match rustix::fs::fstatvfs(&self.dir) {
                Ok(stat) => stat.f_blocks.saturating_mul(stat.f_frsize) / 100 * u64::from(percent),
                Err(_) => u64::MAX,
            },
        }
    }

    fn total(&self) -> io::Result<u64> {
        let mut total: u64 = 0;
        for day in self.days()? {
            let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
            for name in names(&dir)?.iter().filter(|name| *name != INDEX) {
                let size = lstat_at(&dir, name)?.map_or(0, |stat| stat.st_size);
                total = total.saturating_add(u64::try_from(size).unwrap_or(0));
            }
        }
        Ok(total)
    }

    /// Returns the versions of a day, oldest first; those without a record come first.
    fn candidates(&self, day: u32) -> io::Result<Vec<Candidate>> {
        let dir = open_dir(&self.dir, day_text(day).as_bytes())?;
        let records = self.records(day)?;
        let mut files = Vec::new();
        for name in names(&dir)?.into_iter().filter(|name| name != INDEX) {
            let Some(stat) = lstat_at(&dir, &name)? else {
                continue;
            };
            let record = records.get(&name);
            files.push(Candidate {
                kept_at_ms: record.map_or_else(|| day_start_ms(day), |(_, record)| record.kept_at_ms),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                content: record.and_then(|(at, record)| Some((prefix(&record.content?), day, *at))),
                name,
            });
        }
        files.sort_by(|a, b| (a.kept_at_ms, &a.name).cmp(&(b.kept_at_ms, &b.name)));
        Ok(files)
    }

    fn remove_day(&self, day: u32) -> io::Result<()> {
        let mut state = self.state();
        if state.open.as_ref().is_some_and(|open| open.day == day) {
            state.open = None;
        }
        state.contents.retain(|(_, of, _)| *of != day);
        drop(state);
        let text = day_text(day);
        let dir = open_dir(&self.dir, text.as_bytes())?;
        match rustix::fs::unlinkat(&dir, INDEX, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(rustix::fs::unlinkat(&self.dir, text, AtFlags::REMOVEDIR)?)
    }
}
