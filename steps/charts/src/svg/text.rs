//! How text is styled, how wide it will be, and where it breaks.

/// How a line of text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Style {
    /// Height of the font in SVG units.
    pub(crate) size: f64,
    pub(crate) ink: Ink,
    pub(crate) bold: bool,
    pub(crate) anchor: Anchor,
}

/// Weight of a text's colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Text,
    Muted,
}

/// Which part of a line stands at its coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Style {
    pub(crate) fn new(size: f64, ink: Ink) -> Self {
        Self {
            size,
            ink,
            bold: false,
            anchor: Anchor::Start,
        }
    }

    pub(crate) fn title(size: f64) -> Self {
        Self {
            bold: true,
            ..Self::new(size, Ink::Text)
        }
    }

    pub(crate) fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

/// About how wide a line will be. Fonts differ from reader to reader, so this errs on the
/// wide side.
pub(crate) fn width(text: &str, style: Style) -> f64 {
    let em: f64 = text.chars().map(advance).sum();
    em * style.size * if style.bold { 1.07 } else { 1.0 }
}

/// Advance of a character in units of the font size, for a common sans-serif.
fn advance(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.28,
        ' ' | 'f' | 't' | 'r' | 'I' | '(' | ')' | '[' | ']' | '/' | '-' => 0.36,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '∞' => 0.9,
        'A'..='Z' | '&' => 0.68,
        '\u{0}'..='\u{2fff}' => 0.57,
        // East Asian characters and pictures fill the square.
        _ => 1.0,
    }
}

/// Breaks text at spaces into lines no wider than `room`. A single word that is wider stays
/// whole. Empty text has no lines.
pub(crate) fn wrap(text: &str, room: f64, style: Style) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, style) + width(word, style) + style.size * 0.36 <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Shortens text to `room`, with an ellipsis where something is left out.
pub(crate) fn shorten(text: &str, room: f64, style: Style) -> String {
    if width(text, style) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept, style) + style.size > room {
            break;
        }
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style {
        size: 10.0,
        ink: Ink::Text,
        bold: false,
        anchor: Anchor::Start,
    };

    #[test]
    fn lines_keep_all_words_and_fit() {
        let text = "percentiles count a failed request as infinite";
        let lines = wrap(text, 100.0, STYLE);
        assert!(lines.len() > 1);
        assert_eq!(lines.join(" "), text);
        assert!(lines.iter().all(|line| width(line, STYLE) <= 100.0));
        assert!(wrap("  ", 100.0, STYLE).is_empty());
    }

    #[test]
    fn long_text_is_shortened_visibly() {
        assert_eq!(shorten("short", 100.0, STYLE), "short");
        let cut = shorten("a very long category name indeed", 80.0, STYLE);
        assert!(cut.ends_with('…') && width(&cut, STYLE) <= 90.0);
    }
}
