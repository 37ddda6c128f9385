//! A folder that is not the one that the state belongs to any more: replaced, restored from a backup, or left behind by a
//! state that was lost. Nothing that is missing in it is ever taken for deleted, and nothing that was deleted comes back.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE};

use crate::{settle_as_left, settle_without_conflict};

/// Copies a directory with all times and modes, as a backup does.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .context("Running cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

fn read(device: &Device, name: &str) -> Result<String> {
    fs::read_to_string(device.path(name)).with_context(|| format!("{}: {name}", device.name))
}

/// Makes a group of two with some files, and stops the second.
fn two_devices() -> Result<Group> {
    let mut group = Group::of(2)?;
    for name in ["changed", "deleted", "dir/deleted too", "dir/stays", "stays"] {
        group[0].write(name, format!("{name}, first"))?;
    }
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    Ok(group)
}

/// Starts a daemon that must refuse to, and checks that it names the way out and leaves the folder alone.
fn is_refused(device: &Device) -> Result<()> {
    let before = fs::read_dir(device.folder()).map_or(0, Iterator::count);
    let status = device.second_daemon()?;
    ensure!(status.code() == Some(69), "It ended with {status}");
    let log = device.log_tail();
    ensure!(log.contains("--rebind"), "{log}");
    let after = fs::read_dir(device.folder()).map_or(0, Iterator::count);
    ensure!(before == after, "It wrote to the folder");
    Ok(())
}

#[test]
fn an_empty_folder_in_place_of_the_old_is_refused_and_filled_again_when_it_is_bound() -> Result<()> {
    let mut group = two_devices()?;
    fs::rename(group[1].folder(), group[1].state().with_file_name("old"))?;
    is_refused(&group[1])?;
    ensure!(!group[1].folder().exists(), "It made the folder");
    fs::create_dir(group[1].folder())?;
    is_refused(&group[1])?;
    group[1].start_with(&["--rebind"])?;
    settle_as_left(&group, 0)?;
    ensure!(
        read(&group[0], "dir/stays")? == "dir/stays, first",
        "It was deleted"
    );
    group[1].restart()?;
    group[1].write("later", "as ever")?;
    settle_as_left(&group, 1)?;
    Ok(())
}

/// Restores an old copy of the second device's folder, after things changed, and binds it.
fn restore_and_bind(with_own_dir: bool) -> Result<()> {
    let mut group = two_devices()?;
    let backup = group[1].state().with_file_name("backup");
    copy(&group[1].folder(), &backup)?;
    group[1].start()?;
    group[0].write("changed", "second")?;
    group[0].write("made since", "new")?;
    fs::remove_file(group[0].path("deleted"))?;
    fs::remove_file(group[0].path("dir/deleted too"))?;
    group[1].wait("the deletions", PATIENCE, |device| {
        Ok((!device.path("deleted").exists())
            .then_some(())
            .ok_or_else(|| "it is there".to_owned()))
    })?;
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    fs::remove_dir_all(group[1].folder())?;
    fs::rename(&backup, group[1].folder())?;
    if !with_own_dir {
        fs::remove_dir_all(group[1].path(".p2p-sync"))?;
        is_refused(&group[1])?;
    }
    group[1].write("unknown", "only in the backup")?;
    group[1].start_with(&["--rebind"])?;
    let tree = settle_without_conflict(&group)?;
    for device in &group.devices {
        for gone in ["deleted", "dir/deleted too"] {
            ensure!(!device.path(gone).exists(), "{}: {gone} is back", device.name);
        }
        ensure!(
            read(device, "changed")? == "second",
            "{}: an old copy won",
            device.name
        );
        ensure!(
            read(device, "made since")? == "new",
            "{}: it was deleted",
            device.name
        );
        ensure!(read(device, "unknown")? == "only in the backup", "{tree:?}");
    }
    Ok(())
}

#[test]
fn a_restored_folder_gets_what_is_newer_and_brings_back_nothing_that_was_deleted() -> Result<()> {
    restore_and_bind(false)
}

#[test]
fn a_backup_that_has_the_folders_name_too_can_be_bound_as_well() -> Result<()> {
    restore_and_bind(true)
}

#[test]
fn a_file_of_unknown_descent_in_a_restored_folder_becomes_a_conflict_copy() -> Result<()> {
    let mut group = two_devices()?;
    let moved = group[1].state().with_file_name("moved");
    copy(&group[1].folder(), &moved)?;
    fs::remove_dir_all(group[1].folder())?;
    fs::rename(&moved, group[1].folder())?;
    fs::remove_dir_all(group[1].path(".p2p-sync"))?;
    group[1].write("changed", "by its user, who knows when")?;
    group[1].start_with(&["--rebind"])?;
    let tree = group.settle()?;
    ensure!(tree.conflict_copies().len() == 1, "{:?}", tree.conflict_copies());
    let mut texts = Vec::new();
    for entry in fs::read_dir(group[0].folder())? {
        let path = entry?.path();
        if path.is_file() {
            texts.push(fs::read_to_string(path)?);
        }
    }
    for text in ["changed, first", "by its user, who knows when"] {
        ensure!(
            texts.iter().any(|found| found == text),
            "{text} is lost: {texts:?}"
        );
    }
    Ok(())
}

#[test]
fn a_device_that_lost_its_state_joins_as_a_new_one_and_brings_nothing_back() -> Result<()> {
    let mut group = two_devices()?;
    group[0].write("changed", "second")?;
    fs::remove_file(group[0].path("deleted"))?;
    group[0].wait("its changes to be published", PATIENCE, |device| {
        let status = device.status()?;
        Ok(if status.in_sync() && status.folder("files_total") == Some(5) {
            Ok(())
        } else {
            Err(status.0.to_string())
        })
    })?;
    fs::remove_dir_all(group[1].state())?;
    fs::create_dir(group[1].state())?;
    group[1].start()?;
    group[1].wait_in_sync()?;
    let ticket = group[0].invite()?;
    group[1].join(&ticket)?;
    let tree = settle_without_conflict(&group)?;
    for device in &group.devices {
        ensure!(!device.path("deleted").exists(), "It is back: {tree:?}");
        ensure!(read(device, "changed")? == "second", "An old copy won");
        ensure!(read(device, "dir/stays")? == "dir/stays, first", "It was deleted");
    }
    Ok(())
}
