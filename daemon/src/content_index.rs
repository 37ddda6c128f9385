//! The seams between services that do not know each other: the store as transfer and scanner see it, the network as
//! transfer sees it, the watcher as the scanner sees it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use p2p_sync_core::content::Manifest;
use p2p_sync_core::ids::{ContentHash, DeviceId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Fingerprint, Installed};

use crate::network::StreamOpener;
use crate::scanner::{DirWatch, InstalledIndex};
use crate::store::{StoreView, StoreWriter};
use crate::transfer::{BoxStream, ContentIndex, OpenError, StreamSource};
use crate::watcher::FileWatcher;
use crate::worktree::{Believed, Kept};

/// Places at which one content is looked for; more equal files add nothing.
const MAX_PLACES: usize = 8;
/// Equal files among which the other names of one are looked for; a full scan finds what changed behind more of them.
const MAX_EQUAL: usize = 1024;

/// A read connection shared by blocking threads, and the writer.
#[derive(Debug)]
pub(crate) struct SharedStore {
    view: Mutex<StoreView>,
    writer: Arc<StoreWriter>,
    kept: Arc<Kept>,
}

impl SharedStore {
    pub(crate) fn new(view: StoreView, writer: Arc<StoreWriter>, kept: Arc<Kept>) -> Self {
        Self {
            view: Mutex::new(view),
            writer,
            kept,
        }
    }

    fn read<T>(&self, read: impl FnOnce(&StoreView) -> T) -> T {
        // A reader that panicked leaves nothing half done behind.
        read(&self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ContentIndex for SharedStore {
    fn manifest(&self, content: &ContentHash) -> Option<Manifest> {
        self.read(|view| view.manifest(content))
    }

    fn put_manifest(&self, manifest: Manifest) {
        self.writer.put_manifest(Arc::new(manifest));
    }

    fn files(&self, content: &ContentHash) -> Vec<(RelPath, Installed)> {
        self.read(|view| view.paths_with_content(content, MAX_PLACES))
    }

    fn kept(&self, content: &ContentHash) -> Vec<RelPath> {
        self.kept.with_content(content, MAX_PLACES)
    }

    fn partial(&self, content: &ContentHash) -> Option<Vec<u8>> {
        self.writer.partial(content)
    }

    fn set_partial(&self, content: &ContentHash, bitmap: Vec<u8>) {
        self.writer.set_partial(*content, bitmap);
    }

    fn clear_partial(&self, content: &ContentHash) {
        self.writer.clear_partial(*content);
    }
}

impl InstalledIndex for SharedStore {
    fn installed(&self, path: &RelPath) -> Option<Installed> {
        use p2p_sync_core::engine::StateView as _;
        self.read(|view| view.installed(path))
    }

    fn children(&self, dir: Option<&RelPath>) -> Vec<(RelPath, Option<Installed>)> {
        self.read(|view| view.installed_children(dir))
    }

    fn below(&self, dir: &RelPath) -> Vec<(RelPath, Installed)> {
        use p2p_sync_core::engine::StateView as _;
        let mut found = Vec::new();
        let mut after: Option<RelPath> = None;
        while let Some(path) = self.read(|view| view.next_installed_below(Some(dir), after.as_ref())) {
            if let Some(installed) = self.installed(&path) {
                found.push((path.clone(), installed));
            }
            after = Some(path);
        }
        found
    }

    fn same_file(&self, installed: &Installed) -> Vec<RelPath> {
        let Some(content) = installed.entry.node.content() else {
            return Vec::new();
        };
        let mut equal = self.read(|view| view.paths_with_content(&content, MAX_EQUAL));
        equal.retain(|(_, other)| other.print.ino == installed.print.ino);
        equal.into_iter().map(|(path, _)| path).collect()
    }
}

/// What the store says of the folder's files, for the worktree.
#[derive(Debug)]
pub(crate) struct StoreBeliefs(pub(crate) Mutex<StoreView>);

impl Believed for StoreBeliefs {
    fn content(&self, path: &RelPath, print: &Fingerprint) -> Option<ContentHash> {
        use p2p_sync_core::engine::StateView as _;
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let installed = view
            .installed(path)
            .filter(|installed| installed.print == *print)?;
        installed.entry.node.content()
    }
}

impl DirWatch for FileWatcher {
    fn watch(&self, dir: &Path, ino: u64) -> bool {
        Self::watch(self, dir, ino)
    }

    fn scan_begins(&self) {
        Self::scan_begins(self);
    }

    fn scan_ended(&self) {
        Self::scan_ended(self);
    }

    fn is_complete(&self) -> bool {
        Self::is_complete(self)
    }
}

/// Opens content streams over the swarm.
#[derive(Debug)]
pub(crate) struct SwarmStreams(pub(crate) StreamOpener);

impl StreamSource for SwarmStreams {
    fn open(&self, device: DeviceId) -> BoxFuture<'_, Result<BoxStream, OpenError>> {
        Box::pin(async move {
            match self.0.open(device).await {
                Ok(stream) => Ok(Box::new(stream) as BoxStream),
                Err(error) => Err(OpenError::Failed(std::io::Error::other(error))),
            }
        })
    }
}
