//! Contents: what a file's bytes are called and how they are cut into chunks.
//!
//! A content is named by the BLAKE3 hash of its bytes. Its [`Manifest`] lists the chaining value of each 1 MiB chunk;
//! merging them gives the name again, so a manifest proves itself and each chunk can be checked alone. A content of at
//! most one chunk needs no manifest: its name is the hash of its only chunk.
//!
//! Source of the tree shape: the BLAKE3 paper, section 2.1; `blake3::hazmat` computes the subtrees.

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use crate::ids::ContentHash;

/// Bytes of one chunk. 1 MiB = 2^10 BLAKE3 chunks, so a chunk is a whole subtree.
pub const CHUNK_SIZE: u64 = 1 << 20;

/// Hash of one chunk: its subtree's chaining value (for a content of one chunk: the content's hash).
pub type ChunkHash = [u8; 32];

/// Why chunk hashes are not the manifest of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The number of chunk hashes does not fit the size.
    #[error("A content of {size} bytes has {expected} chunks, not {actual}")]
    Count {
        /// Bytes of the content.
        size: u64,
        /// Chunks it has.
        expected: u64,
        /// Chunk hashes given.
        actual: u64,
    },
    /// The chunk hashes do not merge to the content's name.
    #[error("The chunk hashes do not add up to the content")]
    Root,
}

/// The chunks of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    content: ContentHash,
    size: u64,
    chunks: Vec<ChunkHash>,
}

impl Manifest {
    /// Checks that `chunks` are the chunk hashes of `content`.
    ///
    /// # Errors
    /// One of [`ManifestError`].
    pub fn new(content: ContentHash, size: u64, chunks: Vec<ChunkHash>) -> Result<Self, ManifestError> {
        let expected = chunk_count(size);
        let actual = chunks.len() as u64;
        if expected != actual {
            return Err(ManifestError::Count {
                size,
                expected,
                actual,
            });
        }
        if merge(&chunks) != content {
            return Err(ManifestError::Root);
        }
        Ok(Self {
            content,
            size,
            chunks,
        })
    }

    /// Returns the name of the content.
    #[must_use]
    pub const fn content(&self) -> ContentHash {
        self.content
    }

    /// Returns the content's length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the chunk hashes, one for each [`chunk_len`] bytes.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkHash] {
        &self.chunks
    }
}

/// Returns how many chunks a content has; one for the empty content.
#[must_use]
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE).max(1)
}

/// Returns the length in bytes of chunk `index` of a content of `size` bytes; 0 beyond its end.
#[must_use]
pub fn chunk_len(size: u64, index: u64) -> u64 {
    size.saturating_sub(index.saturating_mul(CHUNK_SIZE))
        .min(CHUNK_SIZE)
}

/// Returns the hash of chunk `index`, whose bytes are `bytes`, of a content of `size` bytes.
#[must_use]
pub fn hash_chunk(size: u64, index: u64, bytes: &[u8]) -> ChunkHash {
    if size <= CHUNK_SIZE {
        return *blake3::hash(bytes).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index * CHUNK_SIZE);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Merges the chunk hashes of a content into its name.
#[must_use]
fn merge(chunks: &[ChunkHash]) -> ContentHash {
    let [only] = chunks else {
        let (left, right) = split(chunks);
        let root = hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
        return ContentHash::new(*root.as_bytes());
    };
    ContentHash::new(*only)
}

fn subtree(chunks: &[ChunkHash]) -> ChainingValue {
    let [only] = chunks else {
        let (left, right) = split(chunks);
        return hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash);
    };
    *only
}

/// Splits as BLAKE3 does: the left part is the largest power of two below the whole.
fn split(chunks: &[ChunkHash]) -> (&[ChunkHash], &[ChunkHash]) {
    let left = (chunks.len().next_power_of_two() / 2).max(1);
    chunks.split_at(left)
}

/// Hashes a content whose size is not known before its end, in one pass.
///
/// Feed bytes in any portions with [`update`](Self::update); [`finish`](Self::finish) gives the manifest.
#[derive(Debug, Default)]
pub struct ManifestHasher {
    whole: blake3::Hasher,
    chunk: Option<blake3::Hasher>,
    in_chunk: u64,
    size: u64,
    chunks: Vec<ChunkHash>,
}

impl ManifestHasher {
    /// Makes a hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    ///
    /// A whole aligned chunk at once is hashed once; the first chunk is hashed twice, since only its end tells whether
    /// it is the only one.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(CHUNK_SIZE - self.in_chunk).unwrap_or(usize::MAX);
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            if self.chunks.is_empty() {
                self.whole.update(head);
            }
            let offset = self.chunks.len() as u64 * CHUNK_SIZE;
            let chunk = self.chunk.get_or_insert_with(|| {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(offset);
                hasher
            });
            chunk.update(head);
            self.in_chunk += head.len() as u64;
            self.size += head.len() as u64;
            if self.in_chunk == CHUNK_SIZE {
                self.end_chunk();
            }
            bytes = rest;
        }
    }

    /// Returns the manifest of all bytes taken.
    #[must_use]
    pub fn finish(mut self) -> Manifest {
        if self.size <= CHUNK_SIZE {
            let root = *self.whole.finalize().as_bytes();
            return Manifest {
                content: ContentHash::new(root),
                size: self.size,
                chunks: vec![root],
            };
        }
        if self.in_chunk > 0 {
            self.end_chunk();
        }
        Manifest {
            content: merge(&self.chunks),
            size: self.size,
            chunks: self.chunks,
        }
    }

    fn end_chunk(&mut self) {
        if let Some(hasher) = self.chunk.take() {
            self.chunks.push(hasher.finalize_non_root());
        }
        self.in_chunk = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn the_manifest_names_the_standard_hash() {
        let mib = CHUNK_SIZE as usize;
        for len in [
            0,
            1,
            1024,
            mib - 1,
            mib,
            mib + 1,
            2 * mib,
            3 * mib + 17,
            5 * mib,
            7 * mib + 1,
        ] {
            let data = bytes(len);
            for step in [len.max(1), 65_537] {
                let mut hasher = ManifestHasher::new();
                data.chunks(step).for_each(|part| hasher.update(part));
                let manifest = hasher.finish();
                assert_eq!(manifest.content(), ContentHash::of(&data), "{len} by {step}");
                assert_eq!(manifest.size(), len as u64);
                for (i, chunk) in data.chunks(mib).enumerate() {
                    assert_eq!(hash_chunk(len as u64, i as u64, chunk), manifest.chunks()[i]);
                }
                let again = Manifest::new(manifest.content(), len as u64, manifest.chunks().to_vec());
                assert_eq!(again.as_ref(), Ok(&manifest));
            }
        }
    }

    #[test]
    fn a_manifest_that_does_not_add_up_is_refused() {
        let data = bytes(3 * CHUNK_SIZE as usize);
        let mut hasher = ManifestHasher::new();
        hasher.update(&data);
        let manifest = hasher.finish();
        let mut chunks = manifest.chunks().to_vec();
        chunks[1][0] ^= 1;
        assert_eq!(
            Manifest::new(manifest.content(), manifest.size(), chunks),
            Err(ManifestError::Root)
        );
        let short = manifest.chunks()[..2].to_vec();
        assert!(matches!(
            Manifest::new(manifest.content(), manifest.size(), short),
            Err(ManifestError::Count {
                expected: 3,
                actual: 2,
                ..
            })
        ));
    }
}
