//! Between the messages of `p2psync.v1` and the daemon's own types.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use libp2p::identity::{PublicKey, ed25519};
use libp2p::{Multiaddr, PeerId};
use p2p_sync_core::access::{Role, Scopes};
use p2p_sync_core::engine::{FolderState, JoinChoice, Notification, PeerStatus};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::Person;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::ticket::Ticket;
use p2p_sync_proto::{reason, v1};
use tonic::Status;

use super::status::invalid;
use super::{JournalSummary, MAX_INVITE_USES, StatusSnapshot, Warning, guards, members, pairing};

/// Paths in one journal answer; at 4 KiB each they stay below tonic's message limit of 4 MiB.
const MAX_JOURNAL_PATHS: usize = 1_000;
/// Bytes of a multiaddress as text; far more than any that can be dialled.
const MAX_ADDRESS_LEN: usize = 1_024;

/// Returns a snapshot as a message.
pub(super) fn status(snapshot: &StatusSnapshot) -> v1::Status {
    let engine = &snapshot.engine;
    let others = || {
        engine
            .peers
            .iter()
            .filter(|p| p.role.is_some() && Some(p.device) != engine.device)
    };
    v1::Status {
        version: snapshot.version.to_owned(),
        device: Some(match engine.device {
            Some(id) => own_device(id, snapshot),
            None => v1::Device {
                name: snapshot.name.clone(),
                ..v1::Device::default()
            },
        }),
        group_id: engine.group.map(|g| g.to_hex()).unwrap_or_default(),
        role: optional_role(engine.role).into(),
        started_at: Some(snapshot.started_at.into()),
        folder: Some(folder(snapshot)),
        peers: Some(v1::PeerCounts {
            total: count(others().count()),
            connected: count(others().filter(|p| p.connected).count()),
        }),
        warnings: warnings(snapshot),
        listen_addresses: snapshot.listen.clone(),
        events: engine.events,
        bytes_in: snapshot.bytes_in,
        bytes_out: snapshot.bytes_out,
    }
}

fn folder(snapshot: &StatusSnapshot) -> v1::FolderStatus {
    let engine = &snapshot.engine;
    let state = match (&snapshot.failure, engine.state) {
        (Some(_), _) => v1::FolderState::Failed,
        (None, FolderState::Starting) => v1::FolderState::Starting,
        (None, FolderState::Scanning) => v1::FolderState::Scanning,
        (None, FolderState::Syncing) => v1::FolderState::Syncing,
        (None, FolderState::InSync) => v1::FolderState::InSync,
        (None, FolderState::Paused) => v1::FolderState::Paused,
        (None, FolderState::Removed) => v1::FolderState::Removed,
    };
    let (stuck, stuck_total) = guards::stuck(snapshot);
    v1::FolderStatus {
        path: path_bytes(&snapshot.folder),
        state: state.into(),
        files_total: engine.files_total,
        files_needed: engine.files_needed,
        bytes_needed: engine.bytes_needed,
        conflicts: engine.conflicts,
        join_held: engine.join_held,
        failure: snapshot.failure.clone().unwrap_or_default(),
        deletions_held: engine.deletions_held,
        stuck,
        stuck_total,
        join: engine.join.map(guards::join_counts),
        rejected: engine.rejected,
    }
}

