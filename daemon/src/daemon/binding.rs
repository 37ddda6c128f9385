//! Which folder the state belongs to.
//!
//! The folder's random name lies in the folder (`.p2p-sync/root-id`) and once more in the state directory. If they differ,
//! or the folder has none, the folder is another one, or its disk is not mounted: what is missing in it must never look
//! like deletions, so the daemon refuses to start, and writes nothing there. `--rebind` takes the folder all the same: the
//! store forgets what stood in the old one, and the engine compares every file as a joiner does. A crash in between
//! leaves the old name in the state directory, so that the next start refuses again.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use tracing::warn;

use super::{DaemonError, Options};
use crate::root_dir::{ROOT_ID, RootDir};
use crate::store::Store;

/// Refuses a folder that is not the one the state was made with, before anything is written to it.
pub(super) fn check(options: &Options) -> Result<(), DaemonError> {
    let Some(known) = known(options)? else {
        return Ok(());
    };
    let found = RootDir::open(&options.folder).and_then(|root| root.read_root_id());
    if options.rebind || found.is_ok_and(|found| found == known) {
        return Ok(());
    }
    Err(DaemonError::OtherFolder {
        folder: options.folder.clone(),
        state_dir: options.state_dir.clone(),
    })
}

/// Notes that the state belongs to the folder with this name; with `--rebind` makes it so.
pub(super) fn bind(options: &Options, root_id: &str, store: &mut Store) -> Result<(), DaemonError> {
    let known = known(options)?;
    if options.rebind {
        warn!(folder = %options.folder.display(), "Taking the folder as it is: every file is compared");
        store.forget_folder()?;
    }
    if known.as_deref() == Some(root_id) {
        return Ok(());
    }
    let path = place(options);
    write(options, root_id).map_err(|source| DaemonError::MakeDir { path, source })
}

fn known(options: &Options) -> Result<Option<String>, DaemonError> {
    let path = place(options);
    match std::fs::read_to_string(&path) {
        Ok(known) => Ok(Some(known)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DaemonError::MakeDir { path, source }),
    }
}

fn place(options: &Options) -> PathBuf {
    options.state_dir.join(ROOT_ID)
}

/// Half a name would be another one: it is made whole before it gets its place.
fn write(options: &Options, root_id: &str) -> std::io::Result<()> {
    let new = options.state_dir.join("root-id.new");
    let mut file = File::create(&new)?;
    file.write_all(root_id.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, place(options))?;
    File::open(&options.state_dir)?.sync_all()
}
