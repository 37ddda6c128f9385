//! Files that an install replaced while a program may still have them open.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::Fingerprint;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::kept::{Keep, KeepOutcome};
use super::session::{Missing, Session, writable};
use super::{Unfinished, Worktree, WorktreeError, meta, slots};
use crate::journal::Tx;
use crate::root_dir::{PathError, lstat_at, print_of};

/// After how long a replaced file is looked at again, each counted from the last: a program that was just writing
/// (2 s), one that saves now and then, one that writes a log all day.
const CHECKS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(60),
    Duration::from_secs(3600),
    Duration::from_secs(23 * 3600),
];
/// After how long a replaced file is looked at again that could not be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Replaced files that are watched at once; beyond it the oldest are looked at a last time at once.
const WATCHED_MAX: usize = 16_384;
/// Names tried for a file put beside its path.
const NAME_TRIES: u32 = 100;

/// A replaced file that somebody went on writing to; it now lies beside its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displaced {
    /// The path that was installed.
    pub path: RelPath,
    /// Where the file is.
    pub kept_at: RelPath,
}

/// Replaced files to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Watched {
    files: VecDeque<WatchedFile>,
}

#[derive(Debug)]
struct WatchedFile {
    tx: Tx,
    path: RelPath,
    version: RelPath,
    print: Fingerprint,
    due: Instant,
    check: usize,
}

impl Worktree {
    /// Looks at replaced files whose time has come; to be called every second or so. Closes their installs, and puts
    /// those that changed beside their path.
    ///
    /// # Errors
    /// [`WorktreeError`].
    pub fn check_displaced(&self, now: Instant) -> Result<Vec<Displaced>, WorktreeError> {
        let mut found = Vec::new();
        let mut done = Vec::new();
        for mut file in self.due_files(now) {
            let next = match self.check_one(&file) {
                Ok(Some(displaced)) => {
                    found.push(displaced);
                    None
                }
                Ok(None) => CHECKS.get(file.check + 1).map(|delay| (file.check + 1, *delay)),
                Err(error) => {
                    tracing::warn!(%error, "Cannot look at a replaced file");
                    if file.check < CHECKS.len() {
                        file.due = now + LOOK_AGAIN;
                        self.watched().files.push_back(file);
                    }
                    continue;
                }
            };
            let Some((check, delay)) = next else {
                self.own.kept.unpin(&file.version);
                done.push(file.tx);
                continue;
            };
            if check == 1 {
                done.push(file.tx);
            }
            (file.check, file.due) = (check, now + delay);
            self.watched().files.push_back(file);
        }
        if done.is_empty() {
            return Ok(found);
        }
        self.own
            .kept
            .sync()
            .map_err(PathError::of("sync", self.own.kept.path()))?;
        self.journal.done(&done)?;
        Ok(found)
    }

    /// Moves what installs replaced to the versions and has it watched. Installs of which nothing is left to be watched
    /// go to `done`, those whose file could not be moved to `left`.
    pub(super) fn keep_replaced(
        &self,
        entries: Vec<Unfinished>,
        done: &mut Vec<Tx>,
        left: &mut Vec<Unfinished>,
    ) -> Result<(), WorktreeError> {
        let failed = PathError::of("keep old versions in", self.own.kept.path());
        let outcome = match self.keep_entries(&entries) {
            Ok(outcome) => outcome,
            Err(error) => {
                left.extend(entries);
                return Err(failed(error).into());
            }
        };
        let mut first_error = None;
        let mut watched = self.watched();
        let due = Instant::now() + CHECKS[0];
        for (mut entry, place) in entries.into_iter().zip(outcome.places) {
            let print = entry.displaced.unwrap_or_default();
            match place {
                Ok(Some(version)) if FileType::from_raw_mode(print.mode) == FileType::RegularFile => {
                    watched.files.push_back(WatchedFile {
                        tx: entry.tx,
                        path: entry.path,
                        version,
                        print,
                        due,
                        check: 0,
                    });
                }
                // A link, or somebody emptied the temporary directory.
                Ok(Some(_) | None) => done.push(entry.tx),
                Err(error) => {
                    first_error.get_or_insert(error);
                    entry.noted_on = outcome.noted_on.or(entry.noted_on);
                    left.push(entry);
                }
            }
        }
        first_error.map_or(Ok(()), |error| Err(failed(error).into()))
    }

