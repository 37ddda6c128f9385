//! From events to what should stand on disk: applying items to path states, the names pass, and what each path needs.

mod judge;

use std::collections::BTreeSet;

pub use self::judge::version_of;
use super::work::Need;
use super::{Notification, StateView, SyncEngine};
use crate::fold::names::{self, Here};
use crate::fold::{PathState, Version};
use crate::ids::{ContentHash, Dot, ShortId};
use crate::ledger::{Item, LogState, VerifiedEvent};
use crate::rel_path::RelPath;
use crate::tree::{Entry, Installed, Node};

/// Mode of a directory that no version describes.
const IMPLIED_DIR_MODE: u32 = 0o755;

/// What should stand at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) entry: Entry,
    /// The heads whose kind and content this is; empty for an implied directory.
    pub(super) dots: Vec<Dot>,
    /// The version that was chosen.
    pub(super) dot: Option<Dot>,
    pub(super) copy_of: Option<RelPath>,
}

impl Want {
    /// Says whether an entry on disk is this one.
    pub(super) fn is_met_by(&self, entry: &Entry) -> bool {
        if self.dot.is_none() {
            entry.node.is_dir()
        } else {
            *entry == self.entry
        }
    }

    pub(super) fn content(&self) -> Option<ContentHash> {
        self.entry.node.content()
    }
}

impl SyncEngine {
    /// Applies the items of a work event to the paths that its author may write; its log already ends with it. What is
    /// said of other paths is noted, for the author's rights can turn out to be others.
    pub(super) fn apply_work(&mut self, event: &VerifiedEvent, log: &LogState, view: &impl StateView) {
        let author = event.header.author;
        let Some(group) = &self.group else { return };
        let writable = group.writable_at(&author, log.name, event.header.seq);
        let mut written = BTreeSet::new();
        let mut touched: Vec<(RelPath, bool)> = Vec::new();
        let mut denied: Option<RelPath> = None;
        for (i, item) in (0..).zip(&event.body.items) {
            let dot = Dot {
                device: log.name,
                seq: event.header.seq,
                item: i,
            };
            let Some(path) = item.path() else {
                touched.extend(self.apply_lock_item(event, dot, item, log, view));
                continue;
            };
            let second = !matches!(item, Item::Discard { .. }) && !written.insert(path.clone());
            let named = self.localize(item, log, event.header.seq, view);
            let Some(item) = named.filter(|_| !second) else {
                continue;
            };
            let may = writable.covers(path);
            if !may || matches!(&item, Item::Discard { .. }) {
                self.pending.set_mention(path, dot, true);
            }
            if !may {
                denied.get_or_insert_with(|| path.clone());
            }
            if may {
                let mut state = self.pending.path_state(view, path).unwrap_or_default();
                let was_live = state.is_live();
                self.apply_item(event, (dot, log), &item, &mut state, view);
                self.pending.set_path_state(path, Some(state));
                touched.push((path.clone(), was_live));
            }
        }
        self.refresh_touched(touched, view);
        if denied.is_some() && author != self.me {
            self.notify(Notification::Denied {
                device: author,
                path: denied,
            });
        }
    }

    /// Applies an item whose author may say it to its path's state.
    fn apply_item(
        &mut self,
        event: &VerifiedEvent,
        (dot, log): (Dot, &LogState),
        item: &Item,
        state: &mut PathState,
        view: &impl StateView,
    ) {
        if let Item::Discard { path, drop } = item {
            state.discard(&self.named_versions(path, drop, view));
            return;
        }
        let (Some(path), Some(mut version)) = (item.path(), version_of(event, dot, item)) else {
            return;
        };
        let base = self.named_versions(path, &version.base, view);
        version.standing = self.standing_of(dot, log, path, &state.fences);
        version.origins = Version::origins_of(version.entry.as_ref(), &base);
        let replaced_by = version
            .node()
            .and_then(|node| self.pending.replaced(view, path, node));
        let order = version.order();
        self.pending.set_version(path, dot, Some(version.clone()));
        for node in state.apply(version, &base, replaced_by).replaced {
            if self
                .pending
                .replaced(view, path, &node)
                .is_none_or(|known| known < order)
            {
                self.pending.set_replaced(path, node, Some(order));
            }
        }
    }

    /// Returns the versions of a path among `dots`.
    fn named_versions(&self, path: &RelPath, dots: &[Dot], view: &impl StateView) -> Vec<Version> {
        let version = |dot: &Dot| self.pending.version(view, path, *dot);
        dots.iter().filter_map(version).collect()
    }

