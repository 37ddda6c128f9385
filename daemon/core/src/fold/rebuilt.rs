//! A path's state put together anew from all that was said of it.

use std::collections::BTreeMap;

use super::path::{PathState, Version, WriteOrder};
use crate::ids::Dot;
use crate::tree::Node;

/// What an item that keeps the base rule says of a path.
#[derive(Debug, Clone)]
pub enum Said {
    /// It is this version.
    Write(Version),
    /// These versions need not be shown any more.
    Discard(Vec<Dot>),
}

/// A path's state in the making, with all that is kept of the path besides.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// The state.
    pub state: PathState,
    /// All versions, with their origins.
    pub known: BTreeMap<Dot, Version>,
    /// For each content the greatest order of a write that replaced it.
    pub replaced: BTreeMap<Node, WriteOrder>,
}

impl Rebuilt {
    /// Begins with no version; what does not come of versions is taken from the state as it was.
    #[must_use]
    pub fn new(old: &PathState) -> Self {
        Self {
            state: PathState {
                shown: old.shown.clone(),
                fences: old.fences.clone(),
                ..PathState::default()
            },
            ..Self::default()
        }
    }

    /// Takes the next item in an order that respects their pasts.
    pub fn take(&mut self, order: WriteOrder, dot: Dot, said: Said) {
        let named = |known: &BTreeMap<Dot, Version>, dots: &[Dot]| -> Vec<Version> {
            dots.iter().filter_map(|dot| known.get(dot)).cloned().collect()
        };
        match said {
            Said::Discard(drop) => self.state.discard(&named(&self.known, &drop)),
            Said::Write(mut version) => {
                let base = named(&self.known, &version.base);
                version.origins = Version::origins_of(version.entry.as_ref(), &base);
                let replaced_by = version.node().and_then(|node| self.replaced.get(node)).copied();
                self.known.insert(dot, version.clone());
                for node in self.state.apply(version, &base, replaced_by).replaced {
                    let known = self.replaced.entry(node).or_insert(order);
                    *known = order.max(*known);
                }
            }
        }
    }
}
