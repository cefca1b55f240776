//! TOML values that remember where they stand.
//!
//! `toml::Spanned` fails inside flattened and tagged types, so plans keep their values in this
//! form and every option reads its own. Knows no plan keys and no step.

use crate::problem::{Problem, Problems};
use crate::source::{Place, SourceId, Sources};
use toml::de::{DeTable, DeValue};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub place: Place,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A string, in which `${…}` has not been looked at yet.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// Values in order.
    List(Vec<Value>),
    /// Named values.
    Table(Table),
    /// A string with references whose values exist only when the plan runs.
    Template(Vec<Piece>),
}

/// A part of a [`Kind::Template`].
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Plain text.
    Text(String),
    /// Something that a step or a service brings.
    Late(Late),
}

/// A reference to what exists only when the plan runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    /// What is meant.
    pub target: Target,
    /// Where the reference stands.
    pub place: Place,
}

/// What a late reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `${steps.NAME.OUTPUT}`
    Output {
        /// The step's name in the plan.
        step: String,
        /// The output's name.
        output: String,
    },
    /// `${steps.NAME.all}`
    All {
        /// The step's name in the plan.
        step: String,
    },
    /// `${services.NAME}`
    Service {
        /// The service's name in the plan.
        service: String,
    },
    /// `${services.NAME.FACT}`, such as `url` or `port`
    Fact {
        /// The service's name in the plan.
        service: String,
        /// The fact's name.
        fact: String,
    },
    /// `${secret.NAME}`
    Secret {
        /// The name of the environment variable.
        name: String,
    },
}

/// A key of a table and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The key's text.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// Named values in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// The entries; names are distinct.
    pub entries: Vec<(Key, Value)>,
}

impl Table {
    /// Returns the value called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(k, _)| k.name == name)
            .map(|(_, v)| v)
    }

    /// Returns the value called `name`, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.entries
            .iter_mut()
            .find(|(k, _)| k.name == name)
            .map(|(_, v)| v)
    }

    /// Adds or replaces the value called `key`.
    pub fn insert(&mut self, key: Key, value: Value) {
        match self.get_mut(&key.name) {
            Some(old) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Removes and returns the value called `name`.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(k, _)| k.name == name)?;
        Some(self.entries.remove(at).1)
    }
}

impl Value {
    /// Names the type as the documentation does.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Text(_) => "a string",
            Kind::Int(_) => "an integer",
            Kind::Float(_) => "a float",
            Kind::Bool(_) => "a boolean",
            Kind::List(_) => "a list",
            Kind::Table(_) => "a table",
            Kind::Template(_) => "a reference",
        }
    }

    /// Phrases the mend where this value is not what was expected, such as "a number".
    pub fn mend(&self, expected: &str) -> String {
        let wants = |words: &[&str]| words.iter().any(|word| expected.contains(word));
        let is_scalar = matches!(self.kind, Kind::Int(_) | Kind::Float(_) | Kind::Bool(_));
        match &self.kind {
            Kind::Text(text) if is_number(text) && wants(&["number", "int", "float"]) => {
                format!("write it without quotes: `{text}`")
            }
            Kind::Text(text) if matches!(text.as_str(), "true" | "false") && wants(&["true"]) => {
                format!("write it without quotes: `{text}`")
            }
            _ if is_scalar && wants(&["string", "a name", "path"]) => {
                format!("write it in quotes: `\"{}\"`", self.to_line())
            }
            Kind::Text(_) | Kind::Int(_) | Kind::Float(_) | Kind::Bool(_)
                if expected.starts_with("a list") || expected.starts_with("list<") =>
            {
                format!("write it as a list: `[{}]`", self.to_line())
            }
            _ => format!("write {expected}"),
        }
    }

    /// Writes the value as short TOML on one line.
    pub fn to_line(&self) -> String {
        match &self.kind {
            Kind::Text(t) => format!("{t:?}"),
            Kind::Int(i) => i.to_string(),
            Kind::Float(f) => format!("{f:?}"),
            Kind::Bool(b) => b.to_string(),
            Kind::List(l) => format!(
                "[{}]",
                l.iter().map(Value::to_line).collect::<Vec<_>>().join(", ")
            ),
            Kind::Table(t) if t.entries.is_empty() => "{}".to_owned(),
            Kind::Table(t) => {
                let inner: Vec<String> = t
                    .entries
                    .iter()
                    .map(|(k, v)| format!("{} = {}", k.name, v.to_line()))
                    .collect();
                format!("{{ {} }}", inner.join(", "))
            }
            Kind::Template(pieces) => format!(
                "\"{}\"",
                pieces.iter().map(Piece::to_text).collect::<String>()
            ),
        }
    }
}

