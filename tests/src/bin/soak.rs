//! Kills daemons while users work, and checks that nothing is lost.

use std::process::ExitCode;

use clap::Parser;
use p2p_sync_tests::soak::{self, Options};

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program's answer and its error"
)]
fn main() -> ExitCode {
    match soak::run(&Options::parse(), &mut |line| println!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}
