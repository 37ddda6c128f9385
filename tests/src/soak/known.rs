//! What was ever written, what users took away knowingly, and what happened when.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::Random;

/// First word of every content, by which a torn or foreign one is told.
const HEAD: &str = "p2p-sync soak ";
/// Lines that an error shows for one content.
const LINES_SHOWN: usize = 40;

/// BLAKE3 of a file's bytes, or of a link's text.
pub(super) type Hash = [u8; 32];

/// One content that a user wrote.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// Its name, `d<device>-<number>`.
    pub(super) id: String,
    /// Who saw it go, if somebody did.
    pub(super) taken: Option<String>,
    /// Written at a shared path bit by bit, so that a part of it may be seen.
    pub(super) in_parts: bool,
}

/// Shared by all users of a run and by those who judge it.
#[derive(Debug)]
pub(super) struct Known {
    began: Instant,
    inner: Mutex<Inner>,
    over: Mutex<bool>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    contents: HashMap<Hash, Content>,
    lines: Vec<String>,
    operations: u64,
    written: u64,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            inner: Mutex::default(),
            over: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a user or a fault did.
    pub(super) fn note(&self, who: &str, what: &str) {
        let at = self.began.elapsed().as_secs_f64();
        let mut inner = self.lock();
        inner.operations += 1;
        inner.lines.push(format!("{at:9.3} {who}: {what}"));
    }

    /// Enters a content before anybody can see it.
    pub(super) fn enter(&self, hash: Hash, id: &str) {
        let mut inner = self.lock();
        inner.written += 1;
        inner.contents.insert(
            hash,
            Content {
                id: id.to_owned(),
                taken: None,
                in_parts: false,
            },
        );
    }

    /// Notes that a content is written at its final path, so that a part of it may be seen.
    pub(super) fn allow_parts(&self, hash: &Hash) {
        if let Some(content) = self.lock().contents.get_mut(hash) {
            content.in_parts = true;
        }
    }

    /// Says whether these bytes are the beginning of a content that was written at its final path.
    pub(super) fn is_part(&self, bytes: &[u8]) -> bool {
        let Some(id) = id_in(bytes) else {
            return bytes.len() <= HEAD.len();
        };
        let inner = self.lock();
        inner
            .contents
            .values()
            .any(|content| content.in_parts && content.id == id)
    }

    /// Strikes out a content that was not put anywhere after all.
    pub(super) fn strike(&self, hash: &Hash) {
        self.lock().contents.remove(hash);
    }

    /// Notes that a user saw a content and took it away; returns its name if it was entered.
    pub(super) fn take(&self, hash: &Hash, who: &str) -> Option<String> {
        let mut inner = self.lock();
        let content = inner.contents.get_mut(hash)?;
        content.taken.get_or_insert_with(|| who.to_owned());
        Some(content.id.clone())
    }

    /// Returns the name of a content.
    pub(super) fn id(&self, hash: &Hash) -> Option<String> {
        self.lock().contents.get(hash).map(|content| content.id.clone())
    }

    /// Returns the contents that nobody took away knowingly, by hash.
    pub(super) fn wanted(&self) -> Vec<(Hash, String)> {
        let inner = self.lock();
        let wanted = inner
            .contents
            .iter()
            .filter(|(_, content)| content.taken.is_none());
        let mut wanted: Vec<_> = wanted
            .map(|(hash, content)| (*hash, content.id.clone()))
            .collect();
        wanted.sort_by(|a, b| a.1.cmp(&b.1));
        wanted
    }

    /// Returns how many operations were noted and contents entered.
    pub(super) fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.operations, inner.written)
    }

    /// Returns the last lines in which a content or a path is named.
    pub(super) fn story(&self, words: &[&str]) -> String {
        let inner = self.lock();
        let named = |line: &&String| words.iter().any(|word| stands_in(line, word));
        let lines: Vec<&String> = inner.lines.iter().filter(named).collect();
        let mut text = String::new();
        for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
            let _ = write!(text, "\n  {line}");
        }
        text
    }

    /// Returns all lines.
    pub(super) fn lines(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// Begins a round: pauses last as long as they are asked to.
    pub(super) fn begin(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Ends a round: pauses end.
    pub(super) fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }

    /// Lets time pass, as the pace of a user and not to wait for anything; returns whether the round is over.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.ended.wait_timeout_while(over, time, |over| !*over);
        *result.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Says whether `word` stands in `line` and is not the beginning of a longer number.
fn stands_in(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[at + word.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

/// Makes a content that nobody else makes: its name, and repeatable noise.
pub(super) fn make(id: &str, size: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = format!("{HEAD}{id} {size}\n").into_bytes();
    let head = bytes.len();
    if size > head {
        bytes.resize(size, 0);
        random.fill(&mut bytes[head..]);
    }
    bytes
}

fn id_in(bytes: &[u8]) -> Option<&str> {
    let rest = bytes.strip_prefix(HEAD.as_bytes())?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// Returns what a content says of itself, for errors.
pub(super) fn describe(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(80)]);
    format!("{} bytes, begins {line:?}", bytes.len())
}

/// Returns the hash of a file's bytes.
pub(super) fn hash_of(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

/// Returns the hash under which a link's text is known.
pub(super) fn hash_of_link(text: &Path) -> Hash {
    hash_of(&[b"link ", text.as_os_str().as_encoded_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_wanted_until_somebody_takes_it() {
        let known = Known::new();
        let hashes = ["a", "b", "c"].map(|text| hash_of(text.as_bytes()));
        for (hash, id) in hashes.iter().zip(["d0-1", "d0-2", "d0-3"]) {
            known.enter(*hash, id);
        }
        known.strike(&hashes[1]);
        assert_eq!(known.take(&hashes[2], "ben"), Some("d0-3".to_owned()));
        assert_eq!(known.take(&hash_of(b"foreign"), "ben"), None);
        assert_eq!(known.wanted(), [(hashes[0], "d0-1".to_owned())]);
    }

    #[test]
    fn a_story_names_its_content_and_no_other() {
        let known = Known::new();
        known.note("anna", "writes d0-1 at f");
        known.note("anna", "writes d0-12 at g");
        let story = known.story(&["d0-1"]);
        assert!(story.contains("at f") && !story.contains("at g"), "{story}");
    }

    #[test]
    fn a_part_is_known_by_its_first_line() {
        let known = Known::new();
        let bytes = make("d0-1", 500, &mut Random::new(1));
        known.enter(hash_of(&bytes), "d0-1");
        assert!(!known.is_part(&bytes[..200]));
        known.allow_parts(&hash_of(&bytes));
        assert!(known.is_part(&bytes[..200]) && known.is_part(b""));
        assert!(!known.is_part(b"p2p-sync soak d0-12 500\n"));
    }

    #[test]
    fn contents_of_all_sizes_differ() {
        let mut random = Random::new(1);
        for size in [0, 10, 100, 5000] {
            let [a, b] = ["d0-1", "d0-2"].map(|id| make(id, size, &mut random));
            assert!(a != b && a.len() >= size, "{size}");
        }
    }
}
