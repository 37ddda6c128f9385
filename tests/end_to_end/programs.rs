//! Programs that people use, on two devices at once, while both daemons run. A test of a program that is not installed
//! says so and is skipped.

mod build;
mod git;
mod packages;
mod sqlite;
mod vim;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Says whether programs can be run.
fn installed(programs: &[&str]) -> bool {
    let runs = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    programs.iter().all(runs)
}

/// Runs a program in a directory; it must succeed. Returns what it printed.
fn run(dir: &Path, program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .with_context(|| format!("Running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {args:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
