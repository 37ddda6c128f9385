//! Hands contents of this folder to members.
//!
//! Each stream is one task of three stages with bounded queues between them: requests are read ahead, a blocking
//! thread reads, checks and frames the next answers while the former are being sent. Small answers share a buffer, so
//! thousands of small files cost neither a thread hop nor a write each. Nothing here is durable.

mod answer;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::io::BufReader;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::rel_path::RelPath;
use tokio::sync::{mpsc, oneshot};

use self::answer::{Answerer, Source};
use super::disk::Folder;
use super::pool::{Buffer, BufferPool};
use super::wire::{HELLO, PREAMBLE, REQUEST_LEN, Request, WireError};
use super::{ContentIndex, OpenFolderError, TransferStats};

/// Buffers of 1 MiB for all streams together: the memory that serving may take. A stream uses up to four.
const MAX_BUFFERS: usize = 64;
/// Filled buffers that wait for sending on one stream.
const READ_AHEAD: usize = 2;
/// Requests taken off one stream before they are answered, what a fetcher asks at most at once; beyond it the stream
/// is not read, so the peer waits.
const MAX_QUEUED: usize = 1024 + 16;
/// Streams of one device: a second one while the first has died unnoticed. A third ends the oldest.
const MAX_STREAMS: usize = 2;
/// How long the other side may take to say who it is, and to take some bytes of an answer.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take none of an answer's bytes before its buffers go to others.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stream may ask nothing before its open files are closed: they keep a removed file's space taken.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// Why a stream ended other than by the peer's wish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The stream failed.
    #[error("The content stream failed")]
    Stream(#[source] io::Error),
    /// The peer does not keep to the format.
    #[error("The peer does not keep to the content protocol")]
    Wire(#[from] WireError),
    /// The peer said nothing at the start, or took no bytes of an answer.
    #[error("The peer took too long")]
    TimedOut,
    /// The peer opened newer streams.
    #[error("The peer opened newer streams")]
    Replaced,
    /// A thread that reads files panicked.
    #[error("A reading thread failed")]
    Thread,
}

/// Answers members' requests for contents; a clone serves the same folder.
#[derive(Clone)]
pub struct Provider {
    source: Arc<Source>,
    pool: Arc<BufferPool>,
    stats: Arc<TransferStats>,
    streams: Arc<Streams>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({:?})", self.stats)
    }
}

impl Provider {
    /// Opens the folder. `on_stale` is called, on a blocking thread, with each path whose file turned out not to be
    /// what the index says; it must not block.
    ///
    /// # Errors
    /// [`OpenFolderError`] if the folder or its temporary directory cannot be opened.
    pub fn new(
        root: &Path,
        index: Arc<dyn ContentIndex>,
        on_stale: Arc<dyn Fn(RelPath) + Send + Sync>,
        stats: Arc<TransferStats>,
    ) -> Result<Self, OpenFolderError> {
        Ok(Self {
            source: Arc::new(Source::new(Folder::open(root)?, index, on_stale)),
            pool: BufferPool::new(MAX_BUFFERS),
            stats,
            streams: Arc::default(),
        })
    }

