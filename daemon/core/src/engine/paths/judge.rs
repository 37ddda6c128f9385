//! What became of items whose authors may write other paths than was thought when they arrived.
//!
//! A Revoke or a Cancel can take authority from events that were applied, and give it back to others. The paths
//! that these speak of are put together anew from all that was ever said of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::locks::Fact;
use crate::engine::{StateView, SyncEngine};
use crate::fold::{Rebuilt, Said, Standing, Version, WriteOrder};
use crate::ids::{Dot, ShortId};
use crate::ledger::{Item, VerifiedEvent};
use crate::rel_path::RelPath;
use crate::tree::Node;

impl SyncEngine {
    /// Says whether the author of an event of this log may write a path in it.
    fn may_have_written(&self, dot: Dot, path: &RelPath) -> bool {
        self.group.as_ref().is_some_and(|group| {
            let author = group.device(dot.device);
            author.is_some_and(|author| group.writable_at(&author, dot.device, dot.seq).covers(path))
        })
    }

    /// Puts the paths together anew of which the events in these stretches of logs speak.
    pub(in crate::engine) fn judge_again(
        &mut self,
        stretches: &[(ShortId, u64, u64)],
        view: &impl StateView,
    ) {
        let mut paths = BTreeSet::new();
        for (log, from, to) in stretches {
            let size = self.logs.get(log).map_or(0, crate::ledger::LogState::size);
            for seq in *from..size.min(*to) {
                let stored = self.pending.event(view, *log, seq);
                let Some(event) = stored.and_then(|stored| stored.event.read_stored().ok()) else {
                    continue;
                };
                paths.extend(event.body.items.iter().filter_map(Item::path).cloned());
                for (item, number) in event.body.items.iter().zip(0..) {
                    let place = Dot {
                        device: *log,
                        seq,
                        item: number,
                    };
                    self.judge_lock_item(place, item, &mut paths, view);
                }
            }
        }
        let mut touched = Vec::new();
        for path in paths {
            let was_live = self.is_live(&path, view);
            if self.judge_path(&path, view) {
                self.doubt_own(&path, view);
                touched.push((path, was_live));
            }
        }
        self.refresh_touched(touched, view);
    }

    /// While the folder is about to be compared, forgets what stands at a path if it is of no version that counts: this
    /// device made it while it was no member, and its user is not to lose it to the group's version.
    fn doubt_own(&mut self, path: &RelPath, view: &impl StateView) {
        let Some(have) = self.pending.installed(view, path) else {
            return;
        };
        let counts = |dot: &Dot| {
            let origin = have.copy_of.as_ref().unwrap_or(path);
            self.pending.version(view, origin, *dot).is_some()
        };
        let is_own = have.dots.iter().any(|dot| self.is_own(dot.device)) && !have.dots.iter().any(counts);
        if self.is_about_to_compare() && is_own {
            self.record_installed(path, None, view);
        }
    }

    /// Says whether a write stands at a path.
    pub(in crate::engine) fn is_live(&self, path: &RelPath, view: &impl StateView) -> bool {
        let state = self.pending.path_state(view, path);
        state.is_some_and(|state| state.is_live())
    }

    /// Puts a path's state together from everything that was said of it and of the locks on it; `false` if nothing changed.
    fn judge_path(&mut self, path: &RelPath, view: &impl StateView) -> bool {
        let mut versions = self.pending.versions_of(view, path);
        let facts = self.facts_on(path, view);
        for version in versions.values_mut() {
            version.standing = self.stand_again(version, &facts, view);
        }
        self.put_together(path, versions, &facts, view)
    }

    /// Puts a path's state together from these, its versions, and all else that was said of it; what did not count before
    /// stands to these locks. `false` if nothing changed.
    pub(in crate::engine) fn put_together(
        &mut self,
        path: &RelPath,
        versions: BTreeMap<Dot, Version>,
        facts: &[Fact],
        view: &impl StateView,
    ) -> bool {
        let before = self.pending.versions_of(view, path);
        let mentions = self.pending.mentions(view, path);
        let mut said: Vec<(WriteOrder, Dot, Said)> = versions
            .values()
            .map(|version| (version.order(), version.dot, Said::Write(version.clone())))
            .collect();
        said.extend(mentions.iter().filter_map(|dot| {
            let (order, dot, mut said) = self.read_said(*dot, view)?;
            if let Said::Write(version) = &mut said {
                version.standing = self.stand_again(version, facts, view);
            }
            Some((order, dot, said))
        }));
        said.sort_by_key(|(order, dot, _)| (*order, *dot));
        let old = self.pending.path_state(view, path).unwrap_or_default();
        let mut rebuilt = Rebuilt::new(&old);
        for (order, dot, said) in said {
            if self.may_have_written(dot, path) {
                rebuilt.take(order, dot, said);
            }
        }
        if rebuilt.known == before && rebuilt.state == old {
            return false;
        }
        for dot in before.keys().filter(|dot| !rebuilt.known.contains_key(dot)) {
            self.pending.set_version(path, *dot, None);
            self.pending.set_mention(path, *dot, true);
        }
        for (dot, version) in &rebuilt.known {
            if before.get(dot) != Some(version) {
                self.pending.set_version(path, *dot, Some(version.clone()));
                self.pending.set_mention(path, *dot, false);
            }
        }
        let nodes: BTreeSet<&Node> = before.values().filter_map(Version::node).collect();
        for node in nodes {
            let order = rebuilt.replaced.remove(node);
            self.pending.set_replaced(path, node.clone(), order);
        }
        for (node, order) in rebuilt.replaced {
            self.pending.set_replaced(path, node, Some(order));
        }
        self.pending.set_path_state(path, Some(rebuilt.state));
        true
    }

    fn read_said(&self, dot: Dot, view: &impl StateView) -> Option<(WriteOrder, Dot, Said)> {
        let stored = self.pending.event(view, dot.device, dot.seq)?;
        let event = stored.event.read_stored().ok()?;
        let item = event.body.items.get(usize::try_from(dot.item).ok()?)?;
        let past = self.past_of(dot.device, dot.seq, view)?;
        let item = self.localize(item, &past, dot.seq, view)?;
        let said = match &item {
            Item::Discard { drop, .. } => Said::Discard(drop.clone()),
            item => Said::Write(version_of(&event, dot, item)?),
        };
        Some(((event.header.hlc, event.id), dot, said))
    }
}

/// Returns the version that a Put or Del is, without its origins; `None` if the item is neither.
#[must_use]
pub fn version_of(event: &VerifiedEvent, dot: Dot, item: &Item) -> Option<Version> {
    let (entry, base, import) = match item {
        Item::Put(put) => (Some(put.entry.clone()), &put.base, put.flags.import),
        Item::Del { base, .. } => (None, base, false),
        _ => return None,
    };
    Some(Version {
        dot,
        event: event.id,
        hlc: event.header.hlc,
        entry,
        base: base.clone(),
        import,
        origins: Vec::new(),
        standing: Standing::default(),
    })
}
