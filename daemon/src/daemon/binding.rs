//! Which folder the state belongs to.
//!
//! The folder's random name lies in the folder (`.p2p-sync/root-id`) and once more in the state directory. If they differ,
//! or the folder has none, the folder is another one, or its disk is not mounted: what is missing in it must never look
//! like deletions, so the daemon refuses to start, and writes nothing there. `--rebind` takes the folder all the same: the
//! store forgets what stood in the old one, and the engine compares every file as a joiner does. A crash in between
//! leaves the old name in the state directory, so that the next start refuses again.
//!
//! A store that is older than the folder's journal is bound anew in the same way ([`engine`]).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use p2p_sync_core::engine::{EngineConfig, SyncEngine};
use tracing::warn;

use super::{DaemonError, Options};
use crate::journal::{JournalService, OwnLog};
use crate::root_dir::{ROOT_ID, RootDir};
use crate::store::{Compare, Store};

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
        store.forget_folder(Compare::Now)?;
    }
    if known.as_deref() == Some(root_id) {
        return Ok(());
    }
    let path = place(options);
    write(options, root_id).map_err(|source| DaemonError::MakeDir { path, source })
}

/// Makes the engine from the store. If the folder's journal knows of more own events than the store, the store is an old
/// copy that was put back: what it says of the folder is not true any more, so that every file is compared, once the
/// missing events have been taken back from the peers.
pub(super) fn engine(
    options: &Options,
    config: &EngineConfig,
    journal: &JournalService,
    store: &mut Store,
) -> Result<SyncEngine, DaemonError> {
    let recovered = store.load()?;
    if !recovered.is_readable() {
        return Err(DaemonError::OtherFormat {
            state_dir: options.state_dir.clone(),
        });
    }
    let mut engine = SyncEngine::new(config.clone(), recovered);
    let Some(log) = engine.own_log_name().map(OwnLog::from) else {
        return Ok(engine);
    };
    if options.rebind {
        journal.note_own_log(log, engine.own_log_size())?;
    }
    let made = journal.own_log(&log)?;
    if made.events <= engine.own_seq() {
        return Ok(engine);
    }
    engine.expect_own_log(made);
    let missing = engine.own_events_missing();
    warn!(
        made = made.events,
        missing, "The state is an old copy, of before the newest own events: every file is compared"
    );
    let compare = if missing > 0 {
        Compare::WithPeers
    } else {
        Compare::Now
    };
    store.forget_folder(compare)?;
    engine = SyncEngine::new(config.clone(), store.load()?);
    if missing > 0 {
        engine.expect_own_log(made);
    }
    Ok(engine)
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
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(true).mode(0o600);
    let mut file = private.open(&new)?;
    file.write_all(root_id.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, place(options))?;
    File::open(&options.state_dir)?.sync_all()
}
