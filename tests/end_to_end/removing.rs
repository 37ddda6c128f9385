//! Removals that meet what others do at the same time: a stolen device, one that is cut off and goes on, owners and admins
//! that remove each other. Whatever comes of it is the same on all devices, and nobody loses a byte.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, PATIENCE, fill_file, settle, wait_until};
use serde_json::Value;

use crate::roles::{
    expect, group, has, lacks, member, settle_all, ticket, wait_file, wait_gone, wait_role, wait_state,
};

/// Members and those who were, with their roles, as a device sees them.
fn roles(on: &Device) -> Result<Vec<(String, Option<String>)>> {
    let answer = on.ctl_json(["member", "list", "--json"])?;
    let members = answer["members"].as_array().context("A list of members")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut roles: Vec<_> = members
        .iter()
        .map(|member| (text(&member["name"]).unwrap_or_default(), text(&member["role"])))
        .collect();
    roles.sort();
    Ok(roles)
}

/// Waits until all devices see the members in these roles.
pub(crate) fn wait_roles(devices: &[&Device], expected: &[(&str, Option<&str>)]) -> Result<()> {
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(name, role)| ((*name).to_owned(), role.map(str::to_owned)))
        .collect();
    expected.sort();
    for device in devices {
        wait_until(&format!("{} to see {expected:?}", device.name), PATIENCE, || {
            let found = roles(device)?;
            Ok(if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            })
        })?;
    }
    Ok(())
}

/// Checks that no device sent anything that no honest daemon sends.
pub(crate) fn nobody_misbehaved(devices: &[&Device]) -> Result<()> {
    for device in devices {
        let log = fs::read_to_string(device.log_path())?;
        ensure!(!log.contains("no honest daemon sends"), "{}: {log}", device.name);
    }
    Ok(())
}

/// Files of several kinds and sizes, made by two devices.
fn fill(anna: &Device, ben: &Device) -> Result<()> {
    for number in 0..8 {
        anna.write(&format!("docs/f{number}"), format!("{number} of anna"))?;
        ben.write(&format!("notes/n{number}"), format!("{number} of ben"))?;
    }
    fill_file(&anna.path("film"), (3 << 20) + 17, 11)?;
    fs::create_dir(anna.path("empty"))?;
    symlink("docs/f0", anna.path("link"))?;
    anna.write("tool", "#!/bin/sh\n")?;
    fs::set_permissions(anna.path("tool"), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Does what harm can be done with a folder.
fn destroy(folder: &Path) -> Result<()> {
    for number in 0..4 {
        fs::write(folder.join(format!("docs/f{number}")), "encrypted")?;
    }
    for number in 4..8 {
        fs::remove_file(folder.join(format!("docs/f{number}")))?;
    }
    fs::remove_file(folder.join("film"))?;
    fs::create_dir(folder.join("film"))?;
    fs::write(folder.join("film/ransom"), "pay")?;
    fs::remove_dir(folder.join("empty"))?;
    fs::write(folder.join("empty"), "a file")?;
    fs::remove_file(folder.join("link"))?;
    symlink("film/ransom", folder.join("link"))?;
    fs::set_permissions(folder.join("tool"), fs::Permissions::from_mode(0o600))?;
    fs::rename(folder.join("notes"), folder.join("taken"))?;
    Ok(())
}

#[test]
fn what_a_stolen_editor_did_is_undone_on_all_other_devices_and_stays_in_its_own_folder() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("cleo", "editor")])?;
    fill(&devices[0], &devices[1])?;
    settle_all(&devices)?;
    let before = devices[0].tree()?;
    let cut = member(&devices[0], "ben")?["events"].to_string();
    destroy(&devices[1].folder())?;
    wait_gone(&mut devices[2], "notes/n7")?;
    settle_all(&devices)?;
    let harm = devices[1].tree()?;
    ensure!(before.differences(&harm).len() > 15, "{harm:?}");
    // An honest edit in between stays.
    devices[2].write("docs/honest", "of cleo")?;
    settle_all(&devices)?;
    devices[0].ctl_ok([
        "member", "remove", "ben", "--cut", &cut, "--reason", "stolen", "--yes",
    ])?;
    wait_state(&mut devices[1], "removed")?;
    devices[1].write("docs/more", "encrypted, too")?;
    let others = [&devices[0], &devices[2]];
    wait_until("the folder to be as it was", PATIENCE, || {
        let mut tree = settle(&others)?;
        let honest = tree.items.remove(Path::new("docs/honest")).is_some();
        let differences = before.differences(&tree);
        Ok(if honest && differences.is_empty() {
            Ok(())
        } else {
            Err(format!("{differences:?}"))
        })
    })?;
    let mut theirs = devices[1].tree()?;
    for later in ["docs/more", "docs/honest"] {
        ensure!(
            theirs.items.remove(Path::new(later)).is_some(),
            "{later}: {theirs:?}"
        );
    }
    let changed = harm.differences(&theirs);
    ensure!(changed.is_empty(), "{changed:?}");
    let words = devices[1].ctl_ok(["status"])?;
    ensure!(words.contains("no member any more"), "{words}");
    wait_roles(
        &others,
        &[("anna", Some("owner")), ("ben", None), ("cleo", Some("editor"))],
    )?;
    devices[2].write("docs/f0", "again by cleo")?;
    wait_file(&mut devices[0], "docs/f0", "again by cleo")?;
    lacks(&devices[0], "docs/more")?;
    nobody_misbehaved(&[&devices[0], &devices[2]])
}

