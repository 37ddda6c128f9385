//! What was replaced or removed is found again, and comes back byte for byte.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, Tree, fill_file};
use serde_json::Value;

use crate::{settle_as_left, settle_without_conflict};

/// Writes a file with a mode and a time of its own.
fn write_marked(device: &Device, path: &str, bytes: &[u8], mode: u32, seconds: u64) -> Result<()> {
    device.write(path, bytes)?;
    let file = File::options().write(true).open(device.path(path))?;
    file.set_modified(UNIX_EPOCH + Duration::new(seconds, 123_456_789))?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(())
}

fn check_marked(path: &Path, bytes: &[u8], mode: u32, seconds: i64) -> Result<()> {
    ensure!(fs::read(path)? == bytes, "{} has other bytes", path.display());
    let meta = fs::metadata(path)?;
    let found = (meta.permissions().mode() & 0o777, meta.mtime(), meta.mtime_nsec());
    ensure!(
        found == (mode, seconds, 123_456_789),
        "{}: {found:?}",
        path.display()
    );
    Ok(())
}

fn history(device: &Device, path: &str) -> Result<Vec<Value>> {
    let answer = device.ctl_json(["history", path, "--json"])?;
    let versions = answer["versions"].as_array().context("A history has versions")?;
    Ok(versions.clone())
}

/// Returns the ids of the versions of a path that are files, oldest first.
fn files(device: &Device, path: &str) -> Result<Vec<String>> {
    let versions = history(device, path)?;
    let files = versions.iter().rev().filter(|version| version["kind"] == "file");
    Ok(files
        .filter_map(|version| version["id"].as_str().map(str::to_owned))
        .collect())
}

/// Returns the time now as RFC 3339. Settling before and noticing after take longer than the millisecond that versions
/// are told apart by.
fn between() -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let days = i64::try_from(now.as_secs() / 86_400)?;
    let (year, month, day) = civil(days);
    let of_day = now.as_secs() % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let millis = now.subsec_millis();
    Ok(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
    ))
}

/// Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[test]
fn each_version_that_another_device_replaced_comes_back_with_mode_and_time() -> Result<()> {
    let group = Group::of(2)?;
    let big = group[0].path("big.bin");
    fill_file(&big, (3 << 20) + 17, 1)?;
    let first_big = fs::read(&big)?;
    write_marked(&group[0], "plan.txt", b"first", 0o640, 1_500_000_000)?;
    settle_as_left(&group, 0)?;
    write_marked(&group[1], "plan.txt", b"second", 0o600, 1_500_000_100)?;
    fill_file(&group[1].path("big.bin"), 2 << 20, 2)?;
    settle_as_left(&group, 1)?;
    write_marked(&group[1], "plan.txt", b"third", 0o644, 1_500_000_200)?;
    settle_as_left(&group, 1)?;

    let versions = history(&group[0], "plan.txt")?;
    ensure!(versions.len() >= 3, "{versions:?}");
    ensure!(
        versions[0]["current"] == true && versions[0]["author"]["name"] == *group[1].name,
        "{versions:?}"
    );
    ensure!(
        versions.iter().all(|version| version["at_hand"] != "no"),
        "{versions:?}"
    );

    for (content, mode, seconds) in [
        (&b"first"[..], 0o640, 1_500_000_000),
        (b"second", 0o600, 1_500_000_100),
        (b"third", 0o644, 1_500_000_200),
    ] {
        let hash = blake3::hash(content).to_hex().to_string();
        let mode_text = format!("{mode:04o}");
        let id = versions
            .iter()
            .find(|v| v["content"] == *hash && v["mode"] == *mode_text)
            .and_then(|v| v["id"].as_str())
            .with_context(|| format!("No version of {content:?} in {versions:?}"))?;
        group[0].ctl_ok(["restore", "plan.txt", "--version", id])?;
        check_marked(&group[0].path("plan.txt"), content, mode, seconds)?;
        settle_as_left(&group, 0)?;
        check_marked(&group[1].path("plan.txt"), content, mode, seconds)?;
    }

    group[0].ctl_ok(["restore", "big.bin"])?;
    ensure!(fs::read(&big)? == first_big, "A large file comes back");
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn what_another_device_deleted_comes_back() -> Result<()> {
    let group = Group::of(2)?;
    write_marked(&group[0], "docs/plan.txt", b"dear", 0o640, 1_500_000_000)?;
    symlink("plan.txt", group[0].path("docs/link"))?;
    settle_as_left(&group, 0)?;
    fs::remove_dir_all(group[1].path("docs"))?;
    settle_as_left(&group, 1)?;
    let versions = history(&group[0], "docs/plan.txt")?;
    ensure!(
        versions[0]["kind"] == "deleted" && versions[0]["current"] == true,
        "{versions:?}"
    );
    group[0].ctl_ok(["restore", "docs/plan.txt"])?;
    group[0].ctl_ok(["restore", "docs/link"])?;
    check_marked(&group[0].path("docs/plan.txt"), b"dear", 0o640, 1_500_000_000)?;
    ensure!(fs::read_link(group[0].path("docs/link"))? == Path::new("plan.txt"));
    settle_as_left(&group, 0)?;
    check_marked(&group[1].path("docs/plan.txt"), b"dear", 0o640, 1_500_000_000)?;
    Ok(())
}

#[test]
fn a_version_is_written_to_a_file_outside_and_the_folder_stays() -> Result<()> {
    let group = Group::of(2)?;
    write_marked(&group[0], "plan.txt", b"first", 0o640, 1_500_000_000)?;
    settle_as_left(&group, 0)?;
    group[1].write("plan.txt", "second")?;
    let tree = settle_as_left(&group, 1)?;
    let out = group[0].state().join("old.txt");
    let name = out.to_str().context("A temporary directory has a plain name")?;
    group[0].ctl_ok(["restore", "plan.txt", "-o", name])?;
    check_marked(&out, b"first", 0o640, 1_500_000_000)?;
    let again = group[0].ctl(["restore", "plan.txt", "-o", name])?;
    ensure!(again.code == Some(73), "{again:?}");
    check_marked(&out, b"first", 0o640, 1_500_000_000)?;
    group.settle_as(&tree)?;
    Ok(())
}

#[test]
fn what_stood_at_a_path_before_a_restore_can_be_restored_itself() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    group[1].write("plan.txt", "second")?;
    settle_as_left(&group, 1)?;
    for expected in ["first", "second", "first"] {
        group[0].ctl_ok(["restore", "plan.txt"])?;
        ensure!(fs::read_to_string(group[0].path("plan.txt"))? == expected);
        settle_as_left(&group, 0)?;
    }
    Ok(())
}

