//! Time series beside the records: what the server told of itself and what GPUs did during a load.
//!
//! All of it has the records' clock: nanoseconds since the load began, and less than nothing before. A reading
//! has the instants at which it was asked for and had; one that was missed is a gap with its reason, and nothing
//! stands in for it. A thread of its own reads ([`Sampler`]), and what it costs is told.

mod files;
mod gpus;
mod measure;
mod sampler;

pub(crate) use files::{read, write};
#[cfg(test)]
pub(crate) use measure::made_up;
pub(super) use measure::{describe, figures_of};

use super::quantities::Told;
use crate::result::MeasuredFile;
use crate::server::METRICS;
use engine::options::Parser;
use engine::service::Endpoint;
use engine::source::Place;
use engine::step::StepError;
use loadgen::{Moment, Record, RunInfo, moments};
use sampler::{Answer, Asked, Found, Sampler};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use telemetry::{Gpu, Reading};

/// How often is often enough, and how seldom is no series any more.
pub(super) const INTERVALS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));

/// How long the server may take to answer at the least and at the most, whatever the interval is.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

engine::choices! {
    /// What is read of server and machine during a load.
    pub enum TelemetryChoice {
        /// What there is: the server's metrics where it tells some, GPUs where NVML is.
        Automatic = "automatic",
        /// Nothing.
        None = "none",
    }
}

/// What a plan says of it.
pub(super) struct TelemetryOptions<'a> {
    pub(super) choice: TelemetryChoice,
    pub(super) interval: Duration,
    /// Series of the server's own names that are kept besides.
    pub(super) further: &'a [String],
}

impl TelemetryOptions<'_> {
    /// Reports an interval that is none.
    pub(super) fn check(&self, at: &Place, parser: &mut Parser<'_>) {
        let (least, most) = INTERVALS;
        if !(least..=most).contains(&self.interval) {
            let message = "readings are from 100 ms to an hour apart";
            let help = "write such a time, or `telemetry = \"none\"`";
            parser.wrong::<()>(at, message, "out of range", help);
        }
    }

    /// Begins to read; what is there, and why other things are not, is known at once.
    pub(super) async fn begin(&self, endpoint: &Endpoint) -> Result<Watch, StepError> {
        if self.choice == TelemetryChoice::None {
            return Ok(Watch(None));
        }
        let path = endpoint.facts.get(METRICS).cloned();
        let server = endpoint.clone();
        // A driver that nobody uses may take a second to begin.
        let gpus = tokio::task::spawn_blocking(move || gpus::of(&server)).await;
        let gpus = gpus.map_err(|e| StepError::because("could not look for GPUs", e))?;
        let how = How {
            interval_s: self.interval.as_secs_f64(),
            server: path.clone(),
            gpus: gpus.said,
            ..How::default()
        };
        let asked = Asked {
            endpoint: endpoint.clone(),
            path,
            interval: self.interval,
            patience: self.interval.clamp(PATIENCE.0, PATIENCE.1),
            further: self.further.to_vec(),
            gpus: gpus.chosen,
        };
        Ok(Watch(Some((Sampler::start(asked)?, how))))
    }
}

/// What reads during a load; nothing where the plan wants nothing.
pub(super) struct Watch(Option<(Sampler, How)>);

impl Watch {
    /// Ends it, and sets what was read on the clock of the load and beside what the client saw.
    pub(super) async fn end(self, info: &RunInfo, records: &[Record]) -> Telemetry {
        let Some((sampler, how)) = self.0 else {
            return Telemetry::default();
        };
        match sampler.end().await {
            Ok(found) => Telemetry::of(found, how, info, records),
            Err(why) => Telemetry {
                how: Some(How {
                    trouble: Some(why),
                    ..how
                }),
                ..Telemetry::default()
            },
        }
    }
}

/// How it was read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct How {
    /// Time between two readings, seconds.
    pub(crate) interval_s: f64,
    /// Where the server tells its metrics; absent if it tells none.
    pub(crate) server: Option<String>,
    /// Which GPUs were read, and why, in words.
    pub(crate) gpus: String,
    /// How much of a processor reading took, milliseconds.
    pub(crate) cpu_ms: f64,
    /// Bytes of the server's texts.
    pub(crate) bytes: u64,
    /// What was wrong with them although they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Telemetry {
    /// Absent where nothing was to be read.
    pub(crate) how: Option<How>,
    /// In order.
    pub(crate) scrapes: Vec<Scrape>,
    /// Further series that the plan names, in order of time.
    pub(crate) further: Vec<Further>,
    /// One for each that was read.
    pub(crate) gpus: Vec<GpuSeries>,
}

