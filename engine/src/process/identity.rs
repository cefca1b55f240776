//! Naming a process for longer than its pid lasts, for what must be found again after a crash.
//!
//! A run's register keeps [`Identity`]s; after both the engine and a guardian were killed, the
//! reaper compares them with what runs.

use super::tree::Stat;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;

/// The most of a process's environment that is read, in bytes.
const MAX_ENVIRON: u64 = 4 << 20;

/// One process for good: pids are reused, these three together are not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// Which boot of the machine that was.
    pub boot_id: String,
}

impl Identity {
    /// Returns the identity of the process that now has `pid`; `None` if there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(Pid::from_raw(i32::try_from(pid).ok()?)?)?;
        Some(Self {
            pid,
            start_time: stat.start_time,
            boot_id: boot_id(),
        })
    }

    pub(super) fn from_report(pid: u32, start_time: u64) -> Self {
        Self {
            pid,
            start_time,
            boot_id: boot_id(),
        }
    }

    /// Whether this very process still runs; one that is dead but not waited for does not.
    pub fn is_alive(&self) -> bool {
        self.stat().is_some()
    }

    /// Sends `signal` to this very process, never to one that merely has the same pid.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(stat) = self.stat() {
            stat.signal(signal);
        }
    }

    fn stat(&self) -> Option<Stat> {
        let stat = Stat::read(Pid::from_raw(i32::try_from(self.pid).ok()?)?)?;
        (stat.start_time == self.start_time && !stat.dead && self.boot_id == boot_id())
            .then_some(stat)
    }
}

/// Reads the environment with which a process began, variables that end in zero bytes; `None` if
/// there is no such process or it belongs to somebody else.
pub(super) fn environ(pid: Pid) -> Option<Vec<u8>> {
    let mut environ = Vec::new();
    let file = fs::File::open(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    file.take(MAX_ENVIRON).read_to_end(&mut environ).ok()?;
    Some(environ)
}

pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_or_another_boot_is_somebody_else() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(
            !Identity {
                start_time: me.start_time + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !Identity {
                boot_id: "another".into(),
                ..me
            }
            .is_alive()
        );
        assert_eq!(Identity::of(0), None);
    }
}
