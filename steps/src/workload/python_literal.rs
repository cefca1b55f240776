//! Python literals as data: what `repr` writes of lists, dictionaries, texts, numbers, `True`, `False` and
//! `None`. Data sets hold such texts, and their scripts run them as programs; here nothing is run.

use serde_json::{Map, Number, Value};

/// A deeper literal is no data.
const DEEPEST: usize = 64;

/// Reads a literal; tuples become lists. What is wrong is told with the character, from 1.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader {
        all: text.chars().collect(),
        at: 0,
    };
    let value = reader.value(0)?;
    match reader.next_visible() {
        None => Ok(value),
        Some(more) => Err(reader.problem(&format!("`{more}` behind the literal"))),
    }
}

struct Reader {
    all: Vec<char>,
    at: usize,
}

impl Reader {
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(self.problem("it is nested too deeply"));
        }
        match self.next_visible() {
            Some('[') => self.list(']', depth).map(Value::Array),
            Some('(') => self.list(')', depth).map(Value::Array),
            Some('{') => self.dictionary(depth).map(Value::Object),
            Some('\'' | '"') => self.texts().map(Value::String),
            Some('0'..='9' | '-' | '+' | '.') => self.number(),
            Some(first) if first.is_alphabetic() || first == '_' => self.word(),
            Some(other) => Err(self.problem(&format!("no literal begins with `{other}`"))),
            None => Err(self.problem("it ends too early")),
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Result<Vec<Value>, String> {
        self.at += 1;
        let mut all = Vec::new();
        while !self.takes(end) {
            all.push(self.value(depth + 1)?);
            self.separator(end)?;
        }
        Ok(all)
    }

    fn dictionary(&mut self, depth: usize) -> Result<Map<String, Value>, String> {
        self.at += 1;
        let mut all = Map::new();
        while !self.takes('}') {
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            if !self.takes(':') {
                return Err(self.problem("expected `:`"));
            }
            all.insert(key, self.value(depth + 1)?);
            self.separator('}')?;
        }
        Ok(all)
    }

    /// Takes a comma, where the end does not come next.
    fn separator(&mut self, end: char) -> Result<(), String> {
        match self.next_visible() {
            Some(',') => self.at += 1,
            Some(next) if next == end => {}
            Some(other) => {
                return Err(self.problem(&format!("expected `,` or `{end}`, found `{other}`")));
            }
            None => return Err(self.problem("it ends too early")),
        }
        Ok(())
    }

    /// Texts that stand behind each other are one.
    fn texts(&mut self) -> Result<String, String> {
        let mut all = String::new();
        while let Some(quote @ ('\'' | '"')) = self.next_visible() {
            self.text(quote, false, &mut all)?;
        }
        Ok(all)
    }

    fn text(&mut self, quote: char, is_raw: bool, into: &mut String) -> Result<(), String> {
        let is_long = self.all[self.at..].starts_with(&[quote; 3]);
        let end: &[char] = if is_long { &[quote; 3] } else { &[quote] };
        self.at += end.len();
        loop {
            if self.all[self.at..].starts_with(end) {
                self.at += end.len();
                return Ok(());
            }
            match self.take() {
                None => return Err(self.problem("a text has no end")),
                Some('\n') if !is_long => return Err(self.problem("a text has no end on its line")),
                Some('\\') if !is_raw => self.escape(into)?,
                Some('\\') => {
                    into.push('\\');
                    into.extend(self.take());
                }
                Some(other) => into.push(other),
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self, into: &mut String) -> Result<(), String> {
        let Some(what) = self.take() else {
            return Err(self.problem("a text has no end"));
        };
        match what {
            '\n' => {}
            'n' => into.push('\n'),
            't' => into.push('\t'),
            'r' => into.push('\r'),
            'a' => into.push('\u{7}'),
            'b' => into.push('\u{8}'),
            'f' => into.push('\u{c}'),
            'v' => into.push('\u{b}'),
            '\\' | '\'' | '"' => into.push(what),
            'x' => into.push(self.code(2, 16)?),
            'u' => into.push(self.code(4, 16)?),
            'U' => into.push(self.code(8, 16)?),
            '0'..='7' => {
                self.at -= 1;
                let digits = self.all[self.at..].iter().take(3);
                let n = digits.take_while(|c| ('0'..='7').contains(*c)).count();
                into.push(self.code(n, 8)?);
            }
            // Python keeps the backslash of what it does not know.
            other => into.extend(['\\', other]),
        }
        Ok(())
    }

    /// The character whose number is written in so many digits.
    fn code(&mut self, digits: usize, base: u32) -> Result<char, String> {
        let end = self.at + digits;
        let written: Option<String> = self.all.get(self.at..end).map(|c| c.iter().collect());
        let number = written.and_then(|text| u32::from_str_radix(&text, base).ok());
        let number = number.ok_or_else(|| self.problem("an escape without its digits"))?;
        self.at = end;
        // Halves of pairs, which Python keeps, are no characters here.
        Ok(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn number(&mut self) -> Result<Value, String> {
        let is_part = |c: &&char| c.is_alphanumeric() || ".+-_".contains(**c);
        let text: String = self.all[self.at..].iter().take_while(is_part).collect();
        let plain = text.replace('_', "");
        let plain = plain.strip_prefix('+').unwrap_or(&plain);
        let whole = plain.parse::<i64>().ok().map(Number::from);
        let number = whole.or_else(|| plain.parse().ok().and_then(Number::from_f64));
        let number = number.ok_or_else(|| self.problem(&format!("`{text}` is no number")))?;
        self.at += text.chars().count();
        Ok(Value::Number(number))
    }

    /// A name that Python knows, or the letters before a text.
    fn word(&mut self) -> Result<Value, String> {
        let is_part = |c: &&char| c.is_alphanumeric() || **c == '_';
        let word: String = self.all[self.at..].iter().take_while(is_part).collect();
        let behind = self.at + word.chars().count();
        let quote = self.all.get(behind).copied().filter(|c| "'\"".contains(*c));
        let known = match (word.as_str(), quote) {
            ("True", None) => Value::Bool(true),
            ("False", None) => Value::Bool(false),
            ("None", None) => Value::Null,
            ("r" | "R" | "u" | "U", Some(quote)) => {
                self.at = behind;
                let mut text = String::new();
                self.text(quote, word.eq_ignore_ascii_case("r"), &mut text)?;
                return Ok(Value::String(text + &self.texts()?));
            }
            _ => return Err(self.problem(&format!("`{word}` is no literal"))),
        };
        self.at = behind;
        Ok(known)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_there = self.next_visible() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn take(&mut self) -> Option<char> {
        let next = self.all.get(self.at).copied();
        self.at += usize::from(next.is_some());
        next
    }

    /// The next character that is no white space, which is passed over.
    fn next_visible(&mut self) -> Option<char> {
        while self.all.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.all.get(self.at).copied()
    }

    fn problem(&self, what: &str) -> String {
        format!("{what} (character {})", self.at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_python_writes_is_read() {
        for (text, value) in [
            ("[]", json!([])),
            (
                "  [1, -2, 3.5, 1e3, 1_000, +4]",
                json!([1, -2, 3.5, 1000.0, 1000, 4]),
            ),
            ("(1,)", json!([1])),
            ("[True, False, None,]", json!([true, false, null])),
            (
                r#"{'Q': "it's", 'A': 'a "b"', 'n': {1: ()}}"#,
                json!({"Q": "it's", "A": "a \"b\"", "n": {"1": []}}),
            ),
            (
                r"'a\n\t\\\'\x41\u00e9\U0001F600\101\q'",
                json!("a\n\t\\'A\u{e9}\u{1F600}A\\q"),
            ),
            ("'a' \"b\"\n'c'", json!("abc")),
            ("'''a\n'b'\n'''", json!("a\n'b'\n")),
            (r"r'a\n\'' 'b'", json!(r"a\n\'b")),
            ("u'a'", json!("a")),
            ("'a\\\nb'", json!("ab")),
            (r"'\ud83d'", json!("\u{fffd}")),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_literal_is_told_and_never_run() {
        for (text, said) in [
            ("", "ends too early (character 1)"),
            ("[1, 2", "ends too early"),
            ("['a", "a text has no end"),
            ("'a\nb'", "no end on its line"),
            ("{'a' 1}", "expected `:`"),
            ("[1 2]", "expected `,` or `]`, found `2` (character 4)"),
            ("__import__('os').system('x')", "`__import__`"),
            ("[open('x')]", "`open` is no literal"),
            ("1 + 1", "behind the literal"),
            ("1+1", "`1+1` is no number"),
            (r"'\x4'", "without its digits"),
            ("f'{x}'", "`f` is no literal"),
            ("*a", "begins with `*`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let deep = "[".repeat(5000);
        assert!(parse(&deep).unwrap_err().contains("too deeply"));
    }
}
