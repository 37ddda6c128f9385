//! The quarantine: what was written without the right to, and whose bytes may still lie here.
//!
//! It is no place of its own. What an event says that counts nowhere stands among the mentions of its path; the bytes lie
//! among the kept versions, where the install that undid it put them, and go with these. To accept one is to restore it.
//! What the user decided about is noted beside the mention, so that a mention which is judged anew is listed anew.
//!
//! A crash may lose that note after its bytes are gone, or were published: the same command puts that right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use p2p_sync_core::engine::{StateView as _, version_of};
use p2p_sync_core::fold::{Version, names};
use p2p_sync_core::ids::{Dot, ShortId};
use p2p_sync_core::ledger::VerifiedEvent;
use p2p_sync_core::rel_path::RelPath;

use super::{History, facts};
use crate::control::{
    Accepted, ControlError, Dropped, PathVersion, QuarantinePage, QuarantinePlace, Quarantined, ReplyTo,
    RestoreStep,
};
use crate::error_chain;
use crate::store::StoreView;
use crate::worktree::{Kept, KeptFile, RestoreJob};

/// Mentions read at once.
const ROWS: usize = 256;
/// Mentions looked at for one page; beyond it the page ends with what was found.
const MAX_LOOKED_AT: usize = 10_000;
/// Events kept while their items are looked at, at most 1 MiB each: those of one change lie side by side as a rule.
const MAX_EVENTS: usize = 16;

/// Reads events, each once as long as those in use are few.
#[derive(Debug, Default)]
pub(super) struct Events(BTreeMap<(ShortId, u64), Option<Arc<VerifiedEvent>>>);

impl Events {
    fn get(&mut self, view: &StoreView, log: ShortId, seq: u64) -> Option<Arc<VerifiedEvent>> {
        if let Some(known) = self.0.get(&(log, seq)) {
            return known.clone();
        }
        if self.0.len() >= MAX_EVENTS {
            self.0.clear();
        }
        let stored = view.event(log, seq);
        let event = stored.and_then(|stored| stored.event.read_stored().ok());
        let event = event.map(Arc::new);
        self.0.insert((log, seq), event.clone());
        event
    }

    /// Returns the version that a mention would be if its author had had the right to it; `None` if it is none.
    pub(super) fn version(&mut self, view: &StoreView, dot: Dot) -> Option<Version> {
        let event = self.get(view, dot.device, dot.seq)?;
        let item = event.body.items.get(usize::try_from(dot.item).ok()?)?;
        version_of(&event, dot, item)
    }
}

