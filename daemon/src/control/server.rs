//! Serving: accepting connections, finding out who calls, health and reflection, and stopping.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use p2p_sync_proto::v1::control_service_server::ControlServiceServer;
use p2p_sync_proto::v1::invite_service_server::InviteServiceServer;
use p2p_sync_proto::v1::ledger_service_server::LedgerServiceServer;
use p2p_sync_proto::v1::lock_service_server::LockServiceServer;
use p2p_sync_proto::v1::member_service_server::MemberServiceServer;
use p2p_sync_proto::v1::quarantine_service_server::QuarantineServiceServer;
use p2p_sync_proto::v1::recovery_service_server::RecoveryServiceServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as latest};
use tokio_stream::Stream;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::authority::FixAuthority;
use super::caller::{Access, Caller, CheckLayer, Reach};
use super::service::Rpcs;
use super::{Backend, ControlSocket, StatusSnapshot};

/// Connections at a time; further ones wait in the socket's queue. Each holds a few kilobytes and a descriptor.
const MAX_CONNECTIONS: usize = 64;
/// Calls at a time on one connection.
const MAX_STREAMS: u32 = 64;
/// How long a stopping daemon waits for calls under way before it cuts them.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket cannot be used.
    #[error("Cannot use the control socket")]
    Socket(#[source] io::Error),
    /// The generated descriptors are broken.
    #[error("Cannot serve gRPC reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("The control service failed")]
    Transport(#[source] tonic::transport::Error),
}

/// The control service's task.
#[derive(Debug)]
pub struct ControlService {
    backend: Backend,
    access: Access,
}

impl ControlService {
    /// Makes the service; it serves when [`ControlService::serve`] runs.
    #[must_use]
    pub fn new(backend: Backend, access: Access) -> Self {
        Self { backend, access }
    }

    /// Serves until `shutdown` is done, then ends the watchers, waits a moment for calls under way and removes the
    /// socket.
    ///
    /// # Errors
    /// Any [`ServeError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connections and removes the socket.
    pub async fn serve(
        self,
        socket: ControlSocket,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let access = self.access.clone();
        self.serve_callers(socket, move |uid, gid| access.reach(uid, gid), shutdown)
            .await
    }

    async fn serve_callers(
        self,
        socket: ControlSocket,
        reach: impl Fn(u32, u32) -> Reach + Send + Sync + 'static,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let listener = socket
            .listener()
            .and_then(UnixListener::from_std)
            .map_err(ServeError::Socket)?;
        let (stop, stopping) = latest::channel(false);
        let health_of = self.backend.status.clone();
        let rpcs = Rpcs {
            backend: self.backend,
            stopping: stopping.clone(),
        };

        let (health_reporter, health) = tonic_health::server::health_reporter();
        set_health(&health_reporter, false).await;
        let report_health = report_health(health_reporter, health_of);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(p2p_sync_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .layer(CheckLayer)
            .add_service(ControlServiceServer::new(rpcs.clone()))
            .add_service(LedgerServiceServer::new(rpcs.clone()))
            .add_service(LockServiceServer::new(rpcs.clone()))
            .add_service(MemberServiceServer::new(rpcs.clone()))
            .add_service(InviteServiceServer::new(rpcs.clone()))
            .add_service(QuarantineServiceServer::new(rpcs.clone()))
            .add_service(RecoveryServiceServer::new(rpcs))
            .add_service(health)
            .add_service(reflection().build_v1().map_err(ServeError::Reflection)?)
            .add_service(reflection().build_v1alpha().map_err(ServeError::Reflection)?)
            .serve_with_incoming_shutdown(incoming(listener, reach), stopped(stopping));

        tokio::pin!(server, shutdown, report_health);
        tokio::select! {
            result = &mut server => return result.map_err(ServeError::Transport),
            never = &mut report_health => match never {},
            () = &mut shutdown => {}
        }
        stop.send_replace(true);
        match tokio::time::timeout(DRAIN_TIME, server).await {
            Ok(result) => result.map_err(ServeError::Transport),
            Err(_) => Ok(()),
        }
    }
}

/// Keeps saying that the daemon serves, but not while the folder cannot be kept. Never ends.
async fn report_health(
    reporter: HealthReporter,
    mut status: latest::Receiver<Arc<StatusSnapshot>>,
) -> Infallible {
    loop {
        let failed = status.borrow_and_update().failure.is_some();
        set_health(&reporter, failed).await;
        if status.changed().await.is_err() {
            // Nobody publishes any more: the daemon is stopping.
            std::future::pending::<()>().await;
        }
    }
}

async fn set_health(reporter: &HealthReporter, failed: bool) {
    let health = if failed {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    };
    let services = [
        "",
        <ControlServiceServer<Rpcs> as NamedService>::NAME,
        <LedgerServiceServer<Rpcs> as NamedService>::NAME,
        <LockServiceServer<Rpcs> as NamedService>::NAME,
        <MemberServiceServer<Rpcs> as NamedService>::NAME,
        <InviteServiceServer<Rpcs> as NamedService>::NAME,
        <QuarantineServiceServer<Rpcs> as NamedService>::NAME,
        <RecoveryServiceServer<Rpcs> as NamedService>::NAME,
    ];
    for service in services {
        reporter.set_service_status(service, health).await;
    }
}

async fn stopped(mut stopping: latest::Receiver<bool>) {
    // An error means that the sender is gone with the whole service: that is a stop, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Returns the accepted connections, each with what is known of its other end. Never ends, and never fails: a
/// connection that cannot be accepted or identified is dropped with a word in the log.
fn incoming(
    listener: UnixListener,
    reach: impl Fn(u32, u32) -> Reach + Send + Sync + 'static,
) -> impl Stream<Item = io::Result<Connection>> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let reach = Arc::new(reach);
    futures::stream::unfold((listener, room), |(listener, room)| async move {
        // The semaphore is never closed.
        let permit = Arc::clone(&room).acquire_owned().await.ok()?;
        let accepted = listener.accept().await;
        if accepted.is_err() {
            // Out of descriptors, as a rule; without a pause this would spin.
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        Some((accepted.map(|(stream, _)| (stream, permit)), (listener, room)))
    })
    .map(move |accepted| {
        let reach = Arc::clone(&reach);
        async move {
            let (stream, permit) = accepted?;
            let caller = identify(&stream, reach).await?;
            Ok(Connection {
                stream: FixAuthority::new(stream),
                caller,
                _permit: permit,
            })
        }
    })
    .buffer_unordered(MAX_CONNECTIONS)
    .filter(|connection: &io::Result<Connection>| {
        if let Err(error) = connection {
            tracing::warn!(%error, "Cannot accept a connection on the control socket");
        }
        std::future::ready(connection.is_ok())
    })
}

async fn identify<R>(stream: &UnixStream, reach: Arc<R>) -> io::Result<Caller>
where
    R: Fn(u32, u32) -> Reach + Send + Sync + 'static,
{
    let peer = stream.peer_cred()?;
    let (uid, gid) = (peer.uid(), peer.gid());
    let reach = tokio::task::spawn_blocking(move || reach(uid, gid))
        .await
        .unwrap_or(Reach::Nothing);
    Ok(Caller {
        uid,
        pid: peer.pid(),
        reach,
    })
}

/// A client's connection.
#[derive(Debug)]
struct Connection {
    stream: FixAuthority<UnixStream>,
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
