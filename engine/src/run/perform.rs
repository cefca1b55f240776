//! One run of one step: reset what it leases, let it work within its limits, take its outputs.

use super::gate::{Gate, Held, Passed};
use super::processes::Current;
use crate::environment::Condition;
use crate::graph::{NodeId, StepNode};
use crate::process::telling_log;
use crate::service::Endpoint;
use crate::step::{
    DynStep, FailureClass, Grade, Progress, StepContext, StepError, StepKind, StepReport,
};
use crate::store::{ArtifactRef, Store};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// How long a step that was told to stop may take to do so.
const GRACE: Duration = Duration::from_secs(10);

/// How long news of a service's death may be on its way.
const NEWS: Duration = Duration::from_millis(300);

/// A leased service, to be reset before a measurement.
#[derive(Clone)]
pub(super) struct Reset {
    pub(super) name: String,
    pub(super) service: Arc<dyn crate::service::DynService>,
    pub(super) endpoint: Endpoint,
}

/// Tells the run that a step begins.
pub(super) type BeginFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// When a step last said something.
type Heartbeat = Arc<Mutex<Instant>>;

/// Everything for one run of one step.
pub(super) struct Performance {
    pub(super) node: NodeId,
    pub(super) sample: u32,
    pub(super) step: StepNode,
    /// Makes what the step sees, given what tells it to stop.
    pub(super) context: Box<dyn Fn(watch::Receiver<bool>) -> StepContext + Send + Sync>,
    /// Becomes true when the run wants the step to stop.
    pub(super) cancel: watch::Receiver<bool>,
    /// Where its outputs lie.
    pub(super) folder: PathBuf,
    /// Where its logs lie.
    pub(super) logs: PathBuf,
    pub(super) resets: Vec<Reset>,
    /// The processes of its services and of those behind them: alive after a measurement.
    pub(super) processes: Vec<Current>,
    pub(super) store: Arc<Store>,
    /// What it has to pass before it begins.
    pub(super) gate: Gate,
    /// What it was given of the machine's pools, once it has passed.
    pub(super) parts: BTreeMap<String, Vec<String>>,
    /// Is told what it waits for before it begins.
    pub(super) say: Box<dyn Fn(String) + Send + Sync>,
    /// Is told when it begins.
    pub(super) begin: Box<dyn FnOnce() -> BeginFuture + Send + Sync>,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) node: NodeId,
    pub(super) sample: u32,
    pub(super) took: Duration,
    /// `None` if another run has done the work.
    pub(super) result: Result<Option<DoneStep>, StepError>,
    /// What it holds until its result is kept.
    pub(super) held: Option<Held>,
}

/// What came of it.
pub(super) struct DoneStep {
    pub(super) report: StepReport,
    pub(super) outputs: BTreeMap<String, ArtifactRef>,
    pub(super) before: Condition,
    pub(super) after: Condition,
}

impl Performance {
    pub(super) async fn until_the_end(mut self) -> Ended {
        let (node, sample) = (self.node, self.sample);
        let ended = |took, result, held| Ended {
            node,
            sample,
            took,
            result,
            held,
        };
        let held = match self.pass().await {
            Ok(Passed::Here(held)) => held,
            Ok(Passed::Elsewhere) => return ended(Duration::ZERO, Ok(None), None),
            Err(error) => return ended(Duration::ZERO, Err(error), None),
        };
        let begin = std::mem::replace(&mut self.begin, Box::new(|| Box::pin(async {})));
        begin().await;
        self.parts.clone_from(&held.claim.parts);
        let began = Instant::now();
        let result = self.work().await.map(Some);
        ended(began.elapsed(), result, Some(held))
    }

    async fn pass(&self) -> Result<Passed, StepError> {
        tokio::select! {
            passed = self.gate.pass(&self.say) => passed,
            () = self.told() => Err(interrupted()),
        }
    }

    async fn work(self) -> Result<DoneStep, StepError> {
        let before = Condition::now();
        let report = self.within_limits().await?;
        let after = Condition::now();
        if self.step.entry.kind == StepKind::Measure {
            self.verify_undisturbed(&report).await?;
        }
        let outputs = self.take_outputs().await?;
        Ok(DoneStep {
            report,
            outputs,
            before,
            after,
        })
    }

    /// A sample during which the run was interrupted or a service died is no sample.
    async fn verify_undisturbed(&self, report: &StepReport) -> Result<(), StepError> {
        let sound = report
            .verdict
            .as_ref()
            .is_some_and(|v| v.grade == Grade::Valid);
        for process in self.processes.iter().flat_map(Current::list) {
            // News of a death may be a moment behind the failures that it caused.
            let patience = if sound { Duration::ZERO } else { NEWS };
            let has_died = tokio::time::timeout(patience, process.exited()).await;
            if has_died.is_ok() {
                // The run cancels this step when it hears of the death.
                let _ = tokio::time::timeout(GRACE, self.told()).await;
                return Err(interrupted());
            }
        }
        if *self.cancel.borrow() {
            Err(interrupted())
        } else {
            Ok(())
        }
    }

