//! How a write stands to the locks on its path (ledger.md 4, rules 1 and 2).
//!
//! A lock **covers** a path if it is on it, or on a directory above it. Of all locks on a path that an author had heard of,
//! the one with the greatest token is the one he **knew**. His write is **in turn** if he held that lock, or knew it to be
//! over, or knew none. It is **fenced** if it is out of turn, or if somebody took a lock with a greater token who had not
//! heard of the write.
//!
//! Events arrive in an order that respects what their authors had heard of. So a write that arrives is judged by the
//! greatest lock alone: if its author had not heard of that one, it is fenced, and if he had, it is the one he knew. A lock
//! that arrives fences the writes that its holder had not heard of and that knew a smaller one.

use crate::ids::{DeviceId, Dot};
use crate::lock::Token;

/// How a version stands to the locks on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Standing {
    /// The token of the lock that its author held; zero: none, or it is fenced.
    pub token: Token,
    /// The greatest token of a lock that its author held or knew to be over; zero: none, or it is fenced.
    pub knew: Token,
    /// Whether it was made while somebody else held a lock, so that it does not become the file.
    pub fenced: bool,
}

/// A lock, as far as it decides about writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The item that granted it.
    pub grant: Dot,
    /// Its token.
    pub token: Token,
    /// Who held it.
    pub holder: DeviceId,
    /// The items that end it, none of which had heard of another.
    pub ends: Vec<Dot>,
}

/// The locks with the greatest token on a path, or on a directory with all below it: one, unless voters lied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fences(Vec<Fence>);

impl Fences {
    /// Returns those that this list says; `None` if they are not of one token.
    #[must_use]
    pub fn from_vec(fences: Vec<Fence>) -> Option<Self> {
        let one = fences.iter().all(|fence| fence.token == fences[0].token);
        one.then_some(Self(fences))
    }

    /// Returns them all.
    #[must_use]
    pub fn as_slice(&self) -> &[Fence] {
        &self.0
    }

    /// Takes up a lock; one that is there, or has a smaller token, changes nothing.
    pub fn add(&mut self, fence: Fence) {
        let known = self.0.first().map(|known| known.token);
        if known.is_none_or(|known| known < fence.token) {
            self.0.clear();
        }
        let is_known = self.0.iter().any(|known| known.grant == fence.grant);
        if !is_known && known.is_none_or(|known| known <= fence.token) {
            self.0.push(fence);
        }
    }

    /// Takes up that a lock is over, as one says who had not heard of another end.
    pub fn end(&mut self, grant: Dot, end: Dot) {
        let ended = self.0.iter_mut().filter(|fence| fence.grant == grant);
        ended.for_each(|fence| fence.ends.push(end));
    }
}

/// What the author of a write had heard of.
pub trait Past {
    /// Says whether an item, here the place of one, comes before the write.
    fn has(&self, place: Dot) -> bool;
}

impl<F: Fn(Dot) -> bool> Past for F {
    fn has(&self, place: Dot) -> bool {
        self(place)
    }
}

impl Standing {
    /// It was made while somebody else held a lock; which ones its author knew is no matter any more.
    const FENCED: Self = Self {
        token: Token { epoch: 0, n: 0 },
        knew: Token { epoch: 0, n: 0 },
        fenced: true,
    };

