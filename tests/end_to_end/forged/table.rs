//! Which role may say what (roles.md 1), said once more and apart from the program; and what says it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ed25519_dalek::{Signer, SigningKey};
use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::{EventKind, Grant, GrantVia, Invite, Item, Keep, Put, PutFlags, Revoke};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Node};

use super::device::Forger;

/// Those who forge: name, role, and where they may write.
pub(super) const ACTORS: [(&str, Role, Option<&str>); 5] = [
    ("vera", Role::Viewer, None),
    ("sam", Role::Editor, Some("docs")),
    ("ed", Role::Editor, None),
    ("adam", Role::Admin, None),
    ("oscar", Role::Owner, None),
];

/// A directory of files, of which `docs` is where sam may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Docs,
    Top,
}

impl Place {
    pub(super) const ALL: [Self; 2] = [Self::Docs, Self::Top];

    /// Returns the path of a file that an actor changes.
    pub(super) fn path(self, actor: &str, name: &str) -> String {
        let dir = match self {
            Self::Docs => "docs",
            Self::Top => "top",
        };
        format!("{dir}/{actor}/{name}")
    }
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Put(Place),
    Overwrite(Place),
    Delete(Place),
    Rename(Place),
    /// Of a conflict copy.
    Discard(Place),
    /// To a device that is no member.
    Grant(Role),
    /// As an editor that may be named as a voter.
    GrantVoter,
    /// To itself, everywhere.
    Raise(Role),
    Invite(Role),
    /// By an editor's ticket of anna's, of somebody who did not come to her.
    Admit,
    /// Of an invite of anna's.
    Cancel(Role),
    /// Of a member that oscar let in.
    Revoke(Role),
    RevokeFounder,
    /// A Grant in an event of another kind.
    GrantInWork,
    /// A Put in an event of another kind.
    PutInAdmin,
}

/// What comes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It takes effect.
    Yes,
    /// It has no effect, and whoever follows the daemon's log is told so.
    No,
    /// It says nothing to anybody.
    Idle,
}

use Outcome::{Idle, No, Yes};

/// Each verb, with what comes of it if a viewer, an editor of `docs`, an editor, an admin and an owner says it.
pub(super) const TABLE: &[(Verb, [Outcome; 5])] = &[
    (Verb::Put(Place::Docs), [No, Yes, Yes, Yes, Yes]),
    (Verb::Overwrite(Place::Docs), [No, Yes, Yes, Yes, Yes]),
    (Verb::Delete(Place::Docs), [No, Yes, Yes, Yes, Yes]),
    (Verb::Rename(Place::Docs), [No, Yes, Yes, Yes, Yes]),
    (Verb::Discard(Place::Docs), [No, Yes, Yes, Yes, Yes]),
    (Verb::Put(Place::Top), [No, No, Yes, Yes, Yes]),
    (Verb::Overwrite(Place::Top), [No, No, Yes, Yes, Yes]),
    (Verb::Delete(Place::Top), [No, No, Yes, Yes, Yes]),
    (Verb::Rename(Place::Top), [No, No, Yes, Yes, Yes]),
    (Verb::Discard(Place::Top), [No, No, Yes, Yes, Yes]),
    (Verb::Grant(Role::Viewer), [No, No, No, Yes, Yes]),
    (Verb::Grant(Role::Editor), [No, No, No, Yes, Yes]),
    (Verb::Grant(Role::Admin), [No, No, No, No, Yes]),
    (Verb::Grant(Role::Owner), [No, No, No, No, Yes]),
    (Verb::GrantVoter, [No, No, No, No, Yes]),
    (Verb::Raise(Role::Editor), [No, No, No, Yes, Yes]),
    (Verb::Raise(Role::Admin), [No, No, No, No, Yes]),
    (Verb::Raise(Role::Owner), [No, No, No, No, Yes]),
    (Verb::Invite(Role::Viewer), [No, No, No, Yes, Yes]),
    (Verb::Invite(Role::Editor), [No, No, No, Yes, Yes]),
    (Verb::Invite(Role::Admin), [No, No, No, No, Yes]),
    (Verb::Invite(Role::Owner), [No, No, No, No, No]),
    (Verb::Admit, [No, No, No, Yes, Yes]),
    (Verb::Cancel(Role::Viewer), [No, No, No, Yes, Yes]),
    (Verb::Cancel(Role::Editor), [No, No, No, Yes, Yes]),
    (Verb::Cancel(Role::Admin), [No, No, No, No, Yes]),
    (Verb::Revoke(Role::Viewer), [No, No, No, Yes, Yes]),
    (Verb::Revoke(Role::Editor), [No, No, No, Yes, Yes]),
    (Verb::Revoke(Role::Admin), [No, No, No, No, Yes]),
    (Verb::Revoke(Role::Owner), [No, No, No, No, Yes]),
    (Verb::RevokeFounder, [No, No, No, No, No]),
    (Verb::GrantInWork, [Idle; 5]),
    (Verb::PutInAdmin, [Idle; 5]),
];

