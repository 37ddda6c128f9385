//! Contents that paths lack: from whom to ask for them, and what comes of it.

use super::{Queued, Stage};
use crate::engine::paths::Want;
use crate::engine::{FetchFailure, FetchJob, Notification, StateView, SyncEngine};
use crate::ids::{ContentHash, DeviceId};
use crate::rel_path::RelPath;
use crate::time::Now;
use crate::tree::{Installed, Node};

impl SyncEngine {
    pub(super) fn schedule_put(
        &mut self,
        path: RelPath,
        want: &Want,
        have: Option<&Installed>,
        jobs: &mut Vec<FetchJob>,
        view: &impl StateView,
    ) {
        let Node::File { content, size } = want.entry.node else {
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: None,
            });
            return;
        };
        if size == 0 || have.is_some_and(|have| have.entry.node == want.entry.node) {
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: None,
            });
            return;
        }
        // What could not be moved because a file stands above it is fetched, so that it is in nobody's way while it waits.
        let in_the_way = self.work.was_refused(&path) && self.is_below_file(&path, view);
        if have.is_none()
            && !in_the_way
            && let Some(from) = self.work.move_source(&content)
        {
            self.work.enqueue(Queued {
                path,
                fetched: None,
                move_from: Some(from),
            });
            return;
        }
        self.work.set_stage(&path, Stage::Fetching);
        if let Some((_, waiters)) = self.work.fetching.get_mut(&content) {
            waiters.push(path);
            return;
        }
        self.work.fetching.insert(content, (size, vec![path]));
        self.work.fetching_bytes += size;
        jobs.push(FetchJob {
            content,
            size,
            from: self.sources(want),
        });
    }

    /// Returns the connected members to ask for a content: its author first, then those that hold all.
    pub(in crate::engine) fn sources(&self, want: &Want) -> Vec<DeviceId> {
        let author = Self::author_of(want.dot)
            .and_then(|short| self.group.as_ref().and_then(|group| group.device(short)));
        let mut peers: Vec<(bool, bool, DeviceId)> = self
            .peers
            .connected()
            .filter(|(device, _)| self.is_member(device))
            .map(|(device, peer)| (Some(*device) != author, !peer.in_sync, *device))
            .collect();
        peers.sort();
        peers.into_iter().map(|(.., device)| device).collect()
    }

    /// Takes contents that are complete in the temporary directory.
    pub(in crate::engine) fn fetched(&mut self, contents: &[ContentHash], view: &impl StateView) {
        for content in contents {
            let Some((size, waiters)) = self.work.fetching.remove(content) else {
                self.work.unused.insert(*content);
                continue;
            };
            self.work.fetching_bytes -= size;
            self.work.failed.remove(content);
            let takers: Vec<RelPath> = waiters
                .into_iter()
                .filter(|path| self.work.stage(path) == Some(Stage::Fetching))
                .collect();
            let mut count = 0;
            for path in takers {
                if self.want(&path, view).and_then(|want| want.content()) == Some(*content) {
                    count += 1;
                    self.work.reasons.remove(&path);
                    self.work.enqueue(Queued {
                        path,
                        fetched: Some(*content),
                        move_from: None,
                    });
                } else {
                    self.work.set_stage(&path, Stage::Parked);
                    self.update_need(&path, view);
                }
            }
            if count > 0 {
                *self.work.held.entry(*content).or_default() += count;
            } else {
                self.work.unused.insert(*content);
            }
        }
    }

    /// Takes a content that could not be had.
    pub(in crate::engine) fn fetch_failed(
        &mut self,
        content: ContentHash,
        reason: FetchFailure,
        now: Now,
        view: &impl StateView,
    ) {
        let Some((size, waiters)) = self.work.fetching.remove(&content) else {
            return;
        };
        self.work.fetching_bytes -= size;
        self.work.failed.insert(content);
        for path in waiters {
            if self.work.stage(&path) != Some(Stage::Fetching) {
                continue;
            }
            self.work.set_stage(&path, Stage::Parked);
            if self.want(&path, view).and_then(|want| want.content()) != Some(content) {
                self.update_need(&path, view);
                continue;
            }
            match &reason {
                FetchFailure::NoSource => self.work.has_no_source(&path, !self.branches.is_empty(), now),
                FetchFailure::Disk(text) => {
                    self.notify(Notification::PathStuck {
                        path: path.clone(),
                        reason: text.clone(),
                    });
                    self.work.park(&path, Some(text.clone()), now);
                }
            }
        }
    }
}
