//! What is not synced and says so, and what programs leave behind: repositories, unpacked archives.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Group, SourceTree};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{at_all_times, count_events, ensure_quiet, wait_named};
use crate::{settle_as_left, settle_without_conflict};

#[test]
fn sockets_and_fifos_are_named_until_a_file_replaces_them() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("was-file", "a file")?;
    group[0].write("was-dir/inner", "inner")?;
    settle_as_left(&group, 0)?;
    fs::remove_file(group[0].path("was-file"))?;
    make_fifo(&group[0].path("was-file"))?;
    make_fifo(&group[0].path("fifo"))?;
    let listener = UnixListener::bind(group[0].path("socket"))?;
    for name in ["fifo", "socket", "was-file"] {
        wait_named(&mut group[0], name, true)?;
    }
    group[0].write("beside", "goes on")?;
    group[0].ctl_ok(["wait", "--for", "in-sync", "--timeout", "60s"])?;
    for name in ["fifo", "socket", "was-file"] {
        wait_named(&mut group[0], name, true)?;
    }
    ensure!(
        !group[1].path("fifo").exists() && !group[1].path("socket").exists(),
        "{:?}",
        group[1].tree()?
    );
    drop(listener);
    for name in ["fifo", "socket", "was-file"] {
        fs::remove_file(group[0].path(name))?;
    }
    for name in ["fifo", "was-file"] {
        group[0].write(name, "a file again")?;
    }
    for name in ["fifo", "socket", "was-file"] {
        wait_named(&mut group[0], name, false)?;
    }
    settle_as_left(&group, 0)?;
    Ok(())
}

fn make_fifo(path: &Path) -> Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("Making a fifo")
}

#[test]
fn repository_follows_from_branch_to_branch() -> Result<()> {
    if Command::new("git").arg("--version").output().is_err() {
        println!("Skipped: there is no git");
        return Ok(());
    }
    let mut group = Group::of(2)?;
    at_all_times(
        &mut group,
        |dir| {
            git(dir, &["init", "--quiet", "--initial-branch", "main"])?;
            SourceTree { seed: 5, files: 60 }.write_to(&dir.join("src"))?;
            fs::write(dir.join("both"), "main")?;
            fs::create_dir(dir.join("either"))?;
            fs::write(dir.join("either/file"), "a directory on main")?;
            commit(dir, "first")?;
            git(dir, &["checkout", "--quiet", "-b", "other"])?;
            fs::remove_dir_all(dir.join("src"))?;
            fs::remove_dir_all(dir.join("either"))?;
            fs::write(dir.join("either"), "a file on other")?;
            SourceTree { seed: 6, files: 40 }.write_to(&dir.join("src"))?;
            fs::write(dir.join("both"), "other")?;
            commit(dir, "second")
        },
        |dir| {
            for branch in ["main", "other", "main"] {
                git(dir, &["checkout", "--quiet", branch])?;
            }
            git(dir, &["gc", "--quiet"])
        },
    )?;
    let there = group[1].path("Running");
    git(&there, &["fsck", "--strict"])?;
    git(&there, &["checkout", "--quiet", "other"])?;
    settle_as_left(&group, 1)?;
    Ok(())
}

fn commit(dir: &Path, message: &str) -> Result<()> {
    git(dir, &["add", "--all"])?;
    git(dir, &["commit", "--quiet", "--message", message])
}

fn git(dir: &Path, args: &[&str]) -> Result<()> {
    let settings = [
        ("user.name", "Somebody"),
        ("user.email", "somebody@example.org"),
        ("gc.auto", "0"),
    ];
    let mut command = Command::new("git");
    command.arg("-C").arg(dir);
    for (key, value) in settings {
        command.arg("-c").arg(format!("{key}={value}"));
    }
    let command = command
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().context("Running git")?;
    ensure!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn unpacked_archive_of_two_thousand_files_follows() -> Result<()> {
    let group = Group::of(2)?;
    let outside = tempfile::tempdir()?;
    SourceTree { seed: 9, files: 2000 }.write_to(outside.path())?;
    let archive = outside.path().with_extension("tar");
    tar(&["-cf", &text(&archive), "-C", &text(outside.path()), "."])?;
    fs::create_dir(group[0].path("unpacked"))?;
    tar(&["-xf", &text(&archive), "-C", &text(&group[0].path("unpacked"))])?;
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() >= 2000, "{}", tree.file_count());
    // Once more over itself: new inodes, the same bytes and times.
    tar(&["-xf", &text(&archive), "-C", &text(&group[1].path("unpacked"))])?;
    fs::remove_file(archive)?;
    settle_as_left(&group, 1)?;
    // A file may have been seen before it had its mode and time back; from here on there is nothing to see.
    let events = count_events(&group)?;
    ensure_quiet(&group, events)?;
    Ok(())
}

fn tar(args: &[&str]) -> Result<()> {
    let output = Command::new("tar").args(args).output().context("Running tar")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn times_put_back_after_a_write_hide_nothing() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("kept-time", "first ")?;
    settle_as_left(&group, 0)?;
    for round in 0..6 {
        let writer = round % 2;
        let path = group[writer].path("kept-time");
        let before = fs::metadata(&path)?.modified()?;
        let file = File::options().write(true).open(&path)?;
        file.write_all_at(format!("round{round}").as_bytes(), 0)?;
        file.set_modified(before)?;
        drop(file);
        settle_as_left(&group, writer)?;
    }
    settle_without_conflict(&group)?;
    Ok(())
}
