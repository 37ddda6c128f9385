//! A new file: there as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};
use crate::output::escape;

/// A file that is being written; removed again unless it is finished.
pub(super) struct NewFile {
    path: PathBuf,
    /// Where it is written first, if it is to replace one.
    beside: Option<PathBuf>,
    file: File,
    finished: bool,
}

impl NewFile {
    /// Begins a file. One that is there stays, unless `force` says to replace it once the new one is complete.
    pub(super) fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        let beside = force.then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.part", std::process::id()));
            PathBuf::from(name)
        });
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(beside.as_deref().unwrap_or(path));
        match made {
            Ok(file) => Ok(Self {
                path: path.to_owned(),
                beside,
                file,
                finished: false,
            }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            Err(e) => Err(cannot(path, &e)),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|e| cannot(&self.path, &e))
    }

    /// Makes the file durable, and gives it its name.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let named = self.file.sync_all().and_then(|()| match &self.beside {
            Some(beside) => fs::rename(beside, &self.path),
            None => Ok(()),
        });
        named.map_err(|e| cannot(&self.path, &e))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed is at least not complete, which its format shows.
            let _ = fs::remove_file(self.beside.as_deref().unwrap_or(&self.path));
        }
    }
}

/// Fails if a file is there that must stay, before anybody is asked for what would go into it.
pub(super) fn check_absent(path: &Path, force: bool) -> Result<(), Failure> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    Ok(())
}

fn exists(path: &Path) -> Failure {
    let text = format!(
        "{} is there already and stays",
        escape(path.as_os_str().as_bytes())
    );
    Failure::new(Exit::CantCreate, "OUTPUT_EXISTS", text).hint("choose another name: -o FILE, or: --force")
}

fn cannot(path: &Path, e: &io::Error) -> Failure {
    let text = format!("Cannot write {}: {e}", escape(path.as_os_str().as_bytes()));
    Failure::new(Exit::CantCreate, "IO", text).hint("choose another place: -o FILE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_a_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.proof");
        let mut half = NewFile::create(&path, false).unwrap();
        half.write(b"half").unwrap();
        drop(half);
        assert!(!path.exists());
        let mut first = NewFile::create(&path, false).unwrap();
        first.write(b"first").unwrap();
        first.finish().unwrap();
        let refused = NewFile::create(&path, false).err().unwrap();
        assert_eq!(refused.exit, Exit::CantCreate);
        assert_eq!(
            check_absent(&path, false).err().map(|f| f.exit),
            Some(Exit::CantCreate)
        );
        let mut half = NewFile::create(&path, true).unwrap();
        half.write(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let mut second = NewFile::create(&path, true).unwrap();
        second.write(b"second").unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
