//! What the engine does not know about a path: whether the scanner looks at it, and what lies in a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use p2p_sync_core::engine::{CommandError, Reply};
use p2p_sync_core::ignore::IgnoreRules;
use p2p_sync_core::rel_path::RelPath;

use super::EventLoop;
use crate::control::{ControlError, Obstacle, ReplyTo, WhyAnswer};
use crate::root_dir::RootDir;

/// Names in a directory that blocks its removal which are told.
const MAX_BLOCKERS: usize = 20;

impl EventLoop {
    /// Completes the engine's word about a path. The directory is read by another thread: its disk may be slow.
    pub(super) fn answer_why(&self, to: ReplyTo<WhyAnswer>, reply: Result<Reply, CommandError>) {
        let report = match reply {
            Ok(Reply::Why(report)) => *report,
            Ok(_) => return drop(to.send(Err(ControlError::TimedOut))),
            Err(error) => return drop(to.send(Err(error.into()))),
        };
        let unreadable = self.unreadable(&report.path);
        let rules = self.rules.clone();
        let folder = self.services.status.borrow().folder.clone();
        tokio::task::spawn_blocking(move || {
            let obstacle = match rules {
                Some(rules) if rules.is_ignored(&report.path, is_dir(&folder, &report.path)) => {
                    Some(Obstacle::Ignored)
                }
                _ => unreadable,
            };
            let blockers = if report.removal {
                names_in(&folder, &report.path)
            } else {
                Vec::new()
            };
            let answer = WhyAnswer {
                report,
                obstacle,
                blockers,
            };
            // Whoever asked may be gone.
            let _ = to.send(Ok(answer));
        });
    }

    /// Says why a path cannot be looked at; what holds for a directory holds for all below it.
    fn unreadable(&self, path: &RelPath) -> Option<Obstacle> {
        let problem = |at: &RelPath| {
            let mut problems = self.scan_problems.iter();
            problems
                .find(|(problem, _)| problem == at)
                .map(|(_, why)| why.clone())
        };
        std::iter::once(path.clone())
            .chain(path.ancestors())
            .find_map(|at| problem(&at).map(Obstacle::Unreadable))
    }
}

fn is_dir(folder: &Path, path: &RelPath) -> bool {
    let path = folder.join(OsStr::from_bytes(path.as_bytes()));
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Returns what lies in a directory of the folder; nothing if it is none, or cannot be read.
fn names_in(folder: &Path, dir: &RelPath) -> Vec<RelPath> {
    let Ok(fd) = RootDir::open(folder)
        .map_err(drop)
        .and_then(|root| root.open_dir(Some(dir)).map_err(drop))
    else {
        return Vec::new();
    };
    let Ok(entries) = rustix::fs::Dir::read_from(&fd) else {
        return Vec::new();
    };
    let names = entries.filter_map(Result::ok);
    let names = names.filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
    let mut paths: Vec<RelPath> = names
        .filter_map(|entry| dir.join(entry.file_name().to_bytes()).ok())
        .take(MAX_BLOCKERS)
        .collect();
    paths.sort();
    paths
}
