//! 9: connected honest devices reach equal heads.

use std::collections::BTreeMap;

use p2p_sync_core::ids::ShortId;
use p2p_sync_core::ledger::LogState;
use p2p_sync_tests::sim::device::Device;
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    // How much devices had heard of one that was removed, when they heard that, is no concern of the others.
    let members: Vec<ShortId> = world.insiders().iter().map(|device| device.id.short()).collect();
    let of_members = |device: &Device| -> BTreeMap<ShortId, LogState> {
        let mut logs = device.store.durable().logs.clone();
        logs.retain(|log, _| members.contains(log));
        logs
    };
    let first = of_members(&world.devices[0]);
    for device in world.insiders() {
        let logs = of_members(device);
        let sizes =
            |logs: &BTreeMap<ShortId, LogState>| logs.values().map(LogState::size).collect::<Vec<_>>();
        if logs != first {
            let index = device.index;
            return Err(format!(
                "device {index} has logs {:?}, device 0 {:?}",
                sizes(&logs),
                sizes(&first)
            ));
        }
    }
    Ok(())
}
