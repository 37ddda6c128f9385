//! Real headers, bodies and proofs, from which a search begins.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::access::{GrantFlags, Role, Scopes};
use crate::ids::{Dot, ShortId};
use crate::ledger::event::{Body, EventKind, Header};
use crate::ledger::item::{
    EndReason, Grant, GrantVia, Invite, Item, Keep, LockBreak, LockEnd, LockGrant, LogHead, Put, PutFlags,
    Revoke, SealedSlots, Voters,
};
use crate::ledger::person::Person;
use crate::ledger::proof::make;
use crate::ledger::samples::{World, device, grown, put};
use crate::lock::{Nonce, Resource, Token, Vote};
use crate::rel_path::RelPath;
use crate::tree::{Entry, Node};

/// Returns the headers of a small ledger.
#[must_use]
pub fn headers() -> Vec<Vec<u8>> {
    let (world, _) = ledger();
    let mut all: Vec<Vec<u8>> = (world.arrived.iter())
        .map(|(.., event)| event.header.to_vec())
        .collect();
    let mut unknown = Header::from_bytes(&all[0]).expect("a header of our making");
    unknown.kind = EventKind::Unknown(0x8001);
    all.push(unknown.to_bytes());
    all
}

/// Returns bodies with an item of each kind.
#[must_use]
pub fn bodies() -> Vec<Vec<u8>> {
    let (world, _) = ledger();
    let mut all: Vec<Vec<u8>> = (world.arrived.iter())
        .map(|(.., event)| event.body.to_vec())
        .collect();
    let body = |items| Body { seed: [1; 16], items }.to_bytes();
    all.extend(items().into_iter().map(|item| body(vec![item])));
    all.push(body(items()));
    all.push(body(vec![Item::Unknown { tag: 127 }, Item::Unknown { tag: 128 }]));
    all.push(body(Vec::new()));
    all
}

/// Returns proofs of items of a small ledger.
#[must_use]
pub fn proofs() -> Vec<Vec<u8>> {
    let (world, _) = ledger();
    let each =
        |(author, header, _): &(ShortId, Header, _)| make(&world, world.group, *author, header.seq, 0).ok();
    world.arrived.iter().filter_map(each).collect()
}

fn ledger() -> (World, u64) {
    let (mut world, seq) = grown();
    world.publish(0, EventKind::Admin, items().into_iter().take(6).collect());
    (world, seq)
}

fn items() -> Vec<Item> {
    let path = |text: &str| RelPath::parse(text).expect("a path of our making");
    let dot = |item| Dot {
        device: ShortId::new([1; 8]),
        seq: 300,
        item,
    };
    let head = LogHead {
        size: 7,
        root: [6; 32],
    };
    let link = Node::Link {
        target: b"../there".to_vec(),
    };
    let version = |node, metadata: bool| {
        Item::Put(Put {
            path: path("a/b"),
            entry: Entry {
                node,
                mode: 0o755,
                mtime_ns: -5,
            },
            base: vec![dot(1), dot(70_000)],
            flags: PutFlags {
                import: !metadata,
                metadata,
            },
            moved_from: Some(path("c")),
        })
    };
    vec![
        Item::Grant(Grant {
            device: device(5),
            role: Role::Editor,
            name: "nas".into(),
            via: GrantVia::Invite {
                key: [3; 32],
                sig: [4; 64],
            },
            scopes: Scopes::new(vec![path("docs"), path("src/a")]).expect("scopes of our making"),
            flags: GrantFlags {
                admit: true,
                ..GrantFlags::default()
            },
            person: Person::parse("Anna").ok(),
        }),
        Item::Invite(Invite {
            key: [5; 32],
            role: Role::Admin,
            expires_ms: Some(1_700_000_000_000),
            max_uses: 3,
            scopes: Scopes::whole(),
            person: Person::parse("Anna").ok(),
        }),
        Item::Revoke(Revoke {
            device: device(5),
            keep: Keep::Heads(vec![head, head]),
            reason: "lost".into(),
        }),
        Item::Revoke(Revoke {
            device: device(5),
            keep: Keep::UntilSeen,
            reason: String::new(),
        }),
        Item::Cancel { key: [5; 32] },
        Item::Name("attic".into()),
        Item::Person {
            device: device(5),
            person: Person::parse("Anna").ok(),
        },
        Item::Person {
            device: device(5),
            person: None,
        },
        Item::Voters(Voters {
            epoch: 1,
            nonce: Nonce([3; 16]),
            voters: vec![device(5)],
            seals: Some(vec![SealedSlots {
                voter: device(6),
                sig: [4; 64],
                slots: BTreeMap::new(),
            }]),
        }),
        put("docs/plan.odt"),
        version(link, false),
        version(Node::Dir, true),
        Item::Del {
            path: path("a"),
            base: vec![dot(2)],
            moved_to: Some(path("b")),
        },
        Item::Discard {
            path: path("a"),
            drop: vec![dot(3), dot(4)],
        },
        Item::LockGrant(LockGrant {
            token: Token { epoch: 1, n: 57 },
            nonce: Nonce([3; 16]),
            ttl: Duration::from_mins(1),
            durable: true,
            resources: vec![Resource::parse(b"docs/").expect("a resource of our making")],
            votes: vec![Vote {
                voter: device(5),
                sig: [4; 64],
            }],
            until_ms: Some(1_750_000_000_000),
            note: "Figures".into(),
        }),
        Item::LockEnd(LockEnd {
            grant: dot(5),
            reason: EndReason::Lapsed,
        }),
        Item::LockBreak(LockBreak {
            grant: dot(5),
            reason: "left".into(),
        }),
    ]
}
