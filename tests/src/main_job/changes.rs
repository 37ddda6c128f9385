//! The changes of the main job, each made on another device.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::MainJob;
use crate::harness::Random;

/// Files that each kind of change takes.
const EACH: usize = 200;
/// A directory is worth moving or deleting whole from this many entries on.
const LARGE_DIR: usize = 500;

/// Makes them one after the other.
pub(super) fn make_all(job: &mut MainJob<'_>) -> Result<()> {
    job.step(
        "200 files each appended, edited, renamed, moved, deleted on cleo",
        small_changes,
    )?;
    job.step("the large file edited in place on anna", |job| {
        let mut file = open(&job.group[0].path("large"))?;
        let middle = file.metadata().context("Reading the size")?.len() / 2;
        file.seek(SeekFrom::Start(middle)).context("Seeking")?;
        file.write_all(&[b'e'; 4000]).context("Editing")
    })?;
    job.step("the large file appended on cleo", |job| {
        let mut file = open(&job.group[2].path("large"))?;
        file.seek(SeekFrom::End(0)).context("Seeking")?;
        file.write_all(&vec![b'a'; 1 << 20]).context("Appending")
    })?;
    job.step("the large file moved on ben", |job| {
        let (from, to) = (job.group[1].path("large"), job.group[1].path("tree/larger"));
        fs::rename(from, to).context("Moving the large file")
    })?;
    job.step("empty directories and links made on ben", |job| {
        let dir = job.group[1].path("tree/empty/deeper");
        fs::create_dir_all(&dir).context("Making directories")?;
        std::os::unix::fs::symlink("../nowhere", dir.with_file_name("link")).context("Making a link")
    })?;
    let dirs = large_dirs(&job.group[0].path("tree"))?;
    let Some((moved, count)) = dirs.first() else {
        return Ok(());
    };
    job.step(&format!("a directory of {count} entries moved on anna"), |job| {
        let from = job.group[0].path("tree").join(moved);
        fs::rename(from, job.group[0].path("moved directory")).context("Moving a directory")
    })?;
    Ok(())
}

/// Deletes the largest directory.
pub(super) fn delete_a_directory(job: &mut MainJob<'_>) -> Result<()> {
    let dirs = large_dirs(&job.group[1].path("tree"))?;
    let Some((deleted, count)) = dirs.last() else {
        return Ok(());
    };
    job.step(&format!("a directory of {count} entries deleted on ben"), |job| {
        fs::remove_dir_all(job.group[1].path("tree").join(deleted)).context("Deleting a directory")
    })?;
    Ok(())
}

fn small_changes(job: &mut MainJob<'_>) -> Result<()> {
    let root = job.group[2].path("tree");
    let mut files = Vec::new();
    list_files(&root, &mut files)?;
    shuffle(&mut files);
    let mut next = files.chunks_exact(EACH.min(files.len() / 5).max(1));
    let mut take = || next.next().unwrap_or_default();
    for path in take() {
        let mut file = open(path)?;
        file.seek(SeekFrom::End(0)).context("Seeking")?;
        file.write_all(b"appended\n").context("Appending")?;
    }
    for path in take() {
        open(path)?
            .write_all(b"EDITED")
            .with_context(|| path.display().to_string())?;
    }
    for path in take() {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".renamed");
        fs::rename(path, path.with_file_name(name)).with_context(|| path.display().to_string())?;
    }
    let target = job.group[2].path("moved/here");
    fs::create_dir_all(&target).context("Making a directory")?;
    for (number, path) in take().iter().enumerate() {
        let name = format!(
            "{number}-{}",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        fs::rename(path, target.join(name)).with_context(|| path.display().to_string())?;
    }
    for path in take() {
        fs::remove_file(path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Lists the regular files that their owner may write.
pub(super) fn list_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(dir)
        .with_context(|| format!("Listing {}", dir.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list_files(&entry.path(), files)?;
        } else if kind.is_file() && !entry.metadata()?.permissions().readonly() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Returns two directories that do not hold each other, relative to `root`, with their numbers of entries: those just
/// below it, smallest that is large first.
fn large_dirs(root: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root).context("Listing the tree")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let count = crate::harness::count_entries(&entry.path());
            dirs.push((PathBuf::from(entry.file_name()), count));
        }
    }
    dirs.sort_by_key(|(_, count)| *count);
    let large = dirs.iter().position(|(_, count)| *count >= LARGE_DIR);
    Ok(dirs.split_off(
        large
            .unwrap_or(dirs.len().saturating_sub(2))
            .min(dirs.len().saturating_sub(2)),
    ))
}

fn shuffle(files: &mut [PathBuf]) {
    let mut random = Random::new(11);
    for last in (1..files.len()).rev() {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let pick = u64::from_le_bytes(bytes) % (last as u64 + 1);
        files.swap(last, usize::try_from(pick).unwrap_or(0));
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("Opening {}", path.display()))
}
