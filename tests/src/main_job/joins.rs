//! Devices that join with something in their folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::changes::list_files;
use super::{MainJob, copy};
use crate::harness::{Device, Tree};

/// More content than this means that files were fetched.
const CONTENT_NONE: u64 = 100_000;
/// Files that the group deletes, and files that it edits, after the old copy was made.
const AFTER_THE_COPY: usize = 1000;

/// A device that has all files already must write and fetch none of them.
pub(super) fn join_with_the_same_files(job: &mut MainJob<'_>) -> Result<()> {
    let expected = job.group.settle()?;
    let device = with_copy(job, "dora")?;
    let before = inodes(&device, &expected)?;
    let tree = job.step("dora joins with the same files", |job| add(job, device))?;
    same(&expected, &tree)?;
    let dora = &job.group[3];
    ensure!(
        inodes(dora, &expected)? == before,
        "Files that were the same were written again"
    );
    let came = bytes_in(dora)?;
    ensure!(came < CONTENT_NONE, "{came} bytes of content came in");
    (job.say)(&format!(
        "dora wrote no file again; {came} bytes of content came in"
    ));
    Ok(())
}

/// A device with an old copy takes what is newer, brings nothing back, and fetches only what is new.
pub(super) fn join_with_an_old_copy(job: &mut MainJob<'_>) -> Result<()> {
    let device = with_copy(job, "emil")?;
    let mut edited = 0;
    let expected = job.step(
        "1000 files deleted and 1000 edited after emil's copy was made",
        |job| {
            edited = age(&job.group[0].folder())?;
            Ok(())
        },
    )?;
    let before = inodes(&device, &Tree::default())?;
    let tree = job.step("emil joins with the old copy", |job| add(job, device))?;
    same(&expected, &tree)?;
    let emil = &job.group[4];
    let after = inodes(emil, &Tree::default())?;
    let written = after
        .iter()
        .filter(|(path, ino)| before.get(*path) != Some(*ino))
        .count();
    ensure!(
        written <= AFTER_THE_COPY,
        "{written} files were written, though {AFTER_THE_COPY} changed"
    );
    let came = bytes_in(emil)?;
    ensure!(
        came <= edited + CONTENT_NONE,
        "{came} bytes of content came in for {edited} bytes of edited files"
    );
    (job.say)(&format!(
        "emil wrote {written} files; {came} bytes of content came in for {edited} of edited files"
    ));
    Ok(())
}

/// Deletes and edits files; returns the bytes of those edited.
fn age(folder: &Path) -> Result<u64> {
    let mut files = Vec::new();
    list_files(folder, &mut files)?;
    files.retain(|path| !path.components().any(|part| part.as_os_str() == ".p2p-sync"));
    let count = AFTER_THE_COPY.min(files.len() / 4);
    let mut bytes = 0;
    for (number, path) in files.iter().step_by(2).take(2 * count).enumerate() {
        if number % 2 == 0 {
            fs::remove_file(path).with_context(|| path.display().to_string())?;
        } else {
            let text = format!("edited after the copy was made: {number}\n");
            fs::write(path, &text).with_context(|| path.display().to_string())?;
            bytes += text.len() as u64;
        }
    }
    Ok(bytes)
}

fn with_copy(job: &MainJob<'_>, name: &str) -> Result<Device> {
    let device = Device::with_options(name, job.device_options.clone())?;
    for entry in fs::read_dir(job.group[0].folder()).context("Listing the folder")? {
        let entry = entry?;
        if entry.file_name() != ".p2p-sync" {
            copy(&entry.path(), &device.folder().join(entry.file_name()))?;
        }
    }
    Ok(device)
}

fn add(job: &mut MainJob<'_>, mut device: Device) -> Result<()> {
    device.start()?;
    job.group.add(device)
}

fn same(expected: &Tree, tree: &Tree) -> Result<()> {
    let differences = expected.differences(tree);
    ensure!(
        differences.is_empty(),
        "{} paths changed, first {:?}",
        differences.len(),
        differences.first()
    );
    Ok(())
}

fn bytes_in(device: &Device) -> Result<u64> {
    device.status()?.0["bytes_in"]
        .as_u64()
        .context("The status counts bytes")
}

/// Returns the inodes of the files of a tree, or of all files if the tree is empty.
fn inodes(device: &Device, tree: &Tree) -> Result<BTreeMap<PathBuf, u64>> {
    let read;
    let tree = if tree.items.is_empty() {
        read = device.tree()?;
        &read
    } else {
        tree
    };
    let inode = |below: &PathBuf| {
        let path = device.folder().join(below);
        let meta = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        Ok((below.clone(), meta.ino()))
    };
    tree.items.keys().map(inode).collect()
}
