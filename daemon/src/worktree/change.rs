//! Changing the folder, one intent at a time: look, exchange or rename, look at what came out.

mod set_meta;

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use p2p_sync_core::engine::InstallOutcome;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint};
use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

pub(super) use self::set_meta::set_entry_meta;
use super::session::{Missing, Session, writable};
use super::{Effect, Step, Worktree, meta, slots};
use crate::journal::{Intent, IntentAction};
use crate::root_dir::{is_dir_print, lstat_at, print_of};

/// Times a put-back is tried while somebody keeps replacing the path.
const PUT_BACK_TRIES: u32 = 8;
/// Names that say what keeps a directory from going.
const HOLDS_MAX: usize = 64;

/// A path as an open directory and a name in it.
pub(super) struct Spot<'p> {
    pub(super) dir: Rc<OwnedFd>,
    pub(super) path: &'p RelPath,
}

impl Spot<'_> {
    pub(super) fn name(&self) -> &[u8] {
        self.path.file_name()
    }

    pub(super) fn print(&self) -> io::Result<Option<Fingerprint>> {
        Ok(lstat_at(&self.dir, self.name())?.map(|s| print_of(&s)))
    }
}

/// Why a change came to its end early.
enum Stop {
    /// Nothing was replaced.
    Outcome(InstallOutcome),
    /// The system refused.
    Io(&'static str, io::Error),
}

impl Stop {
    fn io<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |e| Self::Io(action, e.into())
    }
}

const CHANGED: Stop = Stop::Outcome(InstallOutcome::Changed);

impl Worktree {
    /// Does what an intent says; its slot is durable and so is the intent.
    pub(super) fn change(&self, intent: &Intent, session: &mut Session<'_>) -> Effect {
        let mut effect = self.try_change(intent, session);
        if let InstallOutcome::NotEmpty(holds) = &mut effect.outcome {
            *holds = self.held_in(&intent.path);
        }
        effect
    }

    /// Returns some of what lies in a directory, for people.
    fn held_in(&self, dir: &RelPath) -> Vec<RelPath> {
        let names = self.root.open_dir(Some(dir)).and_then(slots::names);
        let mut paths: Vec<RelPath> = names
            .unwrap_or_default()
            .iter()
            .filter_map(|name| dir.join(name).ok())
            .collect();
        paths.sort();
        paths.truncate(HOLDS_MAX);
        paths
    }

    fn try_change(&self, intent: &Intent, session: &mut Session<'_>) -> Effect {
        let result = match (intent.action, &intent.new) {
            (IntentAction::Put | IntentAction::Restore, Some(entry)) if entry.node.is_dir() => {
                self.put_dir(intent, entry, session)
            }
            (IntentAction::Put | IntentAction::Restore, Some(_)) => self.put(intent, session),
            (IntentAction::SetMeta, Some(entry)) => self.set_meta(intent, entry, session),
            (IntentAction::Move, Some(entry)) => self.move_here(intent, entry, session),
            (IntentAction::Remove, _) => self.remove(intent, session),
            (IntentAction::Recorded, _) | (_, None) => Err(Stop::Outcome(InstallOutcome::Failed(
                "The intent names no entry".to_owned(),
            ))),
        };
        let outcome = match result {
            Ok(effect) => return effect,
            Err(Stop::Outcome(outcome)) => outcome,
            Err(Stop::Io(action, e)) => InstallOutcome::Failed(format!("Cannot {action}: {e}")),
        };
        Effect {
            unused: true,
            ..Effect::of(outcome)
        }
    }

    fn spot<'p>(&self, path: &'p RelPath, session: &mut Session<'_>) -> Result<Spot<'p>, Stop> {
        let _ = self;
        match session.parent(path, Missing::Make) {
            Ok(dir) => Ok(Spot { dir, path }),
            // A user put a file or link in place of a directory above.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOTDIR | Errno::LOOP)) => Err(CHANGED),
            Err(e) => Err(Stop::Io("open the directory", e)),
        }
    }

