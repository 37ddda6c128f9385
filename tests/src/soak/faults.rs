//! What happens to the daemons while users work: killed, stopped, held, and started again at random moments.

use std::time::Duration;

use anyhow::{Context, Result};

use super::known::Known;
use crate::harness::{Group, Random};

/// What was done to the daemons.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Kills (SIGKILL).
    pub kills: u64,
    /// Stops (SIGTERM).
    pub stops: u64,
    /// Times a daemon was held (SIGSTOP) for a while.
    pub holds: u64,
}

/// Longest time for which a daemon is held.
const HOLD_MOST: Duration = Duration::from_millis(900);
/// Longest time for which a daemon that was killed or stopped stays away.
const AWAY_MOST: Duration = Duration::from_millis(400);

/// Times between two faults, each with its weight of a hundred: within a start, within an install, long enough to get
/// something done.
const BETWEEN: [(u64, Duration); 3] = [
    (45, Duration::from_millis(150)),
    (35, Duration::from_millis(1200)),
    (20, Duration::from_millis(4000)),
];

/// Kills until `kills` daemons were killed, other faults in between; all run at the end.
pub(super) fn inject(
    group: &mut Group,
    known: &Known,
    random: &mut Random,
    kills: u64,
    faults: &mut Faults,
) -> Result<()> {
    let enough = faults.kills + kills;
    while faults.kills < enough {
        known.pause(between(random));
        let number = random.below(group.devices.len() as u64) as usize;
        let device = &mut group[number];
        device.check_running()?;
        let name = device.name.clone();
        match random.below(10) {
            0 => {
                // A daemon that has not yet begun cannot be told to stop in an orderly way.
                device.wait_answering()?;
                known.note(&name, "is stopped");
                device.stop()?;
                faults.stops += 1;
            }
            1 => {
                known.note(&name, "is held");
                device.hold()?;
                known.pause(up_to(random, HOLD_MOST));
                device.let_go()?;
                known.note(&name, "is let go");
                faults.holds += 1;
                continue;
            }
            _ => {
                known.note(&name, "is killed");
                device.kill()?;
                faults.kills += 1;
            }
        }
        known.pause(up_to(random, AWAY_MOST));
        known.note(&name, "is started");
        group[number].launch()?;
    }
    for device in &mut group.devices {
        device.wait_answering().context("After all kills")?;
    }
    Ok(())
}

fn between(random: &mut Random) -> Duration {
    let mut pick = random.below(BETWEEN.iter().map(|(weight, _)| weight).sum());
    for (weight, most) in BETWEEN {
        if pick < weight {
            return up_to(random, most);
        }
        pick -= weight;
    }
    Duration::ZERO
}

fn up_to(random: &mut Random, most: Duration) -> Duration {
    Duration::from_millis(random.below(most.as_millis() as u64))
}
