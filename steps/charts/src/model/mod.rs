//! What a chart says: axes, series and values, as data that can be stored and read back.
//! Knows nothing of pixels, colours or file formats.

mod build;
mod heatmap;
mod timeline;

pub use heatmap::{Colours, HeatmapChart};
pub use timeline::{RowArrangement, Span, SpanFill, TimelineChart, TimelineRow};

use serde::{Deserialize, Serialize};

use crate::number;
use crate::reading::Reading;

/// Any chart this crate can draw.
///
/// Serialises with its kind beside its fields: `{"kind": "line", "title": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Chart {
    /// Values against a number.
    Line(LineChart),
    /// Values against categories.
    Bar(BarChart),
    /// Values against two lists of categories.
    Heatmap(HeatmapChart),
    /// Several quantities over the same time.
    Timeline(TimelineChart),
    /// Several charts side by side.
    Panels(Panels),
}

/// Values against a number, one line for each series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineChart {
    /// Title.
    pub title: String,
    /// One more line under the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// What the points are placed against.
    pub x: Axis,
    /// What was measured.
    pub y: Axis,
    /// The lines, in drawing and legend order.
    pub series: Vec<Series>,
    /// How intervals are drawn.
    #[serde(default)]
    pub intervals: IntervalStyle,
    /// Values that others are to be compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// Sentences printed under the chart.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Values against categories, one bar for each series in each category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarChart {
    /// Title.
    pub title: String,
    /// One more line under the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// What the categories are, for example `backend`; may be empty.
    #[serde(default)]
    pub category_label: String,
    /// What was measured.
    pub value: Axis,
    /// The categories, in drawing order.
    pub categories: Vec<String>,
    /// The series, in drawing and legend order.
    pub series: Vec<BarSeries>,
    /// Whether a category's bars stand side by side or on each other.
    #[serde(default)]
    pub arrangement: Arrangement,
    /// Whether the bars stand or lie.
    #[serde(default)]
    pub direction: Direction,
    /// Sentences printed under the chart.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Several charts under one title, side by side where there is room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panels {
    /// Title of the whole.
    pub title: String,
    /// One more line under the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// The charts, in reading order.
    pub panels: Vec<Panel>,
    /// Whether the scales of their axes are the same.
    #[serde(default)]
    pub scales: PanelScales,
}

/// Whether panels that stand side by side can be compared by eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PanelScales {
    /// Each has the scales that suit it best.
    #[default]
    Own,
    /// Line charts have the same: a height or a place in one means the same in all.
    Shared,
}

/// A chart that can stand inside [`Panels`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Panel {
    /// Values against a number.
    Line(LineChart),
    /// Values against categories.
    Bar(BarChart),
    /// Values against two lists of categories.
    Heatmap(HeatmapChart),
    /// Several quantities over the same time.
    Timeline(TimelineChart),
}

/// What an axis measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// The quantity, for example `p99 TTFT`.
    pub label: String,
    /// Its unit, for example `ms`; empty for a plain count or share.
    #[serde(default)]
    pub unit: String,
    /// How values are spaced.
    #[serde(default)]
    pub scale: Scale,
}

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Equal differences, equal distances.
    #[default]
    Linear,
    /// Equal ratios, equal distances. What is not positive is drawn as a marked gap.
    Log,
}

/// One line of a [`LineChart`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Which colour and marker it has, counted from 0; its place among the series if absent. For
    /// series that look the same in several charts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ink: Option<usize>,
    /// The points, joined in this order.
    pub points: Vec<Point>,
}

/// A value that others are to be compared with, drawn as a line across the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The value, in its axis' unit.
    pub value: f64,
    /// What it is; written beside the line.
    pub label: String,
}

/// One point of a [`Series`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Place along the x axis, in its unit. Infinity gets a place of its own at the right
    /// edge (an unlimited request rate); NaN and, on a logarithmic axis, what is not positive
    /// cannot be placed and are counted in a note.
    #[serde(with = "number::exact")]
    pub x: f64,
    /// What was measured there.
    #[serde(flatten)]
    pub y: Reading,
}

/// One colour of bars in a [`BarChart`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    /// Name in the legend.
    pub name: String,
    /// One value for each category, in the categories' order. Absent ones count as missing.
    pub bars: Vec<Reading>,
}

/// How the intervals of a line are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntervalStyle {
    /// A whisker at each point.
    #[default]
    Whiskers,
    /// A shaded band along the line.
    Band,
}

/// How the bars of one category are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrangement {
    /// Side by side.
    #[default]
    Grouped,
    /// On top of each other: the values are parts of a whole.
    Stacked,
}

/// Which way bars grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Upwards.
    #[default]
    Vertical,
    /// To the right: better for many or long category names.
    Horizontal,
}

