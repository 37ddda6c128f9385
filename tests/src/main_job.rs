//! The main job at the size of real work: three devices on loopback share a source tree and a large file, every kind of
//! change is made on one of them and must arrive on all, then two more devices join, one with the same files and one
//! with an old copy. What each step took is printed; only wrong results are failures.

mod changes;
mod joins;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{Binaries, Device, DeviceOptions, Group, SourceTree, Tree, fill_file, settle_within};

/// A guard; no step comes near it on a sane machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long nobody may make an event once all is done.
const QUIET: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "main_job",
    about = "Run three devices over a real source tree, then let two more join"
)]
pub struct Options {
    /// A source tree to copy in; by default one is made
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
    /// Files of the tree that is made
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub files: usize,
    /// Size of the large file in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub large: u64,
    /// Directory of the programs to run; by default those of the same build as this one
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Directory for the folders; the temporary directory by default
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

/// Runs everything and prints a line for each step.
///
/// # Errors
/// Fails at the first step whose result is wrong.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<()> {
    let below = options.work_dir.clone().unwrap_or_else(std::env::temp_dir);
    fs::create_dir_all(&below).with_context(|| format!("Making {}", below.display()))?;
    let binaries = match &options.bin_dir {
        Some(dir) => Binaries::in_dir(dir)?,
        None => Binaries::get()?.clone(),
    };
    let device_options = DeviceOptions {
        binaries: Some(binaries),
        below: Some(below),
        ..DeviceOptions::default()
    };
    let group = Group::with_options(3, &device_options)?;
    group.settle()?;
    let mut job = MainJob {
        group,
        device_options,
        say,
    };
    job.step("a source tree copied in on anna", |job| {
        job.copy_tree_in(options.tree.as_deref(), options.files)
    })?;
    job.step("a large file written on ben", |job| {
        fill_file(&job.group[1].path("large"), options.large << 20, 7)
    })?;
    changes::make_all(&mut job)?;
    job.check_quiet()?;
    joins::join_with_the_same_files(&mut job)?;
    joins::join_with_an_old_copy(&mut job)?;
    changes::delete_a_directory(&mut job)?;
    job.check_quiet()?;
    job.stop()
}

/// A run under way.
struct MainJob<'a> {
    group: Group,
    device_options: DeviceOptions,
    say: &'a mut dyn FnMut(&str),
}

impl MainJob<'_> {
    /// Makes a change and waits until it is everywhere; the trees must be equal, without conflict copies.
    fn step(&mut self, name: &str, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<Tree> {
        let began = Instant::now();
        change(self).with_context(|| name.to_owned())?;
        let made = began.elapsed();
        self.wait_in_sync(name)?;
        let everywhere = began.elapsed();
        let devices: Vec<&Device> = self.group.devices.iter().collect();
        let tree = settle_within(&devices, PATIENCE).with_context(|| name.to_owned())?;
        let copies = tree.conflict_copies();
        ensure!(
            copies.is_empty(),
            "{name}: there are conflict copies, first {:?}",
            copies.first()
        );
        (self.say)(&format!(
            "{name}: made in {:.1} s, on all devices after {:.1} s, {} entries equal",
            made.as_secs_f64(),
            everywhere.as_secs_f64(),
            tree.items.len(),
        ));
        Ok(tree)
    }

    /// Waits until all say that nothing is left and list the same; reading all bytes would take longer than many a
    /// change.
    fn wait_in_sync(&self, name: &str) -> Result<()> {
        crate::harness::wait_until(name, PATIENCE, || {
            let mut first: Option<Listing> = None;
            for device in &self.group.devices {
                let status = device.status()?;
                if !status.in_sync() {
                    return Ok(Err(format!("{} says {}", device.name, status.0)));
                }
                let mut listing = Listing::new();
                list(&device.folder(), &device.folder(), &mut listing)?;
                if *first.get_or_insert_with(|| listing.clone()) != listing {
                    return Ok(Err(format!("{} lists something else", device.name)));
                }
            }
            Ok(Ok(()))
        })
    }

    fn copy_tree_in(&self, tree: Option<&Path>, files: usize) -> Result<()> {
        let target = self.group[0].path("tree");
        match tree {
            Some(tree) => copy(tree, &target),
            None => {
                fs::create_dir(&target).context("Making the tree")?;
                SourceTree { seed: 5, files }.write_to(&target).map(drop)
            }
        }
    }

    /// Checks that nobody makes an event while nobody changes a file.
    fn check_quiet(&mut self) -> Result<()> {
        let count = |group: &Group| -> Result<Vec<Option<u64>>> {
            group
                .devices
                .iter()
                .map(|device| Ok(device.status()?.0["events"].as_u64()))
                .collect()
        };
        let before = count(&self.group)?;
        let end = Instant::now() + QUIET;
        crate::harness::wait_until("the quiet time to pass", PATIENCE, || {
            let now = count(&self.group)?;
            ensure!(
                now == before,
                "Somebody made events though nothing changed: {before:?}, {now:?}"
            );
            Ok(if Instant::now() >= end {
                Ok(())
            } else {
                Err("it is not over".to_owned())
            })
        })?;
        (self.say)(&format!("no event in {} s", QUIET.as_secs()));
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        let began = Instant::now();
        for device in &mut self.group.devices {
            device.stop()?;
        }
        (self.say)(&format!("all stopped in {:.1} s", began.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// Sizes and times by path.
type Listing = BTreeMap<PathBuf, (u64, i64, i64)>;

/// Lists what lies below a directory of a folder; what goes away meanwhile is left out.
fn list(folder: &Path, dir: &Path, listing: &mut Listing) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if entry.file_name() == ".p2p-sync" {
            continue;
        }
        let below = path
            .strip_prefix(folder)
            .context("A path below the folder")?
            .to_owned();
        if meta.is_dir() {
            listing.insert(below, (0, 0, 0));
            list(folder, &path, listing)?;
        } else {
            listing.insert(below, (meta.len(), meta.mtime(), meta.mtime_nsec()));
        }
    }
    Ok(())
}

/// Copies a tree with its times, modes and links, as a backup would.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["-a", "--"])
        .args([from, to])
        .status()
        .context("Running cp")?;
    ensure!(status.success(), "cp ended with {status}");
    Ok(())
}
