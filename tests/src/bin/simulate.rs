//! Runs seeds of the simulation until one fails.

#![allow(clippy::print_stdout, reason = "a command-line tool")]

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::Parser;
use p2p_sync_tests::sim::trace::Sink;

#[path = "../../simulation"]
mod simulation {
    pub(crate) mod invariants;
}

use simulation::invariants;

/// Run seeds of the simulation until one fails
#[derive(Debug, Parser)]
struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Print everything that happens in the seeds that are run
    #[arg(long)]
    trace: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    keep_going: bool,
    /// Run each seed twice and compare
    #[arg(long)]
    twice: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.trace {
        panic::set_hook(Box::new(|_| {}));
    }
    let sink = if options.trace { Sink::Print } else { Sink::Drop };
    let mut failed = 0;
    let mut lines = 0;
    for seed in options.from..options.from.saturating_add(options.seeds) {
        match run(seed, sink, options.twice) {
            Ok(length) => lines += length,
            Err(reason) => {
                failed += 1;
                println!("seed {seed}: {reason}");
                if !options.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    println!("{} seeds, {failed} failed, {lines} lines", options.seeds);
    if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs one seed; a panic is a failure like any other. Returns the length of its trace.
fn run(seed: u64, sink: Sink, twice: bool) -> Result<u64, String> {
    let once = || {
        let world = invariants::run(seed, sink)?;
        Ok((world.trace().hash(), world.trace().lines()))
    };
    let safely =
        || panic::catch_unwind(AssertUnwindSafe(once)).unwrap_or_else(|cause| Err(words_of(&*cause)));
    let (hash, lines) = safely()?;
    if twice && safely()?.0 != hash {
        return Err("the second run differs from the first".to_owned());
    }
    Ok(lines)
}

fn words_of(cause: &dyn Any) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panic: {}", text.unwrap_or_default())
}
