//! What a lock covers.

use std::fmt;

use crate::rel_path::{RelPath, RelPathError};

/// A file, or a directory with all that is below it, now and later.
///
/// Its text is the path, with a `/` after it for a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    path: RelPath,
    subtree: bool,
}

/// Why a text names nothing that can be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// The text is no path.
    #[error(transparent)]
    Path(#[from] RelPathError),
    /// The path is in the daemon's own directory.
    #[error("The daemon's own directory cannot be locked")]
    Own,
}

impl Resource {
    /// Names one path.
    ///
    /// # Errors
    /// [`ResourceError::Own`] if it is the daemon's.
    pub fn file(path: RelPath) -> Result<Self, ResourceError> {
        Self::new(path, false)
    }

    /// Names a directory and all that is below it.
    ///
    /// # Errors
    /// [`ResourceError::Own`] if it is the daemon's.
    pub fn subtree(path: RelPath) -> Result<Self, ResourceError> {
        Self::new(path, true)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`ResourceError`] if it is no path, or in the daemon's own directory.
    pub fn parse(text: &[u8]) -> Result<Self, ResourceError> {
        match text.strip_suffix(b"/") {
            Some(dir) => Self::subtree(RelPath::parse(dir)?),
            None => Self::file(RelPath::parse(text)?),
        }
    }

    fn new(path: RelPath, subtree: bool) -> Result<Self, ResourceError> {
        if path.is_own() {
            return Err(ResourceError::Own);
        }
        Ok(Self { path, subtree })
    }

    /// Returns the path, without the `/` of a directory.
    #[must_use]
    pub const fn path(&self) -> &RelPath {
        &self.path
    }

    /// Says whether all that is below the path belongs to it.
    #[must_use]
    pub const fn is_subtree(&self) -> bool {
        self.subtree
    }

    /// Returns the text form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let slash: &[u8] = if self.subtree { b"/" } else { b"" };
        [self.path.as_bytes(), slash].concat()
    }

    /// Says whether a change of `path` is a change of this.
    #[must_use]
    pub fn covers(&self, path: &RelPath) -> bool {
        self.path == *path || (self.subtree && path.is_below(&self.path))
    }

    /// Says whether two holders could be in each other's way.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(&other.path) || other.covers(&self.path)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, if self.subtree { "/" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::{Resource, ResourceError};
    use crate::rel_path::RelPath;

    fn resource(text: &str) -> Resource {
        Resource::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_slash_makes_a_subtree_and_is_read_back() {
        for text in ["a", "a/", "a/b", "a/b/"] {
            let read = resource(text);
            assert_eq!(read.to_bytes(), text.as_bytes());
            assert_eq!(read.is_subtree(), text.ends_with('/'));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_path_or_the_daemons_own_is_refused() {
        for text in ["", "/", "a//", "/a", "../a"] {
            let refused = Resource::parse(text.as_bytes());
            assert!(matches!(refused, Err(ResourceError::Path(_))), "{text}");
        }
        for text in [".p2p-sync", ".p2p-sync/", ".p2p-sync/versions/a"] {
            assert_eq!(
                Resource::parse(text.as_bytes()),
                Err(ResourceError::Own),
                "{text}"
            );
        }
    }

    #[test]
    fn two_overlap_if_equal_or_one_is_in_the_others_subtree() {
        let check = |a: &str, b: &str, expect: bool| {
            assert_eq!(resource(a).overlaps(&resource(b)), expect, "{a} {b}");
            assert_eq!(resource(b).overlaps(&resource(a)), expect, "{b} {a}");
        };
        check("a", "a", true);
        check("a", "a/", true);
        check("a/", "a/b/c", true);
        check("a/", "a/b/", true);
        check("a", "a/b", false);
        check("a/", "ab", false);
        check("a/b", "a/c", false);
        check("a/b/", "a/c/", false);
    }

    #[test]
    fn a_subtree_covers_its_own_path_and_all_below() {
        let path = |text: &str| RelPath::parse(text).unwrap();
        assert!(resource("a/").covers(&path("a")) && resource("a/").covers(&path("a/b/c")));
        assert!(resource("a").covers(&path("a")) && !resource("a").covers(&path("a/b")));
        assert!(!resource("a/b/").covers(&path("a")));
    }
}
