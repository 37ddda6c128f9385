//! Installs: which of the queued paths go into a group, by what job, and what comes of it.

use std::collections::BTreeSet;

use super::{INSTALL_GROUP, Installing, Queued, Stage, content_of};
use crate::engine::paths::Want;
use crate::engine::{
    InstallAction, InstallJob, InstallOutcome, InstallResult, Notification, Output, StateView, SyncEngine,
};
use crate::ids::ContentHash;
use crate::rel_path::RelPath;
use crate::time::Now;
use crate::tree::{Fingerprint, Installed};

/// Why a directory cannot go that holds files of a user whose role does not let him publish them.
const BLOCKED: &str = "the directory holds what this device may not publish";

impl SyncEngine {
    pub(super) fn start_installs(&mut self, view: &impl StateView) {
        let count = self.work.queue.len().min(INSTALL_GROUP);
        let group: Vec<Queued> = self.work.queue.drain(..count).collect();
        let removes = |queued: &Queued| self.work.removes(&queued.path);
        let (gone, mut put): (Vec<Queued>, Vec<Queued>) = group.into_iter().partition(removes);
        // A directory comes before what lies in it, but what lies in it goes before it becomes something else.
        put.sort_by(|a, b| a.path.cmp(&b.path));
        let inside = |queued: &Queued| put.iter().any(|other| queued.path.is_below(&other.path));
        let (first, last): (Vec<Queued>, Vec<Queued>) = gone.into_iter().partition(inside);
        let mut jobs = Vec::new();
        for queued in first.into_iter().chain(put).chain(last) {
            jobs.extend(self.install_job(queued, view));
        }
        if !jobs.is_empty() {
            self.emit(Output::Install(jobs));
        }
    }

    /// Makes a job of a queued path by what is wanted now.
    fn install_job(&mut self, queued: Queued, view: &impl StateView) -> Option<InstallJob> {
        let wanted = self.work.stage(&queued.path) == Some(Stage::Queued);
        let want = self.want(&queued.path, view).filter(|_| wanted);
        let have = self.pending.installed(view, &queued.path);
        let same = matches!((&want, &have), (Some(w), Some(h)) if w.entry.node == h.entry.node);
        let content = want
            .as_ref()
            .filter(|w| !same && w.entry.node.size() > 0)
            .and_then(Want::content);
        let source = queued.move_from.as_ref();
        let source = source.and_then(|from| self.pending.installed(view, from));
        let movable = have.is_none()
            && content.is_some()
            && source
                .as_ref()
                .is_some_and(|source| source.entry.node.content() == content);
        // A path that has the wrong bytes gets others first: what it waits for may have to wait until those are safe.
        let at_hand = content.is_none() || content == queued.fetched;
        let usable = at_hand || movable;
        if let Some(want) = &want
            && at_hand
            && self.must_wait(&queued, want, have.as_ref(), view)
        {
            self.work.waiting.push(queued);
            return None;
        }
        let displaced = have.as_ref().filter(|_| wanted && !same);
        let endangered = displaced
            .filter(|have| have.entry.node.size() > 0)
            .and_then(|have| have.entry.node.content());
        // A content in the temporary directory is safe; moving a file there instead would have its temporary file dropped,
        // on which others in this group rely.
        let taker = endangered
            .filter(|content| !self.work.held.contains_key(content))
            .and_then(|content| self.taker_of(&content, &queued.path, view));
        if let Some(content) = endangered
            && usable
            && taker.is_none()
            && self.work.must_stay(&content, &queued.path)
        {
            self.work.block(content, queued);
            return None;
        }
        let Queued {
            path,
            fetched,
            move_from,
        } = queued;
        let keep =
            fetched.is_some_and(|content| self.work.held.get(&content).is_some_and(|count| *count > 1));
        let released = fetched.and_then(|content| self.work.release(content));
        if let Some(content) = released
            && (content_of(&want) != Some(content) || same)
        {
            self.work.unused.insert(content);
        }
        let nothing = want.is_none() && have.is_none();
        if !wanted || !usable || nothing {
            for again in [Some(path), move_from].into_iter().flatten() {
                if self.work.is_busy(&again) {
                    continue;
                }
                self.work.set_stage(&again, Stage::Parked);
                self.update_need(&again, view);
            }
            return None;
        }
        if let Some(unused) = move_from
            .as_ref()
            .filter(|from| !movable && !self.work.is_busy(from))
        {
            self.work.set_stage(unused, Stage::Parked);
            self.update_need(unused, view);
        }
        if let Some(taker) = taker
            && let Some(have) = &have
        {
            if let Some(content) = released.filter(|content| content_of(&want) == Some(*content)) {
                self.work.unused.insert(content);
            }
            return self.rescue(&path, have, taker, view);
        }
        let move_from = move_from.filter(|_| movable);
        let expect = have.as_ref().map(|have| have.print);
        let action = match (&want, &move_from, source) {
            (None, ..) => InstallAction::Remove,
            (Some(want), Some(from), Some(source)) => InstallAction::Move {
                from: from.clone(),
                from_expect: source.print,
                entry: want.entry.clone(),
            },
            (Some(want), ..) if same => InstallAction::SetMeta {
                entry: want.entry.clone(),
            },
            (Some(want), ..) => InstallAction::Put {
                entry: want.entry.clone(),
                keep,
            },
        };
        for busy in [Some(&path), move_from.as_ref()].into_iter().flatten() {
            self.work.busy.insert(busy.clone());
            self.work.set_stage(busy, Stage::Installing);
        }
        self.work.installing.push(Installing {
            path: path.clone(),
            want,
            move_from,
            of_former_group: false,
        });
        Some(InstallJob { path, expect, action })
    }