impl Axis {
    /// Label and unit as written along the axis.
    pub(crate) fn caption(&self) -> String {
        match (self.label.is_empty(), self.unit.is_empty()) {
            (_, true) => self.label.clone(),
            (true, false) => self.unit.clone(),
            (false, false) => format!("{} ({})", self.label, self.unit),
        }
    }
}

impl Chart {
    /// The title of the chart, or of the whole if it has several panels.
    pub fn title(&self) -> &str {
        match self {
            Chart::Line(chart) => &chart.title,
            Chart::Bar(chart) => &chart.title,
            Chart::Heatmap(chart) => &chart.title,
            Chart::Timeline(chart) => &chart.title,
            Chart::Panels(panels) => &panels.title,
        }
    }

    /// How many values the chart holds, those that are missing or infinite included; of a timeline
    /// the spans. Every renderer draws exactly so many marks.
    pub fn n_points(&self) -> usize {
        match self {
            Chart::Line(chart) => chart.n_points(),
            Chart::Bar(chart) => chart.n_points(),
            Chart::Heatmap(chart) => chart.n_points(),
            Chart::Timeline(chart) => chart.n_points(),
            Chart::Panels(panels) => panels.panels.iter().map(Panel::n_points).sum(),
        }
    }
}

impl Panel {
    /// How many values the panel holds.
    pub(crate) fn n_points(&self) -> usize {
        match self {
            Panel::Line(chart) => chart.n_points(),
            Panel::Bar(chart) => chart.n_points(),
            Panel::Heatmap(chart) => chart.n_points(),
            Panel::Timeline(chart) => chart.n_points(),
        }
    }
}

impl LineChart {
    fn n_points(&self) -> usize {
        self.series.iter().map(|series| series.points.len()).sum()
    }
}

impl BarChart {
    fn n_points(&self) -> usize {
        self.series.len() * self.categories.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Grade;

    fn every_kind() -> Panels {
        let line = LineChart::new("a", Axis::new("rate", "1/s").log(), Axis::new("ttft", "ms"))
            .bands()
            .reference(1.0, "base")
            .note("n")
            .series(
                Series::new("s")
                    .point(
                        f64::INFINITY,
                        Reading::new(f64::INFINITY).interval(1.0, f64::INFINITY),
                    )
                    .point(2.0, Reading::missing("timed out"))
                    .point(
                        3.0,
                        Reading::new(4.0)
                            .samples(5)
                            .grade(Grade::Degraded)
                            .note("why"),
                    ),
            );
        let bar = BarChart::new("b", Axis::new("share", ""), ["x", "y"])
            .stacked()
            .horizontal()
            .series("s", [0.5, 0.25]);
        let heatmap = HeatmapChart::new("h", Axis::new("gain", "× base"), ["1", "2"])
            .diverging("less", "more")
            .row("r", [Some(f64::INFINITY), None]);
        let row = TimelineRow::new(
            Axis::new("running", ""),
            vec![0.0, 1.0],
            vec![vec![None, Some(2.0)]],
        );
        let span = |series| Span {
            series,
            from: 0.25,
            to: 0.5,
            label: "in".to_owned(),
            fill: SpanFill::Hollow,
            details: vec!["by room".to_owned()],
        };
        let timeline = TimelineChart::new("t", Axis::new("time", "s"), ["a"])
            .row(row.stacked().reference(3.0, "all"))
            .spans("swaps", [span(0), span(7)]);
        Panels::new("all")
            .same_scales()
            .panel(line)
            .panel(bar)
            .panel(heatmap)
            .panel(timeline)
    }

    #[test]
    fn charts_survive_json_with_their_infinities() {
        let chart = Chart::from(every_kind());
        let text = serde_json::to_string(&chart).unwrap();
        assert!(text.contains(r#""kind":"panels""#));
        assert!(text.contains(r#""x":"inf""#));
        assert!(text.contains(r#""value":null"#));
        assert_eq!(serde_json::from_str::<Chart>(&text).unwrap(), chart);
    }

    #[test]
    fn a_short_chart_file_is_enough() {
        let text = r#"{"kind":"line","title":"t","x":{"label":"x"},"y":{"label":"y","scale":"log"},
            "series":[{"name":"s","points":[{"x":1,"value":2},{"x":3}]}]}"#;
        let Chart::Line(chart) = serde_json::from_str(text).unwrap() else {
            panic!("not a line chart")
        };
        assert_eq!(chart.y.scale, Scale::Log);
        assert_eq!(chart.series[0].points[0].y, Reading::new(2.0));
        assert_eq!(chart.series[0].points[1].y.value, None);
    }

    #[test]
    fn points_are_counted_whatever_their_value() {
        // Of the two spans one belongs to no series.
        assert_eq!(Chart::from(every_kind()).n_points(), 3 + 2 + 2 + 1);
    }

    #[test]
    fn a_caption_has_its_unit() {
        assert_eq!(Axis::new("TTFT", "ms").caption(), "TTFT (ms)");
        assert_eq!(Axis::new("share", "").caption(), "share");
    }
}
