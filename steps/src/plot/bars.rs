//! `plot.bars`: measured values by category.

use super::points::{Points, SpreadChoice, title};
use super::{OUTPUT, write_chart};
use crate::kinds::Measured;
use charts::{BarChart, BarSeries, Chart, Reading};
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Samples;

engine::choices! {
    /// How the bars of a category stand.
    pub enum ArrangementChoice {
        /// Side by side.
        Grouped = "grouped",
        /// On each other: the values are parts of a whole.
        Stacked = "stacked",
    }
}

engine::options! {
    /// Options of `plot.bars`.
    pub struct PlotBars {
        /// The samples.
        data: Samples<Measured>;
        /// What the categories are: an axis of the plan or a label.
        x: String;
        /// What was measured, one series each, all of one unit.
        y: Vec<String>;
        /// Draws a series of its own for each value of this axis or label, such as each engine.
        by: Option<String>;
        /// How the bars of a category stand.
        arrangement: ArrangementChoice = ArrangementChoice::Grouped;
        /// Whether bars lie instead of standing: for many or long categories.
        horizontal: bool = false;
        /// What the whisker of a bar spans.
        spread: SpreadChoice = SpreadChoice::Range;
        /// The title; made from `y` and `x` if absent.
        title: Option<String>;
    }
}

impl StepType for PlotBars {
    const NAME: &'static str = "plot.bars";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "Draws measured values by category, side by side or stacked.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }
}

#[async_trait::async_trait]
impl Step for PlotBars {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let points = Points::read(&context.samples(&self.data), None)?;
        points.require(&self.x, "x")?;
        for y in &self.y {
            points.require(y, "y")?;
        }
        points.require_one_unit(&self.y)?;
        if let Some(by) = &self.by {
            points.require(by, "by")?;
        }
        let chart = self.chart(&points)?;
        let n_bars: usize = chart.series.iter().map(|s| s.bars.len()).sum();
        write_chart(context, &Chart::from(chart), &points.to_csv())?;
        Ok(StepReport::line(format!("{n_bars} bars")))
    }
}

/// Bars of one series before they stand at their categories.
struct Found {
    name: String,
    /// By category.
    bars: Vec<(String, Reading)>,
}

impl PlotBars {
    fn chart(&self, points: &Points) -> Result<BarChart, StepError> {
        let mut axis = points.axis(self.y.first().map_or("", String::as_str));
        if self.y.len() > 1 {
            axis.label = String::new();
        }
        let found = self.found(points)?;
        let mut categories: Vec<String> = Vec::new();
        for (category, _) in found.iter().flat_map(|series| &series.bars) {
            if !categories.contains(category) {
                categories.push(category.clone());
            }
        }
        let heading = self.title.clone().unwrap_or_else(|| self.heading());
        let mut chart = BarChart::new(heading, axis, categories.clone())
            .subtitle(points.stamp())
            .category_label(title(&self.x));
        let shown: Vec<&str> = [&self.x]
            .into_iter()
            .chain(&self.by)
            .map(String::as_str)
            .collect();
        if let Some(mixture) = points.mixture(&shown)? {
            chart = chart.note(mixture);
        }
        for Found { name, bars } in found {
            let bar = |category: &String| {
                let found = bars.iter().find(|(c, _)| c == category);
                found.map_or_else(|| Reading::missing("not measured"), |(_, r)| r.clone())
            };
            let bars = categories.iter().map(bar).collect();
            chart.series.push(BarSeries { name, bars });
        }
        if self.arrangement == ArrangementChoice::Stacked {
            chart.arrangement = charts::Arrangement::Stacked;
        }
        if self.horizontal {
            chart.direction = charts::Direction::Horizontal;
        }
        Ok(chart)
    }

    fn heading(&self) -> String {
        let names: Vec<String> = self.y.iter().map(|y| title(y)).collect();
        format!("{} by {}", names.join(", "), title(&self.x))
    }

    /// A series for each value that is shown, or for each of them and each value of `by`.
    fn found(&self, points: &Points) -> Result<Vec<Found>, StepError> {
        let Some(by) = &self.by else {
            let series = self.y.iter().map(|y| {
                let groups = points.groups_with(&[self.x.as_str()], y, self.spread)?;
                let bars = groups
                    .into_iter()
                    .filter_map(|(labels, r)| Some((labels.into_iter().next()?.text, r)));
                let (name, bars) = (title(y), bars.collect());
                Ok(Found { name, bars })
            });
            return series.collect();
        };
        let mut all = Vec::new();
        for label in points.labels(by)? {
            for y in &self.y {
                let groups = points
                    .groups_with(&[self.x.as_str(), by.as_str()], y, self.spread)?
                    .into_iter();
                let own = groups.filter(|(labels, _)| labels.get(1) == Some(&label));
                let bars = own.filter_map(|(labels, r)| Some((labels.into_iter().next()?.text, r)));
                let name = match self.y.len() {
                    1 => label.text.clone(),
                    _ => format!("{}, {}", label.text, title(y)),
                };
                let bars = bars.collect();
                all.push(Found { name, bars });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{options, points, row};
    use super::*;

    #[test]
    fn each_value_of_by_has_a_series_and_what_it_lacks_is_missing() {
        let base = "x = \"rate\"\ny = [\"request_throughput\"]\nby = \"mode\"\n";
        let plot: PlotBars = options(base).expect("sound options");
        let points = points(&[
            row("single", 1.0, 8.0, 10.0),
            row("swap", 1.0, 8.0, 6.0),
            row("swap", 1.0, 16.0, 7.0),
        ]);
        let chart = plot.chart(&points).expect("a chart");
        assert_eq!(chart.categories, ["8", "16"]);
        let middle = |series: &BarSeries| -> Vec<Option<f64>> {
            series.bars.iter().map(|r| r.value).collect()
        };
        let found = chart.series.iter().map(|s| (s.name.as_str(), middle(s)));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                ("single", vec![Some(10.0), None]),
                ("swap", vec![Some(6.0), Some(7.0)])
            ]
        );
    }
}
