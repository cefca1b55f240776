//! `profile.phases`: where the time of prefill and decode steps goes, by the server's own record.
//!
//! Windows are made, not guessed: a prefill window holds requests that ask for one token, a decode
//! window a fixed number of requests that run together, and of it only the steps in which all of
//! them take part. Needs a server that records its forward steps, as the embedded one does.

use crate::files;
use crate::http::{self, Peer};
use crate::kinds::{InferenceServer, Workload as WorkloadKind};
use crate::load::{describe_target, target};
use crate::result::{Definition, MeasuredFile, Row};
use engine::service::Endpoint;
use engine::step::{
    FailureClass, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
    Verdict,
};
use engine::types::{Artifact, Lease};
use loadgen::{
    Generation, HttpVersion, Load, NoObserver, Protocol, Record, Request, RunPlan, Stop, Workload,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroU64};

/// Fewer steps than this in a window carry no median worth believing.
const FEW_STEPS: usize = 5;

engine::options! {
    /// Options of `profile.phases`.
    pub struct ProfilePhases {
        /// The server: one that records its forward steps.
        server: Lease<InferenceServer>;
        /// Prompts of the windows; never those of a measurement whose cache matters.
        workload: Artifact<WorkloadKind>;
        /// Requests of the prefill window, one at a time.
        prefill_requests: NonZeroU32 = NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN), in "requests";
        /// Batch sizes, each a decode window of its own.
        decode_batches: Vec<NonZeroU32> = [1, 4].into_iter().filter_map(NonZeroU32::new).collect(), in "requests";
        /// Tokens that each request of a decode window generates.
        decode_tokens: NonZeroU32 = NonZeroU32::new(32).unwrap_or(NonZeroU32::MIN), in "tokens";
    }
}

impl StepType for ProfilePhases {
    const NAME: &'static str = "profile.phases";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Profiles pure prefill and pure decode windows by the server's own record of its steps.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "result",
                file: "result.json",
                kind: "result",
                doc: "One row per phase and batch: time per step and per class of work.",
            },
            OutputSpec {
                name: "steps",
                file: "steps.json",
                kind: "steps",
                doc: "Every forward step of every window.",
            },
        ]
    }
}

/// A window of steps that belong together.
struct Window {
    phase: &'static str,
    batch: u32,
    requests: Vec<Request>,
}

/// A forward step as the server tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ForwardStep {
    id: u64,
    phase: String,
    n_sequences: u32,
    n_tokens: u32,
    context_tokens: u64,
    start_ns: u64,
    duration_ns: u64,
    operations_ns: BTreeMap<String, u64>,
    sampling_ns: u64,
    scheduling_ns: u64,
}

/// A page of the server's record.
#[derive(Debug, Deserialize)]
struct StepPage {
    steps: Vec<ForwardStep>,
    next: u64,
    dropped: u64,
}

/// What came of a window.
struct Profiled {
    row: Row,
    steps: Vec<ForwardStep>,
    trouble: Vec<String>,
}

#[async_trait::async_trait]
impl Step for ProfilePhases {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let windows = self.windows(workload.requests())?;
        let total = windows.len() as u64;
        let mut profiled = Vec::new();
        for (i, window) in windows.into_iter().enumerate() {
            context.done(
                format!("{} window, batch {}", window.phase, window.batch),
                i as u64,
                total,
            );
            profiled.push(self.profile(context, window).await?);
        }
        context.done("windows done", total, total);
        let described = describe_target(context.endpoint(&self.server)?).await;
        write_results(context, &profiled, described)?;
        let trouble: Vec<String> = profiled.iter().flat_map(|p| p.trouble.clone()).collect();
        let grade = if trouble.is_empty() {
            Grade::Valid
        } else {
            Grade::Invalid
        };
        Ok(StepReport {
            summary: Some(summary(&profiled)),
            verdict: Some(Verdict {
                grade,
                reasons: trouble,
            }),
            figures: Vec::new(),
        })
    }
}

