//! Compares the disk with what the store believes to stand there.

use std::collections::BTreeSet;

use p2p_sync_core::engine::{LocalChange, Observed};
use p2p_sync_core::ignore::IgnoreRules;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::BootInstant;

use super::disk::{FakeDisk, Kind};
use super::store::Tables;

/// Returns the paths to look at for a full scan: what is on disk, and what should be.
#[must_use]
pub fn all_paths(disk: &FakeDisk, tables: &Tables) -> Vec<RelPath> {
    let on_disk = disk.tree().keys().filter(|path| !path.is_own());
    let paths: BTreeSet<&RelPath> = on_disk.chain(tables.installed.keys()).collect();
    paths.into_iter().cloned().collect()
}

/// Returns the paths to look at for these hints: each with what lies above and below it. In the daemon's own directory
/// that is only what is named itself or is installed.
#[must_use]
pub fn around(hints: &[RelPath], disk: &FakeDisk, tables: &Tables) -> Vec<RelPath> {
    let mut paths: BTreeSet<RelPath> = BTreeSet::new();
    for hint in hints {
        paths.insert(hint.clone());
        paths.extend(hint.ancestors());
        paths.extend(disk.below(hint));
        paths.extend(
            tables
                .installed
                .keys()
                .filter(|path| path.is_below(hint))
                .cloned(),
        );
    }
    paths.retain(|path| !path.is_own() || hints.contains(path) || tables.installed.contains_key(path));
    paths.into_iter().collect()
}

/// Says whether the scanner leaves a path out.
#[must_use]
pub fn is_ignored(path: &RelPath, disk: &FakeDisk, tables: &Tables, rules: &dyn IgnoreRules) -> bool {
    let row = tables.installed.get(path);
    let dir = match disk.lstat(path) {
        Some(inode) => inode.kind == Kind::Dir,
        None => row.is_some_and(|row| row.entry.node.is_dir()),
    };
    !path.is_own() && rules.is_ignored(path, dir)
}

/// Looks at one path; `None` if all is as believed. `inferred` says whether that is part of a full scan.
#[must_use]
pub fn look(
    path: &RelPath,
    disk: &FakeDisk,
    tables: &Tables,
    seen_at: BootInstant,
    inferred: bool,
) -> Option<LocalChange> {
    let after = disk.lstat(path).map(|inode| Observed {
        entry: inode.entry(),
        print: inode.print(),
        manifest: None,
    });
    let believed = tables.installed.get(path).map(|row| row.print);
    let same = after.as_ref().map(|seen| seen.print) == believed;
    (!same).then(|| LocalChange {
        path: path.clone(),
        seen_at,
        after,
        inferred,
    })
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::tree::Installed;

    use super::*;
    use crate::sim::disk::{Inode, Kind};

    #[test]
    fn only_what_differs_is_told() {
        let path = |s: &str| RelPath::parse(s).unwrap();
        let mut disk = FakeDisk::default();
        let mut tables = Tables::default();
        for name in ["same", "edited", "new"] {
            disk.create(&path(name), Kind::File(name.into()), 0o644, 0);
        }
        disk.create(&path(".p2p-sync"), Kind::Dir, 0o700, 0);
        for name in ["same", "edited"] {
            let inode: &Inode = disk.lstat(&path(name)).unwrap();
            let row = Installed {
                entry: inode.entry(),
                print: inode.print(),
                dots: vec![],
                copy_of: None,
            };
            tables.installed.insert(path(name), row.clone());
            tables.installed.insert(path("gone"), row);
        }
        disk.write(&path("edited"), b"!".to_vec(), 0);
        let changes: Vec<_> = all_paths(&disk, &tables)
            .iter()
            .filter_map(|path| look(path, &disk, &tables, BootInstant::default(), true))
            .collect();
        let names: Vec<_> = changes
            .iter()
            .map(|c| (c.path.to_string(), c.after.is_some()))
            .collect();
        let expected = [
            ("edited".into(), true),
            ("gone".into(), false),
            ("new".into(), true),
        ];
        assert_eq!(names, expected);
    }
}
