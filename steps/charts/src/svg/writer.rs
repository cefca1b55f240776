//! The SVG text itself: elements, attributes, escaping. Knows no charts.

use std::fmt::{Display, Write};

use crate::escape::escape;
use crate::svg::text::{Anchor, Ink, Style, wrap};
use crate::theme::Palette;

/// Fonts asked for, the reader's own first. `Ubuntu` is what the PNG renderer brings along.
const FONTS: &str =
    "system-ui, -apple-system, 'Segoe UI', Roboto, Ubuntu, 'Helvetica Neue', sans-serif";

/// An attribute.
pub(crate) type Attribute<'a> = (&'a str, &'a dyn Display);

/// An SVG document being written, in the colours of one theme.
pub(crate) struct Svg {
    body: String,
    pub(crate) palette: &'static Palette,
}

/// A coordinate, written with two decimals at most.
pub(crate) struct Px(pub(crate) f64);

impl Display for Px {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounded = (self.0 * 100.0).round() / 100.0;
        // Adding zero turns minus zero into zero.
        write!(f, "{}", rounded + 0.0)
    }
}

impl Svg {
    pub(crate) fn new(palette: &'static Palette) -> Self {
        Self {
            body: String::new(),
            palette,
        }
    }

    /// Opens an element; [`Svg::close`] must follow with the same name.
    pub(crate) fn open(&mut self, name: &str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes);
        self.body.push('>');
    }

    pub(crate) fn close(&mut self, name: &str) {
        self.put(format_args!("</{name}>\n"));
    }

    /// An element without content.
    pub(crate) fn leaf(&mut self, name: &str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes);
        self.body.push_str("/>\n");
    }

    /// What is shown when a reader points at the element that is open.
    pub(crate) fn hint(&mut self, lines: &[String]) {
        let text = escape(&lines.join("\n"));
        self.put(format_args!("<title>{text}</title>"));
    }

    /// A line of text whose baseline is at `y`.
    pub(crate) fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        self.text_turned(x, y, text, style, 0.0);
    }

    /// A line of text with a rim of the surface, so that it can be read on lines.
    pub(crate) fn text_on_surface(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let surface = self.palette.surface;
        let rim: [Attribute<'_>; 4] = [
            ("stroke", &surface),
            ("stroke-width", &4),
            ("stroke-linejoin", &"round"),
            ("paint-order", &"stroke"),
        ];
        self.text_with(x, y, text, style, &rim);
    }

    /// A line of text turned about its anchor by `degrees`.
    pub(crate) fn text_turned(&mut self, x: f64, y: f64, text: &str, style: Style, degrees: f64) {
        let turn = format!("rotate({} {} {})", Px(degrees), Px(x), Px(y));
        let turned: [Attribute<'_>; 1] = [("transform", &turn)];
        let more = if degrees == 0.0 { &[][..] } else { &turned };
        self.text_with(x, y, text, style, more);
    }

    fn text_with(&mut self, x: f64, y: f64, text: &str, style: Style, more: &[Attribute<'_>]) {
        let fill = match style.ink {
            Ink::Text => self.palette.text,
            Ink::Muted => self.palette.muted,
        };
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, size) = (Px(x), Px(y), Px(style.size));
        let mut attributes: Vec<Attribute<'_>> =
            vec![("x", &x), ("y", &y), ("font-size", &size), ("fill", &fill)];
        if style.anchor != Anchor::Start {
            attributes.push(("text-anchor", &anchor));
        }
        if style.bold {
            attributes.push(("font-weight", &600));
        }
        attributes.extend_from_slice(more);
        self.open("text", &attributes);
        self.body.push_str(&escape(text));
        self.close("text");
    }

    /// Text broken into lines no wider than `width`, the first starting under `y`. Returns
    /// the height it takes, nothing if there is no text.
    pub(crate) fn paragraph(
        &mut self,
        x: f64,
        y: f64,
        width: f64,
        text: &str,
        style: Style,
    ) -> f64 {
        let leading = style.size * 1.35;
        let lines = wrap(text, width, style);
        for (i, line) in lines.iter().enumerate() {
            self.text(x, y + style.size + i as f64 * leading, line, style);
        }
        lines.len() as f64 * leading
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        self.leaf(
            "line",
            &[
                ("x1", &Px(from.0)),
                ("y1", &Px(from.1)),
                ("x2", &Px(to.0)),
                ("y2", &Px(to.1)),
                ("stroke", &colour),
                ("stroke-width", &Px(width)),
            ],
        );
    }

    /// The whole document, `width` by `height` units.
    pub(crate) fn finish(self, title: &str, width: f64, height: f64) -> String {
        let (width, height, title) = (Px(width), Px(height.ceil()), escape(title));
        let (fonts, surface) = (escape(FONTS), self.palette.surface);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"{fonts}\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"{surface}\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn tag(&mut self, name: &str, attributes: &[Attribute<'_>]) {
        self.put(format_args!("<{name}"));
        for (key, value) in attributes {
            let value = escape(&value.to_string());
            self.put(format_args!(" {key}=\"{value}\""));
        }
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a `String` cannot fail.
        let _ = self.body.write_fmt(arguments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        assert_eq!(Px(1.0 / 3.0).to_string(), "0.33");
        assert_eq!(Px(-0.001).to_string(), "0");
        assert_eq!(Px(20.0).to_string(), "20");
    }
}
