//! Every kind of entry and every way in which users and programs change it: what was made on one device is equal on the
//! other, in bytes, mode, time and link text, without a conflict copy, and then both are quiet.

mod busy;
mod files;
mod names;
mod renames;
mod special;
mod types;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE, Tree, wait_until};

use crate::{settle_as_left, settle_without_conflict};

/// How old a status can be, amply: it is made ten times a second.
const STATUS_AGE: Duration = Duration::from_millis(400);

/// When a change is made.
#[derive(Debug, Clone, Copy)]
enum When {
    /// While both daemons run.
    Running,
    /// While the daemon of the device that changes is down.
    WriterDown,
    /// While the other device's daemon is down.
    ReaderDown,
}

/// Prepares a directory, lets it settle, changes it, and checks that the other device follows; once for each [`When`],
/// in a directory of its own.
fn at_all_times(
    group: &mut Group,
    prepare: impl Fn(&Path) -> Result<()>,
    change: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    for when in [When::Running, When::WriterDown, When::ReaderDown] {
        let dir = group[0].path(&format!("{when:?}"));
        fs::create_dir(&dir)?;
        prepare(&dir).with_context(|| format!("Preparing {when:?}"))?;
        settle_as_left(group, 0).with_context(|| format!("Prepared for {when:?}"))?;
        match when {
            When::Running => change(&dir)?,
            When::WriterDown => {
                group[0].stop()?;
                change(&dir)?;
                group[0].start()?;
                confirm_deletes(&mut group[0])?;
            }
            When::ReaderDown => {
                group[1].stop()?;
                change(&dir)?;
                group[0].ctl_ok(["rescan"])?;
                group[1].start()?;
            }
        }
        settle_as_left(group, 0).with_context(|| format!("Changed: {when:?}"))?;
    }
    Ok(())
}

/// Checks that nothing of what was done until now is still to become an event: a probe is made after it, on each
/// device, and only the probes are in the ledger besides the `events` that were there.
fn ensure_quiet(group: &Group, events: u64) -> Result<Tree> {
    for (number, device) in group.devices.iter().enumerate() {
        device.ctl_ok(["rescan"])?;
        settle_without_conflict(group)?;
        device.write(&format!("probe-{number}"), "probe")?;
        settle_as_left(group, number)?;
    }
    let probes = u64::try_from(group.devices.len())?;
    let now = count_events(group)?;
    ensure!(
        now == events + probes,
        "{} events came from nothing",
        now - events - probes
    );
    for number in 0..group.devices.len() {
        fs::remove_file(group[0].path(&format!("probe-{number}")))?;
    }
    settle_as_left(group, 0)
}

/// Confirms deletions that are held because so much of the folder is gone.
fn confirm_deletes(device: &mut Device) -> Result<()> {
    let held = device.wait("the folder to be looked at", PATIENCE, |device| {
        let status = device.status()?;
        let held = status.folder("deletions_held").unwrap_or_default();
        let looked = held > 0 || status.in_sync();
        Ok(looked.then_some(held).ok_or_else(|| status.0.to_string()))
    })?;
    if held > 0 {
        device.ctl_ok(["confirm-deletes"])?;
    }
    Ok(())
}

/// Returns the number of events in the ledger, once all devices of the group have had the same for a moment.
fn count_events(group: &Group) -> Result<u64> {
    let count = |device: &Device| device.status()?.events().context("The status counts events");
    let mut steady: Option<(u64, Instant)> = None;
    wait_until("equally many events", PATIENCE, || {
        let counts = group.devices.iter().map(count).collect::<Result<Vec<_>>>()?;
        let equal = counts.windows(2).all(|two| two[0] == two[1]);
        let now = counts.first().copied().unwrap_or_default();
        match steady {
            Some((before, since)) if equal && before == now => {
                if since.elapsed() > STATUS_AGE {
                    return Ok(Ok(now));
                }
            }
            _ => steady = Some((now, Instant::now())),
        }
        Ok(Err(format!("{counts:?}")))
    })
}

/// Waits until the status of a device names a path, or a reason, among those that are stuck, or names it no more.
fn wait_named(device: &mut Device, words: &str, named: bool) -> Result<()> {
    device.wait(&format!("{words} to be stuck: {named}"), PATIENCE, |device| {
        let stuck = device.status()?.stuck();
        Ok(if stuck.contains(words) == named {
            Ok(())
        } else {
            Err(stuck)
        })
    })
}
