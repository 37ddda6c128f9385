//! Runs seeds of the simulation until one fails, and makes what failed smaller.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use p2p_sync_tests::sim::plan::{Draw, Plan, shrink};
use p2p_sync_tests::sim::trace::Sink;

#[path = "../../simulation"]
mod simulation {
    pub(crate) mod invariants;
}

use simulation::invariants;

/// Between two lines that say how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// The longest part of a failure that is printed; traces show more.
const REASON_MAX: usize = 600;

/// Run seeds of the simulation until one fails
#[derive(Debug, Parser)]
struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this plan (a file) instead of seeds
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Make the plan of this seed smaller for as long as it fails in the same way, and print it
    #[arg(long, value_name = "SEED")]
    shrink: Option<u64>,
    /// Print everything that happens in the seeds that are run
    #[arg(long)]
    trace: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    keep_going: bool,
    /// Run each seed twice and compare
    #[arg(long)]
    twice: bool,
    /// Threads that run seeds
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Restore databases from old copies, too
    #[arg(long)]
    restores: bool,
    /// Change roles, remove devices and let them in again, too
    #[arg(long)]
    roles: bool,
    /// Have two machines with one key, too
    #[arg(long)]
    twins: bool,
    /// Print the plan of the first seed, and run nothing
    #[arg(long)]
    show: bool,
}

impl Options {
    fn draw(&self, seed: u64) -> Plan {
        Draw {
            restores: self.restores,
            roles: self.roles,
            twins: self.twins,
        }
        .plan(seed)
    }

    const fn sink(&self) -> Sink {
        match (self.trace, self.twice) {
            (true, _) => Sink::Print,
            (false, true) => Sink::Hash,
            (false, false) => Sink::Drop,
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if !options.trace {
        panic::set_hook(Box::new(|_| {}));
    }
    let one = match (&options.plan, options.shrink) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(text.parse().map_err(anyhow::Error::msg)?)
        }
        (None, Some(seed)) => Some(options.draw(seed)),
        (None, None) => None,
    };
    if options.show {
        println!("{}", one.unwrap_or_else(|| options.draw(options.from)));
        return Ok(ExitCode::SUCCESS);
    }
    let failed = match one {
        Some(plan) if options.shrink.is_some() => make_smaller(plan),
        Some(plan) => run_one(&plan, &options),
        None => run_seeds(&options) > 0,
    };
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn run_one(plan: &Plan, options: &Options) -> bool {
    match run(plan, options.sink(), options.twice) {
        Ok(lines) => println!("holds, {lines} lines"),
        Err(reason) => {
            println!("{}", cut(&reason));
            return true;
        }
    }
    false
}

/// Runs seeds on some threads; returns how many failed.
fn run_seeds(options: &Options) -> u64 {
    let began = Instant::now();
    let (next, lines) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicU64::new(0);
    let said = Mutex::new(Instant::now());
    let work = || {
        while options.keep_going || failed.load(Ordering::Relaxed) == 0 {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= options.seeds {
                return;
            }
            let seed = options.from.saturating_add(index);
            match run(&options.draw(seed), options.sink(), options.twice) {
                Ok(length) => {
                    lines.fetch_add(length, Ordering::Relaxed);
                }
                Err(reason) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    println!("seed {seed}: {}\nsee `simulate --shrink {seed}`", cut(&reason));
                }
            }
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.elapsed() >= PROGRESS_INTERVAL {
                *said = Instant::now();
                eprintln!(
                    "{index} of {} seeds, {} failed, {:.0} a second",
                    options.seeds,
                    failed.load(Ordering::Relaxed),
                    index as f64 / began.elapsed().as_secs_f64()
                );
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    let ran = next.into_inner().min(options.seeds);
    println!(
        "{ran} seeds, {failed} failed, {} lines, {:.0} seeds a second",
        lines.into_inner(),
        ran as f64 / began.elapsed().as_secs_f64()
    );
    failed
}

/// Makes a plan that fails smaller, and prints it in the form in which it can be kept.
fn make_smaller(plan: Plan) -> bool {
    let Err(reason) = run(&plan, Sink::Drop, false) else {
        println!("This plan holds all invariants");
        return false;
    };
    let small = shrink(plan, |plan| {
        run(plan, Sink::Drop, false).is_err_and(|other| kind(&other) == kind(&reason))
    });
    let reason = run(&small, Sink::Drop, false).err().unwrap_or_default();
    println!("# {}\n{small}", cut(&reason).replace('\n', " "));
    eprintln!(
        "Keep it as a file in tests/simulation/kept/, with what it showed in its first line; see all that happens with \
         simulate --plan FILE --trace"
    );
    true
}

/// Runs one plan; a panic is a failure like any other. Returns the length of its trace.
fn run(plan: &Plan, sink: Sink, twice: bool) -> Result<u64, String> {
    let once = || {
        let world = invariants::run(plan.clone(), sink)?;
        Ok((world.trace().hash(), world.trace().lines()))
    };
    let safely =
        || panic::catch_unwind(AssertUnwindSafe(once)).unwrap_or_else(|cause| Err(words_of(&*cause)));
    let (hash, lines) = safely()?;
    if twice && safely()?.0 != hash {
        return Err("repeat: the second run differs from the first".to_owned());
    }
    Ok(lines)
}

/// Says which property a failure is about.
fn kind(reason: &str) -> &str {
    reason.split([':', '[']).next().unwrap_or_default()
}

fn cut(reason: &str) -> String {
    reason.chars().take(REASON_MAX).collect()
}

fn words_of(cause: &dyn Any) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panic: {}", text.unwrap_or_default())
}
