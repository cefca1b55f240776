//! Replaces `${…}` in values: parameters and axes at once, everything else as a late reference.
//!
//! A string that is one reference keeps the referent's type; `$${` writes `${`.

use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::{Place, Sources};
use crate::value::{Kind, Late, Piece, Table, Target, Value};
use std::collections::BTreeMap;

/// What references may name.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Parameters with their values.
    pub params: BTreeMap<String, Value>,
    /// Parameters that could not be read, which is a problem already.
    pub broken: Vec<String>,
    /// Axes with the values of this instance; `None` where axes may not be used.
    pub axes: Option<BTreeMap<String, Value>>,
    /// Names of steps.
    pub steps: Vec<String>,
    /// Names of services.
    pub services: Vec<String>,
}

impl Scope {
    fn is_broken(&self, expression: &str) -> bool {
        let name = expression.trim().strip_prefix("params.");
        name.is_some_and(|name| self.broken.iter().any(|broken| broken == name))
    }
}

/// Replaces references in every value of a table.
pub fn table(table: &Table, scope: &Scope, sources: &Sources, problems: &mut Problems) -> Table {
    let entries = table
        .entries
        .iter()
        .map(|(k, v)| (k.clone(), value(v, scope, sources, problems)))
        .collect();
    Table { entries }
}

/// Replaces references in a value; what is wrong goes to `problems`.
pub fn value(original: &Value, scope: &Scope, sources: &Sources, problems: &mut Problems) -> Value {
    let kind = match &original.kind {
        Kind::Text(text) if text.contains("${") => {
            return string(text, &original.place, scope, sources, problems);
        }
        Kind::List(list) => Kind::List(
            list.iter()
                .map(|v| value(v, scope, sources, problems))
                .collect(),
        ),
        Kind::Table(inner) => Kind::Table(table(inner, scope, sources, problems)),
        other => other.clone(),
    };
    Value {
        kind,
        place: original.place.clone(),
    }
}

/// A part of a string before it is resolved.
#[derive(Debug, PartialEq)]
enum Raw<'a> {
    Text(String),
    Reference(&'a str),
    Unclosed,
}

fn split(text: &str) -> Vec<Raw<'_>> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            plain.push_str(&rest[..at - 1]);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            parts.push(Raw::Unclosed);
            return parts;
        };
        if !plain.is_empty() {
            parts.push(Raw::Text(std::mem::take(&mut plain)));
        }
        parts.push(Raw::Reference(&rest[at + 2..at + end]));
        rest = &rest[at + end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Raw::Text(plain));
    }
    parts
}

fn string(
    text: &str,
    place: &Place,
    scope: &Scope,
    sources: &Sources,
    problems: &mut Problems,
) -> Value {
    let raw = split(text);
    let whole = raw.len() == 1;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut from = 0;
    for part in raw {
        let resolved = match part {
            Raw::Text(plain) => Ok(Resolved::Now(Kind::Text(plain))),
            Raw::Unclosed => Err(Some(unclosed(place))),
            Raw::Reference(expression) if scope.is_broken(expression) => Err(None),
            Raw::Reference(expression) => {
                let at = locate(sources, place, expression, &mut from);
                resolve(expression, &at, scope).map_err(Some)
            }
        };
        match resolved {
            Ok(Resolved::Now(kind)) if whole => return at_place(kind, place),
            Ok(Resolved::Now(kind)) => pieces.push(Piece::Text(plain_text(kind, place))),
            Ok(Resolved::Late(late)) => pieces.push(Piece::Late(late)),
            Err(problem) => {
                problem.into_iter().for_each(|p| problems.push(p));
                return at_place(Kind::Template(vec![]), place);
            }
        }
    }
    at_place(joined(pieces), place)
}

fn at_place(kind: Kind, place: &Place) -> Value {
    Value {
        kind,
        place: place.clone(),
    }
}

fn unclosed(place: &Place) -> Problem {
    Problem::at(place, "this reference is never closed", "`${` without `}`")
        .help("close it with `}`, or write `$${` for the two characters")
}

