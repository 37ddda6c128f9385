//! A package manager that unpacks many small files, with somebody at work in a git checkout beside it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, settle_within};

use super::git::{git, repository};
use super::{installed, run};

/// Files that are unpacked; for other numbers set `P2P_SYNC_PACKAGE_FILES`, and see what it took with `--nocapture`.
const FILES: usize = 2000;

/// Packs so many small files in directories of 25 each, as packages have them.
fn archive(dir: &Path, files: usize) -> Result<String> {
    for number in 0..files {
        let package = dir.join(format!("modules/p{}/lib-{}", number / 100, number / 25 % 4));
        if number % 25 == 0 {
            fs::create_dir_all(&package)?;
        }
        let text = format!("// {number}\n").repeat(1 + number % 200);
        fs::write(package.join(format!("{number}.js")), text)?;
    }
    let archive = dir.join("modules.tar");
    let name = archive.to_str().context("A name")?.to_owned();
    run(dir, "tar", &["-cf", &name, "modules"])?;
    Ok(name)
}

/// Unpacks on one device while the other goes from branch to branch; says how long it took.
fn unpack_beside_a_checkout(files: usize, patience: Duration) -> Result<String> {
    let outside = tempfile::tempdir()?;
    let archive = archive(outside.path(), files)?;
    let group = Group::of(2)?;
    repository(&group[1].path("repo"), 60)?;
    let began = Instant::now();
    let repo = group[1].path("repo");
    let other_user = thread::spawn(move || -> Result<()> {
        for branch in ["other", "main", "other", "main", "other"] {
            git(&repo, &["checkout", "--quiet", branch])?;
        }
        Ok(())
    });
    run(&group[0].folder(), "tar", &["-xf", &archive])?;
    let unpacked = began.elapsed();
    other_user.join().ok().context("The other user panicked")??;
    let devices: Vec<&Device> = group.devices.iter().collect();
    let tree = settle_within(&devices, patience)?;
    let everywhere = began.elapsed();
    ensure!(tree.conflict_copies().is_empty(), "{:?}", tree.conflict_copies());
    let there = tree
        .items
        .keys()
        .filter(|path| path.extension().is_some_and(|e| e == "js"));
    let there = there.count();
    ensure!(there == files, "{there} of {files} files");
    git(&group[0].path("repo"), &["fsck", "--strict"])?;
    let usage = [group[0].usage()?, group[1].usage()?];
    Ok(format!(
        "{files} files: unpacked in {unpacked:.1?}, equal on both after {everywhere:.1?}; processor time {:.1?} and {:.1?}, \
         memory at most {} and {} MiB",
        usage[0].cpu,
        usage[1].cpu,
        usage[0].rss_peak_bytes >> 20,
        usage[1].rss_peak_bytes >> 20,
    ))
}

#[test]
fn packages_are_unpacked_here_while_branches_change_there() -> Result<()> {
    if !installed(&["git", "tar"]) {
        println!("Skipped: there is no git or tar");
        return Ok(());
    }
    let asked = std::env::var("P2P_SYNC_PACKAGE_FILES").ok();
    let files = asked.map_or(Ok(FILES), |text| text.parse())?;
    let patience = Duration::from_secs(90) * u32::try_from(1 + files / 8000)?;
    println!("{}", unpack_beside_a_checkout(files, patience)?);
    Ok(())
}
