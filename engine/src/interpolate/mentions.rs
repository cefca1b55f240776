//! What values refer to, collected before anything is resolved.

use super::meaning::{Meaning, meaning};
use super::{Names, Raw, locate, split};
use crate::plan::NodeSort;
use crate::source::{Place, Sources};
use crate::value::{Kind, Target, Value};

/// What values refer to.
#[derive(Debug, Default)]
pub struct Mentions {
    /// Steps whose outputs are read, instance by instance.
    pub steps: Vec<String>,
    /// Steps of which all instances are read.
    pub all: Vec<String>,
    /// Services.
    pub services: Vec<String>,
    /// Steps and services of which an axis chooses one.
    pub chosen: Vec<Chosen>,
    /// Axes.
    pub axes: Vec<(String, Place)>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// Steps or services of which each value of an axis names one.
#[derive(Debug)]
pub struct Chosen {
    /// Which of the two.
    pub sort: NodeSort,
    /// The axis.
    pub axis: String,
    /// What names begin with: those of a fragment's parts.
    pub within: String,
    /// Those that its values name; none before axes are known.
    pub names: Vec<String>,
}

/// Collects what values refer to, without resolving anything.
pub fn mentions<'a>(
    values: impl IntoIterator<Item = &'a Value>,
    names: &Names,
    sources: &Sources,
) -> Mentions {
    let mut found = Mentions::default();
    for value in values {
        mention(value, names, sources, &mut found);
    }
    found
}

fn mention(value: &Value, names: &Names, sources: &Sources, found: &mut Mentions) {
    match &value.kind {
        Kind::Text(text) => {
            let mut from = 0;
            for part in split(text) {
                if let Raw::Reference(expression) = part {
                    let place = locate(sources, &value.place, expression, &mut from);
                    found.note(expression, names, place);
                }
            }
        }
        Kind::List(list) => list.iter().for_each(|v| mention(v, names, sources, found)),
        Kind::Table(inner) => inner
            .entries
            .iter()
            .for_each(|(_, v)| mention(v, names, sources, found)),
        _ => {}
    }
}

impl Mentions {
    fn note(&mut self, expression: &str, names: &Names, place: Place) {
        let path = expression.trim();
        let path = path.strip_prefix("not ").unwrap_or(path).trim();
        match meaning(path, names) {
            Some(Meaning::Axis(axis)) => self.axes.push((axis.to_owned(), place)),
            Some(Meaning::Chosen(choice)) => {
                self.axes.push((choice.axis.to_owned(), place));
                self.chosen.push(Chosen {
                    sort: choice.sort,
                    axis: choice.axis.to_owned(),
                    within: choice.within,
                    names: Vec::new(),
                });
            }
            Some(Meaning::Late(Target::Output { step, .. })) => self.steps.push(step),
            Some(Meaning::Late(Target::All { step })) => self.all.push(step),
            Some(Meaning::Late(Target::Service { service } | Target::Fact { service, .. })) => {
                self.services.push(service);
            }
            Some(Meaning::Late(Target::Secret { name })) => self.secrets.push(name),
            Some(Meaning::Param(_) | Meaning::Step(_)) | None => {}
        }
    }
}
