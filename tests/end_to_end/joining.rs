//! A device joins with something in its folder: an old copy, the same files, other files.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, SourceTree, Tree};

use crate::{settle_as_left, settle_without_conflict};

/// More content than this means that files were fetched.
const CONTENT_NONE: u64 = 10_000;

#[test]
fn old_copy_of_the_folder_resurrects_nothing() -> Result<()> {
    let mut group = Group::of(2)?;
    SourceTree { seed: 21, files: 60 }.write_to(&group[0].folder())?;
    group[0].write("deleted-later.txt", "old")?;
    group[0].write("gone/deeper/too.txt", "old")?;
    group[0].write("edited-later.txt", "version 1")?;
    settle_as_left(&group, 0)?;
    let late = Device::new("late")?;
    copy_tree(&group[0].folder(), &late.folder())?;
    fs::remove_file(group[0].path("deleted-later.txt"))?;
    fs::remove_dir_all(group[0].path("gone"))?;
    group[0].write("edited-later.txt", "version 2")?;
    let expected = settle_as_left(&group, 0)?;
    join(&mut group, late)?;
    group.settle_as(&expected)?;
    settle_without_conflict(&group)?;
    Ok(())
}

#[test]
fn same_files_are_adopted_and_not_copied() -> Result<()> {
    let mut group = Group::of(2)?;
    SourceTree { seed: 22, files: 200 }.write_to(&group[0].folder())?;
    let expected = settle_as_left(&group, 0)?;
    let late = Device::new("late")?;
    copy_tree(&group[0].folder(), &late.folder())?;
    let before = inodes(&late, &expected)?;
    join(&mut group, late)?;
    group.settle_as(&expected)?;
    settle_without_conflict(&group)?;
    let after = inodes(&group[2], &expected)?;
    ensure!(before == after, "Files that were the same were written again");
    let bytes_in = group[2].status()?.0["bytes_in"]
        .as_u64()
        .context("The status counts bytes")?;
    ensure!(bytes_in < CONTENT_NONE, "{bytes_in} bytes of content came in");
    Ok(())
}

#[test]
fn other_file_under_a_known_name_is_kept_beside_the_groups() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("plan.txt", "the group's")?;
    settle_as_left(&group, 0)?;
    let late = Device::new("late")?;
    late.write("plan.txt", "the newcomer's")?;
    late.write("own.txt", "only here")?;
    join(&mut group, late)?;
    let tree = group.settle()?;
    ensure!(
        fs::read_to_string(group[1].path("plan.txt"))? == "the group's",
        "The newcomer's file won: {tree:?}"
    );
    let copies = tree.conflict_copies();
    ensure!(copies.len() == 1 && tree.file_count() == 3, "{tree:?}");
    ensure!(
        fs::read_to_string(group[1].folder().join(copies[0]))? == "the newcomer's",
        "{tree:?}"
    );
    Ok(())
}

fn join(group: &mut Group, mut device: Device) -> Result<()> {
    device.start()?;
    group.add(device)
}

/// Copies files with their times and modes, as `cp -a` or a backup would.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() == ".p2p-sync" {
            continue;
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&source, &target)?;
            fs::set_permissions(&target, fs::metadata(&source)?.permissions())?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
            File::options()
                .write(true)
                .open(&target)?
                .set_modified(fs::metadata(&source)?.modified()?)?;
        }
    }
    Ok(())
}

fn inodes(device: &Device, tree: &Tree) -> Result<Vec<u64>> {
    let path = |below: &Path| device.folder().join(below);
    let inode = |below| {
        let path = path(below);
        fs::symlink_metadata(&path)
            .map(|meta| meta.ino())
            .with_context(|| path.display().to_string())
    };
    tree.items.keys().map(|below| inode(below)).collect()
}
