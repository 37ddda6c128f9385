//! Daemons killed in the middle of a transfer: nothing is lost, nothing half-written is seen, and the rest arrives
//! after a restart.

use std::fs;

use anyhow::{Result, bail, ensure};
use p2p_sync_tests::harness::{
    Group, PATIENCE, SourceTree, count_entries, fill_file, leftovers, wait_closely,
};

use crate::settle_as_left;

/// Size of the file whose transfer is interrupted: long enough on loopback to be caught in the middle.
const LARGE: u64 = 64 << 20;
/// Tries to catch a transfer in the middle.
const TRIES: u64 = 5;

#[test]
fn receiver_killed_in_the_middle_goes_on() -> Result<()> {
    interrupted(&[1])
}

#[test]
fn sender_killed_in_the_middle_goes_on() -> Result<()> {
    interrupted(&[0])
}

#[test]
fn both_killed_in_the_middle_go_on() -> Result<()> {
    interrupted(&[0, 1])
}

#[test]
fn receiver_killed_again_and_again_gets_all_small_files() -> Result<()> {
    let mut group = Group::of(2)?;
    SourceTree {
        seed: 41,
        files: 1200,
    }
    .write_to(&group[0].folder())?;
    for round in 1..=4 {
        let enough = round * 150;
        wait_closely("some files to arrive", PATIENCE, || {
            Ok(count_entries(&group[1].folder()) >= enough)
        })?;
        group[1].kill()?;
        group[1].start()?;
    }
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn writer_killed_while_publishing_publishes_the_rest() -> Result<()> {
    let mut group = Group::of(2)?;
    SourceTree { seed: 42, files: 800 }.write_to(&group[0].folder())?;
    wait_closely("some files to arrive", PATIENCE, || {
        Ok(count_entries(&group[1].folder()) >= 50)
    })?;
    group[0].kill()?;
    group[0].start()?;
    settle_as_left(&group, 0)?;
    Ok(())
}

/// Kills the given devices while device 1 receives a large file from device 0, restarts them and expects both to
/// settle with the file whole.
fn interrupted(victims: &[usize]) -> Result<()> {
    let mut group = Group::of(2)?;
    for attempt in 0..TRIES {
        let name = format!("large-{attempt}.bin");
        fill_file(&group[0].path(&name), LARGE, attempt)?;
        let folder = group[1].folder();
        let target = group[1].path(&name);
        wait_closely("the transfer to begin", PATIENCE, || {
            Ok(!leftovers(&folder)?.is_empty() || target.exists())
        })?;
        for victim in victims {
            group[*victim].kill()?;
        }
        let arrived = target.exists();
        for victim in victims {
            group[*victim].start()?;
        }
        settle_as_left(&group, 0)?;
        ensure!(fs::metadata(&target)?.len() == LARGE, "The file is not whole");
        if !arrived {
            return Ok(());
        }
    }
    bail!("{TRIES} files of {LARGE} bytes arrived before a daemon could be killed");
}
