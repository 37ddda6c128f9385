//! Paths below the folder, as bytes (overview: paths are bytes, kept verbatim).
//!
//! A path is one or more components of 1–255 bytes joined by `/`; no component is `.` or `..` or holds a NUL.
//! At most [`RelPath::MAX_LEN`] bytes and [`RelPath::MAX_DEPTH`] components. Order is byte order, so a directory sorts
//! before what lies in it.

use std::fmt;

/// The directory in the folder that belongs to the daemon and is never synced.
pub const OWN_DIR: &[u8] = b".p2p-sync";

/// Why bytes are not a path of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelPathError {
    /// Nothing at all, or more bytes than allowed.
    #[error("A path has 1 to 4096 bytes")]
    Length,
    /// Too many components.
    #[error("A path has at most 256 components")]
    Depth,
    /// A component is empty, too long, `.`, `..`, or holds a NUL.
    #[error("A path component has 1 to 255 bytes, no NUL, and is neither . nor ..")]
    Component,
}

/// A path of the folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Bytes a path may have.
    pub const MAX_LEN: usize = 4096;
    /// Components a path may have.
    pub const MAX_DEPTH: usize = 256;
    /// Bytes a component may have; the limit of Linux file systems.
    pub const MAX_COMPONENT: usize = 255;

    /// Reads a path.
    ///
    /// # Errors
    /// One of [`RelPathError`].
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, RelPathError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > Self::MAX_LEN {
            return Err(RelPathError::Length);
        }
        let mut depth = 0;
        for component in bytes.split(|b| *b == b'/') {
            depth += 1;
            let bad = component.is_empty()
                || component.len() > Self::MAX_COMPONENT
                || component == b"."
                || component == b".."
                || component.contains(&0);
            if bad {
                return Err(RelPathError::Component);
            }
        }
        if depth > Self::MAX_DEPTH {
            return Err(RelPathError::Depth);
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// Returns the last component.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or(&self.0)
    }

    /// Returns the directory this path lies in; `None` at the top of the folder.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// Returns the directories above this path, nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// Returns this path with one more component.
    ///
    /// # Errors
    /// [`RelPathError`] if the result is not a path.
    pub fn join(&self, name: &[u8]) -> Result<Self, RelPathError> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::parse(bytes)
    }

    /// Returns this path with another last component.
    ///
    /// # Errors
    /// [`RelPathError`] if the result is not a path.
    pub fn with_file_name(&self, name: &[u8]) -> Result<Self, RelPathError> {
        match self.parent() {
            Some(parent) => parent.join(name),
            None => Self::parse(name),
        }
    }

    /// Says whether this path lies below `dir` (and is not `dir`).
    #[must_use]
    pub fn is_below(&self, dir: &Self) -> bool {
        self.0.len() > dir.0.len() && self.0.starts_with(&dir.0) && self.0[dir.0.len()] == b'/'
    }

    /// Says whether this path lies in the daemon's own directory.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.components().next() == Some(OWN_DIR)
    }

    /// Returns the smallest path-like bytes after everything below this path: an exclusive bound for a range scan
    /// that starts at `self/`.
    #[must_use]
    pub fn below_range(&self) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.0.to_vec();
        from.push(b'/');
        let mut to = self.0.to_vec();
        to.push(b'/' + 1);
        (from, to)
    }
}

impl fmt::Display for RelPath {
    /// Writes UTF-8 as it is, control characters and other bytes as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' {
                    let mut buffer = [0; 4];
                    for b in c.encode_utf8(&mut buffer).bytes() {
                        write!(f, "\\x{b:02x}")?;
                    }
                } else {
                    write!(f, "{c}")?;
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_relative_paths_are_read() {
        for good in ["a", "a/b", ".hidden", "...", "a b/c\u{e9}", "x/.p2p-sync"] {
            assert!(RelPath::parse(good).is_ok(), "{good}");
        }
        assert!(RelPath::parse(vec![0xff, 0xfe]).is_ok());
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "a\0b"] {
            assert!(RelPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RelPath::parse("a".repeat(256)).is_err());
        assert!(RelPath::parse("a/".repeat(256) + "a").is_err());
        assert!(RelPath::parse("a/".repeat(255) + "a").is_ok());
    }

    #[test]
    fn a_directory_sorts_before_its_contents() {
        let dir = RelPath::parse("a").unwrap();
        let child = dir.join(b"b").unwrap();
        assert!(dir < child && child.is_below(&dir) && !dir.is_below(&dir));
        assert!(!RelPath::parse("ab").unwrap().is_below(&dir));
        let (from, to) = dir.below_range();
        assert!(child.as_bytes() >= &from[..] && child.as_bytes() < &to[..]);
    }

    #[test]
    fn odd_bytes_print_as_escapes() {
        assert_eq!(
            RelPath::parse(b"a\xffb\n".to_vec()).unwrap().to_string(),
            "a\\xffb\\x0a"
        );
    }
}
