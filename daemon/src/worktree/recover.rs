//! What became of the installs that a crash left open: each is told from what stands at its path and in its slot.
//!
//! Written T for the path and S for the slot; `new` and `old` are told by inode, size and time:
//!
//! | T | S | then |
//! |---|---|---|
//! | `new` | `old`, its inode with other bytes, or nothing | it had happened; `old` is kept as a version, or beside the path |
//! | `new` | a third thing | a save came out of the exchange: it goes back to the path |
//! | `old`, or absent as expected | `new` | done now |
//! | `old` | nothing | nothing happened; the content is fetched again |
//! | other | `new` | a user's edit before the exchange: S is dropped |
//! | other or absent | `old`, or nothing where nothing was expected | a user's edit after it: reported as done |
//! | other | a third thing | two saves: S goes beside the path |

use p2p_sync_core::engine::{InstallOutcome, RecoveredInstall};
use p2p_sync_core::tree::{Entry, Fingerprint};
use rustix::io::Errno;

use super::change::{Spot, set_entry_meta};
use super::session::{Missing, Session};
use super::{
    Displaced, Effect, InstallToken, Recovery, Unfinished, Worktree, WorktreeError, meta, slots, stage,
};
use crate::journal::{Intent, IntentAction};
use crate::root_dir::{PathError, is_dir_print, lstat_at, print_of};

/// Looks at one intent; nobody changes the same directory at the same moment more often than by chance.
const TRIES: u32 = 10;

/// What is known of one intent.
struct Case<'i> {
    intent: &'i Intent,
    target: Option<Fingerprint>,
    slot: Option<Fingerprint>,
}

impl Case<'_> {
    fn is_new(&self, print: Option<Fingerprint>) -> bool {
        self.intent
            .staged
            .zip(print)
            .is_some_and(|(staged, now)| meta::is_untouched(&staged, &now))
    }

    fn is_old(&self, print: Option<Fingerprint>) -> bool {
        self.intent
            .expect
            .zip(print)
            .is_some_and(|(old, now)| meta::is_moved(&old, &now))
    }

    /// The old inode, though somebody may have written to it.
    fn is_old_inode(&self, print: Option<Fingerprint>) -> bool {
        self.intent
            .expect
            .zip(print)
            .is_some_and(|(old, now)| old.ino == now.ino)
    }
}

impl Worktree {
    /// Looks at the installs that the last run left open; to be called once, before anything is installed or scanned.
    ///
    /// # Errors
    /// [`WorktreeError`]; nothing is lost then, and it can be called again.
    pub fn recover(&self) -> Result<Recovery, WorktreeError> {
        let mut recovery = Recovery {
            installs: Vec::new(),
            displaced: Vec::new(),
            token: InstallToken::default(),
        };
        if self.journal.open_installs().is_empty() {
            return Ok(recovery);
        }
        self.check_root()?;
        let mut session = Session::new(&self.root, self.modes);
        for intent in self.journal.open_installs() {
            if self.journal.is_open(intent.tx) {
                beside_users(|| {
                    // One of them may have gone since it was opened.
                    session.forget_dirs();
                    self.recover_one(intent, &mut session, &mut recovery)
                })
                .map_err(PathError::of("recover", self.root.full(&intent.path)))?;
            }
        }
        if !session.make_durable().is_empty() {
            let e = std::io::Error::other("The disk did not confirm the change");
            return Err(PathError::of("sync", self.root.path())(e).into());
        }
        Ok(recovery)
    }

