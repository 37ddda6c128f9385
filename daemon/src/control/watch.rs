//! The `Watch` stream: one task for each watcher between the channels of the daemon and a bounded queue to the client.
//!
//! A client that does not read fills its queue; then the task waits, the notification channel runs over, and the
//! client is told how many were dropped. Nothing else waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use p2p_sync_core::engine::Notification;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::watch_response::Change;
use tokio::sync::{broadcast, mpsc, watch as latest};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::status::from_error;
use super::{Backend, ControlError, StatusSnapshot, convert};

/// Messages on their way to one client, besides what HTTP/2 itself holds.
const QUEUE: usize = 64;
/// Statuses come at most this often; a scan changes its counts thousands of times a second.
const STATUS_PAUSE: Duration = Duration::from_millis(100);
/// When nothing happens for so long, the client hears that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Starts a stream; its first message is the status.
pub(super) fn stream(
    backend: &Backend,
    stopping: latest::Receiver<bool>,
) -> impl Stream<Item = Result<v1::WatchResponse, Status>> + Send + use<> {
    let (queue, messages) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        status: backend.status.clone(),
        notifications: backend.notifications.subscribe(),
        stopping,
        queue,
        seq: 0,
    };
    tokio::spawn(watcher.run());
    ReceiverStream::new(messages)
}

struct Watcher {
    status: latest::Receiver<Arc<StatusSnapshot>>,
    notifications: broadcast::Receiver<Notification>,
    stopping: latest::Receiver<bool>,
    queue: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    seq: u64,
}

/// The client went away.
struct Gone;

impl Watcher {
    async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        let queue = self.queue.clone();
        let stopped = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => true,
            () = queue.closed() => false,
            result = self.pass_on() => result.is_ok(),
        };
        if stopped {
            // Best effort: a client that does not read sees the connection close instead.
            let _ = queue.try_send(Err(from_error(&ControlError::Stopping)));
        }
    }

    /// Sends what happens until the daemon's channels end.
    async fn pass_on(&mut self) -> Result<(), Gone> {
        self.send_status().await?;
        let mut next_status = Instant::now() + STATUS_PAUSE;
        let mut status_changed = false;
        loop {
            let event = tokio::select! {
                event = self.notifications.recv() => event,
                changed = self.status.changed(), if !status_changed => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    status_changed = true;
                    continue;
                }
                () = tokio::time::sleep_until(next_status), if status_changed => {
                    status_changed = false;
                    self.send_status().await?;
                    next_status = Instant::now() + STATUS_PAUSE;
                    continue;
                }
                () = tokio::time::sleep(HEARTBEAT) => {
                    self.send(Change::Heartbeat(v1::Heartbeat {})).await?;
                    continue;
                }
            };
            let change = match event {
                Ok(event) => convert::change(event, &self.status.borrow()),
                Err(broadcast::error::RecvError::Lagged(n)) => {
                    status_changed = true;
                    Change::Dropped(n)
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            self.send(change).await?;
        }
    }

    async fn send_status(&mut self) -> Result<(), Gone> {
        let status = convert::status(&self.status.borrow_and_update());
        self.send(Change::Status(status)).await
    }

    async fn send(&mut self, change: Change) -> Result<(), Gone> {
        self.seq += 1;
        let message = v1::WatchResponse {
            seq: self.seq,
            time: Some(SystemTime::now().into()),
            change: Some(change),
        };
        self.queue.send(Ok(message)).await.map_err(|_| Gone)
    }
}
