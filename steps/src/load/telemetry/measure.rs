//! Numbers of a load out of its series, and what speaks against them.
//!
//! Means are over the readings within the load. Energy is that between readings within it, and is set beside the
//! tokens that the client received in the same time, so that nothing is extrapolated.

use super::super::quantities::Quantity;
use super::{GpuSeries, How, Of, Scrape, Telemetry};
use crate::result::{Definition, MeasuredFile};
use engine::step::Figure;
use loadgen::{Record, RunInfo, moments};
use serde_json::Value;
use std::time::Duration;
use telemetry::{Energy, EnergyPoint, energy};

/// Readings that a comparison of requests needs.
const ENOUGH: usize = 10;
/// How many more requests the server may have than the client, on the mean: a share, and so many.
const MORE: (f64, f64) = (0.1, 1.0);
/// Power stands for the time between readings that are no more than so many intervals apart.
const LONGEST: f64 = 2.5;
/// The energy for which a load is told at once.
const ENERGY_PER_TOKEN: &str = "gpu_energy_per_output_token_j";

/// Adds what the series say of a load to its result.
pub(crate) fn describe(
    telemetry: &Telemetry,
    info: &RunInfo,
    records: &[Record],
    result: &mut MeasuredFile,
) {
    let Some(how) = &telemetry.how else { return };
    let within = Within {
        telemetry,
        end: i64::try_from(info.wall_ns).unwrap_or(i64::MAX),
    };
    let is_read = !telemetry.scrapes.is_empty() || !telemetry.gpus.is_empty();
    let cost = is_read.then_some(("telemetry_cpu_ms", Some(how.cpu_ms)));
    let gpus = within.gpus(how, records);
    let values = within.server().into_iter().chain(gpus).chain(cost);
    for (name, value) in values {
        let Some(value) = value else { continue };
        for row in &mut result.rows {
            row.set(name, value);
        }
        result.definitions.extend(definition(name));
    }
    result.notes.extend(within.notes(how));
    if let Value::Object(details) = &mut result.details {
        details.insert("telemetry".to_owned(), serde_json::json!(how));
    }
}

/// What is shown at once of a load.
pub(crate) fn figures_of(result: &MeasuredFile) -> Option<Figure> {
    let value = result.rows.first()?.value(ENERGY_PER_TOKEN)?;
    Some(Figure {
        name: String::new(),
        value,
        unit: "J/tok".to_owned(),
    })
}

/// What the numbers mean: names, units, formulas. A reading is one within the load.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    (
        "server_running_mean",
        "requests",
        "mean over readings of the server's metrics, of requests that run",
    ),
    ("server_running_max", "requests", "the most of them"),
    (
        "server_waiting_mean",
        "requests",
        "mean over readings of the server's metrics, of requests that wait",
    ),
    ("server_waiting_max", "requests", "the most of them"),
    (
        "server_cache_use_max",
        "1",
        "the most of the key-value cache in use among readings of the server's metrics",
    ),
    (
        "server_preemptions",
        "times",
        "what the server counted of running requests that had to give their cache back, between the first and the last reading",
    ),
    (
        "server_readings",
        "readings",
        "readings of the server's metrics during the load, missed ones included",
    ),
    (
        "server_readings_missed",
        "readings",
        "those of them that had no answer",
    ),
    (
        "gpu_power_mean_w",
        "W",
        "mean over readings, of power; the sum over GPUs",
    ),
    (
        "gpu_energy_j",
        "J",
        "energy between the first and the last reading, by the GPU's counter, or else by its power over time; the sum over GPUs",
    ),
    (
        ENERGY_PER_TOKEN,
        "J",
        "gpu_energy_j ÷ output tokens received in the same time, of all requests; the sum over GPUs",
    ),
    (
        "gpu_sm_clock_mean_mhz",
        "MHz",
        "mean over readings and GPUs, of the clock of multiprocessors",
    ),
    ("gpu_sm_clock_min_mhz", "MHz", "the least of them"),
    (
        "gpu_temperature_max_c",
        "°C",
        "the highest temperature among readings and GPUs",
    ),
    (
        "gpu_slowed_share",
        "1",
        "share of readings in which power or heat held clocks down",
    ),
    (
        "gpu_memory_used_max_bytes",
        "bytes",
        "the most memory in use among readings; the sum over GPUs",
    ),
    (
        "gpu_busy_mean_percent",
        "%",
        "mean over readings and GPUs, of the share of time in which some kernel ran",
    ),
    (
        "telemetry_cpu_ms",
        "ms",
        "processor time of the thread that read the server's metrics and GPUs",
    ),
];

fn definition(name: &str) -> Option<Definition> {
    let found = DEFINITIONS.iter().find(|(defined, ..)| *defined == name);
    found.map(|(name, unit, formula)| Definition {
        name: (*name).to_owned(),
        unit: (*unit).to_owned(),
        formula: (*formula).to_owned(),
    })
}

