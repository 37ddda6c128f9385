//! The whole service over a real socket, with a fake event loop behind it.

mod members;
mod quarantine;

use std::path::{Path, PathBuf};

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{CommandError, FolderState, JoinChoice, Notification};
use p2p_sync_core::ids::{DeviceId, GroupId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::ticket::Ticket;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::control_service_client::ControlServiceClient;
use p2p_sync_proto::v1::ledger_service_client::LedgerServiceClient;
use p2p_sync_proto::v1::watch_response::Change;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use super::super::{
    AtHand, ControlCommand, ControlError, FollowPart, HistoryPage, Joined, JournalSummary, LedgerCommand,
    PathVersion, Pick, RestoreStep, StatusSnapshot, VerifyStep, VersionPart,
};
use super::*;
use crate::ledger_query::LedgerPage;
use crate::paths::SocketPlace;

struct Running {
    _dir: TempDir,
    path: PathBuf,
    status: latest::Sender<Arc<StatusSnapshot>>,
    notifications: broadcast::Sender<Notification>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
}

fn ticket() -> Ticket {
    Ticket::new(
        GroupId::new([7; 32]),
        [8; 32],
        ["/ip4/127.0.0.1/tcp/1".to_owned()],
    )
}

fn version() -> PathVersion {
    PathVersion {
        id: "07070707-1-0".to_owned(),
        author: Some(DeviceId::new([7; 32]).short()),
        time_ms: 5_000,
        entry: None,
        current: true,
        conflict: false,
        moved: RelPath::parse("docs/b").ok(),
        at_hand: AtHand::NotNeeded,
        seq: Some(1),
        role_then: Some(Role::Admin),
        void: true,
    }
}

/// Answers commands the way the event loop would.
async fn event_loop(mut commands: mpsc::Receiver<ControlCommand>) {
    while let Some(command) = commands.recv().await {
        match command {
            ControlCommand::CreateInvite {
                role: Role::Admin,
                reply,
                ..
            } => {
                let _ = reply.send(Err(CommandError::NotAllowed.into()));
            }
            ControlCommand::CreateInvite { reply, .. } => {
                let _ = reply.send(Ok(ticket()));
            }
            ControlCommand::Join {
                ticket,
                choice,
                reply,
            } => {
                assert_eq!(choice, Some(JoinChoice::KeepBoth));
                let _ = reply.send(Ok(Joined {
                    group: ticket.group,
                    role: Role::Editor,
                }));
            }
            ControlCommand::ResolveJoin { reply, .. } => {
                let _ = reply.send(Err(ControlError::Command(CommandError::Busy)));
            }
            ControlCommand::Rescan { path, reply } => {
                assert_eq!(path, RelPath::parse("docs").ok());
                let _ = reply.send(Ok(()));
            }
            ControlCommand::ConfirmDeletes { reply, .. } => {
                let _ = reply.send(Err(ControlError::Command(CommandError::Busy)));
            }
            ControlCommand::SetPaused { reply, .. } => {
                let _ = reply.send(Ok(()));
            }
            ControlCommand::Leave { reply } => {
                let _ = reply.send(Ok(GroupId::new([9; 32])));
            }
            ControlCommand::Why { reply, .. } => {
                let _ = reply.send(Err(ControlError::TimedOut));
            }
            ControlCommand::Members { command, reply } => drop(reply.send(members::answer(command))),
            // Dropped, as when the daemon stops in between.
            ControlCommand::ConnectPeer { .. } | ControlCommand::Pairing(_) | ControlCommand::Lock { .. } => {
            }
            ControlCommand::GetJournal { reply } => {
                let summary = JournalSummary {
                    in_use: vec!["a".into()],
                    ..JournalSummary::default()
                };
                let _ = reply.send(Ok(summary));
            }
            ControlCommand::GetHistory {
                path, limit, reply, ..
            } => {
                assert_eq!((path.as_bytes(), limit), (&b"docs/a"[..], 100));
                let versions = vec![version()];
                let _ = reply.send(Ok(HistoryPage { versions, more: true }));
            }
            ControlCommand::ReadVersion { pick, parts, .. } => {
                let _ = match pick {
                    Pick::Id(id) => parts.send(Err(ControlError::NoVersion(id))).await,
                    _ => parts.send(Ok(VersionPart::Data(b"bytes".to_vec()))).await,
                };
            }
            ControlCommand::Quarantine(command) => quarantine::answer(command),
            ControlCommand::Ledger(command) => ledger(command).await,
            ControlCommand::Restore { path, pick, steps } => {
                assert_eq!((path, pick), (None, Pick::Before(std::time::UNIX_EPOCH)));
                let done = RestoreStep {
                    done: true,
                    restored: 7,
                    ..RestoreStep::default()
                };
                let _ = steps.send(Ok(done)).await;
            }
        }
    }
}

async fn ledger(command: LedgerCommand) {
    let group = GroupId::new([7; 32]);
    match command {
        LedgerCommand::List { query, reply } => {
            assert_eq!(query.limit, 100);
            let _ = reply.send(Ok((LedgerPage::default(), group)));
        }
        LedgerCommand::Get { reply, .. } => {
            let _ = reply.send(Err(ControlError::NoSuchEvent("no".into())));
        }
        LedgerCommand::Follow { parts } => {
            let _ = parts.send(Ok(FollowPart::Started(5))).await;
            parts.closed().await;
        }
        LedgerCommand::Verify { fast, steps } => {
            let step = VerifyStep {
                checked: 3,
                total: 3,
                done: Some((2, group)),
                ..VerifyStep::default()
            };
            let answer = if fast {
                Err(ControlError::LedgerBusy("x"))
            } else {
                Ok(step)
            };
            let _ = steps.send(answer).await;
        }
        LedgerCommand::Prove { reply, .. } => {
            let _ = reply.send(Err(ControlError::LedgerDamaged("x".into())));
        }
    }
}

fn start(reach: impl Fn(u32, u32) -> Reach + Send + Sync + 'static) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let socket =
        ControlSocket::bind(&SocketPlace::Named(path.clone()), &Access::current(None, None)).unwrap();
    let snapshot = StatusSnapshot::starting("atlas".into(), "/srv/sync".into(), std::time::UNIX_EPOCH);
    let (status, status_reader) = latest::channel(Arc::new(snapshot));
    let (commands, inbox) = mpsc::channel(4);
    let (notifications, _) = broadcast::channel(4);
    let backend = Backend {
        commands,
        status: status_reader,
        notifications: notifications.clone(),
    };
    let service = ControlService::new(backend, Access::current(None, None));
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    tokio::spawn(event_loop(inbox));
    let server = tokio::spawn(service.serve_callers(socket, reach, shutdown));
    Running {
        _dir: dir,
        path,
        status,
        notifications,
        stop,
        server,
    }
}

async fn channel(path: &Path) -> Channel {
    Endpoint::from_shared(format!("unix:{}", path.display()))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn client(running: &Running) -> ControlServiceClient<Channel> {
    ControlServiceClient::new(channel(&running.path).await)
}

#[tokio::test]
async fn reads_are_answered_from_the_snapshot() {
    let running = start(|_, _| Reach::Everything);
    let mut client = client(&running).await;
    running.status.send_modify(|s| {
        let s = Arc::make_mut(s);
        s.engine.state = FolderState::InSync;
        s.engine.files_total = 5;
    });
    let status = client
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    let folder = status.folder.unwrap();
    assert_eq!((folder.state(), folder.files_total), (v1::FolderState::InSync, 5));
    assert_eq!(
        (status.device.unwrap().name.as_str(), folder.path.as_slice()),
        ("atlas", &b"/srv/sync"[..])
    );
    assert!(
        client
            .list_peers(v1::ListPeersRequest {})
            .await
            .unwrap()
            .into_inner()
            .peers
            .is_empty()
    );
}

#[tokio::test]
async fn commands_reach_the_event_loop_and_their_answers_come_back() {
    let running = start(|_, _| Reach::Everything);
    let mut client = client(&running).await;
    let invite = client
        .create_invite(v1::CreateInviteRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(Ticket::parse(&invite.ticket), Ok(ticket()));
    assert_eq!((invite.role(), invite.max_uses), (v1::Role::Editor, 1));
    let request = v1::JoinRequest {
        ticket: invite.ticket,
        choice: 1,
        dry_run: false,
    };
    let joined = client.join(request).await.unwrap().into_inner();
    assert_eq!(
        (joined.group_id, joined.role),
        ("07".repeat(32), v1::Role::Editor.into())
    );
    client
        .rescan(v1::RescanRequest {
            path: b"docs".to_vec(),
        })
        .await
        .unwrap();
    let journal = client
        .get_journal(v1::GetJournalRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(journal.in_use_paths, [b"a"]);
}

#[tokio::test]
async fn the_ledger_is_listed_checked_and_followed_until_the_daemon_stops() {
    use p2p_sync_proto::v1::follow_events_response::Change;
    let running = start(|_, _| Reach::Everything);
    let mut client = LedgerServiceClient::new(channel(&running.path).await);
    let page = client
        .list_events(v1::ListEventsRequest::default())
        .await
        .unwrap();
    assert_eq!(page.into_inner().group_id, "07".repeat(32));
    let event = v1::GetEventRequest {
        event: "0123456789".into(),
    };
    let code = client.get_event(event).await.unwrap_err().code();
    assert_eq!(code, Code::NotFound);
    let target = Some(v1::prove_item_request::Target::Path(b"a".to_vec()));
    let prove = v1::ProveItemRequest { target, item: 0 };
    let code = client.prove_item(prove).await.unwrap_err().code();
    assert_eq!(code, Code::DataLoss);
    let verify = v1::VerifyLedgerRequest { fast: false };
    let mut steps = client.verify_ledger(verify).await.unwrap().into_inner();
    let step = steps.message().await.unwrap().unwrap();
    assert_eq!((step.done, step.devices, step.checked), (true, 2, 3));
    assert!(steps.message().await.unwrap().is_none());
    let verify = v1::VerifyLedgerRequest { fast: true };
    let mut steps = client.verify_ledger(verify).await.unwrap().into_inner();
    assert_eq!(steps.message().await.unwrap_err().code(), Code::Aborted);
    let follow = v1::FollowEventsRequest::default();
    let mut events = client.follow_events(follow).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    let started = Some(Change::Started(v1::FollowStarted { arrival: 5 }));
    assert_eq!((first.seq, first.change), (1, started));
    running.stop.send(()).unwrap();
    assert_eq!(events.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn versions_are_listed_read_and_restored() {
    let running = start(|_, _| Reach::Everything);
    let mut client = client(&running).await;
    let path = b"docs/a".to_vec();
    let request = v1::GetHistoryRequest {
        path: path.clone(),
        ..Default::default()
    };
    let page = client.get_history(request).await.unwrap().into_inner();
    let version = &page.versions[0];
    assert!(page.more && version.current);
    assert_eq!(version.kind(), v1::VersionKind::Deleted);
    assert_eq!(
        (&version.moved[..], version.time.unwrap().seconds),
        (&b"docs/b"[..], 5)
    );
    assert_eq!(version.author.as_ref().unwrap().id, "07".repeat(8));
    let mut read = async |pick| {
        let request = v1::ReadVersionRequest {
            path: path.clone(),
            pick,
        };
        let mut parts = client.read_version(request).await.unwrap().into_inner();
        parts.message().await
    };
    let part = read(None).await.unwrap().unwrap().part.unwrap();
    assert_eq!(part, v1::read_version_response::Part::Data(b"bytes".to_vec()));
    let unknown = v1::read_version_request::Pick::Version("no".into());
    assert_eq!(read(Some(unknown)).await.unwrap_err().code(), Code::NotFound);
    let before = v1::restore_request::Pick::Before(prost_types::Timestamp::default());
    let request = v1::RestoreRequest {
        path: Vec::new(),
        pick: Some(before),
    };
    let mut steps = client.restore(request.clone()).await.unwrap().into_inner();
    let step = steps.message().await.unwrap().unwrap();
    assert!(step.done && step.restored == 7);
    let everything = v1::RestoreRequest {
        pick: None,
        ..request
    };
    let refused = client.restore(everything).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_dry_run_only_reads_the_ticket() {
    let running = start(|_, _| Reach::Everything);
    let request = v1::JoinRequest {
        ticket: ticket().to_string(),
        choice: 0,
        dry_run: true,
    };
    let answer = client(&running).await.join(request).await.unwrap().into_inner();
    assert_eq!((answer.group_id, answer.role), ("07".repeat(32), 0));
    assert_eq!(answer.addresses, ["/ip4/127.0.0.1/tcp/1"]);
}

#[tokio::test]
async fn refusals_carry_a_code_and_a_reason() {
    let running = start(|_, _| Reach::Everything);
    let mut client = client(&running).await;
    let check = |status: tonic::Status, code: Code, reason: &str| {
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (code, reason));
    };
    let request = v1::CreateInviteRequest {
        role: v1::Role::Admin.into(),
        ..Default::default()
    };
    check(
        client.create_invite(request).await.unwrap_err(),
        Code::PermissionDenied,
        "ROLE_TOO_LOW",
    );
    let request = v1::JoinRequest {
        ticket: "p2ps1aaaa".into(),
        ..Default::default()
    };
    check(
        client.join(request).await.unwrap_err(),
        Code::InvalidArgument,
        "BAD_TICKET",
    );
    check(
        client.join(v1::JoinRequest::default()).await.unwrap_err(),
        Code::InvalidArgument,
        "BAD_TICKET",
    );
    let request = v1::JoinRequest {
        choice: 2,
        ..Default::default()
    };
    check(client.join(request).await.unwrap_err(), Code::Aborted, "BUSY");
    let request = v1::RescanRequest {
        path: b"../x".to_vec(),
    };
    check(
        client.rescan(request).await.unwrap_err(),
        Code::InvalidArgument,
        "BAD_PATH",
    );
    let request = v1::ConnectPeerRequest { address: "x".into() };
    check(
        client.connect_peer(request).await.unwrap_err(),
        Code::InvalidArgument,
        "BAD_ADDRESS",
    );
    let request = v1::ConnectPeerRequest {
        address: "/ip4/127.0.0.1/tcp/1".into(),
    };
    check(
        client.connect_peer(request).await.unwrap_err(),
        Code::Unavailable,
        "STOPPING",
    );
}

#[tokio::test]
async fn a_failed_folder_is_not_served_and_says_why_to_whoever_wants_something() {
    let running = start(|_, _| Reach::Everything);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel(&running.path).await);
    let mut watch = health
        .watch(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    running
        .status
        .send_modify(|status| Arc::make_mut(status).failure = Some("The store failed".into()));
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    let request = v1::ConnectPeerRequest {
        address: "/ip4/127.0.0.1/tcp/1".into(),
    };
    let refused = client(&running).await.connect_peer(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "The store failed")
    );
    running
        .status
        .send_modify(|status| Arc::make_mut(status).failure = None);
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
}

#[tokio::test]
async fn a_foreign_caller_is_refused_by_every_service() {
    let running = start(|_, _| Reach::Nothing);
    let refused = client(&running)
        .await
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "CALLER_NOT_PERMITTED");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel(&running.path).await);
    let request = tonic_health::pb::HealthCheckRequest::default();
    assert_eq!(
        health.check(request).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    members::refused(channel(&running.path).await).await;
}

#[tokio::test]
async fn a_caller_that_may_only_look_is_answered_and_changes_nothing() {
    let running = start(|_, _| Reach::Reads);
    let mut client = client(&running).await;
    client.get_status(v1::GetStatusRequest {}).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel(&running.path).await);
    let request = tonic_health::pb::HealthCheckRequest::default();
    health.check(request).await.unwrap();
    let refused = client.pause(v1::PauseRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().starts_with("Pause does more than read"),
        "{refused}"
    );
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "CALLER_READS_ONLY");
    members::refused(channel(&running.path).await).await;
}

#[tokio::test]
async fn health_is_serving_and_reflection_knows_the_service() {
    let running = start(|_, _| Reach::Everything);
    let channel = channel(&running.path).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    for service in ["", "p2psync.v1.ControlService"] {
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.into(),
        };
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status,
            1,
            "{service}"
        );
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = reflection
        .server_reflection_info(futures::stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        list.service.iter().any(|s| s.name == "p2psync.v1.ControlService"),
        "{list:?}"
    );
}

#[tokio::test]
async fn a_watcher_gets_the_status_then_what_happens_and_an_error_at_the_end() {
    let running = start(|_, _| Reach::Everything);
    let mut stream = client(&running)
        .await
        .watch(v1::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(matches!(first.change, Some(Change::Status(_))) && first.seq == 1);
    running
        .notifications
        .send(Notification::PeerConnected {
            device: DeviceId::new([1; 32]),
        })
        .unwrap();
    let second = stream.message().await.unwrap().unwrap();
    assert!(
        matches!(second.change, Some(Change::PeerConnected(_))) && second.seq == 2,
        "{second:?}"
    );
    running
        .status
        .send_modify(|s| Arc::make_mut(s).engine.files_total = 9);
    let Some(Change::Status(status)) = stream.message().await.unwrap().unwrap().change else {
        panic!()
    };
    assert_eq!(status.folder.unwrap().files_total, 9);

    running.stop.send(()).unwrap();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    drop(stream);
    running.server.await.unwrap().unwrap();
    assert!(!running.path.exists());
}

/// What gRPC's C core sends for `unix:/run/x`: a health check whose `:authority` is the percent-encoded path.
fn stock_health_check() -> Vec<u8> {
    let literal =
        |index: u8, value: &str| [&[index, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let block = [
        vec![0x83, 0x86],
        literal(0x44, "/grpc.health.v1.Health/Check"),
        literal(0x41, "%2Frun%2Fp2p-sync%2Fcontrol.sock"),
        [&[0x40, 2][..], b"te", &literal(8, "trailers")[1..]].concat(),
        literal(0x5f, "application/grpc"),
    ]
    .concat();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [
        preface,
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &block),
        frame(0, 1, 1, &[0; 5]),
    ]
    .concat()
}

#[tokio::test]
async fn a_stock_client_that_sends_the_sockets_path_as_authority_is_answered() {
    let running = start(|_, _| Reach::Everything);
    for cut in [1, 30, 40, 57, 80, 100] {
        let mut stream = UnixStream::connect(&running.path).await.unwrap();
        let bytes = stock_health_check();
        for part in [&bytes[..cut], &bytes[cut..]] {
            stream.write_all(part).await.unwrap();
            stream.flush().await.unwrap();
        }
        // The answer is a DATA frame with the message "status = SERVING" in it.
        let serving = [0, 0, 0, 0, 2, 8, 1];
        let mut answer = Vec::new();
        while !answer.windows(serving.len()).any(|w| w == serving) {
            let mut chunk = [0; 1024];
            let n = stream.read(&mut chunk).await.unwrap();
            assert_ne!(n, 0, "cut at {cut}: closed after {answer:?}");
            answer.extend_from_slice(&chunk[..n]);
        }
    }
}
