//! When a path that was hinted at is to be looked at: pure logic, time is passed in.
//!
//! | hint | looked at |
//! |---|---|
//! | directory made, entry moved here, file closed after writing | at once |
//! | file or link made | after [`NEW_DELAY`], since its close nearly always follows |
//! | entry removed or moved away | after [`GONE_DELAY`]; a move within the folder: both ends at once |
//! | written or changed in mode or time | after [`QUIET_MIN`] of quiet |
//!
//! A path that is hot, which is hinted at again soon after it was looked at, waits for twice the quiet it waited for
//! before, up to [`QUIET_MAX`]; no path waits longer than [`WAIT_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use p2p_sync_core::rel_path::RelPath;

/// A file's first write and close follow its making within microseconds, unless it is copied slowly.
pub(super) const NEW_DELAY: Duration = Duration::from_millis(10);
/// A removal waits for the other half of a rename or of a save that removes first.
pub(super) const GONE_DELAY: Duration = Duration::from_millis(300);
/// Quiet after which a file that was written but not closed is looked at.
pub(super) const QUIET_MIN: Duration = Duration::from_millis(100);
/// Longest quiet asked of a hot file.
pub(super) const QUIET_MAX: Duration = Duration::from_secs(2);
/// Longest wait of a file that is never quiet.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);
/// A path has cooled down after this many times the quiet asked of it: 400 ms after a first look, so that somebody who
/// saves twice waits neither time.
const COOL_FACTOR: u32 = 4;
/// Paths waiting at once; more count as an overflow, for a scan is cheaper then.
pub(super) const PENDING_MAX: usize = 65_536;
/// Paths remembered as hot; with more, all count as cool.
const HOT_MAX: usize = 16_384;
/// Quiet after an overflow before it is reported, so that one storm makes one scan.
pub(super) const OVERFLOW_QUIET: Duration = Duration::from_secs(1);
/// Longest wait of an overflow.
const OVERFLOW_WAIT: Duration = Duration::from_secs(30);
/// Paths handed out at once.
const BATCH_MAX: usize = 4096;

/// What the kernel said about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewFile,
    NewDir,
    Closed,
    Written,
    Gone,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Paths(Vec<RelPath>),
    Overflow,
}

#[derive(Debug)]
struct Pending {
    first: Instant,
    due: Instant,
}

#[derive(Debug)]
struct Heat {
    quiet: Duration,
    seen: Instant,
}

impl Heat {
    fn is_hot(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < self.quiet * COOL_FACTOR
    }

    /// Says whether a path that is looked at now was hot when its hint came, one quiet ago.
    fn waited_hot(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < self.quiet * (COOL_FACTOR + 1)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Coalescer {
    pending: BTreeMap<RelPath, Pending>,
    order: BTreeSet<(Instant, RelPath)>,
    heat: BTreeMap<RelPath, Heat>,
    /// First and last overflow that is not reported yet.
    overflow: Option<(Instant, Instant)>,
}

impl Coalescer {
    /// Takes a hint.
    pub(super) fn hint(&mut self, path: RelPath, kind: Kind, now: Instant) {
        if !self.pending.contains_key(&path) && self.pending.len() >= PENDING_MAX {
            self.overflow(now);
            return;
        }
        let hot = self.heat.get(&path).filter(|h| h.is_hot(now)).map(|h| h.quiet);
        let delay = match (kind, hot) {
            (Kind::NewDir, _) | (Kind::Closed, None) => Duration::ZERO,
            (Kind::NewFile, None) => NEW_DELAY,
            (Kind::Written, None) => QUIET_MIN,
            (Kind::Gone, hot) => hot.unwrap_or_default().max(GONE_DELAY),
            (Kind::NewFile | Kind::Closed | Kind::Written, Some(quiet)) => quiet,
        };
        let first = self.pending.get(&path).map_or(now, |p| p.first);
        self.set_due(path, first, (now + delay).min(first + WAIT_MAX));
    }

    /// Takes both ends of a rename within the folder.
    pub(super) fn renamed(&mut self, from: RelPath, to: RelPath, now: Instant) {
        for path in [from, to] {
            let first = self.pending.get(&path).map_or(now, |p| p.first);
            self.set_due(path, first, now);
        }
    }

    /// Notes that hints were lost.
    pub(super) fn overflow(&mut self, now: Instant) {
        let first = self.overflow.map_or(now, |(first, _)| first);
        self.overflow = Some((first, now));
        self.pending.clear();
        self.order.clear();
    }

    /// Returns when [`poll`](Self::poll) has something next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let paths = self.order.first().map(|(due, _)| *due);
        let overflow = self
            .overflow
            .map(|(first, last)| (last + OVERFLOW_QUIET).min(first + OVERFLOW_WAIT));
        [paths, overflow].into_iter().flatten().min()
    }

    /// Returns what is due, sorted by path.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Due> {
        if let Some((first, last)) = self.overflow
            && now >= (last + OVERFLOW_QUIET).min(first + OVERFLOW_WAIT)
        {
            self.overflow = None;
            return Some(Due::Overflow);
        }
        let mut paths = Vec::new();
        while paths.len() < BATCH_MAX
            && let Some((due, _)) = self.order.first()
            && *due <= now
            && let Some((_, path)) = self.order.pop_first()
        {
            self.pending.remove(&path);
            self.warm(path.clone(), now);
            paths.push(path);
        }
        paths.sort();
        (!paths.is_empty()).then_some(Due::Paths(paths))
    }