/// A name and its value, where there is one.
type Measured = (&'static str, Option<f64>);

/// The series from the load's beginning to its end.
struct Within<'a> {
    telemetry: &'a Telemetry,
    end: i64,
}

impl Within<'_> {
    fn has(&self, instant: i64) -> bool {
        (0..=self.end).contains(&instant)
    }

    fn scrapes(&self) -> impl Iterator<Item = &Scrape> {
        let all = self.telemetry.scrapes.iter();
        all.filter(|scrape| self.has(scrape.instant()))
    }

    fn told(&self, quantity: Quantity) -> Vec<f64> {
        self.scrapes()
            .filter_map(|s| s.told()?.get(quantity))
            .collect()
    }

    fn server(&self) -> Vec<Measured> {
        if self.telemetry.scrapes.is_empty() {
            return Vec::new();
        }
        let mean = |quantity| statistics::mean(&self.told(quantity));
        let most = |quantity| self.told(quantity).into_iter().reduce(f64::max);
        let first_and_last = {
            let all = self.told(Quantity::Preemptions);
            all.first().copied().zip(all.last().copied())
        };
        let missed = self.scrapes().filter(|s| s.answer.is_err()).count();
        vec![
            ("server_running_mean", mean(Quantity::Running)),
            ("server_running_max", most(Quantity::Running)),
            ("server_waiting_mean", mean(Quantity::Waiting)),
            ("server_waiting_max", most(Quantity::Waiting)),
            ("server_cache_use_max", most(Quantity::CacheUse)),
            (
                "server_preemptions",
                first_and_last.map(|(first, last)| last - first),
            ),
            ("server_readings", Some(count(self.scrapes().count()))),
            ("server_readings_missed", Some(count(missed))),
        ]
    }

    fn gpus(&self, how: &How, records: &[Record]) -> Vec<Measured> {
        let gpus = &self.telemetry.gpus;
        if gpus.is_empty() {
            return Vec::new();
        }
        let each =
            |of: Of| -> Vec<Vec<f64>> { gpus.iter().map(|gpu| self.values(gpu, of)).collect() };
        let pooled = |of: Of| each(of).concat();
        let mean = |of: Of| statistics::mean(&pooled(of));
        let most = |of: Of| pooled(of).into_iter().reduce(f64::max);
        let least = |of: Of| pooled(of).into_iter().reduce(f64::min);
        // Nothing where one of them does not tell.
        let sum = |values: Vec<Option<f64>>| values.into_iter().sum::<Option<f64>>();
        let power = each(|r| r.power_mw);
        let power = power.iter().map(|mw| Some(statistics::mean(mw)? / 1e3));
        let memory = each(|r| r.memory_used).into_iter();
        let memory = memory.map(|bytes| bytes.into_iter().reduce(f64::max));
        let energies: Vec<Option<Energy>> = gpus.iter().map(|gpu| self.energy(gpu, how)).collect();
        let joules = energies.iter().map(|e| Some(e.as_ref()?.joules));
        let per_token = energies.iter().map(|e| per_token(e.as_ref()?, records));
        vec![
            ("gpu_power_mean_w", sum(power.collect())),
            ("gpu_energy_j", sum(joules.collect())),
            (ENERGY_PER_TOKEN, sum(per_token.collect())),
            ("gpu_sm_clock_mean_mhz", mean(|r| r.sm_clock_mhz)),
            ("gpu_sm_clock_min_mhz", least(|r| r.sm_clock_mhz)),
            ("gpu_temperature_max_c", most(|r| r.temperature_c)),
            (
                "gpu_slowed_share",
                mean(|r| Some(u64::from(r.throttle?.slows()))),
            ),
            ("gpu_memory_used_max_bytes", sum(memory.collect())),
            ("gpu_busy_mean_percent", mean(|r| r.busy_percent)),
        ]
    }

    fn values(&self, gpu: &GpuSeries, of: Of) -> Vec<f64> {
        let readings = gpu.readings.iter().filter(|r| self.has(r.asked));
        readings
            .filter_map(|r| Some(number(of(r.reading.as_ref().ok()?)?)))
            .collect()
    }

    /// What a GPU has used, where it tells anything of it.
    fn energy(&self, gpu: &GpuSeries, how: &How) -> Option<Energy> {
        let within = gpu.readings.iter().filter(|r| self.has(r.asked));
        let points: Vec<EnergyPoint> = within
            .map(|r| {
                let reading = r.reading.as_ref().ok();
                EnergyPoint {
                    at: r.asked,
                    energy_mj: reading.and_then(|r| r.energy_mj),
                    power_mw: reading.and_then(|r| r.power_mw),
                }
            })
            .collect();
        let longest = Duration::try_from_secs_f64(how.interval_s * LONGEST).unwrap_or_default();
        let energy = energy(&points, longest);
        (!energy.spans.is_empty()).then_some(energy)
    }

    fn notes(&self, how: &How) -> Vec<String> {
        let all = self.telemetry.scrapes.len();
        let missed = || {
            self.telemetry
                .scrapes
                .iter()
                .filter_map(|s| s.answer.as_ref().err())
        };
        let missed = missed().next().map(|why| {
            format!(
                "{} of {all} readings of the server's metrics were missed, the first because: {why}",
                missed().count()
            )
        });
        let mut notes: Vec<String> = missed.into_iter().chain(how.trouble.clone()).collect();
        notes.extend(self.others());
        notes
    }

    /// Whether the server had more requests than this client gave it.
    fn others(&self) -> Option<String> {
        let both = self.scrapes().filter_map(|s| {
            let told = s.told()?;
            let waiting = told.get(Quantity::Waiting).unwrap_or(0.0);
            Some((
                told.get(Quantity::Running)? + waiting,
                f64::from(s.client.in_flight),
            ))
        });
        let (server, client): (Vec<f64>, Vec<f64>) = both.unzip();
        if server.len() < ENOUGH {
            return None;
        }
        let (server, client) = (statistics::mean(&server)?, statistics::mean(&client)?);
        (server > client * (1.0 + MORE.0) + MORE.1).then(|| {
            format!("the server had {server:.1} requests on the mean while {client:.1} of this client were in flight: others used it, or its metrics lag behind")
        })
    }
}

