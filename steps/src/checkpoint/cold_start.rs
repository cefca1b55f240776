//! `server.cold_start`: how long a server takes from its start to its first token, stage by stage.
//!
//! The server is launched by the engine as any other, and then lent to this step: each sample ends it, brings
//! its weights into the state that is asked for, and launches it anew. What was compiled or captured by an
//! earlier launch may be there, as it is for whoever starts a server twice.

use super::failure;
use super::start_up::{self, Seen};
use super::state::{self, Found, StateChoice};
use crate::files;
use crate::http::Peer;
use crate::kinds::{InferenceServer, Model};
use crate::load::{describe_target, target};
use crate::result::{Definition, MeasuredFile, Row};
use crate::server::known::DIFFERENCES;
use checkpoints::Contents;
use engine::loan::{Launched, Loan};
use engine::options::Parser;
use engine::service::Endpoint;
use engine::source::Place;
use engine::step::{
    FailureClass, Figure, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport,
    StepType, Verdict,
};
use engine::types::{Artifact, Lease};
use engine::value::Table;
use loadgen::{
    Generation, HttpVersion, Load, NoObserver, Prompt, Protocol, Record, Request, RunPlan, Stop,
    Workload,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// What the first request says, and the second with another beginning: short, so that reading it is little of the time.
const PROMPT: &str = "The first thing that a server which has just been started is asked is this:";
const WARM_PROMPT: &str = "Another thing that a server which serves already is asked is this:";
/// Longest that a server may take to empty its cache.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

engine::options! {
    /// Options of `server.cold_start`.
    pub struct ServerColdStart {
        /// The server: each sample launches it anew. It has to be one that the engine launches.
        server: Lease<InferenceServer>;
        /// The folder of its weights, whose pages are evicted or read before each launch; without it nothing is
        /// done to the page cache, as where weights are random.
        weights: Option<Artifact<Model>>;
        /// What of the weights is in the page cache when the server is started, looked at right before. It says
        /// nothing of the server's own program, which was run before.
        state: StateChoice = StateChoice::GuestCold;
        /// Tokens of the first answer, whose throughput is that after a load.
        output_tokens: NonZeroU32 = NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN), in "tokens";
        /// Longest wait for a launch to become ready.
        ready_timeout: Duration = Duration::from_secs(1800);
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(600);
    }
}

impl StepType for ServerColdStart {
    const NAME: &'static str = "server.cold_start";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Measures how long a server takes from its start to its first token, stage by stage, with weights in a state that is verified.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "One row: when the server listened, had its weights, served and answered, counted from its start.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.state == StateChoice::HostPool {
            let help = "write `guest_cold` or `page_cache`";
            let message = "a server has no pool from which it is started";
            parser.wrong::<()>(&at("state"), message, "not possible", help);
        }
        if self.weights.is_none() && table.get("state").is_some() {
            let help = "name the folder in `weights`, or remove it";
            let message = "it is not said of which files that is the state";
            parser.wrong::<()>(&at("state"), message, "of nothing", help);
        }
    }
}

/// One launch that was watched.
struct Started {
    seen: Seen,
    cold: Record,
    warm: Record,
    /// The state of the weights before, where there are any.
    found: Option<Found>,
    target: BTreeMap<String, String>,
}

#[async_trait::async_trait]
impl Step for ServerColdStart {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let loan = context.borrow(&self.server).await?;
        let started = self.measure(context, &loan).await;
        if context.is_cancelled() {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        context.doing("giving the server back");
        let back = loan.give_back().await;
        let started = started?;
        back?;
        let row = row(&started);
        let figures = figures(&row);
        let verdict = verdict(&started);
        let file = MeasuredFile {
            rows: vec![row],
            definitions: definitions(),
            notes: Vec::new(),
            target: self.target(started.target),
            details: json!({
                "residency_by": started.found.as_ref().map(|found| found.residency.by),
            }),
        };
        files::write_json(&context.output("result.json"), &file)?;
        Ok(StepReport {
            summary: Some(crate::figures::line(&figures)),
            verdict: Some(verdict),
            figures,
        })
    }
}

