//! What the manifests and the lock file say.

use std::path::Path;

use anyhow::Result;

use crate::source::{self, none};

/// The only place dependencies come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The fuzz targets are a workspace of their own.
fn members() -> Result<Vec<std::path::PathBuf>> {
    let mut found = source::files("")?;
    found.retain(|path| {
        let is_manifest = path.file_name().is_some_and(|name| name == "Cargo.toml");
        is_manifest && path != Path::new("Cargo.toml") && !path.starts_with("fuzz")
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

/// What is searched is what is built.
#[test]
fn the_fuzz_targets_take_the_locked_versions() -> Result<()> {
    let packages = |file: &str| -> Result<Vec<String>> {
        let lock = source::read(Path::new(file))?;
        let named = lock.split("[[package]]").skip(1);
        Ok(named
            .map(|package| package.lines().skip(1).take(2).collect())
            .collect())
    };
    let ours = packages("Cargo.lock")?;
    let own = ["p2p_sync_fuzz", "libfuzzer-sys", "arbitrary"];
    let mut findings = packages("fuzz/Cargo.lock")?;
    findings.retain(|package| {
        !ours.contains(package) && !own.iter().any(|name| package.contains(&format!("\"{name}\"")))
    });
    none("fuzz/Cargo.lock has other versions than Cargo.lock", &findings)
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
    let locks = source::read(Path::new("Cargo.lock"))? + &source::read(Path::new("fuzz/Cargo.lock"))?;
    let sources = locks
        .lines()
        .filter_map(|line| line.strip_prefix("source = \""))
        .map(|rest| rest.trim_end_matches('"'));
    let findings: Vec<String> = sources
        .filter(|source| *source != REGISTRY)
        .map(str::to_owned)
        .collect();
    none("Other sources than the default registry", &findings)
}
