//! SQLite databases that are written while they are synced.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group};

use super::{installed, run};
use crate::{settle_as_left, settle_without_conflict};

/// Rows that one writer adds, each in a transaction of its own.
const ROWS: usize = 80;

/// Adds rows as one program that keeps the database open.
fn add_rows(database: &Path, mode: &str, who: &str) -> Result<()> {
    let mut shell = Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("Running sqlite3")?;
    let mut input = shell.stdin.take().context("It has an input")?;
    writeln!(input, ".timeout 10000\nPRAGMA journal_mode={mode};")?;
    writeln!(input, "CREATE TABLE IF NOT EXISTS rows (text TEXT);")?;
    for number in 0..ROWS {
        writeln!(input, "INSERT INTO rows VALUES ('row-{who}-{number:03}-');")?;
    }
    drop(input);
    let status = shell.wait().context("Waiting for sqlite3")?;
    ensure!(status.success(), "sqlite3 ended with {status}");
    Ok(())
}

/// Checks a copy of a database (SQLite writes beside what it reads) and returns the rows of one writer that it has.
fn rows_of(database: &Path, who: &str) -> Result<usize> {
    let dir = tempfile::tempdir()?;
    fs::copy(database, dir.path().join("copy"))?;
    let query = format!("PRAGMA integrity_check; SELECT count(*) FROM rows WHERE text LIKE 'row-{who}-%';");
    let answer = run(dir.path(), "sqlite3", &["copy", &query])?;
    let (health, count) = answer.split_once('\n').context("Two lines")?;
    ensure!(health == "ok", "{}: {health}", database.display());
    Ok(count.trim().parse()?)
}

#[test]
fn database_written_while_it_is_synced_is_whole_when_its_writer_rests() -> Result<()> {
    if !installed(&["sqlite3"]) {
        println!("Skipped: there is no sqlite3");
        return Ok(());
    }
    let group = Group::of(2)?;
    for round in ["a", "b"] {
        let writers = [("wal", 0), ("delete", 1)].map(|(mode, number)| {
            let database = group[number].path(mode);
            thread::spawn(move || add_rows(&database, mode, round))
        });
        for writer in writers {
            writer.join().ok().context("A writer panicked")??;
        }
        settle_without_conflict(&group)?;
        for (name, number) in [("wal", 1), ("delete", 0)] {
            let rows = rows_of(&group[number].path(name), round)?;
            ensure!(rows == ROWS, "{name}: {rows} rows");
        }
    }
    Ok(())
}

#[test]
fn database_written_on_both_sides_apart_becomes_two_whole_ones() -> Result<()> {
    if !installed(&["sqlite3"]) {
        println!("Skipped: there is no sqlite3");
        return Ok(());
    }
    let mut group = Group::of(2)?;
    add_rows(&group[0].path("base.db"), "delete", "base")?;
    settle_as_left(&group, 0)?;
    group[1].stop()?;
    for (number, who) in [(0, "first"), (1, "second")] {
        add_rows(&group[number].path("base.db"), "delete", who)?;
    }
    group[1].start()?;
    let tree = group.settle()?;
    let copies = tree.conflict_copies();
    ensure!(copies.len() == 1, "{copies:?}");
    let mut found = Vec::new();
    for database in [group[0].path("base.db"), group[0].folder().join(copies[0])] {
        ensure!(rows_of(&database, "base")? == ROWS, "{}", database.display());
        found.push(["first", "second"].map(|who| rows_of(&database, who)));
    }
    let counts: BTreeSet<Vec<usize>> = found
        .into_iter()
        .map(|both| both.into_iter().collect::<Result<Vec<_>>>())
        .collect::<Result<_>>()?;
    ensure!(
        counts == BTreeSet::from([vec![0, ROWS], vec![ROWS, 0]]),
        "{counts:?}"
    );
    Ok(())
}

/// Returns the rows of which the bytes lie anywhere in a device's folder, also in copies and old versions.
fn rows_anywhere(dir: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            rows_anywhere(&path, found)?;
            continue;
        }
        let bytes = fs::read(&path)?;
        let starts = bytes.windows(4).enumerate().filter(|(_, part)| part == b"row-");
        for (at, _) in starts {
            let end = (at + 20).min(bytes.len());
            let text = String::from_utf8_lossy(&bytes[at..end]);
            let row: Vec<&str> = text.splitn(4, '-').take(3).collect();
            found.insert(row.join("-"));
        }
    }
    Ok(())
}

/// A program that opens the database anew for each row, as scripts do; a refused row is not in.
fn add_each(device: &Device, who: &'static str) -> thread::JoinHandle<BTreeSet<String>> {
    let folder = device.folder();
    thread::spawn(move || {
        let add = |number: usize| {
            let row = format!("row-{who}-{number:03}");
            let insert = format!("INSERT INTO rows VALUES ('{row}-');");
            run(&folder, "sqlite3", &["-bail", "base.db", &insert])
                .is_ok()
                .then_some(row)
        };
        (0..ROWS / 2).filter_map(add).collect()
    })
}

#[test]
fn database_written_on_both_sides_at_once_keeps_the_bytes_of_every_row() -> Result<()> {
    if !installed(&["sqlite3"]) {
        println!("Skipped: there is no sqlite3");
        return Ok(());
    }
    let group = Group::of(2)?;
    add_rows(&group[0].path("base.db"), "delete", "base")?;
    settle_as_left(&group, 0)?;
    let writers = [add_each(&group[0], "first"), add_each(&group[1], "second")];
    let mut wanted = BTreeSet::new();
    for writer in writers {
        wanted.extend(writer.join().ok().context("A writer panicked")?);
    }
    group.settle()?;
    let mut found = BTreeSet::new();
    for device in &group.devices {
        rows_anywhere(&device.folder(), &mut found)?;
    }
    let lost: Vec<&String> = wanted.difference(&found).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} rows are nowhere: {lost:?}",
        lost.len(),
        wanted.len()
    );
    Ok(())
}
