//! Plan text, kept with its path so that every problem can point into it.
//!
//! Knows bytes and lines; not TOML, not plans.

use std::ops::Range;
use std::path::PathBuf;

/// One text file that was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path as it should be shown to the user.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// Names a [`Source`] within its [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// A range of bytes in one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub source: SourceId,
    /// Bytes, end exclusive.
    pub span: Range<usize>,
}

impl Place {
    /// Builds the place `span` of `source`.
    pub fn new(source: SourceId, span: Range<usize>) -> Self {
        Self { source, span }
    }
}

/// All texts that one plan was read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// Adds a text and names it.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> SourceId {
        let id = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Source {
            path: path.into(),
            text: text.into(),
        });
        SourceId(id)
    }

    /// Returns the source called `id`.
    ///
    /// # Panics
    /// If `id` came from other `Sources`.
    pub fn get(&self, id: SourceId) -> &Source {
        &self.list[id.0 as usize]
    }

    /// Returns the text at `place`, empty if it lies outside.
    pub fn text_at(&self, place: &Place) -> &str {
        self.get(place.source)
            .text
            .get(place.span.clone())
            .unwrap_or("")
    }

    /// Goes through all sources, in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = (SourceId, &Source)> {
        self.list
            .iter()
            .enumerate()
            .map(|(i, s)| (SourceId(u32::try_from(i).unwrap_or(u32::MAX)), s))
    }

    /// Returns line and column, both from 1, of the byte where `place` begins.
    pub fn line_column(&self, place: &Place) -> (usize, usize) {
        let text = &self.get(place.source).text;
        let start = place.span.start.min(text.len());
        let before = &text.as_bytes()[..start];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let line_start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |i| i + 1);
        (
            line,
            String::from_utf8_lossy(&before[line_start..])
                .chars()
                .count()
                + 1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", "a = 1\nä = 2\n");
        assert_eq!(sources.line_column(&Place::new(id, 0..1)), (1, 1));
        assert_eq!(sources.line_column(&Place::new(id, 11..12)), (2, 5));
    }
}