    fn keep_entries(&self, entries: &[Unfinished]) -> io::Result<KeepOutcome> {
        let slots: Vec<String> = entries.iter().map(|entry| entry.tx.slot()).collect();
        let items: Vec<Keep<'_>> = entries
            .iter()
            .zip(&slots)
            .map(|(entry, slot)| Keep {
                slot,
                tx: entry.tx,
                path: Some(&entry.path),
                print: entry.displaced.unwrap_or_default(),
                content: entry.content,
                noted_on: entry.noted_on,
            })
            .collect();
        self.own.kept.keep(&self.own.tmp, &items)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due_files(&self, now: Instant) -> Vec<WatchedFile> {
        let mut watched = self.watched();
        let over = watched.files.len().saturating_sub(WATCHED_MAX);
        let mut due: Vec<_> = watched.files.drain(..over).collect();
        due.iter_mut().for_each(|file| file.check = CHECKS.len());
        let (more, rest) = watched.files.drain(..).partition(|f| f.due <= now);
        watched.files = rest;
        due.extend::<VecDeque<_>>(more);
        due
    }

    fn check_one(&self, file: &WatchedFile) -> io::Result<Option<Displaced>> {
        let mut session = Session::new(&self.root, self.modes);
        let found = self.check_version(&file.version, &file.print, &file.path, &mut session)?;
        session.make_durable();
        Ok(found)
    }

    /// Puts a kept version beside its path if it is not what it was when it was replaced.
    pub(super) fn check_version(
        &self,
        version: &RelPath,
        print: &Fingerprint,
        path: &RelPath,
        session: &mut Session<'_>,
    ) -> io::Result<Option<Displaced>> {
        let dir = match self.root.open_parent(version) {
            Ok(dir) => dir,
            // Purged, or taken away by the user.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let now = lstat_at(&dir, version.file_name())?;
        // What is written to a file that has another name is found there.
        let now = now.filter(|stat| stat.st_nlink == 1).map(|stat| print_of(&stat));
        if now.is_none_or(|now| meta::is_untouched(print, &now)) {
            return Ok(None);
        }
        let kept_at = self.keep_beside(&dir, version.file_name(), path, session)?;
        Ok(Some(Displaced {
            path: path.clone(),
            kept_at,
        }))
    }

    /// Moves a file beside a path, under a name that says what it is; at the top of the folder if there is no place
    /// beside the path.
    pub(super) fn keep_beside(
        &self,
        dir: impl AsFd,
        name: &[u8],
        path: &RelPath,
        session: &mut Session<'_>,
    ) -> io::Result<RelPath> {
        let stamp = slots::stamp(SystemTime::now());
        let top = RelPath::parse(path.file_name()).map_err(io::Error::other)?;
        for base in [path, &top] {
            for n in 1..=NAME_TRIES {
                let Ok(to) = base.with_file_name(&displaced_name(base.file_name(), &stamp, n)) else {
                    break;
                };
                let Ok(parent) = session.parent(&to, Missing::Make) else {
                    break;
                };
                match writable(&parent, || slots::rename_new(&dir, name, &parent, to.file_name())) {
                    Ok(()) => {
                        session.touch(&to);
                        return Ok(to);
                    }
                    Err(Errno::EXIST) => {}
                    Err(_) => break,
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "No name is free beside the path",
        ))
    }
}

/// Returns `<stem> (displaced <stamp>)<ext>`, with `-n` behind the stamp from the second on; at most 255 bytes.
fn displaced_name(name: &[u8], stamp: &str, n: u32) -> Vec<u8> {
    let dot = name
        .iter()
        .rposition(|b| *b == b'.')
        .filter(|at| *at > 0 && name.len() - at <= 16);
    let (stem, ext) = name.split_at(dot.unwrap_or(name.len()));
    let mark = if n > 1 {
        format!(" (displaced {stamp}-{n})")
    } else {
        format!(" (displaced {stamp})")
    };
    let mut room = (RelPath::MAX_COMPONENT - mark.len() - ext.len()).min(stem.len());
    // Not within a UTF-8 character.
    while room < stem.len() && room > 0 && stem[room] & 0xc0 == 0x80 {
        room -= 1;
    }
    [&stem[..room], mark.as_bytes(), ext].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displaced_file_keeps_stem_and_extension() {
        let check = |name: &str, n, expect: &str| {
            assert_eq!(
                String::from_utf8_lossy(&displaced_name(name.as_bytes(), "S", n)),
                expect
            );
        };
        check("a.txt", 1, "a (displaced S).txt");
        check("a.txt", 2, "a (displaced S-2).txt");
        check(".bashrc", 1, ".bashrc (displaced S)");
        check("Makefile", 1, "Makefile (displaced S)");
        let long = displaced_name("\u{e9}".repeat(127).as_bytes(), "20261122-135959", 1);
        assert!(long.len() <= 255 && String::from_utf8(long).is_ok());
    }
}
