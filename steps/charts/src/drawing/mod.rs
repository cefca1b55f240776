//! A chart on its way to a renderer: where everything is in the axes' own units, which points
//! are joined, what has no place on the scale, and what is said about each value.
//!
//! SVG and the interactive figures are both drawn from this, so that they cannot disagree.
//! Knows no pixels and no colours beyond "the n-th series".

mod bars;
mod heatmap;
mod line;
mod ruler;
mod timeline;
mod words;

pub(crate) use heatmap::{Cell, Content, Grid};
pub(crate) use ruler::{Labels, Ruler, Tick};
pub(crate) use timeline::{Dot, Lane, Stretch, Thread, Timeline, Track};

use crate::model::{Chart, Direction, Panel, PanelScales, Panels, Reference};
use crate::reading::Grade;
use crate::theme::Ink;

/// A chart laid out: alone, or beside others under one heading.
#[derive(Debug)]
pub(crate) enum Layout {
    Alone(Box<Sheet>),
    SideBySide {
        title: String,
        subtitle: String,
        sheets: Vec<Sheet>,
    },
}

/// One chart ready to be drawn, whatever it is made of.
#[derive(Debug)]
pub(crate) enum Sheet {
    Plot(Drawing),
    Grid(Grid),
    Timeline(Timeline),
}

impl Layout {
    /// Lays out a chart.
    pub(crate) fn of(chart: &Chart) -> Self {
        let sheet = match chart {
            Chart::Line(chart) => Sheet::Plot(line::draw(chart)),
            Chart::Bar(chart) => Sheet::Plot(bars::draw(chart)),
            Chart::Heatmap(chart) => Sheet::Grid(heatmap::draw(chart)),
            Chart::Timeline(chart) => Sheet::Timeline(timeline::draw(chart)),
            Chart::Panels(panels) => return Self::side_by_side(panels),
        };
        Self::Alone(Box::new(sheet))
    }

    fn side_by_side(panels: &Panels) -> Self {
        Self::SideBySide {
            title: panels.title.clone(),
            subtitle: panels.subtitle.clone(),
            sheets: sheets(panels),
        }
    }
}

fn sheets(panels: &Panels) -> Vec<Sheet> {
    let lines: Vec<_> = panels
        .panels
        .iter()
        .filter_map(|panel| match panel {
            Panel::Line(chart) => Some(chart),
            _ => None,
        })
        .collect();
    let sheet = |panel: &Panel| match (panel, panels.scales) {
        (Panel::Line(chart), PanelScales::Shared) => Sheet::Plot(line::draw_beside(chart, &lines)),
        (panel, _) => Sheet::of(panel),
    };
    panels.panels.iter().map(sheet).collect()
}

impl Sheet {
    /// Lays out one chart.
    pub(crate) fn of(panel: &Panel) -> Self {
        match panel {
            Panel::Line(chart) => Self::Plot(line::draw(chart)),
            Panel::Bar(chart) => Self::Plot(bars::draw(chart)),
            Panel::Heatmap(chart) => Self::Grid(heatmap::draw(chart)),
            Panel::Timeline(chart) => Self::Timeline(timeline::draw(chart)),
        }
    }

    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Plot(drawing) => &drawing.title,
            Self::Grid(grid) => &grid.title,
            Self::Timeline(timeline) => &timeline.title,
        }
    }

    pub(crate) fn subtitle(&self) -> &str {
        match self {
            Self::Plot(drawing) => &drawing.subtitle,
            Self::Grid(grid) => &grid.subtitle,
            Self::Timeline(timeline) => &timeline.subtitle,
        }
    }

    pub(crate) fn notes(&self) -> &[String] {
        match self {
            Self::Plot(drawing) => &drawing.notes,
            Self::Grid(grid) => &grid.notes,
            Self::Timeline(timeline) => &timeline.notes,
        }
    }

    /// The grades that are to be explained, see [`Drawing::grades`].
    pub(crate) fn grades(&self) -> Vec<Grade> {
        match self {
            Self::Plot(drawing) => drawing.grades(),
            Self::Grid(grid) => grid.grades(),
            Self::Timeline(_) => Vec::new(),
        }
    }

    /// The reasons for being off the scale that are to be explained.
    pub(crate) fn off_scale(&self) -> Vec<OffScale> {
        match self {
            Self::Plot(drawing) => drawing.off_scale(),
            Self::Grid(grid) => grid.off_scale(),
            Self::Timeline(_) => Vec::new(),
        }
    }
}

/// Each of `seen` once, in order.
fn distinct<T: Ord>(seen: impl Iterator<Item = T>) -> Vec<T> {
    let mut found: Vec<T> = seen.collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Lines or bars ready to be drawn.
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
    /// Values that others are to be compared with, those that the value axis holds.
    pub(crate) references: Vec<Reference>,
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
    /// All marks, series by series.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.series.iter().flat_map(|series| &series.marks)
    }

    /// The grades that occur among marks on the scale, best first; none if all are valid,
    /// because then there is nothing to explain.
    pub(crate) fn grades(&self) -> Vec<Grade> {
        let on_scale = |mark: &&Mark| matches!(mark.place, Place::Dot { .. } | Place::Bar { .. });
        let grades = distinct(self.marks().filter(on_scale).map(|mark| mark.grade));
        if grades == [Grade::Valid] {
            Vec::new()
        } else {
            grades
        }
    }

    /// Which reasons for being off the scale occur.
    pub(crate) fn off_scale(&self) -> Vec<OffScale> {
        distinct(self.marks().filter_map(|mark| match mark.place {
            Place::OffScale { why, .. } => Some(why),
            _ => None,
        }))
    }

    /// Whether the chart is made of bars.
    pub(crate) fn has_bars(&self) -> bool {
        self.base.labels == Labels::Categories
    }
}
