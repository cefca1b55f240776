//! `load.search`: the highest request rate, or the most users, at which a server keeps its
//! objectives, or, without any, at which it keeps up.

use super::applied;
use super::arrivals::LoadOptions;
use super::bisect::{Bisection, Tallies, Tally};
use super::calibration::{Calibration, Measurement};
use super::{
    EventTimeChoice, HttpChoice, ProtocolChoice, client_error_definitions, describe_target, grade,
    reason_text, target,
};
use crate::files;
use crate::kinds::{InferenceServer, Workload as WorkloadKind};
use crate::result::{Definition, MeasuredFile, Row};
use engine::notes::Notes;
use engine::options::Parser;
use engine::samples::now_s;
use engine::source::Place;
use engine::step::{
    FailureClass, Figure, Grade, OutputSpec, Step, StepContext, StepError, StepKind, StepReport,
    StepType, Verdict,
};
use engine::types::{Artifact, Lease, Positive, Text};
use engine::value::Table;
use loadgen::{
    Arrivals, Breakdown, By, Check, ClientError, Ended, Generation, Limits, Load, Metrics,
    NoObserver, Part, Process, Rate, Record, Reuse, Rounds, RunPlan, Secret, Slo, SloResults, Stop,
    Threads, Thresholds, Timeouts, Workload,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Requests that fail before a load counts as too much, as a share.
const MOST_FAILURES: f64 = 0.01;
/// How far completions may stay behind arrivals where there is no objective.
const KEEPS_UP: f64 = 0.95;

engine::choices! {
    /// What is searched.
    pub enum SearchChoice {
        /// The rate of Poisson arrivals.
        RequestRate = "request_rate",
        /// The users of a closed loop.
        Concurrency = "concurrency",
    }
}

/// How long after its beginning a search that was cut off may go on, seconds: a night. What was found
/// out earlier says little of the server as it is now.
const KEPT_S: u64 = 24 * 3600;

engine::options! {
    /// Options of `load.search`.
    pub struct LoadSearch {
        /// The server.
        server: Lease<InferenceServer>;
        /// What is asked; each trial takes the next requests, so that no prompt is met twice.
        workload: Artifact<WorkloadKind>;
        /// What is searched.
        over: SearchChoice = SearchChoice::RequestRate;
        /// Where the search begins.
        lowest: Positive = Positive(1.0);
        /// Where it ends at the latest.
        highest: Positive = Positive(1024.0);
        /// How near the answer has to be, as a share of it.
        resolution: Positive = Positive(0.05);
        /// Objective: longest time to first token, from the scheduled instant.
        slo_ttft: Option<Duration>;
        /// Objective: longest time per output token.
        slo_tpot: Option<Duration>;
        /// Objective: longest end-to-end latency, from the scheduled instant.
        slo_e2el: Option<Duration>;
        /// Whether each model that the workload asks has to keep the objectives by itself, too: then the one
        /// that keeps them least decides.
        by_model: bool = false;
        /// The percentile that has to keep the objectives: so many of 100 requests.
        percentile: Positive = Positive(99.0);
        /// How sure a decision has to be before no trial is repeated, as a share.
        confidence: Positive = Positive(0.95);
        /// Trials of one load at most; then the share that was met decides.
        repeats: NonZeroU32 = NonZeroU32::new(3).unwrap_or(NonZeroU32::MIN), in "trials";
        /// Requests of one trial.
        requests: NonZeroU32 = NonZeroU32::new(200).unwrap_or(NonZeroU32::MIN), in "requests";
        /// Whether the workload may start over when trials have used it up.
        cycle: bool = false;
        /// Whether requests say by when they have to be answered: `slo`, their longest end-to-end latency
        /// in seconds, which servers of several models know.
        send_objectives: bool = false;
        /// How to talk to the server.
        protocol: ProtocolChoice = ProtocolChoice::Completions;
        /// Sent as a bearer token; write `${secret.NAME}`.
        api_key: Option<Text>;
        /// Longest wait for one answer.
        request_timeout: Duration = Duration::from_secs(600);
        /// What the client adds under the highest load that held; it stands beside the result, and counts
        /// in the verdict. `automatic` rehearses that load for two seconds against a built-in server when
        /// the search has ended, a minute at most, unless one of its shape did so within the last hour;
        /// or samples of a `load.calibrate` that the plan has.
        calibration: Calibration = Calibration::Automatic;
        /// Starts the random numbers of arrivals.
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

impl StepType for LoadSearch {
    const NAME: &'static str = "load.search";
    const KIND: StepKind = StepKind::Measure;
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Finds the highest request rate, or the most users, at which a server keeps its objectives, or keeps up.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "result",
            file: "result.json",
            kind: "result",
            doc: "The highest load that held, the lowest that did not, and every trial.",
        }]
    }

    fn identity(&self) -> Vec<(String, String)> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        vec![("load_generator".to_owned(), version)]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.lowest.0 > self.highest.0 {
            let help = "raise `highest` or lower `lowest`";
            let message = "the search ends below where it begins";
            parser.wrong::<()>(&at("highest"), message, "too low", help);
        }
        for (option, value, most) in [
            ("percentile", self.percentile.0, 100.0),
            ("confidence", self.confidence.0, 1.0),
        ] {
            if value >= most {
                let message = format!("`{option}` must be below {most}, found {value}");
                let help = "no number of trials would be enough for it";
                parser.wrong::<()>(&at(option), message, "out of range", help);
            }
        }
    }
}

