//! A bounded memory of when something happened at a path.

use std::collections::{BTreeMap, VecDeque};

use super::below;
use crate::rel_path::RelPath;
use crate::time::BootInstant;

/// When something happened last at each of the paths at which it happened most lately; at most `MOST` notes.
#[derive(Debug, Default)]
pub(super) struct Times<const MOST: usize> {
    at: BTreeMap<RelPath, BootInstant>,
    /// The same in order of time; what happened again since is in `at` under its newer time only.
    order: VecDeque<(BootInstant, RelPath)>,
    /// When the last of those happened that are not remembered any more.
    forgotten: Option<BootInstant>,
}

impl<const MOST: usize> Times<MOST> {
    /// Notes that it happened at a path.
    pub(super) fn note(&mut self, path: RelPath, now: BootInstant) {
        if self.at.insert(path.clone(), now) != Some(now) {
            self.order.push_back((now, path));
        }
        while self.order.len() > MOST {
            let Some((at, path)) = self.order.pop_front() else {
                break;
            };
            if self.at.get(&path) == Some(&at) {
                self.at.remove(&path);
            }
            self.forgotten = Some(at);
        }
    }

    /// Returns up to when it may have happened at a path last.
    pub(super) fn last(&self, path: &RelPath) -> Option<BootInstant> {
        self.at.get(path).copied().max(self.forgotten)
    }

    /// Returns the paths below another at which it is known to have happened at a time or later.
    pub(super) fn below_since<'t>(
        &'t self,
        path: &'t RelPath,
        since: BootInstant,
    ) -> impl Iterator<Item = &'t RelPath> {
        let since = below(&self.at, path).filter(move |(_, at)| **at >= since);
        since.map(|(path, _)| path)
    }

    /// Says whether it may have happened, at a time or later, at paths that are not remembered any more.
    pub(super) fn has_forgotten(&self, since: BootInstant) -> bool {
        self.forgotten.is_some_and(|at| at >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::parse(path).unwrap()
    }

    fn at(ms: u64) -> BootInstant {
        BootInstant::from_millis(ms)
    }

    fn times(notes: &[(&str, u64)]) -> Times<3> {
        let mut times = Times::default();
        for (path, ms) in notes {
            times.note(rel(path), at(*ms));
        }
        times
    }

    #[test]
    fn the_last_time_of_a_path_counts() {
        let times = times(&[("a", 1), ("b", 2), ("a", 3)]);
        assert_eq!(times.last(&rel("a")), Some(at(3)));
        assert_eq!(times.last(&rel("b")), Some(at(2)));
        assert_eq!(times.last(&rel("c")), None);
        assert!(!times.has_forgotten(at(0)));
    }

    #[test]
    fn what_is_forgotten_may_have_happened_at_any_path() {
        let times = times(&[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("d", 5)]);
        for (path, last) in [("a", 3), ("b", 2), ("c", 4), ("d", 5), ("other", 2)] {
            assert_eq!(times.last(&rel(path)), Some(at(last)), "{path}");
        }
        assert!(times.has_forgotten(at(2)) && !times.has_forgotten(at(3)));
        assert_eq!((times.at.len(), times.order.len()), (3, 3));
    }

    #[test]
    fn notes_of_one_time_and_path_are_one_note() {
        let times = times(&[("a", 1), ("a", 1), ("a", 1), ("b", 1), ("c", 1)]);
        assert!(!times.has_forgotten(at(0)));
        assert_eq!(times.order.len(), 3);
    }

    #[test]
    fn paths_below_another_are_those_since_a_time() {
        let times = times(&[("d/old", 1), ("d/x/new", 2), ("e", 3)]);
        let below: Vec<_> = times.below_since(&rel("d"), at(2)).cloned().collect();
        assert_eq!(below, [rel("d/x/new")]);
        assert_eq!(times.below_since(&rel("d"), at(1)).count(), 2);
    }
}
