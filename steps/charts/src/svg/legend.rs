//! Which ink is which series, and what hollow, half-tone and off-scale marks mean.

use crate::drawing::{Drawing, OffScale, Timeline};
use crate::model::SpanFill;
use crate::reading::Grade;
use crate::svg::marks::{self, NEUTRAL};
use crate::svg::text::{self, Ink as TextInk, Style};
use crate::svg::writer::Svg;
use crate::theme::Ink;

/// Height of a row of entries.
const ROW: f64 = 21.0;
/// Space between an entry's sample and its text.
const SAMPLE: f64 = 26.0;

/// An entry: how its sample is drawn, and its text.
struct Entry<'a> {
    sample: Sample,
    text: &'a str,
}

#[derive(Clone, Copy)]
enum Sample {
    Line(Ink),
    Bar(Ink),
    Span(SpanFill),
    Grade(Grade),
    OffScale(OffScale),
}

/// Names the series. Returns the height taken; nothing if there is only one without a name.
pub(crate) fn series(svg: &mut Svg, drawing: &Drawing, x: f64, y: f64, width: f64) -> f64 {
    let bars = drawing.has_bars();
    let entries = drawing
        .series
        .iter()
        .filter(|series| !series.name.is_empty())
        .map(|series| Entry {
            sample: if bars {
                Sample::Bar(series.ink)
            } else {
                Sample::Line(series.ink)
            },
            text: &series.name,
        });
    flow(svg, entries, x, y, width, Style::new(12.5, TextInk::Text))
}

/// Names the series of a timeline, and what the looks of its spans mean. Returns the height taken.
pub(crate) fn timeline(svg: &mut Svg, timeline: &Timeline, (x, y): (f64, f64), width: f64) -> f64 {
    let series = timeline.series.iter().enumerate().map(|(i, name)| Entry {
        sample: Sample::Bar(Ink::of(i)),
        text: name,
    });
    let kinds = timeline.kinds();
    // Spans of one kind need no telling apart, and names of each are no kinds.
    let kinds = if matches!(kinds.len(), 2..=4) {
        kinds
    } else {
        Vec::new()
    };
    let kinds = kinds.into_iter().map(|(text, fill)| Entry {
        sample: Sample::Span(fill),
        text,
    });
    let style = Style::new(12.5, TextInk::Text);
    flow(svg, series.chain(kinds), x, y, width, style)
}

/// Explains grades and off-scale marks. Returns the height taken.
pub(crate) fn meanings(
    svg: &mut Svg,
    grades: &[Grade],
    gaps: &[OffScale],
    (x, y): (f64, f64),
    width: f64,
) -> f64 {
    let grades = grades.iter().map(|grade| Entry {
        sample: Sample::Grade(*grade),
        text: grade.word(),
    });
    let gaps = gaps.iter().map(|why| Entry {
        sample: Sample::OffScale(*why),
        text: why.meaning(),
    });
    let style = Style::new(11.5, TextInk::Muted);
    flow(svg, grades.chain(gaps), x, y, width, style)
}

/// Sets entries one after the other, in as many rows as they need.
fn flow<'a>(
    svg: &mut Svg,
    entries: impl Iterator<Item = Entry<'a>>,
    x: f64,
    y: f64,
    width: f64,
    style: Style,
) -> f64 {
    let (mut right, mut rows) = (0.0, 0.0);
    for entry in entries {
        let name = text::shorten(entry.text, width - SAMPLE, style);
        let needed = SAMPLE + text::width(&name, style) + 16.0;
        if rows == 0.0 || right + needed - 16.0 > width {
            (right, rows) = (0.0, rows + 1.0);
        }
        let middle = y + (rows - 0.5) * ROW;
        sample(svg, entry.sample, x + right, middle);
        svg.text(x + right + SAMPLE, middle + style.size * 0.35, &name, style);
        right += needed;
    }
    rows * ROW
}

fn sample(svg: &mut Svg, sample: Sample, x: f64, y: f64) {
    let centre = (x + 10.0, y);
    match sample {
        Sample::Line(ink) => {
            svg.line((x, y), (x + 20.0, y), svg.palette.series[ink.colour], 2.0);
            marks::dot(svg, centre, ink, Grade::Valid);
        }
        Sample::Bar(ink) => {
            marks::rectangle(svg, (x + 6.0, y - 6.0), (12.0, 12.0), ink, Grade::Valid);
        }
        Sample::Span(fill) => {
            let muted = svg.palette.muted;
            marks::span(svg, (x + 3.0, y - 5.0), (16.0, 10.0), muted, fill);
        }
        Sample::Grade(grade) => marks::dot(svg, centre, NEUTRAL, grade),
        Sample::OffScale(why) => marks::off_scale(svg, centre, NEUTRAL, why),
    }
}
