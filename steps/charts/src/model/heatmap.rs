//! Heatmaps: one value for each pair of a column and a row, read from colours.

use serde::{Deserialize, Serialize};

use crate::model::Axis;
use crate::reading::Reading;

/// Values against two lists of categories, one coloured cell for each pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatmapChart {
    /// Title.
    pub title: String,
    /// One more line under the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// What the columns are, for example `request rate (requests/s)`; may be empty.
    #[serde(default)]
    pub column_label: String,
    /// What the rows are; may be empty.
    #[serde(default)]
    pub row_label: String,
    /// What was measured. Its scale says how values are spaced along the colours.
    pub value: Axis,
    /// The columns, left to right.
    pub columns: Vec<String>,
    /// The rows, top to bottom.
    pub rows: Vec<String>,
    /// For each row one value for each column. Absent ones count as missing.
    pub cells: Vec<Vec<Reading>>,
    /// Which colours stand for which values.
    #[serde(default)]
    pub colours: Colours,
    /// Sentences printed under the chart.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Which colours stand for which values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colours {
    /// One hue, the stronger the larger the value.
    #[default]
    Sequential,
    /// Two hues, the stronger the farther the value is from zero; always linear.
    Diverging {
        /// What values below zero mean; may be empty.
        below: String,
        /// What values above zero mean; may be empty.
        above: String,
    },
}

impl HeatmapChart {
    /// A chart without rows.
    pub fn new<C: Into<String>>(
        title: impl Into<String>,
        value: Axis,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            column_label: String::new(),
            row_label: String::new(),
            value,
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            cells: Vec::new(),
            colours: Colours::default(),
            notes: Vec::new(),
        }
    }

    /// Sets the line under the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Sets what the columns and the rows are.
    pub fn labels(mut self, columns: impl Into<String>, rows: impl Into<String>) -> Self {
        (self.column_label, self.row_label) = (columns.into(), rows.into());
        self
    }

    /// Adds a row under the others, with one value for each column.
    pub fn row<R: Into<Reading>>(
        mut self,
        name: impl Into<String>,
        cells: impl IntoIterator<Item = R>,
    ) -> Self {
        self.rows.push(name.into());
        self.cells.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// Colours values by how far they are from zero, and says what either side means.
    pub fn diverging(mut self, below: impl Into<String>, above: impl Into<String>) -> Self {
        self.colours = Colours::Diverging {
            below: below.into(),
            above: above.into(),
        };
        self
    }

    /// Adds a sentence under the chart.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    pub(crate) fn n_points(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}
