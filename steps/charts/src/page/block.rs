//! What a section can contain, and how each of it is written.

use crate::escape::escape;
use crate::model::Chart;
use crate::page::code;
use crate::page::figure::Figures;
use crate::page::table::{self, Table};
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

impl Block {
    /// Writes the block. `figures` numbers the charts of the page.
    pub(crate) fn write(&self, out: &mut String, figures: &mut Figures) {
        match self {
            Block::Paragraph(text) => out.push_str(&format!("<p>{}</p>\n", escape(text))),
            Block::Callout(tone, text) => {
                let (word, text) = (tone.word(), escape(text));
                out.push_str(&format!(
                    "<p class=\"callout {word}\" role=\"note\">{text}</p>\n"
                ));
            }
            Block::Verdict(verdict) => write_verdict(out, verdict),
            Block::Tiles(tiles) => write_tiles(out, tiles),
            Block::KeyValues(pairs) => write_pairs(out, pairs),
            Block::Table(table) => table::write(out, table),
            Block::Chart(chart) => figures.write(out, chart),
            Block::Definitions(definitions) => write_definitions(out, definitions),
            Block::Code {
                title,
                language,
                source,
            } => code::write(out, title, *language, source),
            Block::Files(files) => write_files(out, files),
        }
    }
}

/// A verdict's word on its colour.
pub(crate) fn badge(grade: Grade) -> String {
    let word = grade.word();
    format!("<span class=\"badge {word}\">{word}</span>")
}

fn write_verdict(out: &mut String, verdict: &Verdict) {
    let (badge, subject) = (badge(verdict.grade), escape(&verdict.subject));
    let word = verdict.grade.word();
    out.push_str(&format!(
        "<div class=\"verdict {word}\">{badge} <strong>{subject}</strong>"
    ));
    if !verdict.reasons.is_empty() {
        out.push_str("<ul>");
        for reason in &verdict.reasons {
            out.push_str(&format!("<li>{}</li>", escape(reason)));
        }
        out.push_str("</ul>");
    }
    out.push_str("</div>\n");
}

fn write_tiles(out: &mut String, tiles: &[Tile]) {
    out.push_str("<div class=\"tiles\">");
    for tile in tiles {
        let tone = tile.tone.map_or("", Tone::word);
        let (label, value) = (escape(&tile.label), escape(&tile.value));
        out.push_str(&format!(
            "<div class=\"tile {tone}\"><span class=\"label\">{label}</span>\
             <span class=\"number\">{value}{}</span>{}</div>",
            optional("small", " ", &tile.unit),
            optional("span class=\"detail\"", "", &tile.detail),
        ));
    }
    out.push_str("</div>\n");
}

/// An element around text, or nothing if there is no text.
fn optional(element: &str, before: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let name = element.split(' ').next().unwrap_or(element);
    format!("{before}<{element}>{}</{name}>", escape(text))
}

fn write_pairs(out: &mut String, pairs: &[(String, String)]) {
    out.push_str("<dl class=\"pairs\">");
    for (key, value) in pairs {
        out.push_str(&format!(
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(key),
            escape(value)
        ));
    }
    out.push_str("</dl>\n");
}

fn write_definitions(out: &mut String, definitions: &[Definition]) {
    out.push_str("<dl class=\"definitions\">");
    for definition in definitions {
        let unit = optional("span class=\"unit\"", " ", &definition.unit);
        out.push_str(&format!(
            "<dt><code>{}</code>{unit}</dt><dd>{}</dd>",
            escape(&definition.name),
            escape(&definition.formula),
        ));
    }
    out.push_str("</dl>\n");
}

fn write_files(out: &mut String, files: &[FileLink]) {
    out.push_str("<ul class=\"files\">");
    for file in files {
        let (href, name) = (escape(&address(&file.path)), escape(&file.name));
        let detail = optional("span class=\"detail\"", " ", &file.detail);
        out.push_str(&format!("<li><a href=\"{href}\">{name}</a>{detail}</li>"));
    }
    out.push_str("</ul>\n");
}

/// A path as a relative address. Everything but plain characters is percent-encoded, the
/// colon too, so that no path can be read as a script or as another site.
fn address(path: &str) -> String {
    let trimmed = path.trim_start_matches('/');
    let mut address = if trimmed.len() < path.len() {
        "/"
    } else {
        "./"
    }
    .to_owned();
    for byte in trimmed.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                address.push(char::from(byte));
            }
            other => address.push_str(&format!("%{other:02X}")),
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(block: Block) -> String {
        let mut out = String::new();
        block.write(&mut out, &mut Figures::default());
        out
    }

    #[test]
    fn all_text_is_escaped() {
        let evil = "<script>alert('x')</script>".to_owned();
        let text = || evil.clone();
        let blocks = [
            Block::Paragraph(text()),
            Block::Callout(Tone::Bad, text()),
            Block::Verdict(Verdict::new(Grade::Invalid, text()).reason(text())),
            Block::Tiles(vec![Tile::new(text(), text(), text()).detail(text())]),
            Block::KeyValues(vec![(text(), text())]),
            Block::Definitions(vec![Definition::new(text(), text(), text())]),
            Block::Code {
                title: text(),
                language: Language::Toml,
                source: text(),
            },
            Block::Code {
                title: text(),
                language: Language::Plain,
                source: text(),
            },
            Block::Files(vec![FileLink::new(text(), text())]),
        ];
        for block in blocks {
            let html = written(block.clone());
            assert!(
                !html.contains("<script") && html.contains("alert"),
                "{block:?}"
            );
        }
    }

    #[test]
    fn a_link_leads_to_a_file_only() {
        assert_eq!(address("samples/a b.parquet"), "./samples/a%20b.parquet");
        assert_eq!(address("/tmp/x.json"), "/tmp/x.json");
        assert_eq!(
            address("javascript:alert(1)"),
            "./javascript%3Aalert%281%29"
        );
        assert_eq!(address("//evil.example/x"), "/evil.example/x");
        assert_eq!(address("http://evil.example"), "./http%3A//evil.example");
    }

    #[test]
    fn a_verdict_says_its_reasons() {
        let verdict = Verdict::new(Grade::Degraded, "rate 16").reason("client lag 4 ms");
        let html = written(Block::Verdict(verdict));
        assert!(html.contains("<span class=\"badge degraded\">degraded</span>"));
        assert!(html.contains("<li>client lag 4 ms</li>"));
    }
}
