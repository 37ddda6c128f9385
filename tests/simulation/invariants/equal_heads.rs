//! 9: connected honest devices reach equal heads.

use std::collections::BTreeSet;

use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::merkle::Hash;
use p2p_sync_tests::sim::device::Device;
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    // How much devices had heard of one that was removed, when they heard that, is no concern of the others.
    let members: Vec<DeviceId> = world.insiders().iter().map(|device| device.id).collect();
    let of_members = |device: &Device| -> BTreeSet<(DeviceId, u64, Hash)> {
        let logs = device.store.durable().logs.values();
        let logs = logs.filter(|log| members.contains(&log.author));
        logs.map(|log| (log.author, log.size(), log.peaks.root()))
            .collect()
    };
    let first = of_members(&world.devices[0]);
    for device in world.insiders() {
        let heads = of_members(device);
        let sizes =
            |heads: &BTreeSet<(DeviceId, u64, Hash)>| heads.iter().map(|head| head.1).collect::<Vec<_>>();
        if heads != first {
            let index = device.index;
            return Err(format!(
                "device {index} has logs {:?}, device 0 {:?}",
                sizes(&heads),
                sizes(&first)
            ));
        }
    }
    Ok(())
}
