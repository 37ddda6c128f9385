//! Versions of paths: what is known of them, and how they come back.
//!
//! Each question is a task of its own. It reads the store and the kept versions by itself; what it wants done it asks
//! of the event loop ([`Ask`]), which alone drives fetcher and installer: a content comes into the temporary directory
//! as every content does, from this device's files, its kept versions, or other devices, and is held there until the
//! task lets go of it. A restore is then put at its path by the worktree and found by the scanner, like an edit.
//!
//! What was written without the right to is in quarantine until the user decides about it ([`quarantine`]).
//!
//! A crash ends a restore between two files; what was restored by then stays, and what it replaced is kept.

mod facts;
mod quarantine;
mod restore;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use p2p_sync_core::engine::FetchFailure;
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Node;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::control::{ControlError, HistoryPage, PathVersion, Pick, ReplyTo, VersionPart};
use crate::store::{StoreView, StoreWriter};
use crate::worktree::{Kept, RestoreJob, RestoreOutcome, Worktree};

/// Versions that are read at once; more wait.
const MAX_READING: usize = 4;
/// Bytes of a version handed over at once.
const PART: usize = 256 << 10;
/// How often a content is got again that was taken from the temporary directory before it was used.
const TRIES: u32 = 3;

/// What a task wants done.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Get a content into the temporary directory and hold it there.
    Get {
        content: ContentHash,
        size: u64,
        reply: oneshot::Sender<Result<(), FetchFailure>>,
    },
    /// Hold it no longer.
    Release(ContentHash),
    /// Put versions at their paths.
    Restore {
        jobs: Vec<RestoreJob>,
        reply: oneshot::Sender<Result<Vec<RestoreOutcome>, String>>,
    },
    /// Have these paths looked at.
    Rescan(Vec<RelPath>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    view: Mutex<StoreView>,
    worktree: Arc<Worktree>,
    kept: Arc<Kept>,
    writer: Arc<StoreWriter>,
    asks: mpsc::UnboundedSender<Ask>,
    reading: Semaphore,
    restoring: Semaphore,
}

impl History {
    pub(crate) fn new(
        view: StoreView,
        writer: Arc<StoreWriter>,
        worktree: Arc<Worktree>,
        asks: mpsc::UnboundedSender<Ask>,
    ) -> Self {
        Self {
            view: Mutex::new(view),
            writer,
            kept: worktree.kept(),
            worktree,
            asks,
            reading: Semaphore::new(MAX_READING),
            restoring: Semaphore::new(1),
        }
    }

