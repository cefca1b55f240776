//! Live counts of a run, kept apart from its records.
//!
//! The integral of requests in flight is summed as requests start and end; comparing it with
//! the records' own durations shows lost records and impossible instants.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Counts what is going on.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    in_flight: Mutex<InFlight>,
    pub(super) arrived: Count,
    pub(super) sent: Count,
    pub(super) completed: Count,
    pub(super) failed: Count,
    pub(super) tokens: Count,
    /// Arrivals that found no conversation ready.
    pub(super) unused: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct InFlight {
    now: u32,
    peak: u32,
    /// When the area was last brought up to date, in nanoseconds of the run.
    since: u64,
    area: u64,
}

impl InFlight {
    fn advance(&mut self, at: u64) {
        // Threads take the lock in another order than they read the clock: never go back.
        let until = at.max(self.since);
        self.area += (until - self.since) * u64::from(self.now);
        self.since = until;
    }
}

impl Gauge {
    pub(super) fn enter(&self, at: u64) {
        let mut flight = self.lock();
        flight.advance(at);
        flight.now += 1;
        flight.peak = flight.peak.max(flight.now);
        self.sent.add(1);
    }

    pub(super) fn leave(&self, at: u64) {
        let mut flight = self.lock();
        flight.advance(at);
        flight.now = flight.now.saturating_sub(1);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.lock().now
    }

    pub(super) fn peak(&self) -> u32 {
        self.lock().peak
    }

    /// Request-nanoseconds up to the last change.
    pub(super) fn area(&self) -> u64 {
        self.lock().area
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_requests_times_time() {
        let gauge = Gauge::default();
        gauge.enter(10);
        gauge.enter(20);
        gauge.leave(50);
        gauge.leave(60);
        gauge.enter(1000);
        assert_eq!(gauge.area(), 10 + 2 * 30 + 10);
        assert_eq!(
            (gauge.peak(), gauge.in_flight(), gauge.sent.get()),
            (2, 1, 3)
        );
    }
}
