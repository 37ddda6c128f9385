//! The fold over a whole set at once: the rules of ledger.md 4 as they are written, for tests and for `verify`.

use std::collections::{BTreeMap, BTreeSet};

use super::path::{self, Version};
use crate::ids::Dot;
use crate::lock::Token;

/// The outcome for one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What stands at the path; `None`: no head at all.
    pub winner: Option<Dot>,
    /// All heads, in order of their dots.
    pub heads: Vec<Dot>,
    /// The heads, and what is fenced, shown as conflict copies.
    pub copies: Vec<Dot>,
    /// The fenced Puts that nothing supersedes, in order of their dots.
    pub fenced: Vec<Dot>,
}

/// Folds all versions and discards of one path, in whatever order they are given; how each version stands to the locks on
/// the path is given, too.
#[must_use]
pub fn fold_set(versions: &[Version], discarded: &BTreeSet<Dot>) -> Outcome {
    let (heads, fenced) = heads(versions, discarded);
    Outcome {
        winner: path::winner(&heads).map(|v| v.dot),
        copies: path::copies(&heads, &fenced).iter().map(|v| v.dot).collect(),
        heads: heads.iter().map(|v| v.dot).collect(),
        fenced: fenced.iter().map(|v| v.dot).collect(),
    }
}

/// Returns the heads of one path, in order of their dots, each with those origins that are not replaced; and the fenced Puts
/// that nothing supersedes.
#[must_use]
pub fn heads(versions: &[Version], discarded: &BTreeSet<Dot>) -> (Vec<Version>, Vec<Version>) {
    let known: BTreeMap<Dot, &Version> = versions.iter().map(|v| (v.dot, v)).collect();
    let (touches, writes): (Vec<&Version>, Vec<&Version>) = known
        .values()
        .copied()
        .partition(|version| is_touch(version, &known));
    let mut replaced = BTreeSet::new();
    for dot in discarded {
        origins(*dot, &known, &mut replaced);
    }
    let mut fenced_replaced: BTreeSet<Dot> = BTreeSet::new();
    for write in &writes {
        if write.standing.fenced {
            fenced_replaced.extend(&write.base);
            continue;
        }
        close(write, &known, &mut replaced);
        replace_equals(write, &writes, &known, &mut replaced);
    }
    let mut carried = BTreeSet::new();
    for touch in touches.iter().filter(|touch| !touch.standing.fenced) {
        close(touch, &known, &mut carried);
    }
    let stays = |write: &&&Version| {
        let replaced = replaced.contains(&write.dot) || fenced_replaced.contains(&write.dot);
        write.standing.fenced && write.entry.is_some() && !replaced
    };
    let fenced = writes.iter().filter(stays).map(|write| plain(write)).collect();
    let mut heads: Vec<Version> = Vec::new();
    for version in known.values().filter(|version| !version.standing.fenced) {
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
            head.origins = left.iter().flat_map(|dot| plain(known[dot]).sources()).collect();
        }
        heads.push(head);
    }
    (heads, fenced)
}

/// Says whether a version is a Put whose known base is all of its own kind and content, and none of it fenced.
fn is_touch(version: &Version, known: &BTreeMap<Dot, &Version>) -> bool {
    let mut base = version.base.iter().filter_map(|dot| known.get(dot)).peekable();
    let same = |b: &&Version| !b.standing.fenced && b.node() == version.node();
    version.entry.is_some() && base.peek().is_some() && base.all(same)
}

fn plain(version: &Version) -> Version {
    Version {
        origins: Vec::new(),
        ..version.clone()
    }
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

/// Adds the closure of a version's base. What is fenced replaced nothing, so of it only what brought its content is added.
fn close(version: &Version, known: &BTreeMap<Dot, &Version>, superseded: &mut BTreeSet<Dot>) {
    let mut open: Vec<Dot> = version.base.clone();
    let mut visited = BTreeSet::new();
    while let Some(dot) = open.pop() {
        if let Some(base) = known.get(&dot)
            && visited.insert(dot)
        {
            superseded.insert(dot);
            if base.standing.fenced {
                origins(dot, known, superseded);
            } else {
                open.extend(&base.base);
            }
        }
    }
}

/// Adds the older writes, under no lock, whose content a write's direct base holds.
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
        let held = other.standing.token != Token::default();
        if equal && !held && other.order() < write.order() {
            replaced.insert(other.dot);
        }
    }
}
