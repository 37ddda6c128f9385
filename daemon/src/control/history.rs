//! Versions of paths: what users ask, and what they are told.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::PeerStatus;
use p2p_sync_core::ids::ShortId;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Node};
use p2p_sync_proto::{reason, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::status::{from_error, invalid};
use super::{ControlError, StatusSnapshot, convert};

/// Versions in one answer unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// Versions in one answer; at 4 KiB of link or path each they stay within twice tonic's limit of 4 MiB, and links of
/// that length do not exist in numbers.
const MAX_LIMIT: usize = 1_000;
/// Parts of an answer that wait for the caller.
pub(super) const STREAM_QUEUE: usize = 4;

/// Which version of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The newest that is not current.
    Newest,
    /// The one with this id, or an unambiguous beginning of it.
    Id(String),
    /// The one that stood there before this time.
    Before(SystemTime),
}

/// Versions of a path, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// The versions.
    pub versions: Vec<PathVersion>,
    /// Whether there are older ones.
    pub more: bool,
}

/// One version of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVersion {
    /// Names it among the versions of its path.
    pub id: String,
    /// Who wrote it; `None` for what was replaced here and never published.
    pub author: Option<ShortId>,
    /// When it was written, milliseconds since 1970 by the author's clock, or when it was replaced.
    pub time_ms: u64,
    /// What it put; `None`: the path was removed.
    pub entry: Option<Entry>,
    /// Whether it is what the group wants at the path.
    pub current: bool,
    /// Whether it lost a conflict that is not settled.
    pub conflict: bool,
    /// Where a file was moved from, or, for a deletion, to.
    pub moved: Option<RelPath>,
    /// Where its bytes are here.
    pub at_hand: AtHand,
    /// The number of its event in the author's log; `None` for what was never published.
    pub seq: Option<u64>,
    /// The author's role in that event; `None`: none, or that was not asked.
    pub role_then: Option<Role>,
    /// Whether it counts nowhere, since its author had no right to it.
    pub void: bool,
}

/// Where this device has the bytes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHand {
    /// There are none to have.
    NotNeeded,
    /// In a file of the folder.
    Folder,
    /// Among what was replaced and is kept.
    Versions,
    /// Nowhere here.
    No,
}

/// A part of a version that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPart {
    /// What it is; comes first.
    Version(Box<PathVersion>),
    /// Its next bytes.
    Data(Vec<u8>),
}

/// How far a restore is; the counts are totals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreStep {
    /// Paths that hold their former version again.
    pub restored: u64,
    /// Paths that held it anyway.
    pub unchanged: u64,
    /// Paths that could not be restored.
    pub failed: u64,
    /// Those of them that were not told before.
    pub problems: Vec<RestoreProblem>,
    /// The version, if one path was asked for.
    pub version: Option<PathVersion>,
    /// This is the last step.
    pub done: bool,
}

/// A path that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// Which.
    pub path: RelPath,
    /// Whether no connected device has the bytes.
    pub not_at_hand: bool,
    /// Why, in words.
    pub reason: String,
}

/// What a stream of an rpc carries.
pub(super) type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Passes what the daemon tells to the caller.
pub(super) fn stream<T: Send + 'static, M: 'static>(
    parts: mpsc::Receiver<Result<T, ControlError>>,
    convert: impl Fn(T) -> M + Send + 'static,
) -> Reply<M> {
    Box::pin(ReceiverStream::new(parts).map(move |part| part.map(&convert).map_err(|e| from_error(&e))))
}

/// Reads how many versions are wanted.
pub(super) fn limit(wanted: u32) -> usize {
    match usize::try_from(wanted).unwrap_or(MAX_LIMIT) {
        0 => DEFAULT_LIMIT,
        wanted => wanted.min(MAX_LIMIT),
    }
}

/// Reads a path that must be there.
pub(super) fn path(bytes: Vec<u8>) -> Result<RelPath, Status> {
    convert::rel_path(bytes)?.ok_or_else(|| invalid(reason::BAD_PATH, "A path below the folder is needed"))
}

