//! Between the ledger's events and messages.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use p2p_sync_core::access::Scopes;
use p2p_sync_core::ids::{DeviceId, Dot};
use p2p_sync_core::ledger::{
    EndReason, EventKind, Grant, GrantVia, Header, Item, Keep, LockGrant, LogHead, Put, Revoke, Voters,
};
use p2p_sync_core::lock::{Resource, SlotId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Node;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::event_item::What;

use super::{FollowPart, VerifyStep};
use crate::control::{StatusSnapshot, convert, history};
use crate::ledger_query::JudgedEvent;

/// What of an event is shown.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// Items at most.
    pub(super) items: usize,
    /// Only items of this path.
    pub(super) path: Option<RelPath>,
    /// The signed bytes, too.
    pub(super) bytes: bool,
}

impl Shown {
    pub(super) const fn all() -> Self {
        Self {
            items: usize::MAX,
            path: None,
            bytes: true,
        }
    }
}

/// Returns an event as a message; `names` are the devices' names.
pub(super) fn event(judged: &JudgedEvent, shown: &Shown, names: &StatusSnapshot) -> v1::Event {
    let JudgedEvent { event, read, verdict } = judged;
    let header = &read.header;
    let (device, role) = history::author(header.author.short(), names);
    let id = header.author.to_hex();
    let items = (0..).zip(&read.body.items);
    let wanted = items.filter(|(_, item)| shown.path.is_none() || item.path() == shown.path.as_ref());
    let mut message = v1::Event {
        id: read.id.to_hex(),
        author: Some(v1::Device {
            id,
            ..device.unwrap_or_default()
        }),
        author_role: role.unwrap_or(v1::Role::Unspecified).into(),
        seq: header.seq,
        time: Some(time(header.wall_ms)),
        hlc: header.hlc.bits(),
        kind: kind(header.kind).into(),
        items_total: header.n_items,
        items: wanted
            .take(shown.items)
            .map(|(i, item)| v1::EventItem {
                void: verdict.void.binary_search(&i).is_ok(),
                ..self::item(i, item)
            })
            .collect(),
        arrival: event.arrival,
        role_then: verdict
            .role
            .map_or(v1::Role::Unspecified, convert::role_to_proto)
            .into(),
        void: verdict.is_void,
        ..v1::Event::default()
    };
    if shown.bytes {
        let signed = &event.stored.event;
        message.seen = seen(header);
        message.prev_root = header.prev_root.to_vec();
        message.header = signed.header.to_vec();
        message.signature = signed.signature.to_vec();
        message.body = signed.body.to_vec();
    }
    message
}

fn seen(header: &Header) -> Vec<v1::EventSeen> {
    let seen = header.seen.iter();
    seen.map(|seen| v1::EventSeen {
        device: seen.device.to_hex(),
        next_seq: seen.next_seq,
        id16: seen.id16.to_vec(),
    })
    .collect()
}

fn time(ms: u64) -> prost_types::Timestamp {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    // An author may write any number; what no clock shows is shown as 1970.
    time.map(Into::into).unwrap_or_default()
}

const fn kind(kind: EventKind) -> v1::EventKind {
    match kind {
        EventKind::Genesis => v1::EventKind::Genesis,
        EventKind::Admin => v1::EventKind::Admin,
        EventKind::Work => v1::EventKind::Work,
        _ => v1::EventKind::Unspecified,
    }
}

