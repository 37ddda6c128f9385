//! Paths that cannot be synced or looked at, and why: what `status` names.

use std::collections::BTreeMap;

use p2p_sync_core::rel_path::RelPath;

/// Problems that are remembered; those beyond are found again by the next full scan, when others are mended.
const PROBLEMS_MAX: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Problems {
    known: BTreeMap<RelPath, String>,
    changed: bool,
}

impl Problems {
    /// Takes what a scan of everything found.
    pub(super) fn set(&mut self, found: impl IntoIterator<Item = (RelPath, String)>) {
        let known = found.into_iter().take(PROBLEMS_MAX).collect();
        self.changed |= known != self.known;
        self.known = known;
    }

    /// Returns the paths with a problem at or below some paths.
    pub(super) fn at_or_below(&self, paths: &[RelPath]) -> Vec<RelPath> {
        if self.known.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<RelPath> = paths.iter().flat_map(|path| self.within(path)).cloned().collect();
        found.sort();
        found.dedup();
        found
    }

    fn within<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a RelPath> {
        let with_prefix = self.known.range(path.clone()..).map(|(other, _)| other);
        with_prefix
            .take_while(|other| other.as_bytes().starts_with(path.as_bytes()))
            .filter(move |other| *other == path || other.is_below(path))
    }

    /// Puts what was found in the place of the problems of these paths.
    pub(super) fn replace(&mut self, paths: &[RelPath], found: impl IntoIterator<Item = (RelPath, String)>) {
        let before: Vec<_> = paths
            .iter()
            .filter_map(|path| self.known.remove_entry(path))
            .collect();
        for (path, why) in found {
            let room = self.known.len() < PROBLEMS_MAX || self.known.contains_key(&path);
            if room && self.known.insert(path.clone(), why.clone()).as_ref() != Some(&why) {
                self.changed |= !before.contains(&(path, why));
            }
        }
        self.changed |= before.iter().any(|(path, _)| !self.known.contains_key(path));
    }

    /// Returns all problems, if they changed since they were last returned.
    pub(super) fn news(&mut self) -> Option<Vec<(RelPath, String)>> {
        let all = || self.known.iter().map(|(path, why)| (path.clone(), why.clone()));
        std::mem::take(&mut self.changed).then(|| all().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(names: &[&str]) -> Vec<(RelPath, String)> {
        names.iter().map(|name| (rel(name), "why".to_owned())).collect()
    }

    fn rel(name: &str) -> RelPath {
        RelPath::parse(name).unwrap()
    }

    #[test]
    fn a_problem_is_told_once_and_forgotten_when_its_path_is_looked_at_without_one() {
        let mut all = Problems::default();
        all.set(problems(&["a", "d", "d!", "d/x", "d/y/z"]));
        assert_eq!(all.news().map(|news| news.len()), Some(5));
        assert_eq!(all.news(), None);
        let suspects = all.at_or_below(&[rel("d")]);
        assert_eq!(suspects, ["d", "d/x", "d/y/z"].map(rel));
        all.replace(&suspects, problems(&["d", "d/x", "d/y/z"]));
        assert_eq!(all.news(), None);
        all.replace(&suspects, problems(&["d/x"]));
        assert_eq!(all.news(), Some(problems(&["a", "d!", "d/x"])));
        all.replace(&[], problems(&["new"]));
        assert_eq!(all.news().map(|news| news.len()), Some(4));
        all.set(Vec::new());
        assert_eq!(all.news(), Some(Vec::new()));
    }

    #[test]
    fn no_more_problems_are_remembered_than_there_is_room_for() {
        let mut all = Problems::default();
        all.replace(
            &[],
            (0..PROBLEMS_MAX + 5).map(|n| (rel(&n.to_string()), String::new())),
        );
        assert_eq!(all.news().map(|news| news.len()), Some(PROBLEMS_MAX));
    }
}