/// Reads which version is meant.
pub(super) fn pick(version: Option<String>, before: Option<prost_types::Timestamp>) -> Result<Pick, Status> {
    match (version, before) {
        (Some(id), _) => Ok(Pick::Id(id)),
        (None, Some(time)) => SystemTime::try_from(time)
            .map(Pick::Before)
            .map_err(|e| invalid(reason::INVALID_ARGUMENT, e.to_string())),
        (None, None) => Ok(Pick::Newest),
    }
}

/// Returns a version as a message; `names` are the devices' names.
pub(super) fn version(version: PathVersion, names: &StatusSnapshot) -> v1::PathVersion {
    let entry = version.entry.as_ref();
    let (kind, content, target) = match entry.map(|entry| &entry.node) {
        None => (v1::VersionKind::Deleted, Vec::new(), Vec::new()),
        Some(Node::Dir) => (v1::VersionKind::Directory, Vec::new(), Vec::new()),
        Some(Node::Link { target }) => (v1::VersionKind::Link, Vec::new(), target.clone()),
        Some(Node::File { content, .. }) => (v1::VersionKind::File, content.as_bytes().to_vec(), Vec::new()),
    };
    let (author, role) = version.author.map_or((None, None), |short| author(short, names));
    v1::PathVersion {
        author,
        author_role: role.unwrap_or(v1::Role::Unspecified).into(),
        time: Some((SystemTime::UNIX_EPOCH + Duration::from_millis(version.time_ms)).into()),
        kind: kind.into(),
        size: entry.map_or(0, |entry| entry.node.size()),
        content,
        target,
        mode: entry.map_or(0, |entry| entry.mode),
        mtime_ns: entry.map_or(0, |entry| entry.mtime_ns),
        current: version.current,
        conflict: version.conflict,
        moved: version
            .moved
            .map(|path| path.as_bytes().to_vec())
            .unwrap_or_default(),
        at_hand: match version.at_hand {
            AtHand::NotNeeded => v1::AtHand::Unspecified,
            AtHand::Folder => v1::AtHand::Folder,
            AtHand::Versions => v1::AtHand::Versions,
            AtHand::No => v1::AtHand::No,
        }
        .into(),
        role_then: version
            .role_then
            .map_or(v1::Role::Unspecified, convert::role_to_proto)
            .into(),
        void: version.void,
        id: version.id,
    }
}

/// Returns a device with its name and role as they are now; by the name of its log, which for a branch begins as its own.
pub(super) fn author(short: ShortId, names: &StatusSnapshot) -> (Option<v1::Device>, Option<v1::Role>) {
    let engine = &names.engine;
    if let Some(own) = engine.device.filter(|own| own.short() == short) {
        let role = engine.role.map(convert::role_to_proto);
        return (Some(convert::own_device(own, names)), role);
    }
    let is_it = |peer: &&PeerStatus| peer.device.short() == short;
    let is_branch_of = |peer: &&PeerStatus| peer.device.short().label() == short.label();
    let peers = &engine.peers;
    match peers
        .iter()
        .find(is_it)
        .or_else(|| peers.iter().find(is_branch_of))
    {
        Some(peer) => (
            Some(convert::peer_device(peer)),
            peer.role.map(convert::role_to_proto),
        ),
        None => {
            let id = short.to_hex();
            (
                Some(v1::Device {
                    id,
                    ..v1::Device::default()
                }),
                None,
            )
        }
    }
}

/// Returns a part of a version as a message.
pub(super) fn part(part: VersionPart, names: &StatusSnapshot) -> v1::ReadVersionResponse {
    use v1::read_version_response::Part;
    let part = match part {
        VersionPart::Version(of) => Part::Version(version(*of, names)),
        VersionPart::Data(bytes) => Part::Data(bytes),
    };
    v1::ReadVersionResponse { part: Some(part) }
}

/// Returns a step of a restore as a message.
pub(super) fn step(step: RestoreStep, names: &StatusSnapshot) -> v1::RestoreResponse {
    let problems = step.problems.into_iter().map(|problem| v1::RestoreProblem {
        path: problem.path.as_bytes().to_vec(),
        not_at_hand: problem.not_at_hand,
        reason: problem.reason,
    });
    v1::RestoreResponse {
        restored: step.restored,
        unchanged: step.unchanged,
        failed: step.failed,
        problems: problems.collect(),
        version: step.version.map(|of| version(of, names)),
        done: step.done,
    }
}
