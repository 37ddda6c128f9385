//! Changing the folder, one install at a time and one step after the other: look, exchange or rename, look at what came
//! out, and give it back if a user saved in between.

use std::collections::BTreeSet;

use p2p_sync_core::engine::InstallOutcome;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};

use super::{Effect, OWNER_BITS, Worktree, prints};
use crate::sim::disk::{Inode, Kind, Place};
use crate::sim::journal::{Intent, IntentAction};

/// Times a put-back is tried while somebody keeps replacing the path.
const PUT_BACK_TRIES: u32 = 8;
/// Names that say what keeps a directory from going.
const HOLDS_MAX: usize = 64;

/// What is to be done next in an install.
#[derive(Debug)]
pub(super) enum Step {
    /// Look whether the path is as expected.
    Begin,
    /// Put the slot where nothing was.
    PutNew,
    /// Exchange the slot with what was seen.
    Swap(Fingerprint),
    /// Look at what came out.
    LookSwapped(Fingerprint),
    /// Exchange back.
    PutBack(InstallOutcome),
    /// Make a directory where nothing was.
    MakeDir,
    /// Set the mode of the directory that stands there.
    SetDir,
    /// Take what was seen into the slot.
    TakeOut(Fingerprint),
    /// Look at what was taken.
    LookTaken(Fingerprint),
    /// Put what was taken back.
    GiveBack(InstallOutcome),
    /// Rename the source of a move to its target.
    Rename(Option<Fingerprint>),
    /// Look at what was moved.
    LookMoved(Option<Fingerprint>),
    /// Set mode and time of what was seen.
    SetMeta(Fingerprint, Option<Fingerprint>),
    /// Nothing.
    End(Effect),
}

const fn end(outcome: InstallOutcome) -> Step {
    Step::End(Effect::of(outcome))
}

const CHANGED: Step = end(InstallOutcome::Changed);

