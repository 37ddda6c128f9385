//! The names pass: a path with something below it is a directory; conflict copies get names (ledger.md 4, rule 6).

use super::path::{PathState, Version};
use crate::ids::Dot;
use crate::rel_path::{OWN_DIR, RelPath};

/// Bytes an extension may have to stay at the end of a copy's name; longer ones belong to the stem.
const MAX_EXTENSION: usize = 32;
/// Digits of an event's id in the name of a copy whose plain name is taken.
const SHORT_SUFFIX: usize = 6;

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
            copies.sort_by_key(|version| (version.order(), version.dot.item));
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

/// Returns the name of the conflict copy of `path` for version `dot`; with `suffix` (hexadecimal digits of the event's id)
/// when the plain one is taken.
///
/// Copies of paths with a `.git` component lie in the daemon's own directory, where git takes none for a branch.
fn copy_name(path: &RelPath, dot: Dot, suffix: Option<&str>) -> RelPath {
    let (stem, extension) = split_extension(path.file_name());
    let mark = mark(dot, suffix);
    let room = RelPath::MAX_COMPONENT - mark.len() - extension.len();
    let name = [cut(stem, room), mark.as_bytes(), extension].concat();
    let named = path.with_file_name(&name).unwrap_or_else(|_| path.clone());
    if path.components().any(|component| component == b".git") {
        let hidden = [OWN_DIR, b"/conflicts/", named.as_bytes()].concat();
        return RelPath::parse(hidden).unwrap_or(named);
    }
    named
}

/// Returns the names that the conflict copy of `path` for version `dot` may have, the best first: it has the first that is
/// free. `event` is the id of the version's event in hexadecimal digits; a user may have made a file of the copy's two
/// shorter names, by editing it, but not of the longest.
#[must_use]
pub fn copy_names(path: &RelPath, dot: Dot, event: &str) -> [RelPath; 3] {
    let short = event.get(..SHORT_SUFFIX).unwrap_or(event);
    [None, Some(short), Some(event)].map(|suffix| copy_name(path, dot, suffix))
}

/// Returns a copy's name and those that would have been better: whoever takes or leaves one of these names may change that
/// of the copy.
#[must_use]
pub fn names_up_to(path: &RelPath, dot: Dot, name: &RelPath) -> Vec<RelPath> {
    let mut names = vec![name.clone()];
    if let Some(suffix) = suffix_of(dot, name) {
        names.push(copy_name(path, dot, None));
        if let Some(short) = suffix.get(..SHORT_SUFFIX).filter(|short| *short != suffix) {
            names.push(copy_name(path, dot, Some(short)));
        }
    }
    names
}

/// Returns what a copy's name has after the version.
fn suffix_of(dot: Dot, name: &RelPath) -> Option<&str> {
    let name = name.file_name();
    let mark = mark(dot, Some(""));
    let mark = mark.trim_end_matches(')').as_bytes();
    let at = name.windows(mark.len()).rposition(|part| part == mark)?;
    let suffix = name[at + mark.len()..].split(|byte| *byte == b')').next()?;
    std::str::from_utf8(suffix).ok()
}

fn mark(dot: Dot, suffix: Option<&str>) -> String {
    let (dash, suffix) = suffix.map_or(("", ""), |suffix| ("-", suffix));
    format!(" (conflict {}-{}{dash}{suffix})", dot.device.label(), dot.seq)
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
        let event = "0123ef".repeat(10) + "0123";
        let names = copy_names(&path("a.txt"), DOT, &event);
        assert_eq!(names[1], path("a (conflict abababab-12-0123ef).txt"));
        assert!(names[2].to_string().ends_with("0123ef0123).txt"), "{}", names[2]);
        for (at, name) in names.iter().enumerate() {
            let mut up_to = names_up_to(&path("a.txt"), DOT, name);
            up_to.sort_by_key(|name| name.as_bytes().len());
            assert_eq!(up_to, names[..=at]);
        }
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
