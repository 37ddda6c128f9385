//! Reads, checks and frames answers; runs on blocking threads.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use p2p_sync_core::content::{ChunkHash, Manifest};
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;

use crate::transfer::ContentIndex;
use crate::transfer::disk::{Folder, TempKind, is_zero, read_chunk};
use crate::transfer::pool::Buffer;
use crate::transfer::wire::{Answer, HEADER_LEN, Request, Want};

/// Chunk hashes kept in memory for all streams: 2 Mi of 32 bytes, the manifests of 2 TiB. One larger manifest is kept
/// alone.
const MAX_CACHED_HASHES: usize = 2 << 20;
/// Manifests kept in memory.
const MAX_CACHED_MANIFESTS: usize = 256;
/// Files of more than one chunk that a stream keeps open between requests; a fetcher has fewer under way.
const MAX_OPEN_FILES: usize = 16;

/// What all streams serve from.
pub(super) struct Source {
    folder: Folder,
    index: Arc<dyn ContentIndex>,
    on_stale: Arc<dyn Fn(RelPath) + Send + Sync>,
    /// Most recently used last.
    manifests: Mutex<Vec<Arc<Manifest>>>,
}

impl Source {
    pub(super) fn new(
        folder: Folder,
        index: Arc<dyn ContentIndex>,
        on_stale: Arc<dyn Fn(RelPath) + Send + Sync>,
    ) -> Self {
        Self {
            folder,
            index,
            on_stale,
            manifests: Mutex::new(Vec::new()),
        }
    }

    fn manifest(&self, content: &ContentHash) -> Option<Arc<Manifest>> {
        let lock = || self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut cache = lock();
            if let Some(at) = cache.iter().position(|known| known.content() == *content) {
                let manifest = cache.remove(at);
                cache.push(Arc::clone(&manifest));
                return Some(manifest);
            }
        }
        let manifest = Arc::new(self.index.manifest(content)?);
        let mut cache = lock();
        cache.push(Arc::clone(&manifest));
        let mut hashes: usize = cache.iter().map(|known| known.chunks().len()).sum();
        while cache.len() > 1 && (hashes > MAX_CACHED_HASHES || cache.len() > MAX_CACHED_MANIFESTS) {
            hashes -= cache.remove(0).chunks().len();
        }
        Some(manifest)
    }

    /// Returns the files that should hold this content, each looked up only when those before were no good. After the
    /// folder's files come the temporary directory, which holds contents that are fetched and not installed yet and
    /// chunks of those under way, and what was replaced and is kept.
    fn candidates(self: &Arc<Self>, content: &ContentHash) -> impl Iterator<Item = Place> + use<> {
        let files = self.index.files(content).into_iter();
        let (source, content) = (Arc::clone(self), *content);
        files
            .map(|(path, _)| Place::User(path))
            .chain([Place::Temp(TempKind::Complete), Place::Temp(TempKind::Part)])
            .chain(
                std::iter::once_with(move || source.index.kept(&content))
                    .flatten()
                    .map(Place::Kept),
            )
    }

    /// Opens a file that should hold this content; says so if it cannot.
    fn open(&self, place: &Place, content: &ContentHash, size: u64) -> Option<File> {
        let opened = match place {
            Place::User(path) | Place::Kept(path) => self.folder.open_user(path),
            Place::Temp(kind) => self.folder.open_temp(content, *kind),
        };
        match opened {
            Ok((file, actual)) if actual == size => Some(file),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
            Ok(_) | Err(_) => {
                self.tell_stale(place);
                None
            }
        }
    }

    fn tell_stale(&self, place: &Place) {
        match place {
            Place::User(path) => (self.on_stale)(path.clone()),
            Place::Temp(_) | Place::Kept(_) => {}
        }
    }
}

/// Where a content may be.
#[derive(Debug, Clone)]
enum Place {
    User(RelPath),
    Temp(TempKind),
    Kept(RelPath),
}

