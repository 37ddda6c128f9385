//! Names of any bytes, the longest and the deepest paths.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE};
use rustix::fs::{Mode, OFlags, open, openat};

use super::wait_named;
use crate::settle_as_left;

/// Names that a user may give.
const NAMES: [&[u8]; 18] = [
    b"not \xff utf-8 \xc3",
    b"\xed\xa0\x80",
    b"two\nlines",
    b"-rf",
    b" ",
    b"  at both ends  ",
    b"tab\there",
    b"\x1b[31mred\x7f",
    b".p2p-sync-foo",
    b".p2p-sync.",
    b"~",
    b"#x",
    b"*",
    b"back\\slash",
    b"percent %00",
    b"...",
    b"plan (displaced 20240101-000000).txt",
    b".part",
];

#[test]
fn names_of_any_bytes_are_made_changed_renamed_and_removed() -> Result<()> {
    let group = Group::of(2)?;
    let longest = [b'n'; 255];
    let names = || NAMES.into_iter().chain([&longest[..]]);
    let at = |number: usize, dir: &str, name: &[u8]| group[number].path(dir).join(OsStr::from_bytes(name));
    fs::create_dir(group[0].path("sub"))?;
    for name in names() {
        fs::write(at(0, "", name), name)?;
        fs::create_dir(at(0, "sub", name))?;
        fs::write(at(0, "sub", name).join(OsStr::from_bytes(name)), name)?;
    }
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() == 2 * (NAMES.len() + 1), "{tree:?}");
    for name in names() {
        fs::write(at(1, "", name), "changed")?;
        fs::rename(at(1, "sub", name), at(1, "sub", name).with_extension("x")).or_else(|error| {
            // No room for an extension.
            if error.kind() == ErrorKind::InvalidFilename {
                Ok(())
            } else {
                Err(error)
            }
        })?;
    }
    settle_as_left(&group, 1)?;
    for name in names() {
        fs::remove_file(at(0, "", name))?;
    }
    fs::remove_dir_all(group[0].path("sub"))?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.items.is_empty(), "{tree:?}");
    Ok(())
}

#[test]
fn names_like_those_of_conflict_copies_are_a_users_own() -> Result<()> {
    let group = Group::of(2)?;
    let names = [
        "plan (conflict abababab-12).txt",
        "plan (conflict ",
        "d (conflict x)/plan.txt",
    ];
    for name in names {
        group[0].write(name, name)?;
    }
    let expected = group[0].tree()?;
    group.settle_as(&expected)?;
    group[1].write(names[0], "edited")?;
    fs::remove_file(group[1].path(names[1]))?;
    let expected = group[1].tree()?;
    group.settle_as(&expected)?;
    for device in &group.devices {
        let status = device.status()?;
        ensure!(status.folder("conflicts") == Some(0), "{}", status.0);
    }
    Ok(())
}

#[test]
fn longest_and_deepest_paths_are_carried_and_longer_ones_are_named() -> Result<()> {
    let mut group = Group::of(2)?;
    // 255 directories and a file are 256 components; 15 times 256 bytes and 255 more are 4095 bytes.
    let deep = "d";
    let long = "l".repeat(255);
    let bottom = make_dirs(&group[0], deep, 255)?;
    write_at(&bottom, "f", "deep")?;
    let bottom = make_dirs(&group[0], &long, 15)?;
    write_at(&bottom, &"f".repeat(255), "long")?;
    group[0].write("beside", "beside")?;
    wait_at(&mut group[1], deep, 255, "f", "deep")?;
    wait_at(&mut group[1], &long, 15, &"f".repeat(255), "long")?;

    // One component, and one byte, too many.
    let bottom = make_dirs(&group[0], deep, 256)?;
    write_at(&bottom, "beyond", "too deep")?;
    group[0].ctl_ok(["rescan"])?;
    wait_named(&mut group[0], "longer than 4096 bytes or 256 levels", true)?;
    group[0].write("goes-on", "after it")?;
    group[0].wait_in_sync()?;
    wait_at(&mut group[1], "", 0, "goes-on", "after it")?;
    fs::remove_dir_all(group[0].path(deep))?;
    wait_named(&mut group[0], "longer than 4096 bytes or 256 levels", false)?;
    let bottom = make_dirs(&group[0], &long, 16)?;
    write_at(&bottom, "g", "too long")?;
    group[0].ctl_ok(["rescan"])?;
    wait_named(&mut group[0], "longer than 4096 bytes or 256 levels", true)?;
    group[0].write("goes-on", "after it too")?;
    wait_at(&mut group[1], "", 0, "goes-on", "after it too")?;
    fs::remove_dir_all(group[0].path(&long))?;
    // What is too long for the kernel at once is too long for the comparison of the folders.
    let (first, second) = group.devices.split_at_mut(1);
    second[0].wait("the long path to go", PATIENCE, |device| {
        // The rescan may still be under way and find the directories gone before the watcher tells.
        if first[0].status()?.folder("deletions_held") > Some(0) {
            first[0].ctl_ok(["confirm-deletes"])?;
        }
        let there = device.path(&long).exists();
        Ok((!there).then_some(()).ok_or_else(|| "it is there".to_owned()))
    })?;
    settle_as_left(&group, 0)?;
    Ok(())
}

/// Makes `depth` directories of one name in each other, those that are missing, and opens the last.
fn make_dirs(device: &Device, name: &str, depth: usize) -> Result<OwnedFd> {
    walk(device, name, depth, true)
}

fn open_dirs(device: &Device, name: &str, depth: usize) -> Result<OwnedFd> {
    walk(device, name, depth, false)
}

/// Goes down step by step: the whole path is longer than the kernel takes at once.
fn walk(device: &Device, name: &str, depth: usize, make: bool) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = open(device.folder(), flags, Mode::empty()).context("Opening the folder")?;
    for level in 0..depth {
        if make {
            match rustix::fs::mkdirat(&at, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error).with_context(|| format!("Making level {level}")),
            }
        }
        at = openat(&at, name, flags, Mode::empty()).with_context(|| format!("Opening level {level}"))?;
    }
    Ok(at)
}

fn write_at(dir: &OwnedFd, name: &str, text: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR).context("Making a file")?;
    rustix::io::write(file, text.as_bytes()).context("Writing a file")?;
    Ok(())
}

fn wait_at(device: &mut Device, dir: &str, depth: usize, name: &str, text: &str) -> Result<()> {
    device.wait("a file far down", PATIENCE, |device| {
        let read = || -> Result<String> {
            let dir = open_dirs(device, dir, depth)?;
            let file = openat(&dir, name, OFlags::RDONLY, Mode::empty())?;
            Ok(std::io::read_to_string(fs::File::from(file))?)
        };
        Ok(match read() {
            Ok(found) if found == text => Ok(()),
            Ok(found) => Err(format!("It holds {found:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
    })
}
