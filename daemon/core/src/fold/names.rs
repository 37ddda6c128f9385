//! The names pass: a path with something below it is a directory; conflict copies get names (ledger.md 4, rule 6).

use super::path::{PathState, Version};
use crate::ids::Dot;
use crate::rel_path::{OWN_DIR, RelPath};

/// Bytes an extension may have to stay at the end of a copy's name; longer ones belong to the stem.
const MAX_EXTENSION: usize = 32;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here<'a> {
    /// Nothing.
    Nothing,
    /// A version's entry.
    Version(&'a Version),
    /// A directory that no live version puts there, because something lies below it.
    ImpliedDir,
}

/// What a path's heads come to, before its copies have names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution<'a> {
    /// What stands at the path itself.
    pub here: Here<'a>,
    /// What is shown beside it.
    pub copies: Vec<&'a Version>,
}

/// Resolves a path; `below` says whether anything live lies below it.
#[must_use]
pub fn resolve(state: &PathState, below: bool) -> Resolution<'_> {
    let mut copies = state.copies();
    let winner = state.winner().filter(|version| version.entry.is_some());
    let here = match winner {
        None if below => Here::ImpliedDir,
        None => Here::Nothing,
        Some(version) if !below || version.node().is_some_and(|node| node.is_dir()) => Here::Version(version),
        Some(displaced) => {
            copies.push(displaced);
            copies.sort_by_key(|version| version.dot);
            let dir = state
                .heads
                .iter()
                .filter(|head| head.node().is_some_and(|node| node.is_dir()));
            dir.max_by_key(|head| head.order())
                .map_or(Here::ImpliedDir, Here::Version)
        }
    };
    Resolution { here, copies }
}

/// Returns the name of the conflict copy of `path` for version `dot`; with `suffix` (6 hexadecimal digits of the event's
/// id) when the plain one is taken.
///
/// Copies of paths with a `.git` component lie in the daemon's own directory, where git takes none for a branch.
#[must_use]
pub fn copy_name(path: &RelPath, dot: Dot, suffix: Option<&str>) -> RelPath {
    let (stem, extension) = split_extension(path.file_name());
    let mut mark = format!(" (conflict {}-{}", dot.device.label(), dot.seq);
    if let Some(suffix) = suffix {
        mark.push('-');
        mark.push_str(suffix);
    }
    mark.push(')');
    let room = RelPath::MAX_COMPONENT - mark.len() - extension.len();
    let name = [cut(stem, room), mark.as_bytes(), extension].concat();
    let named = path.with_file_name(&name).unwrap_or_else(|_| path.clone());
    if path.components().any(|component| component == b".git") {
        let hidden = [OWN_DIR, b"/conflicts/", named.as_bytes()].concat();
        return RelPath::parse(hidden).unwrap_or(named);
    }
    named
}

/// Returns the names that the conflict copy of `path` for version `dot` may have, `event` being the id of the version's
/// event in hexadecimal digits: the plain one, and the one that it has if that is taken.
#[must_use]
pub fn copy_names(path: &RelPath, dot: Dot, event: &str) -> [RelPath; 2] {
    let suffix = event.get(..6).unwrap_or(event);
    [None, Some(suffix)].map(|suffix| copy_name(path, dot, suffix))
}

/// Splits at the last dot that is not the first byte.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 && name.len() - at <= MAX_EXTENSION => name.split_at(at),
        _ => (name, b""),
    }
}

/// Cuts to at most `room` bytes, between UTF-8 characters where the name is UTF-8.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let mut end = room;
    while end > 0 && stem[end] & 0xc0 == 0x80 && room - end < 4 {
        end -= 1;
    }
    &stem[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShortId;

    fn path(s: &str) -> RelPath {
        RelPath::parse(s).unwrap()
    }

    const DOT: Dot = Dot {
        device: ShortId::new([0xab; 8]),
        seq: 12,
        item: 0,
    };

    #[test]
    fn copies_are_named_after_their_version() {
        let cases = [
            ("a/plan.odt", "a/plan (conflict abababab-12).odt"),
            ("Makefile", "Makefile (conflict abababab-12)"),
            (".profile", ".profile (conflict abababab-12)"),
            ("x.tar.gz", "x.tar (conflict abababab-12).gz"),
            (
                "r/.git/refs/heads/main",
                ".p2p-sync/conflicts/r/.git/refs/heads/main (conflict abababab-12)",
            ),
        ];
        for (from, to) in cases {
            assert_eq!(copy_name(&path(from), DOT, None), path(to));
        }
        let taken = copy_name(&path("a.txt"), DOT, Some("0123ef"));
        assert_eq!(taken, path("a (conflict abababab-12-0123ef).txt"));
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "\u{e9}".repeat(125) + ".txt";
        let copy = copy_name(&path(&long), DOT, None);
        assert!(copy.file_name().len() <= 255);
        assert!(std::str::from_utf8(copy.as_bytes()).is_ok());
        assert!(copy.to_string().ends_with(" (conflict abababab-12).txt"));
    }
}
