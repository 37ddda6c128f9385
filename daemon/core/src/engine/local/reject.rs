//! Changes that this device's role does not let it make.
//!
//! They are not published: every other device would refuse them. What the group has at the path comes back, and the
//! edited file is kept as an old version. A file at a path where the group has nothing is left alone, and looked at again
//! when the role changes.

use super::{Change, Draft};
use crate::engine::{Notification, StateView, SyncEngine};
use crate::rel_path::RelPath;
use crate::tree::Installed;

impl SyncEngine {
    /// Says whether this device may publish anything about a path.
    pub(super) fn may_write(&self, path: &RelPath) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| group.writable(&self.me).covers(path))
    }

    /// Takes a change that may not be published; `false` if it may.
    pub(super) fn reject(
        &mut self,
        path: &RelPath,
        change: &Change,
        have: Option<&Installed>,
        draft: &Draft,
        view: &impl StateView,
    ) -> bool {
        let named = have.and_then(|have| have.copy_of.as_ref()).unwrap_or(path);
        if self.may_write(named) && self.may_write(path) {
            return false;
        }
        debug_assert!(!draft.written.contains(path), "a path changes once");
        let wanted = self.want(path, view).is_some();
        match &change.after {
            Some(after) if wanted => {
                let installed = Installed {
                    entry: after.entry.clone(),
                    print: after.print,
                    dots: Vec::new(),
                    copy_of: None,
                };
                self.record_installed(path, Some(installed), view);
            }
            Some(_) | None => self.record_installed(path, None, view),
        }
        if change.after.is_some() || wanted {
            self.rejected += 1;
            self.notify(Notification::ChangeRejected { path: path.clone() });
        }
        true
    }

    /// This device may write other paths than before: what was left alone is looked at again.
    pub(in crate::engine) fn own_role_changed(&mut self) {
        self.rejected = 0;
        if matches!(self.phase, crate::engine::Phase::Running) {
            self.ask_scan();
        }
    }
}
