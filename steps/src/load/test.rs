//! `load.test`: one sample of a server under a stated load.

use super::applied;
use super::arrivals::{
    ArrivalChoice, LoadOptions, ReadyChoice, StageOptions, ThinkChoice, with_load,
};
use super::calibration::{Calibration, Measurement};
use super::counters;
use super::recompute::write_views;
use super::records::RecordFiles;
use super::telemetry::{self, TelemetryChoice, TelemetryOptions};
use super::timeline::{self, Timeline};
use super::truth::{self, CausalityChoice, ServerTrace};
use super::{
    EXACT_LENGTH, EventTimeChoice, HttpChoice, ProtocolChoice, client_error_definitions,
    image_token, target, told_facts, verdict,
};
use crate::breakdown;
use crate::files;
use crate::http::{self, Peer};
use crate::kinds::{InferenceServer, Workload as WorkloadKind};
use crate::result::{Definition, MeasuredFile, Row, simulated};
use crate::server::known::profiler::PROFILER;
use crate::server::known::{ASKED, LOG};
use crate::server::own;
use engine::options::Parser;
use engine::service::Endpoint;
use engine::source::Place;
use engine::step::{
    FailureClass, Figure, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Artifact, Json, Lease, Nested, Positive, Text};
use engine::value::Table;
use loadgen::{
    ClientError, Ended, Generation, Limits, Metrics, OutputLength, Reuse, Run, RunPlan, Secret,
    Stop, Threads, Thresholds, Timeouts, Workload,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

/// Prompts begin alike by chance: a smaller share than this says nothing of a prefix cache.
const WORTH_A_LOOK: f64 = 0.01;

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

with_load! {
    /// Options of `load.test`.
    pub struct LoadTest {
        /// The server.
        server: Lease<InferenceServer>;
        /// What is asked.
        workload: Artifact<WorkloadKind>;
    } + load + {
        /// What the output length of a request means.
        output_length: LengthChoice = LengthChoice::Exact;
        /// Sampling temperature; 0 is greedy.
        temperature: f64 = 0.0;
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// Whether requests say by when they have to be answered: `slo`, their longest end-to-end latency
        /// in seconds, which servers of several models know.
        send_objectives: bool = false;
        /// What stands for each image in the texts of the protocol `sglang`; `<image>` if absent.
        image_token: Option<String>;
        /// Merged into every request's body.
        extra_body: Json = Json::default();
        /// Sent as a bearer token; write `${secret.NAME}`.
        api_key: Option<Text>;
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(600);
        /// What the client adds under this load; it stands beside the results, and counts in the
        /// verdict. `automatic` rehearses the load for two seconds against a built-in server before it
        /// begins, a minute at most, unless one of its shape did so within the last hour; or
        /// samples of a `load.calibrate` that the plan has.
        calibration: Calibration = Calibration::Automatic;
        /// Whether records are held to what the server wrote down: each token was sent, made and read in
        /// that order, and both count alike. What cannot be makes the result invalid.
        causality: CausalityChoice = CausalityChoice::Automatic;
        /// Starts the random numbers of arrivals; the sample's index is added.
        seed: u64 = 42;
        /// Threads that send and receive; one for every four processors if absent.
        client_threads: Option<NonZeroU32>;
        /// Processors that these threads are kept on, in turn.
        client_cores: Vec<u32> = Vec::new();
        /// Whose time events get.
        event_time: EventTimeChoice = EventTimeChoice::Read;
        /// The version of HTTP; with TLS the server has to choose 2, without it is spoken unasked.
        http: HttpChoice = HttpChoice::One;
        /// What is read of the server and of its machine during the load, as series in time.
        telemetry: TelemetryChoice = TelemetryChoice::Automatic;
        /// Time between two readings, from 100 ms to an hour.
        telemetry_interval: Duration = Duration::from_secs(1);
        /// Series of the server's metrics that are kept besides, by its own names, such as
        /// `sglang:queue_time_seconds`. Of a histogram that means its sum and its count; its buckets are called
        /// `…_bucket`.
        telemetry_series: Vec<String> = Vec::new();
    }
}

/// What a load leaves that was played in made-up time: all but telemetry, which nobody could read then.
pub(super) const PLAYED_OUTPUTS: &[OutputSpec] = OUTPUTS.split_at(OUTPUTS.len() - 1).0;

/// What a load leaves.
const OUTPUTS: &[OutputSpec] = &[
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
    OutputSpec {
        name: "views",
        file: "views",
        kind: "files",
        doc: "The same in the JSON of `vllm bench serve` and of SGLang's `bench_serving`, by their arithmetic.",
    },
    OutputSpec {
        name: "breakdown",
        file: "breakdown.parquet",
        kind: "table",
        doc: "The headline numbers by model, by turn and by group, where requests differ in them.",
    },
    OutputSpec {
        name: "timeline",
        file: "timeline.json",
        kind: "timeline",
        doc: "How each model of the server fared, and which came and went; empty if the server tells none.",
    },
    OutputSpec {
        name: "telemetry",
        file: "telemetry",
        kind: "telemetry",
        doc: "The server's metrics and its GPUs during the load, as Parquet files on the clock of the records; without rows where nothing was told.",
    },
];

impl StepType for LoadTest {
    const NAME: &'static str = "load.test";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 5;
    const SUMMARY: &'static str =
        "Measures a server under an open or closed load, with every request recorded.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUTS
    }

    fn identity(&self) -> Vec<(String, String)> {
        vec![(
            "load_generator".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        )]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        self.load().check(table, place, parser);
        if self.requests.is_some() && self.duration.is_some() {
            let message = "a load stops after a number of requests or after a time, not both";
            let help = "remove `requests` or `duration`";
            parser.wrong::<()>(&at("duration"), message, "a second end", help);
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            let message = format!(
                "expected a temperature from 0 to 2, found {}",
                self.temperature
            );
            parser.wrong::<()>(&at("temperature"), message, "out of range", "0 is greedy");
        }
        self.telemetry().check(&at("telemetry_interval"), parser);
    }
}

