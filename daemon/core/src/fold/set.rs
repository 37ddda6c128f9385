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
    let known: BTreeMap<Dot, &Version> = versions.iter().map(|v| (v.dot, v)).collect();
    let mut superseded = discarded.clone();
    for version in known.values() {
        close(version, &known, &mut superseded);
        supersede_equals(version, &known, &mut superseded);
    }
    let heads: Vec<Version> = known
        .values()
        .filter(|v| !superseded.contains(&v.dot))
        .map(|v| (*v).clone())
        .collect();
    Outcome {
        winner: path::winner(&heads).map(|v| v.dot),
        copies: path::copies(&heads).iter().map(|v| v.dot).collect(),
        heads: heads.iter().map(|v| v.dot).collect(),
    }
}

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

fn supersede_equals(version: &Version, known: &BTreeMap<Dot, &Version>, superseded: &mut BTreeSet<Dot>) {
    let contents: Vec<_> = version
        .base
        .iter()
        .filter_map(|dot| known.get(dot))
        .filter_map(|base| base.node())
        .collect();
    for other in known.values() {
        let equal = other.node().is_some_and(|node| contents.contains(&node));
        if equal && other.order() < version.order() {
            superseded.insert(other.dot);
        }
    }
}
