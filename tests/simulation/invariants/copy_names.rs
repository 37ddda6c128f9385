//! 16: names of conflict copies are injective, are no other path's, and are equal on all devices; each copy that the
//! rules show has one.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::fold::names::resolve;
use p2p_sync_core::ids::Dot;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::sim::device::Device;
use p2p_sync_tests::sim::oracle::Oracle;
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let first = names(&world.devices[0]);
    let states = Oracle::read(world.devices[0].store.durable())?.states();
    let live: BTreeSet<&RelPath> = states
        .iter()
        .filter(|(_, state)| state.is_live())
        .map(|(path, _)| path)
        .collect();
    let mut taken: BTreeSet<RelPath> = live.iter().flat_map(|path| path.ancestors()).collect();
    taken.extend(live.iter().map(|path| (*path).clone()));
    for name in first.values() {
        if !taken.insert(name.clone()) {
            return Err(format!("{name} is the name of two things"));
        }
    }
    for (path, state) in &states {
        let below = live.iter().any(|other| other.is_below(path));
        for copy in resolve(state, below).copies {
            if !first.contains_key(&(path.clone(), copy.dot)) {
                return Err(format!("the copy of {path} for {} has no name", copy.dot));
            }
        }
    }
    let told = told_names(&world.devices[0]);
    for device in world.insiders() {
        if told_names(device) != told {
            return Err(format!(
                "device {} gives copies other names than device 0",
                device.index
            ));
        }
    }
    Ok(())
}

/// Returns the names that a device has given to copies, with the versions as all devices call them.
fn told_names(device: &Device) -> BTreeMap<(RelPath, Dot), RelPath> {
    let tables = device.store.durable();
    let states = tables
        .path_states
        .iter()
        .map(|(path, state)| (path, tables.told(state)));
    let names = states.flat_map(|(path, state)| {
        let shown = state.shown.into_iter();
        shown.map(move |(name, dot)| ((path.clone(), dot), name))
    });
    names.collect()
}

/// Returns the names that a device has given to copies.
pub(super) fn names(device: &Device) -> BTreeMap<(RelPath, Dot), RelPath> {
    let states = device.store.durable().path_states.iter();
    let shown = states.flat_map(|(path, state)| state.shown.iter().map(move |(name, dot)| (path, name, dot)));
    shown
        .map(|(path, name, dot)| ((path.clone(), *dot), name.clone()))
        .collect()
}
