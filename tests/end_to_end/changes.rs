//! What a user does to files and directories on one device happens on the other.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, ensure};
use p2p_sync_tests::harness::{Group, SourceTree, fill_file};

use crate::{settle_as_left, settle_without_conflict};

#[test]
fn created_file_appears() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("a.txt", "one line\n")?;
    group[0].write("empty.txt", "")?;
    settle_as_left(&group, 0)?;
    group[1].write("b.txt", "from the other side\n")?;
    settle_as_left(&group, 1)?;
    Ok(())
}

#[test]
fn modified_file_follows_again_and_again() -> Result<()> {
    let group = Group::of(2)?;
    for round in 0..6 {
        let writer = round % 2;
        group[writer].write("notes/today.md", format!("round {round}\n").repeat(round + 1))?;
        let tree = settle_as_left(&group, writer)?;
        ensure!(tree.file_count() == 1, "{tree:?}");
    }
    Ok(())
}

#[test]
fn appended_and_truncated_file_follows() -> Result<()> {
    let group = Group::of(2)?;
    let path = group[0].path("log.bin");
    fill_file(&path, 3 << 20, 1)?;
    settle_as_left(&group, 0)?;
    let mut bytes = fs::read(&path)?;
    bytes.extend_from_slice(b"one more line");
    fs::write(&path, &bytes)?;
    settle_as_left(&group, 0)?;
    File::options().write(true).open(&path)?.set_len(1 << 20)?;
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn file_saved_by_rename_is_replaced() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("plan.odt", "first")?;
    settle_as_left(&group, 0)?;
    group[0].write("plan.odt.new", "second")?;
    fs::rename(group[0].path("plan.odt.new"), group[0].path("plan.odt"))?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() == 1, "{tree:?}");
    Ok(())
}

#[test]
fn deleted_file_goes() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("a.txt", "a")?;
    group[0].write("keep.txt", "k")?;
    settle_as_left(&group, 0)?;
    fs::remove_file(group[1].path("a.txt"))?;
    let tree = settle_as_left(&group, 1)?;
    ensure!(tree.file_count() == 1, "{tree:?}");
    Ok(())
}

#[test]
fn renamed_and_moved_files_follow() -> Result<()> {
    let group = Group::of(2)?;
    fill_file(&group[0].path("big.bin"), 5 << 20, 4)?;
    group[0].write("in/letter.txt", "dear")?;
    group[0].write("out/other.txt", "other")?;
    settle_as_left(&group, 0)?;
    fs::rename(group[0].path("big.bin"), group[0].path("renamed.bin"))?;
    fs::rename(group[0].path("in/letter.txt"), group[0].path("out/letter.txt"))?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() == 3, "{tree:?}");
    Ok(())
}

#[test]
fn whole_directories_are_made_moved_and_removed() -> Result<()> {
    let group = Group::of(2)?;
    let written = SourceTree { seed: 11, files: 150 }.write_to(&group[0].folder())?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(
        tree.file_count() == written.files,
        "{} of {}",
        tree.file_count(),
        written.files
    );
    let top = "module_0001";
    fs::rename(group[0].path(top), group[0].path("moved"))?;
    settle_as_left(&group, 0)?;
    fs::remove_dir_all(group[1].path("moved"))?;
    let tree = settle_as_left(&group, 1)?;
    ensure!(
        tree.items
            .keys()
            .all(|path| !path.starts_with("moved") && !path.starts_with(top)),
        "{tree:?}"
    );
    Ok(())
}

#[test]
fn edits_deep_in_received_directories_are_noticed() -> Result<()> {
    let group = Group::of(2)?;
    for number in 0..8 {
        group[0].write(&format!("d{number}/e/f/g/file"), number.to_string())?;
    }
    settle_as_left(&group, 0)?;
    for number in 0..8 {
        group[1].write(&format!("d{number}/e/f/g/more"), "more")?;
        group[1].write(&format!("d{number}/e/beside"), "beside")?;
    }
    let tree = settle_as_left(&group, 1)?;
    ensure!(tree.file_count() == 24, "{tree:?}");
    Ok(())
}

