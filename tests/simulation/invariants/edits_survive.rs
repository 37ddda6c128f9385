//! 17: an edit made beside a deletion stays: a Del stands only where every Put was replaced or discarded.

use p2p_sync_tests::sim::oracle::Oracle;
use p2p_sync_tests::sim::world::World;

use super::nothing_vanishes::is_given_up;

pub(super) fn check(world: &World) -> Result<(), String> {
    let oracle = Oracle::read(world.devices[0].store.durable())?;
    let states = oracle.states();
    for (path, history) in &oracle.paths {
        if states
            .get(path)
            .is_some_and(p2p_sync_core::fold::PathState::is_live)
        {
            continue;
        }
        let survivor = history.versions.iter().find(|put| {
            put.origins.is_empty() && put.node().is_some_and(|node| !is_given_up(history, put, node))
        });
        if let Some(put) = survivor {
            return Err(format!("{path} is gone, though nobody replaced {}", put.dot));
        }
    }
    Ok(())
}
