//! A user of one device: works in its folder with plain file operations, and knows exactly what each of them took away.
//!
//! Nothing is overwritten or removed unseen. A save exchanges a file from beside the folder with what stands at the
//! path, and what came out is what the user replaced; a delete moves things to a trash beside the folder. A write into
//! a file reads through the same descriptor first: the daemon never writes into a file, so what was read is what goes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::known::{self, Hash, Known};
use crate::harness::Random;

/// Directories that users share; the first is the top.
const DIRS: [&str; 7] = ["", "a", "a/b", "c", "c/d/e", "g", "g/h"];
/// Names of shared files in a directory.
const NAMES: u64 = 5;
/// Files of one's own.
const OWN_FILES: u64 = 5;
/// Longest pause between two operations.
const PAUSE_MOST: Duration = Duration::from_millis(60);
/// Tries of a save while the path comes and goes.
const SAVE_TRIES: u32 = 6;
/// Size to which appending lets a file grow.
const APPENDED_MOST: u64 = 1 << 20;

/// One user.
#[derive(Debug)]
pub(super) struct User<'k> {
    number: usize,
    name: String,
    folder: PathBuf,
    /// Beside the folder, on the same file system: `new`, `trash` and `canary`.
    beside: PathBuf,
    known: &'k Known,
    random: Random,
    count: u64,
}

impl<'k> User<'k> {
    pub(super) fn new(number: usize, name: &str, folder: &Path, known: &'k Known, seed: u64) -> Result<Self> {
        let beside = folder
            .parent()
            .context("A folder lies in a directory")?
            .join("beside");
        for dir in ["new", "trash", "canary"] {
            fs::create_dir_all(beside.join(dir)).context("Making directories beside the folder")?;
        }
        Ok(Self {
            number,
            name: name.to_owned(),
            folder: folder.to_owned(),
            beside,
            known,
            random: Random::new(seed.wrapping_mul(31).wrapping_add(number as u64)),
            count: 0,
        })
    }

    /// Works until the round is over.
    pub(super) fn work(&mut self) -> Result<()> {
        loop {
            self.one_operation()
                .with_context(|| format!("The user of {}", self.name))?;
            let longest = PAUSE_MOST.as_millis() as u64;
            let pause = Duration::from_millis(self.random.below(longest));
            if self.known.pause(pause) {
                return Ok(());
            }
        }
    }

