//! 30: no event blames a user for what an install did: what a device publishes is something that its user had in his
//! folder by his own doing, also after crashes.

use p2p_sync_core::engine::{Output, Write};
use p2p_sync_core::ledger::Item;
use p2p_sync_tests::sim::world::{Moment, Observer};

pub(super) struct NotBlamed;

impl Observer for NotBlamed {
    fn see(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let (Output::Persist(batch), Some(stood)) = (moment.output, &moment.device.stood) else {
            return Ok(());
        };
        for write in &batch.writes {
            let Write::Event(stored) = write else { continue };
            if stored.author != moment.device.id || moment.device.twin_has(stored) {
                continue;
            }
            let event = stored.event.read_stored().map_err(|error| error.to_string())?;
            for item in &event.body.items {
                let Item::Put(put) = item else { continue };
                // What was put beside its path was his, though a power cut may have torn it.
                let displaced = put.path.to_string().contains("(displaced ");
                let by_user = displaced || put.entry.node.is_dir() || stood.contains(&put.entry.node);
                if !by_user {
                    return Err(format!(
                        "not blamed: {} publishes {:?} at {}, which its user never put there",
                        moment.device.index, put.entry.node, put.path
                    ));
                }
            }
        }
        Ok(())
    }
}
