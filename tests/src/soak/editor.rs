//! Two users who save the same file again and again, each with another way of saving, while installs of the other's
//! saves replace it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::checks;
use super::known::{self, Known};
use crate::harness::{Group, Random};

/// The file that both save.
const FILE: &str = "notes/plan.txt";
/// Longest pauses between two saves: a program that saves all the time, and a person.
const PAUSES: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(120)];
/// Saves go on for this long before the group settles and all is checked.
const STRETCH: Duration = Duration::from_secs(40);
/// Size to which appending lets the file grow.
const APPENDED_MOST: usize = 64 << 10;
/// Size of one save.
const SAVE_MOST: u64 = 6_000;

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    in_place: AtomicU64,
    by_rename: AtomicU64,
    appended: AtomicU64,
    /// Saves that found what the other user had saved, so an install had come between.
    found_foreign: AtomicU64,
}

/// Lets both save for a time.
pub(super) fn race(
    group: &mut Group,
    known: &Known,
    seed: u64,
    time: Duration,
    quiet: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let counts = Counts::default();
    let mut editors = Vec::new();
    for (number, device) in group.devices.iter().take(PAUSES.len()).enumerate() {
        editors.push(Editor::new(
            number,
            &device.name,
            &device.folder(),
            known,
            &counts,
            seed,
        )?);
    }
    let began = Instant::now();
    while began.elapsed() < time {
        known.begin();
        thread::scope(|scope| {
            let threads: Vec<_> = editors
                .iter_mut()
                .map(|editor| scope.spawn(|| editor.work()))
                .collect();
            known.pause(STRETCH.min(time));
            known.end();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("An editor panicked"))?)
        })?;
        let counted = checks::check(group, known, quiet)?;
        say(&format!(
            "{:.0} s: {counts:?}, {counted:?}",
            began.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

#[derive(Debug)]
struct Editor<'k> {
    number: usize,
    name: String,
    file: PathBuf,
    new: PathBuf,
    known: &'k Known,
    counts: &'k Counts,
    random: Random,
    count: u64,
}

impl<'k> Editor<'k> {
    fn new(
        number: usize,
        name: &str,
        folder: &Path,
        known: &'k Known,
        counts: &'k Counts,
        seed: u64,
    ) -> Result<Self> {
        let new = folder.with_file_name("beside").join("new");
        fs::create_dir_all(&new).context("Making a directory beside the folder")?;
        Ok(Self {
            number,
            name: name.to_owned(),
            file: folder.join(FILE),
            new,
            known,
            counts,
            random: Random::new(seed + number as u64),
            count: 0,
        })
    }

    fn work(&mut self) -> Result<()> {
        let longest = PAUSES[self.number].as_millis() as u64;
        loop {
            let parent = self.file.parent().context("A file lies in a directory")?;
            fs::create_dir_all(parent).context("Making the file's directory")?;
            match self.random.below(3) {
                0 => self.save_in_place(false),
                1 => self.save_in_place(true),
                _ => self.save_by_rename(),
            }
            .with_context(|| format!("The editor of {}", self.name))?;
            if self
                .known
                .pause(Duration::from_millis(self.random.below(longest)))
            {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> (String, Vec<u8>) {
        self.count += 1;
        let id = format!("d{}-{}", self.number, self.count);
        let size = self.random.below(SAVE_MOST) as usize;
        let bytes = known::make(&id, size, &mut self.random);
        (id, bytes)
    }

    /// Reads and writes through one descriptor, as an editor that keeps the file open. An install may take the file
    /// away in between; what is written then must be found too.
    fn save_in_place(&mut self, append: bool) -> Result<()> {
        let Ok(mut file) = OpenOptions::new().read(true).write(true).open(&self.file) else {
            return self.save_by_rename();
        };
        let mut before = Vec::new();
        file.read_to_end(&mut before).context("Reading the file")?;
        let append = append && before.len() < APPENDED_MOST;
        let (id, more) = self.next();
        let after = if append {
            [before.as_slice(), &more].concat()
        } else {
            more.clone()
        };
        let hash = known::hash_of(&after);
        self.known.enter(hash, &id);
        self.known.allow_parts(&hash);
        if append {
            file.write_all(&more).context("Appending")?;
            self.counts.appended.fetch_add(1, Ordering::Relaxed);
        } else {
            file.seek(SeekFrom::Start(0)).context("Seeking")?;
            file.set_len(0).context("Truncating")?;
            file.write_all(&more).context("Writing")?;
            self.counts.in_place.fetch_add(1, Ordering::Relaxed);
        }
        self.took(&before, &id, if append { "appends" } else { "writes in place" });
        Ok(())
    }

    fn save_by_rename(&mut self) -> Result<()> {
        let (id, bytes) = self.next();
        let new = self.new.join(&id);
        File::create(&new)
            .and_then(|mut file| file.write_all(&bytes))
            .context("Writing beside the folder")?;
        self.known.enter(known::hash_of(&bytes), &id);
        loop {
            match renameat_with(CWD, &new, CWD, &self.file, RenameFlags::EXCHANGE) {
                Ok(()) => break,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).context("Exchanging the file"),
            }
            if renameat_with(CWD, &new, CWD, &self.file, RenameFlags::NOREPLACE).is_ok() {
                self.counts.by_rename.fetch_add(1, Ordering::Relaxed);
                self.known
                    .note(&self.name, &format!("saves {id}, where nothing was"));
                return Ok(());
            }
        }
        self.counts.by_rename.fetch_add(1, Ordering::Relaxed);
        let before = fs::read(&new).context("Reading what was replaced")?;
        fs::remove_file(&new).context("Removing what was replaced")?;
        self.took(&before, &id, "saves by rename");
        Ok(())
    }

    fn took(&self, before: &[u8], id: &str, how: &str) {
        let out = self.known.take(&known::hash_of(before), &self.name);
        if out
            .as_ref()
            .is_some_and(|out| !out.starts_with(&format!("d{}-", self.number)))
        {
            self.counts.found_foreign.fetch_add(1, Ordering::Relaxed);
        }
        let out = out.unwrap_or_else(|| known::describe(before));
        self.known
            .note(&self.name, &format!("{how} {id}, replacing {out}"));
    }
}
