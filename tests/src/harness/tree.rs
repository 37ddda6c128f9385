//! What stands in a folder, and how two folders differ.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The daemon's own directory at the top of a folder; never compared.
const OWN_DIR: &str = ".p2p-sync";

/// One entry of a [`Tree`], with exactly what the synchroniser promises to carry: times of directories and of links
/// are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A regular file.
    File {
        /// BLAKE3 of its bytes.
        hash: [u8; 32],
        /// Length in bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Modification time, nanoseconds since 1970.
        mtime_ns: i128,
    },
    /// A directory with its permission bits.
    Dir {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link with its text.
    Link {
        /// The text.
        target: PathBuf,
    },
    /// A socket, fifo or device.
    Special,
}

/// A folder as read from disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Entries by path relative to the folder.
    pub items: BTreeMap<PathBuf, Item>,
}

impl Tree {
    /// Reads a folder.
    ///
    /// # Errors
    /// Fails with the path that could not be read; an entry that goes away while it is read is left out.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_dir(root, Path::new(""))?;
        Ok(tree)
    }

    /// Returns one line for each path at which the trees differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, item) in &self.items {
            match other.items.get(path) {
                None => lines.push(format!("{}: only in the first", path.display())),
                Some(theirs) if theirs != item => {
                    lines.push(format!("{}: {item:?} and {theirs:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let extra = other.items.keys().filter(|path| !self.items.contains_key(*path));
        lines.extend(extra.map(|path| format!("{}: only in the second", path.display())));
        lines
    }

    /// Returns the paths that are named as conflict copies.
    #[must_use]
    pub fn conflict_copies(&self) -> Vec<&Path> {
        let is_copy = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| {
                let name = name.as_bytes();
                name.windows(11).any(|part| part == b" (conflict ")
            })
        };
        self.items.keys().filter(is_copy).map(PathBuf::as_path).collect()
    }

    /// Says whether something stands at a path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.items.contains_key(Path::new(path))
    }

    /// Returns the number of regular files.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.items
            .values()
            .filter(|item| matches!(item, Item::File { .. }))
            .count()
    }

    fn read_dir(&mut self, root: &Path, below: &Path) -> Result<()> {
        let dir = root.join(below);
        let Some(entries) =
            unless_gone(fs::read_dir(&dir)).with_context(|| format!("Listing {}", dir.display()))?
        else {
            return Ok(());
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("Listing {}", dir.display()))?;
            let path = below.join(entry.file_name());
            if path == Path::new(OWN_DIR) {
                continue;
            }
            let item = unless_gone(read_item(&entry.path()))
                .with_context(|| format!("Reading {}", entry.path().display()))?;
            let Some(item) = item else { continue };
            let is_dir = matches!(item, Item::Dir { .. });
            self.items.insert(path.clone(), item);
            if is_dir {
                self.read_dir(root, &path)?;
            }
        }
        Ok(())
    }
}

/// Returns what lies in the daemon's directory of temporary files; empty when nothing is under way.
///
/// # Errors
/// Fails if the directory is there and cannot be read.
pub fn leftovers(folder: &Path) -> Result<Vec<PathBuf>> {
    let dir = folder.join(OWN_DIR).join("tmp");
    let entries = unless_gone(fs::read_dir(&dir)).with_context(|| format!("Listing {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries.into_iter().flatten() {
        names.push(
            entry
                .with_context(|| format!("Listing {}", dir.display()))?
                .path(),
        );
    }
    names.sort();
    Ok(names)
}

/// Counts the entries below a directory without reading them; what goes away meanwhile does not count.
#[must_use]
pub fn count_entries(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let with_below = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => 1 + count_entries(&entry.path()),
        _ => 1,
    };
    entries.flatten().map(with_below).sum()
}

fn read_item(path: &Path) -> io::Result<Item> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let mode = meta.permissions().mode() & 0o777;
    Ok(if kind.is_dir() {
        Item::Dir { mode }
    } else if kind.is_symlink() {
        Item::Link {
            target: fs::read_link(path)?,
        }
    } else if kind.is_file() {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Item::File {
            hash: *hasher.finalize().as_bytes(),
            size: meta.len(),
            mode,
            mtime_ns: mtime_ns(&meta),
        }
    } else {
        Item::Special
    })
}

fn mtime_ns(meta: &Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/empty")).unwrap();
        fs::write(dir.path().join("a/file"), "text").unwrap();
        symlink("file", dir.path().join("a/link")).unwrap();
        fs::create_dir_all(dir.path().join(".p2p-sync/tmp")).unwrap();
        let file = File::options()
            .write(true)
            .open(dir.path().join("a/file"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        dir
    }

    fn check(change: impl Fn(&Path), differing: &[&str]) {
        let [one, two] = [folder(), folder()];
        change(two.path());
        let [first, second] = [&one, &two].map(|dir| Tree::read(dir.path()).unwrap());
        let lines = first.differences(&second);
        let paths: Vec<_> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(paths, differing);
    }

    #[test]
    fn differences_are_seen_in_everything_that_is_carried() {
        check(|_| {}, &[]);
        check(|dir| fs::write(dir.join(".p2p-sync/tmp/x"), "").unwrap(), &[]);
        check(|dir| fs::write(dir.join("a/file"), "TEXT").unwrap(), &["a/file"]);
        check(
            |dir| fs::set_permissions(dir.join("a/file"), PermissionsExt::from_mode(0o600)).unwrap(),
            &["a/file"],
        );
        check(|dir| fs::remove_dir(dir.join("a/empty")).unwrap(), &["a/empty"]);
        check(|dir| fs::write(dir.join("b"), "").unwrap(), &["b"]);
        let relink = |dir: &Path| {
            fs::remove_file(dir.join("a/link")).unwrap();
            symlink("other", dir.join("a/link")).unwrap();
        };
        check(relink, &["a/link"]);
        let touch = |dir: &Path| {
            let file = File::options().write(true).open(dir.join("a/file")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1))
                .unwrap();
        };
        check(touch, &["a/file"]);
    }

    #[test]
    fn conflict_copies_and_leftovers_are_found() {
        let dir = folder();
        fs::write(dir.path().join("a/file (conflict abababab-1)"), "").unwrap();
        fs::write(dir.path().join(".p2p-sync/tmp/half"), "").unwrap();
        let tree = Tree::read(dir.path()).unwrap();
        assert_eq!(
            tree.conflict_copies(),
            [Path::new("a/file (conflict abababab-1)")]
        );
        assert_eq!(leftovers(dir.path()).unwrap().len(), 1);
        assert_eq!(leftovers(&dir.path().join("nowhere")).unwrap().len(), 0);
    }
}