    /// Runs the step on a thread where it may compute as long as it likes without holding up
    /// anything else; tells it to stop when somebody wants that or a limit is reached.
    async fn within_limits(&self) -> Result<StepReport, StepError> {
        let heartbeat = Arc::new(Mutex::new(Instant::now()));
        let (stop, stopped) = watch::channel(false);
        let (abandon, abandoned) = watch::channel(false);
        let context = self.context(stopped, &heartbeat);
        let mut worker = self.start(context, abandoned);
        let because = tokio::select! {
            result = &mut worker => return self.outcome(result),
            because = self.reason_to_stop(heartbeat) => because,
        };
        stop.send_replace(true);
        let result = tokio::time::timeout(GRACE, &mut worker).await;
        // What does not stop by itself is dropped where it waits next.
        abandon.send_replace(true);
        match result {
            // A step that was told to stop and finished all the same has finished.
            Ok(result) if because.class == FailureClass::Interrupted => self.outcome(result),
            _ => Err(because),
        }
    }

    fn context(&self, cancel: watch::Receiver<bool>, heartbeat: &Heartbeat) -> StepContext {
        let mut context = (self.context)(cancel);
        context.claims.clone_from(&self.parts);
        let step = &self.step.step;
        context.resolved.note_secrets(|walk| step.walk(walk));
        let (tell, noted) = (context.progress.clone(), heartbeat.clone());
        context.progress = Arc::new(move |progress: Progress| {
            if let Ok(mut at) = noted.lock() {
                *at = Instant::now();
            }
            tell(progress);
        });
        context
    }

    fn start(
        &self,
        context: StepContext,
        mut abandoned: watch::Receiver<bool>,
    ) -> JoinHandle<Result<StepReport, StepError>> {
        let step = self.step.step.clone();
        let resets = self.resets.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = reset_and_run(&*step, &resets, &context) => result,
                    // An error means that nobody waits for the result any more.
                    _ = abandoned.wait_for(|gone| *gone) => Err(interrupted()),
                }
            })
        })
    }

    fn outcome(
        &self,
        result: Result<Result<StepReport, StepError>, JoinError>,
    ) -> Result<StepReport, StepError> {
        match result {
            Ok(Err(error)) if *self.cancel.borrow() && error.class == FailureClass::Step => {
                Err(error.class(FailureClass::Interrupted))
            }
            Ok(result) => result,
            Err(panic) => Err(StepError::new(format!(
                "the step broke down, which is a fault of the step: {panic}"
            ))),
        }
    }

    async fn reason_to_stop(&self, heartbeat: Heartbeat) -> StepError {
        let timeout = self.step.policy.timeout;
        tokio::select! {
            () = self.told() => interrupted(),
            () = tokio::time::sleep(timeout.run) => self.too_long("timeout.run", timeout.run),
            limit = idle(heartbeat, timeout.idle) => self.too_long("timeout.idle", limit),
        }
    }

    /// Waits until the run wants the step to stop, or is gone.
    async fn told(&self) {
        let _ = self.cancel.clone().wait_for(|stop| *stop).await;
    }

    fn too_long(&self, which: &str, limit: Duration) -> StepError {
        let limit = crate::types::duration_text(limit);
        let what = if which == "timeout.idle" {
            "made no progress for"
        } else {
            "was not done after"
        };
        let error = StepError::new(format!("it {what} {limit}"))
            .help(format!(
                "raise `{which}` of the step, or find out what it waits for"
            ))
            .class(FailureClass::Timeout);
        match telling_log(&self.logs) {
            Some(log) => error.log(log),
            None => error,
        }
    }

    /// Moves every declared output into the store.
    async fn take_outputs(self) -> Result<BTreeMap<String, ArtifactRef>, StepError> {
        let (store, folder, entry) = (self.store, self.folder, self.step.entry);
        let taken = tokio::task::spawn_blocking(move || {
            let mut outputs = BTreeMap::new();
            for output in entry.outputs {
                let path = folder.join(output.file);
                if !path.exists() {
                    return Err(StepError::new(format!(
                        "it did not write its output `{}`",
                        output.name
                    )));
                }
                let artifact = store.import(&path).map_err(|e| {
                    StepError::because(format!("could not keep its output `{}`", output.name), e)
                })?;
                outputs.insert(output.name.to_owned(), artifact);
            }
            // What was not declared is not kept.
            let _ = crate::disk::remove_all(&folder);
            Ok(outputs)
        });
        taken
            .await
            .unwrap_or_else(|e| Err(StepError::because("keeping its outputs broke down", e)))
    }
}

/// Brings the services that a measurement leases back to a known state, then runs the step.
async fn reset_and_run(
    step: &dyn DynStep,
    resets: &[Reset],
    context: &StepContext,
) -> Result<StepReport, StepError> {
    for reset in resets {
        context.doing(format!("resetting `{}`", reset.name));
        reset.service.reset(&reset.endpoint).await?;
    }
    step.run(context).await
}

fn interrupted() -> StepError {
    StepError::new("interrupted").class(FailureClass::Interrupted)
}

/// Returns when nothing was heard for `limit`; never without a limit.
async fn idle(heartbeat: Heartbeat, limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let since = heartbeat.lock().map_or(Duration::ZERO, |at| at.elapsed());
        match limit.checked_sub(since) {
            Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
            _ => return limit,
        }
    }
}