    /// Runs the names pass over paths whose heads changed and over what depends on them.
    fn refresh_touched(&mut self, touched: Vec<(RelPath, bool)>, view: &impl StateView) {
        let mut refresh = BTreeSet::new();
        for (path, was_live) in touched {
            let live = self.is_live(&path, view);
            if live != was_live {
                self.add_ancestors(&path, &mut refresh, view);
                refresh.extend(self.pending.copy_origin(view, &path));
            }
            refresh.insert(path);
        }
        for path in refresh {
            self.refresh(&path, view);
        }
    }

    /// Adds the directories above `path` up to and including the first that a version puts there: only they can become
    /// implied, or cease to be. A copy that would have the name of one gets another.
    fn add_ancestors(&self, path: &RelPath, refresh: &mut BTreeSet<RelPath>, view: &impl StateView) {
        for dir in path.ancestors() {
            let live = self.is_live(&dir, view);
            refresh.insert(dir.clone());
            if live {
                break;
            }
            refresh.extend(self.pending.copy_origin(view, &dir));
        }
    }

    /// Gives a path's conflict copies their names, and notes what the path and the copies need.
    pub(super) fn refresh(&mut self, path: &RelPath, view: &impl StateView) {
        let mut affected = BTreeSet::from([path.clone()]);
        if let Some(mut state) = self.pending.path_state(view, path) {
            let below = self.is_crowded(&state, path, view);
            let copies: Vec<(Dot, String)> = names::resolve(&state, below)
                .copies
                .iter()
                .map(|version| (version.dot, version.event.to_hex()))
                .collect();
            let mut shown: Vec<(RelPath, Dot)> = Vec::new();
            for (dot, event) in copies {
                shown.push((self.name_copy(path, dot, &event, &shown, view), dot));
            }
            if shown != state.shown {
                self.rename_copies(path, &state.shown, &shown, &mut affected);
                state.shown = shown;
                self.pending.set_path_state(path, Some(state));
            }
        }
        for name in affected {
            self.update_need(&name, view);
        }
    }

    /// Says whether something live below `path` keeps its own entry from standing there.
    fn is_crowded(&self, state: &PathState, path: &RelPath, view: &impl StateView) -> bool {
        let dir = state.winner().and_then(Version::node).is_some_and(Node::is_dir);
        !dir && self.pending.has_live_below(view, path)
    }

    /// Returns the first name of a copy that is no path of its own, nor another's copy; `named` are those that copies of this
    /// path have already: branches of a log have events with one number.
    fn name_copy(
        &self,
        path: &RelPath,
        dot: Dot,
        event: &str,
        named: &[(RelPath, Dot)],
        view: &impl StateView,
    ) -> RelPath {
        let is_live = |state: PathState| state.is_live();
        let is_free = |name: &RelPath| {
            let real = self.pending.path_state(view, name).is_some_and(is_live)
                || self.pending.has_live_below(view, name);
            let origin = self.pending.copy_origin(view, name);
            let taken = named.iter().any(|(other, _)| other == name);
            !real && !taken && origin.is_none_or(|origin| origin == *path)
        };
        let [plain, short, long] = names::copy_names(path, dot, event);
        [plain, short].into_iter().find(is_free).unwrap_or(long)
    }

    fn rename_copies(
        &mut self,
        path: &RelPath,
        old: &[(RelPath, Dot)],
        new: &[(RelPath, Dot)],
        affected: &mut BTreeSet<RelPath>,
    ) {
        for (name, dot) in old.iter().filter(|copy| !new.contains(copy)) {
            for name in names::names_up_to(path, *dot, name) {
                self.pending.set_copy_name(&name, None);
            }
            affected.insert(name.clone());
        }
        for (name, dot) in new {
            for name in names::names_up_to(path, *dot, name) {
                self.pending.set_copy_name(&name, Some(path.clone()));
            }
            affected.insert(name.clone());
            if !old.iter().any(|(known, _)| known == name) {
                self.notify(Notification::ConflictCopy {
                    path: name.clone(),
                    origin: path.clone(),
                });
            }
        }
    }

    /// Returns what should stand at a path.
    pub(super) fn want(&self, path: &RelPath, view: &impl StateView) -> Option<Want> {
        if let Some(want) = self.want_own(path, view) {
            return Some(want);
        }
        let origin = self.pending.copy_origin(view, path)?;
        let state = self.pending.path_state(view, &origin)?;
        let (_, dot) = state.shown.iter().find(|(name, _)| name == path)?;
        let entry = state.head(*dot)?.entry.clone()?;
        let dots = state.heads_with(Some(&entry.node));
        Some(Want {
            entry,
            dots,
            dot: Some(*dot),
            copy_of: Some(origin),
        })
    }