    fn put(&self, intent: &Intent, session: &mut Session<'_>) -> Result<Effect, Stop> {
        let spot = self.spot(&intent.path, session)?;
        let now = spot.print().map_err(Stop::io("look at the path"))?;
        // Nobody scans the daemon's own directory: a copy that a former state left there is kept as a version.
        let left_behind = intent.path.is_own() && now.is_some_and(|now| !is_dir_print(&now));
        if !meta::is_expected(intent.expect.as_ref(), now.as_ref()) && !left_behind {
            return Err(CHANGED);
        }
        self.at(Step::Checked, &intent.path);
        let slot = intent.tx.slot();
        let Some(old) = now else {
            match writable(&spot.dir, || {
                slots::rename_new(&self.own.tmp, slot.as_bytes(), &spot.dir, spot.name())
            }) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(CHANGED),
                Err(e) => return Err(Stop::Io("put the entry in place", e.into())),
            }
            session.touch(&intent.path);
            return Ok(Effect::of(InstallOutcome::Done(Some(
                self.print_after(&spot, intent),
            ))));
        };
        self.swap_in(intent, &spot, &old, session)
    }

    /// Exchanges the slot with what stands at the path, and looks at what came out.
    fn swap_in(
        &self,
        intent: &Intent,
        spot: &Spot<'_>,
        old: &Fingerprint,
        session: &mut Session<'_>,
    ) -> Result<Effect, Stop> {
        match self.swap(intent, spot) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::EXIST) => return Err(CHANGED),
            Err(e) => return Err(Stop::Io("put the entry in place", e.into())),
        }
        session.touch(&intent.path);
        self.at(Step::Changed, &intent.path);
        let slot = intent.tx.slot();
        let out = lstat_at(&self.own.tmp, slot.as_bytes()).map_err(Stop::io("look at what was replaced"))?;
        let out = out.map(|s| print_of(&s));
        let mut effect = Effect::of(InstallOutcome::Done(Some(self.print_after(spot, intent))));
        match out {
            Some(out) if is_dir_print(old) && is_dir_print(&out) => {
                match rustix::fs::unlinkat(&self.own.tmp, &slot, AtFlags::REMOVEDIR) {
                    Ok(()) => session.forget_dirs(),
                    Err(_) => {
                        effect = self.put_back(intent, spot, session, InstallOutcome::NotEmpty(Vec::new()));
                    }
                }
            }
            Some(out) if meta::is_moved(old, &out) => effect.displaced = Some(out),
            Some(_) => effect = self.put_back(intent, spot, session, InstallOutcome::Changed),
            None => {}
        }
        Ok(effect)
    }

    /// Exchanges the slot and the path. Where the file system cannot, the old entry steps aside first, so that the
    /// path is empty for an instant, and a file that a user puts there then stays.
    pub(super) fn swap(&self, intent: &Intent, spot: &Spot<'_>) -> Result<(), Errno> {
        let (slot, aside) = (intent.tx.slot(), intent.tx.aside());
        let tmp = &self.own.tmp;
        writable(&spot.dir, || {
            match self.exchange(&slot, spot) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                other => return other,
            }
            slots::rename_new(&spot.dir, spot.name(), tmp, aside.as_bytes())?;
            self.at(Step::Aside, spot.path);
            if let Err(e) = slots::rename_new(tmp, slot.as_bytes(), &spot.dir, spot.name()) {
                if slots::rename_new(tmp, aside.as_bytes(), &spot.dir, spot.name()).is_err() {
                    self.keep_unseen(&aside, intent.tx, Some(spot.path))
                        .map_err(|_| Errno::IO)?;
                }
                return Err(e);
            }
            slots::rename_new(tmp, aside.as_bytes(), tmp, slot.as_bytes())
        })
    }

    fn exchange(&self, slot: &str, spot: &Spot<'_>) -> Result<(), Errno> {
        #[cfg(test)]
        if self.plain {
            return Err(Errno::INVAL);
        }
        rustix::fs::renameat_with(&self.own.tmp, slot, &spot.dir, spot.name(), RenameFlags::EXCHANGE)
    }

    /// Gives the path back to the user whose bytes came out of an exchange. The new entry, which the folder saw for an
    /// instant, does not get its content's name again: somebody may have it open.
    pub(super) fn put_back(
        &self,
        intent: &Intent,
        spot: &Spot<'_>,
        session: &mut Session<'_>,
        outcome: InstallOutcome,
    ) -> Effect {
        let slot = intent.tx.slot();
        self.at(Step::PutBack, &intent.path);
        session.touch(&intent.path);
        for _ in 0..PUT_BACK_TRIES {
            match self.swap(intent, spot) {
                Ok(()) => return self.after_put_back(intent, spot, session, outcome),
                // The user removed the path meanwhile; what was saved before that comes back.
                Err(Errno::NOENT) => {
                    if slots::rename_new(&self.own.tmp, slot.as_bytes(), &spot.dir, spot.name()).is_ok() {
                        return Effect::of(outcome);
                    }
                }
                Err(Errno::EXIST) => {}
                Err(_) => break,
            }
        }
        self.keep_in_sight(&slot, spot.path, session, outcome)
    }

    fn after_put_back(
        &self,
        intent: &Intent,
        spot: &Spot<'_>,
        session: &mut Session<'_>,
        outcome: InstallOutcome,
    ) -> Effect {
        let slot = intent.tx.slot();
        let out = lstat_at(&self.own.tmp, slot.as_bytes())
            .ok()
            .flatten()
            .map(|s| print_of(&s));
        let ours = intent
            .staged
            .zip(out)
            .filter(|(staged, out)| meta::is_untouched(staged, out));
        match (ours, out) {
            (Some((_, out)), _) if FileType::from_raw_mode(out.mode) == FileType::RegularFile => Effect {
                displaced: Some(out),
                ..Effect::of(outcome)
            },
            (Some(_), _) if super::stage::remove_tmp(&self.own.tmp, slot.as_bytes()).is_ok() => {
                Effect::of(outcome)
            }
            (None, None) => Effect::of(outcome),
            // A second save came out: both are the user's, and neither may go.
            _ => self.keep_in_sight(&slot, spot.path, session, outcome),
        }
    }

    /// Puts a slot with a user's bytes beside the path, as the last resort against losing them.
    pub(super) fn keep_in_sight(
        &self,
        slot: &str,
        path: &RelPath,
        session: &mut Session<'_>,
        outcome: InstallOutcome,
    ) -> Effect {
        match self.keep_beside(&self.own.tmp, slot.as_bytes(), path, session) {
            Ok(_) => Effect::of(outcome),
            Err(error) => {
                tracing::warn!(%error, slot, "A file that was saved during an install stays in .p2p-sync/tmp");
                Effect {
                    stuck: true,
                    ..Effect::of(outcome)
                }
            }
        }
    }

    /// Returns what stands at the path after the install, or, if somebody already changed it, what was put there: the
    /// scanner sees the difference then.
    fn print_after(&self, spot: &Spot<'_>, intent: &Intent) -> Fingerprint {
        let _ = self;
        let staged = intent.staged.unwrap_or_default();
        match spot.print() {
            Ok(Some(now)) => meta::as_installed(&staged, now),
            _ => staged,
        }
    }

    fn put_dir(&self, intent: &Intent, entry: &Entry, session: &mut Session<'_>) -> Result<Effect, Stop> {
        let mode = meta::dir_mode(self.modes, entry.mode);
        let spot = self.spot(&intent.path, session)?;
        let now = spot.print().map_err(Stop::io("look at the path"))?;
        self.at(Step::Checked, &intent.path);
        match (intent.expect.as_ref(), now) {
            (None, None) => match writable(&spot.dir, || slots::new_dir(&spot.dir, spot.name(), mode)) {
                Ok(()) => session.touch(&intent.path),
                Err(Errno::EXIST) => return Err(CHANGED),
                Err(e) => return Err(Stop::Io("make the directory", e.into())),
            },
            (None, Some(now)) if is_dir_print(&now) => {}
            (Some(expect), Some(now)) if meta::is_expected(Some(expect), Some(&now)) => {
                if !is_dir_print(&now) {
                    let effect = self.swap_in(intent, &spot, &now, session)?;
                    session.forget_dirs();
                    return Ok(effect);
                }
            }
            (None | Some(_), None | Some(_)) => return Err(CHANGED),
        }
        let dir = match slots::open_dir(&spot.dir, spot.name()) {
            Err(e)
                if matches!(
                    Errno::from_io_error(&e),
                    Some(Errno::NOTDIR | Errno::NOENT | Errno::LOOP)
                ) =>
            {
                return Err(CHANGED);
            }
            other => other.map_err(Stop::io("open the directory"))?,
        };
        meta::set_dir(&dir, mode).map_err(Stop::io("set the directory's mode"))?;
        let stat = rustix::fs::fstat(&dir).map_err(Stop::io("look at the directory"))?;
        session.touch_itself(&intent.path);
        Ok(Effect::of(InstallOutcome::Done(Some(print_of(&stat)))))
    }

    fn remove(&self, intent: &Intent, session: &mut Session<'_>) -> Result<Effect, Stop> {
        const DONE: Effect = Effect::of(InstallOutcome::Done(None));
        const GONE: Stop = Stop::Outcome(InstallOutcome::Gone);
        let dir = match session.parent(&intent.path, Missing::Fail) {
            Ok(dir) => dir,
            Err(_) if matches!(self.root.lstat(&intent.path), Ok(None)) => return Err(GONE),
            Err(e) => return Err(Stop::Io("open the directory", e)),
        };
        let spot = Spot {
            dir,
            path: &intent.path,
        };
        // A user was faster. He is told of as one who deleted: what he deleted may be wanted here for another reason.
        let Some(now) = spot.print().map_err(Stop::io("look at the path"))? else {
            return Err(GONE);
        };
        if !meta::is_expected(intent.expect.as_ref(), Some(&now)) {
            return Err(CHANGED);
        }
        self.at(Step::Checked, &intent.path);
        session.touch(&intent.path);
        if is_dir_print(&now) {
            let removed = writable(&spot.dir, || {
                rustix::fs::unlinkat(&spot.dir, spot.name(), AtFlags::REMOVEDIR)
            });
            session.forget_dirs();
            return match removed {
                Ok(()) => Ok(DONE),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    Err(Stop::Outcome(InstallOutcome::NotEmpty(Vec::new())))
                }
                Err(Errno::NOENT) => Err(GONE),
                Err(Errno::NOTDIR) => Err(CHANGED),
                Err(e) => Err(Stop::Io("remove the directory", e.into())),
            };
        }
        let slot = intent.tx.slot();
        match writable(&spot.dir, || {
            slots::rename_new(&spot.dir, spot.name(), &self.own.tmp, slot.as_bytes())
        }) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(GONE),
            Err(e) => return Err(Stop::Io("take the entry away", e.into())),
        }
        self.at(Step::Changed, &intent.path);
        let out = lstat_at(&self.own.tmp, slot.as_bytes()).map_err(Stop::io("look at what was removed"))?;
        match out.map(|s| print_of(&s)) {
            Some(out) if meta::is_moved(&now, &out) => Ok(Effect {
                displaced: Some(out),
                ..DONE
            }),
            _ => Ok(self.return_removed(&slot, &spot, session)),
        }
    }

    /// Puts a user's save, taken away by mistake, back to its path, unless there is yet another one.
    pub(super) fn return_removed(&self, slot: &str, spot: &Spot<'_>, session: &mut Session<'_>) -> Effect {
        self.at(Step::PutBack, spot.path);
        let back = writable(&spot.dir, || {
            slots::rename_new(&self.own.tmp, slot.as_bytes(), &spot.dir, spot.name())
        });
        match back {
            Ok(()) => Effect::of(InstallOutcome::Changed),
            Err(_) => self.keep_in_sight(slot, spot.path, session, InstallOutcome::Changed),
        }
    }

    fn move_here(&self, intent: &Intent, entry: &Entry, session: &mut Session<'_>) -> Result<Effect, Stop> {
        let Some((from, from_expect)) = &intent.from else {
            return Err(CHANGED);
        };
        let source = self.spot(from, session)?;
        let spot = self.spot(&intent.path, session)?;
        let there = source.print().map_err(Stop::io("look at the path"))?;
        if !meta::is_expected(Some(from_expect), there.as_ref()) || is_dir_print(from_expect) {
            return Err(CHANGED);
        }
        let replaced = match self.clear_way(intent, &spot, session)? {
            Ok(replaced) => replaced,
            Err(effect) => return Ok(effect),
        };
        self.at(Step::Checked, &intent.path);
        let moved = writable(&source.dir, || {
            writable(&spot.dir, || {
                slots::rename_new(&source.dir, source.name(), &spot.dir, spot.name())
            })
        });
        session.touch(from);
        session.touch(&intent.path);
        self.at(Step::Changed, &intent.path);
        let out = match moved {
            Ok(()) => spot.print().map_err(Stop::io("look at what was moved"))?,
            Err(_) => None,
        };
        if out.is_some_and(|out| meta::is_moved(from_expect, &out)) {
            let print = match set_entry_meta(self, &spot, entry, from_expect) {
                Ok(print) => print,
                // Its user changed it just now: what was moved is told, and the scanner sees the difference.
                Err(Errno::STALE | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => *from_expect,
                // What failed must not have happened, or it would look like the user's own doing.
                Err(e) if slots::rename_new(&spot.dir, spot.name(), &source.dir, source.name()).is_ok() => {
                    let outcome = InstallOutcome::Failed(format!("Cannot set mode and time: {e}"));
                    return Ok(self.after_no_move(intent, &spot, session, replaced, outcome));
                }
                Err(_) => *from_expect,
            };
            session.touch_itself(&intent.path);
            return Ok(Effect {
                displaced: replaced,
                ..Effect::of(InstallOutcome::Done(Some(print)))
            });
        }
        let outcome = match moved {
            Ok(()) | Err(Errno::NOENT | Errno::EXIST) => InstallOutcome::Changed,
            Err(e) => InstallOutcome::Failed(format!("Cannot move the file: {e}")),
        };
        if moved.is_ok() {
            // What was moved is a save of that instant. If its place is taken by now, it is safe where it is.
            let _ = slots::rename_new(&spot.dir, spot.name(), &source.dir, source.name());
        }
        Ok(self.after_no_move(intent, &spot, session, replaced, outcome))
    }

    /// Gives back what a move that came to nothing was to replace.
    fn after_no_move(
        &self,
        intent: &Intent,
        spot: &Spot<'_>,
        session: &mut Session<'_>,
        replaced: Option<Fingerprint>,
        outcome: InstallOutcome,
    ) -> Effect {
        let effect = replaced.map(|_| self.return_removed(&intent.tx.slot(), spot, session));
        Effect {
            outcome: outcome.clone(),
            ..effect.unwrap_or(Effect::of(outcome))
        }
    }

    /// Takes what a move is to replace into the slot; the inner error is the end of the move.
    fn clear_way(
        &self,
        intent: &Intent,
        spot: &Spot<'_>,
        session: &mut Session<'_>,
    ) -> Result<Result<Option<Fingerprint>, Effect>, Stop> {
        let now = spot.print().map_err(Stop::io("look at the path"))?;
        if !meta::is_expected(intent.expect.as_ref(), now.as_ref()) {
            return Err(CHANGED);
        }
        if now.is_none() {
            return Ok(Ok(None));
        }
        let effect = self.remove(intent, session)?;
        Ok(match effect.outcome {
            InstallOutcome::Done(_) => Ok(effect.displaced),
            _ => Err(effect),
        })
    }
}
