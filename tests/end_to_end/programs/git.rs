//! git: clones, commits and branches beside each other, and one repository used from both sides.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Group, SourceTree};

use super::{installed, run};
use crate::{settle_as_left, settle_without_conflict};

/// Runs git in a directory with settings of its own.
pub(super) fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let settings = [
        "user.name=Somebody",
        "user.email=somebody@example.org",
        "gc.auto=0",
        "maintenance.auto=false",
    ];
    let mut all = Vec::new();
    for setting in settings {
        all.extend(["-c", setting]);
    }
    all.extend(args);
    run(dir, "git", &all)
}

fn commit(dir: &Path, message: &str) -> Result<String> {
    git(dir, &["add", "--all"])?;
    git(dir, &["commit", "--quiet", "--message", message])?;
    Ok(git(dir, &["rev-parse", "HEAD"])?.trim().to_owned())
}

/// Makes a repository with two branches that differ in most of their files.
pub(super) fn repository(dir: &Path, files: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    git(dir, &["init", "--quiet", "--initial-branch", "main"])?;
    SourceTree { seed: 5, files }.write_to(&dir.join("src"))?;
    commit(dir, "first")?;
    git(dir, &["checkout", "--quiet", "-b", "other"])?;
    fs::remove_dir_all(dir.join("src"))?;
    SourceTree { seed: 6, files }.write_to(&dir.join("src"))?;
    commit(dir, "second")?;
    git(dir, &["checkout", "--quiet", "main"])?;
    Ok(())
}

fn commit_often(dir: &Path, times: usize) -> Result<Vec<String>> {
    let each = |number| {
        fs::write(dir.join(format!("work-{number}")), format!("work {number}"))?;
        commit(dir, &format!("work {number}"))
    };
    (0..times).map(each).collect()
}

fn switch_often(dir: &Path) -> Result<()> {
    for branch in ["other", "main", "other", "main", "other"] {
        git(dir, &["checkout", "--quiet", branch])?;
    }
    Ok(())
}

fn check(dir: &Path) -> Result<()> {
    git(dir, &["fsck", "--strict"])?;
    let changes = git(dir, &["--no-optional-locks", "status", "--porcelain"])?;
    ensure!(changes.is_empty(), "{}: {changes}", dir.display());
    Ok(())
}

#[test]
fn clones_commits_and_branches_on_both_sides_at_once_are_whole_on_both() -> Result<()> {
    if !installed(&["git"]) {
        println!("Skipped: there is no git");
        return Ok(());
    }
    let group = Group::of(2)?;
    let outside = tempfile::tempdir()?;
    repository(outside.path(), 80)?;
    repository(&group[1].path("mine"), 40)?;
    let (source, mine) = (outside.path().to_str().context("A name")?, group[1].path("mine"));
    let beside = mine.clone();
    let other_user = thread::spawn(move || {
        commit_often(&beside, 6)?;
        switch_often(&beside)
    });
    let branches = ["clone", "--quiet", "--no-local", source, "clone"];
    git(&group[0].folder(), &branches)?;
    git(
        &group[0].path("clone"),
        &["checkout", "--quiet", "-b", "other", "origin/other"],
    )?;
    switch_often(&group[0].path("clone"))?;
    other_user.join().ok().context("The other user panicked")??;
    settle_without_conflict(&group)?;
    for number in [0, 1] {
        check(&group[number].path("mine"))?;
        check(&group[number].path("clone"))?;
    }
    // Each goes on with what the other has made.
    commit_often(&group[0].path("mine"), 2)?;
    git(&group[1].path("clone"), &["gc", "--quiet"])?;
    settle_without_conflict(&group)?;
    check(&group[1].path("mine"))?;
    check(&group[0].path("clone"))?;
    Ok(())
}

/// Returns every file below a directory, the daemon's own directory included.
fn all_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            all_files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Puts every pack and loose object that is anywhere below the folders into a new repository: those of the repository
/// itself, conflict copies, and old versions.
fn salvage(group: &Group, wanted: &BTreeSet<String>) -> Result<tempfile::TempDir> {
    let salvaged = tempfile::tempdir()?;
    git(salvaged.path(), &["init", "--quiet"])?;
    let objects = salvaged.path().join(".git/objects");
    let mut files = Vec::new();
    for device in &group.devices {
        all_files(&device.folder(), &mut files)?;
    }
    for (number, file) in files.iter().enumerate() {
        let name = file.to_str().context("A name")?;
        if name.contains(".pack") {
            let to = objects.join(format!("pack/pack-{number}.pack"));
            fs::copy(file, &to)?;
            git(salvaged.path(), &["index-pack", to.to_str().context("A name")?])?;
        }
        for id in wanted {
            if name.contains(&id[2..]) && !objects.join(&id[..2]).join(&id[2..]).exists() {
                fs::create_dir_all(objects.join(&id[..2]))?;
                fs::copy(file, objects.join(&id[..2]).join(&id[2..]))?;
            }
        }
    }
    Ok(salvaged)
}

fn objects(dir: &Path) -> Result<BTreeSet<String>> {
    let all = git(
        dir,
        &["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"],
    )?;
    Ok(all.lines().map(str::to_owned).collect())
}

#[test]
fn one_repository_collected_here_and_committed_to_there_loses_no_object() -> Result<()> {
    if !installed(&["git"]) {
        println!("Skipped: there is no git");
        return Ok(());
    }
    let group = Group::of(2)?;
    let [here, there] = [0, 1].map(|number| group[number].path("repo"));
    repository(&here, 30)?;
    settle_as_left(&group, 0)?;
    let mut wanted = objects(&here)?;
    let user = thread::spawn(move || {
        // A collection on the other side may take a file away in the middle of a command, which git then refuses.
        (0..6)
            .filter_map(|_| commit_often(&there, 1).ok())
            .flatten()
            .collect::<Vec<_>>()
    });
    for _ in 0..2 {
        git(&here, &["gc", "--quiet"])?;
        fs::write(here.join("here"), "by the first")?;
        wanted.extend(commit(&here, "here"));
    }
    wanted.extend(user.join().ok().context("The other user panicked")?);
    group.settle()?;
    let salvaged = salvage(&group, &wanted)?;
    let there = objects(salvaged.path())?;
    let lost: Vec<&String> = wanted.difference(&there).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} objects are lost: {lost:?}",
        lost.len(),
        wanted.len()
    );
    git(salvaged.path(), &["fsck", "--full"])?;
    Ok(())
}
