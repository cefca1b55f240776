//! How each block is written as HTML. Text is escaped here and nowhere later.

use crate::escape::escape;
use crate::page::block::{Block, Definition, FileLink, Tile, Tone, Verdict};
use crate::page::figure::Figures;
use crate::page::{code, table};
use crate::reading::Grade;

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
    use crate::page::block::Language;

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
        assert_eq!(address("/data/x.json"), "/data/x.json");
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
