//! What every thread of a run shares: the plan, the clock, live counts, whether to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::{cap::Cap, gauge::Gauge};
use crate::{
    Outcome, Record, Request, RunPlan, client::Wire, clock::Clock, protocol::Fault,
    protocol::render,
};

/// Shared by all threads of a run.
pub(super) struct Context {
    pub(super) plan: RunPlan,
    pub(super) wire: Wire,
    pub(super) clock: Clock,
    pub(super) gauge: Gauge,
    pub(super) cap: Option<Cap>,
    /// Requests that users of a closed loop have taken.
    pub(super) taken: AtomicU64,
    /// Conversations that users of a closed loop have taken.
    pub(super) sessions_taken: AtomicU64,
    /// True once the run was cancelled.
    pub(super) stopped: AtomicBool,
    /// True once a user of a timed run wanted a request and there was none.
    pub(super) exhausted: AtomicBool,
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Its position in the run.
    pub(super) index: u64,
    /// The position of its request in the workload; it starts over behind the last one.
    pub(super) request: u64,
    pub(super) scheduled: u64,
    /// Which user of its thread sends it; 0 in an open loop.
    pub(super) user: usize,
}

impl Context {
    pub(super) fn request(&self, position: u64) -> &Request {
        let requests = self.plan.workload.requests();
        // The remainder is below a length, which is a usize.
        &requests[(position % requests.len() as u64) as usize]
    }

    pub(super) fn render(&self, position: u64) -> Bytes {
        render(&self.plan.target, self.request(position))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The record of a request of which nothing was seen yet.
    pub(super) fn record(&self, job: Job, outcome: Result<Outcome, Fault>, done: u64) -> Record {
        let (outcome, error) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(fault) => (Outcome::Failed(fault.class), Some(fault.message)),
        };
        match outcome {
            Outcome::Completed => self.gauge.completed.add(1),
            Outcome::Failed(_) => self.gauge.failed.add(1),
            Outcome::Dropped => {}
        }
        let mut record = Record::unsent(self.request(job.request), &self.plan.target.model);
        record.index = job.index;
        record.scheduled = job.scheduled;
        record.done = done;
        record.outcome = outcome;
        record.error = error;
        record
    }
}
