//! How old a version is, when clocks may leap: only time counts that was seen to pass.
//!
//! Each purge notes the wall clock in the file `clock` beside the versions. A step of more than [`STEP_MAX`] since the
//! last note counts as [`STEP_MAX`] only, whether the device was off or its clock was set: what lies before it is taken
//! for as much younger. A clock that is set back undoes the steps that led beyond it.
//!
//! The file is text: a line `p2p-sync-clock 1`, then the milliseconds since 1970 of the last note, then a line with the
//! start and the end of each large step. Without it, or with one that makes no sense, ages go by the wall clock; it is
//! replaced by renaming, so a crash leaves the note before.

use std::fmt::Write as _;
use std::time::Duration;

/// What one step of the clock counts at most; more than a weekend and most journeys.
const STEP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Large steps that are remembered; when there are more, the oldest counts in full.
const STEPS_KEPT: usize = 64;
/// First line of the file.
const HEADER: &str = "p2p-sync-clock 1";
/// Bytes of the longest file: each number has at most 20 digits.
pub(super) const FILE_MAX: u64 = 64 + (STEPS_KEPT as u64 + 1) * 42;

/// What was seen of the wall clock; all in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SeenClock {
    last: Option<u64>,
    /// Start and end of each large step, oldest first.
    steps: Vec<(u64, u64)>,
}

impl SeenClock {
    /// Notes what the wall clock says now.
    pub(super) fn see(&mut self, now: u64) {
        if let Some(last) = self.last.filter(|last| now.saturating_sub(*last) > step_max()) {
            self.steps.push((last, now));
        }
        self.steps.retain(|(_, end)| *end <= now);
        let excess = self.steps.len().saturating_sub(STEPS_KEPT);
        self.steps.drain(..excess);
        self.last = Some(now);
    }

    /// Returns how much of the time since `then` was seen to pass; `now` was noted last.
    pub(super) fn age(&self, then: u64, now: u64) -> u64 {
        let unseen = self.steps.iter().filter(|(start, _)| then <= *start);
        let unseen: u64 = unseen.map(|(start, end)| end - start - step_max()).sum();
        now.saturating_sub(then).saturating_sub(unseen)
    }

    /// Returns the text of the file.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n{}\n", self.last.unwrap_or_default());
        for (start, end) in &self.steps {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{start} {end}");
        }
        text
    }

    /// Reads the text of the file; `None` if it is none.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next().filter(|line| *line == HEADER)?;
        let last = lines.next()?.parse().ok()?;
        let mut steps = Vec::new();
        for line in lines {
            let (start, end) = line.split_once(' ')?;
            let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
            steps.push((start, end));
            if end.checked_sub(start)? <= step_max() || steps.len() > STEPS_KEPT {
                return None;
            }
        }
        Some(Self {
            last: Some(last),
            steps,
        })
    }
}

fn step_max() -> u64 {
    u64::try_from(STEP_MAX.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;
    const YEARS: u64 = 3650 * DAY;

    fn seen(days: &[u64]) -> SeenClock {
        let mut clock = SeenClock::default();
        days.iter().for_each(|day| clock.see(day * DAY));
        clock
    }

    #[test]
    fn time_that_is_seen_to_pass_counts_in_full() {
        let clock = seen(&[100, 101, 108, 115]);
        assert_eq!(clock.age(100 * DAY, 115 * DAY), 15 * DAY);
        assert_eq!(clock.age(116 * DAY, 115 * DAY), 0);
        assert_eq!(SeenClock::default().age(0, 9 * DAY), 9 * DAY);
    }

    #[test]
    fn a_leap_counts_as_a_week_for_what_was_before_it() {
        let mut clock = seen(&[100, 101]);
        let now = 101 * DAY + YEARS;
        clock.see(now);
        assert_eq!(clock.age(100 * DAY, now), 8 * DAY);
        clock.see(now + 3 * DAY);
        assert_eq!(clock.age(100 * DAY, now + 3 * DAY), 11 * DAY);
        assert_eq!(clock.age(now, now + 3 * DAY), 3 * DAY);
    }

    #[test]
    fn a_clock_set_right_again_undoes_its_leap() {
        let mut clock = seen(&[100, 101]);
        clock.see(101 * DAY + YEARS);
        clock.see(102 * DAY);
        assert_eq!(clock.age(100 * DAY, 102 * DAY), 2 * DAY);
        // From 1970 on, and back.
        for day in [1, 2, 103] {
            clock.see(day * DAY);
        }
        assert_eq!(clock.age(2 * DAY, 103 * DAY), 7 * DAY);
    }

    #[test]
    fn what_was_seen_is_read_as_it_was_written_and_nothing_else() {
        let mut clock = seen(&[100, 200, 201, 400]);
        let text = clock.to_text();
        assert_eq!(SeenClock::from_text(&text), Some(clock.clone()));
        for damaged in ["", "p2p-sync-clock 2\n1\n", "p2p-sync-clock 1\nx\n"] {
            assert_eq!(SeenClock::from_text(damaged), None);
        }
        assert_eq!(SeenClock::from_text(&format!("{text}5 1\n")), None);
        for year in 1..100 {
            clock.see(500 * DAY + year * YEARS);
        }
        let text = clock.to_text();
        assert_eq!(SeenClock::from_text(&text), Some(clock));
        assert!(text.len() as u64 <= FILE_MAX);
    }
}
