//! Real daemons under test: one [`Device`] is one `p2p_sync_daemon` process with a folder, a state directory and a
//! socket of its own below a temporary directory, listening on loopback only; `syncctl` is how it is spoken to.
//!
//! A process is signalled by the id under which the harness started it and never by name; dropping a device kills its
//! daemon and removes its files. Nothing here waits for a fixed time: [`wait_until`] looks at a condition again and
//! again, and its limit only guards against waiting for ever.

mod binaries;
mod device;
mod generate;
mod group;
mod random;
mod status;
mod tree;
mod usage;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use binaries::Binaries;
pub use device::{Ctl, Device, DeviceOptions, free_port};
pub use generate::{SourceTree, Written, fill_file};
pub use group::{Group, settle, settle_within};
pub use random::Random;
pub use status::Status;
pub use tree::{Item, Tree, count_entries, leftovers};
pub use usage::Usage;

/// How long a condition on small folders may take before a scenario is given up; a guard on a loaded machine and not
/// an expectation.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// First pause between two looks at a condition.
const POLL_FIRST: Duration = Duration::from_millis(20);

/// Longest pause between two looks: a look may start a process and read a tree, and must not eat the processor that
/// the daemons under test need.
const POLL_MOST: Duration = Duration::from_millis(160);

/// Pause between two looks at a condition that costs next to nothing.
const POLL_CLOSELY: Duration = Duration::from_millis(1);

/// Looks at `condition` until it gives a value, and returns it.
///
/// The pause between two looks is 20 ms, doubling to 160 ms.
///
/// # Errors
/// What `condition` returns as an error ends the wait at once; after `limit` it fails and names `what` and the text
/// that `condition` last gave as its reason for not being content.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    poll(what, limit, POLL_FIRST, POLL_MOST, &mut condition)
}

/// Looks at a cheap `condition` every millisecond until it holds: to catch a moment that passes quickly, or to measure
/// when it came.
///
/// # Errors
/// As [`wait_until`].
pub fn wait_closely(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut look = || {
        Ok(if condition()? {
            Ok(())
        } else {
            Err("it does not hold".to_owned())
        })
    };
    poll(what, limit, POLL_CLOSELY, POLL_CLOSELY, &mut look)
}

/// Holds the suites' only sleep: the pause between two looks.
fn poll<T>(
    what: &str,
    limit: Duration,
    mut pause: Duration,
    pause_most: Duration,
    condition: &mut impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let reason = match condition()? {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if start.elapsed() > limit {
            bail!("Waited {limit:?} for {what}: {reason}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(pause_most);
    }
}
