//! `model.fit_latency`: a device profile from measured step times, for the embedded server's `sim`.
//!
//! A profile is of one model on one machine under one server. It says how well it agrees with what
//! it was fitted to; how well it foretells anything else has to be measured.

mod observe;
mod solve;

use crate::files;
use crate::kinds::Measured;
use crate::load::read_records;
use crate::plot::write_chart;
use crate::result::{MeasuredFile, stamp};
use charts::{Axis, Chart, LineChart, Series};
use embedded_server::DeviceProfile;
use embedded_server::device_profile::{DecodeTimes, DeviceTimes, Fitted, PrefillTimes, Quality};
use embedded_server::executor::Phase;
use engine::step::{
    Grade, OutputSpec, Sample, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::{Positive, Samples};
use observe::{Observation, RecordedStep, of_records, of_steps};
use solve::{N_TERMS, Row};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// A median error above this is a poor fit.
const POOR: f64 = 0.15;
/// Points of a phase in the chart: each the median of as many times.
const MOST_POINTS: usize = 32;
/// Fewer times tell nothing of how well they fit.
const FEW: usize = 8;

engine::options! {
    /// Options of `model.fit_latency`.
    pub struct ModelFitLatency {
        /// What was measured of one server and one model, over batch sizes and prompt lengths: samples
        /// of `profile.phases`, by the server's own record of its steps, or of `load.test`, by what the
        /// client saw of any server.
        data: Vec<Samples<Measured>>;
        /// The device's name in records and reports.
        name: String = "fitted".to_owned();
        /// Memory of the device, which counts where a server that takes the profile is given none.
        memory: Option<Positive>, in "GB";
        /// Between device and host, each way; counts likewise.
        link: Option<Positive>, in "GB/s";
        /// Bytes of a weight, a key or a value.
        dtype_bytes: NonZeroU32 = NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN), in "bytes";
    }
}

impl StepType for ModelFitLatency {
    const NAME: &'static str = "model.fit_latency";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Fits a device profile to measured prefill and decode times, for the embedded server's `sim` to replay.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "profile",
                file: "profile.toml",
                kind: "device profile",
                doc: "The profile, with what it was fitted to and its relative errors.",
            },
            OutputSpec {
                name: "chart",
                file: "chart",
                kind: "chart",
                doc: "Fitted times against measured ones.",
            },
        ]
    }
}

#[async_trait::async_trait]
impl Step for ModelFitLatency {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let samples = self.data.iter().flat_map(|data| context.samples(data));
        let measured = Measurements::read(&samples.collect::<Vec<_>>())?;
        let prefill = PhaseFit::of(Phase::Prefill, &measured.observations)?;
        let decode = PhaseFit::of(Phase::Decode, &measured.observations)?;
        let profile = self.profile(&measured, &prefill, &decode);
        let text = profile
            .to_toml()
            .map_err(|e| StepError::new(e.to_string()))?;
        files::write(&context.output("profile.toml"), text)?;
        let notes: Vec<String> = [&prefill, &decode]
            .into_iter()
            .flat_map(PhaseFit::notes)
            .collect();
        let chart = chart(&self.name, &measured.stamp, [&prefill, &decode], &notes);
        let points = [&prefill, &decode].map(PhaseFit::csv).concat();
        let csv = format!("phase,measured_ms,fitted_ms\n{points}");
        write_chart(context, &Chart::from(chart), &csv)?;
        let lines = [prefill.summary(), decode.summary()]
            .into_iter()
            .chain(notes);
        Ok(StepReport::line(lines.collect::<Vec<_>>().join("; ")))
    }
}

impl ModelFitLatency {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes of memories are positive and far below 2^64 bytes"
    )]
    fn profile(
        &self,
        measured: &Measurements,
        prefill: &PhaseFit,
        decode: &PhaseFit,
    ) -> DeviceProfile {
        let [base_us, token_us, pair_us] = prefill.coefficients;
        let [step_us, sequence_us, context_token_us] = decode.coefficients;
        DeviceProfile {
            name: self.name.clone(),
            illustrative: !measured.stamp.is_empty(),
            source: measured.source(),
            memory_bytes: self.memory.map(|gb| (gb.0 * 1e9) as u64),
            link_bytes_per_s: self.link.map(|gb| gb.0 * 1e9),
            dtype_bytes: self.dtype_bytes.get().into(),
            times: DeviceTimes::Fitted(Fitted {
                prefill: PrefillTimes {
                    base_us,
                    token_us,
                    pair_us,
                    quality: Some(prefill.quality),
                },
                decode: DecodeTimes {
                    base_us: step_us,
                    sequence_us,
                    context_token_us,
                    quality: Some(decode.quality),
                },
            }),
        }
    }
}

