//! One device: a daemon process, its directories, and `syncctl` beside it.

mod follow;
mod limits;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Binaries, PATIENCE, Status, Tree, Usage, wait_until};

/// How long a daemon may take to stop after SIGTERM.
const STOP_MOST: Duration = Duration::from_secs(5);
/// Lines of a daemon's log that an error shows.
const LOG_TAIL: usize = 40;
/// Ports are taken from here to below the kernel's own range for outgoing connections, so that a daemon that is started
/// again finds its port free.
const PORT_FIRST: u32 = 23_000;
/// Number of ports to choose from.
const PORTS: u32 = 9_000;

/// How a device is set up.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// Programs other than those of the running test.
    pub binaries: Option<Binaries>,
    /// Where its directories are made; the system's temporary directory by default.
    pub below: Option<PathBuf>,
    /// The value of `RUST_LOG`.
    pub log: Option<String>,
    /// Further arguments for the daemon.
    pub args: Vec<String>,
    /// A program with its arguments that becomes the daemon, whose command line follows (it keeps the process id).
    pub wrapper: Vec<String>,
}

/// A device of the folder. Dropping it kills its daemon and removes its directories.
#[derive(Debug)]
pub struct Device {
    /// Its name, also as its peers see it.
    pub name: String,
    binaries: Binaries,
    home: TempDir,
    port: u16,
    args: Vec<String>,
    wrapper: Vec<String>,
    log: Option<String>,
    daemon: Option<Child>,
}

/// What `syncctl` did.
#[derive(Debug, Clone)]
pub struct Ctl {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ctl {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Device {
    /// Makes a device's directories; its daemon is not started.
    ///
    /// # Errors
    /// Fails if the programs cannot be built or a directory cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_options(name, DeviceOptions::default())
    }

    /// Makes a device as [`Device::new`] does, with options.
    ///
    /// # Errors
    /// As [`Device::new`].
    pub fn with_options(name: &str, options: DeviceOptions) -> Result<Self> {
        let binaries = match options.binaries {
            Some(binaries) => binaries,
            None => Binaries::get()?.clone(),
        };
        // Short, since a socket's path has at most 107 bytes.
        let below = options.below.unwrap_or_else(std::env::temp_dir);
        let home = tempfile::Builder::new()
            .prefix("p2p-")
            .tempdir_in(below)
            .context("Making a device's directory")?;
        for dir in ["folder", "state", "home"] {
            fs::create_dir(home.path().join(dir)).context("Making a device's directory")?;
        }
        let (args, wrapper, log) = (options.args, options.wrapper, options.log);
        Ok(Self {
            name: name.to_owned(),
            binaries,
            home,
            port: free_port()?,
            args,
            wrapper,
            log,
            daemon: None,
        })
    }

    /// Makes a device and starts its daemon.
    ///
    /// # Errors
    /// As [`Device::new`] and [`Device::start`].
    pub fn started(name: &str) -> Result<Self> {
        let mut device = Self::new(name)?;
        device.start()?;
        Ok(device)
    }

    /// Returns the synchronised folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.home.path().join("folder")
    }

