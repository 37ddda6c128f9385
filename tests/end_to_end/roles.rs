//! Who may do what: honest devices of each role, those who are removed or lowered, and where an editor may write.

use std::fs;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, PATIENCE, settle, wait_until};
use serde_json::Value;

/// The exit code for what this device may not do.
const NO_PERMISSION: i32 = 77;

const ROLES: [&str; 4] = ["viewer", "editor", "admin", "owner"];

/// Devices that anna let in, by their names and roles; anna, the owner, is the first.
pub(crate) fn group(others: &[(&str, &str)]) -> Result<Vec<Device>> {
    let mut devices = vec![Device::started("anna")?];
    for (name, role) in others {
        let device = Device::started(name)?;
        device.join(&ticket(&devices[0], &["--role", role])?)?;
        devices.push(device);
    }
    for device in &devices {
        for (name, role) in others {
            wait_role(device, name, Some(role))?;
        }
    }
    Ok(devices)
}

pub(crate) fn ticket(by: &Device, args: &[&str]) -> Result<String> {
    let args = [&["invite", "create", "--json"], args].concat();
    let answer = by.ctl_json(args)?;
    Ok(answer["ticket"].as_str().context("No ticket")?.to_owned())
}

pub(crate) fn member(on: &Device, name: &str) -> Result<Value> {
    let answer = on.ctl_json(["member", "list", "--json"])?;
    let members = answer["members"].as_array().context("A list of members")?;
    let found = members.iter().find(|member| member["name"] == name);
    Ok(found.cloned().unwrap_or_default())
}

/// Waits until a device knows another in this role; `None`: as no member.
pub(crate) fn wait_role(on: &Device, name: &str, role: Option<&str>) -> Result<()> {
    wait_until(
        &format!("{} to see {name} as {role:?}", on.name),
        PATIENCE,
        || {
            let member = member(on, name)?;
            let is_so = member["id"].is_string() && member["role"].as_str() == role;
            Ok(if is_so { Ok(()) } else { Err(member.to_string()) })
        },
    )
}

pub(crate) fn wait_state(device: &mut Device, state: &str) -> Result<()> {
    device.wait(state, PATIENCE, |device| {
        let status = device.status()?;
        Ok(if status.state() == state {
            Ok(())
        } else {
            Err(status.0.to_string())
        })
    })
}

/// Waits until a device has put right what it may not change.
fn wait_rejected(device: &mut Device, count: u64) -> Result<()> {
    device.wait("its changes to be refused", PATIENCE, |device| {
        let status = device.status()?;
        let is_over = status.folder("rejected") >= Some(count) && status.in_sync();
        Ok(if is_over {
            Ok(())
        } else {
            Err(status.0.to_string())
        })
    })
}

pub(crate) fn has(device: &Device, path: &str, text: &str) -> Result<()> {
    let found = fs::read_to_string(device.path(path));
    ensure!(
        found.as_deref().ok() == Some(text),
        "{}: {path} is {found:?}, not {text:?}{}",
        device.name,
        device.log_tail()
    );
    Ok(())
}

pub(crate) fn lacks(device: &Device, path: &str) -> Result<()> {
    ensure!(!device.path(path).exists(), "{} has {path}", device.name);
    Ok(())
}

pub(crate) fn wait_file(device: &mut Device, path: &str, text: &str) -> Result<()> {
    device.wait(path, PATIENCE, |device| {
        let found = fs::read_to_string(device.path(path));
        Ok(if found.as_deref().ok() == Some(text) {
            Ok(())
        } else {
            Err(format!("it is {found:?}"))
        })
    })
}

pub(crate) fn wait_gone(device: &mut Device, path: &str) -> Result<()> {
    device.wait(path, PATIENCE, |device| {
        Ok(if device.path(path).exists() {
            Err("it is there".to_owned())
        } else {
            Ok(())
        })
    })
}

