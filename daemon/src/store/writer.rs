//! The writer: one thread that makes batches durable, several in one transaction.
//!
//! A transaction costs one fsync, whatever is in it; so all batches that wait go into one, up to [`MAX_BATCHES`] or
//! [`MAX_WRITES`]. What transfer keeps (manifests, partials) rides along, or is committed alone after
//! [`LAZY_DELAY`]; what a user decided about the quarantine is committed at once. A crash loses the batches that were not reported durable, always from the end, never a part of one.
//!
//! After a failed transaction the disk can no longer be trusted to say what it holds: the error is reported once, the
//! thread ends, and everything after is refused until the store is opened again.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use p2p_sync_core::content::Manifest;
use p2p_sync_core::engine::{Batch, BatchNo};
use p2p_sync_core::ids::{ContentHash, Dot};
use p2p_sync_core::rel_path::RelPath;
use rusqlite::{Connection, TransactionBehavior};

use super::apply::{apply, put_manifest, put_partial, settle};
use super::lock::LockFile;
use super::{StoreError, rows};

/// Batches in one transaction; the more, the later the first of them is reported.
const MAX_BATCHES: usize = 64;
/// Writes in one transaction, one batch excepted: about 30 ms of work.
const MAX_WRITES: usize = 8192;
/// Batches that may wait before [`StoreWriter::is_behind`] asks for a pause: 16 full transactions.
const MANY_QUEUED: usize = 1024;
/// How long a manifest or partial waits for a batch to ride along with. Losing one costs repeating a transfer.
const LAZY_DELAY: Duration = Duration::from_secs(1);

/// Hands writes to the writer thread. Shared by reference; dropping it waits for what was submitted.
#[derive(Debug)]
pub struct StoreWriter {
    queue: Sender<Message>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    reads: Mutex<Connection>,
}

#[derive(Debug)]
enum Message {
    Batch(Batch),
    Settle(Settled),
    /// There is something in [`Lazy`].
    Lazy,
    Close,
}

/// Items of a path that the user decided about.
#[derive(Debug)]
struct Settled {
    path: RelPath,
    dots: Vec<Dot>,
    /// Told when it is durable.
    done: SyncSender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    queued: AtomicUsize,
    refusing: AtomicBool,
    lazy: Mutex<Lazy>,
}

/// What rides along. Of a partial only the newest state is kept, so this is bounded by the transfers under way.
#[derive(Debug, Default)]
struct Lazy {
    waiting: LazyWrites,
    /// Taken by the transaction under way; not yet seen by readers of the file.
    writing: LazyWrites,
}

#[derive(Debug, Default)]
struct LazyWrites {
    manifests: Vec<Arc<Manifest>>,
    partials: BTreeMap<ContentHash, Option<Vec<u8>>>,
}

impl LazyWrites {
    fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.partials.is_empty()
    }
}

impl StoreWriter {
    /// Starts the thread. `on_persisted` is called on it, so it must not wait for whoever calls [`submit`](Self::submit).
    pub(super) fn start(
        writes: Connection,
        reads: Connection,
        lock: Arc<LockFile>,
        on_persisted: impl FnMut(Result<BatchNo, StoreError>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (queue, inbox) = channel();
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            inbox,
            shared: Arc::clone(&shared),
            connection: writes,
            on_persisted,
            lazy_due: None,
            _lock: lock,
        };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || worker.run())
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self {
            queue,
            shared,
            thread: Mutex::new(Some(thread)),
            reads: Mutex::new(reads),
        })
    }

    /// Queues a batch behind all before it; never waits. `on_persisted` tells when it is durable.
    ///
    /// # Errors
    /// [`StoreError::Refused`] after a failed transaction or [`close`](Self::close).
    pub fn submit(&self, batch: Batch) -> Result<(), StoreError> {
        if self.shared.refusing.load(Ordering::Acquire) {
            return Err(StoreError::Refused);
        }
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.queue
            .send(Message::Batch(batch))
            .map_err(|_| StoreError::Refused)
    }

    /// Notes that the user decided about these items of a path, none of which counts ([`StateView::mentions`]). Blocks
    /// until that is durable.
    ///
    /// [`StateView::mentions`]: p2p_sync_core::engine::StateView::mentions
    ///
    /// # Errors
    /// [`StoreError::Refused`] after a failed transaction, this one included, or [`close`](Self::close).
    pub fn settle(&self, path: RelPath, dots: Vec<Dot>) -> Result<(), StoreError> {
        if self.shared.refusing.load(Ordering::Acquire) {
            return Err(StoreError::Refused);
        }
        let (done, is_done) = sync_channel(1);
        let settled = Settled { path, dots, done };
        self.queue
            .send(Message::Settle(settled))
            .map_err(|_| StoreError::Refused)?;
        is_done.recv().map_err(|_| StoreError::Refused)
    }

    /// Says whether so many batches wait that whoever makes them should take in nothing new for a while.
    ///
    /// The queue itself does not block: the thread that submits is the one that `on_persisted` reports to.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shared.queued.load(Ordering::Relaxed) >= MANY_QUEUED
    }

    /// Keeps a manifest, durable within about a second.
    pub fn put_manifest(&self, manifest: Arc<Manifest>) {
        self.lazily(|lazy| lazy.manifests.push(manifest));
    }

    /// Keeps which chunks of a content are in the temporary directory, durable within about a second.
    pub fn set_partial(&self, content: ContentHash, bitmap: Vec<u8>) {
        self.lazily(|lazy| drop(lazy.partials.insert(content, Some(bitmap))));
    }

    /// Forgets [`set_partial`](Self::set_partial), durable within about a second.
    pub fn clear_partial(&self, content: ContentHash) {
        self.lazily(|lazy| drop(lazy.partials.insert(content, None)));
    }

    /// Returns what [`set_partial`](Self::set_partial) said last, durable or not; `None` also if it cannot be read.
    #[must_use]
    pub fn partial(&self, content: &ContentHash) -> Option<Vec<u8>> {
        {
            let lazy = locked(&self.shared.lazy);
            let known = lazy.waiting.partials.get(content);
            if let Some(bitmap) = known.or_else(|| lazy.writing.partials.get(content)) {
                return bitmap.clone();
            }
        }
        rows::partial(&locked(&self.reads), content).unwrap_or_else(|source| {
            let error: &dyn std::error::Error = &source;
            tracing::warn!(error, "A partial transfer cannot be read and starts again");
            None
        })
    }

    /// Refuses later submits and ends the thread, without waiting for it.
    pub fn refuse(&self) {
        self.shared.refusing.store(true, Ordering::Release);
        // The thread may be gone already.
        let _ = self.queue.send(Message::Close);
    }

    /// Makes everything submitted durable and ends the thread; later submits are refused.
    pub fn close(&self) {
        self.refuse();
        let Some(thread) = locked(&self.thread).take() else {
            return;
        };
        // The last owner may be dropped by `on_persisted`, on the thread itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("The store's writer panicked");
        }
    }

    fn lazily(&self, change: impl FnOnce(&mut LazyWrites)) {
        let first = {
            let mut lazy = locked(&self.shared.lazy);
            let first = lazy.waiting.is_empty();
            change(&mut lazy.waiting);
            first
        };
        if first {
            // A thread that is gone has reported why.
            let _ = self.queue.send(Message::Lazy);
        }
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.close();
    }
}

