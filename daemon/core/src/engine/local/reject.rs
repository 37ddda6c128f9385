//! Changes that this device's role does not let it make.
//!
//! They are not published: every other device would refuse them. What the group has at the path comes back, and the
//! edited file is kept as an old version. A file at a path where the group has nothing is left alone, and looked at again
//! when the role changes.

use super::Change;
use crate::engine::{Notification, Observed, StateView, SyncEngine, below};
use crate::rel_path::RelPath;
use crate::tree::Installed;

/// Files left alone that are remembered, so that they are told of once; beyond it some are told of at every scan.
const MAX_REFUSED: usize = 16_384;

impl SyncEngine {
    /// Says whether this device may publish anything about a path.
    #[must_use]
    pub fn may_write(&self, path: &RelPath) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| group.writable(&self.me).covers(path))
    }

    /// Takes a change that may not be published; `false` if it may.
    pub(super) fn reject(
        &mut self,
        path: &RelPath,
        change: &Change,
        have: Option<&Installed>,
        view: &impl StateView,
    ) -> bool {
        let origin = have.and_then(|have| have.copy_of.as_ref());
        // Who gives up a copy says nothing of the path that it is shown at.
        let is_of_origin = origin.is_some() && (path.is_own() || change.after.is_none());
        if self.may_write(origin.unwrap_or(path)) && (is_of_origin || self.may_write(path)) {
            return false;
        }
        let wanted = self.want(path, view).is_some();
        let known = change.after.as_ref().map(|after| after.print);
        // What was left alone may have become the group's meanwhile, and gone from it again.
        let is_news = wanted || have.is_some();
        if !is_news && known.is_some() && self.local.refused.get(path) == known.as_ref() {
            return true;
        }
        self.local.refused.remove(path);
        match &change.after {
            Some(after) if wanted => self.record_refused(path, after, view),
            Some(after) => {
                if self.local.refused.len() < MAX_REFUSED {
                    self.local.refused.insert(path.clone(), after.print);
                }
                self.forget_row(path, have, view);
            }
            None => self.forget_row(path, have, view),
        }
        if change.after.is_some() || wanted {
            self.tell_rejected(path);
        }
        true
    }

    /// Notes what stands where something else is wanted, which then comes back: what stands there is kept as an old version.
    pub(super) fn record_refused(&mut self, path: &RelPath, after: &Observed, view: &impl StateView) {
        let refused = Installed {
            entry: after.entry.clone(),
            print: after.print,
            dots: Vec::new(),
            copy_of: None,
        };
        self.record_installed(path, Some(refused), view);
    }

    /// Tells that a change was not published.
    pub(super) fn tell_rejected(&mut self, path: &RelPath) {
        self.rejected += 1;
        self.notify(Notification::ChangeRejected { path: path.clone() });
    }

    fn forget_row(&mut self, path: &RelPath, have: Option<&Installed>, view: &impl StateView) {
        if have.is_some() {
            self.record_installed(path, None, view);
        }
    }

    /// Says whether a directory holds what this device's user left there and may not publish. It stays until he takes that
    /// away: trying again and again would change nothing.
    pub(in crate::engine) fn holds_refused(&self, holds: &[RelPath]) -> bool {
        let refused = |held: &RelPath| {
            self.local.refused.contains_key(held) || below(&self.local.refused, held).next().is_some()
        };
        holds.iter().any(refused)
    }

    /// This device may write other paths than before: what was left alone is looked at again.
    pub(in crate::engine) fn own_role_changed(&mut self) {
        self.rejected = 0;
        self.local.refused.clear();
        if matches!(self.phase, crate::engine::Phase::Running) {
            self.ask_scan();
        }
    }
}
