//! Words and names that must not stand in the tree. The searched words are put together here, so that this file does
//! not find itself.

use std::path::Path;

use anyhow::Result;

use crate::source::{self, none};

/// Lock files name hosts and hashes of their own, and kept inputs of the fuzz targets are any bytes.
fn is_checked(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name != "Cargo.lock") && !path.starts_with("fuzz/corpus")
}

/// Returns a finding for each line of the files in which one of the words stands.
fn lines_with(dir: &str, rust_only: bool, words: &[String]) -> Result<Vec<String>> {
    let files = if rust_only {
        source::rust_files(dir)?
    } else {
        source::files(dir)?
    };
    let mut findings = Vec::new();
    for path in files.into_iter().filter(|path| is_checked(path)) {
        let text = source::read(&path)?;
        for (number, line) in text.lines().enumerate() {
            let found = words.iter().filter(|word| stands_in(line, word));
            findings.extend(found.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    Ok(findings)
}

/// Says whether `word` stands in `line`; a word that begins with a slash only as the beginning of an absolute path.
fn stands_in(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !word.starts_with('/') || !before.is_some_and(|c| c.is_alphanumeric() || "_-.}~/".contains(c))
    })
}

#[test]
fn nothing_is_left_to_do() -> Result<()> {
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ]
    .map(|parts| parts.concat());
    none("Unfinished work", &lines_with("", false, &words)?)
}

#[test]
fn no_path_of_a_machine_stands_in_the_tree() -> Result<()> {
    let words = [
        ["/wo", "rk/"],
        ["/home/run", "ner"],
        ["/Us", "ers/"],
        [".cargo/", "registry"],
        ["/root/.", "cargo"],
    ];
    none(
        "Paths of somebody's machine",
        &lines_with("", false, &words.map(|parts| parts.concat()))?,
    )
}

#[test]
fn no_test_is_switched_off() -> Result<()> {
    let words = [["#[ign", "ore"], ["#[should_", "panic"]].map(|parts| parts.concat());
    none(
        "Every test runs, and says what it expects",
        &lines_with("", true, &words)?,
    )
}

#[test]
fn suites_wait_for_conditions_and_not_for_time() -> Result<()> {
    let words = [["thread::", "sleep"], ["time::", "sleep("]].map(|parts| parts.concat());
    let mut findings = lines_with("tests", true, &words)?;
    findings.retain(|finding| !finding.starts_with("tests/src/harness.rs:"));
    none(
        "Only the harness sleeps, between two looks at a condition",
        &findings,
    )
}

#[test]
fn modules_are_files_of_their_own_name() -> Result<()> {
    let files = source::rust_files("")?;
    let wrong = files
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "mod.rs"));
    none(
        "foo.rs beside foo/, never mod.rs",
        &wrong.map(|path| path.display().to_string()).collect::<Vec<_>>(),
    )
}

#[test]
fn the_top_has_no_other_folders() -> Result<()> {
    let known = ["cli", "daemon", "fuzz", "packaging", "proto", "systemd", "tests"];
    let files = source::files("")?;
    let mut tops: Vec<String> = files
        .iter()
        .filter(|path| path.iter().count() > 1)
        .filter_map(|path| path.iter().next().map(|top| top.to_string_lossy().into_owned()))
        .filter(|top| !top.starts_with('.') && !known.contains(&top.as_str()))
        .collect();
    tops.dedup();
    none("Folders at the top that the layout does not know", &tops)
}
