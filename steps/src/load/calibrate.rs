//! `load.calibrate`: the same load against a server of known truth on the same machine, so that
//! what the client itself adds stands beside what it measures.

use super::EventTimeChoice;
use super::arrivals::{ArrivalChoice, LoadOptions, StageOptions, ThinkChoice};
use crate::files;
use crate::http::Peer;
use crate::kinds::Workload as WorkloadKind;
use crate::result::{Definition, MeasuredFile, Row};
use embedded_server::{AnswerTrace, ExecutorKind, ServeError, ServerOptions, Trace};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{
    FailureClass, Figure, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport,
    StepType, Verdict,
};
use engine::types::{Artifact, Nested, Positive};
use engine::value::Table;
use loadgen::{
    ClientError, Ended, Generation, Limits, NoObserver, Prompt, Protocol, Reuse, Run, RunPlan,
    Stop, Target, Threads, Timeouts, Trust, Truth, Workload,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Threads that talk to the client.
const HTTP_THREADS: usize = 2;
/// How long the server may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that may be under way at once.
const MOST_REQUESTS: usize = 100_000;

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
            speed: None,
            max_in_flight: self.max_in_flight,
            concurrency: self.concurrency,
            think_time: self.think_time,
            think: self.think,
            sessions: false,
            has_end: false,
            seed: self.seed,
        }
    }

    fn server_options(&self, trace: PathBuf) -> ServerOptions {
        ServerOptions {
            executor: ExecutorKind::Sim,
            sim_ttft_ms: self.ttft.as_secs_f64() * 1e3,
            sim_tpot_ms: self.tpot.as_secs_f64() * 1e3,
            trace: Some(trace),
            queue_limit: MOST_REQUESTS,
            max_running_requests: MOST_REQUESTS,
            ..ServerOptions::default()
        }
    }

    fn plan(&self, context: &StepContext, at: SocketAddr) -> Result<RunPlan, StepError> {
        let failed = |e: loadgen::WorkloadError| StepError::new(e.to_string());
        let workload = Workload::read(&context.path(&self.workload)?).map_err(failed)?;
        let lasts = match self.stages.is_empty() {
            true => self.duration,
            false => self.stages.iter().map(|stage| stage.0.duration).sum(),
        };
        Ok(RunPlan {
            workload: Arc::new(Workload::new(alike(&workload)).map_err(failed)?),
            load: self.load().load(context.sample)?,
            stop: Stop::After(lasts),
            // The server keeps nothing that a repeated prompt could meet.
            reuse: if self.is_listed() {
                Reuse::Once
            } else {
                Reuse::Cycle
            },
            target: Target {
                address: format!("http://{at}")
                    .parse()
                    .map_err(|e: loadgen::AddressError| StepError::new(e.to_string()))?,
                trust: Trust::default(),
                model: "default".to_owned(),
                protocol: Protocol::Completions,
                http: loadgen::HttpVersion::One,
                api_key: None,
                generation: Generation::default(),
                extra: serde_json::Map::new(),
            },
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            threads: Threads {
                count: self.client_threads,
                cores: self.client_cores.clone(),
            },
            event_time: self.event_time.into(),
        })
    }

    fn is_listed(&self) -> bool {
        self.arrivals == Some(ArrivalChoice::Listed)
    }
}

/// Requests of the same lengths whose words the server knows.
fn alike(workload: &Workload) -> Vec<loadgen::Request> {
    let request = |request: &loadgen::Request| loadgen::Request {
        model: None,
        slo: None,
        prompt: Prompt::Text(vec!["word"; request.input_tokens as usize].join(" ")),
        ..request.clone()
    };
    workload.requests().iter().map(request).collect()
}

#[async_trait::async_trait]
impl Step for LoadCalibrate {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let trace = context.folder.join("trace.jsonl");
        let server = PacedServer::start(self.server_options(trace.clone())).await?;
        let plan = self.plan(context, server.address)?;
        let run = loadgen::run(plan, &mut NoObserver, context.cancelled()).await;
        server.stop().await?;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        if run.info.ended == Ended::Interrupted {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        let error = ClientError::of(&run.info, &run.records, &truths(&trace)?);
        files::write_json(&context.output("result.json"), &measured(&run, &error))?;
        // It is as large as the run, and nobody needs it any more.
        let _ = std::fs::remove_file(&trace);
        let figures = figures(&error);
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(verdict(&run, &error)),
            figures,
        })
    }
}

fn truths(trace: &Path) -> Result<Vec<Truth>, StepError> {
    let answers = Trace::read(trace)
        .map_err(|e| StepError::because("could not read what the server wrote down", e))?;
    let truth = |answer: AnswerTrace| Truth {
        request: answer.request,
        received: answer.received_ns,
        sent: answer.sent_ns,
    };
    Ok(answers.into_iter().map(truth).collect())
}

fn measured(run: &Run, error: &ClientError) -> MeasuredFile {
    let mut row = Row::default();
    for (name, value) in error.values() {
        row.set(name, value);
    }
    let definition = |(name, formula): (&str, &str)| Definition {
        name: name.to_owned(),
        unit: "ms".to_owned(),
        formula: formula.to_owned(),
    };
    MeasuredFile {
        rows: vec![row],
        definitions: ClientError::definitions()
            .into_iter()
            .map(definition)
            .collect(),
        notes: Vec::new(),
        target: BTreeMap::from([("executor".to_owned(), "sim".to_owned())]),
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

/// The server of known truth, on threads of its own.
struct PacedServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), ServeError>>,
}

impl PacedServer {
    async fn start(options: ServerOptions) -> Result<Self, StepError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("paced-server".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(HTTP_THREADS)
                    .enable_all()
                    .build();
                let served = match runtime {
                    Ok(runtime) => runtime.block_on(embedded_server::serve(
                        options,
                        stopped,
                        // Nobody waits any more: then it is about to be stopped.
                        |address| {
                            let _ = tell.send(address);
                        },
                    )),
                    Err(source) => Err(ServeError::Thread { source }),
                };
                let _ = end.send(served);
            })
            .map_err(|e| StepError::because("could not start the server's threads", e))?;
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(address)) => {
                let server = Self {
                    address,
                    stop,
                    ended,
                };
                server.is_ready().await?;
                Ok(server)
            }
            _ => {
                drop(stop);
                Err(match tokio::time::timeout(PATIENCE, ended).await {
                    Ok(Ok(Err(error))) => {
                        StepError::because("the paced server did not start", error)
                    }
                    _ => StepError::new("the paced server did not start"),
                })
            }
        }
    }

    async fn is_ready(&self) -> Result<(), StepError> {
        let url = format!("http://{}", self.address);
        let asked = async {
            while !crate::http::get(Peer::at(&url), "/health")
                .await
                .is_ok_and(|a| a.status == 200)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let late = |_| StepError::new("the paced server was not ready in time");
        tokio::time::timeout(PATIENCE, asked).await.map_err(late)
    }

    async fn stop(self) -> Result<(), StepError> {
        drop(self.stop);
        match tokio::time::timeout(PATIENCE, self.ended).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(StepError::because("the paced server failed", error)),
            _ => Err(StepError::new("the paced server did not end")),
        }
    }
}
