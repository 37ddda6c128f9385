//! `syncctl ledger check-proof`: the one command that needs no daemon, and the one place that uses the core.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use p2p_sync_core::access::{Role, Scopes};
use p2p_sync_core::ids::{DeviceId, Dot, GroupId};
use p2p_sync_core::ledger::proof::{self, MAX_PROOF, Member, ProofError, Statement};
use p2p_sync_core::ledger::{Grant, GrantVia, Item, Keep, LogHead, Person, Put, Revoke};
use p2p_sync_core::tree::Node;
use p2p_sync_proto::v1;
use p2p_sync_proto::v1::event_item::What;
use serde::Serialize;

use super::event::{ItemJson, seconds, words};
use crate::Session;
use crate::exit::{Exit, Failure};
use crate::output::{Stop, escape};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    group: String,
    event: String,
    seq: u64,
    author: MemberJson,
    time: String,
    hlc: String,
    item: ItemJson,
    log_size: u64,
    seen_by: Vec<SightingJson>,
    chain: Vec<StepJson>,
}

#[derive(Debug, Serialize)]
struct MemberJson {
    id: String,
    name: String,
    role: &'static str,
}

#[derive(Debug, Serialize)]
struct SightingJson {
    member: MemberJson,
    event: String,
    time: String,
}

#[derive(Debug, Serialize)]
struct StepJson {
    by: MemberJson,
    event: String,
    time: String,
    item: ItemJson,
}

pub(super) fn run(session: &mut Session<'_>, file: &Path, genesis: &str) -> Result<(), Stop> {
    let group = GroupId::from_hex(genesis).map_err(|e| {
        let text = format!("--genesis is no group id: {e}");
        Failure::new(Exit::Usage, "BAD_GENESIS", text)
            .hint("it has 64 digits; on a device of the group: syncctl ledger show --genesis")
    })?;
    let bytes = read(&session.around.current_dir.join(file))?;
    let statement = proof::check(&bytes, group).map_err(|error| broken(&error))?;
    session.out.answer(&json(&statement), || text(&statement))
}

/// Reads a proof, and no more than one may have.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = MAX_PROOF as u64 + 1;
    let done = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    done.map_err(|e| {
        let exit = match e.kind() {
            io::ErrorKind::PermissionDenied => Exit::NoPerm,
            _ => Exit::NoInput,
        };
        let text = format!("Cannot read {}: {e}", escape(path.as_os_str().as_bytes()));
        Failure::new(exit, "IO", text).hint("make one: syncctl ledger prove PATH -o FILE")
    })?;
    Ok(bytes)
}

fn broken(error: &ProofError) -> Failure {
    let mut text = format!("NOT PROVEN: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Failure::new(Exit::Data, "BAD_PROOF", text)
        .hint("the file was changed, or is of another group; ask whoever made it for a new one")
}

fn json(statement: &Statement) -> Json {
    Json {
        schema: "p2psync.ledger_check_proof/1",
        group: statement.group.to_hex(),
        event: statement.event.to_hex(),
        seq: statement.dot.seq,
        author: member(&statement.author),
        time: time(statement.wall_ms).to_string(),
        hlc: statement.hlc.bits().to_string(),
        item: ItemJson::of(&message(statement.dot.item, &statement.item)),
        log_size: statement.log_size,
        seen_by: (statement.seen_by.iter())
            .map(|sighting| SightingJson {
                member: member(&sighting.member),
                event: sighting.event.to_hex(),
                time: time(sighting.wall_ms).to_string(),
            })
            .collect(),
        chain: (statement.chain.iter())
            .map(|step| StepJson {
                by: member(&step.by),
                event: step.event.to_hex(),
                time: time(step.wall_ms).to_string(),
                item: ItemJson::of(&message(0, &step.item)),
            })
            .collect(),
    }
}

fn member(member: &Member) -> MemberJson {
    MemberJson {
        id: member.device.to_hex(),
        name: member.name.clone(),
        role: member.role.as_str(),
    }
}

fn text(statement: &Statement) -> String {
    let mut text = String::from("PROVEN\n");
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("What", said(&statement.item));
    if let Item::Put(Put { entry, .. }) = &statement.item
        && let Some(content) = entry.node.content()
    {
        line("Content", format!("BLAKE3 {content}"));
    }
    line("Who", who(&statement.author));
    let at = seconds(time(statement.wall_ms));
    line("When", format!("{at} by its own clock"));
    line("Event", statement.event.to_hex());
    let (seq, size) = (statement.dot.seq, statement.log_size);
    line("Number", format!("{seq} of at least {size} in its log"));
    for (i, step) in statement.chain.iter().enumerate() {
        let name = if i == 0 { "Role by" } else { "" };
        line(name, format!("{}: {}", who(&step.by), said(&step.item)));
    }
    for (i, sighting) in statement.seen_by.iter().enumerate() {
        let name = if i == 0 { "Seen by" } else { "" };
        let at = seconds(time(sighting.wall_ms));
        line(name, format!("{}, {at} by its clock", who(&sighting.member)));
    }
    text.push_str(
        "Not shown: whether a role was revoked meanwhile, and whether this is the newest version.\n",
    );
    text
}

fn who(member: &Member) -> String {
    if member.name.is_empty() {
        return format!("{}, {}", member.device, member.role);
    }
    let name = escape(member.name.as_bytes());
    format!("{name} ({}), {}", member.device, member.role)
}

fn said(item: &Item) -> String {
    let filled = words(&message(0, item))
        .into_iter()
        .filter(|word| !word.is_empty());
    filled.collect::<Vec<_>>().join("  ")
}

fn time(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1_000).unwrap_or_default(),
        nanos: i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default(),
    }
}

