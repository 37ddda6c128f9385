//! Buffers of one chunk that are used again: fresh ones cost a fifth of the time in page faults.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::wire::{HEADER_LEN, MAX_PAYLOAD};

/// Bytes of a buffer: one answer of the greatest length with its header.
pub(super) const BUFFER_LEN: usize = HEADER_LEN + MAX_PAYLOAD;

/// Hands out a bounded number of buffers; whoever wants one more waits.
#[derive(Debug)]
pub(super) struct BufferPool {
    free: Mutex<Vec<Box<[u8]>>>,
    permits: Arc<Semaphore>,
}

impl BufferPool {
    /// Makes a pool of at most `count` buffers; they are allocated when first wanted.
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(count)),
        })
    }

    /// Returns a buffer when one is free; its old bytes are still in it.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn take(self: &Arc<Self>) -> Buffer {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice()),
            len: 0,
            pool: Arc::clone(self),
            _permit: permit.ok(),
        }
    }
}

/// A buffer of [`BUFFER_LEN`] bytes, of which the first `len` are in use. Goes back to its pool when dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
    pool: Arc<BufferPool>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// Returns the bytes in use.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Returns the bytes not in use.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// Returns how many bytes are not in use.
    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    /// Takes `count` bytes of [`spare`](Self::spare) into use.
    pub(super) fn advance(&mut self, count: usize) {
        self.len = (self.len + count).min(self.bytes.len());
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(bytes);
    }
}
