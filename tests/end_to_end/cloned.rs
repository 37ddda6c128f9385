//! Two machines with the key of one device, as when a virtual machine was copied: both are heard, the others agree on what
//! both said, and everybody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE, settle};
use serde_json::Value;

use crate::roles::wait_state;

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    let status = copied.context("Running cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

/// Copies a device that does not run, with key, state and folder.
pub(crate) fn twin_of(device: &Device) -> Result<Device> {
    let twin = Device::new("twin")?;
    for (from, to) in [(device.state(), twin.state()), (device.folder(), twin.folder())] {
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        copy(&from, &to)?;
    }
    Ok(twin)
}

/// Waits until a device has published something beyond so many events.
fn wait_for_events(device: &mut Device, more_than: u64) -> Result<()> {
    device.wait("an event of its own", PATIENCE, |device| {
        let status = device.status()?;
        Ok(if status.events() > Some(more_than) && status.in_sync() {
            Ok(())
        } else {
            Err(status.0.to_string())
        })
    })
}

/// Three devices, and another machine with the key of the second; both changed something while nobody heard them.
fn with_twin() -> Result<(Group, Device)> {
    let mut group = Group::of(3)?;
    group[0].write("shared", "first")?;
    group[0].write("kept", "by all")?;
    group.settle()?;
    for index in 0..3 {
        group[index].stop()?;
    }
    let mut twin = twin_of(&group[1])?;
    for (device, name) in [(&mut group[1], "original"), (&mut twin, "copy")] {
        device.start()?;
        let before = device.status()?.events().unwrap_or(0);
        device.write(name, name)?;
        device.write("shared", name)?;
        device.ctl_ok(["rescan"])?;
        wait_for_events(device, before)?;
    }
    group[0].start()?;
    group[2].start()?;
    twin.connect(&group[0])?;
    Ok((group, twin))
}

fn contents(device: &Device) -> Result<BTreeSet<String>> {
    let tree = device.tree()?;
    let copies = tree.conflict_copies();
    let read = |path: &Path| {
        fs::read_to_string(device.folder().join(path)).with_context(|| path.display().to_string())
    };
    copies
        .into_iter()
        .chain([Path::new("shared")])
        .map(read)
        .collect()
}

fn is_warned(device: &Device) -> Result<bool> {
    Ok(device.status()?.0.to_string().contains("DEVICE_FORKED"))
}

/// The events of a device's ledger, by author and place.
fn events(device: &Device) -> Result<BTreeMap<(String, u64), BTreeSet<String>>> {
    let log = device.ctl_json(["log", "--json", "-n", "1000"])?;
    let mut events: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    for event in log["events"].as_array().context("No events")? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let place = (
            text(&event["author"]["id"]),
            event["seq"].as_u64().unwrap_or_default(),
        );
        events.entry(place).or_default().insert(text(&event["id"]));
    }
    Ok(events)
}

#[test]
fn what_two_machines_with_one_key_made_reaches_everybody() -> Result<()> {
    let (group, twin) = with_twin()?;
    let all = [&group[0], &group[1], &group[2], &twin];
    settle(&all)?;
    for device in all {
        let name = &device.name;
        for file in ["original", "copy"] {
            ensure!(fs::read_to_string(device.path(file))? == file, "{name}: {file}");
        }
        let both = ["original", "copy"].map(str::to_owned).into_iter().collect();
        ensure!(contents(device)? == both, "{name}: {:?}", contents(device)?);
        ensure!(is_warned(device)?, "{name}: {}", device.status()?.0);
        let verified = device.ctl_ok(["ledger", "verify", "--full"])?;
        ensure!(!verified.contains("fault"), "{name}: {verified}");
        let log = fs::read_to_string(device.log_path())?;
        ensure!(!log.contains("second event"), "{name}: {log}");
    }
    // The evidence: everybody has two events with one number.
    let told = events(&group[0])?;
    ensure!(told.values().any(|ids| ids.len() == 2), "{told:?}");
    for device in all {
        ensure!(events(device)? == told, "{}: {:?}", device.name, events(device)?);
    }
    Ok(())
}

#[test]
fn both_machines_go_on_and_what_others_change_reaches_both() -> Result<()> {
    let (mut group, mut twin) = with_twin()?;
    settle(&[&group[0], &group[1], &group[2], &twin])?;
    for round in 0..2 {
        group[1].write(&format!("original {round}"), format!("{round}"))?;
        twin.write(&format!("copy {round}"), format!("{round}"))?;
        group[2].write("kept", format!("by cleo, {round}"))?;
        settle(&[&group[0], &group[1], &group[2], &twin])?;
    }
    // A restart of everybody changes nothing.
    let before = group[0].tree()?;
    for index in 0..3 {
        group[index].restart()?;
    }
    twin.restart()?;
    twin.connect(&group[0])?;
    let after = settle(&[&group[0], &group[1], &group[2], &twin])?;
    ensure!(
        after.differences(&before).is_empty(),
        "{:?}",
        after.differences(&before)
    );
    ensure!(fs::read_to_string(twin.path("original 1"))? == "1");
    Ok(())
}

/// The first event that says something of a path.
fn event_of(device: &Device, path: &str) -> Result<String> {
    let log = device.ctl_json(["log", "--json", path])?;
    let events = log["events"].as_array().context("No events")?;
    let id = events.last().and_then(|event| event["id"].as_str());
    Ok(id.context("An event has no id")?.to_owned())
}

#[test]
fn what_one_machine_with_a_copied_key_did_is_undone_and_what_the_other_did_stays() -> Result<()> {
    let (mut group, mut twin) = with_twin()?;
    settle(&[&group[0], &group[1], &group[2], &twin])?;
    let event = event_of(&group[0], "copy")?;
    let name = group[1].name.clone();
    let wrong = event_of(&group[0], "kept")?;
    let refused = group[0].ctl(["member", "remove", &name, "--cut-event", &wrong, "--yes"])?;
    ensure!(
        refused.code != Some(0) && refused.stderr.contains("syncctl log"),
        "{refused:?}"
    );
    group[0].ctl_ok(["member", "remove", &name, "--cut-event", &event, "--yes"])?;
    for device in [&mut group[1], &mut twin] {
        wait_state(device, "removed")?;
    }
    let devices = [&group[0], &group[2]];
    settle(&devices)?;
    for device in devices {
        ensure!(!device.path("copy").exists(), "{}", device.name);
        ensure!(fs::read_to_string(device.path("original"))? == "original");
        let only = ["original".to_owned()].into_iter().collect();
        ensure!(contents(device)? == only, "{:?}", contents(device)?);
    }
    ensure!(fs::read_to_string(twin.path("copy"))? == "copy");
    Ok(())
}

#[test]
fn an_owner_removes_the_key_and_both_machines_are_out() -> Result<()> {
    let (mut group, mut twin) = with_twin()?;
    settle(&[&group[0], &group[1], &group[2], &twin])?;
    let name = group[1].name.clone();
    group[0].ctl_ok(["member", "remove", &name, "--yes"])?;
    for device in [&mut group[1], &mut twin] {
        wait_state(device, "removed")?;
    }
    let devices = [&group[0], &group[2]];
    settle(&devices)?;
    for device in devices {
        ensure!(fs::read_to_string(device.path("copy"))? == "copy");
        ensure!(fs::read_to_string(device.path("original"))? == "original");
        ensure!(!is_warned(device)?, "{}", device.status()?.0);
    }
    Ok(())
}
