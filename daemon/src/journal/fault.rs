//! Writing, and what a failed write leaves behind.
//!
//! A write for which there was no room, or that a read-only file system refused, has changed nothing once the file is
//! cut back to its last whole record: it is an ordinary error, and the same may be tried again. After any other
//! failure, and after every failed fsync, nobody knows what the disk holds (the kernel may have thrown the pages away and
//! call the next fsync a success): the journal accepts nothing any more until the daemon is started again.

use std::fs::File;
use std::io::{self, Write};
use std::sync::PoisonError;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{JOURNAL, JOURNAL_NEW, JournalError, JournalService, State, Sync};
use crate::root_dir::PathError;

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Write,
    Sync,
    Rename,
}

/// A failure that a test has ordered.
#[cfg(test)]
pub(super) type Planned = (Act, Errno);

impl JournalService {
    /// Returns why nothing is accepted any more; `None` while all is well.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken.clone()
    }

    /// Accepts nothing any more, because something else that it rests on failed: no install is begun after this.
    pub fn refuse(&self, why: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken.get_or_insert_with(|| why.to_owned());
    }

    /// Appends bytes; they are there whole, or not at all.
    pub(super) fn write(&self, state: &mut State, bytes: &[u8], sync: Sync) -> Result<(), JournalError> {
        let written = self.may(Act::Write).and_then(|()| state.file.write_all(bytes));
        let may_try_again = match &written {
            Err(source) if is_no_room(source) => cut_back(state).is_ok(),
            _ => false,
        };
        let result = written.and_then(|()| match sync {
            Sync::Now => self.may(Act::Sync).and_then(|()| state.file.sync_data()),
            Sync::Later => Ok(()),
        });
        result
            .map_err(PathError::of("write", self.dir_path.join(JOURNAL)))
            .inspect_err(|error| {
                if !may_try_again {
                    state.broken = Some(crate::error_chain(error));
                }
            })?;
        Ok(())
    }

    /// Puts a journal with these bytes in place of the old one, which stays as it was if there is no room.
    pub(super) fn replace(&self, state: &mut State, bytes: &[u8]) -> Result<File, JournalError> {
        let made = self.make_new(bytes);
        let may_try_again = made.as_ref().is_err_and(is_no_room);
        let replaced = made.and_then(|file| {
            self.may(Act::Rename)?;
            rustix::fs::renameat(&self.dir, JOURNAL_NEW, &self.dir, JOURNAL)?;
            rustix::fs::fsync(&self.dir)?;
            Ok(file)
        });
        Ok(replaced
            .map_err(PathError::of("write", self.dir_path.join(JOURNAL_NEW)))
            .inspect_err(|error| {
                if !may_try_again {
                    state.broken = Some(crate::error_chain(error));
                }
            })?)
    }

    fn make_new(&self, bytes: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.dir, JOURNAL_NEW, flags, mode)?);
        self.may(Act::Write)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(file)
    }

    #[cfg(test)]
    fn may(&self, act: Act) -> io::Result<()> {
        let mut planned = self.planned.lock().unwrap();
        match planned.take_if(|(at, _)| *at == act) {
            Some((_, errno)) => Err(errno.into()),
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests let it fail")]
    fn may(&self, _act: Act) -> io::Result<()> {
        Ok(())
    }

    /// Lets the next write or fsync fail.
    #[cfg(test)]
    pub(crate) fn fail_next(&self, act: &str, errno: Errno) {
        let act = match act {
            "write" => Act::Write,
            "sync" => Act::Sync,
            _ => Act::Rename,
        };
        *self.planned.lock().unwrap() = Some((act, errno));
    }
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::ROFS)
    )
}

/// Takes a half-written record away.
fn cut_back(state: &State) -> io::Result<()> {
    if state.file.metadata()?.len() != state.len {
        state.file.set_len(state.len)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use super::*;

    fn paths(names: &[&str]) -> HashSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_write_without_room_is_taken_back_and_may_be_tried_again() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
            let dir = tempfile::tempdir().unwrap();
            let journal = JournalService::new(dir.path()).unwrap();
            journal.log_activity(&paths(&["before"])).unwrap();
            journal.fail_next("write", errno);
            assert!(matches!(
                journal.log_activity(&paths(&["a"])),
                Err(JournalError::Io(_))
            ));
            assert_eq!(journal.failure(), None);
            journal.log_activity(&paths(&["a", "b"])).unwrap();
            drop(journal);
            let journal = JournalService::new(dir.path()).unwrap();
            assert!(!journal.was_damaged());
            assert_eq!(journal.check_for_recovery().unwrap(), paths(&["a", "b"]));
        }
    }

    #[test]
    fn half_a_record_without_room_for_the_rest_is_cut_away() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalService::new(dir.path()).unwrap();
        let mut state = journal.state.lock().unwrap();
        let whole = state.len;
        state.file.write_all(b"half a rec").unwrap();
        cut_back(&state).unwrap();
        assert_eq!(state.file.metadata().unwrap().len(), whole);
    }

    #[test]
    fn after_a_failed_fsync_nothing_is_accepted_even_if_the_next_would_succeed() {
        for (act, errno) in [("sync", Errno::IO), ("sync", Errno::NOSPC), ("write", Errno::IO)] {
            let dir = tempfile::tempdir().unwrap();
            let journal = JournalService::new(dir.path()).unwrap();
            journal.fail_next(act, errno);
            assert!(journal.log_activity(&paths(&["a"])).is_err());
            let why = journal.failure().unwrap();
            assert!(why.contains("journal"), "{why}");
            for _ in 0..2 {
                let again = journal.log_activity(&paths(&["b"]));
                assert!(matches!(again, Err(JournalError::Broken)), "{act} {errno}");
            }
            assert!(matches!(journal.clear(), Err(JournalError::Broken)));
        }
    }

    #[test]
    fn a_journal_that_cannot_be_shortened_for_lack_of_room_goes_on_long() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalService::new(dir.path()).unwrap();
        journal.log_activity(&paths(&["a"])).unwrap();
        let mut state = journal.state.lock().unwrap();
        journal.fail_next("write", Errno::NOSPC);
        assert!(journal.rewrite(&mut state).is_err());
        assert_eq!(state.broken, None);
        journal.fail_next("rename", Errno::IO);
        assert!(journal.rewrite(&mut state).is_err());
        assert!(state.broken.is_some());
        drop(state);
        drop(journal);
        let journal = JournalService::new(dir.path()).unwrap();
        assert_eq!(journal.check_for_recovery().unwrap(), paths(&["a"]));
    }

    #[test]
    fn a_journal_told_to_refuse_says_the_first_reason() {
        let dir = tempfile::tempdir().unwrap();
        let journal = JournalService::new(dir.path()).unwrap();
        journal.refuse("the store failed");
        journal.refuse("later");
        assert_eq!(journal.failure().as_deref(), Some("the store failed"));
        assert!(matches!(journal.next_tx(), Err(JournalError::Broken)));
    }
}