#[test]
fn an_edit_that_nobody_saw_yet_survives_a_restore() -> Result<()> {
    let group = Group::of(2)?;
    group[0].write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    group[1].write("plan.txt", "second")?;
    settle_as_left(&group, 1)?;
    // Whether the daemon publishes it before the restore or not, it must be there afterwards.
    group[0].write("plan.txt", "third, unseen")?;
    let first = blake3::hash(b"first").to_hex().to_string();
    let versions = history(&group[0], "plan.txt")?;
    let id = versions
        .iter()
        .find(|v| v["content"] == *first)
        .and_then(|v| v["id"].as_str());
    group[0].ctl_ok([
        "restore",
        "plan.txt",
        "--version",
        id.context("There is a first version")?,
    ])?;
    settle_as_left(&group, 0)?;
    let third = blake3::hash(b"third, unseen").to_hex().to_string();
    let versions = history(&group[0], "plan.txt")?;
    let id = versions
        .iter()
        .find(|v| v["content"] == *third)
        .and_then(|v| v["id"].as_str());
    let id = id.with_context(|| format!("The edit is not among {versions:?}"))?;
    group[0].ctl_ok(["restore", "plan.txt", "--version", id])?;
    ensure!(fs::read_to_string(group[0].path("plan.txt"))? == "third, unseen");
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn a_folder_is_as_it_was_before_another_device_overwrote_everything() -> Result<()> {
    let group = Group::of(2)?;
    for number in 0..30 {
        let (path, bytes) = (
            format!("docs/d{}/f{number}", number % 4),
            format!("content {number}"),
        );
        write_marked(&group[0], &path, bytes.as_bytes(), 0o640, 1_500_000_000 + number)?;
    }
    symlink("d0", group[0].path("docs/link"))?;
    group[0].write("docs/tree/a/b", "deep")?;
    group[0].write("docs/leaf", "no directory")?;
    fs::create_dir(group[0].path("docs/empty"))?;
    group[0].write("outside", "stays as it is then")?;
    let good = settle_as_left(&group, 0)?;
    let time = between()?;

    for number in 0..30_u32 {
        let path = format!("docs/d{}/f{number}", number % 4);
        match number % 3 {
            0 => fs::remove_file(group[1].path(&path))?,
            1 => group[1].write(&path, "ENCRYPTED")?,
            _ => {
                fs::remove_file(group[1].path(&path))?;
                symlink("ENCRYPTED", group[1].path(&path))?;
            }
        }
    }
    fs::remove_file(group[1].path("docs/link"))?;
    fs::remove_dir(group[1].path("docs/empty"))?;
    fs::remove_dir_all(group[1].path("docs/tree"))?;
    group[1].write("docs/tree", "a file in place of a directory")?;
    fs::remove_file(group[1].path("docs/leaf"))?;
    fs::create_dir(group[1].path("docs/leaf"))?;
    group[1].write("docs/RANSOM", "pay")?;
    group[1].write("outside", "another")?;
    settle_as_left(&group, 1)?;

    let answer = group[0].ctl_json(["restore", "--before", &time, "docs/", "--json"])?;
    ensure!(
        answer["failed"] == 0 && answer["restored"].as_u64() >= Some(32),
        "{answer}"
    );
    let tree = settle_as_left(&group, 0)?;
    let differences = good.differences(&tree);
    ensure!(differences.len() == 2, "{differences:?}");
    ensure!(tree.has("docs/RANSOM") && fs::read_to_string(group[0].path("outside"))? == "another");
    for number in 0..30 {
        let path = group[1].path(&format!("docs/d{}/f{number}", number % 4));
        check_marked(
            &path,
            format!("content {number}").as_bytes(),
            0o640,
            1_500_000_000 + number,
        )?;
    }
    let again = group[0].ctl_json(["restore", "--before", &time, "docs/", "--json"])?;
    ensure!(again["restored"] == 0 && again["failed"] == 0, "{again}");
    Ok(())
}

#[test]
fn bytes_that_are_not_here_come_from_another_device_or_are_named_as_missing() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    let time = between()?;
    // Whoever overwrites a file keeps nothing of it; the other device does.
    group[0].write("plan.txt", "second")?;
    settle_as_left(&group, 0)?;
    let first = files(&group[0], "plan.txt")?.remove(0);
    let versions = history(&group[0], "plan.txt")?;
    ensure!(
        versions.iter().any(|v| v["id"] == *first && v["at_hand"] == "no"),
        "{versions:?}"
    );

    group[1].stop()?;
    let alone = group[0].ctl(["restore", "--before", &time, "."])?;
    ensure!(alone.code == Some(1), "{alone:?}");
    ensure!(alone.stderr.contains("plan.txt"), "{alone:?}");
    ensure!(fs::read_to_string(group[0].path("plan.txt"))? == "second");

    group[1].start()?;
    settle_without_conflict(&group)?;
    group[0].ctl_ok(["restore", "plan.txt", "--version", &first])?;
    ensure!(fs::read_to_string(group[0].path("plan.txt"))? == "first");
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn what_is_kept_is_found_after_a_crash() -> Result<()> {
    let mut group = Group::of(2)?;
    group[0].write("plan.txt", "first")?;
    settle_as_left(&group, 0)?;
    group[1].write("plan.txt", "second")?;
    settle_as_left(&group, 1)?;
    group[0].kill()?;
    group[0].start()?;
    settle_without_conflict(&group)?;
    let versions = history(&group[0], "plan.txt")?;
    ensure!(versions[1]["at_hand"] == "versions", "{versions:?}");
    group[0].ctl_ok(["restore", "plan.txt"])?;
    ensure!(fs::read_to_string(group[0].path("plan.txt"))? == "first");
    settle_as_left(&group, 0)?;
    Ok(())
}

#[test]
fn a_viewer_reads_old_versions_and_restores_none() -> Result<()> {
    let owner = Device::started("owner")?;
    let viewer = Device::started("viewer")?;
    let ticket = owner.ctl_json(["invite", "create", "--role", "viewer", "--json"])?;
    viewer.join(ticket["ticket"].as_str().context("An invite has a ticket")?)?;
    owner.write("plan.txt", "first")?;
    let devices = [&owner, &viewer];
    let settle = || -> Result<Tree> { p2p_sync_tests::harness::settle(&devices) };
    settle()?;
    owner.write("plan.txt", "second")?;
    settle()?;
    let refused = viewer.ctl(["restore", "plan.txt"])?;
    ensure!(
        refused.code == Some(77) && refused.stderr.contains("-o FILE"),
        "{refused:?}"
    );
    let out = viewer.state().join("old.txt");
    let name = out.to_str().context("A temporary directory has a plain name")?;
    viewer.ctl_ok(["restore", "plan.txt", "-o", name])?;
    ensure!(fs::read_to_string(&out)? == "first");
    ensure!(fs::read_to_string(viewer.path("plan.txt"))? == "second");
    Ok(())
}
