//! The client's threads and what they cost.
//!
//! CPU time and the time spent waiting for a CPU come from `/proc`, per thread, so that the
//! rest of the process does not count. On systems without it both are unknown.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
};

use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Handle, Runtime};

/// More threads than this only pass work to one another.
const MOST_THREADS: usize = 8;

/// What the client itself used during a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientUse {
    /// Threads that sent and received.
    pub threads: u32,
    /// Processors that the process may use.
    pub cores: u32,
    /// CPU time of the client's threads, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Time in which a thread of the client was ready to run but had no processor, in
    /// nanoseconds, summed over threads.
    pub wait_ns: Option<u64>,
}

/// CPU time and time waiting for a CPU, of one or more threads, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ThreadTime {
    cpu: u64,
    wait: u64,
}

impl ThreadTime {
    /// Of the calling thread.
    pub(super) fn own() -> Option<Self> {
        Self::read("/proc/thread-self/schedstat")
    }

    fn of(thread: i32) -> Option<Self> {
        Self::read(&format!("/proc/self/task/{thread}/schedstat"))
    }

    fn read(path: &str) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// `CPU WAIT SLICES`, the first two in nanoseconds.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        Some(Self {
            cpu: numbers.next()?.ok()?,
            wait: numbers.next()?.ok()?,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            wait: self.wait + other.wait,
        }
    }
}

/// A runtime of its own for the client; its threads end, without being waited for, when it is
/// dropped.
pub(super) struct Workers {
    runtime: Option<Runtime>,
    handle: Handle,
    threads: Arc<Mutex<Vec<i32>>>,
    cores: usize,
}

impl Workers {
    pub(super) fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = Arc::new(Mutex::new(Vec::new()));
        let started = threads.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.min(MOST_THREADS))
            .thread_name("loadgen")
            .on_thread_start(move || {
                let id = rustix::thread::gettid().as_raw_nonzero().get();
                started
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(id);
            })
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self {
            runtime: Some(runtime),
            handle,
            threads,
            cores,
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the threads have used since they were started, `pacer` included.
    pub(super) fn used(&self, pacer: Option<Option<ThreadTime>>) -> ClientUse {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread that did a name look-up and ended has left its list entry, and no time.
        let times: Vec<_> = threads
            .iter()
            .filter_map(|id| ThreadTime::of(*id))
            .collect();
        let pacer = pacer.unwrap_or(Some(ThreadTime::default()));
        let total = (!times.is_empty())
            .then(|| {
                times
                    .iter()
                    .copied()
                    .fold(ThreadTime::default(), ThreadTime::plus)
            })
            .zip(pacer)
            .map(|(workers, pacer)| workers.plus(pacer));
        ClientUse {
            threads: self.cores.min(MOST_THREADS) as u32,
            cores: self.cores as u32,
            cpu_ns: total.map(|time| time.cpu),
            wait_ns: total.map(|time| time.wait),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting here would block the caller's runtime, which panics.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_read_as_the_kernel_writes_it() {
        let expected = ThreadTime {
            cpu: 12_345,
            wait: 67,
        };
        assert_eq!(ThreadTime::parse("12345 67 8\n"), Some(expected));
        assert_eq!(ThreadTime::parse("12345"), None);
        assert_eq!(ThreadTime::parse("a b c"), None);
    }

    #[test]
    fn an_unknown_pacer_makes_the_total_unknown() {
        let workers = Workers::start().unwrap();
        assert_eq!(workers.used(Some(None)).cpu_ns, None);
        assert!(workers.used(None).threads >= 1);
    }
}
