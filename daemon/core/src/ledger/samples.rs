//! A small ledger for tests, and the keys of those who write it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ed25519_dalek::SigningKey;

use super::event::{Body, EventKind, Header, Seen, SignedEvent};
use super::item::{Genesis, Grant, GrantVia, Invite, Item, Put, PutFlags};
use super::proof::Source;
use super::{LogState, grant_message};
use crate::access::{GrantFlags, Role, Scopes};
use crate::ids::{ContentHash, DeviceId, EventId, GroupId, ShortId};
use crate::rel_path::RelPath;
use crate::signature;
use crate::tree::{Entry, Node};

/// A ledger in memory, and the keys of those who write it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) group: GroupId,
    pub(super) logs: Vec<LogState>,
    pub(super) arrived: Vec<(ShortId, Header, SignedEvent)>,
    /// How many events the branches of a log share, for a source of proofs to say.
    pub(super) forked: BTreeMap<ShortId, u64>,
}

pub(super) fn key(n: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(n).expect("few devices") + 1; 32])
}

pub(super) fn device(n: usize) -> DeviceId {
    DeviceId::new(key(n).verifying_key().to_bytes())
}

pub(super) fn put(path: &str) -> Item {
    let entry = Entry {
        node: Node::File {
            content: ContentHash::of(path.as_bytes()),
            size: 41_200,
        },
        mode: 0o644,
        mtime_ns: 1_700_000_000_123_456_789,
    };
    Item::Put(Put {
        path: RelPath::parse(path).expect("a path of our making"),
        entry,
        base: Vec::new(),
        flags: PutFlags::default(),
        moved_from: None,
    })
}

pub(super) fn grant(n: usize, role: Role) -> Item {
    Item::Grant(Grant {
        device: device(n),
        role,
        name: format!("device {n}"),
        via: GrantVia::Author,
        scopes: Scopes::whole(),
        flags: GrantFlags::default(),
        person: None,
    })
}

/// Whose key recovers the group.
const RECOVERY: usize = 7;

impl World {
    pub(super) const fn recovery(&self) -> usize {
        RECOVERY
    }

    /// A group of one, whose owner is device 0.
    pub(super) fn founded() -> Self {
        let mut world = Self {
            group: GroupId::new([0; 32]),
            logs: (0..8).map(|n| LogState::empty(device(n))).collect(),
            arrived: Vec::new(),
            forked: BTreeMap::new(),
        };
        let genesis = Item::Genesis(Genesis {
            name: "home".into(),
            recovery: *device(RECOVERY).as_bytes(),
        });
        world.publish(0, EventKind::Genesis, vec![genesis, grant(0, Role::Owner)]);
        world.group = world.arrived[0].2.id().as_group();
        world
    }

    /// Device `n` publishes, having seen all there is.
    pub(super) fn publish(&mut self, n: usize, kind: EventKind, items: Vec<Item>) -> u64 {
        let own = self.logs[n].clone();
        let unseen = |log: &&LogState| {
            let short = log.author.short();
            log.author != own.author && own.seen.get(&short).copied().unwrap_or(0) < log.size()
        };
        let mut seen: Vec<Seen> = (self.logs.iter().filter(unseen))
            .map(|log| Seen {
                device: log.author.short(),
                next_seq: log.size(),
                id16: log.last_id.id16(),
            })
            .collect();
        seen.sort_by_key(|seen| seen.device);
        let newest = self.logs.iter().map(|log| log.hlc).max().expect("there are logs");
        let header = Header {
            author: device(n),
            seq: own.size(),
            prev_root: own.peaks.root(),
            hlc: newest.next(1_700_000_000_000),
            wall_ms: 1_700_000_000_000 + self.arrived.len() as u64,
            seen,
            kind,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let body = Body { seed: [7; 16], items };
        let (signed, _) = SignedEvent::sign(&key(n), &self.group, header, &body);
        let read = signed.read_stored().expect("an event of our making");
        let seen = read.header.seen.iter().map(|seen| (seen.device, seen.next_seq));
        let seen: Vec<_> = seen.collect();
        self.logs[n].push(read.id, &read.header, &seen);
        self.arrived.push((device(n).short(), read.header, signed));
        own.size()
    }

    pub(super) fn work(&mut self, n: usize, path: &str) -> u64 {
        self.publish(n, EventKind::Work, vec![put("other"), put(path)])
    }

    /// Device `n` redeems an invite of device 0's that device `by` admits it with.
    pub(super) fn invited(&mut self, n: usize, by: usize, role: Role) {
        let secret = SigningKey::from_bytes(&[99; 32]);
        let invite_key = secret.verifying_key().to_bytes();
        self.publish(0, EventKind::Admin, vec![invite(invite_key, role)]);
        let via = GrantVia::Invite {
            key: invite_key,
            sig: signature::sign(&secret, &grant_message(&self.group, &device(n))),
        };
        let redeemed = Item::Grant(Grant {
            device: device(n),
            role,
            name: format!("device {n}"),
            via,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
            person: None,
        });
        self.publish(by, EventKind::Admin, vec![redeemed]);
    }
}

impl Source for World {
    type Error = Infallible;