fn warnings(snapshot: &StatusSnapshot) -> Vec<v1::Warning> {
    let engine = &snapshot.engine;
    let mut list = Vec::new();
    let mut warn = |code, message| list.push(Warning { code, message });
    if engine.own_events_missing > 0 {
        let missing = engine.own_events_missing;
        warn(
            "STATE_OLD",
            format!(
                "The state of this device is an old copy: {missing} of its own events are missing. It records no change \
                 until a device that has them is connected; if none will ever be, start the daemon once with --rebind"
            ),
        );
    }
    list.extend(pairing::warnings(&engine.join_requests));
    let mut warn = |code, message| list.push(Warning { code, message });
    if engine.join_held > 0 {
        let held = engine.join_held;
        warn(
            "JOIN_HELD",
            format!("{held} files here differ from the group's and wait for a choice"),
        );
    }
    if engine.deletions_held > 0 {
        let held = engine.deletions_held;
        warn(
            "DELETIONS_HELD",
            format!(
                "{held} entries vanished while nobody looked; nothing is deleted on other devices until: syncctl \
                 confirm-deletes, or, to bring the files back: syncctl confirm-deletes --restore"
            ),
        );
    }
    if engine.conflicts > 0 {
        warn(
            "CONFLICTS",
            format!("{} conflict copies lie in the folder", engine.conflicts),
        );
    }
    let stuck = engine.stuck_count + snapshot.unreadable_count;
    if stuck > 0 {
        warn("PATH_STUCK", format!("{stuck} paths are stuck"));
    }
    if let Some(why) = &snapshot.watcher_degraded {
        warn(
            "WATCHER_DEGRADED",
            format!("Changes are found by rescans only: {why}"),
        );
    }
    list.extend(members::warnings(engine));
    list.extend(members::over_quota(snapshot));
    list.extend(snapshot.warnings.iter().cloned());
    list.into_iter()
        .map(|w| v1::Warning {
            code: w.code.to_owned(),
            message: w.message,
        })
        .collect()
}

/// Returns the devices of a snapshot, this device first.
pub(super) fn peers(snapshot: &StatusSnapshot) -> Vec<v1::Peer> {
    let own = snapshot.engine.device;
    let listed = snapshot
        .engine
        .peers
        .iter()
        .filter(|p| Some(p.device) != own)
        .map(peer);
    let this = own.map(|id| v1::Peer {
        device: Some(own_device(id, snapshot)),
        role: optional_role(snapshot.engine.role).into(),
        state: v1::PeerState::ThisDevice.into(),
        address: snapshot.listen.first().cloned().unwrap_or_default(),
        in_sync: snapshot.engine.state == FolderState::InSync,
    });
    this.into_iter().chain(listed).collect()
}

fn peer(peer: &PeerStatus) -> v1::Peer {
    let state = match (peer.role, peer.connected) {
        (None, _) => v1::PeerState::Stranger,
        (Some(_), true) => v1::PeerState::Connected,
        (Some(_), false) => v1::PeerState::Disconnected,
    };
    v1::Peer {
        device: Some(peer_device(peer)),
        role: optional_role(peer.role).into(),
        state: state.into(),
        address: peer.address.clone().unwrap_or_default(),
        in_sync: peer.in_sync,
    }
}

/// Returns a device as a message.
pub(super) fn device(id: DeviceId, name: &str) -> v1::Device {
    v1::Device {
        id: id.to_hex(),
        name: name.to_owned(),
        peer_id: peer_id(id).unwrap_or_default(),
        person: String::new(),
    }
}

/// As [`device()`], with whose it is.
pub(super) fn persons_device(id: DeviceId, name: &str, person: Option<&Person>) -> v1::Device {
    v1::Device {
        person: person_to_proto(person),
        ..device(id, name)
    }
}

/// Returns a device that the engine knows as a message.
pub(super) fn peer_device(peer: &PeerStatus) -> v1::Device {
    persons_device(peer.device, &peer.name, peer.person.as_ref())
}

/// Returns this device as a message.
pub(super) fn own_device(id: DeviceId, snapshot: &StatusSnapshot) -> v1::Device {
    let own = snapshot.engine.peers.iter().find(|peer| peer.device == id);
    persons_device(id, &snapshot.name, own.and_then(|own| own.person.as_ref()))
}

/// Reads whose a device is; `None` if that is not said.
pub(super) fn person(text: &str) -> Result<Option<Person>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let person = Person::parse(text).map_err(|e| invalid(reason::INVALID_ARGUMENT, e.to_string()))?;
    Ok(Some(person))
}

