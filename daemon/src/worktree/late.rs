//! The end of installs, when the store knows them: what they replaced becomes old versions.
//!
//! Where that fails (no descriptor is free, the disk is full for a moment), the old file stays in its slot and its
//! intent open, and both are tried again, later and later. What failed together is tried together, so that a lasting
//! failure costs little. Nothing of this need outlive the process: recovery does the same from the intents.

use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{InstallToken, Unfinished, Worktree, WorktreeError};
use crate::journal::Tx;

/// First wait before an install is tried to be finished again; doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait: soon enough for whoever has just made room.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Installs that are tried again, a few hundred bytes each; those beyond wait for recovery after the next start.
const LATE_MAX: usize = 16_384;

/// Installs that could not be finished.
#[derive(Debug, Default)]
pub(super) struct Late {
    groups: VecDeque<Group>,
}

/// Installs that failed together.
#[derive(Debug)]
struct Group {
    entries: Vec<Unfinished>,
    wait: Duration,
    due: Instant,
}

impl Late {
    fn add(&mut self, mut entries: Vec<Unfinished>, wait: Duration, now: Instant) {
        let held: usize = self.groups.iter().map(|group| group.entries.len()).sum();
        let room = LATE_MAX.saturating_sub(held);
        if entries.len() > room {
            let count = entries.len() - room;
            tracing::warn!(
                count,
                "Some replaced files become old versions only after the next start"
            );
            entries.truncate(room);
        }
        if !entries.is_empty() {
            let due = now + wait;
            self.groups.push_back(Group { entries, wait, due });
        }
    }

    fn take_due(&mut self, now: Instant) -> VecDeque<Group> {
        let (due, rest) = self.groups.drain(..).partition(|group| group.due <= now);
        self.groups = rest;
        due
    }
}

impl Worktree {
    /// Closes installs that the store knows: keeps what they replaced as versions. One that fails stops no other.
    ///
    /// # Errors
    /// [`WorktreeError`], the first; those that failed are for [`finish_late`](Self::finish_late).
    pub fn finish(&self, token: InstallToken) -> Result<(), WorktreeError> {
        self.finish_or_wait(token.entries, WAIT_MIN, Instant::now())
    }

    /// Tries again what [`finish`](Self::finish) could not do, where its time has come; to be called every second or so.
    ///
    /// # Errors
    /// [`WorktreeError`], the first; what failed is tried again.
    pub fn finish_late(&self, now: Instant) -> Result<(), WorktreeError> {
        let due = self.late().take_due(now);
        let mut first_error = None;
        for group in due {
            let wait = (group.wait * 2).min(WAIT_MAX);
            if let Err(error) = self.finish_or_wait(group.entries, wait, now) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn finish_or_wait(
        &self,
        entries: Vec<Unfinished>,
        wait: Duration,
        now: Instant,
    ) -> Result<(), WorktreeError> {
        let mut left = Vec::new();
        let result = self.finish_entries(entries, &mut left);
        self.late().add(left, wait, now);
        result
    }

    /// As [`finish`](Self::finish); those that are to be tried again go to `left`.
    fn finish_entries(
        &self,
        entries: Vec<Unfinished>,
        left: &mut Vec<Unfinished>,
    ) -> Result<(), WorktreeError> {
        let (replaced, rest): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.displaced.is_some());
        let mut done: Vec<Tx> = rest.iter().map(|entry| entry.tx).collect();
        let mut kept = Ok(());
        if !replaced.is_empty() {
            let txs: Vec<Tx> = replaced.iter().map(|entry| entry.tx).collect();
            if let Err(error) = self.journal.recorded(&txs) {
                left.extend(replaced.into_iter().chain(rest));
                return Err(error.into());
            }
            kept = self.keep_replaced(replaced, &mut done, left);
        }
        self.journal.done(&done)?;
        kept
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::rel_path::RelPath;

    use super::*;

    fn entries(count: usize) -> Vec<Unfinished> {
        let entry = |n: usize| Unfinished {
            tx: Tx(n as u64),
            path: RelPath::parse("p").unwrap(),
            displaced: None,
            content: None,
            noted_on: None,
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn what_is_tried_again_is_bounded_and_comes_when_its_wait_is_over() {
        let (mut late, now) = (Late::default(), Instant::now());
        late.add(Vec::new(), WAIT_MIN, now);
        late.add(entries(LATE_MAX - 1), WAIT_MIN, now);
        late.add(entries(2), WAIT_MAX, now);
        late.add(entries(1), WAIT_MIN, now);
        assert!(late.take_due(now).is_empty());
        let sizes = |due: VecDeque<Group>| due.iter().map(|group| group.entries.len()).collect::<Vec<_>>();
        assert_eq!(sizes(late.take_due(now + WAIT_MIN)), [LATE_MAX - 1]);
        assert_eq!(sizes(late.take_due(now + WAIT_MAX)), [1]);
        late.add(entries(1), WAIT_MIN, now);
        assert_eq!(late.groups.len(), 1, "there is room again");
    }
}
