//! Content transfer: gets the bytes of contents from this device's own files or from other members, and hands the
//! bytes of this folder's files to members.
//!
//! A [`Provider`] answers requests on streams that members open; a [`Fetcher`] opens one long-lived stream to each
//! member it needs, writes requests ahead of the answers (no round trip per chunk or per small file), and puts
//! verified bytes into `.p2p-sync/tmp`. Both are independent of the transport ([`StreamSource`]) and of the store
//! ([`ContentIndex`]). The wire format is described in `transfer/wire.rs`.
//!
//! * **Nothing unverified passes.** A provider hashes what it read before it sends it (a file may have changed or
//!   rotted); a fetcher hashes what it got before it writes it, and what it finds on its own disk before it counts it.
//! * **Names in `.p2p-sync/tmp`.** `<hash in hex>` is a complete verified content, ready to install; `<hash>.part` a
//!   content of more than one chunk under way. Contents of at most one chunk are written under their final name in one
//!   go: if that fails the file is removed, a file that already has the name is verified before it is believed, and
//!   at start the lead sweeps every name without `.part`, so no crash leaves a wrong one. Nothing is synced here; the
//!   installer does that.
//! * **Lost in a crash:** contents under way are taken up again from `.part` and the bitmap in the store, whose claims
//!   are checked by hash (so neither needs to be synced); at most a second or 64 MiB is fetched twice.

mod disk;
mod fetcher;
mod part;
mod pool;
mod prepare;
mod provider;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite};
use p2p_sync_core::content::Manifest;
use p2p_sync_core::ids::{ContentHash, DeviceId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Installed;

pub use fetcher::{FetchEvent, FetchHandle, FetchTiming, Fetcher};
pub use provider::{Provider, ServeError};
pub use wire::WireError;

/// A two-way byte stream to another device.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A [`ByteStream`] of whatever kind.
pub type BoxStream = Box<dyn ByteStream>;

/// Opens content streams to other devices.
pub trait StreamSource: Send + Sync {
    /// Opens a stream to a device over a connection that exists.
    fn open(&self, device: DeviceId) -> BoxFuture<'_, Result<BoxStream, OpenError>>;
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no connection to that device; not tried again until somebody names the device as a source again.
    #[error("The device is not connected")]
    NotConnected,
    /// The stream was refused or lost; tried again.
    #[error("The stream could not be opened")]
    Failed(#[source] std::io::Error),
}

/// What transfer needs of the store. Called on blocking threads only.
pub trait ContentIndex: Send + Sync {
    /// Returns the manifest of a content of more than one chunk.
    fn manifest(&self, content: &ContentHash) -> Option<Manifest>;
    /// Keeps a manifest.
    fn put_manifest(&self, manifest: Manifest);
    /// Returns where this content is installed.
    fn files(&self, content: &ContentHash) -> Vec<(RelPath, Installed)>;
    /// Returns where this content may lie besides, relative to the folder: what was replaced and is kept.
    fn kept(&self, content: &ContentHash) -> Vec<RelPath>;
    /// Returns the bitmap of a content under way: bit `i % 8` of byte `i / 8` says that chunk `i` was written.
    fn partial(&self, content: &ContentHash) -> Option<Vec<u8>>;
    /// Keeps the bitmap of a content under way; need not be durable at once.
    fn set_partial(&self, content: &ContentHash, bitmap: Vec<u8>);
    /// Forgets the bitmap of a content.
    fn clear_partial(&self, content: &ContentHash);
}

/// Why the folder's directories could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("Could not open the directory {}", path.display())]
pub struct OpenFolderError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Bytes moved since the daemon started.
#[derive(Default)]
pub struct TransferStats {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl TransferStats {
    /// Returns the bytes read from content streams.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Returns the bytes of content answers written to streams.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    fn add_in(&self, count: usize) {
        self.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn add_out(&self, count: usize) {
        self.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for TransferStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TransferStats({} in, {} out)",
            self.bytes_in(),
            self.bytes_out()
        )
    }
}
