//! Devices come together by an invite and in no other way.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE};

use crate::{settle_as_left, settle_without_conflict};

#[test]
fn two_devices_pair_by_an_invite() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("hello.txt", "hello\n")?;
    settle_as_left(&group, 0)?;
    for number in 0..2 {
        group[number].wait("one connected peer", PATIENCE, |device| {
            let status = device.status()?;
            Ok(if status.connected() == 1 {
                Ok(())
            } else {
                Err(status.0.to_string())
            })
        })?;
    }
    let peers = group[0].ctl_json(["peers", "--json"])?;
    let peers = peers["peers"]
        .as_array()
        .context("peers --json has a list")?
        .clone();
    let ben = peers
        .iter()
        .find(|peer| peer["name"] == "ben")
        .with_context(|| format!("No ben in {peers:?}"))?;
    ensure!(ben["role"] == "editor" && ben["state"] == "connected", "{ben}");
    Ok(())
}

#[test]
fn what_both_had_before_pairing_is_merged() -> Result<()> {
    let [anna, ben] = [Device::started("anna")?, Device::started("ben")?];
    anna.write("from-anna.txt", "a")?;
    ben.write("docs/from-ben.txt", "b")?;
    ben.join(&anna.invite()?)?;
    let group = Group {
        devices: vec![anna, ben],
    };
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 2, "{tree:?}");
    Ok(())
}

#[test]
fn key_is_readable_by_its_owner_only() -> Result<()> {
    let device = Device::started("anna")?;
    let mode = fs::metadata(device.state().join("identity.key"))?
        .permissions()
        .mode()
        & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    let mode = fs::metadata(device.socket())?.permissions().mode() & 0o777;
    ensure!(mode & 0o007 == 0, "{mode:o}");
    Ok(())
}

#[test]
fn stranger_of_another_group_gets_nothing_and_gives_nothing() -> Result<()> {
    let group = Group::of(2)?;
    let stranger = Device::started("stranger")?;
    stranger.write("planted.txt", "planted")?;
    stranger.invite()?;
    group[0].write("secret.txt", "secret")?;
    settle_as_left(&group, 0)?;
    for member in &group.devices {
        // Whether the command succeeds is of no importance here: a connection alone must be worth nothing.
        stranger.ctl(["peers", "connect", &member.address()])?;
        member.ctl(["peers", "connect", &stranger.address()])?;
    }
    // Two full rounds in both directions after the stranger came: whatever it could have pushed or pulled had its time.
    for (writer, name) in [(0, "one"), (1, "two"), (0, "three"), (1, "four")] {
        group[writer].write(name, name)?;
        settle_as_left(&group, writer)?;
    }
    ensure!(
        !group[0].path("planted.txt").exists(),
        "The stranger's file came in"
    );
    let theirs = stranger.tree()?;
    ensure!(
        theirs.items.len() == 1,
        "The stranger got {:?}",
        theirs.items.keys()
    );
    ensure!(stranger.status()?.connected() == 0, "{}", stranger.status()?.0);
    Ok(())
}
