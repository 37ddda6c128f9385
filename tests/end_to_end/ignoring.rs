//! Paths that one device leaves alone and others do not, and conflict copies that lie out of sight.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, DeviceOptions, Group, PATIENCE};

use crate::{settle_as_left, settle_without_conflict};

/// The folder's own file of patterns.
const IGNORE_FILE: &str = ".p2p-sync/ignore";

/// Waits until something stands at a path, or nothing does.
fn wait_for(device: &mut Device, name: &str, there: bool) -> Result<()> {
    device.wait(&format!("{name} (there: {there})"), PATIENCE, |device| {
        let found = device.path(name).symlink_metadata().is_ok();
        Ok(if found == there {
            Ok(())
        } else {
            Err(format!("{:?}", device.tree()?))
        })
    })
}

/// Waits until the status warns by this code with these words in it.
fn wait_warned(device: &mut Device, code: &str, words: &str) -> Result<()> {
    device.wait(&format!("a warning {code}"), PATIENCE, |device| {
        let status = device.status()?.0;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        let warned = |warning: &serde_json::Value| {
            let message = warning["message"].as_str().unwrap_or_default();
            warning["code"] == code && message.contains(words)
        };
        Ok(if warnings.iter().any(warned) {
            Ok(())
        } else {
            Err(status.to_string())
        })
    })
}

/// Lets a file go from one device to the other, after which both have seen all that was done before.
fn exchange(group: &mut Group, from: usize, to: usize, name: &str) -> Result<()> {
    group[from].write(name, "m")?;
    wait_for(&mut group[to], name, true)?;
    group[from].wait_in_sync()?;
    group[to].wait_in_sync()
}

#[test]
fn what_one_device_ignores_is_left_alone_until_it_does_not() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("shared.dat", "shared")?;
    group[0].write("old.dat", "old")?;
    group[0].write("build/out", "made")?;
    settle_as_left(&group, 0)?;
    // The bad pattern is named, which also shows that the others hold by now.
    group[1].write(IGNORE_FILE, "*.dat\nx[\n/build/\n")?;
    group[1].ctl_ok(["rescan"])?;
    wait_warned(&mut group[1], "BAD_PATTERN", ".p2p-sync/ignore:2: \"x[\"")?;

    fs::remove_file(group[1].path("shared.dat"))?;
    fs::remove_dir_all(group[1].path("build"))?;
    group[1].write("ours.dat", "ours")?;
    group[1].write("old.dat", "edited")?;
    exchange(&mut group, 1, 0, "first")?;
    group[0].write("theirs.dat", "theirs")?;
    exchange(&mut group, 0, 1, "second")?;
    group[1].restart()?;
    exchange(&mut group, 1, 0, "third")?;
    let text = |device: &Device, name: &str| fs::read_to_string(device.path(name)).unwrap_or_default();
    ensure!(
        text(&group[0], "shared.dat") == "shared" && text(&group[0], "build/out") == "made",
        "A deletion of what was ignored went on: {:?}",
        group[0].tree()?
    );
    ensure!(
        text(&group[0], "old.dat") == "old" && !group[0].path("ours.dat").exists(),
        "What was ignored was published: {:?}",
        group[0].tree()?
    );
    for absent in ["theirs.dat", "shared.dat", "build"] {
        ensure!(
            !group[1].path(absent).exists(),
            "{absent} was installed though it is ignored"
        );
    }

    group[1].write(IGNORE_FILE, "")?;
    group[1].ctl_ok(["rescan"])?;
    wait_for(&mut group[1], "build/out", true)?;
    wait_for(&mut group[0], "ours.dat", true)?;
    let tree = settle_without_conflict(&group)?;
    for (name, expected) in [
        ("shared.dat", "shared"),
        ("old.dat", "edited"),
        ("ours.dat", "ours"),
        ("theirs.dat", "theirs"),
    ] {
        ensure!(text(&group[0], name) == expected, "{name}: {tree:?}");
    }
    Ok(())
}

