//! `plot.timeline`: what the models of one server did during a load.

use super::moments::{arrivals, csv, memory, running, span, windows};
use super::points::title;
use super::{OUTPUT, write_chart};
use crate::files;
use crate::kinds::Measured;
use crate::load::timeline::Timeline;
use crate::result::{MeasuredFile, stamp};
use charts::{Axis, Chart, Panels, TimelineChart};
use engine::options::Parser;
use engine::problem::did_you_mean;
use engine::source::Place;
use engine::step::{
    AxisValue, Grade, OutputSpec, Sample, Step, StepContext, StepError, StepKind, StepReport,
    StepType,
};
use engine::types::{Json, Samples};
use engine::value::Table;
use std::collections::BTreeSet;

/// Loads at most: more time lines beside each other could not be read.
pub(crate) const MOST: usize = 4;

engine::options! {
    /// Options of `plot.timeline`.
    pub struct PlotTimeline {
        /// The samples. Of each load the most believable sample is drawn, and the first of those; up to
        /// four loads stand side by side.
        data: Samples<Measured>;
        /// Which loads are drawn, where `data` has more: values of their axes, such as
        /// `{ mode = "swap", request_rate = 8 }`.
        at: Json = Json::default();
        /// The title; `Models over time` if absent.
        title: Option<String>;
    }
}

impl StepType for PlotTimeline {
    const NAME: &'static str = "plot.timeline";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Draws what the models of a server did during a load: running requests, device memory, arrivals, and who moved when.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        check_loads(self.data.nodes.len(), &self.at, (table, place), parser);
    }
}

/// Reports more loads than are drawn, where nothing says which.
pub(super) fn check_loads(
    n: usize,
    at: &Json,
    (table, place): (&Table, &Place),
    parser: &mut Parser<'_>,
) {
    if n > MOST && at.0.is_empty() {
        let at = table.get("data").map_or(place, |v| &v.place);
        let message = format!("`data` has {n} loads, and {MOST} time lines at most are drawn");
        let help = "say which: `at = { AXIS = VALUE, … }`";
        parser.wrong::<()>(at, message, "which of them?", help);
    }
}

#[async_trait::async_trait]
impl Step for PlotTimeline {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let samples = context.samples(&self.data);
        let loads: Vec<(&Sample, Timeline)> = self
            .choose(&samples)?
            .into_iter()
            .map(|sample| Ok((sample, read(sample)?)))
            .collect::<Result<_, StepError>>()?;
        let chart = self.chart(&loads)?;
        let told: Vec<(&str, &Timeline)> = loads
            .iter()
            .map(|(sample, timeline)| (sample.node.as_str(), timeline))
            .collect();
        write_chart(context, &chart, &csv(&told)?)?;
        let moves: usize = told.iter().map(|(_, timeline)| timeline.swaps.len()).sum();
        let loads = loads.len();
        Ok(StepReport::line(format!("{loads} loads, {moves} moves")))
    }
}

/// Reads the time line of a sample; a server that tells none is an error.
fn read(sample: &Sample) -> Result<Timeline, StepError> {
    let path = sample.outputs.get("timeline");
    let timeline = path.map_or_else(|| Ok(Timeline::default()), |path| files::read_json(path))?;
    if timeline.models.is_empty() || timeline.samples.is_empty() {
        let message = format!("`{}` has no time line: its server tells none", sample.node);
        return Err(StepError::new(message).help(
            "draw a load on a server of several models, such as a `server.embedded` with `models`",
        ));
    }
    Ok(timeline)
}

/// Which sample is shown, and whether it was simulated.
pub(super) fn subtitle(sample: &Sample) -> Result<String, StepError> {
    let which = format!("{}, sample {}", sample.node, sample.index + 1);
    let path = sample.outputs.get("result");
    let path = path.ok_or_else(|| StepError::new(format!("`{}` left no result", sample.node)))?;
    let result: MeasuredFile = files::read_json(path)?;
    let stamp = stamp([result.simulated()]);
    Ok(match stamp.is_empty() {
        true => which,
        false => format!("{which}; {stamp}"),
    })
}

