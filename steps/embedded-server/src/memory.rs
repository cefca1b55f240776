//! How much memory this process may still take.
//!
//! Asked before weights and cache are allocated: Linux grants memory that does not exist and
//! kills whoever touches it, which would end a run without a word.

use std::path::Path;

/// Bytes that may still be allocated: what the machine has, or what the control group leaves,
/// whichever is less. `None` where neither is known.
#[must_use]
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| meminfo_available(&text));
    let group = Path::new("/sys/fs/cgroup");
    let limit = read(group.join("memory.max")).and_then(|text| text.trim().parse::<u64>().ok());
    let used = read(group.join("memory.current")).and_then(|text| text.trim().parse::<u64>().ok());
    let left = limit
        .zip(used)
        .map(|(limit, used)| limit.saturating_sub(used));
    machine.into_iter().chain(left).min()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `MemAvailable` of `/proc/meminfo`, bytes.
fn meminfo_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_counts_in_kibibytes() {
        let text = "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(meminfo_available(text), Some(8_000_000 * 1024));
        assert_eq!(meminfo_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available_bytes().is_none_or(|bytes| bytes > 0));
    }
}