    /// Judges a write that arrives after all that its author had heard of, by the locks that are known on its path.
    #[must_use]
    pub fn judge<'a>(
        author: &DeviceId,
        past: &impl Past,
        fences: impl IntoIterator<Item = &'a Fences>,
    ) -> Self {
        let all: Vec<&Fence> = fences.into_iter().flat_map(|fences| &fences.0).collect();
        let Some(top) = all.iter().map(|fence| fence.token).max() else {
            return Self::default();
        };
        let met = || {
            all.iter()
                .filter(|fence| fence.token == top && past.has(fence.grant))
        };
        let is_open = |fence: &&&Fence| !fence.ends.iter().any(|end| past.has(*end));
        let held = met().filter(is_open).any(|fence| fence.holder == *author);
        let others = met().any(|fence| is_open(&fence));
        if met().next().is_none() || (others && !held) {
            return Self::FENCED;
        }
        Self {
            token: if held { top } else { Token::default() },
            knew: top,
            fenced: false,
        }
    }

    /// Takes up a lock that arrives, whose holder has heard of the write or not. Says whether the write is fenced by it and
    /// was not.
    pub fn meet(&mut self, lock: Token, heard_of: bool) -> bool {
        let fences = !self.fenced && !heard_of && self.knew < lock;
        if fences {
            *self = Self::FENCED;
        }
        fences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShortId;

    const HOLDER: DeviceId = DeviceId::new([1; 32]);
    const OTHER: DeviceId = DeviceId::new([2; 32]);

    fn dot(seq: u64) -> Dot {
        Dot {
            device: ShortId::new([1; 8]),
            seq,
            item: 0,
        }
    }

    fn token(n: u64) -> Token {
        Token { epoch: 0, n }
    }

    fn fence(n: u64, grant: u64, end: Option<u64>) -> Fences {
        let mut fences = Fences::default();
        fences.add(Fence {
            grant: dot(grant),
            token: token(n),
            holder: HOLDER,
            ends: Vec::new(),
        });
        end.into_iter().for_each(|end| fences.end(dot(grant), dot(end)));
        fences
    }

    fn heard(size: u64) -> impl Past {
        move |place: Dot| place.seq < size
    }

    #[test]
    fn a_write_counts_if_its_author_held_the_newest_lock_or_knew_it_to_be_over() {
        let lock = [fence(3, 5, Some(8))];
        let held = Standing {
            token: token(3),
            knew: token(3),
            fenced: false,
        };
        let after = Standing {
            token: token(0),
            ..held
        };
        let out = Standing::FENCED;
        for (author, size, expected) in [
            (HOLDER, 5, out),
            (HOLDER, 6, held),
            (HOLDER, 9, after),
            (OTHER, 5, out),
            (OTHER, 6, out),
            (OTHER, 9, after),
        ] {
            assert_eq!(Standing::judge(&author, &heard(size), &lock), expected, "{size}");
        }
        let none: [Fences; 1] = Default::default();
        assert_eq!(Standing::judge(&OTHER, &heard(0), &none), Standing::default());
    }

    #[test]
    fn only_the_greatest_locks_are_kept_and_each_once() {
        let mut locks = fence(3, 5, Some(8));
        for (n, grant) in [(2, 6), (3, 5), (3, 9)] {
            locks.add(fence(n, grant, None).0.remove(0));
        }
        let kept = |locks: &Fences| locks.0.iter().map(|lock| lock.grant.seq).collect::<Vec<_>>();
        assert_eq!(kept(&locks), [5, 9]);
        assert_eq!(locks.0[0].ends, [dot(8)]);
        locks.add(fence(4, 10, None).0.remove(0));
        assert_eq!(kept(&locks), [10]);
    }

    #[test]
    fn of_two_locks_with_one_token_who_holds_either_is_in_turn() {
        let mut locks = fence(3, 5, None);
        locks.add(Fence {
            holder: OTHER,
            ..fence(3, 6, None).0.remove(0)
        });
        let locks = [locks];
        assert!(Standing::judge(&OTHER, &heard(6), &locks).fenced);
        assert_eq!(Standing::judge(&OTHER, &heard(7), &locks).token, token(3));
        assert_eq!(Standing::judge(&HOLDER, &heard(6), &locks).token, token(3));
    }

    #[test]
    fn the_lock_with_the_greatest_token_decides() {
        let locks = [fence(3, 5, Some(6)), fence(7, 9, None), fence(2, 1, Some(2))];
        assert!(Standing::judge(&OTHER, &heard(7), &locks).fenced);
        assert_eq!(Standing::judge(&HOLDER, &heard(10), &locks).token, token(7));
    }

    #[test]
    fn a_lock_fences_what_its_holder_had_not_heard_of_unless_that_knew_a_greater_one() {
        let write = |knew| Standing {
            knew: token(knew),
            ..Standing::default()
        };
        for (knew, heard_of, fenced) in [
            (0, false, true),
            (0, true, false),
            (4, false, true),
            (5, false, false),
        ] {
            let mut met = write(knew);
            assert_eq!(met.meet(token(5), heard_of), fenced, "{knew}");
            assert_eq!(met.fenced, fenced);
            assert!(!met.meet(token(5), heard_of));
        }
    }
}
