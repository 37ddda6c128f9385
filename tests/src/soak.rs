//! Users at work while their daemons are killed: what was written must be found at the end.
//!
//! Each device has a user, a thread that makes, saves, moves and removes files in the folder with plain file
//! operations, and knows each content that it took away. Meanwhile the daemons are killed, stopped and held. Then all
//! run again, the group settles, and every content that anybody ever wrote must be in the folder, in a conflict copy,
//! among the kept versions of some device, or have been taken away by a user who saw it. Nothing is looked at but
//! folders, processes, and what `syncctl` prints.
//!
//! A seed decides what users and faults do, but not when the daemons do their part: it repeats a run only roughly.

mod checks;
mod editor;
mod faults;
mod known;
mod user;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};

pub use checks::Counted;
pub use faults::Faults;
use known::Known;
use user::User;

use crate::harness::{Binaries, DeviceOptions, Group, Random};

/// What lies beside each folder and must stay as it is.
const CANARY: &[u8] = b"not in the folder";

/// What to run.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "soak",
    about = "Kill daemons while users work, and look for lost bytes"
)]
pub struct Options {
    /// What users and faults do follows from this
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Runs, each with the next seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// Devices
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=4))]
    pub devices: u64,
    /// Times that the users pause, the group settles, and all is checked
    #[arg(long, value_name = "R", default_value_t = 3)]
    pub rounds: u64,
    /// Kills in each round
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub kills: u64,
    /// Seconds for which nobody may make an event at the end of a round
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub quiet: u64,
    /// Instead of rounds: let two users save the same file again and again for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub editor_race: Option<u64>,
    /// Directory of the programs to run; by default those of the same build as this one
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Directory for the folders; the temporary directory by default
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

/// Runs all seeds and prints a line for each round.
///
/// # Errors
/// Fails at the first check that does not hold; the folders, logs and notes stay, and the error says where.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<()> {
    for seed in options.seed..options.seed + options.seeds {
        run_seed(options, seed, say).with_context(|| format!("Seed {seed}"))?;
    }
    Ok(())
}

fn run_seed(options: &Options, seed: u64, say: &mut dyn FnMut(&str)) -> Result<()> {
    let mut group = Group::with_options(options.devices as usize, &device_options(options)?)?;
    let known = Known::new();
    let mut faults = Faults::default();
    let result = rounds(options, seed, &mut group, &known, &mut faults, say);
    result.map_err(|error| keep(error, &mut group, &known))
}

fn device_options(options: &Options) -> Result<DeviceOptions> {
    let binaries = match &options.bin_dir {
        Some(dir) => Some(Binaries::in_dir(dir)?),
        None => None,
    };
    Ok(DeviceOptions {
        binaries,
        below: options.work_dir.clone(),
        log: Some("info,p2p_sync_daemon=debug,p2p_sync_core=debug".to_owned()),
        ..DeviceOptions::default()
    })
}

fn rounds(
    options: &Options,
    seed: u64,
    group: &mut Group,
    known: &Known,
    faults: &mut Faults,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let quiet = Duration::from_secs(options.quiet);
    let mut random = Random::new(seed);
    let mut users = Vec::new();
    for (number, device) in group.devices.iter().enumerate() {
        users.push(User::new(number, &device.name, &device.folder(), known, seed)?);
        let canary = device.folder().with_file_name("beside").join("canary/canary");
        fs::write(&canary, CANARY).context("Writing a canary")?;
    }
    if let Some(seconds) = options.editor_race {
        editor::race(group, known, seed, Duration::from_secs(seconds), quiet, say)?;
        return checks::check_restart(group, quiet);
    }
    for round in 1..=options.rounds {
        one_round(group, &mut users, known, &mut random, options.kills, faults)?;
        let counted = checks::check(group, known, quiet)?;
        let (operations, written) = known.counts();
        say(&format!(
            "seed {seed}, round {round}: {operations} operations, {written} contents, {faults:?}, {counted:?}"
        ));
    }
    checks::check_restart(group, quiet)
}

/// Lets the users work until all kills of the round are done.
fn one_round(
    group: &mut Group,
    users: &mut [User<'_>],
    known: &Known,
    random: &mut Random,
    kills: u64,
    faults: &mut Faults,
) -> Result<()> {
    known.begin();
    thread::scope(|scope| {
        let threads: Vec<_> = users.iter_mut().map(|user| scope.spawn(|| user.work())).collect();
        let injected = faults::inject(group, known, random, kills, faults);
        known.end();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("A user's thread panicked"))??;
        }
        injected
    })
}

/// Keeps everything for somebody to look at, and says where.
fn keep(error: Error, group: &mut Group, known: &Known) -> Error {
    let homes: Vec<PathBuf> = group.devices.iter_mut().map(|device| device.keep()).collect();
    let notes = homes.first().map(|home| home.join("notes"));
    let written = notes.as_ref().map(|path| fs::write(path, known.lines()));
    let homes: Vec<String> = homes.iter().map(|home| shown(home)).collect();
    let notes = match (notes, written) {
        (Some(path), Some(Ok(()))) => shown(&path),
        _ => "not written".to_owned(),
    };
    error.context(format!("Kept: {}; all operations: {notes}", homes.join(", ")))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