    /// Serves a stream that a member opened, until the member closes it. Whether `from` is a member is the caller's
    /// to know.
    ///
    /// # Errors
    /// One of [`ServeError`]; only [`ServeError::Wire`] is the peer's fault for certain.
    ///
    /// # Cancel safety
    /// Dropping the future ends the stream; nothing else is lost.
    pub async fn serve<S>(&self, from: DeviceId, stream: S) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (place, replaced) = Streams::enter(&self.streams, from);
        let result = tokio::select! {
            result = self.exchange(stream) => result,
            _ = replaced => Err(ServeError::Replaced),
        };
        drop(place);
        result
    }

    async fn exchange<S>(&self, mut stream: S) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, shake_hands(&mut stream));
        hello.await.map_err(|_| ServeError::TimedOut)??;
        let (reader, writer) = stream.split();
        let (asked, requests) = mpsc::channel(MAX_QUEUED);
        let (filled, answers) = mpsc::channel(READ_AHEAD);
        let stages = futures::future::try_join3(
            read_requests(reader, asked),
            self.fill(requests, filled),
            self.send(answers, writer),
        );
        stages.await.map(|_| ())
    }

    async fn fill(
        &self,
        mut requests: mpsc::Receiver<Request>,
        filled: mpsc::Sender<Buffer>,
    ) -> Result<(), ServeError> {
        let mut answerer = Answerer::new(Arc::clone(&self.source));
        let mut queue = VecDeque::new();
        loop {
            if queue.is_empty() {
                let mut taken = Vec::new();
                let next = requests.recv_many(&mut taken, MAX_QUEUED);
                match tokio::time::timeout(IDLE_AFTER, next).await {
                    Ok(0) => return Ok(()),
                    Ok(_) => queue.extend(taken),
                    Err(_) => {
                        answerer.close_files();
                        continue;
                    }
                }
            }
            let mut buffer = self.pool.take().await;
            let work = tokio::task::spawn_blocking(move || {
                answerer.fill(&mut queue, &mut buffer);
                (answerer, queue, buffer)
            });
            let done = work.await.map_err(|_| ServeError::Thread)?;
            (answerer, queue) = (done.0, done.1);
            if filled.send(done.2).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn send(
        &self,
        mut answers: mpsc::Receiver<Buffer>,
        mut writer: impl AsyncWrite + Unpin,
    ) -> Result<(), ServeError> {
        while let Some(buffer) = answers.recv().await {
            let mut rest = buffer.filled();
            while !rest.is_empty() {
                let count = in_time(writer.write(rest)).await?;
                if count == 0 {
                    return Err(ServeError::Stream(io::ErrorKind::WriteZero.into()));
                }
                self.stats.add_out(count);
                rest = &rest[count..];
            }
            drop(buffer);
            if answers.is_empty() {
                in_time(writer.flush()).await?;
            }
        }
        in_time(writer.close()).await
    }
}

async fn in_time<T>(action: impl Future<Output = io::Result<T>>) -> Result<T, ServeError> {
    let done = tokio::time::timeout(SEND_TIMEOUT, action).await;
    done.map_err(|_| ServeError::TimedOut)?
        .map_err(ServeError::Stream)
}

async fn shake_hands(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), ServeError> {
    let mut preamble = [0; PREAMBLE.len()];
    stream
        .read_exact(&mut preamble)
        .await
        .map_err(ServeError::Stream)?;
    if preamble != PREAMBLE {
        return Err(WireError::Preamble.into());
    }
    stream.write_all(&[HELLO]).await.map_err(ServeError::Stream)?;
    stream.flush().await.map_err(ServeError::Stream)
}

async fn read_requests(
    reader: impl AsyncRead + Unpin,
    asked: mpsc::Sender<Request>,
) -> Result<(), ServeError> {
    let mut reader = BufReader::with_capacity(REQUEST_LEN * MAX_QUEUED, reader);
    let mut frame = [0; REQUEST_LEN];
    loop {
        match reader.read_exact(&mut frame).await {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(ServeError::Stream(e)),
        }
        if asked.send(Request::decode(&frame)?).await.is_err() {
            return Ok(());
        }
    }
}

/// A stream by its number, and how to end it.
type Ending = (u64, oneshot::Sender<()>);

/// The streams being served, oldest first for each device.
#[derive(Debug, Default)]
struct Streams {
    next: AtomicU64,
    open: Mutex<HashMap<DeviceId, VecDeque<Ending>>>,
}

impl Streams {
    fn enter(this: &Arc<Self>, device: DeviceId) -> (Place, oneshot::Receiver<()>) {
        let id = this.next.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = oneshot::channel();
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = open.entry(device).or_default();
        if streams.len() >= MAX_STREAMS {
            // Dropping the sender ends that stream.
            streams.pop_front();
        }
        streams.push_back((id, end));
        let place = Place {
            streams: Arc::clone(this),
            device,
            id,
        };
        (place, ended)
    }
}

/// A stream's place among those of its device; left when dropped.
struct Place {
    streams: Arc<Streams>,
    device: DeviceId,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = open.get_mut(&self.device) {
            streams.retain(|(id, _)| *id != self.id);
            if streams.is_empty() {
                open.remove(&self.device);
            }
        }
    }
}
