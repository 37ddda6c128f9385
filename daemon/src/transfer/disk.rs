//! The folder as transfer sees it: user files to read, temporary files to write. Everything is relative to directory
//! descriptors and passes no symbolic link (a user, or a peer's link, must not lead us out of the folder).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use p2p_sync_core::content::{CHUNK_SIZE, ChunkHash, chunk_count, chunk_len, hash_chunk};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::{OWN_DIR, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::OpenFolderError;
use crate::free_space::Reserve;
use crate::root_dir::RootDir;

/// Bytes of a chunk.
pub(super) const CHUNK: usize = CHUNK_SIZE as usize;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Returns `len` zero bytes, at most a chunk.
pub(super) fn zeros(len: usize) -> &'static [u8] {
    &ZEROS[..len.min(CHUNK)]
}

/// Says whether all bytes of at most one chunk are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes == zeros(bytes.len())
}

/// The temporary directory could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("Could not {act} {}", path.display())]
pub(super) struct DiskError {
    pub(super) act: &'static str,
    pub(super) path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}

impl DiskError {
    /// Returns the whole chain as one line.
    pub(super) fn text(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// What a file in the temporary directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TempKind {
    /// `<hash>`: complete and verified.
    Complete,
    /// `<hash>.part`: under way.
    Part,
}

/// Room for a content under way, so that others that come meanwhile do not count on it.
#[derive(Debug)]
pub(super) struct Promise {
    folder: Arc<Folder>,
    left: AtomicU64,
}

impl Promise {
    /// Asks for room for so many bytes.
    pub(super) fn ask(folder: &Arc<Folder>, bytes: u64) -> Result<Self, DiskError> {
        folder.check_room(bytes)?;
        folder.promised.fetch_add(bytes, Ordering::Relaxed);
        Ok(Self {
            folder: Arc::clone(folder),
            left: AtomicU64::new(bytes),
        })
    }

    /// Takes note that so many of the bytes were written.
    pub(super) fn wrote(&self, bytes: u64) {
        let taken = |left: u64| Some(left.saturating_sub(bytes));
        if let Ok(left) = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
        {
            self.folder.promised.fetch_sub(left.min(bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.folder
            .promised
            .fetch_sub(*self.left.get_mut(), Ordering::Relaxed);
    }
}

/// The directories.
#[derive(Debug)]
pub(super) struct Folder {
    root: RootDir,
    tmp: OwnedFd,
    tmp_path: PathBuf,
    reserve: Reserve,
    /// Bytes that contents under way will still take.
    promised: AtomicU64,
}

impl Folder {
    /// Opens the folder and its temporary directory, which is made if it is missing.
    pub(super) fn open(root_path: &Path) -> Result<Self, OpenFolderError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| OpenFolderError { path, source }
        };
        let root = RootDir::open(root_path).map_err(|e| fail(root_path)(e.source))?;
        let tmp_path = root_path.join(std::ffi::OsStr::from_bytes(OWN_DIR)).join("tmp");
        let tmp_name = [OWN_DIR, b"/tmp"].concat();
        for dir in [OWN_DIR, &tmp_name] {
            match rustix::fs::mkdirat(root.fd(), dir, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(fail(&tmp_path)(errno.into())),
            }
        }
        let tmp_name = RelPath::parse(tmp_name).map_err(|e| fail(&tmp_path)(io::Error::other(e)))?;
        let tmp = root.open_dir(Some(&tmp_name)).map_err(fail(&tmp_path))?;
        Ok(Self {
            root,
            tmp,
            tmp_path,
            reserve: Reserve::Bytes(0),
            promised: AtomicU64::new(0),
        })
    }

    /// Has everything written here leave this much free.
    pub(super) fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve, ..self }
    }

    /// Opens a user's regular file for reading and returns it with its size.
    pub(super) fn open_user(&self, path: &RelPath) -> io::Result<(File, u64)> {
        regular(File::from(self.root.open_file(path)?))
    }

