//! Who is asked for what, and when.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use p2p_sync_core::content::CHUNK_SIZE;
use p2p_sync_core::engine::FetchFailure;
use p2p_sync_core::ids::{ContentHash, DeviceId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::super::OpenError;
use super::super::wire::{Request, Want};
use super::conn::{CloseReason, Conn};
use super::job::Phase;
use super::store::Ask;
use super::{FetchEvent, Fetcher};

/// Chunks asked of one member and not answered: 16 MiB keep a link of 1 Gbit/s and 100 ms busy.
const CHUNK_WINDOW: usize = 16;
/// Whole contents asked of one member and not answered.
const SMALL_WINDOW: usize = 1024;
/// Their bytes.
const SMALL_WINDOW_BYTES: u64 = 4 << 20;
/// Bytes asked of all members and not answered; what has arrived of them is in as many buffers.
const MAX_BYTES_IN_FLIGHT: u64 = 64 << 20;
/// Times that a member's stream may fail, with nothing answered between, before it is given up for the jobs at hand.
const MAX_FAILURES: u32 = 5;
/// Places of another member's queue that are looked at for work to take over.
const MAX_STEAL: usize = 64;

/// A member as a source.
#[derive(Debug, Default)]
pub(super) struct Peer {
    conn: Option<(u64, mpsc::UnboundedSender<Ask>)>,
    /// Small contents to ask of it.
    queue: VecDeque<ContentHash>,
    smalls: usize,
    small_bytes: u64,
    chunks: usize,
    failures: u32,
    retry_at: Option<Instant>,
    /// Not to be asked until it is named as a source again.
    gone: bool,
    /// Whether a chunk's turn is next.
    chunk_next: bool,
}

impl Peer {
    /// Somebody says that it is connected.
    pub(super) fn named(&mut self) {
        self.gone = false;
    }

    /// It answered.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// Ends the connection; what was asked comes back from there.
    pub(super) fn close(&mut self) {
        self.conn = None;
    }

    fn load(&self) -> usize {
        self.queue.len() + self.smalls + self.chunks
    }

    fn is_ready(&self, now: Instant) -> bool {
        !self.gone && self.retry_at.is_none_or(|at| at <= now)
    }
}

impl Fetcher {
    pub(super) fn peer(&mut self, device: DeviceId) -> &mut Peer {
        self.peers.entry(device).or_default()
    }

    /// Starts whatever can be started.
    pub(super) fn pump(&mut self) {
        self.prepare();
        let now = Instant::now();
        let ready = self.peers.iter().filter(|(_, peer)| peer.is_ready(now));
        let mut devices: Vec<(usize, DeviceId)> =
            ready.map(|(device, peer)| (peer.load(), *device)).collect();
        devices.sort_unstable();
        for (_, device) in devices {
            if self.banned.contains(&device) {
                continue;
            }
            while let Some(ask) = self.next_ask(device) {
                self.send(device, ask);
            }
        }
    }

    /// Returns when a member that failed is to be tried again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let now = Instant::now();
        let retries = self.peers.values().filter_map(|peer| peer.retry_at);
        retries.filter(|at| *at > now).min()
    }

    /// Small contents and chunks take turns, each within a window of its own.
    fn next_ask(&mut self, device: DeviceId) -> Option<Ask> {
        if self.bytes_in_flight >= MAX_BYTES_IN_FLIGHT {
            return None;
        }
        let chunk_first = self.peer(device).chunk_next;
        let ask = if chunk_first {
            self.next_chunk(device).or_else(|| self.next_small(device))
        } else {
            self.next_small(device).or_else(|| self.next_chunk(device))
        }?;
        self.peer(device).chunk_next = ask.is_whole();
        Some(ask)
    }

    fn next_chunk(&mut self, device: DeviceId) -> Option<Ask> {
        if self.peer(device).chunks >= CHUNK_WINDOW {
            return None;
        }
        for _ in 0..self.large.len() {
            self.large.rotate_left(1);
            let content = self.large.back()?;
            let ask = self.jobs.get_mut(content).and_then(|job| job.next_ask(device));
            if ask.is_some() {
                return ask;
            }
        }
        None
    }

    fn next_small(&mut self, device: DeviceId) -> Option<Ask> {
        let peer = self.peer(device);
        if peer.smalls >= SMALL_WINDOW || peer.small_bytes >= SMALL_WINDOW_BYTES {
            return None;
        }
        loop {
            let content = match self.peer(device).queue.pop_front() {
                Some(content) => content,
                None => self.steal(device)?,
            };
            let Some(job) = self.jobs.get(&content) else {
                continue;
            };
            if matches!(job.phase, Phase::Small) {
                let request = Request {
                    content,
                    size: job.size,
                    want: Want::Whole,
                };
                return Some(Ask { request, part: None });
            }
        }
    }

    /// Takes a content from the longest queue of another member.
    fn steal(&mut self, device: DeviceId) -> Option<ContentHash> {
        let others = self.peers.iter_mut().filter(|(other, _)| **other != device);
        let (_, richest) = others.max_by_key(|(_, peer)| peer.queue.len())?;
        let jobs = &self.jobs;
        let has = |content: &ContentHash| jobs.get(content).is_some_and(|job| job.sources.contains(&device));
        let at = richest.queue.iter().rev().take(MAX_STEAL).position(has)?;
        let at = richest.queue.len() - 1 - at;
        richest.queue.remove(at)
    }

    /// Queues a small content at the member with the least to do that has it; fails it if there is none.
    pub(super) fn assign(&mut self, content: ContentHash) {
        let Some(job) = self.jobs.get_mut(&content) else {
            return;
        };
        let banned = &self.banned;
        job.sources.retain(|source| !banned.contains(source));
        let now = Instant::now();
        let peers = &self.peers;
        let burden = |device: &DeviceId| {
            let peer = peers.get(device);
            let ready = peer.is_some_and(|peer| peer.is_ready(now));
            (Reverse(ready), peer.map_or(0, Peer::load))
        };
        match job.sources.iter().copied().min_by_key(burden) {
            Some(device) => self.peer(device).queue.push_back(content),
            None => self.fail(content, FetchFailure::NoSource),
        }
    }

    fn send(&mut self, device: DeviceId, ask: Ask) {
        let bytes = ask.request.payload_len() as u64;
        self.bytes_in_flight += bytes;
        let peer = self.peers.entry(device).or_default();
        if ask.is_whole() {
            peer.smalls += 1;
            peer.small_bytes += bytes;
        } else {
            peer.chunks += 1;
        }
        let unsent = match &peer.conn {
            Some((_, asks)) => asks.send(ask).err().map(|unsent| unsent.0),
            None => Some(ask),
        };
        if let Some(ask) = unsent {
            self.connect(device, ask);
        }
    }

    fn connect(&mut self, device: DeviceId, first: Ask) {
        let (asks, receiver) = mpsc::unbounded_channel();
        // The receiver is in scope, so this cannot fail.
        let _ = asks.send(first);
        self.next_conn += 1;
        let id = self.next_conn;
        self.peer(device).conn = Some((id, asks));
        let conn = Conn {
            shared: Arc::clone(&self.shared),
            device,
            id,
            asks: receiver,
        };
        tokio::spawn(conn.run());
    }

    /// Takes an ask off the counts of what is under way.
    pub(super) fn settle(&mut self, device: DeviceId, ask: &Ask) {
        let bytes = ask.request.payload_len() as u64;
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(bytes);
        let peer = self.peer(device);
        if ask.is_whole() {
            peer.smalls = peer.smalls.saturating_sub(1);
            peer.small_bytes = peer.small_bytes.saturating_sub(bytes);
        } else {
            peer.chunks = peer.chunks.saturating_sub(1);
        }
    }

    pub(super) fn handle_closed(&mut self, device: DeviceId, conn: u64, asks: Vec<Ask>, reason: CloseReason) {
        debug!(device = %device.short(), ?reason, unanswered = asks.len(), "Content stream closed");
        let retry = self.shared.timing.retry;
        let peer = self.peer(device);
        if peer.conn.as_ref().is_some_and(|(id, _)| *id == conn) {
            peer.conn = None;
        }
        match reason {
            CloseReason::Dropped | CloseReason::Lacking => {}
            CloseReason::Wire(_) => self.ban(device, "It does not keep to the content protocol"),
            CloseReason::Open(OpenError::NotConnected) => self.drop_source_everywhere(device),
            CloseReason::Open(_) | CloseReason::Stream(_) | CloseReason::Ended | CloseReason::Stalled => {
                peer.failures += 1;
                peer.retry_at = Some(Instant::now() + retry * (1 << peer.failures.min(MAX_FAILURES)) / 2);
                if peer.failures > MAX_FAILURES {
                    peer.failures = 0;
                    self.drop_source_everywhere(device);
                }
            }
        }
        for ask in asks {
            self.settle(device, &ask);
            self.ask_again(&ask);
        }
    }

    /// Never asks a member again.
    pub(super) fn ban(&mut self, device: DeviceId, reason: &'static str) {
        self.peer(device).close();
        if self.banned.insert(device) {
            self.told.push(FetchEvent::Misbehaved { device, reason });
            self.drop_source_everywhere(device);
        }
    }

    /// Removes a member from the sources of all jobs and gives its queue to others.
    pub(super) fn drop_source_everywhere(&mut self, device: DeviceId) {
        let peer = self.peer(device);
        peer.gone = true;
        let queue = std::mem::take(&mut peer.queue);
        let mut having: Vec<ContentHash> = Vec::new();
        for (content, job) in &self.jobs {
            if job.sources.contains(&device) {
                having.push(*content);
            }
        }
        for content in having {
            self.drop_source(content, device);
        }
        for content in queue {
            let small = self
                .jobs
                .get(&content)
                .is_some_and(|job| matches!(job.phase, Phase::Small));
            if small {
                self.assign(content);
            }
        }
    }
}

const _: () = assert!(SMALL_WINDOW_BYTES >= CHUNK_SIZE);