impl LoadTest {
    fn telemetry(&self) -> TelemetryOptions<'_> {
        TelemetryOptions {
            choice: self.telemetry,
            interval: self.telemetry_interval,
            further: &self.telemetry_series,
        }
    }

    fn threads(&self) -> Threads {
        Threads {
            count: self.client_threads,
            cores: self.client_cores.clone(),
        }
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
            self.http.into(),
            generation,
            api_key,
        )?;
        // The plan has the last word.
        target.extra.extend(self.extra_body.0.clone());
        target.tells_objectives = self.send_objectives;
        target.image_token = image_token(self.image_token.as_ref());
        let whole = NonZeroU64::new(workload.requests().len() as u64).unwrap_or(NonZeroU64::MIN);
        let stop = stop(self.duration, self.requests.unwrap_or(whole), &self.stages);
        let reuse = match self.reuse {
            ReuseChoice::Once => Reuse::Once,
            ReuseChoice::Cycle => Reuse::Cycle,
        };
        let timeouts = Timeouts {
            request: self.request_timeout,
            ..Timeouts::default()
        };
        let load = self.load().load(context.sample)?;
        Ok(RunPlan {
            workload: Arc::new(workload),
            load,
            stop,
            reuse,
            target,
            timeouts,
            limits: Limits::default(),
            threads: self.threads(),
            event_time: self.event_time.into(),
        })
    }
}

#[async_trait::async_trait]
impl Step for LoadTest {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let measurement = Measurement {
            load: self.load(),
            workload: &workload,
            requests: self.requests,
            threads: self.threads(),
            event_time: self.event_time.into(),
            http: self.http.into(),
        };
        // Before the server has any load: the two never run beside each other.
        let calibrated = self.calibration.of(&measurement, context).await?;
        let plan = self.plan(context, workload)?;
        let endpoint = context.endpoint(&self.server)?;
        let info = server_info(endpoint).await;
        let trace = ServerTrace::begin(self.causality, endpoint, &info)?;
        let target = describe(endpoint, info.ok());
        let counted = counters::read(endpoint).await;
        let simulated = simulated(&target).map(str::to_owned);
        let simulated = simulated.as_deref();
        let mut files = RecordFiles::create(context.output("records"), context, simulated)?;
        let watch = self.telemetry().begin(endpoint).await?;
        let run = loadgen::run(plan, &mut files, context.cancelled()).await;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        files.finish()?;
        if run.info.ended == Ended::Interrupted {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        let telemetry = watch.end(&run.info, &run.records).await;
        telemetry::write(&telemetry, &context.output("telemetry"), simulated)?;
        let counted = counters::since(counted, endpoint, &run.records).await;
        let causality = match trace {
            Some(trace) => Some(trace.causality(&run).await?),
            None => None,
        };
        let metrics = Metrics::of(&run.info, &run.records);
        let error = calibrated.as_ref().map(|calibrated| calibrated.error);
        let judged = loadgen::judge(
            &run.info,
            &run.records,
            &metrics,
            error.as_ref(),
            &Thresholds::default(),
        );
        let judged = truth::judged(judged, causality.as_ref());
        let judged = applied::judged(judged, &target);
        let judged = counters::judged(judged, counted.as_ref(), &run.records);
        let mut result = measured(&run.info, &metrics, &judged, error.as_ref(), target)?;
        let note = calibrated.and_then(|calibrated| calibrated.note(&run.records));
        result.notes.extend(note);
        truth::describe(causality.as_ref(), &mut result);
        counters::describe(counted.as_ref(), &mut result);
        telemetry::describe(&telemetry, &run.info, &run.records, &mut result);
        let timeline = Timeline::read(endpoint, &run.info).await?;
        conclude(context, &run, (&metrics, &judged), result, &timeline)
    }
}

/// When a load stops that has `requests` where nothing else ends it.
pub(super) fn stop(
    duration: Option<Duration>,
    requests: NonZeroU64,
    stages: &[Nested<StageOptions>],
) -> Stop {
    match duration {
        Some(duration) => Stop::After(duration),
        None if !stages.is_empty() => {
            Stop::After(stages.iter().map(|stage| stage.0.duration).sum())
        }
        None => Stop::Requests(requests),
    }
}

