//! What machine this is: the facts that decide whether two measurements may stand side by side.
//!
//! Two rings. *Identity* is part of a measurement's class: other identity, other sample set.
//! *Condition* changes from minute to minute and is recorded with every sample.

use crate::policy::{Pool, Supply};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Facts about this machine.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Environment {
    /// What samples must share to belong together, by name.
    pub identity: BTreeMap<String, String>,
    /// What boot of the machine this is.
    pub boot_id: String,
}

/// What the machine was like while a sample was drawn.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Condition {
    /// Runnable processes, averaged by the kernel over one minute.
    pub load_1m: f64,
    /// Memory that could be given to new processes, bytes.
    pub memory_available_bytes: u64,
    /// Seconds since the machine was started.
    pub uptime_s: f64,
}

impl Environment {
    /// Reads the facts of this machine; what cannot be read is `unknown`.
    pub fn detect() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let identity = BTreeMap::from([
            (
                "cpu_model".to_owned(),
                field(&cpuinfo, "model name").unwrap_or_else(unknown),
            ),
            ("cpu_cores".to_owned(), cores.to_string()),
            ("cpu_governor".to_owned(), non_empty(governor.trim())),
            ("memory_gib".to_owned(), memory_gib(&meminfo)),
            (
                "kernel".to_owned(),
                non_empty(read("/proc/sys/kernel/osrelease").trim()),
            ),
            ("os".to_owned(), os_name()),
            ("architecture".to_owned(), std::env::consts::ARCH.to_owned()),
        ]);
        Self {
            identity,
            boot_id: non_empty(read("/proc/sys/kernel/random/boot_id").trim()),
        }
    }
}

impl Condition {
    /// Reads what the machine is like now; what cannot be read is 0.
    pub fn now() -> Self {
        let first = |text: String| {
            text.split_whitespace()
                .next()
                .and_then(|w| w.parse().ok())
                .unwrap_or(0.0)
        };
        Self {
            load_1m: first(read("/proc/loadavg")),
            memory_available_bytes: kib(&read("/proc/meminfo"), "MemAvailable").unwrap_or(0) * 1024,
            uptime_s: first(read("/proc/uptime")),
        }
    }
}

/// Finds what there is of this machine without being declared: `cpus` and `gpus`.
pub fn found_pools() -> Supply {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Supply::from([
        (
            "cpus".to_owned(),
            Pool::Count(u32::try_from(cpus).unwrap_or(u32::MAX)),
        ),
        ("gpus".to_owned(), Pool::Devices(gpus(Path::new("/dev")))),
    ])
}

/// Lists the numbers of the NVIDIA devices in a folder of devices.
fn gpus(devices: &Path) -> Vec<String> {
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let numbers = names.filter_map(|n| n.strip_prefix("nvidia")?.parse::<u32>().ok());
    let mut found: Vec<u32> = numbers.collect();
    found.sort_unstable();
    found.iter().map(u32::to_string).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn non_empty(text: &str) -> String {
    if text.is_empty() {
        unknown()
    } else {
        text.to_owned()
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split_whitespace().next()?.parse().ok()
}

/// Total memory rounded to GiB, so that a kernel update that reserves a little more changes nothing.
fn memory_gib(meminfo: &str) -> String {
    kib(meminfo, "MemTotal").map_or_else(unknown, |k| ((k + (1 << 19)) >> 20).to_string())
}

fn os_name() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    non_empty(name.unwrap_or("").trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_from_what_is_called_like_them() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        assert_eq!(gpus(folder.path()), ["2", "10"]);
    }

    #[test]
    fn facts_are_read_from_the_kernels_own_words() {
        assert_eq!(
            field("processor\t: 0\nmodel name\t: EPYC\n", "model name").as_deref(),
            Some("EPYC")
        );
        assert_eq!(memory_gib("MemTotal:       24689720 kB\n"), "24");
    }
}
