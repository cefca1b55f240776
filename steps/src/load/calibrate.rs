//! `load.calibrate`: the same load against a server of known truth on the same machine, so that
//! what the client itself adds stands beside what it measures.

use super::arrivals::{ArrivalChoice, LoadOptions, StageOptions, ThinkChoice};
use super::rehearsal::Rehearsal;
use super::{EventTimeChoice, HttpChoice, client_error_definitions};
use crate::files;
use crate::kinds::Workload as WorkloadKind;
use crate::result::{MeasuredFile, Row, SIMULATED};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    Figure, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
    Verdict,
};
use engine::types::{Artifact, Nested, Positive};
use engine::value::Table;
use loadgen::{ClientError, Reuse, Run, Stop, Threads, Workload};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

engine::options! {
    /// Options of `load.calibrate`.
    pub struct LoadCalibrate {
        /// The requests whose lengths are asked for; what they say does not matter.
        workload: Artifact<WorkloadKind>;
        /// Open loop: mean arrivals per second.
        request_rate: Option<Positive>, in "requests/s";
        /// Open loop: the arrival process; `poisson` if a rate is given.
        arrivals: Option<ArrivalChoice>;
        /// Open loop: the shape of `gamma` arrivals.
        burstiness: Option<Positive>;
        /// Open loop: rates that follow each other.
        stages: Vec<Nested<StageOptions>> = Vec::new();
        /// Open loop: holds arrivals back while so many are unanswered.
        max_in_flight: Option<NonZeroU32>, in "requests";
        /// Closed loop: users.
        concurrency: Option<NonZeroU32>, in "users";
        /// Closed loop: how long a user thinks, on average.
        think_time: Option<Duration>;
        /// Closed loop: how think times vary.
        think: ThinkChoice = ThinkChoice::Constant;
        /// Stops sending after so much time; with `stages` these say it.
        duration: Duration = Duration::from_secs(5);
        /// From a request to its first token, as the server that is to be measured is expected to take.
        ttft: Duration = Duration::from_millis(50);
        /// From one token to the next, likewise.
        tpot: Duration = Duration::from_millis(10);
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
    }
}

impl StepType for LoadCalibrate {
    const NAME: &'static str = "load.calibrate";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Measures what the client itself adds under a load, against a built-in server that answers at a stated pace.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "The client's error per percentile, in milliseconds.",
        }]
    }

    fn identity(&self) -> Vec<(String, String)> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        vec![("load_generator".to_owned(), version)]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        self.load().check(table, place, parser);
    }
}

impl LoadCalibrate {
    fn load(&self) -> LoadOptions<'_> {
        LoadOptions {
            request_rate: self.request_rate,
            arrivals: self.arrivals,
            burstiness: self.burstiness,
            stages: &self.stages,
            max_in_flight: self.max_in_flight,
            concurrency: self.concurrency,
            think_time: self.think_time,
            think: self.think,
            has_end: false,
            ..LoadOptions::none(self.seed)
        }
    }

    fn rehearsal(&self, context: &StepContext) -> Result<Rehearsal, StepError> {
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let lasts = match self.stages.is_empty() {
            true => self.duration,
            false => self.stages.iter().map(|stage| stage.0.duration).sum(),
        };
        Ok(Rehearsal {
            requests: workload.requests().to_vec(),
            load: self.load().load(context.sample)?,
            stop: Stop::After(lasts),
            // The server keeps nothing that a repeated prompt could meet.
            reuse: if self.is_listed() {
                Reuse::Once
            } else {
                Reuse::Cycle
            },
            threads: Threads {
                count: self.client_threads,
                cores: self.client_cores.clone(),
            },
            event_time: self.event_time.into(),
            http: self.http.into(),
            ttft: self.ttft,
            tpot: self.tpot,
        })
    }

    fn is_listed(&self) -> bool {
        self.arrivals == Some(ArrivalChoice::Listed)
    }
}

#[async_trait::async_trait]
impl Step for LoadCalibrate {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let (run, error) = self.rehearsal(context)?.perform(context).await?;
        files::write_json(&context.output("result.json"), &measured(&run, &error))?;
        let figures = figures(&error);
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(verdict(&run, &error)),
            figures,
        })
    }
}

fn measured(run: &Run, error: &ClientError) -> MeasuredFile {
    let mut row = Row::default();
    for (name, value) in error.values() {
        row.set(name, value);
    }
    MeasuredFile {
        rows: vec![row],
        definitions: client_error_definitions().collect(),
        notes: Vec::new(),
        target: BTreeMap::from([
            ("executor".to_owned(), "sim".to_owned()),
            (SIMULATED.to_owned(), "sim, stated pace".to_owned()),
        ]),
        details: serde_json::json!({ "info": run.info, "client_error": error }),
    }
}

fn figures(error: &ClientError) -> Vec<Figure> {
    let figure = |name: &str, value: Option<f64>| Figure {
        name: name.to_owned(),
        value: value.unwrap_or(f64::NAN),
        unit: "ms".to_owned(),
    };
    vec![
        figure("TTFT error p50", error.ttft.p50),
        figure("p99", error.ttft.p99),
        figure("ITL error p99", error.itl.p99),
    ]
}

/// An error that rests on some of the requests alone says little of the others.
fn verdict(run: &Run, error: &ClientError) -> Verdict {
    let sent = run.records.len() as u64;
    let missed = sent.saturating_sub(error.requests);
    let (grade, reasons) = match (error.requests, missed) {
        (0, _) => (Grade::Invalid, vec!["no request was answered".to_owned()]),
        (_, 0) => (Grade::Valid, Vec::new()),
        _ => (
            Grade::Degraded,
            vec![format!(
                "{missed} of {sent} requests failed or left no trace"
            )],
        ),
    };
    Verdict { grade, reasons }
}
