//! Gets contents into the temporary directory.
//!
//! One task owns all jobs and decides who is asked for what; connections (one task for each member asked) and blocking
//! threads tell it what came of it through one inbox. A job passes these steps: look on this device (`prepare`); for a
//! content of more than one chunk, get the manifest; ask members; give the file its final name. Small contents are
//! spread over the members that have them and asked in batches, chunks of large ones are asked from whichever member
//! has room, so that a small file never waits for a large one to end and many members share the work.
//!
//! A member that does not have a content is not asked again for it in this job; one whose stream fails is tried again
//! with growing pauses, then given up for the jobs at hand; one that sends wrong bytes is never asked again.

mod conn;
mod job;
mod schedule;
mod store;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use p2p_sync_core::content::CHUNK_SIZE;
use p2p_sync_core::engine::{FetchFailure, FetchJob};
use p2p_sync_core::ids::{ContentHash, DeviceId};
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::{Semaphore, mpsc};

use self::conn::CloseReason;
use self::job::{Job, Phase};
use self::schedule::Peer;
use self::store::{Ask, Outcome};
use super::disk::{DiskError, Folder};
use super::pool::BufferPool;
use super::prepare::{Prepared, Preparer};
use super::wire::MAX_CHUNKS;
use super::{ContentIndex, OpenFolderError, StreamSource, TransferStats};
use crate::free_space::Reserve;

/// Buffers of 1 MiB for all connections together: the memory that fetching may take.
const MAX_BUFFERS: usize = 64;
/// Contents of at most one chunk that one thread looks for at once.
const PREPARE_BATCH: usize = 256;
/// Threads that look for small contents at once.
const MAX_PREPARING: usize = 2;
/// Contents of more than one chunk under way at once; bounds open files and manifests in memory.
const MAX_LARGE: usize = 8;
/// Contents reported at once.
const MAX_REPORT: usize = 256;

/// What the fetcher tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// These contents are complete and verified in the temporary directory.
    Fetched(Vec<ContentHash>),
    /// A content could not be had.
    Failed {
        /// Which.
        content: ContentHash,
        /// Why.
        reason: FetchFailure,
    },
    /// A member sent what no honest daemon sends; it is not asked any more.
    Misbehaved {
        /// Who.
        device: DeviceId,
        /// What.
        reason: &'static str,
    },
    /// The file at this path is not what the index says: it should be scanned.
    Stale(RelPath),
}

/// Times after which the fetcher gives up waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchTiming {
    /// For a stream to open and be acknowledged; default 10 s (streams can be dropped silently by the other side).
    pub hello: Duration,
    /// For a byte while answers are owed; default 20 s.
    pub stall: Duration,
    /// Before a member whose stream failed is tried again; doubles each time; default 250 ms.
    pub retry: Duration,
}

impl Default for FetchTiming {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            retry: Duration::from_millis(250),
        }
    }
}

/// Gives work to a [`Fetcher`]; when the last handle is dropped the fetcher ends.
///
/// Nothing here waits. The queue of commands is not bounded by itself; the engine bounds it, since it asks once for
/// each content that it needs and has room for.
#[derive(Debug, Clone)]
pub struct FetchHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl FetchHandle {
    /// Gets these contents; each is answered once, by [`FetchEvent::Fetched`] or [`FetchEvent::Failed`]. A content
    /// that is under way already only gains sources.
    pub fn fetch(&self, jobs: Vec<FetchJob>) {
        self.send(Command::Fetch(jobs));
    }

    /// Takes note that the last connection to a device is gone: it is no source any more until named again.
    pub fn peer_gone(&self, device: DeviceId) {
        self.send(Command::PeerGone(device));
    }

    /// Forgets all jobs without answering them; parts stay for later.
    pub fn cancel_all(&self) {
        self.send(Command::CancelAll);
    }

    fn send(&self, command: Command) {
        // The fetcher is gone only at shutdown.
        let _ = self.commands.send(command);
    }
}

#[derive(Debug)]
enum Command {
    Fetch(Vec<FetchJob>),
    PeerGone(DeviceId),
    CancelAll,
}

