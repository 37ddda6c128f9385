//! Measures p2p-sync on this machine, beside Syncthing and rsync where they are installed.

use std::process::ExitCode;

use clap::Parser;
use p2p_sync_tests::bench::{self, Options};

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program's answer and its error"
)]
fn main() -> ExitCode {
    let options = Options::parse();
    match bench::run(&options) {
        Ok(report) => {
            print!(
                "{}",
                if options.json {
                    report.to_json()
                } else {
                    report.to_table()
                }
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