/// The sample to be drawn of each load.
pub(super) fn choose<'a>(samples: &'a [Sample], at: &Json) -> Result<Vec<&'a Sample>, StepError> {
    let mut kept: Vec<&Sample> = samples.iter().collect();
    for (axis, wanted) in &at.0 {
        let before = kept.clone();
        kept.retain(|sample| value(sample, axis).is_some_and(|v| is_same(v, wanted)));
        if kept.is_empty() {
            return Err(nothing_at(axis, wanted, &before));
        }
    }
    if kept.is_empty() {
        return Err(StepError::new("there are no samples to plot"));
    }
    let chosen = most_believable(&kept);
    match chosen.len() > MOST {
        true => Err(too_many(&chosen)),
        false => Ok(chosen),
    }
}

/// The most believable sample of each load, and the first of those.
pub(crate) fn most_believable<'a>(samples: &[&'a Sample]) -> Vec<&'a Sample> {
    let loads = samples.chunk_by(|a, b| a.node == b.node);
    let best = |load: &[&'a Sample]| {
        let samples = load.iter().copied();
        samples.min_by_key(|sample| (sample.verdict.grade, sample.index))
    };
    loads.filter_map(best).collect()
}

/// What each load is called beside the others: what it differs from them in.
pub(super) fn headed(samples: &[&Sample]) -> Vec<String> {
    let axes = differing(samples);
    let heading = |sample: &&Sample| {
        let named = axes.iter().filter_map(|axis| {
            let value = value(sample, axis)?;
            Some(format!("{} {value}", title(axis)))
        });
        named.collect::<Vec<_>>().join(", ")
    };
    samples.iter().map(heading).collect()
}

impl PlotTimeline {
    /// The sample to be drawn of each load.
    fn choose<'a>(&self, samples: &'a [Sample]) -> Result<Vec<&'a Sample>, StepError> {
        choose(samples, &self.at)
    }

    fn chart(&self, loads: &[(&Sample, Timeline)]) -> Result<Chart, StepError> {
        let heading = self.title.clone();
        let heading = heading.unwrap_or_else(|| "Models over time".to_owned());
        if let [(sample, timeline)] = loads {
            return Ok(one(heading, timeline, sample)?.into());
        }
        let samples: Vec<&Sample> = loads.iter().map(|(sample, _)| *sample).collect();
        let mut chart = Panels::new(heading);
        for (heading, (sample, timeline)) in headed(&samples).into_iter().zip(loads) {
            chart = chart.panel(one(heading, timeline, sample)?);
        }
        Ok(chart.into())
    }
}

/// The time line of one load.
fn one(heading: String, timeline: &Timeline, sample: &Sample) -> Result<TimelineChart, StepError> {
    let moves = timeline.swaps.iter().map(|swap| span(timeline, swap));
    let mut chart = TimelineChart::new(heading, Axis::new("time", "s"), &timeline.models)
        .subtitle(subtitle(sample)?)
        .row(running(timeline));
    let memory = memory(timeline);
    chart = match memory.values.iter().flatten().any(Option::is_some) {
        true => chart
            .row(memory)
            .note("Device memory is that of weights and cache pools, one model's on the other's."),
        false => chart.note("How much memory models hold is not told."),
    };
    chart = chart.row(arrivals(timeline)).spans("moves", moves);
    if timeline.swaps.is_empty() {
        chart = chart.note("No model moved.");
    }
    chart.notes.extend(windows(timeline));
    chart.notes.extend(doubts(sample));
    Ok(chart)
}

/// What is to be said of a sample that is not valid.
pub(super) fn doubts(sample: &Sample) -> Option<String> {
    let grade = match sample.verdict.grade {
        Grade::Valid => return None,
        Grade::Degraded => "degraded",
        Grade::Invalid => "invalid",
    };
    let reasons = sample.verdict.reasons.join("; ");
    Some(format!("The sample is {grade}: {reasons}."))
}

