//! Colours, light and dark, and the shapes that tell series apart without them.

/// Whether a drawing is made for a light or a dark background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark ink on white.
    #[default]
    Light,
    /// Light ink on near-black.
    Dark,
}

/// The colours of one theme, as `#rrggbb`.
#[derive(Debug)]
pub(crate) struct Palette {
    /// What charts, tables and cards stand on.
    pub(crate) surface: &'static str,
    /// What the page behind them is.
    pub(crate) page: &'static str,
    /// Text.
    pub(crate) text: &'static str,
    /// Text of less weight: units, ticks, captions.
    pub(crate) muted: &'static str,
    /// Grid lines and borders.
    pub(crate) grid: &'static str,
    /// Axis lines.
    pub(crate) axis: &'static str,
    /// Series, in order. After Okabe and Ito: hues that stay apart under the common colour
    /// vision deficiencies, darkened or lightened until each has a contrast of at least 3:1
    /// against the surface.
    pub(crate) series: [&'static str; 7],
    /// The strongest of the colours that stand for values, one for each hue: text on them has a
    /// contrast of at least 4.5:1, and their hues stay apart as those of series do.
    pub(crate) cool: &'static str,
    pub(crate) warm: &'static str,
}

const LIGHT: Palette = Palette {
    surface: "#ffffff",
    page: "#f6f7f9",
    text: "#1b2230",
    muted: "#586273",
    grid: "#e4e7ec",
    axis: "#a5aebb",
    series: [
        "#0072b2", "#d55e00", "#008f68", "#a3519f", "#a87b00", "#3795cc", "#4d535c",
    ],
    cool: "#4a9bcb",
    warm: "#e58a45",
};

const DARK: Palette = Palette {
    surface: "#161a21",
    page: "#0e1116",
    text: "#e7eaf0",
    muted: "#9ba5b4",
    grid: "#2a313b",
    axis: "#525c6a",
    series: [
        "#5bb0f0", "#ff8f4d", "#3dcba0", "#d99ad6", "#e8b93a", "#a5d6f7", "#b8bdc6",
    ],
    cool: "#1f659e",
    warm: "#a2521c",
};

impl Theme {
    /// The theme's colours.
    pub(crate) fn palette(self) -> &'static Palette {
        match self {
            Theme::Light => &LIGHT,
            Theme::Dark => &DARK,
        }
    }
}

/// Marker shapes. Their number shares no factor with the number of colours, so that the pair
/// repeats only after 35 series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Diamond,
    TriangleUp,
    TriangleDown,
}

/// What tells one series from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ink {
    /// Index into [`Palette::series`].
    pub(crate) colour: usize,
    /// Marker shape.
    pub(crate) shape: Shape,
}

impl Ink {
    /// How many colours there are.
    pub(crate) const COLOURS: usize = LIGHT.series.len();

    /// The ink of the `index`-th series of a chart.
    pub(crate) fn of(index: usize) -> Self {
        const SHAPES: [Shape; 5] = [
            Shape::Circle,
            Shape::Square,
            Shape::Diamond,
            Shape::TriangleUp,
            Shape::TriangleDown,
        ];
        Self {
            colour: index % Self::COLOURS,
            shape: SHAPES[index % SHAPES.len()],
        }
    }
}

/// Which way a value differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hue {
    Cool,
    Warm,
}

/// The colour of a value: a hue mixed into the surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tint {
    pub(crate) hue: Hue,
    /// How much of the hue, from 0 to 1.
    pub(crate) share: f64,
}

impl Tint {
    /// The colour in one theme, as `#rrggbb`.
    pub(crate) fn hex(self, palette: &Palette) -> String {
        let full = match self.hue {
            Hue::Cool => palette.cool,
            Hue::Warm => palette.warm,
        };
        let mixed = channels(full)
            .zip(channels(palette.surface))
            .map(|(own, ground)| own * self.share + ground * (1.0 - self.share))
            // Both are bytes, and so is what lies between them.
            .map(|mixed| format!("{:02x}", mixed.round() as u8));
        format!("#{}", mixed.collect::<String>())
    }

    /// The name of the colour where the theme is not known yet.
    pub(crate) fn token(self) -> String {
        let role = match self.hue {
            Hue::Cool => "cool",
            Hue::Warm => "warm",
        };
        format!("@{role}~{:.3}", self.share)
    }
}

/// Red, green and blue of `#rrggbb`, from 0 to 255.
fn channels(hex: &str) -> impl Iterator<Item = f64> {
    let channel = |at: usize| {
        let digits = hex.get(at..at + 2).unwrap_or("00");
        f64::from(u8::from_str_radix(digits, 16).unwrap_or(0))
    };
    [channel(1), channel(3), channel(5)].into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance after WCAG 2.2.
    fn luminance(hex: &str) -> f64 {
        let channel = |at: usize| {
            let v = u8::from_str_radix(&hex[at..at + 2], 16).unwrap() as f64 / 255.0;
            if v <= 0.04045 {
                v / 12.92
            } else {
                ((v + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn everything_drawn_stands_out_from_what_it_is_drawn_on() {
        for palette in [&LIGHT, &DARK] {
            for ink in palette.series {
                assert!(contrast(ink, palette.surface) >= 3.0, "{ink}");
            }
            for ground in [palette.surface, palette.page] {
                assert!(contrast(palette.text, ground) >= 7.0);
                assert!(contrast(palette.muted, ground) >= 4.5);
            }
        }
    }

    #[test]
    fn text_can_be_read_on_every_tint() {
        for palette in [&LIGHT, &DARK] {
            for hue in [Hue::Cool, Hue::Warm] {
                for share in [0.0, 0.3, 0.7, 1.0] {
                    let tint = Tint { hue, share }.hex(palette);
                    assert!(contrast(palette.text, &tint) >= 4.5, "{tint}");
                }
                assert_eq!(Tint { hue, share: 0.0 }.hex(palette), palette.surface);
            }
        }
        let full = Tint {
            hue: Hue::Warm,
            share: 1.0,
        };
        assert_eq!(full.hex(&DARK), DARK.warm);
        assert_eq!(full.token(), "@warm~1.000");
    }

    #[test]
    fn inks_repeat_only_after_thirty_five_series() {
        let first: Vec<Ink> = (0..35).map(Ink::of).collect();
        for (i, ink) in first.iter().enumerate() {
            assert_eq!(first.iter().position(|other| other == ink), Some(i));
        }
        assert_eq!(Ink::of(35), first[0]);
    }
}