/// Returns whose a device is; empty if that is not said.
pub(super) fn person_to_proto(person: Option<&Person>) -> String {
    person.map(ToString::to_string).unwrap_or_default()
}

/// Returns libp2p's name of a device; `None` if the id is no point of the curve, which no member's can be.
fn peer_id(id: DeviceId) -> Option<String> {
    let key = ed25519::PublicKey::try_from_bytes(id.as_bytes()).ok()?;
    Some(PeerId::from_public_key(&PublicKey::from(key)).to_string())
}

/// Returns a notification as a message; `names` are the devices' names.
pub(super) fn change(event: Notification, names: &StatusSnapshot) -> v1::watch_response::Change {
    use v1::watch_response::Change;
    let named = |id: DeviceId| {
        let known = names.engine.peers.iter().find(|p| p.device == id);
        Some(known.map_or_else(|| device(id, ""), peer_device))
    };
    match event {
        Notification::PathSynced {
            path,
            removed,
            author,
        } => Change::PathSynced(v1::PathSynced {
            path: path.as_bytes().to_vec(),
            removed,
            author: author.map(|a| a.to_hex()).unwrap_or_default(),
        }),
        Notification::PathPublished { path, removed } => Change::PathPublished(v1::PathPublished {
            path: path.as_bytes().to_vec(),
            removed,
        }),
        Notification::ConflictCopy { path, origin } => Change::ConflictCopied(v1::ConflictCopied {
            path: path.as_bytes().to_vec(),
            origin: origin.as_bytes().to_vec(),
        }),
        Notification::MemberAdded {
            device: id,
            name,
            role,
        } => Change::MemberAdded(v1::MemberAdded {
            device: Some(device(id, &name)),
            role: role_to_proto(role).into(),
        }),
        Notification::JoinRequested(request) => Change::JoinRequested(pairing::request(&request)),
        Notification::MemberRemoved { device: id, name } => Change::MemberRemoved(v1::MemberRemoved {
            device: Some(device(id, &name)),
        }),
        Notification::PeerConnected { device } => Change::PeerConnected(v1::PeerConnected {
            device: named(device),
        }),
        Notification::PeerDisconnected { device } => Change::PeerDisconnected(v1::PeerDisconnected {
            device: named(device),
        }),
        Notification::Denied { device: id, path } => Change::Denied(v1::Denied {
            device: named(id),
            path: path.map(|path| path.as_bytes().to_vec()),
        }),
        Notification::ChangeRejected { path } => Change::ChangeRejected(v1::ChangeRejected {
            path: path.as_bytes().to_vec(),
        }),
        Notification::PathStuck { path, reason } => Change::PathStuck(v1::PathStuck {
            path: path.as_bytes().to_vec(),
            reason,
        }),
        Notification::UpgradeNeeded { device } => Change::PeerMisbehaved(v1::PeerMisbehaved {
            device: named(device),
            reason: "an event that needs a newer version of p2p-sync".to_owned(),
        }),
        Notification::PeerLimited { device } => Change::PeerMisbehaved(v1::PeerMisbehaved {
            device: named(device),
            reason: "events faster than they are taken; they are fetched later".to_owned(),
        }),
        Notification::PeerMisbehaved { device, reason } => Change::PeerMisbehaved(v1::PeerMisbehaved {
            device: named(device),
            reason: reason.to_owned(),
        }),
    }
}

/// Returns the journal as a message.
pub(super) fn journal(summary: &JournalSummary) -> v1::GetJournalResponse {
    let list = |paths: &[std::path::PathBuf]| {
        let mut bytes: Vec<_> = paths.iter().map(|p| path_bytes(p)).collect();
        bytes.sort();
        bytes.truncate(MAX_JOURNAL_PATHS);
        bytes
    };
    v1::GetJournalResponse {
        last_stop_clean: summary.last_stop_clean,
        recovered_paths: list(&summary.recovered),
        in_use_paths: list(&summary.in_use),
        open_installs: summary.open_installs,
        size_bytes: summary.size_bytes,
    }
}

