//! Reading and hashing files that must not change meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use p2p_sync_core::content::{Manifest, ManifestHasher};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Fingerprint;
use rustix::fs::FileType;

use crate::root_dir::{RootDir, print_of};

/// Threads that hash at the same time; more would take the machine from its user.
const HASH_THREADS: usize = 2;
/// Bytes read at once: one chunk, so that the hasher sees whole ones.
const BUFFER: usize = 1 << 20;
/// A file changed less than this ago may change again without its times showing it: twice the coarsest tick of a
/// kernel clock (100 Hz).
const RACY_NS: u64 = 20_000_000;

/// What came of hashing one file.
#[derive(Debug)]
pub(super) enum Hashed {
    /// Its manifest, and its print; the change time of the print is 0, which no file has, if the file is so fresh that
    /// a later change could hide: the next look finds it changed and hashes it again.
    Stable(Manifest, Fingerprint),
    /// It changed, or went, while it was read.
    Unstable,
    /// Stopped by the caller.
    Stopped,
    /// It cannot be read.
    Failed(io::Error),
}

/// Hashes files; the result of each is at its index.
pub(super) fn hash_all(root: &RootDir, paths: &[&RelPath], stop: &AtomicBool) -> Vec<Hashed> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(at) else { break };
            let hashed = hash_one(root, path, stop, &mut buffer);
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(at, hashed);
        }
    };
    if paths.len() < 2 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 1..HASH_THREADS {
                scope.spawn(work);
            }
            work();
        });
    }
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    (0..paths.len())
        .map(|at| results.remove(&at).unwrap_or(Hashed::Unstable))
        .collect()
}

fn hash_one(root: &RootDir, path: &RelPath, stop: &AtomicBool, buffer: &mut Vec<u8>) -> Hashed {
    match read_stable(root, path, stop, buffer) {
        Ok(hashed) => hashed,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Hashed::Unstable
        }
        Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::LOOP) => Hashed::Unstable,
        Err(e) => Hashed::Failed(e),
    }
}

fn read_stable(
    root: &RootDir,
    path: &RelPath,
    stop: &AtomicBool,
    buffer: &mut Vec<u8>,
) -> io::Result<Hashed> {
    let mut file = File::from(root.open_file(path)?);
    let looked_at = now_ns();
    let before = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Ok(Hashed::Unstable);
    }
    let before = print_of(&before);
    let mut hasher = ManifestHasher::new();
    let room = usize::try_from(before.size)
        .unwrap_or(BUFFER)
        .saturating_add(1)
        .min(BUFFER);
    if buffer.len() < room {
        buffer.resize(room, 0);
    }
    let mut size = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(Hashed::Stopped);
        }
        let filled = fill(&mut file, buffer)?;
        hasher.update(&buffer[..filled]);
        size += filled as u64;
        if filled < buffer.len() || size > before.size {
            break;
        }
    }
    let named = root.lstat(path)?.map(|s| print_of(&s));
    if named != Some(before) || size != before.size {
        return Ok(Hashed::Unstable);
    }
    // A time in the future is no clock's: a write would change it.
    let racy = before.mtime_ns.abs_diff(looked_at) < RACY_NS;
    let print = if racy {
        Fingerprint {
            ctime_ns: 0,
            ..before
        }
    } else {
        before
    };
    Ok(Hashed::Stable(hasher.finish(), print))
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Returns the wall clock, which file times come from too.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
