//! The expression in `when`: comparisons of parameters, axes and literals, joined by `and`, `or`
//! and `not`. Typed, without functions and without surprises: what does not compare is a problem.

use crate::interpolate::{self, Scope};
use crate::problem::Problem;
use crate::source::{Place, Sources};
use crate::types::number_text;
use crate::value::{Kind, Value};
use std::ops::Range;

/// What may be written, for mends.
const FORMS: &str = "write comparisons such as `${axes.NAME} == 4`, joined by `and`, `or` and `not`: `==`, `!=`, `<`, `<=`, `>`, `>=`, `in [1, 2]`";
/// The deepest nesting of parentheses and `not`.
const DEEPEST: usize = 64;

/// An expression as parsed.
#[derive(Debug, Clone)]
pub struct When {
    text: String,
    root: Node,
}

#[derive(Debug, Clone)]
struct Node {
    what: What,
    place: Place,
}

#[derive(Debug, Clone)]
enum What {
    Literal(Is),
    Reference(String),
    List(Vec<Node>),
    Not(Box<Node>),
    Both(Box<Node>, Box<Node>),
    Either(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A value of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Is {
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Is>),
}

impl Is {
    fn type_name(&self) -> &'static str {
        match self {
            Is::Bool(_) => "a boolean",
            Is::Number(_) => "a number",
            Is::Text(_) => "a string",
            Is::List(_) => "a list",
        }
    }

    fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Bool(b) => Is::Bool(b),
            #[expect(
                clippy::cast_precision_loss,
                reason = "numbers in plans are far below 2^53"
            )]
            Kind::Int(i) => Is::Number(i as f64),
            Kind::Float(f) => Is::Number(f),
            Kind::Text(t) => Is::Text(t),
            Kind::List(list) => Is::List(
                list.into_iter()
                    .map(|v| Is::of(v.kind))
                    .collect::<Option<_>>()?,
            ),
            Kind::Table(_) | Kind::Template(_) => return None,
        })
    }
}

