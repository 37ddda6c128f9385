//! One content to get, from the look on this device to its final name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use p2p_sync_core::content::{ChunkHash, Manifest};
use p2p_sync_core::engine::{FetchFailure, FetchJob};
use p2p_sync_core::ids::{ContentHash, DeviceId};

use super::super::disk::{DiskError, chunks_of};
use super::super::part::{Bitmap, Part};
use super::super::prepare::{Found, Prepared, Preparer};
use super::super::wire::{Request, Want};
use super::store::{Ask, Outcome};
use super::{FetchEvent, Fetcher, Inbox, Shared};

/// Bytes after which the bitmap of a content under way is saved.
const SAVE_BYTES: u64 = 64 << 20;
/// Time after which it is saved at the next chunk.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// A content to get.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) content: ContentHash,
    pub(super) size: u64,
    /// Members that may have it, best first.
    pub(super) sources: Vec<DeviceId>,
    pub(super) phase: Phase,
    /// Tells a thread to stop; a job with this set is only waiting for its thread.
    pub(super) cancelled: Arc<AtomicBool>,
    /// Wanted again after it was cancelled.
    pub(super) again: Option<FetchJob>,
}

/// How far a job is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waits to be looked for on this device.
    Queued,
    /// A thread looks for it, or completes it.
    OnThread,
    /// Content of at most one chunk: in a member's queue or asked from it.
    Small,
    /// The pages of the manifest had so far, all from one member.
    Manifest {
        from: Option<DeviceId>,
        asked: bool,
        hashes: Vec<ChunkHash>,
    },
    /// Chunks are asked for.
    Chunks(Chunks),
}

/// The chunks of a content under way.
#[derive(Debug)]
pub(super) struct Chunks {
    pub(super) part: Arc<Part>,
    pub(super) have: Bitmap,
    /// Chunks from here on were never asked for.
    cursor: usize,
    /// Chunks to be asked for once more.
    again: VecDeque<usize>,
    unsaved_bytes: u64,
    saved_at: Instant,
}

impl Chunks {
    fn new(part: Arc<Part>, have: Bitmap) -> Self {
        Self {
            part,
            have,
            cursor: 0,
            again: VecDeque::new(),
            unsaved_bytes: 0,
            saved_at: Instant::now(),
        }
    }

    fn next(&mut self) -> Option<usize> {
        if let Some(index) = self.again.pop_front() {
            return Some(index);
        }
        let chunks = self.part.manifest().chunks().len();
        while self.cursor < chunks {
            let index = self.cursor;
            self.cursor += 1;
            if !self.have.has(index) {
                return Some(index);
            }
        }
        None
    }

    /// Says whether an ask is one of this run of the job.
    fn asked(&self, ask: &Ask) -> bool {
        ask.part
            .as_ref()
            .is_some_and(|part| Arc::ptr_eq(part, &self.part))
    }
}