/// Everything that samples tell of step times.
struct Measurements {
    observations: Vec<Observation>,
    nodes: BTreeSet<String>,
    /// What servers said of themselves, each once.
    servers: BTreeSet<String>,
    /// Whether servers computed anything.
    stamp: String,
}

impl Measurements {
    /// Reads samples; those that are invalid only tell of what disturbed them.
    fn read(samples: &[Sample]) -> Result<Self, StepError> {
        let mut measured = Measurements {
            observations: Vec::new(),
            nodes: BTreeSet::new(),
            servers: BTreeSet::new(),
            stamp: String::new(),
        };
        let mut simulated = Vec::new();
        let valid = samples.iter().filter(|s| s.verdict.grade != Grade::Invalid);
        for sample in valid {
            let observations = observations(sample)?;
            if let Some(path) = sample.outputs.get("result") {
                let file: MeasuredFile = files::read_json(path)?;
                measured.servers.extend(server(&file));
                simulated.push(file.simulated().map(str::to_owned));
            }
            measured.observations.extend(observations);
            let name = sample.node.split('[').next().unwrap_or(&sample.node);
            measured.nodes.insert(name.to_owned());
        }
        measured.stamp = stamp(simulated.iter().map(Option::as_deref));
        if measured.observations.is_empty() {
            let message = format!("of {} samples none tells a step time", samples.len());
            return Err(StepError::new(message).help(
                "give valid samples of `profile.phases`, or of `load.test` with requests that run alone and together",
            ));
        }
        Ok(measured)
    }

    /// Where a profile's numbers come from, in words.
    fn source(&self) -> String {
        let list = |of: &BTreeSet<String>| of.iter().cloned().collect::<Vec<_>>().join(", ");
        let stamp = match self.stamp.as_str() {
            "" => String::new(),
            stamp => format!("; {stamp}"),
        };
        format!(
            "fitted by model.fit_latency to {} times of {} ({}){stamp}",
            self.observations.len(),
            list(&self.nodes),
            list(&self.servers),
        )
    }
}

/// The step times of one sample.
fn observations(sample: &Sample) -> Result<Vec<Observation>, StepError> {
    if let Some(path) = sample.outputs.get("steps") {
        let windows: Vec<Vec<RecordedStep>> = files::read_json(path)?;
        return Ok(of_steps(&windows.concat()));
    }
    match sample.outputs.get("records") {
        Some(folder) => Ok(of_records(&read_records(folder)?)),
        None => Err(
            StepError::new(format!("`{}` tells no step times", sample.node))
                .help("give samples of `profile.phases` or of `load.test`"),
        ),
    }
}

/// What a server is, as far as it says so.
fn server(file: &MeasuredFile) -> Option<String> {
    let facts = ["model", "server.executor", "server.version"];
    let said = facts.iter().filter_map(|fact| file.target.get(*fact));
    let said: Vec<&str> = said.map(String::as_str).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

/// The fit of one phase.
struct PhaseFit {
    phase: Phase,
    coefficients: [f64; N_TERMS],
    quality: Quality,
    /// Measured and fitted times, microseconds, by the measured ones.
    times: Vec<(f64, f64)>,
    /// What the times do not tell apart.
    blind: Vec<&'static str>,
}

impl PhaseFit {
    fn of(phase: Phase, observations: &[Observation]) -> Result<Self, StepError> {
        let own = observations.iter().filter(|seen| seen.work.phase == phase);
        let rows: Vec<Row> = own.map(row).collect();
        let name = name(phase);
        let coefficients = solve::fit(&rows).ok_or_else(|| {
            StepError::new(format!("no sample tells the time of a {name} step")).help(
                "measure requests alone, for prefill, and several together, for decode: `profile.phases` does both",
            )
        })?;
        let errors = solve::relative_errors(&rows, &coefficients);
        let sorted = statistics::Sorted::new(errors);
        let error = |q: f64| {
            sorted
                .as_ref()
                .and_then(|e| e.linear(q))
                .unwrap_or(f64::INFINITY)
        };
        let fitted = |row: &Row| -> f64 {
            row.terms
                .iter()
                .zip(&coefficients)
                .map(|(term, c)| term * c)
                .sum()
        };
        let mut times: Vec<(f64, f64)> = rows.iter().map(|r| (r.value, fitted(r))).collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let quality = Quality {
            n_observations: rows.len() as u64,
            median_error: error(0.5),
            p90_error: error(0.9),
            largest: rows.iter().map(|row| row.terms[1]).fold(0.0, f64::max),
        };
        Ok(PhaseFit {
            phase,
            coefficients,
            quality,
            times,
            blind: blind(phase, &rows),
        })
    }

    fn summary(&self) -> String {
        let percent = |share: f64| charts::format_number(share * 100.0);
        format!(
            "{} off by {} % (p90 {} %)",
            name(self.phase),
            percent(self.quality.median_error),
            percent(self.quality.p90_error)
        )
    }

    /// What speaks against the fit.
    fn notes(&self) -> Vec<String> {
        let name = name(self.phase);
        let mut notes: Vec<String> = self
            .blind
            .iter()
            .map(|why| format!("{name}: {why}"))
            .collect();
        if self.quality.median_error > POOR {
            let percent = POOR * 100.0;
            notes.push(format!(
                "poor fit: {name} is off by more than {percent} % in the median"
            ));
        }
        if self.times.len() < FEW {
            notes.push(format!("only {} times of {name}", self.times.len()));
        }
        notes
    }

    /// Medians of times that are near each other, milliseconds: measured and fitted.
    fn points(&self) -> Vec<(f64, f64)> {
        let n = self.times.len().div_ceil(MOST_POINTS).max(1);
        let median = |times: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
            let values: Vec<f64> = times.iter().map(of).collect();
            statistics::median(&values).map(|us| us / 1e3)
        };
        let point = |times: &[(f64, f64)]| Some((median(times, |t| t.0)?, median(times, |t| t.1)?));
        self.times.chunks(n).filter_map(point).collect()
    }

    fn csv(&self) -> String {
        let line =
            |(measured, fitted): (f64, f64)| format!("{},{measured},{fitted}\n", name(self.phase));
        self.points().into_iter().map(line).collect()
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Prefill => "prefill",
        Phase::Decode => "decode",
    }
}

