//! The cases in which an earlier version of the rules failed (ledger.md 4), each over the rules as they are written
//! ([`fold_set`]) and over one version at a time ([`PathState::apply`]). Case (b) is about leases and has no form
//! without them.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::fold::set::{Outcome, fold_set};
use p2p_sync_core::fold::{PathState, Standing, Version, WriteOrder};
use p2p_sync_core::ids::{ContentHash, Dot, EventId, ShortId};
use p2p_sync_core::time::Hlc;
use p2p_sync_core::tree::{Entry, Node};

const A: u8 = 0;
const B: u8 = 1;
const C: u8 = 2;

#[test]
fn a_base_that_its_author_had_not_seen_is_void_and_erases_nothing() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let unseen = dot(A, 1);
    path.void(B, 2, &[unseen]);
    let save = path.put(A, 3, "two", &[first]);
    let outcome = path.check();
    assert_eq!(outcome.winner, Some(save));
    assert_eq!(outcome.heads, [save]);
}

#[test]
fn discarding_a_copy_leaves_the_file() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let loser = path.put(B, 2, "two", &[first]);
    let winner = path.put(C, 3, "three", &[first]);
    assert_eq!(path.check().copies, [loser]);
    path.discard(&[loser]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(winner), vec![]));
}

#[test]
fn discarding_the_winner_shows_the_other_edit() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let other = path.put(B, 2, "two", &[first]);
    let winner = path.put(C, 3, "three", &[first]);
    path.discard(&[winner]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(other), vec![]));
}

#[test]
fn editing_a_copy_in_place_leaves_the_file_where_it_is() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let copy = path.put(B, 2, "two", &[first]);
    let winner = path.put(C, 3, "three", &[first]);
    // The edited copy becomes a file of its own name; here only its Discard is seen.
    path.discard(&[copy]);
    assert_eq!(path.check().winner, Some(winner));

    let mut own_name = Path::default();
    let edited = own_name.put(A, 4, "two, edited", &[]);
    assert_eq!(own_name.check().winner, Some(edited));
}

#[test]
fn adopting_a_copy_replaces_both() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let copy = path.put(B, 2, "two", &[first]);
    let winner = path.put(C, 3, "three", &[first]);
    let adopted = path.put(A, 4, "two", &[winner, copy]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.heads), (Some(adopted), vec![adopted]));
}

#[test]
fn devices_with_the_same_files_get_no_copy_at_the_first_edit() {
    let mut path = Path::default();
    let mine = path.import(A, 1, "one");
    let yours = path.import(B, 2, "one");
    assert_eq!(path.check().copies, []);
    let edit = path.put(A, 3, "two", &[mine, yours]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(edit), vec![]));
}

#[test]
fn an_edit_made_before_its_twin_was_known_replaces_the_twin() {
    let mut path = Path::default();
    let mine = path.import(A, 1, "one");
    path.import(B, 2, "one");
    let edit = path.put(A, 3, "two", &[mine]);
    let outcome = path.check();
    assert_eq!(outcome.winner, Some(edit));
    assert_eq!(outcome.heads, [edit]);
}

#[test]
fn a_twin_made_after_the_edit_is_a_copy() {
    let mut path = Path::default();
    let mine = path.import(A, 1, "one");
    let edit = path.put(A, 2, "two", &[mine]);
    let later = path.import(B, 9, "one");
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(edit), vec![later]));
}

#[test]
fn a_stale_joiner_never_wins() {
    let mut path = Path::default();
    let first = path.import(A, 1, "one");
    let edit = path.put(A, 2, "two", &[first]);
    let joiner = path.import(B, 99, "seven");
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(edit), vec![joiner]));
}

#[test]
fn a_later_touch_does_not_beat_an_edit() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let edit = path.put(A, 2, "two", &[first]);
    path.put(B, 3, "one", &[first]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(edit), vec![]));
}

#[test]
fn a_touch_does_not_hide_the_bytes_of_a_conflict() {
    let mut path = Path::default();
    let mine = path.put(A, 1, "mine", &[]);
    let yours = path.put(B, 2, "yours", &[]);
    let touch = path.put(A, 3, "mine", &[mine]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(yours), vec![touch]));
}

#[test]
fn a_touch_of_the_winner_leaves_it_the_winner() {
    let mut path = Path::default();
    let loser = path.put(A, 1, "loser", &[]);
    let winner = path.put(B, 2, "winner", &[]);
    let touch = path.put(B, 3, "winner", &[winner]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(touch), vec![loser]));
}

#[test]
fn deleting_an_edit_does_not_bring_back_what_was_only_touched_beside_it() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let edit = path.put(B, 2, "two", &[first]);
    path.put(C, 3, "one", &[first]);
    let delete = path.delete(A, 4, &[edit]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.heads), (Some(delete), vec![delete]));
}

#[test]
fn discarding_a_copy_that_somebody_touches_is_final() {
    let mut path = Path::default();
    let mine = path.put(A, 1, "mine", &[]);
    let yours = path.put(B, 2, "yours", &[]);
    path.discard(&[mine]);
    path.put(A, 3, "mine", &[mine]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(yours), vec![]));
}