/// Returns an item as a message.
fn item(index: u32, item: &Item) -> v1::EventItem {
    let what = match item {
        Item::Genesis(genesis) => What::Genesis(v1::GenesisItem {
            name: genesis.name.clone(),
            recovery_key: genesis.recovery.to_vec(),
        }),
        Item::Grant(grant) => What::Grant(granted(grant)),
        Item::Invite(invite) => What::Invite(v1::InviteItem {
            key: invite.key.to_vec(),
            role: convert::role_to_proto(invite.role).into(),
            expires_at: invite.expires_ms.map(time),
            max_uses: invite.max_uses,
            scopes: scopes(&invite.scopes),
            person: convert::person_to_proto(invite.person.as_ref()),
        }),
        Item::Revoke(revoke) => What::Revoke(revoked(revoke)),
        Item::Cancel { key } => What::Cancel(v1::CancelItem { key: key.to_vec() }),
        Item::Person { device, person } => What::Person(v1::PersonItem {
            device: Some(convert::persons_device(*device, "", person.as_ref())),
        }),
        Item::Name(name) => What::Name(v1::NameItem { name: name.clone() }),
        Item::Voters(voters) => What::Voters(followed(voters)),
        Item::Put(put) => What::Put(self::put(put)),
        Item::Del { path, base, moved_to } => What::Del(v1::DelItem {
            path: path.as_bytes().to_vec(),
            base: dots(base),
            moved_to: path_or_empty(moved_to.as_ref()),
        }),
        Item::Discard { path, drop } => What::Discard(v1::DiscardItem {
            path: path.as_bytes().to_vec(),
            dropped: dots(drop),
        }),
        Item::LockGrant(grant) => What::LockGrant(locked(grant)),
        Item::LockEnd(end) => What::LockEnd(v1::LockEndItem {
            grant: dot(&end.grant),
            has_lapsed: end.reason == EndReason::Lapsed,
        }),
        Item::LockBreak(broken) => What::LockBreak(v1::LockBreakItem {
            grant: dot(&broken.grant),
            reason: broken.reason.clone(),
        }),
        other => What::Other(v1::OtherItem { tag: tag(other) }),
    };
    v1::EventItem {
        index,
        what: Some(what),
        void: false,
    }
}

/// Returns the tag of an item that has no message of its own.
fn tag(item: &Item) -> u64 {
    let bytes = item.to_bytes();
    let mut d = minicbor::Decoder::new(&bytes);
    d.array().and_then(|_| d.u64()).unwrap_or_default()
}

fn granted(grant: &Grant) -> v1::GrantItem {
    v1::GrantItem {
        device: Some(convert::persons_device(
            grant.device,
            &grant.name,
            grant.person.as_ref(),
        )),
        role: convert::role_to_proto(grant.role).into(),
        invite_key: match &grant.via {
            GrantVia::Author => Vec::new(),
            GrantVia::Invite { key, .. } => key.to_vec(),
        },
        scopes: scopes(&grant.scopes),
    }
}

fn revoked(revoke: &Revoke) -> v1::RevokeItem {
    let heads = match &revoke.keep {
        Keep::UntilSeen => &[][..],
        Keep::Heads(heads) => heads,
    };
    v1::RevokeItem {
        device: Some(nameless(revoke.device)),
        reason: revoke.reason.clone(),
        keep: heads.iter().map(head).collect(),
        keep_none: matches!(&revoke.keep, Keep::Heads(heads) if heads.is_empty()),
    }
}

/// Returns a device whose name the item does not say.
fn nameless(id: DeviceId) -> v1::Device {
    convert::device(id, "")
}

fn head(head: &LogHead) -> v1::LogHead {
    v1::LogHead {
        size: head.size,
        root: head.root.to_vec(),
    }
}

fn scopes(scopes: &Scopes) -> Vec<Vec<u8>> {
    scopes
        .paths()
        .iter()
        .map(|path| path.as_bytes().to_vec())
        .collect()
}

fn put(put: &Put) -> v1::PutItem {
    let entry = &put.entry;
    let (kind, content, target) = match &entry.node {
        Node::Dir => (v1::VersionKind::Directory, Vec::new(), Vec::new()),
        Node::Link { target } => (v1::VersionKind::Link, Vec::new(), target.clone()),
        Node::File { content, .. } => (v1::VersionKind::File, content.as_bytes().to_vec(), Vec::new()),
    };
    v1::PutItem {
        path: put.path.as_bytes().to_vec(),
        kind: kind.into(),
        size: entry.node.size(),
        content,
        target,
        mode: entry.mode,
        mtime_ns: entry.mtime_ns,
        base: dots(&put.base),
        is_import: put.flags.import,
        is_metadata: put.flags.metadata,
        moved_from: path_or_empty(put.moved_from.as_ref()),
    }
}

fn locked(grant: &LockGrant) -> v1::LockGrantItem {
    v1::LockGrantItem {
        epoch: grant.token.epoch,
        number: grant.token.n,
        resources: grant.resources.iter().map(Resource::to_bytes).collect(),
        is_durable: grant.durable,
        until: grant.until_ms.map(time),
        note: grant.note.clone(),
        voters: grant.votes.iter().map(|vote| vote.voter.to_hex()).collect(),
    }
}

