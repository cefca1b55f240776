//! Who watches a run: progress twice a second, finished records in batches.
//!
//! The observer is called on the caller's runtime, never on the client's threads: a slow disk
//! delays no request.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};

use super::{RunError, context::Context};
use crate::Record;

/// Records are handed over when there are so many, or at the next report of progress.
const BATCH: usize = 256;

const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Why an observer could not keep records.
pub type ObserverError = Box<dyn std::error::Error + Send + Sync>;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// Requests that the run will send, where that is known.
    pub planned: Option<u64>,
    /// Requests sent so far.
    pub sent: u64,
    /// Answers finished.
    pub completed: u64,
    /// Requests failed.
    pub failed: u64,
    /// Requests under way.
    pub in_flight: u32,
    /// Output tokens received, as counted on the wire.
    pub tokens: u64,
}

/// Follows a run.
pub trait Observer: Send {
    /// Is told twice a second, and once at the end, how far the run is.
    fn progress(&mut self, progress: &Progress);

    /// Is given every record once, in the order in which requests *ended*. May block for a
    /// moment, to write them down.
    ///
    /// # Errors
    ///
    /// Any error stops the run, which then returns it.
    fn records(&mut self, records: &[Record]) -> Result<(), ObserverError>;
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn progress(&mut self, _: &Progress) {}

    fn records(&mut self, _: &[Record]) -> Result<(), ObserverError> {
        Ok(())
    }
}

/// Stands between the client's threads and the observer.
pub(super) struct Collector<'a> {
    observer: &'a mut dyn Observer,
    context: Arc<Context>,
    planned: Option<u64>,
    batch: Vec<Record>,
    all: Vec<Record>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        observer: &'a mut dyn Observer,
        context: &Arc<Context>,
        planned: Option<u64>,
    ) -> Self {
        let (batch, all) = (Vec::new(), Vec::new());
        Self {
            observer,
            context: context.clone(),
            planned,
            batch,
            all,
        }
    }

    /// Takes records until no one sends any more. Calls `stop` when `cancel` is ready, and
    /// says whether it was.
    pub(super) async fn collect(
        &mut self,
        mut records: mpsc::UnboundedReceiver<Vec<Record>>,
        mut cancel: Pin<&mut impl Future<Output = ()>>,
        stop: impl Fn(),
    ) -> Result<bool, ObserverError> {
        let mut ticks = ticks();
        let mut interrupted = false;
        loop {
            tokio::select! {
                () = &mut cancel, if !interrupted => {
                    interrupted = true;
                    stop();
                }
                finished = records.recv() => {
                    let Some(mut finished) = finished else { break };
                    self.batch.append(&mut finished);
                    if self.batch.len() >= BATCH {
                        self.hand_over()?;
                    }
                }
                _ = ticks.tick() => {
                    self.hand_over()?;
                    self.report();
                }
            }
        }
        self.hand_over()?;
        self.report();
        Ok(interrupted)
    }

    /// Every record, by index.
    pub(super) fn finish(self) -> Result<Vec<Record>, RunError> {
        let mut all = self.all;
        let started = self.context.gauge.arrived.get();
        let lost = started.saturating_sub(all.len() as u64);
        if lost > 0 {
            return Err(RunError::Lost { lost, started });
        }
        all.sort_unstable_by_key(|record| record.index);
        Ok(all)
    }

    fn hand_over(&mut self) -> Result<(), ObserverError> {
        if !self.batch.is_empty() {
            self.observer.records(&self.batch)?;
            self.all.append(&mut self.batch);
        }
        Ok(())
    }

    fn report(&mut self) {
        let gauge = &self.context.gauge;
        self.observer.progress(&Progress {
            elapsed: Duration::from_nanos(self.context.clock.now()),
            planned: self.planned,
            sent: gauge.sent.get(),
            completed: gauge.completed.get(),
            failed: gauge.failed.get(),
            in_flight: gauge.in_flight(),
            tokens: gauge.tokens.get(),
        });
    }
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
