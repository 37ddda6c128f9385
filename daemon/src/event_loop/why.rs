//! What the engine does not know about a path: whether the scanner looks at it, and what lies in a directory.

use std::path::Path;

use p2p_sync_core::engine::{CommandError, Reply};
use p2p_sync_core::rel_path::RelPath;

use super::EventLoop;
use crate::control::{ControlError, Obstacle, ReplyTo, WhyAnswer};
use crate::root_dir::RootDir;
use crate::scanner;

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
        let obstacle = self.obstacle(&report.path);
        let folder = self.services.status.borrow().folder.clone();
        tokio::task::spawn_blocking(move || {
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

    /// Says why the scanner does not look at a path; what holds for a directory holds for all below it.
    fn obstacle(&self, path: &RelPath) -> Option<Obstacle> {
        let problem = |at: &RelPath| {
            let mut problems = self.scan_problems.iter();
            problems
                .find(|(problem, _)| problem == at)
                .map(|(_, why)| why.clone())
        };
        std::iter::once(path.clone())
            .chain(path.ancestors())
            .find_map(|at| {
                if scanner::is_ignored(&at) {
                    return Some(Obstacle::Ignored);
                }
                problem(&at).map(Obstacle::Unreadable)
            })
    }
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
