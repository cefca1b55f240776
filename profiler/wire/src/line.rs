//! A request or an answer: a word, and pairs of a key and a value, in one line of text.

use std::fmt;
use std::str::FromStr;

/// Bytes of the longest line that is read.
pub const LONGEST: usize = 16 * 1024;

/// One line: `started t0=17 path=/tmp/a%20b`. In keys and values a blank, a line's end, `=` and `%` are
/// written as `%` and two hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    word: String,
    pairs: Vec<(String, String)>,
}

/// Why a line does not say what is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is none.
    #[error("`{text}` is no line: {why}")]
    Malformed {
        /// Its beginning.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A pair is not there.
    #[error("`{word}` lacks `{key}`")]
    Missing {
        /// The line's word.
        word: String,
        /// The key.
        key: &'static str,
    },
    /// A value is not a number.
    #[error("`{key}` of `{word}` is `{value}`, expected a number")]
    NotANumber {
        /// The line's word.
        word: String,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
}

impl Line {
    /// A line of a word alone.
    #[must_use]
    pub fn new(word: &str) -> Self {
        Self {
            word: word.to_owned(),
            pairs: Vec::new(),
        }
    }

    /// The line with one more pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.pairs.push((key.to_owned(), value.to_string()));
        self
    }

    /// Its word.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.word
    }

    /// The value of a key, of several the first.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(known, _)| known == key);
        pair.map(|(_, value)| value.as_str())
    }

    /// The number of a key.
    ///
    /// # Errors
    /// [`LineError`], if it is not there or no number.
    pub fn number(&self, key: &'static str) -> Result<u64, LineError> {
        let word = || self.word.clone();
        let value = self
            .get(key)
            .ok_or_else(|| LineError::Missing { word: word(), key })?;
        value.parse().map_err(|_| LineError::NotANumber {
            word: word(),
            key,
            value: value.to_owned(),
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.word))?;
        for (key, value) in &self.pairs {
            write!(f, " {}={}", escaped(key), escaped(value))?;
        }
        Ok(())
    }
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let malformed = |why| LineError::Malformed {
            text: text.chars().take(80).collect(),
            why,
        };
        let mut parts = text.split(' ');
        let word = parts.next().filter(|word| !word.is_empty());
        let word = word.ok_or_else(|| malformed("it has no word"))?;
        let plain =
            |text: &str| unescaped(text).ok_or_else(|| malformed("a `%` without two digits"));
        let pair = |part: &str| -> Result<(String, String), LineError> {
            let pair = part.split_once('=');
            let (key, value) = pair.ok_or_else(|| malformed("a pair without `=`"))?;
            Ok((plain(key)?, plain(value)?))
        };
        Ok(Self {
            word: plain(word)?,
            pairs: parts.map(pair).collect::<Result<_, LineError>>()?,
        })
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' | '=' | '%' | '\n' | '\r' => escaped.push_str(&format!("%{:02x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        plain.push(char::from(code));
        plain.push_str(&part[2..]);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_by_their_keys() {
        let line: Line = "started t0=17 path=/a%20b%3d t0=4".parse().unwrap();
        assert_eq!((line.word(), line.get("path")), ("started", Some("/a b=")));
        assert_eq!(line.number("t0"), Ok(17));
        let error = line.number("path").unwrap_err().to_string();
        assert_eq!(error, "`path` of `started` is `/a b=`, expected a number");
        let error = line.number("t1").unwrap_err().to_string();
        assert_eq!(error, "`started` lacks `t1`");
    }

    #[test]
    fn what_is_no_line_is_told() {
        for (text, why) in [
            ("", "no word"),
            ("a b", "without `=`"),
            ("a b=%2", "two digits"),
            ("a b=%é", "two digits"),
        ] {
            let error = text.parse::<Line>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(word in "[a-z%= ]{1,8}", pairs in prop::collection::vec((".*", ".*"), 0..5)) {
            let line = pairs.iter().fold(Line::new(&word), |line, (key, value)| line.with(key, value));
            let text = line.to_string();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(text.parse::<Line>(), Ok(line));
        }

        #[test]
        fn any_text_is_a_line_or_an_error(text in ".*") {
            let _ = text.parse::<Line>();
        }
    }
}
