//! What becomes of installs that a crash cut short, by the same table as in the daemon's `worktree`.

use std::collections::BTreeSet;

use p2p_sync_core::engine::{InstallOutcome, RecoveredInstall};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Fingerprint;

use super::{Effect, Unfinished, Worktree, prints};
use crate::sim::disk::Place;
use crate::sim::journal::{Intent, IntentAction};

/// What recovery found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// What happened on disk though the store may not know.
    pub installs: Vec<RecoveredInstall>,
    /// To be given to [`Worktree::finish`] when the store has the installs.
    pub unfinished: Vec<Unfinished>,
    /// Where files with a user's bytes were put beside their paths.
    pub displaced: Vec<RelPath>,
}

/// The daemon died in the middle of recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Died;

struct Case {
    intent: Intent,
    target: Option<Fingerprint>,
    slot: Option<Fingerprint>,
}

impl Case {
    fn is_new(&self, print: Option<Fingerprint>) -> bool {
        let pair = self.intent.staged.zip(print);
        pair.is_some_and(|(staged, now)| prints::is_untouched(&staged, &now))
    }

    fn is_old(&self, print: Option<Fingerprint>) -> bool {
        let pair = self.intent.expect.zip(print);
        pair.is_some_and(|(old, now)| prints::is_moved(&old, &now))
    }

    fn is_old_inode(&self, print: Option<Fingerprint>) -> bool {
        let pair = self.intent.expect.zip(print);
        pair.is_some_and(|(old, now)| old.ino == now.ino)
    }
}

fn done(print: Option<Fingerprint>, displaced: Option<Fingerprint>) -> Effect {
    Effect {
        outcome: InstallOutcome::Done(print),
        displaced,
    }
}

