//! Commands that go on by themselves, and those that read what is typed.

use std::io::Write;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::{Ctl, Device};

impl Device {
    /// Starts `syncctl` with its output in a pipe, for a command that goes on by itself. The caller ends it, or the
    /// daemon's end does.
    ///
    /// # Errors
    /// Fails if the program cannot be started.
    pub fn spawn_ctl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Child> {
        let mut command = self.isolated(&self.binaries.syncctl);
        let command = command.arg("--socket").arg(self.socket()).args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("Starting syncctl")
    }

    /// Runs `syncctl` with this text on its standard input, which is no terminal, whatever comes of it.
    ///
    /// # Errors
    /// Fails only if the program cannot be run.
    pub fn ctl_with_input<'a>(&self, args: impl IntoIterator<Item = &'a str>, input: &str) -> Result<Ctl> {
        let mut command = self.isolated(&self.binaries.syncctl);
        let command = command.arg("--socket").arg(self.socket()).args(args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .context("Running syncctl")?;
        let mut stdin = child.stdin.take().context("The input is a pipe")?;
        stdin.write_all(input.as_bytes()).context("Typing")?;
        drop(stdin);
        Ok(Ctl::of(&child.wait_with_output().context("Running syncctl")?))
    }
}
