//! `plot.lines`: measured values against an axis.

use super::data::Data;
use super::points::{Label, PartsChoice, Points, title};
use super::relative::{Named, in_multiples, quotient, relative_to};
use super::{OUTPUT, write_chart};
use charts::{Axis, Chart, LineChart, Panels, Point, Reading, Series};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::value::Table;

/// Charts side by side at most: a picture has an end.
const MOST_PANELS: usize = 24;

engine::choices! {
    /// How values are spaced along an axis.
    pub enum ScaleChoice {
        /// Equal differences, equal distances.
        Linear = "linear",
        /// Equal ratios, equal distances.
        Log = "log",
    }
}

engine::options! {
    /// Options of `plot.lines`.
    pub struct PlotLines {
        /// The samples; or results of steps that follow from others, such as `["${steps.cost.result}"]`.
        data: Data;
        /// What the points are placed against: an axis of the plan or a measured value.
        x: String;
        /// What was measured, one line each, all of one unit: `ttft_p50_ms`, `output_throughput`, …;
        /// the report of a measurement lists what it measures.
        y: Vec<String>;
        /// Draws the parts of each load instead of the whole, which `turn`, `model` or `group` is an axis
        /// of then: TTFT over turns, hit rates by group.
        parts: Option<PartsChoice>;
        /// Another value of the same unit, drawn once whatever `by` is, such as `cache_hit_rate_ideal`.
        beside: Option<String>;
        /// Draws one line for each value of this axis or label.
        by: Option<String>;
        /// A value of `by`: the other lines are drawn as multiples of its line, median by median at the
        /// same x, and it becomes a reference at 1.
        relative_to: Option<String>;
        /// Draws one chart for each value of this axis or label, side by side with the same scales.
        panels: Option<String>;
        /// The title; made from `y` and `x` if absent.
        title: Option<String>;
        /// How values are spaced along x.
        x_scale: ScaleChoice = ScaleChoice::Linear;
        /// How values are spaced along y.
        y_scale: ScaleChoice = ScaleChoice::Linear;
    }
}