#[test]
fn configured_patterns_hold_and_the_built_in_ones_can_be_switched_off() -> Result<()> {
    let config = tempfile::NamedTempFile::new().context("Making a configuration")?;
    fs::write(
        config.path(),
        "[folder]\ndefault_ignores = false\nignore = [\"private/\"]\n",
    )?;
    let args = vec!["--config".to_owned(), config.path().display().to_string()];
    let options = DeviceOptions {
        args,
        ..DeviceOptions::default()
    };
    let mut group = Group::with_options(2, &options)?;
    group[0].write("private/x", "mine")?;
    group[0].write("movie.part", "not left out any more")?;
    exchange(&mut group, 0, 1, "marker")?;
    wait_for(&mut group[1], "movie.part", true)?;
    ensure!(!group[1].path("private").exists(), "{:?}", group[1].tree()?);
    Ok(())
}

#[test]
fn a_directory_that_holds_an_ignored_file_stays_and_says_why() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("d/e/a", "a")?;
    settle_as_left(&group, 0)?;
    group[1].write(IGNORE_FILE, "*.dat")?;
    group[1].restart()?;
    group[1].write("d/e/own.dat", "own")?;
    fs::remove_dir_all(group[0].path("d"))?;
    wait_for(&mut group[1], "d/e/a", false)?;
    group[1].wait("the ignored file to be named", PATIENCE, |device| {
        let stuck = device.status()?.stuck();
        let named = stuck.contains("d/e/own.dat, which is ignored here");
        Ok(named.then_some(()).ok_or(stuck))
    })?;
    ensure!(
        fs::read_to_string(group[1].path("d/e/own.dat"))? == "own",
        "An ignored file is gone"
    );
    fs::remove_file(group[1].path("d/e/own.dat"))?;
    settle_as_left(&group, 0)?;
    Ok(())
}

/// Returns the hidden conflict copies of a device's repository.
fn hidden(device: &Device) -> Result<BTreeSet<String>> {
    let dir = device.path(".p2p-sync/conflicts/repo/.git");
    if !dir.exists() {
        return Ok(BTreeSet::new());
    }
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Waits until all devices are in sync with so many hidden conflict copies, and say so.
fn wait_hidden(group: &mut Group, count: u64) -> Result<()> {
    for device in &mut group.devices {
        device.wait(&format!("{count} hidden copies"), PATIENCE, |device| {
            let status = device.status()?;
            let found = hidden(device)?;
            let said = status.folder("conflicts") == Some(count) && status.in_sync();
            Ok(if said && found.len() as u64 == count {
                Ok(())
            } else {
                Err(format!("{found:?} {}", status.0))
            })
        })?;
    }
    Ok(())
}

#[test]
fn conflict_copies_of_git_files_lie_hidden_and_go_everywhere_when_one_is_deleted() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("repo/.git/config", "base")?;
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    group[0].write("repo/.git/config", "by anna")?;
    group[1].write("repo/.git/config", "by ben")?;
    group[0].wait_in_sync()?;
    group[1].start()?;
    wait_hidden(&mut group, 1)?;
    let tree = group.settle()?;
    ensure!(tree.file_count() == 1, "{tree:?}");
    let copies = hidden(&group[0])?;
    ensure!(
        copies == hidden(&group[1])?,
        "{copies:?} {:?}",
        hidden(&group[1])?
    );
    let copy = copies.first().context("There is a copy")?;
    ensure!(copy.starts_with("config (conflict "), "{copy}");
    let place = format!(".p2p-sync/conflicts/repo/.git/{copy}");
    let texts = |device: &Device| -> Result<BTreeSet<String>> {
        let both = ["repo/.git/config", &place].map(|name| fs::read_to_string(device.path(name)));
        Ok(both.into_iter().collect::<Result<_, _>>()?)
    };
    let expected = BTreeSet::from(["by anna".to_owned(), "by ben".to_owned()]);
    ensure!(texts(&group[0])? == expected && texts(&group[1])? == expected);
    let winner = fs::read(group[0].path("repo/.git/config"))?;

    fs::remove_file(group[1].path(&place))?;
    group[1].ctl_ok(["rescan"])?;
    wait_hidden(&mut group, 0)?;
    let tree = settle_without_conflict(&group)?;
    ensure!(fs::read(group[1].path("repo/.git/config"))? == winner, "{tree:?}");
    Ok(())
}
