//! Which paths this device leaves alone: patterns as in a `.gitignore`.
//!
//! Three sources, later ones win: the built-in set of temporary names (can be switched off), `[folder] ignore` of the
//! configuration, and the file `.p2p-sync/ignore` in the folder, which is never synced and is read again before each
//! full scan. Patterns are text; they are matched against the bytes of names, whatever these are.
//!
//! Rules are looked up from the top of a path downwards and the first directory that is ignored decides: a `!pattern`
//! brings nothing back that lies in it, as with git.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use p2p_sync_core::ignore::IgnoreRules;
use p2p_sync_core::rel_path::RelPath;

/// The folder's own file of patterns, relative to the folder.
pub const IGNORE_FILE: &str = ".p2p-sync/ignore";

/// Bytes the file of patterns may have: what a person writes, and what is compiled in an instant.
const FILE_MAX: u64 = 64 << 10;
/// Patterns of all sources; matching costs little more for many, but compiling does.
const PATTERNS_MAX: usize = 1000;
/// Bytes of one pattern.
const PATTERN_MAX: usize = 1024;

/// Names of temporary files that a program takes away again or renames to their real name.
const BUILT_IN: [&str; 11] = [
    // vim
    ".?*.sw[opx]",
    "4913",
    // emacs: locks and unsaved work
    ".#*",
    "\\#?*#",
    // GLib's saves
    ".goutputstream-*",
    // kate
    ".?*.kate-swp",
    // office programs: locks
    ".~lock.?*#",
    "~$?*",
    // downloads of Firefox and Chromium
    "?*.part",
    "?*.crdownload",
    // git: locks
    "**/.git/**/*.lock",
];

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IgnoreError {
    /// The file of patterns cannot be read. To go on without it could publish what was meant to stay here.
    #[error("Cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The patterns together cannot be used.
    #[error("The ignore patterns cannot be used together: {0}")]
    Compile(String),
}

/// Where the rules come from.
#[derive(Debug, Clone)]
pub struct RuleSource {
    built_in: bool,
    patterns: Vec<String>,
    file: PathBuf,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Rules {
    matcher: Gitignore,
    id: [u8; 32],
    problems: Vec<String>,
}

impl RuleSource {
    /// Names the sources for a folder; `patterns` have passed [`check`].
    #[must_use]
    pub fn new(built_in: bool, patterns: Vec<String>, folder: &Path) -> Self {
        Self {
            built_in,
            patterns,
            file: folder.join(IGNORE_FILE),
        }
    }

    /// Reads the file and compiles everything. A pattern of the file that makes no sense is left out and named in
    /// [`Rules::problems`].
    ///
    /// # Errors
    /// [`IgnoreError`].
    pub fn read(&self) -> Result<Rules, IgnoreError> {
        let mut rules = Building::default();
        if self.built_in {
            BUILT_IN.iter().for_each(|pattern| rules.add(pattern, "built in"));
        }
        for pattern in &self.patterns {
            rules.add(pattern, "[folder] ignore");
        }
        let text = read_bounded(&self.file).map_err(|source| IgnoreError::Read {
            path: self.file.clone(),
            source,
        })?;
        for (number, line) in text.split(|b| *b == b'\n').enumerate() {
            rules.add_line(line, &format!("{IGNORE_FILE}:{}", number + 1));
        }
        rules.build()
    }
}

impl Rules {
    /// Returns what is wrong with patterns that were left out, one sentence each.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Says whether a path is ignored by itself, its directory not being so.
    #[must_use]
    pub fn matches(&self, path: &RelPath, is_dir: bool) -> bool {
        self.matches_bytes(path.as_bytes(), is_dir)
    }

    fn matches_bytes(&self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        self.matcher.matched(path, is_dir).is_ignore()
    }
}

impl IgnoreRules for Rules {
    fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool {
        let bytes = path.as_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, b)| **b == b'/');
        let mut above = slashes.map(|(at, _)| &bytes[..at]);
        above.any(|dir| self.matches_bytes(dir, true)) || self.matches_bytes(bytes, is_dir)
    }

    fn id(&self) -> [u8; 32] {
        self.id
    }
}

/// Says whether a pattern can be used; the reason, for people, if not.
///
/// # Errors
/// What is wrong with it.
pub fn check(pattern: &str) -> Result<(), String> {
    if pattern.trim().is_empty() {
        return Err("an empty pattern".to_owned());
    }
    if pattern.starts_with('#') {
        return Err(format!(
            "{pattern:?} is a comment; write \"\\\\#\" for a name that begins with #"
        ));
    }
    if pattern.contains(['\n', '\0']) {
        return Err(format!("{pattern:?} holds a line break or a NUL"));
    }
    if pattern.len() > PATTERN_MAX {
        return Err(format!("a pattern of more than {PATTERN_MAX} bytes"));
    }
    builder()
        .add_line(None, pattern)
        .map(drop)
        .map_err(|e| format!("{pattern:?} is no pattern: {}", reason(&e)))
}

fn builder() -> GitignoreBuilder {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    builder
}

/// Returns what is wrong, without the pattern, which stands beside it.
fn reason(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    }
}

#[derive(Debug)]
struct Building {
    builder: GitignoreBuilder,
    hasher: blake3::Hasher,
    count: usize,
    problems: Vec<String>,
}

impl Default for Building {
    fn default() -> Self {
        Self {
            builder: builder(),
            hasher: blake3::Hasher::new(),
            count: 0,
            problems: Vec::new(),
        }
    }
}

impl Building {
    /// Adds a line of the file.
    fn add_line(&mut self, line: &[u8], place: &str) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() || text.starts_with('#') => {}
            Ok(text) => self.add(text, place),
            Err(_) => self.problems.push(format!("{place}: not UTF-8")),
        }
    }

    fn add(&mut self, pattern: &str, place: &str) {
        if self.count == PATTERNS_MAX {
            self.problems.push(format!(
                "{place}: only the first {PATTERNS_MAX} patterns are used"
            ));
        }
        self.count += 1;
        if self.count > PATTERNS_MAX {
            return;
        }
        let added = check(pattern).and_then(|()| {
            let result = self.builder.add_line(None, pattern);
            result.map(drop).map_err(|e| reason(&e))
        });
        match added {
            Ok(()) => {
                self.hasher.update(pattern.as_bytes());
                self.hasher.update(b"\n");
            }
            Err(why) => self.problems.push(format!("{place}: {why}")),
        }
    }

    fn build(self) -> Result<Rules, IgnoreError> {
        let matcher = self
            .builder
            .build()
            .map_err(|e| IgnoreError::Compile(e.to_string()))?;
        Ok(Rules {
            matcher,
            id: *self.hasher.finalize().as_bytes(),
            problems: self.problems,
        })
    }
}

/// Reads a file that may be absent.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        let text = format!("it has more than {FILE_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
