//! Reports: one HTML file that needs nothing else, neither a server nor a network.
//!
//! A page is put together from sections and their blocks, all text is escaped on its way in,
//! and a content security policy in the page forbids the browser to fetch anything at all.
//!
//! The page tells how drawing went in attributes of its root element, for tests and for
//! anyone who wonders: `data-charts-drawn`, `data-points-drawn`, `data-requests` (fetches over
//! HTTP, always 0) and, only if there were any, `data-errors`.

mod block;
mod table;

mod code;
mod data;
mod figure;
mod write;

mod html;
mod style;

pub use block::{Definition, FileLink, Language, Tile, Tone, Verdict};
pub use table::{Align, Cell, Column, Table};

use block::Block;

use crate::model::Chart;

/// A report.
#[derive(Clone, Debug, Default)]
pub struct Page {
    title: String,
    subtitle: String,
    generated: String,
    sections: Vec<Section>,
}

/// A part of a report with its own heading and its own entry in the table of contents.
#[derive(Clone, Debug, Default)]
pub struct Section {
    title: String,
    blocks: Vec<Block>,
}

impl Page {
    /// A page without sections.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    /// Sets the line under the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// Sets when the report was made, as it is to be shown. The page knows no clock, so that
    /// the same data gives the same file.
    pub fn generated(mut self, time: impl Into<String>) -> Self {
        self.generated = time.into();
        self
    }

    /// Adds a section.
    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// Writes the whole page. It holds the plotting library, 4.7 MB, once if it has a chart
    /// and not at all otherwise.
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

impl Section {
    /// A section without content.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            blocks: Vec::new(),
        }
    }

    /// Adds a paragraph of plain text.
    pub fn paragraph(self, text: impl Into<String>) -> Self {
        self.block(Block::Paragraph(text.into()))
    }

    /// Adds a paragraph that stands out.
    pub fn callout(self, tone: Tone, text: impl Into<String>) -> Self {
        self.block(Block::Callout(tone, text.into()))
    }

    /// Adds a verdict: its badge, what it is about, and its reasons.
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.block(Block::Verdict(verdict))
    }

    /// Adds the few numbers that matter most, large.
    pub fn tiles(self, tiles: impl IntoIterator<Item = Tile>) -> Self {
        self.block(Block::Tiles(tiles.into_iter().collect()))
    }

    /// Adds names with their values, for example the environment.
    pub fn key_values<K: Into<String>, V: Into<String>>(
        self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()));
        self.block(Block::KeyValues(pairs.collect()))
    }

    /// Adds a table.
    pub fn table(self, table: Table) -> Self {
        self.block(Block::Table(table))
    }

    /// Adds a chart with its data as a table to unfold.
    pub fn chart(self, chart: impl Into<Chart>) -> Self {
        self.block(Block::Chart(Box::new(chart.into())))
    }

    /// Adds definitions of metrics.
    pub fn definitions(self, definitions: impl IntoIterator<Item = Definition>) -> Self {
        self.block(Block::Definitions(definitions.into_iter().collect()))
    }

    /// Adds source text to unfold under `title`.
    pub fn code(
        self,
        title: impl Into<String>,
        language: Language,
        source: impl Into<String>,
    ) -> Self {
        self.block(Block::Code {
            title: title.into(),
            language,
            source: source.into(),
        })
    }

    /// Adds links to files.
    pub fn files(self, files: impl IntoIterator<Item = FileLink>) -> Self {
        self.block(Block::Files(files.into_iter().collect()))
    }

    fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}
