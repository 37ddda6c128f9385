//! A content of more than one chunk under way: its part file and which chunks are in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use p2p_sync_core::content::{CHUNK_SIZE, Manifest, hash_chunk};
use rustix::fs::{FallocateFlags, SeekFrom};

use super::ContentIndex;
use super::disk::{CHUNK, DiskError, Folder, Promise, TempKind, chunks_of, is_zero, read_chunk, zeros};

/// Which chunks of a content are had: bit `i % 8` of byte `i / 8` for chunk `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitmap {
    bits: Vec<u8>,
    chunks: usize,
    count: usize,
}

impl Bitmap {
    /// Makes a bitmap with nothing in it.
    pub(super) fn new(chunks: usize) -> Self {
        Self {
            bits: vec![0; chunks.div_ceil(8)],
            chunks,
            count: 0,
        }
    }

    /// Reads what [`as_bytes`](Self::as_bytes) gave; `None` if it is not of a content with so many chunks.
    pub(super) fn from_bytes(bits: &[u8], chunks: usize) -> Option<Self> {
        if bits.len() != chunks.div_ceil(8) {
            return None;
        }
        let mut bitmap = Self::new(chunks);
        (0..chunks)
            .filter(|index| bits[index / 8] & (1 << (index % 8)) != 0)
            .for_each(|index| bitmap.set(index));
        Some(bitmap)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    pub(super) fn has(&self, index: usize) -> bool {
        self.bits
            .get(index / 8)
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    pub(super) fn set(&mut self, index: usize) {
        if index < self.chunks && !self.has(index) {
            self.bits[index / 8] |= 1 << (index % 8);
            self.count += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == self.chunks
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.chunks).filter(|index| !self.has(*index))
    }
}

/// A chunk was not what the manifest says.
#[derive(Debug)]
pub(super) enum ChunkError {
    /// The bytes are wrong.
    Bad,
    /// They could not be written.
    Disk(DiskError),
}

/// An open part file. Chunks are written in any order by several threads.
#[derive(Debug)]
pub(super) struct Part {
    folder: Arc<Folder>,
    manifest: Manifest,
    file: File,
    /// Nothing was in the file when it was opened: what was not written is a hole.
    fresh: bool,
    /// Room for the chunks that are still missing.
    promise: OnceLock<Promise>,
    /// Set when the bitmap in the store is no longer wanted, so that a late save does not bring it back.
    closed: Mutex<bool>,
}

impl Part {
    /// Opens or makes the part file, with its full length, and returns what is in it. Every chunk that the store claims
    /// or that has been written to is checked: a crash may have lost bytes that were written, or the last claims.
    pub(super) fn open(
        folder: &Arc<Folder>,
        index: &dyn ContentIndex,
        manifest: Manifest,
        buffer: &mut [u8],
        cancelled: &AtomicBool,
    ) -> Result<(Self, Bitmap), DiskError> {
        let (content, size) = (manifest.content(), manifest.size());
        let chunks = chunks_of(size);
        let old = folder
            .open_temp(&content, TempKind::Part)
            .ok()
            .filter(|(file, _)| file.set_len(size).is_ok());
        let Some((file, _)) = old else {
            let part = Self::create(folder, manifest)?;
            return Ok((part, Bitmap::new(chunks)));
        };
        let mut claimed = written(&file, size, chunks);
        let saved = index
            .partial(&content)
            .and_then(|bits| Bitmap::from_bytes(&bits, chunks));
        if let Some(saved) = saved {
            (0..chunks)
                .filter(|index| saved.has(*index))
                .for_each(|index| claimed.set(index));
        }
        let part = Self {
            folder: Arc::clone(folder),
            manifest,
            file,
            fresh: false,
            promise: OnceLock::new(),
            closed: Mutex::new(false),
        };
        let have = part.verified(&claimed, buffer, cancelled);
        Ok((part, have))
    }

    fn create(folder: &Arc<Folder>, manifest: Manifest) -> Result<Self, DiskError> {
        let content = manifest.content();
        let fail = |act, source| folder.error(act, &content, TempKind::Part, source);
        folder.remove_temp(&content, TempKind::Part)?;
        let file = folder
            .create_temp(&content, TempKind::Part)
            .map_err(|e| fail("create", e))?;
        file.set_len(manifest.size()).map_err(|e| {
            let _ = folder.remove_temp(&content, TempKind::Part);
            fail("make room in", e)
        })?;
        Ok(Self {
            folder: Arc::clone(folder),
            manifest,
            file,
            fresh: true,
            promise: OnceLock::new(),
            closed: Mutex::new(false),
        })
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns which of these chunks are in the file as the manifest says.
    fn verified(&self, claimed: &Bitmap, buffer: &mut [u8], cancelled: &AtomicBool) -> Bitmap {
        let mut have = Bitmap::new(claimed.chunks);
        for (index, expected) in self.manifest.chunks().iter().enumerate() {
            if cancelled.load(Ordering::Relaxed) {
                break;
            }
            if !claimed.has(index) {
                continue;
            }
            let read = read_chunk(&self.file, self.manifest.size(), index as u64, expected, buffer);
            if matches!(read, Ok(Some(_))) {
                have.set(index);
            }
        }
        have
    }

    /// Takes what is missing from a local file of the same size; returns whether all of that file was as expected.
    /// Shares the file's blocks where the file system can.
    pub(super) fn take_from(
        &mut self,
        source: &File,
        have: &mut Bitmap,
        buffer: &mut [u8],
        cancelled: &AtomicBool,
    ) -> Result<bool, DiskError> {
        if have.is_empty() && rustix::fs::ioctl_ficlone(&self.file, source).is_ok() {
            self.fresh = false;
            let mut claimed = Bitmap::new(have.chunks);
            (0..have.chunks).for_each(|index| claimed.set(index));
            // A source that grew since it was opened would have made the part longer.
            let size = self.manifest.size();
            self.file.set_len(size).map_err(|e| self.fail("cut", e))?;
            *have = self.verified(&claimed, buffer, cancelled);
            return Ok(have.is_full() || cancelled.load(Ordering::Relaxed));
        }
        let missing: Vec<usize> = have.missing().collect();
        let mut clean = true;
        for index in missing {
            if cancelled.load(Ordering::Relaxed) {
                break;
            }
            let expected = &self.manifest.chunks()[index];
            match read_chunk(source, self.manifest.size(), index as u64, expected, buffer) {
                Ok(Some(bytes)) => {
                    self.write(index as u64, bytes)?;
                    have.set(index);
                }
                Ok(None) | Err(_) => clean = false,
            }
        }
        Ok(clean)
    }

    /// Checks a chunk and writes it; zeros become a hole.
    pub(super) fn store(&self, index: u64, bytes: &[u8]) -> Result<(), ChunkError> {
        let expected = usize::try_from(index)
            .ok()
            .and_then(|index| self.manifest.chunks().get(index));
        if expected != Some(&hash_chunk(self.manifest.size(), index, bytes)) {
            return Err(ChunkError::Bad);
        }
        self.write(index, bytes).map_err(ChunkError::Disk)
    }

    /// Gives the complete file its final name and forgets the bitmap.
    pub(super) fn finish(&self, index: &dyn ContentIndex) -> Result<(), DiskError> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        self.folder.complete_part(&self.manifest.content())?;
        *closed = true;
        index.clear_partial(&self.manifest.content());
        Ok(())
    }

    /// Keeps the bitmap, so that the next run goes on from here.
    pub(super) fn save(&self, index: &dyn ContentIndex, have: Vec<u8>) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if !*closed {
            index.set_partial(&self.manifest.content(), have);
        }
    }

    /// Asks for room for what is missing, before anybody is asked for it.
    pub(super) fn reserve_room(&self, have: &Bitmap) -> Result<(), DiskError> {
        let missing = (have.missing().count() as u64).saturating_mul(CHUNK_SIZE);
        let promise = Promise::ask(&self.folder, missing.min(self.manifest.size()))?;
        // Asked for once, before the part is shared.
        let _ = self.promise.set(promise);
        Ok(())
    }

    fn write(&self, index: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let offset = index * CHUNK_SIZE;
        if let Some(promise) = self.promise.get() {
            promise.wrote(bytes.len() as u64);
        }
        if !is_zero(bytes) {
            self.folder.check_write(bytes.len())?;
            return self
                .file
                .write_all_at(bytes, offset)
                .map_err(|e| self.fail("write", e));
        }
        if self.fresh {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.file, flags, offset, bytes.len() as u64).is_ok() {
            return Ok(());
        }
        self.file
            .write_all_at(zeros(bytes.len().min(CHUNK)), offset)
            .map_err(|e| self.fail("write", e))
    }

    fn fail(&self, act: &'static str, source: io::Error) -> DiskError {
        self.folder
            .error(act, &self.manifest.content(), TempKind::Part, source)
    }
}

/// Returns the chunks of a part file that hold anything but a hole; all, where the file system does not tell.
fn written(file: &File, size: u64, chunks: usize) -> Bitmap {
    let mut found = Bitmap::new(chunks);
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => at,
        };
        let chunk = data / CHUNK_SIZE;
        found.set(usize::try_from(chunk).unwrap_or(usize::MAX));
        at = (chunk + 1) * CHUNK_SIZE;
    }
    found
}
