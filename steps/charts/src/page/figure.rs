//! Charts on a page: where the script draws them, what explains them, and the same data as a
//! table for those who cannot or would not read a drawing.

use crate::drawing::{Drawing, OffScale};
use crate::escape::escape;
use crate::interactive;
use crate::model::{BarChart, Chart, Direction, LineChart, Panel};
use crate::page::table::{self, Cell, Column, Table};
use crate::reading::{Grade, Reading};
use crate::theme::Theme;

/// The charts of a page, numbered as they are written.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Figures so far.
    n_figures: usize,
    /// Drawings so far; a figure of several panels has several.
    n_plots: usize,
}

impl Figures {
    /// How many drawings the script will make.
    pub(crate) fn n_plots(&self) -> usize {
        self.n_plots
    }

    /// Writes one chart.
    pub(crate) fn write(&mut self, out: &mut String, chart: &Chart) {
        self.n_figures += 1;
        let id = self.n_figures;
        out.push_str(&format!("<figure class=\"chart\" id=\"figure-{id}\">\n"));
        match chart {
            Chart::Line(line) => self.write_alone(out, &Panel::Line(line.clone())),
            Chart::Bar(bar) => self.write_alone(out, &Panel::Bar(bar.clone())),
            Chart::Panels(panels) => {
                write_heading(out, "h3", &panels.title, &panels.subtitle);
                out.push_str("<div class=\"panels\">\n");
                for panel in &panels.panels {
                    out.push_str("<div class=\"panel\">");
                    self.write_panel(out, panel, "h4");
                    out.push_str("</div>\n");
                }
                out.push_str("</div>\n");
            }
        }
        write_data(out, chart);
        out.push_str(&format!(
            "<noscript>{}</noscript>\n</figure>\n",
            chart.to_svg(Theme::Light)
        ));
    }

    fn write_alone(&mut self, out: &mut String, panel: &Panel) {
        self.write_panel(out, panel, "h3");
    }

    fn write_panel(&mut self, out: &mut String, panel: &Panel, heading: &str) {
        self.n_plots += 1;
        let id = self.n_plots;
        let drawing = Drawing::of(panel);
        write_heading(out, heading, &drawing.title, &drawing.subtitle);
        out.push_str(&format!(
            "<div class=\"plot\" id=\"plot-{id}\" style=\"height:{}px\" role=\"img\" \
             aria-label=\"{}\"></div>\n<script type=\"application/json\" \
             id=\"plot-{id}-data\">{}</script>\n",
            height(&drawing),
            escape(&drawing.title),
            interactive::description(&drawing),
        ));
        write_meanings(out, &drawing);
        for note in &drawing.notes {
            out.push_str(&format!("<p class=\"chart-note\">{}</p>\n", escape(note)));
        }
    }
}

fn write_heading(out: &mut String, heading: &str, title: &str, subtitle: &str) {
    out.push_str(&format!("<{heading}>{}</{heading}>", escape(title)));
    if !subtitle.is_empty() {
        out.push_str(&format!("<p class=\"subtitle\">{}</p>", escape(subtitle)));
    }
}

/// Height of a drawing in pixels.
fn height(drawing: &Drawing) -> usize {
    // Legend entries take a row each where the screen is narrow.
    let legend = 12 * drawing.series.len().saturating_sub(2);
    let plot = match drawing.direction {
        Direction::Vertical => 360,
        Direction::Horizontal => {
            let bars = if drawing.stacked {
                1
            } else {
                drawing.series.len()
            };
            130 + drawing.base.ticks.len() * (bars * 20 + 12).max(36)
        }
    };
    plot + legend
}

/// Explains grades and off-scale marks, those that occur.
fn write_meanings(out: &mut String, drawing: &Drawing) {
    let grades = drawing.grades();
    let gaps = drawing.off_scale();
    if grades.is_empty() && gaps.is_empty() {
        return;
    }
    out.push_str("<ul class=\"key\">");
    for grade in grades {
        let fill = match grade {
            Grade::Valid => "fill=\"currentColor\"",
            Grade::Degraded => "fill=\"currentColor\" fill-opacity=\".4\"",
            Grade::Invalid => "fill=\"none\"",
        };
        let shape = format!("<circle cx=\"7\" cy=\"7\" r=\"4.8\" {fill}/>");
        write_meaning(out, &shape, grade.word());
    }
    for why in gaps {
        let shape = match why {
            OffScale::Infinite => "<path d=\"M7 2 12 11.5H2Z\" fill=\"currentColor\"/>",
            OffScale::Missing => "<path d=\"M3 3 11 11M11 3 3 11\"/>",
            OffScale::NotPositive => "<path d=\"M7 12 2 2.5H12Z\" fill=\"none\"/>",
        };
        write_meaning(out, shape, why.meaning());
    }
    out.push_str("</ul>\n");
}

