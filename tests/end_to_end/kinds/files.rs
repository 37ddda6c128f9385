//! Sizes, holes, modes and times of files, and what lies behind several names.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Group, PATIENCE, fill_file};

use super::{at_all_times, count_events, ensure_quiet, wait_named};
use crate::settle_as_left;

/// One chunk of content.
const MIB: u64 = 1 << 20;

#[test]
fn sizes_around_a_chunk_and_holes_are_carried() -> Result<()> {
    let group = Group::of(2)?;
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1] {
        fill_file(&group[0].path(&format!("size-{size}")), size, size)?;
        File::create(group[0].path(&format!("zero-{size}")))?.set_len(size)?;
    }
    make_sparse(&group[0].path("sparse"), 256 * MIB)?;
    make_sparse(&group[0].path("sparse-1"), 64 * MIB)?;
    settle_as_left(&group, 0)?;
    make_sparse(&group[0].path("sparse-2"), 64 * MIB)?;
    make_sparse(&group[0].path("sparse-3"), 64 * MIB)?;
    settle_as_left(&group, 0)?;
    for name in ["sparse", "sparse-1", "sparse-2", "sparse-3", "zero-2097152"] {
        let [made, got] =
            [0, 1].map(|number| fs::metadata(group[number].path(name)).map(|meta| meta.blocks() * 512));
        let (made, got) = (made?, got?);
        ensure!(
            got <= made + 3 * MIB,
            "{name} takes {got} bytes on disk instead of {made}"
        );
    }
    for size in [MIB - 1, MIB, MIB + 1] {
        fill_file(&group[1].path(&format!("size-{size}")), 2 * MIB - size, size)?;
    }
    settle_as_left(&group, 1)?;
    Ok(())
}

/// Makes a file of holes with a little data at its start, in its middle and at its end.
fn make_sparse(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(size)?;
    for at in [0, size / 2 + 4096, size - 10] {
        file.write_all_at(b"not a hole", at)?;
    }
    Ok(())
}

#[test]
fn modes_and_times_alone_are_carried_and_other_touches_mean_nothing() -> Result<()> {
    let mut group = Group::of(2)?;
    at_all_times(
        &mut group,
        |dir| {
            for (number, _) in TIMES.iter().enumerate() {
                fs::write(dir.join(format!("time-{number}")), format!("{number}"))?;
            }
            for mode in MODES {
                fs::write(dir.join(format!("mode-{mode:o}")), format!("{mode:o}"))?;
                fs::create_dir(dir.join(format!("dir-{mode:o}")))?;
            }
            fs::write(dir.join("dir-755/inside"), "inside")?;
            Ok(())
        },
        |dir| {
            for (number, (before_1970, seconds, nanos)) in TIMES.into_iter().enumerate() {
                let time = Duration::new(seconds, nanos);
                let time = if before_1970 {
                    UNIX_EPOCH - time
                } else {
                    UNIX_EPOCH + time
                };
                set_time(&dir.join(format!("time-{number}")), time)?;
            }
            for mode in MODES {
                fs::set_permissions(dir.join(format!("mode-{mode:o}")), Permissions::from_mode(mode))?;
                let dir_mode = Permissions::from_mode(mode | 0o700);
                fs::set_permissions(dir.join(format!("dir-{mode:o}")), dir_mode)?;
            }
            Ok(())
        },
    )?;
    let events = count_events(&group)?;
    let file = group[0].path("Running/mode-644");
    let touched = group[0].path("Running/time-0");
    let before = fs::metadata(&touched)?;
    // Each changes nothing but the change time, in one step: what stands between two may be seen and told.
    fs::set_permissions(&file, fs::metadata(&file)?.permissions())?;
    set_time(&touched, before.modified()?)?;
    ensure_quiet(&group, events)?;
    Ok(())
}

/// Modes that owners give.
const MODES: [u32; 7] = [0o600, 0o755, 0o444, 0o400, 0o644, 0o777, 0o711];

/// Times as (before 1970, seconds, nanoseconds).
const TIMES: [(bool, u64, u32); 7] = [
    (false, 0, 0),
    (false, 0, 1),
    (false, 1_600_000_000, 123_456_789),
    (false, 1_600_000_000, 999_999_999),
    (true, 1, 0),
    (true, 86_400 * 365, 500_000_001),
    (false, 4_102_444_800, 7),
];

fn set_time(path: &Path, time: SystemTime) -> Result<()> {
    let file = File::open(path)?;
    file.set_modified(time)
        .with_context(|| format!("Setting the time of {}", path.display()))
}

