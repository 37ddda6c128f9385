//! The benchmark: the same work for p2p-sync and for what a user would pick instead, two ends on loopback, each from a
//! cold start. Ratios between the rows of one run mean something; absolute figures move with the machine.

mod contender;
mod p2p_sync;
mod report;
mod rsync;
mod syncthing;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    Binaries, Random, SourceTree, Tree, Written, count_entries, fill_file, wait_closely, wait_until,
};
use contender::Contender;
pub use report::{Report, Row};

/// What to measure.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "bench", about = "Measure p2p-sync on loopback")]
pub struct Options {
    /// Do less: 1 GiB, 20 000 files, 20 rounds, instead of 4 GiB, 50 000 files, 200 rounds
    #[arg(long)]
    pub quick: bool,
    /// Measure only this; can be given more than once. `tiny` is measured only if it is given
    #[arg(long, value_enum, value_name = "WORK")]
    pub work: Vec<Work>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Measure p2p-sync once more, where the first folder is that of an editor of four paths whose role has changed 100
    /// times, and the other folder the founder's
    #[arg(long)]
    pub with_roles: bool,
    /// Measure Syncthing too (`syncthing` in PATH)
    #[arg(long)]
    pub with_syncthing: bool,
    /// Measure rsync with its daemon too (`rsync` in PATH)
    #[arg(long)]
    pub with_rsync: bool,
    /// Directory of the programs to measure; by default those of the same build as this one
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Directory for the folders, which decides on which disk they are; the temporary directory by default
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// One large file
    Large,
    /// A source tree
    Tree,
    /// Small files one after the other
    Latency,
    /// A million files of a few bytes (`--quick`: 100 000)
    Tiny,
}

/// A guard; no piece of work comes near it on a sane machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same for a million files.
const LONG_PATIENCE: Duration = Duration::from_secs(3_600);
/// Files in one directory of tiny ones.
const TINY_IN_DIR: usize = 1_000;

/// The amount of work.
#[derive(Debug, Clone, Copy)]
struct Scale {
    large_bytes: u64,
    tree_files: usize,
    rounds: usize,
    tiny_dirs: usize,
}

const FULL: Scale = Scale {
    large_bytes: 4 << 30,
    tree_files: 50_000,
    rounds: 200,
    tiny_dirs: 1_000,
};
const QUICK: Scale = Scale {
    large_bytes: 1 << 30,
    tree_files: 20_000,
    rounds: 20,
    tiny_dirs: 100,
};

/// Runs the benchmark.
///
/// # Errors
/// Fails if a program cannot be started, does not do its work, or does it wrongly: all trees are compared.
pub fn run(options: &Options) -> Result<Report> {
    let scale = if options.quick { QUICK } else { FULL };
    let below = options.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut rows = Vec::new();
    let binaries = match &options.bin_dir {
        Some(dir) => Binaries::in_dir(dir)?,
        None => Binaries::get()?.clone(),
    };
    measure(
        &mut p2p_sync::start(&binaries, &below)?,
        scale,
        options,
        &mut rows,
    )
    .context("p2p-sync")?;
    if options.with_roles {
        let mut group = p2p_sync::start_with_roles(&binaries, &below)?;
        measure(&mut group, scale, options, &mut rows).context("p2p-sync with roles")?;
    }
    if options.with_syncthing {
        measure(&mut syncthing::start(&below)?, scale, options, &mut rows).context("Syncthing")?;
    }
    if options.with_rsync {
        measure(&mut rsync::start(&below)?, scale, options, &mut rows).context("rsync")?;
    }
    Ok(Report { rows })
}

fn measure(
    contender: &mut impl Contender,
    scale: Scale,
    options: &Options,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let wanted = |work| options.work.is_empty() || options.work.contains(&work);
    let folders = contender.folders();
    if wanted(Work::Large) {
        rows.push(large_file(contender, &folders, scale)?);
    }
    if wanted(Work::Tree) {
        rows.push(small_files(contender, &folders, scale)?);
    }
    if wanted(Work::Latency) && contender.is_continuous() {
        rows.push(latency(contender, &folders, scale)?);
    }
    if options.work.contains(&Work::Tiny) {
        rows.push(tiny_files(contender, &folders, scale)?);
    }
    Ok(())
}

/// A large file appears by rename in the first folder, until it is whole in the second.
fn large_file(contender: &mut impl Contender, folders: &[PathBuf; 2], scale: Scale) -> Result<Row> {
    let staged = contender.staging().join("large");
    fill_file(&staged, scale.large_bytes, 1)?;
    let target = folders[1].join("large.bin");
    let timed = timed(contender, |contender| {
        fs::rename(&staged, folders[0].join("large.bin")).context("Moving the large file in")?;
        contender.push()?;
        wait_until("the large file", PATIENCE, || {
            let done = fs::metadata(&target).is_ok_and(|meta| meta.len() == scale.large_bytes);
            Ok(if done {
                Ok(())
            } else {
                Err("it is not whole".to_owned())
            })
        })
    })?;
    verify(folders)?;
    Ok(timed.row(contender.name(), "large file", scale.large_bytes, 1))
}