/// Joules per output token that the client received in the time of this energy; none where it received none.
fn per_token(energy: &Energy, records: &[Record]) -> Option<f64> {
    let edges = energy.spans.iter().flat_map(|(from, to)| [*from, *to]);
    let edges: Vec<u64> = edges.map(|at| u64::try_from(at).unwrap_or(0)).collect();
    let seen = moments(records, &edges);
    let tokens = seen
        .chunks_exact(2)
        .map(|span| span[1].output_tokens - span[0].output_tokens);
    let tokens: f64 = tokens.sum();
    (tokens > 0.0).then(|| energy.joules / tokens)
}

#[expect(clippy::cast_precision_loss, reason = "no GPU tells 2^53 of anything")]
fn number(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    number(n as u64)
}

/// A load of four seconds, read once a second from one before it: a server whose third reading was missed, and
/// two GPUs, of which the second has no counter of energy.
#[cfg(test)]
pub(crate) fn made_up() -> Telemetry {
    Telemetry {
        how: Some(How {
            interval_s: 1.0,
            server: Some("/metrics".to_owned()),
            gpus: "2 of them: made up".to_owned(),
            cpu_ms: 5.0,
            bytes: 9_000,
            trouble: None,
        }),
        scrapes: (0..6).map(made_up_scrape).collect(),
        further: Vec::new(),
        gpus: (0..2).map(made_up_gpu).collect(),
    }
}

/// When the reading of this number was asked for.
#[cfg(test)]
fn made_up_instant(i: u32) -> i64 {
    (i64::from(i) - 1) * 1_000_000_000
}

#[cfg(test)]
fn made_up_scrape(i: u32) -> Scrape {
    use super::super::quantities::Told;
    let mut told = Told::default();
    for (quantity, value) in [
        (Quantity::Running, 3.0),
        (Quantity::Waiting, f64::from(i)),
        (Quantity::CacheUse, f64::from(i) / 10.0),
        (Quantity::PromptTokens, f64::from(i) * 100.0),
        (Quantity::QueriedTokens, f64::from(i) * 100.0),
        (Quantity::CachedTokens, f64::from(i) * 25.0),
        (Quantity::OutputTokens, f64::from(i) * 50.0),
    ] {
        told.set(quantity, Some(value));
    }
    Scrape {
        asked: made_up_instant(i),
        answer: match i {
            3 => Err("status 503 at `/metrics`".to_owned()),
            _ => Ok(super::Answered {
                at: made_up_instant(i) + 2_000_000,
                told,
            }),
        },
        client: loadgen::Moment {
            in_flight: 4,
            output_tokens: f64::from(i) * 48.0,
        },
    }
}

