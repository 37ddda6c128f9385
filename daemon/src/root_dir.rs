//! The synced folder as a directory descriptor: every access of worktree, scanner and journal to a path of the folder
//! goes through here, so that no symbolic link is ever followed and nothing outside the folder is ever touched.
//!
//! A [`RelPath`] may have 4096 bytes, one more than the kernel takes at once, and `openat2` may be missing (a seccomp
//! filter): long paths are walked in pieces, and without `openat2` component by component with `O_NOFOLLOW`. A file
//! system that is mounted inside the folder is not entered: nothing can be moved into it by a rename.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use p2p_sync_core::rel_path::{OWN_DIR, RelPath};
use p2p_sync_core::tree::Fingerprint;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Bytes handed to the kernel in one `openat2`; below its `PATH_MAX` of 4096 with the closing NUL.
const PIECE_MAX: usize = 2048;
/// Times an `openat2` is tried again while renames elsewhere make it unsure (EAGAIN).
const RESOLVE_TRIES: u32 = 64;
/// `S_IFMT | 0o777`: the part of `st_mode` that a fingerprint keeps.
const KIND_AND_BITS: u32 = 0o170_777;
/// Name of the file that says which folder this is.
pub const ROOT_ID: &str = "root-id";
/// Bytes of the root id as text.
pub const ROOT_ID_LEN: usize = 64;

/// Which permission bits this device keeps in step with the group (`[folder] modes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// All of 0o777; the folder is one user's.
    Full,
    /// Only the owner's execute bit; the rest is the folder's own (0660, 0770, 2770), whose files other users share.
    Exec,
}

/// A file operation that failed, with its path.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} {}", path.display())]
pub struct PathError {
    /// What was tried, a verb.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// Makes the closure that `map_err` wants.
    pub fn of<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        move |source| Self {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}

/// The folder, held open.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
    path: PathBuf,
    dev: u64,
    ino: u64,
}

impl RootDir {
    /// Opens the folder at `path` (which may be reached through links).
    ///
    /// # Errors
    /// [`PathError`] if it is not a directory that can be read.
    pub fn open(path: &Path) -> Result<Self, PathError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(PathError::of("open", path))?;
        let stat = rustix::fs::fstat(&fd).map_err(PathError::of("stat", path))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    /// Returns the path the folder was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the descriptor of the folder itself.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Returns a path below the folder, for messages.
    #[must_use]
    pub fn full(&self, rel: &RelPath) -> PathBuf {
        self.path.join(OsStr::from_bytes(rel.as_bytes()))
    }

    /// Says whether a directory lies on the folder's own file system.
    #[must_use]
    pub fn same_device(&self, stat: &Stat) -> bool {
        stat.st_dev == self.dev
    }