    fn want_own(&self, path: &RelPath, view: &impl StateView) -> Option<Want> {
        let state = self.pending.path_state(view, path).unwrap_or_default();
        let below = self.is_crowded(&state, path, view);
        match names::resolve(&state, below).here {
            Here::Nothing => None,
            Here::ImpliedDir => {
                let entry = Entry {
                    node: Node::Dir,
                    mode: IMPLIED_DIR_MODE,
                    mtime_ns: 0,
                };
                Some(Want {
                    entry,
                    dots: Vec::new(),
                    dot: None,
                    copy_of: None,
                })
            }
            Here::Version(version) => {
                let entry = version.entry.clone()?;
                let dots = state.heads_with(Some(&entry.node));
                Some(Want {
                    entry,
                    dots,
                    dot: Some(version.dot),
                    copy_of: None,
                })
            }
        }
    }

    /// Compares what should stand at a path with what does, and notes the difference as a need.
    pub(super) fn update_need(&mut self, path: &RelPath, view: &impl StateView) {
        let want = self.want(path, view);
        if want.is_none() {
            self.forget_held_deletion(path, view);
        }
        let have = self.pending.installed(view, path);
        let ignored = self.is_ignored(path, want.as_ref(), have.as_ref());
        let need = match (want, have) {
            (_, have) if ignored => {
                if let Some(have) = have {
                    self.set_aside(path, have, view);
                }
                None
            }
            (None, None) => None,
            (None, Some(_)) if self.local.holds_deletion(path) => None,
            // Its user put it where a copy was shown that he might not give up; now that the copy is gone it is in nobody's way.
            (None, Some(have)) if path.is_own() && have.copy_of.is_none() => {
                self.record_installed(path, None, view);
                None
            }
            (None, Some(have)) => Some(Need::Remove {
                content: have.entry.node.content(),
            }),
            (Some(want), Some(have)) if want.is_met_by(&have.entry) => {
                self.adopt(path, &want, have, view);
                None
            }
            // Whatever is installed below makes it. Made by itself it would come back under the hands of a user who is
            // deleting it, file by file.
            (Some(want), None) if want.dot.is_none() => None,
            (Some(want), have) => {
                let same = have.is_some_and(|have| have.entry.node == want.entry.node);
                let bytes = if same { 0 } else { want.entry.node.size() };
                let content = want.content().filter(|_| bytes > 0);
                Some(Need::Put { bytes, content })
            }
        };
        self.set_need(path, need);
    }

    /// Takes what stands on disk for the wanted versions.
    ///
    /// Not so a conflict copy for one that this device's user made elsewhere of the same bytes: perhaps he moved the copy
    /// there, and its absence here, of which nobody has told yet, would discard what he made of it.
    fn adopt(&mut self, path: &RelPath, want: &Want, have: Installed, view: &impl StateView) {
        let made_here = |dot: &Dot| self.is_own(dot.device) && !have.dots.contains(dot);
        if have.copy_of.is_some() && want.copy_of.is_some() && want.dots.iter().any(made_here) {
            return;
        }
        if have.dots != want.dots || have.copy_of != want.copy_of {
            let installed = Installed {
                dots: want.dots.clone(),
                copy_of: want.copy_of.clone(),
                ..have
            };
            self.record_installed(path, Some(installed), view);
        }
    }

    /// Records what stands on disk, and keeps the counts.
    pub(super) fn record_installed(
        &mut self,
        path: &RelPath,
        installed: Option<Installed>,
        view: &impl StateView,
    ) {
        if installed.is_some() {
            self.ignoring.seen(path);
        }
        let old = self.pending.installed(view, path);
        let count = |i: &Option<Installed>| u64::from(i.is_some());
        let copies = |i: &Option<Installed>| u64::from(i.as_ref().is_some_and(|i| i.copy_of.is_some()));
        self.installed_count =
            self.installed_count + count(&installed) - count(&old).min(self.installed_count);
        self.copies_count = self.copies_count + copies(&installed) - copies(&old).min(self.copies_count);
        for known in [&old, &installed].into_iter().flatten() {
            self.work.may_be_here(known.entry.node.content());
        }
        let content = |known: &Option<Installed>| known.as_ref().and_then(|known| known.entry.node.content());
        if content(&old) != content(&installed) {
            self.work.note_replaced(path);
        }
        self.pending.set_installed(path, installed);
    }

    /// Notes a need, or that there is none.
    fn set_need(&mut self, path: &RelPath, need: Option<Need>) {
        let needed = need.is_some();
        if !needed {
            self.ignoring.seen(path);
        }
        if self.work.set(path, need) != needed {
            self.pending.set_need(path, needed);
        }
    }

    /// Returns the author of a version.
    pub(super) fn author_of(dot: Option<Dot>) -> Option<ShortId> {
        dot.map(|dot| dot.device)
    }
}
