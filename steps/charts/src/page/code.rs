//! Source text, with TOML coloured well enough to be read at a glance.
//!
//! Colouring never changes the text: what is not understood is shown as it is.

use crate::escape::escape;
use crate::page::block::Language;

/// Writes source text that unfolds under its title.
pub(crate) fn write(out: &mut String, title: &str, language: Language, source: &str) {
    let body = match language {
        Language::Toml => toml(source),
        Language::Plain => escape(source),
    };
    let lines = source.lines().count();
    out.push_str(&format!(
        "<details class=\"code\"><summary>{} <span class=\"detail\">{lines} lines</span></summary>\
         <pre tabindex=\"0\"><code>{body}</code></pre></details>\n",
        escape(title)
    ));
}

/// Colours TOML.
fn toml(source: &str) -> String {
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    // Whether only blanks have been seen since the start of the line.
    let mut fresh = true;
    while let Some(c) = rest.chars().next() {
        let (class, length) = token(rest, c, fresh);
        let (text, after) = rest.split_at(length);
        match class {
            "" => out.push_str(&escape(text)),
            class => out.push_str(&format!(
                "<span class=\"t-{class}\">{}</span>",
                escape(text)
            )),
        }
        fresh = c == '\n' || (fresh && c.is_whitespace());
        rest = after;
    }
    out
}

/// Class and length in bytes of the token that starts here.
fn token(rest: &str, first: char, fresh: bool) -> (&'static str, usize) {
    match first {
        '#' => ("comment", line_end(rest)),
        '"' | '\'' => {
            let length = string(rest, first);
            (
                if fresh {
                    key_or("string", &rest[length..])
                } else {
                    "string"
                },
                length,
            )
        }
        '[' if fresh => ("table", header(rest)),
        c if c.is_alphanumeric() || matches!(c, '_' | '-' | '+') => {
            let ends = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.' | ':'));
            let length = rest.find(ends).unwrap_or(rest.len());
            (word(&rest[..length], &rest[length..]), length)
        }
        c => ("", c.len_utf8()),
    }
}

fn line_end(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// Length of a string with its quotes. One that is never closed ends with its line, or with
/// the text if it may span lines.
fn string(rest: &str, quote: char) -> usize {
    let triple: String = [quote; 3].iter().collect();
    if rest.starts_with(&triple) {
        return rest[3..].find(&triple).map_or(rest.len(), |at| at + 6);
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of `[table]` or `[[tables]]`, up to its last bracket in the line and no comment.
fn header(rest: &str) -> usize {
    let line = &rest[..line_end(rest)];
    let line = line.split('#').next().unwrap_or(line);
    line.rfind(']').map_or(1, |at| at + 1)
}

/// What a bare word is: a key if an equals sign follows, a value otherwise.
fn word(text: &str, after: &str) -> &'static str {
    let value = match text {
        "true" | "false" | "inf" | "nan" | "+inf" | "-inf" => "literal",
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) => "literal",
        _ => "",
    };
    key_or(value, after)
}

/// `key` if what follows makes it one.
fn key_or(otherwise: &'static str, after: &str) -> &'static str {
    let after = after.trim_start_matches([' ', '\t']);
    if after.starts_with('=') {
        "key"
    } else {
        otherwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that a browser would show.
    fn shown(html: &str) -> String {
        let mut text = String::new();
        for piece in html.split('<') {
            text.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
        }
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"");
        text.replace("&#39;", "'").replace("&amp;", "&")
    }

    #[test]
    fn the_parts_of_toml_are_told_apart() {
        let html =
            toml("[steps.load]  # why\nuse = \"a # b\"\nn = 4\nok = [true, 'x']\n\"k\" = -1.5\n");
        assert!(html.contains("<span class=\"t-table\">[steps.load]</span>"));
        assert!(html.contains("<span class=\"t-comment\"># why</span>"));
        assert!(html.contains("<span class=\"t-key\">use</span>"));
        assert!(html.contains("<span class=\"t-string\">&quot;a # b&quot;</span>"));
        assert!(html.contains("<span class=\"t-literal\">4</span>"));
        assert!(html.contains("<span class=\"t-literal\">true</span>"));
        assert!(html.contains("<span class=\"t-key\">&quot;k&quot;</span>"));
        assert!(html.contains("<span class=\"t-literal\">-1.5</span>"));
    }

    #[test]
    fn colouring_never_changes_the_text() {
        let sources = [
            "a = \"never closed\nb = 1",
            "a = \"\"\"\nlines \"of\" text\n\"\"\"\nb = '''x",
            "[open\n[[x]] # [y]\nτ = \"\\\"é\" # ü",
            "<b>&amp;</b> = '<'",
            "",
            "\"",
            "[",
        ];
        for source in sources {
            assert_eq!(shown(&toml(source)), source);
        }
    }
}
