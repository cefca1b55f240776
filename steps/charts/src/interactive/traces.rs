//! What plotly.js draws: for each series a sample for the legend, bands, lines, and one trace
//! of marks for each grade and each reason for being off the scale.

use plotly::common::{
    DashType, ErrorData, ErrorType, Fill, Font, HoverInfo, Line, Marker, MarkerSymbol, Mode,
    Orientation, Position,
};
use plotly::{Bar, Scatter, Trace};

use crate::drawing::{Drawing, Mark, OffScale, Place, Strokes};
use crate::interactive::{Traces, plain};
use crate::model::{Direction, Reference};
use crate::reading::Grade;
use crate::theme::{Ink, Shape};

/// Height of a marker in pixels.
const SIZE: usize = 10;

pub(super) type Numbers = Vec<Option<f64>>;

/// All traces, those to be hidden by others first.
pub(crate) fn of(drawing: &Drawing) -> Traces {
    let each = |part: &dyn Fn(usize, &Strokes) -> Traces| {
        let series = drawing.series.iter().enumerate();
        series
            .flat_map(|(i, strokes)| part(i, strokes))
            .collect::<Vec<_>>()
    };
    let mut traces = each(&|i, strokes| vec![sample(drawing, i, strokes)]);
    traces.extend(each(&|i, strokes| bands(i, strokes)));
    traces.extend(each(&|i, strokes| lines(i, strokes)));
    let across = |r: &Reference| -> Box<dyn Trace> {
        // Where values are off the scale, there is no room above it.
        let is_high = drawing.value.share(r.value) > 0.85 && !drawing.off_scale().is_empty();
        let name = if is_high {
            Position::BottomLeft
        } else {
            Position::TopLeft
        };
        reference(r, drawing.base.range, name)
    };
    traces.extend(drawing.references.iter().map(across));
    traces.extend(each(&|i, strokes| marks(drawing, i, strokes)));
    traces
}

/// A value that others are to be compared with, across a plot between two places, with its name
/// at the right end of the line.
pub(super) fn reference(
    reference: &Reference,
    (from, to): (f64, f64),
    name: Position,
) -> Box<Scatter<Option<f64>, Option<f64>>> {
    let value = Some(reference.value);
    let line = Line::new().color("@muted").width(1.4).dash(DashType::Dash);
    Scatter::new(vec![Some(from), Some(to)], vec![value, value])
        .show_legend(false)
        .mode(Mode::LinesText)
        .line(line)
        .text_array(vec![String::new(), plain(&reference.label)])
        .text_position(name)
        .clip_on_axis(false)
        .text_font(Font::new().size(12).color("@muted"))
        .hover_info(HoverInfo::Skip)
}

/// The colour token of a series, with an opacity.
pub(super) fn token(ink: Ink, opacity: f64) -> String {
    format!("@series{}/{opacity}", ink.colour)
}

/// Ties a series' traces together, so that its legend entry hides them all.
pub(super) fn group(index: usize) -> String {
    format!("series{index}")
}

/// A trace without data that stands in the legend, solid whatever the grades of the points.
fn sample(drawing: &Drawing, index: usize, strokes: &Strokes) -> Box<dyn Trace> {
    let sample = scatter(index, vec![None], vec![None])
        .name(plain(&strokes.name))
        .show_legend(!strokes.name.is_empty());
    if drawing.has_bars() {
        // Not a bar: plotly.js would draw an empty one.
        return sample.mode(Mode::Markers).marker(square(strokes.ink));
    }
    sample
        .mode(Mode::LinesMarkers)
        .line(Line::new().color(token(strokes.ink, 1.0)).width(2.0))
        .marker(marker(strokes.ink, Grade::Valid))
}

pub(super) fn scatter(
    index: usize,
    x: Numbers,
    y: Numbers,
) -> Box<Scatter<Option<f64>, Option<f64>>> {
    Scatter::new(x, y)
        .legend_group(group(index))
        .show_legend(false)
}

fn bands(index: usize, strokes: &Strokes) -> Traces {
    let colour = || token(strokes.ink, 0.16);
    let outline = |band: &Vec<_>| -> Box<dyn Trace> { area(index, band, colour()) };
    strokes.band.iter().map(outline).collect()
}

