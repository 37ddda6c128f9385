//! The one place that reads clocks for the engine.

use std::time::SystemTime;

use p2p_sync_core::time::{BootInstant, Now};
use rustix::time::{ClockId, clock_gettime};

/// Returns the present: time since boot (suspended time included, so that deadlines hold over a closed lid) and the
/// wall clock.
#[must_use]
pub(crate) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let ms =
        u64::try_from(boot.tv_sec).unwrap_or(0) * 1000 + u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000;
    Now {
        boot: BootInstant::from_millis(ms),
        wall_ms: wall_ms(SystemTime::now()),
    }
}

/// Returns milliseconds since 1970 UTC; 0 before.
#[must_use]
pub(crate) fn wall_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
