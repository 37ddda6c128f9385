//! Ignored paths, and what happens when the rules change.
//!
//! An ignored path has no need, and what is reported of it means nothing. A row of what was installed there is kept,
//! but *set aside* ([`Installed::is_set_aside`]): its print matches nothing, so that once the path is not ignored any
//! more it is looked at again: equal bytes take the row up again, other bytes are an edit of the version that the row
//! names, and absence is no deletion, since whatever was removed was removed while it was nobody's business.
//!
//! New rules take effect at once for what comes from then on. What is already known is gone through in portions: all
//! installed rows, then all paths that the ledger fills. A path that the ledger fills and that needed nothing before
//! was ignored until now; what stands there was never seen. It is compared as a joiner's file is, and nothing is
//! fetched for it before the scan that follows is over.
//!
//! The rules by which everything was last gone through are named in a setting. A crash in between begins anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::paths::Want;
use super::{Observed, Phase, StateView, SyncEngine};
use crate::ignore::{IgnoreNothing, IgnoreRules};
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Now};
use crate::tree::{Fingerprint, Installed, Node};

/// Setting: the rules by which all paths were gone through.
pub(super) const IGNORED_BY: &str = "ignored_by";
/// Paths gone through at once.
const PORTION: usize = 512;
/// Between two portions, so that everything else has its turn.
const PAUSE: Duration = Duration::from_millis(5);

/// What is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What is not durable yet, which the store does not show.
    Pending,
    Installed,
    Live,
}

#[derive(Debug)]
struct Walk {
    part: Part,
    after: Option<RelPath>,
    at: BootInstant,
}

