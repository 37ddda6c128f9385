//! Locks between real daemons. Anna founded the group, so hers is the voter.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE, wait_until};

use crate::settle_as_left;

/// Says what is locked on a device, by the names of the holders.
fn locks(device: &Device) -> Result<Vec<(String, String)>> {
    let all = device.ctl_json(["locks", "--json"])?;
    let read = |lock: &serde_json::Value| {
        let path = lock["paths"][0]["path"].as_str().context("a path")?.to_owned();
        Ok((
            path,
            lock["holder"]["name"].as_str().context("a name")?.to_owned(),
        ))
    };
    all["locks"]
        .as_array()
        .context("a list")?
        .iter()
        .map(read)
        .collect()
}

fn wait_for(device: &Device, what: &str, is_so: impl Fn(&[(String, String)]) -> bool) -> Result<()> {
    wait_until(what, PATIENCE, || {
        let locks = locks(device)?;
        Ok(if is_so(&locks) {
            Ok(())
        } else {
            Err(format!("{locks:?}"))
        })
    })
}

fn names_in(device: &Device) -> Result<BTreeSet<String>> {
    let names =
        fs::read_dir(device.folder())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<BTreeSet<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.starts_with('.')).collect())
}

#[test]
fn a_save_under_somebody_elses_lock_is_a_copy_and_the_holders_is_the_file() -> Result<()> {
    let group = Group::of(3)?;
    let [anna, ben, carl] = [&group[0], &group[1], &group[2]];
    anna.write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    ben.ctl_ok(["lock", "plan.txt", "--note", "moving walls"])?;
    for device in [anna, carl] {
        wait_for(device, "the lock to be known", |locks| !locks.is_empty())?;
    }
    carl.write("plan.txt", "carl's")?;
    group.settle()?;
    ben.write("plan.txt", "ben's")?;
    let done = ben.ctl_json(["unlock", "plan.txt", "--json"])?;
    ensure!(done["by_majority"] == true, "{done}");
    group.settle()?;
    for device in &group.devices {
        ensure!(fs::read_to_string(device.path("plan.txt"))? == "ben's");
        let names = names_in(device)?;
        ensure!(names.len() == 2, "one copy beside the file: {names:?}");
        let copy = names
            .iter()
            .find(|name| name.contains("conflict"))
            .context("a copy")?;
        ensure!(fs::read_to_string(device.path(copy))? == "carl's");
        wait_for(device, "the end of the lock", <[(String, String)]>::is_empty)?;
    }
    Ok(())
}

#[test]
fn who_comes_second_is_told_who_holds_it_since_when_what_for_and_what_to_type() -> Result<()> {
    let group = Group::of(2)?;
    let [anna, ben] = [&group[0], &group[1]];
    anna.write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    anna.ctl_ok(["lock", "plan.txt", "--note", "moving walls"])?;
    let refused = ben.ctl(["lock", "plan.txt"])?;
    let text = refused.stderr.clone();
    let name = anna.name.clone();
    for part in [
        "plan.txt is locked by",
        &name,
        "since 20",
        "moving walls",
        "syncctl lock --wait",
    ] {
        ensure!(text.contains(part), "{part} is not in: {text}");
    }
    ensure!(refused.code == Some(1), "{refused:?}");
    let why = ben.ctl_ok(["why", "plan.txt"])?;
    ensure!(why.contains("locked") && why.contains("moving walls"), "{why}");
    ensure!(ben.ctl(["unlock", "plan.txt"])?.stderr.contains("is locked by"));
    ensure!(
        ben.ctl(["unlock", "other.txt"])?
            .stderr
            .contains("no lock on exactly that")
    );
    Ok(())
}

#[test]
fn what_was_saved_just_before_the_unlock_is_what_the_next_holder_has() -> Result<()> {
    let group = Group::of(3)?;
    group[0].write("counter", "0")?;
    settle_as_left(&group, 0)?;
    for round in 0..12 {
        let device = &group[round % 3];
        device.ctl_ok(["lock", "counter", "--wait", "30s"])?;
        let found: usize = fs::read_to_string(device.path("counter"))?.parse()?;
        ensure!(found == round, "round {round} found {found}");
        device.write("counter", (round + 1).to_string())?;
        device.ctl_ok(["unlock", "counter"])?;
    }
    group.settle()?;
    for device in &group.devices {
        ensure!(fs::read_to_string(device.path("counter"))? == "12");
        let names = names_in(device)?;
        ensure!(names.len() == 1, "no copies: {names:?}");
    }
    Ok(())
}

