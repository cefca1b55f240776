//! Charts as PNG: the SVG, rasterised with fonts that are part of the program, so that it
//! works and looks the same on a machine without any.

use std::sync::{Arc, OnceLock};

use resvg::{tiny_skia, usvg};

use crate::model::Chart;
use crate::theme::Theme;

/// Largest side of an image, in pixels. A chart at this size has 20 times the detail of a
/// screen; more is a mistake in the caller's scale and would only exhaust memory.
const MAX_SIDE: f32 = 16_384.0;

/// Why a chart could not be made into an image.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The scale is not a positive number, or the image would be too large.
    #[error(
        "cannot draw {width} by {height} pixels: found scale {scale}, expected a positive one that keeps both sides under {MAX_SIDE}"
    )]
    Size {
        /// The scale asked for.
        scale: f32,
        /// Width in pixels at that scale.
        width: f32,
        /// Height in pixels at that scale.
        height: f32,
    },
    /// The renderer refused its input.
    #[error("cannot rasterise the chart `{title}`: {reason}")]
    Render {
        /// Title of the chart.
        title: String,
        /// What the renderer said.
        reason: String,
    },
}

impl Chart {
    /// Draws the chart as a PNG image in the light theme; see [`Chart::to_png_themed`].
    ///
    /// # Errors
    ///
    /// [`PngError::Size`] for a scale that is not positive or too large.
    pub fn to_png(&self, scale: f32) -> Result<Vec<u8>, PngError> {
        self.to_png_themed(Theme::Light, scale)
    }

    /// Draws the chart as a PNG image, `scale` pixels to each SVG unit: 1 suits a web page, 2
    /// a screen of high density or a paper.
    ///
    /// # Errors
    ///
    /// [`PngError::Size`] for a scale that is not positive or too large.
    pub fn to_png_themed(&self, theme: Theme, scale: f32) -> Result<Vec<u8>, PngError> {
        let failed = |reason: String| PngError::Render {
            title: self.title().to_owned(),
            reason,
        };
        let options = usvg::Options {
            fontdb: fonts(),
            font_family: "Ubuntu".to_owned(),
            ..usvg::Options::default()
        };
        let svg = embolden(&self.to_svg(theme), theme.palette().text);
        let tree =
            usvg::Tree::from_str(&svg, &options).map_err(|error| failed(error.to_string()))?;
        let (width, height) = (tree.size().width() * scale, tree.size().height() * scale);
        let sides = 1.0..=MAX_SIDE;
        if !(sides.contains(&width) && sides.contains(&height)) {
            return Err(PngError::Size {
                scale,
                width,
                height,
            });
        }
        // Both are in 1..=MAX_SIDE, so the conversion is exact up to the fraction.
        let mut pixels = tiny_skia::Pixmap::new(width.ceil() as u32, height.ceil() as u32).ok_or(
            PngError::Size {
                scale,
                width,
                height,
            },
        )?;
        let enlarge = tiny_skia::Transform::from_scale(scale, scale);
        resvg::render(&tree, enlarge, &mut pixels.as_mut());
        pixels
            .encode_png()
            .map_err(|error| failed(error.to_string()))
    }
}

/// Thickens bold text by an outline, because the font that is brought along has one weight.
/// Only attributes can match: a quotation mark in text is always escaped.
fn embolden(svg: &str, colour: &str) -> String {
    let outline = format!("stroke=\"{colour}\" stroke-width=\"0.5\"");
    svg.replace("font-weight=\"600\"", &outline)
}

/// The fonts, parsed once: Ubuntu for text, Hack for characters it lacks.
fn fonts() -> Arc<usvg::fontdb::Database> {
    static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        fonts.load_font_data(epaint_default_fonts::HACK_REGULAR.to_vec());
        fonts.set_sans_serif_family("Ubuntu");
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Axis, LineChart, Series};

    fn chart(title: &str) -> Chart {
        let axis = || Axis::new("x", "");
        LineChart::new(title, axis(), axis())
            .series(Series::new("s").point(1.0, 2.0))
            .into()
    }

    /// Width and height from the header.
    fn size(png: &[u8]) -> (u32, u32) {
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
        (side(16), side(20))
    }

    #[test]
    fn the_scale_is_kept() {
        let (one, two) = (
            chart("t").to_png(1.0).unwrap(),
            chart("t").to_png(2.0).unwrap(),
        );
        assert_eq!(size(&one).0, 760);
        assert_eq!(size(&two), (2 * size(&one).0, 2 * size(&one).1));
    }

    #[test]
    fn text_is_drawn_without_any_font_of_the_machine() {
        assert_ne!(
            chart("WWW").to_png(1.0).unwrap(),
            chart("iii").to_png(1.0).unwrap()
        );
        assert!(
            fonts()
                .faces()
                .any(|face| face.families.iter().any(|(name, _)| name == "Ubuntu"))
        );
    }

    #[test]
    fn a_senseless_scale_is_refused() {
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e6] {
            let error = chart("t").to_png(scale).unwrap_err();
            assert!(matches!(error, PngError::Size { .. }));
        }
    }
}
