//! Charts as interactive figures: the description that plotly.js draws from, and that library
//! itself.
//!
//! Colours are left open as tokens (`@text`, `@series2/0.4` with an opacity, `@series2~0.4`
//! mixed into the surface), which the page replaces by those of the theme in force, so that a
//! figure follows the theme without being described twice.

mod heatmap;
mod timeline;

mod bars;
mod layout;
mod traces;

use plotly::{Layout, Plot, Trace};

use crate::drawing::Sheet;

/// What plotly.js draws, the hidden first.
type Traces = Vec<Box<dyn Trace>>;

/// JSON for `Plotly.newPlot`: `{"data": […], "layout": {…}, "config": {…}}`, with colour
/// tokens. It contains no `<`, so that it can stand in a script element.
pub(crate) fn description(sheet: &Sheet) -> String {
    let json = match sheet {
        Sheet::Plot(drawing) => {
            described(traces::of(drawing), layout::of(drawing), sheet).to_json()
        }
        Sheet::Grid(grid) => {
            described(heatmap::traces(grid), heatmap::layout(grid), sheet).to_json()
        }
        Sheet::Timeline(timeline) => {
            let plot = described(
                timeline::traces(timeline),
                timeline::layout(timeline),
                sheet,
            );
            timeline::with_rows(&plot, timeline)
        }
    };
    json.replace('<', "\\u003c")
}

fn described(traces: Traces, layout: Layout, sheet: &Sheet) -> Plot {
    let mut plot = Plot::new();
    for trace in traces {
        plot.add_trace(trace);
    }
    plot.set_layout(layout);
    plot.set_configuration(layout::configuration(sheet.title()));
    plot
}

/// The source of plotly.js. It contains no `</script`.
///
/// The crate hands out its libraries as script elements, plotly.js first; MathJax, which
/// follows, is 2 MB that no chart here needs.
pub(crate) fn library() -> &'static str {
    static LIBRARY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(|| {
        let scripts = Plot::offline_js_sources();
        let body = scripts.split_once('>').map_or("", |(_, rest)| rest);
        body.split("</script").next().unwrap_or_default().to_owned()
    })
}

