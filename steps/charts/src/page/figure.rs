//! Charts on a page: where the script draws them, what explains them, and the same data as a
//! table for those who cannot or would not read a drawing.

use crate::drawing::{Drawing, Grid, Layout, OffScale, Sheet, Timeline};
use crate::escape::escape;
use crate::interactive;
use crate::model::{Chart, Colours, Direction};
use crate::page::data;
use crate::reading::Grade;
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
        match Layout::of(chart) {
            Layout::Alone(sheet) => self.write_sheet(out, &sheet, "h3"),
            Layout::SideBySide {
                title,
                subtitle,
                sheets,
            } => {
                write_heading(out, "h3", &title, &subtitle);
                out.push_str("<div class=\"panels\">\n");
                for sheet in &sheets {
                    out.push_str("<div class=\"panel\">");
                    self.write_sheet(out, sheet, "h4");
                    out.push_str("</div>\n");
                }
                out.push_str("</div>\n");
            }
        }
        data::write(out, chart);
        out.push_str(&format!(
            "<noscript>{}</noscript>\n</figure>\n",
            chart.to_svg(Theme::Light)
        ));
    }

    fn write_sheet(&mut self, out: &mut String, sheet: &Sheet, heading: &str) {
        self.n_plots += 1;
        let id = self.n_plots;
        write_heading(out, heading, sheet.title(), sheet.subtitle());
        if let Sheet::Grid(grid) = sheet {
            write_scale(out, grid);
        }
        out.push_str(&format!(
            "<div class=\"plot\" id=\"plot-{id}\" style=\"height:{}px\" role=\"img\" \
             aria-label=\"{}\"></div>\n<script type=\"application/json\" \
             id=\"plot-{id}-data\">{}</script>\n",
            height(sheet),
            escape(sheet.title()),
            interactive::description(sheet),
        ));
        write_meanings(out, sheet);
        for note in sheet.notes() {
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

/// Writes what the colours of a heatmap mean.
fn write_scale(out: &mut String, grid: &Grid) {
    let (colours, below, above) = match &grid.colours {
        Colours::Sequential => ("var(--surface),var(--cool)", "", ""),
        Colours::Diverging { below, above } => (
            "var(--cool),var(--surface),var(--warm)",
            below.as_str(),
            above.as_str(),
        ),
    };
    out.push_str(&format!(
        "<div class=\"scale\"><span>{}</span><div>{}<div class=\"colours\" \
         style=\"background:linear-gradient(to right,{colours})\"></div><div class=\"ticks\">",
        escape(&grid.value.caption),
        side("below", below),
    ));
    for tick in &grid.value.ticks {
        let share = 100.0 * grid.value.share(tick.at);
        let (low, high) = grid.value.range;
        // Those that a narrow screen has room for.
        let is_main = tick.at == 0.0 || tick.at == low || tick.at == high;
        let class = if is_main { " class=\"main\"" } else { "" };
        out.push_str(&format!(
            "<span{class} style=\"left:{share:.2}%\">{}</span>",
            escape(&tick.text)
        ));
    }
    out.push_str(&format!("</div>{}</div></div>\n", side("above", above)));
}

/// What values at one end of a scale mean.
fn side(class: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("<span class=\"{class}\">{}</span>", escape(text))
}

/// Height of a drawing in pixels.
fn height(sheet: &Sheet) -> usize {
    match sheet {
        Sheet::Plot(drawing) => plot_height(drawing),
        Sheet::Grid(grid) => 80 + grid.rows.ticks.len().max(1) * 52,
        Sheet::Timeline(timeline) => timeline_height(timeline),
    }
}

fn plot_height(drawing: &Drawing) -> usize {
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
    plot + legend_height(drawing.series.len())
}

fn timeline_height(timeline: &Timeline) -> usize {
    let rows = timeline.lanes.len() * 165;
    90 + rows + timeline.tracks.len() * 24 + legend_height(timeline.series.len())
}

/// Legend entries take a row each where the screen is narrow.
fn legend_height(entries: usize) -> usize {
    12 * entries.saturating_sub(2)
}

/// Explains grades and off-scale marks, those that occur.
fn write_meanings(out: &mut String, sheet: &Sheet) {
    let grades = match sheet {
        // Its cells say it in words.
        Sheet::Grid(_) => Vec::new(),
        _ => sheet.grades(),
    };
    let gaps = sheet.off_scale();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Axis, HeatmapChart, LineChart, Panels, Series, Span, SpanFill, TimelineChart, TimelineRow,
    };

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
    fn a_heatmap_says_what_its_colours_mean_in_both_themes() {
        let grid = HeatmapChart::new("t", Axis::new("gain <1>", ""), ["1", "2"])
            .diverging("base <more>", "")
            .row("a", [0.25, -0.5]);
        let mut html = String::new();
        Figures::default().write(&mut html, &grid.into());
        assert!(html.contains("var(--cool),var(--surface),var(--warm)"));
        assert!(html.contains("<span class=\"below\">base &lt;more&gt;</span>"));
        assert!(!html.contains("class=\"above\""));
        assert!(html.contains("<span class=\"main\" style=\"left:50.00%\">0</span>"));
        assert!(html.contains("gain &lt;1&gt;"));
    }

    #[test]
    fn a_timeline_has_its_spans_and_rows_as_tables() {
        let row = |label: &str| {
            let values = vec![vec![Some(1.0), None], vec![Some(3.0), Some(4.0)]];
            TimelineRow::new(Axis::new(label, "GiB"), vec![0.0, 0.5], values)
        };
        let span = Span {
            series: 1,
            from: 0.0,
            to: 0.25,
            label: "in".to_owned(),
            fill: SpanFill::Solid,
            details: vec!["for <room>".to_owned()],
        };
        let timeline = TimelineChart::new("t", Axis::new("time", "s"), ["a", "b"])
            .row(row("memory <1>"))
            .row(row("running"))
            .spans("swaps", [span]);
        let mut html = String::new();
        Figures::default().write(&mut html, &timeline.into());
        assert_eq!(html.matches("<table>").count(), 3);
        assert!(html.contains("for &lt;room&gt;") && html.contains("memory &lt;1&gt;"));
    }

    #[test]
    fn only_what_occurs_is_explained() {
        let mut html = String::new();
        write_meanings(&mut html, &Sheet::of(&line().into()));
        assert!(
            html.contains("infinite") && !html.contains("missing") && !html.contains("degraded")
        );
    }
}
