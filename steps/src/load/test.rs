//! `load.test`: one sample of a server under a stated load.

use super::records::RecordFiles;
use super::{ProtocolChoice, target, verdict};
use crate::files;
use crate::http;
use crate::kinds::{InferenceServer, Workload as WorkloadKind};
use crate::result::{Definition, MeasuredFile, Row};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    FailureClass, Figure, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Artifact, Json, Lease, Positive, Text};
use engine::value::Table;
use loadgen::{
    Arrivals, Ended, Generation, Limits, Load, Metrics, OutputLength, Rate, Reuse, Run, RunPlan,
    Secret, Stop, Thresholds, Timeouts, Workload,
};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

engine::choices! {
    /// The arrival process of an open loop.
    pub enum ArrivalChoice {
        /// Independent exponential gaps.
        Poisson = "poisson",
        /// Equal gaps.
        Constant = "constant",
        /// Every request at the start.
        AllAtOnce = "all_at_once",
    }
}

engine::choices! {
    /// What happens when more requests are needed than the workload has.
    pub enum ReuseChoice {
        /// It is an error: a repeated prompt would meet a warm cache.
        Once = "once",
        /// The workload starts over.
        Cycle = "cycle",
    }
}

engine::choices! {
    /// What the output length of a request means.
    pub enum LengthChoice {
        /// Exactly so many tokens: every run does the same work.
        Exact = "exact",
        /// At most so many: the model may stop by itself.
        AtMost = "at_most",
    }
}

engine::options! {
    /// Options of `load.test`.
    pub struct LoadTest {
        /// The server.
        server: Lease<InferenceServer>;
        /// What is asked.
        workload: Artifact<WorkloadKind>;
        /// Open loop: mean arrivals per second.
        request_rate: Option<Positive>, in "requests/s";
        /// Open loop: the arrival process; `poisson` if a rate is given.
        arrivals: Option<ArrivalChoice>;
        /// Open loop: holds arrivals back while so many are unanswered; the queue is recorded.
        max_in_flight: Option<NonZeroU32>, in "requests";
        /// Closed loop: users, each of whom sends as soon as the last answer ended.
        concurrency: Option<NonZeroU32>, in "users";
        /// Stops after so many requests; the workload's length if neither this nor `duration` is given.
        requests: Option<NonZeroU64>, in "requests";
        /// Stops sending after so much time.
        duration: Option<Duration>;
        /// What happens when more requests are needed than the workload has.
        reuse: ReuseChoice = ReuseChoice::Once;
        /// What the output length of a request means.
        output_length: LengthChoice = LengthChoice::Exact;
        /// Sampling temperature; 0 is greedy.
        temperature: f64 = 0.0;
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// Merged into every request's body.
        extra_body: Json = Json::default();
        /// Sent as a bearer token; write `${secret.NAME}`.
        api_key: Option<Text>;
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(600);
        /// Starts the random numbers of arrivals; the sample's index is added.
        seed: u64 = 42;
    }
}

impl StepType for LoadTest {
    const NAME: &'static str = "load.test";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Measures a server under an open or closed load, with every request recorded.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "result",
                file: "result.json",
                kind: "result",
                doc: "Metrics with their definitions, and the verdict.",
            },
            OutputSpec {
                name: "records",
                file: "records",
                kind: "records",
                doc: "One row per request, as Parquet files.",
            },
        ]
    }

    fn identity(&self) -> Vec<(String, String)> {
        vec![(
            "load_generator".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        )]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        for found in self.contradictions().iter().filter(|c| c.wrong) {
            parser.wrong::<()>(&at(found.option), found.message, found.label, found.help);
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            let message = format!(
                "expected a temperature from 0 to 2, found {}",
                self.temperature
            );
            parser.wrong::<()>(&at("temperature"), message, "out of range", "0 is greedy");
        }
    }
}

