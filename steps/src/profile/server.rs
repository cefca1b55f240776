//! `profile.server`: a server's own profiler, opened for a stated window while it is under load.
//!
//! How profilers are reached is in `server::known::profiler`, what passes while one is open in [`window`](super::window),
//! how traces are read in [`chrome`](super::chrome). Latencies of that load are told nowhere: a profiler costs time.

use super::found::{Found, definitions, summary};
use super::window::{Closed, Length, Passed, Window};
use crate::files;
use crate::http::Peer;
use crate::kinds::{InferenceServer, Workload as WorkloadKind};
use crate::load::{LoadWarm, ProtocolChoice, describe_target, target};
use crate::result::MeasuredFile;
use crate::server::known::profiler::Reach;
use engine::options::Parser;
use engine::service::Endpoint;
use engine::source::Place;
use engine::step::{
    FailureClass, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
    Verdict,
};
use engine::types::{Artifact, Lease};
use engine::value::Table;
use loadgen::{
    Generation, HttpVersion, Load, NoObserver, Outcome, Reuse, Run, RunPlan, Stop, Workload,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

/// Steps of a window that the plan says nothing of.
const USUAL_STEPS: u32 = 5;

const fn n(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

engine::options! {
    /// Options of `profile.server`.
    pub struct ProfileServer {
        /// The server: `server.sglang`, or `server.vllm` with `profiler = true`.
        server: Lease<InferenceServer>;
        /// What is asked meanwhile, over and over until the window is closed.
        workload: Artifact<WorkloadKind>;
        /// Requests under way at a time.
        concurrency: NonZeroU32 = n(4), in "requests";
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// Requests before that, with prompts of their own, so that what happens once is not profiled; none if 0.
        warm_requests: u32 = 8, in "requests";
        /// Forward steps that the profiler is open for, of each process; 5 if neither this nor `duration` says
        /// anything.
        steps: Option<NonZeroU32>, in "steps";
        /// Time that it is open for.
        duration: Option<Duration>;
        /// Whether prefill and decode are profiled one by one, `steps` of each and each in a file of its own. SGLang can.
        by_stage: bool = false;
        /// Longest wait for the steps to pass, and then for traces to be whole; at most 10 minutes.
        limit: Duration = Duration::from_secs(300);
        /// Names of each process and kind that become rows.
        top: NonZeroU32 = n(20), in "names";
    }
}

impl StepType for ProfileServer {
    const NAME: &'static str = "profile.server";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Opens a server's own profiler for a stated window under load, and keeps its traces.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "result",
                file: "result.json",
                kind: "result",
                doc: "The window, its files, and one row per kernel and operator that took longest, of each process.",
            },
            OutputSpec {
                name: "traces",
                file: "traces",
                kind: "files",
                doc: "The traces as the profiler wrote them, in Chrome's format: `ui.perfetto.dev` shows them.",
            },
        ]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |value| &value.place);
        if self.steps.is_some() && self.duration.is_some() {
            let message = "a window is of a number of steps or of a time, not both";
            let help = "remove `steps` or `duration`";
            parser.wrong::<()>(at("duration"), message, "a second end", help);
        }
        if self.by_stage && self.duration.is_some() {
            let message = "prefill and decode are profiled one by one for a number of steps each";
            let help = "write `steps` in place of `duration`";
            parser.wrong::<()>(at("by_stage"), message, "of a time", help);
        }
        if self.limit > Duration::from_secs(600) {
            let message = "no wait for a profiler is longer than 10 minutes";
            let help = "profile fewer steps, or for a shorter time";
            parser.wrong::<()>(at("limit"), message, "too long", help);
        }
    }
}

#[async_trait::async_trait]
impl Step for ProfileServer {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let endpoint = context.endpoint(&self.server)?;
        let reach = Reach::of(endpoint)?;
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let n_requests = workload.requests().len();
        let plan = self.plan(endpoint, workload)?;
        plan.check().map_err(|e| StepError::new(e.to_string()))?;
        self.warm(context).await?;
        let kept = context.output("traces");
        files::create_dir(&kept)?;
        let (passed, expected, run) = self.under_load(context, &reach, plan, &kept).await?;
        context.doing("reading traces");
        let (to, top) = (kept.clone(), self.top.get() as usize);
        let paths = passed.files.clone();
        let found = tokio::task::spawn_blocking(move || Found::of(&paths, &to, top)).await;
        let mut found = found.map_err(|e| StepError::because("could not read traces", e))??;
        found.trouble.extend(trouble(&passed, expected, &run));
        let mut result = self.measured(&passed, &found, &run);
        result.target = describe_target(endpoint).await;
        result.notes.extend(started_over(&run, n_requests));
        files::write_json(&context.output("result.json"), &result)?;
        Ok(StepReport {
            summary: Some(summary(&found)),
            verdict: Some(verdict(found.trouble)),
            figures: Vec::new(),
        })
    }
}

impl ProfileServer {
    fn length(&self) -> Length {
        match self.duration {
            Some(time) => Length::Time(time),
            None => Length::Steps(self.steps.map_or(USUAL_STEPS, NonZeroU32::get)),
        }
    }

