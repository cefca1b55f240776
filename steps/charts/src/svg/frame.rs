//! What stands above and below every chart: its heading and its notes.

use crate::svg::text::{Ink, Style};
use crate::svg::writer::Svg;

/// Writes title and subtitle. Returns the height taken.
pub(crate) fn heading(
    svg: &mut Svg,
    (x, y): (f64, f64),
    width: f64,
    title: &str,
    subtitle: &str,
) -> f64 {
    let above = svg.paragraph(x, y, width, title, Style::title(16.0));
    let style = Style::new(12.5, Ink::Muted);
    above + svg.paragraph(x, y + above, width, subtitle, style)
}

/// Writes sentences, one under the other. Returns the height taken.
pub(crate) fn notes(svg: &mut Svg, (x, y): (f64, f64), width: f64, notes: &[String]) -> f64 {
    let style = Style::new(11.5, Ink::Muted);
    notes.iter().fold(0.0, |taken, note| {
        taken + 3.0 + svg.paragraph(x, y + taken + 3.0, width, note, style)
    })
}