pub(crate) fn settle_all(devices: &[Device]) -> Result<()> {
    settle(&devices.iter().collect::<Vec<_>>()).map(drop)
}

#[test]
fn owners_admins_and_editors_change_files_and_a_viewer_does_not() -> Result<()> {
    let mut devices = group(&[("ben", "admin"), ("cleo", "editor"), ("dora", "viewer")])?;
    for name in ["anna", "ben", "cleo", "dora"] {
        for file in ["edit", "gone", "old"] {
            devices[0].write(&format!("{name}/{file}"), format!("{file} of {name}"))?;
        }
    }
    settle_all(&devices)?;
    for device in &devices {
        let name = device.name.clone();
        device.write(&format!("{name}/new"), "new")?;
        device.write(&format!("{name}/edit"), "edited here")?;
        fs::remove_file(device.path(&format!("{name}/gone")))?;
        fs::rename(
            device.path(&format!("{name}/old")),
            device.path(&format!("{name}/moved")),
        )?;
    }
    // new, edit, gone, and both ends of the rename.
    wait_rejected(&mut devices[3], 5)?;
    for writer in ["anna", "ben", "cleo"] {
        for device in &mut devices {
            wait_file(device, &format!("{writer}/new"), "new")?;
            wait_file(device, &format!("{writer}/edit"), "edited here")?;
            wait_file(device, &format!("{writer}/moved"), &format!("old of {writer}"))?;
            wait_gone(device, &format!("{writer}/gone"))?;
            wait_gone(device, &format!("{writer}/old"))?;
        }
    }
    settle_all(&devices[..3])?;
    for device in &devices {
        has(device, "dora/edit", "edit of dora")?;
        has(device, "dora/gone", "gone of dora")?;
        has(device, "dora/old", "old of dora")?;
    }
    for device in &devices[..3] {
        lacks(device, "dora/new")?;
        lacks(device, "dora/moved")?;
    }
    has(&devices[3], "dora/new", "new")?;
    has(&devices[3], "dora/moved", "old of dora")?;
    let words = devices[3].ctl_ok(["status"])?;
    ensure!(
        words.contains("were not published: this device is a viewer"),
        "{words}"
    );
    the_viewers_edit_is_an_old_version(&devices[3])?;
    devices[0].ctl_ok(["member", "role", "dora", "editor"])?;
    for device in &mut devices[..3] {
        wait_file(device, "dora/new", "new")?;
        wait_file(device, "dora/moved", "old of dora")?;
    }
    settle_all(&devices)?;
    ensure!(devices[3].status()?.folder("rejected") == Some(0));
    Ok(())
}

fn the_viewers_edit_is_an_old_version(dora: &Device) -> Result<()> {
    let answer = dora.ctl_json(["history", "dora/edit", "--json"])?;
    let versions = answer["versions"].as_array().context("A history has versions")?;
    let length = u64::try_from("edited here".len())?;
    let edited = versions.iter().find(|version| version["size"] == length);
    let id = edited.and_then(|version| version["id"].as_str());
    let id = id.with_context(|| format!("No version has the edit: {answer}"))?;
    let out = dora.state().join("edit");
    let target = out.to_str().context("A readable path")?;
    dora.ctl_ok(["restore", "dora/edit", "--version", id, "-o", target])?;
    ensure!(fs::read_to_string(&out)? == "edited here");
    Ok(())
}

/// Whether a role may give or take another (roles.md 1).
fn may_give(actor: &str, role: &str) -> bool {
    match actor {
        "owner" => true,
        "admin" => matches!(role, "editor" | "viewer"),
        _ => false,
    }
}

pub(crate) fn expect(actor: &Device, args: &[&str], allowed: bool) -> Result<()> {
    let ctl = actor.ctl(args.iter().copied())?;
    let expected = if allowed { 0 } else { NO_PERMISSION };
    ensure!(
        ctl.code == Some(expected),
        "{} {args:?}: {:?} and not {expected}: {}{}",
        actor.name,
        ctl.code,
        ctl.stderr,
        actor.log_tail()
    );
    Ok(())
}

