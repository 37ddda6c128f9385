//! SQLite databases that are written while they are synced.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group};

use super::{installed, run};
use crate::{settle_as_left, settle_without_conflict};

/// Rows that one writer adds, each in a transaction of its own.
const ROWS: usize = 80;
/// Times at which both devices write at once and then rest.
const ROUNDS: usize = 4;
/// Rows that each of them adds then.
const ROUND_ROWS: usize = 20;

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

/// Copies a database with what SQLite would find beside it: an open transaction is undone from there, a closed one done.
fn copy_database(database: &Path, to: &Path) -> Result<()> {
    for beside in ["", "-journal", "-wal"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(beside);
            PathBuf::from(name)
        };
        if with(database).exists() {
            fs::copy(with(database), with(to))?;
        }
    }
    Ok(())
}

/// Checks a copy of a database (SQLite writes beside what it reads) and returns the rows of one writer that it has.
fn rows_of(database: &Path, who: &str) -> Result<usize> {
    let dir = tempfile::tempdir()?;
    copy_database(database, &dir.path().join("copy"))?;
    let query = format!("PRAGMA integrity_check; SELECT count(*) FROM rows WHERE text LIKE 'row-{who}-%';");
    let answer = run(dir.path(), "sqlite3", &["copy", &query])?;
    let (health, count) = answer.split_once('\n').context("Two lines")?;
    ensure!(health == "ok", "{}: {health}", database.display());
    Ok(count.trim().parse()?)
}

/// Checks that all that are left of a database, the winner and the copies beside it, are sound on every device; returns
/// the number of copies.
fn check_copies(group: &Group) -> Result<usize> {
    let mut count = 0;
    for device in &group.devices {
        let tree = device.tree()?;
        let databases: Vec<_> = tree
            .items
            .keys()
            .filter(|path| path.extension() == Some("db".as_ref()))
            .collect();
        for path in &databases {
            let rows = rows_of(&device.folder().join(path), "base")?;
            ensure!(rows == ROWS, "{}: {rows} rows of before", path.display());
        }
        count = databases.len().saturating_sub(1);
    }
    Ok(count)
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
    ensure!(check_copies(&group)? == 1, "Other copies than that one");
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

fn check_anywhere(group: &Group, wanted: &BTreeSet<String>) -> Result<()> {
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

/// A program that opens the database anew for each row, as scripts do; a refused row is not in. Each transaction writes
/// many pages, new ones and old ones.
fn add_each(
    device: &Device,
    who: &'static str,
    numbers: Range<usize>,
) -> thread::JoinHandle<BTreeSet<String>> {
    let folder = device.folder();
    thread::spawn(move || {
        let add = |number: usize| {
            let row = format!("row-{who}-{number:03}");
            let insert = format!(
                "BEGIN IMMEDIATE; INSERT INTO rows VALUES ('{row}-');
                CREATE TABLE IF NOT EXISTS pages (bytes BLOB); INSERT INTO pages VALUES (randomblob(40000));
                UPDATE pages SET bytes = randomblob(40000) WHERE rowid % 5 = {number} % 5; COMMIT;"
            );
            run(&folder, "sqlite3", &["-bail", "base.db", &insert])
                .is_ok()
                .then_some(row)
        };
        numbers.filter_map(add).collect()
    })
}

#[test]
fn database_written_on_both_sides_at_once_leaves_sound_copies_and_the_bytes_of_every_row() -> Result<()> {
    if !installed(&["sqlite3"]) {
        println!("Skipped: there is no sqlite3");
        return Ok(());
    }
    let group = Group::of(2)?;
    add_rows(&group[0].path("base.db"), "delete", "base")?;
    settle_as_left(&group, 0)?;
    let mut wanted = BTreeSet::new();
    for round in 0..ROUNDS {
        let numbers = || round * ROUND_ROWS..(round + 1) * ROUND_ROWS;
        let writers = [
            add_each(&group[0], "first", numbers()),
            add_each(&group[1], "second", numbers()),
        ];
        for writer in writers {
            wanted.extend(writer.join().ok().context("A writer panicked")?);
        }
        group.settle()?;
    }
    ensure!(check_copies(&group)? > 0, "No conflict");
    check_anywhere(&group, &wanted)
}

/// A program that has a transaction open of which much is in the file already, for it did not fit its memory.
fn begin(database: &Path, who: &str) -> Result<Child> {
    let mut shell = Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("Running sqlite3")?;
    let input = shell.stdin.as_mut().context("It has an input")?;
    writeln!(input, "PRAGMA cache_size=5; BEGIN IMMEDIATE;")?;
    for number in 0..ROWS {
        writeln!(input, "INSERT INTO rows VALUES ('row-{who}-{number:03}-');")?;
        writeln!(input, "INSERT INTO rows VALUES (hex(randomblob(400)));")?;
    }
    writeln!(input, ".print begun")?;
    input.flush()?;
    let mut answer = [0; "begun".len()];
    shell
        .stdout
        .as_mut()
        .context("It has an output")?
        .read_exact(&mut answer)?;
    Ok(shell)
}

#[test]
fn transactions_open_on_both_sides_while_they_sync_keep_the_bytes_of_every_row() -> Result<()> {
    if !installed(&["sqlite3"]) {
        println!("Skipped: there is no sqlite3");
        return Ok(());
    }
    let group = Group::of(2)?;
    add_rows(&group[0].path("base.db"), "delete", "base")?;
    settle_as_left(&group, 0)?;
    let writers = ["first", "second"];
    let mut open = Vec::new();
    for (device, who) in group.devices.iter().zip(writers) {
        open.push(begin(&device.path("base.db"), who)?);
    }
    let copies = group.settle()?.conflict_copies().len();
    ensure!(copies > 0, "What was in the files was not synced");
    for mut shell in open {
        writeln!(shell.stdin.take().context("It has an input")?, "COMMIT;")?;
        let status = shell.wait().context("Waiting for sqlite3")?;
        ensure!(status.success(), "sqlite3 ended with {status}");
    }
    group.settle()?;
    // Nobody opens what is left: beside it may lie a journal that SQLite would undo it with.
    let wanted = writers.map(|who| (0..ROWS).map(move |number| format!("row-{who}-{number:03}")));
    check_anywhere(&group, &wanted.into_iter().flatten().collect())
}
