//! RFC 6962 trees: heads, inclusion and consistency proofs, and the peaks that let a log grow without its leaves.
//!
//! Source: RFC 6962, section 2.1; verification as in RFC 9162, 2.1.3.2 and 2.1.4.2. Hash: SHA-256.

use sha2::{Digest, Sha256};

/// A node's hash.
pub type Hash = [u8; 32];

/// Returns the hash of a leaf: SHA-256(0x00 ‖ data).
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    hasher.finalize().into()
}

/// Returns the hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// Returns the head of the empty tree: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Returns the head of the tree over these leaf hashes.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    let mut peaks = Peaks::default();
    leaves.iter().for_each(|leaf| peaks.push(*leaf));
    peaks.root()
}

/// The heads of the complete subtrees of a growing tree, largest first: all that appending needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peaks {
    size: u64,
    peaks: Vec<Hash>,
}

impl Peaks {
    /// Takes up peaks that were stored; `None` if their number does not fit the size.
    #[must_use]
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// Returns peaks of a tree of which only the size counts; its head means nothing.
    #[must_use]
    pub(crate) const fn unknown(size: u64) -> Self {
        Self {
            size,
            peaks: Vec::new(),
        }
    }

    /// Returns the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the peaks, largest subtree first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Returns the tree head.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

fn split(len: usize) -> usize {
    (len.next_power_of_two() / 2).max(1)
}

/// Returns the audit path of leaf `index` in the tree over `leaves` (RFC 6962 2.1.1); empty if there is no such leaf.
#[must_use]
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 || index >= leaves.len() {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (mut proof, sibling) = if index < k {
        (inclusion_proof(&leaves[..k], index), root(&leaves[k..]))
    } else {
        (inclusion_proof(&leaves[k..], index - k), root(&leaves[..k]))
    };
    proof.push(sibling);
    proof
}

/// The audit path of one leaf, made in one pass over a tree's leaves, of which none is kept.
#[derive(Debug)]
pub struct InclusionPath {
    /// The sibling subtrees, deepest first: the leaves they begin and end with, and what came of them so far.
    siblings: Vec<(std::ops::Range<u64>, Peaks)>,
    next: u64,
    size: u64,
}

impl InclusionPath {
    /// Begins the path of leaf `index` in a tree of `size` leaves; `None` if there is no such leaf.
    #[must_use]
    pub fn new(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut from, mut to) = (0, size);
        let mut siblings = Vec::new();
        while to - from > 1 {
            // The greatest power of two below the number of leaves.
            let middle = from + (1 << (to - from - 1).ilog2());
            let sibling = if index < middle {
                let right = middle..to;
                to = middle;
                right
            } else {
                let left = from..middle;
                from = middle;
                left
            };
            siblings.push((sibling, Peaks::default()));
        }
        siblings.reverse();
        Some(Self {
            siblings,
            next: 0,
            size,
        })
    }

    /// Takes the tree's next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let at = self.next;
        self.next += 1;
        if let Some((_, peaks)) = self.siblings.iter_mut().find(|(range, _)| range.contains(&at)) {
            peaks.push(leaf);
        }
    }

    /// Returns the path; `None` unless exactly all leaves were taken.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Hash>> {
        (self.next == self.size).then(|| self.siblings.iter().map(|(_, peaks)| peaks.root()).collect())
    }
}

/// Says whether `proof` shows that `leaf` is leaf `index` of the tree of `size` leaves with head `root`.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut f, mut s, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if s == 0 {
            return false;
        }
        if f & 1 == 1 || f == s {
            hash = node_hash(sibling, &hash);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        f >>= 1;
        s >>= 1;
    }
    s == 0 && hash == *root
}

/// Returns the proof that the tree over the first `old` leaves is a prefix of the tree over all (RFC 6962 2.1.2).
#[must_use]
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Vec<Hash> {
    fn sub(leaves: &[Hash], old: usize, whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![root(leaves)] };
        }
        let k = split(leaves.len());
        let (mut proof, sibling) = if old <= k {
            (sub(&leaves[..k], old, whole), root(&leaves[k..]))
        } else {
            (sub(&leaves[k..], old - k, false), root(&leaves[..k]))
        };
        proof.push(sibling);
        proof
    }
    if old == 0 || old > leaves.len() {
        Vec::new()
    } else {
        sub(leaves, old, true)
    }
}