    /// Opens a directory of the folder; `None` is the folder itself.
    ///
    /// # Errors
    /// As `openat2`: ELOOP for a link on the way, EXDEV for another file system.
    pub fn open_dir(&self, dir: Option<&RelPath>) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match dir {
            Some(dir) => self.open_at(dir, flags),
            None => {
                let flags = flags | OFlags::CLOEXEC;
                Ok(rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?)
            }
        }
    }

    /// Opens the directory that `path` lies in.
    ///
    /// # Errors
    /// As [`open_dir`](Self::open_dir).
    pub fn open_parent(&self, path: &RelPath) -> io::Result<OwnedFd> {
        self.open_dir(path.parent().as_ref())
    }

    /// Opens a file for reading; never blocks on a fifo and never follows a link.
    ///
    /// # Errors
    /// As `openat2`.
    pub fn open_file(&self, path: &RelPath) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Returns what stands at a path. `None` is proof: either the parent is there and holds no such name, or a
    /// component above is absent or no directory by its own `lstat`.
    ///
    /// # Errors
    /// Whatever keeps that from being proven (EACCES, EIO, ...).
    pub fn lstat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        let mut failure = match self.open_parent(path) {
            Ok(dir) => return lstat_at(&dir, path.file_name()),
            Err(e) if is_broken_path(&e) => e,
            Err(e) => return Err(e),
        };
        for above in path.ancestors() {
            match self.open_parent(&above) {
                Ok(dir) => {
                    return match lstat_at(&dir, above.file_name())? {
                        Some(stat) if is_dir(&stat) => Err(failure),
                        Some(_) | None => Ok(None),
                    };
                }
                Err(e) if is_broken_path(&e) => failure = e,
                Err(e) => return Err(e),
            }
        }
        Err(failure)
    }

    /// Reads the root id.
    ///
    /// # Errors
    /// [`PathError`] if it is missing or not 64 characters.
    pub fn read_root_id(&self) -> Result<String, PathError> {
        let path = self.path.join(OsStr::from_bytes(OWN_DIR)).join(ROOT_ID);
        let text = self.read_id_text().map_err(PathError::of("read", &path))?;
        if text.len() == ROOT_ID_LEN {
            return Ok(text);
        }
        let source = io::Error::new(io::ErrorKind::InvalidData, "It does not hold a root id");
        Err(PathError {
            action: "use",
            path,
            source,
        })
    }

    fn read_id_text(&self) -> io::Result<String> {
        let mut path = OWN_DIR.to_vec();
        path.push(b'/');
        path.extend_from_slice(ROOT_ID.as_bytes());
        let path = RelPath::parse(path).map_err(io::Error::other)?;
        let file = std::fs::File::from(self.open_file(&path)?);
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, ROOT_ID_LEN as u64 + 2), &mut text)?;
        Ok(text.trim_end().to_owned())
    }

    /// Says whether the folder is still the one named by `root_id` and still lies at the path it was opened by: false
    /// after an unmount, a move of the folder, or a restore over it. Nothing may be called deleted then.
    ///
    /// # Errors
    /// If it cannot be looked at for want of descriptors or memory, which says nothing about the folder.
    pub fn is_root(&self, root_id: &str) -> Result<bool, PathError> {
        let here = rustix::fs::stat(&self.path).is_ok_and(|s| s.st_dev == self.dev && s.st_ino == self.ino);
        match self.read_root_id() {
            Ok(id) => Ok(here && id == root_id),
            Err(error) if here && is_want(&error.source) => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn open_at(&self, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut rest = path.as_bytes();
        let mut at: Option<OwnedFd> = None;
        while rest.len() > PIECE_MAX {
            let cut = rest[..PIECE_MAX].iter().rposition(|b| *b == b'/');
            let Some(cut) = cut else {
                return Err(Errno::NAMETOOLONG.into());
            };
            let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            at = Some(open_piece(at.as_ref().unwrap_or(&self.fd), &rest[..cut], dir)?);
            rest = &rest[cut + 1..];
        }
        open_piece(at.as_ref().unwrap_or(&self.fd), rest, flags)
    }
}

/// Says whether an operation failed because the process or the machine has too little of something.
fn is_want(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

fn open_piece(dir: &OwnedFd, piece: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    for _ in 0..RESOLVE_TRIES {
        match rustix::fs::openat2(dir, piece, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => return open_by_component(dir, piece, flags),
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

fn open_by_component(dir: &OwnedFd, piece: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut names = piece.split(|b| *b == b'/').peekable();
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() {
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
        } else {
            flags
        };
        at = Some(rustix::fs::openat(
            at.as_ref().unwrap_or(dir),
            name,
            flags,
            Mode::empty(),
        )?);
    }
    at.ok_or_else(|| Errno::INVAL.into())
}

/// Returns what stands at a name of an open directory; `None`: nothing.
///
/// # Errors
/// As `fstatat`, ENOENT excepted.
pub fn lstat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Says whether this is a directory.
#[must_use]
pub fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Says whether a fingerprint is a directory's.
#[must_use]
pub fn is_dir_print(print: &Fingerprint) -> bool {
    FileType::from_raw_mode(print.mode) == FileType::Directory
}

/// Returns the fingerprint of what `lstat` said.
#[must_use]
pub fn print_of(stat: &Stat) -> Fingerprint {
    let mode = stat.st_mode & KIND_AND_BITS;
    if is_dir(stat) {
        return Fingerprint {
            ino: stat.st_ino,
            mode,
            ..Fingerprint::default()
        };
    }
    Fingerprint {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec),
        mode,
    }
}

fn nanos(secs: i64, nanos: impl TryInto<i64>) -> i64 {
    secs.saturating_mul(1_000_000_000)
        .saturating_add(nanos.try_into().unwrap_or(0))
}

/// Says whether an error means that a component of the path is absent or not a directory.
fn is_broken_path(e: &io::Error) -> bool {
    let errno = Errno::from_io_error(e);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    #[test]
    fn no_link_is_followed_and_nothing_outside_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        assert!(root.open_dir(Some(&rel("link"))).is_err());
        assert!(root.open_file(&rel("link/secret")).is_err());
        assert!(root.lstat(&rel("link/secret")).unwrap().is_none());
        let fd = open_by_component(root.fd(), b"link/secret", OFlags::RDONLY | OFlags::NOFOLLOW);
        assert!(fd.is_err());
    }

    #[test]
    fn absence_is_proven_through_missing_and_replaced_parents() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        for absent in ["a", "a/b/c", "file/x", "file/x/y"] {
            assert!(root.lstat(&rel(absent)).unwrap().is_none(), "{absent}");
        }
        assert!(root.lstat(&rel("file")).unwrap().is_some());
    }

    #[test]
    fn the_longest_path_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let mut path: Option<RelPath> = None;
        let name = [b'n'; 255];
        loop {
            let at = root.open_dir(path.as_ref()).unwrap();
            let next = match &path {
                Some(p) => p.join(&name),
                None => RelPath::parse(name.to_vec()),
            };
            let Ok(next) = next else { break };
            rustix::fs::mkdirat(&at, &name[..], Mode::RWXU).unwrap();
            path = Some(next);
        }
        let path = path.unwrap();
        assert!(path.as_bytes().len() > 4000);
        assert!(root.lstat(&path).unwrap().is_some_and(|s| is_dir(&s)));
    }
}
