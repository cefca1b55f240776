//! Marker shapes, lines and areas, and how a grade shows: solid, half-tone, hollow.

use crate::drawing::{Mark, OffScale, Place};
use crate::model::SpanFill;
use crate::reading::Grade;
use crate::svg::figure::Plot;
use crate::svg::text::{self, Anchor, Style};
use crate::svg::writer::{Px, Svg};
use crate::theme::{Ink, Shape};

/// Half the height of a marker.
const RADIUS: f64 = 4.6;

/// Grades and gaps are explained without taking sides between series.
pub(crate) const NEUTRAL: Ink = Ink {
    colour: 6,
    shape: Shape::Circle,
};

/// What a mark is filled with.
struct Fill {
    colour: &'static str,
    opacity: f64,
    /// Pattern of the outline.
    dash: &'static str,
}

impl Fill {
    /// Hollow means filled with the surface, so that lines do not shine through.
    fn of(svg: &Svg, ink: Ink, grade: Grade) -> Self {
        let series = svg.palette.series[ink.colour];
        match grade {
            Grade::Valid => Self {
                colour: series,
                opacity: 1.0,
                dash: "none",
            },
            Grade::Degraded => Self {
                colour: series,
                opacity: 0.4,
                dash: "none",
            },
            Grade::Invalid => Self {
                colour: svg.palette.surface,
                opacity: 1.0,
                dash: "3 2",
            },
        }
    }
}

/// Draws one value as one element of class `point`.
pub(crate) fn point(svg: &mut Svg, plot: &Plot, ink: Ink, mark: &Mark) {
    let class = match mark.place {
        Place::Dot { .. } | Place::Bar { .. } => format!("point {}", mark.grade.word()),
        Place::OffScale { why, .. } => format!("point off-scale {}", why.word()),
        Place::Unplaced => "point unplaced".to_owned(),
    };
    svg.open("g", &[("class", &class)]);
    svg.hint(&mark.words);
    match mark.place {
        Place::Dot { at, value } => {
            whisker(svg, plot, at, mark, ink);
            dot(svg, plot.at(at, value), ink, mark.grade);
        }
        Place::Bar {
            at,
            width,
            from,
            to,
        } => {
            bar(
                svg,
                plot,
                (at - width / 2.0, from),
                (at + width / 2.0, to),
                ink,
                mark.grade,
            );
            whisker(svg, plot, at, mark, ink);
        }
        Place::OffScale { at, why } => off_scale(svg, plot.in_strip(at), ink, why),
        Place::Unplaced => {}
    }
    svg.close("g");
}

/// Draws a marker.
pub(crate) fn dot(svg: &mut Svg, centre: (f64, f64), ink: Ink, grade: Grade) {
    let fill = Fill::of(svg, ink, grade);
    // A surface underneath keeps the line from shining through the half-tone.
    if grade == Grade::Degraded {
        shape(
            svg,
            centre,
            ink.shape,
            svg.palette.surface,
            1.0,
            svg.palette.surface,
        );
    }
    shape(
        svg,
        centre,
        ink.shape,
        fill.colour,
        fill.opacity,
        svg.palette.series[ink.colour],
    );
}

fn shape(svg: &mut Svg, (x, y): (f64, f64), shape: Shape, fill: &str, opacity: f64, stroke: &str) {
    let r = RADIUS;
    let path = match shape {
        Shape::Circle => String::new(),
        Shape::Square => polygon(
            &[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
            (x, y),
            r,
        ),
        Shape::Diamond => polygon(
            &[(0.0, -1.22), (1.22, 0.0), (0.0, 1.22), (-1.22, 0.0)],
            (x, y),
            r,
        ),
        Shape::TriangleUp => polygon(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)], (x, y), r),
        Shape::TriangleDown => polygon(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)], (x, y), r),
    };
    let ends: [(&str, &dyn std::fmt::Display); 4] = [
        ("fill", &fill),
        ("fill-opacity", &opacity),
        ("stroke", &stroke),
        ("stroke-width", &1.7),
    ];
    if shape == Shape::Circle {
        let mut attributes: Vec<(&str, &dyn std::fmt::Display)> = Vec::with_capacity(7);
        let (x, y, r) = (Px(x), Px(y), Px(r));
        attributes.extend([("cx", &x as &dyn std::fmt::Display), ("cy", &y), ("r", &r)]);
        attributes.extend(ends);
        svg.leaf("circle", &attributes);
    } else {
        let mut attributes: Vec<(&str, &dyn std::fmt::Display)> = vec![("points", &path)];
        attributes.extend(ends);
        svg.leaf("polygon", &attributes);
    }
}

fn polygon(corners: &[(f64, f64)], (x, y): (f64, f64), r: f64) -> String {
    let corner = |(dx, dy): &(f64, f64)| format!("{},{}", Px(x + dx * r), Px(y + dy * r));
    corners.iter().map(corner).collect::<Vec<_>>().join(" ")
}

/// Draws a line through points.
pub(crate) fn line(
    svg: &mut Svg,
    points: impl Iterator<Item = (f64, f64)>,
    colour: &str,
    dash: &str,
) {
    svg.leaf(
        "polyline",
        &[
            ("points", &corners(points)),
            ("fill", &"none"),
            ("stroke", &colour),
            ("stroke-width", &2),
            ("stroke-linejoin", &"round"),
            ("stroke-linecap", &"round"),
            ("stroke-dasharray", &dash),
        ],
    );
}

/// Draws an area without an outline.
pub(crate) fn area(
    svg: &mut Svg,
    outline: impl Iterator<Item = (f64, f64)>,
    colour: &str,
    opacity: f64,
) {
    svg.leaf(
        "polygon",
        &[
            ("points", &corners(outline)),
            ("fill", &colour),
            ("fill-opacity", &opacity),
        ],
    );
}

