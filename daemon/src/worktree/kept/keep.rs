//! How replaced files become kept versions.

use std::io;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Fingerprint;
use rustix::fs::FileType;

use super::index::Record;
use super::{Kept, day_number, day_text, millis, place, version_name};
use crate::journal::Tx;
use crate::worktree::slots::make_dir;

/// One file to be kept.
#[derive(Debug)]
pub(in crate::worktree) struct Keep<'k> {
    pub(in crate::worktree) slot: &'k str,
    pub(in crate::worktree) tx: Tx,
    pub(in crate::worktree) path: Option<&'k RelPath>,
    pub(in crate::worktree) print: Fingerprint,
    pub(in crate::worktree) content: Option<ContentHash>,
    /// The day in whose index it stands already, though it could not be moved then.
    pub(in crate::worktree) noted_on: Option<u32>,
}

/// What became of files that were to be kept.
#[derive(Debug)]
pub(in crate::worktree) struct KeepOutcome {
    /// The day in whose index all of them stand now; `None` if some may not.
    pub(in crate::worktree) noted_on: Option<u32>,
    /// Where each lies, or `None` if it was gone; what failed is in its slot still.
    pub(in crate::worktree) places: Vec<io::Result<Option<RelPath>>>,
}

impl Kept {
    /// Moves files from their slots to the versions of today. One that fails stops no other.
    pub(in crate::worktree) fn keep(&self, tmp: &OwnedFd, items: &[Keep<'_>]) -> io::Result<KeepOutcome> {
        let now = SystemTime::now();
        self.see_leap(millis(now));
        let day = day_number(now);
        let dir = make_dir(&self.dir, day_text(day).as_bytes())?;
        let unnoted = items.iter().filter(|item| item.noted_on != Some(day));
        let records: Vec<Record> = unnoted.map(|item| Record::of(item, millis(now))).collect();
        let mut noted_on = Some(day);
        if let Err(error) = self.append(day, &dir, &records) {
            // The bytes matter more than that they can be found by path.
            tracing::warn!(%error, "Cannot write to the index of old versions");
            noted_on = None;
        }
        let places = items.iter().map(|item| self.keep_one(tmp, item, day, &dir));
        Ok(KeepOutcome {
            places: places.collect(),
            noted_on,
        })
    }

    fn keep_one(
        &self,
        tmp: &OwnedFd,
        item: &Keep<'_>,
        day: u32,
        dir: &OwnedFd,
    ) -> io::Result<Option<RelPath>> {
        let name = version_name(item.tx, item.path);
        let moved = match rustix::fs::renameat(tmp, item.slot, dir, &name[..]) {
            Ok(()) => true,
            // Somebody emptied the temporary directory.
            Err(rustix::io::Errno::NOENT) => false,
            Err(e) => return Err(e.into()),
        };
        let mut state = self.state();
        if let Some(content) = item.content {
            state.slots.remove(&(content, item.tx));
        }
        if !moved {
            return Ok(None);
        }
        state.grown += item.print.size;
        if FileType::from_raw_mode(item.print.mode) != FileType::Symlink {
            state.pinned.insert((day, name.clone()));
        }
        drop(state);
        Ok(Some(place(day, &name).ok_or(io::ErrorKind::InvalidData)?))
    }
}
