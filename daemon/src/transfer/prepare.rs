//! What is had without asking anybody: complete temporary files, equal files of the folder, parts of a former run.
//! Runs on blocking threads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use p2p_sync_core::content::{CHUNK_SIZE, Manifest, ManifestHasher};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;

use super::ContentIndex;
use super::disk::{CHUNK, DiskError, Folder, TempKind};
use super::part::{Bitmap, Part};

/// What was found of a content.
#[derive(Debug)]
pub(super) enum Found {
    /// All of it, in the temporary directory.
    Complete,
    /// Nothing of a content of at most one chunk.
    Nothing,
    /// A content of more than one chunk whose chunk hashes are not known.
    NoManifest,
    /// A part that lacks chunks.
    Part(Arc<Part>, Bitmap),
    /// The disk failed.
    Disk(String),
}

/// The outcome for one content, and files of the folder that were not what the index says.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) content: ContentHash,
    pub(super) found: Found,
    pub(super) stale: Vec<RelPath>,
}

/// Looks for contents on this device.
pub(super) struct Preparer<'a> {
    pub(super) folder: &'a Arc<Folder>,
    pub(super) index: &'a dyn ContentIndex,
    buffer: Vec<u8>,
    stale: Vec<RelPath>,
}

impl<'a> Preparer<'a> {
    pub(super) fn new(folder: &'a Arc<Folder>, index: &'a dyn ContentIndex) -> Self {
        Self {
            folder,
            index,
            buffer: vec![0; CHUNK],
            stale: Vec::new(),
        }
    }

    /// Gets what can be had of a content; what was had until it is cancelled.
    pub(super) fn prepare(&mut self, content: ContentHash, size: u64, cancelled: &AtomicBool) -> Prepared {
        let found = if size <= CHUNK_SIZE {
            self.small(&content, size)
        } else {
            self.large(&content, size, cancelled)
        };
        Prepared {
            content,
            found: found.unwrap_or_else(|e| Found::Disk(e.text())),
            stale: std::mem::take(&mut self.stale),
        }
    }

    /// Goes on with a content whose manifest was fetched.
    pub(super) fn resume(&mut self, manifest: Manifest, cancelled: &AtomicBool) -> Prepared {
        let content = manifest.content();
        self.index.put_manifest(manifest.clone());
        Prepared {
            content,
            found: self
                .part(manifest, cancelled)
                .unwrap_or_else(|e| Found::Disk(e.text())),
            stale: std::mem::take(&mut self.stale),
        }
    }

    fn small(&mut self, content: &ContentHash, size: u64) -> Result<Found, DiskError> {
        if self.adopt_complete(content, size)? {
            return Ok(Found::Complete);
        }
        if size == 0 && *content == ContentHash::of(b"") {
            self.folder.store_small(content, b"")?;
            return Ok(Found::Complete);
        }
        for (path, _) in self.index.files(content) {
            let bytes = match self.folder.open_user(&path) {
                Ok((file, actual)) if actual == size => read_all(&file, size, &mut self.buffer),
                Ok(_) => None,
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(_) => None,
            };
            match bytes.filter(|bytes| ContentHash::of(bytes) == *content) {
                Some(bytes) => {
                    self.folder.store_small(content, bytes)?;
                    return Ok(Found::Complete);
                }
                None => self.stale.push(path),
            }
        }
        if let Found::Complete = self.small_from_kept(content, size)? {
            return Ok(Found::Complete);
        }
        self.folder.check_room(size)?;
        Ok(Found::Nothing)
    }

    /// Looks among what was replaced; what is not there any more, or was written to, is no reason to scan.
    fn small_from_kept(&mut self, content: &ContentHash, size: u64) -> Result<Found, DiskError> {
        for path in self.index.kept(content) {
            let opened = self
                .folder
                .open_user(&path)
                .ok()
                .filter(|(_, actual)| *actual == size);
            let bytes = opened.and_then(|(file, _)| read_all(&file, size, &mut self.buffer));
            if let Some(bytes) = bytes.filter(|bytes| ContentHash::of(bytes) == *content) {
                self.folder.store_small(content, bytes)?;
                return Ok(Found::Complete);
            }
        }
        Ok(Found::Nothing)
    }