    /// Returns a path that lacks a content and where nothing stands, nor a file above it, so that the file at `from` can
    /// be moved there.
    fn taker_of(&self, content: &ContentHash, from: &RelPath, view: &impl StateView) -> Option<RelPath> {
        self.work.in_want_of(content, from).filter(|taker| {
            self.pending.installed(view, taker).is_none()
                && !self.is_below_file(taker, view)
                && self.want(taker, view).and_then(|want| want.content()) == Some(*content)
        })
    }

    /// Says whether something stands above a path that is no directory, so that nothing can be put there yet.
    pub(super) fn is_below_file(&self, path: &RelPath, view: &impl StateView) -> bool {
        path.ancestors().any(|above| {
            let there = self.pending.installed(view, &above);
            there.is_some_and(|there| !there.entry.node.is_dir())
        })
    }

    /// What is about to be replaced or removed may be the only copy of bytes that another path lacks: gives them to
    /// that path first.
    fn rescue(
        &mut self,
        path: &RelPath,
        have: &Installed,
        taker: RelPath,
        view: &impl StateView,
    ) -> Option<InstallJob> {
        let want = self.want(&taker, view)?;
        let action = InstallAction::Move {
            from: path.clone(),
            from_expect: have.print,
            entry: want.entry.clone(),
        };
        for busy in [&taker, path] {
            self.work.busy.insert(busy.clone());
            self.work.set_stage(busy, Stage::Installing);
        }
        self.work.installing.push(Installing {
            path: taker.clone(),
            want: Some(want),
            move_from: Some(path.clone()),
            of_former_group: false,
        });
        Some(InstallJob {
            path: taker,
            expect: None,
            action,
        })
    }

    /// Takes the outcome of a group of installs.
    pub(in crate::engine) fn installs_done(
        &mut self,
        results: Vec<InstallResult>,
        now: Now,
        view: &impl StateView,
    ) {
        let installing = std::mem::take(&mut self.work.installing);
        self.work.busy.clear();
        self.work.moved_on = true;
        let mut rescan: BTreeSet<RelPath> = std::mem::take(&mut self.work.rescan_after);
        for (job, result) in installing.into_iter().zip(results) {
            debug_assert_eq!(job.path, result.path, "results come in the order of the jobs");
            self.install_done(job, result.outcome, now, view, &mut rescan);
        }
        if !rescan.is_empty() {
            self.emit(Output::Rescan(rescan.into_iter().collect()));
        }
    }

