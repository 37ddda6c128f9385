//! Real daemons and the real `syncctl` on loopback: short versions of what users do. Every scenario ends with equal
//! trees, nothing temporary left, and no conflict copy that it did not expect.

mod changes;
mod cloned;
mod command_line;
mod crash;
mod disks;
mod forged;
mod guards;
mod history;
mod ignoring;
mod joining;
mod kinds;
mod ledger;
mod limits;
mod locks;
mod malicious;
mod new_key;
mod offline;
mod pairing;
mod pairing_by_name;
mod persons;
mod programs;
mod quarantine;
mod quota;
mod random;
mod rebinding;
mod recovering_key;
mod removing;
mod restart;
mod restored;
mod roles;
mod three_devices;

use anyhow::{Result, ensure};
use p2p_sync_tests::harness::{Group, Tree};

/// Settles the group and checks that no conflict copy came about.
fn settle_without_conflict(group: &Group) -> Result<Tree> {
    let tree = group.settle()?;
    ensure!(
        tree.conflict_copies().is_empty(),
        "Unexpected conflict copies: {:?}",
        tree.conflict_copies()
    );
    for device in &group.devices {
        let status = device.status()?;
        ensure!(
            status.folder("conflicts") == Some(0),
            "{}: {}",
            device.name,
            status.0
        );
    }
    Ok(tree)
}

/// Checks that the group settles with exactly what the device `number` has in its folder at this moment.
fn settle_as_left(group: &Group, number: usize) -> Result<Tree> {
    let expected = group[number].tree()?;
    group.settle_as(&expected)?;
    settle_without_conflict(group)
}