    fn event(&self, author: ShortId, seq: u64) -> Result<Option<SignedEvent>, Infallible> {
        let mut all = self.arrived.iter();
        let found = all.find(|(short, header, _)| (*short, header.seq) == (author, seq));
        Ok(found.map(|(.., event)| event.clone()))
    }

    fn shared(&self, author: ShortId) -> Result<Option<u64>, Infallible> {
        Ok(self.forked.get(&author).copied())
    }

    fn newest(&self, author: ShortId) -> Result<Option<SignedEvent>, Infallible> {
        let last = self.arrived.iter().rev().find(|(short, ..)| *short == author);
        Ok(last.map(|(.., event)| event.clone()))
    }

    fn ids(&self, author: ShortId, size: u64, each: &mut dyn FnMut(EventId)) -> Result<(), Infallible> {
        let own = self
            .arrived
            .iter()
            .filter(|(short, h, _)| *short == author && h.seq < size);
        own.for_each(|(.., event)| each(event.id()));
        Ok(())
    }

    fn admin_events(&self) -> Result<Vec<SignedEvent>, Infallible> {
        let admin = self
            .arrived
            .iter()
            .filter(|(_, header, _)| header.kind.code() <= 1);
        Ok(admin.map(|(.., event)| event.clone()).collect())
    }

    fn first_sight(
        &self,
        by: ShortId,
        of: ShortId,
        seq: u64,
        below: u64,
    ) -> Result<Option<SignedEvent>, Infallible> {
        let saw = |header: &Header| header.seen.iter().any(|s| s.device == of && s.next_seq > seq);
        let mut own = self.arrived.iter().filter(|(short, ..)| *short == by);
        let first = own.find(|(_, header, _)| header.seq < below && saw(header));
        Ok(first.map(|(.., event)| event.clone()))
    }

    fn sights(&self, of: ShortId, seq: u64) -> Result<Vec<SignedEvent>, Infallible> {
        let mut first = BTreeMap::new();
        for (short, header, event) in &self.arrived {
            if header.seen.iter().any(|s| s.device == of && s.next_seq > seq) {
                first.entry(*short).or_insert_with(|| event.clone());
            }
        }
        Ok(first.into_values().collect())
    }
}

fn invite(key: [u8; 32], role: Role) -> Item {
    Item::Invite(Invite {
        key,
        role,
        expires_ms: None,
        max_uses: 1,
        scopes: Scopes::whole(),
        person: None,
    })
}

/// Owner 0 invites admin 1, who admits editor 2; both have logs of some length, and 2's Put was seen by both.
pub(super) fn grown() -> (World, u64) {
    let mut world = World::founded();
    world.publish(0, EventKind::Admin, vec![grant(1, Role::Admin)]);
    world.work(1, "first");
    world.work(0, "second");
    world.invited(2, 1, Role::Editor);
    world.work(0, "third");
    world.work(1, "fourth");
    world.work(2, "fifth");
    let seq = world.work(2, "docs/plan.odt");
    world.work(2, "sixth");
    world.work(0, "seventh");
    world.work(1, "eighth");
    (world, seq)
}