impl ProfilePhases {
    fn windows(&self, requests: &[Request]) -> Result<Vec<Window>, StepError> {
        let needed =
            self.prefill_requests.get() + self.decode_batches.iter().map(|b| b.get()).sum::<u32>();
        if requests.len() < needed as usize {
            return Err(StepError::new(format!(
                "the windows need {needed} prompts, and the workload has {}",
                requests.len()
            ))
            .help("make the workload longer or the windows smaller"));
        }
        let mut rest = requests.iter();
        let mut take = |n: u32, output: NonZeroU32| -> Vec<Request> {
            rest.by_ref()
                .take(n as usize)
                .map(|r| Request {
                    output_tokens: output,
                    ..r.clone()
                })
                .collect()
        };
        let mut windows = vec![Window {
            phase: "prefill",
            batch: 1,
            requests: take(self.prefill_requests.get(), NonZeroU32::MIN),
        }];
        for batch in &self.decode_batches {
            windows.push(Window {
                phase: "decode",
                batch: batch.get(),
                requests: take(batch.get(), self.decode_tokens),
            });
        }
        Ok(windows)
    }

    async fn profile(&self, context: &StepContext, window: Window) -> Result<Profiled, StepError> {
        let endpoint = context.endpoint(&self.server)?;
        let before = steps_since(Peer::of(endpoint), u64::MAX).await?.next;
        let (phase, batch) = (window.phase, window.batch);
        let plan = window.plan(endpoint)?;
        let run = loadgen::run(plan, &mut NoObserver, context.cancelled())
            .await
            .map_err(|e| StepError::new(e.to_string()))?;
        if context.is_cancelled() {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        let page = steps_since(Peer::of(endpoint), before).await?;
        let mut trouble = failures(&run.records);
        if page.dropped > 0 {
            trouble.push(format!(
                "the server forgot {} forward steps before they were read",
                page.dropped
            ));
        }
        let steps: Vec<ForwardStep> = page
            .steps
            .into_iter()
            .filter(|s| s.phase == phase && s.n_sequences == batch)
            .collect();
        if steps.len() < FEW_STEPS {
            trouble.push(format!(
                "the {phase} window of batch {batch} has only {} whole steps: make it longer",
                steps.len()
            ));
        }
        Ok(Profiled {
            row: row(phase, batch, &steps),
            steps,
            trouble,
        })
    }
}

impl Window {
    /// The load that makes it: one prompt after another, or a batch of answers at once.
    fn plan(self, endpoint: &Endpoint) -> Result<RunPlan, StepError> {
        let n_requests = NonZeroU64::new(self.requests.len() as u64).unwrap_or(NonZeroU64::MIN);
        let concurrency = if self.phase == "prefill" {
            NonZeroU32::MIN
        } else {
            NonZeroU32::new(self.batch).unwrap_or(NonZeroU32::MIN)
        };
        let workload = Workload::new(self.requests).map_err(|e| StepError::new(e.to_string()))?;
        let target = target(
            endpoint,
            Protocol::Completions,
            HttpVersion::One,
            Generation::default(),
            None,
        )?;
        let stop = Stop::Requests(n_requests);
        Ok(RunPlan::new(
            workload,
            Load::closed(concurrency),
            stop,
            target,
        ))
    }
}

async fn steps_since(server: Peer<'_>, since: u64) -> Result<StepPage, StepError> {
    let answer = http::get(server, &format!("/forward_steps?since={since}")).await?;
    if answer.status != 200 {
        return Err(StepError::new(format!("this server does not record its forward steps: `/forward_steps` answers with status {}", answer.status))
            .help("`profile.phases` needs `server.embedded`"));
    }
    serde_json::from_value(answer.body)
        .map_err(|e| StepError::because("could not understand the server's forward steps", e))
}

fn failures(records: &[Record]) -> Vec<String> {
    let failed = records.iter().filter(|r| !r.completed()).count();
    if failed == 0 {
        Vec::new()
    } else {
        vec![format!(
            "{failed} of {} requests of a window failed",
            records.len()
        )]
    }
}

fn row(phase: &str, batch: u32, steps: &[ForwardStep]) -> Row {
    let mut row = Row::default();
    row.labels.insert("phase".to_owned(), phase.to_owned());
    row.labels
        .insert("window".to_owned(), format!("{phase}, batch {batch}"));
    row.set("batch", batch.into());
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a step and counts are far below 2^53"
    )]
    let median = |of: &dyn Fn(&ForwardStep) -> u64| {
        statistics::median(&steps.iter().map(|s| of(s) as f64).collect::<Vec<_>>())
    };
    let ms = |value: Option<f64>| value.map_or(f64::NAN, |v| v / 1e6);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    row.set("steps", steps.len() as f64);
    let duration = ms(median(&|s| s.duration_ns));
    row.set("step_ms", duration);
    row.set("sampling_ms", ms(median(&|s| s.sampling_ns)));
    row.set("scheduling_ms", ms(median(&|s| s.scheduling_ns)));
    let tokens = median(&|s| s.n_tokens.into()).unwrap_or(f64::NAN);
    row.set("tokens_per_step", tokens);
    row.set("tokens_per_s", tokens / duration * 1e3);
    let names: BTreeSet<&String> = steps.iter().flat_map(|s| s.operations_ns.keys()).collect();
    for name in names {
        row.set(
            format!("{name}_ms"),
            ms(median(&|s| s.operations_ns.get(name).copied().unwrap_or(0))),
        );
    }
    row
}

