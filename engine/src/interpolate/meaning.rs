//! What the path between `${` and `}` names. Names of steps and services can have dots: what a
//! fragment brings is called after the step that uses it.

use super::Names;
use crate::value::Target;

/// What a reference names, known or not.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning<'a> {
    /// `params.NAME`
    Param(&'a str),
    /// `axes.NAME`
    Axis(&'a str),
    /// `steps.NAME`, without an output.
    Step(String),
    /// Everything that is known only when the plan runs.
    Late(Target),
}

/// Understands the path of a reference, without `not`.
pub(super) fn meaning<'a>(path: &'a str, names: &Names) -> Option<Meaning<'a>> {
    let words: Vec<&str> = path.split('.').collect();
    Some(match words.as_slice() {
        ["params", name] => Meaning::Param(name),
        ["axes", name] => Meaning::Axis(name),
        ["secret", name] => Meaning::Late(Target::Secret {
            name: (*name).to_owned(),
        }),
        ["steps", name @ ..] if names.steps.contains(&name.join(".")) => {
            Meaning::Step(name.join("."))
        }
        ["steps", name] => Meaning::Step((*name).to_owned()),
        ["steps", name @ .., "all"] => Meaning::Late(Target::All {
            step: name.join("."),
        }),
        ["steps", name @ .., output] => Meaning::Late(Target::Output {
            step: name.join("."),
            output: (*output).to_owned(),
        }),
        ["services", name @ ..] if !name.is_empty() => Meaning::Late(service(name, names)),
        _ => return None,
    })
}

/// Tells a service from a fact of one: names of services can have dots, too.
fn service(words: &[&str], names: &Names) -> Target {
    let whole = words.join(".");
    let (fact, head) = words.split_last().map_or(("", &[][..]), |(f, h)| (*f, h));
    let in_fragment = |name: &String| name.starts_with(&format!("{}.", words[0]));
    let is_known = |name: &str| names.services.contains(name);
    let is_service = is_known(&whole)
        || head.is_empty()
        || (!is_known(&head.join(".")) && names.services.iter().any(in_fragment));
    if is_service {
        return Target::Service { service: whole };
    }
    Target::Fact {
        service: head.join("."),
        fact: fact.to_owned(),
    }
}
