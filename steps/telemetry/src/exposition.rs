//! The text in which servers tell metrics: Prometheus' exposition format, version 0.0.4.
//!
//! A text comes from whoever listens at an address, so everything about it has a limit, and a line that is
//! damaged costs that line and no other. Only wanted series are kept: a server has hundreds. Of a histogram
//! that is asked for by its name there are its sum and its count; its buckets have to be asked for by theirs.

use std::collections::BTreeSet;

/// How much of a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes: usize,
    /// Bytes of a line; a longer one is damaged.
    pub line: usize,
    /// Labels of a series; a line with more is damaged.
    pub labels: usize,
    /// Series that are kept.
    pub series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // vLLM and SGLang tell a hundred kilobytes.
            bytes: 8 << 20,
            line: 64 << 10,
            labels: 64,
            series: 10_000,
        }
    }
}

/// One value with what tells it from others of its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its full name, such as `vllm:request_queue_time_seconds_sum`.
    pub name: String,
    /// Names and values, as written.
    pub labels: Vec<(String, String)>,
    /// May be infinite or NaN: the format allows both.
    pub value: f64,
}

impl Series {
    /// Returns the value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What was wanted of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exposition {
    /// In the order of the text.
    pub series: Vec<Series>,
    /// Wanted lines that could not be understood.
    pub n_damaged: usize,
    /// The first of them.
    pub damaged: Option<Damage>,
}

impl Exposition {
    /// Returns the series of a name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| series.name == name)
    }
}

/// A line that could not be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Damage {
    /// Which, from 1.
    pub line: usize,
    /// What was wrong with it.
    pub why: &'static str,
}

/// Why a text was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpositionError {
    /// It is longer than it may be.
    #[error("the text has more than {0} bytes")]
    TooLong(usize),
    /// It has more wanted series than are kept.
    #[error("the text has more than {0} of the wanted series")]
    TooMany(usize),
}

/// Reads the wanted series of a text: those of these names, and sums and counts of histograms and summaries
/// of these names.
///
/// # Errors
/// [`ExpositionError`] if the text or what is wanted of it is larger than the limits.
pub fn read(
    text: &str,
    wanted: &BTreeSet<&str>,
    limits: &Limits,
) -> Result<Exposition, ExpositionError> {
    if text.len() > limits.bytes {
        return Err(ExpositionError::TooLong(limits.bytes));
    }
    let mut found = Exposition::default();
    // Histograms and summaries among what is wanted: a text declares them before it tells them.
    let mut distributions: BTreeSet<&str> = BTreeSet::new();
    for (i, line) in text.split('\n').enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if let Some(comment) = line.strip_prefix('#') {
            distributions.extend(distribution(comment).filter(|name| wanted.contains(name)));
            continue;
        }
        let name = &line[..name_length(line)];
        let is_part = |part: &str| {
            let of = name.strip_suffix(part);
            of.is_some_and(|of| distributions.contains(of))
        };
        if name.is_empty() || !(wanted.contains(name) || is_part("_sum") || is_part("_count")) {
            continue;
        }
        match series(line, name, limits) {
            Ok(_) if found.series.len() >= limits.series => {
                return Err(ExpositionError::TooMany(limits.series));
            }
            Ok(series) => found.series.push(series),
            Err(why) => {
                found.n_damaged += 1;
                found.damaged.get_or_insert(Damage { line: i + 1, why });
            }
        }
    }
    Ok(found)
}

/// The name that a comment declares to be of a histogram or a summary.
fn distribution(comment: &str) -> Option<&str> {
    let mut words = comment.split_ascii_whitespace();
    if words.next() != Some("TYPE") {
        return None;
    }
    let name = words.next()?;
    matches!(words.next(), Some("histogram" | "summary")).then_some(name)
}

