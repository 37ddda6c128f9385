//! Nobody is told that something was deleted which nobody saw vanish, if it is much, before the user says so.

use p2p_sync_core::engine::{Output, Write};
use p2p_sync_core::ledger::Item;
use p2p_sync_tests::sim::world::{Moment, Observer};

pub(super) struct Guarded;

impl Observer for Guarded {
    fn see(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let Output::Persist(batch) = moment.output else {
            return Ok(());
        };
        for write in &batch.writes {
            let Write::Event(stored) = write else { continue };
            if stored.author != moment.device.id || moment.device.twin_has(stored) {
                continue;
            }
            let event = stored.event.read_stored().map_err(|error| error.to_string())?;
            for item in &event.body.items {
                let Item::Del { path, .. } = item else { continue };
                if moment.device.guarded.contains_key(path) {
                    return Err(format!(
                        "{} publishes that {path} is deleted, though nobody confirmed it",
                        moment.device.index
                    ));
                }
            }
        }
        Ok(())
    }
}
