//! Two of our own daemons.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::contender::{Contender, sum};
use crate::harness::{Binaries, DeviceOptions, Group, Usage};

/// How often the role of a device changes that is measured with roles.
const ROLE_CHANGES: usize = 100;
/// Where it may write in the end: all that is measured.
const SCOPES: [&str; 4] = ["large.bin", "notes", "tiny", "tree"];

/// A group of two devices.
pub(crate) struct P2pSync {
    group: Group,
    name: &'static str,
    /// Whose folder is the first, and whose the second.
    order: [usize; 2],
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
        name: "p2p-sync",
        order: [0, 1],
        staging: TempDir::new_in(below).context("Making a staging directory")?,
    })
}

/// Starts and pairs two daemons, and lets the second be an editor of some paths after many other roles.
pub(crate) fn start_with_roles(binaries: &Binaries, below: &Path) -> Result<P2pSync> {
    let contender = start(binaries, below)?;
    let (founder, editor) = (&contender.group[0], &contender.group[1]);
    let id = editor.ctl_json(["device", "id", "--json"])?["id"].clone();
    let id = id.as_str().context("A device has an id")?;
    let scopes = SCOPES.iter().flat_map(|scope| ["--scope", scope]);
    let limited: Vec<&str> = ["member", "role", id, "editor"]
        .into_iter()
        .chain(scopes)
        .collect();
    for _ in 0..ROLE_CHANGES / 2 {
        founder.ctl_ok(["member", "role", id, "viewer"])?;
        founder.ctl_ok(limited.iter().copied())?;
    }
    contender.group.settle()?;
    Ok(P2pSync {
        name: "with roles",
        order: [1, 0],
        ..contender
    })
}

impl Contender for P2pSync {
    fn name(&self) -> &'static str {
        self.name
    }

    fn folders(&self) -> [PathBuf; 2] {
        self.order.map(|number| self.group[number].folder())
    }

    fn staging(&self) -> &Path {
        self.staging.path()
    }

    fn usage(&self) -> Result<Usage> {
        Ok(sum(&[self.group[0].usage()?, self.group[1].usage()?]))
    }
}
