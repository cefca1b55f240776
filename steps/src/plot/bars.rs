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
    const VERSION: u32 = 3;
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
        let chart = self.chart(&points)?;
        let n_bars: usize = chart.series.iter().map(|s| s.bars.len()).sum();
        write_chart(context, &Chart::from(chart), &points.to_csv())?;
        Ok(StepReport::line(format!("{n_bars} bars")))
    }
}

impl PlotBars {
    fn chart(&self, points: &Points) -> Result<BarChart, StepError> {
        let names: Vec<String> = self.y.iter().map(|y| title(y)).collect();
        let mut axis = self
            .y
            .first()
            .map_or_else(|| points.axis(""), |y| points.axis(y));
        if self.y.len() > 1 {
            axis.label = String::new();
        }
        let mut categories: Vec<String> = Vec::new();
        let mut columns: Vec<Vec<(String, Reading)>> = Vec::new();
        for y in &self.y {
            let groups = points.groups_with(&[self.x.as_str()], y, self.spread)?;
            let column: Vec<(String, Reading)> = groups
                .into_iter()
                .filter_map(|(labels, reading)| Some((labels.into_iter().next()?.text, reading)))
                .collect();
            for (category, _) in &column {
                if !categories.contains(category) {
                    categories.push(category.clone());
                }
            }
            columns.push(column);
        }
        let heading = self
            .title
            .clone()
            .unwrap_or_else(|| format!("{} by {}", names.join(", "), title(&self.x)));
        let mut chart = BarChart::new(heading, axis, categories.clone())
            .subtitle(points.stamp())
            .category_label(title(&self.x));
        if let Some(mixture) = points.mixture(&[&self.x])? {
            chart = chart.note(mixture);
        }
        for (name, column) in names.iter().zip(columns) {
            let bar = |category: &String| {
                let found = column.iter().find(|(c, _)| c == category);
                found.map_or_else(|| Reading::missing("not measured"), |(_, r)| r.clone())
            };
            chart.series.push(BarSeries {
                name: name.clone(),
                bars: categories.iter().map(bar).collect(),
            });
        }
        if self.arrangement == ArrangementChoice::Stacked {
            chart.arrangement = charts::Arrangement::Stacked;
        }
        if self.horizontal {
            chart.direction = charts::Direction::Horizontal;
        }
        Ok(chart)
    }
}