fn value<'a>(sample: &'a Sample, axis: &str) -> Option<&'a AxisValue> {
    let found = sample.axes.iter().find(|(name, _)| name == axis);
    found.map(|(_, value)| value)
}

fn is_same(value: &AxisValue, wanted: &serde_json::Value) -> bool {
    match value {
        AxisValue::Bool(value) => wanted.as_bool() == Some(*value),
        AxisValue::Number(value) => wanted.as_f64() == Some(*value),
        AxisValue::Text(value) => wanted.as_str() == Some(value),
    }
}

/// How a plan writes a value of an axis.
fn written(value: &AxisValue) -> String {
    match value {
        AxisValue::Text(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

fn nothing_at(axis: &str, wanted: &serde_json::Value, samples: &[&Sample]) -> StepError {
    let values: BTreeSet<String> = samples
        .iter()
        .filter_map(|sample| value(sample, axis))
        .map(written)
        .collect();
    if values.is_empty() {
        let axes: BTreeSet<&str> = samples
            .iter()
            .flat_map(|sample| sample.axes.iter().map(|(name, _)| name.as_str()))
            .collect();
        return StepError::new(format!("`at` names `{axis}`, which is no axis of `data`"))
            .help(did_you_mean(axis, axes));
    }
    let values: Vec<String> = values.into_iter().collect();
    StepError::new(format!("no load was measured at `{axis} = {wanted}`"))
        .help(format!("measured were: {}", values.join(", ")))
}

/// The axes in which loads differ, in the order of the plan.
fn differing<'a>(samples: &[&'a Sample]) -> Vec<&'a str> {
    let Some((first, others)) = samples.split_first() else {
        return Vec::new();
    };
    let differs = |(axis, own): &&(String, AxisValue)| {
        others.iter().any(|other| value(other, axis) != Some(own))
    };
    let axes = first.axes.iter().filter(differs);
    axes.map(|(axis, _)| axis.as_str()).collect()
}