/// Makes text safe for plotly.js, which reads a little HTML in every text it draws.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Axis, BarChart, HeatmapChart, LineChart, Panel, Series, Span, SpanFill, TimelineChart,
        TimelineRow,
    };
    use crate::reading::{Grade, Reading};

    fn described(panel: impl Into<Panel>) -> serde_json::Value {
        serde_json::from_str(&description(&Sheet::of(&panel.into()))).unwrap()
    }

    /// Number of marks in all traces that have any.
    fn n_marks(plot: &serde_json::Value) -> usize {
        let traces = plot["data"].as_array().unwrap();
        let marked = traces.iter().filter(|trace| trace["hovertext"].is_array());
        marked
            .map(|trace| trace["x"].as_array().unwrap().len())
            .sum()
    }

    fn line() -> LineChart {
        LineChart::new("t", Axis::new("</script>", ""), Axis::new("y", "ms").log()).series(
            Series::new("<b>")
                .point(1.0, 1.0)
                .point(2.0, Reading::new(2.0).grade(Grade::Invalid).note("<i>"))
                .point(3.0, f64::INFINITY)
                .point(4.0, 0.0)
                .point(5.0, None),
        )
    }

    #[test]
    fn each_value_is_one_mark() {
        assert_eq!(n_marks(&described(line())), 5);
        let bars = BarChart::new("t", Axis::new("y", ""), ["a", "b"])
            .series("one", [Some(1.0), None])
            .series("two", [2.0, f64::INFINITY]);
        assert_eq!(n_marks(&described(bars.clone())), 4);
        assert_eq!(n_marks(&described(bars.clone().stacked())), 4);
        assert_eq!(n_marks(&described(bars.horizontal())), 4);
    }

    #[test]
    fn each_cell_is_one_bar_in_its_colour() {
        let grid = HeatmapChart::new("t", Axis::new("gain", ""), ["1", "2"])
            .diverging("less", "more")
            .row(
                "a",
                [Reading::new(0.5), Reading::new(-0.5).grade(Grade::Degraded)],
            )
            .row(
                "b",
                [
                    Reading::new(0.25).grade(Grade::Invalid),
                    Reading::missing("<no>"),
                ],
            );
        let plot = described(grid);
        assert_eq!(n_marks(&plot), 4);
        let solid = &plot["data"][0];
        assert_eq!(
            solid["marker"]["color"],
            serde_json::json!(["@warm~0.833", "@cool~0.833"])
        );
        assert_eq!(
            solid["text"],
            serde_json::json!(["+0.50", "−0.50<br>degraded"])
        );
        // Rows are read from the top: the first has its middle at 0.
        assert_eq!(solid["base"], serde_json::json!([-0.48, -0.48]));
        let range = plot["layout"]["yaxis"]["range"].as_array().unwrap();
        assert!(range[0].as_f64() > range[1].as_f64());
    }

    #[test]
    fn a_timeline_has_an_axis_for_each_row_and_one_for_its_spans() {
        let row = || {
            let values = vec![vec![Some(1.0), None, Some(2.0)]];
            TimelineRow::new(Axis::new("memory", "GiB"), vec![0.0, 1.0, 2.0], values)
        };
        let span = |from, to| Span {
            series: 0,
            from,
            to,
            label: "in".to_owned(),
            fill: SpanFill::Solid,
            details: Vec::new(),
        };
        let timeline = TimelineChart::new("t", Axis::new("time", "s"), ["<a>"])
            .row(row())
            .row(row().stacked().reference(8.0, "all"))
            .spans("swaps", [span(0.5, 1.0), span(1.5, 2.0)]);
        let plot = described(timeline);
        let bars: Vec<_> = plot["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|trace| trace["type"] == "bar")
            .collect();
        assert_eq!(bars.len(), 1);
        assert_eq!(bars[0]["base"], serde_json::json!([0.5, 1.5]));
        assert_eq!(bars[0]["x"], serde_json::json!([0.5, 0.5]));
        assert_eq!(bars[0]["yaxis"], "y3");
        let layout = &plot["layout"];
        let domain = |axis: &str, end: usize| layout[axis]["domain"][end].as_f64().unwrap();
        assert!(domain("yaxis", 0) > domain("yaxis2", 1));
        assert!(domain("yaxis3", 0) > domain("yaxis", 1));
        assert_eq!(layout["xaxis"]["anchor"], "y2");
        assert_eq!(layout["shapes"].as_array().unwrap().len(), 2);
        assert_eq!(layout["shapes"][0]["fillcolor"], "@series0/0.13");
    }

    #[test]
    fn a_reference_is_a_dashed_line_with_its_name() {
        let plot = described(line().reference(2.0, "<base>"));
        assert_eq!(n_marks(&plot), 5);
        let is_named = |trace: &&serde_json::Value| trace["text"][1] == "&lt;base&gt;";
        let found = plot["data"].as_array().unwrap().iter().find(is_named);
        assert_eq!(found.unwrap()["line"]["dash"], "dash");
    }

    #[test]
    fn no_text_can_leave_its_place() {
        let json = description(&Sheet::of(&line().into()));
        assert!(!json.contains('<'));
        let plot: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(plot["layout"]["xaxis"]["title"]["text"], "&lt;/script&gt;");
        assert_eq!(plot["data"][0]["name"], "&lt;b&gt;");
    }

    #[test]
    fn off_scale_values_are_drawn_beside_the_scale() {
        let plot = described(line());
        let strip: Vec<_> = plot["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|t| t["yaxis"] == "y2")
            .collect();
        assert_eq!(strip.len(), 3);
        assert!(plot["layout"]["yaxis2"]["domain"][0].as_f64().unwrap() > 0.8);
    }

    #[test]
    fn the_library_comes_without_its_companion() {
        let source = library();
        assert!(source.starts_with("/**\n* plotly.js v"));
        assert!(!source.to_ascii_lowercase().contains("</script"));
        assert!(!source.contains("<!--"));
        assert!((1 << 20..6 << 20).contains(&source.len()));
    }
}
