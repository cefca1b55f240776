//! Charts as SVG, written by hand: no script, no style sheet, no font file, so that the text
//! looks the same in a browser, in a paper and in the PNG made of it.
//!
//! Each value of the chart is one element of class `point`, with what is known about it in
//! its `title`.

mod figure;
mod legend;
mod marks;
mod text;
mod writer;

use crate::drawing::Drawing;
use crate::model::{Chart, Panel};
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
    /// (`valid`, `degraded`, `invalid`) or by `off-scale`.
    pub fn to_svg(&self, theme: Theme) -> String {
        match self {
            Chart::Line(chart) => alone(&Panel::Line(chart.clone()), theme),
            Chart::Bar(chart) => alone(&Panel::Bar(chart.clone()), theme),
            Chart::Panels(panels) => {
                side_by_side(&panels.title, &panels.subtitle, &panels.panels, theme)
            }
        }
    }
}

fn alone(panel: &Panel, theme: Theme) -> String {
    let drawing = Drawing::of(panel);
    let mut svg = Svg::new(theme.palette());
    let height = Figure::new(&drawing, MARGIN, MARGIN, WIDTH - 2.0 * MARGIN).draw(&mut svg);
    svg.finish(&drawing.title, WIDTH, height + 2.0 * MARGIN)
}

fn side_by_side(title: &str, subtitle: &str, panels: &[Panel], theme: Theme) -> String {
    let columns = panels.len().clamp(1, COLUMNS);
    let width = columns as f64 * (PANEL_WIDTH + MARGIN) + MARGIN;
    let mut svg = Svg::new(theme.palette());
    let room = width - 2.0 * MARGIN;
    let mut y = MARGIN;
    y += svg.paragraph(MARGIN, y, room, title, Style::title(19.0));
    y += svg.paragraph(MARGIN, y, room, subtitle, Style::new(13.0, Ink::Muted));
    for row in panels.chunks(columns) {
        y += MARGIN * 0.6;
        let heights = row.iter().enumerate().map(|(i, panel)| {
            let x = MARGIN + i as f64 * (PANEL_WIDTH + MARGIN);
            Figure::new(&Drawing::of(panel), x, y, PANEL_WIDTH).draw(&mut svg)
        });
        y += heights.fold(0.0, f64::max);
    }
    svg.finish(title, width, y + MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Axis, BarChart, LineChart, Panels, Series};
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
        let charts: [Chart; 6] = [
            line().into(),
            line().bands().into(),
            bars().into(),
            bars().stacked().into(),
            bars().horizontal().into(),
            Panels::new("both")
                .panel(line())
                .panel(bars())
                .panel(line())
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
    }
}