#[test]
fn each_role_invites_whom_it_may() -> Result<()> {
    let devices = group(&[("ben", "admin"), ("cleo", "editor"), ("dora", "viewer")])?;
    for (device, actor) in devices.iter().zip(["owner", "admin", "editor", "viewer"]) {
        for role in ["viewer", "editor", "admin"] {
            expect(
                device,
                &["invite", "create", "--role", role],
                may_give(actor, role),
            )?;
        }
        let ctl = device.ctl(["invite", "create", "--role", "owner"])?;
        ensure!(ctl.code == Some(64), "{ctl:?}");
    }
    Ok(())
}

/// The devices anna, ben, cleo, dora and vic; each has one of the roles, and vic is what is done to.
fn group_with_victim() -> Result<(Vec<Device>, Device)> {
    let mut devices = group(&[
        ("ben", "admin"),
        ("cleo", "editor"),
        ("dora", "viewer"),
        ("vic", "viewer"),
    ])?;
    let vic = devices.pop().context("The last")?;
    Ok((devices, vic))
}

const ACTORS: [&str; 4] = ["owner", "admin", "editor", "viewer"];

#[test]
fn each_role_gives_what_it_may() -> Result<()> {
    let (devices, vic) = group_with_victim()?;
    for role in ROLES {
        for (device, actor) in devices.iter().zip(ACTORS) {
            wait_role(device, "vic", Some("viewer"))?;
            expect(device, &["member", "role", "vic", role], may_give(actor, role))?;
            if !may_give(actor, role) {
                continue;
            }
            wait_role(&vic, "vic", Some(role))?;
            wait_role(&devices[0], "vic", Some(role))?;
            if role != "viewer" {
                devices[0].ctl_ok(["member", "role", "vic", "viewer"])?;
                wait_role(&vic, "vic", Some("viewer"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn each_role_removes_whom_it_may() -> Result<()> {
    let (devices, mut vic) = group_with_victim()?;
    for role in ROLES {
        for (device, actor) in devices.iter().zip(ACTORS).rev() {
            devices[0].ctl_ok(["member", "role", "vic", role])?;
            wait_role(device, "vic", Some(role))?;
            let removes = may_give(actor, role);
            expect(device, &["member", "remove", "vic", "--yes"], removes)?;
            if !removes {
                continue;
            }
            for other in &devices {
                wait_role(other, "vic", None)?;
            }
            wait_state(&mut vic, "removed")?;
            vic.join(&devices[0].invite()?)?;
            wait_role(&devices[0], "vic", Some("editor"))?;
            wait_state(&mut vic, "in_sync")?;
        }
    }
    Ok(())
}

#[test]
fn edits_of_a_device_that_was_down_while_it_was_removed_stay_in_its_own_folder() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("cleo", "editor")])?;
    devices[1].write("shared", "before")?;
    settle_all(&devices)?;
    devices[1].stop()?;
    let json = devices[0].ctl_json(["member", "remove", "ben", "--reason", "sold", "--yes", "--json"])?;
    ensure!(json["removed"][0]["name"] == "ben", "{json}");
    devices[1].write("shared", "after")?;
    devices[1].write("mine", "only here")?;
    devices[1].start()?;
    wait_state(&mut devices[1], "removed")?;
    // Whatever it could have said had its time when two more rounds went through.
    for name in ["one", "two"] {
        devices[0].write(name, name)?;
        wait_file(&mut devices[2], name, name)?;
    }
    settle(&[&devices[0], &devices[2]])?;
    for index in [0, 2] {
        has(&devices[index], "shared", "before")?;
        lacks(&devices[index], "mine")?;
    }
    has(&devices[1], "shared", "after")?;
    has(&devices[1], "mine", "only here")?;
    lacks(&devices[1], "one")?;
    let words = devices[1].ctl_ok(["status"])?;
    ensure!(
        words.contains("no member any more") && words.contains("join again: syncctl join TICKET"),
        "{words}"
    );
    let gone = member(&devices[0], "ben")?;
    ensure!(
        gone["role"].is_null() && gone["removal_reason"] == "sold" && gone["removed_by"]["name"] == "anna",
        "{gone}"
    );
    let log = fs::read_to_string(devices[0].log_path())?;
    let called = log.lines().find(|line| line.contains("RemoveMember"));
    ensure!(
        called.is_some_and(|line| line.contains("uid") && line.contains("pid")),
        "{log}"
    );
    Ok(())
}

#[test]
fn an_editor_of_one_directory_writes_there_and_nowhere_else() -> Result<()> {
    let anna = Device::started("anna")?;
    anna.write("top.txt", "anna's")?;
    anna.write("docs/plan", "one")?;
    let cleo = Device::started("cleo")?;
    cleo.join(&ticket(&anna, &["--scope", "docs"])?)?;
    let mut devices = vec![anna, cleo];
    wait_role(&devices[1], "cleo", Some("editor"))?;
    settle_all(&devices)?;
    devices[1].write("docs/plan", "two")?;
    devices[1].write("docs/deep/new", "new")?;
    devices[1].write("docs2/outside", "outside")?;
    devices[1].write("top.txt", "cleo's")?;
    wait_rejected(&mut devices[1], 2)?;
    wait_file(&mut devices[0], "docs/plan", "two")?;
    wait_file(&mut devices[0], "docs/deep/new", "new")?;
    // Others may have been counted before it.
    wait_file(&mut devices[1], "top.txt", "anna's")?;
    has(&devices[1], "docs2/outside", "outside")?;
    has(&devices[0], "top.txt", "anna's")?;
    lacks(&devices[0], "docs2")?;
    let cleo = member(&devices[0], "cleo")?;
    ensure!(cleo["scopes"][0]["path"] == "docs", "{cleo}");
    devices[0].ctl_ok(["member", "role", "cleo", "editor"])?;
    wait_file(&mut devices[0], "docs2/outside", "outside")?;
    devices[1].write("top.txt", "cleo's")?;
    wait_file(&mut devices[0], "top.txt", "cleo's")?;
    settle_all(&devices)
}

#[test]
fn a_revoked_invite_lets_nobody_in() -> Result<()> {
    let anna = Device::started("anna")?;
    let mut ben = Device::started("ben")?;
    let (first, second) = (anna.invite()?, anna.invite()?);
    let revoked = anna.ctl_json(["invite", "revoke", &first, "--yes", "--json"])?;
    let invites = anna.ctl_json(["invite", "list", "--json"])?;
    let invites = invites["invites"].as_array().context("A list of invites")?;
    let state = |key: &Value| {
        let known = invites.iter().find(|invite| invite["key"] == *key);
        known.map(|invite| invite["state"].clone())
    };
    ensure!(state(&revoked["key"]) == Some("closed".into()), "{invites:?}");
    ensure!(invites.iter().filter(|invite| invite["state"] == "open").count() == 1);
    let refused = ben.ctl(["join", &first])?;
    ensure!(refused.code != Some(0), "{refused:?}");
    let members = anna.ctl_json(["member", "list", "--json"])?;
    ensure!(
        members["members"].as_array().map(Vec::len) == Some(1),
        "{members}"
    );
    ensure!(ben.status()?.0["group"] != anna.status()?.0["group"]);
    ben.join(&second)?;
    wait_role(&ben, "ben", Some("editor"))?;
    wait_state(&mut ben, "in_sync")?;
    ben.ctl_ok(["device", "rename", "bens-laptop"])?;
    wait_role(&anna, "bens-laptop", Some("editor"))
}
