//! One chart in its box: heading, legend, plot with its axes, explanations and notes.

use crate::drawing::{Drawing, Labels, Ruler, Strokes, Tick};
use crate::model::{Direction, Reference};
use crate::svg::axis::{CATEGORY, Turn, caption_style, label_beside, label_under, widest};
use crate::svg::frame::{heading, notes};
use crate::svg::text::Anchor;
use crate::svg::writer::{Px, Svg};
use crate::svg::{legend, marks};

/// Height of a plot whose values stand upright.
const PLOT_HEIGHT: f64 = 290.0;
/// Height of one lying bar with its share of the space around it, and the least of a category.
const ROW: (f64, f64) = (20.0, 34.0);
/// Room for values that are off the scale.
const STRIP: f64 = 26.0;

/// Room that the name of a reference needs.
const NAME_HEIGHT: f64 = 18.0;

/// A chart at a place in a document.
pub(crate) struct Figure<'a> {
    drawing: &'a Drawing,
    left: f64,
    top: f64,
    width: f64,
}

/// The plotting area, and where axis values fall in it.
pub(crate) struct Plot<'a> {
    drawing: &'a Drawing,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Plot<'_> {
    /// Where a value at a place on the base axis is drawn.
    pub(crate) fn at(&self, base: f64, value: f64) -> (f64, f64) {
        let (along, up) = (
            self.drawing.base.share(base),
            self.drawing.value.share(value),
        );
        match self.drawing.direction {
            Direction::Vertical => (
                self.left + along * self.width,
                self.bottom() - up * self.height,
            ),
            // Categories are read from the top.
            Direction::Horizontal => (self.left + up * self.width, self.top + along * self.height),
        }
    }

    /// Where a value that is off the scale is drawn.
    pub(crate) fn in_strip(&self, base: f64) -> (f64, f64) {
        let end = self.at(base, self.drawing.value.range.1);
        match self.drawing.direction {
            Direction::Vertical => (end.0, end.1 - STRIP / 2.0 - 3.0),
            Direction::Horizontal => (end.0 + STRIP / 2.0 + 3.0, end.1),
        }
    }

    /// A step of `length` along the base axis.
    pub(crate) fn across(&self, length: f64) -> (f64, f64) {
        match self.drawing.direction {
            Direction::Vertical => (length, 0.0),
            Direction::Horizontal => (0.0, length),
        }
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    fn right(&self) -> f64 {
        self.left + self.width
    }
}

impl<'a> Figure<'a> {
    pub(crate) fn new(drawing: &'a Drawing, left: f64, top: f64, width: f64) -> Self {
        Self {
            drawing,
            left,
            top,
            width,
        }
    }

    /// Draws everything and returns the height it takes.
    pub(crate) fn draw(&self, svg: &mut Svg) -> f64 {
        let (x, room) = (self.left, self.width);
        let mut y = self.top;
        y += heading(
            svg,
            (x, y),
            room,
            &self.drawing.title,
            &self.drawing.subtitle,
        );
        y += 6.0 + legend::series(svg, self.drawing, x, y + 4.0, room);
        let plot = self.plot(y);
        self.axes(svg, &plot);
        self.data(svg, &plot);
        y = plot.bottom() + self.below();
        let (grades, gaps) = (self.drawing.grades(), self.drawing.off_scale());
        y += legend::meanings(svg, &grades, &gaps, (x, y), room);
        y += notes(svg, (x, y), room, &self.drawing.notes);
        y - self.top
    }

    /// The plotting area when the head ends at `y`.
    fn plot(&self, y: f64) -> Plot<'a> {
        let drawing = self.drawing;
        let (upright, side) = match drawing.direction {
            Direction::Vertical => (&drawing.value, 8.0),
            Direction::Horizontal => (&drawing.base, 14.0),
        };
        let caption = if upright.caption.is_empty() {
            8.0
        } else {
            26.0
        };
        let labels = widest(upright).min(CATEGORY) + 10.0;
        let strip = if drawing.off_scale().is_empty() {
            0.0
        } else {
            STRIP
        };
        let (above, beside) = match drawing.direction {
            Direction::Vertical => (strip, 0.0),
            Direction::Horizontal => (0.0, strip),
        };
        Plot {
            drawing,
            left: self.left + labels,
            top: y + caption + above,
            width: (self.width - labels - side - beside).max(40.0),
            height: self.plot_height(),
        }
    }

    fn plot_height(&self) -> f64 {
        match self.drawing.direction {
            Direction::Vertical => PLOT_HEIGHT,
            Direction::Horizontal => {
                let bars = if self.drawing.stacked {
                    1
                } else {
                    self.drawing.series.len()
                };
                let categories = self.drawing.base.ticks.len().max(1);
                categories as f64 * (bars as f64 * ROW.0 + 10.0).max(ROW.1)
            }
        }
    }

    /// Grid, tick labels, captions.
    fn axes(&self, svg: &mut Svg, plot: &Plot<'_>) {
        let (lying, standing) = match self.drawing.direction {
            Direction::Vertical => (&self.drawing.base, &self.drawing.value),
            Direction::Horizontal => (&self.drawing.value, &self.drawing.base),
        };
        for tick in &self.drawing.value.ticks {
            let (a, b) = self.grid_line(plot, tick.at);
            svg.line(a, b, svg.palette.grid, 1.0);
        }
        let base_at = self.drawing.value.cut(0.0);
        let (a, b) = self.grid_line(plot, base_at);
        svg.line(a, b, svg.palette.axis, 1.2);
        self.labels_beside(svg, plot, standing);
        self.labels_under(svg, plot, lying);
        self.strip_line(svg, plot);
        let muted = caption_style();
        let above = plot.top - if self.has_strip_above() { STRIP } else { 0.0 };
        svg.text(self.left, above - 15.0, &standing.caption, muted);
        let middle = plot.left + plot.width / 2.0;
        let y = plot.bottom() + self.below() - 12.0;
        svg.text(middle, y, &lying.caption, muted.anchored(Anchor::Middle));
    }

    fn grid_line(&self, plot: &Plot<'_>, value: f64) -> ((f64, f64), (f64, f64)) {
        let (low, high) = self.drawing.base.range;
        (plot.at(low, value), plot.at(high, value))
    }

    fn has_strip_above(&self) -> bool {
        self.drawing.direction == Direction::Vertical && !self.drawing.off_scale().is_empty()
    }

    /// A value that others are to be compared with.
    fn reference(&self, svg: &mut Svg, plot: &Plot<'_>, reference: &Reference) {
        let (a, b) = self.grid_line(plot, reference.value);
        // Above the plot is room, unless values that are off the scale stand there.
        let room = if self.has_strip_above() {
            0.0
        } else {
            NAME_HEIGHT
        };
        marks::reference(svg, (a, b), &reference.label, plot.top - room);
    }

    /// Sets the strip for off-scale values apart from the plot.
    fn strip_line(&self, svg: &mut Svg, plot: &Plot<'_>) {
        if self.drawing.off_scale().is_empty() {
            return;
        }
        let (a, b) = match self.drawing.direction {
            Direction::Vertical => ((plot.left, plot.top - 4.0), (plot.right(), plot.top - 4.0)),
            Direction::Horizontal => (
                (plot.right() + 4.0, plot.top),
                (plot.right() + 4.0, plot.bottom()),
            ),
        };
        svg.leaf(
            "line",
            &[
                ("x1", &Px(a.0)),
                ("y1", &Px(a.1)),
                ("x2", &Px(b.0)),
                ("y2", &Px(b.1)),
                ("stroke", &svg.palette.axis),
                ("stroke-dasharray", &"2 4"),
            ],
        );
    }

    /// Tick labels of the upright axis.
    fn labels_beside(&self, svg: &mut Svg, plot: &Plot<'_>, ruler: &Ruler) {
        for tick in &ruler.ticks {
            let y = self.tick_at(plot, ruler, tick).1;
            label_beside(svg, (plot.left, y), &tick.text, CATEGORY);
        }
    }

    /// Tick labels of the lying axis, turned if they would not fit beside each other.
    fn labels_under(&self, svg: &mut Svg, plot: &Plot<'_>, ruler: &Ruler) {
        let turn = self.turn(plot.width);
        for tick in &ruler.ticks {
            let x = self.tick_at(plot, ruler, tick).0;
            svg.line(
                (x, plot.bottom()),
                (x, plot.bottom() + 4.0),
                svg.palette.axis,
                1.0,
            );
            label_under(svg, (x, plot.bottom()), &tick.text, turn);
        }
    }

    fn tick_at(&self, plot: &Plot<'_>, ruler: &Ruler, tick: &Tick) -> (f64, f64) {
        if std::ptr::eq(ruler, &self.drawing.base) {
            plot.at(tick.at, self.drawing.value.range.0)
        } else {
            plot.at(self.drawing.base.range.0, tick.at)
        }
    }

    /// How the labels under the plot stand.
    fn turn(&self, plot_width: f64) -> Turn {
        let base = &self.drawing.base;
        match (self.drawing.direction, base.labels) {
            (Direction::Vertical, Labels::Categories) => Turn::of_categories(base, plot_width),
            _ => Turn::Upright,
        }
    }

    /// Height of what stands under the plot: tick labels and caption.
    fn below(&self) -> f64 {
        let turn = self.turn(self.plot(0.0).width);
        let labels = turn.height(&self.drawing.base);
        let lying = match self.drawing.direction {
            Direction::Vertical => &self.drawing.base,
            Direction::Horizontal => &self.drawing.value,
        };
        labels + if lying.caption.is_empty() { 4.0 } else { 26.0 }
    }

    /// Bands first, then lines, then marks, so that marks are never hidden.
    fn data(&self, svg: &mut Svg, plot: &Plot<'_>) {
        for series in &self.drawing.series {
            bands(svg, plot, series);
        }
        for series in &self.drawing.series {
            lines(svg, plot, series);
        }
        for reference in &self.drawing.references {
            self.reference(svg, plot, reference);
        }
        for series in &self.drawing.series {
            for mark in &series.marks {
                marks::point(svg, plot, series.ink, mark);
            }
        }
    }
}

fn bands(svg: &mut Svg, plot: &Plot<'_>, series: &Strokes) {
    for band in &series.band {
        let upper = band.iter().map(|(at, _, high)| plot.at(*at, *high));
        let lower = band.iter().rev().map(|(at, low, _)| plot.at(*at, *low));
        let colour = svg.palette.series[series.ink.colour];
        marks::area(svg, upper.chain(lower), colour, 0.16);
    }
}

fn lines(svg: &mut Svg, plot: &Plot<'_>, series: &Strokes) {
    let colour = svg.palette.series[series.ink.colour];
    let place = |(at, value): &(f64, f64)| plot.at(*at, *value);
    let dotted = series.dotted.iter().map(|pair| (pair.as_slice(), "1.5 4"));
    let solid = series.solid.iter().map(|run| (run.as_slice(), "none"));
    for (run, dash) in solid.chain(dotted) {
        marks::line(svg, run.iter().map(place), colour, dash);
    }
}
