//! A folder's tree, for comparing two of them.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::DemoError;

/// What an entry is, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    kind_and_mode: u32,
    size: u64,
    /// Seconds and nanoseconds; none for directories, whose times are not synced.
    mtime: Option<(i64, i64)>,
}

/// All entries of a folder with a hash of their bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, (Shape, [u8; 32])>);

impl Tree {
    /// Reads a folder, bytes included.
    pub(super) fn read(root: &Path) -> Result<Self, DemoError> {
        let shapes = Self::shapes(root)?;
        let mut entries = BTreeMap::new();
        for (path, shape) in shapes {
            let full = root.join(&path);
            let hash = match shape.kind_and_mode & 0o170_000 {
                0o100_000 => hash_file(&full)?,
                0o120_000 => {
                    let text = std::fs::read_link(&full).unwrap_or_default();
                    *blake3::hash(text.as_os_str().as_encoded_bytes()).as_bytes()
                }
                _ => [0; 32],
            };
            entries.insert(path, (shape, hash));
        }
        Ok(Self(entries))
    }

    /// Reads what `lstat` says of every entry but the daemon's own directory. What vanishes meanwhile is left out.
    pub(super) fn shapes(root: &Path) -> Result<BTreeMap<PathBuf, Shape>, DemoError> {
        let mut shapes = BTreeMap::new();
        let mut open = vec![PathBuf::new()];
        while let Some(dir) = open.pop() {
            let Ok(entries) = std::fs::read_dir(root.join(&dir)) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = dir.join(entry.file_name());
                if dir.as_os_str().is_empty() && entry.file_name() == ".p2p-sync" {
                    continue;
                }
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    open.push(path.clone());
                }
                shapes.insert(path, shape(&metadata));
            }
        }
        Ok(shapes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|(shape, _)| shape.size).sum()
    }

    /// Names the first entry that differs.
    pub(super) fn difference(&self, other: &Self) -> String {
        let paths = self.0.keys().chain(other.0.keys());
        let different = paths.filter(|path| self.0.get(*path) != other.0.get(*path)).min();
        different.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
    }
}

fn hash_file(path: &Path) -> Result<[u8; 32], DemoError> {
    let failed = |source| DemoError::Io {
        path: path.to_owned(),
        source,
    };
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(std::fs::File::open(path).map_err(failed)?)
        .map_err(failed)?;
    Ok(*hasher.finalize().as_bytes())
}

fn shape(metadata: &Metadata) -> Shape {
    let dir = metadata.is_dir();
    Shape {
        kind_and_mode: metadata.mode(),
        size: if dir { 0 } else { metadata.size() },
        mtime: (!dir).then(|| (metadata.mtime(), metadata.mtime_nsec())),
    }
}
