//! `checkpoint.summary`: what loads of several models come to, as a table in text and in JSON.
//!
//! Beside what the ServerlessLLM suite told (mean, least, most, standard deviation, and the ratio of means) stands
//! what it did not: medians, and ratios taken within a round with their interval. The two ratios differ where a few loads
//! were slow.

use crate::files;
use crate::kinds::Measured;
use crate::result::{MeasuredFile, Row};
use engine::problem::did_you_mean;
use engine::step::{
    Grade, OutputSpec, Sample, Step, StepContext, StepError, StepKind, StepReport, StepType,
};
use engine::types::Samples;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

engine::options! {
    /// Options of `checkpoint.summary`.
    pub struct CheckpointSummary {
        /// Loads, see `checkpoint.load`.
        data: Samples<Measured>;
        /// The axis whose values are models; all loads are of one if absent.
        by: Option<String>;
        /// The loader to which others are held, as `checkpoint.load` has it, with or without its version: where it loads
        /// the same format to that, else to the one that it loads.
        baseline: Option<String>;
    }
}

impl StepType for CheckpointSummary {
    const NAME: &'static str = "checkpoint.summary";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Sums up loads by model and arm: times, rates, and ratios to a baseline.";

    fn outputs() -> &'static [OutputSpec] {
        &[
            OutputSpec {
                name: "text",
                file: "summary.txt",
                kind: "text",
                doc: "The table, for people.",
            },
            OutputSpec {
                name: "summary",
                file: "summary.json",
                kind: "summary",
                doc: "The same for programs: one entry for each model and arm.",
            },
            OutputSpec {
                name: "loads",
                file: "loads.json",
                kind: "loads",
                doc: "Every load as the suite's result files had them: `model_name`, `format`, `loading_time` in seconds.",
            },
        ]
    }
}

/// One load that was timed.
struct Load {
    model: String,
    arm: String,
    loader: String,
    format: String,
    /// Which of several loads may be compared: the sample, and the round within it.
    moment: (String, u32, u64),
    seconds: f64,
    /// GB/s.
    rate: f64,
}

/// What the loads of an arm come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Summary {
    model: String,
    arm: String,
    n_loads: usize,
    mean_s: f64,
    median_s: f64,
    min_s: f64,
    max_s: f64,
    /// Population standard deviation, as the suite took it.
    std_s: f64,
    /// Median rate, GB/s.
    rate_gb_per_s: f64,
    /// Mean time of the baseline / mean time of the arm: the suite's.
    ratio_of_means: Option<f64>,
    /// Median over rounds of the baseline's time / the arm's.
    speedup: Option<f64>,
    /// Its interval at 95 % or more; from six rounds on.
    speedup_interval: Option<[f64; 2]>,
}

#[async_trait::async_trait]
impl Step for CheckpointSummary {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let samples = context.samples(&self.data);
        let (loads, n_left_out) = self.loads(&samples)?;
        require_baseline(self.baseline.as_deref(), &loads)?;
        let summaries = summaries(&loads, self.baseline.as_deref());
        let text = text(&summaries, self.baseline.as_deref(), n_left_out);
        files::write(&context.output("summary.txt"), &text)?;
        files::write_json(&context.output("summary.json"), &summaries)?;
        files::write_json(&context.output("loads.json"), &told(&loads))?;
        let n_models = summaries.iter().map(|s| &s.model);
        let n_models = n_models.collect::<std::collections::BTreeSet<_>>().len();
        let line = format!("{} loads of {n_models} models", loads.len());
        Ok(StepReport::line(line))
    }
}

impl CheckpointSummary {
    /// The loads of samples that can be believed, and how many samples cannot.
    fn loads(&self, samples: &[Sample]) -> Result<(Vec<Load>, usize), StepError> {
        let (believed, others): (Vec<&Sample>, Vec<&Sample>) = samples
            .iter()
            .partition(|sample| sample.verdict.grade != Grade::Invalid);
        let mut loads = Vec::new();
        for sample in believed {
            let path = sample.outputs.get("result");
            let path =
                path.ok_or_else(|| StepError::new(format!("`{}` left no result", sample.node)))?;
            let file: MeasuredFile = files::read_json(path)?;
            let model = self.model(sample)?;
            for row in &file.rows {
                loads.push(load(row, sample, &model)?);
            }
        }
        if loads.is_empty() {
            let message = "there is no load that can be believed";
            let help = "the verdicts of `checkpoint.load` say why";
            return Err(StepError::new(message).help(help));
        }
        Ok((loads, others.len()))
    }

    fn model(&self, sample: &Sample) -> Result<String, StepError> {
        let Some(by) = &self.by else {
            return Ok("model".to_owned());
        };
        let value = sample.axes.iter().find(|(name, _)| name == by);
        let names = sample.axes.iter().map(|(name, _)| name.as_str());
        value.map(|(_, value)| value.to_string()).ok_or_else(|| {
            let message = format!("`by = \"{by}\"` is no axis of `{}`", sample.node);
            StepError::new(message).help(did_you_mean(by, names))
        })
    }
}

