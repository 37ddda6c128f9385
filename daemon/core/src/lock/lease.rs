//! How long the holder of a lock may believe that it holds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quorum;
use crate::ids::DeviceId;
use crate::time::BootInstant;

/// A lock that was granted: until when its holder may act on it, and a renewal that is under way.
///
/// A voter counts the time to live from when it took the claim, or its renewal, and the holder from before it asked; the
/// holder stops earlier by three per cent and half a second, so that clocks may run apart by half of that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    ttl: Duration,
    /// `None`: until it is released or broken.
    until: Option<BootInstant>,
    /// How many renewals were begun.
    rounds: u32,
    round: Option<Round>,
}

/// What is asked of all voters of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Round {
    sent: BootInstant,
    durable: bool,
    /// Whether each voter said yes.
    asked: BTreeMap<DeviceId, bool>,
}

/// How much of the time to live is left to clocks that run at other rates.
const GUARD_PERCENT: u32 = 3;
/// What is left besides, for timers that are late.
const GUARD: Duration = Duration::from_millis(500);

impl Lease {
    /// Takes up a lease whose claim was sent at `started` at the earliest.
    #[must_use]
    pub fn new(started: BootInstant, ttl: Duration) -> Self {
        Self {
            ttl,
            until: Some(believed_until(started, ttl)),
            rounds: 0,
            round: None,
        }
    }

    /// Takes up a lock that the ledger shows and that was durable: until it is proven anew its holder must not act on it,
    /// for somebody may have broken it meanwhile.
    #[must_use]
    pub const fn unproven(ttl: Duration, now: BootInstant) -> Self {
        Self {
            ttl,
            until: Some(now),
            rounds: 0,
            round: None,
        }
    }

    /// Begins to renew it at these voters, for good or for another time to live; to be called before anything is sent.
    /// Returns the number of the renewal: an answer to an earlier one would prove too little.
    pub fn renew(&mut self, voters: &[DeviceId], durable: bool, now: BootInstant) -> u32 {
        self.rounds += 1;
        self.round = Some(Round {
            sent: now,
            durable,
            asked: voters.iter().map(|voter| (*voter, false)).collect(),
        });
        self.rounds
    }

    /// Takes a voter's yes to the renewal of this number. Says whether that made a majority.
    ///
    /// A majority whose slots were never gone cannot have let anybody else in; so it may come after the lease was over.
    pub fn handle_granted(&mut self, voter: &DeviceId, number: u32) -> bool {
        let Some(round) = self.round.as_mut().filter(|_| number == self.rounds) else {
            return false;
        };
        if let Some(granted) = round.asked.get_mut(voter) {
            *granted = true;
        }
        let count = round.asked.values().filter(|granted| **granted).count();
        if count < quorum(round.asked.len()) {
            return false;
        }
        let until = (!round.durable).then(|| believed_until(round.sent, self.ttl));
        self.until = match (self.until, until) {
            (None, _) | (_, None) => None,
            (Some(known), Some(until)) => Some(known.max(until)),
        };
        self.round = None;
        true
    }

    /// Takes that the device slept, or that its clock cannot be trusted: nothing is believed until a renewal.
    pub fn handle_doubt(&mut self, now: BootInstant) {
        self.until = Some(now);
        self.round = None;
    }

    /// Says whether its holder may act on it.
    #[must_use]
    pub fn holds(&self, now: BootInstant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Returns until when its holder may act on it; `None`: until it is released or broken.
    #[must_use]
    pub const fn until(&self) -> Option<BootInstant> {
        self.until
    }
}

fn believed_until(sent: BootInstant, ttl: Duration) -> BootInstant {
    let guard = ttl * GUARD_PERCENT / 100 + GUARD;
    sent.after(ttl.saturating_sub(guard))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(1);

    fn at(ms: u64) -> BootInstant {
        BootInstant::from_millis(ms)
    }

    fn voters() -> Vec<DeviceId> {
        (1..=3).map(|voter| DeviceId::new([voter; 32])).collect()
    }

    #[test]
    fn a_lease_is_believed_a_little_shorter_than_its_voters_keep_it() {
        let lease = Lease::new(at(1_000), TTL);
        assert!(lease.holds(at(58_699)) && !lease.holds(at(58_700)));
        assert!(!Lease::new(at(1_000), Duration::from_millis(400)).holds(at(1_000)));
    }

    #[test]
    fn a_renewal_counts_from_before_it_was_sent_and_needs_a_majority() {
        let mut lease = Lease::new(at(0), TTL);
        let first = lease.renew(&voters(), false, at(20_000));
        assert!(!lease.handle_granted(&voters()[0], first) && !lease.handle_granted(&voters()[0], first));
        assert!(!lease.handle_granted(&DeviceId::new([9; 32]), first));
        assert_eq!(lease.until(), Some(at(57_700)));
        assert!(lease.handle_granted(&voters()[2], first));
        assert_eq!(lease.until(), Some(at(77_700)));
        assert!(!lease.handle_granted(&voters()[1], first));
    }

    #[test]
    fn an_answer_to_an_earlier_renewal_proves_nothing_for_a_later_one() {
        let mut lease = Lease::new(at(0), TTL);
        let first = lease.renew(&voters(), false, at(20_000));
        let second = lease.renew(&voters(), true, at(40_000));
        assert!(!lease.handle_granted(&voters()[0], first) && !lease.handle_granted(&voters()[1], first));
        assert!(!lease.handle_granted(&voters()[0], second));
        assert_eq!(lease.until(), Some(at(57_700)));
    }

    #[test]
    fn a_durable_lock_is_believed_without_a_clock_until_there_is_doubt() {
        let grant = |lease: &mut Lease, now| {
            let number = lease.renew(&voters(), true, at(now));
            !lease.handle_granted(&voters()[0], number) && lease.handle_granted(&voters()[1], number)
        };
        let mut lease = Lease::new(at(0), TTL);
        assert!(grant(&mut lease, 10) && lease.holds(at(u64::MAX)));
        lease.handle_doubt(at(500));
        assert!(!lease.holds(at(500)));
        assert!(grant(&mut lease, 600) && lease.holds(at(u64::MAX)));
        let mut again = Lease::unproven(TTL, at(500));
        assert!(!again.holds(at(500)));
        assert!(grant(&mut again, 600) && again.holds(at(u64::MAX)));
    }
}
