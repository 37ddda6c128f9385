//! Whose devices are whose: what is said of it, who may say it, and that all devices come to the same.

use ed25519_dalek::{Signer as _, SigningKey};
use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{Command, CommandError, MembersCommand, MembersReply, Reply};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::{EventKind, Grant, GrantVia, Item, Person};
use p2p_sync_core::ticket::Ticket;

use crate::desk::Desk;

fn person(text: &str) -> Option<Person> {
    Some(Person::parse(text).expect("a tag"))
}

impl Desk {
    fn set_person(&mut self, by: usize, of: usize, person: Option<Person>) -> Result<Reply, CommandError> {
        let device = self.seats[of].id();
        self.members(by, MembersCommand::SetPerson { device, person })
    }

    /// Whose device one is, as each device says; all of them say the same.
    fn person_of(&mut self, device: DeviceId) -> Option<Person> {
        let mut said: Vec<Option<Person>> = Vec::new();
        for on in 0..self.seats.len() {
            let Ok(Reply::Members(MembersReply::Members(members))) = self.members(on, MembersCommand::List)
            else {
                panic!("no list");
            };
            let found = members.into_iter().find(|member| member.device == device);
            said.push(found.and_then(|member| member.person));
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
        said.pop().flatten()
    }

    fn of_seat(&mut self, of: usize) -> Option<Person> {
        let device = self.seats[of].id();
        self.person_of(device)
    }
}

/// The founder, and a device that came with an invite for Anna's.
fn invited() -> Desk {
    let mut desk = Desk::new(2, false);
    let ticket = desk.invite_person(0, Role::Editor, Scopes::whole(), person("Anna"));
    desk.connect(0, 1);
    desk.command(1, Command::Join { ticket });
    desk.pass(10_000);
    desk
}

#[test]
fn who_comes_with_an_invite_for_a_persons_device_is_that_persons() {
    let mut desk = invited();
    assert_eq!((desk.of_seat(0), desk.of_seat(1)), (None, person("Anna")));
    let Ok(Reply::Members(MembersReply::Invites(invites))) = desk.members(0, MembersCommand::ListInvites)
    else {
        panic!("no list");
    };
    assert_eq!(invites[0].person, person("Anna"));
    // Another role is no other person.
    desk.change_role(0, 1, Role::Viewer, true).expect("lowered");
    desk.change_role(0, 1, Role::Admin, false).expect("raised");
    desk.pass(10_000);
    assert_eq!(desk.of_seat(1), person("Anna"));
    for seat in 0..2 {
        desk.restart(seat);
    }
    assert_eq!(desk.of_seat(1), person("Anna"));
}

#[test]
fn what_was_said_last_counts_and_saying_it_again_says_nothing() {
    let mut desk = invited();
    for said in [person("Ben"), None, person("Anna"), None] {
        assert_eq!(desk.set_person(0, 1, said.clone()), Ok(Reply::Done));
        desk.pass(10_000);
        assert_eq!(desk.of_seat(1), said);
        let events = desk.seats[0].engine.status().events;
        assert_eq!(desk.set_person(0, 1, said.clone()), Ok(Reply::Done));
        assert_eq!(desk.seats[0].engine.status().events, events, "{said:?}");
    }
    // The owner's own, too.
    assert_eq!(desk.set_person(0, 0, person("Zoe")), Ok(Reply::Done));
    desk.pass(10_000);
    assert_eq!((desk.of_seat(0), desk.of_seat(1)), (person("Zoe"), None));
}

#[test]
fn of_what_two_say_at_the_same_time_the_same_counts_everywhere() {
    let mut desk = Desk::three(Role::Admin, Role::Editor);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        desk.disconnect(one, other);
    }
    assert_eq!(desk.set_person(0, 2, person("Anna")), Ok(Reply::Done));
    assert_eq!(desk.set_person(1, 2, person("Ben")), Ok(Reply::Done));
    desk.connect(1, 2);
    desk.pass(10_000);
    desk.connect(0, 2);
    desk.pass(20_000);
    let said = desk.of_seat(2);
    assert!(said == person("Anna") || said == person("Ben"), "{said:?}");
}

#[test]
fn only_owners_and_admins_say_whose_devices_are_whose_and_admins_not_of_their_seniors() {
    let mut desk = Desk::three(Role::Admin, Role::Editor);
    assert_eq!(
        desk.set_person(2, 2, person("Ben")),
        Err(CommandError::NotAllowed)
    );
    assert_eq!(desk.set_person(1, 0, person("Ben")), Err(CommandError::Outranked));
    let founder = desk.seats[0].id();
    let forged = |device| Item::Person {
        device,
        person: person("Ben"),
    };
    let editor = desk.seats[2].id();
    for (by, device, to) in [(1, founder, [0, 2]), (2, editor, [0, 1]), (2, founder, [0, 1])] {
        desk.forge(by, EventKind::Admin, vec![forged(device)], None, &to);
    }
    // In an event of another kind nobody says it.
    desk.forge(1, EventKind::Work, vec![forged(editor)], None, &[0, 2]);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        desk.connect(one, other);
    }
    desk.pass(30_000);
    for seat in 0..3 {
        assert_eq!(desk.of_seat(seat), None, "of {seat}");
    }
    assert_eq!(desk.set_person(1, 2, person("Ben")), Ok(Reply::Done));
    assert_eq!(desk.set_person(1, 1, person("Ben")), Ok(Reply::Done));
    desk.pass(10_000);
    let all = [0, 1, 2].map(|seat| desk.of_seat(seat));
    assert_eq!(all, [None, person("Ben"), person("Ben")]);
}

#[test]
fn who_redeems_an_invite_says_of_the_newcomer_what_the_invite_says() {
    for (says, counts) in [("Anna", true), ("Ben", false)] {
        let mut desk = Desk::three(Role::Admin, Role::Editor);
        let ticket = desk.invite_person(0, Role::Editor, Scopes::whole(), person("Anna"));
        desk.pass(10_000);
        let key = SigningKey::from_bytes(&Ticket::parse(&ticket).expect("a ticket").secret);
        let device = DeviceId::new(SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes());
        let group = desk.seats[0].group().expect("a group");
        let message = [b"p2p-sync/grant/1\0", &group.as_bytes()[..], device.as_bytes()].concat();
        let via = GrantVia::Invite {
            key: key.verifying_key().to_bytes(),
            sig: key.sign(&message).to_bytes(),
        };
        let grant = Item::Grant(Grant {
            device,
            role: Role::Editor,
            name: String::new(),
            via,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
            person: person(says),
        });
        desk.forge(1, EventKind::Admin, vec![grant], None, &[0, 2]);
        desk.connect(0, 1);
        desk.connect(1, 2);
        desk.pass(30_000);
        let role = |desk: &Desk| {
            let peers = desk.seats[0].engine.status().peers;
            peers.into_iter().find(|peer| peer.device == device)?.role
        };
        assert_eq!(role(&desk), Some(Role::Editor));
        let said = desk.person_of(device);
        assert_eq!(said, person(says).filter(|_| counts));
    }
}
