//! The one clock of a run. Knows its origin and nothing else.

use std::time::{Duration, Instant};

/// Reads monotonic nanoseconds since the start of the run; 0 before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts `lead` from now, so that the first arrival is not late because
    /// threads had to be started.
    pub(crate) fn starting_in(lead: Duration) -> Self {
        Self {
            origin: Instant::now() + lead,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        nanoseconds(Instant::now().saturating_duration_since(self.origin))
    }

    /// The instant `after` the start.
    pub(crate) fn at(&self, after: Duration) -> Instant {
        // A rate near zero puts an arrival further away than the clock can count.
        const FAR: Duration = Duration::from_secs(1 << 30);
        self.origin + after.min(FAR)
    }
}

/// 584 years fit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