/// One actor's saying of one verb.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) actor: &'static str,
    pub(super) verb: Verb,
    pub(super) outcome: Outcome,
}

/// Returns the cells of an actor.
pub(super) fn cells(actor: &'static str) -> impl Iterator<Item = Cell> {
    let column = ACTORS.iter().position(|(name, ..)| *name == actor);
    let outcome = move |outcomes: &[Outcome; 5]| column.and_then(|column| outcomes.get(column).copied());
    TABLE.iter().filter_map(move |(verb, outcomes)| {
        Some(Cell {
            actor,
            verb: *verb,
            outcome: outcome(outcomes)?,
        })
    })
}

/// The keys of invites of anna's, one for each cell that cancels one, by its name.
pub(super) type Invites = BTreeMap<String, [u8; 32]>;

/// What exists before, and the events name.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) founder: DeviceId,
    /// The secret of an invite of anna's for editors.
    pub(super) ticket: [u8; 32],
    pub(super) invites: Invites,
    /// What stands in the file `bait`, which all have.
    pub(super) bait: Entry,
}

impl Before {
    /// Returns the key of the invite that a cell cancels.
    pub(super) fn invite(&self, cell: &Cell) -> Result<[u8; 32]> {
        let found = self.invites.get(&cell.name());
        found.copied().context("An invite to cancel")
    }
}

impl Cell {
    /// Returns a name for whom or what the cell is about.
    pub(super) fn name(&self) -> String {
        format!("{:?} by {}", self.verb, self.actor)
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(blake3::hash(self.name().as_bytes()).as_bytes())
    }

    /// Returns the key that the cell is about: a device's, or an invite's.
    pub(super) fn public(&self) -> [u8; 32] {
        self.key().verifying_key().to_bytes()
    }

    fn device(&self) -> DeviceId {
        DeviceId::new(self.public())
    }

    fn grant(&self, role: Role) -> Grant {
        Grant {
            device: self.device(),
            role,
            name: self.name(),
            via: GrantVia::Author,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
            person: None,
        }
    }

    /// Returns what oscar says beforehand, so that there is somebody to be revoked.
    pub(super) fn victim(&self) -> Option<Item> {
        match self.verb {
            Verb::Revoke(role) => Some(Item::Grant(self.grant(role))),
            _ => None,
        }
    }

    /// Returns the first path that the cell changes, if it changes files.
    pub(super) fn path(&self) -> Option<String> {
        let (place, name) = match self.verb {
            Verb::Put(place) => (place, "new"),
            Verb::Overwrite(place) => (place, "edit"),
            Verb::Delete(place) => (place, "gone"),
            Verb::Rename(place) => (place, "old"),
            Verb::Discard(place) => (place, "copied"),
            _ => return None,
        };
        Some(place.path(self.actor, name))
    }

