//! Charts as SVG, written by hand: no script, no style sheet, no font file, so that the text
//! looks the same in a browser, in a paper and in the PNG made of it.
//!
//! Each value of the chart is one element of class `point`, with what is known about it in
//! its `title`; of a timeline each span is.

mod figure;
mod heatmap;
mod timeline;

mod axis;
mod frame;
mod legend;
mod marks;

mod text;
mod writer;

use crate::drawing::{Layout, Sheet};
use crate::model::Chart;
use crate::theme::Theme;

use figure::Figure;
use text::{Ink, Style};
use writer::Svg;

/// Width of a chart that stands alone, in SVG units.
const WIDTH: f64 = 760.0;
/// Width of each of several panels.
const PANEL_WIDTH: f64 = 520.0;
/// Panels side by side at most.
const COLUMNS: usize = 2;
/// Space around the whole and between panels.
const MARGIN: f64 = 20.0;

impl Chart {
    /// Draws the chart as a complete SVG document.
    ///
    /// Each value is one element whose class starts with `point`, followed by its grade
    /// (`valid`, `degraded`, `invalid`) or by `off-scale`; of a timeline each span is one, with
    /// the class `point span`.
    pub fn to_svg(&self, theme: Theme) -> String {
        match Layout::of(self) {
            Layout::Alone(sheet) => alone(&sheet, theme),
            Layout::SideBySide {
                title,
                subtitle,
                sheets,
            } => side_by_side(&title, &subtitle, &sheets, theme),
        }
    }
}

fn alone(sheet: &Sheet, theme: Theme) -> String {
    let mut svg = Svg::new(theme.palette());
    let height = draw(&mut svg, sheet, (MARGIN, MARGIN), WIDTH - 2.0 * MARGIN);
    svg.finish(sheet.title(), WIDTH, height + 2.0 * MARGIN)
}

fn side_by_side(title: &str, subtitle: &str, sheets: &[Sheet], theme: Theme) -> String {
    let columns = sheets.len().clamp(1, COLUMNS);
    let width = columns as f64 * (PANEL_WIDTH + MARGIN) + MARGIN;
    let mut svg = Svg::new(theme.palette());
    let room = width - 2.0 * MARGIN;
    let mut y = MARGIN;
    y += svg.paragraph(MARGIN, y, room, title, Style::title(19.0));
    y += svg.paragraph(MARGIN, y, room, subtitle, Style::new(13.0, Ink::Muted));
    for row in sheets.chunks(columns) {
        y += MARGIN * 0.6;
        let heights = row.iter().enumerate().map(|(i, sheet)| {
            let x = MARGIN + i as f64 * (PANEL_WIDTH + MARGIN);
            draw(&mut svg, sheet, (x, y), PANEL_WIDTH)
        });
        y += heights.fold(0.0, f64::max);
    }
    svg.finish(title, width, y + MARGIN)
}

