//! One timeline in its box: heading, legend, tracks of spans, rows of lines, time axis, notes.

use crate::drawing::{Dot, Lane, Ruler, Stretch, Timeline, Track};
use crate::svg::axis::{Turn, caption_style, label_beside, label_under, tick_style, widest};
use crate::svg::frame::{heading, notes};
use crate::svg::text::{self, Anchor, Ink as TextInk, Style};
use crate::svg::writer::{Px, Svg};
use crate::svg::{legend, marks};
use crate::theme::Ink;

/// Height of a track with its share of the space around it, and of its bars.
const TRACK: (f64, f64) = (18.0, 12.0);
/// Height of a row's plot.
const ROW: f64 = 116.0;
/// Height of a row's caption.
const CAPTION: f64 = 27.0;
/// Longest name of a track that is written in full.
const NAME: f64 = 120.0;
/// Opacity of areas, and of what shades the rows while a span lasts.
const OPACITY: (f64, f64) = (0.42, 0.13);
/// How the lines of series look whose colours are the same.
const DASHES: [&str; 3] = ["none", "7 3", "2 4"];

/// Draws a timeline and returns the height it takes.
pub(crate) fn draw(svg: &mut Svg, timeline: &Timeline, (left, top): (f64, f64), width: f64) -> f64 {
    let mut y = top;
    y += heading(svg, (left, y), width, &timeline.title, &timeline.subtitle);
    y += 6.0 + legend::timeline(svg, timeline, (left, y + 4.0), width);
    let stage = Stage::new(timeline, (left, y), width);
    stage.shades(svg);
    stage.tracks(svg, left);
    for (i, lane) in timeline.lanes.iter().enumerate() {
        stage.lane(svg, i, lane, left);
    }
    stage.time(svg);
    y = stage.bottom() + Turn::Upright.height(&timeline.time) + 26.0;
    y += notes(svg, (left, y), width, &timeline.notes);
    y - top
}

/// Where the tracks and rows are.
struct Stage<'a> {
    timeline: &'a Timeline,
    left: f64,
    width: f64,
    /// Where the tracks begin.
    top: f64,
}

impl<'a> Stage<'a> {
    fn new(timeline: &'a Timeline, (left, top): (f64, f64), width: f64) -> Self {
        let names = timeline.tracks.iter().map(|track| {
            let name = &timeline.series[track.series];
            text::width(name, tick_style()).min(NAME)
        });
        let ticks = timeline.lanes.iter().map(|lane| widest(&lane.value));
        let labels = names.chain(ticks).fold(0.0, f64::max) + 10.0;
        let caption = if timeline.tracks.is_empty() {
            0.0
        } else {
            CAPTION - 5.0
        };
        Self {
            timeline,
            left: left + labels,
            width: (width - labels - 8.0).max(40.0),
            top: top + caption,
        }
    }

    fn x(&self, at: f64) -> f64 {
        self.left + self.timeline.time.share(at) * self.width
    }

    /// Where the captions of the rows begin.
    fn rows_top(&self) -> f64 {
        self.top + self.timeline.tracks.len() as f64 * TRACK.0
    }

    fn lane_top(&self, index: usize) -> f64 {
        self.rows_top() + (index as f64 + 1.0) * CAPTION + index as f64 * ROW
    }

    fn bottom(&self) -> f64 {
        self.rows_top() + self.timeline.lanes.len() as f64 * (CAPTION + ROW)
    }

    /// Where a value of a row is drawn.
    fn place(&self, index: usize, ruler: &Ruler, at: f64, value: f64) -> (f64, f64) {
        let bottom = self.lane_top(index) + ROW;
        (self.x(at), bottom - ruler.share(value) * ROW)
    }

    /// Shades all rows while something happens.
    fn shades(&self, svg: &mut Svg) {
        for track in &self.timeline.tracks {
            let colour = svg.palette.series[Ink::of(track.series).colour];
            for stretch in &track.stretches {
                let (from, to) = (self.x(stretch.from), self.x(stretch.to));
                svg.leaf(
                    "rect",
                    &[
                        ("class", &"shade"),
                        ("x", &Px(from)),
                        ("y", &Px(self.top)),
                        ("width", &Px((to - from).max(0.5))),
                        ("height", &Px(self.bottom() - self.top)),
                        ("fill", &colour),
                        ("fill-opacity", &OPACITY.1),
                    ],
                );
            }
        }
    }

