//! What a section can contain. Knows no HTML.

use crate::model::Chart;
use crate::page::table::Table;
use crate::reading::Grade;

/// How something is meant to strike the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Worth knowing.
    Note,
    /// As it should be.
    Good,
    /// To be taken with care.
    Warn,
    /// Wrong.
    Bad,
}

/// How far a result can be believed, and why.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The verdict.
    pub grade: Grade,
    /// What it is about, for example a sample or the whole run.
    pub subject: String,
    /// Why; empty if nothing is wrong.
    pub reasons: Vec<String>,
}

/// One number that matters, shown large.
#[derive(Clone, Debug)]
pub struct Tile {
    /// What it is.
    pub label: String,
    /// The number, already written for people.
    pub value: String,
    /// Its unit; may be empty.
    pub unit: String,
    /// A line beneath: interval, sample count, change; may be empty.
    pub detail: String,
    /// How to take it.
    pub tone: Option<Tone>,
}

/// What a metric means.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The metric's name.
    pub name: String,
    /// Its unit; may be empty.
    pub unit: String,
    /// How it is computed.
    pub formula: String,
}

/// A link to a file that belongs to the report.
#[derive(Clone, Debug)]
pub struct FileLink {
    /// What the link says.
    pub name: String,
    /// Where the file is: a path, relative to the folder that the page will lie in, or
    /// absolute.
    pub path: String,
    /// What the file holds; may be empty.
    pub detail: String,
}

/// What source text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// TOML, which is coloured.
    Toml,
    /// Anything else.
    Plain,
}

/// A piece of a section.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    Paragraph(String),
    Callout(Tone, String),
    Verdict(Verdict),
    Tiles(Vec<Tile>),
    KeyValues(Vec<(String, String)>),
    Table(Table),
    Chart(Box<Chart>),
    Definitions(Vec<Definition>),
    Code {
        title: String,
        language: Language,
        source: String,
    },
    Files(Vec<FileLink>),
}

impl Tone {
    /// The word used in classes, and read out where colour says nothing.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Tone::Note => "note",
            Tone::Good => "good",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

impl Verdict {
    /// A verdict without reasons.
    pub fn new(grade: Grade, subject: impl Into<String>) -> Self {
        Self {
            grade,
            subject: subject.into(),
            reasons: Vec::new(),
        }
    }

    /// Adds a reason.
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        self.reasons.push(text.into());
        self
    }
}

impl Tile {
    /// A number with its unit.
    pub fn new(
        label: impl Into<String>,
        value: impl Into<String>,
        unit: impl Into<String>,
    ) -> Self {
        let (label, value, unit) = (label.into(), value.into(), unit.into());
        Self {
            label,
            value,
            unit,
            detail: String::new(),
            tone: None,
        }
    }

    /// Sets the line beneath.
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.detail = text.into();
        self
    }

    /// Sets how to take it.
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = Some(tone);
        self
    }
}

impl Definition {
    /// A metric, its unit and how it is computed.
    pub fn new(
        name: impl Into<String>,
        unit: impl Into<String>,
        formula: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            unit: unit.into(),
            formula: formula.into(),
        }
    }
}

impl FileLink {
    /// A link that says its path.
    pub fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        let path = path.into();
        Self {
            name: path.clone(),
            path,
            detail: detail.into(),
        }
    }
}
