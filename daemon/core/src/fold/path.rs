//! The versions of one path, put together one at a time (ledger.md 4, rules 3–5, without tokens).
//!
//! Versions arrive in an order that respects `seen`, so whatever a base names was applied before. What was superseded
//! stays superseded: a version's base closure was superseded when its base was applied, so only the direct base and
//! the equal contents among the live heads remain to be looked at. [`super::set`] is the same rule over the whole set.
//!
//! A Put that only sets mode or time, a touch, carries on contents that other versions brought, its origins. It lives
//! as long as one of them has not been replaced or discarded, ranks as the greatest of them, and is shown as they
//! would be. Otherwise a touch would hide the bytes of a lost conflict, or bring back what an edit replaced when
//! that edit is deleted.

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
    /// Where its content came from, if all versions in its base have the same kind and content, so that it only
    /// touches them; sorted by dot. Empty for a version that changes something. In a head: those not yet replaced.
    pub origins: Vec<Origin>,
}

/// A version that brought a content to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Its name.
    pub dot: Dot,
    /// Whether it is anything but a joiner's file of unknown descent.
    pub plain: bool,
    /// Its place in the total order of writes.
    pub order: WriteOrder,
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

    /// Returns where the content of a version with this entry comes from, if it only touches its base.
    #[must_use]
    pub fn origins_of(entry: Option<&Entry>, base: &[Self]) -> Vec<Origin> {
        let touches = entry.is_some() && base.iter().all(|b| b.node() == entry.map(|entry| &entry.node));
        if !touches {
            return Vec::new();
        }
        let mut origins: Vec<Origin> = base.iter().flat_map(Self::sources).collect();
        origins.sort();
        origins.dedup();
        origins
    }

    /// Returns the versions that brought its content: its origins, or itself.
    pub(super) fn sources(&self) -> Vec<Origin> {
        if !self.origins.is_empty() {
            return self.origins.clone();
        }
        let itself = Origin {
            dot: self.dot,
            plain: !self.base.is_empty() || !self.import,
            order: self.order(),
        };
        vec![itself]
    }

    /// Returns the key by which the winner is the greatest.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let best = self
            .sources()
            .iter()
            .map(|origin| (origin.plain, origin.order))
            .max();
        (self.entry.is_some(), best, self.order())
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
    /// path, applied before, whose direct base holds a Put with the same kind and content and that is no touch.
    pub fn apply(
        &mut self,
        mut version: Version,
        base: &[Version],
        replaced_by: Option<WriteOrder>,
    ) -> Applied {
        if !version.origins.is_empty() {
            return self.touch(version);
        }
        let mut replaced: Vec<Node> = base.iter().filter_map(|b| b.node().cloned()).collect();
        replaced.sort();
        replaced.dedup();
        let covered: Vec<Dot> = base
            .iter()
            .flat_map(Version::sources)
            .map(|origin| origin.dot)
            .collect();
        let order = version.order();
        self.heads.retain_mut(|head| {
            let equal = head
                .node()
                .is_some_and(|node| replaced.binary_search(node).is_ok());
            let gone = |dot: Dot, written: WriteOrder| covered.contains(&dot) || (equal && written < order);
            if head.origins.is_empty() {
                return !gone(head.dot, head.order());
            }
            head.origins.retain(|origin| !gone(origin.dot, origin.order));
            !head.origins.is_empty()
        });
        let is_head = !(version.entry.is_some() && replaced_by.is_some_and(|by| order < by));
        if is_head {
            version.origins.clear();
            self.insert(version);
        }
        Applied { is_head, replaced }
    }

    /// Takes up a touch: it takes the place of its base, for those contents that nothing has replaced.
    fn touch(&mut self, mut version: Version) -> Applied {
        let live: Vec<Origin> = self.heads.iter().flat_map(Version::sources).collect();
        version.origins.retain(|origin| live.contains(origin));
        self.heads.retain(|head| !version.base.contains(&head.dot));
        let is_head = !version.origins.is_empty();
        if is_head {
            self.insert(version);
        }
        Applied {
            is_head,
            replaced: Vec::new(),
        }
    }

    fn insert(&mut self, version: Version) {
        let at = self.heads.partition_point(|head| head.dot < version.dot);
        self.heads.insert(at, version);
    }

    /// Supersedes these versions, with what only touches them.
    pub fn discard(&mut self, dropped: &[Version]) {
        let covered: Vec<Dot> = dropped
            .iter()
            .flat_map(Version::sources)
            .map(|origin| origin.dot)
            .collect();
        self.heads.retain_mut(|head| {
            if head.origins.is_empty() {
                return !covered.contains(&head.dot);
            }
            head.origins.retain(|origin| !covered.contains(&origin.dot));
            !head.origins.is_empty()
        });
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

    /// Returns the heads whose bytes are to be shown as conflict copies beside the winner: Puts that are no
    /// directories, whose content differs from the winner's, one for each content.
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
    // Not in the order of dots: branches of a log have other names on other devices.
    let mut heads: Vec<&Version> = heads.iter().collect();
    heads.sort_by_key(|head| (head.order(), head.dot.item));
    for head in heads {
        let Some(node) = head.node() else { continue };
        let twin = shown.iter().any(|other| other.node() == Some(node));
        if Some(node) != won && !node.is_dir() && !twin {
            shown.push(head);
        }
    }
    shown
}
