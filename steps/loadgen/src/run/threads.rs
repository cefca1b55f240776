//! The client's threads and what they cost.
//!
//! CPU time and the time spent waiting for a CPU come from `/proc`, per thread, so that the
//! rest of the process does not count. On systems without it both are unknown.

use std::{
    io,
    num::NonZeroU32,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, available_parallelism},
};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::context::Context;
use super::lane::{Arrivals, Feed, Instants, Lane, Users};
use crate::{Load, Record, schedule::Schedule};

/// One thread reads more than 100,000 events a second, so that few are enough.
const CORES_PER_THREAD: usize = 4;
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
struct ThreadTime {
    cpu: u64,
    wait: u64,
}

impl ThreadTime {
    /// Of the calling thread.
    fn own() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    /// `CPU WAIT SLICES`, the first two in nanoseconds.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        Some(Self {
            cpu: numbers.next()?.ok()?,
            wait: numbers.next()?.ok()?,
        })
    }
}

/// The threads of a run; they are told to stop when this is dropped.
pub(super) struct Threads {
    context: Arc<Context>,
    wakes: Vec<Arc<OwnedFd>>,
    /// One entry for each thread that has ended.
    used: Arc<Mutex<Vec<Option<ThreadTime>>>>,
    cores: usize,
}

impl Threads {
    /// Starts as many threads as the plan says, or as are useful.
    pub(super) fn start(
        context: &Arc<Context>,
        schedule: Schedule,
        records: UnboundedSender<Vec<Record>>,
    ) -> io::Result<Self> {
        allow_many_sockets();
        let cores = available_parallelism().map_or(1, usize::from);
        let feeds = feeds(context, schedule, cores);
        let mut threads = Self {
            context: context.clone(),
            wakes: Vec::new(),
            used: Arc::default(),
            cores,
        };
        for (i, feed) in feeds.into_iter().enumerate() {
            let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let lane = Lane::new(context.clone(), feed, records.clone(), &wake)?;
            threads.wakes.push(wake);
            threads.spawn(i, lane)?;
        }
        Ok(threads)
    }

    fn spawn(&self, i: usize, mut lane: Lane) -> io::Result<()> {
        let used = self.used.clone();
        let cores = &self.context.plan.threads.cores;
        let core = (!cores.is_empty()).then(|| cores[i % cores.len()]);
        thread::Builder::new()
            .name(format!("loadgen-{i}"))
            .spawn(move || {
                if let Some(core) = core {
                    pin(core);
                }
                // What is missing then shows: requests without a record.
                let _ = lane.run();
                let time = ThreadTime::own();
                used.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(time);
                // Its sender goes last: the time is there when the collector ends.
                drop(lane);
            })?;
        Ok(())
    }

    /// Tells all threads to break off.
    pub(super) fn stop(&self) {
        self.context.stopped.store(true, Ordering::Release);
        for wake in &self.wakes {
            // It fails only if the counter is full, and then the thread is awake.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }

    /// What the threads have used, once they have ended.
    pub(super) fn used(&self) -> ClientUse {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Option<Vec<ThreadTime>> = used.iter().copied().collect();
        let all = all.filter(|times| times.len() == self.wakes.len());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        ClientUse {
            threads: count(self.wakes.len()),
            cores: count(self.cores),
            cpu_ns: all.as_ref().map(|times| times.iter().map(|t| t.cpu).sum()),
            wait_ns: all.map(|times| times.iter().map(|t| t.wait).sum()),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All of the work, for one thread; `None` if there is none.
pub(super) fn one_feed(context: &Context, schedule: Schedule) -> Option<Feed> {
    divided(context, schedule, 1).pop()
}

/// Divides the work among threads.
fn feeds(context: &Context, schedule: Schedule, cores: usize) -> Vec<Feed> {
    let asked = &context.plan.threads;
    let useful = (cores / CORES_PER_THREAD).clamp(1, MOST_THREADS);
    let n = match (asked.count, asked.cores.len()) {
        (Some(count), _) => usize::try_from(count.get()).unwrap_or(MOST_THREADS),
        (None, 0) => useful,
        (None, pinned) => pinned,
    };
    divided(context, schedule, n)
}

fn divided(context: &Context, schedule: Schedule, n: usize) -> Vec<Feed> {
    match (schedule, &context.plan.load) {
        (Schedule::Open(instants), _) => {
            let (n, instants) = (n.min(instants.len().max(1)), Arc::new(instants));
            let feed = |i| Feed::Open(Instants::new(instants.clone(), i, n));
            (0..n).map(feed).collect()
        }
        (Schedule::Ready(queue), _) => {
            let feed = |_| Feed::Ready(Arrivals::of(queue.clone()));
            (0..n).map(feed).collect()
        }
        (
            Schedule::Closed { most, sessions },
            Load::Closed {
                concurrency, think, ..
            },
        ) => {
            let users = users(*concurrency, most);
            let (n, sessions) = (n.min(users.max(1)), sessions.map(Arc::new));
            let first = |i: usize| i * (users / n) + i.min(users % n);
            let feed = |i| Users::new(first(i)..first(i + 1), most, sessions.clone(), *think);
            (0..n).map(|i| Feed::Closed(feed(i))).collect()
        }
        // A schedule is made from its load.
        (Schedule::Closed { .. }, Load::Open { .. }) => Vec::new(),
    }
}

/// A user without a request would only look for one and go.
fn users(concurrency: NonZeroU32, most: Option<u64>) -> usize {
    let users = u64::from(concurrency.get()).min(most.unwrap_or(u64::MAX));
    usize::try_from(users).unwrap_or(usize::MAX)
}

/// Every connection is an open file. What the system refuses shows in the first request that is
/// left without one.
fn allow_many_sockets() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

/// Keeps the calling thread on one processor; a system that refuses leaves it where it likes.
fn pin(core: u32) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(usize::try_from(core).unwrap_or(usize::MAX));
    let _ = rustix::thread::sched_setaffinity(None, &set);
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
}