fn corners(points: impl Iterator<Item = (f64, f64)>) -> String {
    points
        .map(|(x, y)| format!("{},{}", Px(x), Px(y)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Draws the bar of a span, or the sample of one in a legend.
pub(crate) fn span(
    svg: &mut Svg,
    corner: (f64, f64),
    size: (f64, f64),
    colour: &str,
    fill: SpanFill,
) {
    let inside = match fill {
        SpanFill::Solid => colour,
        SpanFill::Hollow => svg.palette.surface,
    };
    // The outline lies inside, so that the ends of the bar are those of the span.
    let outline = 1.4;
    svg.leaf(
        "rect",
        &[
            ("x", &Px(corner.0 + outline / 2.0)),
            ("y", &Px(corner.1 + outline / 2.0)),
            ("width", &Px((size.0 - outline).max(0.2))),
            ("height", &Px(size.1 - outline)),
            ("fill", &inside),
            ("stroke", &colour),
            ("stroke-width", &Px(outline)),
        ],
    );
}

/// Draws a line across a plot with its name at the right end, above it unless that would reach
/// over the height `top`.
pub(crate) fn reference(
    svg: &mut Svg,
    (from, to): ((f64, f64), (f64, f64)),
    label: &str,
    top: f64,
) {
    let muted = svg.palette.muted;
    svg.leaf(
        "line",
        &[
            ("class", &"reference"),
            ("x1", &Px(from.0)),
            ("y1", &Px(from.1)),
            ("x2", &Px(to.0)),
            ("y2", &Px(to.1)),
            ("stroke", &muted),
            ("stroke-width", &1.4),
            ("stroke-dasharray", &"6 4"),
        ],
    );
    let style = Style::new(11.5, text::Ink::Muted).anchored(Anchor::End);
    let is_high = to.1 - top < 16.0;
    let y = if is_high { to.1 + 14.0 } else { to.1 - 5.0 };
    svg.text_on_surface(to.0 - 4.0, y, label, style);
}

fn bar(svg: &mut Svg, plot: &Plot, from: (f64, f64), to: (f64, f64), ink: Ink, grade: Grade) {
    let (a, b) = (plot.at(from.0, from.1), plot.at(to.0, to.1));
    rectangle(
        svg,
        (a.0.min(b.0), a.1.min(b.1)),
        ((a.0 - b.0).abs(), (a.1 - b.1).abs()),
        ink,
        grade,
    );
}

/// Draws a bar, or the sample of one in a legend.
pub(crate) fn rectangle(
    svg: &mut Svg,
    corner: (f64, f64),
    size: (f64, f64),
    ink: Ink,
    grade: Grade,
) {
    let fill = Fill::of(svg, ink, grade);
    // The outline lies inside, so that the end of the bar is the value.
    let outline = if grade == Grade::Valid { 0.0 } else { 1.4 };
    let (x, y) = (Px(corner.0 + outline / 2.0), Px(corner.1 + outline / 2.0));
    let (width, height) = (
        Px((size.0 - outline).max(0.0)),
        Px((size.1 - outline).max(0.0)),
    );
    // A surface underneath keeps the grid from shining through the half-tone.
    if grade == Grade::Degraded {
        let surface = svg.palette.surface;
        svg.leaf(
            "rect",
            &[
                ("x", &x),
                ("y", &y),
                ("width", &width),
                ("height", &height),
                ("fill", &surface),
            ],
        );
    }
    svg.leaf(
        "rect",
        &[
            ("x", &x),
            ("y", &y),
            ("width", &width),
            ("height", &height),
            ("fill", &fill.colour),
            ("fill-opacity", &fill.opacity),
            ("stroke", &svg.palette.series[ink.colour]),
            ("stroke-width", &Px(outline)),
            ("stroke-dasharray", &fill.dash),
        ],
    );
}

fn whisker(svg: &mut Svg, plot: &Plot, at: f64, mark: &Mark, ink: Ink) {
    let Some((low, high)) = mark.whisker else {
        return;
    };
    let (a, b) = (plot.at(at, low), plot.at(at, high));
    // On a bar the whisker must show against the bar's own colour.
    let colour = match mark.place {
        Place::Bar { .. } => svg.palette.text,
        _ => svg.palette.series[ink.colour],
    };
    svg.line(a, b, colour, 1.4);
    let cap = plot.across(3.5);
    for end in [a, b] {
        svg.line(
            (end.0 - cap.0, end.1 - cap.1),
            (end.0 + cap.0, end.1 + cap.1),
            colour,
            1.4,
        );
    }
}

impl OffScale {
    /// One word for classes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            OffScale::Infinite => "infinite",
            OffScale::Missing => "missing",
            OffScale::NotPositive => "not-positive",
        }
    }
}

/// Draws the mark of a value that its scale has no place for.
pub(crate) fn off_scale(svg: &mut Svg, (x, y): (f64, f64), ink: Ink, why: OffScale) {
    let colour = svg.palette.series[ink.colour];
    match why {
        OffScale::Infinite => shape(svg, (x, y), Shape::TriangleUp, colour, 1.0, colour),
        OffScale::NotPositive => {
            shape(
                svg,
                (x, y),
                Shape::TriangleDown,
                svg.palette.surface,
                1.0,
                colour,
            );
        }
        OffScale::Missing => {
            let r = RADIUS * 0.85;
            svg.line((x - r, y - r), (x + r, y + r), colour, 2.0);
            svg.line((x - r, y + r), (x + r, y - r), colour, 2.0);
        }
    }
}
