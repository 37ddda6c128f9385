//! Items: what an event says. Each is a CBOR array `[tag, …]` with an exact length for its tag.
//!
//! | tag | item | fields after the tag |
//! |---|---|---|
//! | 0 | Genesis | name text, recovery key bstr32 |
//! | 1 | Grant | device bstr32, role uint, name text, via: null (by an owner or admin) or [invite bstr32, sig bstr64], scopes, flags uint, [person text] |
//! | 2 | Invite | key bstr32, role uint, expires_ms uint/null, max_uses uint, scopes, [person text] |
//! | 3 | Revoke | device bstr32, keep: null (until the device has seen it) or an array of at most 8 [size uint, root bstr32], reason text |
//! | 5 | InviteCancel | key bstr32 |
//! | 7 | Name | name text: what the author is called |
//! | 9 | Person | device bstr32, person text/null: whose device it is |
//! | 10 | Voters | epoch uint, nonce bstr16, voters [bstr32 …], seals: null (by the author's word) or [[voter bstr32, sig bstr64, slots bstr: [`slots_to_bytes`](crate::lock::slots_to_bytes)] …]; at most 5 of both |
//! | 16 | Put | path bstr, kind uint (0 file, 1 dir, 2 link), mode uint, mtime_ns int, size uint, content bstr (BLAKE3 or link text, empty for a directory), base dots, flags uint, moved_from bstr/null |
//! | 17 | Del | path bstr, base dots, moved_to bstr/null |
//! | 18 | Discard | path bstr, drop dots |
//! | 19 | LockGrant | epoch uint, n uint, nonce bstr16, ttl_ms uint, durable bool, resources (at most 64 bstr, see [`Resource`](crate::lock::Resource)), votes (at most 5 [voter bstr32, sig bstr64]), until_ms uint/null, note text |
//! | 20 | LockEnd | grant dot, reason uint (0 released, 1 lapsed) |
//! | 21 | LockBreak | grant dot, reason text |
//!
//! `dots` is an array of dots. A dot is `[device bstr8, seq uint, item uint]`. `scopes` is an array of at most 32 paths in
//! byte order; none: the whole folder. Flags of a Put: 1 import, 2 metadata; of a Grant: 1 archive, 2 voter, 4 admit. A
//! size and a root name a log up to an event. A person is a tag of 1 to 64 bytes; one in brackets is left out where there is
//! none, with its place in the array. An item with an unknown tag below 128 is kept and ignored; 128 and above is
//! critical.

mod admin;
mod lock;
mod voters;

pub use self::admin::{Genesis, Grant, GrantVia, Invite, Keep, LogHead, Revoke};
pub(crate) use self::admin::{MAX_NAME, MAX_REASON};
pub(crate) use self::lock::MAX_NOTE;
pub use self::lock::{EndReason, LockBreak, LockEnd, LockGrant};
pub use self::voters::{SealedSlots, Voters};
use super::person::Person;
use crate::encoding::{
    self, Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional,
};
use crate::ids::{ContentHash, DeviceId, Dot, ShortId};
use crate::rel_path::RelPath;
use crate::tree::{Entry, Node};

const TAG_GENESIS: u64 = 0;
const TAG_GRANT: u64 = 1;
const TAG_INVITE: u64 = 2;
const TAG_REVOKE: u64 = 3;
const TAG_CANCEL: u64 = 5;
const TAG_NAME: u64 = 7;
const TAG_PERSON: u64 = 9;
const TAG_VOTERS: u64 = 10;
const TAG_PUT: u64 = 16;
const TAG_DEL: u64 = 17;
const TAG_DISCARD: u64 = 18;
const TAG_LOCK_GRANT: u64 = 19;
const TAG_LOCK_END: u64 = 20;
const TAG_LOCK_BREAK: u64 = 21;
/// Tags from here on must be understood by whoever folds the event.
const FIRST_CRITICAL_TAG: u64 = 128;

/// Dots one item may name.
pub(crate) const MAX_DOTS: u64 = 1024;
/// Permission bits that are synced.
pub(crate) const MODE_BITS: u32 = 0o777;

