//! `plot.heatmap`: one value over two axes, or how it differs between two values of a third.

use super::points::{Label, Points, title};
use super::relative::{Named, difference, in_multiples, relative_difference, relative_to};
use super::{OUTPUT, write_chart};
use crate::kinds::Measured;
use charts::{Axis, Chart, HeatmapChart, Reading};
use engine::options::Parser;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::Samples;
use engine::value::Table;
use std::collections::HashMap;

/// Columns and rows at most. Cells that are too small for their numbers show colours alone.
const MOST: usize = 40;

engine::options! {
    /// Options of `plot.heatmap`.
    pub struct PlotHeatmap {
        /// The samples.
        data: Samples<Measured>;
        /// What the columns are: an axis of the plan or a label.
        x: String;
        /// What the rows are: an axis of the plan or a label.
        y: String;
        /// What was measured, shown by colours and as a number in each cell: `request_throughput`, …
        value: String;
        /// The axis or label of which `compare` and `relative_to` name values.
        by: Option<String>;
        /// Two values of `by`: each cell shows what was measured with the first less what was
        /// measured with the second, in medians, and colours tell which of them has more.
        compare: Vec<String> = Vec::new();
        /// A value of `by`: each cell shows that difference as a multiple of what was measured
        /// with this one.
        relative_to: Option<String>;
        /// The title; made from `value` and what is compared if absent.
        title: Option<String>;
    }
}

impl StepType for PlotHeatmap {
    const NAME: &'static str = "plot.heatmap";
    const KIND: StepKind = StepKind::Report;
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Draws a measured value over two axes as colours, or the difference between two ways of a third.";

    fn outputs() -> &'static [OutputSpec] {
        OUTPUT
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let at = |option: &str| table.get(option).map_or(place, |v| &v.place).clone();
        match self.compare.as_slice() {
            [] => self.check_plain(&at, parser),
            [one, other] if one != other => {}
            _ => {
                let message = "`compare` takes two different values of `by`";
                let help = "write `compare = [\"swap\", \"collocate\"]`: cells show the first less the second";
                parser.wrong::<()>(&at("compare"), message, "not two", help);
            }
        }
        if !self.compare.is_empty() && self.by.is_none() {
            let message = "`compare` names values of `by`, and there is no `by`";
            let help = "add `by`, the axis that has these values";
            parser.wrong::<()>(&at("compare"), message, "of which axis?", help);
        }
        if self
            .by
            .as_ref()
            .is_some_and(|by| [&self.x, &self.y].contains(&by))
        {
            let message = "`by` is what the columns or the rows are already";
            let help = "name the axis that has the values of `compare`";
            parser.wrong::<()>(&at("by"), message, "in every cell the same", help);
        }
        if self.x == self.y {
            let message = "`x` and `y` are the same";
            parser.wrong::<()>(
                &at("y"),
                message,
                "the columns already",
                "name another axis",
            );
        }
    }
}

#[async_trait::async_trait]
impl Step for PlotHeatmap {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let points = Points::read(&context.samples(&self.data), None)?;
        let chart = Chart::from(self.chart(&points)?);
        write_chart(context, &chart, &points.to_csv())?;
        Ok(StepReport::line(format!("{} cells", chart.n_points())))
    }
}

/// What was measured in each cell: by row, column and, where something is compared, value of `by`.
type Cells = HashMap<(String, String, String), Reading>;

impl PlotHeatmap {
    /// Options that mean nothing where nothing is compared.
    fn check_plain(&self, at: &dyn Fn(&str) -> Place, parser: &mut Parser<'_>) {
        for (option, is_given) in [
            ("relative_to", self.relative_to.is_some()),
            ("by", self.by.is_some()),
        ] {
            if is_given {
                let message = format!("`{option}` belongs to `compare`, and there is no `compare`");
                let help = "add `compare`, the two values of `by` whose difference is drawn";
                parser.wrong::<()>(&at(option), message, "nothing is compared", help);
            }
        }
    }

