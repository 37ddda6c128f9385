use p2p_sync_core::fold::Standing;
use p2p_sync_core::ids::{EventId, ShortId};
use p2p_sync_core::time::Hlc;

use super::*;

fn dot(device: u8, seq: u64) -> Dot {
    Dot {
        device: ShortId::new([device; 8]),
        seq,
        item: 0,
    }
}

fn version(device: u8, seq: u64, ms: u64, bytes: Option<&str>, base: &[Dot]) -> Version {
    let entry = bytes.map(|bytes| Entry {
        node: Node::File {
            content: ContentHash::of(bytes.as_bytes()),
            size: bytes.len() as u64,
        },
        mode: 0o644,
        mtime_ns: 0,
    });
    Version {
        dot: dot(device, seq),
        event: EventId::new([device; 32]),
        hlc: Hlc::default().next(ms),
        entry,
        base: base.to_vec(),
        import: false,
        origins: Vec::new(),
        standing: Standing::default(),
    }
}

/// Written, overwritten by another, deleted, written again, and a concurrent edit of the first.
fn versions() -> Vec<Version> {
    vec![
        version(1, 0, 1_000, Some("one"), &[]),
        version(2, 0, 2_000, Some("two"), &[dot(1, 0)]),
        version(1, 1, 3_000, None, &[dot(2, 0)]),
        version(3, 0, 3_500, Some("side"), &[dot(1, 0)]),
        version(2, 1, 4_000, Some("three"), &[dot(1, 1), dot(3, 0)]),
    ]
}

fn stood(before_ms: u64) -> Option<Version> {
    let mut versions = versions();
    versions.retain(|version| version.hlc.wall_ms() < before_ms);
    fold(versions).winner().cloned()
}

#[test]
fn what_stood_there_is_the_fold_of_what_was_written_before() {
    let at = |ms| stood(ms).map(|version| version.dot);
    assert_eq!(at(1_000), None);
    assert_eq!(at(1_001), Some(dot(1, 0)));
    assert_eq!(at(2_001), Some(dot(2, 0)));
    assert_eq!(at(3_001), Some(dot(1, 1)));
    assert!(stood(3_001).unwrap().entry.is_none(), "it was deleted then");
    assert_eq!(at(3_501), Some(dot(3, 0)));
    assert_eq!(at(u64::MAX), Some(dot(2, 1)));
}

fn listed() -> Vec<Row> {
    let state = fold(versions());
    let mut versions = versions();
    versions.sort_by_key(|version| std::cmp::Reverse(version.order()));
    versions.iter().map(|version| row(version, &state)).collect()
}

#[test]
fn the_newest_other_version_is_neither_current_nor_a_deletion() {
    assert_eq!(newest(listed()).unwrap().dot, Some(dot(3, 0)));
    let deleted: Vec<Row> = listed()
        .into_iter()
        .skip(2)
        .map(|mut row| {
            row.version.current = row.version.entry.is_none();
            row
        })
        .collect();
    assert_eq!(newest(deleted).unwrap().dot, Some(dot(2, 0)));
    assert!(newest(listed().into_iter().take(1).collect()).is_none());
}

#[test]
fn a_version_is_named_by_its_id_or_an_unambiguous_beginning() {
    let named = |id: &str| by_id(listed(), id).and_then(|row| row.dot);
    assert_eq!(id_of(dot(3, 17)), "03030303-17-0");
    assert_eq!(named("03030303-0-0"), Some(dot(3, 0)));
    assert_eq!(named("0303"), Some(dot(3, 0)));
    assert_eq!(named("0101"), None);
    assert_eq!(named("01010101-1"), Some(dot(1, 1)));
    assert_eq!((named(""), named("04")), (None, None));
}
