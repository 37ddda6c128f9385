//! Names that are never synced: temporary files that editors, browsers and git make and take away again.
//!
//! The list is short on purpose; everything on it is a file that its program recreates or renames to its real name.
//! An ignored name is unknown to the scanner: it is neither published nor taken for a deletion.

use p2p_sync_core::rel_path::RelPath;

/// Says whether an entry is left out, by the names of its path:
///
/// * `.*.swp`, `.*.swo`, `.*.swx`, `4913`: vim
/// * `.#*`: emacs' locks
/// * `.goutputstream-*`: GLib's saves
/// * `*.part`, `*.crdownload`: downloads of Firefox and Chromium
/// * `.git/**/*.lock`: git's locks
pub(crate) fn is_ignored(path: &RelPath) -> bool {
    let name = path.file_name();
    let swap = [&b".swp"[..], b".swo", b".swx"]
        .iter()
        .any(|end| name.ends_with(end));
    if name.starts_with(b".") && name.len() > 5 && swap {
        return true;
    }
    if name == b"4913" || name.starts_with(b".#") || name.starts_with(b".goutputstream-") {
        return true;
    }
    if (name.ends_with(b".part") && name.len() > 5) || (name.ends_with(b".crdownload") && name.len() > 11) {
        return true;
    }
    name.ends_with(b".lock") && path.components().rev().skip(1).any(|part| part == b".git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_ignored_and_others_are_not() {
        let ignored = |s: &str| is_ignored(&RelPath::parse(s).unwrap());
        for name in [
            ".a.swp",
            "d/.#x",
            "4913",
            "f.iso.part",
            "x.crdownload",
            ".git/index.lock",
            "a/.git/r/h.lock",
        ] {
            assert!(ignored(name), "{name}");
        }
        for name in [
            "a.swp",
            "Cargo.lock",
            "x.git/a.lock",
            "part",
            ".part",
            ".git/index",
            "a~",
            "4913x",
        ] {
            assert!(!ignored(name), "{name}");
        }
    }
}
