//! The files of the project, and what in a Rust file is code.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};

/// Returns the project's top directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the project's top directory")
}

/// Names that are not the project's source: build output, version control, and what a daemon run by hand leaves.
const NOT_SOURCE: [&str; 4] = ["target", ".git", "sync_folder", "__pycache__"];

/// Returns all files below `dir` (relative to the top), as paths relative to the top, in order.
pub(crate) fn files(dir: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(Path::new(dir), &mut found).with_context(|| format!("Listing {dir:?}"))?;
    found.sort();
    Ok(found)
}

/// Returns the Rust files below `dir`.
pub(crate) fn rust_files(dir: &str) -> Result<Vec<PathBuf>> {
    let mut found = files(dir)?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    Ok(found)
}

/// Reads a file, given relative to the top.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(root().join(path)).with_context(|| format!("Reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the lines with their numbers from 1, without the module of unit tests that ends the file.
pub(crate) fn without_tests(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |at: usize| {
        lines[at].trim() == "#[cfg(test)]"
            && lines[at + 1..]
                .iter()
                .take(3)
                .any(|line| line.starts_with("mod ") || line.starts_with("pub(crate) mod "))
    };
    let end = (0..lines.len()).find(|&at| is_tests(at)).unwrap_or(lines.len());
    lines[..end]
        .iter()
        .enumerate()
        .map(|(at, line)| (at + 1, *line))
        .collect()
}

/// Returns the code of lines: comments are cut off. A `//` in a string counts as a comment, which only hides code from
/// a check and never accuses wrongly.
pub(crate) fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root().join(dir))? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_SOURCE.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let path = dir.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Fails with one line per finding, and the rule.
pub(crate) fn none(rule: &str, findings: &[String]) -> Result<()> {
    anyhow::ensure!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
    Ok(())
}
