//! Whole command lines against a fake daemon on a real socket.

mod members;
mod quarantine;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use p2p_sync_proto::socket_path::RuntimeEnv;
use p2p_sync_proto::v1::control_service_server::{ControlService, ControlServiceServer};
use p2p_sync_proto::v1::ledger_service_server::LedgerServiceServer;
use p2p_sync_proto::{reason, v1};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::client::Surroundings;
use crate::exit::Exit;

mod ledger;

pub(crate) fn sample_status() -> v1::Status {
    v1::Status {
        version: "0.1.0".into(),
        device: Some(v1::Device {
            id: "0a0a0a0a0a0a".into(),
            name: "atlas".into(),
            peer_id: "12D3Koo".into(),
            person: "Anna".into(),
        }),
        group_id: "0707070707".into(),
        role: v1::Role::Owner.into(),
        started_at: Some(prost_types::Timestamp {
            seconds: 1_000_000,
            nanos: 0,
        }),
        folder: Some(v1::FolderStatus {
            path: b"/srv/sync".to_vec(),
            state: v1::FolderState::Syncing.into(),
            files_total: 12_480,
            files_needed: 2,
            bytes_needed: 1_572_864,
            conflicts: 1,
            deletions_held: 0,
            ..Default::default()
        }),
        peers: Some(v1::PeerCounts {
            total: 2,
            connected: 1,
        }),
        warnings: vec![v1::Warning {
            code: "CONFLICTS".into(),
            message: "1 conflict copies lie in the folder".into(),
        }],
        listen_addresses: vec!["/ip4/192.0.2.7/tcp/22010/p2p/12D3Koo".into()],
        events: 40,
        bytes_in: 5,
        bytes_out: 6,
    }
}

pub(crate) fn sample_peers() -> Vec<v1::Peer> {
    let device = |id: &str, name: &str| {
        Some(v1::Device {
            id: id.repeat(6),
            name: name.into(),
            ..Default::default()
        })
    };
    let peer = |device, role: v1::Role, state: v1::PeerState, address: &str, in_sync| v1::Peer {
        device,
        role: role.into(),
        state: state.into(),
        address: address.into(),
        in_sync,
    };
    vec![
        peer(
            device("0a", "atlas").map(|device| v1::Device {
                person: "Anna".into(),
                ..device
            }),
            v1::Role::Owner,
            v1::PeerState::ThisDevice,
            "",
            true,
        ),
        peer(
            device("0b", "lap\x1b[0mtop"),
            v1::Role::Editor,
            v1::PeerState::Connected,
            "/ip4/192.0.2.8/tcp/1",
            false,
        ),
        peer(
            device("0c", ""),
            v1::Role::Unspecified,
            v1::PeerState::Stranger,
            "",
            false,
        ),
    ]
}

pub(crate) fn sample_version() -> v1::PathVersion {
    v1::PathVersion {
        id: "0a0a0a0a-1-0".into(),
        author: sample_status().device,
        time: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
        kind: v1::VersionKind::File.into(),
        size: 5,
        content: vec![0xab; 32],
        mode: 0o640,
        mtime_ns: 1_500_000_000_123_456_789,
        at_hand: v1::AtHand::Versions.into(),
        ..Default::default()
    }
}

pub(crate) fn sample_lan_device() -> v1::LanDevice {
    v1::LanDevice {
        device: Some(v1::Device {
            id: "0b0b0b0b0b0b".into(),
            name: "anna\x1b".into(),
            ..Default::default()
        }),
        group_id: "0707070707".into(),
        group_name: "photos".into(),
    }
}

/// A daemon that always says the same.
struct Fake;

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(code, "The fake refuses", details)
}

#[tonic::async_trait]
impl ControlService for Fake {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;
    type ReadVersionStream = Pin<Box<dyn Stream<Item = Result<v1::ReadVersionResponse, Status>> + Send>>;
    type JoinByNameStream = Pin<Box<dyn Stream<Item = Result<v1::JoinByNameResponse, Status>> + Send>>;
    type RestoreStream = Pin<Box<dyn Stream<Item = Result<v1::RestoreResponse, Status>> + Send>>;