/// One thing an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Founds a group; its author is the first owner.
    Genesis(Genesis),
    /// Makes a device a member.
    Grant(Grant),
    /// Lets whoever holds a key become a member.
    Invite(Invite),
    /// Ends a device's grants.
    Revoke(Revoke),
    /// Ends an invite.
    Cancel {
        /// The invite's public key.
        key: [u8; 32],
    },
    /// Says what its author is called.
    Name(String),
    /// Says whose device one is.
    Person {
        /// Which.
        device: DeviceId,
        /// Whose; `None`: nobody's in particular.
        person: Option<Person>,
    },
    /// Other devices grant locks.
    Voters(Voters),
    /// A path has this entry.
    Put(Put),
    /// A path has nothing.
    Del {
        /// Where.
        path: RelPath,
        /// The versions this replaces.
        base: Vec<Dot>,
        /// Where the entry went, if it was moved.
        moved_to: Option<RelPath>,
    },
    /// These versions of a path need not be shown any more.
    Discard {
        /// Where.
        path: RelPath,
        /// Which.
        drop: Vec<Dot>,
    },
    /// Its author holds a lock.
    LockGrant(LockGrant),
    /// A lock is over.
    LockEnd(LockEnd),
    /// A lock is over, whatever its holder wants.
    LockBreak(LockBreak),
    /// An item of a kind that this daemon does not know.
    Unknown {
        /// Its tag.
        tag: u64,
    },
}

/// A version of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where.
    pub path: RelPath,
    /// What.
    pub entry: Entry,
    /// The versions this replaces.
    pub base: Vec<Dot>,
    /// How it came about.
    pub flags: PutFlags,
    /// Where the entry was before, if it was moved.
    pub moved_from: Option<RelPath>,
}

/// How a Put came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutFlags {
    /// A joiner's file of unknown descent; never wins against a Put without this flag.
    pub import: bool,
    /// Only mode or mtime changed.
    pub metadata: bool,
}

