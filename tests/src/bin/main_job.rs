//! Runs the main job at the size of real work and prints what each step took.

use std::process::ExitCode;

use clap::Parser;
use p2p_sync_tests::main_job::{self, Options};

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program's answer and its error"
)]
fn main() -> ExitCode {
    match main_job::run(&Options::parse(), &mut |line| println!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("main_job: {error:#}");
            ExitCode::FAILURE
        }
    }
}
