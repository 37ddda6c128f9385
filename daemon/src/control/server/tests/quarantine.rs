//! The service about the quarantine.

use p2p_sync_core::access::Role;
use p2p_sync_core::ids::{Dot, EventId, ShortId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::quarantine_service_client::QuarantineServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::super::super::{Accepted, ControlError, Dropped, QuarantineCommand, QuarantinePage, Quarantined};
use super::{channel, start, version};

fn rel(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

/// Answers as a device with two versions of `a` in quarantine would, which may not write `theirs`.
pub(super) fn answer(command: QuarantineCommand) {
    match command {
        QuarantineCommand::List { after, limit, reply } => {
            assert_eq!(limit, 1);
            let dot = Dot {
                device: ShortId::new([7; 8]),
                seq: 1,
                item: u32::from(after.is_some()),
            };
            let item = Quarantined {
                path: rel("a"),
                version: version(),
                event: EventId::new([5; 32]),
            };
            let next = after.is_none().then(|| (rel("a"), dot));
            let _ = reply.send(Ok(QuarantinePage {
                items: vec![item],
                next,
            }));
        }
        QuarantineCommand::Accept {
            path,
            version: id,
            reply,
        } => {
            let _ = reply.send(if path == rel("theirs") {
                let role = Some(Role::Editor);
                Err(ControlError::MayNotWrite { path, role })
            } else {
                assert_eq!(id, None);
                Ok(Accepted {
                    version: version(),
                    unchanged: false,
                })
            });
        }
        QuarantineCommand::Drop {
            version: id, reply, ..
        } => {
            assert_eq!(id.as_deref(), Some("07"));
            let _ = reply.send(Ok(Dropped {
                versions: vec![version()],
                files: 1,
                bytes: 9,
            }));
        }
    }
}

#[tokio::test]
async fn what_is_in_quarantine_is_listed_in_pages_accepted_and_dropped() {
    let running = start(|_, _| true);
    let mut client = QuarantineServiceClient::new(channel(&running.path).await);
    let mut page_token = String::new();
    for is_last in [false, true] {
        let request = v1::ListQuarantineRequest {
            page_size: 1,
            page_token,
        };
        let page = client.list_quarantine(request).await.unwrap().into_inner();
        let item = &page.items[0];
        assert_eq!((item.path.as_slice(), item.event.len()), (&b"a"[..], 64));
        assert_eq!(item.version.as_ref().unwrap().id, version().id);
        page_token = page.next_page_token;
        assert_eq!(page_token.is_empty(), is_last);
    }
    let accept = |path: &str| v1::AcceptQuarantinedRequest {
        path: path.into(),
        version: None,
    };
    let accepted = client.accept_quarantined(accept("a")).await.unwrap().into_inner();
    assert_eq!(accepted.version.unwrap().id, version().id);
    let refused = client.accept_quarantined(accept("theirs")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "ROLE_TOO_LOW");
    assert_eq!(
        refused.message(),
        "To write theirs a device must be editor, admin or owner there; this one is editor, but not there"
    );
    let drop = v1::DropQuarantinedRequest {
        path: b"a".to_vec(),
        version: Some("07".to_owned()),
    };
    let dropped = client.drop_quarantined(drop).await.unwrap().into_inner();
    assert_eq!((dropped.versions.len(), dropped.files, dropped.bytes), (1, 1, 9));
    let nowhere = client.accept_quarantined(accept("")).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::InvalidArgument);
}
