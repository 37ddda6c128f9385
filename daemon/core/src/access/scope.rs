//! Where in the folder a grant lets its device write.

use crate::rel_path::RelPath;

/// Directories or files at and below which a grant counts; none: the whole folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Scopes(Vec<RelPath>);

/// Paths that cannot be the scopes of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopesError {
    /// More than [`Scopes::MAX`].
    #[error("A grant has at most {} paths", Scopes::MAX)]
    TooMany,
    /// Not in byte order, or one twice.
    #[error("The paths of a grant are written in byte order, each once")]
    Order,
}

impl Scopes {
    /// Paths one grant may name.
    pub const MAX: usize = 32;

    /// Returns the scopes of a grant that counts everywhere.
    #[must_use]
    pub const fn whole() -> Self {
        Self(Vec::new())
    }

    /// Takes paths in any order.
    ///
    /// # Errors
    /// [`ScopesError::TooMany`].
    pub fn new(mut paths: Vec<RelPath>) -> Result<Self, ScopesError> {
        paths.sort();
        paths.dedup();
        Self::from_sorted(paths)
    }

    /// Takes paths as an event has them.
    ///
    /// # Errors
    /// [`ScopesError`] if they are too many, or not in byte order.
    pub fn from_sorted(paths: Vec<RelPath>) -> Result<Self, ScopesError> {
        if paths.len() > Self::MAX {
            return Err(ScopesError::TooMany);
        }
        if !paths.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(ScopesError::Order);
        }
        Ok(Self(paths))
    }

    /// Returns the paths; none: the whole folder.
    #[must_use]
    pub fn paths(&self) -> &[RelPath] {
        &self.0
    }

    /// Says whether a path is in reach.
    #[must_use]
    pub fn covers(&self, path: &RelPath) -> bool {
        self.0.is_empty() || self.0.iter().any(|scope| scope == path || path.is_below(scope))
    }

    /// Says whether all that these reach is in reach of `other`, too.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        other.0.is_empty() || (!self.0.is_empty() && self.0.iter().all(|path| other.covers(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(paths: &[&str]) -> Scopes {
        Scopes::new(paths.iter().map(|path| RelPath::parse(*path).unwrap()).collect()).unwrap()
    }

    #[test]
    fn a_scope_reaches_itself_and_what_lies_below_but_no_like_named_neighbour() {
        let docs = scopes(&["docs"]);
        let covers = |path: &str| docs.covers(&RelPath::parse(path).unwrap());
        assert!(covers("docs") && covers("docs/a/b"));
        assert!(!covers("docs2") && !covers("doc") && !covers("a/docs"));
        assert!(Scopes::whole().covers(&RelPath::parse("x").unwrap()));
    }

    #[test]
    fn scopes_lie_within_wider_ones_only() {
        assert!(scopes(&["docs/a", "docs/b"]).within(&scopes(&["docs"])));
        assert!(scopes(&["docs"]).within(&Scopes::whole()));
        assert!(!Scopes::whole().within(&scopes(&["docs"])));
        assert!(!scopes(&["docs", "src"]).within(&scopes(&["docs"])));
        assert!(Scopes::whole().within(&Scopes::whole()));
    }

    #[test]
    fn too_many_and_unsorted_paths_are_refused() {
        let paths = |n: usize| {
            (0..n)
                .map(|i| RelPath::parse(format!("{i:03}")).unwrap())
                .collect::<Vec<_>>()
        };
        assert!(Scopes::new(paths(Scopes::MAX)).is_ok());
        assert_eq!(Scopes::new(paths(Scopes::MAX + 1)), Err(ScopesError::TooMany));
        let mut reversed = paths(2);
        reversed.reverse();
        assert_eq!(Scopes::from_sorted(reversed), Err(ScopesError::Order));
    }
}