/// What does not go together.
struct Contradiction {
    /// Whether it is so.
    wrong: bool,
    /// The option that it is about; none if something is missing.
    option: &'static str,
    message: &'static str,
    label: &'static str,
    help: &'static str,
}

impl LoadTest {
    fn contradictions(&self) -> [Contradiction; 6] {
        let closed = self.concurrency.is_some();
        let rated = self.request_rate.is_some();
        let open = rated || self.arrivals.is_some();
        let rateless = self.arrivals == Some(ArrivalChoice::AllAtOnce);
        [
            Contradiction {
                wrong: closed && open,
                option: "concurrency",
                message: "a load is open or closed, not both",
                label: "closed loop, beside an open one",
                help: "give `request_rate` or `concurrency`",
            },
            Contradiction {
                wrong: !closed && !open,
                option: "",
                message: "the load is not stated",
                label: "no load",
                help: "add `request_rate = …` for an open loop or `concurrency = …` for a closed one",
            },
            Contradiction {
                wrong: rateless && rated,
                option: "request_rate",
                message: "`all_at_once` has no rate",
                label: "not used",
                help: "remove `request_rate`",
            },
            Contradiction {
                wrong: open && !rateless && !rated,
                option: "arrivals",
                message: "this arrival process needs a rate",
                label: "needs a rate",
                help: "add `request_rate = …`",
            },
            Contradiction {
                wrong: closed && self.max_in_flight.is_some(),
                option: "max_in_flight",
                message: "a closed loop needs no cap: `concurrency` is one",
                label: "not used",
                help: "remove `max_in_flight`",
            },
            Contradiction {
                wrong: self.requests.is_some() && self.duration.is_some(),
                option: "duration",
                message: "a load stops after a number of requests or after a time, not both",
                label: "a second end",
                help: "remove `requests` or `duration`",
            },
        ]
    }

    fn load(&self, sample: u32) -> Result<Load, StepError> {
        if let Some(concurrency) = self.concurrency {
            return Ok(Load::Closed { concurrency });
        }
        let rate = || {
            let rate = self
                .request_rate
                .ok_or_else(|| StepError::new("the load has no rate"))?;
            Rate::per_second(rate.0).map_err(|e| StepError::new(e.to_string()))
        };
        let arrivals = match self.arrivals.unwrap_or(ArrivalChoice::Poisson) {
            ArrivalChoice::Poisson => Arrivals::Poisson { rate: rate()? },
            ArrivalChoice::Constant => Arrivals::Constant { rate: rate()? },
            ArrivalChoice::AllAtOnce => Arrivals::AllAtOnce,
        };
        Ok(Load::Open {
            arrivals,
            seed: self.seed.wrapping_add(sample.into()),
            max_in_flight: self.max_in_flight,
        })
    }

    fn plan(&self, context: &StepContext, workload: Workload) -> Result<RunPlan, StepError> {
        let api_key = self
            .api_key
            .as_ref()
            .map(|k| context.text(k).map(Secret::new))
            .transpose()?;
        let length = match self.output_length {
            LengthChoice::Exact => OutputLength::Exact,
            LengthChoice::AtMost => OutputLength::AtMost,
        };
        let generation = Generation {
            length,
            temperature: self.temperature,
        };
        let mut target = target(
            context.endpoint(&self.server)?,
            self.protocol.into(),
            generation,
            api_key,
        )?;
        target.extra.clone_from(&self.extra_body.0);
        let whole = NonZeroU64::new(workload.requests().len() as u64).unwrap_or(NonZeroU64::MIN);
        let stop = match (self.duration, self.requests) {
            (Some(duration), _) => Stop::After(duration),
            (None, requests) => Stop::Requests(requests.unwrap_or(whole)),
        };
        let reuse = match self.reuse {
            ReuseChoice::Once => Reuse::Once,
            ReuseChoice::Cycle => Reuse::Cycle,
        };
        let timeouts = Timeouts {
            request: self.request_timeout,
            ..Timeouts::default()
        };
        let load = self.load(context.sample)?;
        Ok(RunPlan {
            workload: Arc::new(workload),
            load,
            stop,
            reuse,
            target,
            timeouts,
            limits: Limits::default(),
            threads: loadgen::Threads::default(),
        })
    }
}

