//! Who descends from whom, read from `/proc`. Signals nobody by itself.
//!
//! The walk is not atomic: a process that is born or orphaned meanwhile may be missed. Callers
//! repeat it, and take emptiness from `wait` and never from here.

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::fs;

/// What `/proc/PID/stat` says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: Pid,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// `Z` or `X`: already dead, only not yet waited for.
    pub(super) dead: bool,
    /// Clock ticks since boot: with the pid it names a process for good.
    pub(super) start_time: u64,
}

impl Stat {
    /// Reads the process `pid`; `None` if there is none.
    pub(super) fn read(pid: Pid) -> Option<Self> {
        // The name of the program may be any bytes.
        let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    fn parse(stat: &str) -> Option<Self> {
        let (pid, _) = stat.split_once(' ')?;
        // The name is in parentheses and may itself hold spaces and parentheses.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid: Pid::from_raw(pid.parse().ok()?)?,
            dead: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// Returns the pid as a plain number.
    pub(super) fn raw_pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends `signal`, unless the pid has passed to another process since the reading.
    ///
    /// Whether it arrived is not told: the process may have ended, or belong to another user.
    pub(super) fn signal(&self, signal: Signal) {
        match pidfd_open(self.pid, PidfdFlags::empty()) {
            Ok(fd) => {
                if Self::read(self.pid).is_some_and(|now| now.start_time == self.start_time) {
                    let _ = pidfd_send_signal(fd, signal);
                }
            }
            // Before Linux 5.3 there are no pidfds.
            Err(rustix::io::Errno::NOSYS) => {
                let _ = kill_process(self.pid, signal);
            }
            Err(_) => {}
        }
    }
}

/// Lists every process that this user may see.
pub(super) fn processes() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter_map(Stat::read)
        .collect()
}

/// Lists the living descendants of `root`, itself not included, parents before their children.
pub(super) fn descendants(root: Pid) -> Vec<Stat> {
    below(root.as_raw_nonzero().get(), &processes())
}

fn below(root: i32, all: &[Stat]) -> Vec<Stat> {
    let mut children: HashMap<i32, Vec<&Stat>> = HashMap::new();
    for stat in all {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        // Taken out, so that a cycle made by a reading that is not atomic ends.
        for stat in children.remove(&parent).unwrap_or_default() {
            open.push(stat.pid.as_raw_nonzero().get());
            found.push(*stat);
        }
    }
    found.retain(|stat| !stat.dead);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, dead: bool) -> Stat {
        Stat {
            pid: Pid::from_raw(pid).unwrap(),
            parent,
            group: pid,
            dead,
            start_time: 1,
        }
    }

    #[test]
    fn names_with_parentheses_and_spaces_do_not_shift_the_fields() {
        let line = "42 (a) b (c) S 7 41 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.pid.as_raw_nonzero().get(), stat.parent, stat.group),
            (42, 7, 41)
        );
        assert_eq!((stat.start_time, stat.dead), (98765, false));
        assert_eq!(Stat::parse("42 (cut off"), None);
    }

    #[test]
    fn descendants_are_found_below_the_dead_and_strangers_are_not() {
        let all = [
            stat(2, 1, false),
            stat(3, 2, true),
            stat(4, 3, false),
            stat(9, 8, false),
        ];
        let found: Vec<i32> = below(1, &all)
            .iter()
            .map(|s| s.pid.as_raw_nonzero().get())
            .collect();
        assert_eq!(found, [2, 4]);
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(below(2, &[stat(2, 3, false), stat(3, 2, false)]).len(), 2);
    }

    #[test]
    fn this_process_can_be_read() {
        let me = rustix::process::getpid();
        let stat = Stat::read(me).unwrap();
        assert_eq!(stat.pid, me);
        assert!(processes().contains(&stat));
    }
}
