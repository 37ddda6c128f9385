//! Limits of the kernel: descriptors, inotify watches and instances, and the queue of events. The daemon goes on with
//! what it has, says what is missing, and finds everything; nothing that it cannot look at is taken for deleted.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, DeviceOptions, Group, PATIENCE, Tree};

use crate::{settle_as_left, settle_without_conflict};

/// Waits until a device is asked for its status and answers with all these words.
fn wait_says(device: &mut Device, words: &[&str]) -> Result<()> {
    device.wait(&format!("the status to say {words:?}"), PATIENCE, |device| {
        let asked = device.ctl(["status", "--json"])?;
        let said = asked.code == Some(0) && words.iter().all(|word| asked.stdout.contains(word));
        Ok(said.then_some(()).ok_or(asked.stdout + &asked.stderr))
    })
}

#[test]
fn a_daemon_without_descriptors_says_so_and_goes_on_when_it_has_some() -> Result<()> {
    let mut group = Group::of(2)?;
    for number in 0..20 {
        group[0].write(&format!("dir-{number}/file"), "before")?;
    }
    settle_as_left(&group, 0)?;
    group[1].limit_open_files(Some(0))?;
    for number in 0..10 {
        group[0].write(&format!("dir-{number}/file"), "changed elsewhere")?;
        group[0].write(&format!("new-{number}/file"), "made elsewhere")?;
        group[1].write(&format!("dir-{}/file", number + 10), "changed here")?;
        group[1].write(&format!("here-{number}/file"), "made here")?;
    }
    group[1].wait("the log to name the reason", PATIENCE, |device| {
        let log = fs::read_to_string(device.log_path())?;
        Ok(log
            .contains("Too many open files")
            .then_some(())
            .ok_or(String::new()))
    })?;
    // Room for somebody who asks, and not for a look at the folder.
    group[1].limit_open_files(Some(1))?;
    wait_says(&mut group[1], &["Too many open files"])?;
    group[1].check_running()?;
    let there = group[0].tree()?;
    let kept = (0..20).all(|number| there.has(&format!("dir-{number}/file")));
    ensure!(kept, "Something was taken for deleted: {there:?}");
    group[1].limit_open_files(None)?;
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 40, "{tree:?}");
    check_texts(&group[1], &tree)
}

fn check_texts(device: &Device, tree: &Tree) -> Result<()> {
    for path in tree.items.keys().filter(|path| path.ends_with("file")) {
        let name = path.to_str().context("A name")?;
        let (kind, rest) = name.split_once('-').context("A name with a number")?;
        let expected = match (kind, rest.len()) {
            ("new", _) => "made elsewhere",
            ("here", _) => "made here",
            (_, 6) => "changed elsewhere",
            _ => "changed here",
        };
        let text = fs::read_to_string(device.path(name))?;
        ensure!(text == expected, "{name}: {text}");
    }
    Ok(())
}

/// A pair whose second device has a limit of its own, in a user namespace; `None` where none can be made.
fn pair_with_limit(limit: &str, value: u32) -> Result<Option<Group>> {
    let file = format!("/proc/sys/user/{limit}");
    let set = format!("echo {value} > {file} && exec \"$@\"");
    let wrapper: Vec<String> = ["unshare", "--user", "--map-root-user", "sh", "-c", &set, "sh"]
        .map(str::to_owned)
        .into();
    let tried = Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        return Ok(None);
    }
    let mut group = Group::of(1)?;
    let limited = DeviceOptions {
        wrapper,
        ..DeviceOptions::default()
    };
    let mut device = Device::with_options("ben", limited)?;
    device.start()?;
    group.add(device)?;
    Ok(Some(group))
}

/// Changes the limit of a running daemon's namespace.
fn raise(device: &Device, limit: &str, value: u32) -> Result<()> {
    let status = Command::new("nsenter")
        .args(["--preserve-credentials", "--user", "--target"])
        .arg(device.pid()?.to_string())
        .args(["sh", "-c"])
        .arg(format!("echo {value} > /proc/sys/user/{limit}"))
        .status()
        .context("Running nsenter")?;
    ensure!(status.success(), "nsenter ended with {status}");
    Ok(())
}

