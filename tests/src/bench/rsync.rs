//! rsync, pushing to its own daemon without encryption.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::contender::{Contender, sum};
use crate::harness::{Usage, free_port, wait_until};

/// An rsync daemon that serves the second folder.
pub(crate) struct Rsync {
    home: TempDir,
    port: u16,
    daemon: Child,
    /// What this process's children had used before.
    before: Usage,
}

/// Starts the daemon.
pub(crate) fn start(below: &Path) -> Result<Rsync> {
    let home = TempDir::new_in(below).context("Making a directory")?;
    for dir in ["a", "b"] {
        fs::create_dir(home.path().join(dir)).context("Making a directory")?;
    }
    let config = home.path().join("rsyncd.conf");
    let target = home.path().join("b");
    // Started by root, the daemon would write as nobody.
    let user = if rustix::process::geteuid().is_root() {
        "uid = 0\ngid = 0\n"
    } else {
        ""
    };
    let text = format!(
        "use chroot = no\nmunge symlinks = no\n{user}[b]\npath = {}\nread only = no\n",
        target.display()
    );
    fs::write(&config, text).context("Writing rsync's configuration")?;
    let port = free_port()?;
    let daemon = Command::new("rsync")
        .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
        .args([format!("--port={port}"), format!("--config={}", config.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("Starting rsync; is it installed?")?;
    let rsync = Rsync {
        home,
        port,
        daemon,
        before: Usage::of(std::process::id())?,
    };
    wait_until("rsync to listen", Duration::from_secs(20), || {
        Ok(TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string()))
    })?;
    Ok(rsync)
}

impl Contender for Rsync {
    fn name(&self) -> &'static str {
        "rsync daemon"
    }

    fn folders(&self) -> [PathBuf; 2] {
        ["a", "b"].map(|name| self.home.path().join(name))
    }

    fn staging(&self) -> &Path {
        self.home.path()
    }

    fn usage(&self) -> Result<Usage> {
        let here = Usage::of(std::process::id())?;
        let clients = Usage {
            cpu_children: here.cpu_children.saturating_sub(self.before.cpu_children),
            ..Usage::default()
        };
        Ok(sum(&[Usage::of(self.daemon.id())?, clients]))
    }

    fn is_continuous(&self) -> bool {
        false
    }

    fn push(&mut self) -> Result<()> {
        let source = format!("{}/", self.home.path().join("a").display());
        let target = format!("rsync://127.0.0.1:{}/b/", self.port);
        let status = Command::new("rsync")
            .args(["-a", &source, &target])
            .status()
            .context("Running rsync")?;
        ensure!(status.success(), "rsync ended with {status}");
        Ok(())
    }
}

impl Drop for Rsync {
    fn drop(&mut self) {
        // Either fails only if the process is gone, which is what is wanted.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
