//! Draws measured results: chart data that can be stored as JSON, charts as SVG, PNG or
//! interactive figures, and self-contained HTML reports.
//!
//! This crate knows nothing of benchmarks, plans or servers. It is given numbers, what they
//! are called and how far they can be trusted, and its one principle is that a drawing never
//! says more than its data: a value that is infinite or missing is a marked gap and never a
//! zero, an invalid one is hollow, and every interval and sample count is shown.
//!
//! ```
//! use charts::{Axis, LineChart, Page, Section, Series, Theme, Tone};
//!
//! let chart = LineChart::new("Latency against load", Axis::new("request rate", "1/s"), Axis::new("p99 TTFT", "ms"))
//!     .series(Series::new("radix cache").point(1.0, 20.5).point(4.0, 31.0));
//! let svg = charts::Chart::from(chart.clone()).to_svg(Theme::Light);
//! assert_eq!(svg.matches("class=\"point ").count(), 2);
//!
//! let html = Page::new("Online serving")
//!     .section(Section::new("Results").callout(Tone::Good, "both points are valid").chart(chart))
//!     .to_html();
//! assert!(html.starts_with("<!doctype html>"));
//! ```

#![forbid(unsafe_code)]

mod model;
mod reading;

mod drawing;
mod escape;
mod number;
mod theme;
mod ticks;

mod interactive;
mod png;
mod svg;

mod page;

pub use model::{
    Arrangement, Axis, BarChart, BarSeries, Chart, Colours, Direction, HeatmapChart, IntervalStyle,
    LineChart, Panel, PanelScales, Panels, Point, Reference, RowArrangement, Scale, Series, Span,
    SpanFill, TimelineChart, TimelineRow,
};
pub use number::format_number;
pub use page::{
    Align, Cell, Column, Definition, FileLink, Language, Page, Section, Table, Tile, Tone, Verdict,
};
pub use png::PngError;
pub use reading::{Grade, Interval, Reading};
pub use theme::Theme;