impl Piece {
    fn to_text(&self) -> String {
        match self {
            Piece::Text(t) => t.clone(),
            Piece::Late(late) => format!("${{{}}}", late.target),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Output { step, output } => write!(f, "steps.{step}.{output}"),
            Target::All { step } => write!(f, "steps.{step}.all"),
            Target::Service { service } => write!(f, "services.{service}"),
            Target::Fact { service, fact } => write!(f, "services.{service}.{fact}"),
            Target::Secret { name } => write!(f, "secret.{name}"),
        }
    }
}

/// Parses the text of `id`; every syntax error becomes a problem, the rest is still returned.
pub fn parse(sources: &Sources, id: SourceId, problems: &mut Problems) -> Table {
    let text = &sources.get(id).text;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let message = format!(
            "this is not valid TOML: {}",
            error.message().replace('\n', ", ")
        );
        let place = Place::new(id, span);
        problems.push_broken(&place, Problem::at(&place, message, "here"));
    }
    read_table(id, table.get_ref(), problems)
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Parses one value from the command line, such as `4`, `[1, 2]` or bare text.
pub fn parse_argument(sources: &mut Sources, name: &str, text: &str) -> Value {
    let id = sources.add_argument(format!("--set {name}"), text);
    let place = Place::new(id, 0..text.len());
    let mut problems = Problems::default();
    let parsed = DeValue::parse(text)
        .ok()
        .map(|v| read_value(id, v.get_ref(), place.clone(), &mut problems));
    match parsed {
        Some(value) if problems.is_empty() => value,
        _ => Value {
            kind: Kind::Text(text.to_owned()),
            place,
        },
    }
}

fn read_table(id: SourceId, table: &DeTable<'_>, problems: &mut Problems) -> Table {
    let entries = table
        .iter()
        .map(|(k, v)| {
            let key = Key {
                name: k.get_ref().to_string(),
                place: Place::new(id, k.span()),
            };
            (
                key,
                read_value(id, v.get_ref(), Place::new(id, v.span()), problems),
            )
        })
        .collect();
    Table { entries }
}

fn read_value(id: SourceId, value: &DeValue<'_>, place: Place, problems: &mut Problems) -> Value {
    let kind = match value {
        DeValue::String(s) => Kind::Text(s.to_string()),
        DeValue::Integer(i) => match i64::from_str_radix(&i.as_str().replace('_', ""), i.radix()) {
            Ok(n) => Kind::Int(n),
            Err(_) => {
                problems.push(Problem::at(
                    &place,
                    "this integer does not fit 64 bits",
                    "too large",
                ));
                Kind::Int(0)
            }
        },
        DeValue::Float(f) => Kind::Float(f.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Kind::Bool(*b),
        DeValue::Datetime(d) => Kind::Text(d.to_string()),
        DeValue::Array(a) => Kind::List(
            a.iter()
                .map(|v| read_value(id, v.get_ref(), Place::new(id, v.span()), problems))
                .collect(),
        ),
        DeValue::Table(t) => Kind::Table(read_table(id, t, problems)),
    };
    Value { kind, place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_places() {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", "[a]\nb = [1, 2.5, \"x\"]\n");
        let mut problems = Problems::default();
        let table = parse(&sources, id, &mut problems);
        assert!(problems.is_empty());
        let Kind::Table(a) = &table.get("a").expect("a").kind else {
            panic!("a table")
        };
        let b = a.get("b").expect("b");
        assert_eq!(sources.text_at(&b.place), "[1, 2.5, \"x\"]");
        assert_eq!(b.to_line(), "[1, 2.5, \"x\"]");
    }

    #[test]
    fn two_syntax_errors_are_both_found() {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", "a = \nb = 1\nc = [1,\n");
        let mut problems = Problems::default();
        parse(&sources, id, &mut problems);
        assert!(problems.len() >= 2);
    }

    #[test]
    fn an_argument_is_typed_where_it_can_be() {
        let mut sources = Sources::default();
        assert_eq!(
            parse_argument(&mut sources, "layers", "4").kind,
            Kind::Int(4)
        );
        assert_eq!(
            parse_argument(&mut sources, "mode", "fast").kind,
            Kind::Text("fast".into())
        );
    }
}