/// What connections and threads tell the fetcher. Bounded by what it asked of them.
#[derive(Debug)]
enum Inbox {
    Prepared {
        small: bool,
        results: Vec<Prepared>,
    },
    Finished {
        content: ContentHash,
        result: Result<(), DiskError>,
    },
    Answers {
        device: DeviceId,
        answers: Vec<(Ask, Outcome)>,
    },
    Closed {
        device: DeviceId,
        conn: u64,
        asks: Vec<Ask>,
        reason: CloseReason,
    },
}

/// What connections and threads share with the fetcher.
struct Shared {
    folder: Arc<Folder>,
    index: Arc<dyn ContentIndex>,
    streams: Arc<dyn StreamSource>,
    pool: Arc<BufferPool>,
    /// One permit for each thread that may check and write.
    workers: Arc<Semaphore>,
    stats: Arc<TransferStats>,
    timing: FetchTiming,
    inbox: mpsc::UnboundedSender<Inbox>,
}

impl Shared {
    fn tell(&self, message: Inbox) {
        // The fetcher is gone only at shutdown.
        let _ = self.inbox.send(message);
    }
}

/// The service; see the module's documentation.
pub struct Fetcher {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    inbox: mpsc::UnboundedReceiver<Inbox>,
    events: mpsc::Sender<FetchEvent>,
    jobs: HashMap<ContentHash, Job>,
    /// Small contents to look for on this device.
    to_prepare: VecDeque<ContentHash>,
    preparing: usize,
    /// Contents of more than one chunk that wait for a place among `large`.
    waiting: VecDeque<ContentHash>,
    /// Contents of more than one chunk under way, next to be asked for first.
    large: VecDeque<ContentHash>,
    /// Never removed: bounded by the members there ever were in this run.
    peers: BTreeMap<DeviceId, Peer>,
    banned: HashSet<DeviceId>,
    next_conn: u64,
    /// Bytes asked and not answered, of all peers.
    bytes_in_flight: u64,
    fetched: Vec<ContentHash>,
    told: Vec<FetchEvent>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetcher({} jobs)", self.jobs.len())
    }
}

impl Fetcher {
    /// Opens the folder and makes the temporary directory if it is missing. Nothing is fetched into the reserve.
    ///
    /// # Errors
    /// [`OpenFolderError`].
    pub fn new(
        root: &Path,
        reserve: Reserve,
        index: Arc<dyn ContentIndex>,
        streams: Arc<dyn StreamSource>,
        events: mpsc::Sender<FetchEvent>,
        stats: Arc<TransferStats>,
        timing: FetchTiming,
    ) -> Result<(Self, FetchHandle), OpenFolderError> {
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (inbox, inbox_receiver) = mpsc::unbounded_channel();
        let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let shared = Shared {
            folder: Arc::new(Folder::open(root)?.with_reserve(reserve)),
            index,
            streams,
            pool: BufferPool::new(MAX_BUFFERS),
            workers: Arc::new(Semaphore::new(workers)),
            stats,
            timing,
            inbox,
        };
        let fetcher = Self {
            shared: Arc::new(shared),
            commands: command_receiver,
            inbox: inbox_receiver,
            events,
            jobs: HashMap::new(),
            to_prepare: VecDeque::new(),
            preparing: 0,
            waiting: VecDeque::new(),
            large: VecDeque::new(),
            peers: BTreeMap::new(),
            banned: HashSet::new(),
            next_conn: 0,
            bytes_in_flight: 0,
            fetched: Vec::new(),
            told: Vec::new(),
        };
        Ok((fetcher, FetchHandle { commands }))
    }

