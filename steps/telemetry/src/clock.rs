//! The clocks that readings have: the system's monotonic one, and what the calling thread has used.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Reads the system's monotonic clock, nanoseconds.
#[must_use]
pub fn now() -> u64 {
    u64::try_from(read(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX)
}

/// Reads how much of a processor the calling thread has used since it began.
#[must_use]
pub fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}
