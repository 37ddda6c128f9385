//! 18: what stands on each disk is what the ledger says, with every directory a directory: so all are equal.

use std::collections::BTreeMap;

use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::sim::actions::is_copy;
use p2p_sync_tests::sim::device::Device;
use p2p_sync_tests::sim::disk::{Inode, Kind};
use p2p_sync_tests::sim::oracle::{Oracle, Standing};
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let oracle = Oracle::read(world.devices[0].store.durable())?;
    let states = oracle.states();
    let names = super::copy_names::names(&world.devices[0]);
    let wanted = Oracle::tree(&states, &names);
    for device in world.insiders() {
        let tree = visible(device);
        let writable = oracle.rights.writable(&device.id);
        for (path, standing) in &wanted {
            let out_of_reach = |standing: &Standing| {
                content_of(standing).is_some_and(|content| world.is_out_of_reach(&content))
            };
            let lacks =
                |(other, standing): (&RelPath, &Standing)| other.is_below(path) && out_of_reach(standing);
            let implied = *standing == Standing::AnyDir && wanted.iter().any(lacks);
            if out_of_reach(standing) || implied {
                continue;
            }
            let inode = tree.get(path).copied();
            // A directory stays for what its user left there and may not publish; others may wait for that.
            let left = |other: &RelPath| !writable.covers(other) && !wanted.contains_key(other);
            let needs = &device.store.durable().needs;
            let held = tree
                .keys()
                .any(|other| left(other) && (other.is_below(path) || needs.contains(path)));
            // So does one that he put in the place of a copy in the daemon's own directory, if he may not give up the copy.
            let mut origins = names
                .iter()
                .filter(|(_, name)| *name == path)
                .map(|((origin, _), _)| origin);
            let below = |other: &RelPath| other.is_below(path);
            let in_place =
                origins.any(|origin| !writable.covers(origin)) && device.disk.tree().keys().any(below);
            if !held && !in_place && !inode.is_some_and(|inode| is_as(inode, standing)) {
                let entry = inode.map(Inode::entry);
                return Err(format!(
                    "device {} has {entry:?} at {path}, not {standing:?}",
                    device.index
                ));
            }
        }
        // An edited copy in the daemon's directory is its user's and stays where it is.
        // So is what a device may not publish, where the group has nothing.
        let visible = tree
            .iter()
            .filter(|(path, _)| !path.is_own() && writable.covers(path));
        if let Some((path, inode)) = visible.into_iter().find(|(path, _)| !wanted.contains_key(path)) {
            let entry = inode.entry();
            return Err(format!(
                "device {} has {entry:?} at {path}, where nothing should be",
                device.index
            ));
        }
    }
    Ok(())
}

/// The folder without the daemon's own directory, but for the conflict copies in it.
fn visible(device: &Device) -> BTreeMap<&RelPath, &Inode> {
    let all = device.disk.tree().iter();
    all.filter(|(path, inode)| !path.is_own() || (is_copy(path) && inode.kind != Kind::Dir))
        .collect()
}

fn content_of(standing: &Standing) -> Option<ContentHash> {
    match standing {
        Standing::AnyDir => None,
        Standing::Entry(node, _) => node.content(),
    }
}

fn is_as(inode: &Inode, standing: &Standing) -> bool {
    let entry = inode.entry();
    match standing {
        Standing::AnyDir => entry.node.is_dir(),
        Standing::Entry(node, mode) => entry.node == *node && entry.mode == *mode,
    }
}
