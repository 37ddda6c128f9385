//! What a removed device wrote beyond the cut: undone everywhere, and published again or forgotten as somebody decides.

use std::fs;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, PATIENCE, settle};
use serde_json::Value;

/// Anna, the owner, ben, an editor, and cleo, an admin.
fn group() -> Result<[Device; 3]> {
    let devices = ["anna", "ben", "cleo"].map(Device::started);
    let [anna, ben, cleo] = devices;
    let (anna, ben, cleo) = (anna?, ben?, cleo?);
    for (device, role) in [(&ben, "editor"), (&cleo, "admin")] {
        let answer = anna.ctl_json(["invite", "create", "--role", role, "--json"])?;
        device.join(answer["ticket"].as_str().context("An invite has a ticket")?)?;
    }
    Ok([anna, ben, cleo])
}

/// How many events of a device another knows.
fn events(on: &Device, name: &str) -> Result<u64> {
    let answer = on.ctl_json(["member", "list", "--json"])?;
    let members = answer["members"].as_array().context("A list of members")?;
    let found = members.iter().find(|member| member["name"] == name);
    found
        .and_then(|member| member["events"].as_u64())
        .with_context(|| answer.to_string())
}

fn quarantine(on: &Device) -> Result<Vec<Value>> {
    let answer = on.ctl_json(["quarantine", "list", "--json"])?;
    Ok(answer["items"].as_array().context("A list")?.clone())
}

fn paths(items: &[Value]) -> Vec<&str> {
    items.iter().filter_map(|item| item["path"].as_str()).collect()
}

fn wait_file(device: &mut Device, path: &str, text: Option<&str>) -> Result<()> {
    device.wait(path, PATIENCE, |device| {
        let found = fs::read_to_string(device.path(path)).ok();
        Ok(if found.as_deref() == text {
            Ok(())
        } else {
            Err(format!("it is {found:?}"))
        })
    })
}

fn wait_listed(device: &mut Device, expected: &[&str]) -> Result<()> {
    device.wait("its quarantine", PATIENCE, |device| {
        let items = quarantine(device)?;
        Ok(if paths(&items) == expected {
            Ok(())
        } else {
            Err(format!("{items:?}"))
        })
    })
}

/// Returns the names of the files that a device keeps as old versions.
fn kept(device: &Device) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for day in fs::read_dir(device.path(".p2p-sync/versions"))? {
        let day = day?;
        if day.file_type()?.is_dir() {
            for file in fs::read_dir(day.path())? {
                names.push(file?.file_name().to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

#[test]
fn what_a_cut_took_away_is_listed_published_again_by_an_admin_or_forgotten() -> Result<()> {
    let [mut anna, ben, mut cleo] = group()?;
    ben.write("shared", "before")?;
    settle(&[&anna, &ben, &cleo])?;
    let cut = events(&cleo, "ben")?.to_string();
    ben.write("shared", "after")?;
    ben.write("new", "only ben's")?;
    ben.write("spam", "spam")?;
    settle(&[&anna, &ben, &cleo])?;
    ensure!(quarantine(&cleo)?.is_empty());

    let words = cleo.ctl_ok(["member", "remove", "ben", "--cut", &cut, "--yes"])?;
    ensure!(words.contains("syncctl quarantine list"), "{words}");
    for device in [&mut anna, &mut cleo] {
        wait_file(device, "shared", Some("before"))?;
        wait_file(device, "new", None)?;
        wait_file(device, "spam", None)?;
        wait_listed(device, &["new", "shared", "spam"])?;
    }
    let items = quarantine(&cleo)?;
    let by_ben = |item: &Value| {
        item["version"]["at_hand"] == "versions" && item["event"].as_str().map(str::len) == Some(64)
    };
    ensure!(items.iter().all(by_ben), "{items:?}");
    let refused = ben.ctl(["quarantine", "accept", "spam"])?;
    ensure!(refused.code != Some(0), "{refused:?}");

    cleo.ctl_ok(["quarantine", "accept", "new"])?;
    wait_listed(&mut cleo, &["shared", "spam"])?;
    wait_file(&mut anna, "new", Some("only ben's"))?;
    // Anna's needs no second decision about what is published.
    wait_listed(&mut anna, &["shared", "spam"])?;

    let id = items[1]["version"]["id"]
        .as_str()
        .context("A version has an id")?;
    anna.ctl_ok(["quarantine", "accept", "shared", "--version", id])?;
    wait_file(&mut cleo, "shared", Some("after"))?;
    wait_listed(&mut cleo, &["spam"])?;

    ensure!(kept(&cleo)?.iter().any(|name| name.ends_with("-spam")));
    let dropped = cleo.ctl_json(["quarantine", "drop", "spam", "--yes", "--json"])?;
    ensure!(dropped["files"] == 1 && dropped["bytes"] == 4, "{dropped}");
    wait_listed(&mut cleo, &[])?;
    ensure!(!kept(&cleo)?.iter().any(|name| name.ends_with("-spam")));
    wait_listed(&mut anna, &["spam"])?;
    let again = cleo.ctl(["quarantine", "accept", "spam"])?;
    ensure!(again.code == Some(1), "{again:?}");

    let tree = settle(&[&anna, &cleo])?;
    ensure!(tree.has("new") && !tree.has("spam"), "{tree:?}");
    ensure!(tree.conflict_copies().is_empty(), "{tree:?}");
    ensure!(fs::read_to_string(ben.path("spam"))? == "spam");
    Ok(())
}