/// What [`v1::CreateInviteRequest`] asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InviteTerms {
    pub(super) role: Role,
    pub(super) expires: Option<SystemTime>,
    pub(super) max_uses: u32,
    pub(super) scopes: Scopes,
    pub(super) person: Option<Person>,
}

/// Reads the terms of an invite that is made `now`.
pub(super) fn invite_terms(
    request: &v1::CreateInviteRequest,
    now: SystemTime,
) -> Result<InviteTerms, Status> {
    let bad = |message: &str| invalid(reason::INVALID_ARGUMENT, message);
    let role = role(request.role)?.unwrap_or(Role::Editor);
    if role == Role::Owner {
        return Err(bad("An invite cannot make an owner"));
    }
    let expires = match &request.valid_for {
        None => None,
        Some(text) => {
            let valid_for = Duration::try_from(*text).map_err(|_| bad("An invite cannot end in the past"))?;
            if valid_for.is_zero() {
                return Err(bad("An invite must be good for longer than that"));
            }
            let end = now
                .checked_add(valid_for)
                .ok_or_else(|| bad("That is too far in the future"))?;
            Some(end)
        }
    };
    if request.max_uses > MAX_INVITE_USES {
        return Err(bad(&format!(
            "An invite can be used at most {MAX_INVITE_USES} times"
        )));
    }
    Ok(InviteTerms {
        role,
        expires,
        max_uses: request.max_uses.max(1),
        scopes: scopes(request.scopes.clone())?,
        person: person(&request.person)?,
    })
}

/// Reads a ticket.
pub(super) fn ticket(text: &str) -> Result<Ticket, Status> {
    Ticket::parse(text).map_err(|e| invalid(reason::BAD_TICKET, e.to_string()))
}

/// Reads a choice; `None` if there is none.
pub(super) fn join_choice(code: i32) -> Result<Option<JoinChoice>, Status> {
    match v1::JoinChoice::try_from(code) {
        Ok(v1::JoinChoice::Unspecified) => Ok(None),
        Ok(v1::JoinChoice::KeepBoth) => Ok(Some(JoinChoice::KeepBoth)),
        Ok(v1::JoinChoice::PreferGroup) => Ok(Some(JoinChoice::PreferGroup)),
        Err(_) => Err(invalid(reason::INVALID_ARGUMENT, "There is no such choice")),
    }
}

/// Reads a path of the folder; `None` if it is empty.
pub(super) fn rel_path(bytes: Vec<u8>) -> Result<Option<RelPath>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let path = RelPath::parse(bytes).map_err(|e| invalid(reason::BAD_PATH, e.to_string()))?;
    if path.is_own() {
        return Err(invalid(
            reason::BAD_PATH,
            "That directory is the daemon's own and is never synced",
        ));
    }
    Ok(Some(path))
}

/// Reads the paths at and below which somebody may write.
pub(super) fn scopes(paths: Vec<Vec<u8>>) -> Result<Scopes, Status> {
    if paths.len() > Scopes::MAX {
        let text = format!("A device can be given at most {} paths", Scopes::MAX);
        return Err(invalid(reason::INVALID_ARGUMENT, text));
    }
    let read = |path| {
        rel_path(path)?
            .ok_or_else(|| invalid(reason::BAD_PATH, "The whole folder is named by no path at all"))
    };
    let paths = paths.into_iter().map(read).collect::<Result<_, _>>()?;
    Scopes::new(paths).map_err(|e| invalid(reason::INVALID_ARGUMENT, e.to_string()))
}

/// Returns the paths at and below which somebody may write as a message.
pub(super) fn scopes_to_proto(scopes: &Scopes) -> Vec<Vec<u8>> {
    let paths = scopes.paths().iter();
    paths.map(|path| path.as_bytes().to_vec()).collect()
}

