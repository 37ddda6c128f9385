//! What is stored of the ledger is found sound by whoever checks it again from its bytes, on every device.

use std::sync::Arc;

use p2p_sync_core::engine::{StoredEvent, Taken};
use p2p_sync_core::ids::{EventId, ShortId};
use p2p_sync_core::ledger::Header;
use p2p_sync_core::ledger::audit::{Audit, Depth, Fault, Row};
use p2p_sync_core::time::Hlc;
use p2p_sync_tests::sim::store::Tables;
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for device in &world.devices {
        let faults = faults(device.store.durable());
        if let Some(fault) = faults.first() {
            let all = faults.len();
            return Err(format!("device {}: {all} faults, {fault}", device.index));
        }
    }
    Ok(())
}

fn faults(tables: &Tables) -> Vec<String> {
    let events: Vec<&StoredEvent> = tables
        .arrival
        .iter()
        .filter_map(|place| tables.events.get(place))
        .collect();
    let Some(first) = events.first() else {
        return Vec::new();
    };
    let mut audit = Audit::new(first.id.as_group(), Depth::Full);
    let logs = tables.logs.iter().map(|(name, log)| (*name, Some(log.clone())));
    let logs = logs.collect();
    audit.expect(&logs);
    let stored = |log, seq| clock_of(tables, log, seq);
    let mut faults = Vec::new();
    for event in &events {
        faults.extend(audit.event(&row(event), stored));
    }
    let setting = tables.settings.get(Taken::SETTING);
    let taken = Taken::read(setting.map(Vec::as_slice));
    faults.extend(audit.finish_seen(|log| taken.of(log), stored));
    faults.extend(audit.finish(&logs));
    let words = |fault: &Fault| format!("event {} of {}: {}", fault.seq, fault.device.label(), fault.what);
    faults.iter().map(words).collect()
}

fn clock_of(tables: &Tables, log: ShortId, seq: u64) -> Option<(EventId, Hlc)> {
    let event = tables.events.get(&(log, seq))?;
    Some((event.id, Header::from_bytes(&event.event.header).ok()?.hlc))
}

fn row(event: &StoredEvent) -> Row {
    Row {
        short: event.log.as_bytes().to_vec(),
        author: event.author.as_bytes().to_vec(),
        seq: event.seq,
        kind: i64::from(event.kind),
        id: event.id.as_bytes().to_vec(),
        header: Arc::clone(&event.event.header),
        signature: event.event.signature.to_vec(),
        body: Arc::clone(&event.event.body),
    }
}