/// One trial, as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Trial {
    value: f64,
    repeat: u32,
    #[serde(flatten)]
    tallies: Tallies,
    /// What else was measured.
    values: BTreeMap<String, f64>,
}

/// What a trial came to.
struct Made {
    tallies: Tallies,
    values: BTreeMap<String, f64>,
}

impl Made {
    fn numbered(self, value: f64, repeat: u32) -> Trial {
        Trial {
            value,
            repeat,
            tallies: self.tallies,
            values: self.values,
        }
    }
}

impl LoadSearch {
    fn slo(&self) -> Option<Slo> {
        let slo = Slo {
            ttft: self.slo_ttft,
            tpot: self.slo_tpot,
            e2el: self.slo_e2el,
        };
        (slo != Slo::default()).then_some(slo)
    }

    /// Whether requests have objectives: by the plan, or some by the workload.
    fn has_objectives(&self, workload: &Workload) -> bool {
        self.slo().is_some() || has_objectives(workload)
    }

    fn load(&self, value: f64, trial: u64) -> Result<Load, StepError> {
        match self.over {
            SearchChoice::RequestRate => Ok(Load::Open {
                arrivals: Arrivals::at(
                    Process::Poisson,
                    Rate::per_second(value).map_err(|e| StepError::new(e.to_string()))?,
                ),
                seed: self.seed.wrapping_add(trial),
                max_in_flight: None,
                ready_queue: None,
                rounds: Rounds::Overlap,
            }),
            SearchChoice::Concurrency => Ok(Load::closed(users(value))),
        }
    }

    /// The requests of a trial.
    fn requests(&self, workload: &Workload, trial: u64) -> Result<Workload, StepError> {
        let all = workload.requests();
        let n = self.requests.get() as usize;
        let start = usize::try_from(trial)
            .unwrap_or(usize::MAX)
            .saturating_mul(n);
        if start + n > all.len() && !self.cycle {
            let message = format!("{} requests are used up after {trial} trials", all.len());
            return Err(StepError::new(message).help(
                "make the workload longer, ask for fewer `requests` a trial, or let it `cycle`",
            ));
        }
        let slo = self.slo();
        let requests = (start..start + n).map(|at| {
            let mut request = all[at % all.len()].clone();
            request.id = format!("{trial}-{}", request.id);
            request.slo = slo.or(request.slo);
            request
        });
        let requests = workload.with_requests(requests.collect());
        requests.map_err(|e| StepError::new(e.to_string()))
    }