/// Returns an item as the daemon would send it.
fn message(index: u32, item: &Item) -> v1::EventItem {
    let what = match item {
        Item::Genesis(genesis) => What::Genesis(v1::GenesisItem {
            name: genesis.name.clone(),
            recovery_key: genesis.recovery.to_vec(),
        }),
        Item::Grant(grant) => What::Grant(granted(grant)),
        Item::Invite(invite) => What::Invite(v1::InviteItem {
            key: invite.key.to_vec(),
            role: role(invite.role).into(),
            expires_at: invite.expires_ms.map(time),
            max_uses: invite.max_uses,
            scopes: scopes(&invite.scopes),
            person: person(invite.person.as_ref()),
        }),
        Item::Revoke(revoke) => What::Revoke(revoked(revoke)),
        Item::Cancel { key } => What::Cancel(v1::CancelItem { key: key.to_vec() }),
        Item::Person { device, person } => What::Person(v1::PersonItem {
            device: Some(v1::Device {
                person: self::person(person.as_ref()),
                ..nameless(*device)
            }),
        }),
        Item::Name(name) => What::Name(v1::NameItem { name: name.clone() }),
        Item::Put(put) => What::Put(self::put(put)),
        Item::Del { path, base, moved_to } => What::Del(v1::DelItem {
            path: path.as_bytes().to_vec(),
            base: dots(base),
            moved_to: moved_to
                .as_ref()
                .map(|p| p.as_bytes().to_vec())
                .unwrap_or_default(),
        }),
        Item::Discard { path, drop } => What::Discard(v1::DiscardItem {
            path: path.as_bytes().to_vec(),
            dropped: dots(drop),
        }),
        // A proof of anything else is refused.
        _ => What::Other(v1::OtherItem::default()),
    };
    v1::EventItem {
        index,
        what: Some(what),
        void: false,
    }
}

fn granted(grant: &Grant) -> v1::GrantItem {
    let device = v1::Device {
        id: grant.device.to_hex(),
        name: grant.name.clone(),
        person: person(grant.person.as_ref()),
        ..Default::default()
    };
    v1::GrantItem {
        device: Some(device),
        role: role(grant.role).into(),
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

fn person(person: Option<&Person>) -> String {
    person.map(ToString::to_string).unwrap_or_default()
}

fn nameless(id: DeviceId) -> v1::Device {
    v1::Device {
        id: id.to_hex(),
        ..Default::default()
    }
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
    let (kind, content, target) = match &put.entry.node {
        Node::Dir => (v1::VersionKind::Directory, Vec::new(), Vec::new()),
        Node::Link { target } => (v1::VersionKind::Link, Vec::new(), target.clone()),
        Node::File { content, .. } => (v1::VersionKind::File, content.as_bytes().to_vec(), Vec::new()),
    };
    v1::PutItem {
        path: put.path.as_bytes().to_vec(),
        kind: kind.into(),
        size: put.entry.node.size(),
        content,
        target,
        mode: put.entry.mode,
        mtime_ns: put.entry.mtime_ns,
        base: dots(&put.base),
        is_import: put.flags.import,
        is_metadata: put.flags.metadata,
        moved_from: (put.moved_from.as_ref())
            .map(|p| p.as_bytes().to_vec())
            .unwrap_or_default(),
    }
}

fn dots(dots: &[Dot]) -> Vec<String> {
    let name = |dot: &Dot| format!("{}-{}-{}", dot.device.label(), dot.seq, dot.item);
    dots.iter().map(name).collect()
}

const fn role(role: Role) -> v1::Role {
    match role {
        Role::Viewer => v1::Role::Viewer,
        Role::Editor => v1::Role::Editor,
        Role::Admin => v1::Role::Admin,
        Role::Owner => v1::Role::Owner,
    }
}