/// A source tree appears by rename in the first folder, until all its files are in the second.
fn small_files(contender: &mut impl Contender, folders: &[PathBuf; 2], scale: Scale) -> Result<Row> {
    let staged = contender.staging().join("tree");
    fs::create_dir(&staged).context("Making the staged tree")?;
    let written: Written = SourceTree {
        seed: 2,
        files: scale.tree_files,
    }
    .write_to(&staged)?;
    let target = folders[1].join("tree");
    let entries = written.files + written.dirs + written.links;
    let timed = timed(contender, |contender| {
        fs::rename(&staged, folders[0].join("tree")).context("Moving the tree in")?;
        contender.push()?;
        wait_until("the tree", PATIENCE, || {
            let there = count_entries(&target);
            Ok(if there >= entries {
                Ok(())
            } else {
                Err(format!("{there} of {entries}"))
            })
        })
    })?;
    // Programs that set times after the rename may still be at it.
    wait_until("equal trees", PATIENCE, || {
        Ok(verify(folders).map_err(|error| error.to_string()))
    })?;
    Ok(timed.row(contender.name(), "source tree", written.bytes, written.files))
}

/// Directories full of files of a few bytes appear by rename in the first folder, until all are in the second.
fn tiny_files(contender: &mut impl Contender, folders: &[PathBuf; 2], scale: Scale) -> Result<Row> {
    let staged = contender.staging().join("tiny");
    let mut bytes = 0;
    for dir in 0..scale.tiny_dirs {
        let dir = staged.join(dir.to_string());
        fs::create_dir_all(&dir).context("Making a directory of tiny files")?;
        for number in 0..TINY_IN_DIR {
            let text = dir.join(number.to_string()).display().to_string();
            bytes += text.len() as u64;
            fs::write(dir.join(number.to_string()), text).context("Writing a tiny file")?;
        }
    }
    let target = folders[1].join("tiny");
    let timed = timed(contender, |contender| {
        fs::rename(&staged, folders[0].join("tiny")).context("Moving the tiny files in")?;
        contender.push()?;
        let mut whole = 0;
        wait_until("the tiny files", LONG_PATIENCE, || {
            while whole < scale.tiny_dirs && count_entries(&target.join(whole.to_string())) >= TINY_IN_DIR {
                whole += 1;
            }
            Ok(if whole == scale.tiny_dirs {
                Ok(())
            } else {
                Err(format!("{whole} of {} directories", scale.tiny_dirs))
            })
        })
    })?;
    wait_until("equal trees", LONG_PATIENCE, || {
        Ok(verify(folders).map_err(|error| error.to_string()))
    })?;
    let files = scale.tiny_dirs * TINY_IN_DIR;
    Ok(timed.row(contender.name(), "tiny files", bytes, files))
}

/// Creates small files one after the other and measures when each is visible on the other side.
fn latency(contender: &mut impl Contender, folders: &[PathBuf; 2], scale: Scale) -> Result<Row> {
    let mut times = Vec::new();
    let mut random = Random::new(3);
    let dirs = folders.each_ref().map(|folder| folder.join("notes"));
    fs::create_dir(&dirs[0]).context("Making the directory of the notes")?;
    wait_until("the directory of the notes", PATIENCE, || {
        Ok(if dirs[1].is_dir() {
            Ok(())
        } else {
            Err("it is not there".to_owned())
        })
    })?;
    let timed = timed(contender, |_| {
        for round in 0..scale.rounds {
            let mut bytes = [0; 1024];
            random.fill(&mut bytes);
            let name = format!("note-{round}");
            let target = dirs[1].join(&name);
            pause(&mut random)?;
            let began = Instant::now();
            fs::write(dirs[0].join(&name), bytes).context("Writing a note")?;
            wait_closely("a note", PATIENCE, || {
                Ok(fs::metadata(&target).is_ok_and(|meta| meta.len() == bytes.len() as u64))
            })?;
            times.push(began.elapsed());
        }
        Ok(())
    })?;
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let mut row = timed.row(
        contender.name(),
        "create to visible",
        scale.rounds as u64 * 1024,
        scale.rounds,
    );
    (row.latency_p50, row.latency_p95) = (Some(at(50)), Some(at(95)));
    Ok(row)
}

/// Lets a moment pass that has nothing to do with what the programs do at intervals: people do not save a file at the
/// instant at which the last one arrived.
fn pause(random: &mut Random) -> Result<()> {
    let mut byte = [0; 1];
    random.fill(&mut byte);
    let over = Instant::now() + Duration::from_millis(200 + u64::from(byte[0]));
    wait_closely("a moment", PATIENCE, || Ok(Instant::now() >= over))
}

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
struct Timed {
    wall: Duration,
    cpu: Duration,
    rss_peak_bytes: u64,
}

fn timed<C: Contender>(contender: &mut C, work: impl FnOnce(&mut C) -> Result<()>) -> Result<Timed> {
    let before = contender.usage()?;
    let began = Instant::now();
    work(contender)?;
    let wall = began.elapsed();
    let after = contender.usage()?;
    Ok(Timed {
        wall,
        cpu: after.cpu.saturating_sub(before.cpu),
        rss_peak_bytes: after.rss_peak_bytes,
    })
}

impl Timed {
    fn row(&self, program: &str, work: &str, bytes: u64, files: usize) -> Row {
        Row {
            program: program.to_owned(),
            work: work.to_owned(),
            bytes,
            files,
            wall: self.wall,
            cpu: self.cpu,
            rss_peak_bytes: self.rss_peak_bytes,
            latency_p50: None,
            latency_p95: None,
        }
    }
}

/// Checks that both folders hold the same, apart from what other programs leave at the top for themselves.
fn verify(folders: &[PathBuf; 2]) -> Result<()> {
    let [mut first, mut second] = [Tree::read(&folders[0])?, Tree::read(&folders[1])?];
    for tree in [&mut first, &mut second] {
        tree.items.retain(|path, _| !path.starts_with(".stfolder"));
    }
    let differences = first.differences(&second);
    ensure!(
        differences.is_empty(),
        "{} differences, first {:?}",
        differences.len(),
        differences.first()
    );
    Ok(())
}
