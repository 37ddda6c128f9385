//! Deletions nobody saw, folders that go away, pauses, leaving, and being told why.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE, SourceTree, Tree, settle, wait_until};
use serde_json::Value;

use crate::{settle_as_left, settle_without_conflict};

/// A pair with a folder of more entries than are deleted without asking.
fn pair() -> Result<(Group, Tree)> {
    let group = Group::of(2)?;
    SourceTree { seed: 71, files: 180 }.write_to(&group[0].folder())?;
    let tree = settle_as_left(&group, 0)?;
    Ok((group, tree))
}

fn empty(device: &Device) -> Result<()> {
    for entry in fs::read_dir(device.folder())? {
        let path = entry?.path();
        if path.ends_with(".p2p-sync") {
            continue;
        }
        if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn wait_status(device: &mut Device, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
    device.wait(what, PATIENCE, |device| {
        let status = device.status()?.0;
        Ok(if holds(&status) {
            Ok(())
        } else {
            Err(status.to_string())
        })
    })
}

fn has_warning(status: &Value, code: &str) -> bool {
    let warnings = status["warnings"].as_array();
    warnings.is_some_and(|all| all.iter().any(|warning| warning["code"] == code))
}

/// Empties the second device's folder while its daemon is down, and starts it again.
fn emptied_pair() -> Result<(Group, Tree)> {
    let (mut group, tree) = pair()?;
    let events = group[1].status()?.events();
    group[1].stop()?;
    empty(&group[1])?;
    group[1].start()?;
    for restarted in [false, true] {
        if restarted {
            group[1].restart()?;
        }
        wait_status(&mut group[1], "deletions to be held", |status| {
            status["folder"]["deletions_held"].as_u64() > Some(180) && has_warning(status, "DELETIONS_HELD")
        })?;
        group[1].ctl_ok(["rescan"])?;
    }
    ensure!(group[1].status()?.events() == events, "Something was published");
    ensure!(group[0].tree()? == tree, "The other device lost something");
    Ok((group, tree))
}

#[test]
fn a_folder_emptied_while_the_daemon_was_down_empties_others_only_when_confirmed() -> Result<()> {
    let (mut group, _) = emptied_pair()?;
    let (path, why) = some_file(&group, 1)?;
    ensure!(
        why["cause"] == "deletion_held" && why["settled"] == false,
        "{path}: {why}"
    );
    group[1].ctl_ok(["confirm-deletes"])?;
    wait_status(&mut group[1], "the answer to be carried out", |status| {
        status["folder"]["deletions_held"] == 0 && status["folder"]["state"] == "in_sync"
    })?;
    let left = settle_without_conflict(&group)?;
    ensure!(left.items.is_empty(), "{left:?}");
    let again = group[1].ctl(["confirm-deletes"])?;
    ensure!(again.code == Some(64), "{again:?}");
    Ok(())
}

#[test]
fn an_emptied_folder_is_brought_back() -> Result<()> {
    let (group, tree) = emptied_pair()?;
    group[1].ctl_ok(["confirm-deletes", "--restore"])?;
    group.settle_as(&tree)?;
    settle_without_conflict(&group)?;
    Ok(())
}

#[test]
fn a_folder_emptied_before_the_daemons_eyes_is_emptied_everywhere() -> Result<()> {
    let (group, _) = pair()?;
    empty(&group[1])?;
    let left = settle_as_left(&group, 1)?;
    ensure!(left.items.is_empty(), "{left:?}");
    Ok(())
}

/// Some file of the first device, and what the device `number` says about it.
fn some_file(group: &Group, number: usize) -> Result<(String, Value)> {
    let tree = group[0].tree()?;
    let path = tree
        .items
        .keys()
        .find_map(|path| path.to_str())
        .context("A path")?
        .to_owned();
    let why = group[number].ctl_json(["why", &path, "--json"])?;
    Ok((path, why))
}

#[test]
fn a_folder_that_goes_away_deletes_nothing_and_goes_on_when_it_is_back() -> Result<()> {
    let (mut group, _) = pair()?;
    let events = group[1].status()?.events();
    let away = group[1].folder().with_extension("away");
    fs::rename(group[1].folder(), &away)?;
    group[1].ctl_ok(["rescan"])?;
    wait_status(&mut group[1], "the folder to be missed", |status| {
        let failure = status["folder"]["failure"].as_str().unwrap_or_default();
        status["folder"]["state"] == "failed" && failure.contains("syncctl rescan")
    })?;
    // Another one in its place is not the folder, and nothing is put into it.
    fs::create_dir(group[1].folder())?;
    group[0].write("meanwhile.txt", "new")?;
    group[0].wait_in_sync()?;
    group[1].ctl_ok(["rescan"])?;
    wait_status(&mut group[1], "the change to be wanted", |status| {
        status["folder"]["files_needed"].as_u64() > Some(0) && status["folder"]["state"] == "failed"
    })?;
    ensure!(
        fs::read_dir(group[1].folder())?.next().is_none(),
        "Something was put there"
    );
    ensure!(group[1].status()?.events() >= events, "The ledger went back");
    let own = group[0].tree()?;
    fs::remove_dir(group[1].folder())?;
    fs::rename(&away, group[1].folder())?;
    group[1].ctl_ok(["rescan"])?;
    group.settle_as(&own)?;
    settle_without_conflict(&group)?;
    Ok(())
}

#[test]
fn a_start_without_the_folder_is_refused() -> Result<()> {
    let (mut group, tree) = pair()?;
    group[1].stop()?;
    let away = group[1].folder().with_extension("away");
    fs::rename(group[1].folder(), &away)?;
    fs::create_dir(group[1].folder())?;
    let status = group[1].second_daemon()?;
    ensure!(!status.success(), "It started in an empty folder");
    ensure!(
        group[1].log_tail().contains("put the folder back"),
        "{}",
        group[1].log_tail()
    );
    fs::remove_dir_all(group[1].folder())?;
    fs::rename(&away, group[1].folder())?;
    group[1].start()?;
    group.settle_as(&tree)
}

#[test]
fn a_paused_device_changes_nothing_until_it_is_resumed() -> Result<()> {
    let mut group = Group::of(2)?;
    group[1].ctl_ok(["pause"])?;
    group[1].write("mine.txt", "1")?;
    group[0].write("theirs.txt", "2")?;
    group[0].wait_in_sync()?;
    for restarted in [false, true] {
        if restarted {
            group[1].restart()?;
        }
        wait_status(&mut group[1], "the ledger to come", |status| {
            status["folder"]["state"] == "paused" && status["folder"]["files_needed"] == 1
        })?;
        let waited = group[1].ctl(["wait", "--for", "in-sync", "--timeout", "60s"])?;
        ensure!(
            waited.code == Some(1) && waited.stderr.contains("syncctl resume"),
            "{waited:?}"
        );
        ensure!(
            !group[1].path("theirs.txt").exists() && !group[0].path("mine.txt").exists(),
            "Not paused"
        );
        ensure!(
            group[1].ctl_json(["why", "theirs.txt", "--json"])?["paused"] == true,
            "why"
        );
    }
    group[1].ctl_ok(["resume"])?;
    // What was written while nobody published is found by the scan of the restart.
    wait_until("both files to be on both", PATIENCE, || {
        let there = |device: &Device| device.path("mine.txt").exists() && device.path("theirs.txt").exists();
        Ok(if group.devices.iter().all(there) {
            Ok(())
        } else {
            Err(String::new())
        })
    })?;
    settle_without_conflict(&group)?;
    Ok(())
}

#[test]
fn who_leaves_keeps_the_files_and_hears_no_more() -> Result<()> {
    let (mut group, tree) = pair()?;
    let refused = group[1].ctl(["leave"])?;
    ensure!(
        refused.code == Some(64) && refused.stderr.contains("--yes"),
        "{refused:?}"
    );
    let before = group[1].status()?.0["group"].clone();
    group[1].ctl_ok(["leave", "--yes"])?;
    wait_status(&mut group[1], "a group of its own", |status| {
        let others = status["peers"]["total"] == 0 && status["role"] == "owner";
        status["group"] != before && others && status["folder"]["state"] == "in_sync"
    })?;
    group[0].write("later.txt", "not for all")?;
    group[0].wait_in_sync()?;
    group[1].restart()?;
    group[1].wait_in_sync()?;
    ensure!(group[1].tree()? == tree, "The files did not stay as they were");
    let listed = group[0].ctl_json(["peers", "--json"])?;
    ensure!(listed.to_string().contains(&group[1].name), "{listed}");
    // It may come back.
    let ticket = group[0].invite()?;
    group[1].join(&ticket)?;
    let both = settle(&group.devices.iter().collect::<Vec<_>>())?;
    ensure!(both.file_count() == tree.file_count() + 1, "{both:?}");
    Ok(())
}

#[test]
fn what_stands_in_the_way_is_named() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("there.txt", "1")?;
    group[0].write("d/a", "1")?;
    settle_as_left(&group, 0)?;
    let cause = |device: &Device, path: &str| -> Result<Value> {
        Ok(device.ctl_json(["why", path, "--json"])?["cause"].clone())
    };
    ensure!(
        cause(&group[1], "there.txt")? == "in_sync" && cause(&group[1], "nowhere")? == "unknown",
        "at rest"
    );
    ensure!(cause(&group[1], ".x.swp")? == "ignored", "ignored");
    // A directory that holds what is not synced cannot go.
    group[1].write("d/.a.swp", "open")?;
    fs::remove_dir_all(group[0].path("d"))?;
    group[1].wait("the directory to be in the way", PATIENCE, |device| {
        let why = device.ctl_json(["why", "d", "--json"])?;
        let named = why["blockers"][0]["path"] == "d/.a.swp";
        let status = device.status()?.0;
        let stuck = status["folder"]["stuck"][0]["path"] == "d" && has_warning(&status, "PATH_STUCK");
        Ok(if named && stuck {
            Ok(())
        } else {
            Err(format!("{why} {status}"))
        })
    })?;
    fs::remove_file(group[1].path("d/.a.swp"))?;
    let words = group[0].ctl_ok(["why", "there.txt"])?;
    ensure!(words.contains("in sync"), "{words}");
    if unreadable_possible() {
        let path = group[0].path("secret");
        fs::write(&path, "x")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000))?;
        group[0].ctl_ok(["rescan"])?;
        group[0].wait("the file to be unreadable", PATIENCE, |device| {
            let why = device.ctl_json(["why", "secret", "--json"])?;
            let total = device.status()?.folder("stuck_total");
            Ok(if why["cause"] == "unreadable" && total > Some(0) {
                Ok(())
            } else {
                Err(why.to_string())
            })
        })?;
    }
    Ok(())
}

