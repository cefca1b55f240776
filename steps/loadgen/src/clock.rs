//! The one clock of a run. Knows its origin and nothing else.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// An instant of the system's wall clock, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// From seconds and nanoseconds; `None` before 1970.
    pub(crate) fn of(seconds: i64, nanoseconds: i64) -> Option<Self> {
        let seconds = u64::try_from(seconds).ok()?.checked_mul(SECOND)?;
        seconds
            .checked_add(u64::try_from(nanoseconds).ok()?)
            .map(Self)
    }
}

/// The two clocks at one time. The wall clock may be set during a run: this is read anew whenever
/// a lane wakes up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BesideWall {
    now: u64,
    wall: Option<Moment>,
}

impl BesideWall {
    /// A moment on the run's clock; `None` if that cannot be told.
    pub(crate) fn when(&self, moment: Moment) -> Option<u64> {
        /// What seems to be further away was noted before the wall clock was set.
        const FAR: u64 = 10 * SECOND;
        let Moment(wall) = self.wall?;
        let away = wall.abs_diff(moment.0);
        if away > FAR {
            None
        } else if moment.0 > wall {
            Some(self.now + away)
        } else {
            self.now.checked_sub(away)
        }
    }
}

const SECOND: u64 = 1_000_000_000;

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
        let (now, monotonic) = beside_monotonic();
        Self {
            origin: now + lead,
            monotonic: monotonic + nanoseconds(lead),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        nanoseconds(Instant::now().saturating_duration_since(self.origin))
    }

    /// Reads the wall clock beside this one.
    pub(crate) fn beside_wall(&self) -> BesideWall {
        /// Read for longer than this, in nanoseconds, something came between.
        const LONG: u64 = 5_000;
        let mut best: Option<(u64, u64, Option<Moment>)> = None;
        for _ in 0..4 {
            let before = self.now();
            let wall = clock_gettime(ClockId::Realtime);
            let after = self.now();
            let wall = Moment::of(wall.tv_sec, wall.tv_nsec);
            let took = after - before;
            if best.is_none_or(|(least, ..)| took < least) {
                best = Some((took, before + took / 2, wall));
            }
            if took < LONG {
                break;
            }
        }
        let (_, now, wall) = best.unwrap_or_default();
        BesideWall { now, wall }
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

/// An instant, and the same on the system's monotonic clock in nanoseconds. `Instant` is that clock, but
/// does not show its numbers: they are read in between, and of several times the shortest counts, in
/// which nothing came between.
fn beside_monotonic() -> (Instant, u64) {
    const TIMES: usize = 16;
    let read = || {
        let before = Instant::now();
        let time = clock_gettime(ClockId::Monotonic);
        let took = before.elapsed();
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        (took, before + took / 2, seconds * SECOND + nanos)
    };
    let first = read();
    let others = (1..TIMES).map(|_| read());
    let (_, now, monotonic) = others.fold(first, |best, next| match next.0 < best.0 {
        true => next,
        false => best,
    });
    (now, monotonic)
}

/// 584 years fit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_its_place_on_the_clock_of_the_run() {
        let both = BesideWall {
            now: 5_000,
            wall: Moment::of(100, 0),
        };
        assert_eq!(both.when(Moment::of(99, 999_999_000).unwrap()), Some(4_000));
        assert_eq!(both.when(Moment::of(100, 7).unwrap()), Some(5_007));
        // Before the run, and before the wall clock was set.
        assert_eq!(both.when(Moment::of(99, 0).unwrap()), None);
        assert_eq!(both.when(Moment::of(4_000, 0).unwrap()), None);
        assert_eq!(Moment::of(-1, 0), None);
    }
}