/// Changes, makes and deletes in directories that are not watched; periodic scans must find it.
fn change_unwatched(group: &mut Group) -> Result<()> {
    for number in 0..12 {
        group[1].write(&format!("dir-{number}/file"), "changed")?;
    }
    fs::remove_dir_all(group[1].path("dir-11"))?;
    group[1].write("dir-10/sub/new", "made")?;
    settle_as_left(group, 1)?;
    Ok(())
}

fn wait_watched(device: &mut Device) -> Result<()> {
    device.ctl_ok(["rescan"])?;
    device.wait("the folder to be watched", PATIENCE, |device| {
        let status = device.status()?.0.to_string();
        let degraded = status.contains("WATCHER_DEGRADED");
        Ok(if degraded { Err(status) } else { Ok(()) })
    })
}

#[test]
fn directories_that_get_no_watch_are_scanned_and_status_says_which_limit_to_raise() -> Result<()> {
    const LIMIT: &str = "max_inotify_watches";
    let Some(mut group) = pair_with_limit(LIMIT, 4)? else {
        println!("Skipped: no user namespace can be made");
        return Ok(());
    };
    for number in 0..12 {
        group[0].write(&format!("dir-{number}/file"), "before")?;
    }
    settle_as_left(&group, 0)?;
    let words = [
        "WATCHER_DEGRADED",
        "4 of 13",
        "fs.inotify.max_user_watches by at least 9",
    ];
    wait_says(&mut group[1], &words)?;
    change_unwatched(&mut group)?;
    raise(&group[1], LIMIT, 100)?;
    wait_watched(&mut group[1])?;
    group[1].write("dir-7/file", "changed once more")?;
    settle_as_left(&group, 1)?;
    Ok(())
}

#[test]
fn a_daemon_without_an_inotify_instance_scans_and_watches_once_it_gets_one() -> Result<()> {
    const LIMIT: &str = "max_inotify_instances";
    let Some(mut group) = pair_with_limit(LIMIT, 0)? else {
        println!("Skipped: no user namespace can be made");
        return Ok(());
    };
    for number in 0..12 {
        group[0].write(&format!("dir-{number}/file"), "before")?;
    }
    settle_as_left(&group, 0)?;
    wait_says(
        &mut group[1],
        &["WATCHER_DEGRADED", "fs.inotify.max_user_instances"],
    )?;
    change_unwatched(&mut group)?;
    raise(&group[1], LIMIT, 10)?;
    wait_watched(&mut group[1])?;
    group[1].write("dir-7/file", "changed once more")?;
    settle_as_left(&group, 1)?;
    Ok(())
}

/// More events than the kernel keeps for one that does not listen.
fn fill_the_queue(device: &Device) -> Result<()> {
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?
        .trim()
        .parse()?;
    // Each is a file made and closed: two events at least, none of which is like the one before it.
    for number in 0..most / 2 + 100 {
        fs::write(device.path(["noise-a", "noise-b"][number % 2]), "")?;
    }
    Ok(())
}

#[test]
fn everything_is_found_after_more_events_than_the_kernel_keeps() -> Result<()> {
    let group = Group::of(2)?;
    for number in 0..60 {
        group[0].write(&format!("dir-{}/file-{number}", number % 6), format!("{number}"))?;
    }
    settle_as_left(&group, 0)?;
    group[1].hold()?;
    fill_the_queue(&group[1])?;
    // Nothing of this is told by the kernel.
    for number in 0..20 {
        group[1].write(&format!("dir-{}/file-{number}", number % 6), "changed")?;
        fs::remove_file(group[1].path(&format!("dir-{}/file-{}", number % 6, number + 24)))?;
        group[1].write(&format!("new-{}/file-{number}", number % 3), "made")?;
    }
    fs::rename(group[1].path("dir-5"), group[1].path("moved"))?;
    let expected = group[1].tree()?;
    group[1].let_go()?;
    group.settle_as(&expected)?;
    settle_without_conflict(&group)?;
    // Directories are watched again, also those that were made or moved meanwhile.
    for dir in ["moved", "new-1", "dir-2"] {
        group[1].write(&format!("{dir}/later"), "later")?;
    }
    settle_as_left(&group, 1)?;
    Ok(())
}