/// The terms of a time: see [`PrefillTimes`] and [`DecodeTimes`].
fn row(seen: &Observation) -> Row {
    let work = &seen.work;
    let terms = match work.phase {
        Phase::Prefill => [1.0, work.n_tokens, work.n_pairs],
        Phase::Decode => [1.0, work.n_sequences, work.context_tokens],
    };
    Row {
        terms,
        value: seen.us,
    }
}

/// What times of a grid that is too small cannot say.
fn blind(phase: Phase, rows: &[Row]) -> Vec<&'static str> {
    // Less than that is drowned by what the terms have in common.
    let varies = |value: &dyn Fn(&Row) -> f64| {
        let (least, most) = rows
            .iter()
            .map(value)
            .fold((f64::INFINITY, 0.0), |(a, b): (f64, f64), v| {
                (a.min(v), b.max(v))
            });
        most > 1.5 * least
    };
    let mut blind = Vec::new();
    match phase {
        Phase::Prefill => {
            if !varies(&|row| row.terms[1]) {
                blind.push("all prompts are of about one length, so that steps, tokens and attention are not told apart");
            }
        }
        Phase::Decode => {
            if !varies(&|row| row.terms[1]) {
                blind.push(
                    "all batches are of one size, so that steps and sequences are not told apart",
                );
            }
            if !varies(&|row| row.terms[2] / row.terms[1]) {
                blind.push(
                    "all sequences are of about one length, so that sequences and what they attend to are not told apart: other lengths may take another time than the fit says",
                );
            }
        }
    }
    blind
}

