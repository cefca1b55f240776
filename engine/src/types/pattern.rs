//! Text to look for in a log: literal, or a regular expression between slashes.

use crate::options::{OptionType, Parser, Walk};
use crate::value::{Kind, Value};
use regex::bytes::{Regex, RegexBuilder};

/// The most memory that one compiled expression may take, bytes: plans come from anywhere.
const MAX_COMPILED: usize = 1 << 20;

/// What to look for in a log. `Uvicorn running` stands for itself, `/ready after \d+ s/` is a
/// regular expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a pattern as plans write it.
    ///
    /// # Errors
    /// What is wrong with the regular expression, in one line.
    pub fn new(text: &str) -> Result<Self, String> {
        let expression = text
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        let source = match expression {
            Some(expression) => expression.to_owned(),
            None => regex::escape(text),
        };
        let built = RegexBuilder::new(&source).size_limit(MAX_COMPILED).build();
        let regex = built.map_err(|error| last_line(&error.to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }

    /// Whether `bytes` hold what is looked for; they need not be UTF-8.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.regex.is_match(bytes)
    }
}

/// The expression itself is repeated by the lines before.
fn last_line(error: &str) -> String {
    let line = error.trim_end().lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl OptionType for Pattern {
    fn type_name() -> String {
        "text or /regex/".to_owned()
    }

    fn schema() -> crate::schema::Schema {
        serde_json::json!({ "type": "string" })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Text(text) = &value.kind else {
            return parser.mismatch(value, "text, or a regular expression between slashes");
        };
        if text.is_empty() || text == "//" {
            return parser.wrong(
                &value.place,
                "the text to look for is empty",
                "every log holds this",
                "write what the log says once, such as `Uvicorn running`",
            );
        }
        match Self::new(text) {
            Ok(pattern) => Some(pattern),
            Err(why) => parser.wrong(
                &value.place,
                format!("`{text}` is not a regular expression: {why}"),
                "not understood",
                "write it without slashes to look for exactly this text",
            ),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_slashes_every_character_stands_for_itself() {
        let plain = Pattern::new("running on (http://").unwrap();
        assert!(plain.is_in(b"INFO: Uvicorn running on (http://0.0.0.0)\n"));
        assert!(!Pattern::new("a.c").unwrap().is_in(b"abc"));
        assert!(Pattern::new("/a.c/").unwrap().is_in(b"\xff abc"));
        assert!(Pattern::new("/").unwrap().is_in(b"a/b"));
    }

    #[test]
    fn what_is_no_expression_says_why_in_one_line() {
        let why = Pattern::new("/(/").unwrap_err();
        assert_eq!(why, "unclosed group");
        assert!(Pattern::new(r"/(\w{1,99}){1,999}/").is_err(), "a bomb");
    }
}
