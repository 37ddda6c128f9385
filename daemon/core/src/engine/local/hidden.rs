//! Changes in the daemon's own directory, where conflict copies are that may not stand beside their path.

use super::{Change, Draft};
use crate::engine::{Observed, StateView, SyncEngine};
use crate::rel_path::RelPath;
use crate::tree::Installed;

impl SyncEngine {
    /// A conflict copy in the daemon's own directory was changed: what it holds now is the user's, and is not synced.
    pub(super) fn hidden_copy_changed(
        &mut self,
        path: &RelPath,
        have: Option<Installed>,
        after: Observed,
        draft: &mut Draft,
        adopted: &mut Vec<RelPath>,
        view: &impl StateView,
    ) {
        let Some(have) = have else { return };
        if have.entry.node == after.entry.node {
            let installed = Installed {
                entry: after.entry,
                print: after.print,
                ..have
            };
            self.record_installed(path, Some(installed), view);
        } else {
            self.discard_copy(Some(&have), draft, view);
            self.record_installed(path, None, view);
        }
        adopted.push(path.clone());
    }

    /// Something unknown stands where a conflict copy belongs in the daemon's own directory. Nobody puts a file there but
    /// he who edited the copy when it was shown before, so that file is the answer to the copy: its version is discarded.
    pub(super) fn hidden_place_taken(
        &mut self,
        path: RelPath,
        change: Change,
        draft: &mut Draft,
        adopted: &mut Vec<RelPath>,
        view: &impl StateView,
    ) {
        let want = self.want(&path, view).filter(|want| want.copy_of.is_some());
        let (Some(after), Some(want)) = (change.after, want) else {
            // What recovery found to have been put there is there no more.
            self.record_installed(&path, None, view);
            adopted.push(path);
            return;
        };
        let is_other = after.entry.node != want.entry.node;
        if is_other
            && want
                .copy_of
                .as_ref()
                .is_some_and(|origin| !self.may_write(origin))
        {
            // He may not say so.
            self.record_refused(&path, &after, view);
            self.tell_rejected(&path);
            adopted.push(path);
            return;
        }
        let installed = Installed {
            entry: after.entry,
            print: after.print,
            dots: want.dots,
            copy_of: want.copy_of,
        };
        if installed.entry.node == want.entry.node {
            if let Some(manifest) = after.manifest {
                self.pending.add_manifest(manifest);
            }
            self.record_installed(&path, Some(installed), view);
        } else {
            self.discard_copy(Some(&installed), draft, view);
        }
        adopted.push(path);
    }
}
