//! Each type of entry becomes each other at the same path.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use p2p_sync_tests::harness::{Group, fill_file};

use super::at_all_times;

/// What may stand at a path.
const TYPES: [&str; 8] = [
    "nothing",
    "file",
    "other-file",
    "large-file",
    "empty-file",
    "link",
    "dir",
    "empty-dir",
];

#[test]
fn each_type_becomes_each_other() -> Result<()> {
    let mut group = Group::of(2)?;
    at_all_times(
        &mut group,
        |dir| for_each_pair(|from, to| make(&dir.join(format!("{from}-{to}")), from)),
        |dir| {
            for_each_pair(|from, to| {
                let path = dir.join(format!("{from}-{to}"));
                remove(&path)?;
                make(&path, to)
            })
        },
    )
}

fn for_each_pair(mut act: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
    for from in TYPES {
        for to in TYPES {
            act(from, to).with_context(|| format!("{from} to {to}"))?;
        }
    }
    Ok(())
}

fn make(path: &Path, kind: &str) -> Result<()> {
    match kind {
        "file" | "other-file" => fs::write(path, kind)?,
        "large-file" => fill_file(path, (1 << 20) + 5, 3)?,
        "empty-file" => drop(File::create(path)?),
        "link" => symlink("file-file/../nowhere", path)?,
        "dir" => {
            fs::create_dir_all(path.join("sub/empty"))?;
            fs::write(path.join("a"), "in a directory")?;
            fs::write(path.join("sub/b"), "deeper")?;
            symlink("../a", path.join("sub/link"))?;
        }
        "empty-dir" => fs::create_dir(path)?,
        _ => {}
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(_) => Ok(fs::remove_dir_all(path)?),
    }
}
