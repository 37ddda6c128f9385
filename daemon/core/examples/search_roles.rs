//! Checks random histories of roles until one fails; what `cargo test` does with a few, for as many as there is time for.
//!
//! `search_roles FROM COUNT` checks the histories of so many seeds from `FROM` on; several processes share a search by
//! ranges. `search_roles mistakes FROM COUNT` counts how often each mistake in the rules shows.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::process::ExitCode;

use roles::generate;
use roles::oracle::solve;
use roles::outcome::evaluated;
use roles::properties::{self, Check};
use roles::rule::Rule;
use roles::shrink::check_seed;

#[path = "../tests/roles"]
mod roles {
    pub(crate) mod generate;
    pub(crate) mod known;
    pub(crate) mod oracle;
    pub(crate) mod outcome;
    pub(crate) mod properties;
    pub(crate) mod rule;
    pub(crate) mod shrink;
    pub(crate) mod world;
}

const ALL: [(&str, Check); 6] = [
    ("equals the oracle", properties::equals_the_oracle),
    ("order of arrival", properties::order_of_arrival_does_not_matter),
    ("mutual removal", properties::no_two_revokes_end_each_other),
    ("what changes a status", properties::only_ends_change_what_was),
    (
        "escalation",
        properties::an_event_touches_only_what_its_author_may_touch,
    ),
    ("coalition", properties::revoked_devices_regain_nothing),
];

/// Seeds between two lines that say how far it is.
const PROGRESS_EVERY: u64 = 100_000;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mistakes = words.first().is_some_and(|word| word == "mistakes");
    if mistakes {
        words.remove(0);
    }
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let &[from, count] = numbers.as_slice() else {
        eprintln!("usage: search_roles [mistakes] FROM COUNT");
        return ExitCode::from(2);
    };
    if mistakes {
        count_mistakes(from, count);
        return ExitCode::SUCCESS;
    }
    match search(from, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn search(from: u64, count: u64) -> Result<(), String> {
    let mut checked = [0; ALL.len()];
    for seed in from..from + count {
        for (sum, (name, check)) in checked.iter_mut().zip(ALL) {
            *sum += check_seed(check, seed).map_err(|why| format!("{name}: {why}"))?;
        }
        if (seed + 1 - from).is_multiple_of(PROGRESS_EVERY) || seed + 1 == from + count {
            println!("{} histories from {from} hold", seed + 1 - from);
        }
    }
    for (sum, (name, _)) in checked.iter().zip(ALL) {
        println!("{name}: {sum} times something to check");
    }
    Ok(())
}

fn count_mistakes(from: u64, count: u64) {
    for rule in Rule::MISTAKES {
        let shows = |seed: &u64| {
            let world = generate::world(*seed);
            solve(&world, rule) != evaluated(&world).ok()
        };
        println!(
            "{rule:?}: {} of {count}",
            (from..from + count).filter(shows).count()
        );
    }
}
