//! How far a download is, how fast it goes and how long it will take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the rate is taken over: long enough to be calm, short enough to notice a stall.
const WINDOW: Duration = Duration::from_secs(10);
/// Rates over less time than this say nothing.
const SHORTEST: f64 = 0.2;

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Another process brings it.
    Waiting,
    /// Servers are asked about it.
    Asking,
    /// Its bytes come.
    Downloading,
    /// Its digest is computed.
    Checking,
    /// It is taken apart.
    Unpacking,
}

/// How far a file is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its name.
    pub file: String,
    /// What is done with it.
    pub phase: Phase,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, if known.
    pub total: Option<u64>,
    /// Bytes per second over the last ten seconds; 0 if nothing came.
    pub bytes_per_s: f64,
}

impl Progress {
    pub(crate) fn of(file: &str, phase: Phase) -> Self {
        Self {
            file: file.to_owned(),
            phase,
            done: 0,
            total: None,
            bytes_per_s: 0.0,
        }
    }

    /// How long it will take at this rate, if both rate and size are known.
    pub fn left(&self) -> Option<Duration> {
        let rest = self.total?.checked_sub(self.done)?;
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^53 bytes")]
        let seconds = rest as f64 / self.bytes_per_s;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.phase {
            Phase::Waiting => write!(f, "waiting for another process to bring {}", self.file),
            Phase::Asking => write!(f, "asking for {}", self.file),
            Phase::Checking => write!(f, "checking {}", self.file),
            Phase::Unpacking => write!(f, "unpacking {}", self.file),
            Phase::Downloading => {
                write!(f, "{} {}", self.file, bytes_text(self.done))?;
                if let Some(total) = self.total {
                    write!(f, " of {}", bytes_text(total))?;
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is a number of bytes"
                )]
                let rate = self.bytes_per_s as u64;
                if rate > 0 {
                    write!(f, ", {}/s", bytes_text(rate))?;
                }
                match self.left() {
                    Some(left) if rate > 0 => write!(f, ", {} left", duration_text(left)),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Writes a number of bytes for people: `642 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is rounded to three digits")]
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or("B");
    for larger in units {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if value < 9.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

fn duration_text(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Takes the rate of what comes.
#[derive(Debug, Default)]
pub(crate) struct Meter(VecDeque<(Instant, u64)>);

impl Meter {
    /// Notes that `done` bytes were there at `now`, and returns bytes per second over the window.
    pub(crate) fn note(&mut self, now: Instant, done: u64) -> f64 {
        self.0.push_back((now, done));
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= WINDOW {
            self.0.pop_front();
        }
        let Some((then, before)) = self.0.front() else {
            return 0.0;
        };
        let seconds = now.duration_since(*then).as_secs_f64();
        // A file that begins anew has fewer bytes than before.
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^53 bytes")]
        let came = done.saturating_sub(*before) as f64;
        if seconds < SHORTEST {
            0.0
        } else {
            came / seconds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let began = Instant::now();
        let mut meter = Meter::default();
        let mut rate = 0.0;
        // A gigabyte that was there before, then 100 bytes a second, then nothing.
        for second in 0..30 {
            rate = meter.note(
                began + Duration::from_secs(second),
                1_000_000_000 + 100 * second,
            );
        }
        assert!((rate - 100.0).abs() < 1e-9, "{rate}");
        for second in 30..60 {
            rate = meter.note(began + Duration::from_secs(second), 1_000_002_900);
        }
        assert!(rate.abs() < 1e-9, "{rate}");
    }

    #[test]
    fn progress_says_what_is_left() {
        let mut progress = Progress {
            done: 100 << 20,
            total: Some(642 << 20),
            bytes_per_s: f64::from(2 << 20),
            ..Progress::of("a.json", Phase::Downloading)
        };
        assert_eq!(
            progress.to_string(),
            "a.json 100 MiB of 642 MiB, 2.0 MiB/s, 4m31s left"
        );
        progress.bytes_per_s = 0.0;
        assert_eq!(progress.left(), None);
        assert_eq!(progress.to_string(), "a.json 100 MiB of 642 MiB");
        assert_eq!(
            [0, 1023, 1024, 10_240, 1 << 40].map(bytes_text),
            ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1.0 TiB"]
        );
    }
}