fn require_baseline(baseline: Option<&str>, loads: &[Load]) -> Result<(), StepError> {
    let Some(baseline) = baseline else {
        return Ok(());
    };
    if loads.iter().any(|load| load.is_by(baseline)) {
        return Ok(());
    }
    let message = format!("`baseline = \"{baseline}\"` is no loader that was measured");
    let loaders = loads.iter().map(|load| load.loader.as_str());
    Err(StepError::new(message).help(did_you_mean(baseline, loaders)))
}

impl Load {
    /// Whether a plan that says `word` means its loader: its name, or what comes before its version.
    fn is_by(&self, word: &str) -> bool {
        let rest = self.loader.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

fn load(row: &Row, sample: &Sample, model: &str) -> Result<Load, StepError> {
    let value = |name: &str| {
        row.value(name).ok_or_else(|| {
            let message = format!("a row of `{}` has no `{name}`", sample.node);
            StepError::new(message).help("`data` takes samples of `checkpoint.load`")
        })
    };
    let label = |name: &str| row.labels.get(name).cloned().unwrap_or_default();
    Ok(Load {
        model: model.to_owned(),
        arm: label("arm"),
        loader: label("loader"),
        format: label("format"),
        moment: (sample.node.clone(), sample.index, value("round")? as u64),
        seconds: value("total_ms")? / 1e3,
        rate: value("rate")?,
    })
}

/// Sums up by model, in the order in which arms come first.
fn summaries(loads: &[Load], baseline: Option<&str>) -> Vec<Summary> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    for load in loads {
        let key = (load.model.as_str(), load.arm.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
    }
    // The sort is stable: arms of a model keep their order.
    order.sort_by_key(|(model, _)| *model);
    let summary = |(model, arm): (&str, &str)| {
        let of_model = || loads.iter().filter(|load| load.model == model);
        let own: Vec<&Load> = of_model().filter(|load| load.arm == arm).collect();
        let held_to = baseline.map_or_else(Vec::new, |word| {
            held_to(&own, of_model().filter(|load| load.is_by(word)).collect())
        });
        summary(&own, &held_to)
    };
    order.into_iter().filter_map(summary).collect()
}

/// The loads of the baseline that an arm is held to: none if it is the baseline itself.
fn held_to<'a>(own: &[&Load], mut baseline: Vec<&'a Load>) -> Vec<&'a Load> {
    let Some(first) = own.first() else {
        return Vec::new();
    };
    if baseline.iter().any(|load| load.arm == first.arm) {
        return Vec::new();
    }
    if baseline.iter().any(|load| load.format == first.format) {
        baseline.retain(|load| load.format == first.format);
    }
    baseline
}

/// Sums up the loads of one arm, held to those of another; `None` without loads.
fn summary(loads: &[&Load], baseline: &[&Load]) -> Option<Summary> {
    let first = loads.first()?;
    let seconds = |loads: &[&Load]| loads.iter().map(|load| load.seconds).collect::<Vec<f64>>();
    let times = seconds(loads);
    let mean = statistics::mean(&times)?;
    let variance = times.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / times.len() as f64;
    let rates: Vec<f64> = loads.iter().map(|load| load.rate).collect();
    let others: BTreeMap<_, f64> = baseline
        .iter()
        .map(|load| (&load.moment, load.seconds))
        .collect();
    let ratio = |load: &&Load| Some(others.get(&load.moment)? / load.seconds);
    let ratios: Vec<f64> = loads.iter().filter_map(ratio).collect();
    let interval = statistics::median_interval(&ratios, 0.95);
    Some(Summary {
        model: first.model.clone(),
        arm: first.arm.clone(),
        n_loads: loads.len(),
        mean_s: mean,
        median_s: statistics::median(&times)?,
        min_s: times.iter().copied().fold(f64::INFINITY, f64::min),
        max_s: times.iter().copied().fold(0.0, f64::max),
        std_s: variance.sqrt(),
        rate_gb_per_s: statistics::median(&rates)?,
        ratio_of_means: statistics::mean(&seconds(baseline)).map(|other| other / mean),
        speedup: statistics::median(&ratios),
        speedup_interval: interval.map(|interval| [interval.low, interval.high]),
    })
}

/// Loads as the suite's result files had them.
fn told(loads: &[Load]) -> Vec<serde_json::Value> {
    let told = |load: &Load| {
        serde_json::json!({
            "model_name": load.model,
            "format": load.format,
            "arm": load.arm,
            "loading_time": load.seconds,
        })
    };
    loads.iter().map(told).collect()
}

