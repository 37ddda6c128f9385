//! What stands on the disk of a [`Desk`](crate::desk::Desk)'s engine: only so much that a path can be in the way of another.

use std::collections::BTreeMap;

use p2p_sync_core::engine::{InstallAction, InstallJob, InstallOutcome};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Node;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Floor(pub(crate) BTreeMap<RelPath, Node>);

impl Floor {
    /// Puts something at a path, or takes it away.
    pub(crate) fn set(&mut self, path: &RelPath, node: Option<&Node>) {
        match node {
            Some(node) => self.0.insert(path.clone(), node.clone()),
            None => self.0.remove(path),
        };
    }

    /// Returns why an install cannot be done, as the worktree would.
    pub(crate) fn refusal(&self, job: &InstallJob) -> Option<InstallOutcome> {
        let is_dir = |path: &RelPath| self.0.get(path).is_some_and(Node::is_dir);
        let is_other = |path: &RelPath| self.0.contains_key(path) && !is_dir(path);
        if job.path.ancestors().any(|above| is_other(&above)) {
            return Some(InstallOutcome::Changed);
        }
        let stays = match &job.action {
            InstallAction::Put { entry, .. } => entry.node.is_dir(),
            InstallAction::SetMeta { .. } | InstallAction::Move { .. } => true,
            InstallAction::Remove => false,
        };
        let holds: Vec<RelPath> = self
            .0
            .keys()
            .filter(|path| path.is_below(&job.path))
            .cloned()
            .collect();
        (!stays && is_dir(&job.path) && !holds.is_empty()).then_some(InstallOutcome::NotEmpty(holds))
    }

    /// Does an install that nothing speaks against.
    pub(crate) fn install(&mut self, job: &InstallJob) {
        match &job.action {
            InstallAction::Put { entry, .. } | InstallAction::SetMeta { entry } => {
                self.set(&job.path, Some(&entry.node));
            }
            InstallAction::Move { from, entry, .. } => {
                self.set(from, None);
                self.set(&job.path, Some(&entry.node));
            }
            InstallAction::Remove => self.set(&job.path, None),
        }
    }
}
