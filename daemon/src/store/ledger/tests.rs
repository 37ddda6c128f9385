//! The ledger's pages against a sorted list, and damage done to the file behind the store's back.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use ed25519_dalek::SigningKey;
use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{Batch, BatchNo, StoredEvent, Write};
use p2p_sync_core::fold::{PathState, Standing, Version};
use p2p_sync_core::ids::{ContentHash, DeviceId, GroupId};
use p2p_sync_core::ledger::audit::Depth;
use p2p_sync_core::ledger::proof::{check, make};
use p2p_sync_core::ledger::{
    Body, EventKind, Genesis, Grant, GrantVia, Item, LogState, Put, PutFlags, Seen, SignedEvent,
};
use p2p_sync_core::tree::{Entry, Node};
use tempfile::TempDir;

use super::*;
use crate::store::Store;

/// A ledger in a store, and the keys of those who write it.
struct World {
    _dir: TempDir,
    path: PathBuf,
    reader: LedgerReader,
    group: GroupId,
    logs: Vec<LogState>,
    /// Arrived so, with its clock.
    events: Vec<(StoredEvent, u64)>,
    writes: Vec<Write>,
}

fn key(n: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(n).unwrap() + 1; 32])
}

fn device(n: usize) -> DeviceId {
    DeviceId::new(key(n).verifying_key().to_bytes())
}

fn rel(text: &str) -> RelPath {
    RelPath::parse(text).unwrap()
}

fn entry() -> Entry {
    Entry {
        node: Node::File {
            content: ContentHash::of(b"x"),
            size: 1,
        },
        mode: 0o644,
        mtime_ns: 0,
    }
}

fn put(path: &str) -> Item {
    Item::Put(Put {
        path: rel(path),
        entry: entry(),
        base: Vec::new(),
        flags: PutFlags::default(),
        moved_from: None,
    })
}

