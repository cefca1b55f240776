//! `analyze.layers`: the time of a whole model out of times of the same model with a few layers.
//!
//! What is computed of them is [`extrapolate`](super::extrapolate)'s.

use super::cells::Times;
use super::extrapolate::{Extrapolation, Whole, title};
use crate::files;
use crate::kinds::{Measured, Model as ModelKind};
use crate::model::{failure, read_config};
use crate::plot::write_chart;
use crate::result::{Definition, MeasuredFile, SIMULATED};
use charts::{Axis, Chart, LineChart, Reading, Series};
use cost::{Phase, Work};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Positive, Samples};
use engine::value::Table;
use models::DecoderShape;
use serde_json::json;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

engine::options! {
    /// Options of `analyze.layers`.
    pub struct AnalyzeLayers {
        /// Measured times: rows with `phase`, `batch`, `length` and the number of layers, in values, labels or axes.
        data: Samples<Measured>;
        /// The value of those rows that is the time of a forward pass, milliseconds.
        time: String = "ms".to_owned();
        /// What the number of layers is called there.
        layers: String = "layers".to_owned();
        /// The whole model, whose layers are counted.
        model: Option<Artifact<ModelKind>>;
        /// The number of layers of the whole model, in place of `model`.
        full: Option<NonZeroU32>, in "layers";
        /// How far a count may be from the line before it is refused, as a share of the line, if noise does not
        /// explain it. Where no count has two times noise is not known, and this alone decides.
        tolerance: Positive = Positive(0.02);
    }
}

impl StepType for AnalyzeLayers {
    const NAME: &'static str = "analyze.layers";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Extrapolates the time of a whole model from times with a few layers, with its interval and a check against a further count.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "result",
                file: "result.json",
                kind: "result",
                doc: "One row for each phase, batch and length: the fixed part, that of a layer, the whole model's.",
            },
            OutputSpec {
                name: "chart",
                file: "chart",
                kind: "chart",
                doc: "Times over layers, with the lines through them.",
            },
        ]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        match (&self.model, self.full) {
            (Some(_), Some(_)) => {
                let message = "`model` and `full` both say how many layers the whole model has";
                parser.wrong::<()>(&at("full"), message, "which one?", "leave one of both out");
            }
            (None, None) => {
                let message = "nothing says how many layers the whole model has";
                let help = "give `model`, or `full = 32`";
                parser.wrong::<()>(place, message, "to how many?", help);
            }
            _ => {}
        }
    }
}

#[async_trait::async_trait]
impl Step for AnalyzeLayers {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let full = match (&self.model, self.full) {
            (_, Some(full)) => full.get().into(),
            (Some(model), None) => {
                let config = read_config(&context.path(model)?)?;
                let shape = DecoderShape::of(&config).map_err(|problem| failure(&[problem]))?;
                shape.n_layers as f64
            }
            (None, None) => return Err(StepError::new("give `model` or `full`")),
        };
        let times = Times::read(&context.samples(&self.data), &self.time, Some(&self.layers))?;
        let extrapolation = Extrapolation {
            layers: &self.layers,
            full,
            tolerance: self.tolerance.0,
        };
        let wholes = extrapolation.wholes(&times.all)?;
        let result = result(&wholes, &times);
        files::write_json(&context.output("result.json"), &result)?;
        let stamp = match result.simulated() {
            Some(how) => format!("simulated ({how})"),
            None => String::new(),
        };
        write_chart(context, &chart(&wholes, &stamp), &csv(&wholes))?;
        Ok(StepReport::line(summary(&wholes)))
    }
}

/// What the values mean.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    ("batch", "sequences", "sequences of the batch"),
    (
        "length",
        "tokens",
        "tokens of each: of the prompt, or in the cache before a decode step",
    ),
    ("full_layers", "layers", "layers of the whole model"),
    ("full_ms", "ms", "fixed_ms + full_layers · layer_ms"),
    (
        "full_low_ms",
        "ms",
        "lower end of the interval of full_ms at 95 %",
    ),
    (
        "full_high_ms",
        "ms",
        "upper end of the interval of full_ms at 95 %",
    ),
    ("fixed_ms", "ms", "the line through all times at no layers"),
    ("layer_ms", "ms", "its slope: what a layer adds"),
    ("counts", "counts", "counts of layers that were measured"),
    ("times", "times", "times that were measured"),
    (
        "check_layers",
        "layers",
        "the largest count, foretold from the others",
    ),
    (
        "check_foretold_ms",
        "ms",
        "what the line through the others says of it",
    ),
    ("check_measured_ms", "ms", "the mean of its times"),
    (
        "check_error",
        "",
        "(check_foretold_ms − check_measured_ms) / check_measured_ms",
    ),
];

