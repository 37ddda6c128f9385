//! Commands that go on by themselves.

use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::Device;

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
}
