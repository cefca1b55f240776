//! Timelines: several quantities of the same things over one axis of time, and spans in which
//! something happened to one of them.

use serde::{Deserialize, Serialize};

use crate::model::{Axis, Reference};

/// Rows of lines over the same time, with marked spans.
///
/// The values are drawn as lines without marks; the marks of the chart are its spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineChart {
    /// Title.
    pub title: String,
    /// One more line under the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// What time is counted from, and in which unit; always linear.
    pub time: Axis,
    /// Names of the series, in drawing and legend order. Every row has values of each.
    pub series: Vec<String>,
    /// The rows, top to bottom.
    pub rows: Vec<TimelineRow>,
    /// What the spans are, for example `swaps`; may be empty.
    #[serde(default)]
    pub span_label: String,
    /// What happened to which series, and when.
    #[serde(default)]
    pub spans: Vec<Span>,
    /// Sentences printed under the chart.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One quantity of a [`TimelineChart`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineRow {
    /// What was measured.
    pub value: Axis,
    /// When, ascending; finite.
    pub times: Vec<f64>,
    /// For each series one value for each time; finite, or `None` where there is none.
    pub values: Vec<Vec<Option<f64>>>,
    /// Whether the series lie over each other or are parts of a whole.
    #[serde(default)]
    pub arrangement: RowArrangement,
    /// Values that others are to be compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

/// How the series of a [`TimelineRow`] are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowArrangement {
    /// A line each.
    #[default]
    Lines,
    /// Areas on top of each other, always on a linear scale. A missing value adds nothing.
    Stacked,
}

/// A stretch of time in which something happened to a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Index of the series.
    pub series: usize,
    /// When it began.
    pub from: f64,
    /// When it ended.
    pub to: f64,
    /// What happened, in a word or two.
    pub label: String,
    /// How its bar looks.
    #[serde(default)]
    pub fill: SpanFill,
    /// What else a reader should see when pointing at it, line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// How the bar of a [`Span`] looks: two kinds of spans can be told apart by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanFill {
    /// Filled with the colour of its series.
    #[default]
    Solid,
    /// An outline in that colour.
    Hollow,
}

impl TimelineChart {
    /// A chart without rows and spans.
    pub fn new<S: Into<String>>(
        title: impl Into<String>,
        time: Axis,
        series: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            time,
            series: series.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            span_label: String::new(),
            spans: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Sets the line under the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Adds a row under the others.
    pub fn row(mut self, row: TimelineRow) -> Self {
        self.rows.push(row);
        self
    }

    /// Sets what happened, and what such spans are called.
    pub fn spans(
        mut self,
        label: impl Into<String>,
        spans: impl IntoIterator<Item = Span>,
    ) -> Self {
        self.span_label = label.into();
        self.spans = spans.into_iter().collect();
        self
    }

    /// Adds a sentence under the chart.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The spans that belong to a series.
    pub(crate) fn placed(&self) -> impl Iterator<Item = &Span> {
        let belongs = |span: &&Span| span.series < self.series.len();
        self.spans.iter().filter(belongs)
    }

    pub(crate) fn n_points(&self) -> usize {
        self.placed().count()
    }
}

impl TimelineRow {
    /// A row of lines: for each series one value for each time.
    pub fn new(value: Axis, times: Vec<f64>, values: Vec<Vec<Option<f64>>>) -> Self {
        Self {
            value,
            times,
            values,
            arrangement: RowArrangement::default(),
            references: Vec::new(),
        }
    }

    /// Puts the series on top of each other.
    pub fn stacked(mut self) -> Self {
        self.arrangement = RowArrangement::Stacked;
        self
    }

    /// Adds a value that others are to be compared with.
    pub fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.references.push(Reference::new(value, label));
        self
    }
}
