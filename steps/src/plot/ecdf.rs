//! `plot.ecdf`: how measured values are distributed, every one of them drawn.

use super::points::{Points, title};
use super::{OUTPUT, write_chart};
use crate::kinds::Measured;
use charts::{Axis, Chart, LineChart, Series};
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Samples;

engine::options! {
    /// Options of `plot.ecdf`.
    pub struct PlotEcdf {
        /// The samples.
        data: Samples<Measured>;
        /// What was measured, such as `total_ms` of `checkpoint.load`, of which each row has one value.
        value: String;
        /// Draws one line for each value of this axis or label.
        by: Option<String>;
        /// The title; made from `value` if absent.
        title: Option<String>;
    }
}

impl StepType for PlotEcdf {
    const NAME: &'static str = "plot.ecdf";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Draws the share of values that are at most so large: a distribution without bins.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }
}

#[async_trait::async_trait]
impl Step for PlotEcdf {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let points = Points::read(&context.samples(&self.data), None)?;
        points.require(&self.value, "value")?;
        if let Some(by) = &self.by {
            points.require(by, "by")?;
        }
        let chart = self.chart(&points)?;
        let n_lines = chart.series.len();
        write_chart(context, &Chart::from(chart), &points.to_csv())?;
        Ok(StepReport::line(format!("{n_lines} distributions")))
    }
}

impl PlotEcdf {
    fn chart(&self, points: &Points) -> Result<LineChart, StepError> {
        let keys: Vec<&str> = self.by.as_deref().into_iter().collect();
        let heading = self
            .title
            .clone()
            .unwrap_or_else(|| format!("Distribution of {}", title(&self.value)));
        let y = Axis::new("share of values", "");
        let mut chart = LineChart::new(heading, points.axis(&self.value), y);
        chart = chart.subtitle(points.stamp());
        if let Some(mixture) = points.mixture(&keys)? {
            chart = chart.note(mixture);
        }
        for (labels, values) in points.values(&keys, &self.value)? {
            let name = labels.into_iter().next().map(|label| label.text);
            chart = chart.series(line(name.unwrap_or_else(|| title(&self.value)), &values));
        }
        Ok(chart)
    }
}

/// The steps of a distribution; `values` are in order.
fn line(name: String, values: &[f64]) -> Series {
    let mut line = Series::new(name);
    let share = |n: usize| n as f64 / values.len() as f64;
    for (below, value) in values.iter().enumerate() {
        // What failed took forever: the line ends below one.
        if value.is_finite() {
            line = line
                .point(*value, share(below))
                .point(*value, share(below + 1));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{options, points, row};
    use super::*;

    #[test]
    fn a_distribution_climbs_by_one_share_at_each_value() {
        let points = points(&[
            row("swap", 1.0, 8.0, 9.0),
            row("swap", 1.0, 8.0, 5.0),
            row("single", 1.0, 8.0, 7.0),
        ]);
        let ecdf: PlotEcdf =
            options("value = \"request_throughput\"\nby = \"mode\"").expect("options");
        let chart = ecdf.chart(&points).expect("a chart");
        let lines = chart.series.iter().map(|line| {
            let points = line.points.iter().map(|p| (p.x, p.y.value));
            (line.name.as_str(), points.collect::<Vec<_>>())
        });
        let (half, one) = (Some(0.5), Some(1.0));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                ("single", vec![(7.0, Some(0.0)), (7.0, one)]),
                (
                    "swap",
                    vec![(5.0, Some(0.0)), (5.0, half), (9.0, half), (9.0, one)]
                ),
            ]
        );
    }

    #[test]
    fn without_a_key_there_is_one_line() {
        let points = points(&[row("swap", 1.0, 8.0, 9.0), row("single", 1.0, 8.0, 5.0)]);
        let ecdf: PlotEcdf = options("value = \"request_throughput\"").expect("options");
        let chart = ecdf.chart(&points).expect("a chart");
        assert_eq!(chart.series.len(), 1);
        assert_eq!(chart.series[0].points.len(), 4);
    }
}
