//! Modes and times of what is installed.

use std::os::fd::AsFd;

use p2p_sync_core::tree::{Entry, Fingerprint};
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::root_dir::{Modes, is_dir_print};

/// The owner's execute bit.
const OWNER_EXEC: u32 = 0o100;

/// Returns the mode of a file with these permission bits in its entry.
pub(super) const fn file_mode(modes: Modes, mode: u32) -> Mode {
    let bits = match modes {
        Modes::Full => mode & 0o777,
        Modes::Exec if mode & OWNER_EXEC != 0 => 0o770,
        Modes::Exec => 0o660,
    };
    Mode::from_raw_mode(bits)
}

/// Returns the mode of a directory; its owner can always do everything, or the daemon could not work in it.
pub(super) const fn dir_mode(modes: Modes, mode: u32) -> Mode {
    let bits = match modes {
        Modes::Full => mode & 0o777 | 0o700,
        Modes::Exec => 0o2770,
    };
    Mode::from_raw_mode(bits)
}

/// Returns the mode of a file that has mode `old` and whose entry says `mode`.
pub(super) const fn changed_mode(modes: Modes, old: u32, mode: u32) -> Mode {
    let bits = match modes {
        Modes::Full => mode & 0o777,
        Modes::Exec if (old ^ mode) & OWNER_EXEC == 0 => old & 0o777,
        Modes::Exec if mode & OWNER_EXEC != 0 => old & 0o777 | 0o110,
        Modes::Exec => old & 0o777 & !0o111,
    };
    Mode::from_raw_mode(bits)
}

/// Sets mode and times of an open file. What the file system cannot keep or somebody else owns is let be: the scanner
/// repeats such bits from the ledger.
pub(super) fn set_file(fd: impl AsFd, mode: Mode, mtime_ns: i64) -> Result<(), Errno> {
    rustix::fs::fchmod(&fd, mode).or_else(cannot_keep)?;
    rustix::fs::futimens(fd, &times(mtime_ns)).or_else(cannot_keep)
}

/// Sets the times of a link by its name.
pub(super) fn set_link(dir: impl AsFd, name: &[u8], mtime_ns: i64) -> Result<(), Errno> {
    rustix::fs::utimensat(dir, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW).or_else(cannot_keep)
}

/// Sets the mode of an open directory.
pub(super) fn set_dir(fd: impl AsFd, mode: Mode) -> Result<(), Errno> {
    rustix::fs::fchmod(fd, mode).or_else(cannot_keep)
}

fn cannot_keep(e: Errno) -> Result<(), Errno> {
    if matches!(e, Errno::PERM | Errno::NOTSUP | Errno::INVAL) {
        Ok(())
    } else {
        Err(e)
    }
}

fn times(mtime_ns: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(SECOND),
            tv_nsec: mtime_ns.rem_euclid(SECOND),
        },
    }
}

/// Says whether what stands at a path is what was expected there.
pub(super) fn is_expected(expect: Option<&Fingerprint>, now: Option<&Fingerprint>) -> bool {
    match (expect, now) {
        (None, None) => true,
        (Some(expect), Some(now)) if is_dir_print(expect) => expect.mode == now.mode,
        (Some(expect), Some(now)) => expect == now,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Says whether this is the expected entry after a rename, which moves the change time.
pub(super) fn is_moved(expect: &Fingerprint, now: &Fingerprint) -> bool {
    is_expected(
        Some(expect),
        Some(&Fingerprint {
            ctime_ns: expect.ctime_ns,
            ..*now
        }),
    )
}

/// Says whether a file still holds the bytes it held; directories and links are told by their inode.
pub(super) const fn is_untouched(before: &Fingerprint, now: &Fingerprint) -> bool {
    before.ino == now.ino && before.size == now.size && before.mtime_ns == now.mtime_ns
}

/// Returns the print to tell of an entry that was put in place as `staged` and looks like `now`: a mode that its user set
/// since must not pass for the installed one, or nobody would ever publish it.
pub(super) fn as_installed(staged: &Fingerprint, now: Fingerprint) -> Fingerprint {
    if is_untouched(staged, &now) && staged.mode == now.mode {
        now
    } else {
        *staged
    }
}

/// Says whether an entry that had mode `old` has it still, or the one that its new entry asks for; any other is its
/// user's.
pub(super) fn is_mode_of_ours(modes: Modes, entry: &Entry, old: u32, now: u32) -> bool {
    let new = changed_mode(modes, old & 0o777, entry.mode).as_raw_mode();
    now == old || now & 0o777 == new
}

/// Says whether an entry on disk already has the wanted mode and time.
pub(super) fn has_meta(modes: Modes, entry: &Entry, now: &Fingerprint) -> bool {
    let mode = changed_mode(modes, now.mode & 0o777, entry.mode).as_raw_mode();
    now.mode & 0o777 == mode && now.mtime_ns == entry.mtime_ns
}
