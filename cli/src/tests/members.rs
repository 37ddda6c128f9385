//! The commands about members and invites.

use p2p_sync_proto::reason;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::invite_service_server::{InviteService, InviteServiceServer};
use p2p_sync_proto::v1::member_service_server::{MemberService, MemberServiceServer};
use p2p_sync_proto::v1::quarantine_service_server::QuarantineServiceServer;
use p2p_sync_proto::v1::recovery_service_server::{RecoveryService, RecoveryServiceServer};
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status};

use super::{Fake, refusal, run, run_typing, start};
use crate::exit::Exit;

pub(super) fn serve(server: Router) -> Router {
    server
        .add_service(MemberServiceServer::new(Fake))
        .add_service(InviteServiceServer::new(Fake))
        .add_service(RecoveryServiceServer::new(Fake))
        .add_service(QuarantineServiceServer::new(Fake))
}

fn device() -> v1::Device {
    v1::Device {
        id: "0b0b0b0b0b0b".into(),
        name: "ben".into(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl MemberService for Fake {
    async fn list_members(
        &self,
        _: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let member = v1::Member {
            device: Some(device()),
            role: v1::Role::Editor.into(),
            ..Default::default()
        };
        let members = vec![member];
        Ok(Response::new(v1::ListMembersResponse { members }))
    }

    async fn change_role(
        &self,
        request: Request<v1::ChangeRoleRequest>,
    ) -> Result<Response<v1::ChangeRoleResponse>, Status> {
        let request = request.into_inner();
        match request.device.as_str() {
            "twin" => Err(refusal(Code::InvalidArgument, reason::AMBIGUOUS)),
            "senior" => Err(refusal(Code::PermissionDenied, reason::OUTRANKED)),
            _ => Ok(Response::new(v1::ChangeRoleResponse {
                device: Some(device()),
                role: request.role,
            })),
        }
    }

    async fn set_person(
        &self,
        request: Request<v1::SetPersonRequest>,
    ) -> Result<Response<v1::SetPersonResponse>, Status> {
        let person = request.into_inner().person;
        let device = Some(v1::Device { person, ..device() });
        Ok(Response::new(v1::SetPersonResponse { device }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let request = request.into_inner();
        // Removed is who was listed.
        assert_eq!(request.only_list, request.devices != [device().id]);
        Ok(Response::new(v1::RemoveMemberResponse {
            removed: vec![device()],
            again: Vec::new(),
        }))
    }

    async fn rename_device(
        &self,
        _: Request<v1::RenameDeviceRequest>,
    ) -> Result<Response<v1::RenameDeviceResponse>, Status> {
        Ok(Response::new(v1::RenameDeviceResponse {}))
    }
}

#[tonic::async_trait]
impl InviteService for Fake {
    async fn list_invites(
        &self,
        _: Request<v1::ListInvitesRequest>,
    ) -> Result<Response<v1::ListInvitesResponse>, Status> {
        Ok(Response::new(v1::ListInvitesResponse::default()))
    }

    async fn revoke_invite(
        &self,
        _: Request<v1::RevokeInviteRequest>,
    ) -> Result<Response<v1::RevokeInviteResponse>, Status> {
        let key = "05".repeat(32);
        Ok(Response::new(v1::RevokeInviteResponse { key }))
    }
}

#[tonic::async_trait]
impl RecoveryService for Fake {
    async fn show_recovery(
        &self,
        _: Request<v1::ShowRecoveryRequest>,
    ) -> Result<Response<v1::ShowRecoveryResponse>, Status> {
        Err(refusal(Code::FailedPrecondition, reason::NO_RECOVERY))
    }

    async fn forget_recovery(
        &self,
        _: Request<v1::ForgetRecoveryRequest>,
    ) -> Result<Response<v1::ForgetRecoveryResponse>, Status> {
        Err(refusal(Code::FailedPrecondition, reason::NO_RECOVERY))
    }

    async fn use_recovery(
        &self,
        request: Request<v1::UseRecoveryRequest>,
    ) -> Result<Response<v1::UseRecoveryResponse>, Status> {
        assert_eq!(request.into_inner().secret, [0; 32]);
        Ok(Response::new(v1::UseRecoveryResponse {}))
    }
}

#[tokio::test]
async fn recovery_words_are_typed_and_never_shown_to_a_pipe() {
    let daemon = start();
    let words = format!("{}art\n", "abandon ".repeat(23));
    let mut out = Vec::new();
    let (exit, err) = run_typing(&daemon.socket, "recovery use --json", Some(&words), &mut out).await;
    assert_eq!(exit, Exit::Ok, "{err}");
    assert_eq!(
        out,
        b"{\"schema\":\"p2psync.recovery-use/1\",\"role\":\"owner\"}\n"
    );
    for line in ["recovery show", "recovery show --json"] {
        let (exit, err) = run_typing(&daemon.socket, line, Some("\n"), &mut Vec::new()).await;
        assert_eq!(exit, Exit::Usage, "{err}");
        assert!(err.contains("on a terminal"), "{err}");
    }
    let (exit, _, err) = run("recovery use").await;
    assert_eq!(exit, Exit::Data);
    assert!(err.contains("0 words"), "{err}");
}

#[tokio::test]
async fn all_of_them_answer_in_words_and_as_json() {
    for (line, schema) in [
        ("member list", "members/1"),
        ("member", "members/1"),
        ("roles", "members/1"),
        (
            "member role ben editor --scope docs --scope src --now",
            "member-role/1",
        ),
        ("member remove ben --yes", "member-remove/1"),
        ("member person ben Ben", "member-person/1"),
        ("member person ben --none", "member-person/1"),
        ("invite list", "invites/1"),
        ("invite revoke 0505 --yes", "invite-revoke/1"),
        ("device rename atlas", "device-rename/1"),
    ] {
        let (exit, out, err) = run(line).await;
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""), "{line}");
        assert!(!out.is_empty() && out.ends_with('\n'), "{line}");
        let (_, out, _) = run(&format!("{line} --json")).await;
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["schema"], format!("p2psync.{schema}"), "{line}");
    }
    let (_, out, _) = run("member role ben editor --scope docs --scope src").await;
    assert_eq!(out, "ben (0b0b0b0b) is now editor, writing in docs, src\n");
    let (_, out, _) = run("member person ben Ben").await;
    assert_eq!(out, "ben (0b0b0b0b) is a device of Ben\n");
    let (_, out, _) = run("member person ben --none").await;
    assert_eq!(out, "ben (0b0b0b0b) is nobody's in particular\n");
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_asked_for_on_a_terminal_and_needs_yes_elsewhere() {
    for line in ["member remove ben", "invite revoke 0505"] {
        let (exit, out, err) = run(line).await;
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line}");
        assert!(err.contains("--yes"), "{err}");
        for (typed, expected) in [
            ("y\n", Exit::Ok),
            ("yes\n", Exit::Ok),
            ("n\n", Exit::No),
            ("", Exit::No),
        ] {
            let daemon = start();
            let mut out = Vec::new();
            let (exit, err) = run_typing(&daemon.socket, line, Some(typed), &mut out).await;
            assert_eq!(
                (exit, out.is_empty()),
                (expected, expected == Exit::No),
                "{line} {typed:?}"
            );
            assert!(err.contains("[y/N]"), "{err}");
        }
    }
}

#[tokio::test]
async fn refusals_have_their_exit_codes_and_hints() {
    let (exit, _, err) = run("member role twin editor").await;
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("hint: type more digits"), "{err}");
    let (exit, _, err) = run("member role senior viewer").await;
    assert_eq!(exit, Exit::NoPerm);
    assert!(err.contains("syncctl member list"), "{err}");
    for line in [
        "member role ben king",
        "member remove",
        "member role ben",
        "member person ben",
        "member person ben Ben --none",
        "device rename",
    ] {
        assert_eq!(run(line).await.0, Exit::Usage, "{line}");
    }
}