/// Fitted times against measured ones.
fn chart(device: &str, stamp: &str, fits: [&PhaseFit; 2], notes: &[String]) -> LineChart {
    let axis = |label: &str| Axis::new(label, "ms").log();
    let title = format!("Step times of `{device}`: fitted against measured");
    let mut chart = LineChart::new(title, axis("measured"), axis("fitted")).subtitle(stamp);
    let all: Vec<f64> = fits
        .iter()
        .flat_map(|fit| fit.points())
        .map(|p| p.0)
        .collect();
    for fit in fits {
        let mut series = Series::new(name(fit.phase));
        for (measured, fitted) in fit.points() {
            series = series.point(measured, fitted);
        }
        chart = chart.series(series);
    }
    let ends = [
        all.iter().copied().fold(f64::INFINITY, f64::min),
        all.iter().copied().fold(0.0, f64::max),
    ];
    let equal = ends
        .into_iter()
        .fold(Series::new("equal"), |line, at| line.point(at, at));
    let summaries = fits.map(PhaseFit::summary).join("; ");
    let chart = chart.series(equal).note(summaries);
    notes
        .iter()
        .fold(chart, |chart, note| chart.note(note.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_server::executor::sim::{ModelFigures, StepTimes, Work};

    const KNOWN: Fitted = Fitted {
        prefill: PrefillTimes {
            base_us: 2500.0,
            token_us: 55.0,
            pair_us: 0.012,
            quality: None,
        },
        decode: DecodeTimes {
            base_us: 4200.0,
            sequence_us: 310.0,
            context_token_us: 1.75,
            quality: None,
        },
    };

    fn decode(batch: f64, length: f64) -> Row {
        Row {
            terms: [1.0, batch, batch * length],
            value: 1.0,
        }
    }

    #[test]
    fn a_grid_that_cannot_tell_terms_apart_is_named() {
        let whole: Vec<Row> = [(1.0, 64.0), (8.0, 64.0), (1.0, 512.0), (8.0, 512.0)]
            .map(|(batch, length)| decode(batch, length))
            .into();
        assert!(blind(Phase::Decode, &whole).is_empty());
        let one_length = [decode(1.0, 512.0), decode(8.0, 520.0)];
        let named = blind(Phase::Decode, &one_length);
        assert!(named.len() == 1 && named[0].starts_with("all sequences are of about one length"));
        let one_batch = [decode(4.0, 64.0), decode(4.0, 512.0)];
        let named = blind(Phase::Decode, &one_batch);
        assert!(named.len() == 1 && named[0].starts_with("all batches are of one size"));
    }

    /// What `sim` takes for a grid of prompt lengths and batch sizes.
    fn grid(times: StepTimes) -> Vec<Observation> {
        let mut grid = Vec::new();
        for prompt in [16.0, 64.0, 256.0, 1024.0, 2048.0] {
            grid.push(Work {
                phase: Phase::Prefill,
                n_sequences: 1.0,
                n_tokens: prompt,
                n_logits: 1.0,
                context_tokens: prompt,
                n_pairs: prompt * prompt / 2.0,
            });
            for batch in [1.0, 2.0, 4.0, 8.0, 16.0] {
                for answer in [1.0, 12.0] {
                    let context_tokens = batch * (prompt + answer);
                    grid.push(Work {
                        phase: Phase::Decode,
                        n_sequences: batch,
                        n_tokens: batch,
                        n_logits: batch,
                        context_tokens,
                        n_pairs: context_tokens - batch / 2.0,
                    });
                }
            }
        }
        let observation = |work: Work| Observation {
            work,
            us: times.of(&work).as_secs_f64() * 1e6,
        };
        grid.into_iter().map(observation).collect()
    }

    fn assert_near(found: [f64; 3], wanted: [f64; 3]) {
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(
                (found - wanted).abs() < 1e-3 * wanted,
                "{found} for {wanted}"
            );
        }
    }

    #[test]
    fn the_times_that_sim_takes_are_found_again() {
        let observations = grid(StepTimes::Fitted(KNOWN));
        let prefill = PhaseFit::of(Phase::Prefill, &observations).expect("a fit");
        let decode = PhaseFit::of(Phase::Decode, &observations).expect("a fit");
        assert_near(prefill.coefficients, [2500.0, 55.0, 0.012]);
        assert_near(decode.coefficients, [4200.0, 310.0, 1.75]);
        assert!(prefill.quality.p90_error < 1e-3 && decode.quality.p90_error < 1e-3);
        assert!(decode.notes().is_empty(), "{:?}", decode.notes());
    }

    #[test]
    fn a_roofline_is_fitted_as_well_as_three_terms_can() {
        let DeviceTimes::Roofline(device) = DeviceProfile::find("l4").expect("l4").times else {
            panic!("l4 is a roofline")
        };
        let times = StepTimes::Roofline {
            device,
            model: ModelFigures {
                body_parameters: 7_000_000_000,
                head_parameters: 500_000_000,
                n_layers: 32,
                query_width: 4096,
                read_bytes: 15_000_000_000,
                bytes_per_token: 131_072,
            },
        };
        let decode = PhaseFit::of(Phase::Decode, &grid(times)).expect("a fit");
        assert!(decode.quality.median_error < 0.01, "{}", decode.summary());
    }

    #[test]
    fn a_poor_fit_and_a_poor_grid_say_so() {
        let mut observations = grid(StepTimes::Fitted(KNOWN));
        for (i, seen) in observations.iter_mut().enumerate() {
            seen.us *= if i % 2 == 0 { 3.0 } else { 0.4 };
        }
        let decode = PhaseFit::of(Phase::Decode, &observations).expect("a fit");
        let notes = decode.notes().join("\n");
        assert!(
            notes.contains("poor fit: decode is off by more than 15 %"),
            "{notes}"
        );
        observations.retain(|seen| seen.work.n_tokens.to_bits() == 64f64.to_bits());
        let prefill = PhaseFit::of(Phase::Prefill, &observations).expect("a fit");
        let notes = prefill.notes().join("\n");
        assert!(
            notes.contains("all prompts are of about one length"),
            "{notes}"
        );
        assert!(notes.contains("only 1 times"), "{notes}");
        let none = PhaseFit::of(Phase::Decode, &observations).map(|fit| fit.summary());
        assert!(
            none.expect_err("no decode")
                .message
                .contains("no sample tells")
        );
    }
}