impl Walk {
    fn new() -> Self {
        Self {
            part: Part::Pending,
            after: None,
            at: BootInstant::default(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ignoring {
    rules: Arc<dyn IgnoreRules>,
    /// The rules by which all paths were gone through.
    applied: [u8; 32],
    walk: Option<Walk>,
    /// Rules that came while others were still being applied.
    next: Option<Arc<dyn IgnoreRules>>,
    /// Paths that are not ignored any more and whose place on disk has not been looked at.
    unseen: BTreeSet<RelPath>,
    /// Whether the scan that looks at them is not over yet.
    waiting: bool,
}

impl Ignoring {
    pub(super) fn new(applied: Option<&Vec<u8>>) -> Self {
        let applied = applied.and_then(|id| id.as_slice().try_into().ok());
        Self {
            rules: Arc::new(IgnoreNothing),
            applied: applied.unwrap_or_default(),
            walk: None,
            next: None,
            unseen: BTreeSet::new(),
            waiting: false,
        }
    }

    /// Says whether new rules are still being applied; a scan follows.
    pub(super) const fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// Says whether nothing is to be fetched for a path yet.
    pub(super) fn holds(&self, path: &RelPath) -> bool {
        self.waiting && self.unseen.contains(path)
    }

    /// Notes that it is known what stands at a path, or that it does not matter.
    pub(super) fn seen(&mut self, path: &RelPath) {
        self.unseen.remove(path);
    }
}

impl SyncEngine {
    /// Returns when the next portion is to be gone through.
    pub(super) fn ignoring_deadline(&self) -> Option<(BootInstant, &'static str)> {
        let walk = self.ignoring.walk.as_ref()?;
        self.may_walk().then_some((walk.at, "apply the ignore rules"))
    }

    /// Says whether the needs of the last run, by which a path that was ignored is told from others, are known.
    const fn may_walk(&self) -> bool {
        matches!(self.phase, Phase::Scanning { .. } | Phase::Running)
    }

    /// Takes the rules that hold from now on.
    pub(super) fn set_ignore_rules(&mut self, rules: Arc<dyn IgnoreRules>) {
        if self
            .ignoring
            .walk
            .as_ref()
            .is_some_and(|walk| walk.part != Part::Pending)
        {
            self.ignoring.next = Some(rules);
            return;
        }
        let known = rules.id() == self.ignoring.applied;
        self.ignoring.rules = rules;
        if known && self.ignoring.walk.is_none() {
            return;
        }
        self.ignoring.walk = Some(Walk::new());
        self.ignoring.waiting = true;
        self.pending.set_setting(IGNORED_BY, None);
    }

    /// Goes through the next portion.
    pub(super) fn ignoring_timeout(&mut self, now: Now, view: &impl StateView) {
        if !self.may_walk() {
            return;
        }
        let Some(mut walk) = self.ignoring.walk.take_if(|walk| walk.at <= now.boot) else {
            return;
        };
        let done = self.walk_portion(&mut walk, view);
        walk.at = now.boot.after(PAUSE);
        if !done {
            self.ignoring.walk = Some(walk);
            return;
        }
        self.ignoring.applied = self.ignoring.rules.id();
        self.keep_ignored_by();
        if let Some(next) = self.ignoring.next.take() {
            self.set_ignore_rules(next);
        }
        if self.ignoring.walk.is_none() {
            self.ask_scan();
        }
    }

    fn keep_ignored_by(&mut self) {
        let id = self.ignoring.applied.to_vec();
        self.pending.set_setting(IGNORED_BY, Some(id));
    }

    /// The group was left: nothing is known of any path.
    pub(super) fn ignoring_left_group(&mut self) {
        self.ignoring.unseen.clear();
        match &mut self.ignoring.walk {
            Some(walk) => *walk = Walk::new(),
            None => self.keep_ignored_by(),
        }
    }

    fn walk_portion(&mut self, walk: &mut Walk, view: &impl StateView) -> bool {
        if walk.part == Part::Pending {
            for path in self.pending.paths_under_way() {
                self.look_anew(&path, view);
            }
            walk.part = Part::Installed;
        }
        for _ in 0..PORTION {
            let after = walk.after.as_ref();
            let next = match walk.part {
                Part::Live => view.next_live_below(None, after),
                Part::Pending | Part::Installed => view.next_installed_below(None, after),
            };
            match next {
                Some(path) => {
                    self.look_anew(&path, view);
                    walk.after = Some(path);
                }
                None if walk.part == Part::Live => return true,
                None => {
                    walk.part = Part::Live;
                    walk.after = None;
                }
            }
        }
        false
    }

    /// Looks up what a path and its conflict copies need by the rules of now.
    fn look_anew(&mut self, path: &RelPath, view: &impl StateView) {
        let state = self.pending.path_state(view, path).unwrap_or_default();
        let copies = state.shown.into_iter().map(|(name, _)| name);
        for name in std::iter::once(path.clone()).chain(copies) {
            let needed = self.work.needs(&name);
            self.update_need(&name, view);
            let have = self.pending.installed(view, &name);
            let unseen = have.as_ref().map_or(!needed, Installed::is_set_aside);
            if unseen && self.work.needs(&name) {
                self.ignoring.unseen.insert(name);
            }
        }
    }

    /// A scan is over; `false` if it does not count, since another follows by newer rules. Otherwise what was not found is
    /// not there.
    pub(super) fn ignoring_scanned(&mut self) -> bool {
        if self.ignoring.is_walking() {
            return false;
        }
        if std::mem::take(&mut self.ignoring.waiting) {
            self.work.wake();
        }
        true
    }

    /// Says whether what stands at a path, of which no row tells, stood there while the path was ignored.
    pub(super) fn is_unseen(&self, path: &RelPath, view: &impl StateView) -> bool {
        let filled = || self.want(path, view).is_some_and(|want| want.dot.is_some());
        let not_reached = self.ignoring.is_walking() && !self.work.needs(path) && filled();
        self.ignoring.unseen.contains(path) || not_reached
    }

    /// Says whether this device leaves a path alone, given what should stand there and what does.
    ///
    /// A hidden conflict copy is ignored with the path it is a copy of; another is not made for an ignored path, but one
    /// that is there goes by its own name.
    pub(super) fn is_ignored(&self, path: &RelPath, want: Option<&Want>, have: Option<&Installed>) -> bool {
        let dir = want.is_some_and(|want| want.entry.node.is_dir())
            || have.is_some_and(|have| have.entry.node.is_dir());
        let origin = have
            .map(|have| have.copy_of.as_ref())
            .or_else(|| want.map(|want| want.copy_of.as_ref()))
            .flatten();
        let rules = &self.ignoring.rules;
        let by_origin = origin
            .filter(|_| path.is_own() || have.is_none())
            .is_some_and(|origin| rules.is_ignored(origin, dir));
        by_origin || !path.is_own() && rules.is_ignored(path, dir)
    }

    /// Says whether a report of a path means nothing because the path is ignored.
    pub(super) fn is_report_ignored(
        &self,
        path: &RelPath,
        after: Option<&Observed>,
        have: Option<&Installed>,
    ) -> bool {
        let seen = after.map(|after| &after.entry.node);
        let is_dir = seen
            .or(have.map(|have| &have.entry.node))
            .is_some_and(Node::is_dir);
        let judged = if path.is_own() {
            have.and_then(|have| have.copy_of.as_ref())
        } else {
            Some(path)
        };
        judged.is_some_and(|path| self.ignoring.rules.is_ignored(path, is_dir))
    }

    /// Keeps the row of an ignored path for the time when it is not ignored any more.
    pub(super) fn set_aside(&mut self, path: &RelPath, have: Installed, view: &impl StateView) {
        if !have.is_set_aside() {
            let print = Fingerprint::default();
            self.record_installed(path, Some(Installed { print, ..have }), view);
        }
    }

    /// Returns why a directory cannot go or be replaced, given some of what it holds.
    pub(super) fn why_not_empty(&self, holds: &[RelPath]) -> String {
        let rules = &self.ignoring.rules;
        let ignored = |path: &&RelPath| rules.is_ignored(path, false) || rules.is_ignored(path, true);
        match (holds.iter().find(ignored), holds.first()) {
            (Some(path), _) => format!("the directory still holds {path}, which is ignored here"),
            (None, Some(path)) => format!("the directory still holds {path}, which is not synced"),
            (None, None) => "the directory still holds something that is not synced".to_owned(),
        }
    }
}
