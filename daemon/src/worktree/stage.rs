//! Making the new entry of an install in its slot, and taking it back.

use std::io;
use std::os::fd::OwnedFd;

use p2p_sync_core::engine::{InstallAction, InstallJob, InstallOutcome};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::session::{sync, sync_many};
use super::{Worktree, meta, slots};
use crate::journal::{Intent, IntentAction};
use crate::root_dir::{is_dir, is_dir_print, lstat_at, print_of};

impl Worktree {
    /// Makes the slot of a job, if it needs one, and its intent; a Put's action is `put`.
    pub(super) fn stage(&self, job: &InstallJob, put: IntentAction) -> Result<Intent, InstallOutcome> {
        check_place(&job.path)?;
        let tx = self
            .journal
            .next_tx()
            .map_err(|e| InstallOutcome::Failed(e.to_string()))?;
        let mut intent = Intent {
            tx,
            action: IntentAction::Remove,
            path: job.path.clone(),
            expect: job.expect,
            new: None,
            staged: None,
            from: None,
        };
        match &job.action {
            InstallAction::Put { entry, keep } => {
                intent.action = put;
                intent.new = Some(entry.clone());
                intent.staged = self.stage_put(&tx.slot(), entry, *keep, job.expect.as_ref())?;
            }
            InstallAction::SetMeta { entry } => {
                intent.action = IntentAction::SetMeta;
                intent.new = Some(entry.clone());
            }
            InstallAction::Move {
                from,
                from_expect,
                entry,
            } => {
                check_place(from)?;
                intent.action = IntentAction::Move;
                intent.new = Some(entry.clone());
                intent.from = Some((from.clone(), *from_expect));
            }
            InstallAction::Remove => {}
        }
        Ok(intent)
    }

    fn stage_put(
        &self,
        slot: &str,
        entry: &Entry,
        keep: bool,
        expect: Option<&Fingerprint>,
    ) -> Result<Option<Fingerprint>, InstallOutcome> {
        let made = match &entry.node {
            Node::File { content, size } => self.stage_file(slot, content, *size, entry, keep),
            Node::Link { target } => self.stage_link(slot, target, entry),
            Node::Dir if expect.is_some_and(|e| !is_dir_print(e)) => self.stage_dir(slot, entry),
            Node::Dir => return Ok(None),
        };
        match made {
            Ok(Some(print)) => Ok(Some(print)),
            Ok(None) => Err(InstallOutcome::ContentMissing),
            Err(e) => {
                // Best effort: the sweep at the next start takes what stays.
                let _ = remove_tmp(&self.own.tmp, slot.as_bytes());
                Err(InstallOutcome::Failed(format!(
                    "Cannot write a temporary file: {e}"
                )))
            }
        }
    }

    fn stage_file(
        &self,
        slot: &str,
        content: &ContentHash,
        size: u64,
        entry: &Entry,
        keep: bool,
    ) -> io::Result<Option<Fingerprint>> {
        let tmp = &self.own.tmp;
        let name = content.to_hex();
        let file = if size == 0 {
            OwnedFd::from(slots::create(tmp, slot)?)
        } else {
            let Some(stat) = lstat_at(tmp, name.as_bytes())? else {
                return Ok(None);
            };
            let whole = u64::try_from(stat.st_size) == Ok(size);
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !whole {
                return Ok(None);
            }
            if keep {
                OwnedFd::from(slots::copy(tmp, &name, slot, || self.reserve.check(tmp, size))?)
            } else {
                // A temporary file that an earlier install prepared may be read-only.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = match rustix::fs::openat(tmp, &name, flags, Mode::empty()) {
                    Err(Errno::ACCESS) => {
                        rustix::fs::chmodat(tmp, &name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
                        rustix::fs::openat(tmp, &name, flags, Mode::empty())?
                    }
                    other => other?,
                };
                rustix::fs::renameat(tmp, &name, tmp, slot)?;
                file
            }
        };
        meta::set_file(&file, meta::file_mode(self.modes, entry.mode), entry.mtime_ns)?;
        Ok(Some(print_of(&rustix::fs::fstat(&file)?)))
    }

