//! What a disk has not made durable yet, and what of it is left after the power failed.
//!
//! As ext4 in its ordinary mode: names, modes and times become durable in the order in which they were changed, and an
//! fsync of anything makes all of them durable that were changed before. Bytes become durable by an fsync of their file,
//! or after half a minute. A file whose bytes are not may be found empty, cut off, or, if it was written in place, as it
//! was before; never with other bytes of the same length and the times of the new ones, since no scanner could see that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use p2p_sync_core::ids::ContentHash;

use super::files::{Files, Op};
use crate::sim::rng::Rng;

/// After how long everything is durable.
const FLUSH_MS: u64 = 30_000;

/// A change on its way to the disk.
#[derive(Debug, Clone)]
struct Pending {
    op: Op,
    at_ms: u64,
    /// Whether its bytes are durable.
    synced: bool,
    by_user: bool,
}

/// What is durable, and what is not yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    durable: Files,
    pending: VecDeque<Pending>,
    /// So many of the first that are pending are durable but for their bytes.
    committed: usize,
}

/// What a power cut took.
#[derive(Debug, Default)]
pub struct Loss {
    /// What users wrote and is not in the folder any more.
    pub contents: BTreeSet<ContentHash>,
    /// Whether a user's change was lost, of whatever kind.
    pub of_users: bool,
}

/// What becomes of bytes that are not durable.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Whole,
    /// So many hundredths of them are there.
    Torn(u64),
    /// Those before are there.
    Skipped,
}

impl Cache {
    pub(super) fn note(&mut self, op: Op, at_ms: u64, by_user: bool) {
        let synced = op.data_of().is_none();
        self.pending.push_back(Pending {
            op,
            at_ms,
            synced,
            by_user,
        });
        self.flush(at_ms);
    }

    /// Makes the bytes of an inode durable, and all names.
    pub(super) fn sync(&mut self, ino: Option<u64>, now_ms: u64) {
        for pending in &mut self.pending {
            pending.synced |= ino.is_some() && pending.op.ino() == ino;
        }
        self.committed = self.pending.len();
        self.flush(now_ms);
    }

    fn flush(&mut self, now_ms: u64) {
        while let Some(first) = self.pending.front() {
            let is_old = first.at_ms + FLUSH_MS <= now_ms;
            if !is_old && (self.committed == 0 || !first.synced) {
                return;
            }
            if let Some(first) = self.pending.pop_front() {
                self.committed = self.committed.saturating_sub(1);
                self.durable.apply(first.op);
            }
        }
    }

    /// The power fails: leaves only what is durable, and some more of what is pending. Returns what is on the disk then.
    pub(super) fn power_cut(&mut self, now_ms: u64, rng: &mut Rng) -> (Files, Loss) {
        self.flush(now_ms);
        let open = self.pending.len() - self.committed;
        let kept = self.committed + rng.index(open + 1);
        let mut loss = Loss::default();
        let (mut written, mut torn) = (BTreeSet::new(), BTreeSet::new());
        let all: Vec<Pending> = self.pending.drain(..).collect();
        self.committed = 0;
        let fates = fates(&all[..kept], rng);
        for (index, mut pending) in all.into_iter().enumerate() {
            if let Some((_, bytes)) = pending.op.content_of().filter(|_| pending.by_user) {
                written.insert(ContentHash::of(bytes));
            }
            if index >= kept {
                loss.of_users |= pending.by_user;
                continue;
            }
            let data = pending.op.data_of().map(|(ino, bytes)| (ino, bytes.len()));
            let fate = data.and_then(|(ino, len)| Some((*fates.get(&ino)?, len)));
            match fate.filter(|_| !pending.synced) {
                Some((Fate::Skipped, _)) => {
                    loss.of_users |= pending.by_user;
                    continue;
                }
                Some((Fate::Torn(part), len)) => {
                    loss.of_users |= pending.by_user;
                    // What is left of the file passes for its user's edit of what is lost.
                    let content = pending.op.content_of().filter(|_| pending.by_user);
                    torn.extend(content.map(|(_, bytes)| ContentHash::of(bytes)));
                    let part = len as u64 * part / 100;
                    pending.op.tear(usize::try_from(part).unwrap_or(0));
                }
                Some((Fate::Whole, _)) | None => {}
            }
            self.durable.apply(pending.op);
        }
        let is_there = |content: &ContentHash| {
            let mut inodes = self.durable.folder.values();
            inodes.any(|inode| inode.entry().node.content() == Some(*content))
        };
        let lost = written.into_iter().filter(|content| !is_there(content));
        loss.contents = lost.chain(torn).collect();
        (self.durable.clone(), loss)
    }
}

/// Draws what becomes of each inode with bytes that are not durable.
fn fates(kept: &[Pending], rng: &mut Rng) -> BTreeMap<u64, Fate> {
    let mut fates = BTreeMap::new();
    for pending in kept.iter().filter(|pending| !pending.synced) {
        let Some((ino, _)) = pending.op.data_of() else {
            continue;
        };
        let changes = kept.iter().filter(|other| other.op.ino() == Some(ino)).count();
        let in_place = matches!(pending.op, Op::Write { .. });
        fates.entry(ino).or_insert_with(|| match rng.below(4) {
            0 => Fate::Whole,
            1 => Fate::Torn(0),
            2 if in_place && changes == 1 => Fate::Skipped,
            _ => Fate::Torn(rng.below(100)),
        });
    }
    fates
}