    /// Answers which versions of a path are known.
    pub(crate) fn list(
        self: &Arc<Self>,
        path: RelPath,
        skip: usize,
        limit: usize,
        reply: ReplyTo<HistoryPage>,
    ) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let page = this
                .blocking(move |this| this.read(|view| facts::page(view, &this.kept, &path, skip, limit)))
                .await;
            let _ = reply.send(page);
        });
    }

    /// Hands over a version, first what it is, then its bytes.
    pub(crate) fn read_version(
        self: &Arc<Self>,
        path: RelPath,
        pick: Pick,
        parts: mpsc::Sender<Result<VersionPart, ControlError>>,
    ) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let result = tokio::select! {
                () = parts.closed() => return,
                result = this.hand_over(path, pick, &parts) => result,
            };
            if let Err(error) = result {
                let _ = parts.send(Err(error)).await;
            }
        });
    }

    async fn hand_over(
        self: &Arc<Self>,
        path: RelPath,
        pick: Pick,
        parts: &mpsc::Sender<Result<VersionPart, ControlError>>,
    ) -> Result<(), ControlError> {
        let _permit = self.reading.acquire().await.map_err(|_| ControlError::Stopping)?;
        let version = self.picked(path, pick).await?;
        let file = match version.entry.as_ref().map(|entry| entry.node.clone()) {
            Some(Node::File {
                content,
                size: size @ 1..,
            }) => Some(self.open(content, size).await?),
            _ => None,
        };
        let first = VersionPart::Version(Box::new(version));
        let mut rest = file.map(|(file, size, held)| (Arc::new(Mutex::new(file)), size, held));
        if parts.send(Ok(first)).await.is_err() {
            return Ok(());
        }
        while let Some((file, left, _held)) = rest.as_mut().filter(|(_, left, _)| *left > 0) {
            let (file, len) = (Arc::clone(file), PART.min(usize::try_from(*left).unwrap_or(PART)));
            let bytes = tokio::task::spawn_blocking(move || read_part(&file, len))
                .await
                .map_err(|_| ControlError::Stopping)?
                .map_err(|e| ControlError::Read(e.to_string()))?;
            *left -= bytes.len() as u64;
            if parts.send(Ok(VersionPart::Data(bytes))).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Gets a content and opens it.
    async fn open(
        self: &Arc<Self>,
        content: ContentHash,
        size: u64,
    ) -> Result<(File, u64, Held), ControlError> {
        for _ in 0..TRIES {
            let held = self.get(content, size).await?;
            match self.worktree.open_content(&content) {
                Ok(file) => return Ok((file, size, held)),
                // An install took it, so it can be had again from there.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(ControlError::Read(e.to_string())),
            }
        }
        Err(ControlError::TimedOut)
    }

    async fn picked(self: &Arc<Self>, path: RelPath, pick: Pick) -> Result<PathVersion, ControlError> {
        self.blocking(move |this| this.read(|view| facts::pick(view, &this.kept, &path, &pick)))
            .await
    }

    /// Has a content brought to the temporary directory.
    async fn get(&self, content: ContentHash, size: u64) -> Result<Held, ControlError> {
        let (reply, answer) = oneshot::channel();
        let held = Held {
            content,
            asks: self.asks.clone(),
        };
        self.ask(Ask::Get { content, size, reply })?;
        match answer.await.map_err(|_| ControlError::Stopping)? {
            Ok(()) => Ok(held),
            Err(FetchFailure::NoSource) => Err(ControlError::NotAtHand),
            Err(FetchFailure::Disk(why)) => Err(ControlError::Read(why)),
        }
    }

    fn ask(&self, ask: Ask) -> Result<(), ControlError> {
        self.asks.send(ask).map_err(|_| ControlError::Stopping)
    }

    fn read<T>(&self, read: impl FnOnce(&StoreView) -> Result<T, ControlError>) -> Result<T, ControlError> {
        // A reader that panicked leaves nothing half done behind.
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let result = read(&view)?;
        if view.failed() {
            return Err(ControlError::Read("the store cannot be read".to_owned()));
        }
        Ok(result)
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.unwrap_or(Err(ControlError::Stopping))
    }
}

/// A content in the temporary directory that is not removed while this is there.
#[derive(Debug)]
struct Held {
    content: ContentHash,
    asks: mpsc::UnboundedSender<Ask>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // The loop is gone only at shutdown; the next start sweeps.
        let _ = self.asks.send(Ask::Release(self.content));
    }
}

fn read_part(file: &Mutex<File>, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Contents that tasks hold or wait for, as the event loop sees them.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    contents: BTreeMap<ContentHash, Want>,
}

#[derive(Debug, Default)]
struct Want {
    holders: usize,
    waiting: Vec<oneshot::Sender<Result<(), FetchFailure>>>,
}

impl Wanted {
    /// Takes note of a task that waits for a content.
    pub(crate) fn add(&mut self, content: ContentHash, reply: oneshot::Sender<Result<(), FetchFailure>>) {
        let want = self.contents.entry(content).or_default();
        want.holders += 1;
        want.waiting.push(reply);
    }

    /// Says whether a task holds a content or waits for it.
    pub(crate) fn contains(&self, content: &ContentHash) -> bool {
        self.contents.contains_key(content)
    }

    /// Tells those who wait for a content what came of it.
    pub(crate) fn tell(&mut self, content: &ContentHash, result: &Result<(), FetchFailure>) {
        let want = self.contents.get_mut(content);
        for reply in want
            .map(|want| std::mem::take(&mut want.waiting))
            .unwrap_or_default()
        {
            // A task that went away lets go of it by itself.
            let _ = reply.send(result.clone());
        }
    }

    /// Takes note that a task lets go of a content; says whether it was the last.
    pub(crate) fn release(&mut self, content: &ContentHash) -> bool {
        let Some(want) = self.contents.get_mut(content) else {
            return false;
        };
        want.holders = want.holders.saturating_sub(1);
        if want.holders > 0 {
            return false;
        }
        self.contents.remove(content);
        true
    }
}
