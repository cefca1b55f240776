//! Where a measurement takes from what the client itself adds: from a `load.calibrate` that the plan
//! names, from a rehearsal of its own, or from nowhere.
//!
//! A rehearsal is short, made before the server that is to be measured has any load, and kept for
//! every step of this machine that has a load of the same shape, for an hour and within one boot.

use super::arrivals::{ArrivalChoice, LoadOptions};
use super::rehearsal::Rehearsal;
use crate::files;
use crate::kinds::Measured;
use crate::result::MeasuredFile;
use engine::environment::Environment;
use engine::options::{OptionType, Parser, Walk};
use engine::samples::now_s;
use engine::schema::{Schema, choice};
use engine::step::{FailureClass, Grade, Sample, StepContext, StepError};
use engine::types::{Positive, Samples};
use engine::value::{Kind, Value};
use loadgen::{
    ClientError, EventTime, HttpVersion, Record, Request, Reuse, Stop, Threads, Workload,
};
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// The words that plans may write in place of samples.
const AUTOMATIC: &str = "automatic";
const NONE: &str = "none";

/// Notes of this kind hold what rehearsals found.
const NOTES: &str = "calibrations";
/// How long a rehearsal is believed, seconds: a disturbed one must not spoil a day's results.
const KEPT_S: u64 = 3600;
/// How long a rehearsal sends.
const SENDING: Duration = Duration::from_secs(2);
/// How long a rehearsal may take altogether, its server included.
const LIMIT: Duration = Duration::from_secs(60);
/// The pace of the answers, where nothing faster is needed: that of a server of middling speed.
const TTFT: Duration = Duration::from_millis(50);
const TPOT: Duration = Duration::from_millis(10);
/// The fastest pace.
const FASTEST: Duration = Duration::from_millis(1);
/// How long an answer lasts at most: in an open loop so long that all tokens of most answers come in
/// it, in a closed one so short that each user gets several.
const OPEN_ANSWER: Duration = Duration::from_secs(1);
const CLOSED_ANSWER: Duration = Duration::from_millis(500);
/// Fewer arrivals per second would bring too few requests; more load is no better than less.
const LEAST_RATE: f64 = 10.0;
/// Longer thinking would, too.
const MOST_THINKING: Duration = Duration::from_millis(100);
/// How much of the workload is looked at: requests, and tokens of their prompts.
const MOST_REQUESTS: usize = 1_000;
const MOST_INPUT: u64 = 1 << 20;
/// How much more than was rehearsed may come before that is said.
const FASTER: f64 = 1.5;

/// What `calibration = …` may be.
#[derive(Debug, Clone)]
pub(crate) enum Calibration {
    /// The step rehearses its load itself, unless that is known.
    Automatic,
    /// What the client adds is not asked.
    None,
    /// What `load.calibrate` has measured.
    Of(Samples<Measured>),
}

impl OptionType for Calibration {
    fn type_name() -> String {
        let samples = Samples::<Measured>::type_name();
        format!("`{AUTOMATIC}` | `{NONE}` | {samples}")
    }

    fn schema() -> Schema {
        let words = choice(&[
            (AUTOMATIC, "a short rehearsal, kept for this machine"),
            (NONE, "what the client adds is not asked"),
        ]);
        serde_json::json!({ "anyOf": [words, Samples::<Measured>::schema()] })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match &value.kind {
            Kind::Text(word) if word == AUTOMATIC => Some(Self::Automatic),
            Kind::Text(word) if word == NONE => Some(Self::None),
            Kind::Template(_) => Samples::parse(value, parser).map(Self::Of),
            _ => parser.mismatch(
                value,
                "\"automatic\", \"none\", or samples such as `${steps.NAME.all}`",
            ),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            Self::Automatic => walk.value(path, AUTOMATIC),
            Self::None => walk.value(path, NONE),
            Self::Of(samples) => samples.walk(path, walk),
        }
    }
}

