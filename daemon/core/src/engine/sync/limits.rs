//! How much a peer may tell us unasked: events it pushes, and announcements it passes on.
//!
//! Both are hints. What is beyond the rate is left aside, acknowledged or not looked at, and nothing is lost with it: a
//! little later heads are compared with that peer, and what we lack is pulled, in our order and at our pace. So a rate is
//! never a rule of what is valid, and who keeps to it is never asked more than others are.
//!
//! A peer that was limited stays so until that comparison: with a token now and then it would only have one event taken
//! in two, and each of them would find a gap before it and begin a pull of its own.
//!
//! Nothing here survives a restart and nothing needs to. A budget outlives a connection, so that a new one is no new
//! budget; it is forgotten when it is whole again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Asked, Notification, Peers, SyncEngine};
use crate::ids::DeviceId;
use crate::ledger::SignedEvent;
use crate::time::{BootInstant, Now};

/// Events of one sender that are checked without having been asked for: as many as an honest daemon publishes, which is
/// one every 50 ms. To check one takes 42 µs and the hashing of its body.
const PUSHES: Rate = Rate {
    per_second: 20,
    burst: 200,
};
/// Announcements that are looked at of those which one neighbour passes on. They are of all devices, so there are more;
/// each is a look-up, and begins at most one comparison of heads every half second.
const ANNOUNCEMENTS: Rate = Rate {
    per_second: 100,
    burst: 1_000,
};
/// After a peer was limited, until heads are compared with it and it may push again.
const PAUSE: Duration = Duration::from_secs(2);
/// Questions for heads that one peer has not answered yet. It can make us ask as often as it says that it lacks or has
/// something, and may leave each unanswered until it times out.
const MAX_ASKED: usize = 4;
/// Between two notices that a peer is limited: it may go on for days.
const NOTICE: Duration = Duration::from_secs(60);

/// How fast a budget grows, and how far.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u64,
    burst: u64,
}

/// What is left of a budget, in thousandths: with whole ones, many short times would add up to nothing.
#[derive(Debug, Clone, Copy)]
struct Budget {
    left_milli: u64,
    at: BootInstant,
}

/// What one peer has left.
#[derive(Debug)]
struct Allowance {
    pushes: Budget,
    announcements: Budget,
    /// Until when nothing of it is taken unasked.
    paused: Option<BootInstant>,
    noticed: Option<BootInstant>,
}

/// What all peers have left, for as long as it is not everything.
#[derive(Debug, Default)]
pub(super) struct Limits {
    map: BTreeMap<DeviceId, Allowance>,
}

impl Budget {
    const fn whole(rate: Rate, at: BootInstant) -> Self {
        Self {
            left_milli: rate.burst * 1_000,
            at,
        }
    }

    fn grow(&mut self, rate: Rate, now: BootInstant) {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let grown = passed.saturating_mul(rate.per_second);
        self.left_milli = self.left_milli.saturating_add(grown).min(rate.burst * 1_000);
        self.at = now;
    }

    /// Takes as many as there are, `wanted` at most.
    fn take(&mut self, rate: Rate, wanted: usize, now: BootInstant) -> usize {
        self.grow(rate, now);
        let whole = usize::try_from(self.left_milli / 1_000).unwrap_or(usize::MAX);
        let taken = wanted.min(whole);
        self.left_milli -= taken as u64 * 1_000;
        taken
    }
}

impl Allowance {
    const fn whole(now: BootInstant) -> Self {
        Self {
            pushes: Budget::whole(PUSHES, now),
            announcements: Budget::whole(ANNOUNCEMENTS, now),
            paused: None,
            noticed: None,
        }
    }

    /// Says whether forgetting it would make no difference.
    fn is_whole(&self, now: BootInstant) -> bool {
        let whole = |mut budget: Budget, rate: Rate| {
            budget.grow(rate, now);
            budget.left_milli == rate.burst * 1_000
        };
        let noticed = self.noticed.is_some_and(|at| now.since(at) < NOTICE);
        !noticed
            && !self.is_paused(now)
            && whole(self.pushes, PUSHES)
            && whole(self.announcements, ANNOUNCEMENTS)
    }

    fn is_paused(&self, now: BootInstant) -> bool {
        self.paused.is_some_and(|until| now < until)
    }
}