fn followed(item: &Voters) -> v1::VotersItem {
    let seals = item.seals.as_deref().unwrap_or_default();
    let locks: BTreeSet<&SlotId> = seals.iter().flat_map(|seal| seal.slots.keys()).collect();
    v1::VotersItem {
        epoch: item.epoch,
        voters: item.voters.iter().map(DeviceId::to_hex).collect(),
        is_forced: item.seals.is_none(),
        sealed: seals.iter().map(|seal| seal.voter.to_hex()).collect(),
        locks: u32::try_from(locks.len()).unwrap_or(u32::MAX),
    }
}

fn dots(dots: &[Dot]) -> Vec<String> {
    dots.iter().map(dot).collect()
}

fn dot(dot: &Dot) -> String {
    format!("{}-{}-{}", dot.device.label(), dot.seq, dot.item)
}

fn path_or_empty(path: Option<&RelPath>) -> Vec<u8> {
    path.map(|path| path.as_bytes().to_vec()).unwrap_or_default()
}

/// Returns what follows in a stream of events.
pub(super) fn follow(
    seq: u64,
    part: FollowPart,
    shown: &Shown,
    names: &StatusSnapshot,
) -> v1::FollowEventsResponse {
    use v1::follow_events_response::Change;
    let change = match part {
        FollowPart::Started(arrival) => Change::Started(v1::FollowStarted { arrival }),
        FollowPart::Event(event) => Change::Event(self::event(&event, shown, names)),
        FollowPart::Heartbeat => Change::Heartbeat(v1::FollowHeartbeat {}),
    };
    let change = Some(change);
    v1::FollowEventsResponse { seq, change }
}

/// Returns a step of a check.
pub(super) fn verify(step: VerifyStep, names: &StatusSnapshot) -> v1::VerifyLedgerResponse {
    let faults = step.faults.into_iter().map(|fault| v1::LedgerFault {
        device: history::author(fault.device, names).0,
        seq: fault.seq,
        problem: words(&fault.what),
    });
    v1::VerifyLedgerResponse {
        checked: step.checked,
        total: step.total,
        faults: faults.collect(),
        faults_total: step.faults_total,
        done: step.done.is_some(),
        devices: step
            .done
            .map_or(0, |(logs, _)| u32::try_from(logs).unwrap_or(u32::MAX)),
        group_id: step.done.map(|(_, group)| group.to_hex()).unwrap_or_default(),
    }
}

fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Page tokens: a place in an order, bound to the question.
pub(super) mod token {
    use data_encoding::BASE64URL_NOPAD;
    use p2p_sync_core::ids::EventId;

    use crate::ledger_query::{LedgerOrder, LedgerPlace, LedgerQuery};

    /// Bytes of the hash of a question.
    const BOUND: usize = 8;
    /// Bytes of a token.
    const LEN: usize = BOUND + 8 + EventId::LEN;

    /// Returns the token of the page after a place.
    pub(in crate::control) fn write(query: &LedgerQuery, place: LedgerPlace) -> String {
        let bytes = [&bound(query)[..], &place.key.to_be_bytes(), place.id.as_bytes()].concat();
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Reads a token back; `None` if it is none, or of another question.
    pub(in crate::control) fn read(query: &LedgerQuery, token: &str) -> Option<LedgerPlace> {
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let bytes: [u8; LEN] = bytes.try_into().ok()?;
        let (bound, rest) = bytes.split_first_chunk::<BOUND>()?;
        let (key, id) = rest.split_first_chunk::<8>()?;
        (*bound == self::bound(query)).then_some(LedgerPlace {
            key: u64::from_be_bytes(*key),
            id: EventId::from_slice(id).ok()?,
        })
    }

    fn bound(query: &LedgerQuery) -> [u8; BOUND] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[
            u8::from(query.order == LedgerOrder::Clock),
            u8::from(query.newest_first),
            u8::from(query.since_ms.is_some()),
            u8::from(query.device.is_some()),
        ]);
        hasher.update(&query.since_ms.unwrap_or_default().to_be_bytes());
        if let Some(device) = query.device {
            hasher.update(device.as_bytes());
        }
        if let Some(path) = &query.path {
            hasher.update(path.as_bytes());
        }
        let mut bound = [0; BOUND];
        bound.copy_from_slice(&hasher.finalize().as_bytes()[..BOUND]);
        bound
    }
}
