//! 5: along each log `seen` and the hybrid clock only go forward, and an event's clock is after all it has seen.

use std::collections::BTreeMap;

use p2p_sync_core::ids::ShortId;
use p2p_sync_core::ledger::LogState;
use p2p_sync_core::time::Hlc;
use p2p_sync_tests::sim::store::Tables;
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for device in &world.devices {
        replay(device.store.durable(), world.plan.changes_roles())
            .map_err(|reason| format!("device {}: {reason}", device.index))?;
    }
    Ok(())
}

/// `gaps`: what a removed device did may be missing.
fn replay(tables: &Tables, gaps: bool) -> Result<(), String> {
    let mut logs: BTreeMap<ShortId, LogState> = BTreeMap::new();
    let mut clocks: BTreeMap<(ShortId, u64), Hlc> = BTreeMap::new();
    for key in &tables.arrival {
        let stored = tables.events.get(key).ok_or("an event is missing")?;
        let event = stored.event.read_stored().map_err(|error| error.to_string())?;
        let log = logs
            .entry(key.0)
            .or_insert_with(|| LogState::empty(stored.author));
        log.check_next(&event.header)
            .map_err(|error| format!("{key:?}: {error}"))?;
        log.push(&event);
        for seen in &event.header.seen {
            let clock = clocks.get(&(seen.device, seen.next_seq - 1));
            if clock.map_or(!gaps, |clock| *clock >= event.header.hlc) {
                return Err(format!(
                    "{key:?} has seen {seen:?}, which is missing or not before it"
                ));
            }
        }
        clocks.insert(*key, event.header.hlc);
    }
    if logs != tables.logs {
        return Err("the stored logs are not those of the stored events".to_owned());
    }
    Ok(())
}