/// Plain text if nothing in it is late.
fn joined(pieces: Vec<Piece>) -> Kind {
    let plain: Option<String> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Late(_) => None,
        })
        .collect();
    plain.map_or(Kind::Template(pieces), Kind::Text)
}

fn plain_text(kind: Kind, place: &Place) -> String {
    match kind {
        Kind::Text(t) => t,
        other => Value {
            kind: other,
            place: place.clone(),
        }
        .to_line(),
    }
}

/// Finds where in the source `${expression}` stands, searching from byte `from` of the string on.
fn locate(sources: &Sources, place: &Place, expression: &str, from: &mut usize) -> Place {
    let raw = sources.text_at(place);
    let needle = format!("${{{expression}}}");
    match raw.get(*from..).and_then(|rest| rest.find(&needle)) {
        Some(at) => {
            let start = place.span.start + *from + at;
            *from += at + needle.len();
            Place::new(place.source, start..start + needle.len())
        }
        None => place.clone(),
    }
}

enum Resolved {
    Now(Kind),
    Late(Late),
}

fn resolve(expression: &str, place: &Place, scope: &Scope) -> Result<Resolved, Problem> {
    let trimmed = expression.trim();
    if let Some(inner) = trimmed.strip_prefix("not ") {
        return match resolve(inner, place, scope)? {
            Resolved::Now(Kind::Bool(b)) => Ok(Resolved::Now(Kind::Bool(!b))),
            _ => Err(Problem::at(
                place,
                format!("`not` needs a boolean, and `{}` is none", inner.trim()),
                "not a boolean",
            )),
        };
    }
    let words: Vec<&str> = trimmed.split('.').collect();
    match words.as_slice() {
        ["params", name] => lookup(&scope.params, name, "parameter", place),
        ["axes", name] => match &scope.axes {
            Some(axes) => lookup(axes, name, "axis", place),
            None => Err(Problem::at(place, "an axis cannot be used here", "not inside a step or service")),
        },
        ["steps", step, "all"] => {
            known(step, &scope.steps, "step", place)?;
            late(Target::All { step: (*step).to_owned() }, place)
        }
        ["steps", step, output] => {
            known(step, &scope.steps, "step", place)?;
            late(Target::Output { step: (*step).to_owned(), output: (*output).to_owned() }, place)
        }
        ["services", service] => {
            known(service, &scope.services, "service", place)?;
            late(Target::Service { service: (*service).to_owned() }, place)
        }
        ["services", service, fact] => {
            known(service, &scope.services, "service", place)?;
            late(Target::Fact { service: (*service).to_owned(), fact: (*fact).to_owned() }, place)
        }
        ["secret", name] => late(Target::Secret { name: (*name).to_owned() }, place),
        ["steps", step] => Err(Problem::at(place, format!("`{trimmed}` names a step, not what it brings"), "which output?")
            .help(format!("write `${{steps.{step}.OUTPUT}}`; `benchwright steps` lists what each step brings"))),
        _ => Err(Problem::at(place, format!("`{trimmed}` is not a reference"), "not understood").help(
            "write `params.NAME`, `axes.NAME`, `steps.NAME.OUTPUT`, `steps.NAME.all`, `services.NAME`, `services.NAME.url` or `secret.NAME`",
        )),
    }
}

fn late(target: Target, place: &Place) -> Result<Resolved, Problem> {
    Ok(Resolved::Late(Late {
        target,
        place: place.clone(),
    }))
}

fn lookup(
    map: &BTreeMap<String, Value>,
    name: &str,
    what: &str,
    place: &Place,
) -> Result<Resolved, Problem> {
    match map.get(name) {
        Some(value) => Ok(Resolved::Now(value.kind.clone())),
        None => Err(Problem::at(
            place,
            format!("there is no {what} `{name}` here"),
            format!("unknown {what}"),
        )
        .help(did_you_mean(name, map.keys().map(String::as_str)))),
    }
}