/// Says whether `proof` shows that the tree (`old`, `old_root`) is a prefix of the tree (`new`, `new_root`).
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let mut path = proof.iter();
    let first = if old.is_power_of_two() {
        Some(old_root)
    } else {
        path.next()
    };
    let Some(first) = first else { return false };
    let (mut f, mut s) = (old - 1, new - 1);
    while f & 1 == 1 {
        f >>= 1;
        s >>= 1;
    }
    let (mut fr, mut sr) = (*first, *first);
    for c in path {
        if s == 0 {
            return false;
        }
        if f & 1 == 1 || f == s {
            fr = node_hash(c, &fr);
            sr = node_hash(c, &sr);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        } else {
            sr = node_hash(&sr, c);
        }
        f >>= 1;
        s >>= 1;
    }
    fr == *old_root && sr == *new_root && s == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&(i as u64).to_be_bytes())).collect()
    }

    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            more => {
                let (l, r) = more.split_at(split(more.len()));
                node_hash(&naive_root(l), &naive_root(r))
            }
        }
    }

    /// The vectors of the Certificate Transparency reference implementation.
    #[test]
    fn known_roots() {
        assert_eq!(
            HEXLOWER.encode(&empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let data: [&[u8]; 3] = [&[], &[0], &[0x10]];
        let hashes: Vec<_> = data.iter().map(|d| leaf_hash(d)).collect();
        assert_eq!(
            HEXLOWER.encode(&root(&hashes)),
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
        );
    }

    #[test]
    fn peaks_give_the_root_of_every_prefix() {
        let all = leaves(130);
        let mut peaks = Peaks::default();
        for n in 0..=all.len() {
            assert_eq!(peaks.root(), naive_root(&all[..n]), "{n}");
            assert_eq!(
                Peaks::from_parts(n as u64, peaks.hashes().to_vec()),
                Some(peaks.clone())
            );
            if n < all.len() {
                peaks.push(all[n]);
            }
        }
    }

    #[test]
    fn inclusion_proofs_hold_and_tampered_ones_do_not() {
        for n in (1..70).chain([255, 256, 257, 1000]) {
            let all = leaves(n);
            let head = root(&all);
            for i in (0..n).step_by(1 + n / 40) {
                let proof = inclusion_proof(&all, i);
                assert!(
                    verify_inclusion(&all[i], i as u64, n as u64, &proof, &head),
                    "{i} of {n}"
                );
                let other = leaf_hash(b"other");
                assert!(!verify_inclusion(&other, i as u64, n as u64, &proof, &head));
                assert!(!verify_inclusion(&all[i], n as u64, n as u64, &proof, &head));
                for bit in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[bit][3] ^= 4;
                    assert!(!verify_inclusion(&all[i], i as u64, n as u64, &bad, &head));
                }
                let mut long = proof.clone();
                long.push(other);
                assert!(!verify_inclusion(&all[i], i as u64, n as u64, &long, &head));
            }
        }
    }

    #[test]
    fn a_path_made_in_one_pass_is_the_audit_path() {
        for n in (1..70).chain([255, 256, 257]) {
            let all = leaves(n);
            for i in 0..n {
                let mut path = InclusionPath::new(i as u64, n as u64).unwrap();
                all.iter().for_each(|leaf| path.push(*leaf));
                assert_eq!(path.finish(), Some(inclusion_proof(&all, i)), "{i} of {n}");
            }
        }
        assert!(InclusionPath::new(3, 3).is_none());
        assert!(InclusionPath::new(0, 1).unwrap().finish().is_none());
    }

    #[test]
    fn consistency_proofs_hold_and_tampered_ones_do_not() {
        for n in (1..40).chain([127, 128, 129]) {
            let all = leaves(n);
            let head = root(&all);
            for old in 1..=n {
                let before = root(&all[..old]);
                let proof = consistency_proof(&all, old);
                assert!(
                    verify_consistency(old as u64, &before, n as u64, &head, &proof),
                    "{old} in {n}"
                );
                if old < n {
                    let wrong = leaf_hash(b"wrong");
                    assert!(!verify_consistency(old as u64, &wrong, n as u64, &head, &proof));
                    assert!(!verify_consistency(old as u64, &before, n as u64, &wrong, &proof));
                }
            }
        }
    }
}