    async fn get_history(
        &self,
        request: Request<v1::GetHistoryRequest>,
    ) -> Result<Response<v1::GetHistoryResponse>, Status> {
        if request.into_inner().path == b"unknown" {
            return Err(refusal(Code::NotFound, reason::NO_SUCH_VERSION));
        }
        let versions = vec![sample_version()];
        Ok(Response::new(v1::GetHistoryResponse {
            versions,
            more: false,
        }))
    }

    async fn read_version(
        &self,
        request: Request<v1::ReadVersionRequest>,
    ) -> Result<Response<Self::ReadVersionStream>, Status> {
        use v1::read_version_response::Part;
        let cut_short = request.into_inner().path == b"short";
        let data = if cut_short { &b"by"[..] } else { b"bytes" };
        let parts = [Part::Version(sample_version()), Part::Data(data.to_vec())];
        let parts = parts.map(|part| Ok(v1::ReadVersionResponse { part: Some(part) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<Self::RestoreStream>, Status> {
        use v1::restore_request::Pick;
        let request = request.into_inner();
        if request.path == b"secret" {
            return Err(refusal(Code::PermissionDenied, reason::ROLE_TOO_LOW));
        }
        let problem = v1::RestoreProblem {
            path: b"docs/b".to_vec(),
            not_at_hand: true,
            reason: "nobody has it".into(),
        };
        let step = match request.pick {
            Some(Pick::Before(_)) => v1::RestoreResponse {
                restored: 1_200,
                unchanged: 3,
                failed: 1,
                problems: vec![problem],
                done: true,
                ..Default::default()
            },
            _ => v1::RestoreResponse {
                restored: 1,
                version: Some(sample_version()),
                done: true,
                ..Default::default()
            },
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(step)]))))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse {
            status: Some(sample_status()),
        }))
    }

    async fn list_peers(
        &self,
        _: Request<v1::ListPeersRequest>,
    ) -> Result<Response<v1::ListPeersResponse>, Status> {
        Ok(Response::new(v1::ListPeersResponse {
            peers: sample_peers(),
        }))
    }

    /// The sample, which is connected but not in sync; nothing comes after it.
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let change = Some(v1::watch_response::Change::Status(sample_status()));
        let first = v1::WatchResponse {
            seq: 1,
            time: None,
            change,
        };
        Ok(Response::new(Box::pin(
            tokio_stream::once(Ok(first)).chain(tokio_stream::pending()),
        )))
    }

    async fn rescan(
        &self,
        request: Request<v1::RescanRequest>,
    ) -> Result<Response<v1::RescanResponse>, Status> {
        match request.into_inner().path.as_slice() {
            b"" | b"docs" | b"a\xff" => Ok(Response::new(v1::RescanResponse {})),
            _ => Err(refusal(Code::InvalidArgument, reason::BAD_PATH)),
        }
    }

    async fn connect_peer(
        &self,
        _: Request<v1::ConnectPeerRequest>,
    ) -> Result<Response<v1::ConnectPeerResponse>, Status> {
        std::future::pending().await
    }

    async fn create_invite(
        &self,
        request: Request<v1::CreateInviteRequest>,
    ) -> Result<Response<v1::CreateInviteResponse>, Status> {
        let request = request.into_inner();
        if request.role() == v1::Role::Admin {
            return Err(refusal(Code::PermissionDenied, reason::ROLE_TOO_LOW));
        }
        assert_eq!(request.valid_for.map(|d| d.seconds), Some(86_400));
        Ok(Response::new(v1::CreateInviteResponse {
            ticket: "p2ps1abc".into(),
            role: request.role,
            expires_at: None,
            max_uses: request.max_uses,
            addresses: vec!["/ip4/192.0.2.7/tcp/1".into()],
            key: "0505".into(),
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        match request.into_inner().ticket.as_str() {
            "bad" => Err(refusal(Code::InvalidArgument, reason::BAD_TICKET)),
            "away" => Err(refusal(Code::DeadlineExceeded, reason::INVITER_UNREACHABLE)),
            _ => Ok(Response::new(v1::JoinResponse {
                group_id: "0707070707".into(),
                role: v1::Role::Editor.into(),
                addresses: Vec::new(),
                ..Default::default()
            })),
        }
    }

    async fn list_lan(
        &self,
        _: Request<v1::ListLanRequest>,
    ) -> Result<Response<v1::ListLanResponse>, Status> {
        let devices = vec![sample_lan_device()];
        Ok(Response::new(v1::ListLanResponse { devices }))
    }

    /// Shows digits; whoever asks for "anna" is let in, and all others wait.
    async fn join_by_name(
        &self,
        request: Request<v1::JoinByNameRequest>,
    ) -> Result<Response<Self::JoinByNameStream>, Status> {
        use v1::join_by_name_response::Step;
        let name = request.into_inner().name;
        if name == "nobody" {
            return Err(refusal(Code::NotFound, reason::NO_SUCH_NAME));
        }
        let code = Step::Code(v1::JoinCode {
            asked: Some(sample_lan_device()),
            device: sample_status().device,
            code: "012345".into(),
        });
        let joined = Step::Joined(v1::JoinedByName {
            group_id: "0707070707".into(),
            role: v1::Role::Editor.into(),
        });
        let steps = [code, joined].map(|step| Ok(v1::JoinByNameResponse { step: Some(step) }));
        let steps = tokio_stream::iter(steps);
        if name == "anna" {
            return Ok(Response::new(Box::pin(steps)));
        }
        Ok(Response::new(Box::pin(
            steps.take(1).chain(tokio_stream::pending()),
        )))
    }

    async fn list_join_requests(
        &self,
        _: Request<v1::ListJoinRequestsRequest>,
    ) -> Result<Response<v1::ListJoinRequestsResponse>, Status> {
        let requests = vec![v1::JoinRequested {
            device: sample_lan_device().device,
            code: "012345".into(),
        }];
        Ok(Response::new(v1::ListJoinRequestsResponse { requests }))
    }

    async fn approve_join(
        &self,
        request: Request<v1::ApproveJoinRequest>,
    ) -> Result<Response<v1::ApproveJoinResponse>, Status> {
        let request = request.into_inner();
        if request.code != "012345" {
            return Err(refusal(Code::PermissionDenied, reason::WRONG_CODE));
        }
        Ok(Response::new(v1::ApproveJoinResponse {
            device: sample_lan_device().device,
            role: request.role,
        }))
    }

    async fn get_journal(
        &self,
        _: Request<v1::GetJournalRequest>,
    ) -> Result<Response<v1::GetJournalResponse>, Status> {
        Err(Status::permission_denied("no"))
    }

    async fn confirm_deletes(
        &self,
        _: Request<v1::ConfirmDeletesRequest>,
    ) -> Result<Response<v1::ConfirmDeletesResponse>, Status> {
        Err(refusal(Code::InvalidArgument, reason::INVALID_ARGUMENT))
    }

    async fn why(&self, _: Request<v1::WhyRequest>) -> Result<Response<v1::WhyResponse>, Status> {
        Ok(Response::new(v1::WhyResponse::default()))
    }

    async fn pause(&self, _: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        Ok(Response::new(v1::PauseResponse {}))
    }

    async fn resume(&self, _: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        Ok(Response::new(v1::ResumeResponse {}))
    }

    async fn leave(&self, _: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        Ok(Response::new(v1::LeaveResponse {
            group_id: "0909090909".into(),
        }))
    }
}

struct Daemon {
    _dir: TempDir,
    socket: PathBuf,
}

fn start() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(ControlServiceServer::new(Fake))
        .add_service(LedgerServiceServer::new(Fake));
    let server = members::serve(server);
    tokio::spawn(server.serve_with_incoming(incoming));
    Daemon { _dir: dir, socket }
}

async fn run_at(socket: &Path, line: &str, out: &mut dyn Write) -> (Exit, String) {
    run_typing(socket, line, None, out).await
}

/// Runs a command line; `typed` is what somebody types on a terminal, if there is one.
async fn run_typing(socket: &Path, line: &str, typed: Option<&str>, out: &mut dyn Write) -> (Exit, String) {
    let around = Surroundings {
        runtime: RuntimeEnv {
            temp_dir: "/nowhere".into(),
            ..RuntimeEnv::default()
        },
        current_dir: "/".into(),
        user: None,
    };
    let words = ["syncctl", "--socket"].map(Into::into).into_iter();
    let words = words
        .chain([socket.into()])
        .chain(line.split_whitespace().map(Into::into));
    let mut err = Vec::new();
    let is_terminal = typed.is_some();
    let mut typed = typed.unwrap_or_default().as_bytes();
    let input = crate::Typist {
        reader: &mut typed,
        is_terminal,
    };
    let exit = crate::run(words, &around, input, out, None, &mut err).await;
    (exit, String::from_utf8(err).unwrap())
}

async fn run(line: &str) -> (Exit, String, String) {
    let daemon = start();
    let mut out = Vec::new();
    let (exit, err) = run_at(&daemon.socket, line, &mut out).await;
    (exit, String::from_utf8(out).unwrap(), err)
}

#[tokio::test]
async fn answers_go_to_stdout_and_nothing_else_does() {
    for line in [
        "status",
        "peers",
        "peers list",
        "invite create",
        "join p2ps1x",
        "rescan",
        "rescan ./docs/",
        "history docs/a",
        "restore docs/a",
        "log docs/a",
        "ledger show --genesis",
        "ledger verify --fast",
        "join lan:",
        "join lan:anna",
        "approve",
        "approve 0b0b0b0b 012345",
        "device id",
        "",
    ] {
        let (exit, out, err) = run(line).await;
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""), "{line}");
        assert!(!out.is_empty() && out.ends_with('\n'), "{line}");
    }
}