fn result(wholes: &[Whole], times: &Times) -> MeasuredFile {
    let definition = |(name, unit, formula): &(&str, &str, &str)| Definition {
        name: (*name).to_owned(),
        unit: (*unit).to_owned(),
        formula: (*formula).to_owned(),
    };
    let mut notes = Vec::new();
    if wholes.iter().any(|whole| whole.check.is_none()) {
        notes.push("two counts lie on a line whatever they are: nothing checks it".to_owned());
    }
    if wholes.iter().any(|whole| whole.interval.is_none()) {
        notes.push(
            "two counts of one time each tell no uncertainty: there is no interval".to_owned(),
        );
    }
    let simulated: Vec<&str> = times.simulated.iter().map(String::as_str).collect();
    let target = match simulated.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([(SIMULATED.to_owned(), simulated.join("; "))]),
    };
    let levels = wholes.iter().map(|whole| {
        let levels = whole.line.levels.iter();
        levels
            .map(|l| json!({ "layers": l.x, "mean_ms": l.mean, "fitted_ms": l.fitted }))
            .collect::<Vec<_>>()
    });
    MeasuredFile {
        rows: wholes.iter().map(Whole::row).collect(),
        definitions: DEFINITIONS.iter().map(definition).collect(),
        notes,
        target,
        details: json!({ "counts": levels.collect::<Vec<_>>() }),
    }
}

/// Means over layers, and of each line its end at the whole model, with the interval there.
fn chart(wholes: &[Whole], stamp: &str) -> Chart {
    let title_of_all = "Forward time over layers";
    let (x, y) = (Axis::new("layers", ""), Axis::new("time", "ms"));
    let mut chart = LineChart::new(title_of_all, x, y).subtitle(stamp);
    for whole in wholes {
        let mut series = Series::new(title(&whole.work));
        for level in &whole.line.levels {
            series = series.point(level.x, level.mean);
        }
        let mut end = Reading::new(whole.line.at(whole.full)).note("extrapolated");
        if let Some(interval) = whole.interval {
            end = end.interval(interval.low, interval.high);
        }
        chart = chart.series(series.point(whole.full, end));
    }
    let note = "The last point of each line is extrapolated, with its interval at 95 %.";
    Chart::from(chart.note(note))
}

fn csv(wholes: &[Whole]) -> String {
    let mut csv = "phase,batch,length,layers,measured_ms,fitted_ms\n".to_owned();
    for whole in wholes {
        let Work {
            phase,
            batch,
            length,
        } = whole.work;
        let name = phase.name();
        for level in &whole.line.levels {
            let (x, mean, fitted) = (level.x, level.mean, level.fitted);
            csv.push_str(&format!("{name},{batch},{length},{x},{mean},{fitted}\n"));
        }
        let (x, fitted) = (whole.full, whole.line.at(whole.full));
        csv.push_str(&format!("{name},{batch},{length},{x},,{fitted}\n"));
    }
    csv
}

fn summary(wholes: &[Whole]) -> String {
    let number = charts::format_number;
    let of_phase = |phase: Phase| {
        let whole = wholes.iter().find(|whole| whole.work.phase == phase)?;
        let full = number(whole.line.at(whole.full));
        let interval = whole.interval.map_or_else(String::new, |interval| {
            format!(" ({} to {})", number(interval.low), number(interval.high))
        });
        let (title, layers) = (title(&whole.work), whole.full);
        Some(format!("{title}: {full} ms{interval} at {layers} layers"))
    };
    let mut lines: Vec<String> = [Phase::Prefill, Phase::Decode]
        .into_iter()
        .filter_map(of_phase)
        .collect();
    let errors = wholes.iter().filter_map(|whole| whole.check);
    let worst = errors.map(|check| check.error().abs()).reduce(f64::max);
    lines.push(match worst {
        Some(worst) => format!("foretells a further count to {} %", number(worst * 100.0)),
        None => "not checked by a third count".to_owned(),
    });
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::cells::made_up::sample;
    use super::*;

    #[test]
    fn the_result_the_chart_and_the_line_say_what_two_counts_cannot_tell() {
        let folder = tempfile::tempdir().expect("a folder");
        let cell = ("prefill", 1.0, 64.0);
        let samples = [(2.0, 10.0), (4.0, 16.0)]
            .into_iter()
            .zip(0..)
            .map(|((layers, ms), i)| sample(folder.path(), i, cell, layers, ms));
        let samples: Vec<engine::step::Sample> = samples.collect();
        let times = Times::read(&samples, "ms", Some("layers")).expect("times");
        let extrapolation = Extrapolation {
            layers: "layers",
            full: 32.0,
            tolerance: 0.02,
        };
        let wholes = extrapolation.wholes(&times.all).expect("a line");
        assert_eq!(result(&wholes, &times).notes.len(), 2);
        // Two counts and the end.
        assert_eq!(chart(&wholes, "").n_points(), 3);
        assert!(csv(&wholes).ends_with("prefill,1,64,4,16,16\nprefill,1,64,32,,100\n"));
        assert_eq!(
            summary(&wholes),
            "prefill of batch 1, length 64: 100 ms at 32 layers; not checked by a third count"
        );
    }
}