    fn tracks(&self, svg: &mut Svg, left: f64) {
        if !self.timeline.tracks.is_empty() {
            svg.text(
                left,
                self.top - 8.0,
                &self.timeline.span_label,
                caption_style(),
            );
        }
        for (i, track) in self.timeline.tracks.iter().enumerate() {
            let middle = self.top + (i as f64 + 0.5) * TRACK.0;
            let end = self.left + self.width;
            svg.line((self.left, middle), (end, middle), svg.palette.grid, 1.0);
            label_beside(
                svg,
                (self.left, middle),
                &self.timeline.series[track.series],
                NAME,
            );
            self.stretches(svg, track, middle);
        }
    }

    /// The spans of one track, each one element of class `point`, with their names where there is
    /// room before the next.
    fn stretches(&self, svg: &mut Svg, track: &Track, middle: f64) {
        let colour = svg.palette.series[Ink::of(track.series).colour];
        let end = self.left + self.width;
        let next = track.stretches.iter().skip(1).map(|s| self.x(s.from));
        for (stretch, next) in track.stretches.iter().zip(next.chain([end + 8.0])) {
            svg.open("g", &[("class", &"point span")]);
            svg.hint(&stretch.words);
            let (from, to) = (self.x(stretch.from), self.x(stretch.to));
            let corner = (from, middle - TRACK.1 / 2.0);
            marks::span(
                svg,
                corner,
                ((to - from).max(1.6), TRACK.1),
                colour,
                stretch.fill,
            );
            self.name(svg, stretch, (to, middle), next);
            svg.close("g");
        }
    }

    fn name(&self, svg: &mut Svg, stretch: &Stretch, (to, middle): (f64, f64), next: f64) {
        let style = Style::new(10.5, TextInk::Muted);
        if to + 3.0 + text::width(&stretch.label, style) <= next {
            svg.text_on_surface(to + 3.0, middle + 3.6, &stretch.label, style);
        }
    }

    fn lane(&self, svg: &mut Svg, index: usize, lane: &Lane, left: f64) {
        let top = self.lane_top(index);
        svg.text(left, top - 9.0, &lane.value.caption, caption_style());
        let (start, end) = self.timeline.time.range;
        for tick in &lane.value.ticks {
            let a = self.place(index, &lane.value, start, tick.at);
            let b = self.place(index, &lane.value, end, tick.at);
            let is_base = tick.at == lane.value.range.0;
            let colour = if is_base {
                svg.palette.axis
            } else {
                svg.palette.grid
            };
            svg.line(a, b, colour, 1.0);
            label_beside(svg, (self.left, a.1), &tick.text, NAME);
        }
        for thread in &lane.threads {
            let colour = svg.palette.series[Ink::of(thread.series).colour];
            for band in &thread.band {
                let place = |at: f64, value: f64| self.place(index, &lane.value, at, value);
                let upper = band.iter().map(|(at, _, high)| place(*at, *high));
                let lower = band.iter().rev().map(|(at, low, _)| place(*at, *low));
                marks::area(svg, upper.chain(lower), colour, OPACITY.0);
            }
        }
        for thread in &lane.threads {
            let ink = Ink::of(thread.series).colour;
            let dash = DASHES[thread.series / Ink::COLOURS % DASHES.len()];
            for run in &thread.runs {
                let place = |dot: &Dot| self.place(index, &lane.value, dot.at, dot.value);
                marks::line(svg, run.iter().map(place), svg.palette.series[ink], dash);
            }
        }
        for reference in &lane.references {
            let a = self.place(index, &lane.value, start, reference.value);
            let b = self.place(index, &lane.value, end, reference.value);
            marks::reference(svg, (a, b), &reference.label, top - CAPTION);
        }
    }

    /// The axis of time, under all rows.
    fn time(&self, svg: &mut Svg) {
        let bottom = self.bottom();
        for tick in &self.timeline.time.ticks {
            let x = self.x(tick.at);
            svg.line((x, bottom), (x, bottom + 4.0), svg.palette.axis, 1.0);
            label_under(svg, (x, bottom), &tick.text, Turn::Upright);
        }
        let middle = self.left + self.width / 2.0;
        let y = bottom + Turn::Upright.height(&self.timeline.time) + 14.0;
        let style = caption_style().anchored(Anchor::Middle);
        svg.text(middle, y, &self.timeline.time.caption, style);
    }
}