/// An area between a lower and an upper line, given as `(base, low, high)`.
pub(super) fn area(
    index: usize,
    band: &[(f64, f64, f64)],
    colour: String,
) -> Box<Scatter<Option<f64>, Option<f64>>> {
    let upper = band.iter().map(|(at, _, high)| (Some(*at), Some(*high)));
    let lower = band
        .iter()
        .rev()
        .map(|(at, low, _)| (Some(*at), Some(*low)));
    let (x, y) = upper.chain(lower).unzip();
    scatter(index, x, y)
        .mode(Mode::Lines)
        .line(Line::new().width(0.0))
        .fill(Fill::ToSelf)
        .fill_color(colour)
        .hover_info(HoverInfo::Skip)
}

fn lines(index: usize, strokes: &Strokes) -> Traces {
    let solid = strokes.solid.iter().map(Vec::as_slice);
    let dotted = strokes.dotted.iter().map(<[_; 2]>::as_slice);
    let solid = joined(solid).map(|(x, y)| (x, y, DashType::Solid));
    let dotted = joined(dotted).map(|(x, y)| (x, y, DashType::Dot));
    let trace = |(x, y, dash): (Numbers, Numbers, DashType)| -> Box<dyn Trace> {
        scatter(index, x, y)
            .mode(Mode::Lines)
            .line(
                Line::new()
                    .color(token(strokes.ink, 1.0))
                    .width(2.0)
                    .dash(dash),
            )
            .connect_gaps(false)
            .hover_info(HoverInfo::Skip)
    };
    solid.into_iter().chain(dotted).map(trace).collect()
}

/// Strings runs together with a gap after each. `None` if there are none.
fn joined<'a>(runs: impl Iterator<Item = &'a [(f64, f64)]>) -> Option<(Numbers, Numbers)> {
    let (x, y): (Numbers, Numbers) = runs
        .flat_map(|run| {
            let points = run.iter().map(|(at, value)| (Some(*at), Some(*value)));
            points.chain([(None, None)])
        })
        .unzip();
    (!x.is_empty()).then_some((x, y))
}

/// The marks of a series, a trace for each way they look.
fn marks(drawing: &Drawing, index: usize, strokes: &Strokes) -> Traces {
    let mut traces = Vec::new();
    for grade in [Grade::Valid, Grade::Degraded, Grade::Invalid] {
        let on_scale = |mark: &&Mark| {
            mark.grade == grade && matches!(mark.place, Place::Dot { .. } | Place::Bar { .. })
        };
        let chosen: Vec<&Mark> = strokes.marks.iter().filter(on_scale).collect();
        if chosen.is_empty() {
            continue;
        }
        traces.push(if drawing.has_bars() {
            bars(drawing, index, strokes.ink, grade, &chosen)
        } else {
            dots(index, strokes.ink, grade, &chosen)
        });
    }
    for why in [OffScale::Infinite, OffScale::Missing, OffScale::NotPositive] {
        let there = |mark: &&Mark| matches!(mark.place, Place::OffScale { why: w, .. } if w == why);
        let chosen: Vec<&Mark> = strokes.marks.iter().filter(there).collect();
        if !chosen.is_empty() {
            traces.push(off_scale(drawing, index, strokes.ink, why, &chosen));
        }
    }
    traces
}

fn dots(index: usize, ink: Ink, grade: Grade, marks: &[&Mark]) -> Box<dyn Trace> {
    let (x, y): (Numbers, Numbers) = marks
        .iter()
        .filter_map(|mark| match mark.place {
            Place::Dot { at, value } => Some((Some(at), Some(value))),
            _ => None,
        })
        .unzip();
    scatter(index, x, y)
        .mode(Mode::Markers)
        .marker(marker(ink, grade))
        .error_y(whiskers(marks, token(ink, 1.0)))
        .hover_text_array(words(marks))
        .hover_info(HoverInfo::Text)
}

fn bars(
    drawing: &Drawing,
    index: usize,
    ink: Ink,
    grade: Grade,
    marks: &[&Mark],
) -> Box<dyn Trace> {
    let mut thickness = 0.0;
    let (at, length): (Numbers, Numbers) = marks
        .iter()
        .filter_map(|mark| match mark.place {
            Place::Bar {
                at,
                width,
                from,
                to,
            } => {
                thickness = width;
                // Stacks are piled up by plotly.js; other bars start from zero by themselves.
                Some((Some(at), Some(if drawing.stacked { to - from } else { to })))
            }
            _ => None,
        })
        .unzip();
    let whiskers = whiskers(marks, "@text".to_owned());
    let upright = drawing.direction == Direction::Vertical;
    let (x, y) = if upright { (at, length) } else { (length, at) };
    let bar = Bar::new(x, y)
        .width(thickness)
        .legend_group(group(index))
        .show_legend(false)
        .marker(fill(ink, grade))
        .hover_text_array(words(marks))
        .hover_info(HoverInfo::Text);
    if upright {
        bar.error_y(whiskers)
    } else {
        bar.orientation(Orientation::Horizontal).error_x(whiskers)
    }
}

