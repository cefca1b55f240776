//! Tick labels, and how much room they need.

use crate::drawing::Ruler;
use crate::svg::text::{self, Anchor, Ink, Style, shorten};
use crate::svg::writer::Svg;

/// Longest category name that is written in full.
pub(crate) const CATEGORY: f64 = 190.0;

/// How tick labels look.
pub(crate) fn tick_style() -> Style {
    Style::new(11.5, Ink::Muted)
}

/// How captions of axes look.
pub(crate) fn caption_style() -> Style {
    Style::new(12.0, Ink::Muted)
}

/// Width of the widest tick label.
pub(crate) fn widest(ruler: &Ruler) -> f64 {
    ruler
        .ticks
        .iter()
        .map(|tick| text::width(&tick.text, tick_style()))
        .fold(0.0, f64::max)
}

/// How the labels under a plot stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Upright,
    /// Slanted, because they are too long to stand beside each other.
    Slanted,
}

impl Turn {
    /// How category names stand best that share `width`.
    pub(crate) fn of_categories(ruler: &Ruler, width: f64) -> Self {
        let slot = width / ruler.ticks.len().max(1) as f64;
        if ruler.ticks.len() > 1 && widest(ruler) > slot - 6.0 {
            Self::Slanted
        } else {
            Self::Upright
        }
    }

    /// Height of the labels of an axis.
    pub(crate) fn height(self, ruler: &Ruler) -> f64 {
        match self {
            Self::Upright => 26.0,
            // The labels fall by the sine of their angle.
            Self::Slanted => widest(ruler).min(CATEGORY) * 0.53 + 22.0,
        }
    }
}

/// Writes the label of a tick at `x` under a plot that ends at `bottom`.
pub(crate) fn label_under(svg: &mut Svg, (x, bottom): (f64, f64), label: &str, turn: Turn) {
    match turn {
        Turn::Upright => {
            let style = tick_style().anchored(Anchor::Middle);
            svg.text(x, bottom + 18.0, label, style);
        }
        Turn::Slanted => {
            let style = tick_style().anchored(Anchor::End);
            let name = shorten(label, CATEGORY, style);
            svg.text_turned(x + 3.0, bottom + 15.0, &name, style, -32.0);
        }
    }
}

/// Writes the label of a tick at the height `y` left of a plot that begins at `left`.
pub(crate) fn label_beside(svg: &mut Svg, (left, y): (f64, f64), label: &str, room: f64) {
    let style = tick_style().anchored(Anchor::End);
    svg.text(left - 8.0, y + 4.0, &shorten(label, room, style), style);
}