/// What the client adds, and under how much.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Calibrated {
    pub(super) error: ClientError,
    /// When that was found, seconds since 1970; 0 where a plan's own calibration is meant.
    found_at: u64,
    /// Events that were read per second; unknown where a plan's own calibration is meant.
    events_per_s: Option<f64>,
}

impl Calibrated {
    /// Whether it may still be believed; one of the future tells of a clock that was set.
    fn is_fresh(&self, now: u64) -> bool {
        now.checked_sub(self.found_at)
            .is_some_and(|age| age <= KEPT_S)
    }

    /// What is to be said of a load that brought more than was rehearsed.
    pub(super) fn note(&self, records: &[Record]) -> Option<String> {
        let (then, now) = (self.events_per_s?, events_per_s(records)?);
        (now > then * FASTER).then(|| {
            format!(
                "the client was calibrated at {then:.0} events per second, and this load brought {now:.0}; give `load.calibrate` the server's pace for nearer numbers"
            )
        })
    }
}

/// A load whose client is to be calibrated.
pub(super) struct Measurement<'a> {
    pub(super) load: LoadOptions<'a>,
    pub(super) workload: &'a Workload,
    /// Requests that it sends, if that is how it ends.
    pub(super) requests: Option<NonZeroU64>,
    pub(super) threads: Threads,
    pub(super) event_time: EventTime,
    pub(super) http: HttpVersion,
}

impl Calibration {
    /// Says what the client adds under a load; that may take as long as a rehearsal, and no load may
    /// be on any server meanwhile.
    pub(super) async fn of(
        &self,
        measurement: &Measurement<'_>,
        context: &StepContext,
    ) -> Result<Option<Calibrated>, StepError> {
        match self {
            Self::None => Ok(None),
            Self::Of(samples) => measured(&context.samples(samples)).map(Some),
            Self::Automatic => measurement.rehearsed(context).await.map(Some),
        }
    }
}

/// What the newest calibration says that can be believed.
fn measured(samples: &[Sample]) -> Result<Calibrated, StepError> {
    let believed = samples.iter().filter(|s| s.verdict.grade != Grade::Invalid);
    let Some(newest) = believed.max_by_key(|s| s.drawn_at) else {
        let error = StepError::new("no calibration of the client can be believed");
        return Err(error.help("look at the reasons of the `load.calibrate` step's verdict"));
    };
    let path = newest.outputs.get("result");
    let path = path.ok_or_else(|| StepError::new(format!("`{}` left no result", newest.node)))?;
    let file: MeasuredFile = files::read_json(path)?;
    let error = file.details.get("client_error").cloned();
    let error = serde_json::from_value(error.unwrap_or_default()).map_err(|_| {
        StepError::new(format!("`{}` is no calibration of the client", newest.node))
            .help("refer to the samples of a `load.calibrate` step")
    })?;
    Ok(Calibrated {
        error,
        found_at: 0,
        events_per_s: None,
    })
}