impl std::fmt::Display for Is {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Is::Bool(b) => write!(f, "{b}"),
            Is::Number(n) => f.write_str(&number_text(*n)),
            Is::Text(t) => f.write_str(t),
            Is::List(list) => {
                let items: Vec<String> = list.iter().map(Is::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// What an expression comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The instance is there.
    Yes,
    /// It is not, for the reason that is given.
    No(String),
}

impl When {
    /// Parses the text `value` as an expression.
    ///
    /// # Errors
    /// The first thing that is not understood.
    pub fn parse(value: &Value, sources: &Sources) -> Result<Self, Problem> {
        let text = match &value.kind {
            Kind::Text(text) => text.as_str(),
            _ => "",
        };
        let source = Located {
            place: &value.place,
            offset: offset(text, &value.place, sources),
        };
        let tokens = tokens(text, &source)?;
        let mut parser = Parser {
            tokens: &tokens,
            at: 0,
            end: source.at(text.len()..text.len()),
            depth: 0,
        };
        let root = parser.either()?;
        parser.finish()?;
        Ok(Self {
            text: text.to_owned(),
            root,
        })
    }

    /// Decides the expression for one instance.
    ///
    /// # Errors
    /// What is wrong with it; nothing if that was reported where it is declared.
    pub fn decide(&self, scope: &Scope) -> Result<Holds, Option<Problem>> {
        if self.root.truth(scope)? {
            return Ok(Holds::Yes);
        }
        let mut names = Vec::new();
        self.root.references(&mut names);
        let mut values: Vec<String> = Vec::new();
        for (name, place) in names {
            let short = name.split('.').next_back().unwrap_or(name);
            let value = Is::of(interpolate::early(name, place, scope)?);
            values.extend(value.map(|v| format!("{short}={v}")));
        }
        values.sort();
        values.dedup();
        let given = match values.as_slice() {
            [] => String::new(),
            values => format!(" for {}", values.join(",")),
        };
        Ok(Holds::No(format!("when: {} is false{given}", self.text)))
    }
}

/// Where a text stands in its source, as far as it is written there as it is.
struct Located<'a> {
    place: &'a Place,
    offset: Option<usize>,
}

/// Finds the text within its quotes; escapes make it unfindable.
fn offset(text: &str, place: &Place, sources: &Sources) -> Option<usize> {
    sources.text_at(place).find(text)
}

impl Located<'_> {
    fn at(&self, range: Range<usize>) -> Place {
        match self.offset {
            Some(offset) => {
                let start = self.place.span.start + offset;
                Place::new(self.place.source, start + range.start..start + range.end)
            }
            None => self.place.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
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

fn tokens(text: &str, source: &Located<'_>) -> Result<Vec<(Token, Place)>, Problem> {
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

struct Parser<'a> {
    tokens: &'a [(Token, Place)],
    at: usize,
    end: Place,
    depth: usize,
}

impl Parser<'_> {
    fn next_place(&self) -> &Place {
        self.tokens.get(self.at).map_or(&self.end, |(_, p)| p)
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let is_next = self.tokens.get(self.at).is_some_and(|(t, _)| t == wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take(&Token::Word(word.to_owned()))
    }

    fn unexpected(&self, expected: &str) -> Problem {
        let label = if self.at < self.tokens.len() {
            "not expected here"
        } else {
            "it ends here"
        };
        Problem::at(self.next_place(), format!("expected {expected}"), label).help(FORMS)
    }

    fn finish(&self) -> Result<(), Problem> {
        match self.at < self.tokens.len() {
            true => Err(self.unexpected("the end, or `and` or `or`")),
            false => Ok(()),
        }
    }

    fn deeper(&mut self) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let message = format!("the expression is nested more than {DEEPEST} deep");
            return Err(Problem::at(self.next_place(), message, "too deep"));
        }
        Ok(())
    }

    fn either(&mut self) -> Result<Node, Problem> {
        let mut left = self.both()?;
        while self.take_word("or") {
            let right = self.both()?;
            left = joined(What::Either, left, right);
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Node, Problem> {
        let mut left = self.negated()?;
        while self.take_word("and") {
            let right = self.negated()?;
            left = joined(What::Both, left, right);
        }
        Ok(left)
    }

    fn negated(&mut self) -> Result<Node, Problem> {
        let place = self.next_place().clone();
        if !self.take_word("not") {
            return self.comparison();
        }
        self.deeper()?;
        let inner = self.negated()?;
        self.depth -= 1;
        Ok(Node {
            place: around(&place, &inner.place),
            what: What::Not(Box::new(inner)),
        })
    }

    fn comparison(&mut self) -> Result<Node, Problem> {
        let left = self.operand()?;
        if let Some((Token::Compare(comparison), _)) = self.tokens.get(self.at) {
            self.at += 1;
            let right = self.operand()?;
            return Ok(joined(|a, b| What::Compare(*comparison, a, b), left, right));
        }
        if self.take_word("in") {
            let right = self.operand()?;
            return Ok(joined(What::In, left, right));
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Node, Problem> {
        let Some((token, place)) = self.tokens.get(self.at) else {
            return Err(self.unexpected("a value"));
        };
        let what = match token {
            Token::Value(value) => What::Literal(value.clone()),
            Token::Reference(name) => What::Reference(name.clone()),
            Token::Mark('(') => return self.parenthesis(),
            Token::Mark('[') => return self.list(),
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(Node {
            what,
            place: place.clone(),
        })
    }

    fn parenthesis(&mut self) -> Result<Node, Problem> {
        self.at += 1;
        self.deeper()?;
        let inner = self.either()?;
        self.depth -= 1;
        match self.take(&Token::Mark(')')) {
            true => Ok(inner),
            false => Err(self.unexpected("`)`")),
        }
    }

    fn list(&mut self) -> Result<Node, Problem> {
        let place = self.next_place().clone();
        self.at += 1;
        self.deeper()?;
        let mut items = Vec::new();
        let mut end = self.next_place().clone();
        while !self.take(&Token::Mark(']')) {
            items.push(self.operand()?);
            let closes = self.take(&Token::Mark(','))
                || matches!(self.tokens.get(self.at), Some((Token::Mark(']'), _)));
            if !closes {
                return Err(self.unexpected("`,` or `]`"));
            }
            end = self.next_place().clone();
        }
        self.depth -= 1;
        Ok(Node {
            place: around(&place, &end),
            what: What::List(items),
        })
    }
}

fn joined(what: impl FnOnce(Box<Node>, Box<Node>) -> What, left: Node, right: Node) -> Node {
    Node {
        place: around(&left.place, &right.place),
        what: what(Box::new(left), Box::new(right)),
    }
}

fn around(from: &Place, to: &Place) -> Place {
    let end = to.span.end.max(from.span.end);
    Place::new(from.source, from.span.start..end)
}

impl Node {
    fn references<'a>(&'a self, found: &mut Vec<(&'a str, &'a Place)>) {
        match &self.what {
            What::Literal(_) => {}
            What::Reference(name) => {
                let name = name.trim();
                found.push((
                    name.strip_prefix("not ").unwrap_or(name).trim(),
                    &self.place,
                ));
            }
            What::List(items) => items.iter().for_each(|i| i.references(found)),
            What::Not(inner) => inner.references(found),
            What::Both(a, b) | What::Either(a, b) | What::Compare(_, a, b) | What::In(a, b) => {
                a.references(found);
                b.references(found);
            }
        }
    }

    /// Both sides are always decided, so that a mistake in either is found.
    fn truth(&self, scope: &Scope) -> Result<bool, Option<Problem>> {
        match self.value(scope)? {
            Is::Bool(b) => Ok(b),
            other => {
                let message = format!("expected a condition, found {}", other.type_name());
                let label = format!("this is {}", other.type_name());
                let problem = Problem::at(&self.place, message, label);
                Err(Some(problem.help("compare it: `${axes.NAME} == 4`")))
            }
        }
    }

    fn value(&self, scope: &Scope) -> Result<Is, Option<Problem>> {
        Ok(match &self.what {
            What::Literal(value) => value.clone(),
            What::Reference(name) => {
                let kind = interpolate::early(name, &self.place, scope)?;
                Is::of(kind).ok_or(None)?
            }
            What::List(items) => {
                let items = items.iter().map(|i| i.value(scope));
                Is::List(items.collect::<Result<_, _>>()?)
            }
            What::Not(inner) => Is::Bool(!inner.truth(scope)?),
            What::Both(a, b) => {
                let (a, b) = (a.truth(scope)?, b.truth(scope)?);
                Is::Bool(a && b)
            }
            What::Either(a, b) => {
                let (a, b) = (a.truth(scope)?, b.truth(scope)?);
                Is::Bool(a || b)
            }
            What::Compare(comparison, a, b) => {
                let (a, b) = (a.value(scope)?, b.value(scope)?);
                Is::Bool(self.compare(*comparison, &a, &b)?)
            }
            What::In(a, b) => Is::Bool(self.is_in(&a.value(scope)?, &b.value(scope)?)?),
        })
    }

    fn compare(&self, comparison: Comparison, a: &Is, b: &Is) -> Result<bool, Option<Problem>> {
        if std::mem::discriminant(a) != std::mem::discriminant(b) {
            return Err(Some(self.unlike(a, b)));
        }
        let order = match (a, b) {
            (Is::Number(a), Is::Number(b)) => a.partial_cmp(b),
            (Is::Text(a), Is::Text(b)) => Some(a.cmp(b)),
            _ => None,
        };
        Ok(match (comparison, order) {
            (Comparison::Equal, _) => a == b,
            (Comparison::Unequal, _) => a != b,
            (Comparison::Less, Some(order)) => order.is_lt(),
            (Comparison::AtMost, Some(order)) => order.is_le(),
            (Comparison::More, Some(order)) => order.is_gt(),
            (Comparison::AtLeast, Some(order)) => order.is_ge(),
            (_, None) => {
                let message = format!("{} has no order", a.type_name());
                let problem = Problem::at(&self.place, message, "cannot be compared so");
                return Err(Some(problem.help("compare with `==` or `!=`")));
            }
        })
    }

    fn is_in(&self, a: &Is, b: &Is) -> Result<bool, Option<Problem>> {
        let Is::List(items) = b else {
            let message = format!("`in` needs a list, found {}", b.type_name());
            let problem = Problem::at(&self.place, message, "not a list");
            return Err(Some(problem.help("write `in [1, 2, 4]`")));
        };
        let other = |item: &&Is| std::mem::discriminant(*item) != std::mem::discriminant(a);
        if let Some(item) = items.iter().find(other) {
            return Err(Some(self.unlike(a, item)));
        }
        Ok(items.contains(a))
    }

    fn unlike(&self, a: &Is, b: &Is) -> Problem {
        let message = format!("{} is compared with {}", a.type_name(), b.type_name());
        Problem::at(&self.place, message, "never equal")
            .help("compare values of one type; text is written in quotes: `'fast'`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn decided(text: &str) -> Result<Holds, String> {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", format!("when = \"{text}\""));
        let value = |kind| Value {
            kind,
            place: Place::new(id, 7..9 + text.len()),
        };
        let axes = BTreeMap::from([
            ("rate".to_owned(), value(Kind::Float(4.0))),
            ("radix".to_owned(), value(Kind::Bool(true))),
        ]);
        let params = BTreeMap::from([
            ("mode".to_owned(), value(Kind::Text("fast".into()))),
            (
                "keep".to_owned(),
                value(Kind::List(vec![value(Kind::Int(4))])),
            ),
        ]);
        let scope = Scope {
            axes: Some(axes),
            params: Arc::new(params),
            ..Scope::default()
        };
        let when = When::parse(&value(Kind::Text(text.to_owned())), &sources);
        let when = when.map_err(|p| p.message)?;
        when.decide(&scope)
            .map_err(|p| p.map_or_else(|| "reported".to_owned(), |p| p.message))
    }

    #[test]
    fn conditions_are_decided_by_value() {
        for text in [
            "${axes.rate} == 4",
            "4 >= ${axes.rate} and not (${axes.rate} < 1)",
            "${axes.radix}",
            "${axes.rate} in [1, 4,] or false",
            "${axes.rate} in ${params.keep}",
            "${params.mode} == 'fast' and ${params.mode} != 'slow'",
            "not ${not axes.radix}",
            "false and false or true",
        ] {
            assert_eq!(decided(text), Ok(Holds::Yes), "{text}");
        }
    }

    #[test]
    fn what_does_not_hold_says_for_which_values() {
        assert_eq!(
            decided("${axes.rate} == 16 and ${axes.radix}"),
            Ok(Holds::No(
                "when: ${axes.rate} == 16 and ${axes.radix} is false for radix=true,rate=4".into()
            ))
        );
    }

    #[test]
    fn what_is_not_understood_or_does_not_compare_is_a_problem() {
        for (text, message) in [
            ("", "expected a value"),
            ("${axes.rate} ==", "expected a value"),
            ("${axes.rate} = 4", "`=` is not a part of an expression"),
            ("${axes.rate} == 4 5", "expected the end, or `and` or `or`"),
            ("(true", "expected `)`"),
            ("[1 2]", "expected `,` or `]`"),
            ("${axes.rate}", "expected a condition, found a number"),
            ("${axes.rate} == 'a'", "a number is compared with a string"),
            ("${axes.radix} < true", "a boolean has no order"),
            ("4 in 4", "`in` needs a list, found a number"),
            ("4 in ['a']", "a number is compared with a string"),
            ("${axes.rat} == 4", "there is no axis `rat` here"),
            (
                "${axes.rate} == fast",
                "`fast` is not a part of an expression",
            ),
            ("true or 4", "expected a condition, found a number"),
            (
                "${secret.X} == 'a'",
                "`secret.X` is known only when the plan runs",
            ),
        ] {
            assert_eq!(decided(text), Err(message.to_owned()), "{text}");
        }
        assert!(decided(&"(".repeat(1000)).is_err());
        assert!(decided(&"not ".repeat(1000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in "[ -~ä]{0,40}") {
            let _ = decided(&text);
        }
    }
}