#[test]
fn a_touch_of_two_twins_stays_for_the_one_that_is_left() {
    let mut path = Path::default();
    let mine = path.put(A, 5, "one", &[]);
    let yours = path.put(B, 9, "one", &[]);
    let touch = path.put(A, 10, "one", &[mine, yours]);
    let edit = path.put(C, 7, "two", &[mine]);
    let outcome = path.check();
    assert_eq!((outcome.winner, outcome.copies), (Some(touch), vec![edit]));
}

#[test]
fn void_versions_that_some_hold_make_no_difference() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let void = path.void(B, 2, &[first]);
    let edit = path.put(C, 3, "two", &[void]);
    let outcome = path.check();
    assert_eq!(
        outcome.winner,
        Some(edit),
        "a new file beats a name without a base"
    );
    assert_eq!(outcome.heads, [first, edit], "supersession stops at what is void");
}

#[test]
fn an_edit_beats_a_delete_made_beside_it() {
    let mut path = Path::default();
    let first = path.put(A, 1, "one", &[]);
    let edit = path.put(A, 2, "two", &[first]);
    path.delete(B, 9, &[first]);
    assert_eq!(path.check().winner, Some(edit));
}

/// One path's versions in the order in which they are told, which respects what their authors had seen.
#[derive(Default)]
struct Path {
    told: Vec<Told>,
    next: BTreeMap<u8, u64>,
}

enum Told {
    Version(Version),
    Void,
    Discard(Vec<Dot>),
}

impl Path {
    fn put(&mut self, device: u8, hlc: u64, content: &str, base: &[Dot]) -> Dot {
        self.tell(device, hlc, Some(content), base, false)
    }

    fn import(&mut self, device: u8, hlc: u64, content: &str) -> Dot {
        self.tell(device, hlc, Some(content), &[], true)
    }

    fn delete(&mut self, device: u8, hlc: u64, base: &[Dot]) -> Dot {
        self.tell(device, hlc, None, base, false)
    }

    /// A version that is not in keeping with the base rule, or by a device without a role.
    fn void(&mut self, device: u8, _hlc: u64, _base: &[Dot]) -> Dot {
        self.told.push(Told::Void);
        self.take_dot(device)
    }

    fn discard(&mut self, drop: &[Dot]) {
        self.told.push(Told::Discard(drop.to_vec()));
    }

    fn tell(&mut self, device: u8, hlc: u64, content: Option<&str>, base: &[Dot], import: bool) -> Dot {
        let dot = self.take_dot(device);
        let entry = content.map(entry);
        let base_versions: Vec<Version> = self
            .versions()
            .into_iter()
            .filter(|v| base.contains(&v.dot))
            .collect();
        self.told.push(Told::Version(Version {
            dot,
            event: EventId::new([device; 32]),
            hlc: Hlc::from_bits(hlc),
            origins: Version::origins_of(entry.as_ref(), &base_versions),
            entry,
            base: base.to_vec(),
            import,
            standing: Standing::default(),
        }));
        dot
    }

    fn take_dot(&mut self, device: u8) -> Dot {
        let next = self.next.entry(device).or_default();
        *next += 1;
        dot(device, *next - 1)
    }

    fn versions(&self) -> Vec<Version> {
        let versions = self.told.iter().filter_map(|told| match told {
            Told::Version(version) => Some(version.clone()),
            Told::Void | Told::Discard(_) => None,
        });
        versions.collect()
    }

    /// Folds both ways and expects the same.
    fn check(&self) -> Outcome {
        let discarded: BTreeSet<Dot> = self
            .told
            .iter()
            .filter_map(|told| match told {
                Told::Discard(drop) => Some(drop.clone()),
                Told::Void | Told::Version(_) => None,
            })
            .flatten()
            .collect();
        let whole = fold_set(&self.versions(), &discarded);
        assert_eq!(self.one_at_a_time(), whole);
        whole
    }

    fn one_at_a_time(&self) -> Outcome {
        let mut state = PathState::default();
        let mut known: BTreeMap<Dot, Version> = BTreeMap::new();
        let mut replaced: BTreeMap<Node, WriteOrder> = BTreeMap::new();
        for told in &self.told {
            match told {
                Told::Void => {}
                Told::Discard(drop) => {
                    let dropped: Vec<Version> =
                        drop.iter().filter_map(|dot| known.get(dot).cloned()).collect();
                    state.discard(&dropped);
                }
                Told::Version(version) => {
                    let base: Vec<Version> = version
                        .base
                        .iter()
                        .filter_map(|dot| known.get(dot).cloned())
                        .collect();
                    let by = version.node().and_then(|node| replaced.get(node).copied());
                    let order = version.order();
                    for node in state.apply(version.clone(), &base, by).replaced {
                        let greatest = replaced.entry(node).or_insert(order);
                        *greatest = order.max(*greatest);
                    }
                    known.insert(version.dot, version.clone());
                }
            }
        }
        Outcome {
            winner: state.winner().map(|v| v.dot),
            copies: state.copies().iter().map(|v| v.dot).collect(),
            heads: state.heads.iter().map(|v| v.dot).collect(),
            fenced: state.fenced.iter().map(|v| v.dot).collect(),
        }
    }
}

fn dot(device: u8, seq: u64) -> Dot {
    Dot {
        device: ShortId::new([device; 8]),
        seq,
        item: 0,
    }
}

fn entry(content: &str) -> Entry {
    Entry {
        node: Node::File {
            content: ContentHash::of(content.as_bytes()),
            size: content.len() as u64,
        },
        mode: 0o644,
        mtime_ns: 0,
    }
}
