//! The daemon's messages as JSON and as words.

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::output::{JsonPath, escape, or_null, short};

/// `p2psync.status/1`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusJson {
    schema: &'static str,
    version: String,
    device: DeviceJson,
    #[serde(serialize_with = "or_null_owned")]
    group: String,
    role: Option<&'static str>,
    started_at: Option<String>,
    folder: FolderJson,
    peers: PeerCountsJson,
    listen_addresses: Vec<String>,
    events: u64,
    bytes_in: u64,
    bytes_out: u64,
    warnings: Vec<WarningJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DeviceJson {
    #[serde(serialize_with = "or_null_owned")]
    id: String,
    name: String,
    #[serde(serialize_with = "or_null_owned")]
    peer_id: String,
    #[serde(serialize_with = "or_null_owned")]
    person: String,
}

#[derive(Debug, Serialize)]
struct FolderJson {
    #[serde(flatten)]
    path: JsonPath,
    state: &'static str,
    files_total: u64,
    files_needed: u64,
    bytes_needed: u64,
    conflicts: u64,
    join_held: u64,
    deletions_held: u64,
    stuck: Vec<StuckJson>,
    stuck_total: u64,
    join: Option<JoinCountsJson>,
    rejected: u64,
    #[serde(serialize_with = "or_null_owned")]
    failure: String,
}

#[derive(Debug, Serialize)]
struct StuckJson {
    #[serde(flatten)]
    path: JsonPath,
    reason: String,
}

/// What a joiner's files turned out to be.
#[derive(Debug, Serialize)]
pub(crate) struct JoinCountsJson {
    same: u64,
    old: u64,
    new: u64,
    differing: u64,
}

#[derive(Debug, Serialize)]
struct PeerCountsJson {
    connected: u32,
    total: u32,
}

#[derive(Debug, Serialize)]
struct WarningJson {
    code: String,
    message: String,
}

impl From<v1::Status> for StatusJson {
    fn from(status: v1::Status) -> Self {
        let role = role(status.role());
        let peers = status.peers.unwrap_or_default();
        Self {
            schema: "p2psync.status/1",
            version: status.version,
            device: status.device.unwrap_or_default().into(),
            group: status.group_id,
            role,
            started_at: status.started_at.map(|t| t.to_string()),
            folder: status.folder.unwrap_or_default().into(),
            peers: PeerCountsJson {
                connected: peers.connected,
                total: peers.total,
            },
            listen_addresses: status.listen_addresses,
            events: status.events,
            bytes_in: status.bytes_in,
            bytes_out: status.bytes_out,
            warnings: status
                .warnings
                .into_iter()
                .map(|w| WarningJson {
                    code: w.code,
                    message: w.message,
                })
                .collect(),
        }
    }
}

impl From<v1::Device> for DeviceJson {
    fn from(device: v1::Device) -> Self {
        Self {
            id: device.id,
            name: device.name,
            peer_id: device.peer_id,
            person: device.person,
        }
    }
}

impl From<v1::StuckPath> for StuckJson {
    fn from(stuck: v1::StuckPath) -> Self {
        Self {
            path: JsonPath::new(&stuck.path),
            reason: stuck.reason,
        }
    }
}

impl From<v1::JoinCounts> for JoinCountsJson {
    fn from(counts: v1::JoinCounts) -> Self {
        Self {
            same: counts.same,
            old: counts.old,
            new: counts.new,
            differing: counts.differing,
        }
    }
}

impl From<v1::FolderStatus> for FolderJson {
    fn from(folder: v1::FolderStatus) -> Self {
        Self {
            state: folder_state(folder.state()),
            path: JsonPath::new(&folder.path),
            files_total: folder.files_total,
            files_needed: folder.files_needed,
            bytes_needed: folder.bytes_needed,
            conflicts: folder.conflicts,
            join_held: folder.join_held,
            deletions_held: folder.deletions_held,
            stuck: folder.stuck.into_iter().map(StuckJson::from).collect(),
            stuck_total: folder.stuck_total,
            join: folder.join.map(JoinCountsJson::from),
            rejected: folder.rejected,
            failure: folder.failure,
        }
    }
}

/// Returns a folder's state as JSON spells it.
pub(crate) fn folder_state(state: v1::FolderState) -> &'static str {
    match state {
        v1::FolderState::Unspecified => "unknown",
        v1::FolderState::Starting => "starting",
        v1::FolderState::Scanning => "scanning",
        v1::FolderState::Syncing => "syncing",
        v1::FolderState::InSync => "in_sync",
        v1::FolderState::Paused => "paused",
        v1::FolderState::Failed => "failed",
        v1::FolderState::Removed => "removed",
    }
}

/// Returns a role's word; `None` for a device without one.
pub(crate) fn role(role: v1::Role) -> Option<&'static str> {
    match role {
        v1::Role::Unspecified => None,
        v1::Role::Viewer => Some("viewer"),
        v1::Role::Editor => Some("editor"),
        v1::Role::Admin => Some("admin"),
        v1::Role::Owner => Some("owner"),
    }
}

/// Returns a device's name, or the beginning of its id, and whose it is if that was said.
pub(crate) fn device_words(device: &v1::Device) -> String {
    let name = if device.name.is_empty() {
        short(&device.id)
    } else {
        &device.name
    };
    let name = escape(name.as_bytes());
    match device.person.as_str() {
        "" => name,
        person => format!("{name} ({})", escape(person.as_bytes())),
    }
}

/// Returns a peer's state as JSON spells it.
pub(crate) fn peer_state(state: v1::PeerState) -> &'static str {
    match state {
        v1::PeerState::Unspecified => "unknown",
        v1::PeerState::ThisDevice => "this_device",
        v1::PeerState::Connected => "connected",
        v1::PeerState::Disconnected => "disconnected",
        v1::PeerState::Stranger => "stranger",
    }
}

#[expect(clippy::ptr_arg, reason = "serde passes the field's own type")]
fn or_null_owned<S: serde::Serializer>(text: &String, to: S) -> Result<S::Ok, S::Error> {
    or_null(text, to)
}
