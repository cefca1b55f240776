//! A chart on its way to a renderer: where everything is in the axes' own units, which points
//! are joined, what has no place on the scale, and what is said about each value.
//!
//! SVG and the interactive figures are both drawn from this, so that they cannot disagree.
//! Knows no pixels and no colours beyond "the n-th series".

mod bars;
mod line;
mod ruler;
mod words;

pub(crate) use ruler::{Labels, Ruler, Tick};

use crate::model::{Direction, Panel};
use crate::reading::Grade;
use crate::theme::Ink;

/// A chart ready to be drawn.
#[derive(Debug)]
pub(crate) struct Drawing {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// The axis that points or categories are placed along.
    pub(crate) base: Ruler,
    /// The axis that values are read from.
    pub(crate) value: Ruler,
    /// `Vertical`: the value axis stands. `Horizontal`: it lies.
    pub(crate) direction: Direction,
    pub(crate) stacked: bool,
    pub(crate) series: Vec<Strokes>,
    pub(crate) notes: Vec<String>,
}

/// Everything drawn in one ink.
#[derive(Debug)]
pub(crate) struct Strokes {
    pub(crate) name: String,
    pub(crate) ink: Ink,
    /// Solid lines: runs of neighbours that are both to be believed.
    pub(crate) solid: Vec<Vec<(f64, f64)>>,
    /// Dotted lines: steps from or to a point that is invalid or beyond the scale of x.
    pub(crate) dotted: Vec<[(f64, f64); 2]>,
    /// Shaded intervals: runs of `(base, low, high)`.
    pub(crate) band: Vec<Vec<(f64, f64, f64)>>,
    pub(crate) marks: Vec<Mark>,
}

/// One value. There is exactly one for each value in the chart.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) place: Place,
    pub(crate) grade: Grade,
    /// Ends of the whisker, cut to the value axis.
    pub(crate) whisker: Option<(f64, f64)>,
    /// What is said about the value, line by line; the first line is the series.
    pub(crate) words: Vec<String>,
}

/// Where a value is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// A marker.
    Dot { at: f64, value: f64 },
    /// A bar of `width` around `at`.
    Bar {
        at: f64,
        width: f64,
        from: f64,
        to: f64,
    },
    /// In the strip beside the plot for what its scale has no place for.
    OffScale { at: f64, why: OffScale },
    /// Nowhere: the base axis has no place for it. Counted in a note.
    Unplaced,
}

/// Why a value is not on its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OffScale {
    /// It is infinite.
    Infinite,
    /// There is none.
    Missing,
    /// It is zero or negative and the scale is logarithmic.
    NotPositive,
}

impl OffScale {
    /// How the legend explains the mark.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            OffScale::Infinite => "infinite",
            OffScale::Missing => "missing",
            OffScale::NotPositive => "zero or less, not on a log scale",
        }
    }
}

impl Drawing {
    /// Lays out one chart.
    pub(crate) fn of(panel: &Panel) -> Self {
        match panel {
            Panel::Line(chart) => line::draw(chart),
            Panel::Bar(chart) => bars::draw(chart),
        }
    }

    /// All marks, series by series.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.series.iter().flat_map(|series| &series.marks)
    }

    /// The grades that occur among marks on the scale, best first; none if all are valid,
    /// because then there is nothing to explain.
    pub(crate) fn grades(&self) -> Vec<Grade> {
        let on_scale = |mark: &&Mark| matches!(mark.place, Place::Dot { .. } | Place::Bar { .. });
        let mut grades: Vec<Grade> = self
            .marks()
            .filter(on_scale)
            .map(|mark| mark.grade)
            .collect();
        grades.sort_unstable();
        grades.dedup();
        if grades == [Grade::Valid] {
            Vec::new()
        } else {
            grades
        }
    }

    /// Which reasons for being off the scale occur.
    pub(crate) fn off_scale(&self) -> Vec<OffScale> {
        let mut reasons: Vec<OffScale> = self
            .marks()
            .filter_map(|mark| match mark.place {
                Place::OffScale { why, .. } => Some(why),
                _ => None,
            })
            .collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }

    /// Whether the chart is made of bars.
    pub(crate) fn has_bars(&self) -> bool {
        self.base.labels == Labels::Categories
    }
}