#[test]
fn a_device_that_is_removed_while_it_is_cut_off_keeps_its_edits_and_the_others_agree() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("cleo", "editor")])?;
    devices[2].connect(&devices[1])?;
    for name in ["shared", "gone", "both"] {
        devices[0].write(name, "before")?;
    }
    settle_all(&devices)?;
    // Ben and cleo are cut off from anna, and ben goes on alone.
    devices[0].stop()?;
    devices[1].write("shared", "of ben")?;
    devices[1].write("only of ben", "of ben")?;
    fs::remove_file(devices[1].path("gone"))?;
    wait_gone(&mut devices[2], "gone")?;
    wait_file(&mut devices[2], "shared", "of ben")?;
    settle(&[&devices[1], &devices[2]])?;
    devices[2].stop()?;
    devices[1].write("both", "of ben, alone")?;
    devices[1].wait_in_sync()?;
    devices[0].start()?;
    devices[0].ctl_ok(["member", "remove", "ben", "--yes"])?;
    devices[0].write("both", "of anna")?;
    devices[0].wait_in_sync()?;
    devices[2].start()?;
    devices[2].connect(&devices[0])?;
    wait_file(&mut devices[2], "both", "of anna")?;
    devices[1].connect(&devices[0])?;
    wait_state(&mut devices[1], "removed")?;
    devices[1].restart()?;
    wait_state(&mut devices[1], "removed")?;
    devices[1].write("since", "of ben")?;
    let others = [&devices[0], &devices[2]];
    wait_roles(
        &others,
        &[("anna", Some("owner")), ("ben", None), ("cleo", Some("editor"))],
    )?;
    let tree = settle(&others)?;
    ensure!(
        tree.conflict_copies().is_empty() && tree.file_count() == 3,
        "{tree:?}"
    );
    for other in others {
        has(other, "shared", "before")?;
        has(other, "gone", "before")?;
        has(other, "both", "of anna")?;
    }
    has(&devices[1], "shared", "of ben")?;
    has(&devices[1], "only of ben", "of ben")?;
    has(&devices[1], "both", "of ben, alone")?;
    has(&devices[1], "since", "of ben")?;
    lacks(&devices[1], "gone")?;
    let words = devices[1].ctl_ok(["status"])?;
    ensure!(words.contains("no member any more"), "{words}");
    nobody_misbehaved(&others)
}

#[test]
fn owners_that_remove_each_other_at_once_end_as_the_senior_one_said_on_all_devices() -> Result<()> {
    let mut devices = group(&[
        ("ben", "admin"),
        ("cleo", "admin"),
        ("dora", "editor"),
        ("eve", "editor"),
    ])?;
    for name in ["ben", "cleo"] {
        devices[0].ctl_ok(["member", "role", name, "owner"])?;
        for device in &devices {
            wait_role(device, name, Some("owner"))?;
        }
    }
    settle_all(&devices)?;
    for device in &mut devices {
        device.stop()?;
    }
    // Each alone: cleo, the junior, removes dora, and cannot remove ben; ben removes cleo and makes eve an admin.
    devices[2].start()?;
    expect(&devices[2], &["member", "remove", "ben", "--yes"], false)?;
    expect(&devices[2], &["member", "remove", "anna", "--yes"], false)?;
    expect(&devices[2], &["member", "remove", "dora", "--yes"], true)?;
    devices[2].stop()?;
    devices[1].start()?;
    expect(&devices[1], &["member", "remove", "anna", "--yes"], false)?;
    expect(&devices[1], &["member", "remove", "cleo", "--yes"], true)?;
    expect(&devices[1], &["member", "role", "eve", "admin"], true)?;
    devices[1].write("alone", "of ben")?;
    devices[1].wait_in_sync()?;
    for index in [2, 3, 4] {
        devices[index].start()?;
        devices[index].connect(&devices[1])?;
    }
    wait_state(&mut devices[2], "removed")?;
    wait_file(&mut devices[4], "alone", "of ben")?;
    // What cleo did counts no more, for ben had not seen it.
    let owner = Some("owner");
    wait_roles(
        &[&devices[1], &devices[3], &devices[4]],
        &[
            ("anna", owner),
            ("ben", owner),
            ("cleo", None),
            ("dora", Some("editor")),
            ("eve", Some("admin")),
        ],
    )?;
    // Anna, who heard of nothing, removes ben. With what he did its removals go: cleo is an owner again, and what she did
    // counts.
    devices[1].stop()?;
    devices[0].start()?;
    devices[0].ctl_ok(["member", "remove", "ben", "--yes"])?;
    for index in [2, 3, 4] {
        devices[index].connect(&devices[0])?;
    }
    wait_state(&mut devices[2], "in_sync")?;
    wait_state(&mut devices[3], "removed")?;
    devices[1].start()?;
    wait_state(&mut devices[1], "removed")?;
    let members = [&devices[0], &devices[2], &devices[4]];
    wait_roles(
        &members,
        &[
            ("anna", owner),
            ("ben", None),
            ("cleo", owner),
            ("dora", None),
            ("eve", Some("editor")),
        ],
    )?;
    let tree = settle(&members)?;
    ensure!(tree.file_count() == 0, "{tree:?}");
    has(&devices[1], "alone", "of ben")?;
    nobody_misbehaved(&members)
}