#[async_trait::async_trait]
impl Step for LoadTest {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let plan = self.plan(context, workload)?;
        let endpoint = context.endpoint(&self.server)?;
        let target = describe_target(&endpoint.url, &endpoint.facts).await;
        let mut files = RecordFiles::create(context.output("records"), context)?;
        let run = loadgen::run(plan, &mut files, context.cancelled()).await;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        files.finish()?;
        if run.info.ended == Ended::Interrupted {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        let metrics = Metrics::of(&run.info, &run.records);
        let judged = loadgen::judge(&run.info, &run.records, &metrics, &Thresholds::default());
        let result = measured(&run, &metrics, &judged, target)?;
        files::write_json(&context.output("result.json"), &result)?;
        let figures = figures(&metrics);
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(verdict(&judged)),
            figures,
        })
    }
}

fn measured(
    run: &Run,
    metrics: &Metrics,
    judged: &loadgen::Verdict,
    target: BTreeMap<String, String>,
) -> Result<MeasuredFile, StepError> {
    let mut row = Row::default();
    for (name, value) in metrics.values() {
        row.set(name, value);
    }
    let definitions = Metrics::definitions()
        .iter()
        .map(|d| Definition {
            name: d.name.to_owned(),
            unit: d.unit.to_owned(),
            formula: d.formula.to_owned(),
        })
        .collect();
    let details = serde_json::json!({ "info": run.info, "verdict": judged, "metrics": serde_json::to_value(metrics).map_err(|e| StepError::because("could not write the metrics", e))? });
    Ok(MeasuredFile {
        rows: vec![row],
        definitions,
        notes: judged.notes.iter().map(note_text).collect(),
        target,
        details,
    })
}

fn note_text(note: &loadgen::Note) -> String {
    match note {
        loadgen::Note::UnsupportedPercentiles {
            requests,
            percentiles,
            needed,
        } => {
            let names: Vec<String> = percentiles.iter().map(|p| format!("p{p}")).collect();
            format!(
                "{requests} requests carry no {}: the first of them needs {needed}",
                names.join(", ")
            )
        }
        loadgen::Note::SingleEventAnswers => {
            "answers came in one event each: there is no time per token".to_owned()
        }
    }
}

/// The numbers that are shown at once; all others are in the result.
fn figures(metrics: &Metrics) -> Vec<Figure> {
    let values: BTreeMap<String, f64> = metrics.values().into_iter().collect();
    let figure = |name: &str, value: f64, unit: &str| Figure {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
    };
    let metric = |name: &str| values.get(name).copied().unwrap_or(f64::NAN);
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 requests")]
    let count = |n: u64| n as f64;
    let counts = &metrics.counts;
    vec![
        figure("TTFT p50", metric("ttft_p50_ms"), "ms"),
        figure("TPOT p50", metric("tpot_p50_ms"), "ms"),
        figure("", metric("output_throughput"), "tok/s"),
        figure("", count(counts.completed), "ok"),
        figure("", count(counts.failed), "failed"),
    ]
}

/// What the server says of itself, kept with the result.
async fn describe_target(url: &str, facts: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut target: BTreeMap<String, String> = facts
        .iter()
        .filter(|(k, _)| *k != "address_file")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if let Ok(answer) = http::get(url, "/server_info").await
        && let serde_json::Value::Object(info) = answer.body
    {
        let plain = info
            .into_iter()
            .filter(|(_, v)| !v.is_array() && !v.is_object() && !v.is_null());
        target.extend(plain.map(|(k, v)| {
            (
                format!("server.{k}"),
                v.as_str().map_or_else(|| v.to_string(), str::to_owned),
            )
        }));
    }
    target
}
