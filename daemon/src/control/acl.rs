//! Letting a second group use a file: the POSIX access control list of the control socket.
//!
//! A file has one group. Opening the socket to everybody, and sending most of them away, would let everybody fill its
//! queue. So the read-only group gets an entry of its own, if there is another group already. The kernel's format
//! (`system.posix_acl_access`), integers little-endian:
//!
//! ```text
//! version u32 = 2
//! entries     tag u16, permissions u16, id u32, in order of tag and id
//! ```

use std::io;
use std::path::Path;

use rustix::fs::XattrFlags;

const NAME: &str = "system.posix_acl_access";
const VERSION: u32 = 2;
const TAG_OWNER: u16 = 0x01;
const TAG_OWNING_GROUP: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHERS: u16 = 0x20;
/// The id of entries whose tag says whom they are about.
const NOBODY: u32 = u32::MAX;
const READ_AND_WRITE: u16 = 6;
/// Bytes of a list that is read; longer ones have more entries than anybody makes by hand.
const MAX_LEN: usize = 4_096;

/// Lets the owner, the owning group and one group more read and write a file, and nobody else. Connecting to a socket is
/// writing to it.
///
/// # Errors
/// The file is another user's, or its file system has no such lists.
pub(super) fn share(path: &Path, group: u32) -> io::Result<()> {
    let entries = [
        (TAG_OWNER, READ_AND_WRITE, NOBODY),
        (TAG_OWNING_GROUP, READ_AND_WRITE, NOBODY),
        (TAG_GROUP, READ_AND_WRITE, group),
        (TAG_MASK, READ_AND_WRITE, NOBODY),
        (TAG_OTHERS, 0, NOBODY),
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    Ok(rustix::fs::lsetxattr(path, NAME, &list, XattrFlags::empty())?)
}

/// Says whether a file's list names a group.
pub(super) fn names(path: &Path, group: u32) -> bool {
    let mut list = vec![0; MAX_LEN];
    let Ok(len) = rustix::fs::lgetxattr(path, NAME, &mut list[..]) else {
        return false;
    };
    let entries = list.get(4..len).unwrap_or_default().chunks_exact(8);
    let wanted = [TAG_GROUP.to_le_bytes().as_slice(), &group.to_le_bytes()].concat();
    let mut named = entries.map(|entry| [&entry[..2], &entry[4..]].concat());
    named.any(|entry| entry == wanted)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_shared_is_open_to_the_group_and_closed_to_others() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        std::fs::write(&path, "").unwrap();
        assert!(!names(&path, 4_711));
        match share(&path, 4_711) {
            Ok(()) => {}
            // The temporary directory lies on a file system that cannot do it, and says so.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => return,
            Err(e) => panic!("{e}"),
        }
        assert!(names(&path, 4_711));
        assert!(!names(&path, 4_712));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "the mask and nothing for others");
    }
}
