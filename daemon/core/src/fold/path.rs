//! The versions of one path, put together one at a time (ledger.md 4, rules 3–5, without tokens).
//!
//! Versions arrive in an order that respects `seen`, so whatever a base names was applied before. What was superseded
//! stays superseded: a version's base closure was superseded when its base was applied, so only the direct base and
//! the equal contents among the live heads remain to be looked at. [`super::set`] is the same rule over the whole set.

use crate::ids::{Dot, EventId};
use crate::rel_path::RelPath;
use crate::time::Hlc;
use crate::tree::{Entry, Node};

/// The total order of writes.
pub type WriteOrder = (Hlc, EventId);

/// One Put or Del of a path, authorised and in keeping with the base rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its name.
    pub dot: Dot,
    /// The id of its event.
    pub event: EventId,
    /// Its event's clock.
    pub hlc: Hlc,
    /// What it puts; `None`: a Del.
    pub entry: Option<Entry>,
    /// The versions it names as replaced.
    pub base: Vec<Dot>,
    /// Whether it is a joiner's file of unknown descent.
    pub import: bool,
    /// Whether kind and content differ from those of every Put in its base.
    pub changes: bool,
}

impl Version {
    /// Returns its place in the total order of writes.
    #[must_use]
    pub const fn order(&self) -> WriteOrder {
        (self.hlc, self.event)
    }

    /// Returns kind and content; `None` for a Del.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.entry.as_ref().map(|entry| &entry.node)
    }

    /// Returns the key by which the winner is the greatest.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        (
            self.entry.is_some(),
            !self.base.is_empty() || !self.import,
            self.changes,
            self.order(),
        )
    }
}

/// The live heads of a path, and the conflict copies shown for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathState {
    /// Versions that nothing supersedes, in order of their dots.
    pub heads: Vec<Version>,
    /// Names of the conflict copies that the names pass has given, with the heads they show.
    pub shown: Vec<(RelPath, Dot)>,
}

/// What applying a version did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Whether the new version is a head.
    pub is_head: bool,
    /// Kinds and contents of the Puts in its direct base: later arrivals of an older order with one of these are
    /// superseded by it.
    pub replaced: Vec<Node>,
}

impl PathState {
    /// Takes up a version.
    ///
    /// `base` are the known versions among those it names; `replaced_by` is the greatest order of any version of this
    /// path, applied before, whose direct base holds a Put with the same kind and content.
    pub fn apply(&mut self, version: Version, base: &[Version], replaced_by: Option<WriteOrder>) -> Applied {
        let mut replaced: Vec<Node> = base.iter().filter_map(|b| b.node().cloned()).collect();
        replaced.sort();
        replaced.dedup();
        self.heads.retain(|head| {
            let named = version.base.contains(&head.dot);
            let equal = head.order() < version.order()
                && head
                    .node()
                    .is_some_and(|node| replaced.binary_search(node).is_ok());
            !(named || equal)
        });
        let is_head = !(version.entry.is_some() && replaced_by.is_some_and(|order| version.order() < order));
        if is_head {
            let at = self.heads.partition_point(|head| head.dot < version.dot);
            self.heads.insert(at, version);
        }
        Applied { is_head, replaced }
    }

    /// Supersedes the named versions.
    pub fn discard(&mut self, drop: &[Dot]) {
        self.heads.retain(|head| !drop.contains(&head.dot));
    }

    /// Returns the head that stands at the path; it may be a Del.
    #[must_use]
    pub fn winner(&self) -> Option<&Version> {
        winner(&self.heads)
    }

    /// Says whether some head is a Put, so that the winner is one too.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.heads.iter().any(|head| head.entry.is_some())
    }

    /// Returns the heads whose bytes are to be shown as conflict copies beside `winner`: Puts that are no directories,
    /// whose content differs from the winner's and from their own bases', one for each content.
    #[must_use]
    pub fn copies(&self) -> Vec<&Version> {
        copies(&self.heads)
    }

    /// Returns a head by its dot.
    #[must_use]
    pub fn head(&self, dot: Dot) -> Option<&Version> {
        self.heads.iter().find(|head| head.dot == dot)
    }

    /// Returns the dots of the heads with this kind and content; with `None` those of the Dels.
    #[must_use]
    pub fn heads_with(&self, node: Option<&Node>) -> Vec<Dot> {
        self.heads
            .iter()
            .filter(|head| head.node() == node)
            .map(|head| head.dot)
            .collect()
    }
}

pub(super) fn winner(heads: &[Version]) -> Option<&Version> {
    heads.iter().max_by_key(|head| head.rank())
}

pub(super) fn copies(heads: &[Version]) -> Vec<&Version> {
    let won = winner(heads).and_then(Version::node);
    let mut shown: Vec<&Version> = Vec::new();
    for head in heads {
        let Some(node) = head.node() else { continue };
        let twin = shown.iter().any(|other| other.node() == Some(node));
        if Some(node) != won && head.changes && !node.is_dir() && !twin {
            shown.push(head);
        }
    }
    shown
}