    fn recover_one(
        &self,
        intent: &Intent,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<()> {
        self.recover_aside(intent, session, recovery)?;
        let mut case = Case {
            intent,
            target: self.root.lstat(&intent.path)?.map(|s| print_of(&s)),
            slot: lstat_at(&self.own.tmp, intent.tx.slot().as_bytes())?.map(|s| print_of(&s)),
        };
        if case
            .slot
            .zip(case.target)
            .is_some_and(|(slot, target)| slot.ino == target.ino)
        {
            // A rename made of link and unlink stopped half-way: nothing is lost with either name.
            stage::remove_tmp(&self.own.tmp, intent.tx.slot().as_bytes())?;
            case.slot = None;
        }
        self.recover_version(&case, session, recovery)?;
        let effect = match intent.action {
            IntentAction::Put | IntentAction::Restore => self.recover_put(&case, session, recovery)?,
            IntentAction::SetMeta => self.recover_meta(&case, session),
            IntentAction::Move => self.recover_move(&case, session, recovery)?,
            IntentAction::Remove => self.recover_remove(&case, session, recovery)?,
            IntentAction::Recorded => Effect {
                displaced: self.dispose_old(&case, session, recovery)?,
                ..Effect::of(InstallOutcome::Changed)
            },
        };
        // A restore is the user's edit: the scan publishes it.
        let is_install = intent.action != IntentAction::Restore;
        if let (InstallOutcome::Done(print), true) = (&effect.outcome, is_install) {
            if let Some((from, print)) = &intent.from {
                recovery.installs.push(RecoveredInstall {
                    path: from.clone(),
                    before: Some(*print),
                    now: None,
                    moved_from: None,
                });
            }
            let now = intent.new.clone().zip(*print);
            recovery.installs.push(RecoveredInstall {
                path: intent.path.clone(),
                before: intent.expect,
                now,
                moved_from: intent.from.as_ref().map(|(from, _)| from.clone()),
            });
        }
        if !effect.stuck {
            let (tx, path) = (intent.tx, intent.path.clone());
            recovery.token.entries.push(Unfinished {
                tx,
                content: self.believed_content(&path, intent.expect.as_ref(), effect.displaced.as_ref()),
                path,
                displaced: effect.displaced,
                noted_on: None,
            });
        }
        Ok(())
    }

    /// The old entry may have become a version already, and somebody may have gone on writing to it.
    fn recover_version(
        &self,
        case: &Case<'_>,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<()> {
        let Intent {
            tx,
            path,
            expect,
            staged,
            ..
        } = case.intent;
        if let (Some(old), None) = (expect, case.slot)
            && let Some(version) = self.own.kept.find_version(*tx, path)?
        {
            // Where the old entry had its place back, it is the new one that was kept.
            let now = self.root.lstat(&version)?.map(|stat| print_of(&stat).ino);
            let kept = staged.as_ref().filter(|staged| Some(staged.ino) == now);
            recovery
                .displaced
                .extend(self.check_version(&version, kept.unwrap_or(old), path, session)?);
        }
        Ok(())
    }

    /// The old entry had stepped aside, where names cannot be exchanged: it goes back if its place is free.
    fn recover_aside(
        &self,
        intent: &Intent,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<()> {
        let aside = intent.tx.aside();
        if lstat_at(&self.own.tmp, aside.as_bytes())?.is_none() {
            return Ok(());
        }
        let slot = intent.tx.slot();
        let tmp = &self.own.tmp;
        if lstat_at(tmp, slot.as_bytes())?.is_none() {
            return Ok(slots::rename_new(tmp, aside.as_bytes(), tmp, slot.as_bytes())?);
        }
        let dir = session.parent(&intent.path, Missing::Make)?;
        match slots::rename_new(tmp, aside.as_bytes(), &dir, intent.path.file_name()) {
            Ok(()) => {
                session.touch(&intent.path);
                Ok(())
            }
            Err(Errno::EXIST) => self.show(&aside, intent, session, recovery),
            Err(e) => Err(e.into()),
        }
    }

    /// Puts a file with a user's bytes beside the path.
    fn show(
        &self,
        slot: &str,
        intent: &Intent,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<()> {
        let kept_at = self.keep_beside(&self.own.tmp, slot.as_bytes(), &intent.path, session)?;
        recovery.displaced.push(Displaced {
            path: intent.path.clone(),
            kept_at,
        });
        Ok(())
    }

    fn recover_put(
        &self,
        case: &Case<'_>,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<Effect> {
        let Some(staged) = case.intent.staged else {
            return Ok(self.recover_mkdir(case, session));
        };
        let slot = case.intent.tx.slot();
        let slot_is_new = case.is_new(case.slot);
        let happened = |print| Effect::of(InstallOutcome::Done(Some(print)));
        if let Some(target) = case.target.filter(|_| case.is_new(case.target)) {
            if case.slot.is_some_and(|s| !is_dir_print(&s)) && !case.is_old_inode(case.slot) {
                let dir = session.parent(&case.intent.path, Missing::Make)?;
                let spot = Spot {
                    dir,
                    path: &case.intent.path,
                };
                return Ok(self.put_back(case.intent, &spot, session, InstallOutcome::Changed));
            }
            let displaced = self.dispose_old(case, session, recovery)?;
            return Ok(Effect {
                displaced,
                ..happened(meta::as_installed(&staged, target))
            });
        }
        if slot_is_new {
            let as_expected = match case.target {
                None => case.intent.expect.is_none(),
                Some(_) => case.is_old(case.target),
            };
            if as_expected {
                let again = Intent {
                    expect: case.target,
                    ..case.intent.clone()
                };
                let effect = self.change(&again, session);
                if effect.unused {
                    self.drop_new(case.intent)?;
                }
                return Ok(effect);
            }
            self.drop_new(case.intent)?;
            return Ok(Effect::of(InstallOutcome::Changed));
        }
        let Some(in_slot) = case.slot else {
            // Slots are durable before their intents: where nothing was expected, the new entry must have been moved.
            let edited_after = case.intent.expect.is_none() && !self.journal.was_damaged();
            return Ok(if edited_after {
                happened(staged)
            } else {
                Effect::of(InstallOutcome::ContentMissing)
            });
        };
        if case.is_old_inode(Some(in_slot)) {
            let displaced = self.dispose_old(case, session, recovery)?;
            return Ok(Effect {
                displaced,
                ..happened(staged)
            });
        }
        if case.target.is_none() {
            let dir = session.parent(&case.intent.path, Missing::Make)?;
            let spot = Spot {
                dir,
                path: &case.intent.path,
            };
            return Ok(self.return_removed(&slot, &spot, session));
        }
        self.show(&slot, case.intent, session, recovery)?;
        Ok(Effect::of(InstallOutcome::Changed))
    }

    /// Throws away a slot that is not wanted any more, after its intent was closed: recovery after another crash would
    /// take an open intent whose slot is gone for one that was put in place.
    fn drop_new(&self, intent: &Intent) -> std::io::Result<()> {
        self.journal
            .abandoned(&[intent.tx])
            .map_err(std::io::Error::other)?;
        stage::remove_tmp(&self.own.tmp, intent.tx.slot().as_bytes())
    }

    /// Says what is to become of the old entry in the slot: a version, or, if somebody went on writing, a file beside.
    fn dispose_old(
        &self,
        case: &Case<'_>,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<Option<Fingerprint>> {
        let slot = case.intent.tx.slot();
        match case.slot {
            None => Ok(None),
            Some(print) if is_dir_print(&print) => {
                if stage::remove_tmp(&self.own.tmp, slot.as_bytes()).is_err() {
                    self.show(&slot, case.intent, session, recovery)?;
                }
                Ok(None)
            }
            Some(print) if case.is_old(case.slot) => Ok(Some(print)),
            Some(print) if case.intent.action == IntentAction::Recorded && case.is_new(case.slot) => {
                Ok(Some(print))
            }
            Some(_) => {
                self.show(&slot, case.intent, session, recovery)?;
                Ok(None)
            }
        }
    }

    fn recover_mkdir(&self, case: &Case<'_>, session: &mut Session<'_>) -> Effect {
        match case.target {
            Some(target) if is_dir_print(&target) => {
                let again = Intent {
                    expect: None,
                    ..case.intent.clone()
                };
                self.change(&again, session)
            }
            Some(_) | None => Effect::of(InstallOutcome::Changed),
        }
    }

    fn recover_meta(&self, case: &Case<'_>, session: &mut Session<'_>) -> Effect {
        let unchanged = Effect::of(InstallOutcome::Changed);
        let (Some(entry), Some(old), Some(now)) = (&case.intent.new, case.intent.expect, case.target) else {
            return unchanged;
        };
        // A write moves the time to something that is neither the old nor the new one.
        let ours = (now.mtime_ns == old.mtime_ns || now.mtime_ns == entry.mtime_ns)
            && meta::is_mode_of_ours(self.modes, entry, old.mode, now.mode);
        if now.ino != old.ino || now.size != old.size || !ours {
            return unchanged;
        }
        self.change(
            &Intent {
                expect: Some(now),
                ..case.intent.clone()
            },
            session,
        )
    }

    fn recover_move(
        &self,
        case: &Case<'_>,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<Effect> {
        let (Some((_, from_expect)), Some(entry)) = (&case.intent.from, &case.intent.new) else {
            return Ok(Effect::of(InstallOutcome::Changed));
        };
        let moved = case
            .target
            .filter(|t| t.ino == from_expect.ino && t.size == from_expect.size);
        if let Some(target) = moved {
            let displaced = self.dispose_old(case, session, recovery)?;
            let untouched = (target.mtime_ns == from_expect.mtime_ns || has_entry_time(entry, &target))
                && meta::is_mode_of_ours(self.modes, entry, from_expect.mode, target.mode);
            if !untouched {
                return Ok(Effect {
                    displaced,
                    ..Effect::of(InstallOutcome::Done(Some(*from_expect)))
                });
            }
            let dir = session.parent(&case.intent.path, Missing::Fail)?;
            let spot = Spot {
                dir,
                path: &case.intent.path,
            };
            let mut print = target;
            if !meta::has_meta(self.modes, entry, &target) {
                match set_entry_meta(self, &spot, entry, &target) {
                    Ok(set) => print = set,
                    // Its user changed it just now.
                    Err(Errno::STALE | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(e) => return Err(e.into()),
                }
                session.touch_itself(&case.intent.path);
            }
            return Ok(Effect {
                displaced,
                ..Effect::of(InstallOutcome::Done(Some(print)))
            });
        }
        // It had not happened. What was to be replaced may have been taken away already.
        self.undo_remove(case, session, recovery)
    }

    fn recover_remove(
        &self,
        case: &Case<'_>,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<Effect> {
        if case.slot.is_some() && case.is_old_inode(case.slot) {
            let displaced = self.dispose_old(case, session, recovery)?;
            return Ok(Effect {
                displaced,
                ..Effect::of(InstallOutcome::Done(None))
            });
        }
        let was_file = case.intent.expect.as_ref().is_some_and(|old| !is_dir_print(old));
        if !was_file && case.slot.is_none() && case.target.is_none() {
            return Ok(Effect::of(InstallOutcome::Done(None)));
        }
        // A file stays in its slot until the store knows that it was taken away. If neither is there, the store knows, and
        // its user may have put and deleted another file there since; or the user deleted it before. The scan tells.
        self.undo_remove(case, session, recovery)
    }

    fn undo_remove(
        &self,
        case: &Case<'_>,
        session: &mut Session<'_>,
        recovery: &mut Recovery,
    ) -> std::io::Result<Effect> {
        if case.slot.is_some() {
            let slot = case.intent.tx.slot();
            if case.target.is_some() {
                self.show(&slot, case.intent, session, recovery)?;
            } else {
                let dir = session.parent(&case.intent.path, Missing::Make)?;
                return Ok(self.return_removed(
                    &slot,
                    &Spot {
                        dir,
                        path: &case.intent.path,
                    },
                    session,
                ));
            }
        }
        Ok(Effect::of(InstallOutcome::Changed))
    }
}

/// Does what looks at the disk and goes by that, once more if a user took away or made meanwhile what it went by. Each try
/// begins with a look, so what an earlier one did is seen.
fn beside_users(mut act: impl FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
    for _ in 1..TRIES {
        match act() {
            Err(e) if is_of_a_user(&e) => {}
            result => return result,
        }
    }
    act()
}

fn is_of_a_user(e: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(e),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY | Errno::LOOP | Errno::STALE)
    )
}

fn has_entry_time(entry: &Entry, now: &Fingerprint) -> bool {
    entry.mtime_ns == now.mtime_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_a_user_got_in_the_way_of_is_tried_again_and_no_other() {
        let run = |errno: Errno, fails: u32| {
            let mut tries = 0;
            let result = beside_users(|| {
                tries += 1;
                if tries <= fails { Err(errno.into()) } else { Ok(()) }
            });
            (result.is_ok(), tries)
        };
        // A directory that was removed just then, by a user whose daemon had just started.
        assert_eq!(run(Errno::NOENT, 3), (true, 4));
        assert_eq!(run(Errno::NOENT, u32::MAX), (false, TRIES));
        assert_eq!(run(Errno::IO, 1), (false, 1));
    }
}
