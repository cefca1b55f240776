//! Which ink is which series, and what hollow, half-tone and off-scale marks mean.

use crate::drawing::{Drawing, OffScale};
use crate::reading::Grade;
use crate::svg::marks;
use crate::svg::text::{self, Ink as TextInk, Style};
use crate::svg::writer::Svg;
use crate::theme::{Ink, Shape};

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

/// Explains grades and off-scale marks, those that occur. Returns the height taken.
pub(crate) fn meanings(svg: &mut Svg, drawing: &Drawing, x: f64, y: f64, width: f64) -> f64 {
    let grades = drawing.grades().into_iter().map(|grade| Entry {
        sample: Sample::Grade(grade),
        text: grade.word(),
    });
    let gaps = drawing.off_scale().into_iter().map(|why| Entry {
        sample: Sample::OffScale(why),
        text: why.meaning(),
    });
    flow(
        svg,
        grades.chain(gaps),
        x,
        y,
        width,
        Style::new(11.5, TextInk::Muted),
    )
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
    /// Grades are explained without taking sides between series.
    const NEUTRAL: Ink = Ink {
        colour: 6,
        shape: Shape::Circle,
    };
    let centre = (x + 10.0, y);
    match sample {
        Sample::Line(ink) => {
            svg.line((x, y), (x + 20.0, y), svg.palette.series[ink.colour], 2.0);
            marks::dot(svg, centre, ink, Grade::Valid);
        }
        Sample::Bar(ink) => {
            marks::rectangle(svg, (x + 6.0, y - 6.0), (12.0, 12.0), ink, Grade::Valid);
        }
        Sample::Grade(grade) => marks::dot(svg, centre, NEUTRAL, grade),
        Sample::OffScale(why) => marks::off_scale(svg, centre, NEUTRAL, why),
    }
}