#[test]
fn a_lock_outlasts_its_holder_and_its_voter_until_an_admin_breaks_it() -> Result<()> {
    let mut group = Group::of(2)?;
    group[1].write("plan.txt", "first")?;
    settle_as_left(&group, 1)?;
    group[1].ctl_ok(["lock", "plan.txt"])?;
    group[1].stop()?;
    group[0].restart()?;
    ensure!(
        group[0].ctl(["lock", "plan.txt"])?.code == Some(1),
        "it is still held"
    );
    let help = group[0].ctl(["unlock", "plan.txt", "--force"])?;
    ensure!(help.code == Some(64), "a reason is needed: {help:?}");
    group[0].ctl_ok(["unlock", "plan.txt", "--force", "--reason", "gone for good"])?;
    group[0].ctl_ok(["lock", "plan.txt"])?;
    group[0].write("plan.txt", "second")?;
    let log = group[0].ctl_ok(["log"])?;
    ensure!(log.contains("gone for good"), "{log}");
    group[1].start()?;
    group[1].write("plan.txt", "from before")?;
    group.settle()?;
    for device in &group.devices {
        ensure!(fs::read_to_string(device.path("plan.txt"))? == "second");
    }
    Ok(())
}

#[test]
fn three_voters_take_over_what_is_locked_and_grant_without_one_of_them() -> Result<()> {
    let mut group = Group::of(3)?;
    group[0].write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    group[1].connect(&group[2])?;
    let names = group.devices.iter().map(|device| device.name.clone());
    let names: Vec<String> = names.collect();
    group[1].ctl_ok(["lock", "plan.txt", "--note", "moving walls"])?;
    let refused = group[1].ctl(["voters", "set", &names[1]])?;
    ensure!(refused.code == Some(77), "{refused:?}");
    let refused = group[0].ctl(["voters", "set", &names[1], &names[2]])?;
    ensure!(refused.stderr.contains("one, three or five"), "{refused:?}");
    let said = group[0].ctl_ok(["voters", "set", &names[0], &names[1], &names[2]])?;
    ensure!(names.iter().all(|name| said.contains(name.as_str())), "{said}");
    for device in &group.devices {
        wait_until("the voters to be known", PATIENCE, || {
            let voters = device.ctl_json(["voters", "list", "--json"])?;
            let count = voters["voters"].as_array().map_or(0, Vec::len);
            let is_so = voters["epoch"] == 1 && count == 3 && voters["forced"] == false;
            Ok(if is_so { Ok(()) } else { Err(voters.to_string()) })
        })?;
        let log = device.ctl_ok(["log"])?;
        ensure!(log.contains("epoch 1"), "{log}");
    }
    group.settle()?;
    group[0].stop()?;
    let refused = group[2].ctl(["lock", "plan.txt"])?;
    ensure!(refused.stderr.contains("moving walls"), "{refused:?}");
    let done = group[1].ctl_json(["unlock", "plan.txt", "--json"])?;
    ensure!(done["by_majority"] == true, "{done}");
    let lock = group[2].ctl_json(["lock", "plan.txt", "--json"])?;
    ensure!(lock["token"] == "1.1", "{lock}");
    group[1].stop()?;
    let refused = group[2].ctl(["lock", "other.txt"])?;
    ensure!(refused.stderr.contains("2 are needed"), "{refused:?}");
    ensure!(refused.stderr.contains("syncctl voters list"), "{refused:?}");
    group[0].start()?;
    group[0].connect(&group[2])?;
    wait_until("two of three voters", PATIENCE, || {
        let tried = group[2].ctl(["lock", "other.txt"])?;
        Ok(if tried.code == Some(0) {
            Ok(())
        } else {
            Err(tried.stderr)
        })
    })?;
    let said = group[0].ctl_ok(["member", "remove", &names[1], "--yes"])?;
    ensure!(said.contains("syncctl voters set"), "{said}");
    let voters = group[0].ctl_ok(["voters", "list"])?;
    ensure!(voters.contains("removed from the group"), "{voters}");
    Ok(())
}

#[test]
fn without_a_voter_there_is_no_new_lock_and_edits_go_on() -> Result<()> {
    let mut group = Group::of(3)?;
    group[0].write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    group[1].connect(&group[2])?;
    group[0].stop()?;
    let refused = group[1].ctl(["lock", "plan.txt"])?;
    ensure!(
        refused.stderr.contains("0 voters could be reached"),
        "{refused:?}"
    );
    ensure!(refused.stderr.contains("syncctl voters list"), "{refused:?}");
    group[1].write("plan.txt", "second")?;
    let other = &group[2];
    wait_until("the edit", PATIENCE, || {
        let text = fs::read_to_string(other.path("plan.txt"))?;
        Ok(if text == "second" { Ok(()) } else { Err(text) })
    })?;
    Ok(())
}
