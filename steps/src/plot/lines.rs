//! `plot.lines`: measured values against an axis.

use super::points::{Label, Points, title};
use super::{OUTPUT, write_chart};
use crate::kinds::Measured;
use charts::{Chart, LineChart, Point, Series};
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Samples;

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
        /// The samples.
        data: Samples<Measured>;
        /// What the points are placed against: an axis of the plan or a measured value.
        x: String;
        /// What was measured, one line each, all of one unit: `ttft_p50_ms`, `output_throughput`, …;
        /// the report of a measurement lists what it measures.
        y: Vec<String>;
        /// Draws one line for each value of this axis or label.
        by: Option<String>;
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
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Draws measured values against an axis, with spread, sample counts and verdicts.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }
}

#[async_trait::async_trait]
impl Step for PlotLines {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let points = Points::read(&context.samples(&self.data))?;
        points.require(&self.x, "x")?;
        for y in &self.y {
            points.require(y, "y")?;
        }
        points.require_one_unit(&self.y)?;
        if let Some(by) = &self.by {
            points.require(by, "by")?;
        }
        let chart = self.chart(&points)?;
        let n_points: usize = chart.series.iter().map(|s| s.points.len()).sum();
        write_chart(context, &Chart::from(chart), &points.to_csv())?;
        Ok(StepReport::line(format!("{n_points} points")))
    }
}

impl PlotLines {
    fn chart(&self, points: &Points) -> Result<LineChart, StepError> {
        let names: Vec<String> = self.y.iter().map(|y| title(y)).collect();
        let mut y_axis = self
            .y
            .first()
            .map_or_else(|| points.axis(""), |y| points.axis(y));
        if self.y.len() > 1 {
            y_axis.label = String::new();
        }
        let scaled = |axis: charts::Axis, scale| {
            if scale == ScaleChoice::Log {
                axis.log()
            } else {
                axis
            }
        };
        let heading = self
            .title
            .clone()
            .unwrap_or_else(|| format!("{} against {}", names.join(", "), title(&self.x)));
        let mut chart = LineChart::new(
            heading,
            scaled(points.axis(&self.x), self.x_scale),
            scaled(y_axis, self.y_scale),
        );
        for (y, name) in self.y.iter().zip(&names) {
            self.add_series(&mut chart, points, y, name)?;
        }
        Ok(chart)
    }

    fn add_series(
        &self,
        chart: &mut LineChart,
        points: &Points,
        y: &str,
        name: &str,
    ) -> Result<(), StepError> {
        let keys: Vec<&str> = self
            .by
            .as_deref()
            .into_iter()
            .chain([self.x.as_str()])
            .collect();
        for (labels, reading) in points.groups(&keys, y)? {
            let (series, x) = match labels.as_slice() {
                [by, x] => (self.series_name(name, by), x),
                [x] => (name.to_owned(), x),
                _ => continue,
            };
            let x = x.number.ok_or_else(|| {
                StepError::new(format!(
                    "`x = \"{}\"` has the value `{}`, which is no number",
                    self.x, x.text
                ))
                .help("draw it with `plot.bars`")
            })?;
            if !chart.series.iter().any(|s| s.name == series) {
                chart.series.push(Series::new(series.clone()));
            }
            if let Some(found) = chart.series.iter_mut().find(|s| s.name == series) {
                found.points.push(Point::new(x, reading));
            }
        }
        Ok(())
    }

    fn series_name(&self, name: &str, by: &Label) -> String {
        let by = format!("{} {}", title(self.by.as_deref().unwrap_or("")), by.text);
        if self.y.len() > 1 {
            format!("{name}, {by}")
        } else {
            by
        }
    }
}