/// Asks which of too many loads are meant, with the first as an example.
fn too_many(samples: &[&Sample]) -> StepError {
    let axes = differing(samples);
    let names: Vec<String> = axes.iter().map(|axis| format!("`{axis}`")).collect();
    let example = axes.iter().filter_map(|axis| {
        let value = value(samples.first()?, axis)?;
        Some(format!("{axis} = {}", written(value)))
    });
    let message = format!(
        "`data` has {} loads, which differ in {}, and {MOST} time lines at most are drawn",
        samples.len(),
        names.join(" and ")
    );
    let example: Vec<String> = example.collect();
    StepError::new(message).help(format!("say which: `at = {{ {} }}`", example.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Row, options, options_of, row, samples};
    use super::super::moments::made_up;
    use super::*;
    use serde_json::json;

    fn plot(text: &str) -> PlotTimeline {
        options(text).expect("sound options")
    }

    #[test]
    fn the_most_believable_sample_of_each_load_is_drawn() {
        let folder = tempfile::tempdir().expect("a folder");
        let doubtful = Row {
            grade: Grade::Degraded,
            ..row("swap", 1.0, 8.0, 5.0)
        };
        let mut all = samples(
            folder.path(),
            &[
                doubtful,
                row("swap", 1.0, 8.0, 5.0),
                row("swap", 1.0, 16.0, 5.0),
            ],
        );
        all[1].index = 1;
        let chosen = |text: &str| -> Vec<(String, u32)> {
            let chosen = plot(text).choose(&all).expect("some");
            chosen.iter().map(|s| (s.node.clone(), s.index)).collect()
        };
        let first = ("load[mode=swap,alpha=1,rate=8]".to_owned(), 1);
        let second = ("load[mode=swap,alpha=1,rate=16]".to_owned(), 0);
        let both = chosen("");
        assert_eq!(chosen("at = { mode = \"swap\", rate = 8 }"), both[..1]);
        assert_eq!(both, [first, second]);
    }

    #[test]
    fn of_too_many_loads_it_is_asked_which() {
        let folder = tempfile::tempdir().expect("a folder");
        let rates = [1.0, 2.0, 4.0, 8.0, 16.0].map(|rate| row("swap", 1.0, rate, 5.0));
        let all = samples(folder.path(), &rates);
        let error = plot("").choose(&all).expect_err("five loads");
        assert!(
            error
                .message
                .contains("has 5 loads, which differ in `rate`")
        );
        assert_eq!(
            error.help.as_deref(),
            Some("say which: `at = { rate = 1 }`")
        );
        let wrong = |n| options_of::<PlotTimeline>(n, "").expect_err("too many");
        assert!(wrong(5)[0].contains("`data` has 5 loads"));
        assert!(options_of::<PlotTimeline>(4, "").is_ok());
        assert!(options_of::<PlotTimeline>(5, "at = { rate = 1 }").is_ok());
    }

    #[test]
    fn what_was_not_measured_is_named_beside_what_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let all = samples(
            folder.path(),
            &[row("swap", 1.0, 8.0, 5.0), row("single", 1.0, 8.0, 5.0)],
        );
        let error = |text: &str| plot(text).choose(&all).expect_err("wrong");
        let unknown = error("at = { mod = \"swap\" }");
        assert!(unknown.message.contains("`mod`, which is no axis"));
        assert_eq!(unknown.help.as_deref(), Some("did you mean `mode`?"));
        let missing = error("at = { mode = \"swop\" }");
        assert!(missing.message.contains("`mode = \"swop\"`"));
        assert_eq!(
            missing.help.as_deref(),
            Some("measured were: \"single\", \"swap\"")
        );
        assert!(plot("").choose(&[]).is_err());
    }

    #[test]
    fn a_load_whose_server_tells_nothing_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut all = samples(folder.path(), &[row("single", 1.0, 8.0, 5.0)]);
        let told = |sample: &Sample| read(sample).expect_err("nothing to draw");
        assert!(
            told(&all[0])
                .message
                .starts_with("`load[mode=single,alpha=1,rate=8]` has no")
        );
        let path = folder.path().join("timeline.json");
        let empty = json!({ "models": [], "device_memory": null, "samples": [], "swaps": [] });
        std::fs::write(&path, empty.to_string()).expect("a file");
        all[0].outputs.insert("timeline".to_owned(), path);
        let error = told(&all[0]);
        assert!(
            error
                .help
                .is_some_and(|help| help.contains("server of several models"))
        );
    }

    #[test]
    fn the_chart_says_which_sample_it_shows_and_how_far_it_can_be_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut all = samples(folder.path(), &[row("swap", 1.0, 8.0, 5.0)]);
        all[0].verdict.grade = Grade::Degraded;
        all[0].verdict.reasons = vec!["the client was late".to_owned()];
        let loads = [(&all[0], made_up(10.0))];
        let Chart::Timeline(chart) = plot("").chart(&loads).expect("a chart") else {
            panic!("no time line")
        };
        assert_eq!(chart.subtitle, "load[mode=swap,alpha=1,rate=8], sample 1");
        assert_eq!(chart.rows.len(), 3);
        assert_eq!(chart.series, ["a", "b"]);
        let last = chart.notes.last().map(String::as_str);
        assert_eq!(last, Some("The sample is degraded: the client was late."));
    }

    #[test]
    fn several_loads_stand_side_by_side_named_by_what_they_differ_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let all = samples(
            folder.path(),
            &[row("swap", 1.0, 8.0, 5.0), row("swap", 1.0, 16.0, 5.0)],
        );
        let loads = [(&all[0], made_up(5.0)), (&all[1], made_up(5.0))];
        let Chart::Panels(panels) = plot("").chart(&loads).expect("a chart") else {
            panic!("no panels")
        };
        let titles = panels.panels.iter().map(|panel| match panel {
            charts::Panel::Timeline(chart) => chart.title.as_str(),
            other => panic!("{other:?}"),
        });
        assert_eq!(titles.collect::<Vec<_>>(), ["rate 8", "rate 16"]);
    }
}
