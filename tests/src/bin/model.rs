//! Looks at all states of the lock protocol in groups that are too large for every change.

#![allow(clippy::print_stdout, reason = "a command-line tool")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use p2p_sync_tests::model::locks::{Mistake, Outcome, cases};

/// Look at all states of the lock protocol
#[derive(Debug, Parser)]
struct Options {
    /// Only the cases whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// The small cases instead, which the tests look at, and each mistake
    #[arg(long)]
    small: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (cases, mistakes) = if options.small {
        (cases::small(), Mistake::ALL.to_vec())
    } else {
        (cases::large(), Vec::new())
    };
    let mut good = true;
    for (name, model) in cases.into_iter().filter(|(name, _)| name.contains(&options.only)) {
        let (begun, outcome) = (Instant::now(), Outcome::of(model));
        let holds = outcome.broken.is_empty() && outcome.impossible.is_empty();
        good &= holds;
        let seconds = begun.elapsed().as_secs_f32();
        println!("{name}: {outcome:?} in {seconds:.1} s");
    }
    for mistake in mistakes {
        let (begun, outcome) = (Instant::now(), Outcome::of(cases::wrong(mistake)));
        good &= !outcome.broken.is_empty();
        let seconds = begun.elapsed().as_secs_f32();
        println!("{mistake:?}: {outcome:?} in {seconds:.1} s");
    }
    ExitCode::from(u8::from(!good))
}
