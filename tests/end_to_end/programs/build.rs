//! A compiler's build tree: many short-lived and many new files here, while sources are edited there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::Group;

use super::{installed, run};
use crate::{settle_as_left, settle_without_conflict};

/// Sources of one program.
const SOURCES: usize = 100;

/// Writes a program of many small sources, each of which adds its number, and a Makefile.
fn project(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("src"))?;
    let mut main = String::from("#include <stdio.h>\n");
    let mut sum = String::from("0");
    for number in 0..SOURCES {
        source(dir, number, number)?;
        writeln!(main, "int f{number}(void);")?;
        write!(sum, " + f{number}()")?;
    }
    fs::write(
        dir.join("src/main.c"),
        format!("{main}int main(void) {{ printf(\"%d\", {sum}); return 0; }}\n"),
    )?;
    let makefile = "OBJECTS := $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))\n\
        program: $(OBJECTS)\n\tgcc -o $@ $^\n\
        out/%.o: src/%.c | out\n\tgcc -c -o $@ $<\n\
        out:\n\tmkdir out\n\
        clean:\n\trm -rf out program\n";
    Ok(fs::write(dir.join("Makefile"), makefile)?)
}

fn source(dir: &Path, number: usize, value: usize) -> Result<()> {
    let text = format!("int f{number}(void) {{ return {value}; }}\n");
    Ok(fs::write(dir.join(format!("src/f{number}.c")), text)?)
}

fn make(dir: &Path, args: &[&str]) -> Result<()> {
    run(dir, "make", args).map(drop)
}

/// Checks that a tree is built, that make finds nothing to do in it, and what the program prints.
fn check(dir: &Path, sum: usize) -> Result<()> {
    make(dir, &["-q", "program"]).context("Something is to be built")?;
    let program = dir.join("program");
    let printed = run(dir, program.to_str().context("A name")?, &[])?;
    ensure!(printed == sum.to_string(), "{printed} and not {sum}");
    Ok(())
}

#[test]
fn builds_here_while_sources_change_there_are_complete_on_both() -> Result<()> {
    if !installed(&["make", "gcc"]) {
        println!("Skipped: there is no make or gcc");
        return Ok(());
    }
    let group = Group::of(2)?;
    for name in ["one", "two"] {
        project(&group[0].path(name))?;
    }
    settle_as_left(&group, 0)?;
    let sum: usize = (0..SOURCES).sum();
    let beside = group[1].path("two");
    let other_user = thread::spawn(move || -> Result<()> {
        for number in 0..SOURCES {
            source(&beside, number, number + 1)?;
        }
        Ok(())
    });
    make(&group[0].path("one"), &["-j4", "program"])?;
    other_user.join().ok().context("The other user panicked")??;
    settle_without_conflict(&group)?;
    for number in [0, 1] {
        check(&group[number].path("one"), sum)?;
    }
    // Both at once: one builds what the other has edited, the other edits what was built, and then builds it anew.
    let beside = group[1].path("one");
    let other_user = thread::spawn(move || -> Result<()> {
        make(&beside, &["clean"])?;
        source(&beside, 7, 1007)?;
        make(&beside, &["-j4", "program"])
    });
    make(&group[0].path("two"), &["-j4", "program"])?;
    other_user.join().ok().context("The other user panicked")??;
    settle_without_conflict(&group)?;
    for number in [0, 1] {
        check(&group[number].path("one"), sum + 1000)?;
        check(&group[number].path("two"), sum + SOURCES)?;
    }
    Ok(())
}
