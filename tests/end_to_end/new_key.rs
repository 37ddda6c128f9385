//! A device gets a new key, as when a backup of its old one may be in other hands: its old self is removed, and it joins anew
//! with the folder it has.

use std::fs;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, settle};

use crate::cloned::twin_of;
use crate::roles::{group, lacks, ticket, wait_state};

fn id(device: &Device) -> Result<String> {
    let answer = device.ctl_json(["device", "id", "--json"])?;
    let id = answer["id"].as_str().context("An id")?;
    Ok(id.to_owned())
}

#[test]
fn a_device_with_a_new_key_goes_on_and_its_old_key_is_worth_nothing() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("cleo", "viewer")])?;
    devices[1].write("plan", "by ben")?;
    devices[0].write("dir/of anna", "by anna")?;
    let before = settle(&[&devices[0], &devices[1], &devices[2]])?;
    let old = id(&devices[1])?;
    devices[1].stop()?;
    let mut thief = twin_of(&devices[1])?;

    devices[0].ctl_ok(["member", "remove", &old, "--reason", "new key", "--yes"])?;
    fs::remove_dir_all(devices[1].state())?;
    fs::create_dir(devices[1].state())?;
    devices[1].start()?;
    let ticket = ticket(&devices[0], &["--role", "editor"])?;
    devices[1].join(&ticket)?;
    let after = settle(&[&devices[0], &devices[1], &devices[2]])?;
    let differences = after.differences(&before);
    ensure!(differences.is_empty(), "{differences:?}");
    ensure!(id(&devices[1])? != old, "It still has its old key");

    thief.start()?;
    thief.write("loot", "by the old key")?;
    thief.connect(&devices[0])?;
    wait_state(&mut thief, "removed")?;
    devices[1].write("plan", "by ben, with the new key")?;
    settle(&[&devices[0], &devices[1], &devices[2]])?;
    for device in &devices {
        lacks(device, "loot")?;
        ensure!(fs::read_to_string(device.path("plan"))? == "by ben, with the new key");
        let verified = device.ctl_ok(["ledger", "verify", "--full"])?;
        ensure!(!verified.contains("fault"), "{}: {verified}", device.name);
    }
    Ok(())
}
