//! The style sheet of a page: a fixed part, and the colours of both themes.

use crate::theme::{Palette, Theme};

/// Everything but the colours of charts and surfaces.
const SHEET: &str = include_str!("report.css");

/// The whole style sheet.
pub(crate) fn sheet() -> String {
    let light = format!("{}{}", variables(Theme::Light.palette()), LIGHT_TONES);
    let dark = format!("{}{}", variables(Theme::Dark.palette()), DARK_TONES);
    format!(
        ":root{{color-scheme:light;{light}}}\n\
         @media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n\
         :root[data-theme=dark]{{color-scheme:dark;{dark}}}\n{SHEET}"
    )
}

/// Ink and ground of each tone; every pair has a contrast of at least 4.5:1.
const LIGHT_TONES: &str = "--accent:#0b63a5;\
    --good:#13693f;--good-ground:#e5f5ec;--warn:#855300;--warn-ground:#fdf1d8;\
    --bad:#a8201a;--bad-ground:#fdeaea;--note:#0b5394;--note-ground:#e8f1fa;";
const DARK_TONES: &str = "--accent:#6cb8f5;\
    --good:#6bd39b;--good-ground:#12291d;--warn:#f0bd5b;--warn-ground:#2d2410;\
    --bad:#ff9089;--bad-ground:#331a1a;--note:#7fbdf5;--note-ground:#14253a;";

fn variables(palette: &Palette) -> String {
    let mut css = format!(
        "--surface:{};--page:{};--text:{};--muted:{};--grid:{};--axis:{};",
        palette.surface, palette.page, palette.text, palette.muted, palette.grid, palette.axis
    );
    css.push_str(&format!("--cool:{};--warm:{};", palette.cool, palette.warm));
    for (i, colour) in palette.series.iter().enumerate() {
        css.push_str(&format!("--series{i}:{colour};"));
    }
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_that_is_used_is_defined_in_both_themes() {
        let sheet = sheet();
        let used = SHEET
            .split("var(--")
            .skip(1)
            .map(|rest| &rest[..rest.find(')').unwrap()]);
        for name in used.filter(|name| *name != "tone" && *name != "tone-ground") {
            // Once plainly, once for each way of being dark.
            assert_eq!(sheet.matches(&format!("--{name}:")).count(), 3, "{name}");
        }
    }

    #[test]
    fn the_sheet_fetches_nothing() {
        assert!(!SHEET.contains("@import") && !SHEET.contains("url("));
    }
}
