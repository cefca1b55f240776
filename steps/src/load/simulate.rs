//! `load.simulate`: a load and the built-in server in one process, in time that is made up.
//!
//! The queue, cache, batches and swaps are those of `server.embedded` with the executor `sim`; requests and
//! answers are the bytes that would go over the wire. Nothing is waited for: ten minutes of load take
//! seconds, and the same load has the same result to the last digit.

use super::ProtocolChoice;
use super::arrivals::{ArrivalChoice, LoadOptions, ReadyChoice, StageOptions, ThinkChoice};
use super::records::RecordFiles;
use super::test::{OUTPUTS, ReuseChoice, conclude, measured, stop};
use super::timeline::{Timeline, Window};
use crate::kinds::Workload as WorkloadKind;
use crate::result::{SIMULATED, simulated};
use crate::server::ServerEmbedded;
use bytes::Bytes;
use embedded_server::clock::Nanos;
use embedded_server::flags::ServerFlags;
use embedded_server::offline::{self, Offline};
use engine::options::Parser;
use engine::service::ServiceType;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Json, Nested, Positive};
use engine::value::{Kind, Table};
use loadgen::{
    EventTime, Generation, HttpVersion, Limits, Metrics, Observer, OfflineServer, OutputLength,
    Piece, Protocol, Reuse, RunPlan, Target, Threads, Thresholds, Timeouts, Told, Trust, Workload,
};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

/// A target has an address; nobody connects to this one.
const NOWHERE: &str = "http://127.0.0.1:1";

engine::options! {
    /// Options of `load.simulate`.
    pub struct LoadSimulate {
        /// The server: the options of `server.embedded`, with the executor `sim` and steps.
        server: Nested<ServerEmbedded>;
        /// What is asked.
        workload: Artifact<WorkloadKind>;
        /// Open loop: mean arrivals per second.
        request_rate: Option<Positive>, in "requests/s";
        /// Open loop: the arrival process; `poisson` if a rate is given.
        arrivals: Option<ArrivalChoice>;
        /// Open loop: the shape of `gamma` arrivals: below 1 they come in bursts, 1 is `poisson`,
        /// above 1 they are more even.
        burstiness: Option<Positive>;
        /// Open loop: rates that follow each other, in place of one `request_rate`; with `to` a
        /// stage is a ramp. The load ends with the last one.
        stages: Vec<Nested<StageOptions>> = Vec::new();
        /// Open loop: plays `listed` arrivals so many times as fast.
        speed: Option<Positive>;
        /// Open loop: holds arrivals back while so many are unanswered; the queue is recorded.
        max_in_flight: Option<NonZeroU32>, in "requests";
        /// Open loop: each arrival takes the next turn of a conversation whose last answer has ended, in
        /// this order.
        ready_queue: Option<ReadyChoice>;
        /// Closed loop: users, each of whom sends when the last answer has ended.
        concurrency: Option<NonZeroU32>, in "users";
        /// Closed loop: how long a user thinks between an answer and the next request, on average.
        think_time: Option<Duration>;
        /// Closed loop: how think times vary.
        think: ThinkChoice = ThinkChoice::Constant;
        /// Closed loop: a user takes whole conversations of the workload, turn by turn.
        sessions: bool = false;
        /// Stops after so many requests; the workload's length if neither this nor `duration` is given.
        requests: Option<NonZeroU64>, in "requests";
        /// Stops sending after so much time.
        duration: Option<Duration>;
        /// What happens when more requests are needed than the workload has.
        reuse: ReuseChoice = ReuseChoice::Once;
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// Whether requests say by when they have to be answered: `slo`, their longest end-to-end latency
        /// in seconds.
        send_objectives: bool = false;
        /// Merged into every request's body.
        extra_body: Json = Json::default();
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(600);
        /// Starts the random numbers of arrivals; the sample's index is added.
        seed: u64 = 42;
    }
}

impl StepType for LoadSimulate {
    const NAME: &'static str = "load.simulate";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Plays a load to the built-in server in made-up time: exact, repeatable, and minutes in seconds.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUTS
    }

    fn identity(&self) -> Vec<(String, String)> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        vec![("load_generator".to_owned(), version)]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        self.load().check(table, place, parser);
        if let Some(Kind::Table(server)) = table.get("server").map(|value| &value.kind) {
            self.server.0.check(server, &at("server"), parser);
        }
        if self.requests.is_some() && self.duration.is_some() {
            let message = "a load stops after a number of requests or after a time, not both";
            let help = "remove `requests` or `duration`";
            parser.wrong::<()>(&at("duration"), message, "a second end", help);
        }
        let protocol: Protocol = self.protocol.into();
        if protocol == Protocol::Triton {
            let help = "take `completions`, `chat` or `sglang`";
            let message = "the built-in server does not speak this protocol";
            parser.wrong::<()>(&at("protocol"), message, "not spoken", help);
        }
    }
}