    /// Runs until the last handle is dropped or nobody takes events any more, then saves how far contents came.
    ///
    /// # Cancel safety
    /// Dropping the future loses up to a second of progress of contents under way, nothing else.
    pub async fn run(mut self) {
        loop {
            self.pump();
            if self.inbox.is_empty() && self.report().await.is_err() {
                break;
            }
            let retry_at = self.next_retry();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle_message(message),
                    None => break,
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                () = until(retry_at) => {}
            }
            if self.fetched.len() >= MAX_REPORT && self.report().await.is_err() {
                break;
            }
        }
        self.stop().await;
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Fetch(jobs) => jobs.into_iter().for_each(|job| self.add(job)),
            Command::PeerGone(device) => {
                self.peer(device).close();
                self.drop_source_everywhere(device);
            }
            Command::CancelAll => self.cancel_all(),
        }
    }

    fn handle_message(&mut self, message: Inbox) {
        match message {
            Inbox::Prepared { small, results } => {
                self.preparing -= usize::from(small);
                results
                    .into_iter()
                    .for_each(|result| self.handle_prepared(result));
            }
            Inbox::Finished { content, result } => self.handle_finished(content, result),
            Inbox::Answers { device, answers } => {
                for (ask, outcome) in answers {
                    self.handle_answer(device, &ask, outcome);
                }
            }
            Inbox::Closed {
                device,
                conn,
                asks,
                reason,
            } => self.handle_closed(device, conn, asks, reason),
        }
    }

    fn add(&mut self, wanted: FetchJob) {
        for device in &wanted.from {
            self.peer(*device).named();
        }
        if let Some(job) = self.jobs.get_mut(&wanted.content) {
            job.add_sources(wanted);
            return;
        }
        let (content, size) = (wanted.content, wanted.size);
        if size.div_ceil(CHUNK_SIZE) > MAX_CHUNKS {
            let reason = FetchFailure::Disk("The file is larger than 16 TiB".to_owned());
            self.told.push(FetchEvent::Failed { content, reason });
            return;
        }
        let queue = if size <= CHUNK_SIZE {
            &mut self.to_prepare
        } else {
            &mut self.waiting
        };
        queue.push_back(content);
        self.jobs.insert(content, Job::new(wanted));
    }

    /// Jobs that a thread works on stay until it is done, so that no two threads ever work on one file.
    fn cancel_all(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.jobs.retain(|_, job| {
            job.save(&shared);
            job.cancelled.store(true, Ordering::Relaxed);
            job.again = None;
            matches!(job.phase, Phase::OnThread)
        });
        self.to_prepare.clear();
        self.waiting.clear();
        self.large.clear();
        self.told.clear();
        self.fetched.clear();
        self.peers.values_mut().for_each(Peer::close);
    }

    /// Starts threads that look for contents on this device.
    fn prepare(&mut self) {
        while self.preparing < MAX_PREPARING && !self.to_prepare.is_empty() {
            let count = self.to_prepare.len().min(PREPARE_BATCH);
            let batch: Vec<ContentHash> = self.to_prepare.drain(..count).collect();
            self.preparing += 1;
            self.prepare_batch(batch, true);
        }
        while self.large.len() < MAX_LARGE
            && let Some(content) = self.waiting.pop_front()
        {
            self.large.push_back(content);
            self.prepare_batch(vec![content], false);
        }
    }

    fn prepare_batch(&mut self, contents: Vec<ContentHash>, small: bool) {
        let mut batch = Vec::with_capacity(contents.len());
        for content in contents {
            if let Some(job) = self.jobs.get_mut(&content) {
                job.phase = Phase::OnThread;
                batch.push((content, job.size, Arc::clone(&job.cancelled)));
            }
        }
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let mut preparer = Preparer::new(&shared.folder, &*shared.index);
            let mut results = Vec::with_capacity(batch.len());
            for (content, size, cancelled) in &batch {
                results.push(preparer.prepare(*content, *size, cancelled));
            }
            shared.tell(Inbox::Prepared { small, results });
        });
    }

    /// Sends what there is to tell.
    async fn report(&mut self) -> Result<(), mpsc::error::SendError<FetchEvent>> {
        if !self.fetched.is_empty() {
            let fetched = std::mem::take(&mut self.fetched);
            self.events.send(FetchEvent::Fetched(fetched)).await?;
        }
        for event in std::mem::take(&mut self.told) {
            self.events.send(event).await?;
        }
        Ok(())
    }

    async fn stop(mut self) {
        let shared = Arc::clone(&self.shared);
        let jobs = std::mem::take(&mut self.jobs);
        let save = tokio::task::spawn_blocking(move || {
            for job in jobs.into_values() {
                job.cancelled.store(true, Ordering::Relaxed);
                if let Phase::Chunks(chunks) = job.phase {
                    chunks.part.save(&*shared.index, chunks.have.as_bytes().to_vec());
                }
            }
        });
        let _ = save.await;
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
