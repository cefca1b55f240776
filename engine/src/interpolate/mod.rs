//! Replaces `${…}` in values: parameters and axes at once, everything else as a late reference.
//!
//! A string that is one reference keeps the referent's type; `$${` writes `${`. Of steps and services
//! an axis can choose one: `${services[axes.engine]}` is the one that the axis' value names.

mod meaning;

mod mentions;

mod prepared;

pub use mentions::{Chosen, Mentions, mentions};
pub use prepared::Prepared;

use crate::point::Point;
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::{Place, Sources};
use crate::value::{Kind, Late, Piece, Table, Target, Value};
use meaning::{Meaning, meaning};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of everything that late references can mean.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Names of steps.
    pub steps: BTreeSet<String>,
    /// Names of services.
    pub services: BTreeSet<String>,
}

/// What references may name.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Parameters with their values.
    pub params: Arc<BTreeMap<String, Value>>,
    /// Parameters that could not be read, which is a problem already.
    pub broken: Arc<Vec<String>>,
    /// Axes with the values of this instance; `None` where axes may not be used.
    pub axes: Option<Point>,
    /// Steps and services.
    pub names: Arc<Names>,
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
pub(crate) enum Raw<'a> {
    /// Plain text, escapes resolved.
    Text(String),
    /// What stands between `${` and `}`.
    Reference(&'a str),
    /// A `${` without `}`, and everything after it.
    Unclosed,
}

/// Splits a string into plain text and references.
pub(crate) fn split(text: &str) -> Vec<Raw<'_>> {
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

/// What can be written between `${` and `}`.
const FORMS: &str = "write `params.NAME`, `axes.NAME`, `steps.NAME.OUTPUT`, `steps.NAME.all`, `services.NAME`, `services.NAME.url`, `secret.NAME`, or `steps[axes.NAME].OUTPUT` and `services[axes.NAME]` where an axis has the name";

fn resolve(expression: &str, place: &Place, scope: &Scope) -> Result<Resolved, Problem> {
    let trimmed = expression.trim();
    if let Some(inner) = trimmed.strip_prefix("not ") {
        return negated(inner, place, scope);
    }
    match meaning(trimmed, &scope.names) {
        Some(Meaning::Param(name)) => match scope.params.get(name) {
            Some(value) => Ok(Resolved::Now(value.kind.clone())),
            None => {
                let known = scope.params.keys().map(String::as_str);
                Err(unknown(name, known, "parameter", place))
            }
        },
        Some(Meaning::Axis(name)) => Ok(Resolved::Now(axis_value(name, place, scope)?)),
        Some(Meaning::Chosen(choice)) => {
            let name = axis_value(choice.axis, place, scope)?;
            resolve(&choice.path(&plain_text(name, place)), place, scope)
        }
        Some(Meaning::Late(target)) => {
            known_target(&target, &scope.names, place)?;
            Ok(Resolved::Late(Late {
                target,
                place: place.clone(),
            }))
        }
        Some(Meaning::Step(step)) => {
            known(&step, &scope.names.steps, "step", place)?;
            Err(Problem::at(
                place,
                format!("`{trimmed}` names a step, not what it brings"),
                "which output?",
            )
            .help(format!(
                "write `${{steps.{step}.OUTPUT}}`; `benchwright steps` lists what each step brings"
            )))
        }
        None => Err(Problem::at(
            place,
            format!("`{trimmed}` is not a reference"),
            "not understood",
        )
        .help(FORMS)),
    }
}

fn axis_value(name: &str, place: &Place, scope: &Scope) -> Result<Kind, Problem> {
    let Some(axes) = &scope.axes else {
        let problem = Problem::at(place, "an axis cannot be used here", "no one value here");
        let help = "an axis has a value in `with`, `when` and the settings of what varies over it";
        return Err(problem.help(help));
    };
    match axes.get(name) {
        Some(coordinate) => Ok(coordinate.kind.clone()),
        None => {
            let mut known: Vec<&str> = axes.iter().map(|c| &*c.axis).collect();
            known.sort_unstable();
            Err(unknown(name, known, "axis", place))
        }
    }
}

