//! The fold over a whole set at once: the rules of ledger.md 4 as they are written, for tests and for `verify`.

use std::collections::{BTreeMap, BTreeSet};

use super::path::{self, Version};
use crate::ids::Dot;

/// The outcome for one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What stands at the path; `None`: no head at all.
    pub winner: Option<Dot>,
    /// All heads, in order of their dots.
    pub heads: Vec<Dot>,
    /// The heads shown as conflict copies.
    pub copies: Vec<Dot>,
}

/// Folds all versions and discards of one path, in whatever order they are given.
#[must_use]
pub fn fold_set(versions: &[Version], discarded: &BTreeSet<Dot>) -> Outcome {
    let heads = heads(versions, discarded);
    Outcome {
        winner: path::winner(&heads).map(|v| v.dot),
        copies: path::copies(&heads).iter().map(|v| v.dot).collect(),
        heads: heads.iter().map(|v| v.dot).collect(),
    }
}

/// Returns the heads of one path, in order of their dots, each with those origins that are not replaced.
#[must_use]
pub fn heads(versions: &[Version], discarded: &BTreeSet<Dot>) -> Vec<Version> {
    let known: BTreeMap<Dot, &Version> = versions.iter().map(|v| (v.dot, v)).collect();
    let (touches, writes): (Vec<&Version>, Vec<&Version>) = known
        .values()
        .copied()
        .partition(|version| is_touch(version, &known));
    let mut replaced = BTreeSet::new();
    for dot in discarded {
        origins(*dot, &known, &mut replaced);
    }
    for write in &writes {
        close(write, &known, &mut replaced);
        replace_equals(write, &writes, &known, &mut replaced);
    }
    let mut carried = BTreeSet::new();
    for touch in &touches {
        close(touch, &known, &mut carried);
    }
    let mut heads: Vec<Version> = Vec::new();
    for version in known.values() {
        let mut left = BTreeSet::new();
        origins(version.dot, &known, &mut left);
        left.retain(|dot| !replaced.contains(dot));
        let superseded = replaced.contains(&version.dot) || carried.contains(&version.dot);
        if superseded || left.is_empty() {
            continue;
        }
        let mut head = (*version).clone();
        head.origins.clear();
        if is_touch(version, &known) {
            head.origins = left.iter().flat_map(|dot| plain_sources(known[dot])).collect();
        }
        heads.push(head);
    }
    heads
}

/// Says whether a version is a Put whose known base is all of its own kind and content.
fn is_touch(version: &Version, known: &BTreeMap<Dot, &Version>) -> bool {
    let mut base = version.base.iter().filter_map(|dot| known.get(dot)).peekable();
    version.entry.is_some() && base.peek().is_some() && base.all(|b| b.node() == version.node())
}

fn plain_sources(version: &Version) -> Vec<path::Origin> {
    let plain = Version {
        origins: Vec::new(),
        ..version.clone()
    };
    plain.sources()
}

/// Adds the versions that brought the content of `dot`: itself, or what it touches.
fn origins(dot: Dot, known: &BTreeMap<Dot, &Version>, found: &mut BTreeSet<Dot>) {
    let mut open = vec![dot];
    let mut visited = BTreeSet::new();
    while let Some(dot) = open.pop() {
        let Some(version) = known.get(&dot).filter(|_| visited.insert(dot)) else {
            continue;
        };
        if is_touch(version, known) {
            open.extend(&version.base);
        } else {
            found.insert(dot);
        }
    }
}

/// Adds the closure of a version's base.
fn close(version: &Version, known: &BTreeMap<Dot, &Version>, superseded: &mut BTreeSet<Dot>) {
    let mut open: Vec<Dot> = version.base.clone();
    let mut visited = BTreeSet::new();
    while let Some(dot) = open.pop() {
        if let Some(base) = known.get(&dot)
            && visited.insert(dot)
        {
            superseded.insert(dot);
            open.extend(&base.base);
        }
    }
}

/// Adds the older writes whose content a write's direct base holds.
fn replace_equals(
    write: &Version,
    writes: &[&Version],
    known: &BTreeMap<Dot, &Version>,
    replaced: &mut BTreeSet<Dot>,
) {
    let base = write.base.iter().filter_map(|dot| known.get(dot));
    let contents: Vec<_> = base.filter_map(|base| base.node()).collect();
    for other in writes {
        let equal = other.node().is_some_and(|node| contents.contains(&node));
        if equal && other.order() < write.order() {
            replaced.insert(other.dot);
        }
    }
}
