//! Renames of all sorts, and that the directories are watched under their new names afterwards.

use std::fs::{self, rename};
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use p2p_sync_tests::harness::{Group, fill_file};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::at_all_times;
use crate::settle_as_left;

/// Directories that stand after [`shuffle`].
const AFTERWARDS: [&str; 9] = [
    "swap/x",
    "swap/y",
    "swap/mixed",
    "turn/p",
    "turn/q",
    "turn/r",
    "b",
    "b/a",
    "moved",
];

#[test]
fn renames_swaps_and_rotations_follow() -> Result<()> {
    let mut group = Group::of(2)?;
    at_all_times(&mut group, prepare, shuffle)?;
    for number in 0..2 {
        for dir in AFTERWARDS {
            group[number].write(&format!("Running/{dir}/later-{number}"), dir)?;
        }
        settle_as_left(&group, number).with_context(|| format!("Later, on {number}"))?;
    }
    shuffle_again(&group[1].path("Running"))?;
    settle_as_left(&group, 1)?;
    for number in 0..2 {
        for dir in ["swap/x", "swap/y", "swap/mixed", "moved"] {
            group[number].write(&format!("Running/{dir}/last-{number}"), dir)?;
        }
        settle_as_left(&group, number).with_context(|| format!("At last, on {number}"))?;
    }
    Ok(())
}

fn prepare(dir: &Path) -> Result<()> {
    for sub in [
        "swap/x/in",
        "swap/y/in",
        "swap/mixed",
        "turn/p",
        "turn/q",
        "turn/r",
        "a/b/c",
        "from",
        "case",
        "into",
    ] {
        fs::create_dir_all(dir.join(sub))?;
    }
    for (name, text) in [
        ("swap/one", "1"),
        ("swap/two", "two"),
        ("swap/file", "not a directory"),
        ("swap/mixed/inner", "inner"),
        ("swap/x/in/x", "x"),
        ("swap/y/in/y", "y"),
        ("swap/x/same", "same name in x"),
        ("swap/y/same", "same name in y"),
        ("turn/1", "first"),
        ("turn/2", "second"),
        ("turn/3", "third"),
        ("turn/p/p", "p"),
        ("turn/q/q", "q"),
        ("turn/r/r", "r"),
        ("a/in-a", "in a"),
        ("a/b/in-b", "in b"),
        ("a/b/c/in-c", "in c"),
        ("from/edited", "before"),
        ("from/left", "left alone"),
        ("over", "is replaced"),
        ("by", "replaces"),
        ("case/name", "case"),
        ("plain", "plain"),
        ("moved-and-refilled", "old"),
        ("chain-1", "one"),
        ("chain-2", "two"),
    ] {
        fs::write(dir.join(name), format!("{text} of {}", dir.display()))?;
    }
    symlink("in", dir.join("swap/link"))?;
    fs::write(dir.join("case/empty"), "")?;
    fill_file(&dir.join("swap/large-1"), (1 << 20) + 77, 1)?;
    fill_file(&dir.join("swap/large-2"), (1 << 20) + 78, 2)
}

fn shuffle(dir: &Path) -> Result<()> {
    let at = |name: &str| dir.join(name);
    let go = |from: &str, to: &str| rename(at(from), at(to)).with_context(|| format!("{from} to {to}"));
    for (one, two) in [
        ("one", "two"),
        ("x", "y"),
        ("large-1", "large-2"),
        ("file", "mixed"),
    ] {
        exchange(&at("swap").join(one), &at("swap").join(two))?;
    }
    for (one, two, three) in [("1", "2", "3"), ("p", "q", "r")] {
        let at = |name: &str| format!("turn/{name}");
        go(&at(one), "turn/kept")?;
        go(&at(two), &at(one))?;
        go(&at(three), &at(two))?;
        go("turn/kept", &at(three))?;
    }
    go("a/b", "b")?;
    go("a", "b/a")?;
    go("from", "moved")?;
    fs::write(at("moved/edited"), "after")?;
    fs::write(at("moved/added"), "added")?;
    go("by", "over")?;
    go("case/name", "case/NAME")?;
    go("case/empty", "case/Empty")?;
    go("case", "Case")?;
    go("plain", "into/plain")?;
    go("moved-and-refilled", "away")?;
    fs::write(at("moved-and-refilled"), "new")?;
    go("chain-2", "chain-3")?;
    go("chain-1", "chain-2")?;
    // The way of an exchange without the system call.
    go("swap/large-1", "swap/kept")?;
    go("swap/large-2", "swap/large-1")?;
    go("swap/kept", "swap/large-2")?;
    go("swap/large-1", "swap/large-3")?;
    // `file` is the directory by now.
    exchange(&at("swap/file"), &at("swap/link"))?;
    go("swap/mixed", "swap/kept")?;
    go("swap/link", "swap/mixed")
}

/// Swaps directories whose contents were edited since they were swapped.
fn shuffle_again(dir: &Path) -> Result<()> {
    exchange(&dir.join("swap/x"), &dir.join("swap/y"))?;
    exchange(&dir.join("swap/mixed"), &dir.join("moved"))
}

fn exchange(one: &Path, two: &Path) -> Result<()> {
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)
        .with_context(|| format!("Exchanging {} and {}", one.display(), two.display()))
}