/// Root reads everything.
fn unreadable_possible() -> bool {
    !rustix::process::geteuid().is_root()
}

#[test]
fn files_that_a_joiner_brought_are_counted() -> Result<()> {
    let mut group = Group::of(1)?;
    for i in 0..150 {
        group[0].write(&format!("f{i:03}"), format!("group {i}"))?;
    }
    settle_as_left(&group, 0)?;
    let mut late = Device::new("late")?;
    for i in 0..120 {
        late.write(&format!("f{i:03}"), format!("late {i}"))?;
    }
    for i in 0..7 {
        late.write(&format!("new{i}"), "new")?;
    }
    late.start()?;
    let before = late.ctl(["join", "--dry-run"])?;
    ensure!(before.code == Some(64), "{before:?}");
    let ticket = group[0].invite()?;
    let words = late.ctl_ok(["join", &ticket, "--dry-run"])?;
    ensure!(words.contains("known once it is joined"), "{words}");
    late.join(&ticket)?;
    wait_status(&mut late, "files to be held", |status| {
        status["folder"]["join_held"] == 120
    })?;
    let counts = late.ctl_json(["join", "--dry-run", "--json"])?["counts"].clone();
    let expected = [("same", 0), ("old", 0), ("new", 7), ("differing", 120)];
    ensure!(expected.iter().all(|(key, n)| counts[key] == *n), "{counts}");
    ensure!(late.status()?.0["folder"]["join"] == counts, "status");
    late.ctl_ok(["join", "--prefer-group"])?;
    group.devices.push(late);
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 157, "{tree:?}");
    Ok(())
}