fn known(name: &str, names: &[String], what: &str, place: &Place) -> Result<(), Problem> {
    if names.iter().any(|n| n == name) {
        return Ok(());
    }
    Err(Problem::at(
        place,
        format!("no {what} is called `{name}`"),
        format!("unknown {what}"),
    )
    .help(did_you_mean(name, names.iter().map(String::as_str))))
}

/// Names of steps and services that a value refers to: `(steps, steps by .all, services, axes)`.
#[derive(Debug, Default)]
pub struct Mentions {
    /// Steps whose outputs are read, instance by instance.
    pub steps: Vec<String>,
    /// Steps of which all instances are read.
    pub all: Vec<String>,
    /// Services.
    pub services: Vec<String>,
    /// Axes.
    pub axes: Vec<(String, Place)>,
}

/// Collects what a table refers to, without resolving anything.
pub fn mentions(table: &Table, sources: &Sources) -> Mentions {
    let mut found = Mentions::default();
    for (_, value) in &table.entries {
        mention(value, sources, &mut found);
    }
    found
}

fn mention(value: &Value, sources: &Sources, found: &mut Mentions) {
    match &value.kind {
        Kind::Text(text) => {
            let mut from = 0;
            for part in split(text) {
                let Raw::Reference(expression) = part else {
                    continue;
                };
                let place = locate(sources, &value.place, expression, &mut from);
                let path = expression.trim();
                let words: Vec<&str> = path
                    .strip_prefix("not ")
                    .unwrap_or(path)
                    .trim()
                    .split('.')
                    .collect();
                match words.as_slice() {
                    ["steps", step, "all"] => found.all.push((*step).to_owned()),
                    ["steps", step, ..] => found.steps.push((*step).to_owned()),
                    ["services", service, ..] => found.services.push((*service).to_owned()),
                    ["axes", axis] => found.axes.push(((*axis).to_owned(), place)),
                    _ => {}
                }
            }
        }
        Kind::List(list) => list.iter().for_each(|v| mention(v, sources, found)),
        Kind::Table(inner) => inner
            .entries
            .iter()
            .for_each(|(_, v)| mention(v, sources, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> (Value, Vec<Problem>) {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", format!("\"{text}\""));
        let place = Place::new(id, 0..text.len() + 2);
        let five = Value {
            kind: Kind::Int(5),
            place: place.clone(),
        };
        let scope = Scope {
            params: BTreeMap::from([("layers".to_owned(), five)]),
            broken: vec!["torn".into()],
            axes: None,
            steps: vec!["prompts".into()],
            services: vec!["server".into()],
        };
        let mut problems = Problems::default();
        let original = Value {
            kind: Kind::Text(text.to_owned()),
            place,
        };
        (
            value(&original, &scope, &sources, &mut problems),
            problems.into_sorted(),
        )
    }

    #[test]
    fn one_reference_keeps_its_type_and_several_make_text() {
        assert_eq!(resolved("${params.layers}").0.kind, Kind::Int(5));
        assert_eq!(
            resolved("n=${params.layers}!").0.kind,
            Kind::Text("n=5!".into())
        );
        assert_eq!(
            resolved("$${params.layers}").0.kind,
            Kind::Text("${params.layers}".into())
        );
    }

    #[test]
    fn unknown_names_are_problems_with_the_nearest_known_one() {
        let (_, problems) = resolved("${steps.prompt.workload}");
        assert_eq!(problems[0].help.as_deref(), Some("did you mean `prompts`?"));
        let (place, _) = problems[0].place.clone().expect("a place");
        assert_eq!(place.span, 1..25);
    }

    #[test]
    fn late_references_stay_in_their_text() {
        let (value, problems) = resolved("--url ${services.server.url}/v1");
        assert!(problems.is_empty());
        assert!(matches!(&value.kind, Kind::Template(p) if p.len() == 3));
    }

    #[test]
    fn what_is_reported_where_it_is_declared_is_not_reported_again() {
        let (value, problems) = resolved("${params.torn}");
        assert!(problems.is_empty());
        assert_eq!(value.kind, Kind::Template(vec![]));
    }

    #[test]
    fn an_unclosed_reference_is_a_problem() {
        assert_eq!(resolved("${params.layers").1.len(), 1);
    }
}