impl Job {
    pub(super) fn new(wanted: FetchJob) -> Self {
        Self {
            content: wanted.content,
            size: wanted.size,
            sources: wanted.from,
            phase: Phase::Queued,
            cancelled: Arc::default(),
            again: None,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Takes the sources of a second request for the same content.
    pub(super) fn add_sources(&mut self, wanted: FetchJob) {
        if self.is_cancelled() {
            self.again = Some(wanted);
            return;
        }
        for device in wanted.from {
            if !self.sources.contains(&device) {
                self.sources.push(device);
            }
        }
    }

    /// Returns the next thing to ask of a member for a content of more than one chunk.
    pub(super) fn next_ask(&mut self, device: DeviceId) -> Option<Ask> {
        if !self.sources.contains(&device) {
            return None;
        }
        let (want, part) = match &mut self.phase {
            Phase::Manifest { from, asked, hashes } if !*asked && from.is_none_or(|it| it == device) => {
                *from = Some(device);
                *asked = true;
                (Want::Page(hashes.len() as u64), None)
            }
            Phase::Chunks(chunks) => (Want::Chunk(chunks.next()? as u64), Some(Arc::clone(&chunks.part))),
            Phase::Manifest { .. } | Phase::Queued | Phase::OnThread | Phase::Small => return None,
        };
        let request = Request {
            content: self.content,
            size: self.size,
            want,
        };
        Some(Ask { request, part })
    }

    /// Keeps the bitmap of chunks in the store.
    pub(super) fn save(&mut self, shared: &Arc<Shared>) {
        let Phase::Chunks(chunks) = &mut self.phase else {
            return;
        };
        chunks.unsaved_bytes = 0;
        chunks.saved_at = Instant::now();
        let (part, have) = (Arc::clone(&chunks.part), chunks.have.as_bytes().to_vec());
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || part.save(&*shared.index, have));
    }

    fn restart_manifest(&mut self) {
        self.phase = Phase::Manifest {
            from: None,
            asked: false,
            hashes: Vec::new(),
        };
    }
}

impl Fetcher {
    pub(super) fn handle_prepared(&mut self, prepared: Prepared) {
        let Prepared {
            content,
            found,
            stale,
        } = prepared;
        self.told.extend(stale.into_iter().map(FetchEvent::Stale));
        let Some(job) = self.jobs.get_mut(&content) else {
            return;
        };
        if job.is_cancelled() {
            self.revive(content);
            return;
        }
        match found {
            Found::Complete => self.complete(content),
            Found::Disk(text) => self.fail(content, FetchFailure::Disk(text)),
            Found::Nothing => {
                job.phase = Phase::Small;
                self.assign(content);
            }
            Found::NoManifest => {
                job.restart_manifest();
                self.fail_if_orphaned(content);
            }
            Found::Part(part, have) => {
                job.phase = Phase::Chunks(Chunks::new(part, have));
                self.fail_if_orphaned(content);
            }
        }
    }

    pub(super) fn handle_finished(&mut self, content: ContentHash, result: Result<(), DiskError>) {
        let cancelled = self.jobs.get(&content).is_none_or(Job::is_cancelled);
        match result {
            _ if cancelled => self.revive(content),
            Ok(()) => self.complete(content),
            Err(e) => self.fail(content, FetchFailure::Disk(e.text())),
        }
    }

    /// Takes up one ask's outcome; wrong bytes end the peer.
    pub(super) fn handle_answer(&mut self, device: DeviceId, ask: &Ask, outcome: Outcome) {
        self.settle(device, ask);
        let content = ask.request.content;
        match outcome {
            Outcome::Stored => {
                self.peer(device).worked();
                self.handle_stored(ask);
            }
            Outcome::Page(hashes) => {
                self.peer(device).worked();
                self.handle_page(device, content, hashes);
            }
            Outcome::NotFound => {
                self.peer(device).worked();
                self.drop_source(content, device);
                self.ask_again(ask);
            }
            Outcome::Bad => {
                self.ban(device, "It sent bytes that are not what they should be");
                self.ask_again(ask);
            }
            Outcome::Disk(text) => self.fail(content, FetchFailure::Disk(text)),
        }
    }

    fn handle_stored(&mut self, ask: &Ask) {
        let content = ask.request.content;
        let shared = Arc::clone(&self.shared);
        let Some(job) = self.jobs.get_mut(&content) else {
            return;
        };
        match (&mut job.phase, ask.request.want) {
            (Phase::Small, Want::Whole) => self.complete(content),
            (Phase::Chunks(chunks), Want::Chunk(index)) if chunks.asked(ask) => {
                chunks.have.set(usize::try_from(index).unwrap_or(usize::MAX));
                chunks.unsaved_bytes += ask.request.payload_len() as u64;
                if chunks.have.is_full() {
                    let part = Arc::clone(&chunks.part);
                    job.phase = Phase::OnThread;
                    tokio::task::spawn_blocking(move || {
                        let result = part.finish(&*shared.index);
                        shared.tell(Inbox::Finished { content, result });
                    });
                } else if chunks.unsaved_bytes >= SAVE_BYTES || chunks.saved_at.elapsed() >= SAVE_INTERVAL {
                    job.save(&shared);
                }
            }
            _ => {}
        }
    }

