//! 9: connected honest devices reach equal heads.

use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let first = &world.devices[0].store.durable().logs;
    for device in &world.devices {
        let logs = &device.store.durable().logs;
        let sizes = |logs: &std::collections::BTreeMap<_, p2p_sync_core::ledger::LogState>| {
            logs.values()
                .map(p2p_sync_core::ledger::LogState::size)
                .collect::<Vec<_>>()
        };
        if logs != first {
            let index = device.index;
            return Err(format!(
                "device {index} has logs {:?}, device 0 {:?}",
                sizes(logs),
                sizes(first)
            ));
        }
    }
    Ok(())
}