impl History {
    /// Answers what is in quarantine.
    pub(crate) fn quarantined(
        self: &Arc<Self>,
        after: Option<QuarantinePlace>,
        limit: usize,
        reply: ReplyTo<QuarantinePage>,
    ) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let page = this
                .blocking(move |this| this.read(|view| Ok(page(view, &this.kept, after, limit))))
                .await;
            // Whoever asked may be gone.
            let _ = reply.send(page);
        });
    }

    /// Restores a version in quarantine, and lists it no more.
    pub(crate) fn accept(
        self: &Arc<Self>,
        path: RelPath,
        wanted: Option<String>,
        mut reply: ReplyTo<Accepted>,
    ) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let result = tokio::select! {
                () = reply.closed() => return,
                result = this.run_accept(path, wanted) => result,
            };
            let _ = reply.send(result);
        });
    }

    async fn run_accept(
        self: &Arc<Self>,
        path: RelPath,
        wanted: Option<String>,
    ) -> Result<Accepted, ControlError> {
        let _permit = self
            .restoring
            .try_acquire()
            .map_err(|_| ControlError::Restoring)?;
        let (version, settled) = {
            let path = path.clone();
            self.blocking(move |this| this.read(|view| chosen(view, &this.kept, &path, wanted.as_deref())))
                .await?
        };
        let Some(entry) = version.entry.clone() else {
            return Err(nothing(&path));
        };
        let job = RestoreJob {
            path: path.clone(),
            entry,
        };
        let mut total = RestoreStep::default();
        let unchanged = self.stands(&job).await?;
        if !unchanged {
            self.restore_batch(vec![job], &mut total).await?;
        }
        if let Some(problem) = total.problems.pop() {
            return Err(if problem.not_at_hand {
                ControlError::NotAtHand
            } else {
                ControlError::Read(problem.reason)
            });
        }
        self.settle(path, settled).await?;
        Ok(Accepted { version, unchanged })
    }

    async fn settle(self: &Arc<Self>, path: RelPath, dots: Vec<Dot>) -> Result<(), ControlError> {
        self.blocking(move |this| {
            let settled = this.writer.settle(path, dots);
            settled.map_err(|error| ControlError::Failed(error_chain(&error)))
        })
        .await
    }

    /// Forgets the bytes of versions in quarantine, and lists them no more.
    pub(crate) fn drop_quarantined(
        self: &Arc<Self>,
        path: RelPath,
        wanted: Option<String>,
        reply: ReplyTo<Dropped>,
    ) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let result = this.run_drop(path, wanted).await;
            let _ = reply.send(result);
        });
    }

    async fn run_drop(
        self: &Arc<Self>,
        path: RelPath,
        wanted: Option<String>,
    ) -> Result<Dropped, ControlError> {
        let (dropped, dots) = {
            let path = path.clone();
            self.blocking(move |this| this.read(|view| forget(view, &this.kept, &path, wanted.as_deref())))
                .await?
        };
        self.settle(path, dots).await?;
        Ok(dropped)
    }
}

/// Returns what is in quarantine after a place.
pub(super) fn page(
    view: &StoreView,
    kept: &Kept,
    after: Option<QuarantinePlace>,
    limit: usize,
) -> QuarantinePage {
    let mut page = QuarantinePage {
        next: after,
        ..QuarantinePage::default()
    };
    let mut events = Events::default();
    let mut looked_at = 0;
    loop {
        let rows = view.unsettled(page.next.as_ref(), ROWS);
        if rows.is_empty() {
            page.next = None;
            return page;
        }
        for (path, dot) in rows {
            if let Some(version) = put(view, &mut events, &path, dot) {
                page.items.push(Quarantined {
                    version: facts::void_row(view, kept, &version),
                    event: version.event,
                    path: path.clone(),
                });
            }
            page.next = Some((path, dot));
            looked_at += 1;
            if page.items.len() >= limit || looked_at >= MAX_LOOKED_AT {
                return page;
            }
        }
    }
}

/// Returns the Put that a mention is; `None` if it is none, or somebody who may has published the same since.
fn put(view: &StoreView, events: &mut Events, path: &RelPath, dot: Dot) -> Option<Version> {
    let version = events.version(view, dot)?;
    let node = version.node()?;
    let again = |same: Dot| {
        let same = view.version(path, same);
        same.is_some_and(|same| same.entry == version.entry && same.order() > version.order())
    };
    let is_republished = view.versions_with(path, node).into_iter().any(again);
    (!is_republished).then_some(version)
}

/// Returns what is in quarantine of a path, newest first.
fn of_path(view: &StoreView, path: &RelPath) -> Vec<Version> {
    let mut events = Events::default();
    let dots = view.unsettled_of(path);
    let mut versions: Vec<Version> = dots
        .into_iter()
        .filter_map(|dot| put(view, &mut events, path, dot))
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse((version.order(), version.dot)));
    versions
}

/// Returns the place of the version that is meant by an id, or the beginning of one.
fn by_id(versions: &[Version], path: &RelPath, id: &str) -> Result<usize, ControlError> {
    let ids: Vec<String> = versions.iter().map(|version| facts::id_of(version.dot)).collect();
    facts::named(ids.iter().map(String::as_str), id).ok_or_else(|| {
        ControlError::NoVersion(format!(
            "No version {id} of {path} is in quarantine, or more than one that begins so"
        ))
    })
}

