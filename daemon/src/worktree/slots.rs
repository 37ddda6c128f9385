//! The daemon's own directories in the folder: `tmp` (verified contents, slots of installs), `versions` (what installs
//! replaced), `conflicts` (conflict copies that may not stand beside their path).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use p2p_sync_core::rel_path::OWN_DIR;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use super::kept::{Kept, versions_path};
use crate::root_dir::{PathError, ROOT_ID, ROOT_ID_LEN, RootDir, lstat_at};

/// The daemon's own directories, held open.
#[derive(Debug)]
pub(super) struct OwnDirs {
    pub(super) tmp: OwnedFd,
    pub(super) kept: Arc<Kept>,
}

impl OwnDirs {
    /// Opens them, making those that are missing, and the root id.
    pub(super) fn open(root: &RootDir) -> Result<Self, PathError> {
        let own_path = root.path().join(std::ffi::OsStr::from_bytes(OWN_DIR));
        let own = make_dir(root.fd(), OWN_DIR).map_err(PathError::of("make", &own_path))?;
        let make =
            |name: &str| make_dir(&own, name.as_bytes()).map_err(PathError::of("make", own_path.join(name)));
        let versions = make("versions")?;
        let versions_path = versions_path(root.path());
        let kept =
            Kept::open(versions_path.clone(), versions).map_err(PathError::of("read", versions_path))?;
        let dirs = Self {
            tmp: make("tmp")?,
            kept: Arc::new(kept),
        };
        make("conflicts")?;
        make_root_id(&own).map_err(PathError::of("write", own_path.join(ROOT_ID)))?;
        rustix::fs::fsync(root.fd())
            .or_else(not_supported)
            .map_err(PathError::of("sync", root.path()))?;
        Ok(dirs)
    }
}

/// Returns the names in a directory, without `.` and `..`.
pub(super) fn names(dir: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Opens a directory by one name, never through a link.
pub(super) fn open_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Makes a directory of the user's. It has its mode at once, or the scan after a crash would take another one for the
/// user's wish; for that the daemon runs with an empty umask. What bits `mkdir` cannot set are left to the caller.
pub(super) fn new_dir(dir: impl AsFd, name: &[u8], mode: Mode) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, mode)
}

/// Makes a directory of the daemon's, if it is missing, and opens it.
pub(super) fn make_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open_dir(dir, name),
        Err(e) => Err(e.into()),
    }
}

fn make_root_id(own: &OwnedFd) -> io::Result<()> {
    if lstat_at(own, ROOT_ID.as_bytes())?.is_some() {
        return Ok(());
    }
    let mut id = [0; ROOT_ID_LEN / 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let text = data_encoding::HEXLOWER.encode(&id) + "\n";
    let new = "root-id.new";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(own, new, flags, Mode::RUSR | Mode::WUSR)?);
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    rustix::fs::renameat(own, new, own, ROOT_ID)?;
    rustix::fs::fsync(own).or_else(not_supported)?;
    Ok(())
}

/// Turns the answers of file systems that lack an operation into success.
pub(super) fn not_supported(e: Errno) -> Result<(), Errno> {
    if matches!(e, Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) {
        Ok(())
    } else {
        Err(e)
    }
}

/// Renames without ever replacing; where the file system cannot, links and unlinks.
pub(super) fn rename_new(from: impl AsFd, old: &[u8], to: impl AsFd, new: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::linkat(&from, old, to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(from, old, AtFlags::empty())
        }
        other => other,
    }
}

/// Copies a file of `tmp` to a new name there: shares its blocks where the file system can, else asks for `room`
/// and keeps its holes.
pub(super) fn copy(
    tmp: &OwnedFd,
    from: &str,
    to: &str,
    room: impl FnOnce() -> io::Result<()>,
) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = File::from(rustix::fs::openat(tmp, from, flags, Mode::empty())?);
    let to = create(tmp, to)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        room()?;
        copy_data(&from, &to)?;
    }
    Ok(to)
}

fn copy_data(from: &File, mut to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // This file system cannot tell.
            Err(Errno::INVAL | Errno::NOTSUP) => at,
            Err(e) => return Err(e.into()),
        };
        at = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size);
        rustix::fs::seek(from, SeekFrom::Start(start))?;
        rustix::fs::seek(to, SeekFrom::Start(start))?;
        io::copy(&mut io::Read::take(from, at - start), &mut to)?;
    }
    to.set_len(size)
}

/// Makes a new empty file in `tmp`.
pub(super) fn create(tmp: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        tmp,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?))
}

/// Returns the UTC day as `yyyymmdd`.
pub(super) fn day_name(now: SystemTime) -> String {
    let (y, m, d, _) = civil(now);
    format!("{y:04}{m:02}{d:02}")
}

/// Returns the UTC time as `yyyymmdd-hhmmss`.
pub(super) fn stamp(now: SystemTime) -> String {
    let (y, m, d, s) = civil(now);
    format!(
        "{y:04}{m:02}{d:02}-{:02}{:02}{:02}",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

/// Year, month, day and second of the day; Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(now: SystemTime) -> (u64, u64, u64, u64) {
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let days = secs / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (
        year + era * 400 + u64::from(month <= 2),
        month,
        day,
        secs % 86_400,
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let tmp = OwnedFd::from(File::open(dir.path()).unwrap());
        let size = 64 << 20;
        let from = create(&tmp, "from").unwrap();
        from.set_len(size).unwrap();
        for at in [5 << 20, 40 << 20] {
            from.write_all_at(b"data", at).unwrap();
        }
        let copied = copy(&tmp, "from", "to", || Ok(())).unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert!(read("from") == read("to"));
        let blocks = |file: &File| file.metadata().unwrap().blocks();
        assert!(blocks(&copied) <= blocks(&from), "{}", blocks(&copied));
    }

    #[test]
    fn a_new_directory_has_its_mode_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let parent = File::open(dir.path()).unwrap();
        for mode in [0o700, 0o750, 0o755] {
            let name = format!("{mode:o}");
            new_dir(&parent, name.as_bytes(), Mode::from_raw_mode(mode)).unwrap();
            let made = std::fs::metadata(dir.path().join(&name)).unwrap().mode();
            assert_eq!(made & 0o777, mode);
        }
    }

    #[test]
    fn days_are_named_by_the_calendar() {
        for (secs, day) in [
            (0, "19700101-000000"),
            (951_782_400, "20000229-000000"),
            (1_795_355_999, "20261122-135959"),
            (4_107_542_399, "21000228-235959"),
        ] {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(secs)), day);
        }
    }
}
