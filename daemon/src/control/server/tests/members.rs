//! The services about members and invites.

use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{
    CommandError, Cut, MemberReport, MembersCommand, MembersReply, Membership, Removal, Reply,
};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::Person;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::invite_service_client::InviteServiceClient;
use p2p_sync_proto::v1::member_service_client::MemberServiceClient;
use p2p_sync_proto::v1::recovery_service_client::RecoveryServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::{ControlError, Reach, channel, start};

fn report(seed: u8, name: &str, role: Option<Role>) -> MemberReport {
    MemberReport {
        device: DeviceId::new([seed; 32]),
        name: name.to_owned(),
        person: None,
        role,
        scopes: Scopes::whole(),
        flags: GrantFlags {
            admit: true,
            ..GrantFlags::default()
        },
        granted_by: None,
        ended_by: None,
        removed_by: role.is_none().then(|| DeviceId::new([1; 32])),
        reason: String::new(),
        events: 3,
    }
}

/// Answers as the engine of `anna` would, who knows `ben`, and removed `cleo`.
pub(super) fn answer(command: MembersCommand) -> Result<Reply, ControlError> {
    let ben = DeviceId::new([2; 32]);
    match command {
        MembersCommand::List => Ok(Reply::Members(MembersReply::Members(vec![
            report(1, "anna", Some(Role::Owner)),
            report(2, "ben", Some(Role::Editor)),
            report(3, "cleo", None),
        ]))),
        MembersCommand::ListInvites => Ok(Reply::Members(MembersReply::Invites(Vec::new()))),
        MembersCommand::ChangeRole {
            device,
            wanted,
            at_once,
        } => {
            let docs = RelPath::parse("docs").unwrap();
            let expected = Membership {
                role: Role::Admin,
                scopes: Scopes::new(vec![docs]).unwrap(),
                flags: report(2, "", None).flags,
            };
            assert_eq!((device, wanted, at_once), (ben, expected, true));
            Ok(Reply::Done)
        }
        MembersCommand::Remove { devices, how } => {
            let expected = Removal {
                cut: Some(Cut::Number(7)),
                with_admitted: true,
                reason: "sold".to_owned(),
            };
            assert_eq!((devices.as_slice(), how), (&[ben][..], expected));
            Ok(Reply::Members(MembersReply::Removed {
                devices,
                again: vec![DeviceId::new([3; 32])],
            }))
        }
        MembersCommand::SetPerson { device, person } => {
            assert_eq!((device, person), (ben, Person::parse("Ben").ok()));
            Ok(Reply::Done)
        }
        MembersCommand::CancelInvite { .. } | MembersCommand::Rename { .. } => {
            Err(CommandError::NotAllowed.into())
        }
        MembersCommand::ShowRecovery | MembersCommand::ForgetRecovery => Err(CommandError::NoRecovery.into()),
        MembersCommand::UseRecovery { .. } => Ok(Reply::Done),
    }
}

/// Checks that somebody who may not call is refused by these services, too.
pub(super) async fn refused(channel: Channel) {
    let mut members = MemberServiceClient::new(channel.clone());
    let refused = members
        .remove_member(v1::RemoveMemberRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut recovery = RecoveryServiceClient::new(channel.clone());
    let refused = recovery
        .show_recovery(v1::ShowRecoveryRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut invites = InviteServiceClient::new(channel);
    let refused = invites
        .revoke_invite(v1::RevokeInviteRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn members_are_found_by_name_and_keep_what_was_not_asked_to_change() {
    let running = start(|_, _| Reach::Everything);
    let mut client = MemberServiceClient::new(channel(&running.path).await);
    let request = v1::ChangeRoleRequest {
        device: "ben".into(),
        role: v1::Role::Admin.into(),
        scopes: vec![b"docs".to_vec()],
        now: true,
    };
    let changed = client.change_role(request).await.unwrap().into_inner();
    assert_eq!(
        (changed.device.unwrap().name.as_str(), changed.role),
        ("ben", v1::Role::Admin.into())
    );
    let request = v1::RemoveMemberRequest {
        devices: vec!["0202".into()],
        cut: Some(7),
        with_admitted: true,
        reason: "sold".into(),
        ..Default::default()
    };
    let done = client.remove_member(request).await.unwrap().into_inner();
    let names = |devices: &[v1::Device]| devices.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&done.removed), names(&done.again)),
        (vec!["ben".to_owned()], vec!["cleo".to_owned()])
    );
    let request = v1::SetPersonRequest {
        device: "ben".into(),
        person: "Ben".into(),
    };
    let said = client.set_person(request).await.unwrap().into_inner().device;
    assert_eq!(said.map(|device| device.person), Some("Ben".into()));
    // Whoever only asks removes nobody, however much else the request says.
    let request = v1::RemoveMemberRequest {
        devices: vec!["ben".into(), "anna".into()],
        only_list: true,
        ..Default::default()
    };
    let listed = client.remove_member(request).await.unwrap().into_inner();
    assert_eq!(names(&listed.removed), ["ben", "anna"]);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_the_engine_hears_of_it() {
    let running = start(|_, _| Reach::Everything);
    let mut client = MemberServiceClient::new(channel(&running.path).await);
    let remove = |devices: &[&str], cut| v1::RemoveMemberRequest {
        devices: devices.iter().map(|text| (*text).to_owned()).collect(),
        cut,
        ..Default::default()
    };
    for (request, code, reason) in [
        (remove(&["nobody"], None), Code::NotFound, "NO_SUCH_MEMBER"),
        (remove(&[], None), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (remove(&["person:ben"], None), Code::NotFound, "NO_SUCH_MEMBER"),
        (
            remove(&["ben", "cleo"], Some(7)),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
    ] {
        let status = client.remove_member(request).await.unwrap_err();
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (code, reason));
    }
    let role = |role: i32, scopes: usize| v1::ChangeRoleRequest {
        device: "ben".into(),
        role,
        scopes: (0..scopes).map(|i| format!("d{i}").into_bytes()).collect(),
        now: false,
    };
    for request in [role(0, 0), role(77, 0), role(2, 33)] {
        let status = client.change_role(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let mut request = role(2, 1);
    request.scopes = vec![b"../x".to_vec()];
    assert_eq!(
        client.change_role(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let status = client
        .rename_device(v1::RenameDeviceRequest { name: "x".into() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_recovery_key_has_32_bytes() {
    let running = start(|_, _| Reach::Everything);
    let mut client = RecoveryServiceClient::new(channel(&running.path).await);
    let with = |length| v1::UseRecoveryRequest {
        secret: vec![7; length],
    };
    client.use_recovery(with(32)).await.unwrap();
    for length in [0, 31, 33] {
        let status = client.use_recovery(with(length)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let status = client
        .show_recovery(v1::ShowRecoveryRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "NO_RECOVERY");
}
