//! The thread that keeps the appointments of an open loop.
//!
//! It sleeps to each absolute instant with the kernel's own precision (tokio's timers count
//! whole milliseconds), and hands the request to the client's threads. An instant that has
//! passed is handed over at once: nothing is dropped and no later instant moves. Bodies are
//! rendered ahead of time, within a budget, so that a long prompt does not delay its own
//! dispatch.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    dispatch::{Dispatcher, Job},
    workers::ThreadTime,
};
use crate::{Load, clock::nanoseconds};

/// Bytes of bodies that may wait for their instants.
const RENDERED: usize = 64 << 20;

/// Rendering stops so long before the next instant: one body takes less, short of prompts of
/// hundreds of thousands of tokens.
const MARGIN: Duration = Duration::from_millis(2);

/// A handle to the pacing thread, which ends when this is dropped.
pub(super) struct Pacer {
    thread: JoinHandle<()>,
    stopped: Arc<AtomicBool>,
    used: Arc<Mutex<Option<ThreadTime>>>,
}

impl Pacer {
    pub(super) fn start(
        dispatcher: Dispatcher,
        instants: Vec<Duration>,
        runtime: &Handle,
    ) -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let used = Arc::new(Mutex::new(None));
        let pacing = Pacing {
            cap: cap(dispatcher.context.plan.load),
            dispatcher,
            instants,
            runtime: runtime.clone(),
            stopped: stopped.clone(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            next: 0,
        };
        let result = used.clone();
        let thread = thread::Builder::new()
            .name("loadgen-pacer".into())
            .spawn(move || {
                // The default slack of 50 µs would be half of the lag that is allowed; a kernel
                // that refuses leaves it at that, and the lag is recorded in any case.
                let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
                // `keep` gives its dispatcher up last: the time is there when the collector ends.
                pacing.keep(|| {
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = ThreadTime::own();
                });
            })?;
        Ok(Self {
            thread,
            stopped,
            used,
        })
    }

    /// Tells the thread to hand over no more requests.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// What the thread used, if it has handed over its last request and that can be known.
    pub(super) fn used(self) -> Option<ThreadTime> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn cap(load: Load) -> Option<Arc<Semaphore>> {
    match load {
        Load::Open {
            max_in_flight: Some(most),
            ..
        } => {
            let permits = usize::try_from(most.get()).unwrap_or(usize::MAX);
            Some(Arc::new(Semaphore::new(
                permits.min(Semaphore::MAX_PERMITS),
            )))
        }
        _ => None,
    }
}

/// The thread's own state.
struct Pacing {
    dispatcher: Dispatcher,
    instants: Vec<Duration>,
    cap: Option<Arc<Semaphore>>,
    runtime: Handle,
    stopped: Arc<AtomicBool>,
    /// Bodies of the arrivals from `next` on.
    ahead: VecDeque<Bytes>,
    ahead_bytes: usize,
    next: usize,
}

impl Pacing {
    fn keep(mut self, at_end: impl FnOnce()) {
        while let Some(after) = self.instants.get(self.next).copied() {
            let due = self.dispatcher.context.clock.at(after);
            self.render_until(due);
            if !self.wait_until(due) {
                break;
            }
            self.hand_over(nanoseconds(after));
        }
        at_end();
    }

    /// Renders ahead while there is time and room.
    fn render_until(&mut self, due: Instant) {
        while self.ahead_bytes < RENDERED && self.next + self.ahead.len() < self.instants.len() {
            if Instant::now() + MARGIN > due && !self.ahead.is_empty() {
                break;
            }
            let body = self
                .dispatcher
                .context
                .render((self.next + self.ahead.len()) as u64);
            self.ahead_bytes += body.len();
            self.ahead.push_back(body);
        }
    }

    /// Whether `due` was reached rather than the end of the run.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
    }

    fn hand_over(&mut self, scheduled: u64) {
        let index = self.next as u64;
        let context = &self.dispatcher.context;
        let body = self
            .ahead
            .pop_front()
            .unwrap_or_else(|| context.render(index));
        self.ahead_bytes -= body.len().min(self.ahead_bytes);
        self.next += 1;
        context.gauge.arrived.add(1);
        let job = Job {
            index,
            scheduled,
            body,
        };
        self.runtime
            .spawn(self.dispatcher.clone().dispatch(job, self.cap.clone()));
    }
}