    /// Returns the event, of the forger's own device.
    pub(super) fn event(&self, by: &Forger, before: &Before) -> Result<(EventKind, Vec<Item>)> {
        if let Some(path) = self.path() {
            return Ok((EventKind::Work, self.work(by, before, &RelPath::parse(path)?)?));
        }
        let kind = match self.verb {
            Verb::GrantInWork => EventKind::Work,
            _ => EventKind::Admin,
        };
        Ok((kind, vec![self.admin(by, before)?]))
    }

    fn work(&self, by: &Forger, before: &Before, path: &RelPath) -> Result<Vec<Item>> {
        if let Verb::Put(_) = self.verb {
            return Ok(vec![link(path.clone())]);
        }
        let (entry, heads) = by.heads(path)?;
        let put = |path: &RelPath, entry: &Entry, base, moved_from| {
            Item::Put(Put {
                path: path.clone(),
                entry: entry.clone(),
                base,
                flags: PutFlags::default(),
                moved_from,
            })
        };
        let del = |moved_to| Item::Del {
            path: path.clone(),
            base: heads.clone(),
            moved_to,
        };
        Ok(match self.verb {
            Verb::Overwrite(_) => vec![put(path, &before.bait, heads.clone(), None)],
            Verb::Rename(place) => {
                let new = RelPath::parse(place.path(self.actor, "moved"))?;
                let moved = put(&new, &entry, Vec::new(), Some(path.clone()));
                vec![del(Some(new)), moved]
            }
            Verb::Discard(_) => vec![Item::Discard {
                path: path.clone(),
                drop: heads.get(1..).context("A copy")?.to_vec(),
            }],
            _ => vec![del(None)],
        })
    }

    fn admin(&self, by: &Forger, before: &Before) -> Result<Item> {
        Ok(match self.verb {
            Verb::Grant(role) => Item::Grant(self.grant(role)),
            Verb::GrantInWork => Item::Grant(self.grant(Role::Editor)),
            Verb::GrantVoter => {
                let voter = true;
                let flags = GrantFlags {
                    voter,
                    ..GrantFlags::default()
                };
                Item::Grant(Grant {
                    flags,
                    ..self.grant(Role::Editor)
                })
            }
            Verb::Raise(role) => {
                let (device, name) = (by.id, self.actor.to_owned());
                Item::Grant(Grant {
                    device,
                    name,
                    ..self.grant(role)
                })
            }
            Verb::Invite(role) => Item::Invite(Invite {
                key: self.public(),
                role,
                expires_ms: None,
                max_uses: 1,
                scopes: Scopes::whole(),
                person: None,
            }),
            Verb::Admit => {
                let invite = SigningKey::from_bytes(&before.ticket);
                let context: &[u8] = b"p2p-sync/grant/1\0";
                let message = [context, by.group.as_bytes(), self.device().as_bytes()].concat();
                let (key, sig) = (
                    invite.verifying_key().to_bytes(),
                    invite.sign(&message).to_bytes(),
                );
                let via = GrantVia::Invite { key, sig };
                Item::Grant(Grant {
                    via,
                    ..self.grant(Role::Editor)
                })
            }
            Verb::Cancel(_) => Item::Cancel {
                key: before.invite(self)?,
            },
            Verb::Revoke(_) => revoke(self.device()),
            Verb::RevokeFounder => revoke(before.founder),
            Verb::PutInAdmin => link(RelPath::parse(Place::Docs.path(self.actor, "hidden"))?),
            _ => anyhow::bail!("{} is about a file", self.name()),
        })
    }
}

/// Whatever it did is to count no more.
fn revoke(device: DeviceId) -> Item {
    Item::Revoke(Revoke {
        device,
        keep: Keep::Heads(Vec::new()),
        reason: String::new(),
    })
}

/// A link needs no content that somebody would have to serve.
pub(super) fn link(path: RelPath) -> Item {
    let target = b"forged".to_vec();
    Item::Put(Put {
        path,
        entry: Entry {
            node: Node::Link { target },
            mode: 0o777,
            mtime_ns: 1,
        },
        base: Vec::new(),
        flags: PutFlags::default(),
        moved_from: None,
    })
}