impl Worktree<'_> {
    /// Looks at the installs that the last run left open; at no more than `intents` of them, then the daemon dies.
    ///
    /// # Errors
    /// [`Died`]: recovery begins anew at the next start.
    pub fn recover(&mut self, intents: Option<u64>) -> Result<Recovery, Died> {
        let mut recovery = Recovery::default();
        for (intent, count) in self.journal.open().into_values().zip(0..) {
            if intents == Some(count) {
                return Err(Died);
            }
            self.recover_one(intent, &mut recovery);
        }
        self.sweep();
        Ok(recovery)
    }

    fn recover_one(&mut self, intent: Intent, recovery: &mut Recovery) {
        let case = Case {
            target: self.print(&Place::Folder(intent.path.clone())),
            slot: self.print(&Place::Slot(intent.tx)),
            intent,
        };
        self.recover_version(&case, recovery);
        let effect = match case.intent.action {
            IntentAction::Put => self.recover_put(&case, recovery),
            IntentAction::SetMeta => self.recover_meta(&case),
            IntentAction::Move => self.recover_move(&case, recovery),
            IntentAction::Remove => self.recover_remove(&case, recovery),
            IntentAction::Recorded => Effect {
                displaced: self.dispose_old(&case, recovery),
                ..Effect::of(InstallOutcome::Changed)
            },
        };
        let mut paths = BTreeSet::from([case.intent.path.clone()]);
        if let InstallOutcome::Done(print) = effect.outcome {
            if let Some((from, print)) = &case.intent.from {
                paths.insert(from.clone());
                recovery.installs.push(RecoveredInstall {
                    path: from.clone(),
                    before: Some(*print),
                    now: None,
                    moved_from: None,
                });
            }
            recovery.installs.push(RecoveredInstall {
                path: case.intent.path.clone(),
                before: case.intent.expect,
                now: case.intent.new.clone().zip(print),
                moved_from: case.intent.from.as_ref().map(|(from, _)| from.clone()),
            });
        }
        paths
            .into_iter()
            .for_each(|path| self.disk.sync(&Place::Folder(path)));
        recovery.unfinished.push(Unfinished {
            tx: case.intent.tx,
            path: case.intent.path,
            displaced: effect.displaced,
        });
    }

    /// The old entry may have become a version already, and somebody may have gone on writing to it.
    fn recover_version(&mut self, case: &Case, recovery: &mut Recovery) {
        let version = Place::Version(case.intent.tx);
        let (Some(old), None, Some(now)) = (case.intent.expect, case.slot, self.print(&version)) else {
            return;
        };
        // Where the old entry had its place back, it is the new one that was kept.
        let kept = case.intent.staged.filter(|staged| staged.ino == now.ino);
        if !prints::is_untouched(&kept.unwrap_or(old), &now) {
            let beside = self.keep_beside(version, &case.intent.path);
            recovery.displaced.extend(beside);
        }
    }

    fn show(&mut self, case: &Case, recovery: &mut Recovery) {
        let beside = self.keep_beside(Place::Slot(case.intent.tx), &case.intent.path);
        recovery.displaced.extend(beside);
    }

    fn recover_put(&mut self, case: &Case, recovery: &mut Recovery) -> Effect {
        let Some(staged) = case.intent.staged else {
            return self.recover_mkdir(case);
        };
        if let Some(target) = case.target.filter(|_| case.is_new(case.target)) {
            if case.slot.is_some_and(|slot| !prints::is_dir(&slot)) && !case.is_old_inode(case.slot) {
                return self.put_back(&case.intent, InstallOutcome::Changed);
            }
            let displaced = self.dispose_old(case, recovery);
            return done(Some(prints::as_installed(&staged, target)), displaced);
        }
        if case.is_new(case.slot) {
            let as_expected = match case.target {
                None => case.intent.expect.is_none(),
                Some(_) => case.is_old(case.target),
            };
            if as_expected {
                let mut again = case.intent.clone();
                again.expect = case.target;
                let effect = self.change_at_once(&again);
                let is_done = matches!(effect.outcome, InstallOutcome::Done(_));
                if !is_done && case.is_new(self.print(&Place::Slot(case.intent.tx))) {
                    self.drop_new(&case.intent);
                }
                return effect;
            }
            self.drop_new(&case.intent);
            return Effect::of(InstallOutcome::Changed);
        }
        if case.slot.is_none() {
            // Slots are durable before their intents: where nothing was expected, the new entry must have been moved.
            return if case.intent.expect.is_none() {
                done(Some(staged), None)
            } else {
                Effect::of(InstallOutcome::ContentMissing)
            };
        }
        if case.is_old_inode(case.slot) {
            let displaced = self.dispose_old(case, recovery);
            return done(Some(staged), displaced);
        }
        self.undo_remove(case, recovery)
    }

    /// Throws away a slot, but only after its intent, or recovery after another crash would take it for done.
    fn drop_new(&mut self, intent: &Intent) {
        self.journal.done(intent.tx);
        self.journal.begin([]);
        self.disk.remove(Place::Slot(intent.tx));
    }

    /// Says what is to become of the old entry in the slot: a version, or, if somebody went on writing, a file beside.
    fn dispose_old(&mut self, case: &Case, recovery: &mut Recovery) -> Option<Fingerprint> {
        let slot = Place::Slot(case.intent.tx);
        let print = case.slot?;
        if prints::is_dir(&print) && self.disk.is_empty_dir(&slot) {
            self.disk.remove(slot);
            return None;
        }
        let taken_back = case.intent.action == IntentAction::Recorded && case.is_new(case.slot);
        if !prints::is_dir(&print) && (case.is_old(case.slot) || taken_back) {
            return Some(print);
        }
        self.show(case, recovery);
        None
    }

    fn recover_mkdir(&mut self, case: &Case) -> Effect {
        match case.target {
            Some(target) if prints::is_dir(&target) => {
                let mut again = case.intent.clone();
                again.expect = None;
                self.change_at_once(&again)
            }
            Some(_) | None => Effect::of(InstallOutcome::Changed),
        }
    }

    fn recover_meta(&mut self, case: &Case) -> Effect {
        let unchanged = Effect::of(InstallOutcome::Changed);
        let (Some(entry), Some(old), Some(now)) = (&case.intent.new, case.intent.expect, case.target) else {
            return unchanged;
        };
        let ours = (now.mtime_ns == old.mtime_ns || now.mtime_ns == entry.mtime_ns)
            && prints::is_mode_of_ours(entry, old.mode, now.mode);
        if now.ino != old.ino || now.size != old.size || !ours {
            return unchanged;
        }
        let mut again = case.intent.clone();
        again.expect = Some(now);
        self.change_at_once(&again)
    }

    fn recover_move(&mut self, case: &Case, recovery: &mut Recovery) -> Effect {
        let (Some((_, from_expect)), Some(entry)) = (&case.intent.from, &case.intent.new) else {
            return Effect::of(InstallOutcome::Changed);
        };
        let same = |target: &Fingerprint| target.ino == from_expect.ino && target.size == from_expect.size;
        let Some(target) = case.target.filter(same) else {
            return self.undo_remove(case, recovery);
        };
        let displaced = self.dispose_old(case, recovery);
        let untouched = (target.mtime_ns == from_expect.mtime_ns || target.mtime_ns == entry.mtime_ns)
            && prints::is_mode_of_ours(entry, from_expect.mode, target.mode);
        if !untouched {
            return done(Some(*from_expect), displaced);
        }
        let mut print = target;
        if !prints::has_meta(entry, &target)
            && let Some(set) = self.set_entry_meta(&case.intent.path, entry, &target)
        {
            print = set;
        }
        done(Some(print), displaced)
    }

    fn recover_remove(&mut self, case: &Case, recovery: &mut Recovery) -> Effect {
        if case.slot.is_some() && case.is_old_inode(case.slot) {
            let displaced = self.dispose_old(case, recovery);
            return done(None, displaced);
        }
        let was_file = case
            .intent
            .expect
            .as_ref()
            .is_some_and(|old| !prints::is_dir(old));
        if !was_file && case.slot.is_none() && case.target.is_none() {
            return done(None, None);
        }
        self.undo_remove(case, recovery)
    }

    fn undo_remove(&mut self, case: &Case, recovery: &mut Recovery) -> Effect {
        if case.slot.is_none() {
            return Effect::of(InstallOutcome::Changed);
        }
        if case.target.is_some() {
            self.show(case, recovery);
            return Effect::of(InstallOutcome::Changed);
        }
        self.make_parents(&case.intent.path, &mut BTreeSet::new());
        self.give_back(&case.intent, InstallOutcome::Changed)
    }
}
