//! The text of an expression as tokens.

use super::{Comparison, FORMS, Is};
use crate::problem::Problem;
use crate::source::{Place, Sources};
use std::ops::Range;

/// Where a text stands in its source, as far as it is written there as it is.
pub(super) struct Located<'a> {
    place: &'a Place,
    offset: Option<usize>,
}

impl<'a> Located<'a> {
    /// Finds the text within its quotes; escapes make it unfindable.
    pub(super) fn new(text: &str, place: &'a Place, sources: &Sources) -> Self {
        Self {
            offset: sources.text_at(place).find(text),
            place,
        }
    }

    /// Returns the place of a range of bytes of the text.
    pub(super) fn at(&self, range: Range<usize>) -> Place {
        match self.offset {
            Some(offset) => {
                let start = self.place.span.start + offset;
                Place::new(self.place.source, start + range.start..start + range.end)
            }
            None => self.place.clone(),
        }
    }
}

/// A part of an expression that is not divided further.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Value(Is),
    Reference(String),
    Compare(Comparison),
    Word(String),
    Mark(char),
}

/// What the signs of comparisons mean; longer ones first.
const SIGNS: &[(&str, Comparison)] = &[
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

/// Splits an expression into tokens with their places.
pub(super) fn read(text: &str, source: &Located<'_>) -> Result<Vec<(Token, Place)>, Problem> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let Some((token, length)) = token(&text[at..]) else {
            let rest = text[at..].split_whitespace().next().unwrap_or("");
            let place = source.at(at..at + rest.len());
            let message = format!("`{rest}` is not a part of an expression");
            return Err(Problem::at(&place, message, "not understood").help(FORMS));
        };
        found.push((token, source.at(at..at + length)));
        at += length;
    }
    Ok(found)
}

/// Reads one token and says how long it is.
fn token(text: &str) -> Option<(Token, usize)> {
    if let Some(rest) = text.strip_prefix("${") {
        let end = rest.find('}')?;
        return Some((Token::Reference(rest[..end].to_owned()), end + 3));
    }
    for (sign, comparison) in SIGNS {
        if text.starts_with(sign) {
            return Some((Token::Compare(*comparison), sign.len()));
        }
    }
    let first = text.chars().next()?;
    if "()[],".contains(first) {
        return Some((Token::Mark(first), 1));
    }
    if first == '"' || first == '\'' {
        return quoted(text, first);
    }
    let length = text
        .find(|c: char| !(c.is_alphanumeric() || "_.+-".contains(c)))
        .unwrap_or(text.len());
    let word = &text[..length];
    let token = match word {
        "" => return None,
        "true" => Token::Value(Is::Bool(true)),
        "false" => Token::Value(Is::Bool(false)),
        "and" | "or" | "not" | "in" => Token::Word(word.to_owned()),
        number => Token::Value(Is::Number(
            number.parse().ok().filter(|n: &f64| n.is_finite())?,
        )),
    };
    Some((token, length))
}

fn quoted(text: &str, quote: char) -> Option<(Token, usize)> {
    let mut said = String::new();
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            c if escaped => {
                said.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            c if c == quote => return Some((Token::Value(Is::Text(said)), i + 1)),
            c => said.push(c),
        }
    }
    None
}
