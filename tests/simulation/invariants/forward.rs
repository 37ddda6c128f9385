//! 5: along each log `seen` and the hybrid clock only go forward, and an event's clock is after all it has seen.

use std::collections::BTreeMap;

use p2p_sync_core::ids::{DeviceId, ShortId};
use p2p_sync_core::ledger::{Header, LogState, Seen};
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
    // Each log before each of its events.
    let mut passed: BTreeMap<(ShortId, u64), LogState> = BTreeMap::new();
    let mut clocks: BTreeMap<(ShortId, u64), Hlc> = BTreeMap::new();
    for key in &tables.arrival {
        let stored = tables.events.get(key).ok_or("an event is missing")?;
        let event = stored.event.read_stored().map_err(|error| error.to_string())?;
        let begun = begin(tables, &logs, key.0, stored.author, &passed);
        let log = logs.entry(key.0).or_insert(begun);
        let seen = local_seen(tables, &event.header);
        let is_here = |((log, size), told): &(&(ShortId, u64), &Seen)| {
            let last = tables.events.get(&(*log, *size - 1));
            last.is_some_and(|event| event.id.id16() == told.id16)
        };
        let known = seen.iter().zip(&event.header.seen).filter(is_here);
        let known: Vec<(ShortId, u64)> = known.map(|(here, _)| *here).collect();
        log.check_next(&event.header, &known)
            .map_err(|error| format!("{key:?}: {error}"))?;
        passed.insert((key.0, key.1), log.clone());
        log.push(event.id, &event.header, &with_shared(tables, seen.clone()));
        for (of, next) in seen {
            let at = (tables.holder(of, next - 1), next - 1);
            let clock = clocks.get(&at);
            if clock.map_or(!gaps, |clock| *clock >= event.header.hlc) {
                return Err(format!(
                    "{key:?} has seen {at:?}, which is missing or not before it"
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

/// Returns a log, or a branch, before its first event.
fn begin(
    tables: &Tables,
    logs: &BTreeMap<ShortId, LogState>,
    name: ShortId,
    author: DeviceId,
    passed: &BTreeMap<(ShortId, u64), LogState>,
) -> LogState {
    let left = tables.logs.get(&name).and_then(|log| log.left);
    let known = logs.get(&name).cloned();
    let branch = || {
        let left = left?;
        Some(passed.get(&(left.log, left.size))?.begin_branch(name, left))
    };
    known.or_else(branch).unwrap_or_else(|| LogState::empty(author))
}

/// Returns what an event has seen with the names of the logs here.
fn local_seen(tables: &Tables, header: &Header) -> Vec<(ShortId, u64)> {
    let local = |seen: &Seen| {
        let last = seen.next_seq - 1;
        let is_it = |log: &ShortId| {
            let event = tables.events.get(&(*log, last));
            event.is_some_and(|event| event.id.id16() == seen.id16)
        };
        let mut holders = tables.logs_of(seen.device).map(|log| tables.holder(log, last));
        (holders.find(is_it).unwrap_or(seen.device), seen.next_seq)
    };
    header.seen.iter().map(local).collect()
}

/// Adds what is shared with the logs that these left.
fn with_shared(tables: &Tables, mut seen: Vec<(ShortId, u64)>) -> Vec<(ShortId, u64)> {
    for at in 0..seen.len() {
        let (mut log, mut size) = seen[at];
        while let Some(left) = tables.logs.get(&log).and_then(|log| log.left) {
            (log, size) = (left.log, left.size.min(size));
            seen.push((log, size));
        }
    }
    seen
}