/// Answers one stream's requests.
pub(super) struct Answerer {
    source: Arc<Source>,
    /// Most recently used last.
    open: Vec<OpenFile>,
}

struct OpenFile {
    content: ContentHash,
    place: Place,
    file: File,
}

impl Answerer {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            open: Vec::new(),
        }
    }

    /// Closes the files kept open for further chunks.
    pub(super) fn close_files(&mut self) {
        self.open.clear();
    }

    /// Answers requests from the front of the queue, as many as fit the buffer; at least one if the buffer is empty.
    pub(super) fn fill(&mut self, queue: &mut VecDeque<Request>, buffer: &mut Buffer) {
        while let Some(request) = queue.front().copied() {
            if buffer.room() < HEADER_LEN + request.payload_len() {
                break;
            }
            queue.pop_front();
            let answer = self.answer(&request, &mut buffer.spare()[HEADER_LEN..]);
            let (count, payload) = match answer {
                Answer::Data | Answer::Page => (request.expected_count(), request.payload_len()),
                Answer::Zero => (request.expected_count(), 0),
                Answer::NotFound => (0, 0),
            };
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            buffer.spare()[..HEADER_LEN].copy_from_slice(&answer.header(count));
            buffer.advance(HEADER_LEN + payload);
        }
    }

    /// Puts the payload of the answer to the start of `payload`.
    fn answer(&mut self, request: &Request, payload: &mut [u8]) -> Answer {
        match request.want {
            Want::Whole => {
                let expected = *request.content.as_bytes();
                self.read(request, 0, &expected, payload)
            }
            Want::Chunk(index) => match self.manifest_and_place(request, index) {
                Some((manifest, at)) => self.read(request, index, &manifest.chunks()[at], payload),
                None => Answer::NotFound,
            },
            Want::Page(first) => match self.manifest_and_place(request, first) {
                Some((manifest, at)) => {
                    let page = &manifest.chunks()[at..];
                    for (hash, out) in page
                        .iter()
                        .zip(payload[..request.payload_len()].chunks_exact_mut(32))
                    {
                        out.copy_from_slice(hash);
                    }
                    Answer::Page
                }
                None => Answer::NotFound,
            },
        }
    }

    fn manifest_and_place(&self, request: &Request, index: u64) -> Option<(Arc<Manifest>, usize)> {
        let manifest = self.source.manifest(&request.content)?;
        let at = usize::try_from(index).ok()?;
        (manifest.size() == request.size && at < manifest.chunks().len()).then_some((manifest, at))
    }

    fn read(&mut self, request: &Request, index: u64, expected: &ChunkHash, out: &mut [u8]) -> Answer {
        if let Some(at) = self.open.iter().position(|open| open.content == request.content) {
            let open = self.open.remove(at);
            if let Some(answer) = self.try_read(open, request, index, expected, out) {
                return answer;
            }
        }
        for place in self.source.candidates(&request.content) {
            let Some(file) = self.source.open(&place, &request.content, request.size) else {
                continue;
            };
            let content = request.content;
            let open = OpenFile { content, place, file };
            if let Some(answer) = self.try_read(open, request, index, expected, out) {
                return answer;
            }
        }
        Answer::NotFound
    }

    fn try_read(
        &mut self,
        open: OpenFile,
        request: &Request,
        index: u64,
        expected: &ChunkHash,
        out: &mut [u8],
    ) -> Option<Answer> {
        let Ok(Some(bytes)) = read_chunk(&open.file, request.size, index, expected, out) else {
            self.source.tell_stale(&open.place);
            return None;
        };
        let answer = if is_zero(bytes) {
            Answer::Zero
        } else {
            Answer::Data
        };
        if !matches!(request.want, Want::Whole) {
            if self.open.len() >= MAX_OPEN_FILES {
                self.open.remove(0);
            }
            self.open.push(open);
        }
        Some(answer)
    }
}
