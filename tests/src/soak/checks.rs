//! What must be true when all is quiet.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::known::{self, Hash, Known};
use super::user::hash_at;
use crate::harness::{Device, Group, Item, Tree, settle_within, wait_until};

/// A guard; the daemons share the machine with others.
const PATIENCE: Duration = Duration::from_secs(240);
/// Files whose history is asked for.
const HISTORIES: usize = 12;
/// Problems that an error names.
const SHOWN: usize = 6;

/// What was counted on the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Files in the folder.
    pub files: usize,
    /// Conflict copies in the folder.
    pub copies: usize,
    /// Files put beside their path because somebody wrote to them while they were replaced.
    pub displaced: usize,
    /// Files in `.p2p-sync/versions` of all devices.
    pub versions: usize,
}

/// Settles the group and checks everything; the group is at rest afterwards.
pub(super) fn check(group: &mut Group, known: &Known, quiet: Duration) -> Result<Counted> {
    let devices: Vec<&Device> = group.devices.iter().collect();
    let tree = settle_within(&devices, PATIENCE)?;
    let tree = stays_quiet(group, &tree, quiet)?;
    let mut counted = Counted {
        files: tree.file_count(),
        copies: tree.conflict_copies().len(),
        displaced: displaced(&tree),
        versions: 0,
    };
    empty_trash(group, known)?;
    nothing_is_invented(&group[0], &tree, known)?;
    nothing_is_lost(group, known, &mut counted)?;
    own_files_have_no_copies(&tree)?;
    canaries_are_alone(group)?;
    histories_end_with_what_is_there(&group[0], &tree)?;
    Ok(counted)
}

/// Restarts all devices, which must change nothing.
pub(super) fn check_restart(group: &mut Group, quiet: Duration) -> Result<()> {
    let before = (group.settle()?, events(group)?);
    for device in &mut group.devices {
        device.stop()?;
    }
    for device in &mut group.devices {
        device.start()?;
    }
    let devices: Vec<&Device> = group.devices.iter().collect();
    let tree = settle_within(&devices, PATIENCE)?;
    let tree = stays_quiet(group, &tree, quiet)?;
    let differences = before.0.differences(&tree);
    ensure!(
        differences.is_empty(),
        "A restart changed the folder: {}",
        show(&differences)
    );
    let after = events(group)?;
    ensure!(
        before.1 == after,
        "A restart made events: {:?}, then {after:?}",
        before.1
    );
    Ok(())
}

fn events(group: &Group) -> Result<Vec<Option<u64>>> {
    group
        .devices
        .iter()
        .map(|device| Ok(device.status()?.events()))
        .collect()
}

/// Checks that nobody makes an event or changes a file for a while. A scan may have been under way when the trees
/// became equal, so the time begins anew with each event, up to a limit.
fn stays_quiet(group: &Group, tree: &Tree, quiet: Duration) -> Result<Tree> {
    let mut last = events(group)?;
    let mut since = Instant::now();
    wait_until("the group to be quiet", PATIENCE, || {
        let now = events(group)?;
        if now != last {
            let reason = format!("events were {last:?}, now {now:?}");
            last = now;
            since = Instant::now();
            return Ok(Err(reason));
        }
        Ok(if since.elapsed() >= quiet {
            Ok(())
        } else {
            Err("not yet".to_owned())
        })
    })?;
    let after = group.settle()?;
    if events(group)? != last {
        bail!(
            "Events were made after a quiet time: {:?}",
            tree.differences(&after)
        );
    }
    Ok(after)
}

fn displaced(tree: &Tree) -> usize {
    let names = tree.items.keys().filter_map(|path| path.file_name()?.to_str());
    names.filter(|name| name.contains(" (displaced ")).count()
}

/// What lies in the trash was taken away by a user who saw it.
fn empty_trash(group: &Group, known: &Known) -> Result<()> {
    for device in &group.devices {
        let trash = beside(device)?.join("trash");
        for path in files_below(&trash)? {
            known.take(&hash_at(&path)?, &device.name);
        }
        fs::remove_dir_all(&trash).context("Emptying the trash")?;
        fs::create_dir(&trash).context("Making the trash anew")?;
    }
    Ok(())
}

fn beside(device: &Device) -> Result<PathBuf> {
    let folder = device.folder();
    Ok(folder
        .parent()
        .context("A folder lies in a directory")?
        .join("beside"))
}