/// What the values of a row mean, besides the classes of work.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "step_ms",
        "ms",
        "duration of a forward step in the executor, median over the window's steps",
    ),
    (
        "sampling_ms",
        "ms",
        "time to sample the step's tokens, median",
    ),
    (
        "scheduling_ms",
        "ms",
        "time between steps that is neither forward nor sampling, median",
    ),
    (
        "tokens_per_step",
        "tokens",
        "tokens that a step computes, median",
    ),
    ("tokens_per_s", "tokens/s", "tokens_per_step / step_ms"),
    ("batch", "requests", "requests that run together"),
    ("steps", "steps", "whole steps of the window"),
];

fn definitions(profiled: &[Profiled]) -> Vec<Definition> {
    let own = "time in this class of work within a forward step, median over the window's steps";
    let values = profiled.iter().flat_map(|p| p.row.values.keys());
    let classes: BTreeSet<&str> = values
        .map(String::as_str)
        .filter(|name| DEFINITIONS.iter().all(|(known, _, _)| known != name))
        .collect();
    let classes = classes.into_iter().map(|name| (name, "ms", own));
    DEFINITIONS
        .iter()
        .copied()
        .chain(classes)
        .map(|(name, unit, formula)| Definition {
            name: name.to_owned(),
            unit: unit.to_owned(),
            formula: formula.to_owned(),
        })
        .collect()
}

fn write_results(
    context: &StepContext,
    profiled: &[Profiled],
    target: BTreeMap<String, String>,
) -> Result<(), StepError> {
    let result = MeasuredFile {
        rows: profiled.iter().map(|p| p.row.clone()).collect(),
        definitions: definitions(profiled),
        notes: Vec::new(),
        target,
        details: serde_json::Value::Null,
    };
    files::write_json(&context.output("result.json"), &result)?;
    let steps: Vec<&Vec<ForwardStep>> = profiled.iter().map(|p| &p.steps).collect();
    files::write_json(&context.output("steps.json"), &steps)
}

fn summary(profiled: &[Profiled]) -> String {
    let line = |p: &Profiled| {
        let step = p
            .row
            .value("step_ms")
            .map_or_else(|| "–".to_owned(), charts::format_number);
        format!(
            "{} {step} ms",
            p.row.labels.get("window").cloned().unwrap_or_default()
        )
    };
    profiled.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(duration_ns: u64, attention: u64) -> ForwardStep {
        ForwardStep {
            id: 0,
            phase: "decode".to_owned(),
            n_sequences: 4,
            n_tokens: 4,
            context_tokens: 400,
            start_ns: 0,
            duration_ns,
            operations_ns: BTreeMap::from([("attention".to_owned(), attention)]),
            sampling_ns: 1000,
            scheduling_ns: 2000,
        }
    }

    #[test]
    fn a_row_holds_medians_in_milliseconds() {
        let row = row(
            "decode",
            4,
            &[
                step(2_000_000, 500_000),
                step(4_000_000, 700_000),
                step(3_000_000, 600_000),
            ],
        );
        assert_eq!(row.value("step_ms"), Some(3.0));
        assert_eq!(row.value("attention_ms"), Some(0.6));
        assert!((row.value("tokens_per_s").expect("a rate") - 4000.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_window_without_steps_has_no_numbers_instead_of_zeros() {
        assert_eq!(row("prefill", 1, &[]).value("step_ms"), None);
    }
}
