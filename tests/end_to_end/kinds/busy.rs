//! Files that change while they are read, and those that are gone before anybody looks.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Group, PATIENCE, fill_file};

use crate::settle_as_left;

/// How long a writer goes on: the time that is under test, not a wait.
const WRITING: Duration = Duration::from_secs(2);

#[test]
fn files_written_all_the_time_follow_and_keep_no_other_waiting() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("log", "start\n")?;
    fill_file(&group[0].path("image"), 3 << 20, 8)?;
    settle_as_left(&group, 0)?;
    let [log, image, saved] = ["log", "image", "saved"].map(|name| group[0].path(name));
    let writers = [
        thread::spawn(move || append(&log)),
        thread::spawn(move || write_in_place(&image)),
        thread::spawn(move || save_by_rename(&saved)),
    ];
    for number in 0..10 {
        group[0].write(&format!("calm-{number}"), "calm")?;
    }
    group[1].wait("the calm files", PATIENCE, |device| {
        let missing = (0..10).find(|number| !device.path(&format!("calm-{number}")).exists());
        Ok(match missing {
            None => Ok(()),
            Some(number) => Err(format!("calm-{number} is missing")),
        })
    })?;
    for writer in writers {
        writer.join().ok().context("A writer panicked")??;
    }
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() == 13, "{tree:?}");
    Ok(())
}

fn append(path: &Path) -> Result<()> {
    let mut file = File::options().append(true).open(path)?;
    let started = Instant::now();
    while started.elapsed() < WRITING {
        file.write_all(b"one more line\n")?;
        thread::yield_now();
    }
    Ok(())
}

fn write_in_place(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let started = Instant::now();
    let mut round = 0_u64;
    while started.elapsed() < WRITING {
        file.write_all_at(&round.to_le_bytes(), round * 4096 % (3 << 20))?;
        round += 1;
        thread::yield_now();
    }
    Ok(())
}

fn save_by_rename(path: &Path) -> Result<()> {
    let started = Instant::now();
    let mut round = 0_u64;
    while started.elapsed() < WRITING {
        let beside = path.with_extension("new");
        fs::write(&beside, format!("save {round}"))?;
        fs::rename(beside, path)?;
        round += 1;
        thread::yield_now();
    }
    Ok(())
}

#[test]
fn ways_of_saving_follow() -> Result<()> {
    let group = Group::of(2)?;
    for name in ["in-place", "truncated", "appended", "backup", "shrunk"] {
        group[0].write(name, "the first text")?;
    }
    settle_as_left(&group, 0)?;
    for writer in [1, 0] {
        let at = |name: &str| group[writer].path(name);
        let open = |name: &str| File::options().write(true).open(at(name));
        open("in-place")?.write_all_at(format!("THE {writer}").as_bytes(), 0)?;
        // Truncated and written again with the same size.
        fs::write(at("truncated"), format!("the text of  {writer}"))?;
        File::options()
            .append(true)
            .open(at("appended"))?
            .write_all(b" and more")?;
        // The old file steps aside, the new one is written in its place, the old one goes.
        fs::rename(at("backup"), at("backup.orig"))?;
        fs::write(at("backup"), format!("written anew by {writer}"))?;
        fs::remove_file(at("backup.orig"))?;
        open("shrunk")?.set_len(3 + writer as u64)?;
        let tree = settle_as_left(&group, writer)?;
        ensure!(tree.file_count() == 5, "{tree:?}");
    }
    Ok(())
}

#[test]
fn short_lived_entries_leave_nothing() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("stays", "stays")?;
    settle_as_left(&group, 0)?;
    // At most four entries each: so few in all that the mass-delete guard lets what the rescan finds gone through.
    for round in 0..24 {
        let path = group[0].path(&format!("short-{round}"));
        fs::write(&path, "short")?;
        fs::remove_file(path)?;
        let dir = group[0].path(&format!("dir-{round}/sub"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("file"), "short")?;
        fs::remove_dir_all(group[0].path(&format!("dir-{round}")))?;
    }
    // What was seen of them and published goes again, and stays away.
    for writer in [0, 1, 0] {
        group[writer].write("probe", format!("after it, by {writer}"))?;
        group[writer].ctl_ok(["rescan"])?;
        group[1 - writer].wait("the others to go", PATIENCE, |device| {
            let left = device.tree()?.items.len();
            Ok(if left == 2 {
                Ok(())
            } else {
                Err(format!("{left} are left"))
            })
        })?;
        settle_as_left(&group, writer)?;
    }
    Ok(())
}
