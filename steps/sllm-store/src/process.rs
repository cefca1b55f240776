//! The process of a store on this machine: who listens at its port, and what it uses.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A process that listens at a port.
#[derive(Debug, Clone, Copy)]
pub struct ServerProcess {
    pid: i32,
    clock: ClockId,
}

impl ServerProcess {
    /// Finds who listens at a TCP port of this machine, as far as this user may see it.
    ///
    /// # Errors
    ///
    /// If the kernel's tables cannot be read, or nobody is found.
    pub fn at_port(port: u16) -> io::Result<Self> {
        let absent = || {
            let message = format!("no process that may be looked at listens at port {port}");
            io::Error::new(io::ErrorKind::NotFound, message)
        };
        let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            // A machine may do without one of them.
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listening(&table, port))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.parse::<i32>().ok());
            let Some(pid) = pid else { continue };
            let Ok(files) = fs::read_dir(entry.path().join("fd")) else {
                continue;
            };
            let targets = files
                .flatten()
                .filter_map(|file| fs::read_link(file.path()).ok());
            let mut names = targets.map(|target| target.display().to_string());
            if names.any(|name| sockets.contains(&name)) {
                let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
                return Ok(Self { pid, clock });
            }
        }
        Err(absent())
    }

    /// Time on processors so far, of all its threads, also those that ended.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        let time: TimeSpec = clock_gettime(self.clock)?;
        Ok(Duration::from(time))
    }

    /// Whether it still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.cpu().is_ok()
    }

    /// Forgets the peak of its memory so far; says whether the kernel did so.
    #[must_use]
    pub fn forget_peak(&self) -> bool {
        // 5: the peak of the resident set (proc_pid_clear_refs).
        fs::write(self.file("clear_refs"), "5").is_ok()
    }

    /// The largest resident set since the peak was forgotten, bytes.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(self.file("status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// Inodes of sockets that listen at a port, by a table of the kernel's.
fn listening(table: &str, port: u16) -> Vec<u64> {
    /// The kernel's number for it.
    const LISTEN: &str = "0A";
    let end = format!(":{port:04X}");
    let inode = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1)?.ends_with(&end) && *words.get(3)? == LISTEN;
        is_it.then(|| words.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = ServerProcess::at_port(port).unwrap();
        assert_eq!(found.pid, i32::try_from(std::process::id()).unwrap());
        assert!(found.is_alive() && found.peak_memory().unwrap() > 0);
        let before = found.cpu().unwrap();
        let sum: u64 = std::hint::black_box((0..5_000_000_u64).map(|n| n ^ (n >> 3))).sum();
        assert!(sum > 0 && found.cpu().unwrap() > before);
    }

    #[test]
    fn only_listeners_of_the_very_port_are_meant() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F89 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n   1: 0100007F:1F89 0100007F:0001 01 00000000:00000000 00:00000000 00000000     0        0 222 1\n   2: 0100007F:1F8A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1\n";
        assert_eq!(listening(table, 8073), [111]);
        assert!(listening(table, 9).is_empty() && listening("", 9).is_empty());
    }
}