fn write_meaning(out: &mut String, shape: &str, text: &str) {
    out.push_str(&format!(
        "<li><svg width=\"14\" height=\"14\" viewBox=\"0 0 14 14\" stroke=\"currentColor\" \
         stroke-width=\"1.6\" aria-hidden=\"true\">{shape}</svg>{}</li>",
        escape(text)
    ));
}

/// Writes the data of a chart as tables to unfold.
fn write_data(out: &mut String, chart: &Chart) {
    out.push_str("<details class=\"data\"><summary>Data</summary>\n");
    match chart {
        Chart::Line(line) => table::write(out, &line_table(line)),
        Chart::Bar(bar) => table::write(out, &bar_table(bar)),
        Chart::Panels(panels) => {
            for panel in &panels.panels {
                let (title, table) = match panel {
                    Panel::Line(line) => (&line.title, line_table(line)),
                    Panel::Bar(bar) => (&bar.title, bar_table(bar)),
                };
                table::write(out, &table.caption(title));
            }
        }
    }
    out.push_str("</details>\n");
}

fn line_table(chart: &LineChart) -> Table {
    let mut table = Table::new(columns(
        Column::number(or(&chart.x.label, "x"), &chart.x.unit),
        Column::number(or(&chart.y.label, "value"), &chart.y.unit),
    ));
    for series in &chart.series {
        for point in &series.points {
            table
                .rows
                .push(row(&series.name, Cell::number(point.x), &point.y));
        }
    }
    table
}

fn bar_table(chart: &BarChart) -> Table {
    let mut table = Table::new(columns(
        Column::text(or(&chart.category_label, "category")),
        Column::number(or(&chart.value.label, "value"), &chart.value.unit),
    ));
    for series in &chart.series {
        for (category, reading) in chart.categories.iter().zip(&series.bars) {
            table
                .rows
                .push(row(&series.name, Cell::text(category), reading));
        }
    }
    table
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn columns(place: Column, value: Column) -> [Column; 7] {
    let unit = value.unit.clone();
    [
        Column::text("series"),
        place,
        value,
        Column::number("low", &unit).definition("lower end of the interval"),
        Column::number("high", &unit).definition("upper end of the interval"),
        Column::number("n", "").definition("number of samples"),
        Column::text("grade"),
    ]
}

fn row(series: &str, place: Cell, reading: &Reading) -> Vec<Cell> {
    let interval = reading.known_interval();
    let note = reading.note.clone().unwrap_or_default();
    vec![
        Cell::text(series),
        place,
        Cell::from(reading.known()),
        Cell::from(interval.map(|i| i.low)),
        Cell::from(interval.map(|i| i.high)),
        Cell::from(reading.samples.map(|n| n as f64)),
        Cell {
            text: note,
            ..Cell::grade(reading.grade)
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Axis, Panels, Series};

    fn line() -> LineChart {
        LineChart::new("t <1>", Axis::new("x", ""), Axis::new("y", "ms"))
            .series(Series::new("s").point(1.0, 1.0).point(2.0, f64::INFINITY))
    }

    #[test]
    fn every_panel_has_a_place_data_and_a_still_picture() {
        let mut figures = Figures::default();
        let mut html = String::new();
        figures.write(&mut html, &line().into());
        figures.write(
            &mut html,
            &Panels::new("p").panel(line()).panel(line()).into(),
        );
        assert_eq!(figures.n_plots(), 3);
        for n in 1..=3 {
            assert!(html.contains(&format!("id=\"plot-{n}\"")));
            assert!(html.contains(&format!("id=\"plot-{n}-data\"")));
        }
        assert_eq!(html.matches("<noscript><svg").count(), 2);
        assert_eq!(html.matches("<table>").count(), 3);
        assert!(!html.contains("<1>"));
    }

    #[test]
    fn only_what_occurs_is_explained() {
        let mut html = String::new();
        write_meanings(&mut html, &Drawing::of(&line().into()));
        assert!(
            html.contains("infinite") && !html.contains("missing") && !html.contains("degraded")
        );
    }
}
