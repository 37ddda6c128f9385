//! vim, with its ways of saving, its swap files and its undo files.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Device, Group, PATIENCE};

use super::installed;
use crate::settle_without_conflict;

/// An editor that somebody has open; commands go to its standard input.
struct Vim(Child);

impl Vim {
    fn open(dir: &Path, file: &str) -> Result<Self> {
        let child = Command::new("vim")
            .args(["-es", "-N", "-u", "NONE", "-i", "NONE", file])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("Running vim")?;
        Ok(Self(child))
    }

    fn tell(&mut self, commands: &str) -> Result<()> {
        let input = self.0.stdin.as_mut().context("It has an input")?;
        Ok(input.write_all(format!("{commands}\n").as_bytes())?)
    }

    fn end(mut self) -> Result<()> {
        self.tell("wq")?;
        let status = self.0.wait().context("Waiting for vim")?;
        ensure!(status.success(), "vim ended with {status}");
        Ok(())
    }
}

fn edit(device: &Device, file: &str, settings: &str, line: &str) -> Result<()> {
    let mut vim = Vim::open(&device.folder(), file)?;
    if !settings.is_empty() {
        vim.tell(settings)?;
    }
    vim.tell(&format!("$put ='{line}'"))?;
    vim.end()
}

#[test]
fn both_edit_with_vim_and_swap_files_stay_where_they_are() -> Result<()> {
    if !installed(&["vim"]) {
        println!("Skipped: there is no vim");
        return Ok(());
    }
    let mut group = Group::of(2)?;
    for name in ["plain", "copied", "undo", "both"] {
        group[0].write(name, "first\n")?;
    }
    settle_without_conflict(&group)?;
    let mut open = Vim::open(&group[0].folder(), "both")?;
    open.tell("$put ='not saved yet'")?;
    open.tell("preserve")?;
    group[0].wait("the swap file", PATIENCE, |device| {
        let there = device.path(".both.swp").exists();
        Ok(there.then_some(()).ok_or_else(String::new))
    })?;
    edit(&group[0], "plain", "", "by the first")?;
    edit(
        &group[1],
        "copied",
        "set backupcopy=yes backup backupskip=",
        "by the second",
    )?;
    edit(&group[1], "undo", "set undofile undodir=.", "by the second")?;
    group[0].wait("what the second wrote", PATIENCE, |device| {
        let there = device.path("copied~").exists() && device.path(".undo.un~").exists();
        let text = fs::read_to_string(device.path("undo"))?;
        let saved = text.contains("by the second");
        Ok((there && saved).then_some(()).ok_or(text))
    })?;
    ensure!(!group[1].path(".both.swp").exists(), "The swap file was synced");
    open.end()?;
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 6, "{tree:?}");
    for (name, line) in [
        ("plain", "by the first"),
        ("copied", "by the second"),
        ("both", "not saved yet"),
    ] {
        let text = fs::read_to_string(group[1].path(name))?;
        ensure!(text == format!("first\n{line}\n"), "{name}: {text}");
    }
    both_edit_one_file_apart(&mut group)
}

fn both_edit_one_file_apart(group: &mut Group) -> Result<()> {
    group[1].stop()?;
    edit(&group[0], "both", "", "apart, the first")?;
    edit(&group[1], "both", "set backupcopy=yes", "apart, the second")?;
    group[1].start()?;
    let tree = group.settle()?;
    let copies = tree.conflict_copies();
    ensure!(copies.len() == 1, "{copies:?}");
    let mut texts = vec![fs::read_to_string(group[0].path("both"))?];
    texts.push(fs::read_to_string(group[0].folder().join(copies[0]))?);
    texts.sort();
    let expected = ["the first", "the second"].map(|who| format!("first\nnot saved yet\napart, {who}\n"));
    ensure!(texts == expected, "{texts:?}");
    Ok(())
}
