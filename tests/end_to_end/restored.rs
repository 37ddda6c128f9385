//! A state directory that was put back from a backup, while the folder and the other devices went on. The device must
//! not give the numbers of its own events twice, nor take what its state does not know for somebody's edit or deletion.

mod roles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE};

use crate::{settle_as_left, settle_without_conflict};

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    let status = copied.context("Running cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

/// Backs up the state of a device that does not run.
fn back_up(device: &Device) -> Result<PathBuf> {
    let backup = device.state().with_file_name("backup");
    copy(&device.state(), &backup)?;
    Ok(backup)
}

fn put_back(device: &Device, backup: &Path) -> Result<()> {
    fs::remove_dir_all(device.state())?;
    copy(backup, &device.state())
}

/// Makes a group of two with some files, and stops the second.
fn two_devices() -> Result<Group> {
    let mut group = Group::of(2)?;
    for name in ["changed", "deleted", "dir/stays", "edited offline"] {
        group[1].write(name, format!("{name}, first"))?;
    }
    settle_as_left(&group, 1)?;
    group[1].stop()?;
    Ok(group)
}

fn is_said_to_be_old(device: &Device) -> Result<bool> {
    Ok(device.status()?.0.to_string().contains("STATE_OLD"))
}

/// Checks that no device refused an event of another.
fn nobody_misbehaved(group: &Group) -> Result<()> {
    for device in &group.devices {
        let log = fs::read_to_string(device.log_path())?;
        ensure!(!log.contains("second event"), "{}: {log}", device.name);
    }
    Ok(())
}

#[test]
fn an_old_state_takes_its_own_events_back_before_it_makes_new_ones() -> Result<()> {
    let mut group = two_devices()?;
    let backup = back_up(&group[1])?;
    group[1].start()?;
    group[1].write("changed", "second")?;
    group[1].write("made since", "new")?;
    fs::remove_file(group[1].path("deleted"))?;
    settle_as_left(&group, 1)?;
    group[1].stop()?;
    group[0].stop()?;
    put_back(&group[1], &backup)?;
    group[1].write("edited offline", "by its user")?;
    group[1].start()?;
    ensure!(is_said_to_be_old(&group[1])?, "{}", group[1].status()?.0);
    let events = group[1].status()?.events();
    group[1].write("made while it waits", "new as well")?;
    // A scan would have found the new file by then.
    group[1].ctl_ok(["rescan"])?;
    ensure!(group[1].status()?.events() == events, "It made an event");
    group[0].start()?;
    let tree = group.settle()?;
    let copies = tree.conflict_copies();
    ensure!(copies.len() <= 1, "{copies:?}");
    for device in &group.devices {
        let read = |name: &str| fs::read_to_string(device.path(name)).with_context(|| name.to_owned());
        ensure!(!device.path("deleted").exists(), "{}: it is back", device.name);
        ensure!(read("changed")? == "second" && read("made since")? == "new");
        ensure!(read("made while it waits")? == "new as well");
        let mut edits = copies.iter().map(|copy| fs::read(device.folder().join(copy)));
        let edited = b"by its user".to_vec();
        let kept = edits.any(|bytes| bytes.is_ok_and(|bytes| bytes == edited));
        ensure!(
            kept || fs::read(device.path("edited offline"))? == edited,
            "{}: the edit was lost",
            device.name
        );
    }
    ensure!(!is_said_to_be_old(&group[1])?, "{}", group[1].status()?.0);
    group[1].write("afterwards", "as ever")?;
    settle_as(&group)?;
    nobody_misbehaved(&group)
}

/// Checks that what the second device wrote last reaches the first.
fn settle_as(group: &Group) -> Result<()> {
    let expected = group[1].tree()?;
    group.settle_as(&expected)?;
    Ok(())
}

#[test]
fn own_events_that_nobody_has_are_given_up_once_all_were_asked() -> Result<()> {
    let mut group = two_devices()?;
    let backup = back_up(&group[1])?;
    group[0].stop()?;
    group[1].start()?;
    let events = group[1].status()?.events();
    group[1].write("alone", "never told to anybody")?;
    group[1].wait("the event", PATIENCE, |device| {
        let status = device.status()?;
        let more = status.events() > events && status.in_sync();
        Ok(more.then_some(()).ok_or_else(|| status.0.to_string()))
    })?;
    group[1].stop()?;
    put_back(&group[1], &backup)?;
    group[1].start()?;
    ensure!(is_said_to_be_old(&group[1])?, "{}", group[1].status()?.0);
    group[0].start()?;
    settle_without_conflict(&group)?;
    ensure!(group[0].path("alone").exists(), "It was not published again");
    group[1].restart()?;
    ensure!(!is_said_to_be_old(&group[1])?, "{}", group[1].status()?.0);
    group[1].write("afterwards", "as ever")?;
    settle_as_left(&group, 1)?;
    nobody_misbehaved(&group)
}

#[test]
fn an_old_state_goes_on_when_its_user_says_so() -> Result<()> {
    let mut group = two_devices()?;
    let backup = back_up(&group[1])?;
    group[0].stop()?;
    group[1].start()?;
    group[1].write("alone", "never told to anybody")?;
    group[1].wait_in_sync()?;
    group[1].stop()?;
    put_back(&group[1], &backup)?;
    group[1].start_with(&["--rebind"])?;
    ensure!(!is_said_to_be_old(&group[1])?, "{}", group[1].status()?.0);
    group[1].wait_in_sync()?;
    group[0].start()?;
    settle_as_left(&group, 1)?;
    ensure!(group[0].path("alone").exists(), "It was not published again");
    Ok(())
}
