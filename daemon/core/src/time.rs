//! Time as the core sees it: always an argument, never asked for.

use std::time::Duration;

/// A point on a clock that starts with the machine and never jumps; nanoseconds are not needed, milliseconds are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootInstant(u64);

impl BootInstant {
    /// Makes an instant from milliseconds since boot.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Returns milliseconds since boot.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the instant `d` later.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Returns the time that passed since `earlier`; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The present, as the shell read it when it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines.
    pub boot: BootInstant,
    /// Milliseconds since 1970 UTC by the device's clock; for display and the hybrid clock only.
    pub wall_ms: u64,
}

/// A hybrid logical clock: 48 bits of milliseconds, 16 bits of counter. It orders events, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    const COUNTER_BITS: u32 = 16;
    /// The last value that a clock can give, in the year 6429. Half of all values are behind it: whoever puts it into an
    /// event, so that nothing could come later, leaves room for 2^63 more.
    pub const LAST_DATE: Self = Self(u64::MAX / 2);
    /// How far behind [`Self::LAST_DATE`] events can be that are not taken here: more of them than a device can write, and
    /// so few that to reach the end of all values takes 2^23 events that claim to have seen so many.
    const MAX_UNKNOWN: u64 = 1 << 40;

    /// Wraps the 64 bits of an event's field 4.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the milliseconds since 1970 that it is not behind of, by its author's clock.
    #[must_use]
    pub const fn wall_ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// Returns the first value after `self` that is not behind the wall clock, unless that is beyond [`Self::LAST_DATE`].
    #[must_use]
    pub fn next(self, wall_ms: u64) -> Self {
        let date = Some(wall_ms << Self::COUNTER_BITS).filter(|_| wall_ms <= Self::LAST_DATE.wall_ms());
        Self(date.unwrap_or(0).max(self.0.saturating_add(1)))
    }

    /// Says whether an event with this value may follow one with the newest value that its author had.
    ///
    /// Values up to [`Self::LAST_DATE`] may be far apart, for nobody knows how long a device was off, or how wrong its
    /// clock is. From there on they go by ones.
    #[must_use]
    pub const fn may_follow(self, newest: Self) -> bool {
        self.follows_by(newest, 1)
    }

    /// As [`Self::may_follow`], if the author had later events, too, that are not taken here.
    #[must_use]
    pub const fn may_follow_unknown(self, newest: Self) -> bool {
        self.follows_by(newest, Self::MAX_UNKNOWN)
    }

    const fn follows_by(self, newest: Self, most: u64) -> bool {
        let known = if newest.0 > Self::LAST_DATE.0 {
            newest.0
        } else {
            Self::LAST_DATE.0
        };
        self.0 > newest.0 && self.0 <= known.saturating_add(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_clock_never_goes_back() {
        let a = Hlc::default().next(1_000);
        let b = a.next(500);
        assert!(b > a);
        assert_eq!(a.bits(), 1_000 << 16);
        assert_eq!((a.wall_ms(), b.wall_ms()), (1_000, 1_000));
        assert_eq!(b.bits(), (1_000 << 16) + 1);
    }

    #[test]
    fn the_hybrid_clock_has_no_end_that_one_device_could_reach() {
        let last = Hlc::LAST_DATE;
        assert!(last.may_follow(Hlc::default()) && !last.may_follow(last));
        let next = last.next(5);
        let later = next.next(u64::MAX);
        assert!(next.may_follow(last) && later.may_follow(next) && !later.may_follow(last));
        assert!(later.may_follow_unknown(last));
        for end in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + (1 << 41)] {
            let end = Hlc::from_bits(end);
            assert!(!end.may_follow(next) && !end.may_follow_unknown(next));
        }
        assert_eq!(Hlc::default().next(u64::MAX), Hlc::from_bits(1));
        assert_eq!(Hlc::default().next(last.wall_ms()).wall_ms(), last.wall_ms());
    }
}