    fn large(
        &mut self,
        content: &ContentHash,
        size: u64,
        cancelled: &AtomicBool,
    ) -> Result<Found, DiskError> {
        if self.adopt_complete(content, size)? {
            return Ok(Found::Complete);
        }
        let known = self.index.manifest(content).filter(|known| known.size() == size);
        let manifest = match known {
            Some(manifest) => Some(manifest),
            None => self.manifest_from_file(content, size, cancelled),
        };
        match manifest {
            Some(manifest) => self.part(manifest, cancelled),
            None => Ok(Found::NoManifest),
        }
    }

    /// Says whether the content is complete under its final name; takes a wrong one away.
    fn adopt_complete(&self, content: &ContentHash, size: u64) -> Result<bool, DiskError> {
        match self.folder.open_temp(content, TempKind::Complete) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            _ if self.folder.holds(content, size) => Ok(true),
            _ => {
                self.folder.remove_temp(content, TempKind::Complete)?;
                Ok(false)
            }
        }
    }

    /// Hashes an equal file of the folder whose manifest the store does not have.
    fn manifest_from_file(
        &mut self,
        content: &ContentHash,
        size: u64,
        cancelled: &AtomicBool,
    ) -> Option<Manifest> {
        for (path, _) in self.index.files(content) {
            let hashed = match self.folder.open_user(&path) {
                Ok((file, actual)) if actual == size => self.hash(&file, size, cancelled),
                _ => None,
            };
            if cancelled.load(Ordering::Relaxed) {
                return None;
            }
            match hashed.filter(|manifest| manifest.content() == *content && manifest.size() == size) {
                Some(manifest) => {
                    self.index.put_manifest(manifest.clone());
                    return Some(manifest);
                }
                None => self.stale.push(path),
            }
        }
        self.manifest_from_kept(content, size, cancelled)
    }

    fn manifest_from_kept(
        &mut self,
        content: &ContentHash,
        size: u64,
        cancelled: &AtomicBool,
    ) -> Option<Manifest> {
        for path in self.index.kept(content) {
            let opened = self
                .folder
                .open_user(&path)
                .ok()
                .filter(|(_, actual)| *actual == size);
            let hashed = opened.and_then(|(file, _)| self.hash(&file, size, cancelled));
            if let Some(manifest) = hashed.filter(|m| m.content() == *content && m.size() == size) {
                self.index.put_manifest(manifest.clone());
                return Some(manifest);
            }
        }
        None
    }

    fn hash(&mut self, file: &File, size: u64, cancelled: &AtomicBool) -> Option<Manifest> {
        let mut hasher = ManifestHasher::new();
        let mut offset = 0;
        while offset < size && !cancelled.load(Ordering::Relaxed) {
            let len = usize::try_from((size - offset).min(CHUNK_SIZE)).ok()?;
            let bytes = &mut self.buffer[..len];
            file.read_exact_at(bytes, offset).ok()?;
            hasher.update(bytes);
            offset += len as u64;
        }
        Some(hasher.finish())
    }

    fn part(&mut self, manifest: Manifest, cancelled: &AtomicBool) -> Result<Found, DiskError> {
        let (content, size) = (manifest.content(), manifest.size());
        let (mut part, mut have) =
            Part::open(self.folder, self.index, manifest, &mut self.buffer, cancelled)?;
        for (path, _) in self.index.files(&content) {
            if have.is_full() || cancelled.load(Ordering::Relaxed) {
                break;
            }
            let clean = match self.folder.open_user(&path) {
                Ok((file, actual)) if actual == size => {
                    part.take_from(&file, &mut have, &mut self.buffer, cancelled)?
                }
                Ok(_) => false,
                Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
            };
            if !clean {
                self.stale.push(path);
            }
        }
        let kept = if have.is_full() {
            Vec::new()
        } else {
            self.index.kept(&content)
        };
        for path in kept {
            if let Ok((file, actual)) = self.folder.open_user(&path)
                && actual == size
                && !have.is_full()
                && !cancelled.load(Ordering::Relaxed)
            {
                part.take_from(&file, &mut have, &mut self.buffer, cancelled)?;
            }
        }
        if have.is_full() {
            part.finish(self.index)?;
            return Ok(Found::Complete);
        }
        part.save(self.index, have.as_bytes().to_vec());
        part.reserve_room(&have)?;
        Ok(Found::Part(Arc::new(part), have))
    }
}

fn read_all<'a>(file: &File, size: u64, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let bytes = buffer.get_mut(..usize::try_from(size).ok()?)?;
    file.read_exact_at(bytes, 0).ok()?;
    Some(bytes)
}
