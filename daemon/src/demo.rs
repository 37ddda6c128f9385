//! `p2p_sync_daemon demo`: two devices on loopback share a folder, in a temporary place, for everybody to see.
//!
//! It runs the same code as the service, twice in one process. It succeeds only if both folders hold the same tree at
//! each step: paths, kinds, bytes, permissions, modification times.

mod tree;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use p2p_sync_core::access::{Role, Scopes};
use tokio::sync::oneshot;

use crate::control::ControlCommand;
use crate::daemon::{Daemon, Options};
use crate::ignore_rules::RuleSource;
use crate::root_dir::Modes;
use crate::worktree::Retention;
use tree::Tree;

/// How long one step may take before the demo gives up.
const STEP_LIMIT: Duration = Duration::from_secs(300);
/// Least time between two looks at the folders.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of the large file.
const LARGE: usize = 256 << 20;
/// Files made when no source tree is given.
const SMALL_FILES: usize = 2_000;

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A device could not be started.
    #[error("Cannot start a device")]
    Start(#[source] crate::daemon::DaemonError),
    /// A device stopped by itself.
    #[error("A device stopped")]
    Stopped(#[source] crate::daemon::DaemonError),
    /// A command was refused.
    #[error("The device refused: {0}")]
    Refused(String),
    /// A file could not be read or written.
    #[error("Cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folders did not become equal.
    #[error("{step}: the folders are not equal after {} s; first difference: {difference}", STEP_LIMIT.as_secs())]
    Different {
        /// In which step.
        step: String,
        /// Where.
        difference: String,
    },
}

/// Runs the demo, printing what happens through `say`.
///
/// # Errors
/// Any [`DemoError`].
///
/// # Cancel safety
/// Dropping the future leaves threads behind until the process ends.
pub async fn run(source: Option<&Path>, say: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let place = tempfile::tempdir().map_err(|source| DemoError::Io {
        path: std::env::temp_dir(),
        source,
    })?;
    let demo = Demo::start(place.path(), say).await?;
    let result = demo.steps(source, say).await;
    let stopped = demo.stop().await;
    result?;
    stopped?;
    say("Both devices stopped. Everything was equal at every step.");
    Ok(())
}

struct Demo {
    a: PathBuf,
    b: PathBuf,
    atlas: Daemon,
    laptop: Daemon,
}

impl Demo {
    async fn start(place: &Path, say: &mut dyn FnMut(&str)) -> Result<Self, DemoError> {
        let a = place.join("atlas");
        let b = place.join("laptop");
        say(&format!(
            "Two devices, atlas and laptop, each with a folder of its own below {}",
            place.display()
        ));
        let atlas = Daemon::start(options("atlas", &a, place)).map_err(DemoError::Start)?;
        let laptop = Daemon::start(options("laptop", &b, place)).map_err(DemoError::Start)?;
        let demo = Self { a, b, atlas, laptop };
        demo.pair(say).await?;
        Ok(demo)
    }

    async fn pair(&self, say: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
        let mut status = self.atlas.status();
        let ready = status.wait_for(|status| !status.listen.is_empty() && status.engine.group.is_some());
        ready
            .await
            .map_err(|_| DemoError::Refused("it stopped".to_owned()))?;
        let started = Instant::now();
        let (reply, answer) = oneshot::channel();
        let invite = ControlCommand::CreateInvite {
            role: Role::Editor,
            expires: None,
            max_uses: 1,
            scopes: Scopes::whole(),
            person: None,
            reply,
        };
        let ticket = command(&self.atlas, invite, answer).await?;
        say(&format!("atlas makes an invite:  {:.28}…", ticket.to_string()));
        let (reply, answer) = oneshot::channel();
        let join = ControlCommand::Join {
            ticket,
            choice: None,
            reply,
        };
        let joined = command(&self.laptop, join, answer).await?;
        say(&format!(
            "laptop joins as {} after {} ms",
            joined.role,
            started.elapsed().as_millis()
        ));
        Ok(())
    }

    async fn steps(&self, source: Option<&Path>, say: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
        let hello = self.a.join("hello.txt");
        let started = Instant::now();
        write(&hello, b"hello from atlas\n")?;
        self.equal("atlas writes hello.txt", started, say).await?;
        let started = Instant::now();
        write(&self.b.join("hello.txt"), b"hello from laptop\n")?;
        self.equal("laptop changes hello.txt", started, say).await?;
        self.tree_step(source, say).await?;
        let large = self.b.join("large.bin");
        let started = Instant::now();
        make_large(&large)?;
        let took = self
            .equal(
                &format!("laptop makes a file of {} MiB", LARGE >> 20),
                started,
                say,
            )
            .await?;
        say(&format!(
            "  {:.0} MiB/s",
            (LARGE >> 20) as f64 / took.as_secs_f64()
        ));
        let started = Instant::now();
        rename(&self.a.join("tree"), &self.a.join("renamed"))?;
        self.equal("atlas renames the whole tree", started, say).await?;
        let gone = self.b.join("renamed");
        let started = Instant::now();
        std::fs::remove_dir_all(&gone).map_err(|source| DemoError::Io { path: gone, source })?;
        self.equal("laptop deletes it", started, say).await?;
        Ok(())
    }

    async fn tree_step(&self, source: Option<&Path>, say: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
        let started = Instant::now();
        match source {
            Some(source) => copy_tree(source, &self.a.join("tree"))?,
            None => make_tree(&self.a.join("tree"))?,
        }
        let written = started.elapsed();
        let took = self.equal("atlas gets a tree", started, say).await?;
        let tree = Tree::read(&self.a)?;
        say(&format!(
            "  {} entries, {} MiB, {:.0} entries/s; writing it took {} ms of that",
            tree.len(),
            tree.bytes() >> 20,
            tree.len() as f64 / took.as_secs_f64(),
            written.as_millis(),
        ));
        Ok(())
    }

    /// Waits until both folders hold the same tree.
    async fn equal(
        &self,
        step: &str,
        started: Instant,
        say: &mut dyn FnMut(&str),
    ) -> Result<Duration, DemoError> {
        loop {
            let looked = Instant::now();
            if Tree::shapes(&self.a)? == Tree::shapes(&self.b)? {
                let (a, b) = (Tree::read(&self.a)?, Tree::read(&self.b)?);
                if a == b {
                    let took = started.elapsed();
                    say(&format!("{step}: on both after {} ms", took.as_millis()));
                    return Ok(took);
                }
            }
            if started.elapsed() > STEP_LIMIT {
                let difference = Tree::read(&self.a)?.difference(&Tree::read(&self.b)?);
                return Err(DemoError::Different {
                    step: step.to_owned(),
                    difference,
                });
            }
            // Looking at large trees must not take the machine from what is looked at.
            tokio::time::sleep(LOOK_INTERVAL.max(looked.elapsed() * 4)).await;
        }
    }

    async fn stop(self) -> Result<(), DemoError> {
        let (a, b) = tokio::join!(self.atlas.run_until(async {}), self.laptop.run_until(async {}));
        a.and(b).map_err(DemoError::Stopped)
    }
}

fn options(name: &str, folder: &Path, place: &Path) -> Options {
    Options {
        folder: folder.to_owned(),
        state_dir: place.join(format!("{name}-state")),
        socket: None,
        control_group: None,
        control_read_only_group: None,
        listen: vec![
            libp2p::Multiaddr::from(std::net::Ipv4Addr::LOCALHOST).with(libp2p::multiaddr::Protocol::Tcp(0)),
        ],
        fallback_port: false,
        peers: Vec::new(),
        name: name.to_owned(),
        join: None,
        mdns: false,
        lan_pairing: false,
        trust_lan: false,
        modes: Modes::Full,
        ignore: RuleSource::new(true, Vec::new(), folder),
        retention: Retention::default(),
        rebind: false,
        min_free: crate::free_space::Reserve::Bytes(0),
        author_quota: 0,
        delete_guard: true,
    }
}

async fn command<T>(
    daemon: &Daemon,
    command: ControlCommand,
    answer: oneshot::Receiver<Result<T, crate::control::ControlError>>,
) -> Result<T, DemoError> {
    let refused = |error: &dyn std::error::Error| DemoError::Refused(crate::error_chain(error));
    daemon
        .control()
        .send(command)
        .await
        .map_err(|error| refused(&error))?;
    answer
        .await
        .map_err(|error| refused(&error))?
        .map_err(|error| refused(&error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DemoError> {
    std::fs::write(path, bytes).map_err(|source| DemoError::Io {
        path: path.to_owned(),
        source,
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), DemoError> {
    std::fs::rename(from, to).map_err(|source| DemoError::Io {
        path: from.to_owned(),
        source,
    })
}

fn make_dir(path: &Path) -> Result<(), DemoError> {
    std::fs::create_dir_all(path).map_err(|source| DemoError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Makes small files of different sizes in a few directories.
fn make_tree(root: &Path) -> Result<(), DemoError> {
    for i in 0..SMALL_FILES {
        let dir = root.join(format!("d{}", i % 40));
        if i < 40 {
            make_dir(&dir)?;
        }
        let line = format!("file {i} of the demo\n");
        write(
            &dir.join(format!("f{i}.txt")),
            line.repeat(1 + (i * 37) % 700).as_bytes(),
        )?;
    }
    Ok(())
}

/// Writes bytes that do not compress and do not repeat.
fn make_large(path: &Path) -> Result<(), DemoError> {
    let mut bytes = vec![0; LARGE];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"p2p-sync demo");
    hasher.finalize_xof().fill(&mut bytes);
    write(path, &bytes)
}

/// Copies a source tree: directories, files and links; whatever else it holds is left out.
fn copy_tree(from: &Path, to: &Path) -> Result<(), DemoError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| DemoError::Io { path, source }
    };
    make_dir(to)?;
    for entry in std::fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed(&source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let text = std::fs::read_link(&source).map_err(failed(&source))?;
            std::os::unix::fs::symlink(text, &target).map_err(failed(&target))?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target).map_err(failed(&source))?;
        }
    }
    Ok(())
}
