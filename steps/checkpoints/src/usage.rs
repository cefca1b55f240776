//! What this process has used: processor time, memory, bytes from devices.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

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

/// Forgets the peak of memory so far; says whether the kernel did so.
pub fn forget_peak() -> bool {
    // 5: the peak of the resident set (proc_pid_clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The largest resident set since the peak was forgotten, bytes.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    number("/proc/self/status", "VmHWM:").map(|kib| kib * 1024)
}

/// The number after a word of a file of the kernel.
fn number(path: &str, word: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}
