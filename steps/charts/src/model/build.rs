//! Putting charts together piece by piece, and using one kind where any is wanted.

use crate::model::{
    Arrangement, Axis, BarChart, BarSeries, Chart, Direction, HeatmapChart, IntervalStyle,
    LineChart, Panel, PanelScales, Panels, Point, Reference, Scale, Series, TimelineChart,
};
use crate::reading::Reading;

impl Axis {
    /// A linear axis. `unit` may be empty.
    pub fn new(label: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            unit: unit.into(),
            scale: Scale::Linear,
        }
    }

    /// Makes the axis logarithmic.
    pub fn log(mut self) -> Self {
        self.scale = Scale::Log;
        self
    }
}

impl LineChart {
    /// A chart without series.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            x,
            y,
            series: Vec::new(),
            intervals: IntervalStyle::default(),
            references: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Sets the line under the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Adds a series.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Draws intervals as bands instead of whiskers.
    pub fn bands(mut self) -> Self {
        self.intervals = IntervalStyle::Band;
        self
    }

    /// Adds a value that others are to be compared with.
    pub fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.references.push(Reference::new(value, label));
        self
    }

    /// Adds a sentence under the chart.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }
}

impl Series {
    /// A series without points.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ink: None,
            points: Vec::new(),
        }
    }

    /// Gives the series the colour and marker that the `ink`-th series of a chart has by itself.
    pub fn ink(mut self, ink: usize) -> Self {
        self.ink = Some(ink);
        self
    }

    /// Adds a point. A plain `f64` is a valid reading of which nothing else is known.
    pub fn point(mut self, x: f64, y: impl Into<Reading>) -> Self {
        self.points.push(Point::new(x, y));
        self
    }
}

impl Point {
    /// A point at `x`.
    pub fn new(x: f64, y: impl Into<Reading>) -> Self {
        Self { x, y: y.into() }
    }
}

impl Reference {
    /// A value with its name.
    pub fn new(value: f64, label: impl Into<String>) -> Self {
        Self {
            value,
            label: label.into(),
        }
    }
}

impl BarChart {
    /// A chart without series.
    pub fn new<C: Into<String>>(
        title: impl Into<String>,
        value: Axis,
        categories: impl IntoIterator<Item = C>,
    ) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            category_label: String::new(),
            value,
            categories: categories.into_iter().map(Into::into).collect(),
            series: Vec::new(),
            arrangement: Arrangement::default(),
            direction: Direction::default(),
            notes: Vec::new(),
        }
    }

    /// Sets the line under the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Sets what the categories are.
    pub fn category_label(mut self, text: impl Into<String>) -> Self {
        self.category_label = text.into();
        self
    }

    /// Adds a series with one value for each category.
    pub fn series<R: Into<Reading>>(
        mut self,
        name: impl Into<String>,
        bars: impl IntoIterator<Item = R>,
    ) -> Self {
        let bars = bars.into_iter().map(Into::into).collect();
        self.series.push(BarSeries {
            name: name.into(),
            bars,
        });
        self
    }

    /// Puts the series on each other.
    pub fn stacked(mut self) -> Self {
        self.arrangement = Arrangement::Stacked;
        self
    }

    /// Lets the bars grow to the right.
    pub fn horizontal(mut self) -> Self {
        self.direction = Direction::Horizontal;
        self
    }

    /// Adds a sentence under the chart.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }
}

impl Panels {
    /// A title without charts.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            panels: Vec::new(),
            scales: PanelScales::default(),
        }
    }

    /// Sets the line under the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Gives all line charts the same scales.
    pub fn same_scales(mut self) -> Self {
        self.scales = PanelScales::Shared;
        self
    }

    /// Adds a chart.
    pub fn panel(mut self, panel: impl Into<Panel>) -> Self {
        self.panels.push(panel.into());
        self
    }
}

/// Lets a chart of one kind be used wherever any chart is wanted.
macro_rules! chart_from {
    ($($kind:ident => $target:ident :: $variant:ident),* $(,)?) => {
        $(impl From<$kind> for $target {
            fn from(chart: $kind) -> Self {
                $target::$variant(chart)
            }
        })*
    };
}

chart_from! {
    LineChart => Chart::Line,
    BarChart => Chart::Bar,
    HeatmapChart => Chart::Heatmap,
    TimelineChart => Chart::Timeline,
    Panels => Chart::Panels,
    LineChart => Panel::Line,
    BarChart => Panel::Bar,
    HeatmapChart => Panel::Heatmap,
    TimelineChart => Panel::Timeline,
}
