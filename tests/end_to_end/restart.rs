//! A restart is no change.

use anyhow::{Result, ensure};
use p2p_sync_tests::harness::{Group, SourceTree};

use crate::{settle_as_left, settle_without_conflict};

#[test]
fn restart_publishes_nothing_and_keeps_the_identity() -> Result<()> {
    let mut group = Group::of(2)?;
    SourceTree { seed: 31, files: 300 }.write_to(&group[0].folder())?;
    let expected = settle_as_left(&group, 0)?;
    let before = [group[0].status()?, group[1].status()?];
    for number in [0, 1, 0, 1] {
        group[number].restart()?;
    }
    group.settle_as(&expected)?;
    for (device, before) in group.devices.iter().zip(&before) {
        let after = device.status()?;
        ensure!(
            before.0["device"]["id"] == after.0["device"]["id"],
            "The identity changed: {}",
            after.0
        );
        ensure!(
            before.events() == after.events(),
            "Events: {:?}, then {:?}",
            before.events(),
            after.events()
        );
    }
    settle_without_conflict(&group)?;
    Ok(())
}

#[test]
fn members_find_each_other_after_both_were_off() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("a", "a")?;
    settle_as_left(&group, 0)?;
    group[0].stop()?;
    group[1].stop()?;
    group[1].write("b", "written while off")?;
    group[0].start()?;
    group[1].start()?;
    settle_as_left(&group, 1)?;
    Ok(())
}