    fn chart(&self, points: &Points) -> Result<HeatmapChart, StepError> {
        self.require(points)?;
        let columns = self.labels(points, &self.x, "x")?;
        let mut rows = self.labels(points, &self.y, "y")?;
        // Numbers grow upwards, as on any axis; words are read from the top.
        if rows.iter().all(|label| label.number.is_some()) {
            rows.reverse();
        }
        let cells = self.cells(points)?;
        let heading = self.title.clone().unwrap_or_else(|| self.heading());
        let names = columns.iter().map(|label| label.text.as_str());
        let mut chart = HeatmapChart::new(heading, self.axis(points), names)
            .subtitle(points.stamp())
            .labels(points.caption(&self.x), points.caption(&self.y));
        if let [one, other] = self.compare.as_slice() {
            chart = chart.diverging(format!("{other} higher"), format!("{one} higher"));
        }
        for row in &rows {
            let cells = columns
                .iter()
                .map(|column| self.reading(&cells, row, column));
            chart = chart.row(&row.text, cells.collect::<Vec<_>>());
        }
        Ok(match points.mixture(&self.keys())? {
            Some(mixture) => chart.note(mixture),
            None => chart,
        })
    }

    /// Says what is named and not there.
    fn require(&self, points: &Points) -> Result<(), StepError> {
        points.require(&self.x, "x")?;
        points.require(&self.y, "y")?;
        points.require(&self.value, "value")?;
        let Some(by) = &self.by else {
            return Ok(());
        };
        points.require(by, "by")?;
        for value in &self.compare {
            points.require_value(by, value, "compare")?;
        }
        self.relative_to
            .iter()
            .try_for_each(|base| points.require_value(by, base, "relative_to"))
    }

    fn labels(&self, points: &Points, key: &str, what: &str) -> Result<Vec<Label>, StepError> {
        let labels = points.labels(key)?;
        if labels.len() <= MOST {
            return Ok(labels);
        }
        let n = labels.len();
        Err(StepError::new(format!(
            "`{what} = \"{key}\"` has {n} values, and a heatmap has room for {MOST}"
        ))
        .help("choose an axis of the plan with fewer values, or draw it with `plot.lines`"))
    }

    /// What cells are grouped by: row, column and what is compared.
    fn keys(&self) -> Vec<&str> {
        let keys = [&self.y, &self.x].into_iter().chain(&self.by);
        keys.map(String::as_str).collect()
    }

    fn cells(&self, points: &Points) -> Result<Cells, StepError> {
        let groups = points.groups(&self.keys(), &self.value)?;
        let cell = |(labels, reading): (Vec<Label>, Reading)| {
            let mut texts = labels.into_iter().map(|label| label.text);
            let mut next = || texts.next().unwrap_or_default();
            ((next(), next(), next()), reading)
        };
        Ok(groups.into_iter().map(cell).collect())
    }

    fn reading(&self, cells: &Cells, row: &Label, column: &Label) -> Reading {
        let found = |by: &str| cells.get(&(row.text.clone(), column.text.clone(), by.to_owned()));
        let [one, other] = self.compare.as_slice() else {
            return found("")
                .cloned()
                .unwrap_or_else(|| Reading::missing("not measured"));
        };
        let (first, second) = (Named::new(one, found(one)), Named::new(other, found(other)));
        match &self.relative_to {
            Some(base) => relative_difference(first, second, Named::new(base, found(base))),
            None => difference(first, second),
        }
    }

    fn heading(&self) -> String {
        let value = title(&self.value);
        let [one, other] = self.compare.as_slice() else {
            return format!("{value} by {} and {}", title(&self.x), title(&self.y));
        };
        let heading = format!("{value}: {one} against {other}");
        relative_to(heading, self.relative_to.as_deref())
    }