/// Writes everything about a load but its records, and reports.
pub(super) fn conclude(
    context: &StepContext,
    run: &Run,
    (metrics, judged): (&Metrics, &loadgen::Verdict),
    mut result: MeasuredFile,
    timeline: &Timeline,
) -> Result<StepReport, StepError> {
    timeline.measure(&mut result);
    files::write_json(&context.output("timeline.json"), timeline)?;
    files::write_json(&context.output("result.json"), &result)?;
    files::create_dir(&context.output("views"))?;
    let simulated = result.simulated();
    write_views(&context.output("views"), &run.info, &run.records, simulated)?;
    let path = context.output("breakdown.parquet");
    breakdown::write(&path, metrics, &run.records, simulated)?;
    let mut figures = figures(metrics);
    figures.extend(telemetry::figures_of(&result));
    Ok(StepReport {
        summary: Some(crate::figures::line(&figures)),
        verdict: Some(verdict(judged)),
        figures,
    })
}

pub(super) fn measured(
    info: &loadgen::RunInfo,
    metrics: &Metrics,
    judged: &loadgen::Verdict,
    error: Option<&ClientError>,
    target: BTreeMap<String, String>,
) -> Result<MeasuredFile, StepError> {
    let mut row = Row::default();
    for (name, value) in metrics.values() {
        row.set(name, value);
    }
    for (name, value) in error.map(ClientError::values).into_iter().flatten() {
        row.set(name, value);
    }
    let definition = |name: &str, unit: &str, formula: &str| Definition {
        name: name.to_owned(),
        unit: unit.to_owned(),
        formula: formula.to_owned(),
    };
    let metric = |d: &loadgen::Definition| definition(d.name, d.unit, d.formula);
    let definitions = Metrics::definitions().iter().map(metric);
    let definitions = definitions
        .chain(error.iter().flat_map(|_| client_error_definitions()))
        .collect();
    let details = serde_json::json!({ "info": info, "verdict": judged, "metrics": serde_json::to_value(metrics).map_err(|e| StepError::because("could not write the metrics", e))? });
    Ok(MeasuredFile {
        rows: vec![row],
        definitions,
        notes: judged
            .notes
            .iter()
            .map(note_text)
            .chain(unused_text(info))
            .chain(images_text(info))
            .collect(),
        target,
        details,
    })
}

/// What is to be said of arrivals that found no conversation ready.
fn unused_text(info: &loadgen::RunInfo) -> Option<String> {
    (info.unused_arrivals > 0).then(|| {
        format!(
            "{} arrivals found no conversation ready and passed unused: the offered rate is that of the others",
            info.unused_arrivals
        )
    })
}

/// What is to be said of images that were held in memory.
fn images_text(info: &loadgen::RunInfo) -> Option<String> {
    (info.images > 0).then(|| {
        let mib = info.image_bytes as f64 / f64::from(1 << 20);
        let n = info.images;
        format!("{n} images were encoded before the load, and held {mib:.1} MiB while it lasted")
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
    let all = [
        figure("TTFT p50", metric("ttft_p50_ms"), "ms"),
        figure("TPOT p50", metric("tpot_p50_ms"), "ms"),
        figure("", metric("output_throughput"), "tok/s"),
        figure("", count(counts.completed), "ok"),
        figure("", count(counts.failed), "failed"),
    ];
    let cached = cached(metrics).into_iter().flatten();
    let cached = cached.map(|(name, share)| figure(name, share * 100.0, "%"));
    // Without a steady state there is no rate to show.
    let all = all.into_iter().chain(cached);
    all.filter(|f| !f.value.is_nan()).collect()
}

/// How much of the prompts was cached, beside what could have been, where that is worth a look.
fn cached(metrics: &Metrics) -> Option<[(&'static str, f64); 2]> {
    let ideal = metrics.cache_hit_rate_ideal?;
    let measured = metrics.cache_hit_rate?;
    (ideal > WORTH_A_LOOK).then_some([("cached", measured), ("of ideally", ideal)])
}

/// What the server says of itself.
async fn server_info(endpoint: &Endpoint) -> Result<Value, StepError> {
    let answer = http::get(Peer::of(endpoint), "/server_info").await?;
    // A refusal may be an object, too.
    Ok(match answer.status {
        200 => answer.body,
        _ => Value::Null,
    })
}

/// What the server says of itself, kept with the result.
pub(crate) async fn describe_target(endpoint: &Endpoint) -> BTreeMap<String, String> {
    describe(endpoint, server_info(endpoint).await.ok())
}

/// The same, of a server that was asked already.
fn describe(endpoint: &Endpoint, info: Option<Value>) -> BTreeMap<String, String> {
    let mut target: BTreeMap<String, String> = endpoint
        .facts
        .iter()
        .filter(|(k, _)| {
            ![
                own::ADDRESS_FILE,
                http::CA_CERTIFICATES,
                timeline::FACT,
                ASKED,
                LOG,
                PROFILER,
                EXACT_LENGTH,
            ]
            .contains(&k.as_str())
        })
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    target.extend(info.into_iter().flat_map(told_facts));
    target
}
