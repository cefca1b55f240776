//! What a fragment says, in the words of the plan that uses it: its parameters become the values
//! that the plan gives, and its own steps and services get their full names.
//!
//! Works on plans as written, so that a value may be a reference of the plan that uses it.

use crate::interpolate::{Raw, split};
use crate::plan::Fragment;
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::Place;
use crate::value::{Kind, Table, Value};
use std::collections::BTreeMap;

/// Puts a fragment into the words of one use of it.
pub(super) struct Substitution<'a> {
    /// What parts are called after.
    pub(super) prefix: &'a str,
    pub(super) fragment: &'a Fragment,
    /// Parameters that have a value; those that are wrong are empty templates.
    pub(super) values: &'a BTreeMap<String, Value>,
    pub(super) problems: &'a mut Problems,
}

/// How a parameter's value is written into text.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    /// As it is.
    Text,
    /// As a literal of an expression.
    Expression,
}

impl Substitution<'_> {
    /// Substitutes in the `axes`, `steps` and `services` of a fragment.
    pub(super) fn body(&mut self, body: &Table) -> Table {
        let section = |(key, value): &(_, Value)| {
            let key: &crate::value::Key = key;
            let value = match (&value.kind, key.name.as_str()) {
                (Kind::Table(nodes), "steps" | "services") => self.nodes(nodes, &value.place),
                _ => self.value(value),
            };
            (key.clone(), value)
        };
        Table {
            entries: body.entries.iter().map(section).collect(),
        }
    }

    fn nodes(&mut self, nodes: &Table, place: &Place) -> Value {
        let mut entries = Vec::new();
        for (key, value) in &nodes.entries {
            let value = match &value.kind {
                Kind::Table(node) => at(Kind::Table(self.node(node)), &value.place),
                _ => value.clone(),
            };
            entries.push((key.clone(), value));
        }
        at(Kind::Table(Table { entries }), place)
    }

    fn node(&mut self, node: &Table) -> Table {
        let mut entries = Vec::new();
        for (key, value) in &node.entries {
            if self.is_absent(value) {
                continue;
            }
            let value = match key.name.as_str() {
                "after" => self.names(value, &format!("{}.", self.prefix)),
                "axes" => self.names(value, ""),
                "when" => self.text(value, Within::Expression),
                _ => self.value(value),
            };
            entries.push((key.clone(), value));
        }
        Table { entries }
    }

    /// Names that are written out are the fragment's own; those of parameters are the plan's.
    fn names(&mut self, value: &Value, prefix: &str) -> Value {
        let Kind::List(list) = &value.kind else {
            return self.value(value);
        };
        let mut names = Vec::new();
        for item in list {
            match &item.kind {
                Kind::Text(name) if !name.contains("${") => {
                    names.push(at(Kind::Text(format!("{prefix}{name}")), &item.place));
                }
                _ => match self.value(item) {
                    Value {
                        kind: Kind::List(several),
                        ..
                    } => names.extend(several),
                    one => names.push(one),
                },
            }
        }
        at(Kind::List(names), &value.place)
    }

    fn value(&mut self, value: &Value) -> Value {
        let kind = match &value.kind {
            Kind::Text(text) if text.contains("${") => return self.text(value, Within::Text),
            Kind::List(list) => Kind::List(list.iter().map(|v| self.value(v)).collect()),
            Kind::Table(table) => {
                let mut entries = Vec::new();
                for (key, value) in &table.entries {
                    if !self.is_absent(value) {
                        entries.push((key.clone(), self.value(value)));
                    }
                }
                Kind::Table(Table { entries })
            }
            other => other.clone(),
        };
        at(kind, &value.place)
    }

    fn text(&mut self, value: &Value, within: Within) -> Value {
        let Kind::Text(text) = &value.kind else {
            return value.clone();
        };
        let parts = split(text);
        if let ([Raw::Reference(reference)], Within::Text) = (parts.as_slice(), within) {
            return self.whole(reference, value);
        }
        let mut written = String::new();
        for part in parts {
            match part {
                Raw::Text(plain) => written.push_str(&plain.replace("${", "$${")),
                Raw::Unclosed => return value.clone(),
                Raw::Reference(reference) => {
                    let inside = self.whole(reference, value);
                    match paste(&inside, within) {
                        Some(text) => written.push_str(&text),
                        None => return inside,
                    }
                }
            }
        }
        at(Kind::Text(written), &value.place)
    }

    /// Substitutes a string that is one reference.
    fn whole(&mut self, reference: &str, value: &Value) -> Value {
        let trimmed = reference.trim();
        if let Some(inner) = trimmed.strip_prefix("not ") {
            let inner = self.whole(inner, value);
            return self.negated(inner, reference, &value.place);
        }
        if let Some((section @ ("steps" | "services"), rest)) = trimmed.split_once('[') {
            let text = format!("${{{section}.{}[{rest}}}", self.prefix);
            return at(Kind::Text(text), &value.place);
        }
        let words: Vec<&str> = trimmed.split('.').collect();
        let text = match words.as_slice() {
            ["params", name] => return self.param(name, &value.place),
            ["steps" | "services", rest @ ..] if !rest.is_empty() => {
                format!("{}.{}.{}", words[0], self.prefix, rest.join("."))
            }
            _ => trimmed.to_owned(),
        };
        at(Kind::Text(format!("${{{text}}}")), &value.place)
    }

    fn param(&mut self, name: &str, place: &Place) -> Value {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        let fragment = &self.fragment.key.name;
        let known = self.fragment.params.iter().map(|p| p.key.name.as_str());
        let (message, help) = if self.is_optional(name) {
            let message = format!("fragment `{fragment}` cannot do without `{name}` here");
            let help = "what is optional is the whole value of a key, or `default` says what it is";
            (message, help.to_owned())
        } else {
            let message = format!("fragment `{fragment}` has no parameter `{name}`");
            (message, did_you_mean(name, known))
        };
        let problem = Problem::at(place, message, "unknown parameter");
        self.problems.push(problem.help(help));
        at(Kind::Template(Vec::new()), place)
    }

    fn is_optional(&self, name: &str) -> bool {
        let params = &self.fragment.params;
        params.iter().any(|p| p.optional && p.key.name == name)
    }

    /// Whether a value is nothing but a parameter that is optional and not given.
    fn is_absent(&self, value: &Value) -> bool {
        let Kind::Text(text) = &value.kind else {
            return false;
        };
        let name = text
            .strip_prefix("${params.")
            .and_then(|t| t.strip_suffix('}'));
        name.is_some_and(|name| self.is_optional(name) && !self.values.contains_key(name))
    }

    fn negated(&mut self, value: Value, reference: &str, place: &Place) -> Value {
        let kind = match &value.kind {
            Kind::Bool(b) => Kind::Bool(!b),
            Kind::Template(_) => return value,
            Kind::Text(text) => match split(text).as_slice() {
                [Raw::Reference(inner)] => match inner.trim().strip_prefix("not ") {
                    Some(positive) => Kind::Text(format!("${{{}}}", positive.trim())),
                    None => Kind::Text(format!("${{not {}}}", inner.trim())),
                },
                _ => return self.no_boolean(reference, place),
            },
            _ => return self.no_boolean(reference, place),
        };
        at(kind, &value.place)
    }

    fn no_boolean(&mut self, reference: &str, place: &Place) -> Value {
        let message = format!("`{}` needs a boolean", reference.trim());
        self.problems
            .push(Problem::at(place, message, "not a boolean"));
        at(Kind::Template(Vec::new()), place)
    }
}

fn at(kind: Kind, place: &Place) -> Value {
    Value {
        kind,
        place: place.clone(),
    }
}

/// Writes a value into text; nothing if it was wrong.
fn paste(value: &Value, within: Within) -> Option<String> {
    match &value.kind {
        Kind::Template(_) => None,
        Kind::Text(text) if within == Within::Text || is_reference(text) => Some(text.clone()),
        _ => Some(value.to_line()),
    }
}

fn is_reference(text: &str) -> bool {
    matches!(split(text).as_slice(), [Raw::Reference(_)])
}