    fn set_due(&mut self, path: RelPath, first: Instant, due: Instant) {
        if let Some(old) = self.pending.insert(path.clone(), Pending { first, due }) {
            self.order.remove(&(old.due, path.clone()));
        }
        self.order.insert((due, path));
    }

    /// Notes that a path is looked at now: a hint soon after it finds it hot.
    fn warm(&mut self, path: RelPath, now: Instant) {
        if self.heat.len() >= HOT_MAX {
            self.heat.retain(|_, h| h.is_hot(now));
            if self.heat.len() >= HOT_MAX {
                self.heat.clear();
            }
        }
        let heat = self.heat.entry(path).or_insert(Heat {
            quiet: QUIET_MIN / 2,
            seen: now,
        });
        heat.quiet = if heat.waited_hot(now) {
            (heat.quiet * 2).min(QUIET_MAX)
        } else {
            QUIET_MIN
        };
        heat.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    fn paths(names: &[&str]) -> Option<Due> {
        Some(Due::Paths(names.iter().map(|n| rel(n)).collect()))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn closed_files_and_new_directories_are_due_at_once() {
        let (mut c, now) = (Coalescer::default(), Instant::now());
        c.hint(rel("f"), Kind::NewFile, now);
        assert_eq!(c.poll(now), None);
        c.hint(rel("f"), Kind::Written, now);
        c.hint(rel("f"), Kind::Closed, now);
        c.hint(rel("d"), Kind::NewDir, now);
        assert_eq!(c.poll(now), paths(&["d", "f"]));
        assert_eq!((c.poll(now), c.deadline()), (None, None));
    }

    #[test]
    fn a_removal_waits_and_a_new_file_takes_its_place() {
        let (mut c, now) = (Coalescer::default(), Instant::now());
        c.hint(rel("f"), Kind::Gone, now);
        c.hint(rel("g"), Kind::Gone, now);
        c.hint(rel("f"), Kind::Closed, now + ms(20));
        assert_eq!(c.poll(now + ms(20)), paths(&["f"]));
        assert_eq!(c.deadline(), Some(now + GONE_DELAY));
        assert_eq!(c.poll(now + GONE_DELAY), paths(&["g"]));
    }

    #[test]
    fn both_ends_of_a_rename_come_together() {
        let (mut c, now) = (Coalescer::default(), Instant::now());
        c.hint(rel("a"), Kind::Gone, now);
        c.hint(rel("b"), Kind::Closed, now);
        c.renamed(rel("a"), rel("b"), now);
        assert_eq!(c.poll(now), paths(&["a", "b"]));
    }

    #[test]
    fn a_hot_file_is_looked_at_less_and_less_often() {
        let (mut c, mut now) = (Coalescer::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            c.hint(rel("log"), Kind::Closed, now);
            let due = c.deadline().unwrap();
            waits.push((due - now).as_millis());
            assert_eq!(c.poll(due), paths(&["log"]));
            now = due + ms(1);
        }
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 2000, 2000]);
        now += QUIET_MAX * COOL_FACTOR;
        c.hint(rel("log"), Kind::Closed, now);
        assert_eq!(c.deadline(), Some(now));
    }

    #[test]
    fn a_file_that_is_never_quiet_is_looked_at_after_five_minutes() {
        let (mut c, start) = (Coalescer::default(), Instant::now());
        let mut now = start;
        while c.poll(now).is_none() {
            c.hint(rel("vm"), Kind::Written, now);
            now += ms(50);
        }
        assert!(now - start >= WAIT_MAX && now - start < WAIT_MAX + ms(200));
    }

    #[test]
    fn an_overflow_is_reported_after_quiet_and_replaces_all_hints() {
        let (mut c, now) = (Coalescer::default(), Instant::now());
        c.hint(rel("f"), Kind::Closed, now);
        c.overflow(now);
        c.overflow(now + ms(500));
        assert_eq!(c.poll(now + ms(1000)), None);
        assert_eq!(c.poll(now + ms(1500)), Some(Due::Overflow));
        assert_eq!(c.poll(now + ms(9000)), None);
        for i in 0..=PENDING_MAX {
            c.hint(rel(&i.to_string()), Kind::Closed, now);
        }
        assert!(c.pending.is_empty());
        assert_eq!(c.poll(now + OVERFLOW_QUIET), Some(Due::Overflow));
    }
}