impl ServerColdStart {
    async fn measure(&self, context: &StepContext, loan: &Loan) -> Result<Started, StepError> {
        context.doing("ending the server");
        loan.end().await?;
        let weights = self.weights.as_ref().map(|weights| context.path(weights));
        let found = match weights.transpose()? {
            Some(folder) => {
                context.doing("bringing the weights into their state");
                let state = self.state;
                let prepared = tokio::task::spawn_blocking(move || {
                    let contents = Contents::read(&folder).map_err(failure)?;
                    state::prepare(state, &contents.paths())
                });
                let prepared = prepared.await;
                Some(
                    prepared
                        .map_err(|e| StepError::because("looking at the weights broke off", e))??,
                )
            }
            None => None,
        };
        context.doing("starting the server");
        let launched = loan.start().await?;
        let watched = start_up::watch(&launched, loan.service(), self.ready_timeout);
        let seen = tokio::select! {
            seen = watched => seen?,
            () = context.cancelled() => {
                return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
            }
        };
        let endpoint = self.endpoint(context, loan, &launched)?;
        context.doing("the first tokens");
        let cold = self.ask(context, &endpoint, PROMPT).await?;
        // The second finds nothing of the first where the server can forget it; it begins otherwise in any case.
        crate::server::flush::flush(Peer::of(&endpoint), FLUSH_LIMIT, None).await?;
        let warm = self.ask(context, &endpoint, WARM_PROMPT).await?;
        Ok(Started {
            seen,
            cold,
            warm,
            found,
            target: describe_target(&endpoint).await,
        })
    }

