//! What is known about why a path is not yet as it should be.

use std::borrow::Cow;

use super::{Need, SOURCE_RETRY, Stage, Work};
use crate::engine::{Cause, SyncEngine};
use crate::ids::ContentHash;
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Now};

/// Stuck paths that `status` names.
const MAX_STUCK: usize = 100;
const NO_SOURCE: &str = "no connected device has its content";
const JOIN_HELD: &str =
    "it differs from the group's and waits for a choice: syncctl join --keep-both or --prefer-group";
const DELETION_HELD: &str =
    "it vanished while nobody looked and waits for an answer: syncctl confirm-deletes";

impl Work {
    /// Returns stuck paths with their reasons, as many as `status` names.
    pub(in crate::engine) fn stuck(&self) -> Vec<(RelPath, String)> {
        let some = self.reasons.iter().take(MAX_STUCK);
        some.map(|(path, reason)| (path.clone(), reason.to_string()))
            .collect()
    }

    /// Returns how many paths are stuck.
    pub(in crate::engine) fn stuck_count(&self) -> u64 {
        self.reasons.len() as u64
    }

    /// Leaves a path alone until the user has answered.
    pub(super) fn wait_for_answer(&mut self, path: RelPath, reason: &'static str) {
        self.set_stage(&path, Stage::Parked);
        self.reasons.insert(path, Cow::Borrowed(reason));
    }

    /// Leaves a path alone until somebody has its content; if nobody says so, asks again, ever more seldom. Paths that have
    /// waited long are asked for together. `forked`: two machines have one key, and the other may answer the next time.
    pub(super) fn has_no_source(&mut self, path: &RelPath, forked: bool, now: Now) {
        self.set_stage(path, Stage::Parked);
        let Some(state) = self.needs.get_mut(path) else {
            return;
        };
        let tries = if forked { 0 } else { state.unsourced.min(6) };
        let wait = SOURCE_RETRY * (1 << tries);
        state.unsourced += 1;
        let (wait, due) = (wait.as_millis(), now.boot.after(wait).as_millis());
        let whole = match u64::try_from(wait) {
            Ok(wait) if tries > 0 => due.next_multiple_of(wait),
            _ => due,
        };
        self.retry.insert((BootInstant::from_millis(whole), path.clone()));
        self.unsourced.insert(path.clone());
        self.reasons.insert(path.clone(), Cow::Borrowed(NO_SOURCE));
    }

    /// Notes that a content came into the folder, or went from it.
    pub(in crate::engine) fn may_be_here(&mut self, content: Option<ContentHash>) {
        let Some(content) = content.filter(|_| !self.unsourced.is_empty()) else {
            return;
        };
        if self.wanted.contains_key(&content) {
            self.appeared.insert(content);
        }
    }

    /// Tries paths again that nobody had the content of, soon after it may be had here: when what was replaced has been put
    /// aside.
    pub(super) fn try_what_appeared(&mut self, now: Now) {
        for content in std::mem::take(&mut self.appeared) {
            let paths = self.wanted.get(&content).into_iter().flatten();
            for path in paths.filter(|path| self.unsourced.remove(*path)) {
                self.retry.insert((now.boot.after(SOURCE_RETRY), path.clone()));
            }
        }
    }

    /// Says whether a path waits to be taken away.
    pub(in crate::engine) fn is_removal(&self, path: &RelPath) -> bool {
        self.removes(path)
    }

    /// Returns why a path is not yet as it should be; `None` if nothing is to be done there.
    pub(in crate::engine) fn cause(&self, path: &RelPath, now: BootInstant) -> Option<Cause> {
        let state = self.needs.get(path)?;
        let size = match state.need {
            Need::Put { bytes, .. } => bytes,
            Need::Remove { .. } => 0,
        };
        let retries = self.retry.iter().filter(|(_, waiting)| waiting == path);
        let retry_in = retries.map(|(at, _)| at.since(now)).min();
        Some(match state.stage {
            Stage::Ready => Cause::Waiting,
            Stage::Fetching => Cause::Fetching {
                size,
                from: Vec::new(),
            },
            Stage::Queued => Cause::Queued,
            Stage::Installing => Cause::Installing,
            Stage::Parked if self.unsourced.contains(path) => Cause::NoSource { size, retry_in },
            Stage::Parked => {
                let reason = self.reasons.get(path).map(|reason| reason.to_string());
                Cause::Parked { reason, retry_in }
            }
        })
    }
}

impl SyncEngine {
    /// Says for which answer of the user's a path waits.
    pub(super) fn waits_for_answer(&self, path: &RelPath) -> Option<&'static str> {
        if self.local.holds(path) {
            Some(JOIN_HELD)
        } else if self.local.holds_deletion(path) {
            Some(DELETION_HELD)
        } else {
            None
        }
    }
}