    /// What the colours mean.
    fn axis(&self, points: &Points) -> Axis {
        let mut axis = points.axis(&self.value);
        if let [one, other] = self.compare.as_slice() {
            axis.label = format!("{}, {one} − {other}", axis.label);
        }
        in_multiples(axis, self.relative_to.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Row, options, points, row};
    use super::*;
    use charts::{Colours, Grade};

    const BASE: &str = "x = \"rate\"\ny = \"alpha\"\nvalue = \"request_throughput\"\n";
    const COMPARED: &str =
        "by = \"mode\"\ncompare = [\"swap\", \"collocate\"]\nrelative_to = \"single\"";

    fn plot(more: &str) -> PlotHeatmap {
        options(&format!("{BASE}{more}")).expect("sound options")
    }

    fn values(chart: &HeatmapChart) -> Vec<Vec<Option<f64>>> {
        let row = |row: &Vec<Reading>| row.iter().map(|reading| reading.value).collect();
        chart.cells.iter().map(row).collect()
    }

    #[test]
    fn cells_are_differences_of_medians_over_the_median_of_a_third() {
        let points = points(&[
            row("swap", 0.5, 8.0, 6.0),
            row("swap", 0.5, 8.0, 8.0),
            row("swap", 0.5, 8.0, 7.0),
            row("collocate", 0.5, 8.0, 5.0),
            row("single", 0.5, 8.0, 8.0),
            row("swap", 1.0, 8.0, 4.0),
            row("collocate", 1.0, 8.0, 6.0),
            row("single", 1.0, 8.0, 8.0),
            // No partner at the other rate.
            row("swap", 1.0, 16.0, 4.0),
            row("collocate", 1.0, 16.0, 4.0),
        ]);
        let chart = plot(COMPARED).chart(&points).expect("a chart");
        assert_eq!(chart.columns, ["8", "16"]);
        // Numbers grow upwards.
        assert_eq!(chart.rows, ["1", "0.5"]);
        assert_eq!(
            values(&chart),
            [vec![Some(-0.25), None], vec![Some(0.25), None]]
        );
        let note = |row: usize, column: usize| chart.cells[row][column].note.as_deref();
        assert_eq!(note(0, 1), Some("`single` was not measured there"));
        assert_eq!(note(1, 1), Some("`swap` was not measured there"));
        assert_eq!(note(1, 0), Some("swap 7, collocate 5, single 8"));
        let expected = Colours::Diverging {
            below: "collocate higher".to_owned(),
            above: "swap higher".to_owned(),
        };
        assert_eq!(chart.colours, expected);
        assert_eq!(chart.value.unit, "× single");
        assert_eq!(chart.row_label, "alpha");
        assert_eq!(chart.column_label, "rate (requests/s)");
    }

    #[test]
    fn a_doubtful_part_makes_its_cell_doubtful() {
        let degraded = Row {
            grade: engine::step::Grade::Degraded,
            ..row("single", 0.5, 8.0, 8.0)
        };
        let points = points(&[
            row("swap", 0.5, 8.0, 6.0),
            row("collocate", 0.5, 8.0, 5.0),
            degraded,
        ]);
        let chart = plot(COMPARED).chart(&points).expect("a chart");
        assert_eq!(chart.cells[0][0].grade, Grade::Degraded);
    }

    #[test]
    fn without_a_comparison_one_value_is_shown_and_what_is_mixed_is_said() {
        let points = points(&[
            row("swap", 0.5, 8.0, 6.0),
            row("single", 0.5, 8.0, 8.0),
            row("single", 1.0, 16.0, 9.0),
        ]);
        let chart = plot("").chart(&points).expect("a chart");
        assert_eq!(
            values(&chart),
            [vec![None, Some(9.0)], vec![Some(7.0), None]]
        );
        assert_eq!(chart.colours, Colours::Sequential);
        assert_eq!(chart.value.unit, "requests/s");
        assert!(chart.notes[0].contains("`mode`"));
    }

    #[test]
    fn options_that_make_no_sense_together_are_refused() {
        let wrong =
            |more: &str| options::<PlotHeatmap>(&format!("{BASE}{more}")).expect_err("wrong");
        assert!(wrong("by = \"mode\"")[0].contains("there is no `compare`"));
        assert!(wrong("relative_to = \"single\"")[0].contains("there is no `compare`"));
        assert!(wrong("compare = [\"a\", \"b\"]")[0].contains("there is no `by`"));
        let same = wrong("by = \"mode\"\ncompare = [\"a\", \"a\"]");
        assert!(same[0].contains("two different values"));
        let error = plot("by = \"mode\"\ncompare = [\"swap\", \"colocate\"]")
            .chart(&points(&[
                row("swap", 1.0, 8.0, 6.0),
                row("collocate", 1.0, 8.0, 6.0),
            ]))
            .expect_err("no such mode");
        assert_eq!(error.help.as_deref(), Some("did you mean `collocate`?"));
    }
}
