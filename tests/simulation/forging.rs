//! A device that signs what no honest daemon would: what the others make of it.

use ed25519_dalek::SigningKey;
use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{
    Cut, FolderState, InboundId, Input, MembersCommand, MembersReply, Notification, Reply, Request, Response,
    StateView, Verdict,
};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::{
    Body, EventKind, Genesis, Grant, GrantVia, Header, Invite, Item, Keep, LogState, Put, PutFlags, Revoke,
    Seen, SignedEvent,
};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Node};

use crate::desk::{Desk, File};

impl Desk {
    /// Signs the next event of a device's log, which its engine does not hear of, and shows it to others.
    pub(crate) fn forge(
        &mut self,
        by: usize,
        kind: EventKind,
        items: Vec<Item>,
        hlc: Option<Hlc>,
        to: &[usize],
    ) {
        let event = self.sign(by, kind, items, hlc);
        let from = self.seats[by].id();
        for other in to {
            self.disconnect(by, *other);
            let id = InboundId(1_000_000);
            let request = Request::Push {
                events: vec![event.clone()],
            };
            self.tell(*other, Input::Request { from, id, request });
            assert_eq!(self.answers.remove(&id), Some(Response::Ack));
        }
    }

    /// The log of a device as another knows it.
    pub(crate) fn log(&self, on: usize, of: usize) -> LogState {
        let id = self.seats[of].id();
        let known = self.seats[on].store.recover().logs.remove(&id.short());
        known.unwrap_or_else(|| LogState::empty(id))
    }

    fn sign(&self, by: usize, kind: EventKind, items: Vec<Item>, hlc: Option<Hlc>) -> SignedEvent {
        // What the forger signed before, the others know only.
        let teller = usize::from(by == 0);
        let log = self.log(teller, by);
        let logs = self.seats[teller].store.recover().logs;
        let newest = logs.values().map(|log| log.hlc).max().unwrap_or_default();
        let is_new = |other: &&LogState| {
            let seen = log.seen.get(&other.author.short());
            other.author != log.author && seen.is_none_or(|seen| *seen < other.size())
        };
        let seen = logs.values().filter(is_new).map(|log| Seen {
            device: log.author.short(),
            next_seq: log.size(),
            id16: log.last_id.id16(),
        });
        let header = Header {
            author: log.author,
            seq: log.size(),
            prev_root: log.peaks.root(),
            hlc: hlc.unwrap_or_else(|| newest.next(0)),
            wall_ms: 0,
            seen: seen.collect(),
            kind,
            n_items: 0,
            body_len: 0,
            body_root: [0; 32],
        };
        let body = Body { seed: [0; 16], items };
        let group = self.seats[teller].group().expect("a group");
        let key = SigningKey::from_bytes(&self.seats[by].secret());
        SignedEvent::sign(&key, &group, header, &body).0
    }

    /// What a device says of an event of another's log.
    fn verdict(&self, on: usize, of: usize, seq: u64) -> Verdict {
        let log = self.seats[of].id().short();
        let stored = self.seats[on].store.durable().event(log, seq).expect("an event");
        let event = stored.event.read_stored().expect("well-formed");
        self.seats[on].engine.verdict(log, &event)
    }

    /// How often a device told its users that another wanted what it may not.
    fn denials(&self, on: usize) -> usize {
        let notified = self.seats[on].notified.iter();
        notified
            .filter(|news| matches!(news, Notification::Denied { .. }))
            .count()
    }
}

fn put(at: &str) -> Item {
    Item::Put(Put {
        path: path(at),
        entry: Entry {
            node: Node::Dir,
            mode: 0o755,
            mtime_ns: 1,
        },
        base: Vec::new(),
        flags: PutFlags::default(),
        moved_from: None,
    })
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("well-formed")
}

fn file(number: u64) -> Option<File> {
    Some(File {
        ino: number,
        content: number,
    })
}

fn revoke(device: DeviceId) -> Item {
    Item::Revoke(Revoke {
        device,
        keep: Keep::Heads(Vec::new()),
        reason: String::new(),
    })
}

fn invite(role: Role) -> Item {
    Item::Invite(Invite {
        key: [8; 32],
        role,
        expires_ms: None,
        max_uses: 1,
        scopes: Scopes::whole(),
        person: None,
    })
}

fn stranger() -> DeviceId {
    DeviceId::new(SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes())
}

fn grant(role: Role) -> Item {
    Item::Grant(Grant {
        device: stranger(),
        role,
        name: String::new(),
        via: GrantVia::Author,
        scopes: Scopes::whole(),
        flags: GrantFlags::default(),
        person: None,
    })
}