    /// Where the new launch answers; what the one before it told of itself holds for it too.
    fn endpoint(
        &self,
        context: &StepContext,
        loan: &Loan,
        launched: &Launched,
    ) -> Result<Endpoint, StepError> {
        let mut endpoint = launched.endpoint.clone();
        for (name, value) in &context.endpoint(&self.server)?.facts {
            if !["url", "port"].contains(&name.as_str()) {
                endpoint
                    .facts
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        let url = loan.service().address(&endpoint);
        let url = url.ok_or_else(|| StepError::new("the server did not say where it listens"))?;
        endpoint.learn(BTreeMap::from([("url".to_owned(), url)]));
        Ok(endpoint)
    }

    /// One request.
    async fn ask(
        &self,
        context: &StepContext,
        endpoint: &Endpoint,
        prompt: &str,
    ) -> Result<Record, StepError> {
        let target = target(
            endpoint,
            Protocol::Completions,
            HttpVersion::One,
            Generation::default(),
            None,
        )?;
        let words = NonZeroU32::try_from(prompt.split(' ').count() as u32);
        let words = words.unwrap_or(NonZeroU32::MIN).get();
        let prompt = Prompt::Text(prompt.to_owned());
        let request = Request::new("cold-start".to_owned(), prompt, words, self.output_tokens);
        let workload = Workload::new(vec![request]).map_err(|e| StepError::new(e.to_string()))?;
        let (load, stop) = (
            Load::closed(NonZeroU32::MIN),
            Stop::Requests(NonZeroU64::MIN),
        );
        let mut plan = RunPlan::new(workload, load, stop, target);
        plan.timeouts.request = self.request_timeout;
        let run = loadgen::run(plan, &mut NoObserver, context.cancelled()).await;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        let record = run.records.into_iter().next();
        let record = record.ok_or_else(|| StepError::new("the request left no record"))?;
        if record.completed() {
            return Ok(record);
        }
        let why = record.error.clone();
        let why = why.unwrap_or_else(|| record.outcome.to_string());
        Err(
            StepError::new(format!("the server is ready, and its answer failed: {why}"))
                .class(FailureClass::Infrastructure),
        )
    }

    fn target(&self, mut target: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let state = match self.weights {
            Some(_) => self.state.word(),
            None => "none",
        };
        target.insert("state".to_owned(), state.to_owned());
        target
    }
}

fn verdict(started: &Started) -> Verdict {
    let trouble = started.found.iter().find_map(|found| found.trouble.clone());
    let differs = started.target.get(DIFFERENCES);
    let differs = differs.map(|what| format!("not all that was asked for was applied: {what}"));
    let reasons: Vec<String> = trouble.into_iter().chain(differs).collect();
    Verdict {
        grade: match reasons.is_empty() {
            true => Grade::Valid,
            false => Grade::Invalid,
        },
        reasons,
    }
}

/// The time from sending a request to its first content.
fn ttft(record: &Record) -> Option<Duration> {
    let first = record.first_content()?.checked_sub(record.dispatched?)?;
    Some(Duration::from_nanos(first))
}

/// The time from sending a request to the end of its answer.
fn whole(record: &Record) -> Option<Duration> {
    let whole = record.done.checked_sub(record.dispatched?)?;
    Some(Duration::from_nanos(whole))
}

fn row(started: &Started) -> Row {
    let mut row = Row::default();
    let seen = &started.seen;
    let ready = Some(seen.ready);
    let sum = |time: Option<Duration>| Some(seen.ready + time?);
    let (first, warm) = (ttft(&started.cold), ttft(&started.warm));
    for (name, time) in [
        ("spawn_ms", Some(seen.spawn)),
        ("listening_ms", seen.listening),
        ("weights_ms", seen.weights),
        ("weights_told_ms", seen.said.weights),
        ("model_told_ms", seen.said.model),
        ("ready_ms", ready),
        ("first_token_ms", sum(first)),
        ("ttft_cold_ms", first),
        ("ttft_warm_ms", warm),
        ("answer_ms", whole(&started.cold)),
        ("end_to_end_ms", sum(whole(&started.cold))),
    ] {
        if let Some(time) = time {
            row.set(name, time.as_secs_f64() * 1e3);
        }
    }
    let throughput = |record: &Record| {
        let tokens = record.prompt_tokens() + record.answer_tokens();
        Some(tokens as f64 / whole(record)?.as_secs_f64().max(1e-9))
    };
    for (name, record) in [
        ("throughput", &started.cold),
        ("throughput_warm", &started.warm),
    ] {
        row.set(name, throughput(record).unwrap_or(f64::NAN));
    }
    row.set("answer_tokens", started.cold.answer_tokens() as f64);
    if let Some(found) = &started.found {
        row.set("resident_before", found.residency.share());
    }
    row
}

fn figures(row: &Row) -> Vec<Figure> {
    let figure = |(name, value): (&str, &str)| Figure {
        name: name.to_owned(),
        value: row.value(value).unwrap_or(f64::NAN) / 1e3,
        unit: "s".to_owned(),
    };
    [("ready", "ready_ms"), ("first token", "first_token_ms")]
        .map(figure)
        .to_vec()
}

/// Every value of the row: name, unit, meaning.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "spawn_ms",
        "ms",
        "from asking for the server's process until it is there",
    ),
    (
        "listening_ms",
        "ms",
        "from its start until its port accepts a connection",
    ),
    (
        "weights_ms",
        "ms",
        "from its start until the last line of its log that says its weights are loaded",
    ),
    (
        "weights_told_ms",
        "ms",
        "what its log says that reading weights took, the longest of several",
    ),
    (
        "model_told_ms",
        "ms",
        "what its log says that making the model and reading its weights took, the longest of several",
    ),
    (
        "ready_ms",
        "ms",
        "from its start until its health is answered with 200",
    ),
    ("first_token_ms", "ms", "ready_ms + ttft_cold_ms"),
    (
        "ttft_cold_ms",
        "ms",
        "time to first token of the first request of all",
    ),
    (
        "ttft_warm_ms",
        "ms",
        "time to first token of the second request",
    ),
    (
        "answer_ms",
        "ms",
        "from sending the first request to the end of its answer",
    ),
    ("end_to_end_ms", "ms", "ready_ms + answer_ms"),
    (
        "throughput",
        "tok/s",
        "tokens of prompt and answer of the first request / answer_ms",
    ),
    ("throughput_warm", "tok/s", "the same of the second request"),
    ("answer_tokens", "tokens", "tokens of the first answer"),
    (
        "resident_before",
        "",
        "share of the weights' pages in the page cache before the start",
    ),
];

fn definitions() -> Vec<Definition> {
    let definition = |(name, unit, formula): &(&str, &str, &str)| Definition {
        name: (*name).to_owned(),
        unit: (*unit).to_owned(),
        formula: (*formula).to_owned(),
    };
    DEFINITIONS.iter().map(definition).collect()
}