fn text(summaries: &[Summary], baseline: Option<&str>, n_left_out: usize) -> String {
    let mut text = String::new();
    let mut line = |written: std::fmt::Arguments<'_>| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{written}");
    };
    let width = summaries.iter().map(|s| s.arm.chars().count()).max();
    let width = width.unwrap_or(0).max("arm".len());
    let mut model = "";
    for summary in summaries {
        if summary.model != model {
            if !model.is_empty() {
                line(format_args!(""));
            }
            model = &summary.model;
            line(format_args!("{model}"));
            line(format_args!(
                "  {:width$}  {:>5}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}  {:>8}  speed-up",
                "arm", "loads", "mean s", "median s", "min s", "max s", "std s", "GB/s", "of means"
            ));
        }
        line(format_args!("  {}", row(summary, width)));
    }
    if let Some(baseline) = baseline {
        line(format_args!(
            "\nspeed-up: median over rounds of the time of `{baseline}` / the time of the arm; `of means`: the ratio of means, as the suite told it"
        ));
    }
    if n_left_out > 0 {
        line(format_args!("{n_left_out} invalid samples are not in here"));
    }
    text
}

fn row(summary: &Summary, width: usize) -> String {
    let of_means = summary
        .ratio_of_means
        .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
    let speedup = match (summary.speedup, summary.speedup_interval) {
        (Some(speedup), Some([low, high])) => format!("{speedup:.2} ({low:.2} to {high:.2})"),
        (Some(speedup), None) => format!("{speedup:.2}"),
        (None, _) => "–".to_owned(),
    };
    format!(
        "{:width$}  {:>5}  {:>8.3}  {:>8.3}  {:>8.3}  {:>8.3}  {:>8.3}  {:>6.2}  {of_means:>8}  {speedup}",
        summary.arm,
        summary.n_loads,
        summary.mean_s,
        summary.median_s,
        summary.min_s,
        summary.max_s,
        summary.std_s,
        summary.rate_gb_per_s,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(model: &str, arm: &str, round: u64, seconds: f64) -> Load {
        Load {
            model: model.to_owned(),
            arm: arm.to_owned(),
            loader: arm.to_owned(),
            format: "store".to_owned(),
            moment: (model.to_owned(), 0, round),
            seconds,
            rate: 1.0 / seconds,
        }
    }

    fn loads() -> Vec<Load> {
        let mut loads = Vec::new();
        // One slow load of the baseline: means tell it, medians do not.
        for (round, seconds) in [4.0, 4.0, 4.0, 4.0, 4.0, 28.0].into_iter().enumerate() {
            loads.push(load("b", "slow", round as u64, seconds));
            loads.push(load("b", "fast", round as u64, 2.0));
        }
        loads.push(load("a", "fast", 0, 3.0));
        loads
    }

    #[test]
    fn the_ratio_of_means_and_that_of_rounds_are_told_apart() {
        let summaries = summaries(&loads(), Some("slow"));
        let names: Vec<(&str, &str)> = summaries
            .iter()
            .map(|s| (s.model.as_str(), s.arm.as_str()))
            .collect();
        assert_eq!(names, [("a", "fast"), ("b", "slow"), ("b", "fast")]);
        let fast = &summaries[2];
        assert_eq!(fast.ratio_of_means, Some(4.0));
        assert_eq!(fast.speedup, Some(2.0));
        assert_eq!(fast.speedup_interval, Some([2.0, 14.0]));
        let slow = &summaries[1];
        assert_eq!((slow.mean_s, slow.median_s, slow.max_s), (8.0, 4.0, 28.0));
        // Of the population: the square root of (5 · 4² + 20²) / 6.
        assert!((slow.std_s - 80.0_f64.sqrt()).abs() < 1e-12, "{slow:?}");
        assert_eq!((slow.speedup, slow.ratio_of_means), (None, None));
        assert_eq!(summaries[0].ratio_of_means, None);
    }

    #[test]
    fn an_arm_is_held_to_the_same_format_where_the_baseline_loads_it() {
        let of = |loader: &str, format: &str, seconds: f64| Load {
            arm: format!("{loader}, {format}"),
            format: format.to_owned(),
            ..load("a", loader, 0, seconds)
        };
        let loads = [
            of("direct", "store", 1.0),
            of("direct", "safetensors", 2.0),
            of("safetensors 0.8.0", "safetensors", 6.0),
        ];
        let speedups = |baseline: &str| -> Vec<Option<f64>> {
            let summaries = summaries(&loads, Some(baseline));
            summaries.iter().map(|s| s.speedup).collect()
        };
        assert_eq!(speedups("safetensors"), [Some(6.0), Some(3.0), None]);
        assert_eq!(speedups("direct"), [None, None, Some(2.0 / 6.0)]);
    }

    #[test]
    fn the_text_has_a_part_for_each_model_and_says_what_is_left_out() {
        let text = text(&summaries(&loads(), Some("slow")), Some("slow"), 2);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[3], lines[4]), ("a", "", "b"));
        assert!(lines[7].trim_start().starts_with("fast"), "{text}");
        assert!(lines[7].ends_with("4.00  2.00 (2.00 to 14.00)"), "{text}");
        assert!(
            text.ends_with("2 invalid samples are not in here\n"),
            "{text}"
        );
    }

    #[test]
    fn a_baseline_that_was_not_measured_is_named_with_the_nearest_that_was() {
        let error = require_baseline(Some("slwo"), &loads()).expect_err("no such arm");
        assert!(
            error.to_string().contains("`baseline = \"slwo\"`"),
            "{error}"
        );
    }
}
