//! As the others, while roles changed in between: the device takes back what it did to others, hears what was done to it,
//! and agrees with all.

use std::fs;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, PATIENCE, settle};

use super::{back_up, is_said_to_be_old, put_back};
use crate::removing::{nobody_misbehaved, wait_roles};
use crate::roles::{group, has, lacks, settle_all, wait_file, wait_gone, wait_role, wait_state};

/// Anna, ben the admin, and cleo, who have the same files.
fn three() -> Result<Vec<Device>> {
    let devices = group(&[("ben", "admin"), ("cleo", "editor")])?;
    for name in ["changed", "deleted", "stays"] {
        devices[1].write(name, "first")?;
    }
    settle_all(&devices)?;
    Ok(devices)
}

#[test]
fn an_old_state_takes_back_whom_it_removed_and_hears_that_it_was_lowered() -> Result<()> {
    let mut devices = three()?;
    devices[1].stop()?;
    let backup = back_up(&devices[1])?;
    devices[1].start()?;
    devices[1].ctl_ok(["member", "remove", "cleo", "--yes"])?;
    devices[1].write("changed", "second")?;
    fs::remove_file(devices[1].path("deleted"))?;
    wait_state(&mut devices[2], "removed")?;
    wait_gone(&mut devices[0], "deleted")?;
    wait_file(&mut devices[0], "changed", "second")?;
    devices[0].ctl_ok(["member", "role", "ben", "editor"])?;
    wait_role(&devices[1], "ben", Some("editor"))?;
    settle(&[&devices[0], &devices[1]])?;
    for device in &mut devices {
        device.stop()?;
    }
    put_back(&devices[1], &backup)?;
    devices[1].start()?;
    devices[1].wait("its state to be said to be old", PATIENCE, |device| {
        Ok(is_said_to_be_old(device)?.then_some(()).ok_or_else(String::new))
    })?;
    // It takes itself for an admin, and cleo for a member, and must not say anything yet.
    wait_role(&devices[1], "ben", Some("admin"))?;
    wait_role(&devices[1], "cleo", Some("editor"))?;
    let events = devices[1].status()?.events();
    for args in [
        ["member", "role", "cleo", "viewer"].as_slice(),
        &["invite", "create"],
        &["device", "rename", "another"],
    ] {
        let ctl = devices[1].ctl(args.iter().copied())?;
        ensure!(ctl.code != Some(0), "{args:?}: {ctl:?}");
    }
    ensure!(devices[1].status()?.events() == events, "It made an event");
    // Cleo, who is none, finds it before anna does.
    devices[2].start()?;
    devices[2].connect(&devices[1])?;
    devices[2].write("of cleo", "for nobody")?;
    devices[0].start()?;
    devices[0].connect(&devices[1])?;
    let members = [&devices[0], &devices[1]];
    wait_roles(
        &members,
        &[("anna", Some("owner")), ("ben", Some("editor")), ("cleo", None)],
    )?;
    let tree = settle(&members)?;
    ensure!(tree.conflict_copies().is_empty(), "{tree:?}");
    for member in members {
        has(member, "changed", "second")?;
        has(member, "stays", "first")?;
        lacks(member, "deleted")?;
        lacks(member, "of cleo")?;
    }
    ensure!(!is_said_to_be_old(&devices[1])?, "{}", devices[1].status()?.0);
    devices[1].write("changed", "third")?;
    wait_file(&mut devices[0], "changed", "third")?;
    nobody_misbehaved(&[&devices[0], &devices[1]])
}

#[test]
fn an_old_state_of_a_removed_device_brings_nothing_back_and_can_be_admitted_again() -> Result<()> {
    let mut devices = three()?;
    devices[1].stop()?;
    let backup = back_up(&devices[1])?;
    devices[1].start()?;
    devices[1].write("changed", "second")?;
    wait_file(&mut devices[0], "changed", "second")?;
    settle_all(&devices)?;
    devices[0].ctl_ok(["member", "remove", "ben", "--yes"])?;
    wait_state(&mut devices[1], "removed")?;
    fs::remove_file(devices[0].path("deleted"))?;
    wait_gone(&mut devices[2], "deleted")?;
    devices[1].stop()?;
    put_back(&devices[1], &backup)?;
    devices[1].write("offline", "of ben")?;
    devices[1].start()?;
    devices[1].connect(&devices[2])?;
    wait_state(&mut devices[1], "removed")?;
    devices[1].write("changed", "alone")?;
    let members = [&devices[0], &devices[2]];
    let tree = settle(&members)?;
    ensure!(tree.file_count() == 2, "{tree:?}");
    has(&devices[2], "changed", "second")?;
    devices[1].join(&devices[0].invite()?)?;
    wait_role(&devices[2], "ben", Some("editor"))?;
    wait_file(&mut devices[2], "offline", "of ben")?;
    settle_all(&devices)?;
    let copies = devices[0].tree()?;
    let mut texts = copies.conflict_copies().into_iter().map(|copy| {
        let text = fs::read_to_string(devices[0].folder().join(copy));
        text.with_context(|| copy.display().to_string())
    });
    let alone = texts.any(|text| text.is_ok_and(|text| text == "alone"));
    let stands = fs::read_to_string(devices[0].path("changed"))? == "alone";
    ensure!(alone || stands, "The edit was lost: {copies:?}");
    nobody_misbehaved(&[&devices[0], &devices[2]])
}
