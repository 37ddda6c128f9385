//! Compares the disk with what the store believes to stand there. As in the daemon, what differs is durable before it is
//! told.

use std::collections::BTreeSet;

use p2p_sync_core::engine::{FoundBy, LocalChange, Observed};
use p2p_sync_core::ignore::IgnoreRules;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::BootInstant;

use super::disk::{FakeDisk, Kind, Place};
use super::store::Tables;

/// Returns the paths to look at for a full scan, in order: what is on disk, and what should be.
#[must_use]
pub fn all_paths(disk: &FakeDisk, tables: &Tables) -> Vec<RelPath> {
    let on_disk = disk.tree().keys().filter(|path| !path.is_own());
    let paths = on_disk.chain(tables.installed.keys()).cloned().collect();
    in_order(paths, disk)
}

/// Puts what lay in a directory before the file that took its place, and else parents before what lies in them.
fn in_order(mut paths: BTreeSet<RelPath>, disk: &FakeDisk) -> Vec<RelPath> {
    let mut ordered = Vec::with_capacity(paths.len());
    while let Some(path) = paths.pop_first() {
        if disk.lstat(&path).is_some_and(|inode| inode.kind != Kind::Dir) {
            ordered.extend(paths.extract_if(.., |other| other.is_below(&path)));
        }
        ordered.push(path);
    }
    ordered
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
    in_order(paths, disk)
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

/// Looks at one path; `None` if all is as believed.
#[must_use]
pub fn look(
    path: &RelPath,
    disk: &FakeDisk,
    tables: &Tables,
    seen_at: BootInstant,
    found_by: FoundBy,
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
        found_by,
    })
}

/// Makes durable what changes tell of; to be done before they are told.
pub fn make_durable(changes: &[LocalChange], disk: &mut FakeDisk) {
    for change in changes {
        disk.sync(&Place::Folder(change.path.clone()));
    }
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::tree::Installed;

    use super::*;
    use crate::sim::disk::{Inode, Kind};
    use crate::sim::rng::Rng;

    #[test]
    fn a_power_cut_leaves_what_was_told() {
        let path = |s: &str| RelPath::parse(s).unwrap();
        for seed in 0..100 {
            let mut disk = FakeDisk::default();
            disk.create(&path("a"), Kind::File(b"old".to_vec()), 0o644, 0);
            disk.write(&path("a"), b"new".to_vec(), 1);
            disk.rename(&path("a"), &path("b"));
            let told = look(
                &path("b"),
                &disk,
                &Tables::default(),
                BootInstant::default(),
                FoundBy::Look,
            );
            make_durable(&Vec::from_iter(told), &mut disk);
            disk.power_cut(&mut Rng::new(seed));
            assert!(disk.lstat(&path("a")).is_none());
            assert_eq!(disk.lstat(&path("b")).unwrap().kind, Kind::File(b"new".to_vec()));
        }
    }

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
            .filter_map(|path| look(path, &disk, &tables, BootInstant::default(), FoundBy::Scan))
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
