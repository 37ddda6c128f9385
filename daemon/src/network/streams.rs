//! Streams of content between members. libp2p-stream does the work; this closes its traps: it drops an inbound stream
//! when nobody polls for it, it dials by itself and then fails without an address, and it waits without an end.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use libp2p::{PeerId, Stream};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use p2p_sync_core::ids::DeviceId;
use tokio::sync::{mpsc, watch};

use super::behaviour::CONTENT_PROTOCOL;
use super::identity::{IdentityError, peer_of};

/// Inbound streams that wait for the event loop; a stream beyond it is closed, and its peer opens another.
pub(super) const STREAM_QUEUE: usize = 32;
/// Attempts to open a stream before giving up.
const OPEN_ATTEMPTS: u32 = 4;
/// The wait before the second attempt; grows with each.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How long one attempt may take: negotiation is one round trip.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The id is not that of a device.
    #[error("Not the id of a device")]
    Identity(#[from] IdentityError),
    /// The device is no member, or not connected as one.
    #[error("The device is not connected as a member")]
    NotConnected,
    /// The device does not offer the protocol: it does not take this device for a member (yet).
    #[error("The device does not accept streams of content")]
    Unsupported,
    /// The connection broke.
    #[error("The connection broke")]
    Io(#[source] std::io::Error),
    /// The device did not answer in time.
    #[error("The device did not answer in time")]
    TimedOut,
}

/// Opens streams of content to members; a cheap handle.
#[derive(Clone)]
pub struct StreamOpener {
    control: Control,
    open: watch::Receiver<BTreeSet<PeerId>>,
}

impl std::fmt::Debug for StreamOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamOpener").finish_non_exhaustive()
    }
}

impl StreamOpener {
    pub(super) const fn new(control: Control, open: watch::Receiver<BTreeSet<PeerId>>) -> Self {
        Self { control, open }
    }

    /// Opens a stream to a connected member.
    ///
    /// # Errors
    /// [`OpenError`]. [`OpenError::NotConnected`] and [`OpenError::Unsupported`] come at once; a broken connection is
    /// retried a few times before.
    ///
    /// # Cancel safety
    /// Dropping the future closes a stream that was being opened.
    pub async fn open(&self, device: DeviceId) -> Result<Stream, OpenError> {
        let peer = peer_of(&device)?;
        let mut last = OpenError::NotConnected;
        for attempt in 0..OPEN_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(OPEN_RETRY_DELAY * attempt).await;
            }
            if !self.open.borrow().contains(&peer) {
                return Err(last);
            }
            let mut control = self.control.clone();
            let opening = control.open_stream(peer, CONTENT_PROTOCOL);
            last = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(OpenStreamError::UnsupportedProtocol(_))) => return Err(OpenError::Unsupported),
                Ok(Err(OpenStreamError::Io(error))) => OpenError::Io(error),
                Ok(Err(_)) => OpenError::NotConnected,
                Err(_) => return Err(OpenError::TimedOut),
            };
        }
        Err(last)
    }
}

/// Moves inbound streams into the queue, and does nothing else: while it is busy, streams are lost.
pub(super) async fn accept(mut incoming: IncomingStreams, queue: mpsc::Sender<(PeerId, Stream)>) {
    while let Some(inbound) = incoming.next().await {
        let peer = inbound.0;
        match queue.try_send(inbound) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::debug!(%peer, "Inbound stream of content closed: too many are waiting");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}
