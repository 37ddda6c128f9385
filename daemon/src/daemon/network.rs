//! Starts the network with a queue before it.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::error;

use super::{DaemonError, Options};
use crate::network::{
    NetworkCommand, NetworkConfig, NetworkEvent, NetworkHandle, NetworkService, StreamOpener,
};

pub(super) type Network = (
    mpsc::UnboundedSender<NetworkCommand>,
    mpsc::Receiver<NetworkEvent>,
    StreamOpener,
    JoinHandle<()>,
);

/// Starts the network behind a queue that never refuses: the loop must not wait for it, and what it is told about
/// members must not be lost. The queue is bounded by what the engine asks, which waits for answers.
pub(super) fn start(options: &Options, secret: [u8; 32]) -> Result<Network, DaemonError> {
    let config = NetworkConfig {
        secret,
        listen: options.listen.clone(),
        fallback_port: options.fallback_port,
        mdns: options.mdns,
        trust_lan: options.trust_lan,
    };
    let (service, handle) = NetworkService::new(config)?;
    let NetworkHandle {
        commands,
        events,
        streams,
    } = handle;
    let (sender, mut queue) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(command) = queue.recv().await {
            if commands.send(command).await.is_err() {
                break;
            }
        }
    });
    let task = tokio::spawn(async move {
        if let Err(error) = service.run().await {
            error!(error = %crate::error_chain(&error), "The network failed");
        }
    });
    Ok((sender, events, streams, task))
}