    fn threads(&self) -> Threads {
        Threads {
            count: self.client_threads,
            cores: self.client_cores.clone(),
        }
    }

    fn plan(
        &self,
        context: &StepContext,
        workload: &Workload,
        value: f64,
        trial: u64,
    ) -> Result<RunPlan, StepError> {
        let api_key = self
            .api_key
            .as_ref()
            .map(|k| context.text(k).map(Secret::new));
        let mut target = target(
            context.endpoint(&self.server)?,
            self.protocol.into(),
            self.http.into(),
            Generation::default(),
            api_key.transpose()?,
        )?;
        target.tells_objectives = self.send_objectives;
        Ok(RunPlan {
            workload: Arc::new(self.requests(workload, trial)?),
            load: self.load(value, trial)?,
            stop: Stop::Requests(self.requests.into()),
            reuse: Reuse::Once,
            target,
            timeouts: Timeouts {
                request: self.request_timeout,
                ..Timeouts::default()
            },
            limits: Limits::default(),
            threads: self.threads(),
            event_time: self.event_time.into(),
        })
    }

    async fn trial(
        &self,
        context: &StepContext,
        workload: &Workload,
        value: f64,
        trial: u64,
    ) -> Result<Made, StepError> {
        let plan = self.plan(context, workload, value, trial)?;
        let run = loadgen::run(plan, &mut NoObserver, context.cancelled()).await;
        let run = run.map_err(|e| StepError::new(e.to_string()))?;
        if run.info.ended == Ended::Interrupted {
            return Err(StepError::new("interrupted").class(FailureClass::Interrupted));
        }
        let metrics = Metrics::of(&run.info, &run.records);
        let values = metrics
            .values()
            .into_iter()
            .filter(|(_, v)| v.is_finite())
            .collect();
        if let Some(slo) = metrics.slo {
            let tallies = Tallies {
                all: tally(slo),
                by_model: match self.by_model {
                    true => by_model(&metrics, &run.records),
                    false => BTreeMap::new(),
                },
            };
            return Ok(Made { tallies, values });
        }
        if self.has_objectives(workload) {
            let message =
                "no request of this trial has an objective, and others of the workload do";
            let help = "give all of them one, or the search with `slo_ttft` and its like";
            return Err(StepError::new(message).help(help));
        }
        let judged = loadgen::judge(
            &run.info,
            &run.records,
            &metrics,
            None,
            &Thresholds::default(),
        );
        let falls_behind = judged.reasons.iter().any(|r| r.check == Check::Backlog);
        let fails = metrics.counts.error_rate().unwrap_or(1.0) > MOST_FAILURES;
        let is_slow = match (metrics.whole.requests, metrics.offered_rate) {
            (Some(done), Some(offered)) => done < KEEPS_UP * offered * self.drain(&metrics),
            _ => false,
        };
        let keeps_up = !(falls_behind || fails || is_slow);
        let all = Tally {
            met: u64::from(keeps_up),
            of: 1,
        };
        let tallies = Tallies {
            all,
            ..Tallies::default()
        };
        Ok(Made { tallies, values })
    }

    /// The last answers come when nothing arrives any more: that time is no fault of the server.
    fn drain(&self, metrics: &Metrics) -> f64 {
        let arriving = metrics.window.seconds();
        let latency = metrics.e2el.completed.mean.unwrap_or(0.0) / 1e3;
        arriving / (arriving + latency).max(f64::MIN_POSITIVE)
    }