    fn handle_page(&mut self, device: DeviceId, content: ContentHash, page: Vec<ChunkHash>) {
        let Some(job) = self.jobs.get_mut(&content) else {
            return;
        };
        let Phase::Manifest { from, asked, hashes } = &mut job.phase else {
            return;
        };
        if *from != Some(device) || !*asked {
            return;
        }
        *asked = false;
        hashes.extend(page);
        if hashes.len() < chunks_of(job.size) {
            return;
        }
        let hashes = std::mem::take(hashes);
        let Ok(manifest) = Manifest::new(content, job.size, hashes) else {
            job.restart_manifest();
            self.ban(device, "It sent a manifest that does not add up");
            return;
        };
        job.phase = Phase::OnThread;
        let (shared, cancelled) = (Arc::clone(&self.shared), Arc::clone(&job.cancelled));
        tokio::task::spawn_blocking(move || {
            let mut preparer = Preparer::new(&shared.folder, &*shared.index);
            let results = vec![preparer.resume(manifest, &cancelled)];
            shared.tell(Inbox::Prepared {
                small: false,
                results,
            });
        });
    }

    /// Puts an unanswered ask back to be asked of whoever has it.
    pub(super) fn ask_again(&mut self, ask: &Ask) {
        let content = ask.request.content;
        let Some(job) = self.jobs.get_mut(&content) else {
            return;
        };
        match (&mut job.phase, ask.request.want) {
            (Phase::Small, Want::Whole) => self.assign(content),
            (Phase::Manifest { .. }, Want::Page(_)) => job.restart_manifest(),
            (Phase::Chunks(chunks), Want::Chunk(index)) if chunks.asked(ask) => {
                chunks.again.extend(usize::try_from(index).ok());
            }
            _ => {}
        }
    }

    /// Removes a member from a job's sources.
    pub(super) fn drop_source(&mut self, content: ContentHash, device: DeviceId) {
        if let Some(job) = self.jobs.get_mut(&content) {
            job.sources.retain(|source| *source != device);
            if let Phase::Manifest { from, .. } = &job.phase
                && *from == Some(device)
            {
                job.restart_manifest();
            }
            self.fail_if_orphaned(content);
        }
    }

    /// Fails a job that nobody is left to be asked for. A small one in a queue fails when it is assigned.
    fn fail_if_orphaned(&mut self, content: ContentHash) {
        let banned = &self.banned;
        if let Some(job) = self.jobs.get_mut(&content) {
            job.sources.retain(|source| !banned.contains(source));
            let asking = matches!(job.phase, Phase::Manifest { .. } | Phase::Chunks(_));
            if asking && job.sources.is_empty() {
                self.fail(content, FetchFailure::NoSource);
            }
        }
    }

    fn complete(&mut self, content: ContentHash) {
        self.jobs.remove(&content);
        self.leave_large(content);
        self.fetched.push(content);
    }

    pub(super) fn fail(&mut self, content: ContentHash, reason: FetchFailure) {
        if let Some(mut job) = self.jobs.remove(&content) {
            job.save(&self.shared);
            self.leave_large(content);
            self.told.push(FetchEvent::Failed { content, reason });
        }
    }

    /// Ends a cancelled job whose thread is done, and starts it again if it is wanted again.
    fn revive(&mut self, content: ContentHash) {
        if let Some(job) = self.jobs.remove(&content)
            && let Some(again) = job.again
        {
            self.add(again);
        }
    }

    fn leave_large(&mut self, content: ContentHash) {
        self.large.retain(|it| *it != content);
    }
}
