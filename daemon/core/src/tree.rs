//! What stands at a path of the folder: by the ledger ([`Entry`]) and on this device's disk ([`Fingerprint`],
//! [`Installed`]).

use crate::ids::{ContentHash, Dot};
use crate::rel_path::RelPath;

/// Kind and content of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A regular file.
    File {
        /// The name of its bytes.
        content: ContentHash,
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link; its text is never followed.
    Link {
        /// The text, at most [`Node::MAX_TARGET`] bytes.
        target: Vec<u8>,
    },
}

impl Node {
    /// Bytes a link's text may have.
    pub const MAX_TARGET: usize = 4096;

    /// Returns the bytes to transfer: a file's size, 0 for the rest.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Dir | Self::Link { .. } => 0,
        }
    }

    /// Returns the content of a file.
    #[must_use]
    pub const fn content(&self) -> Option<ContentHash> {
        match self {
            Self::File { content, .. } => Some(*content),
            Self::Dir | Self::Link { .. } => None,
        }
    }

    /// Says whether this is a directory.
    #[must_use]
    pub const fn is_dir(&self) -> bool {
        matches!(self, Self::Dir)
    }
}

/// An entry as a Put describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Kind and content.
    pub node: Node,
    /// Permission bits, within 0o777. Links carry 0o777.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970 UTC; 0 for directories, whose times are not synced.
    pub mtime_ns: i64,
}

/// What `lstat` says of an entry on this device; two equal prints mean an unchanged entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// Inode number.
    pub ino: u64,
    /// Length in bytes; 0 for directories, whose sizes mean nothing.
    pub size: u64,
    /// Modification time, nanoseconds since 1970; 0 for directories.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since 1970; 0 for directories, where it moves with their contents.
    pub ctime_ns: i64,
    /// File type and permission bits (`st_mode & (S_IFMT | 0o777)`).
    pub mode: u32,
}

/// What the engine believes to stand at a path on this device's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The entry; `mode` is what the ledger says, which a device may be unable to keep.
    pub entry: Entry,
    /// What `lstat` said after it was installed, or when it was hashed.
    pub print: Fingerprint,
    /// The versions whose bytes these are; empty for a directory that is only implied by what lies in it.
    pub dots: Vec<Dot>,
    /// The path whose conflict copy this is; `None` for an entry at its own path.
    pub copy_of: Option<RelPath>,
}

impl Installed {
    /// Says whether this is what stood at a path before it was ignored: nobody has looked at it since.
    #[must_use]
    pub const fn is_set_aside(&self) -> bool {
        // A mode that was looked at names a file type.
        self.print.mode == 0
    }
}
