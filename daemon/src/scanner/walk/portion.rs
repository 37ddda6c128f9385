//! What was found is hashed, made durable, proven and handed over.

use std::sync::Arc;

use p2p_sync_core::content::CHUNK_SIZE;
use p2p_sync_core::engine::LocalChange;
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::BootInstant;
use p2p_sync_core::tree::{Installed, Node};

use super::super::ScanError;
use super::super::hash::{Hashed, hash_all};
use super::super::observe::observe;
use super::{Found, PORTION, Walk};
use crate::clock;

impl Walk<'_> {
    /// Hashes what is to be hashed and hands everything over, in order.
    pub(super) fn flush(&mut self) -> Result<(), ScanError> {
        let found = std::mem::take(&mut self.found);
        self.found_bytes = 0;
        let mut portion = found.into_iter().peekable();
        while portion.peek().is_some() {
            let part: Vec<_> = portion.by_ref().take(PORTION).collect();
            self.flush_part(part)?;
        }
        Ok(())
    }

    fn flush_part(&mut self, part: Vec<Found>) -> Result<(), ScanError> {
        let hashed_since = clock::now().boot;
        let to_hash: Vec<_> = part
            .iter()
            .filter_map(|f| match f {
                Found::Hash(path, _) => Some(path),
                Found::Ready(_) => None,
            })
            .collect();
        let mut hashed = hash_all(&self.scanner.root, &to_hash, self.stop).into_iter();
        let mut changes = Vec::with_capacity(part.len());
        for found in part {
            match found {
                Found::Ready(change) if change.after.is_some() => changes.push(change),
                Found::Ready(change) => changes.extend(self.prove_gone(change)),
                Found::Hash(path, installed) => {
                    let hashed = hashed.next().unwrap_or(Hashed::Unstable);
                    changes.extend(self.file_change(path, installed.as_ref(), hashed, hashed_since));
                }
            }
        }
        if self.stopped() {
            return Ok(());
        }
        for (path, why) in self.scanner.disk.make_durable(&self.scanner.root, &mut changes) {
            if let Some(why) = why {
                self.name_problem(path.clone(), &format!("The disk does not take it: {why}"));
            }
            self.report.retry.push(path);
        }
        // The folder may have been unmounted since a path was found absent.
        self.check_root()?;
        if !changes.is_empty() && !self.stopped() {
            (self.emit)(changes);
        }
        Ok(())
    }

    fn prove_gone(&mut self, mut change: LocalChange) -> Option<LocalChange> {
        change.seen_at = clock::now().boot;
        match self.scanner.root.lstat(&change.path) {
            Ok(None) => return Some(change),
            Ok(Some(_)) => self.report.retry.push(change.path),
            Err(e) => self.problem(change.path, &e),
        }
        None
    }

    fn file_change(
        &mut self,
        path: RelPath,
        installed: Option<&Installed>,
        hashed: Hashed,
        seen_at: BootInstant,
    ) -> Option<LocalChange> {
        match hashed {
            Hashed::Stable(manifest, print) => {
                if print.ctime_ns == 0 {
                    self.report.retry.push(path.clone());
                }
                let content: ContentHash = manifest.content();
                let node = Node::File {
                    content,
                    size: manifest.size(),
                };
                let mut after = observe(node, print, installed, self.scanner.modes);
                if manifest.size() > CHUNK_SIZE {
                    after.manifest = Some(Arc::new(manifest));
                }
                return Some(LocalChange {
                    path,
                    seen_at,
                    after: Some(after),
                    found_by: self.found_by,
                });
            }
            Hashed::Unstable => self.report.retry.push(path),
            Hashed::Stopped => {}
            Hashed::Failed(e) => self.problem(path, &e),
        }
        None
    }
}