    /// Whether a load holds; repeated until that is sure, or often enough.
    fn verdict(&self, has_objectives: bool, tallies: &Tallies, repeats: u32) -> Option<bool> {
        let is_last = repeats >= self.repeats.get();
        if !has_objectives {
            let tally = tallies.all;
            // One trial says yes or no; more of them vote.
            return match is_last || tally.of >= 2 && (tally.met == 0 || tally.met == tally.of) {
                true => Some(tally.share() > 0.5),
                false => None,
            };
        }
        let wanted = self.percentile.0 / 100.0;
        let sure = tallies.decides(wanted, self.confidence.0);
        sure.or_else(|| is_last.then(|| tallies.hold(wanted)))
    }
}

/// Whether a workload says of a request by when it has to be answered.
fn has_objectives(workload: &Workload) -> bool {
    let mut all = workload.requests().iter();
    all.any(|request| request.slo.is_some_and(|slo| slo != Slo::default()))
}

fn tally(slo: SloResults) -> Tally {
    Tally {
        met: slo.met,
        of: slo.requests,
    }
}

/// What each model kept; of very many those without a row of their own have one together.
fn by_model(metrics: &Metrics, records: &[Record]) -> BTreeMap<String, Tally> {
    let all = Breakdown::all(metrics, records);
    let Some(models) = all.iter().find(|b| b.by == By::Model) else {
        // In this trial it was one model: the whole is its own.
        let one = records.first().zip(metrics.slo);
        let named = one.map(|(record, slo)| (record.model.clone(), tally(slo)));
        return named.into_iter().collect();
    };
    let named = |part: &Part| Some((part.value.clone().unwrap_or_default(), tally(part.slo?)));
    models.parts.iter().filter_map(named).collect()
}

/// A value of a search for users.
fn users(value: f64) -> NonZeroU32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the search asks for whole, positive numbers of users"
    )]
    let users = value.round() as u32;
    NonZeroU32::new(users).unwrap_or(NonZeroU32::MIN)
}

/// Adds to a verdict what the client adds to the numbers of the load that held, where that is much.
fn distorted(mut verdict: Verdict, error: Option<&ClientError>, result: &MeasuredFile) -> Verdict {
    let values = result.rows.first().map(|row| &row.values);
    let measured = |name: &str| {
        let name = format!("{name}_completed_ms");
        values.and_then(|v| v.get(&name).copied().flatten())
    };
    let thresholds = Thresholds::default();
    if let Some(reason) = error.and_then(|e| loadgen::client_error(e, measured, &thresholds)) {
        verdict.grade = verdict.grade.max(grade(reason.grade));
        verdict.reasons.push(reason_text(&reason));
    }
    verdict
}

/// The trials of a search that was cut off, as it left them.
#[derive(Default, Serialize, Deserialize)]
struct Unfinished {
    /// The boot of the machine in which they were made: after another they would be mixed with what
    /// may have changed.
    boot: String,
    /// When the search began, seconds since 1970.
    began: u64,
    trials: Vec<Trial>,
}

impl Unfinished {
    /// Whether a search may still go on with these; one of the future tells of a clock that was set.
    fn may_go_on(&self, boot: &str, now: u64) -> bool {
        let age = now.checked_sub(self.began);
        self.boot == boot && age.is_some_and(|age| age <= KEPT_S)
    }
}

/// Trials that are written down as they end, so that a search that was cut off goes on.
struct Log<'a> {
    notes: &'a Notes,
    known: Unfinished,
}

impl<'a> Log<'a> {
    fn open(context: &'a StepContext) -> Self {
        let boot = &context.environment.boot_id;
        let left: Option<Unfinished> = context.notes.unfinished();
        let now = now_s();
        let known = left.filter(|left| left.may_go_on(boot, now));
        Self {
            notes: &context.notes,
            known: known.unwrap_or_else(|| Unfinished {
                boot: boot.clone(),
                began: now,
                trials: Vec::new(),
            }),
        }
    }

    fn find(&self, value: f64, repeat: u32) -> Option<Trial> {
        let is_it =
            |t: &&Trial| t.repeat == repeat && (t.value - value).abs() < f64::EPSILON * value;
        let found = self.known.trials.iter().find(is_it)?.clone();
        // Reading a number that was written may cost it its last digit.
        Some(Trial { value, ..found })
    }

