//! 6: no event leaves a device, and no head is named, before it is durable there.

use p2p_sync_core::engine::{GossipMessage, Output, Request, Response};
use p2p_sync_core::ledger::{Header, SignedEvent};
use p2p_sync_tests::sim::store::Tables;
use p2p_sync_tests::sim::world::{Moment, Observer};

/// Looks at everything that is sent.
#[derive(Debug)]
pub(super) struct DurableFirst;

impl Observer for DurableFirst {
    fn see(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let tables = moment.device.store.durable();
        let said = match moment.output {
            Output::Request {
                request: Request::Push { events } | Request::Present { events },
                ..
            } => all(tables, events),
            Output::Respond { response, .. } => match response {
                Response::Events { events, .. }
                | Response::Accepted { events }
                | Response::Removed { events } => all(tables, events),
                Response::Heads(heads) => {
                    let is_durable = |head: &&p2p_sync_core::engine::Head| {
                        let mut logs = tables
                            .logs_of(head.device)
                            .filter_map(|log| tables.logs.get(&log));
                        logs.any(|log| head.size <= log.size())
                    };
                    match heads.iter().find(|head| !is_durable(head)) {
                        Some(head) => Err(format!("head {head:?} is named but not durable")),
                        None => Ok(()),
                    }
                }
                _ => Ok(()),
            },
            Output::Gossip(GossipMessage::EventAnnounced { author, seq, id, .. }) => {
                if tables.holds(author.short(), *seq, id) {
                    Ok(())
                } else {
                    Err(format!("{id:?} is announced but not durable"))
                }
            }
            _ => Ok(()),
        };
        said.map_err(|reason| format!("durable first: device {}: {reason}", moment.device.index))
    }
}

fn all(tables: &Tables, events: &[SignedEvent]) -> Result<(), String> {
    for event in events {
        let header = Header::from_bytes(&event.header).map_err(|error| error.to_string())?;
        if !tables.holds(header.author.short(), header.seq, &event.id()) {
            return Err(format!("{:?} is sent but not durable", event.id()));
        }
    }
    Ok(())
}
