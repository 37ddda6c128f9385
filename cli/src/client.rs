//! Finding the daemon's socket and connecting to it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use p2p_sync_proto::socket_path::{self, COMMON_NAME, RuntimeEnv, SYSTEM_SOCKET};
use p2p_sync_proto::v1::control_service_client::ControlServiceClient;
use p2p_sync_proto::v1::invite_service_client::InviteServiceClient;
use p2p_sync_proto::v1::ledger_service_client::LedgerServiceClient;
use p2p_sync_proto::v1::lock_service_client::LockServiceClient;
use p2p_sync_proto::v1::member_service_client::MemberServiceClient;
use p2p_sync_proto::v1::quarantine_service_client::QuarantineServiceClient;
use p2p_sync_proto::v1::recovery_service_client::RecoveryServiceClient;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::args::Global;
use crate::exit::{Exit, Failure};

pub(crate) type Client = ControlServiceClient<Channel>;
pub(crate) type Locks = LockServiceClient<Channel>;
pub(crate) type Members = MemberServiceClient<Channel>;
pub(crate) type Invites = InviteServiceClient<Channel>;
pub(crate) type Quarantine = QuarantineServiceClient<Channel>;
pub(crate) type Recovery = RecoveryServiceClient<Channel>;
pub(crate) type LedgerClient = LedgerServiceClient<Channel>;

/// How long a socket that is missing or refuses is tried: a daemon that restarts is away for less.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
const CONNECT_PAUSE: Duration = Duration::from_millis(25);
/// The folder of a daemon run by hand.
const DEFAULT_FOLDER: &str = "sync_folder";

/// Where to look, and what that depends on.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) runtime: RuntimeEnv,
    pub(crate) current_dir: PathBuf,
    pub(crate) user: Option<String>,
}

impl Surroundings {
    /// Reads the process's environment.
    pub(crate) fn current() -> Self {
        let dir = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let runtime = RuntimeEnv {
            runtime_directory: None,
            xdg_runtime_dir: dir("XDG_RUNTIME_DIR"),
            temp_dir: dir("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")),
            uid: rustix::process::geteuid().as_raw(),
        };
        let current_dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self {
            runtime,
            current_dir,
            user: std::env::var("USER").ok().filter(|u| !u.is_empty()),
        }
    }
}

/// Returns the socket to talk to: the named one, the named folder's, the one of `./sync_folder`, the user's first, the
/// user's service, the machine's. The last three and `./sync_folder`'s count only if they are there.
pub(crate) fn find_socket(global: &Global, around: &Surroundings) -> Result<PathBuf, Failure> {
    if let Some(path) = global.socket.as_ref().filter(|p| !p.as_os_str().is_empty()) {
        return Ok(path.clone());
    }
    let own = around.runtime.directory();
    let of_folder = |dir: &Path| {
        let real = socket_path::real_path(&around.current_dir.join(dir))?;
        Ok::<_, io::Error>(own.join(socket_path::folder_socket_name(&real)))
    };
    if let Some(dir) = &global.sync_dir {
        return of_folder(dir).map_err(|e| {
            Failure::new(
                Exit::Usage,
                "BAD_FOLDER",
                format!("Cannot resolve {}: {e}", dir.display()),
            )
        });
    }
    let mut candidates = Vec::new();
    if around.current_dir.join(DEFAULT_FOLDER).is_dir() {
        candidates.extend(of_folder(Path::new(DEFAULT_FOLDER)).ok());
    }
    let users_first = own.join(COMMON_NAME);
    candidates.push(users_first.clone());
    if let Some(user) = around.user.as_deref().filter(|u| !u.contains('/')) {
        candidates.push(PathBuf::from(format!("/run/p2p-sync-{user}")).join(COMMON_NAME));
    }
    candidates.push(PathBuf::from(SYSTEM_SOCKET));
    // What cannot be looked at for want of permission counts as there: the error then says so.
    let there = |p: &PathBuf| !matches!(p.symlink_metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound);
    Ok(candidates.into_iter().find(there).unwrap_or(users_first))
}

/// Connects, trying for as long as `patience` allows while nobody listens.
pub(crate) async fn connect(path: &Path, patience: Duration) -> Result<Channel, Failure> {
    if !socket_path::fits(path) {
        let text = format!(
            "A Unix socket's path has at most {} bytes: {}",
            socket_path::MAX_LEN,
            path.display()
        );
        return Err(Failure::new(Exit::Usage, "SOCKET_PATH_TOO_LONG", text));
    }
    let deadline = Instant::now() + patience;
    let stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            Err(error) => {
                let may_come = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                );
                if !may_come || Instant::now() + CONNECT_PAUSE > deadline {
                    return Err(unreachable(path, &error));
                }
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
        }
    };
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    // The name goes into :authority and means nothing on a Unix socket.
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await;
    channel.map_err(|e| {
        Failure::new(
            Exit::Unavailable,
            "UNAVAILABLE",
            format!("The daemon closed the connection: {e}"),
        )
        .hint("see its log: journalctl -u p2p-sync -n 20")
    })
}

fn unreachable(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::NoPerm,
            "SOCKET_PERMISSION",
            format!("No permission on {shown}"),
        )
        .hint("sudo usermod -aG p2p-sync $USER, then log in again; or use sudo"),
        _ => Failure::new(
            Exit::Unavailable,
            "NOT_RUNNING",
            format!("No daemon answers at {shown} ({error})"),
        )
        .hint("start it: sudo systemctl start p2p-sync, or by hand: p2p_sync_daemon"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(socket: Option<&str>, sync_dir: Option<&str>) -> Global {
        Global {
            socket: socket.map(Into::into),
            sync_dir: sync_dir.map(Into::into),
            json: false,
            timeout: None,
        }
    }

    fn around(dir: &Path) -> Surroundings {
        let runtime = RuntimeEnv {
            xdg_runtime_dir: Some(dir.join("run")),
            ..RuntimeEnv::default()
        };
        Surroundings {
            runtime,
            current_dir: dir.to_owned(),
            user: None,
        }
    }

    #[test]
    fn a_named_socket_and_a_named_folder_come_first() {
        let temp = tempfile::tempdir().unwrap();
        let around = around(temp.path());
        assert_eq!(
            find_socket(&global(Some("/x"), Some("f")), &around).unwrap(),
            Path::new("/x")
        );
        let real = temp.path().canonicalize().unwrap().join("f");
        let expected = temp
            .path()
            .join("run/p2p-sync")
            .join(socket_path::folder_socket_name(&real));
        assert_eq!(find_socket(&global(None, Some("f")), &around).unwrap(), expected);
    }

    #[test]
    fn the_daemon_of_the_folder_here_is_preferred_to_the_users_first() {
        let temp = tempfile::tempdir().unwrap();
        let around = around(temp.path());
        let run = temp.path().join("run/p2p-sync");
        let common = run.join("control.sock");
        assert_eq!(find_socket(&global(None, None), &around).unwrap(), common);
        std::fs::create_dir_all(&run).unwrap();
        std::fs::create_dir(temp.path().join("sync_folder")).unwrap();
        std::fs::write(&common, "").unwrap();
        assert_eq!(find_socket(&global(None, None), &around).unwrap(), common);
        let real = temp.path().canonicalize().unwrap().join("sync_folder");
        let here = run.join(socket_path::folder_socket_name(&real));
        std::fs::write(&here, "").unwrap();
        assert_eq!(find_socket(&global(None, None), &around).unwrap(), here);
    }
}