#[tokio::test]
async fn a_join_by_name_shows_its_digits_at_once_and_gives_up_in_time() {
    let (exit, out, err) = run("join lan:slow --timeout 300ms").await;
    assert_eq!(exit, Exit::TempFail);
    assert!(out.contains("syncctl approve 0a0a0a0a 012345"), "{out}");
    assert!(err.contains("Nobody approved it"), "{err}");
    let (exit, out, _) = run("join lan:anna --json").await;
    let schemas: Vec<_> = out.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(exit, Exit::Ok);
    assert_eq!(
        schemas,
        [
            r#"{"schema":"p2psync.join-code/1""#,
            r#"{"schema":"p2psync.join/1""#
        ]
    );
}

#[tokio::test]
async fn a_restore_that_misses_something_names_it_and_fails() {
    let (exit, out, err) = run("restore --before 2h docs/").await;
    assert_eq!(exit, Exit::No);
    assert!(out.contains("restored 1,200 paths, 3 were"), "{out}");
    assert!(
        err.contains("docs/b: nobody has it") && err.contains("hint: connect"),
        "{err}"
    );
    let (exit, out, _) = run("restore --before 2h docs/ --json").await;
    assert_eq!(exit, Exit::No);
    assert!(
        out.contains(r#""problems":[{"path":"docs/b","path_hex":null,"not_at_hand":true"#),
        "{out}"
    );
    let (exit, _, err) = run("restore secret").await;
    assert_eq!(exit, Exit::NoPerm);
    assert!(err.contains("syncctl restore secret -o FILE"), "{err}");
    let (exit, _, err) = run("history unknown").await;
    assert_eq!(exit, Exit::No);
    assert!(err.contains("hint: see"), "{err}");
}

#[tokio::test]
async fn a_version_is_written_to_a_new_file_and_over_none() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old");
    let line = |path: &str| format!("restore {path} -o {}", file.display());
    let (exit, _, err) = run(&line("short")).await;
    assert_eq!(exit, Exit::Unavailable, "{err}");
    assert!(!file.exists(), "half a file is none");
    let (exit, _, err) = run(&line("docs/a")).await;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert_eq!(std::fs::read(&file).unwrap(), b"bytes");
    let meta = file.metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_500_000_000, 123_456_789));
    let (exit, _, err) = run(&line("docs/a")).await;
    assert_eq!(exit, Exit::CantCreate);
    assert!(err.contains("is there already"), "{err}");
}