    fn add(&mut self, trial: Trial) -> Result<(), StepError> {
        self.known.trials.push(trial);
        self.notes.leave_unfinished(&self.known)
    }
}

#[async_trait::async_trait]
impl Step for LoadSearch {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let workload = Workload::read(&context.path(&self.workload)?)
            .map_err(|e| StepError::new(e.to_string()))?;
        let mut log = Log::open(context);
        let whole = matches!(self.over, SearchChoice::Concurrency);
        let mut bisection = Bisection::new(self.lowest.0, self.highest.0, self.resolution.0, whole);
        let mut trials = Vec::new();
        let has_objectives = self.has_objectives(&workload);
        while let Some(value) = bisection.next() {
            let mut tallies = Tallies::default();
            for repeat in 0.. {
                context.doing(format!("trial {} at {value:.3}", trials.len() + 1));
                let trial = match log.find(value, repeat) {
                    Some(known) => known,
                    None => {
                        let number = trials.len() as u64;
                        let made = self.trial(context, &workload, value, number).await?;
                        let trial = made.numbered(value, repeat);
                        log.add(trial.clone())?;
                        trial
                    }
                };
                tallies.add(&trial.tallies);
                trials.push(trial);
                if let Some(held) = self.verdict(has_objectives, &tallies, repeat + 1) {
                    bisection.tell(value, held);
                    break;
                }
            }
        }
        let (held, broke) = bisection.found();
        let error = self.client_error(context, &workload, held).await?;
        let mut result = self.measured(held, broke, &trials, error.as_ref());
        result.notes.push(self.criterion(has_objectives));
        result.target = describe_target(context.endpoint(&self.server)?).await;
        files::write_json(&context.output("result.json"), &result)?;
        context.notes.finished()?;
        let mut report = self.report(held, broke, trials.len());
        report.verdict = report
            .verdict
            .map(|verdict| distorted(verdict, error.as_ref(), &result))
            .map(|verdict| applied::held(verdict, &result.target));
        Ok(report)
    }
}

impl LoadSearch {
    /// What the client adds under the load that held. The trials are over: no load is on the server.
    async fn client_error(
        &self,
        context: &StepContext,
        workload: &Workload,
        held: Option<f64>,
    ) -> Result<Option<ClientError>, StepError> {
        let Some(held) = held else {
            return Ok(None);
        };
        let is_open = matches!(self.over, SearchChoice::RequestRate);
        let measurement = Measurement {
            load: LoadOptions {
                request_rate: is_open.then_some(Positive(held)),
                concurrency: (!is_open).then(|| users(held)),
                ..LoadOptions::none(self.seed)
            },
            workload,
            requests: Some(self.requests.into()),
            threads: self.threads(),
            event_time: self.event_time.into(),
            http: self.http.into(),
        };
        let calibrated = self.calibration.of(&measurement, context).await?;
        Ok(calibrated.map(|calibrated| calibrated.error))
    }