impl Measurement<'_> {
    async fn rehearsed(&self, context: &StepContext) -> Result<Calibrated, StepError> {
        let rehearsal = self.rehearsal()?;
        let name = name(&rehearsal, &context.environment);
        let known: Option<Calibrated> = context.notes.shared(NOTES, &name);
        if let Some(known) = known.filter(|known| known.is_fresh(now_s())) {
            return Ok(known);
        }
        context.doing("calibrating the client");
        let (run, error) = tokio::time::timeout(LIMIT, rehearsal.perform(context))
            .await
            .map_err(|_| failed(format!("it took longer than {LIMIT:?}")))?
            .map_err(|error| match error.class {
                FailureClass::Interrupted => error,
                _ => failed(error.message),
            })?;
        if error.requests == 0 {
            return Err(failed("none of its requests was answered"));
        }
        let calibrated = Calibrated {
            error,
            found_at: now_s(),
            events_per_s: events_per_s(&run.records),
        };
        // One in which something went wrong is good enough for now and for nobody else.
        if error.requests == run.records.len() as u64 {
            context.notes.share(NOTES, &name, &calibrated)?;
        }
        Ok(calibrated)
    }

    /// The same shape of load, short.
    fn rehearsal(&self) -> Result<Rehearsal, StepError> {
        let is_closed = self.load.concurrency.is_some();
        let answer = if is_closed {
            CLOSED_ANSWER
        } else {
            OPEN_ANSWER
        };
        let mut requests = self.first();
        let longest = requests.iter().map(|r| r.output_tokens).max();
        let longest = longest.map_or(1, NonZeroU32::get);
        // An open loop brings as many tokens per second as its answers are long, however fast they
        // come; in a closed one the pace alone says how many.
        let tpot = match is_closed {
            true => TPOT,
            false => (answer / longest).clamp(FASTEST, TPOT),
        };
        let most = answer.as_millis() / tpot.as_millis().max(1);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let most = NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
        for request in &mut requests {
            request.output_tokens = request.output_tokens.min(most);
        }
        let (stop, reuse) = self.end(requests.len());
        Ok(Rehearsal {
            requests,
            load: self.alike().load(0)?,
            stop,
            reuse,
            threads: self.threads.clone(),
            event_time: self.event_time,
            http: self.http,
            ttft: TTFT,
            tpot,
        })
    }

    fn end(&self, n: usize) -> (Stop, Reuse) {
        match self.load.arrivals {
            Some(ArrivalChoice::AllAtOnce) => {
                let n = NonZeroU64::new(n as u64).unwrap_or(NonZeroU64::MIN);
                let n = self.requests.map_or(n, |asked| asked.min(n));
                (Stop::Requests(n), Reuse::Once)
            }
            Some(ArrivalChoice::Listed) => (Stop::After(SENDING), Reuse::Once),
            _ => (Stop::After(SENDING), Reuse::Cycle),
        }
    }

    /// As much of the workload as a rehearsal looks at; listed arrivals begin at once.
    fn first(&self) -> Vec<Request> {
        let mut input = 0;
        let fits = |request: &&Request| {
            input += u64::from(request.input_tokens);
            input <= MOST_INPUT
        };
        let all = self.workload.requests();
        let mut first: Vec<Request> = all
            .iter()
            .take(MOST_REQUESTS)
            .take_while(fits)
            .cloned()
            .collect();
        if first.is_empty() {
            first.extend(all.first().cloned());
        }
        let begin = first.first().and_then(|r| r.arrival).unwrap_or_default();
        for request in &mut first {
            request.arrival = request.arrival.map(|at| at.saturating_sub(begin));
        }
        first
    }

    fn alike(&self) -> LoadOptions<'static> {
        let stages = self.load.stages.iter().flat_map(|stage| {
            let stage = &stage.0;
            [Some(stage.rate), stage.to]
        });
        let rates = stages.chain([self.load.request_rate]).flatten();
        let highest = rates.map(|rate| rate.0).reduce(f64::max);
        LoadOptions {
            request_rate: highest.map(|rate| Positive(rate.max(LEAST_RATE))),
            think_time: self.load.think_time.map(|time| time.min(MOST_THINKING)),
            arrivals: self.load.arrivals,
            burstiness: self.load.burstiness,
            speed: self.load.speed,
            max_in_flight: self.load.max_in_flight,
            concurrency: self.load.concurrency,
            think: self.load.think,
            // Which instants are drawn does not matter to the client.
            ..LoadOptions::none(0)
        }
    }
}

fn failed(why: impl std::fmt::Display) -> StepError {
    StepError::because("could not calibrate the client", why)
        .help("leave the machine to the measurement, or do without: `calibration = \"none\"`")
        .class(FailureClass::Infrastructure)
}