fn nothing(path: &RelPath) -> ControlError {
    ControlError::NoVersion(format!("Nothing of {path} is in quarantine"))
}

/// Returns the version that is meant, and what is decided with it: the versions it replaced, too.
fn chosen(
    view: &StoreView,
    kept: &Kept,
    path: &RelPath,
    wanted: Option<&str>,
) -> Result<(PathVersion, Vec<Dot>), ControlError> {
    let versions = of_path(view, path);
    let at = wanted.map_or(Ok(0), |id| by_id(&versions, path, id))?;
    let version = versions.get(at).ok_or_else(|| nothing(path))?;
    Ok((facts::void_row(view, kept, version), lineage(view, path, version)))
}

/// Returns a version and those without authority that it replaced, one after another.
fn lineage(view: &StoreView, path: &RelPath, version: &Version) -> Vec<Dot> {
    let unsettled: BTreeSet<Dot> = view.unsettled_of(path).into_iter().collect();
    let mut events = Events::default();
    let mut found = BTreeSet::from([version.dot]);
    let mut next = version.base.clone();
    while let Some(dot) = next.pop() {
        if unsettled.contains(&dot) && found.insert(dot) {
            let before = events.version(view, dot);
            next.extend(before.map(|version| version.base).unwrap_or_default());
        }
    }
    found.into_iter().collect()
}

/// Removes the kept files of versions in quarantine; returns what went, and what is decided with it.
fn forget(
    view: &StoreView,
    kept: &Kept,
    path: &RelPath,
    wanted: Option<&str>,
) -> Result<(Dropped, Vec<Dot>), ControlError> {
    let mut versions = of_path(view, path);
    if let Some(id) = wanted {
        let at = by_id(&versions, path, id)?;
        versions.swap(0, at);
        let others = versions.split_off(1);
        let dropped = &versions[0];
        // What another one in quarantine is, too, is still wanted.
        if others.iter().any(|other| other.node() == dropped.node()) {
            let row = facts::void_row(view, kept, dropped);
            let dots = vec![dropped.dot];
            let versions = vec![row];
            return Ok((
                Dropped {
                    versions,
                    ..Dropped::default()
                },
                dots,
            ));
        }
    }
    if versions.is_empty() {
        return Err(nothing(path));
    }
    let rows = versions
        .iter()
        .map(|version| facts::void_row(view, kept, version));
    let rows: Vec<PathVersion> = rows.collect();
    let io = |source| ControlError::Io {
        path: kept.path().to_owned(),
        source,
    };
    let files = kept.all().map_err(io)?;
    let files = files_of(view, kept, path, &versions, files);
    let purged = kept.forget(&files).map_err(io)?;
    let dropped = Dropped {
        versions: rows,
        files: purged.files,
        bytes: purged.bytes,
    };
    Ok((dropped, versions.iter().map(|version| version.dot).collect()))
}

/// Returns those of the kept files that hold one of these versions, at the path or as a conflict copy, and nothing that
/// counts.
fn files_of(
    view: &StoreView,
    kept: &Kept,
    path: &RelPath,
    versions: &[Version],
    mut files: Vec<KeptFile>,
) -> Vec<KeptFile> {
    let copies = versions
        .iter()
        .flat_map(|version| names::copy_names(path, version.dot, &version.event.to_hex()));
    let places: BTreeSet<RelPath> = copies.chain([path.clone()]).collect();
    files.retain(|file| {
        if !file.path.as_ref().is_some_and(|at| places.contains(at)) {
            return false;
        }
        let Some(node) = facts::entry_of(kept, file).map(|entry| entry.node) else {
            return false;
        };
        let counts = !view.versions_with(path, &node).is_empty();
        !counts && versions.iter().any(|version| version.node() == Some(&node))
    });
    files
}

#[cfg(test)]
mod tests;