#[cfg(test)]
fn made_up_gpu(index: u32) -> GpuSeries {
    let reading = |i: u32| super::GpuReading {
        asked: made_up_instant(i),
        answered: made_up_instant(i) + 1_000,
        reading: match (index, i) {
            (1, 5) => Err("GPU 1 tells nothing".to_owned()),
            _ => Ok(telemetry::Reading {
                sm_clock_mhz: Some(1_000 + u64::from(i) * 100),
                power_mw: Some(200_000),
                energy_mj: (index == 0).then_some(7_000 + u64::from(i) * 300_000),
                temperature_c: Some(50 + u64::from(i)),
                throttle: Some(telemetry::Throttle(if i == 4 { 0x4 } else { 0 })),
                memory_used: Some(1 << 30),
                busy_percent: Some(90),
                ..telemetry::Reading::default()
            }),
        },
    };
    GpuSeries {
        gpu: telemetry::Gpu {
            index,
            uuid: format!("GPU-{index}"),
            name: "made up".to_owned(),
        },
        readings: (0..6).map(reading).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::recompute::{one_info, one_record};
    use super::*;
    use crate::result::Row;
    use std::collections::BTreeMap;

    fn described(telemetry: &Telemetry, records: &[Record]) -> MeasuredFile {
        let info = RunInfo {
            wall_ns: 4_100_000_000,
            ..one_info()
        };
        let mut result = MeasuredFile {
            rows: vec![Row::default()],
            definitions: Vec::new(),
            notes: Vec::new(),
            target: BTreeMap::new(),
            details: serde_json::json!({}),
        };
        describe(telemetry, &info, records, &mut result);
        result
    }

    /// An answer of ten tokens, one in the middle of the load's first second and nine of its third.
    fn records() -> [Record; 1] {
        let at = |ms: u64, tokens| loadgen::Event {
            at: ms * 1_000_000,
            tokens,
        };
        [Record {
            events: vec![at(500, 1), at(2_500, 9)],
            done: 2_500_000_000,
            ..one_record()
        }]
    }

    #[test]
    fn a_load_is_measured_by_what_was_read_within_it() {
        let result = described(&made_up(), &records());
        let value = |name: &str| result.rows[0].value(name);
        assert_eq!(value("server_running_mean"), Some(3.0));
        // The reading before the load and the missed one are in no mean.
        assert_eq!(value("server_waiting_mean"), Some(3.0));
        assert_eq!(value("server_cache_use_max"), Some(0.5));
        assert_eq!(
            (value("server_readings"), value("server_readings_missed")),
            (Some(5.0), Some(1.0))
        );
        assert_eq!(value("server_preemptions"), None, "it tells none");
        let defined = |name: &str| result.definitions.iter().any(|d| d.name == name);
        assert!(defined("server_running_mean") && !defined("server_preemptions"));
        let words = "1 of 6 readings of the server's metrics were missed, the first because: status 503 at `/metrics`";
        assert_eq!(result.notes, [words]);
        assert_eq!(result.details["telemetry"]["interval_s"], 1.0);
    }

    #[test]
    fn energy_is_set_beside_the_tokens_of_the_same_time() {
        let result = described(&made_up(), &records());
        let value = |name: &str| result.rows[0].value(name);
        // Four seconds of a counter, and three of 200 W.
        assert_eq!(value("gpu_energy_j"), Some(1_200.0 + 600.0));
        assert_eq!(value(ENERGY_PER_TOKEN), Some(180.0));
        assert_eq!(value("gpu_power_mean_w"), Some(400.0));
        assert_eq!(value("gpu_sm_clock_min_mhz"), Some(1_100.0));
        assert_eq!(value("gpu_temperature_max_c"), Some(55.0));
        assert_eq!(value("gpu_slowed_share"), Some(2.0 / 9.0));
        assert_eq!(
            value("gpu_memory_used_max_bytes"),
            Some(2.0 * f64::from(1 << 30))
        );
        assert_eq!(figures_of(&result).map(|f| f.value), Some(180.0));
        // Without a token there is no energy per token.
        assert_eq!(
            described(&made_up(), &[]).rows[0].value(ENERGY_PER_TOKEN),
            None
        );
    }

    #[test]
    fn a_server_with_more_requests_than_the_client_s_is_told_of() {
        let mut telemetry = made_up();
        let one = telemetry.scrapes[2].clone();
        let others = |telemetry: &Telemetry| {
            let notes = described(telemetry, &[]).notes;
            notes
                .into_iter()
                .find(|note| note.contains("others used it"))
        };
        telemetry.scrapes = vec![one; ENOUGH];
        assert_eq!(
            others(&telemetry),
            None,
            "5 of the server and 4 of the client"
        );
        telemetry
            .scrapes
            .iter_mut()
            .for_each(|s| s.client.in_flight = 3);
        let words = others(&telemetry).expect("told");
        assert!(
            words.starts_with("the server had 5.0 requests on the mean while 3.0"),
            "{words}"
        );
        telemetry.scrapes.pop();
        assert_eq!(others(&telemetry), None, "too few readings");
    }

    #[test]
    fn where_nothing_was_read_nothing_is_said() {
        let result = described(&Telemetry::default(), &records());
        assert!(result.rows[0].values.is_empty() && result.notes.is_empty());
        assert_eq!(result.details.get("telemetry"), None);
    }
}
