//! What every request of a run shares, and how a request becomes a record.
//!
//! Knows jobs, the cap on requests in flight and interruption; the exchange itself is next
//! door, and when a job is due others decide.

use std::sync::{Arc, atomic::AtomicBool};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    exchange::{Patience, Sight},
    gauge::Gauge,
};
use crate::{
    Outcome, Record, Request, RunPlan,
    client::Client,
    clock::Clock,
    protocol::{Fault, render},
};

/// Shared by all requests of a run.
pub(super) struct Context {
    pub(super) plan: RunPlan,
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) gauge: Gauge,
    /// True once the run was cancelled.
    pub(super) stopped: watch::Receiver<bool>,
    /// True once a user of a timed run wanted a request and there was none.
    pub(super) exhausted: AtomicBool,
}

/// One arrival.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) index: u64,
    pub(super) scheduled: u64,
    pub(super) body: Bytes,
}

/// Sends requests and passes their records on; the collector ends when the last one is gone.
#[derive(Clone)]
pub(super) struct Dispatcher {
    pub(super) context: Arc<Context>,
    pub(super) records: mpsc::Sender<Record>,
}

impl Context {
    pub(super) fn request(&self, index: u64) -> &Request {
        let requests = self.plan.workload.requests();
        // The remainder is below a length, which is a usize.
        &requests[(index % requests.len() as u64) as usize]
    }

    pub(super) fn render(&self, index: u64) -> Bytes {
        render(&self.plan.target, self.request(index))
    }

    /// Waits until the run is cancelled; for ever if it never is.
    pub(super) async fn interrupted(&self) {
        let mut stopped = self.stopped.clone();
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            // The run ended, which is no interruption.
            std::future::pending::<()>().await;
        }
    }

    /// Sends `job` and sees it through to its end.
    async fn serve(&self, job: Job) -> Record {
        let mut sight = Sight::default();
        let patience = Patience::new(self.plan.timeouts);
        let dispatched = self.clock.now();
        self.gauge.enter(dispatched);
        let (index, scheduled) = (job.index, job.scheduled);
        let (outcome, answer) = tokio::select! {
            biased;
            result = self.exchange(job.body, &mut sight, &patience) => match result {
                Ok(answer) => (Ok(Outcome::Completed), Some(answer)),
                Err(fault) => (Err(fault), None),
            },
            fault = patience.run_out() => (Err(fault), None),
            () = self.interrupted() => (Ok(Outcome::Dropped), None),
        };
        let done = sight.done.unwrap_or_else(|| self.clock.now());
        self.gauge.leave(done);
        let mut record = self.record(index, scheduled, outcome, done);
        record.dispatched = Some(dispatched);
        sight.describe(&mut record);
        if let Some(answer) = answer {
            self.recycle(answer).await;
        }
        record
    }

    /// The record of a request of which nothing was seen yet.
    fn record(
        &self,
        index: u64,
        scheduled: u64,
        outcome: Result<Outcome, Fault>,
        done: u64,
    ) -> Record {
        let (outcome, error) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(fault) => (Outcome::Failed(fault.class), Some(fault.message)),
        };
        match outcome {
            Outcome::Completed => self.gauge.completed.add(1),
            Outcome::Failed(_) => self.gauge.failed.add(1),
            Outcome::Dropped => {}
        }
        let mut record = Record::unsent(self.request(index), &self.plan.target.model);
        record.index = index;
        record.scheduled = scheduled;
        record.done = done;
        record.outcome = outcome;
        record.error = error;
        record
    }
}

impl Dispatcher {
    /// Sees `job` through, once the cap lets it in, and passes its record on.
    pub(super) async fn dispatch(self, job: Job, cap: Option<Arc<Semaphore>>) {
        let context = &self.context;
        let admission = async {
            match &cap {
                // Nobody closes the semaphore, so no permit means no cap.
                Some(cap) => cap.acquire().await.ok(),
                None => None,
            }
        };
        let admitted = tokio::select! {
            biased;
            () = context.interrupted() => None,
            permit = admission => Some(permit),
        };
        // The permit of a request that was cut off may come before the news of the
        // interruption does, but the flag was set before either.
        let stopped = *context.stopped.borrow();
        let record = match admitted {
            Some(_permit) if !stopped => context.serve(job).await,
            _ => {
                let (done, dropped) = (context.clock.now(), Ok(Outcome::Dropped));
                context.record(job.index, job.scheduled, dropped, done)
            }
        };
        self.deliver(record).await;
    }

    /// Sends `job` at once and passes its record on.
    pub(super) async fn dispatch_now(&self, job: Job) {
        let record = self.context.serve(job).await;
        self.deliver(record).await;
    }

    async fn deliver(&self, record: Record) {
        // The collector is gone only when the whole run is: nobody wants the record then.
        let _ = self.records.send(record).await;
    }
}