/// Reads an address to dial.
pub(super) fn address(text: &str) -> Result<String, Status> {
    let bad = |why: &str| {
        invalid(
            reason::BAD_ADDRESS,
            format!("{text:.100} is not a multiaddress: {why}"),
        )
    };
    if text.len() > MAX_ADDRESS_LEN {
        return Err(bad("it is too long"));
    }
    let parsed: Multiaddr = text
        .parse()
        .map_err(|e: libp2p::multiaddr::Error| bad(&e.to_string()))?;
    if parsed.is_empty() {
        return Err(bad("it is empty"));
    }
    Ok(parsed.to_string())
}

/// Reads a role; `None` if none is named.
pub(super) fn role(code: i32) -> Result<Option<Role>, Status> {
    match v1::Role::try_from(code) {
        Ok(v1::Role::Unspecified) => Ok(None),
        Ok(v1::Role::Viewer) => Ok(Some(Role::Viewer)),
        Ok(v1::Role::Editor) => Ok(Some(Role::Editor)),
        Ok(v1::Role::Admin) => Ok(Some(Role::Admin)),
        Ok(v1::Role::Owner) => Ok(Some(Role::Owner)),
        Err(_) => Err(invalid(reason::INVALID_ARGUMENT, "There is no such role")),
    }
}

/// Returns a role as a message.
pub(super) fn role_to_proto(role: Role) -> v1::Role {
    match role {
        Role::Viewer => v1::Role::Viewer,
        Role::Editor => v1::Role::Editor,
        Role::Admin => v1::Role::Admin,
        Role::Owner => v1::Role::Owner,
    }
}

fn optional_role(role: Option<Role>) -> v1::Role {
    role.map_or(v1::Role::Unspecified, role_to_proto)
}

fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::ids::GroupId;

    use super::*;

    fn snapshot() -> StatusSnapshot {
        let mut snapshot =
            StatusSnapshot::starting("atlas".into(), "/srv/sync".into(), SystemTime::UNIX_EPOCH);
        let id = |seed| {
            let key = libp2p::identity::ed25519::SecretKey::try_from_bytes([seed; 32]).unwrap();
            DeviceId::new(ed25519::Keypair::from(key).public().to_bytes())
        };
        let status = |seed, role, connected| PeerStatus {
            device: id(seed),
            name: format!("d{seed}"),
            person: None,
            role,
            connected,
            address: connected.then(|| "/ip4/127.0.0.1/tcp/1".to_owned()),
            in_sync: connected,
        };
        snapshot.engine.device = Some(id(1));
        snapshot.engine.role = Some(Role::Owner);
        snapshot.engine.group = Some(GroupId::new([5; 32]));
        snapshot.engine.peers = vec![
            status(2, Some(Role::Editor), true),
            status(1, Some(Role::Owner), false),
            status(3, Some(Role::Viewer), false),
            status(4, None, true),
        ];
        snapshot
    }

    #[test]
    fn this_device_comes_first_and_is_not_counted_among_the_others() {
        let snapshot = snapshot();
        let peers = peers(&snapshot);
        let states: Vec<_> = peers.iter().map(v1::Peer::state).collect();
        use v1::PeerState::{Connected, Disconnected, Stranger, ThisDevice};
        assert_eq!(states, [ThisDevice, Connected, Disconnected, Stranger]);
        let device = peers[0].device.as_ref().unwrap();
        assert_eq!(device.name, "atlas");
        assert!(device.peer_id.starts_with("12D3Koo"), "{}", device.peer_id);
        assert_eq!(
            status(&snapshot).peers,
            Some(v1::PeerCounts {
                total: 2,
                connected: 1
            })
        );
    }

    #[test]
    fn a_failure_is_shown_in_place_of_the_state() {
        let mut snapshot = snapshot();
        snapshot.engine.state = FolderState::InSync;
        assert_eq!(folder(&snapshot).state(), v1::FolderState::InSync);
        snapshot.failure = Some("the folder is gone".into());
        let folder = folder(&snapshot);
        assert_eq!(
            (folder.state(), folder.failure.as_str()),
            (v1::FolderState::Failed, "the folder is gone")
        );
    }

    #[test]
    fn what_needs_a_look_becomes_a_warning() {
        let mut snapshot = snapshot();
        snapshot.engine.role = Some(Role::Editor);
        assert!(warnings(&snapshot).is_empty());
        snapshot.engine.role = Some(Role::Owner);
        snapshot.engine.conflicts = 2;
        snapshot.engine.join_held = 3;
        snapshot.engine.deletions_held = 4;
        snapshot.engine.stuck_count = 1;
        snapshot.watcher_degraded = Some("limit reached".into());
        snapshot.warnings = vec![Warning {
            code: "MORE",
            message: "more".into(),
        }];
        let codes: Vec<_> = warnings(&snapshot).into_iter().map(|w| w.code).collect();
        assert_eq!(
            codes,
            [
                "JOIN_HELD",
                "DELETIONS_HELD",
                "CONFLICTS",
                "PATH_STUCK",
                "WATCHER_DEGRADED",
                "LONE_OWNER",
                "MORE"
            ]
        );
    }

    #[test]
    fn invite_terms_have_defaults_and_bounds() {
        let now = SystemTime::UNIX_EPOCH;
        let terms = invite_terms(&v1::CreateInviteRequest::default(), now).unwrap();
        assert_eq!(
            terms,
            InviteTerms {
                role: Role::Editor,
                expires: None,
                max_uses: 1,
                scopes: Scopes::whole(),
                person: None,
            }
        );
        let bad = [
            v1::CreateInviteRequest {
                role: v1::Role::Owner.into(),
                ..Default::default()
            },
            v1::CreateInviteRequest {
                role: 77,
                ..Default::default()
            },
            v1::CreateInviteRequest {
                person: "a\nb".into(),
                ..Default::default()
            },
            v1::CreateInviteRequest {
                max_uses: 1_001,
                ..Default::default()
            },
            v1::CreateInviteRequest {
                valid_for: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..Default::default()
            },
            v1::CreateInviteRequest {
                valid_for: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
                ..Default::default()
            },
        ];
        for request in bad {
            assert_eq!(
                invite_terms(&request, now).unwrap_err().code(),
                tonic::Code::InvalidArgument
            );
        }
    }

    #[test]
    fn paths_and_addresses_are_parsed_at_the_edge() {
        assert_eq!(rel_path(Vec::new()).unwrap(), None);
        assert_eq!(rel_path(b"a\xff".to_vec()).unwrap().unwrap().as_bytes(), b"a\xff");
        for bad in [&b"/a"[..], b"a/../b", b".p2p-sync/journal"] {
            assert!(rel_path(bad.to_vec()).is_err());
        }
        assert_eq!(address("/ip4/127.0.0.1/tcp/1").unwrap(), "/ip4/127.0.0.1/tcp/1");
        for bad in ["", "127.0.0.1:1", "/ip4/x/tcp/1", &"/tcp/1".repeat(1_000)] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_notification_carries_the_devices_name() {
        let snapshot = snapshot();
        let id = snapshot.engine.peers[0].device;
        let v1::watch_response::Change::PeerConnected(event) =
            change(Notification::PeerConnected { device: id }, &snapshot)
        else {
            panic!("another change");
        };
        assert_eq!(event.device.unwrap().name, "d2");
    }

    #[test]
    fn a_long_journal_is_cut() {
        let in_use = (0..1_500).map(|i| format!("f{i:04}").into()).rev().collect();
        let message = journal(&JournalSummary {
            in_use,
            ..JournalSummary::default()
        });
        assert_eq!(message.in_use_paths.len(), 1_000);
        assert_eq!(message.in_use_paths[0], b"f0000");
    }
}
