//! The one clock of a run. Knows its origin and nothing else.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Reads monotonic nanoseconds since the start of the run; 0 before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// The origin on the system's monotonic clock, in nanoseconds.
    monotonic: u64,
}

impl Clock {
    /// A clock that starts `lead` from now, so that the first arrival is not late because
    /// threads had to be started.
    pub(crate) fn starting_in(lead: Duration) -> Self {
        // Read in between: `Instant` is the same clock, but does not show its numbers.
        let before = Instant::now();
        let time = clock_gettime(ClockId::Monotonic);
        let now = before + before.elapsed() / 2;
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self {
            origin: now + lead,
            monotonic: seconds * 1_000_000_000 + nanos + nanoseconds(lead),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        nanoseconds(Instant::now().saturating_duration_since(self.origin))
    }

    /// The start of the run on the system's monotonic clock, in nanoseconds.
    pub(crate) fn started_monotonic(&self) -> u64 {
        self.monotonic
    }

    /// How long it is until so many nanoseconds after the start.
    pub(crate) fn until(&self, after: u64) -> Duration {
        // A rate near zero puts an arrival further away than the clock can count.
        const FAR: Duration = Duration::from_secs(1 << 30);
        let due = self.origin + Duration::from_nanos(after).min(FAR);
        due.saturating_duration_since(Instant::now())
    }
}

/// 584 years fit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