#[test]
fn people_hear_of_each_admin_event_that_its_author_has_no_right_to() {
    for role in [Role::Viewer, Role::Editor, Role::Admin] {
        let mut desk = Desk::three(role, Role::Admin);
        desk.invite(0, Role::Admin);
        desk.report(2, &[(path("a"), file(1))]);
        desk.pass(10_000);
        let Ok(Reply::Members(MembersReply::Invites(open))) = desk.members(0, MembersCommand::ListInvites)
        else {
            panic!("no list");
        };
        let open = open.into_iter().find(|invite| invite.is_open && invite.uses == 0);
        let (founder, device) = (desk.seats[0].id(), desk.seats[2].id());
        let forged = [
            grant(Role::Admin),
            invite(Role::Admin),
            Item::Cancel {
                key: open.expect("an invite").key,
            },
            revoke(device),
            revoke(founder),
        ];
        for (count, item) in (1..).zip(forged) {
            desk.forge(1, EventKind::Admin, vec![item.clone()], None, &[0, 2]);
            assert_eq!(
                (desk.denials(0), desk.denials(2)),
                (count, count),
                "{role}: {item:?}"
            );
        }
        desk.pass(10_000);
        assert_eq!(
            (desk.role(0), desk.role(2)),
            (Some(Role::Owner), Some(Role::Admin))
        );
    }
}

#[test]
fn nobody_hears_of_what_an_owner_or_an_admin_may_do() {
    for by in [0, 1] {
        let mut desk = Desk::three(Role::Admin, Role::Editor);
        let ticket = desk.invite(by, Role::Viewer);
        let Ok(Reply::Members(MembersReply::Invites(open))) = desk.members(by, MembersCommand::ListInvites)
        else {
            panic!("no list");
        };
        let open = open
            .into_iter()
            .find(|invite| invite.uses == 0)
            .expect("an invite");
        let cancel = MembersCommand::CancelInvite { key: open.key };
        desk.members(by, cancel).expect("cancelled");
        drop(ticket);
        desk.forge(
            by,
            EventKind::Admin,
            vec![grant(Role::Editor)],
            None,
            &[1 - by, 2],
        );
        desk.connect(0, 1);
        desk.connect(by, 2);
        desk.pass(10_000);
        desk.remove(by, 2, None).expect("removed");
        desk.pass(10_000);
        // Once more: nothing is left to end, and no harm in saying so.
        let device = desk.seats[2].id();
        desk.forge(by, EventKind::Admin, vec![revoke(device)], None, &[1 - by]);
        desk.pass(10_000);
        assert_eq!((desk.denials(0), desk.denials(1)), (0, 0), "by {by}");
    }
}

#[test]
fn a_viewer_cannot_end_the_clock_of_a_group() {
    for bits in [u64::MAX, u64::MAX - 1, u64::MAX / 2, u64::MAX / 2 + 1] {
        let mut desk = Desk::three(Role::Viewer, Role::Editor);
        let named = vec![Item::Name("late".to_owned())];
        desk.forge(1, EventKind::Admin, named, Some(Hlc::from_bits(bits)), &[0, 2]);
        for number in 1..4 {
            desk.report(0, &[(path(&format!("by 0, {number}")), file(number))]);
            desk.pass(10_000);
            desk.report(2, &[(path(&format!("by 2, {number}")), file(number))]);
            desk.pass(10_000);
        }
        for number in 1..4 {
            for index in [0, 2] {
                let theirs = path(&format!("by {}, {number}", 2 - index));
                let state = desk.seats[index].store.durable().path_state(&theirs);
                assert!(
                    state.is_some_and(|state| state.is_live()),
                    "{bits:x}: {theirs} on {index}"
                );
            }
        }
    }
}

#[test]
fn the_first_event_of_another_group_takes_no_place_in_a_members_log() {
    let mut desk = Desk::three(Role::Viewer, Role::Editor);
    let sizes = [desk.log(0, 1).size(), desk.log(2, 1).size()];
    assert_eq!(sizes, [0, 0], "a viewer that said nothing yet");
    // Such an event names no group: it was signed when the device founded its own, and anybody can show it.
    let genesis = Item::Genesis(Genesis {
        name: "another".to_owned(),
        recovery: [7; 32],
    });
    desk.forge(1, EventKind::Genesis, vec![genesis], None, &[0, 2]);
    let name = "renamed".to_owned();
    desk.members(1, MembersCommand::Rename { name: name.clone() })
        .expect("named");
    desk.connect(0, 1);
    desk.connect(1, 2);
    desk.pass(60_000);
    let device = desk.seats[1].id();
    for index in [0, 2] {
        let Ok(Reply::Members(MembersReply::Members(members))) = desk.members(index, MembersCommand::List)
        else {
            panic!("no list");
        };
        let found = members.into_iter().find(|member| member.device == device);
        assert_eq!(
            found.map(|member| member.name).as_ref(),
            Some(&name),
            "on {index}"
        );
        assert!(desk.state(index) == FolderState::InSync, "device {index}");
    }
}