impl Limits {
    /// Returns what a peer has left. Only members come here, so there are never more entries than the group has devices.
    fn of(&mut self, device: DeviceId, now: BootInstant) -> &mut Allowance {
        if !self.map.contains_key(&device) {
            self.map.retain(|_, allowance| !allowance.is_whole(now));
        }
        self.map.entry(device).or_insert_with(|| Allowance::whole(now))
    }
}

impl SyncEngine {
    /// Leaves of pushed events those that are within the sender's rate.
    pub(super) fn limit_pushed(&mut self, from: DeviceId, events: &mut Vec<SignedEvent>, now: Now) {
        let allowance = self.peers.limits.of(from, now.boot);
        let taken = if allowance.is_paused(now.boot) {
            0
        } else {
            allowance.pushes.take(PUSHES, events.len(), now.boot)
        };
        if taken < events.len() {
            events.truncate(taken);
            if !allowance.is_paused(now.boot) {
                allowance.paused = Some(now.boot.after(PAUSE));
            }
            self.beyond_rate(from, now);
        }
    }

    /// Says whether an announcement is within the rate of the neighbour that passed it on.
    pub(super) fn may_announce(&mut self, from: DeviceId, now: Now) -> bool {
        if !self.is_member(&from) {
            return false;
        }
        let allowance = self.peers.limits.of(from, now.boot);
        let taken = allowance.announcements.take(ANNOUNCEMENTS, 1, now.boot);
        if taken == 0 {
            self.beyond_rate(from, now);
        }
        taken > 0
    }

    /// Has a peer asked for its heads a little later, and tells users now and then.
    fn beyond_rate(&mut self, device: DeviceId, now: Now) {
        self.peers.ask_at(&device, now.boot.after(PAUSE));
        let allowance = self.peers.limits.of(device, now.boot);
        if allowance.noticed.is_none_or(|at| now.boot.since(at) >= NOTICE) {
            allowance.noticed = Some(now.boot);
            self.notify(Notification::PeerLimited { device });
        }
    }
}

impl Peers {
    /// Says whether to ask a peer for its heads now would bring nothing, or be one question too many.
    pub(super) fn is_busy(&self, device: &DeviceId) -> bool {
        let of_it = |(asked_of, asked): &&(DeviceId, Asked)| asked_of == device && *asked == Asked::Heads;
        let asked = self.requests.values().filter(of_it).count();
        asked >= MAX_ASKED || self.map.get(device).is_some_and(|peer| peer.pulling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RequestId;

    fn at(ms: u64) -> BootInstant {
        BootInstant::from_millis(ms)
    }

    fn device(n: u8) -> DeviceId {
        DeviceId::new([n; 32])
    }

    #[test]
    fn a_budget_gives_its_burst_at_once_and_its_rate_from_then_on() {
        let mut budget = Budget::whole(PUSHES, at(0));
        assert_eq!(budget.take(PUSHES, 1_000, at(0)), 200);
        let taken: usize = (1..=10_000).map(|ms| budget.take(PUSHES, 1, at(ms))).sum();
        assert_eq!(taken, 200);
        assert_eq!(budget.take(PUSHES, 1_000, at(u64::MAX)), 200);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let mut budget = Budget::whole(PUSHES, at(5));
        budget.take(PUSHES, 200, at(5));
        assert_eq!(budget.take(PUSHES, 1, at(5)), 0);
        assert_eq!(budget.take(PUSHES, 1, at(0)), 0);
    }

    #[test]
    fn budgets_that_are_whole_again_are_forgotten() {
        let mut limits = Limits::default();
        for n in 0..100 {
            let now = at(u64::from(n) * 1_000);
            limits.of(device(n), now).pushes.take(PUSHES, 40, now);
        }
        assert!(limits.map.len() <= 3, "{}", limits.map.len());
        let now = at(1_000_000);
        limits.of(device(7), now).noticed = Some(now);
        limits.of(device(8), at(1_059_999));
        assert_eq!(limits.map.len(), 2);
        limits.of(device(9), at(1_060_000));
        assert_eq!(limits.map.len(), 1);
    }

    #[test]
    fn a_peer_that_leaves_questions_unanswered_is_not_asked_without_end() {
        let mut peers = Peers::default();
        for n in 0..MAX_ASKED as u64 {
            assert!(!peers.is_busy(&device(1)));
            let id = RequestId(n);
            peers.requests.insert(id, (device(1), Asked::Heads));
        }
        assert!(peers.is_busy(&device(1)));
        assert!(!peers.is_busy(&device(2)));
    }
}