    /// Returns the path of something in the folder.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder().join(below)
    }

    /// Returns the state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Returns the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    /// Returns the address at which the daemon listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.port)
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// Fails if it ends or does not answer in time; the error shows the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// Starts the daemon as [`Device::start`] does, with further arguments for this start only.
    ///
    /// # Errors
    /// As [`Device::start`].
    pub fn start_with(&mut self, args: &[&str]) -> Result<()> {
        self.launch_with(args)?;
        self.wait_answering()
    }

    /// Starts the daemon and does not wait for it.
    ///
    /// # Errors
    /// Fails if it is running or cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        self.launch_with(&[])
    }

    fn launch_with(&mut self, args: &[&str]) -> Result<()> {
        if self.daemon.is_some() {
            bail!("{} is running", self.name);
        }
        let mut command = self.daemon_command(&self.address())?;
        command.args(args);
        self.daemon = Some(command.spawn().context("Starting the daemon")?);
        Ok(())
    }

    /// Waits until the daemon that was launched answers.
    ///
    /// # Errors
    /// Fails if it ends or does not answer in time; the error shows the end of its log.
    pub fn wait_answering(&mut self) -> Result<()> {
        self.wait("its daemon to answer", PATIENCE, |device| {
            device.check_running()?;
            let ctl = device.ctl(["status", "--json"])?;
            Ok(if ctl.code == Some(0) {
                Ok(())
            } else {
                Err(ctl.stderr)
            })
        })
    }

    /// Checks that a daemon that was started has not ended by itself.
    ///
    /// # Errors
    /// Fails with how it ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended()? {
            Some(status) => bail!("{}: the daemon ended with {status}{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// Holds the daemon (SIGSTOP), as a machine that sleeps or a network that is cut; the kernel keeps its connections.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn hold(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a daemon that was held go on (SIGCONT).
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn let_go(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.daemon.as_ref();
        let child = child.with_context(|| format!("{} is not running", self.name))?;
        kill_process(Pid::from_child(child), signal).context("Sending a signal")
    }

    /// Keeps its directories when it is dropped, for somebody to look at; returns where they are.
    pub fn keep(&mut self) -> PathBuf {
        self.home.disable_cleanup(true);
        self.home.path().to_owned()
    }

    /// Stops the daemon as a service manager does, by SIGTERM.
    ///
    /// # Errors
    /// Fails if it does not end within five seconds with success.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.stop_with_any_code()?;
        if !status.success() {
            bail!("{} stopped with {status}{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Stops the daemon by SIGTERM and returns how it ended.
    ///
    /// # Errors
    /// Fails if it does not end within five seconds.
    pub fn stop_with_any_code(&mut self) -> Result<ExitStatus> {
        let Some(mut child) = self.daemon.take() else {
            bail!("{} is not running", self.name)
        };
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).context("Sending SIGTERM")?;
        let asked = Instant::now();
        let ended = wait_until("the daemon to stop", STOP_MOST, || {
            Ok(child
                .try_wait()
                .context("Waiting for the daemon")?
                .ok_or_else(|| "it runs".to_owned()))
        });
        ended.map_err(|error| {
            reap(&mut child);
            error.context(format!(
                "{} after {:?}{}",
                self.name,
                asked.elapsed(),
                self.log_tail()
            ))
        })
    }

    /// Kills the daemon (SIGKILL), as a crash or a power cut would.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.daemon.take() else {
            bail!("{} is not running", self.name)
        };
        reap(&mut child);
        Ok(())
    }

    /// Stops the daemon and starts it again.
    ///
    /// # Errors
    /// As [`Device::stop`] and [`Device::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Runs `syncctl` on this device's socket, whatever comes of it.
    ///
    /// # Errors
    /// Fails only if the program cannot be run.
    pub fn ctl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Ctl> {
        let mut command = self.isolated(&self.binaries.syncctl);
        let output = command
            .arg("--socket")
            .arg(self.socket())
            .args(args)
            .output()
            .context("Running syncctl")?;
        Ok(Ctl::of(&output))
    }

    /// Runs `syncctl`, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// Fails, with what it said, if it ends with another code than 0.
    pub fn ctl_ok<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let args: Vec<&str> = args.into_iter().collect();
        let ctl = self.ctl(args.iter().copied())?;
        if ctl.code != Some(0) {
            bail!(
                "{}: syncctl {args:?} ended with {:?}: {}{}",
                self.name,
                ctl.code,
                ctl.stderr,
                self.log_tail()
            );
        }
        Ok(ctl.stdout)
    }

    /// Runs `syncctl` and reads the JSON it prints.
    ///
    /// # Errors
    /// As [`Device::ctl_ok`], or if it prints something else.
    pub fn ctl_json<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let text = self.ctl_ok(args)?;
        serde_json::from_str(&text).with_context(|| format!("syncctl printed {text:?}"))
    }

    /// Returns the daemon's status.
    ///
    /// # Errors
    /// As [`Device::ctl_json`].
    pub fn status(&self) -> Result<Status> {
        Ok(Status(self.ctl_json(["status", "--json"])?))
    }

    /// Makes an invite and returns its ticket.
    ///
    /// # Errors
    /// As [`Device::ctl_json`].
    pub fn invite(&self) -> Result<String> {
        let answer = self.ctl_json(["invite", "create", "--json"])?;
        let ticket = answer["ticket"]
            .as_str()
            .with_context(|| format!("No ticket in {answer}"))?;
        Ok(ticket.to_owned())
    }

    /// Joins the group of a ticket.
    ///
    /// # Errors
    /// As [`Device::ctl_ok`].
    pub fn join(&self, ticket: &str) -> Result<()> {
        self.ctl_ok(["join", ticket]).map(drop)
    }

    /// Connects to another device of the group by its address.
    ///
    /// # Errors
    /// As [`Device::ctl_ok`].
    pub fn connect(&self, other: &Self) -> Result<()> {
        self.ctl_ok(["peers", "connect", &other.address()]).map(drop)
    }

    /// Waits until the daemon says that nothing is left to do.
    ///
    /// # Errors
    /// As [`Device::ctl_ok`].
    pub fn wait_in_sync(&self) -> Result<()> {
        let seconds = format!("{}s", PATIENCE.as_secs());
        self.ctl_ok(["wait", "--for", "in-sync", "--timeout", &seconds])
            .map(drop)
    }

    /// Waits for a condition on this device; an error shows the end of the daemon's log.
    ///
    /// # Errors
    /// As [`wait_until`].
    pub fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&mut Self) -> Result<Result<T, String>>,
    ) -> Result<T> {
        let result = wait_until(what, limit, || condition(self));
        result.with_context(|| format!("{}{}", self.name, self.log_tail()))
    }

    /// Reads the folder.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn tree(&self) -> Result<Tree> {
        Tree::read(&self.folder())
    }

    /// Writes a file in the folder, making the directories above it.
    ///
    /// # Errors
    /// Fails with the path.
    pub fn write(&self, below: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(below);
        let parent = path.parent().context("A path in the folder has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("Making {}", parent.display()))?;
        let mut file = File::create(&path).with_context(|| format!("Making {}", path.display()))?;
        file.write_all(bytes.as_ref())
            .with_context(|| format!("Writing {}", path.display()))
    }

    /// Returns the daemon's process id.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn pid(&self) -> Result<u32> {
        self.daemon
            .as_ref()
            .map(Child::id)
            .with_context(|| format!("{} is not running", self.name))
    }

    /// Returns what the daemon has used since it was started.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid()?)
    }

    /// Returns the end of the daemon's log, for errors.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
        format!("\n--- log of {} ---\n{}\n---", self.name, tail.join("\n"))
    }

    /// Returns the file that takes the daemon's output, over all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Runs another daemon with this device's folder, state and socket until it ends by itself, and returns how.
    ///
    /// # Errors
    /// Fails if it is still running after [`PATIENCE`].
    pub fn second_daemon(&self) -> Result<ExitStatus> {
        let mut child = self
            .daemon_command("/ip4/127.0.0.1/tcp/0")?
            .spawn()
            .context("Starting the daemon")?;
        let ended = wait_until("the second daemon to end", PATIENCE, || {
            Ok(child
                .try_wait()
                .context("Waiting for the daemon")?
                .ok_or_else(|| "it runs".to_owned()))
        });
        reap(&mut child);
        ended
    }

    fn daemon_command(&self, listen: &str) -> Result<Command> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("Opening the log")?;
        let daemon = &self.binaries.daemon;
        let mut command = match self.wrapper.split_first() {
            None => self.isolated(daemon),
            Some((program, args)) => {
                let mut command = self.isolated(Path::new(program));
                command.args(args).arg(daemon);
                command
            }
        };
        command
            .arg("--sync-dir")
            .arg(self.folder())
            .arg("--state-dir")
            .arg(self.state());
        command.arg("--socket").arg(self.socket()).arg("--no-mdns");
        command
            .args(["--listen", listen, "--name", &self.name])
            .args(&self.args);
        command
            .stdout(log.try_clone().context("Opening the log")?)
            .stderr(log);
        Ok(command)
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.daemon.as_mut() else {
            return Ok(None);
        };
        let ended = child.try_wait().context("Waiting for the daemon")?;
        if ended.is_some() {
            self.daemon = None;
        }
        Ok(ended)
    }

    /// Returns a command that sees none of the caller's directories and settings.
    fn isolated(&self, program: &Path) -> Command {
        let home = self.home.path().join("home");
        let mut command = Command::new(program);
        for (key, _) in std::env::vars_os() {
            if key
                .to_str()
                .is_some_and(|key| key.starts_with("P2P_SYNC_") || key.starts_with("XDG_"))
            {
                command.env_remove(key);
            }
        }
        for key in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "WATCHDOG_USEC",
            "RUST_LOG",
        ] {
            command.env_remove(key);
        }
        if let Some(log) = &self.log {
            command.env("RUST_LOG", log);
        }
        command
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .current_dir(&home)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            reap(&mut child);
        }
        if std::env::var_os("P2P_SYNC_KEEP").is_some() {
            self.home.disable_cleanup(true);
        }
    }
}

fn reap(child: &mut Child) {
    // Either fails only if the process is gone, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Returns a port that nobody listens on. Processes start at different places, so that suites running side by side
/// do not choose the same.
///
/// # Errors
/// Fails if all ports of the range are taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORT_FIRST + (std::process::id().wrapping_mul(97).wrapping_add(step)) % PORTS;
        let port = u16::try_from(port).context("The range ends below 65536")?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("No port is free");
}
