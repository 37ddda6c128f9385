//! 14: every published content is shown, or a version says itself that it replaced it, or somebody discarded it, or
//! it is a mere touch of what is shown.

use std::collections::BTreeSet;

use p2p_sync_core::fold::Version;
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
        for put in &history.versions {
            let Some(node) = put.node() else { continue };
            let accounted = shown.contains(node)
                || node.is_dir()
                || !put.changes
                || history.discarded.contains(&put.dot)
                || is_replaced(history, put, node);
            if !accounted {
                return Err(format!("{} at {path} is neither shown nor replaced", put.dot));
            }
        }
    }
    Ok(())
}

/// Says whether a version names this one as its base, or a later one names an equal content.
pub(super) fn is_replaced(history: &History, put: &Version, node: &Node) -> bool {
    let equal = |dot| {
        history
            .versions
            .iter()
            .any(|other| other.dot == dot && other.node() == Some(node))
    };
    history.versions.iter().any(|later| {
        later.base.contains(&put.dot)
            || (later.order() > put.order() && later.base.iter().any(|dot| equal(*dot)))
    })
}
