//! Plan text, kept with its path so that every problem can point into it.
//!
//! Knows bytes and lines; not TOML, not plans.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One text that was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it came from.
    pub origin: Origin,
    /// The path as it should be shown to the user; what was typed for an argument.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// Where a text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File,
    /// The command line.
    Argument,
}

/// Names a [`Source`] within its [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// A range of bytes in one source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// Adds the text of a file and names it.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> SourceId {
        self.push(Origin::File, path.into(), text.into())
    }

    /// Adds a text from the command line and names it.
    pub fn add_argument(&mut self, shown: impl Into<PathBuf>, text: impl Into<String>) -> SourceId {
        self.push(Origin::Argument, shown.into(), text.into())
    }

    fn push(&mut self, origin: Origin, path: PathBuf, text: String) -> SourceId {
        let id = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Source { origin, path, text });
        SourceId(id)
    }

    /// Returns the folder of the file in which `place` lies, if it lies in one.
    pub fn folder_of(&self, place: &Place) -> Option<&Path> {
        let source = self.list.get(place.source.0 as usize)?;
        match source.origin {
            Origin::File => source.path.parent(),
            Origin::Argument => None,
        }
    }

    /// Writes `place` as file and line: `plans/a.toml:12`.
    pub fn line_of(&self, place: &Place) -> String {
        let (line, _) = self.line_column(place);
        format!("{}:{line}", self.get(place.source).path.display())
    }

    /// Goes through all files with their texts, in the order in which they were read.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &str)> {
        let files = self.list.iter().filter(|s| s.origin == Origin::File);
        files.map(|s| (s.path.as_path(), s.text.as_str()))
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