/// Draws one chart and returns the height it takes.
fn draw(svg: &mut Svg, sheet: &Sheet, (x, y): (f64, f64), width: f64) -> f64 {
    match sheet {
        Sheet::Plot(drawing) => Figure::new(drawing, x, y, width).draw(svg),
        Sheet::Grid(grid) => heatmap::draw(svg, grid, (x, y), width),
        Sheet::Timeline(timeline) => timeline::draw(svg, timeline, (x, y), width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Axis, BarChart, HeatmapChart, LineChart, Panels, Series, Span, SpanFill, TimelineChart,
        TimelineRow,
    };
    use crate::reading::{Grade, Reading};

    fn line() -> LineChart {
        LineChart::new(
            "a <b> & \"c\"",
            Axis::new("rate", "1/s"),
            Axis::new("ttft", "ms").log(),
        )
        .subtitle("sub")
        .series(
            Series::new("<s&1>")
                .point(1.0, 10.0)
                .point(2.0, Reading::new(20.0).interval(15.0, 30.0).samples(3))
                .point(4.0, Reading::new(40.0).grade(Grade::Invalid).note("5 < 6"))
                .point(8.0, f64::INFINITY)
                .point(9.0, 0.0)
                .point(f64::NAN, 1.0),
        )
        .series(Series::new("two").point(f64::INFINITY, Reading::missing("lost")))
    }

    fn bars() -> BarChart {
        BarChart::new("bars", Axis::new("share", ""), ["one", "two", "three"])
            .series("x", [Some(1.0), None, Some(f64::INFINITY)])
            .series("y", [-1.0, 2.0, 3.0])
    }

    fn heatmap() -> HeatmapChart {
        HeatmapChart::new("<grid>", Axis::new("gain", "× base"), ["1", "2", "3"])
            .labels("rate <1>", "alpha")
            .diverging("base <more>", "gain more")
            .row(
                "0.5",
                [
                    Reading::new(0.25),
                    Reading::new(-0.5).grade(Grade::Degraded).note("late"),
                    Reading::new(0.125).grade(Grade::Invalid),
                ],
            )
            .row(
                "1",
                [Reading::missing("no `base`"), Reading::new(f64::INFINITY)],
            )
    }

    fn timeline() -> TimelineChart {
        let values = || vec![vec![Some(1.0), None, Some(2.0)], vec![Some(4.0); 3]];
        let row =
            |label: &str| TimelineRow::new(Axis::new(label, "GiB"), vec![0.0, 5.0, 10.0], values());
        let span = |series, from, to, label: &str, fill| Span {
            series,
            from,
            to,
            label: label.to_owned(),
            fill,
            details: vec!["reason: <room>".to_owned()],
        };
        TimelineChart::new("time <line>", Axis::new("time", "s"), ["<a>", "b"])
            .row(row("running"))
            .row(row("memory").stacked().reference(8.0, "device <memory>"))
            .spans(
                "swaps",
                [
                    span(0, 1.0, 2.0, "out", SpanFill::Hollow),
                    span(1, 2.0, 4.0, "in", SpanFill::Solid),
                ],
            )
    }

    fn points(svg: &str) -> usize {
        svg.matches("class=\"point ").count()
    }

    /// Every element that is opened is closed, in order.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let tag = &tag[..tag.find('>').expect("an unescaped `<`")];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') && !tag.starts_with('?') {
                open.push(tag.split([' ', '\n']).next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn each_value_is_one_point() {
        let charts: [Chart; 10] = [
            line().into(),
            line().bands().into(),
            bars().into(),
            bars().stacked().into(),
            bars().horizontal().into(),
            line().reference(25.0, "<base>").into(),
            heatmap().into(),
            timeline().into(),
            Panels::new("all")
                .panel(line())
                .panel(bars())
                .panel(line())
                .into(),
            Panels::new("all")
                .same_scales()
                .panel(line())
                .panel(heatmap())
                .panel(timeline())
                .into(),
        ];
        for chart in charts {
            for theme in [Theme::Light, Theme::Dark] {
                let svg = chart.to_svg(theme);
                assert_eq!(points(&svg), chart.n_points());
                assert_well_formed(&svg);
                assert!(
                    !svg.contains("NaN") && !svg.contains("inf\""),
                    "a coordinate is lost"
                );
            }
        }
    }

    #[test]
    fn text_is_escaped() {
        let svg = Chart::from(line()).to_svg(Theme::Light);
        assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;"));
        assert!(svg.contains("&lt;s&amp;1&gt;"));
        assert!(svg.contains("invalid: 5 &lt; 6"));
    }

    #[test]
    fn grades_and_gaps_are_marked_and_explained() {
        let svg = Chart::from(line()).to_svg(Theme::Light);
        for class in [
            "point invalid",
            "point valid",
            "point off-scale infinite",
            "point unplaced",
        ] {
            assert!(svg.contains(class), "{class}");
        }
        for word in ["valid", "invalid", "infinite", "missing", "zero or less"] {
            assert!(
                svg.contains(&format!("\">{word}")),
                "{word} is not in the legend"
            );
        }
    }

    #[test]
    fn a_chart_without_data_is_still_a_chart() {
        let empty = LineChart::new("none", Axis::new("x", ""), Axis::new("y", ""));
        assert_well_formed(&Chart::from(empty).to_svg(Theme::Dark));
        let empty = BarChart::new("none", Axis::new("y", ""), Vec::<String>::new());
        assert_well_formed(&Chart::from(empty.horizontal()).to_svg(Theme::Dark));
        assert_well_formed(&Chart::from(Panels::new("none")).to_svg(Theme::Dark));
        let empty = HeatmapChart::new("none", Axis::new("y", ""), Vec::<String>::new());
        assert_well_formed(&Chart::from(empty).to_svg(Theme::Dark));
        let empty = TimelineChart::new("none", Axis::new("time", "s"), Vec::<String>::new());
        assert_well_formed(&Chart::from(empty).to_svg(Theme::Dark));
    }

    #[test]
    fn a_reference_is_a_line_with_its_name() {
        let svg = Chart::from(line().reference(25.0, "<base>")).to_svg(Theme::Light);
        assert_eq!(svg.matches("class=\"reference\"").count(), 1);
        assert!(svg.contains("&lt;base&gt;"));
    }

    #[test]
    fn cells_show_numbers_grades_and_gaps() {
        let svg = Chart::from(heatmap()).to_svg(Theme::Light);
        for text in [
            ">+0.25<",
            ">−0.50<",
            ">+0.12<",
            "rate &lt;1&gt; 1, alpha 0.5",
            "degraded: late",
            "base &lt;more&gt;",
            ">gain more<",
            ">gain (× base)<",
            // The row has a value less than there are columns, and that one has no note.
            ">1 cell is empty: no `base`<",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        for (class, n) in [
            ("point valid", 1),
            ("point degraded", 1),
            ("point invalid", 1),
            ("point off-scale missing", 2),
            ("point off-scale infinite", 1),
        ] {
            assert_eq!(svg.matches(class).count(), n, "{class}");
        }
        for word in ["degraded", "invalid", "infinite", "missing"] {
            assert!(
                svg.contains(&format!("\">{word}<")),
                "{word} is not in the legend"
            );
        }
        assert_ne!(svg, Chart::from(heatmap()).to_svg(Theme::Dark));
    }

    #[test]
    fn a_timeline_names_models_rows_and_spans() {
        let svg = Chart::from(timeline()).to_svg(Theme::Light);
        for text in [
            ">running (GiB)<",
            ">memory (GiB)<",
            ">time (s)<",
            ">swaps<",
            ">device &lt;memory&gt;<",
            "&lt;a&gt; out",
            "from 1 to 2 s",
            "reason: &lt;room&gt;",
            ">out<",
            ">in<",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("class=\"point span\"").count(), 2);
        assert_eq!(svg.matches("class=\"shade\"").count(), 2);
    }
}