    fn install_done(
        &mut self,
        job: Installing,
        outcome: InstallOutcome,
        now: Now,
        view: &impl StateView,
        rescan: &mut BTreeSet<RelPath>,
    ) {
        let Installing {
            path,
            want,
            move_from,
            of_former_group,
        } = job;
        // Also of one that was undone: what the scanner saw in the middle of it is neither there nor the user's.
        for path in std::iter::once(&path).chain(&move_from) {
            self.work.note_done(path, now.boot);
        }
        if of_former_group {
            // What stands there is a joiner's, like all that the folder holds: the scanner tells.
            rescan.extend(std::iter::once(path).chain(move_from));
            return;
        }
        if !matches!(outcome, InstallOutcome::Done(_)) {
            self.work.failed.extend(content_of(&want));
        }
        let mut blocked = false;
        let reason = match outcome {
            InstallOutcome::Done(print) => {
                self.installed(&path, want.zip(print), move_from.as_ref(), view);
                None
            }
            InstallOutcome::Gone if want.is_none() && self.stands_at_origin(&path, view) => {
                self.installed(&path, None, None, view);
                None
            }
            InstallOutcome::Changed | InstallOutcome::Gone => {
                rescan.insert(path.clone());
                rescan.extend(move_from.clone());
                Some(None)
            }
            InstallOutcome::ContentMissing => Some(None),
            InstallOutcome::NotEmpty(holds) => {
                let origin = want.as_ref().and_then(|want| want.copy_of.as_ref());
                let unsaid = path.is_own() && origin.is_some_and(|origin| !self.may_write(origin));
                blocked = unsaid || self.holds_refused(&holds);
                rescan.insert(path.clone());
                Some(Some(self.why_not_empty(&holds)))
            }
            InstallOutcome::Failed(reason) => {
                self.notify(Notification::PathStuck {
                    path: path.clone(),
                    reason: reason.clone(),
                });
                Some(Some(reason))
            }
        };
        for path in [Some(path), move_from].into_iter().flatten() {
            self.work.set_stage(&path, Stage::Parked);
            match &reason {
                None => self.update_need(&path, view),
                Some(_) if blocked => self.work.give_up_for_now(&path, BLOCKED),
                Some(reason) => self.work.park(&path, reason.clone(), now),
            }
        }
    }

    /// Says whether the version that a conflict copy shows stands at the path itself as well: a user who removed the copy
    /// gave up nothing.
    fn stands_at_origin(&self, path: &RelPath, view: &impl StateView) -> bool {
        let Some(have) = self.pending.installed(view, path) else {
            return true;
        };
        let origin = have.copy_of.as_ref();
        let there = origin.and_then(|origin| self.pending.installed(view, origin));
        there.is_some_and(|there| have.dots.iter().all(|dot| there.dots.contains(dot)))
    }

    fn installed(
        &mut self,
        path: &RelPath,
        now_there: Option<(Want, Fingerprint)>,
        move_from: Option<&RelPath>,
        view: &impl StateView,
    ) {
        let removed = now_there.is_none();
        let author = now_there.as_ref().and_then(|(want, _)| Self::author_of(want.dot));
        if let Some(from) = move_from {
            self.record_installed(from, None, view);
        }
        let installed = now_there.map(|(want, print)| Installed {
            entry: want.entry,
            print,
            dots: want.dots,
            copy_of: want.copy_of,
        });
        self.record_installed(path, installed, view);
        self.notify(Notification::PathSynced {
            path: path.clone(),
            removed,
            author,
        });
    }
}