/// The server's metrics at an instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scrape {
    /// When they were asked for, nanoseconds since the load began.
    pub(crate) asked: i64,
    /// What came of it.
    pub(crate) answer: Result<Answered, String>,
    /// What the client saw in the middle of it.
    pub(crate) client: Moment,
}

/// An answer of the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answered {
    /// When it was there.
    pub(crate) at: i64,
    pub(crate) told: Told,
}

impl Scrape {
    /// The instant that its values are taken to be of: the middle between question and answer.
    pub(crate) fn instant(&self) -> i64 {
        let answered = self.answer.as_ref().map_or(self.asked, |answer| answer.at);
        i64::midpoint(self.asked, answered)
    }

    /// What the server told, if it did.
    pub(crate) fn told(&self) -> Option<&Told> {
        self.answer.as_ref().ok().map(|answer| &answer.told)
    }
}

/// A value of a series that the plan names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Further {
    /// When it was asked for.
    pub(crate) asked: i64,
    /// Its full name.
    pub(crate) name: String,
    /// Its labels as `name="value"`, parted by commas.
    pub(crate) labels: String,
    pub(crate) value: f64,
}

/// A GPU over time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GpuSeries {
    pub(crate) gpu: Gpu,
    pub(crate) readings: Vec<GpuReading>,
}

/// Something that a GPU tells.
type Of = fn(&Reading) -> Option<u64>;

/// What a GPU told at an instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GpuReading {
    /// When it was asked, nanoseconds since the load began.
    pub(crate) asked: i64,
    /// When it had answered.
    pub(crate) answered: i64,
    pub(crate) reading: Result<Reading, String>,
}

impl Telemetry {
    fn of(found: Found, how: How, info: &RunInfo, records: &[Record]) -> Self {
        let began = info.started_monotonic_ns;
        let on_clock = |at: u64| {
            let (at, began) = (i128::from(at), i128::from(began));
            i64::try_from(at - began).unwrap_or(i64::MAX)
        };
        let scrape = |(asked, answer): &(u64, Answer)| Scrape {
            asked: on_clock(*asked),
            answer: answer.clone().map(|(at, told)| Answered {
                at: on_clock(at),
                told,
            }),
            client: Moment::default(),
        };
        let mut scrapes: Vec<Scrape> = found.scrapes.iter().map(scrape).collect();
        let instant = |scrape: &Scrape| u64::try_from(scrape.instant()).unwrap_or(0);
        let at: Vec<u64> = scrapes.iter().map(instant).collect();
        let seen = moments(records, &at).into_iter();
        scrapes
            .iter_mut()
            .zip(seen)
            .for_each(|(scrape, seen)| scrape.client = seen);
        let further = found.further.into_iter().map(|(asked, series)| Further {
            asked: on_clock(asked),
            labels: written(&series.labels),
            name: series.name,
            value: series.value,
        });
        let gpus = found.gpus.into_iter().map(|(gpu, readings)| GpuSeries {
            gpu,
            readings: readings
                .into_iter()
                .map(|(asked, answered, reading)| GpuReading {
                    asked: on_clock(asked),
                    answered: on_clock(answered),
                    reading,
                })
                .collect(),
        });
        Self {
            scrapes,
            further: further.collect(),
            gpus: gpus.collect(),
            how: Some(How {
                cpu_ms: found.cpu.as_secs_f64() * 1e3,
                bytes: found.bytes,
                trouble: found.trouble,
                ..how
            }),
        }
    }
}

/// How the series of a result were read; absent where none were, as in those of earlier versions.
pub(crate) fn how(result: &MeasuredFile) -> Option<How> {
    let how = result.details.get("telemetry")?;
    How::deserialize(how).ok()
}

fn written(labels: &[(String, String)]) -> String {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"));
    labels.collect::<Vec<_>>().join(",")
}
