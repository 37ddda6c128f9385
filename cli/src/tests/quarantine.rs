//! The commands about the quarantine.

use p2p_sync_proto::v1::quarantine_service_server::QuarantineService;
use p2p_sync_proto::{reason, v1};
use tonic::{Code, Request, Response, Status};

use super::{Fake, refusal, run, run_typing, sample_version, start};
use crate::exit::Exit;

#[tonic::async_trait]
impl QuarantineService for Fake {
    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        let first = request.into_inner().page_token.is_empty();
        let item = v1::Quarantined {
            path: if first { b"docs/a".into() } else { b"docs/b".into() },
            version: Some(sample_version()),
            event: "5a".repeat(32),
        };
        Ok(Response::new(v1::ListQuarantineResponse {
            items: vec![item],
            next_page_token: if first { "more".into() } else { String::new() },
        }))
    }

    async fn accept_quarantined(
        &self,
        request: Request<v1::AcceptQuarantinedRequest>,
    ) -> Result<Response<v1::AcceptQuarantinedResponse>, Status> {
        let request = request.into_inner();
        match request.path.as_slice() {
            b"theirs" => Err(refusal(Code::PermissionDenied, reason::ROLE_TOO_LOW)),
            b"unknown" => Err(refusal(Code::NotFound, reason::NO_SUCH_VERSION)),
            _ => Ok(Response::new(v1::AcceptQuarantinedResponse {
                version: Some(sample_version()),
                unchanged: request.version.is_some(),
            })),
        }
    }

    async fn drop_quarantined(
        &self,
        _: Request<v1::DropQuarantinedRequest>,
    ) -> Result<Response<v1::DropQuarantinedResponse>, Status> {
        Ok(Response::new(v1::DropQuarantinedResponse {
            versions: vec![sample_version()],
            files: 1,
            bytes: 5,
        }))
    }
}

#[tokio::test]
async fn the_quarantine_is_listed_page_by_page_accepted_and_dropped() {
    let (exit, out, err) = run("quarantine list").await;
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(out.contains("docs/a") && out.contains("docs/b"), "{out}");
    for (line, schema) in [
        ("quarantine list", "quarantine/1"),
        ("quarantine accept docs/a", "quarantine-accept/1"),
        ("quarantine drop docs/a --version 0a --yes", "quarantine-drop/1"),
    ] {
        let (_, out, err) = run(&format!("{line} --json")).await;
        assert_eq!(err, "", "{line}");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["schema"], format!("p2psync.{schema}"), "{line}");
    }
    let (_, out, _) = run("quarantine accept docs/a").await;
    assert!(
        out.starts_with("accepted version 0a0a0a0a-1-0 of docs/a"),
        "{out}"
    );
    let (_, out, _) = run("quarantine accept docs/a --version 0a").await;
    assert_eq!(out, "docs/a is version 0a0a0a0a-1-0 already\n");
    let (_, out, _) = run("quarantine drop docs/a --yes").await;
    assert_eq!(
        out,
        "dropped 1 versions of docs/a; 1 files of 5 B were removed here\n"
    );
}

#[tokio::test]
async fn a_refusal_names_the_next_step_and_dropping_needs_a_yes() {
    let (exit, _, err) = run("quarantine accept theirs").await;
    assert_eq!(exit, Exit::NoPerm);
    assert!(err.contains("syncctl member list"), "{err}");
    let (exit, _, err) = run("quarantine accept unknown").await;
    assert_eq!(exit, Exit::No);
    assert!(err.contains("syncctl quarantine list"), "{err}");
    let (exit, out, err) = run("quarantine drop docs/a").await;
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(err.contains("--yes"), "{err}");
    let daemon = start();
    let (exit, err) = run_typing(
        &daemon.socket,
        "quarantine drop docs/a",
        Some("n\n"),
        &mut Vec::new(),
    )
    .await;
    assert_eq!(exit, Exit::No, "{err}");
}
