//! Files that a joiner brings along: which are old copies of the group's, which are new, and which wait for a choice.

use super::{Change, Draft, Local};
use crate::engine::{
    BatchNo, CommandError, CommandId, JoinChoice, JoinCounts, Observed, Output, Phase, Reply, StateView,
    SyncEngine,
};
use crate::rel_path::RelPath;
use crate::time::Now;
use crate::tree::Installed;

/// Files of unknown descent that a joiner publishes without asking.
const MAX_UNASKED_IMPORTS: usize = 100;

/// Setting: what was counted so far, [`JoinCounts::same`], `old` and `new` as u64, little-endian.
pub(in crate::engine) const JOIN_COUNTS: &str = "join_counts";

/// Reads what [`SyncEngine::keep_join_counts`] wrote.
pub(super) fn read_counts(bytes: &[u8]) -> JoinCounts {
    let mut numbers = bytes.chunks_exact(8).map(|chunk| {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        u64::from_le_bytes(eight)
    });
    let mut next = || numbers.next().unwrap_or_default();
    JoinCounts {
        same: next(),
        old: next(),
        new: next(),
        differing: 0,
    }
}

impl Local {
    /// Returns what a joiner's files turned out to be, while some are held.
    pub(in crate::engine) fn join_counts(&self) -> Option<JoinCounts> {
        let differing = self.held.len() as u64;
        (differing > 0).then_some(JoinCounts {
            differing,
            ..self.counts
        })
    }
}

impl super::Local {
    /// Says whether files that were held wait to be published.
    pub(in crate::engine) const fn is_releasing(&self) -> bool {
        self.releasing
    }
}

impl SyncEngine {
    /// A joiner's file, or (`joining` not set) one that was ignored until now: an old copy, one of unknown descent, or
    /// one that the group never had.
    pub(super) fn joiner_entry(
        &mut self,
        path: RelPath,
        after: Observed,
        joining: bool,
        draft: &mut Draft,
        adopted: &mut Vec<RelPath>,
        view: &impl StateView,
    ) {
        let want = self.want(&path, view);
        let same = want.as_ref().filter(|want| want.entry.node == after.entry.node);
        let (dots, copy_of) = match same {
            Some(want) => (want.dots.clone(), want.copy_of.clone()),
            None => (self.pending.versions_with(view, &path, &after.entry.node), None),
        };
        if same.is_some() || !dots.is_empty() {
            if !after.entry.node.is_dir() {
                let counts = &mut self.local.counts;
                let count = if same.is_some() {
                    &mut counts.same
                } else {
                    &mut counts.old
                };
                *count += 1;
            }
            self.keep_manifest(&after);
            let installed = Installed {
                entry: after.entry,
                print: after.print,
                dots,
                copy_of,
            };
            self.record_installed(&path, Some(installed), view);
            adopted.push(path);
        } else if want.is_none() && !self.pending.has_history(view, &path) {
            self.local.counts.new += u64::from(!after.entry.node.is_dir());
            self.changed(path, None, after, false, draft, view);
        } else if after.entry.node.is_dir() {
            // A directory of no matter what descent is the directory that is wanted there, or goes if it is empty.
            let installed = Installed {
                entry: after.entry,
                print: after.print,
                dots: Vec::new(),
                copy_of: None,
            };
            self.record_installed(&path, Some(installed), view);
            adopted.push(path);
        } else if joining {
            self.local.held.insert(path, after);
        } else {
            self.changed(path, None, after, true, draft, view);
        }
    }

    pub(super) fn held_changed(
        &mut self,
        path: RelPath,
        after: Option<Observed>,
        adopted: &mut Vec<RelPath>,
    ) {
        match after {
            Some(after) => {
                self.local.held.insert(path, after);
            }
            None => {
                self.local.held.remove(&path);
                adopted.push(path);
            }
        }
    }

    /// A full scan is over.
    pub(in crate::engine) fn scan_finished(&mut self, now: Now, view: &impl StateView) {
        let joins_paused = self.paused && self.phase == (Phase::Scanning { joining: true });
        if joins_paused || !self.takes_changes() {
            // Nothing was compared; it is scanned once more when the folder is resumed or the group's events have come.
            self.scan_failed();
            return;
        }
        if !self.ignoring_scanned() {
            return;
        }
        self.judge_deletions(now, view);
        self.work.retry_given_up();
        let Phase::Scanning { joining } = self.phase else {
            return;
        };
        // What the scan found is decided by the rules for joiners; nothing of it may wait beyond.
        while joining && !self.local.queue.is_empty() {
            let before = self.local.queue.len();
            self.local.published_at = None;
            self.local.published_in = BatchNo(0);
            self.publish_local(now, view);
            if self.local.queue.len() == before {
                break;
            }
        }
        self.phase = Phase::Running;
        if joining && self.local.held.len() <= MAX_UNASKED_IMPORTS {
            self.release_held(JoinChoice::KeepBoth, view);
        }
    }

    pub(super) fn keep_join_counts(&mut self) {
        let JoinCounts { same, old, new, .. } = self.local.counts;
        let bytes = [same, old, new].iter().flat_map(|n| n.to_le_bytes()).collect();
        self.pending.set_setting(JOIN_COUNTS, Some(bytes));
    }

    /// Publishes the held files, or lets the group's versions replace them.
    fn release_held(&mut self, choice: JoinChoice, view: &impl StateView) {
        for (path, after) in std::mem::take(&mut self.local.held) {
            match choice {
                JoinChoice::KeepBoth => {
                    self.local.queue.insert(
                        path,
                        Change {
                            after: Some(after),
                            seen_at: None,
                            import: true,
                        },
                    );
                }
                JoinChoice::PreferGroup => {
                    let installed = Installed {
                        entry: after.entry,
                        print: after.print,
                        dots: Vec::new(),
                        copy_of: None,
                    };
                    self.record_installed(&path, Some(installed), view);
                    self.update_need(&path, view);
                }
            }
        }
        self.compared();
        self.local.releasing = true;
        self.note_released();
    }

    /// Notes whether all files that were held are published.
    pub(in crate::engine) fn note_released(&mut self) {
        let waits = |local: &super::Local| {
            let mut all = local.queue.values().chain(local.behind_installs.values());
            all.any(|change| change.import)
        };
        if self.local.releasing && (self.phase == Phase::Removed || !waits(&self.local)) {
            self.local.releasing = false;
            self.forget_joining();
        }
    }

    /// Takes the user's choice about held files.
    pub(in crate::engine) fn resolve_join(
        &mut self,
        id: CommandId,
        choice: JoinChoice,
        view: &impl StateView,
    ) {
        let reply = if self.local.held.is_empty() {
            Err(CommandError::Invalid("No files wait for a choice"))
        } else {
            self.release_held(choice, view);
            Ok(Reply::Done)
        };
        self.emit(Output::Reply { id, reply });
    }
}
