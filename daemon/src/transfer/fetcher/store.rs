//! Checks answers and writes them; runs on blocking threads.

use std::ops::Range;
use std::sync::Arc;

use p2p_sync_core::content::ChunkHash;
use p2p_sync_core::ids::ContentHash;

use super::super::disk::{Folder, zeros};
use super::super::part::{ChunkError, Part};
use super::super::pool::Buffer;
use super::super::wire::{Request, Want};

/// A request with what is needed to store its answer.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) request: Request,
    /// Where a chunk goes; `None` for whole contents and pages.
    pub(super) part: Option<Arc<Part>>,
}

impl Ask {
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.request.want, Want::Whole)
    }
}

/// What came of an ask.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The bytes are verified and written.
    Stored,
    /// A page of chunk hashes; proven only by the whole manifest.
    Page(Vec<ChunkHash>),
    /// The peer does not have it.
    NotFound,
    /// The bytes are not what was asked for.
    Bad,
    /// They could not be written.
    Disk(String),
}

/// Where an answer's bytes are.
#[derive(Debug)]
pub(super) enum Bytes {
    At(Range<usize>),
    Zero,
}

/// Answers that share a buffer and are stored together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) buffer: Option<Buffer>,
    pub(super) items: Vec<(Ask, Bytes)>,
}

impl Batch {
    /// Checks and writes everything.
    pub(super) fn store(self, folder: &Folder) -> Vec<(Ask, Outcome)> {
        let filled = self.buffer.as_ref().map_or(&[][..], Buffer::filled);
        let store = |(ask, bytes): (Ask, Bytes)| {
            let bytes = match bytes {
                Bytes::At(range) => &filled[range],
                Bytes::Zero => zeros(ask.request.payload_len()),
            };
            let outcome = store_one(folder, &ask, bytes);
            (ask, outcome)
        };
        self.items.into_iter().map(store).collect()
    }
}

fn store_one(folder: &Folder, ask: &Ask, bytes: &[u8]) -> Outcome {
    match (ask.request.want, &ask.part) {
        (Want::Whole, _) if ContentHash::of(bytes) != ask.request.content => Outcome::Bad,
        (Want::Whole, _) => match folder.store_small(&ask.request.content, bytes) {
            Ok(()) => Outcome::Stored,
            Err(e) => Outcome::Disk(e.text()),
        },
        (Want::Chunk(index), Some(part)) => match part.store(index, bytes) {
            Ok(()) => Outcome::Stored,
            Err(ChunkError::Bad) => Outcome::Bad,
            Err(ChunkError::Disk(e)) => Outcome::Disk(e.text()),
        },
        (Want::Chunk(_), None) | (Want::Page(_), _) => Outcome::NotFound,
    }
}