impl StepType for PlotLines {
    const NAME: &'static str = "plot.lines";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 3;
    const SUMMARY: &'static str =
        "Draws measured values against an axis, with spread, sample counts and verdicts.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        if self.relative_to.is_some() && self.by.is_none() {
            let message =
                "`relative_to` names one of the lines that `by` draws, and there is no `by`";
            let help = "add `by`, the axis that has this value";
            parser.wrong::<()>(&at("relative_to"), message, "of which axis?", help);
        }
        if self.beside.is_some() && self.relative_to.is_some() {
            let message =
                "what stands `beside` the lines is no multiple of the one in `relative_to`";
            let help = "leave out one of both";
            parser.wrong::<()>(&at("beside"), message, "in another unit", help);
        }
        let taken = [("x", Some(&self.x)), ("by", self.by.as_ref())];
        for (option, axis) in taken {
            if self.panels.is_some() && self.panels.as_ref() == axis {
                let message = format!("`panels` and `{option}` are the same");
                let help = "let each be an axis of its own";
                parser.wrong::<()>(&at("panels"), message, "taken already", help);
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for PlotLines {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let points = Points::read(&self.data.samples(context)?, self.parts)?;
        points.require(&self.x, "x")?;
        for y in &self.y {
            points.require(y, "y")?;
        }
        if let Some(beside) = &self.beside {
            points.require(beside, "beside")?;
        }
        let drawn = self.y.iter().chain(&self.beside);
        points.require_one_unit(&drawn.cloned().collect::<Vec<String>>())?;
        if let Some(by) = &self.by {
            points.require(by, "by")?;
            if let Some(base) = &self.relative_to {
                points.require_value(by, base, "relative_to")?;
            }
        }
        if let Some(panels) = &self.panels {
            points.require(panels, "panels")?;
        }
        let chart = self.chart(&points)?;
        write_chart(context, &chart, &points.to_csv())?;
        Ok(StepReport::line(format!("{} points", chart.n_points())))
    }
}

/// One point before it has its chart.
struct Found {
    panel: Option<Label>,
    by: Option<Label>,
    x: Label,
    reading: Reading,
}

impl PlotLines {
    fn chart(&self, points: &Points) -> Result<Chart, StepError> {
        let heading = self.title.clone().unwrap_or_else(|| self.heading());
        let lines = self.lines(points)?;
        let Some(panels) = &self.panels else {
            let lines = lines.into_iter().map(|(_, line)| line);
            let chart = self.panel(points, heading, lines)?;
            return Ok(chart.subtitle(points.stamp()).into());
        };
        let labels = points.labels(panels)?;
        if labels.len() > MOST_PANELS {
            let n = labels.len();
            let message = format!(
                "`panels = \"{panels}\"` has {n} values, and there is room for {MOST_PANELS} charts"
            );
            return Err(
                StepError::new(message).help("leave some out, or draw a line for each with `by`")
            );
        }
        let mut chart = Panels::new(heading).subtitle(points.stamp()).same_scales();
        for label in labels {
            let own = lines
                .iter()
                .filter(|(panel, _)| panel.as_ref() == Some(&label));
            let heading = format!("{} {}", title(panels), label.text);
            let own = own.map(|(_, line)| line.clone());
            chart = chart.panel(self.panel(points, heading, own)?);
        }
        Ok(chart.into())
    }

    fn heading(&self) -> String {
        let names: Vec<String> = self.y.iter().map(|y| title(y)).collect();
        let heading = format!("{} against {}", names.join(", "), title(&self.x));
        relative_to(heading, self.relative_to.as_deref())
    }

    /// A chart of some of the lines.
    fn panel(
        &self,
        points: &Points,
        heading: String,
        lines: impl Iterator<Item = Series>,
    ) -> Result<LineChart, StepError> {
        let scaled = |axis: Axis, scale| match scale {
            ScaleChoice::Linear => axis,
            ScaleChoice::Log => axis.log(),
        };
        let mut chart = LineChart::new(
            heading,
            scaled(points.axis(&self.x), self.x_scale),
            scaled(self.y_axis(points), self.y_scale),
        );
        chart.series = lines.collect();
        if let Some(base) = &self.relative_to {
            chart = chart.reference(1.0, base);
        }
        let notes = points.mixture(&self.keys())?.into_iter();
        let notes = notes.chain(points.undivided().map(str::to_owned));
        Ok(notes.fold(chart, LineChart::note))
    }

    fn y_axis(&self, points: &Points) -> Axis {
        let first = self.y.first().map_or("", String::as_str);
        let mut axis = points.axis(first);
        if self.y.len() > 1 {
            axis.label = String::new();
        }
        in_multiples(axis, self.relative_to.as_deref())
    }

    /// What points are grouped by: first the panel, then the line, then the place.
    fn keys(&self) -> Vec<&str> {
        let keys = [&self.panels, &self.by].into_iter().flatten();
        keys.chain([&self.x]).map(String::as_str).collect()
    }

    /// All lines, each with its panel. A line looks the same in every panel, and with and without
    /// `relative_to`.
    fn lines(&self, points: &Points) -> Result<Vec<(Option<Label>, Series)>, StepError> {
        let labels = self
            .by
            .as_deref()
            .map_or_else(|| Ok(Vec::new()), |by| points.labels(by))?;
        let keeps_ink = self.panels.is_some() || self.relative_to.is_some();
        let mut lines: Vec<(Option<Label>, Series)> = Vec::new();
        for (i, y) in self.y.iter().enumerate() {
            for found in self.found(points, y)? {
                let place = found
                    .by
                    .as_ref()
                    .and_then(|by| labels.iter().position(|l| l == by));
                let ink = i * labels.len().max(1) + place.unwrap_or(0);
                let name = self.series_name(&title(y), found.by.as_ref());
                let is_it = |(panel, line): &(Option<Label>, Series)| {
                    *panel == found.panel && line.name == name
                };
                let at = lines.iter().position(is_it).unwrap_or_else(|| {
                    let mut line = Series::new(&name);
                    line.ink = keeps_ink.then_some(ink);
                    lines.push((found.panel.clone(), line));
                    lines.len() - 1
                });
                let point = Point::new(self.number(&found.x)?, found.reading);
                lines[at].1.points.push(point);
            }
        }
        lines.extend(self.beside(points, self.y.len() * labels.len().max(1))?);
        Ok(lines)
    }

    /// The line of each panel that is the same whatever `by` is.
    fn beside(
        &self,
        points: &Points,
        ink: usize,
    ) -> Result<Vec<(Option<Label>, Series)>, StepError> {
        let Some(beside) = &self.beside else {
            return Ok(Vec::new());
        };
        let keys = self.panels.iter().chain([&self.x]);
        let keys: Vec<&str> = keys.map(String::as_str).collect();
        let mut lines: Vec<(Option<Label>, Series)> = Vec::new();
        for (mut labels, reading) in points.groups(&keys, beside)? {
            let Some(x) = labels.pop() else { continue };
            let panel = labels.pop();
            if lines.last().is_none_or(|(last, _)| *last != panel) {
                let mut line = Series::new(title(beside));
                line.ink = self.panels.is_some().then_some(ink);
                lines.push((panel, line));
            }
            let point = Point::new(self.number(&x)?, reading);
            if let Some((_, line)) = lines.last_mut() {
                line.points.push(point);
            }
        }
        Ok(lines)
    }

    /// All points of a value, those that are relative to others already so.
    fn found(&self, points: &Points, y: &str) -> Result<Vec<Found>, StepError> {
        let mut found = Vec::new();
        for (labels, reading) in points.groups(&self.keys(), y)? {
            let mut labels = labels.into_iter();
            let mut next = |is_there: bool| if is_there { labels.next() } else { None };
            let (panel, by) = (next(self.panels.is_some()), next(self.by.is_some()));
            found.extend(next(true).map(|x| Found {
                panel,
                by,
                x,
                reading,
            }));
        }
        let Some(name) = &self.relative_to else {
            return Ok(found);
        };
        let is_base = |f: &Found| f.by.as_ref().is_some_and(|by| by.text == *name);
        let (bases, others): (Vec<Found>, Vec<Found>) = found.into_iter().partition(is_base);
        let relative = |mut other: Found| {
            let mut bases = bases.iter();
            let base = bases.find(|base| base.panel == other.panel && base.x == other.x);
            let own = other.by.as_ref().map_or("", |by| &by.text);
            let base = Named::new(name, base.map(|base| &base.reading));
            other.reading = quotient(Named::new(own, Some(&other.reading)), base);
            other
        };
        Ok(others.into_iter().map(relative).collect())
    }

    /// The place of a point.
    fn number(&self, x: &Label) -> Result<f64, StepError> {
        x.number.ok_or_else(|| {
            let message = format!(
                "`x = \"{}\"` has the value `{}`, which is no number",
                self.x, x.text
            );
            StepError::new(message).help("draw it with `plot.bars`")
        })
    }

    fn series_name(&self, name: &str, by: Option<&Label>) -> String {
        let Some(by) = by else {
            return name.to_owned();
        };
        let by = format!("{} {}", title(self.by.as_deref().unwrap_or("")), by.text);
        if self.y.len() > 1 {
            format!("{name}, {by}")
        } else {
            by
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Row, options, points, row};
    use super::*;
    use charts::{Grade, Panel, PanelScales};

    const BASE: &str = "x = \"rate\"\ny = [\"request_throughput\"]\nby = \"mode\"\n";

    fn plot(more: &str) -> PlotLines {
        options(&format!("{BASE}{more}")).expect("sound options")
    }

    fn line(chart: Chart) -> LineChart {
        match chart {
            Chart::Line(line) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_medians_over_the_medians_of_another_at_the_same_place() {
        let points = points(&[
            row("single", 1.0, 8.0, 10.0),
            row("single", 1.0, 8.0, 12.0),
            row("single", 1.0, 8.0, 99.0),
            row("swap", 1.0, 8.0, 6.0),
            row("swap", 1.0, 8.0, 9.0),
            row("swap", 1.0, 8.0, 7.0),
            row("swap", 1.0, 16.0, 7.0),
            row("collocate", 1.0, 8.0, 3.0),
        ]);
        let chart = line(
            plot("relative_to = \"single\"")
                .chart(&points)
                .expect("a chart"),
        );
        let names: Vec<&str> = chart.series.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["mode collocate", "mode swap"]);
        let swap = &chart.series[1].points;
        assert_eq!(swap[0].y.value, Some(7.0 / 12.0));
        assert_eq!(swap[0].y.samples, Some(3));
        assert_eq!(swap[1].y.value, None);
        assert_eq!(
            swap[1].y.note.as_deref(),
            Some("`single` was not measured there")
        );
        assert_eq!(chart.y.unit, "× single");
        assert_eq!(chart.references[0].value, 1.0);
        assert!(chart.title.ends_with("relative to single"));
    }

    #[test]
    fn what_stands_beside_is_drawn_once_in_each_panel() {
        let rows = [
            row("single", 0.5, 8.0, 4.0),
            row("swap", 0.5, 8.0, 6.0),
            row("swap", 1.0, 8.0, 9.0),
        ];
        let plot = plot("beside = \"request_throughput\"\npanels = \"alpha\"");
        let Chart::Panels(panels) = plot.chart(&points(&rows)).expect("a chart") else {
            panic!("no panels")
        };
        let lines = panels.panels.iter().map(|panel| match panel {
            Panel::Line(line) => line.series.last().cloned().expect("lines"),
            other => panic!("{other:?}"),
        });
        let lines: Vec<Series> = lines.collect();
        for (line, median) in lines.iter().zip([5.0, 9.0]) {
            assert_eq!(
                (line.name.as_str(), line.ink),
                ("request throughput", Some(2))
            );
            assert_eq!(line.points[0].y.value, Some(median));
        }
        let refused = options::<PlotLines>(&format!(
            "{BASE}beside = \"request_throughput\"\nrelative_to = \"single\""
        ));
        assert!(refused.is_err_and(|all| all[0].contains("`beside`")));
    }

    #[test]
    fn a_line_over_an_invalid_one_has_no_points() {
        let invalid = Row {
            grade: engine::step::Grade::Invalid,
            ..row("single", 1.0, 8.0, 10.0)
        };
        let points = points(&[invalid, row("swap", 1.0, 8.0, 5.0)]);
        let chart = line(
            plot("relative_to = \"single\"")
                .chart(&points)
                .expect("a chart"),
        );
        let swap = &chart.series[0].points[0].y;
        assert_eq!((swap.value, swap.grade), (None, Grade::Invalid));
    }

    #[test]
    fn a_line_looks_the_same_in_every_panel_and_without_the_one_it_is_relative_to() {
        let points = points(&[
            row("collocate", 0.5, 8.0, 4.0),
            row("single", 0.5, 8.0, 8.0),
            row("single", 1.0, 8.0, 8.0),
            row("swap", 1.0, 8.0, 4.0),
        ]);
        let chart = plot("relative_to = \"single\"\npanels = \"alpha\"").chart(&points);
        let Chart::Panels(panels) = chart.expect("a chart") else {
            panic!("no panels")
        };
        assert_eq!(panels.scales, PanelScales::Shared);
        let lines = |i: usize| match &panels.panels[i] {
            Panel::Line(line) => line.clone(),
            other => panic!("{other:?}"),
        };
        let (low, high) = (lines(0), lines(1));
        assert_eq!(
            (low.title.as_str(), high.title.as_str()),
            ("alpha 0.5", "alpha 1")
        );
        assert_eq!((low.series.len(), low.series[0].ink), (1, Some(0)));
        assert_eq!((high.series.len(), high.series[0].ink), (1, Some(2)));
    }

    #[test]
    fn without_either_everything_is_drawn_as_measured() {
        let points = points(&[row("single", 0.5, 8.0, 8.0), row("swap", 1.0, 8.0, 4.0)]);
        let chart = line(plot("").chart(&points).expect("a chart"));
        assert_eq!(chart.series.len(), 2);
        assert_eq!(chart.series[0].ink, None);
        assert_eq!(chart.y.unit, "requests/s");
        // `alpha` differs, but not within a point.
        assert!(chart.notes.is_empty());
    }

    #[test]
    fn options_that_make_no_sense_together_are_refused() {
        let wrong = |text: &str| options::<PlotLines>(text).expect_err("wrong");
        let lone = "x = \"rate\"\ny = [\"v\"]\nrelative_to = \"single\"";
        assert!(wrong(lone)[0].contains("there is no `by`"));
        assert_eq!(
            wrong(&format!("{BASE}panels = \"mode\"")),
            ["`panels` and `by` are the same"]
        );
        assert_eq!(
            wrong(&format!("{BASE}panels = \"rate\"")),
            ["`panels` and `x` are the same"]
        );
    }
}
