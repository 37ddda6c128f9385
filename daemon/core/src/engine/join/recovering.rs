//! What the store learns of the installs of the last run.

use super::super::paths::Want;
use super::super::{RecoveredInstall, StateView, SyncEngine};
use crate::fold::Version;
use crate::fold::names::copy_names;
use crate::ids::Dot;
use crate::rel_path::RelPath;
use crate::tree::{Fingerprint, Installed, Node};

impl SyncEngine {
    /// Records an install that was found done, unless the store knows more.
    pub(in crate::engine) fn recover_install(&mut self, install: RecoveredInstall, view: &impl StateView) {
        let RecoveredInstall {
            path,
            before,
            now: there,
            moved_from,
        } = install;
        if self.is_newer_than_recovery(&path, before, there.as_ref().map(|(entry, _)| &entry.node), view) {
            return;
        }
        let installed = there.map(|(entry, print)| {
            let want = self
                .want(&path, view)
                .filter(|want| want.entry.node == entry.node);
            let (dots, copy_of) = match want {
                Some(want) => (want.dots, want.copy_of),
                None => self.what_stands(&path, &entry.node, moved_from.as_ref(), view),
            };
            Installed {
                entry,
                print,
                dots,
                copy_of,
            }
        });
        if let Some(Installed { entry, dots, .. }) = &installed
            && self.was_gone(&path, &entry.node, dots, view)
        {
            return;
        }
        // Perhaps it was installed for a group that was left since: the scan finds it and takes it for the user's.
        let foreign = |there: &Installed| there.dots.is_empty() && !there.entry.node.is_dir();
        if self.joining.must_compare && installed.as_ref().is_some_and(foreign) {
            return;
        }
        self.record_installed(&path, installed, view);
        self.update_need(&path, view);
    }

    /// Returns what an entry is that was put down and is not wanted there any more: versions of the path itself, or of
    /// another, if it was moved from there to be a conflict copy. Its user may edit it before it is moved back, and gives
    /// that version up then, as he does with any copy.
    fn what_stands(
        &self,
        path: &RelPath,
        node: &Node,
        moved_from: Option<&RelPath>,
        view: &impl StateView,
    ) -> (Vec<Dot>, Option<RelPath>) {
        let own = self.pending.versions_with(view, path, node);
        let origin = moved_from.filter(|_| own.is_empty());
        let state = origin.and_then(|origin| self.pending.path_state(view, origin));
        let (Some(origin), Some(state)) = (origin, state) else {
            return (own, None);
        };
        let dots = state.heads_with(Some(node));
        let shown = |head: &Version| copy_names(origin, head.dot, &head.event.to_hex()).contains(path);
        if state
            .heads
            .iter()
            .any(|head| dots.contains(&head.dot) && shown(head))
        {
            (dots, Some(origin.clone()))
        } else {
            (own, None)
        }
    }

    /// Says whether this device said that what was put down is gone. It is back: its user had moved it to where nobody has
    /// seen it yet and moved it once more, or a power cut undid what he did. Either way it is his; the scan finds it. That
    /// may bring a file back which he deleted, but taking it for what the group deleted might take his only copy.
    fn was_gone(&self, path: &RelPath, node: &Node, dots: &[Dot], view: &impl StateView) -> bool {
        let state = self.pending.path_state(view, path);
        let gone = |head: &Version| {
            head.entry.is_none()
                && self.is_own(head.dot.device)
                && head.base.iter().any(|dot| dots.contains(dot))
        };
        let heads = || state.iter().flat_map(|state| &state.heads);
        // Of equal bytes that stand in a version which is not gone, it is that one that was put down.
        let stands = heads().any(|head| head.entry.is_some() && dots.contains(&head.dot));
        !node.is_dir() && !stands && heads().any(gone)
    }

    /// Says whether the store knows more than the install that recovery found at a path: something else is believed to
    /// stand there than the install replaced. Then it was recorded before it was found, and perhaps its user has changed
    /// the path since; the scan tells. What was put down counts as recorded only if it is wanted, too: else it would pass
    /// for its user's. What its user made of what was put down, and this device published, counts, too.
    fn is_newer_than_recovery(
        &self,
        path: &RelPath,
        before: Option<Fingerprint>,
        put: Option<&Node>,
        view: &impl StateView,
    ) -> bool {
        let Some(have) = self.pending.installed(view, path) else {
            // What the install replaced was believed to stand there, durably; that it is gone came later.
            return before.is_some();
        };
        // Where nothing was believed to stand when the install began, all that is believed now came later.
        let Some(before) = before else { return true };
        let as_wanted = |want: Want| want.dots == have.dots && want.copy_of == have.copy_of;
        !is_same(&before, &have.print)
            && put.is_none_or(|node| {
                self.want(path, view).is_some_and(as_wanted) || self.is_edit_of(path, &have, node, view)
            })
    }

    /// Says whether what is believed to stand at a path is this device's own edit of a version that held this.
    fn is_edit_of(&self, path: &RelPath, have: &Installed, node: &Node, view: &impl StateView) -> bool {
        if have.copy_of.is_some() {
            return false;
        }
        let put = self.pending.versions_with(view, path, node);
        let versions = self.pending.versions_of(view, path);
        let own = have.dots.iter().filter(|dot| self.is_own(dot.device));
        let mut edits = own.filter_map(|dot| versions.get(dot));
        edits.any(|edit| edit.base.iter().any(|dot| put.contains(dot)))
    }
}

/// Says whether two prints are of one entry. Modes and times of change are left out: of two installs at one path that
/// are found together, the second may have replaced what the first put down after its mode was set.
fn is_same(a: &Fingerprint, b: &Fingerprint) -> bool {
    (a.ino, a.size, a.mtime_ns) == (b.ino, b.size, b.mtime_ns)
}
