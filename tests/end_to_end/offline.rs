//! A device that was off for a while catches up; what both sides changed meanwhile is decided alike everywhere and
//! nothing is lost.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use p2p_sync_tests::harness::{Group, PATIENCE, Tree};

use crate::{settle_as_left, settle_without_conflict};

#[test]
fn device_that_was_off_catches_up() -> Result<()> {
    let mut group = Group::of(2)?;
    for number in 0..30 {
        group[0].write(&format!("d{}/f{number}", number % 3), number.to_string())?;
    }
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    group[0].write("d0/f0", "changed")?;
    group[0].write("fresh/g", "made")?;
    fs::remove_file(group[0].path("d1/f1"))?;
    fs::rename(group[0].path("d2"), group[0].path("renamed"))?;
    let [b_only, deleted] = ["d0/f3", "d1/f4"].map(|name| group[1].path(name));
    fs::write(b_only, "changed while off")?;
    fs::remove_file(deleted)?;
    group[0].wait_in_sync()?;
    group[1].start()?;
    let tree = settle_without_conflict(&group)?;
    let text = |name: &str| fs::read_to_string(group[0].path(name));
    ensure!(
        text("d0/f0")? == "changed" && text("d0/f3")? == "changed while off",
        "An edit is lost: {tree:?}"
    );
    for gone in ["d1/f1", "d1/f4", "d2"] {
        ensure!(!tree.has(gone), "{gone} is back");
    }
    ensure!(
        group[1].path("renamed/f2").exists() && group[1].path("fresh/g").exists(),
        "{tree:?}"
    );
    Ok(())
}

#[test]
fn concurrent_edits_leave_one_winner_and_one_copy_everywhere() -> Result<()> {
    let mut group = Group::of(3)?;
    group[0].write("plan.txt", "base")?;
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    group[2].stop()?;
    group[1].write("plan.txt", "by ben")?;
    group[0].write("plan.txt", "by anna")?;
    group[0].wait_in_sync()?;
    group[1].start()?;
    group[2].start()?;
    let tree = group.settle()?;
    let copies = tree.conflict_copies();
    ensure!(copies.len() == 1 && tree.file_count() == 2, "{tree:?}");
    let copy = copies[0].to_string_lossy();
    ensure!(
        copy.starts_with("plan (conflict ") && copy.ends_with(").txt"),
        "{copy}"
    );
    let history = group[0].ctl(["history", copy.as_ref()])?;
    ensure!(
        history.stderr.contains("syncctl history 'plan.txt'"),
        "{}",
        history.stderr
    );
    ensure!(
        texts(&group, &tree)? == BTreeSet::from(["by anna".to_owned(), "by ben".to_owned()]),
        "{tree:?}"
    );
    for device in &mut group.devices {
        device.wait("the conflict in its status", PATIENCE, |device| {
            let status = device.status()?;
            Ok(if status.folder("conflicts") == Some(1) {
                Ok(())
            } else {
                Err(status.0.to_string())
            })
        })?;
    }
    Ok(())
}

#[test]
fn equal_concurrent_edits_are_no_conflict() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("plan.txt", "base")?;
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    for device in &group.devices {
        device.write("plan.txt", "the same correction")?;
    }
    group[0].wait_in_sync()?;
    group[1].start()?;
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 1, "{tree:?}");
    Ok(())
}

#[test]
fn edit_beats_a_concurrent_delete() -> Result<()> {
    for deleter in 0..2 {
        let mut group = Group::of(2)?;
        group[0].write("a/plan.txt", "base")?;
        settle_as_left(&group, 0)?;
        group[1].stop()?;
        fs::remove_dir_all(group[deleter].path("a"))?;
        group[1 - deleter].write("a/plan.txt", "edited")?;
        group[0].wait_in_sync()?;
        group[1].start()?;
        let tree = settle_without_conflict(&group)?;
        ensure!(
            texts(&group, &tree)? == BTreeSet::from(["edited".to_owned()]),
            "{tree:?}"
        );
    }
    Ok(())
}

#[test]
fn many_concurrent_creations_at_one_name_keep_all_bytes() -> Result<()> {
    let mut group = Group::of(3)?;
    settle_without_conflict(&group)?;
    for number in 0..3 {
        group[number].stop()?;
        group[number].write("list.txt", format!("by {number}"))?;
    }
    for number in 0..3 {
        group[number].start()?;
    }
    let tree = group.settle()?;
    ensure!(tree.conflict_copies().len() == 2, "{tree:?}");
    let expected = (0..3).map(|number| format!("by {number}")).collect();
    ensure!(texts(&group, &tree)? == expected, "{tree:?}");
    Ok(())
}

/// Returns the texts of all files.
fn texts(group: &Group, tree: &Tree) -> Result<BTreeSet<String>> {
    let folder = group[0].folder();
    let files = tree
        .items
        .keys()
        .map(|path| folder.join(path))
        .filter(|path| path.is_file());
    Ok(files.map(fs::read_to_string).collect::<Result<_, _>>()?)
}