#[test]
fn a_removed_admin_lets_nobody_in_by_an_event_in_the_place_of_another() {
    let mut desk = Desk::three(Role::Admin, Role::Editor);
    for number in 1..4 {
        desk.report(1, &[(path("a"), file(number))]);
        desk.pass(10_000);
    }
    let log = desk.log(0, 1);
    assert!(log.size() >= 3, "{log:?}");
    desk.remove(0, 1, None).expect("removed");
    desk.pass(10_000);
    let header = Header {
        author: log.author,
        seq: log.size() - 1,
        prev_root: log.peaks.root(),
        hlc: log.hlc,
        wall_ms: 0,
        seen: Vec::new(),
        kind: EventKind::Admin,
        n_items: 0,
        body_len: 0,
        body_root: [0; 32],
    };
    let (seed, items) = ([0; 16], vec![grant(Role::Editor)]);
    let group = desk.seats[0].group().expect("a group");
    let key = SigningKey::from_bytes(&desk.seats[1].secret());
    let (forged, _) = SignedEvent::sign(&key, &group, header, &Body { seed, items });
    let way = desk.seats[0].store.recover().admin_events.into_iter();
    let events: Vec<SignedEvent> = way.map(|stored| stored.event).chain([forged]).collect();
    let (from, id) = (stranger(), InboundId(1_000_000));
    for index in [0, 2] {
        let request = Request::Present {
            events: events.clone(),
        };
        desk.tell(index, Input::Request { from, id, request });
        let answer = desk.answers.remove(&id);
        // It may hear of the removal that makes its way in void.
        assert!(
            matches!(answer, Some(Response::Refused(_) | Response::Removed { .. })),
            "{index}: {answer:?}"
        );
    }
}

#[test]
fn who_was_let_in_by_an_admin_that_is_removed_at_the_same_time_gets_nothing_any_more() {
    let mut desk = Desk::three(Role::Admin, Role::Editor);
    let event = desk.sign(1, EventKind::Admin, vec![grant(Role::Editor)], None);
    let way = desk.seats[2].store.recover().admin_events.into_iter();
    let events: Vec<SignedEvent> = way.map(|stored| stored.event).chain([event]).collect();
    let (from, id) = (stranger(), InboundId(1_000_000));
    desk.tell(
        2,
        Input::Request {
            from,
            id,
            request: Request::Present { events },
        },
    );
    assert!(matches!(
        desk.answers.remove(&id),
        Some(Response::Accepted { .. })
    ));
    // Nobody has the event itself when its author is removed, and so it counts no more.
    desk.remove(0, 1, None).expect("removed");
    desk.pass(10_000);
    let digest = [0; 32];
    desk.tell(
        2,
        Input::Request {
            from,
            id,
            request: Request::Heads { digest },
        },
    );
    let answer = desk.answers.remove(&id);
    assert!(matches!(answer, Some(Response::Refused(_))), "{answer:?}");
}

#[test]
fn of_each_event_is_known_in_which_role_it_was_made_and_what_of_it_counts() {
    let mut desk = Desk::three(Role::Editor, Role::Viewer);
    let name = Item::Name("n".to_owned());
    let said: [(EventKind, Vec<Item>, &[u32]); 8] = [
        (EventKind::Work, vec![put("a"), put("b")], &[]),
        // One event says one thing of a path.
        (EventKind::Work, vec![put("c"), put("c")], &[1]),
        (EventKind::Admin, vec![name.clone(), grant(Role::Viewer)], &[1]),
        (EventKind::Admin, vec![name.clone()], &[]),
        (EventKind::Admin, vec![], &[]),
        // Each kind of event says its own things only.
        (EventKind::Work, vec![name], &[0]),
        (
            EventKind::Admin,
            vec![put("d"), revoke(desk.seats[2].id())],
            &[0, 1],
        ),
        (EventKind::Work, vec![put("e")], &[]),
    ];
    let first = desk.log(0, 1).size();
    for (kind, items, _) in &said {
        desk.forge(1, *kind, items.clone(), None, &[0, 2]);
    }
    desk.forge(2, EventKind::Work, vec![put("f")], None, &[0]);
    let editors = |(_, items, void): &(EventKind, Vec<Item>, &[u32])| Verdict {
        role: Some(Role::Editor),
        void: void.to_vec(),
        is_void: !void.is_empty() && void.len() == items.len(),
    };
    let expected: Vec<Verdict> = said.iter().map(editors).collect();
    let judged = |desk: &Desk, on| -> Vec<Verdict> {
        let seqs = (first..).take(said.len());
        seqs.map(|seq| desk.verdict(on, 1, seq)).collect()
    };
    assert_eq!(
        (judged(&desk, 0), judged(&desk, 2)),
        (expected.clone(), expected.clone())
    );
    let viewers = Verdict {
        role: Some(Role::Viewer),
        void: vec![0],
        is_void: true,
    };
    assert_eq!(desk.verdict(0, 2, 0), viewers);

    desk.connect(0, 2);
    desk.remove(0, 1, Some(Cut::Number(first + 1))).expect("removed");
    desk.pass(10_000);
    for on in [0, 2] {
        let now = judged(&desk, on);
        assert_eq!(now[0], expected[0], "on {on}");
        for (verdict, (_, items, _)) in now.iter().zip(&said).skip(1) {
            // What somebody calls himself needs no right.
            let counts = items.iter().any(|item| matches!(item, Item::Name(_)));
            assert_eq!(verdict.role, None, "on {on}: {items:?}");
            assert!(verdict.is_void || counts, "on {on}: {items:?}");
        }
        assert_eq!(now[7].void, [0], "on {on}");
    }
}