#[tokio::test]
async fn every_answer_exists_as_one_line_of_json_with_a_schema() {
    let lines = [
        "status",
        "peers",
        "invite create --role viewer",
        "join x --keep-both",
        "join --prefer-group",
    ];
    for line in lines.into_iter().chain([
        "rescan",
        "wait --for connected",
        "join x --dry-run",
        "history a",
        "restore a",
        "log",
        "ledger show 01234567",
        "ledger verify --fast",
        "join lan:",
        "join lan:anna --dry-run",
        "approve",
        "approve 0b0b 012345 --role viewer",
        "device id",
        "",
    ]) {
        let (exit, out, _) = run(&format!("{line} --json")).await;
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((exit, out.lines().count()), (Exit::Ok, 1), "{line}");
        assert!(json["schema"].as_str().unwrap().starts_with("p2psync."), "{line}");
    }
    let (_, out, _) = run("invite create --role editor --json").await;
    assert!(out.contains(r#""ticket":"p2ps1abc""#), "{out}");
}

#[tokio::test]
async fn failures_have_their_exit_code_and_say_what_to_type_next() {
    let checks = [
        ("bogus", Exit::Usage),
        ("wait", Exit::Usage),
        ("join", Exit::Usage),
        ("join x --keep-both --prefer-group", Exit::Usage),
        ("invite create --role owner", Exit::Usage),
        ("invite create --uses 0", Exit::Usage),
        ("rescan ../x", Exit::Usage),
        ("rescan /elsewhere", Exit::Usage),
        ("join bad", Exit::Data),
        ("join away", Exit::TempFail),
        ("join lan:nobody", Exit::No),
        ("approve 0b0b0b0b", Exit::Usage),
        ("approve 0b0b0b0b 012345 --role owner", Exit::Usage),
        ("approve 0b0b0b0b 999999", Exit::No),
        ("peers connect /ip4/1.2.3.4 --timeout 50ms", Exit::TempFail),
        ("wait --for in-sync --timeout 300ms", Exit::TempFail),
        ("invite create --role admin", Exit::NoPerm),
        ("journal", Exit::NoPerm),
    ];
    for (line, expected) in checks {
        let (exit, out, err) = run(line).await;
        assert_eq!((exit, out.as_str()), (expected, ""), "{line}: {err}");
        assert!(err.starts_with("error:"), "{line}: {err}");
    }
    let (_, _, err) = run("join bad").await;
    assert!(
        err.contains("hint:") && err.contains("syncctl invite create"),
        "{err}"
    );
}

#[tokio::test]
async fn without_a_daemon_the_socket_and_the_way_to_start_it_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("none");
    let (exit, err) = run_at(&socket, "status --timeout 50ms", &mut Vec::new()).await;
    assert_eq!(exit, Exit::Unavailable);
    assert!(
        err.contains(socket.to_str().unwrap()) && err.contains("p2p_sync_daemon"),
        "{err}"
    );
    let (exit, err) = run_at(
        &socket,
        "wait --for in-sync --timeout 200ms --json",
        &mut Vec::new(),
    )
    .await;
    assert_eq!(exit, Exit::Unavailable, "{err}");
    assert!(
        err.starts_with(r#"{"schema":"p2psync.error/1","reason":"NOT_RUNNING","#),
        "{err}"
    );
    let mut out = Vec::new();
    let (exit, _) = run_at(&socket, "", &mut out).await;
    assert_eq!(exit, Exit::Ok);
    assert!(String::from_utf8(out).unwrap().contains("syncctl invite create"));
}

#[tokio::test]
async fn a_path_with_escapes_reaches_the_daemon_as_bytes() {
    let (exit, out, _) = run("rescan a\\xff --json").await;
    assert_eq!(exit, Exit::Ok);
    assert!(out.contains(r#""path_hex":"61ff""#), "{out}");
    let (exit, _, _) = run("rescan /srv/sync/docs").await;
    assert_eq!(exit, Exit::Ok);
}

#[tokio::test]
async fn a_reader_that_closes_the_pipe_ends_a_stream_with_success() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let daemon = start();
    for line in ["watch", "watch --json", "status"] {
        let (exit, err) = run_at(&daemon.socket, line, &mut Closed).await;
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""), "{line}");
    }
}

#[tokio::test]
async fn help_goes_to_stdout_with_success() {
    for line in [
        "--help",
        "status --help",
        "invite create --help",
        "ledger prove --help",
        "--version",
    ] {
        let (exit, out, err) = run(line).await;
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""), "{line}");
        assert!(!out.is_empty());
    }
    let (_, out, _) = run("--help").await;
    assert!(out.contains("Exit codes:"));
}