/// Returns all files and links below a directory.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("Listing {}", dir.display()))? {
            let entry = entry.with_context(|| format!("Listing {}", dir.display()))?;
            let kind = entry
                .file_type()
                .with_context(|| format!("Listing {}", dir.display()))?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else {
                paths.push(entry.path());
            }
        }
    }
    Ok(paths)
}

/// Every file in the folder is one that a user wrote, whole.
fn nothing_is_invented(device: &Device, tree: &Tree, known: &Known) -> Result<()> {
    let mut problems = Vec::new();
    for (path, item) in &tree.items {
        if matches!(item, Item::Dir { .. }) {
            continue;
        }
        let full = device.folder().join(path);
        if known.id(&hash_at(&full)?).is_some() {
            continue;
        }
        let bytes = fs::read(&full).unwrap_or_default();
        if !known.is_part(&bytes) {
            let what = known::describe(&bytes);
            let story = known.story(&[&path.display().to_string()]);
            problems.push(format!("{} was written by nobody: {what}{story}", path.display()));
        }
    }
    none(&problems)
}

/// Every content that no user took away knowingly is in a folder or among the versions of some device.
fn nothing_is_lost(group: &Group, known: &Known, counted: &mut Counted) -> Result<()> {
    let mut there: HashSet<Hash> = HashSet::new();
    for device in &group.devices {
        for path in files_below(&device.folder())? {
            let below = path
                .strip_prefix(device.folder())
                .context("A path below the folder")?;
            let own = below.strip_prefix(".p2p-sync").ok();
            if own.is_some_and(|own| !own.starts_with("versions") && !own.starts_with("rejected")) {
                continue;
            }
            counted.versions += usize::from(own.is_some());
            there.insert(hash_at(&path)?);
        }
    }
    let lost = known
        .wanted()
        .into_iter()
        .filter(|(hash, _)| !there.contains(hash));
    let problems: Vec<String> = lost
        .map(|(_, id)| format!("{id} is nowhere{}", known.story(&[&id])))
        .collect();
    none(&problems)
}

/// Nobody else writes to a user's own files, so none of them has a conflict.
fn own_files_have_no_copies(tree: &Tree) -> Result<()> {
    let is_own = |path: &&Path| path.to_string_lossy().starts_with("own");
    let extra = tree.items.keys().map(PathBuf::as_path).filter(is_own);
    let extra = extra.filter(|path| path.to_string_lossy().contains('('));
    let problems: Vec<String> = extra
        .map(|path| format!("{} has one author and is a copy", path.display()))
        .collect();
    none(&problems)
}

/// Links lead to names among the canaries at which nothing is; whoever follows one leaves something there.
fn canaries_are_alone(group: &Group) -> Result<()> {
    for device in &group.devices {
        let found = files_below(&beside(device)?.join("canary"))?;
        ensure!(
            found.len() == 1 && fs::read(&found[0]).context("Reading the canary")? == super::CANARY,
            "{}: something outside the folder was touched: {found:?}",
            device.name
        );
    }
    Ok(())
}

/// The newest version that `syncctl history` shows of a file is what stands there.
fn histories_end_with_what_is_there(device: &Device, tree: &Tree) -> Result<()> {
    let files = tree.items.iter().filter_map(|(path, item)| match item {
        Item::File { hash, .. } => Some((path, hash)),
        Item::Dir { .. } | Item::Link { .. } | Item::Special => None,
    });
    let copies = tree.conflict_copies();
    let files = files.filter(|(path, _)| !copies.contains(&path.as_path()));
    let every = (tree.file_count() / HISTORIES).max(1);
    for (path, hash) in files.step_by(every) {
        let name = path.to_str().context("Users choose plain names")?;
        let answer = device.ctl_json(["history", name, "--json"])?;
        let hash = blake3::Hash::from_bytes(*hash).to_hex();
        let versions = answer["versions"].as_array().context("A history has versions")?;
        let current = versions.iter().find(|version| version["current"] == true);
        ensure!(
            current.is_some_and(|version| version["content"] == hash.as_str()),
            "{name} is {hash}, and its history says {answer}"
        );
    }
    Ok(())
}

fn none(problems: &[String]) -> Result<()> {
    ensure!(problems.is_empty(), "{}", show(problems));
    Ok(())
}

fn show(problems: &[String]) -> String {
    let shown: Vec<&str> = problems.iter().take(SHOWN).map(String::as_str).collect();
    format!("{} problems:\n{}", problems.len(), shown.join("\n"))
}
