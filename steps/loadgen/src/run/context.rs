//! What every thread of a run shares: the plan, the clock, live counts, whether to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::{cap::Cap, gauge::Gauge, histories::Histories};
use crate::{
    Images, Outcome, Record, Request, RunPlan, Stop,
    client::Wire,
    clock::Clock,
    protocol::{Answer, Fault, render},
};

/// Shared by all threads of a run.
pub(super) struct Context {
    pub(super) plan: RunPlan,
    /// The images of the workload, as they are sent.
    pub(super) images: Images,
    pub(super) wire: Wire,
    pub(super) clock: Clock,
    pub(super) gauge: Gauge,
    pub(super) cap: Option<Cap>,
    /// Where turns stand behind what was said before.
    pub(super) histories: Option<Histories>,
    /// Requests that were taken by users of a closed loop, or of conversations that were ready.
    pub(super) taken: AtomicU64,
    /// Conversations that users of a closed loop have taken.
    pub(super) sessions_taken: AtomicU64,
    /// True once the run was cancelled.
    pub(super) stopped: AtomicBool,
    /// True once a user or an arrival of a timed run wanted a request and there was none.
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
    /// The conversation that it is a turn of; 0 where that does not matter.
    pub(super) conversation: usize,
}

impl Context {
    pub(super) fn request(&self, position: u64) -> &Request {
        let requests = self.plan.workload.requests();
        // The remainder is below a length, which is a usize.
        &requests[(position % requests.len() as u64) as usize]
    }

    pub(super) fn render(&self, position: u64) -> Bytes {
        render(&self.plan.target, self.request(position), &self.images)
    }

    /// The body of a request when it is sent.
    pub(super) fn render_job(&self, job: Job) -> Bytes {
        match &self.histories {
            Some(histories) => histories.render(
                (&self.plan, &self.images),
                job.conversation,
                self.request(job.request),
            ),
            None => self.render(job.request),
        }
    }

    /// In which form the answer to a request is to be kept.
    pub(super) fn answer_form(&self, job: Job) -> Answer {
        let histories = self.histories.as_ref();
        histories.map_or(Answer::Unkept, |h| h.form(job, self.request(job.request)))
    }

    /// Notes what was said in a turn that is over; says why its conversation cannot go on, if so.
    pub(super) fn note(&self, job: Job, record: &Record, answer: Answer) -> Result<(), String> {
        let Some(histories) = &self.histories else {
            return Ok(());
        };
        let sent = (&self.plan, &self.images);
        histories.add(sent, job, self.request(job.request), record, answer)
    }

    /// The number of the next request of the run; `None` when there have been as many as it has.
    pub(super) fn number(&self) -> Option<u64> {
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        match self.plan.stop {
            Stop::Requests(n) => (index < n.get()).then_some(index),
            Stop::After(_) => Some(index),
        }
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
        let request = self.request(job.request);
        let mut record = Record::unsent(request, &self.plan.target.model);
        if job.request >= self.plan.workload.requests().len() as u64 {
            record.cacheable_tokens = record.cacheable_tokens.map(|_| request.input_tokens);
        }
        if let Some(histories) = &self.histories {
            let before = histories.tokens(job.conversation, request);
            record.input_tokens = record.input_tokens.saturating_add(before);
            record.cacheable_tokens = record.cacheable_tokens.map(|n| n.saturating_add(before));
        }
        record.index = job.index;
        record.scheduled = job.scheduled;
        record.done = done;
        record.outcome = outcome;
        record.error = error;
        record
    }
}
