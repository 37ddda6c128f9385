//! What the manifests and the lock file say.

use std::path::Path;

use anyhow::Result;

use crate::source::{self, none};

/// The only place dependencies come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn members() -> Result<Vec<std::path::PathBuf>> {
    let mut found = source::files("")?;
    found.retain(|path| {
        path.file_name().is_some_and(|name| name == "Cargo.toml") && path != Path::new("Cargo.toml")
    });
    Ok(found)
}

#[test]
fn versions_stand_in_the_root_manifest_only() -> Result<()> {
    let mut findings = Vec::new();
    for path in members()? {
        let text = source::read(&path)?;
        let mut in_dependencies = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                findings.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    none("A member takes every dependency from the workspace", &findings)
}

#[test]
fn every_member_takes_the_lints_of_the_workspace() -> Result<()> {
    let mut findings = Vec::new();
    for path in members()? {
        if !source::read(&path)?.contains("[lints]\nworkspace = true") {
            findings.push(path.display().to_string());
        }
    }
    none("These manifests lack [lints] workspace = true", &findings)
}

#[test]
fn all_dependencies_come_from_the_default_registry() -> Result<()> {
    let lock = source::read(Path::new("Cargo.lock"))?;
    let sources = lock
        .lines()
        .filter_map(|line| line.strip_prefix("source = \""))
        .map(|rest| rest.trim_end_matches('"'));
    let findings: Vec<String> = sources
        .filter(|source| *source != REGISTRY)
        .map(str::to_owned)
        .collect();
    none("Other sources than the default registry", &findings)
}
