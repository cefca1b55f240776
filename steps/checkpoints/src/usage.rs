//! What this process has used: processor time, memory, bytes from devices.

use rustix::time::{ClockId, clock_gettime};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the resident set is looked at where the kernel does not keep its peak.
const BETWEEN: Duration = Duration::from_millis(1);

/// What was used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Time on processors, of all threads.
    pub cpu: Duration,
    /// Bytes that devices had to bring; `None` if the kernel does not say.
    pub device_bytes: Option<u64>,
}

impl Usage {
    /// Asks the kernel.
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self {
            cpu: Duration::new(seconds, nanos),
            device_bytes: number("/proc/self/io", "read_bytes:"),
        }
    }
}

/// Watches how large the resident set of this process becomes.
///
/// The kernel keeps the peak since it was told to forget the one before. Where it does not forget, as some
/// containers have it, a thread looks at the resident set now and then, and misses what lasts shorter.
pub struct PeakMemory(Watch);

enum Watch {
    Kernel,
    Samples {
        stop: Sender<()>,
        thread: JoinHandle<u64>,
    },
}

/// The largest resident set while it was watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Its bytes.
    pub bytes: u64,
    /// Who saw it: `VmHWM`, or `VmRSS` looked at now and then.
    pub by: &'static str,
}

impl PeakMemory {
    /// Begins to watch.
    #[must_use]
    pub fn watch() -> Self {
        // 5: the peak of the resident set (proc_pid_clear_refs).
        let is_forgotten = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        if is_forgotten {
            Self(Watch::Kernel)
        } else {
            Self::by_samples()
        }
    }

    fn by_samples() -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            loop {
                most = most.max(status("VmRSS:").unwrap_or(0));
                match stopped.recv_timeout(BETWEEN) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return most.max(status("VmRSS:").unwrap_or(0)),
                }
            }
        });
        Self(Watch::Samples { stop, thread })
    }

    /// Says what was seen; `None` if the kernel tells nothing.
    #[must_use]
    pub fn end(self) -> Option<Peak> {
        let (bytes, by) = match self.0 {
            Watch::Kernel => (status("VmHWM:")?, "VmHWM"),
            Watch::Samples { stop, thread } => {
                drop(stop);
                (thread.join().ok()?, "VmRSS every millisecond")
            }
        };
        (bytes > 0).then_some(Peak { bytes, by })
    }
}

/// A number of bytes of this process's state.
fn status(word: &str) -> Option<u64> {
    number("/proc/self/status", word).map(|kib| kib * 1024)
}

/// The number after a word of a file of the kernel.
fn number(path: &str, word: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Region, Touch};

    #[test]
    fn a_peak_is_that_of_its_own_time_by_either_way() {
        const BYTES: u64 = 256 << 20;
        for sampled in [false, true] {
            let begin = || match sampled {
                true => PeakMemory::by_samples(),
                false => PeakMemory::watch(),
            };
            let peak = begin();
            let region = Region::new(BYTES, Touch::Before).unwrap();
            // The kernel tells what was, samples what they meet.
            let kept = sampled.then_some(region);
            let with = peak.end();
            drop(kept);
            let without = begin().end();
            let (with, without) = (with.unwrap(), without.unwrap());
            assert!(with.bytes >= BYTES, "{with:?}");
            assert!(
                without.bytes < with.bytes - BYTES / 2,
                "{without:?} {with:?}"
            );
            assert_eq!(with.by, without.by);
        }
    }
}
