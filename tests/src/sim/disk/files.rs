//! Names and inodes, and the few operations that change them.

use std::collections::BTreeMap;

use p2p_sync_core::rel_path::RelPath;

use super::{Inode, Kind};

/// Where an entry can stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the folder; conflict copies in the daemon's own directory too.
    Folder(RelPath),
    /// In the slot of an install.
    Slot(u64),
    /// Among the old versions, under the number of the install that took it out of the folder.
    Version(u64),
}

/// One change; what a disk makes durable, or loses.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A name gets a new inode; what had the name is gone.
    Make(Place, Inode),
    /// A file gets other bytes.
    Write {
        ino: u64,
        bytes: Vec<u8>,
        mtime_ns: i64,
        ctime_ns: i64,
    },
    /// An inode gets another mode and time.
    Meta {
        ino: u64,
        mode: u32,
        mtime_ns: i64,
        ctime_ns: i64,
    },
    /// A name goes, with all below it.
    Remove(Place),
    /// What stands at the first place, with all below it, comes to stand at the second, where nothing is.
    Rename(Place, Place, i64),
    /// What stands at the places, with all below it, changes places.
    Exchange(Place, Place, i64),
}

impl Op {
    /// Returns the inode whose bytes it brings, if it brings any.
    pub(super) fn data_of(&self) -> Option<(u64, &[u8])> {
        let (ino, bytes) = self.content_of()?;
        let is_new = matches!(self, Self::Make(..));
        (!is_new || !bytes.is_empty()).then_some((ino, bytes))
    }

    /// Returns the inode of which it makes a file with a content, which may be empty.
    pub(super) fn content_of(&self) -> Option<(u64, &[u8])> {
        match self {
            Self::Make(_, inode) => match &inode.kind {
                Kind::File(bytes) => Some((inode.ino, bytes)),
                Kind::Dir | Kind::Link(_) => None,
            },
            Self::Write { ino, bytes, .. } => Some((*ino, bytes)),
            Self::Meta { .. } | Self::Remove(_) | Self::Rename(..) | Self::Exchange(..) => None,
        }
    }

    /// Returns the inode that it changes in whatever way.
    pub(super) fn ino(&self) -> Option<u64> {
        match self {
            Self::Make(_, inode) => Some(inode.ino),
            Self::Write { ino, .. } | Self::Meta { ino, .. } => Some(*ino),
            Self::Remove(_) | Self::Rename(..) | Self::Exchange(..) => None,
        }
    }

    /// Has it bring only the first of its bytes.
    pub(super) fn tear(&mut self, len: usize) {
        match self {
            Self::Make(
                _,
                Inode {
                    kind: Kind::File(bytes),
                    ..
                },
            )
            | Self::Write { bytes, .. } => bytes.truncate(len),
            Self::Make(..) | Self::Meta { .. } | Self::Remove(_) | Self::Rename(..) | Self::Exchange(..) => {}
        }
    }
}

/// An entry with all below it, by what follows its own name.
type Branch = Vec<(Vec<u8>, Inode)>;

/// All names of a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    pub(super) folder: BTreeMap<RelPath, Inode>,
    /// Slots and versions.
    own: BTreeMap<Place, Branch>,
}

impl Files {
    /// Returns what lies below a directory outside the folder.
    pub(super) fn in_own_dir(&self, place: &Place) -> impl Iterator<Item = &Inode> {
        let branch = self.own.get(place).into_iter().flatten();
        branch.skip(1).map(|(_, inode)| inode)
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Inode> {
        match place {
            Place::Folder(path) => self.folder.get(path),
            Place::Slot(_) | Place::Version(_) => {
                let branch = self.own.get(place)?;
                branch.first().map(|(_, inode)| inode)
            }
        }
    }

    /// Returns slots and versions with what stands at them.
    pub(super) fn own(&self) -> impl Iterator<Item = (&Place, &Inode)> {
        let all = self.own.iter();
        all.flat_map(|(place, branch)| branch.iter().map(move |(_, inode)| (place, inode)))
    }

    /// Says whether nothing lies below a place.
    pub(super) fn is_empty_dir(&self, place: &Place) -> bool {
        match place {
            Place::Folder(path) => !self.folder.keys().any(|other| other.is_below(path)),
            Place::Slot(_) | Place::Version(_) => self.own.get(place).is_none_or(|branch| branch.len() <= 1),
        }
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Make(place, inode) => self.put(&place, vec![(Vec::new(), inode)]),
            Op::Write {
                ino,
                bytes,
                mtime_ns,
                ctime_ns,
            } => self.change(ino, |inode| {
                inode.kind = Kind::File(bytes);
                inode.mtime_ns = mtime_ns;
                inode.ctime_ns = ctime_ns;
            }),
            Op::Meta {
                ino,
                mode,
                mtime_ns,
                ctime_ns,
            } => self.change(ino, |inode| {
                inode.mode = mode;
                inode.mtime_ns = mtime_ns;
                inode.ctime_ns = ctime_ns;
            }),
            Op::Remove(place) => {
                self.take(&place);
            }
            Op::Rename(from, to, ctime_ns) => {
                let branch = touched(self.take(&from), ctime_ns);
                self.put(&to, branch);
            }
            Op::Exchange(a, b, ctime_ns) => {
                let (from_a, from_b) = (self.take(&a), self.take(&b));
                self.put(&a, touched(from_b, ctime_ns));
                self.put(&b, touched(from_a, ctime_ns));
            }
        }
    }

    fn change(&mut self, ino: u64, change: impl FnOnce(&mut Inode)) {
        let own = self.own.values_mut().flatten().map(|(_, inode)| inode);
        if let Some(inode) = self.folder.values_mut().chain(own).find(|inode| inode.ino == ino) {
            change(inode);
        }
    }

    fn take(&mut self, place: &Place) -> Branch {
        let Place::Folder(path) = place else {
            return self.own.remove(place).unwrap_or_default();
        };
        let names: Vec<RelPath> = self
            .folder
            .keys()
            .filter(|other| *other == path || other.is_below(path))
            .cloned()
            .collect();
        let taken = names.into_iter().filter_map(|name| {
            let inode = self.folder.remove(&name)?;
            Some((name.as_bytes()[path.as_bytes().len()..].to_vec(), inode))
        });
        taken.collect()
    }

    fn put(&mut self, place: &Place, branch: Branch) {
        let Place::Folder(path) = place else {
            self.own.insert(place.clone(), branch);
            return;
        };
        for (suffix, inode) in branch {
            let mut name = path.as_bytes().to_vec();
            name.extend(suffix);
            if let Ok(name) = RelPath::parse(name) {
                self.folder.insert(name, inode);
            }
        }
    }
}

fn touched(mut branch: Branch, ctime_ns: i64) -> Branch {
    if let Some((_, inode)) = branch.first_mut() {
        inode.ctime_ns = ctime_ns;
    }
    branch
}
