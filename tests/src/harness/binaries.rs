//! Where the programs under test are.
//!
//! `cargo test` builds a package's programs for that package's own integration tests only, so the harness builds them
//! itself, once per test process, into the directory its own test program lies in and with the same profile: they are
//! never stale, and when nothing changed it costs a fraction of a second. `P2P_SYNC_BIN_DIR` names programs that are
//! already there (installed ones, or a release build) and turns that off.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

/// The two programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The daemon.
    pub daemon: PathBuf,
    /// The command-line client.
    pub syncctl: PathBuf,
}

impl Binaries {
    /// Returns the programs in `dir`.
    ///
    /// # Errors
    /// Fails, naming the file, if one of them is not there.
    pub fn in_dir(dir: &Path) -> Result<Self> {
        // Absolute, since daemons run in directories of their own.
        let dir = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
        let find = |name: &str| {
            let path = dir.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(anyhow!("{} is not there", path.display()))
            }
        };
        Ok(Self {
            daemon: find("p2p_sync_daemon")?,
            syncctl: find("syncctl")?,
        })
    }

    /// Returns the programs that the running test belongs to, building them first if need be.
    ///
    /// # Errors
    /// Fails if they cannot be built; says so again for each caller.
    pub fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| locate().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|text| anyhow!("{text}"))
    }
}

fn locate() -> Result<Binaries> {
    if let Some(dir) = std::env::var_os("P2P_SYNC_BIN_DIR") {
        return Binaries::in_dir(Path::new(&dir)).context("P2P_SYNC_BIN_DIR is set");
    }
    let program = std::env::current_exe().context("Finding the running test")?;
    let profile_dir = program
        .ancestors()
        .find(|dir| dir.join(".fingerprint").is_dir())
        .with_context(|| format!("{} is not in a cargo target directory", program.display()))?;
    build(profile_dir)?;
    Binaries::in_dir(profile_dir)
}

fn build(profile_dir: &Path) -> Result<()> {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("{} has no name", profile_dir.display()),
    };
    let target = profile_dir
        .parent()
        .context("A profile's directory lies in the target directory")?;
    // The whole workspace, so that features are unified as `cargo test --workspace` does and no dependency is rebuilt.
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--workspace",
            "--bins",
            "--locked",
            "--offline",
            "--quiet",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("Running cargo")?;
    if !output.status.success() {
        bail!(
            "Building the programs under test failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