    fn one_operation(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..26 => self.save(),
            26..36 => self.create_in_place(),
            36..46 => self.move_file(),
            46..49 => self.swap_files(),
            49..53 => self.move_dir(),
            53..61 => self.remove(false),
            61..63 => self.remove(true),
            63..68 => self.change_mode(),
            68..72 => self.link(),
            72..79 => self.look(),
            79..86 => self.edit_own(),
            86..92 => self.append_own(),
            92..96 => self.save_own(),
            _ => self.move_or_remove_own(),
        }
    }

    fn note(&self, what: &str) {
        self.known.note(&self.name, what);
    }

    fn shared_dir(&mut self) -> &'static str {
        DIRS[self.random.below(DIRS.len() as u64) as usize]
    }

    fn shared_path(&mut self) -> String {
        let dir = self.shared_dir();
        let name = format!("f{}", self.random.below(NAMES));
        if dir.is_empty() {
            name
        } else {
            format!("{dir}/{name}")
        }
    }

    fn own_path(&mut self) -> String {
        format!("own{}/o{}", self.number, self.random.below(OWN_FILES))
    }

    fn next_id(&mut self) -> String {
        self.count += 1;
        format!("d{}-{}", self.number, self.count)
    }

    fn size(&mut self) -> usize {
        let most = match self.random.below(100) {
            0..10 => 0,
            10..70 => 2_000,
            70..93 => 100_000,
            93..98 => 1 << 20,
            _ => 3 << 20,
        };
        self.random.below(most + 1) as usize
    }

    /// Makes and enters a content.
    fn content(&mut self) -> (String, Vec<u8>, Hash) {
        let id = self.next_id();
        let size = self.size();
        let bytes = known::make(&id, size, &mut self.random);
        let hash = known::hash_of(&bytes);
        self.known.enter(hash, &id);
        (id, bytes, hash)
    }

    /// Writes a content beside the folder.
    fn prepare(&mut self) -> Result<(String, PathBuf, Hash)> {
        let (id, bytes, hash) = self.content();
        let path = self.beside.join("new").join(&id);
        let mut file = File::create(&path).with_context(|| format!("Making {}", path.display()))?;
        file.write_all(&bytes).context("Writing beside the folder")?;
        let mode = [0o644, 0o600, 0o755][self.random.below(3) as usize];
        file.set_permissions(Permissions::from_mode(mode))
            .context("Setting a mode")?;
        Ok((id, path, hash))
    }

    fn save(&mut self) -> Result<()> {
        let target = self.shared_path();
        let (id, from, hash) = self.prepare()?;
        self.put(&id, &from, &hash, &target)
    }

    fn save_own(&mut self) -> Result<()> {
        let target = self.own_path();
        let (id, from, hash) = self.prepare()?;
        self.put(&id, &from, &hash, &target)
    }

    fn link(&mut self) -> Result<()> {
        let target = format!("{}/l{}", self.shared_dir(), self.random.below(3));
        let target = target.trim_start_matches('/').to_owned();
        let id = self.next_id();
        let from = self.beside.join("new").join(&id);
        // Whoever follows the link leaves a file among the canaries.
        let text = self.beside.join("canary").join(&id);
        symlink(&text, &from).context("Making a link beside the folder")?;
        let hash = known::hash_of_link(&text);
        self.known.enter(hash, &id);
        self.put(&id, &from, &hash, &target)
    }

    /// Puts something from beside the folder to a path, in one step, and keeps what came out.
    fn put(&mut self, id: &str, from: &Path, hash: &Hash, below: &str) -> Result<()> {
        let target = self.folder.join(below);
        if let Some(parent) = target.parent() {
            // Something else may stand there, or it goes again at once; then the save fails, as for any user.
            let _ = fs::create_dir_all(parent);
        }
        for _ in 0..SAVE_TRIES {
            match renameat_with(CWD, from, CWD, &target, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    let out = self.trash(from)?;
                    self.note(&format!("puts {id} at {below}, taking away {out}"));
                    return Ok(());
                }
                Err(Errno::NOENT) => {}
                Err(error) => return self.give_up(id, from, hash, below, error),
            }
            match renameat_with(CWD, from, CWD, &target, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.note(&format!("puts {id} at {below}, where nothing was"));
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(error) => return self.give_up(id, from, hash, below, error),
            }
        }
        self.give_up(id, from, hash, below, Errno::AGAIN)
    }

    fn give_up(&self, id: &str, from: &Path, hash: &Hash, below: &str, error: Errno) -> Result<()> {
        self.known.strike(hash);
        fs::remove_file(from).context("Removing what was not saved")?;
        self.note(&format!("cannot put {id} at {below}: {error}"));
        Ok(())
    }

    /// Moves what a user took away to the trash and says what it is; a directory is looked into at the end.
    fn trash(&mut self, out: &Path) -> Result<String> {
        let name = self.next_id();
        let to = self.beside.join("trash").join(&name);
        renameat_with(CWD, out, CWD, &to, RenameFlags::NOREPLACE).context("Moving to the trash")?;
        let meta = fs::symlink_metadata(&to).context("Looking into the trash")?;
        if meta.is_dir() {
            return Ok(format!("the directory trash/{name}"));
        }
        let hash = hash_at(&to)?;
        let id = self.known.take(&hash, &self.name);
        Ok(id.unwrap_or_else(|| format!("an unknown content in trash/{name}")))
    }

    /// Writes a new file at its final path, which the daemon may find half written.
    fn create_in_place(&mut self) -> Result<()> {
        let below = self.shared_path();
        let target = self.folder.join(&below);
        if let Some(parent) = target.parent() {
            let _ = fs::create_dir_all(parent);
        }
        let Ok(mut file) = OpenOptions::new().write(true).create_new(true).open(&target) else {
            return Ok(());
        };
        let (id, bytes, hash) = self.content();
        self.known.allow_parts(&hash);
        file.write_all(&bytes).context("Writing a new file")?;
        self.note(&format!("writes the new file {id} at {below}"));
        Ok(())
    }

    fn move_file(&mut self) -> Result<()> {
        let (from, to) = (self.shared_path(), self.shared_path());
        self.move_one(&from, &to)
    }

    fn move_dir(&mut self) -> Result<()> {
        let (from, to) = (self.shared_dir(), self.shared_dir());
        if from.is_empty() || to.is_empty() || from == to {
            return Ok(());
        }
        self.move_one(from, to)
    }

    fn move_one(&mut self, from: &str, to: &str) -> Result<()> {
        let [old, new] = [from, to].map(|below| self.folder.join(below));
        if let Some(parent) = new.parent() {
            let _ = fs::create_dir_all(parent);
        }
        if renameat_with(CWD, &old, CWD, &new, RenameFlags::NOREPLACE).is_ok() {
            let what = self.name_of(&new);
            self.note(&format!("moves {what} from {from} to {to}"));
        }
        Ok(())
    }

    fn swap_files(&mut self) -> Result<()> {
        let (one, two) = (self.shared_path(), self.shared_path());
        let [first, second] = [&one, &two].map(|below| self.folder.join(below));
        if renameat_with(CWD, &first, CWD, &second, RenameFlags::EXCHANGE).is_ok() {
            let what = [&first, &second].map(|path| self.name_of(path));
            self.note(&format!("swaps {one} and {two}, now {what:?}"));
        }
        Ok(())
    }

    /// Removes a file or a directory with all that is in it.
    fn remove(&mut self, dir: bool) -> Result<()> {
        let below = if dir {
            self.shared_dir().to_owned()
        } else {
            self.shared_path()
        };
        if below.is_empty() {
            return Ok(());
        }
        self.remove_path(&below)
    }

    fn remove_path(&mut self, below: &str) -> Result<()> {
        let out = self.beside.join("new").join("out");
        match renameat_with(CWD, self.folder.join(below), CWD, &out, RenameFlags::NOREPLACE) {
            Ok(()) => {
                let what = self.trash(&out)?;
                self.note(&format!("removes {below}, taking away {what}"));
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => bail!("Cannot remove {below}: {error}"),
        }
    }

    fn change_mode(&mut self) -> Result<()> {
        let below = self.shared_path();
        let mode = [0o644, 0o600, 0o700, 0o755, 0o400][self.random.below(5) as usize];
        let Ok(file) = open_file(&self.folder.join(&below), false) else {
            return Ok(());
        };
        if !file.metadata().context("Looking at a file")?.is_file() {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(mode))
            .context("Setting a mode")?;
        if self.random.below(3) == 0 {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.random.below(1_700_000_000));
            file.set_modified(time).context("Setting a time")?;
        }
        self.note(&format!("sets the mode of {below} to {mode:o}"));
        Ok(())
    }

    /// Reads a shared file: what another device made is there whole or not at all.
    fn look(&mut self) -> Result<()> {
        let below = self.shared_path();
        let Ok(mut file) = open_file(&self.folder.join(&below), false) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        if file.read_to_end(&mut bytes).is_err() {
            return Ok(());
        }
        if self.known.id(&known::hash_of(&bytes)).is_none() && !bytes.is_empty() {
            self.note(&format!(
                "sees at {below} something unknown: {}",
                known::describe(&bytes)
            ));
        }
        Ok(())
    }

    /// Writes over a file that only this user writes.
    fn edit_own(&mut self) -> Result<()> {
        let below = self.own_path();
        let target = self.folder.join(&below);
        let Ok(mut file) = open_file(&target, true) else {
            return self.save_own();
        };
        let before = read_all(&mut file)?;
        let (id, bytes, _) = self.content();
        file.seek(SeekFrom::Start(0)).context("Seeking")?;
        if self.random.below(2) == 0 {
            file.set_len(0).context("Truncating")?;
            file.write_all(&bytes).context("Writing")?;
        } else {
            file.write_all(&bytes).context("Writing")?;
            file.set_len(bytes.len() as u64).context("Truncating")?;
        }
        self.replaced(&before, &format!("edits {below} in place to {id}"));
        Ok(())
    }

    fn append_own(&mut self) -> Result<()> {
        let below = self.own_path();
        let Ok(mut file) = open_file(&self.folder.join(&below), true) else {
            return self.save_own();
        };
        let before = read_all(&mut file)?;
        if before.len() as u64 > APPENDED_MOST {
            return self.remove_path(&below);
        }
        let id = self.next_id();
        let more = known::make(&id, self.random.below(500) as usize, &mut self.random);
        self.known
            .enter(known::hash_of(&[before.as_slice(), &more].concat()), &id);
        file.write_all(&more).context("Appending")?;
        self.replaced(&before, &format!("appends to {below}, now {id}"));
        Ok(())
    }

    fn replaced(&self, before: &[u8], what: &str) {
        let id = self.known.take(&known::hash_of(before), &self.name);
        self.note(&format!(
            "{what}, replacing {}",
            id.unwrap_or_else(|| known::describe(before))
        ));
    }

    fn move_or_remove_own(&mut self) -> Result<()> {
        let (from, to) = (self.own_path(), self.own_path());
        if self.random.below(2) == 0 {
            self.move_one(&from, &to)
        } else {
            self.remove_path(&from)
        }
    }

    /// Returns the name of what stands at a path, for the notes.
    fn name_of(&self, path: &Path) -> String {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return "something".to_owned();
        };
        if meta.is_dir() {
            return "a directory".to_owned();
        }
        let id = hash_at(path).ok().and_then(|hash| self.known.id(&hash));
        id.unwrap_or_else(|| "something".to_owned())
    }
}

/// Returns the hash of a file or link.
pub(super) fn hash_at(path: &Path) -> Result<Hash> {
    let meta = fs::symlink_metadata(path).with_context(|| format!("Looking at {}", path.display()))?;
    if meta.is_symlink() {
        let text = fs::read_link(path).with_context(|| format!("Reading {}", path.display()))?;
        return Ok(known::hash_of_link(&text));
    }
    let bytes = fs::read(path).with_context(|| format!("Reading {}", path.display()))?;
    Ok(known::hash_of(&bytes))
}

fn open_file(path: &Path, write: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags)
        .open(path)
}

fn read_all(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("Reading a file")?;
    Ok(bytes)
}