struct Worker<F> {
    inbox: Receiver<Message>,
    shared: Arc<Shared>,
    connection: Connection,
    on_persisted: F,
    lazy_due: Option<Instant>,
    _lock: Arc<LockFile>,
}

/// What goes into one transaction.
#[derive(Debug, Default)]
struct Group {
    batches: Vec<Batch>,
    settled: Vec<Settled>,
    writes: usize,
    closing: bool,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.settled.is_empty()
    }

    fn is_full(&self) -> bool {
        self.closing || self.batches.len() >= MAX_BATCHES || self.writes >= MAX_WRITES
    }
}

impl<F: FnMut(Result<BatchNo, StoreError>)> Worker<F> {
    fn run(mut self) {
        loop {
            let group = self.next_group();
            let last = group.batches.last().map(|batch| batch.no);
            if let Err(error) = self.commit(&group) {
                self.shared.refusing.store(true, Ordering::Release);
                (self.on_persisted)(Err(error));
                return;
            }
            self.shared
                .queued
                .fetch_sub(group.batches.len(), Ordering::Relaxed);
            if let Some(last) = last {
                (self.on_persisted)(Ok(last));
            }
            for settled in &group.settled {
                // Whoever asked may be gone.
                let _ = settled.done.send(());
            }
            if group.closing {
                return;
            }
        }
    }

    /// Waits for batches, or until lazy writes are due.
    fn next_group(&mut self) -> Group {
        let mut group = Group::default();
        while group.is_empty() && !group.closing {
            match self.wait() {
                Ok(message) => self.take(&mut group, message),
                Err(RecvTimeoutError::Timeout) => return group,
                Err(RecvTimeoutError::Disconnected) => group.closing = true,
            }
        }
        while !group.is_full() {
            let Ok(message) = self.inbox.try_recv() else { break };
            self.take(&mut group, message);
        }
        group
    }

    fn wait(&self) -> Result<Message, RecvTimeoutError> {
        match self.lazy_due {
            Some(due) => self
                .inbox
                .recv_timeout(due.saturating_duration_since(Instant::now())),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn take(&mut self, group: &mut Group, message: Message) {
        match message {
            Message::Batch(batch) => {
                group.writes += batch.writes.len();
                group.batches.push(batch);
            }
            Message::Settle(settled) => {
                group.writes += settled.dots.len();
                group.settled.push(settled);
            }
            Message::Lazy => {
                self.lazy_due.get_or_insert_with(|| Instant::now() + LAZY_DELAY);
            }
            Message::Close => group.closing = true,
        }
    }

    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        self.lazy_due = None;
        {
            let mut lazy = locked(&self.shared.lazy);
            lazy.writing = mem::take(&mut lazy.waiting);
            if group.is_empty() && lazy.writing.is_empty() {
                return Ok(());
            }
        }
        let write = |source| StoreError::Write { source };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(write)?;
        for one in group.batches.iter().flat_map(|batch| &batch.writes) {
            apply(&transaction, one)?;
        }
        for settled in &group.settled {
            settle(&transaction, &settled.path, &settled.dots).map_err(write)?;
        }
        commit_lazy(&transaction, &locked(&self.shared.lazy).writing).map_err(write)?;
        transaction.commit().map_err(write)?;
        locked(&self.shared.lazy).writing = LazyWrites::default();
        Ok(())
    }
}

fn commit_lazy(connection: &Connection, lazy: &LazyWrites) -> rusqlite::Result<()> {
    for manifest in &lazy.manifests {
        put_manifest(connection, manifest)?;
    }
    for (content, bitmap) in &lazy.partials {
        put_partial(connection, content, bitmap.as_deref())?;
    }
    Ok(())
}

/// A panic elsewhere leaves nothing half-done behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