    fn stage_link(&self, slot: &str, target: &[u8], entry: &Entry) -> io::Result<Option<Fingerprint>> {
        rustix::fs::symlinkat(target, &self.own.tmp, slot)?;
        meta::set_link(&self.own.tmp, slot.as_bytes(), entry.mtime_ns)?;
        Ok(lstat_at(&self.own.tmp, slot.as_bytes())?.map(|s| print_of(&s)))
    }

    fn stage_dir(&self, slot: &str, entry: &Entry) -> io::Result<Option<Fingerprint>> {
        rustix::fs::mkdirat(&self.own.tmp, slot, Mode::RWXU)?;
        let dir = slots::open_dir(&self.own.tmp, slot.as_bytes())?;
        meta::set_dir(&dir, meta::dir_mode(self.modes, entry.mode))?;
        Ok(Some(print_of(&rustix::fs::fstat(dir)?)))
    }

    /// Makes the slots of a group durable; a job whose slot cannot be goes no further.
    pub(super) fn sync_slots(&self, staged: &mut [Result<Intent, InstallOutcome>]) {
        let mut slots: Vec<&mut Result<Intent, InstallOutcome>> = staged
            .iter_mut()
            .filter(|s| s.as_ref().is_ok_and(|i| i.staged.is_some()))
            .collect();
        if slots.is_empty() {
            return;
        }
        let names: Vec<_> = slots
            .iter()
            .map(|s| s.as_ref().map(|i| i.tx.slot()).unwrap_or_default())
            .collect();
        let mut results = sync_many(&self.root, &names, |name| self.sync_slot(name));
        if let Err(e) = sync(&self.own.tmp, &self.root) {
            results.fill_with(|| Err(e.into()));
        }
        for (slot, result) in slots.iter_mut().zip(results) {
            if let (Ok(intent), Err(e)) = (slot.as_ref(), result) {
                self.unstage(intent);
                **slot = Err(InstallOutcome::Failed(format!(
                    "The disk did not take the file: {e}"
                )));
            }
        }
    }

    fn sync_slot(&self, slot: &str) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.own.tmp, slot, flags, Mode::empty()) {
            Ok(fd) => Ok(sync(fd, &self.root)?),
            // A link has nothing but its name; a file may be unreadable by its new mode.
            Err(Errno::LOOP) => Ok(()),
            Err(Errno::ACCESS) => Ok(rustix::fs::syncfs(self.root.fd())?),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes back a slot that the folder never saw: a file's bytes are verified still and get their name again.
    pub(super) fn unstage(&self, intent: &Intent) {
        if intent.staged.is_none() {
            return;
        }
        let slot = intent.tx.slot();
        let tmp = &self.own.tmp;
        if let Some(Node::File { content, size: 1.. }) = intent.new.as_ref().map(|e| &e.node) {
            let name = content.to_hex();
            if slots::rename_new(tmp, slot.as_bytes(), tmp, name.as_bytes()).is_ok() {
                return;
            }
        }
        if let Err(error) = remove_tmp(tmp, slot.as_bytes()) {
            tracing::debug!(%error, "Cannot remove a temporary file");
        }
    }
}

/// Removes a file, link or empty directory of the temporary directory.
pub(super) fn remove_tmp(tmp: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let flags = match lstat_at(tmp, name)? {
        Some(stat) if is_dir(&stat) => AtFlags::REMOVEDIR,
        Some(_) => AtFlags::empty(),
        None => return Ok(()),
    };
    Ok(rustix::fs::unlinkat(tmp, name, flags)?)
}

/// Of the daemon's own directory only the conflict copies are for installs.
fn check_place(path: &RelPath) -> Result<(), InstallOutcome> {
    let mut parts = path.components().skip(1);
    if path.is_own() && (parts.next() != Some(b"conflicts") || parts.next().is_none()) {
        return Err(InstallOutcome::Failed(
            "This path belongs to the daemon".to_owned(),
        ));
    }
    Ok(())
}
