//! What the path between `${` and `}` names. Names of steps and services can have dots: what a
//! fragment brings is called after the step that uses it.

use super::Names;
use crate::plan::NodeSort;
use crate::value::Target;

/// What a reference names, known or not.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning<'a> {
    /// `params.NAME`
    Param(&'a str),
    /// `axes.NAME`
    Axis(&'a str),
    /// `steps[axes.NAME].OUTPUT`, `services[axes.NAME]` or `services[axes.NAME].FACT`
    Chosen(Choice<'a>),
    /// `steps.NAME`, without an output.
    Step(String),
    /// Everything that is known only when the plan runs.
    Late(Target),
}

/// A step or service whose name is the value of an axis.
#[derive(Debug, PartialEq)]
pub(super) struct Choice<'a> {
    pub(super) sort: NodeSort,
    pub(super) axis: &'a str,
    /// What names begin with: those of a fragment's parts. Empty, or with a dot at its end.
    pub(super) within: String,
    /// What stands behind the name: `.OUTPUT`, `.FACT` or nothing.
    rest: &'a str,
}

impl<'a> Choice<'a> {
    fn read(path: &'a str) -> Option<Self> {
        let (head, inside) = path.split_once('[')?;
        let (section, within) = match head.split_once('.') {
            Some((section, within)) => (section, format!("{within}.")),
            None => (head, String::new()),
        };
        let (axis, rest) = inside.split_once(']')?;
        let axis = axis.trim().strip_prefix("axes.")?;
        let mut sorts = [NodeSort::Step, NodeSort::Service].into_iter();
        let sort = sorts.find(|sort| sort.section() == section)?;
        let is_sound = match sort {
            NodeSort::Step => rest.len() > 1 && rest.starts_with('.') && rest != ".all",
            NodeSort::Service => rest.is_empty() || (rest.len() > 1 && rest.starts_with('.')),
        };
        is_sound.then_some(Self {
            sort,
            axis,
            within,
            rest,
        })
    }

    /// The path of what is chosen where the axis has the value `name`.
    pub(super) fn path(&self, name: &str) -> String {
        let Self { within, rest, .. } = self;
        format!("{}.{within}{name}{rest}", self.sort.section())
    }
}

/// Understands the path of a reference, without `not`.
pub(super) fn meaning<'a>(path: &'a str, names: &Names) -> Option<Meaning<'a>> {
    if let Some(choice) = Choice::read(path) {
        return Some(Meaning::Chosen(choice));
    }
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