    fn measured(
        &self,
        held: Option<f64>,
        broke: Option<f64>,
        trials: &[Trial],
        error: Option<&ClientError>,
    ) -> MeasuredFile {
        let mut row = Row::default();
        let name = self.over.word();
        row.set(format!("highest_{name}"), held.unwrap_or(f64::NAN));
        row.set(format!("lowest_failing_{name}"), broke.unwrap_or(f64::NAN));
        #[expect(clippy::cast_precision_loss, reason = "there are a few dozen trials")]
        row.set("trials", trials.len() as f64);
        let at_best = trials.iter().rev().find(|t| Some(t.value) == held);
        for (name, value) in at_best.map(|t| &t.values).into_iter().flatten() {
            row.set(name.clone(), *value);
        }
        for (name, value) in error.map(ClientError::values).into_iter().flatten() {
            row.set(name, value);
        }
        let unit = match self.over {
            SearchChoice::RequestRate => "requests/s",
            SearchChoice::Concurrency => "users",
        };
        let define = |name: String, formula: &str| Definition {
            name,
            unit: unit.to_owned(),
            formula: formula.to_owned(),
        };
        let mut definitions = vec![
            define(
                format!("highest_{name}"),
                "the highest that was tried and held",
            ),
            define(
                format!("lowest_failing_{name}"),
                "the lowest that was tried and did not hold",
            ),
        ];
        definitions.extend(Metrics::definitions().iter().map(|d| Definition {
            name: d.name.to_owned(),
            unit: d.unit.to_owned(),
            formula: d.formula.to_owned(),
        }));
        definitions.extend(error.iter().flat_map(|_| client_error_definitions()));
        MeasuredFile {
            rows: vec![row],
            definitions,
            notes: Vec::new(),
            target: BTreeMap::new(),
            details: serde_json::json!({ "trials": trials }),
        }
    }

    /// What it means that a load holds, in words.
    fn criterion(&self, has_objectives: bool) -> String {
        match has_objectives {
            true => format!(
                "a load holds if {} % of requests{} meet every objective, decided at {} % confidence or after {} trials",
                self.percentile.0,
                if self.by_model {
                    ", of each model too,"
                } else {
                    ""
                },
                self.confidence.0 * 100.0,
                self.repeats
            ),
            false => format!(
                "a load holds if answers keep up with arrivals, at most {} % fail and nothing piles up, by most of {} trials",
                MOST_FAILURES * 100.0,
                self.repeats
            ),
        }
    }

    fn report(&self, held: Option<f64>, broke: Option<f64>, n_trials: usize) -> StepReport {
        let name = self.over.word();
        let (grade, reasons) = match (held, broke) {
            (None, _) => (
                Grade::Invalid,
                vec![format!(
                    "not even `{name}` = {} held; lower `lowest`",
                    self.lowest.0
                )],
            ),
            (Some(_), None) => (
                Grade::Degraded,
                vec![format!(
                    "everything up to {} held; raise `highest`",
                    self.highest.0
                )],
            ),
            (Some(_), Some(_)) => (Grade::Valid, Vec::new()),
        };
        let holds = held.map_or_else(|| "none".to_owned(), |v| format!("{v:.3}"));
        let does_not = broke.map(|v| format!(", {v:.3} does not"));
        StepReport {
            summary: Some(format!(
                "{name} {holds} holds{}, {n_trials} trials",
                does_not.unwrap_or_default()
            )),
            verdict: Some(Verdict { grade, reasons }),
            figures: vec![Figure {
                name: format!("highest {name}"),
                value: held.unwrap_or(f64::NAN),
                unit: String::new(),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadgen::{Prompt, Request};

    #[test]
    fn objectives_of_some_requests_of_the_workload_are_objectives() {
        let request = |i: u32, slo| Request {
            slo,
            ..Request::new(
                format!("r{i}"),
                Prompt::Text("a".to_owned()),
                1,
                NonZeroU32::MIN,
            )
        };
        let of = |slo| Workload::new(vec![request(0, None), request(1, slo)]).expect("a workload");
        let slo = Slo {
            ttft: Some(Duration::from_secs(1)),
            ..Slo::default()
        };
        assert!(has_objectives(&of(Some(slo))));
        assert!(!has_objectives(&of(None)) && !has_objectives(&of(Some(Slo::default()))));
    }

    #[test]
    fn a_search_that_was_cut_off_goes_on_within_a_day_and_a_boot() {
        let left = Unfinished {
            boot: "a".to_owned(),
            began: 1000,
            trials: Vec::new(),
        };
        let times = [999, 1000, 1000 + KEPT_S, 1001 + KEPT_S];
        assert_eq!(
            times.map(|now| left.may_go_on("a", now)),
            [false, true, true, false]
        );
        assert!(!left.may_go_on("b", 1000));
    }
}
