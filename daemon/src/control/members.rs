//! The rpcs about members and invites.

use std::time::{Duration, SystemTime};

use p2p_sync_core::access::{GrantFlags, Role};
use p2p_sync_core::engine::{
    Cut, InviteReport, MemberReport, MembersCommand, MembersReply, Membership, Removal, Reply,
    Status as Engine,
};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_proto::v1::invite_service_server::InviteService;
use p2p_sync_proto::v1::member_service_server::MemberService;
use p2p_sync_proto::{reason, v1};
use tonic::{Request, Response, Status};

use super::service::Rpcs;
use super::status::{from_error, invalid};
use super::{ControlCommand, ControlError, StatusSnapshot, Warning, convert, naming};
use crate::free_space::Size;

/// Members that `status` names for their events' bytes; who has that many should look at `member list --json`.
const MAX_OVER_QUOTA: usize = 10;

#[tonic::async_trait]
impl MemberService for Rpcs {
    async fn list_members(
        &self,
        _request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let reports = self.members().await?;
        let snapshot = self.backend.status.borrow().clone();
        let members = reports.iter().map(|report| member(report, &reports, &snapshot));
        let members = members.collect();
        Ok(Response::new(v1::ListMembersResponse { members }))
    }

    async fn change_role(
        &self,
        request: Request<v1::ChangeRoleRequest>,
    ) -> Result<Response<v1::ChangeRoleResponse>, Status> {
        let request = request.into_inner();
        let role = convert::role(request.role)?
            .ok_or_else(|| invalid(reason::INVALID_ARGUMENT, "There is no role"))?;
        let scopes = convert::scopes(request.scopes)?;
        let reports = self.members().await?;
        let id = naming::device(&request.device, &reports)?;
        let known = reports.iter().find(|report| report.device == id);
        // What else it may do it keeps.
        let flags = known.map_or_else(GrantFlags::default, |report| report.flags);
        let wanted = Membership { role, scopes, flags };
        self.manage(MembersCommand::ChangeRole {
            device: id,
            wanted,
            at_once: request.now,
        })
        .await?;
        Ok(Response::new(v1::ChangeRoleResponse {
            device: Some(named(id, &reports)),
            role: convert::role_to_proto(role).into(),
        }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let request = request.into_inner();
        let reports = self.members().await?;
        let devices = naming::devices(&request.devices, &reports)?;
        let own = self.backend.status.borrow().engine.device;
        removable(&devices, own, &request)?;
        let cut = self.cut(&devices, &request).await?;
        let name = |ids: Vec<DeviceId>| ids.into_iter().map(|id| named(id, &reports)).collect();
        if request.only_list {
            let removed = name(devices);
            let again = Vec::new();
            return Ok(Response::new(v1::RemoveMemberResponse { removed, again }));
        }
        let how = Removal {
            cut,
            with_admitted: request.with_admitted,
            reason: request.reason,
        };
        let reply = self.manage(MembersCommand::Remove { devices, how }).await?;
        let Reply::Members(MembersReply::Removed { devices, again }) = reply else {
            return Err(from_error(&ControlError::TimedOut));
        };
        Ok(Response::new(v1::RemoveMemberResponse {
            removed: name(devices),
            again: name(again),
        }))
    }

    async fn set_person(
        &self,
        request: Request<v1::SetPersonRequest>,
    ) -> Result<Response<v1::SetPersonResponse>, Status> {
        let request = request.into_inner();
        let person = convert::person(&request.person)?;
        let reports = self.members().await?;
        let device = naming::device(&request.device, &reports)?;
        let said = v1::Device {
            person: request.person,
            ..named(device, &reports)
        };
        self.manage(MembersCommand::SetPerson { device, person }).await?;
        let device = Some(said);
        Ok(Response::new(v1::SetPersonResponse { device }))
    }

    async fn rename_device(
        &self,
        request: Request<v1::RenameDeviceRequest>,
    ) -> Result<Response<v1::RenameDeviceResponse>, Status> {
        let name = request.into_inner().name;
        self.manage(MembersCommand::Rename { name }).await?;
        Ok(Response::new(v1::RenameDeviceResponse {}))
    }
}

#[tonic::async_trait]
impl InviteService for Rpcs {
    async fn list_invites(
        &self,
        _request: Request<v1::ListInvitesRequest>,
    ) -> Result<Response<v1::ListInvitesResponse>, Status> {
        let (reports, members) = (self.invites().await?, self.members().await?);
        let now = SystemTime::now();
        let invites = reports.iter().map(|report| invite(report, &members, now));
        let invites = invites.collect();
        Ok(Response::new(v1::ListInvitesResponse { invites }))
    }

    async fn revoke_invite(
        &self,
        request: Request<v1::RevokeInviteRequest>,
    ) -> Result<Response<v1::RevokeInviteResponse>, Status> {
        let key = naming::invite(&request.into_inner().invite, &self.invites().await?)?;
        self.manage(MembersCommand::CancelInvite { key }).await?;
        let key = naming::hex(&key);
        Ok(Response::new(v1::RevokeInviteResponse { key }))
    }
}

impl Rpcs {
    pub(super) async fn manage(&self, command: MembersCommand) -> Result<Reply, Status> {
        self.ask(|reply| ControlCommand::Members { command, reply }).await
    }

    /// Reads from where on the log of a device that is to be removed does not count any more.
    async fn cut(
        &self,
        devices: &[DeviceId],
        request: &v1::RemoveMemberRequest,
    ) -> Result<Option<Cut>, Status> {
        let text = request.cut_event.as_str();
        match request.cut {
            Some(_) if !text.is_empty() => {
                let text = "A removal has one cut: give a number or an event";
                return Err(invalid(reason::INVALID_ARGUMENT, text));
            }
            Some(seq) => return Ok(Some(Cut::Number(seq))),
            None if text.is_empty() => return Ok(None),
            None => {}
        }
        let found = self.event(text).await?.0.event.stored;
        if !devices.contains(&found.author) {
            let text = format!(
                "{text} is an event of {}; find one of the device that is to go with: syncctl log",
                naming::beginning(&found.author)
            );
            return Err(invalid(reason::INVALID_ARGUMENT, text));
        }
        let (log, seq) = (found.log, found.seq);
        Ok(Some(Cut::Event { log, seq }))
    }

    pub(super) async fn members(&self) -> Result<Vec<MemberReport>, Status> {
        match self.manage(MembersCommand::List).await? {
            Reply::Members(MembersReply::Members(reports)) => Ok(reports),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    async fn invites(&self) -> Result<Vec<InviteReport>, Status> {
        match self.manage(MembersCommand::ListInvites).await? {
            Reply::Members(MembersReply::Invites(reports)) => Ok(reports),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }
}

/// Refuses removals that cannot be meant, and says what to type.
fn removable(
    devices: &[DeviceId],
    own: Option<DeviceId>,
    request: &v1::RemoveMemberRequest,
) -> Result<(), Status> {
    let bad = |text: String| Err(invalid(reason::INVALID_ARGUMENT, text));
    let [first, ..] = devices else {
        return bad("There is no device".to_owned());
    };
    if devices.len() == 1 {
        return Ok(());
    }
    if request.cut.is_some() || !request.cut_event.is_empty() {
        let text = format!(
            "A cut is a number in one device's log; that names {}: remove them one by one, each by a number of its own: \
             syncctl member remove {} --cut SEQ",
            naming::list(devices),
            naming::beginning(first),
        );
        return bad(text);
    }
    if let Some(own) = own.filter(|own| devices.contains(own)) {
        let others: Vec<DeviceId> = devices.iter().copied().filter(|device| *device != own).collect();
        let others: Vec<String> = others.iter().map(naming::beginning).collect();
        let text = format!(
            "One of them is this device, which cannot remove itself; remove the others: syncctl member remove {}; then it \
             can leave: syncctl leave",
            others.join(" ")
        );
        return bad(text);
    }
    Ok(())
}

/// Returns what a person should know about who may do what.
pub(super) fn warnings(engine: &Engine) -> Vec<Warning> {
    let mut list = Vec::new();
    if engine.rejected > 0 {
        let what = match engine.rejected {
            1 => "1 change was".to_owned(),
            more => format!("{more} changes were"),
        };
        let why = match engine.role {
            Some(Role::Viewer) => "this device is a viewer",
            _ => "this device may not write there; see: syncctl member list",
        };
        let message = format!("{what} not published: {why}");
        list.push(Warning {
            code: "CHANGES_REJECTED",
            message,
        });
    }
    if engine.recovery_unread {
        let message = "Nobody has written down the recovery words, without which a group whose owners are lost gets no \
                       other: syncctl recovery show";
        list.push(Warning {
            code: "RECOVERY_UNREAD",
            message: message.to_owned(),
        });
    }
    list.extend(engine.forked.iter().map(|device| forked(*device, engine)));
    let members = engine.peers.iter().filter_map(|peer| peer.role);
    let owners = members.clone().filter(|role| *role == Role::Owner).count();
    if engine.role == Some(Role::Owner) && owners == 1 && members.count() > 1 {
        let message = "This device is the group's only owner; make another, for the day it is lost: syncctl member \
                       role DEVICE owner";
        list.push(Warning {
            code: "LONE_OWNER",
            message: message.to_owned(),
        });
    }
    list
}

/// What to do about a key on two machines.
fn forked(device: DeviceId, engine: &Engine) -> Warning {
    let known = engine.peers.iter().find(|peer| peer.device == device);
    let name = known.map_or("", |peer| peer.name.as_str());
    let id = device.short().to_hex();
    let message = if engine.device == Some(device) {
        "Another machine has this device's key, or an old copy of its state was put back: if there is another, leave \
         the group on one of them and join anew: syncctl leave"
            .to_owned()
    } else {
        format!(
            "Two machines have the key of \"{name}\", or an old copy of its state was put back; both count. If one is \
             not yours: syncctl member remove {id}"
        )
    };
    Warning {
        code: "DEVICE_FORKED",
        message,
    }
}

/// Returns what a person should know of members whose events take more than the quota.
pub(super) fn over_quota(snapshot: &StatusSnapshot) -> Vec<Warning> {
    let quota = snapshot.author_quota;
    let is_over = |bytes: u64| quota > 0 && bytes > quota;
    let members = snapshot.engine.peers.iter().filter(|peer| peer.role.is_some());
    let over = members.filter_map(|peer| {
        let bytes = bytes_of(peer.device, snapshot);
        is_over(bytes).then_some((peer, bytes))
    });
    over.take(MAX_OVER_QUOTA)
        .map(|(peer, bytes)| {
            let (id, own) = (peer.device.short().to_hex(), snapshot.engine.device);
            let whose = match peer.name.as_str() {
                _ if own == Some(peer.device) => "this device".to_owned(),
                "" => id.clone(),
                name => format!("\"{name}\""),
            };
            Warning {
                code: "LEDGER_QUOTA",
                message: format!(
                    "The events of {whose} take {} of the ledger, more than {} (ledger.author_quota). None is refused for \
                     that; see what they are: syncctl log --device {id}",
                    Size(bytes),
                    Size(quota)
                ),
            }
        })
        .collect()
}

fn bytes_of(device: DeviceId, snapshot: &StatusSnapshot) -> u64 {
    let known = snapshot.author_bytes.binary_search_by_key(&device, |(id, _)| *id);
    known.map_or(0, |at| snapshot.author_bytes[at].1)
}

fn member(report: &MemberReport, all: &[MemberReport], snapshot: &StatusSnapshot) -> v1::Member {
    let engine = &snapshot.engine;
    let this_device = engine.device == Some(report.device);
    let connected = |id| {
        engine
            .peers
            .iter()
            .any(|peer| peer.device == id && peer.connected)
    };
    v1::Member {
        device: Some(named(report.device, all)),
        role: report
            .role
            .map_or(v1::Role::Unspecified, convert::role_to_proto)
            .into(),
        scopes: convert::scopes_to_proto(&report.scopes),
        granted_by: report.granted_by.map(|id| named(id, all)),
        this_device,
        connected: this_device || connected(report.device),
        events: report.events,
        event_bytes: bytes_of(report.device, snapshot),
        removed_by: report.removed_by.map(|id| named(id, all)),
        removal_reason: report.reason.clone(),
    }
}

fn invite(report: &InviteReport, members: &[MemberReport], now: SystemTime) -> v1::Invite {
    let ends = report
        .expires_ms
        .and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let state = if report.uses >= report.max_uses {
        v1::InviteState::UsedUp
    } else if ends.is_some_and(|end| end <= now) {
        v1::InviteState::Expired
    } else if report.is_open {
        v1::InviteState::Open
    } else {
        v1::InviteState::Closed
    };
    v1::Invite {
        key: naming::hex(&report.key),
        role: convert::role_to_proto(report.role).into(),
        scopes: convert::scopes_to_proto(&report.scopes),
        made_by: Some(named(report.by, members)),
        expires_at: ends.map(Into::into),
        max_uses: report.max_uses,
        uses: report.uses,
        state: state.into(),
        person: convert::person_to_proto(report.person.as_ref()),
    }
}

/// Returns a device as a message. Who is or was no member, and gave a role, is the recovery key.
fn named(id: DeviceId, all: &[MemberReport]) -> v1::Device {
    let known = all.iter().find(|report| report.device == id);
    let name = known.map_or("recovery key", |report| report.name.as_str());
    convert::persons_device(id, name, known.and_then(|report| report.person.as_ref()))
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::access::Scopes;
    use p2p_sync_core::engine::PeerStatus;

    use super::*;

    fn engine(roles: &[Role]) -> Engine {
        let peers = (0..).zip(roles).map(|(seed, role)| PeerStatus {
            device: DeviceId::new([seed; 32]),
            name: String::new(),
            person: None,
            role: Some(*role),
            connected: false,
            address: None,
            in_sync: false,
        });
        Engine {
            device: Some(DeviceId::new([0; 32])),
            role: roles.first().copied(),
            peers: peers.collect(),
            ..Engine::default()
        }
    }

    fn codes(engine: &Engine) -> Vec<&'static str> {
        warnings(engine).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn only_the_lone_owner_of_others_is_warned() {
        assert!(codes(&engine(&[Role::Owner])).is_empty());
        assert_eq!(codes(&engine(&[Role::Owner, Role::Admin])), ["LONE_OWNER"]);
        assert!(codes(&engine(&[Role::Owner, Role::Owner])).is_empty());
        assert!(codes(&engine(&[Role::Admin, Role::Owner])).is_empty());
    }

    #[test]
    fn recovery_words_that_nobody_has_written_down_are_a_warning() {
        let mut founder = engine(&[Role::Owner]);
        founder.recovery_unread = true;
        assert_eq!(codes(&founder), ["RECOVERY_UNREAD"]);
    }

    #[test]
    fn changes_that_were_not_published_are_counted_with_the_reason() {
        let mut viewer = engine(&[Role::Viewer, Role::Owner]);
        viewer.rejected = 3;
        let text = &warnings(&viewer)[0].message;
        assert_eq!(text, "3 changes were not published: this device is a viewer");
        let mut editor = engine(&[Role::Editor, Role::Owner]);
        editor.rejected = 1;
        let text = &warnings(&editor)[0].message;
        assert!(
            text.starts_with("1 change was not published: this device may not write there"),
            "{text}"
        );
    }

    #[test]
    fn members_whose_events_take_more_than_the_quota_are_named_with_what_to_do() {
        let mut snapshot = StatusSnapshot::starting("atlas".into(), "/srv".into(), SystemTime::UNIX_EPOCH);
        snapshot.engine = engine(&[Role::Owner, Role::Editor, Role::Viewer]);
        snapshot.engine.peers[1].name = "laptop".into();
        // The last is no member any more.
        let bytes = [(0, 2_000), (1, 3 << 20), (2, 1_000), (3, 9 << 30)];
        snapshot.author_bytes = bytes
            .map(|(seed, bytes)| (DeviceId::new([seed; 32]), bytes))
            .into();
        let texts = |quota| {
            let mut snapshot = snapshot.clone();
            snapshot.author_quota = quota;
            let warnings = over_quota(&snapshot).into_iter();
            warnings
                .map(|warning| (warning.code, warning.message))
                .collect::<Vec<_>>()
        };
        assert!(texts(0).is_empty(), "0 is no quota");
        assert!(texts(3 << 20).is_empty(), "it is what they may take");
        let over = texts((3 << 20) - 1);
        let expected = "The events of \"laptop\" take 3.0 MiB of the ledger, more than 2.9 MiB (ledger.author_quota). None \
                        is refused for that; see what they are: syncctl log --device 0101010101010101";
        assert_eq!(over, [("LEDGER_QUOTA", expected.to_owned())]);
        assert_eq!(texts(1_500).len(), 2);
        assert!(texts(1_500)[0].1.starts_with("The events of this device take"));
    }

    #[test]
    fn an_invite_is_used_up_or_expired_before_it_is_closed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000);
        let state = |uses, expires_ms, is_open| {
            let report = InviteReport {
                key: [1; 32],
                role: Role::Editor,
                scopes: Scopes::whole(),
                person: None,
                by: DeviceId::new([1; 32]),
                expires_ms,
                max_uses: 2,
                uses,
                is_open,
            };
            invite(&report, &[], now).state()
        };
        assert_eq!(state(1, Some(1_001), true), v1::InviteState::Open);
        assert_eq!(state(1, None, false), v1::InviteState::Closed);
        assert_eq!(state(1, Some(1_000), false), v1::InviteState::Expired);
        assert_eq!(state(2, Some(1_000), true), v1::InviteState::UsedUp);
    }
}
