//! The ledger's commands against a fake daemon.

use p2p_sync_proto::v1::event_item::What;
use p2p_sync_proto::v1::follow_events_response::Change;
use p2p_sync_proto::v1::ledger_service_server::LedgerService;

use super::*;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn event(seq: u64) -> v1::Event {
    let put = v1::PutItem {
        path: b"docs/plan.odt".to_vec(),
        kind: v1::VersionKind::File.into(),
        size: 42_188,
        ..Default::default()
    };
    v1::Event {
        id: "8f3a".repeat(16),
        author: Some(v1::Device {
            id: "0b".repeat(32),
            name: "laptop".into(),
            ..Default::default()
        }),
        seq,
        time: Some(prost_types::Timestamp { seconds: 5, nanos: 7 }),
        kind: v1::EventKind::Work.into(),
        items_total: 3,
        items: vec![v1::EventItem {
            index: 0,
            what: Some(What::Put(put)),
            void: false,
        }],
        role_then: v1::Role::Editor.into(),
        arrival: seq,
        header: b"head".to_vec(),
        signature: vec![7; 64],
        body: b"body".to_vec(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl LedgerService for Fake {
    type FollowEventsStream = Events<v1::FollowEventsResponse>;
    type VerifyLedgerStream = Events<v1::VerifyLedgerResponse>;

    /// Two pages of two events.
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let request = request.into_inner();
        if request.device == "nobody" {
            return Err(refusal(Code::NotFound, reason::NO_SUCH_EVENT));
        }
        let first = request.page_token.is_empty();
        let events = if first { [4, 3] } else { [2, 1] };
        let wanted = usize::try_from(request.page_size).unwrap();
        Ok(Response::new(v1::ListEventsResponse {
            events: events.into_iter().take(wanted).map(event).collect(),
            next_page_token: if first { "next".into() } else { String::new() },
            group_id: "07".repeat(32),
        }))
    }

    async fn follow_events(
        &self,
        _: Request<v1::FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let changes = [
            Change::Started(v1::FollowStarted { arrival: 3 }),
            Change::Event(event(4)),
        ];
        let messages = (1..).zip(changes).map(|(seq, change)| {
            let change = Some(change);
            Ok(v1::FollowEventsResponse { seq, change })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn get_event(
        &self,
        request: Request<v1::GetEventRequest>,
    ) -> Result<Response<v1::GetEventResponse>, Status> {
        if request.into_inner().event == "00000000" {
            return Err(refusal(Code::NotFound, reason::NO_SUCH_EVENT));
        }
        Ok(Response::new(v1::GetEventResponse {
            event: Some(event(4)),
            group_id: "07".repeat(32),
        }))
    }

    /// A whole check finds something, a fast one does not.
    async fn verify_ledger(
        &self,
        request: Request<v1::VerifyLedgerRequest>,
    ) -> Result<Response<Self::VerifyLedgerStream>, Status> {
        let fault = v1::LedgerFault {
            device: Some(v1::Device {
                name: "laptop".into(),
                ..Default::default()
            }),
            seq: 17,
            problem: "the event does not verify".into(),
        };
        let faults = if request.into_inner().fast {
            Vec::new()
        } else {
            vec![fault]
        };
        let faults_total = faults.len() as u64;
        let step = |faults, done| v1::VerifyLedgerResponse {
            checked: 1_200,
            total: 1_200,
            faults,
            faults_total,
            done,
            devices: 2,
            group_id: "07".repeat(32),
        };
        let steps = [Ok(step(faults, false)), Ok(step(Vec::new(), true))];
        Ok(Response::new(Box::pin(tokio_stream::iter(steps))))
    }

    /// Only events can be proven.
    async fn prove_item(
        &self,
        request: Request<v1::ProveItemRequest>,
    ) -> Result<Response<v1::ProveItemResponse>, Status> {
        use v1::prove_item_request::Target;
        match request.into_inner().target {
            Some(Target::Event(_)) => Ok(Response::new(v1::ProveItemResponse {
                proof: b"proof".to_vec(),
                group_id: "07".repeat(32),
                event_id: "8f3a".repeat(16),
                item: 2,
            })),
            _ => Err(refusal(Code::NotFound, reason::NO_SUCH_EVENT)),
        }
    }
}

#[tokio::test]
async fn a_log_is_one_line_for_each_item_and_says_what_it_left_out() {
    let (exit, out, err) = run("log -n 3").await;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[1],
        "1970-01-01T00:00:05Z  laptop  editor  put   docs/plan.odt  41.1 KiB  8f3a8f3a8f3a"
    );
    assert_eq!(
        lines[2],
        "1970-01-01T00:00:05Z  laptop  editor  and   2 more                   8f3a8f3a8f3a"
    );
    assert_eq!(lines.len(), 7, "{out}");
    let (_, alias, _) = run("ledger log -n 3").await;
    assert_eq!(alias, out);
    let (_, out, _) = run("log --json").await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["schema"], "p2psync.ledger_log/1");
    assert_eq!(
        (json["events"].as_array().unwrap().len(), &json["more"]),
        (4, &false.into())
    );
}

#[tokio::test]
async fn a_follower_gets_what_was_there_before_once_and_then_what_arrives() {
    let (exit, out, _) = run("log --follow --json -n 4").await;
    assert_eq!(exit, Exit::Unavailable, "the stream should not have ended");
    let arrivals: Vec<u64> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["event"]["arrival"].as_u64().unwrap())
        .collect();
    assert_eq!(arrivals, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_damaged_ledger_is_named_and_has_its_exit_code() {
    let (exit, out, err) = run("ledger verify").await;
    assert_eq!(exit, Exit::Data);
    assert!(out.contains("laptop:17  the event does not verify"), "{out}");
    assert!(err.contains("1 faults") && err.contains("hint:"), "{err}");
    let (exit, out, err) = run("ledger verify --fast").await;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(out.starts_with("checked 1,200 events of 2 devices in"), "{out}");
    let (exit, out, _) = run("ledger verify --full --json").await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (exit, &json["ok"], &json["faults"][0]["seq"]),
        (Exit::Data, &false.into(), &17.into())
    );
}

#[tokio::test]
async fn the_ledgers_failures_have_their_exit_codes() {
    for (line, expected) in [
        ("log --device nobody", Exit::NoInput),
        ("ledger show 00000000", Exit::NoInput),
        ("ledger prove never -o x", Exit::NoInput),
        ("ledger show", Exit::Usage),
        ("ledger export", Exit::Usage),
        ("ledger verify --fast --full", Exit::Usage),
        ("log docs --follow", Exit::Usage),
        ("ledger check-proof /nowhere --genesis 07", Exit::Usage),
    ] {
        let (exit, out, err) = run(line).await;
        assert_eq!((exit, out.as_str()), (expected, ""), "{line}: {err}");
        assert!(err.starts_with("error:"), "{line}: {err}");
    }
}

#[tokio::test]
async fn a_proof_is_written_to_a_new_file_and_over_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.proof");
    let line = format!("ledger prove laptop:17 -o {}", file.display());
    let (exit, out, err) = run(&line).await;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(out.contains("--genesis 0707"), "{out}");
    assert_eq!(std::fs::read(&file).unwrap(), b"proof");
    std::fs::write(&file, "mine").unwrap();
    let (exit, _, err) = run(&line).await;
    assert_eq!(exit, Exit::CantCreate, "{err}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let (exit, ..) = run(&format!("{line} --force")).await;
    assert_eq!(exit, Exit::Ok);
    assert_eq!(std::fs::read(&file).unwrap(), b"proof");
}

#[tokio::test]
async fn a_proof_is_checked_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.proof");
    let line = |genesis: &str| format!("ledger check-proof {} --genesis {genesis}", file.display());
    let nowhere = dir.path().join("none");
    let (exit, err) = run_at(&nowhere, &line(&"07".repeat(32)), &mut Vec::new()).await;
    assert_eq!(exit, Exit::NoInput, "{err}");
    std::fs::write(&file, "no proof").unwrap();
    let (exit, err) = run_at(&nowhere, &line(&"07".repeat(32)), &mut Vec::new()).await;
    assert_eq!(exit, Exit::Data, "{err}");
    assert!(err.contains("NOT PROVEN: This is not a proof file"), "{err}");
}

#[tokio::test]
async fn an_export_is_whole_and_says_what_it_is() {
    let (exit, out, err) = run("ledger export --jsonl").await;
    assert_eq!((exit, err.as_str(), out.lines().count()), (Exit::Ok, "", 4));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.bundle");
    let (exit, out, _) = run(&format!("ledger export --bundle -o {}", file.display())).await;
    assert_eq!((exit, out.as_str()), (Exit::Ok, ""));
    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("p2p-sync ledger bundle 0\n"), "{text}");
    assert!(
        text.contains(&format!("\ngroup {}\n\n", "07".repeat(32))),
        "{text}"
    );
    let end = [&[0; 8][..], &4_u64.to_be_bytes()].concat();
    assert!(bytes.ends_with(&end));
}
