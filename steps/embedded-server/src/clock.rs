//! Monotonic time as a number, behind a trait so that tests and a virtual-time server replace it.
//!
//! Knows nothing of wall-clock time. The real clock reads `CLOCK_MONOTONIC`, so that a client
//! on the same machine can lay its own instants beside the server's without synchronisation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Nanoseconds of a monotonic clock whose zero is arbitrary but the same for the whole machine.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The instant so long after this one.
    #[must_use]
    pub fn after(self, duration: Duration) -> Nanos {
        let more = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Nanos(self.0.saturating_add(more))
    }

    /// Time passed since `earlier`: zero when `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A source of monotonic time.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Nanos;
    /// Whether time goes on by itself.
    fn goes_on(&self) -> bool {
        true
    }
    /// Returns once it is `instant`, at once if that has passed.
    fn sleep_until(&self, instant: Nanos) {
        while self.now() < instant {
            std::thread::sleep(instant.since(self.now()));
        }
    }
}

/// Names the machine since its last start: what its monotonic clock counts from, and what two processes
/// have in common that read the same clock. `None` where the system does not say.
#[must_use]
pub fn machine() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// A clock that stands still until it is set, or somebody sleeps by it, which takes no time.
#[derive(Debug, Default)]
pub struct MadeUpClock(AtomicU64);

impl MadeUpClock {
    /// Goes on to an instant; it never goes back.
    pub fn advance_to(&self, instant: Nanos) {
        self.0.fetch_max(instant.0, Relaxed);
    }
}

impl Clock for MadeUpClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Relaxed))
    }

    fn goes_on(&self) -> bool {
        false
    }

    fn sleep_until(&self, instant: Nanos) {
        self.advance_to(instant);
    }
}

/// `CLOCK_MONOTONIC` of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Nanos {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Both parts of a monotonic clock are non-negative by its definition.
        Nanos(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_clock_never_goes_back() {
        let instants: Vec<_> = (0..1000).map(|_| MonotonicClock.now()).collect();
        assert!(instants.is_sorted());
        assert!(instants[0].0 > 0);
    }

    #[test]
    fn sleeping_ends_no_sooner_than_it_should() {
        let instant = MonotonicClock.now().after(Duration::from_micros(200));
        MonotonicClock.sleep_until(instant);
        assert!(MonotonicClock.now() >= instant);
        MonotonicClock.sleep_until(Nanos(0));
    }

    #[test]
    fn made_up_time_passes_only_as_it_is_told_and_never_back() {
        let clock = MadeUpClock::default();
        assert_eq!(clock.now(), Nanos(0));
        clock.sleep_until(Nanos(1 << 60));
        clock.advance_to(Nanos(5));
        assert_eq!(clock.now(), Nanos(1 << 60));
    }

    #[test]
    fn a_difference_never_wraps() {
        assert_eq!(Nanos(5).since(Nanos(9)), Duration::ZERO);
        assert_eq!(Nanos(9).since(Nanos(5)), Duration::from_nanos(4));
    }
}
