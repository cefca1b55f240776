//! Charts as interactive figures: the description that plotly.js draws from, and that library
//! itself.
//!
//! Colours are left open as tokens (`@text`, `@series2/0.4` with an opacity, `@series2~0.4`
//! mixed into the surface), which the page replaces by those of the theme in force, so that a figure follows the theme without being
//! described twice.

mod layout;
mod traces;

use plotly::Plot;

use crate::drawing::Drawing;

/// JSON for `Plotly.newPlot`: `{"data": […], "layout": {…}, "config": {…}}`, with colour
/// tokens. It contains no `<`, so that it can stand in a script element.
pub(crate) fn description(drawing: &Drawing) -> String {
    let mut plot = Plot::new();
    for trace in traces::of(drawing) {
        plot.add_trace(trace);
    }
    plot.set_layout(layout::of(drawing));
    plot.set_configuration(layout::configuration(&drawing.title));
    plot.to_json().replace('<', "\\u003c")
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
    use crate::model::{Axis, BarChart, LineChart, Panel, Series};
    use crate::reading::{Grade, Reading};

    fn described(panel: impl Into<Panel>) -> serde_json::Value {
        serde_json::from_str(&description(&Drawing::of(&panel.into()))).unwrap()
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
    fn no_text_can_leave_its_place() {
        let json = description(&Drawing::of(&line().into()));
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
