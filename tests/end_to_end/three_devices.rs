//! A middle-sized tree on three devices, and changes from each of them.

use std::fs;

use anyhow::{Result, ensure};
use p2p_sync_tests::harness::{Group, SourceTree};

use crate::{settle_as_left, settle_without_conflict};

#[test]
fn three_devices_share_a_tree_of_two_thousand_files() -> Result<()> {
    let group = Group::of(3)?;
    let written = SourceTree { seed: 5, files: 2000 }.write_to(&group[0].folder())?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(
        tree.file_count() == written.files,
        "{} of {}",
        tree.file_count(),
        written.files
    );
    for (number, device) in group.devices.iter().enumerate() {
        device.write(&format!("module_0002/from_{number}.txt"), "added")?;
    }
    fs::remove_dir_all(group[1].path("module_0001"))?;
    let tree = settle_without_conflict(&group)?;
    ensure!(!tree.has("module_0001"), "The removed directory is back");
    Ok(())
}

#[test]
fn third_device_gets_everything_from_the_one_it_reaches() -> Result<()> {
    let mut group = Group::of(3)?;
    group[0].write("from-anna.txt", "a")?;
    settle_as_left(&group, 0)?;
    group[0].stop()?;
    group[2].connect(&group[1])?;
    group[1].write("from-ben.txt", "b")?;
    let pair = [&group[1], &group[2]];
    let tree = p2p_sync_tests::harness::settle(&pair)?;
    ensure!(tree.file_count() == 2, "{tree:?}");
    group[0].start()?;
    settle_without_conflict(&group)?;
    Ok(())
}