fn off_scale(
    drawing: &Drawing,
    index: usize,
    ink: Ink,
    why: OffScale,
    marks: &[&Mark],
) -> Box<dyn Trace> {
    let at: Numbers = marks
        .iter()
        .filter_map(|mark| match mark.place {
            Place::OffScale { at, .. } => Some(Some(at)),
            _ => None,
        })
        .collect();
    // The strip's own axis runs from 0 to 1.
    let middle: Numbers = vec![Some(0.5); at.len()];
    let symbol = match why {
        OffScale::Infinite => MarkerSymbol::TriangleUp,
        OffScale::Missing => MarkerSymbol::XThin,
        OffScale::NotPositive => MarkerSymbol::TriangleDownOpen,
    };
    let line = Line::new().color(token(ink, 1.0)).width(2.0);
    let marker = Marker::new()
        .symbol(symbol)
        .size(SIZE)
        .color(token(ink, 1.0))
        .line(line);
    let trace = match drawing.direction {
        Direction::Vertical => scatter(index, at, middle).y_axis("y2"),
        Direction::Horizontal => scatter(index, middle, at).x_axis("x2"),
    };
    trace
        .mode(Mode::Markers)
        .marker(marker)
        .clip_on_axis(false)
        .hover_text_array(words(marks))
        .hover_info(HoverInfo::Text)
}

fn words(marks: &[&Mark]) -> Vec<String> {
    marks.iter().map(|mark| said(&mark.words)).collect()
}

/// What is said about something, its first line in bold.
pub(super) fn said(words: &[String]) -> String {
    let lines: Vec<String> = words.iter().map(|line| plain(line)).collect();
    match lines.split_first() {
        Some((first, rest)) if !first.is_empty() => {
            format!("<b>{first}</b><br>{}", rest.join("<br>"))
        }
        _ => lines.get(1..).unwrap_or_default().join("<br>"),
    }
}

/// Whiskers as distances from the marks; NaN, which JSON writes as null, where there is none.
fn whiskers(marks: &[&Mark], colour: String) -> ErrorData {
    let distance = |mark: &&Mark| {
        let value = match mark.place {
            Place::Dot { value, .. } => value,
            Place::Bar { to, .. } => to,
            _ => f64::NAN,
        };
        let (low, high) = mark.whisker.unwrap_or((f64::NAN, f64::NAN));
        (high - value, value - low)
    };
    let (up, down): (Vec<f64>, Vec<f64>) = marks.iter().map(distance).unzip();
    ErrorData::new(ErrorType::Data)
        .symmetric(false)
        .visible(marks.iter().any(|mark| mark.whisker.is_some()))
        .array(up)
        .array_minus(down)
        .color(colour)
        .thickness(1.5)
        .width(4)
}

/// The look of a marker: solid, half-tone or hollow.
fn marker(ink: Ink, grade: Grade) -> Marker {
    let symbol = match ink.shape {
        Shape::Circle => MarkerSymbol::Circle,
        Shape::Square => MarkerSymbol::Square,
        Shape::Diamond => MarkerSymbol::Diamond,
        Shape::TriangleUp => MarkerSymbol::TriangleUp,
        Shape::TriangleDown => MarkerSymbol::TriangleDown,
    };
    fill(ink, grade).symbol(symbol).size(SIZE).opacity(1.0)
}

/// The sample of a bar in the legend.
pub(super) fn square(ink: Ink) -> Marker {
    fill(ink, Grade::Valid)
        .symbol(MarkerSymbol::Square)
        .size(12)
}

/// Filling and outline of a marker or bar.
fn fill(ink: Ink, grade: Grade) -> Marker {
    let colour = match grade {
        Grade::Valid => token(ink, 1.0),
        // Mixed, not translucent: lines and grid must not shine through.
        Grade::Degraded => format!("@series{}~0.4", ink.colour),
        Grade::Invalid => "@surface".to_owned(),
    };
    let width = if grade == Grade::Valid { 0.0 } else { 1.7 };
    Marker::new()
        .color(colour)
        .line(Line::new().color(token(ink, 1.0)).width(width))
}
