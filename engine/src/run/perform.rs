//! One run of one step: reset what it leases, let it work within its limits, take its outputs.

use crate::environment::Condition;
use crate::graph::{NodeId, StepNode};
use crate::process::Process;
use crate::service::Endpoint;
use crate::step::{FailureClass, Grade, Progress, StepContext, StepError, StepKind, StepReport};
use crate::store::{ArtifactRef, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a step that was told to stop may take to do so.
const GRACE: Duration = Duration::from_secs(10);

/// How long news of a service's death may be on its way.
const NEWS: Duration = Duration::from_millis(300);

/// A leased service: reset before a measurement, alive after it.
pub(super) struct Reset {
    pub(super) name: String,
    pub(super) service: Arc<dyn crate::service::DynService>,
    pub(super) endpoint: Endpoint,
    pub(super) process: Option<Arc<Process>>,
}

/// Everything for one run of one step.
pub(super) struct Performance {
    pub(super) node: NodeId,
    pub(super) sample: u32,
    pub(super) step: StepNode,
    pub(super) context: StepContext,
    pub(super) resets: Vec<Reset>,
    pub(super) store: Arc<Store>,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) node: NodeId,
    pub(super) sample: u32,
    pub(super) took: Duration,
    pub(super) result: Result<DoneStep, StepError>,
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
        let began = Instant::now();
        let (node, sample) = (self.node, self.sample);
        let heartbeat = self.watch_progress();
        // The step runs in a task of its own, so that a panic in it is a failure like any other.
        let worker = tokio::spawn(async move { self.work(heartbeat).await });
        let abort = worker.abort_handle();
        let _guard = AbortOnDrop(abort);
        let result = match worker.await {
            Ok(result) => result,
            Err(panic) => Err(StepError::new(format!(
                "the step broke down, which is a fault of the step: {panic}"
            ))),
        };
        Ended {
            node,
            sample,
            took: began.elapsed(),
            result,
        }
    }

    /// Notes when the step last said something.
    fn watch_progress(&mut self) -> Arc<Mutex<Instant>> {
        let last = Arc::new(Mutex::new(Instant::now()));
        let inner = self.context.progress.clone();
        let noted = last.clone();
        self.context.progress = Arc::new(move |progress: Progress| {
            if let Ok(mut at) = noted.lock() {
                *at = Instant::now();
            }
            inner(progress);
        });
        last
    }

    async fn work(self, heartbeat: Arc<Mutex<Instant>>) -> Result<DoneStep, StepError> {
        for reset in &self.resets {
            self.context.doing(format!("resetting `{}`", reset.name));
            reset.service.reset(&reset.endpoint).await?;
        }
        let before = Condition::now();
        let report = self.within_limits(heartbeat).await?;
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
        for process in self.resets.iter().filter_map(|r| r.process.as_ref()) {
            // News of a death may be a moment behind the failures that it caused.
            let patience = if sound { Duration::ZERO } else { NEWS };
            if tokio::time::timeout(patience, process.exited())
                .await
                .is_ok()
            {
                self.context.cancelled().await;
            }
        }
        if self.context.is_cancelled() {
            Err(interrupted())
        } else {
            Ok(())
        }
    }

    async fn within_limits(&self, heartbeat: Arc<Mutex<Instant>>) -> Result<StepReport, StepError> {
        let timeout = self.step.timeout;
        let told_to_stop = async {
            self.context.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = self.step.step.run(&self.context) => match result {
                Err(error) if self.context.is_cancelled() && error.class == FailureClass::Step => {
                    Err(error.class(FailureClass::Interrupted))
                }
                other => other,
            },
            () = told_to_stop => Err(interrupted()),
            () = tokio::time::sleep(timeout.run) => Err(self.too_long("timeout.run", timeout.run)),
            limit = idle(heartbeat, timeout.idle) => Err(self.too_long("timeout.idle", limit)),
        }
    }

    fn too_long(&self, which: &str, limit: Duration) -> StepError {
        let limit = crate::types::duration_text(limit);
        let what = if which == "timeout.idle" {
            "made no progress for"
        } else {
            "was not done after"
        };
        StepError::new(format!("it {what} {limit}"))
            .help(format!(
                "raise `{which}` of the step, or find out what it waits for"
            ))
            .class(FailureClass::Timeout)
    }

    /// Moves every declared output into the store.
    async fn take_outputs(self) -> Result<BTreeMap<String, ArtifactRef>, StepError> {
        let (store, folder, entry) = (self.store, self.context.folder.clone(), self.step.entry);
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
            let _ = std::fs::remove_dir_all(&folder);
            Ok(outputs)
        });
        taken
            .await
            .unwrap_or_else(|e| Err(StepError::because("keeping its outputs broke down", e)))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn interrupted() -> StepError {
    StepError::new("interrupted").class(FailureClass::Interrupted)
}

/// Returns when nothing was heard for `limit`; never without a limit.
async fn idle(heartbeat: Arc<Mutex<Instant>>, limit: Option<Duration>) -> Duration {
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
