//! 1: equal sets of events give equal path states and members, whatever the order in which they came, and they are
//! those of the rules.

use std::collections::BTreeMap;

use p2p_sync_core::fold::PathState;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::sim::device::Device;
use p2p_sync_tests::sim::oracle::Oracle;
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let oracle = Oracle::read(world.devices[0].store.durable())?;
    let wrong = world.devices[0].status().peers.into_iter().find(|peer| {
        let role = oracle.rights.role(&peer.device);
        peer.role != role
    });
    if let Some(peer) = wrong {
        let role = oracle.rights.role(&peer.device);
        return Err(format!(
            "{} is {:?}, the rules say {role:?}",
            peer.device, peer.role
        ));
    }
    let expected = oracle.states().into_iter();
    // Of some paths only devices without the right to spoke.
    let expected = expected.filter(|(_, state)| !state.heads.is_empty());
    let first = world.devices[0].store.durable();
    let expected: BTreeMap<RelPath, PathState> =
        expected.map(|(path, state)| (path, first.told(&state))).collect();
    let roles = roles(&world.devices[0]);
    for device in world.insiders() {
        let tables = device.store.durable();
        let states = &tables.path_states;
        for (path, state) in &expected {
            let heads = states.get(path).map(|state| tables.told(state).heads);
            if heads.as_ref() != Some(&state.heads) {
                let index = device.index;
                return Err(format!(
                    "device {index} has {heads:?} at {path}, the rules say {:?}",
                    state.heads
                ));
            }
        }
        if let Some(path) = invented(states, &expected) {
            return Err(format!(
                "device {} has a state for {path}, which no event names",
                device.index
            ));
        }
        if self::roles(device) != roles {
            return Err(format!(
                "device {} knows other members than device 0",
                device.index
            ));
        }
    }
    Ok(())
}

fn invented<'a>(
    states: &'a BTreeMap<RelPath, PathState>,
    expected: &BTreeMap<RelPath, PathState>,
) -> Option<&'a RelPath> {
    let told = states.iter().filter(|(_, state)| !state.heads.is_empty());
    told.map(|(path, _)| path)
        .find(|path| !expected.contains_key(*path))
}

fn roles(device: &Device) -> Vec<String> {
    let members = device
        .status()
        .peers
        .into_iter()
        .filter(|peer| peer.role.is_some());
    members
        .map(|peer| format!("{} {} {:?}", peer.device, peer.name, peer.role))
        .collect()
}