impl Worktree<'_> {
    /// Does one step of an install whose slot and intent are durable.
    pub(super) fn change(&mut self, intent: &Intent, step: Step, touched: &mut BTreeSet<Place>) -> Step {
        let next = self.try_change(intent, step, touched);
        match next {
            Step::End(mut effect) => {
                if let InstallOutcome::NotEmpty(holds) = &mut effect.outcome {
                    *holds = self.held_in(&intent.path);
                }
                Step::End(effect)
            }
            next => next,
        }
    }

    /// Does all steps of an install at once.
    pub(super) fn change_at_once(&mut self, intent: &Intent) -> Effect {
        let mut touched = BTreeSet::new();
        let mut step = Step::Begin;
        let effect = loop {
            step = match self.change(intent, step, &mut touched) {
                Step::End(effect) => break effect,
                next => next,
            };
        };
        touched.iter().for_each(|place| self.disk.sync(place));
        effect
    }

    fn held_in(&self, dir: &RelPath) -> Vec<RelPath> {
        let mut below = self.disk.below(dir);
        below.retain(|path| path.parent().as_ref() == Some(dir));
        below.truncate(HOLDS_MAX);
        below
    }

    fn try_change(&mut self, intent: &Intent, step: Step, touched: &mut BTreeSet<Place>) -> Step {
        let here = Place::Folder(intent.path.clone());
        let slot = Place::Slot(intent.tx);
        touched.insert(here.clone());
        match step {
            Step::Begin => self.begin(intent, touched),
            Step::PutNew => {
                if self.has_parent(intent) && self.disk.rename_new(slot, here.clone()) {
                    return end(InstallOutcome::Done(Some(self.print_after(intent))));
                }
                CHANGED
            }
            Step::Swap(old) => {
                if self.disk.exchange(slot, here) {
                    return Step::LookSwapped(old);
                }
                CHANGED
            }
            Step::LookSwapped(old) => self.look_swapped(intent, &old),
            Step::PutBack(outcome) => Step::End(self.put_back(intent, outcome)),
            Step::MakeDir => {
                if self.disk.lstat(&intent.path).is_some() || !self.has_parent(intent) {
                    return CHANGED;
                }
                self.disk.create(&intent.path, Kind::Dir, OWNER_BITS, 0);
                Step::SetDir
            }
            Step::SetDir => self.set_dir(intent),
            Step::TakeOut(seen) => self.take_out(intent, &seen),
            Step::LookTaken(seen) => self.look_taken(intent, &seen),
            Step::GiveBack(outcome) => Step::End(self.give_back(intent, outcome)),
            Step::Rename(replaced) => self.rename_source(intent, replaced),
            Step::LookMoved(replaced) => self.look_moved(intent, replaced),
            Step::SetMeta(seen, replaced) => self.set_meta(intent, &seen, replaced),
            Step::End(effect) => Step::End(effect),
        }
    }

    fn begin(&mut self, intent: &Intent, touched: &mut BTreeSet<Place>) -> Step {
        let now = self.print(&Place::Folder(intent.path.clone()));
        let as_expected = prints::is_expected(intent.expect.as_ref(), now.as_ref());
        match intent.action {
            IntentAction::Put => {
                if !self.make_parents(&intent.path, touched) {
                    return CHANGED;
                }
                if intent.new.as_ref().is_some_and(|entry| entry.node.is_dir()) {
                    return begin_dir(intent, now);
                }
                let left_behind = intent.path.is_own() && now.is_some_and(|now| !prints::is_dir(&now));
                match now {
                    _ if !as_expected && !left_behind => CHANGED,
                    Some(old) => Step::Swap(old),
                    None => Step::PutNew,
                }
            }
            IntentAction::SetMeta => match now {
                Some(now) if as_expected => Step::SetMeta(now, None),
                Some(_) | None => CHANGED,
            },
            IntentAction::Move => {
                let Some((from, from_expect)) = &intent.from else {
                    return CHANGED;
                };
                let there = self.print(&Place::Folder(from.clone()));
                let source = prints::is_expected(Some(from_expect), there.as_ref());
                match now {
                    _ if !source || prints::is_dir(from_expect) || !as_expected => CHANGED,
                    _ if !self.make_parents(&intent.path, touched) => CHANGED,
                    Some(seen) => Step::TakeOut(seen),
                    None => Step::Rename(None),
                }
            }
            IntentAction::Remove => match now {
                Some(seen) if as_expected => Step::TakeOut(seen),
                Some(_) => CHANGED,
                None => end(InstallOutcome::Gone),
            },
            IntentAction::Recorded => CHANGED,
        }
    }

    fn has_parent(&self, intent: &Intent) -> bool {
        self.disk.has_parent(&intent.path)
    }

    fn look_swapped(&mut self, intent: &Intent, old: &Fingerprint) -> Step {
        let slot = Place::Slot(intent.tx);
        let mut effect = Effect::of(InstallOutcome::Done(Some(self.print_after(intent))));
        match self.print(&slot) {
            Some(out) if prints::is_dir(old) && prints::is_dir(&out) => {
                if !self.disk.is_empty_dir(&slot) {
                    return Step::PutBack(InstallOutcome::NotEmpty(Vec::new()));
                }
                self.disk.remove(slot);
            }
            Some(out) if prints::is_moved(old, &out) => effect.displaced = Some(out),
            Some(_) => return Step::PutBack(InstallOutcome::Changed),
            None => {}
        }
        Step::End(effect)
    }

    /// Gives the path back to the user whose bytes came out of an exchange.
    pub(super) fn put_back(&mut self, intent: &Intent, outcome: InstallOutcome) -> Effect {
        let slot = Place::Slot(intent.tx);
        let here = Place::Folder(intent.path.clone());
        for _ in 0..PUT_BACK_TRIES {
            if self.disk.exchange(slot.clone(), here.clone()) {
                return self.after_put_back(intent, outcome);
            }
            let made = self.has_parent(intent) && self.disk.rename_new(slot.clone(), here.clone());
            if made {
                return Effect::of(outcome);
            }
        }
        self.keep_beside(slot, &intent.path);
        Effect::of(outcome)
    }

    fn after_put_back(&mut self, intent: &Intent, outcome: InstallOutcome) -> Effect {
        let slot = Place::Slot(intent.tx);
        let out = self.print(&slot);
        let ours = intent
            .staged
            .zip(out)
            .is_some_and(|(staged, out)| prints::is_untouched(&staged, &out));
        match out {
            Some(out) if ours && prints::is_file(&out) => Effect {
                displaced: Some(out),
                ..Effect::of(outcome)
            },
            Some(_) if ours && self.disk.is_empty_dir(&slot) => {
                self.disk.remove(slot);
                Effect::of(outcome)
            }
            Some(_) => {
                self.keep_beside(slot, &intent.path);
                Effect::of(outcome)
            }
            None => Effect::of(outcome),
        }
    }

    fn print_after(&self, intent: &Intent) -> Fingerprint {
        let staged = intent.staged.unwrap_or_default();
        let now = self.print(&Place::Folder(intent.path.clone()));
        now.map_or(staged, |now| prints::as_installed(&staged, now))
    }

    fn set_dir(&mut self, intent: &Intent) -> Step {
        let is_dir = self.disk.lstat(&intent.path).is_some_and(Inode::is_dir);
        let Some(entry) = intent.new.as_ref().filter(|_| is_dir) else {
            return CHANGED;
        };
        self.disk.set_meta(&intent.path, entry.mode | OWNER_BITS, 0);
        end(InstallOutcome::Done(
            self.print(&Place::Folder(intent.path.clone())),
        ))
    }

    fn take_out(&mut self, intent: &Intent, seen: &Fingerprint) -> Step {
        let Some(now) = self.disk.lstat(&intent.path) else {
            return end(InstallOutcome::Gone);
        };
        if !prints::is_dir(seen) {
            self.disk
                .rename_new(Place::Folder(intent.path.clone()), Place::Slot(intent.tx));
            return Step::LookTaken(*seen);
        }
        if !now.is_dir() {
            return CHANGED;
        }
        if !self.disk.is_empty_dir(&Place::Folder(intent.path.clone())) {
            return end(InstallOutcome::NotEmpty(Vec::new()));
        }
        self.disk.remove_all(&intent.path);
        match intent.action {
            IntentAction::Move => Step::Rename(None),
            _ => end(InstallOutcome::Done(None)),
        }
    }

    fn look_taken(&self, intent: &Intent, seen: &Fingerprint) -> Step {
        let out = self.print(&Place::Slot(intent.tx));
        let Some(out) = out.filter(|out| prints::is_moved(seen, out)) else {
            return Step::GiveBack(InstallOutcome::Changed);
        };
        if intent.action == IntentAction::Move {
            return Step::Rename(Some(out));
        }
        Step::End(Effect {
            displaced: Some(out),
            ..Effect::of(InstallOutcome::Done(None))
        })
    }

    /// Puts what was taken away back, unless there is something else by now.
    pub(super) fn give_back(&mut self, intent: &Intent, outcome: InstallOutcome) -> Effect {
        let (slot, here) = (Place::Slot(intent.tx), Place::Folder(intent.path.clone()));
        if !(self.has_parent(intent) && self.disk.rename_new(slot.clone(), here)) {
            self.keep_beside(slot, &intent.path);
        }
        Effect::of(outcome)
    }

    fn rename_source(&mut self, intent: &Intent, replaced: Option<Fingerprint>) -> Step {
        let Some((from, _)) = &intent.from else {
            return CHANGED;
        };
        let (there, here) = (Place::Folder(from.clone()), Place::Folder(intent.path.clone()));
        if self.has_parent(intent) && self.disk.rename_new(there, here) {
            Step::LookMoved(replaced)
        } else {
            not_moved(replaced)
        }
    }

    fn look_moved(&mut self, intent: &Intent, replaced: Option<Fingerprint>) -> Step {
        let Some((from, from_expect)) = &intent.from else {
            return CHANGED;
        };
        let here = Place::Folder(intent.path.clone());
        let out = self.print(&here);
        if out.is_some_and(|out| prints::is_moved(from_expect, &out)) {
            return Step::SetMeta(*from_expect, replaced);
        }
        if self.disk.has_parent(from) {
            self.disk.rename_new(here, Place::Folder(from.clone()));
        }
        not_moved(replaced)
    }

    fn set_meta(&mut self, intent: &Intent, seen: &Fingerprint, displaced: Option<Fingerprint>) -> Step {
        let Some(entry) = &intent.new else { return CHANGED };
        let print = match self.set_entry_meta(&intent.path, entry, seen) {
            Some(print) => print,
            // Its user changed it just now: what was moved is told, and the scanner sees the difference.
            None if intent.action == IntentAction::Move => *seen,
            None => return CHANGED,
        };
        Step::End(Effect {
            displaced,
            ..Effect::of(InstallOutcome::Done(Some(print)))
        })
    }

    /// Sets mode and time of an entry; `None` if it is not the expected one any more.
    pub(super) fn set_entry_meta(
        &mut self,
        path: &RelPath,
        entry: &Entry,
        expect: &Fingerprint,
    ) -> Option<Fingerprint> {
        let now = self.print(&Place::Folder(path.clone()))?;
        let is_it = if prints::is_file(expect) {
            prints::is_moved(expect, &now)
        } else {
            expect.ino == now.ino
        };
        if !is_it {
            return None;
        }
        let (mode, mtime_ns) = match &entry.node {
            Node::Dir => (entry.mode | OWNER_BITS, 0),
            Node::Link { .. } => (now.mode & 0o777, entry.mtime_ns),
            Node::File { .. } => (entry.mode, entry.mtime_ns),
        };
        self.disk.set_meta(path, mode, mtime_ns);
        self.print(&Place::Folder(path.clone()))
    }
}

fn begin_dir(intent: &Intent, now: Option<Fingerprint>) -> Step {
    match (intent.expect.as_ref(), now) {
        (None, None) => Step::MakeDir,
        (None, Some(now)) if prints::is_dir(&now) => Step::SetDir,
        (Some(expect), Some(now)) if prints::is_expected(Some(expect), Some(&now)) => {
            if prints::is_dir(&now) {
                Step::SetDir
            } else {
                Step::Swap(now)
            }
        }
        (None | Some(_), None | Some(_)) => CHANGED,
    }
}

const fn not_moved(replaced: Option<Fingerprint>) -> Step {
    if replaced.is_some() {
        Step::GiveBack(InstallOutcome::Changed)
    } else {
        CHANGED
    }
}
