//! Disks that fail or have no room. Writes beyond a limit of the process (`RLIMIT_FSIZE`) fail, which needs no root and
//! is what a disk that refuses looks like to the daemon.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE};

use crate::settle_as_left;

/// More than the log and the crash journal of a short test, less than the store's write-ahead log after joining.
const STORE_LIMIT: u64 = 64 << 10;

/// Waits until the folder has failed, and returns why.
fn wait_failed(device: &mut Device) -> Result<String> {
    device.wait("the folder to fail", PATIENCE, |device| {
        let status = device.status()?;
        Ok(match status.state() {
            "failed" => Ok(status.failure().to_owned()),
            state => Err(state.to_owned()),
        })
    })
}

#[test]
fn a_store_that_takes_no_writes_ends_all_work_but_not_the_daemon() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("before", "synced")?;
    settle_as_left(&group, 0)?;
    let events = group[0].status()?.events();

    group[1].limit_file_size(Some(STORE_LIMIT))?;
    group[1].write("after", "cannot be recorded")?;
    let why = wait_failed(&mut group[1])?;
    ensure!(why.contains("store") && why.contains("restart"), "{why}");
    group[1].limit_file_size(None)?;

    let refused = group[1].ctl(["invite", "create"])?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("restart"),
        "{refused:?}"
    );
    ensure!(group[1].ctl(["rescan"])?.code == Some(1), "A rescan was accepted");
    group[1].ctl_ok(["status"])?;
    ensure!(
        wait_failed(&mut group[1])? == why,
        "A disk that works again does not bring the daemon back"
    );
    group[0].write("from the other", "not taken")?;
    group[0].wait("the other to publish", PATIENCE, |device| {
        Ok((device.status()?.events() > events)
            .then_some(())
            .ok_or_else(String::new))
    })?;
    ensure!(
        !group[1].path("from the other").exists() && !group[0].path("after").exists(),
        "Something was synced"
    );

    let status = group[1].stop_with_any_code()?;
    ensure!(status.code() == Some(69), "It stopped with {status}");
    group[1].start()?;
    let tree = group.settle()?;
    ensure!(tree.conflict_copies().is_empty(), "{:?}", tree.conflict_copies());
    for number in [0, 1] {
        for name in ["before", "after", "from the other"] {
            ensure!(group[number].path(name).exists(), "{name} was lost");
        }
    }
    Ok(())
}

#[test]
fn a_device_whose_store_failed_still_gives_contents_to_others() -> Result<()> {
    let mut group = Group::of(3)?;
    settle_as_left(&group, 0)?;
    group[2].connect(&group[1])?;
    group[2].wait("both others", PATIENCE, |device| {
        let connected = device.status()?.connected();
        Ok((connected == 2)
            .then_some(())
            .ok_or(format!("{connected} connected")))
    })?;
    // The third device hears of a file that it cannot fetch yet.
    group[2].limit_file_size(Some(4 << 20))?;
    group[0].write("large", vec![7; 6 << 20])?;
    group[1].wait("the file", PATIENCE, |device| {
        Ok((device.status()?.in_sync() && device.path("large").exists())
            .then_some(())
            .ok_or_else(String::new))
    })?;
    group[2].wait("the file to be named", PATIENCE, |device| {
        let stuck = device.status()?.stuck();
        Ok(stuck.contains("large").then_some(()).ok_or(stuck))
    })?;
    group[1].limit_file_size(Some(STORE_LIMIT))?;
    group[1].write("after", "cannot be recorded")?;
    wait_failed(&mut group[1])?;
    group[1].limit_file_size(None)?;
    group[0].stop()?;
    group[2].limit_file_size(None)?;
    group[2].wait("the file from the failed device", PATIENCE, |device| {
        let len = std::fs::metadata(device.path("large")).map_or(0, |meta| meta.len());
        Ok((len == 6 << 20).then_some(()).ok_or(format!("{len} bytes")))
    })?;
    Ok(())
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_the_others_go_on() -> Result<()> {
    let mut group = Group::of(2)?;
    settle_as_left(&group, 0)?;
    group[1].limit_file_size(Some(4 << 20))?;
    group[0].write("large", vec![7; 6 << 20])?;
    for number in 0..20 {
        group[0].write(&format!("small/{number}"), "small")?;
    }
    // Before the content was offered, the file is named for want of a source.
    group[1].wait("the file to be named with the disk's error", PATIENCE, |device| {
        let status = device.status()?;
        let stuck = status.stuck();
        let small = (0..20).all(|number| device.path(&format!("small/{number}")).exists());
        let named = stuck.contains("large") && stuck.contains("File too large");
        Ok((small && named)
            .then_some(())
            .ok_or(format!("small: {small}, {stuck}")))
    })?;
    group[1].limit_file_size(None)?;
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn an_unreadable_file_is_named_and_never_taken_for_deleted() -> Result<()> {
    let mut group = Group::of(2)?;
    for name in ["dir/inside", "kept", "other"] {
        group[0].write(name, name)?;
    }
    settle_as_left(&group, 0)?;
    if is_root()? {
        // Nothing is unreadable for root; the unit tests of the scanner show the same.
        return Ok(());
    }
    let folder = group[0].folder();
    let mode = |name: &str, mode: &str| -> Result<()> {
        let path = folder.join(name);
        let status = Command::new("chmod")
            .arg(mode)
            .arg(path)
            .status()
            .context("chmod")?;
        ensure!(status.success(), "chmod {mode} {name}");
        Ok(())
    };
    mode("dir", "000")?;
    mode("kept", "000")?;
    group[0].write("other", "changed")?;
    let read = group[1].wait("the other file", PATIENCE, |device| {
        let text = std::fs::read_to_string(device.path("other"))?;
        Ok((text == "changed").then_some(()).ok_or(text))
    });
    let status = group[0].status();
    mode("dir", "755")?;
    mode("kept", "644")?;
    read?;
    let stuck = status?.stuck();
    ensure!(stuck.contains("dir") && stuck.contains("kept"), "{stuck}");
    ensure!(group[1].path("dir/inside").exists(), "It was taken for deleted");
    settle_as_left(&group, 0)?;
    Ok(())
}

fn is_root() -> Result<bool> {
    Ok(rustix::process::geteuid().is_root())
}