#[test]
fn empty_directories_are_kept() -> Result<()> {
    let group = Group::of(2)?;
    fs::create_dir_all(group[0].path("one/two/three"))?;
    settle_as_left(&group, 0)?;
    fs::remove_dir(group[1].path("one/two/three"))?;
    let tree = settle_as_left(&group, 1)?;
    ensure!(tree.items.len() == 2, "{tree:?}");
    Ok(())
}

#[test]
fn symbolic_links_are_carried_as_text() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("file", "text")?;
    symlink("file", group[0].path("good"))?;
    symlink("nowhere/at/all", group[0].path("dangling"))?;
    symlink("/etc", group[0].path("absolute"))?;
    symlink("..", group[0].path("up"))?;
    settle_as_left(&group, 0)?;
    fs::remove_file(group[1].path("good"))?;
    symlink("dangling", group[1].path("good"))?;
    let tree = settle_as_left(&group, 1)?;
    ensure!(tree.items.len() == 5, "{tree:?}");
    Ok(())
}

#[test]
fn modes_and_times_are_carried() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("tool.sh", "#!/bin/sh\n")?;
    group[0].write("dir/private", "p")?;
    fs::set_permissions(group[0].path("tool.sh"), Permissions::from_mode(0o755))?;
    fs::set_permissions(group[0].path("dir/private"), Permissions::from_mode(0o600))?;
    fs::set_permissions(group[0].path("dir"), Permissions::from_mode(0o700))?;
    settle_as_left(&group, 0)?;
    fs::set_permissions(group[1].path("tool.sh"), Permissions::from_mode(0o644))?;
    settle_as_left(&group, 1)?;
    let file = File::options().write(true).open(group[0].path("tool.sh"))?;
    file.set_modified(UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789))?;
    settle_as_left(&group, 0)?;
    fs::set_permissions(group[0].path("dir/private"), Permissions::from_mode(0o400))?;
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn kinds_replace_each_other() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("x", "file")?;
    group[0].write("y/inner", "file in a directory")?;
    settle_as_left(&group, 0)?;
    fs::remove_file(group[0].path("x"))?;
    group[0].write("x/now/deep", "a directory")?;
    fs::remove_dir_all(group[0].path("y"))?;
    group[0].write("y", "now a file")?;
    settle_as_left(&group, 0)?;
    fs::remove_file(group[1].path("y"))?;
    symlink("x", group[1].path("y"))?;
    let tree = settle_as_left(&group, 1)?;
    ensure!(tree.items.len() == 4, "{tree:?}");
    Ok(())
}

#[test]
fn odd_names_are_carried_byte_by_byte() -> Result<()> {
    let group = Group::of(2)?;
    for name in [
        "ü.txt",
        "u\u{308}.txt",
        "new\nline",
        "back\\slash",
        " lead and trail ",
        "-rf",
        "a\"b'c",
    ] {
        group[0].write(name, name)?;
    }
    let raw = OsStr::from_bytes(b"not \xff utf8");
    fs::write(group[0].folder().join(raw), "raw")?;
    let long = "n".repeat(255);
    group[0].write(&long, "long")?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() == 9, "{tree:?}");
    Ok(())
}

#[test]
fn both_sides_write_at_once_without_conflict_on_different_files() -> Result<()> {
    let group = Group::of(2)?;
    for number in 0..40 {
        group[number % 2].write(&format!("d{}/f{number}", number % 5), number.to_string())?;
    }
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 40, "{tree:?}");
    Ok(())
}

#[test]
fn equal_files_made_on_both_sides_are_one_and_no_conflict() -> Result<()> {
    let group = Group::of(2)?;
    for device in &group.devices {
        device.write("same.txt", "the very same bytes")?;
    }
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 1, "{tree:?}");
    Ok(())
}