fn negated(inner: &str, place: &Place, scope: &Scope) -> Result<Resolved, Problem> {
    match resolve(inner, place, scope)? {
        Resolved::Now(Kind::Bool(b)) => Ok(Resolved::Now(Kind::Bool(!b))),
        _ => Err(Problem::at(
            place,
            format!("`not` needs a boolean, and `{}` is none", inner.trim()),
            "not a boolean",
        )),
    }
}

/// Resolves a reference to something that is known before the plan runs.
///
/// # Errors
/// What is wrong with it, or that it is known only later; nothing if that was reported already.
pub(crate) fn early(
    expression: &str,
    place: &Place,
    scope: &Scope,
) -> Result<Kind, Option<Problem>> {
    if scope.is_broken(expression) {
        return Err(None);
    }
    match resolve(expression, place, scope).map_err(Some)? {
        Resolved::Now(kind) => Ok(kind),
        Resolved::Late(late) => Err(Some(
            Problem::at(
                place,
                format!("`{}` is known only when the plan runs", late.target),
                "not known yet",
            )
            .help("use parameters and axes here"),
        )),
    }
}

fn known_target(target: &Target, names: &Names, place: &Place) -> Result<(), Problem> {
    match target {
        Target::Output { step, .. } | Target::All { step } => {
            known(step, &names.steps, "step", place)
        }
        Target::Service { service } | Target::Fact { service, .. } => {
            known(service, &names.services, "service", place)
        }
        Target::Secret { .. } => Ok(()),
    }
}

fn unknown<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
    place: &Place,
) -> Problem {
    Problem::at(
        place,
        format!("there is no {what} `{name}` here"),
        format!("unknown {what}"),
    )
    .help(did_you_mean(name, known))
}

fn known(name: &str, names: &BTreeSet<String>, what: &str, place: &Place) -> Result<(), Problem> {
    if names.contains(name) {
        return Ok(());
    }
    let inside = format!("{name}.");
    let parts: Vec<String> = names
        .iter()
        .filter(|n| n.starts_with(&inside))
        .map(|n| format!("`{n}`"))
        .collect();
    let help = if parts.is_empty() {
        did_you_mean(name, names.iter().map(String::as_str))
    } else {
        format!("`{name}` is a fragment that brings {}", parts.join(", "))
    };
    Err(Problem::at(
        place,
        format!("no {what} is called `{name}`"),
        format!("unknown {what}"),
    )
    .help(help))
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
            params: Arc::new(BTreeMap::from([("layers".to_owned(), five)])),
            broken: Arc::new(vec!["torn".into()]),
            axes: None,
            names: Arc::new(Names {
                steps: ["prompts", "serving.load"].map(str::to_owned).into(),
                services: ["server", "serving.server"].map(str::to_owned).into(),
            }),
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
    fn names_with_dots_are_told_from_outputs_and_facts() {
        let target = |text: &str| match resolved(text) {
            (
                Value {
                    kind: Kind::Template(p),
                    ..
                },
                _,
            ) => match p.as_slice() {
                [Piece::Late(late)] => Some(late.target.clone()),
                _ => None,
            },
            _ => None,
        };
        let service = |name: &str| {
            Some(Target::Service {
                service: name.into(),
            })
        };
        let fact = |name: &str| {
            Some(Target::Fact {
                service: name.into(),
                fact: "url".into(),
            })
        };
        assert_eq!(target("${services.server}"), service("server"));
        assert_eq!(target("${services.server.url}"), fact("server"));
        assert_eq!(
            target("${services.serving.server}"),
            service("serving.server")
        );
        assert_eq!(
            target("${services.serving.server.url}"),
            fact("serving.server")
        );
        let all = Some(Target::All {
            step: "serving.load".into(),
        });
        assert_eq!(target("${steps.serving.load.all}"), all);
        let (_, problems) = resolved("${steps.serving.all}");
        let help = "`serving` is a fragment that brings `serving.load`";
        assert_eq!(problems[0].help.as_deref(), Some(help));
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