impl Item {
    /// Returns the path this item is about, if it is one of a path.
    #[must_use]
    pub const fn path(&self) -> Option<&RelPath> {
        match self {
            Self::Put(put) => Some(&put.path),
            Self::Del { path, .. } | Self::Discard { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Says whether this item speaks of a lock.
    #[must_use]
    pub const fn is_of_lock(&self) -> bool {
        matches!(self, Self::LockGrant(_) | Self::LockEnd(_) | Self::LockBreak(_))
    }

    /// Returns the item that granted the lock that this one says is over, if it says such a thing.
    #[must_use]
    pub const fn ended_lock(&self) -> Option<Dot> {
        match self {
            Self::LockEnd(end) => Some(end.grant),
            Self::LockBreak(broken) => Some(broken.grant),
            _ => None,
        }
    }

    /// Says whether whoever does not know this item must not fold its event.
    #[must_use]
    pub const fn is_unknown_critical(&self) -> bool {
        matches!(self, Self::Unknown { tag } if *tag >= FIRST_CRITICAL_TAG)
    }

    /// Returns the deterministic bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| self.write(e))
    }

    /// Reads an item from bytes that passed [`encoding::check`] as part of a body.
    ///
    /// # Errors
    /// [`ShapeError`] if a known tag's fields are not as documented.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShapeError> {
        let mut d = Decoder::new(bytes);
        let len = array_len(&mut d)?;
        let tag = d.u64()?;
        let fields = match tag {
            TAG_GENESIS | TAG_PERSON | TAG_DISCARD | TAG_LOCK_END | TAG_LOCK_BREAK => 2,
            TAG_GRANT => 6,
            TAG_INVITE => 5,
            TAG_REVOKE | TAG_DEL => 3,
            TAG_CANCEL | TAG_NAME => 1,
            TAG_VOTERS => 4,
            TAG_PUT | TAG_LOCK_GRANT => 9,
            _ => return Ok(Self::Unknown { tag }),
        };
        let is_tagged = matches!(tag, TAG_GRANT | TAG_INVITE) && len == fields + 2;
        if len != fields + 1 && !is_tagged {
            return Err(ShapeError::new());
        }
        Self::read(tag, &mut d, is_tagged)
    }

    fn read(tag: u64, d: &mut Decoder<'_>, is_tagged: bool) -> Result<Self, ShapeError> {
        Ok(match tag {
            TAG_GENESIS => Self::Genesis(admin::read_genesis(d)?),
            TAG_GRANT => Self::Grant(admin::read_grant(d, is_tagged)?),
            TAG_INVITE => Self::Invite(admin::read_invite(d, is_tagged)?),
            TAG_REVOKE => Self::Revoke(admin::read_revoke(d)?),
            TAG_CANCEL => Self::Cancel { key: bytes_of(d)? },
            TAG_NAME => Self::Name(admin::read_name(d)?),
            TAG_PERSON => Self::Person {
                device: DeviceId::new(bytes_of(d)?),
                person: optional(d, admin::read_person)?,
            },
            TAG_VOTERS => Self::Voters(voters::read_voters(d)?),
            TAG_PUT => Self::Put(read_put(d)?),
            TAG_DEL => Self::Del {
                path: read_path(d)?,
                base: read_dots(d)?,
                moved_to: optional(d, read_path)?,
            },
            TAG_DISCARD => Self::Discard {
                path: read_path(d)?,
                drop: read_dots(d)?,
            },
            TAG_LOCK_GRANT => Self::LockGrant(lock::read_grant(d)?),
            TAG_LOCK_END => Self::LockEnd(lock::read_end(d)?),
            TAG_LOCK_BREAK => Self::LockBreak(lock::read_break(d)?),
            _ => Self::Unknown { tag },
        })
    }

    fn write(&self, e: &mut Encoder<'_>) {
        match self {
            Self::Genesis(genesis) => admin::write_genesis(e, genesis),
            Self::Grant(grant) => admin::write_grant(e, grant),
            Self::Invite(invite) => admin::write_invite(e, invite),
            Self::Revoke(revoke) => admin::write_revoke(e, revoke),
            Self::Cancel { key } => admin::write_cancel(e, key),
            Self::Name(name) => admin::write_name(e, name),
            Self::Person { device, person } => admin::write_person(e, device, person.as_ref()),
            Self::Voters(item) => voters::write_voters(e, item),
            Self::Put(put) => write_put(e, put),
            Self::Del { path, base, moved_to } => {
                header(e, TAG_DEL, 3);
                infallible(e.bytes(path.as_bytes()));
                write_dots(e, base);
                write_path_or_null(e, moved_to.as_ref());
            }
            Self::Discard { path, drop } => {
                header(e, TAG_DISCARD, 2);
                infallible(e.bytes(path.as_bytes()));
                write_dots(e, drop);
            }
            Self::LockGrant(grant) => lock::write_grant(e, grant),
            Self::LockEnd(end) => lock::write_end(e, end),
            Self::LockBreak(broken) => lock::write_break(e, broken),
            Self::Unknown { tag } => header(e, *tag, 0),
        }
    }
}

fn header(e: &mut Encoder<'_>, tag: u64, fields: u64) {
    infallible(e.array(fields + 1));
    infallible(e.u64(tag));
}

fn write_put(e: &mut Encoder<'_>, put: &Put) {
    header(e, TAG_PUT, 9);
    infallible(e.bytes(put.path.as_bytes()));
    let (kind, size, content): (u8, u64, &[u8]) = match &put.entry.node {
        Node::File { content, size } => (0, *size, content.as_bytes()),
        Node::Dir => (1, 0, &[]),
        Node::Link { target } => (2, 0, target),
    };
    infallible(e.u8(kind));
    infallible(e.u32(put.entry.mode));
    infallible(e.i64(put.entry.mtime_ns));
    infallible(e.u64(size));
    infallible(e.bytes(content));
    write_dots(e, &put.base);
    infallible(e.u8(u8::from(put.flags.import) | u8::from(put.flags.metadata) << 1));
    write_path_or_null(e, put.moved_from.as_ref());
}

fn read_put(d: &mut Decoder<'_>) -> Result<Put, ShapeError> {
    let path = read_path(d)?;
    let kind = d.u8()?;
    let mode = d.u32()?;
    let mtime_ns = d.i64()?;
    let size = d.u64()?;
    let content = d.bytes()?;
    let node = match kind {
        0 => Node::File {
            content: ContentHash::from_slice(content).map_err(|_| ShapeError::new())?,
            size,
        },
        1 if size == 0 && content.is_empty() => Node::Dir,
        2 if size == 0 && (1..=Node::MAX_TARGET).contains(&content.len()) && !content.contains(&0) => {
            Node::Link {
                target: content.to_vec(),
            }
        }
        _ => return Err(ShapeError::new()),
    };
    if mode & !MODE_BITS != 0 {
        return Err(ShapeError::new());
    }
    let base = read_dots(d)?;
    let flags = d.u8()?;
    if flags > 3 {
        return Err(ShapeError::new());
    }
    let moved_from = optional(d, read_path)?;
    let flags = PutFlags {
        import: flags & 1 != 0,
        metadata: flags & 2 != 0,
    };
    Ok(Put {
        path,
        entry: Entry { node, mode, mtime_ns },
        base,
        flags,
        moved_from,
    })
}

fn read_path(d: &mut Decoder<'_>) -> Result<RelPath, ShapeError> {
    let path = RelPath::parse(d.bytes()?).map_err(|_| ShapeError::new())?;
    if path.is_own() {
        Err(ShapeError::new())
    } else {
        Ok(path)
    }
}

fn write_path_or_null(e: &mut Encoder<'_>, path: Option<&RelPath>) {
    match path {
        Some(path) => infallible(e.bytes(path.as_bytes())),
        None => infallible(e.null()),
    }
}

fn read_dots(d: &mut Decoder<'_>) -> Result<Vec<Dot>, ShapeError> {
    let len = array_len(d)?;
    if len > MAX_DOTS {
        return Err(ShapeError::new());
    }
    (0..len).map(|_| read_dot(d)).collect()
}

pub(crate) fn read_dot(d: &mut Decoder<'_>) -> Result<Dot, ShapeError> {
    array_of(d, 3)?;
    Ok(Dot {
        device: ShortId::new(bytes_of(d)?),
        seq: d.u64()?,
        item: d.u32()?,
    })
}

fn write_dots(e: &mut Encoder<'_>, dots: &[Dot]) {
    infallible(e.array(dots.len() as u64));
    for dot in dots {
        write_dot(e, dot);
    }
}

pub(crate) fn write_dot(e: &mut Encoder<'_>, dot: &Dot) {
    infallible(e.array(3));
    infallible(e.bytes(dot.device.as_bytes()));
    infallible(e.u64(dot.seq));
    infallible(e.u32(dot.item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{GrantFlags, Role, Scopes};
    use crate::ids::DeviceId;

    fn path(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    fn invite(person: Option<&str>) -> Invite {
        Invite {
            key: [5; 32],
            role: Role::Admin,
            expires_ms: None,
            max_uses: 1,
            scopes: Scopes::whole(),
            person: person.and_then(|person| Person::parse(person).ok()),
        }
    }

    fn samples() -> Vec<Item> {
        let dot = Dot {
            device: ShortId::new([1; 8]),
            seq: 300,
            item: 2,
        };
        let entry = |node| Entry {
            node,
            mode: 0o644,
            mtime_ns: -5,
        };
        vec![
            Item::Genesis(Genesis {
                name: "g".into(),
                recovery: [9; 32],
            }),
            Item::Grant(Grant {
                device: DeviceId::new([2; 32]),
                role: Role::Editor,
                name: "nas".into(),
                via: GrantVia::Invite {
                    key: [3; 32],
                    sig: [4; 64],
                },
                scopes: Scopes::new(vec![path("docs"), path("src/a")]).unwrap(),
                flags: GrantFlags {
                    admit: true,
                    ..GrantFlags::default()
                },
                person: Person::parse("Anna").ok(),
            }),
            Item::Grant(Grant {
                device: DeviceId::new([2; 32]),
                role: Role::Viewer,
                name: String::new(),
                via: GrantVia::Author,
                scopes: Scopes::whole(),
                flags: GrantFlags::default(),
                person: None,
            }),
            Item::Invite(invite(None)),
            Item::Invite(invite(Some("Anna"))),
            Item::Person {
                device: DeviceId::new([2; 32]),
                person: Person::parse("Anna").ok(),
            },
            Item::Person {
                device: DeviceId::new([2; 32]),
                person: None,
            },
            Item::Revoke(Revoke {
                device: DeviceId::new([2; 32]),
                keep: Keep::UntilSeen,
                reason: "left".into(),
            }),
            Item::Revoke(Revoke {
                device: DeviceId::new([2; 32]),
                keep: Keep::Heads(vec![LogHead {
                    size: 7,
                    root: [6; 32],
                }]),
                reason: String::new(),
            }),
            Item::Cancel { key: [5; 32] },
            Item::Name("attic".into()),
            Item::Put(Put {
                path: path("a/b"),
                entry: entry(Node::File {
                    content: ContentHash::of(b"x"),
                    size: 1,
                }),
                base: vec![dot],
                flags: PutFlags {
                    import: true,
                    metadata: false,
                },
                moved_from: Some(path("c")),
            }),
            Item::Put(Put {
                path: path("d"),
                entry: entry(Node::Link {
                    target: b"../x".to_vec(),
                }),
                base: vec![],
                flags: PutFlags::default(),
                moved_from: None,
            }),
            Item::Del {
                path: path("a"),
                base: vec![dot, dot],
                moved_to: None,
            },
            Item::Discard {
                path: path("a"),
                drop: vec![dot],
            },
        ]
    }

    #[test]
    fn items_are_read_back_from_deterministic_bytes() {
        for item in samples() {
            let bytes = item.to_bytes();
            assert_eq!(encoding::check(&bytes), Ok(()), "{item:?}");
            assert_eq!(Item::from_bytes(&bytes).unwrap(), item);
        }
    }

    #[test]
    fn the_encoding_of_a_deletion_is_as_written_down() {
        let dot = Dot {
            device: ShortId::new([1; 8]),
            seq: 300,
            item: 2,
        };
        let bytes = Item::Del {
            path: path("a"),
            base: vec![dot],
            moved_to: None,
        }
        .to_bytes();
        let expected = "84114161818348010101010101010119012c02f6";
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
    }

    #[test]
    fn a_person_is_the_last_field_where_there_is_one_and_no_field_where_there_is_none() {
        let hex = |item: &Item| data_encoding::HEXLOWER.encode(&item.to_bytes());
        let key = "05".repeat(32);
        let plain = format!("{key}01f60180");
        assert_eq!(hex(&Item::Invite(invite(None))), format!("86025820{plain}"));
        let tagged = hex(&Item::Invite(invite(Some("Anna"))));
        assert_eq!(tagged, format!("87025820{plain}64416e6e61"));
        let device = DeviceId::new([5; 32]);
        let nobodys = Item::Person { device, person: None };
        assert_eq!(hex(&nobodys), format!("83095820{key}f6"));
        // What is there is a person's tag: no null, no empty text, no line break.
        for bad in ["f6", "60", "610a"] {
            let bytes = data_encoding::HEXLOWER.decode(format!("87025820{plain}{bad}").as_bytes());
            assert!(Item::from_bytes(&bytes.unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_the_daemons_own_directory_are_refused() {
        let own = RelPath::parse(".p2p-sync/journal").unwrap();
        let bytes = Item::Del {
            path: own,
            base: vec![],
            moved_to: None,
        }
        .to_bytes();
        assert!(Item::from_bytes(&bytes).is_err());
    }

    #[test]
    fn unknown_items_are_kept_and_critical_ones_seen() {
        let harmless = encoding::to_vec(|e| header(e, 127, 0));
        let critical = encoding::to_vec(|e| header(e, 128, 0));
        assert!(!Item::from_bytes(&harmless).unwrap().is_unknown_critical());
        assert!(Item::from_bytes(&critical).unwrap().is_unknown_critical());
    }

    #[test]
    fn setuid_bits_are_refused() {
        let mut samples = samples().into_iter();
        let mut item = samples.find(|item| matches!(item, Item::Put(_))).unwrap();
        let Item::Put(put) = &mut item else {
            unreachable!("it was looked for")
        };
        put.entry.mode = 0o4755;
        assert!(Item::from_bytes(&item.to_bytes()).is_err());
    }
}
