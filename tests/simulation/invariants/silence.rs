//! 19: a group at rest makes no events, writes nothing and fetches nothing; only heads are compared now and then.

use p2p_sync_tests::sim::world::World;

/// Ten rounds of comparing heads.
const IDLE_MS: u64 = 10 * 60_000;

pub(super) fn check(world: &mut World) -> Result<(), String> {
    let events: Vec<usize> = counts(world);
    let before = world.last_activity_ms;
    world.pass(IDLE_MS)?;
    if world.last_activity_ms != before {
        return Err(format!("something happened at {} ms", world.last_activity_ms));
    }
    if counts(world) != events {
        return Err("new events".to_owned());
    }
    Ok(())
}

fn counts(world: &World) -> Vec<usize> {
    world
        .devices
        .iter()
        .map(|device| device.store.durable().events.len())
        .collect()
}