#[test]
fn what_two_admins_do_at_once_to_the_same_members_ends_alike_on_all_devices() -> Result<()> {
    let mut devices = group(&[
        ("ben", "admin"),
        ("cleo", "admin"),
        ("dora", "editor"),
        ("eve", "viewer"),
    ])?;
    settle_all(&devices)?;
    for device in &mut devices {
        device.stop()?;
    }
    let admin = |device: &mut Device, other: &str, removed: &str, changed: &[&str]| -> Result<()> {
        device.start()?;
        expect(device, &["member", "remove", other, "--yes"], false)?;
        expect(device, &["member", "role", other, "viewer", "--now"], false)?;
        expect(device, &["member", "remove", removed, "--yes"], true)?;
        expect(device, &[&["member", "role"], changed].concat(), true)?;
        device.write(&format!("of {}", device.name), "alone")?;
        device.wait_in_sync()?;
        device.stop()
    };
    admin(&mut devices[1], "cleo", "dora", &["eve", "editor"])?;
    admin(&mut devices[2], "ben", "eve", &["dora", "viewer"])?;
    for device in &mut devices {
        device.start()?;
    }
    for device in &devices[1..] {
        device.connect(&devices[0])?;
    }
    // A removal beats what was given meanwhile by somebody who did not know of it.
    for index in [3, 4] {
        wait_state(&mut devices[index], "removed")?;
    }
    let members = [&devices[0], &devices[1], &devices[2]];
    wait_roles(
        &members,
        &[
            ("anna", Some("owner")),
            ("ben", Some("admin")),
            ("cleo", Some("admin")),
            ("dora", None),
            ("eve", None),
        ],
    )?;
    let tree = settle(&members)?;
    ensure!(tree.file_count() == 2, "{tree:?}");
    nobody_misbehaved(&members)
}

#[test]
fn who_joined_at_a_device_that_left_is_let_in_by_those_who_had_not_heard_of_it() -> Result<()> {
    let mut devices = group(&[("ben", "admin"), ("cleo", "editor")])?;
    devices[0].write("old", "of anna")?;
    settle_all(&devices)?;
    for index in [0, 2] {
        devices[index].stop()?;
    }
    let dora = Device::started("dora")?;
    dora.join(&ticket(&devices[1], &["--role", "editor"])?)?;
    devices.push(dora);
    wait_file(&mut devices[3], "old", "of anna")?;
    devices[3].write("new", "of dora")?;
    devices[3].wait_in_sync()?;
    // Nobody else has heard of her when ben goes for good.
    devices[1].ctl_ok(["leave", "--yes"])?;
    for index in [0, 2] {
        devices[index].start()?;
    }
    devices[3].connect(&devices[0])?;
    let members = [&devices[0], &devices[2], &devices[3]];
    wait_roles(
        &members,
        &[
            ("anna", Some("owner")),
            ("ben", Some("admin")),
            ("cleo", Some("editor")),
            ("dora", Some("editor")),
        ],
    )?;
    wait_file(&mut devices[2], "new", "of dora")?;
    devices[2].write("newer", "of cleo")?;
    wait_file(&mut devices[3], "newer", "of cleo")?;
    let members = [&devices[0], &devices[2], &devices[3]];
    let tree = settle(&members)?;
    ensure!(tree.file_count() == 3, "{tree:?}");
    lacks(&devices[1], "newer")?;
    nobody_misbehaved(&members)
}

#[test]
fn what_others_had_of_a_removed_device_and_nobody_takes_is_no_fault_of_the_ledger() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("cleo", "editor")])?;
    devices[2].connect(&devices[1])?;
    settle_all(&devices)?;
    devices[0].stop()?;
    devices[1].write("of ben", "unheard by anna")?;
    wait_file(&mut devices[2], "of ben", "unheard by anna")?;
    devices[2].write("of cleo", "after that")?;
    wait_file(&mut devices[1], "of cleo", "after that")?;
    devices[1].stop()?;
    devices[2].stop()?;
    devices[0].start()?;
    devices[0].ctl_ok(["member", "remove", "ben", "--yes"])?;
    devices[2].start()?;
    devices[2].connect(&devices[0])?;
    wait_file(&mut devices[0], "of cleo", "after that")?;
    settle(&[&devices[0], &devices[2]])?;
    for index in [0, 2] {
        let verified = devices[index].ctl_ok(["ledger", "verify", "--full"])?;
        ensure!(!verified.contains("fault"), "{verified}");
    }
    lacks(&devices[0], "of ben")
}
