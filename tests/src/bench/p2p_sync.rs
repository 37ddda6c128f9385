//! Two of our own daemons.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::contender::{Contender, sum};
use crate::harness::{Binaries, DeviceOptions, Group, Usage};

/// A group of two devices.
pub(crate) struct P2pSync {
    group: Group,
    staging: TempDir,
}

/// Starts and pairs two daemons.
pub(crate) fn start(binaries: &Binaries, below: &Path) -> Result<P2pSync> {
    fs::create_dir_all(below).with_context(|| format!("Making {}", below.display()))?;
    let options = DeviceOptions {
        binaries: Some(binaries.clone()),
        below: Some(below.to_owned()),
        ..DeviceOptions::default()
    };
    let group = Group::with_options(2, &options)?;
    group.settle()?;
    Ok(P2pSync {
        group,
        staging: TempDir::new_in(below).context("Making a staging directory")?,
    })
}

impl Contender for P2pSync {
    fn name(&self) -> &'static str {
        "p2p-sync"
    }

    fn folders(&self) -> [PathBuf; 2] {
        [0, 1].map(|number| self.group[number].folder())
    }

    fn staging(&self) -> &Path {
        self.staging.path()
    }

    fn usage(&self) -> Result<Usage> {
        Ok(sum(&[self.group[0].usage()?, self.group[1].usage()?]))
    }
}
