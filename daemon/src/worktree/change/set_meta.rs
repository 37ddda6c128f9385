//! Mode and time of what stands at a path, and of nothing else.

use std::os::fd::AsFd;

use p2p_sync_core::engine::InstallOutcome;
use p2p_sync_core::tree::{Entry, Fingerprint, Node};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{CHANGED, Spot, Stop};
use crate::journal::Intent;
use crate::root_dir::print_of;
use crate::worktree::session::{Missing, Session};
use crate::worktree::{Effect, Step, Worktree, meta};

impl Worktree {
    pub(super) fn set_meta(
        &self,
        intent: &Intent,
        entry: &Entry,
        session: &mut Session<'_>,
    ) -> Result<Effect, Stop> {
        let Ok(dir) = session.parent(&intent.path, Missing::Fail) else {
            return Err(CHANGED);
        };
        let spot = Spot {
            dir,
            path: &intent.path,
        };
        let Some(now) = spot.print().map_err(Stop::io("look at the path"))? else {
            return Err(CHANGED);
        };
        if !meta::is_expected(intent.expect.as_ref(), Some(&now)) {
            return Err(CHANGED);
        }
        self.at(Step::Checked, &intent.path);
        let print = match set_entry_meta(self, &spot, entry, &now) {
            Ok(print) => print,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::STALE) => return Err(CHANGED),
            Err(e) => return Err(Stop::Io("set mode and time", e.into())),
        };
        session.touch_itself(&intent.path);
        Ok(Effect::of(InstallOutcome::Done(Some(print))))
    }
}

/// Sets mode and time of what stands at a spot, through a descriptor so that nothing else is hit, and returns its print
/// afterwards, which is that of the same inode whatever stands at the spot by then.
///
/// # Errors
/// [`Errno::STALE`] if it is not `expect` (but for the change time) any more: its user changed it.
pub(in crate::worktree) fn set_entry_meta(
    worktree: &Worktree,
    spot: &Spot<'_>,
    entry: &Entry,
    expect: &Fingerprint,
) -> Result<Fingerprint, Errno> {
    #[cfg(test)]
    if worktree.refuses_meta {
        return Err(Errno::IO);
    }
    match &entry.node {
        Node::Link { .. } => {
            meta::set_link(&spot.dir, spot.name(), entry.mtime_ns)?;
            let stat = rustix::fs::statat(&spot.dir, spot.name(), AtFlags::SYMLINK_NOFOLLOW)?;
            same_inode(expect, print_of(&stat))
        }
        Node::Dir => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(&spot.dir, spot.name(), flags, Mode::empty())?;
            same_inode(expect, print_of(&rustix::fs::fstat(&dir)?))?;
            meta::set_dir(&dir, meta::dir_mode(worktree.modes, entry.mode))?;
            Ok(print_of(&rustix::fs::fstat(&dir)?))
        }
        Node::File { .. } => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::openat(&spot.dir, spot.name(), flags, Mode::empty()) {
                Ok(file) => set_open_file(worktree, file, entry, expect),
                Err(Errno::ACCESS) => set_unreadable(worktree, spot, entry, expect),
                Err(e) => Err(e),
            }
        }
    }
}

fn same_inode(expect: &Fingerprint, now: Fingerprint) -> Result<Fingerprint, Errno> {
    if now.ino == expect.ino {
        Ok(now)
    } else {
        Err(Errno::STALE)
    }
}

fn set_open_file(
    worktree: &Worktree,
    file: impl AsFd,
    entry: &Entry,
    expect: &Fingerprint,
) -> Result<Fingerprint, Errno> {
    let stat = rustix::fs::fstat(&file)?;
    if !meta::is_moved(expect, &print_of(&stat)) {
        return Err(Errno::STALE);
    }
    let mode = meta::changed_mode(worktree.modes, stat.st_mode, entry.mode);
    meta::set_file(&file, mode, entry.mtime_ns)?;
    Ok(print_of(&rustix::fs::fstat(&file)?))
}

/// A file that its owner may not read is made readable for the instant in which it is opened.
fn set_unreadable(
    worktree: &Worktree,
    spot: &Spot<'_>,
    entry: &Entry,
    expect: &Fingerprint,
) -> Result<Fingerprint, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = rustix::fs::openat(&spot.dir, spot.name(), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&pinned)?;
    if !meta::is_moved(expect, &print_of(&stat)) {
        return Err(Errno::STALE);
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pinned));
    rustix::fs::chmod(&link, mode | Mode::RUSR)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(&link, flags, Mode::empty())?;
    let mode = meta::changed_mode(worktree.modes, mode.as_raw_mode(), entry.mode);
    meta::set_file(&file, mode, entry.mtime_ns)?;
    Ok(print_of(&rustix::fs::fstat(&file)?))
}
