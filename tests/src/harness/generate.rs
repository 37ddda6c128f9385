//! Folders to synchronise: a tree that looks like the source code of a large program.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::Random;

/// A synthetic source tree. Sizes follow what large source trees show: half of the files below 4 KiB, a few of
/// hundreds of KiB, 20 KiB on average; a dozen files in a directory, up to six levels deep.
#[derive(Debug, Clone, Copy)]
pub struct SourceTree {
    /// From which everything is derived; equal seeds give equal trees, times included.
    pub seed: u64,
    /// Number of regular files.
    pub files: usize,
}

/// What [`SourceTree::write_to`] made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Regular files.
    pub files: usize,
    /// Directories.
    pub dirs: usize,
    /// Symbolic links.
    pub links: usize,
    /// Bytes in all files.
    pub bytes: u64,
}

/// Files in one directory before the next is begun.
const FILES_PER_DIR: usize = 12;
/// Depth of the deepest directory.
const DEPTH_MOST: usize = 6;
/// One file in this many is executable.
const EXECUTABLE_EVERY: u64 = 30;
/// One directory in this many gets a symbolic link, and one in this many an empty directory.
const EXTRA_EVERY: u64 = 20;

impl SourceTree {
    /// Writes the tree below `root`, which must exist.
    ///
    /// # Errors
    /// Fails with the path that could not be written.
    pub fn write_to(&self, root: &Path) -> Result<Written> {
        let mut random = Random::new(self.seed);
        let mut dirs = vec![PathBuf::new()];
        let mut done = Written::default();
        while done.files < self.files {
            let dir = new_dir(done.dirs + 1, &mut random, &mut dirs);
            let full = root.join(&dir);
            fs::create_dir_all(&full).with_context(|| format!("Making {}", full.display()))?;
            done.dirs += 1;
            for _ in 0..FILES_PER_DIR.min(self.files - done.files) {
                done.bytes += self.write_file(&full, done.files, &mut random)?;
                done.files += 1;
            }
            if random.below(EXTRA_EVERY) == 0 {
                let link = full.join("latest");
                symlink("../nowhere", &link).with_context(|| format!("Linking {}", link.display()))?;
                done.links += 1;
            }
            if random.below(EXTRA_EVERY) == 0 {
                let empty = full.join("empty");
                fs::create_dir(&empty).with_context(|| format!("Making {}", empty.display()))?;
                done.dirs += 1;
            }
        }
        Ok(done)
    }

    fn write_file(&self, dir: &Path, number: usize, random: &mut Random) -> Result<u64> {
        let suffix = ["rs", "c", "h", "md", "toml", "py"][random.below(6) as usize];
        let path = dir.join(format!("unit_{number:05}.{suffix}"));
        let mut bytes = vec![0; source_size(random)];
        random.fill(&mut bytes);
        let mode = if random.below(EXECUTABLE_EVERY) == 0 {
            0o755
        } else {
            0o644
        };
        let age = Duration::new(random.below(300_000_000), random.below(1_000_000_000) as u32);
        write(&path, &bytes, mode, age).with_context(|| format!("Writing {}", path.display()))?;
        Ok(bytes.len() as u64)
    }
}

/// Writes `size` bytes that do not compress and that no other seed gives.
///
/// # Errors
/// Fails with the path that could not be written.
pub fn fill_file(path: &Path, size: u64, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut file = File::create(path).with_context(|| format!("Making {}", path.display()))?;
    let mut block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let part = left.min(block.len() as u64) as usize;
        random.fill(&mut block[..part]);
        file.write_all(&block[..part])
            .with_context(|| format!("Writing {}", path.display()))?;
        left -= part as u64;
    }
    Ok(())
}

fn new_dir(number: usize, random: &mut Random, dirs: &mut Vec<PathBuf>) -> PathBuf {
    let parent = dirs[random.below(dirs.len() as u64) as usize].clone();
    let dir = parent.join(format!("module_{number:04}"));
    if dir.components().count() < DEPTH_MOST {
        dirs.push(dir.clone());
    }
    dir
}

/// Quantiles of file sizes, each range taken evenly: an average of about 20 KiB.
fn source_size(random: &mut Random) -> usize {
    let (from, to) = match random.below(1000) {
        0..10 => (0, 1),
        10..250 => (20, 1 << 10),
        250..520 => (1 << 10, 4 << 10),
        520..800 => (4 << 10, 16 << 10),
        800..960 => (16 << 10, 64 << 10),
        960..995 => (64 << 10, 256 << 10),
        _ => (256 << 10, 1 << 20),
    };
    from + random.below((to - from) as u64) as usize
}

fn write(path: &Path, bytes: &[u8], mode: u32, age: Duration) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    let newest = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    file.set_modified(newest - age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Tree;

    #[test]
    fn equal_seeds_give_equal_trees_and_others_differ() {
        let dirs = [7, 7, 8].map(|seed| {
            let dir = tempfile::tempdir().unwrap();
            let done = SourceTree { seed, files: 1200 }.write_to(dir.path()).unwrap();
            let entries = crate::harness::count_entries(dir.path());
            assert_eq!((done.files, done.files + done.dirs + done.links), (1200, entries));
            dir
        });
        let [first, same, other] = dirs.each_ref().map(|dir| Tree::read(dir.path()).unwrap());
        assert_eq!(first.differences(&same), Vec::<String>::new());
        assert!(!first.differences(&other).is_empty());
    }

    #[test]
    fn filled_file_has_its_size_and_repeats() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fill_file(&dir.path().join(name), (2 << 20) + 5, 3).unwrap();
        }
        let [a, b] = ["a", "b"].map(|name| fs::read(dir.path().join(name)).unwrap());
        assert_eq!(a.len(), (2 << 20) + 5);
        assert!(a == b);
    }
}
