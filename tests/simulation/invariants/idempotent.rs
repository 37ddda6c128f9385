//! 2: taking events again changes nothing.

use p2p_sync_tests::sim::world::World;

/// Long enough for whatever a repeated push might set off.
const AFTER_MS: u64 = 20_000;

pub(super) fn check(world: &mut World) -> Result<(), String> {
    let before: Vec<_> = world
        .devices
        .iter()
        .map(|device| device.store.durable().clone())
        .collect();
    // A removed device may never have heard of what is pushed to it.
    let members: Vec<usize> = world.insiders().iter().map(|device| device.index).collect();
    for (i, from) in members.iter().enumerate() {
        world.push_again(*from, members[(i + 1) % members.len()])?;
    }
    world.pass(AFTER_MS)?;
    for (device, before) in world.devices.iter().zip(&before) {
        if device.store.durable() != before {
            return Err(format!("device {} changed its state", device.index));
        }
    }
    Ok(())
}