/// What rehearsals of one shape on one machine are found by.
fn name(rehearsal: &Rehearsal, machine: &Environment) -> String {
    let lengths = rehearsal.requests.iter();
    let lengths = lengths.map(|r| (r.input_tokens, r.output_tokens, r.arrival));
    let lengths: Vec<_> = lengths.collect();
    let shape = format!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {lengths:?}",
        env!("CARGO_PKG_VERSION"),
        rehearsal.load,
        rehearsal.stop,
        rehearsal.reuse,
        rehearsal.threads,
        rehearsal.event_time,
        rehearsal.http,
        rehearsal.ttft,
        rehearsal.tpot,
    );
    let machine = format!("{} {:?}", machine.boot_id, machine.identity);
    let digest = blake3::hash(format!("{machine} {shape}").as_bytes());
    digest.to_hex().to_string()
}

/// How many events were read per second, from the first to the last.
fn events_per_s(records: &[Record]) -> Option<f64> {
    let events = || records.iter().flat_map(|r| &r.events);
    let (first, last) = (events().map(|e| e.at).min()?, events().map(|e| e.at).max()?);
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 events")]
    let n = events().count() as f64;
    let lasted = Duration::from_nanos(last - first).as_secs_f64();
    (lasted > 0.0).then(|| n / lasted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::arrivals::StageOptions;
    use engine::types::Nested;
    use loadgen::{Arrivals, Load, Process, Prompt, Rate};

    fn workload(n: u32, output_tokens: u32) -> Workload {
        let request = |i: u32| Request {
            id: format!("r{i}"),
            conversation: None,
            turn: 0,
            continues: false,
            arrival: Some(Duration::from_secs(100 + u64::from(i))),
            model: None,
            prompt: Prompt::Text(format!("word {i}")),
            images: Vec::new(),
            input_tokens: 2,
            cacheable_tokens: None,
            output_tokens: NonZeroU32::new(output_tokens).unwrap(),
            slo: None,
            group: None,
        };
        Workload::new((0..n).map(request).collect()).unwrap()
    }

    fn rehearsal(load: LoadOptions<'_>, workload: &Workload) -> Rehearsal {
        let measurement = Measurement {
            load,
            workload,
            requests: NonZeroU64::new(7),
            threads: Threads::default(),
            event_time: EventTime::Read,
            http: HttpVersion::One,
        };
        measurement.rehearsal().unwrap()
    }

    fn open(rate: f64) -> LoadOptions<'static> {
        LoadOptions {
            request_rate: Some(Positive(rate)),
            ..LoadOptions::none(3)
        }
    }

    fn closed(users: u32) -> LoadOptions<'static> {
        LoadOptions {
            concurrency: NonZeroU32::new(users),
            ..LoadOptions::none(3)
        }
    }

    fn poisson(rate: f64) -> Arrivals {
        Arrivals::at(Process::Poisson, Rate::per_second(rate).unwrap())
    }

    fn arrivals(rehearsal: &Rehearsal) -> &Arrivals {
        match &rehearsal.load {
            Load::Open { arrivals, .. } => arrivals,
            Load::Closed { .. } => panic!("a closed loop"),
        }
    }

    #[test]
    fn an_open_load_keeps_its_rate_and_all_its_tokens() {
        let short = rehearsal(open(40.0), &workload(5, 16));
        assert_eq!(*arrivals(&short), poisson(40.0));
        assert_eq!((short.stop, short.tpot), (Stop::After(SENDING), TPOT));
        let long = rehearsal(open(40.0), &workload(5, 500));
        assert_eq!(long.tpot, Duration::from_millis(2));
        assert_eq!(long.requests[0].output_tokens.get(), 500);
        let longest = rehearsal(open(40.0), &workload(5, 5000));
        assert_eq!(longest.tpot, FASTEST);
        assert_eq!(longest.requests[0].output_tokens.get(), 1000);
        // Too few requests say nothing.
        assert_eq!(
            *arrivals(&rehearsal(open(0.1), &workload(5, 16))),
            poisson(10.0)
        );
    }

    #[test]
    fn of_stages_the_highest_is_rehearsed() {
        let stage = |rate: f64, to: Option<f64>| {
            Nested(StageOptions {
                rate: Positive(rate),
                to: to.map(Positive),
                duration: Duration::from_secs(300),
            })
        };
        let stages = [stage(5.0, None), stage(20.0, Some(90.0)), stage(30.0, None)];
        let load = LoadOptions {
            stages: &stages,
            ..LoadOptions::none(3)
        };
        let rehearsal = rehearsal(load, &workload(5, 16));
        assert_eq!(*arrivals(&rehearsal), poisson(90.0));
    }

    #[test]
    fn a_closed_load_keeps_its_users_and_has_several_answers_for_each() {
        let load = LoadOptions {
            think_time: Some(Duration::from_secs(30)),
            sessions: true,
            ..closed(12)
        };
        let rehearsal = rehearsal(load, &workload(5, 5000));
        let Load::Closed {
            concurrency,
            think,
            sessions,
        } = rehearsal.load
        else {
            panic!("an open loop");
        };
        assert_eq!((concurrency.get(), sessions), (12, false));
        assert_eq!(think.map(|think| think.mean), Some(MOST_THINKING));
        assert_eq!(rehearsal.tpot, TPOT);
        assert_eq!(rehearsal.requests[0].output_tokens.get(), 50);
    }

    #[test]
    fn listed_arrivals_begin_at_once_and_a_burst_ends_by_its_number() {
        let listed = LoadOptions {
            arrivals: Some(ArrivalChoice::Listed),
            ..LoadOptions::none(3)
        };
        let listed = rehearsal(listed, &workload(5, 16));
        assert_eq!(listed.requests[0].arrival, Some(Duration::ZERO));
        assert_eq!(listed.requests[4].arrival, Some(Duration::from_secs(4)));
        assert_eq!(listed.reuse, Reuse::Once);
        let burst = || LoadOptions {
            arrivals: Some(ArrivalChoice::AllAtOnce),
            ..LoadOptions::none(3)
        };
        let of = |n: u32| rehearsal(burst(), &workload(n, 16)).stop;
        let requests = |n: u64| Stop::Requests(NonZeroU64::new(n).unwrap());
        assert_eq!((of(5), of(5000)), (requests(5), requests(7)));
    }

    #[test]
    fn a_calibration_is_believed_for_an_hour() {
        let calibrated = Calibrated {
            error: ClientError::default(),
            found_at: 10_000,
            events_per_s: None,
        };
        let fresh = [9_999, 10_000, 13_600, 13_601].map(|now| calibrated.is_fresh(now));
        assert_eq!(fresh, [false, true, true, false]);
    }

    #[test]
    fn equal_shapes_on_one_machine_have_one_name() {
        let machine = Environment {
            identity: std::collections::BTreeMap::new(),
            boot_id: "a".to_owned(),
        };
        let named = |load, n| name(&rehearsal(load, &workload(5, n)), &machine);
        // What is asked does not matter, nor how long the measurement takes.
        assert_eq!(named(open(2.0), 16), named(open(4.0), 16));
        let seeded = LoadOptions {
            seed: 99,
            ..open(20.0)
        };
        assert_eq!(named(seeded, 16), named(open(20.0), 16));
        assert_ne!(named(open(20.0), 16), named(open(40.0), 16));
        assert_ne!(named(open(20.0), 16), named(open(20.0), 17));
        assert_ne!(named(closed(1), 16), named(closed(2), 16));
        let booted = Environment {
            boot_id: "b".to_owned(),
            ..machine.clone()
        };
        let anew = name(&rehearsal(open(20.0), &workload(5, 16)), &booted);
        assert_ne!(named(open(20.0), 16), anew);
    }
}