/// How many bytes at the front are a metric's name.
fn name_length(line: &str) -> usize {
    let is_first = |c: u8| c.is_ascii_alphabetic() || c == b'_' || c == b':';
    let bytes = line.as_bytes();
    if !bytes.first().is_some_and(|c| is_first(*c)) {
        return 0;
    }
    let is_other = |c: &u8| is_first(*c) || c.is_ascii_digit();
    bytes.iter().take_while(|c| is_other(c)).count()
}

fn series(line: &str, name: &str, limits: &Limits) -> Result<Series, &'static str> {
    if line.len() > limits.line {
        return Err("it is too long");
    }
    let rest = line[name.len()..].trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside, limits.labels)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().and_then(|word| word.parse().ok());
    let value = value.ok_or("it has no value that is a number")?;
    // The instant that may follow is the server's own: here it is that of the reading that counts.
    match (words.next().map(str::parse::<i64>), words.next()) {
        (None | Some(Ok(_)), None) => Ok(Series {
            name: name.to_owned(),
            labels,
            value,
        }),
        _ => Err("something follows its value"),
    }
}

type Labels = Vec<(String, String)>;

/// The labels behind an opening brace, and what follows the closing one.
fn labels(text: &str, most: usize) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        if labels.len() == most {
            return Err("it has too many labels");
        }
        let (name, after) = rest.split_once('=').ok_or("a label has no value")?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(':') || name_length(name) != name.len() {
            return Err("a label's name is none");
        }
        let after = after.trim_start().strip_prefix('"');
        let (value, after) = quoted(after.ok_or("a label's value has no quotes")?)?;
        labels.push((name.to_owned(), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err("labels are not parted by commas"),
        }
    }
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('"' | '\\'))) => c,
                _ => return Err("a label's value has an unknown escape"),
            }),
            c => value.push(c),
        }
    }
    Err("a label's value has no end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"# HELP up Whether it is up.
# TYPE up gauge
up 1
# TYPE wait_seconds histogram
wait_seconds_bucket{model="m",le="0.1"} 2
wait_seconds_bucket{model="m",le="+Inf"} 3
wait_seconds_sum{model="m"} 1.5
wait_seconds_count{model="m"} 3
tokens_total { model = "a \"b\" \\ \n{}" , source="x", } 1.2e1 1700000000000
tokens_total{model="}"} +Inf
tokens_created NaN
"#;

    fn of(text: &str, wanted: &[&str]) -> Exposition {
        read(text, &wanted.iter().copied().collect(), &Limits::default()).expect("within limits")
    }

    fn values(text: &str, wanted: &[&str]) -> Vec<(String, f64)> {
        let series = of(text, wanted).series.into_iter();
        series.map(|series| (series.name, series.value)).collect()
    }

    #[test]
    fn names_labels_and_values_are_read_as_they_are_written() {
        let found = of(TEXT, &["tokens_total", "up"]);
        assert_eq!(found.damaged, None);
        assert_eq!(found.series[0].value, 1.0);
        let first = &found.series[1];
        assert_eq!(first.label("model"), Some("a \"b\" \\ \n{}"));
        assert_eq!((first.label("source"), first.value), (Some("x"), 12.0));
        assert_eq!(first.label("other"), None);
        let last = found.named("tokens_total").last().expect("two");
        assert_eq!(
            (last.label("model"), last.value),
            (Some("}"), f64::INFINITY)
        );
        assert!(of(TEXT, &["tokens_created"]).series[0].value.is_nan());
    }

    #[test]
    fn a_histogram_is_its_sum_and_count_and_its_buckets_only_where_asked() {
        let whole = [("wait_seconds_sum", 1.5), ("wait_seconds_count", 3.0)];
        let whole = whole.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(values(TEXT, &["wait_seconds"]), whole);
        assert_eq!(values(TEXT, &["wait_seconds_count"]), whole[1..]);
        let buckets = values(TEXT, &["wait_seconds_bucket"]);
        assert_eq!(buckets.iter().map(|b| b.1).collect::<Vec<_>>(), [2.0, 3.0]);
        // What only looks like part of a histogram is a name of its own.
        assert_eq!(values("x_count 1\n", &["x"]), []);
    }

    #[test]
    fn a_damaged_line_costs_that_line_and_is_told() {
        for (line, why) in [
            ("up", "it has no value that is a number"),
            ("up x", "it has no value that is a number"),
            ("up 1 2 3", "something follows its value"),
            ("up 1 # {trace=\"x\"} 1", "something follows its value"),
            ("up{a} 1", "a label has no value"),
            ("up{a=b} 1", "a label's value has no quotes"),
            ("up{1a=\"b\"} 1", "a label's name is none"),
            ("up{a=\"b} 1", "a label's value has no end"),
            ("up{a=\"\\x\"} 1", "a label's value has an unknown escape"),
            ("up{a=\"b\"c=\"d\"} 1", "labels are not parted by commas"),
        ] {
            let found = of(&format!("up 7\n{line}\nup 8\n"), &["up"]);
            assert_eq!(found.damaged, Some(Damage { line: 2, why }), "{line}");
            assert_eq!((found.series.len(), found.n_damaged), (2, 1), "{line}");
        }
        assert_eq!(of("other{ 1\n1up 2\n", &["up"]), Exposition::default());
    }

    #[test]
    fn everything_has_a_limit() {
        let limits = Limits {
            bytes: 60,
            line: 20,
            labels: 1,
            series: 2,
        };
        let read = |text: &str| read(text, &["up"].into(), &limits);
        assert_eq!(read(&"u".repeat(61)), Err(ExpositionError::TooLong(60)));
        assert_eq!(read("up 1\nup 2\nup 3\n"), Err(ExpositionError::TooMany(2)));
        let why = |text: &str| read(text).expect("read").damaged.expect("damaged").why;
        assert_eq!(why("up{a=\"1\",b=\"2\"} 1"), "it has too many labels");
        assert_eq!(why(&format!("up {}1", " ".repeat(20))), "it is too long");
    }

    fn series_of() -> impl Strategy<Value = Series> {
        let labels = prop::collection::vec(
            ("[a-z_][a-z0-9_]{0,5}", "\\PC{0,8}|[\"\\\\\n{}, =]{0,6}"),
            0..4,
        );
        (
            "[ab:]{1,3}",
            labels,
            any::<f64>().prop_filter("not NaN", |v| !v.is_nan()),
        )
            .prop_map(|(name, labels, value)| Series {
                name,
                labels,
                value,
            })
    }

    fn written(series: &Series) -> String {
        let escaped = |text: &str| {
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        let labels = series.labels.iter();
        let labels: Vec<String> = labels
            .map(|(n, v)| format!("{n}=\"{}\"", escaped(v)))
            .collect();
        match labels.is_empty() {
            true => format!("{} {}\n", series.name, series.value),
            false => format!("{}{{{}}} {}\n", series.name, labels.join(","), series.value),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in prop::collection::vec(series_of(), 0..6)) {
            let text: String = all.iter().map(written).collect();
            let wanted = all.iter().map(|series| series.name.as_str()).collect();
            let found = read(&text, &wanted, &Limits::default()).expect("within limits");
            prop_assert_eq!(found.damaged, None);
            prop_assert_eq!(found.series, all);
        }

        #[test]
        fn no_text_is_more_than_its_lines(text in "(up|# TYPE up histogram|\\PC|[{}\",=\\\\ \n\t0-9]){0,200}") {
            let found = read(&text, &["up"].into(), &Limits::default()).expect("within limits");
            prop_assert!(found.series.len() + found.n_damaged <= text.lines().count() + 1);
        }

        #[test]
        fn a_text_that_is_cut_gives_no_more_than_the_whole(at in 0..TEXT.len()) {
            let at = (0..=at).rev().find(|at| TEXT.is_char_boundary(*at)).unwrap_or(0);
            let whole = of(TEXT, &["tokens_total", "up", "wait_seconds"]);
            let cut = of(&TEXT[..at], &["tokens_total", "up", "wait_seconds"]);
            prop_assert!(cut.series.len() <= whole.series.len());
        }
    }
}
