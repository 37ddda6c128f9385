//! The control socket: bound first, so that a second daemon is refused before it touches anything, and served last.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::{DaemonError, Options};
use crate::control::{Access, Backend, ControlService, ControlSocket};

/// Binds the socket, or takes the one that systemd passed; `None` if none is wanted.
pub(super) fn bind(options: &Options) -> Result<Option<ControlSocket>, DaemonError> {
    let Some(place) = &options.socket else {
        return Ok(None);
    };
    let access = access(options);
    if let Some(passed) = ControlSocket::from_systemd()? {
        if let Some(group) = access.read_only_group.filter(|group| !passed.admits(group)) {
            warn!(
                group,
                "The socket of systemd lets this group not connect; see [control] in config.toml"
            );
        }
        return Ok(Some(passed));
    }
    Ok(Some(ControlSocket::bind(place, &access)?))
}

fn access(options: &Options) -> Access {
    let (all, readers) = (&options.control_group, &options.control_read_only_group);
    Access::current(all.clone(), readers.clone())
}

/// Serves the socket until the daemon stops.
pub(super) fn serve(
    socket: ControlSocket,
    backend: Backend,
    options: &Options,
    mut stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let access = access(options);
    tokio::spawn(async move {
        let shutdown = async move { drop(stopping.changed().await) };
        if let Err(error) = ControlService::new(backend, access).serve(socket, shutdown).await {
            error!(error = %crate::error_chain(&error), "The control socket failed");
        }
    })
}
