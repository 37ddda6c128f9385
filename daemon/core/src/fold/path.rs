//! The versions of one path, put together one at a time (ledger.md 4, rules 3–5).
//!
//! Versions arrive in an order that respects `seen`, so whatever a base names was applied before. What was superseded
//! stays superseded: a version's base closure was superseded when its base was applied, so only the direct base and
//! the equal contents among the live heads remain to be looked at. [`super::set`] is the same rule over the whole set.
//!
//! A Put that only sets mode or time, a touch, carries on contents that other versions brought, its origins. It lives
//! as long as one of them has not been replaced or discarded, ranks as the greatest of them, and is shown as they
//! would be. Otherwise a touch would hide the bytes of a lost conflict, or bring back what an edit replaced when
//! that edit is deleted.
//!
//! What was written while somebody else held a lock is fenced: it replaces nothing but what was fenced, too, and is shown
//! as a conflict copy. A touch of that kind, and a touch of such a version, is none.

use super::fence::{Fences, Standing};
use crate::ids::{Dot, EventId};
use crate::lock::Token;
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
    /// How it stands to the locks on its path.
    pub standing: Standing,
}

/// A version that brought a content to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Its name.
    pub dot: Dot,
    /// Under which lock it was written; zero: none.
    pub token: Token,
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
        let same = |b: &Self| !b.standing.fenced && b.node() == entry.map(|entry| &entry.node);
        let touches = entry.is_some() && base.iter().all(same);
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
            token: self.standing.token,
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
            .map(|origin| (origin.token, origin.plain, origin.order))
            .max();
        (self.entry.is_some(), best, self.order())
    }
}

/// The live heads of a path, and the conflict copies shown for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathState {
    /// Versions that nothing supersedes, in order of their dots.
    pub heads: Vec<Version>,
    /// Fenced Puts that nothing supersedes, in order of their dots.
    pub fenced: Vec<Version>,
    /// The locks on just this path that decide about what is written.
    pub fences: Fences,
    /// Names of the conflict copies that the names pass has given, with the heads they show.
    pub shown: Vec<(RelPath, Dot)>,
}

/// What applying a version did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// path, applied before, that is neither fenced nor a touch and whose direct base holds a Put with the same kind and
    /// content.
    pub fn apply(
        &mut self,
        mut version: Version,
        base: &[Version],
        replaced_by: Option<WriteOrder>,
    ) -> Applied {
        if !version.origins.is_empty() {
            return self.touch(version);
        }
        let order = version.order();
        let is_old = version.entry.is_some()
            && version.standing.token == Token::default()
            && replaced_by.is_some_and(|by| order < by);
        if version.standing.fenced {
            return self.apply_fenced(version, base, is_old);
        }
        let mut replaced: Vec<Node> = base.iter().filter_map(|b| b.node().cloned()).collect();
        replaced.sort();
        replaced.dedup();
        let covered = sources_of(base);
        let gone = |node: Option<&Node>, origin: &Origin| {
            let equal = node.is_some_and(|node| replaced.binary_search(node).is_ok());
            let older = origin.token == Token::default() && origin.order < order;
            covered.contains(&origin.dot) || (equal && older)
        };
        self.keep_unless(gone);
        if !is_old {
            version.origins.clear();
            insert(&mut self.heads, version);
        }
        Applied {
            is_head: !is_old,
            replaced,
        }
    }

    /// Takes up a version that was written while somebody else held a lock.
    fn apply_fenced(&mut self, version: Version, base: &[Version], is_old: bool) -> Applied {
        self.fenced
            .retain(|other| !base.iter().any(|b| b.dot == other.dot && b.standing.fenced));
        if version.entry.is_some() && !is_old {
            insert(&mut self.fenced, version);
        }
        Applied {
            is_head: false,
            replaced: Vec::new(),
        }
    }

    /// Takes up a touch: it takes the place of its base, for those contents that nothing has replaced. A fenced one is
    /// nothing.
    fn touch(&mut self, mut version: Version) -> Applied {
        if version.standing.fenced {
            return Applied::default();
        }
        let live = sources_of(&self.heads);
        version.origins.retain(|origin| live.contains(&origin.dot));
        self.heads.retain(|head| !version.base.contains(&head.dot));
        let is_head = !version.origins.is_empty();
        if is_head {
            insert(&mut self.heads, version);
        }
        Applied {
            is_head,
            replaced: Vec::new(),
        }
    }

    /// Drops what is gone, by its content and by what brought that.
    fn keep_unless(&mut self, gone: impl Fn(Option<&Node>, &Origin) -> bool) {
        let keep = |head: &mut Version| {
            let node = head.node().cloned();
            let mut sources = head.sources();
            sources.retain(|origin| !gone(node.as_ref(), origin));
            let stays = !sources.is_empty();
            if !head.origins.is_empty() {
                head.origins = sources;
            }
            stays
        };
        self.heads.retain_mut(keep);
        self.fenced.retain_mut(keep);
    }

    /// Supersedes these versions, with what only touches them.
    pub fn discard(&mut self, dropped: &[Version]) {
        let covered = sources_of(dropped);
        self.keep_unless(|_, origin| covered.contains(&origin.dot));
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

    /// Returns the heads, and what is fenced, whose bytes are to be shown as conflict copies beside the winner: Puts that are no
    /// directories, whose content differs from the winner's, one for each content.
    #[must_use]
    pub fn copies(&self) -> Vec<&Version> {
        copies(&self.heads, &self.fenced)
    }

    /// Returns a head, or a fenced version that nothing supersedes, by its dot.
    #[must_use]
    pub fn head(&self, dot: Dot) -> Option<&Version> {
        self.standing().find(|head| head.dot == dot)
    }

    /// Returns the heads and the fenced versions that nothing supersedes.
    pub fn standing(&self) -> impl Iterator<Item = &Version> {
        self.heads.iter().chain(&self.fenced)
    }

    /// Returns the dots of the heads, and of what is fenced, with this kind and content; with `None` those of the Dels.
    #[must_use]
    pub fn heads_with(&self, node: Option<&Node>) -> Vec<Dot> {
        self.standing()
            .filter(|head| head.node() == node)
            .map(|head| head.dot)
            .collect()
    }
}

/// Returns the names of the versions that brought the contents of these.
fn sources_of(versions: &[Version]) -> Vec<Dot> {
    let sources = versions.iter().flat_map(Version::sources);
    sources.map(|origin| origin.dot).collect()
}

fn insert(heads: &mut Vec<Version>, version: Version) {
    let at = heads.partition_point(|head| head.dot < version.dot);
    heads.insert(at, version);
}

pub(super) fn winner(heads: &[Version]) -> Option<&Version> {
    heads.iter().max_by_key(|head| head.rank())
}

pub(super) fn copies<'a>(heads: &'a [Version], fenced: &'a [Version]) -> Vec<&'a Version> {
    let won = winner(heads).and_then(Version::node);
    let mut shown: Vec<&Version> = Vec::new();
    // Not in the order of dots: branches of a log have other names on other devices.
    let mut heads: Vec<&Version> = heads.iter().chain(fenced).collect();
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