    /// Opens a temporary file for reading and writing and returns it with its size.
    pub(super) fn open_temp(&self, content: &ContentHash, kind: TempKind) -> io::Result<(File, u64)> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.tmp, temp_name(content, kind), flags, Mode::empty())?;
        regular(File::from(fd))
    }

    /// Makes a temporary file that does not exist yet.
    pub(super) fn create_temp(&self, content: &ContentHash, kind: TempKind) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(rustix::fs::openat(
            &self.tmp,
            temp_name(content, kind),
            flags,
            mode,
        )?))
    }

    /// Takes a temporary file away; it may be missing.
    pub(super) fn remove_temp(&self, content: &ContentHash, kind: TempKind) -> Result<(), DiskError> {
        match rustix::fs::unlinkat(&self.tmp, temp_name(content, kind), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", content, kind, errno.into())),
        }
    }

    /// Gives a part its final name.
    pub(super) fn complete_part(&self, content: &ContentHash) -> Result<(), DiskError> {
        let (from, to) = (
            temp_name(content, TempKind::Part),
            temp_name(content, TempKind::Complete),
        );
        rustix::fs::renameat(&self.tmp, from, &self.tmp, to)
            .map_err(|errno| self.error("rename", content, TempKind::Part, errno.into()))
    }

    /// Writes a verified content of at most one chunk under its final name. One that is there already is kept if it
    /// is right.
    pub(super) fn store_small(&self, content: &ContentHash, bytes: &[u8]) -> Result<(), DiskError> {
        let fail = |act, source| self.error(act, content, TempKind::Complete, source);
        let mut file = match self.create_temp(content, TempKind::Complete) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if self.holds(content, bytes.len() as u64) {
                    return Ok(());
                }
                self.remove_temp(content, TempKind::Complete)?;
                self.create_temp(content, TempKind::Complete)
                    .map_err(|e| fail("create", e))?
            }
            Err(e) => return Err(fail("create", e)),
        };
        let room = self.reserve.check(&self.tmp, bytes.len() as u64);
        let written = if let Err(no_room) = room {
            Err(no_room)
        } else if is_zero(bytes) {
            file.set_len(bytes.len() as u64)
        } else {
            file.write_all(bytes)
        };
        written.map_err(|e| {
            let _ = self.remove_temp(content, TempKind::Complete);
            fail("write", e)
        })
    }

    /// Says whether the temporary directory holds this content complete; checks every byte.
    pub(super) fn holds(&self, content: &ContentHash, size: u64) -> bool {
        let Ok((mut file, actual)) = self.open_temp(content, TempKind::Complete) else {
            return false;
        };
        actual == size && hash_file(&mut file).is_ok_and(|hash| hash == *content)
    }

    /// Fails if there is no room for so many bytes, beside what contents under way will still take.
    pub(super) fn check_room(&self, needed: u64) -> Result<(), DiskError> {
        let needed = needed.saturating_add(self.promised.load(Ordering::Relaxed));
        self.reserve.check(&self.tmp, needed).map_err(|e| self.full(e))
    }

    /// Fails if the bytes that are written next would not leave enough free.
    pub(super) fn check_write(&self, len: usize) -> Result<(), DiskError> {
        self.reserve
            .check(&self.tmp, len as u64)
            .map_err(|e| self.full(e))
    }

    fn full(&self, source: io::Error) -> DiskError {
        DiskError {
            act: "write to",
            path: self.tmp_path.clone(),
            source,
        }
    }

    /// Describes a failure at a temporary file.
    pub(super) fn error(
        &self,
        act: &'static str,
        content: &ContentHash,
        kind: TempKind,
        source: io::Error,
    ) -> DiskError {
        DiskError {
            act,
            path: self.tmp_path.join(temp_name(content, kind)),
            source,
        }
    }
}

/// Reads one chunk into the start of `buffer` and returns its bytes; `None` if they are not what the hash says.
pub(super) fn read_chunk<'a>(
    file: &File,
    size: u64,
    index: u64,
    expected: &ChunkHash,
    buffer: &'a mut [u8],
) -> io::Result<Option<&'a [u8]>> {
    let len = usize::try_from(chunk_len(size, index)).unwrap_or(CHUNK);
    let bytes = &mut buffer[..len];
    match file.read_exact_at(bytes, index * CHUNK_SIZE) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let bytes = &*bytes;
    Ok((hash_chunk(size, index, bytes) == *expected).then_some(bytes))
}

/// Returns the chunks of a content as a number that fits memory.
pub(super) fn chunks_of(size: u64) -> usize {
    usize::try_from(chunk_count(size)).unwrap_or(usize::MAX)
}

fn hash_file(file: &mut File) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(ContentHash::new(*hasher.finalize().as_bytes()));
        }
        hasher.update(&buffer[..count]);
    }
}

fn temp_name(content: &ContentHash, kind: TempKind) -> String {
    match kind {
        TempKind::Complete => content.to_hex(),
        TempKind::Part => content.to_hex() + ".part",
    }
}

fn regular(file: File) -> io::Result<(File, u64)> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, meta.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_into_what_is_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path())
            .unwrap()
            .with_reserve(Reserve::Bytes(u64::MAX / 2));
        let content = ContentHash::of(b"small");
        for refused in [
            folder.store_small(&content, b"small").unwrap_err(),
            folder.check_room(5).unwrap_err(),
            folder.check_write(5).unwrap_err(),
        ] {
            let text = refused.text();
            assert!(
                text.contains("it needs 5 bytes") && text.contains("min_free"),
                "{text}"
            );
        }
        assert!(!folder.holds(&content, 5) && folder.open_temp(&content, TempKind::Complete).is_err());
    }

    #[test]
    fn room_is_promised_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap().with_reserve(Reserve::Bytes(1)));
        let promised = || folder.promised.load(Ordering::Relaxed);
        let first = Promise::ask(&folder, 4096).unwrap();
        let second = Promise::ask(&folder, 1000).unwrap();
        assert!(Promise::ask(&folder, u64::MAX / 2).is_err());
        first.wrote(96);
        assert_eq!(promised(), 5000);
        // A chunk may be asked for twice.
        second.wrote(900);
        second.wrote(900);
        assert_eq!(promised(), 4000);
        drop(second);
        drop(first);
        assert_eq!(promised(), 0);
    }
}
