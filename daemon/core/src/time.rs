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

    /// Returns the first value after `self` that is not behind the wall clock.
    #[must_use]
    pub fn next(self, wall_ms: u64) -> Self {
        let wall = wall_ms.checked_shl(Self::COUNTER_BITS).unwrap_or(0);
        Self(wall.max(self.0.saturating_add(1)))
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
}