fn grant(n: usize, role: Role) -> Item {
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

impl World {
    /// Three devices, and `events` events of work, each of a file that each second event writes again.
    fn of(events: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        let store = Store::open(&path).unwrap();
        let mut world = Self {
            _dir: dir,
            path,
            reader: store.ledger().open().unwrap(),
            group: GroupId::new([0; 32]),
            logs: (0..3).map(|n| LogState::empty(device(n))).collect(),
            events: Vec::new(),
            writes: Vec::new(),
        };
        let genesis = Item::Genesis(Genesis {
            name: "home".into(),
            recovery: [6; 32],
        });
        world.publish(0, EventKind::Genesis, vec![genesis, grant(0, Role::Owner)]);
        world.group = world.events[0].0.id.as_group();
        let grants = vec![grant(1, Role::Admin), grant(2, Role::Editor)];
        world.publish(0, EventKind::Admin, grants);
        for n in 0..events {
            let path = format!("f{}", n / 2);
            world.publish(n % 3, EventKind::Work, vec![put("other"), put(&path)]);
        }
        world.persist(&store);
        world
    }

    fn publish(&mut self, n: usize, kind: EventKind, items: Vec<Item>) {
        let own = self.logs[n].clone();
        let mut seen: Vec<Seen> = (self.logs.iter())
            .filter(|log| log.author != own.author)
            .filter(|log| own.seen.get(&log.author.short()).copied().unwrap_or(0) < log.size())
            .map(|log| Seen {
                device: log.author.short(),
                next_seq: log.size(),
                id16: log.last_id.id16(),
            })
            .collect();
        seen.sort_by_key(|seen| seen.device);
        let newest = self.logs.iter().map(|log| log.hlc).max().unwrap();
        let wall_ms = 1_000_000 + 1_000 * self.events.len() as u64;
        let header = Header {
            author: device(n),
            seq: own.size(),
            prev_root: own.peaks.root(),
            hlc: newest.next(wall_ms),
            wall_ms,
            seen,
            kind,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let clock = header.hlc;
        let body = Body { seed: [7; 16], items };
        let (signed, id) = SignedEvent::sign(&key(n), &self.group, header, &body);
        let read = signed.read_stored().unwrap();
        let stored = StoredEvent {
            log: device(n).short(),
            author: device(n),
            seq: own.size(),
            id,
            kind: kind.code(),
            event: signed,
        };
        self.writes.push(Write::Event(stored.clone()));
        for (i, item) in (0..).zip(&read.body.items) {
            let Item::Put(put) = item else { continue };
            let dot = Dot {
                device: device(n).short(),
                seq: own.size(),
                item: i,
            };
            let version = Version {
                dot,
                event: id,
                hlc: clock,
                entry: Some(put.entry.clone()),
                base: Vec::new(),
                import: false,
                origins: Vec::new(),
                standing: Standing::default(),
            };
            let state = PathState {
                heads: vec![version.clone()],
                ..PathState::default()
            };
            self.writes
                .push(Write::Version(put.path.clone(), dot, Some(version)));
            self.writes.push(Write::PathState(put.path.clone(), Some(state)));
        }
        let seen = read.header.seen.iter().map(|seen| (seen.device, seen.next_seq));
        self.logs[n].push(read.id, &read.header, &seen.collect::<Vec<_>>());
        self.events.push((stored, clock.wall_ms()));
    }

    fn persist(&mut self, store: &Store) {
        let mut writes = std::mem::take(&mut self.writes);
        let logs = self.logs.iter().map(|log| (log.author.short(), log.clone()));
        writes.extend(logs.map(|(short, log)| Write::Log(short, log)));
        let (sender, reports) = channel();
        let writer = store.writer(move |report| sender.send(report).unwrap()).unwrap();
        let no = BatchNo(1);
        writer.submit(Batch { no, writes }).unwrap();
        reports.recv().unwrap().unwrap();
    }

    fn ids(&self, wanted: impl Fn(&StoredEvent, u64) -> bool) -> Vec<EventId> {
        let events = self.events.iter();
        let events = events.filter(|(event, clock_ms)| wanted(event, *clock_ms));
        events.map(|(event, _)| event.id).collect()
    }

    /// Reads all pages of a query, `limit` events each.
    fn all(&self, mut query: LedgerQuery) -> Vec<EventId> {
        let mut ids = Vec::new();
        loop {
            let page = self.reader.page(&query).unwrap();
            assert!(page.events.len() <= query.limit);
            ids.extend(page.events.iter().map(|event| event.stored.id));
            query.after = page.next;
            if page.next.is_none() {
                return ids;
            }
        }
    }

    fn audit(&self, depth: Depth) -> Vec<String> {
        let mut faults = Vec::new();
        let end = self.reader.audit(self.group, depth, |step| {
            faults.extend(
                step.faults
                    .iter()
                    .map(|fault| format!("{}: {}", fault.seq, fault.what)),
            );
            true
        });
        assert!(matches!(end, Ok(AuditEnd::Done { .. })), "{end:?}");
        faults
    }
}

fn queries() -> Vec<LedgerQuery> {
    let mut queries = Vec::new();
    for order in [LedgerOrder::Arrival, LedgerOrder::Clock] {
        for newest_first in [false, true] {
            for limit in [1, 4, 100] {
                queries.push(LedgerQuery {
                    order,
                    newest_first,
                    device: None,
                    path: None,
                    since_ms: None,
                    after: None,
                    limit,
                });
            }
        }
    }
    queries
}

fn check_all(world: &World, query: &LedgerQuery, mut expected: Vec<EventId>) {
    if query.newest_first {
        expected.reverse();
    }
    assert_eq!(world.all(query.clone()), expected, "{query:?}");
}

#[test]
fn pages_follow_each_other_in_either_order_whatever_is_left_out() {
    let world = World::of(20);
    for query in queries() {
        check_all(&world, &query, world.ids(|_, _| true));
        for n in 0..4 {
            let wanted = Some(device(n).short());
            let query = LedgerQuery {
                device: wanted,
                ..query.clone()
            };
            check_all(&world, &query, world.ids(|e, _| Some(e.author.short()) == wanted));
        }
        for since in [0, 1_000_000, 1_010_500, 1_011_000, 9_000_000] {
            let query = LedgerQuery {
                since_ms: Some(since),
                device: Some(device(1).short()),
                ..query.clone()
            };
            let of = |e: &StoredEvent, clock| clock >= since && e.author == device(1);
            check_all(&world, &query, world.ids(of));
            let query = LedgerQuery {
                device: None,
                ..query
            };
            check_all(&world, &query, world.ids(|_, clock| clock >= since));
        }
    }
}

#[test]
fn the_events_of_a_path_are_those_that_wrote_it() {
    let world = World::of(20);
    for query in queries() {
        let of_path = |path: &str| LedgerQuery {
            path: Some(rel(path)),
            ..query.clone()
        };
        check_all(
            &world,
            &of_path("f3"),
            world.ids(|e, _| e.id == world.events[8].0.id || e.id == world.events[9].0.id),
        );
        check_all(&world, &of_path("other"), world.ids(|e, _| e.kind == 2));
        check_all(&world, &of_path("none"), Vec::new());
        let filtered = LedgerQuery {
            device: Some(device(1).short()),
            since_ms: Some(1_010_000),
            ..of_path("other")
        };
        let of = |e: &StoredEvent, clock| e.author == device(1) && clock >= 1_010_000;
        check_all(&world, &filtered, world.ids(of));
    }
}

#[test]
fn an_event_is_found_by_the_beginning_of_its_id() {
    let world = World::of(5);
    for (event, _) in &world.events {
        let hex = event.id.to_hex();
        for len in [8, 9, 64] {
            let found = world.reader.events_with_id(&hex[..len]).unwrap();
            assert_eq!(found.len(), 1, "{len}");
            assert_eq!(found[0].stored, *event);
        }
    }
    assert_eq!(world.reader.events_with_id("").unwrap().len(), 2);
    for odd in ["zz", "000000000000000000", &"0".repeat(65)] {
        assert_eq!(world.reader.events_with_id(odd).unwrap(), []);
    }
}

#[test]
fn what_arrives_is_read_one_after_the_other() {
    let world = World::of(5);
    let (mut after, mut ids) = (0, Vec::new());
    while let Some(event) = world.reader.next_arrived(after).unwrap() {
        after = event.arrival;
        ids.push(event.stored.id);
    }
    assert_eq!(ids, world.ids(|_, _| true));
    assert_eq!(world.reader.extent().unwrap(), (7, after));
}

#[test]
fn the_version_at_a_path_is_proven_from_the_store() {
    let world = World::of(30);
    let dot = world.reader.winner(&rel("f9")).unwrap().unwrap();
    let bytes = make(&world.reader, world.group, dot.device, dot.seq, dot.item).unwrap();
    let statement = check(&bytes, world.group).unwrap();
    assert_eq!((statement.item, statement.dot), (put("f9"), dot));
    assert_eq!(statement.seen_by.len(), 2, "{:?}", statement.seen_by);
    assert_eq!(world.reader.winner(&rel("none")).unwrap(), None);
}

fn tamper(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    connection
}

#[test]
fn a_sound_ledger_is_found_sound() {
    let world = World::of(20);
    for depth in [Depth::Fast, Depth::Full] {
        assert_eq!(world.audit(depth), [""; 0]);
    }
}

#[test]
fn one_flipped_bit_anywhere_in_a_stored_event_is_found() {
    let world = World::of(4);
    let other = tamper(&world.path);
    let arrival = 4;
    for column in ["header", "sig", "body", "id", "author", "short"] {
        let read = format!("SELECT {column} FROM events WHERE arrival = {arrival}");
        let write = format!("UPDATE events SET {column} = ?1 WHERE arrival = {arrival}");
        let good: Vec<u8> = other.query_row(&read, [], |row| row.get(0)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            other.execute(&write, [&bad]).unwrap();
            let faults = world.audit(Depth::Full);
            assert!(!faults.is_empty(), "bit {bit} of {column}");
        }
        other.execute(&write, [&good]).unwrap();
    }
    for column in ["seq", "kind"] {
        for bit in 0..63 {
            let n = 1_u64 << bit;
            // SQLite has no exclusive or.
            let sql = format!(
                "UPDATE events SET {column} = ({column} | {n}) - ({column} & {n}) WHERE arrival = {arrival}"
            );
            if other.execute(&sql, []).is_err() {
                // Another event stands at that place.
                continue;
            }
            assert!(!world.audit(Depth::Full).is_empty(), "bit {bit} of {column}");
            other.execute(&sql, []).unwrap();
        }
    }
    assert_eq!(world.audit(Depth::Full), [""; 0], "all was put back");
}

#[test]
fn a_removed_event_and_a_forged_log_end_are_found() {
    let world = World::of(8);
    let other = tamper(&world.path);
    other.execute("DELETE FROM events WHERE arrival = 5", []).unwrap();
    for depth in [Depth::Fast, Depth::Full] {
        let faults = world.audit(depth);
        assert!(
            faults.iter().any(|fault| fault.contains("before it are missing")),
            "{faults:?}"
        );
    }
    let world = World::of(8);
    let other = tamper(&world.path);
    other.execute("UPDATE logs SET state = x'00'", []).unwrap();
    assert_eq!(
        world.audit(Depth::Fast).len(),
        3,
        "{:?}",
        world.audit(Depth::Fast)
    );
}

#[test]
fn an_audit_ends_when_nobody_listens_and_when_the_ledger_is_another() {
    let world = World::of(8);
    let stopped = world.reader.audit(world.group, Depth::Full, |_| false);
    assert_eq!(stopped.unwrap(), AuditEnd::Stopped);
    let other = tamper(&world.path);
    let replaced = world.reader.audit(world.group, Depth::Full, |_| {
        other.execute("DELETE FROM events WHERE arrival = 1", []).unwrap();
        true
    });
    assert_eq!(replaced.unwrap(), AuditEnd::Replaced);
}
