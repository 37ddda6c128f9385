//! One stream to one member: writes asks as they come, reads answers in the same order, hands them to storing.
//!
//! Every ask given to a connection comes back exactly once: answered, or in [`Inbox::Closed`].

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::io::BufReader;
use futures::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};
use p2p_sync_core::ids::DeviceId;
use tokio::sync::mpsc;

use super::super::wire::{Answer, HEADER_LEN, HELLO, PREAMBLE, REQUEST_LEN, WireError};
use super::super::{BoxStream, OpenError};
use super::store::{Ask, Batch, Bytes, Outcome};
use super::{Inbox, Shared};

/// Bytes read from the stream at once; chunks pass by this buffer.
const READ_BUFFER: usize = 64 << 10;
/// Requests written at once.
const MAX_WRITE: usize = 256;
/// Answers stored by one thread at once; empty or all-zero ones take no room in the buffer.
const MAX_BATCH: usize = 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloseReason {
    #[error("No stream")]
    Open(#[from] OpenError),
    #[error("The stream failed")]
    Stream(#[from] io::Error),
    #[error("The peer closed the stream")]
    Ended,
    #[error("The peer did not answer in time")]
    Stalled,
    #[error("The peer does not keep to the content protocol")]
    Wire(#[from] WireError),
    #[error("The stream is not needed any more")]
    Dropped,
    /// Another machine may have the peer's key, and the next stream lead there.
    #[error("The peer lacks what it was asked for")]
    Lacking,
}

/// A connection before and while it runs.
pub(super) struct Conn {
    pub(super) shared: Arc<Shared>,
    pub(super) device: DeviceId,
    pub(super) id: u64,
    pub(super) asks: mpsc::UnboundedReceiver<Ask>,
}

impl Conn {
    /// Runs until the stream ends or the sender of asks is dropped.
    pub(super) async fn run(mut self) {
        let pending = Pending::default();
        let mut batch = Batch::default();
        let result = self.drive(&pending, &mut batch).await;
        let reason = result.err().unwrap_or(CloseReason::Dropped);
        self.asks.close();
        let mut asks: Vec<Ask> = batch.items.into_iter().map(|(ask, _)| ask).collect();
        asks.extend(pending.drain());
        while let Ok(ask) = self.asks.try_recv() {
            asks.push(ask);
        }
        self.shared.tell(Inbox::Closed {
            device: self.device,
            conn: self.id,
            asks,
            reason,
        });
    }

    async fn drive(&mut self, pending: &Pending, batch: &mut Batch) -> Result<(), CloseReason> {
        let hello = self.shared.timing.hello;
        let opened = tokio::time::timeout(hello, open(&self.shared, self.device)).await;
        let stream = opened.map_err(|_| CloseReason::Stalled)??;
        let (reader, writer) = stream.split();
        let reader = Reader {
            shared: &self.shared,
            device: self.device,
            inner: BufReader::with_capacity(READ_BUFFER, reader),
            pending,
        };
        tokio::select! {
            result = write_asks(&mut self.asks, writer, pending) => result,
            result = reader.read_answers(batch) => result,
        }
    }
}

async fn open(shared: &Shared, device: DeviceId) -> Result<BoxStream, CloseReason> {
    let mut stream = shared.streams.open(device).await?;
    stream.write_all(&PREAMBLE).await?;
    stream.flush().await?;
    let mut hello = [0];
    stream.read_exact(&mut hello).await?;
    if hello == [HELLO] {
        Ok(stream)
    } else {
        Err(WireError::Preamble.into())
    }
}

async fn write_asks(
    asks: &mut mpsc::UnboundedReceiver<Ask>,
    mut writer: impl AsyncWrite + Unpin,
    pending: &Pending,
) -> Result<(), CloseReason> {
    let mut taken = Vec::with_capacity(MAX_WRITE);
    let mut bytes = Vec::with_capacity(MAX_WRITE * REQUEST_LEN);
    while asks.recv_many(&mut taken, MAX_WRITE).await > 0 {
        bytes.clear();
        for ask in &taken {
            bytes.extend_from_slice(&ask.request.encode());
        }
        pending.push(taken.drain(..));
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    Ok(())
}

struct Reader<'a, R> {
    shared: &'a Arc<Shared>,
    device: DeviceId,
    inner: BufReader<R>,
    pending: &'a Pending,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    async fn read_answers(mut self, batch: &mut Batch) -> Result<(), CloseReason> {
        loop {
            if !batch.items.is_empty() && !self.more_is_here() {
                self.dispatch(batch).await;
            }
            let mut header = [0; HEADER_LEN];
            self.exact(&mut header).await?;
            let ask = self.pending.front().ok_or(WireError::Mismatch)?;
            match ask.request.read_header(&header)? {
                Answer::NotFound => {
                    self.pending.pop();
                    self.tell(ask, Outcome::NotFound);
                    if self.pending.front().is_none() && batch.items.is_empty() {
                        return Err(CloseReason::Lacking);
                    }
                }
                Answer::Zero => self.take(batch, ask, Bytes::Zero).await,
                Answer::Data => {
                    let range = self.read_data(&ask, batch).await?;
                    self.take(batch, ask, range).await;
                }
                Answer::Page => self.read_page(ask).await?,
            }
        }
    }

    async fn read_data(&mut self, ask: &Ask, batch: &mut Batch) -> Result<Bytes, CloseReason> {
        let len = ask.request.payload_len();
        if batch.buffer.as_ref().is_some_and(|buffer| buffer.room() < len) {
            self.dispatch(batch).await;
        }
        let mut buffer = match batch.buffer.take() {
            Some(buffer) => buffer,
            None => self.shared.pool.take().await,
        };
        let start = buffer.filled().len();
        let read = self.exact(&mut buffer.spare()[..len]).await;
        buffer.advance(len);
        batch.buffer = Some(buffer);
        read?;
        Ok(Bytes::At(start..start + len))
    }

    async fn take(&mut self, batch: &mut Batch, ask: Ask, bytes: Bytes) {
        self.pending.pop();
        let chunk = !ask.is_whole();
        batch.items.push((ask, bytes));
        if chunk || batch.items.len() >= MAX_BATCH {
            self.dispatch(batch).await;
        }
    }

    async fn read_page(&mut self, ask: Ask) -> Result<(), CloseReason> {
        let mut buffer = self.shared.pool.take().await;
        let len = ask.request.payload_len();
        let payload = &mut buffer.spare()[..len];
        self.exact(payload).await?;
        let mut hashes = Vec::with_capacity(len / 32);
        for bytes in payload.chunks_exact(32) {
            let mut hash = [0; 32];
            hash.copy_from_slice(bytes);
            hashes.push(hash);
        }
        self.pending.pop();
        self.tell(ask, Outcome::Page(hashes));
        Ok(())
    }

    fn tell(&self, ask: Ask, outcome: Outcome) {
        self.shared.tell(Inbox::Answers {
            device: self.device,
            answers: vec![(ask, outcome)],
        });
    }

    /// Hands the batch to a thread. The batch is taken only when a thread is free, so dropping this future loses
    /// nothing.
    async fn dispatch(&self, batch: &mut Batch) {
        let permit = Arc::clone(&self.shared.workers).acquire_owned().await;
        let batch = std::mem::take(batch);
        let (shared, device) = (Arc::clone(self.shared), self.device);
        tokio::task::spawn_blocking(move || {
            let answers = batch.store(&shared.folder);
            drop(permit);
            shared.tell(Inbox::Answers { device, answers });
        });
    }

    fn more_is_here(&mut self) -> bool {
        !self.inner.buffer().is_empty() || self.inner.fill_buf().now_or_never().is_some()
    }

    async fn exact(&mut self, mut out: &mut [u8]) -> Result<(), CloseReason> {
        while !out.is_empty() {
            let count = self.some(out).await?;
            out = &mut out[count..];
        }
        Ok(())
    }

    /// Reads at least a byte. Silence is a stall only while the peer owes an answer.
    async fn some(&mut self, out: &mut [u8]) -> Result<usize, CloseReason> {
        let limit = self.shared.timing.stall;
        loop {
            match tokio::time::timeout(limit, self.inner.read(out)).await {
                Ok(Ok(0)) => return Err(CloseReason::Ended),
                Ok(Ok(count)) => {
                    self.shared.stats.add_in(count);
                    return Ok(count);
                }
                Ok(Err(e)) => return Err(e.into()),
                Err(_) if self.pending.waiting() < limit => {}
                Err(_) => return Err(CloseReason::Stalled),
            }
        }
    }
}

/// Asks that were written and not answered, oldest first. Shared by the two halves of one task.
#[derive(Debug, Default)]
struct Pending(Mutex<(VecDeque<Ask>, Option<Instant>)>);

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, (VecDeque<Ask>, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, asks: impl Iterator<Item = Ask>) {
        let mut inner = self.lock();
        if inner.0.is_empty() {
            inner.1 = Some(Instant::now());
        }
        inner.0.extend(asks);
    }

    fn front(&self) -> Option<Ask> {
        self.lock().0.front().cloned()
    }

    fn pop(&self) {
        self.lock().0.pop_front();
    }

    /// Returns for how long there has been an ask without an answer.
    fn waiting(&self) -> Duration {
        let inner = self.lock();
        match inner.1 {
            Some(since) if !inner.0.is_empty() => since.elapsed(),
            _ => Duration::ZERO,
        }
    }

    fn drain(&self) -> Vec<Ask> {
        self.lock().0.drain(..).collect()
    }
}