#[test]
fn read_only_files_and_directories_are_followed_and_changed() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("locked/deep/file", "first")?;
    group[0].write("free/file", "free")?;
    group[0].write("read-only", "first")?;
    set_mode(&group[0].path("read-only"), 0o444)?;
    set_mode(&group[0].path("locked/deep/file"), 0o444)?;
    settle_as_left(&group, 0)?;
    // Directories keep rwx for their owner on the device that installs them, so the trees are not equal from here on.
    for dir in ["locked/deep", "locked"] {
        set_mode(&group[0].path(dir), 0o555)?;
    }
    group[0].write("free/marker", "1")?;
    wait_text(&mut group, 1, "free/marker", "1")?;
    ensure!(
        mode_of(&group[0].path("locked"))? == 0o555,
        "The user's mode is gone"
    );

    replace(&group[1].path("locked/deep/file"), "second")?;
    replace(&group[1].path("read-only"), "second")?;
    group[1].write("locked/deep/more", "more")?;
    wait_text(&mut group, 0, "locked/deep/file", "second")?;
    wait_text(&mut group, 0, "locked/deep/more", "more")?;
    wait_text(&mut group, 0, "read-only", "second")?;
    for dir in ["locked", "locked/deep"] {
        ensure!(mode_of(&group[0].path(dir))? == 0o555, "{dir} stays writable");
    }
    fs::remove_dir_all(group[1].path("locked"))?;
    fs::remove_file(group[1].path("read-only"))?;
    settle_as_left(&group, 1)?;
    Ok(())
}

#[test]
fn file_that_cannot_be_read_is_named_and_not_missed() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        println!("Skipped: root can read every file");
        return Ok(());
    }
    let mut group = Group::of(2)?;
    group[0].write("dir/known", "known")?;
    group[0].write("dir/below/file", "in a directory")?;
    settle_as_left(&group, 0)?;
    group[0].write("dir/never-read", "unknown")?;
    group[0].write("dir/known", "changed")?;
    set_mode(&group[0].path("dir/never-read"), 0)?;
    set_mode(&group[0].path("dir/known"), 0)?;
    set_mode(&group[0].path("dir/below"), 0)?;
    group[0].ctl_ok(["rescan"])?;
    for name in ["dir/known", "dir/never-read", "dir/below"] {
        wait_named(&mut group[0], name, true)?;
    }
    group[0].write("others", "go on")?;
    wait_text(&mut group, 1, "others", "go on")?;
    ensure!(group[1].path("dir/known").exists() && group[1].path("dir/below/file").exists());
    for (name, mode) in [
        ("dir/known", 0o600),
        ("dir/never-read", 0o600),
        ("dir/below", 0o755),
    ] {
        set_mode(&group[0].path(name), mode)?;
    }
    settle_as_left(&group, 0)?;
    for name in ["dir/known", "dir/never-read", "dir/below"] {
        wait_named(&mut group[0], name, false)?;
    }
    Ok(())
}

#[test]
fn hard_links_are_files_of_their_own() -> Result<()> {
    let mut group = Group::of(2)?;
    let both = |text: &str| [("one", text.to_owned()), ("sub/two", text.to_owned())];
    group[0].write("one", "shared")?;
    fs::create_dir(group[0].path("sub"))?;
    fs::hard_link(group[0].path("one"), group[0].path("sub/two"))?;
    settle_as_left(&group, 0)?;
    // In place: both names hold it.
    File::options()
        .write(true)
        .open(group[0].path("one"))?
        .write_all_at(b"SHARED, longer", 0)?;
    for (name, text) in both("SHARED, longer") {
        wait_text(&mut group, 1, name, &text)?;
    }
    settle_as_left(&group, 0)?;
    set_mode(&group[0].path("sub/two"), 0o640)?;
    settle_as_left(&group, 0)?;
    // An edit from elsewhere is of one name, and what is then written to the other is no edit of the first.
    group[1].write("one", "edited elsewhere")?;
    wait_text(&mut group, 0, "one", "edited elsewhere")?;
    settle_as_left(&group, 1)?;
    File::options()
        .write(true)
        .open(group[0].path("sub/two"))?
        .write_all_at(b"second", 0)?;
    wait_text(&mut group, 1, "sub/two", "second, longer")?;
    let versions = group[0].ctl_ok(["status"])?;
    ensure!(!versions.contains("displaced"), "{versions}");
    let tree = settle_as_left(&group, 0)?;
    ensure!(tree.file_count() == 2, "{tree:?}");
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

fn mode_of(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

/// Replaces a file as editors do that ask nobody whether it is read-only.
fn replace(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    Ok(fs::rename(beside, path)?)
}

/// Waits until a file of a device holds a text.
fn wait_text(group: &mut Group, number: usize, name: &str, text: &str) -> Result<()> {
    group[number].wait(name, PATIENCE, |device| {
        let found = fs::read_to_string(device.path(name)).unwrap_or_default();
        Ok(if found == text {
            Ok(())
        } else {
            Err(format!("It holds {found:?}"))
        })
    })
}
