//! 14: every published content is shown, or somebody who had it in his working copy put something else in its place,
//! or an equal content was replaced by a later write, or somebody discarded it.

use std::collections::BTreeSet;

use p2p_sync_core::fold::Version;
use p2p_sync_core::ids::Dot;
use p2p_sync_core::tree::Node;
use p2p_sync_tests::sim::oracle::{History, Oracle};
use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let oracle = Oracle::read(world.devices[0].store.durable())?;
    let states = oracle.states();
    for (path, history) in &oracle.paths {
        let Some(state) = states.get(path) else { continue };
        let winner = state.winner().into_iter();
        let shown: BTreeSet<&Node> = winner.chain(state.copies()).filter_map(Version::node).collect();
        for put in history
            .versions
            .iter()
            .filter(|version| version.origins.is_empty())
        {
            let Some(node) = put.node() else { continue };
            if !node.is_dir() && !shown.contains(node) && !is_given_up(history, put, node) {
                return Err(format!("{} at {path} is neither shown nor replaced", put.dot));
            }
        }
    }
    Ok(())
}

/// Says whether somebody replaced or discarded this content knowingly.
pub(super) fn is_given_up(history: &History, put: &Version, node: &Node) -> bool {
    let holds = |dot: &Dot| {
        history
            .versions
            .iter()
            .any(|other| other.dot == *dot && other.node() == Some(node))
    };
    let replaced = history.versions.iter().any(|later| {
        let other = later.node() != Some(node) && behind(history, &later.base).contains(&put.dot);
        let twin = later.origins.is_empty() && later.order() > put.order() && later.base.iter().any(holds);
        other || twin
    });
    let mut dropped = history.discarded.iter();
    replaced || dropped.any(|dot| holds(dot) && behind(history, &[*dot]).contains(&put.dot))
}

/// Returns these versions and all that they rest on.
fn behind(history: &History, dots: &[Dot]) -> BTreeSet<Dot> {
    let mut open = dots.to_vec();
    let mut behind = BTreeSet::new();
    while let Some(dot) = open.pop() {
        if behind.insert(dot)
            && let Some(version) = history.versions.iter().find(|version| version.dot == dot)
        {
            open.extend(&version.base);
        }
    }
    behind
}
