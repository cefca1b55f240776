//! CUPTI's clock beside those of the system, so that records can be laid beside what others measured.

use cupti_sys::{Cupti, CuptiError};
use profiler_wire::Line;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often the clock is read; the reading that took the least time is taken.
const READINGS: u32 = 100;

/// All clocks at one instant, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    cupti: u64,
    realtime: u64,
    monotonic: u64,
    boottime: u64,
    /// How long the reading took, within which the instant lies.
    within: u64,
}

impl Clocks {
    /// Reads them.
    pub(crate) fn read(cupti: &Cupti) -> Result<Self, CuptiError> {
        let mut best = Self::read_once(cupti)?;
        for _ in 1..READINGS {
            let reading = Self::read_once(cupti)?;
            if reading.within < best.within {
                best = reading;
            }
        }
        Ok(best)
    }

    fn read_once(cupti: &Cupti) -> Result<Self, CuptiError> {
        let before = system(libc::CLOCK_MONOTONIC);
        let cupti = cupti.timestamp()?;
        let realtime = realtime();
        let boottime = system(libc::CLOCK_BOOTTIME);
        let within = system(libc::CLOCK_MONOTONIC).saturating_sub(before);
        Ok(Self {
            cupti,
            realtime,
            monotonic: before + within / 2,
            boottime,
            within,
        })
    }

    /// The line with the clocks, their keys ending in `suffix`.
    pub(crate) fn put(&self, line: Line, suffix: &str) -> Line {
        line.with(&format!("cupti_ns{suffix}"), self.cupti)
            .with(&format!("realtime_ns{suffix}"), self.realtime)
            .with(&format!("monotonic_ns{suffix}"), self.monotonic)
            .with(&format!("boottime_ns{suffix}"), self.boottime)
            .with(&format!("within_ns{suffix}"), self.within)
    }
}

/// The system's real time, which on Linux is CUPTI's clock, too.
pub(crate) fn realtime() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

#[expect(
    unsafe_code,
    reason = "the standard library has neither of these clocks as a number"
)]
fn system(clock: libc::clockid_t) -> u64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is ours to be written.
    unsafe { libc::clock_gettime(clock, &raw mut at) };
    let part = |part| u64::try_from(part).unwrap_or(0);
    part(at.tv_sec) * 1_000_000_000 + part(at.tv_nsec)
}