impl LoadSimulate {
    /// What it says of the load.
    fn load(&self) -> LoadOptions<'_> {
        LoadOptions {
            request_rate: self.request_rate,
            arrivals: self.arrivals,
            burstiness: self.burstiness,
            stages: &self.stages,
            speed: self.speed,
            max_in_flight: self.max_in_flight,
            ready_queue: self.ready_queue,
            concurrency: self.concurrency,
            think_time: self.think_time,
            think: self.think,
            sessions: self.sessions,
            has_end: self.requests.is_some() || self.duration.is_some(),
            seed: self.seed,
        }
    }

    fn server(&self, context: &StepContext) -> Result<Offline, StepError> {
        let flags = self.server.0.all_flags(&context.resolved)?;
        let options = ServerFlags::read(flags).and_then(|flags| flags.options());
        let options = options.map_err(|e| StepError::new(e.message).help(e.help))?;
        Offline::new(&options).map_err(|e| {
            let help = "write `args = { executor = \"sim\", device_profile = \"…\" }`, or `sim_steps = true`";
            StepError::new(e.to_string()).help(help)
        })
    }

    fn plan(
        &self,
        context: &StepContext,
        workload: Workload,
        model: &str,
    ) -> Result<RunPlan, StepError> {
        let whole = NonZeroU64::new(workload.requests().len() as u64).unwrap_or(NonZeroU64::MIN);
        let address = NOWHERE.parse();
        let address = address.map_err(|e: loadgen::AddressError| StepError::new(e.to_string()))?;
        Ok(RunPlan {
            stop: stop(self.duration, self.requests.unwrap_or(whole), &self.stages),
            workload: Arc::new(workload),
            load: self.load().load(context.sample)?,
            reuse: match self.reuse {
                ReuseChoice::Once => Reuse::Once,
                ReuseChoice::Cycle => Reuse::Cycle,
            },
            target: Target {
                address,
                trust: Trust::default(),
                model: model.to_owned(),
                protocol: self.protocol.into(),
                http: HttpVersion::One,
                api_key: None,
                generation: Generation {
                    length: OutputLength::Exact,
                    temperature: 0.0,
                },
                tells_objectives: self.send_objectives,
                extra: self.extra_body.0.clone(),
            },
            timeouts: Timeouts {
                request: self.request_timeout,
                ..Timeouts::default()
            },
            limits: Limits::default(),
            threads: Threads::default(),
            event_time: EventTime::Read,
        })
    }
}

/// The server as the load generator knows servers.
struct Played {
    server: Offline,
    path: &'static str,
}

impl OfflineServer for Played {
    fn ask(&mut self, request: u64, body: Bytes, at: u64) {
        self.server.ask(request, self.path, &body, Nanos(at));
    }

    fn next(&mut self, until: u64) -> Option<Told> {
        let told = self.server.next(Nanos(until))?;
        let piece = match told.piece {
            offline::Piece::Head {
                status,
                is_event_stream,
            } => Piece::Head {
                status,
                is_event_stream,
            },
            offline::Piece::Body(bytes) => Piece::Body(bytes),
            offline::Piece::End => Piece::End,
        };
        Some(Told {
            request: told.request,
            at: told.at.0,
            piece,
        })
    }

    fn cancel(&mut self, request: u64) {
        self.server.cancel(request);
    }
}

/// What the server says of itself, as one that listens would.
fn target(server: &Offline) -> BTreeMap<String, String> {
    let mut target = BTreeMap::from([("model".to_owned(), server.model_name().to_owned())]);
    if let serde_json::Value::Object(info) = server.info() {
        let plain = info
            .into_iter()
            .filter(|(_, v)| !v.is_array() && !v.is_object() && !v.is_null());
        target.extend(plain.map(|(key, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (format!("server.{key}"), text)
        }));
    }
    let how = target.get(SIMULATED).cloned().unwrap_or_default();
    target.insert(SIMULATED.to_owned(), format!("{how}, made-up time"));
    target
}

#[async_trait::async_trait]
impl Step for LoadSimulate {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let server = self.server(context)?;
        let plan = self.plan(context, workload, server.model_name())?;
        let target = target(&server);
        let path = match plan.target.protocol {
            Protocol::Chat => "/v1/chat/completions",
            Protocol::Sglang => "/generate",
            Protocol::Completions | Protocol::Triton => "/v1/completions",
        };
        // It computes without a pause: on a thread of its own it holds nobody up.
        let played = tokio::task::spawn_blocking(move || {
            let mut played = Played { server, path };
            let run = block_on(loadgen::run_offline(plan, &mut played));
            (run, played.server)
        });
        let (run, server) = played
            .await
            .map_err(|e| StepError::because("the simulation failed unexpectedly", e))?;
        let run = run?.map_err(|e| StepError::new(e.to_string()))?;
        let mut files =
            RecordFiles::create(context.output("records"), context, simulated(&target))?;
        files
            .records(&run.records)
            .map_err(|e| StepError::because("could not write the records", e))?;
        files.finish()?;
        let metrics = Metrics::of(&run.info, &run.records);
        let judged = loadgen::judge(
            &run.info,
            &run.records,
            &metrics,
            None,
            &Thresholds::default(),
        );
        let result = measured(&run.info, &metrics, &judged, None, target)?;
        let window = Window {
            began: 0,
            ended: run.info.wall_ns,
        };
        let timeline = Timeline::of(&server.timeline(), &server.swaps(), window)
            .map_err(|e| StepError::because("could not read the time line", e))?;
        conclude(context, &run, (&metrics, &judged), result, &timeline)
    }
}

/// Drives a future that waits for nothing but itself.
fn block_on<F: Future>(future: F) -> Result<F::Output, StepError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|e| StepError::because("could not begin the simulation", e))?;
    Ok(runtime.block_on(future))
}