    /// The load: it lasts longer than any window, and is ended by hand.
    fn plan(&self, endpoint: &Endpoint, workload: Workload) -> Result<RunPlan, StepError> {
        let target = target(
            endpoint,
            self.protocol.into(),
            HttpVersion::One,
            Generation::default(),
            None,
        )?;
        let longest = self.limit * 4 + self.duration.unwrap_or_default();
        let load = Load::closed(self.concurrency);
        let mut plan = RunPlan::new(workload, load, Stop::After(longest), target);
        plan.reuse = Reuse::Cycle;
        // A server that writes its traces answers nobody meanwhile.
        plan.timeouts.request = longest;
        plan.timeouts.idle = longest;
        Ok(plan)
    }

    async fn warm(&self, context: &StepContext) -> Result<(), StepError> {
        let Some(requests) = NonZeroU32::new(self.warm_requests) else {
            return Ok(());
        };
        let warm = LoadWarm {
            requests,
            concurrency: self.concurrency,
            protocol: self.protocol,
            ..LoadWarm::of(self.server.clone())
        };
        warm.run(context).await.map(drop)
    }

    /// Lets the window pass while the load runs; how many traces there were to be, too.
    async fn under_load(
        &self,
        context: &StepContext,
        reach: &Reach,
        plan: RunPlan,
        kept: &Path,
    ) -> Result<(Passed, usize, Run), StepError> {
        let Reach::Open {
            dialect,
            folder,
            processes,
        } = reach
        else {
            return Err(StepError::new("the server has no profiler"));
        };
        if self.by_stage && !dialect.knows_stages() {
            let message = "this server's profiler does not tell prefill and decode apart";
            return Err(StepError::new(message).help("remove `by_stage`"));
        }
        let stages = if self.by_stage { 2 } else { 1 };
        // The server has a working folder of its own.
        let own = std::path::absolute(kept).unwrap_or_else(|_| kept.to_owned());
        let window = Window {
            server: Peer::of(context.endpoint(&self.server)?),
            dialect: *dialect,
            length: self.length(),
            by_stage: self.by_stage,
            folder: folder.as_deref().unwrap_or(&own),
            traces: (*processes as usize) * stages,
            limit: self.limit,
        };
        let (over, is_over) = tokio::sync::oneshot::channel::<()>();
        let mut nobody = NoObserver;
        let load = loadgen::run(plan, &mut nobody, async {
            // It is over also when the other end is dropped.
            let _ = is_over.await;
        });
        let passing = async {
            let passed = window.pass(context).await;
            drop(over);
            passed
        };
        let (run, passed) = tokio::join!(load, passing);
        let passed = passed?;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        match context.is_cancelled() {
            true => Err(StepError::new("interrupted").class(FailureClass::Interrupted)),
            false => Ok((passed, window.traces, run)),
        }
    }

    fn measured(&self, passed: &Passed, found: &Found, run: &Run) -> MeasuredFile {
        let (steps, time) = match self.length() {
            Length::Steps(n) => (Some(n), None),
            Length::Time(time) => (None, Some(time.as_secs_f64())),
        };
        let count =
            |of: fn(&Outcome) -> bool| run.records.iter().filter(|r| of(&r.outcome)).count();
        let details = json!({
            "window": {
                "steps_asked": steps,
                "seconds_asked": time,
                "by_stage": self.by_stage,
                "closed": passed.closed.word(),
                "took_s": passed.took.as_secs_f64(),
            },
            "files": found.kept,
            "trouble": found.trouble,
            "load": {
                "concurrency": self.concurrency,
                "completed": count(|outcome| *outcome == Outcome::Completed),
                "failed": count(|outcome| matches!(outcome, Outcome::Failed(_))),
                "cut_off": count(|outcome| *outcome == Outcome::Dropped),
            },
        });
        MeasuredFile {
            rows: found.rows.clone(),
            definitions: definitions(),
            notes: vec![
                "a profiler costs time: no latency of this load is told, and none of it is a result".to_owned(),
            ],
            target: BTreeMap::new(),
            details,
        }
    }
}

/// What speaks against a profile.
fn trouble(passed: &Passed, expected: usize, run: &Run) -> Vec<String> {
    let mut trouble = Vec::new();
    if passed.closed == Closed::AtTheLimit {
        trouble.push("its steps had not passed at the limit: it was closed early (raise `limit`, or give the server more to do)".to_owned());
    }
    let n = passed.files.len();
    if n < expected {
        trouble.push(format!(
            "{n} of {expected} traces are whole (raise `limit`)"
        ));
    }
    let failed = run
        .records
        .iter()
        .filter(|r| matches!(r.outcome, Outcome::Failed(_)));
    let why = failed.clone().find_map(|record| record.error.clone());
    match failed.count() {
        0 => {}
        n => trouble.push(format!(
            "{n} requests of its load failed, the first because {}",
            why.unwrap_or_else(|| "of something that it did not tell".to_owned())
        )),
    }
    trouble
}

fn verdict(trouble: Vec<String>) -> Verdict {
    Verdict {
        grade: match trouble.is_empty() {
            true => Grade::Valid,
            false => Grade::Degraded,
        },
        reasons: trouble,
    }
}

/// What is to be said of prompts that were asked again.
fn started_over(run: &Run, n_requests: usize) -> Option<String> {
    (run.records.len() > n_requests).then(|| {
        "the workload started over: prompts that were asked again may have been found in the prefix cache".to_owned()
    })
}
