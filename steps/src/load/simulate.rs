//! `load.simulate`: a load and the built-in server in one process, in time that is made up.
//!
//! The queue, cache, batches and swaps are those of `server.embedded` with the executor `sim`; requests and
//! answers are the bytes that would go over the wire. Nothing is waited for: ten minutes of load take
//! seconds, and the same load has the same result to the last digit.

use super::arrivals::{
    ArrivalChoice, LoadOptions, ReadyChoice, StageOptions, ThinkChoice, with_load,
};
use super::records::RecordFiles;
use super::test::{PLAYED_OUTPUTS, ReuseChoice, conclude, measured, stop};
use super::timeline::{Timeline, Window};
use super::{ProtocolChoice, image_token, told_facts};
use crate::kinds::Workload as WorkloadKind;
use crate::result::{SIMULATED, simulated};
use crate::server::{ServerEmbedded, own};
use bytes::Bytes;
use embedded_server::clock::Nanos;
use embedded_server::flags::ServerFlags;
use embedded_server::offline::{self, Offline};
use engine::options::Parser;
use engine::service::ServiceType;
use engine::source::Place;
use engine::step::{
    FailureClass, OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Artifact, Json, Nested, Positive};
use engine::value::{Key, Kind, Table};
use loadgen::{
    Ended, EventTime, Generation, Limits, Metrics, Observer, OfflineServer, OutputLength, Piece,
    Protocol, Reuse, RunPlan, Target, Threads, Thresholds, Timeouts, Told, Workload,
};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

/// A target has an address; nobody connects to this one.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Options of a server that say nothing here.
const UNUSED: [&str; 2] = ["port", "trace"];
/// The same among its further flags.
const UNUSED_FLAGS: [&str; 4] = ["host", "trace", "fault", "fault_seed"];

with_load! {
    /// Options of `load.simulate`.
    pub struct LoadSimulate {
        /// The server: the options of `server.embedded`, with the executor `sim` and steps.
        server: Nested<ServerEmbedded>;
        /// What is asked.
        workload: Artifact<WorkloadKind>;
    } + load + {
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// Whether requests say by when they have to be answered: `slo`, their longest end-to-end latency
        /// in seconds.
        send_objectives: bool = false;
        /// What stands for each image in the texts of the protocol `sglang`; `<image>` if absent.
        image_token: Option<String>;
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
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Plays a load to the built-in server in made-up time: exact, repeatable, and minutes in seconds.";

    fn outputs() -> &'static [OutputSpec] {
        PLAYED_OUTPUTS
    }

    fn identity(&self) -> Vec<(String, String)> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        // The server is this binary, too.
        let mut identity = own::identity();
        identity.push(("load_generator".to_owned(), version));
        identity
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        self.load().check(table, place, parser);
        if let Some(Kind::Table(server)) = table.get("server").map(|value| &value.kind) {
            self.server.0.check(server, &at("server"), parser);
            check_unused(server, parser);
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

/// Reports what of a server's options means nothing where nobody listens.
fn check_unused(server: &Table, parser: &mut Parser<'_>) {
    let flags = match server.get("args").map(|value| &value.kind) {
        Some(Kind::Table(flags)) => flags.entries.as_slice(),
        _ => &[],
    };
    let is_flag = |key: &&Key| UNUSED_FLAGS.contains(&key.name.replace('-', "_").as_str());
    let flags = flags.iter().map(|(key, _)| key).filter(is_flag);
    let options = server.entries.iter().map(|(key, _)| key);
    let options = options.filter(|key| UNUSED.contains(&key.name.as_str()));
    for key in options.chain(flags) {
        let message = format!("in made-up time `{}` says nothing", key.name);
        let help = "remove it, or give it to a `server.embedded` that `load.test` measures";
        parser.wrong::<()>(&key.place, message, "not used", help);
    }
}

impl LoadSimulate {
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
                generation: Generation {
                    length: OutputLength::Exact,
                    temperature: 0.0,
                },
                tells_objectives: self.send_objectives,
                image_token: image_token(self.image_token.as_ref()),
                extra: self.extra_body.0.clone(),
                ..Target::new(address, model, self.protocol.into())
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
    target.extend(told_facts(server.info()));
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
        let mut played = Played { server, path };
        let is_stopped = || context.is_cancelled();
        let run = loadgen::run_offline(plan, &mut played, &is_stopped).await;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        if run.info.ended == Ended::Interrupted {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
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
        let server = &played.server;
        let timeline = Timeline::of(&server.timeline(), &server.swaps(), window)
            .map_err(|e| StepError::because("could not read the time line", e))?;
        conclude(context, &run, (&metrics, &judged), result, &timeline)
    }
}
