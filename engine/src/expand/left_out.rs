//! Which instances are left out: those whose `when` does not hold, and what needs them.

use super::declared::{Declared, DeclaredAll};
use super::linker::read_by;
use crate::interpolate::{Chosen, Mentions, Scope};
use crate::plan::{NodeDecl, NodeSort};
use crate::point::Point;
use crate::problem::Problems;
use crate::source::Sources;
use crate::value::Kind;
use crate::when::{Holds, When};

/// Decides which instances of one declaration are left out.
pub(super) struct LeftOut<'a> {
    when: Vec<When>,
    /// Declarations that it reads and of which something is left out.
    read: Vec<(&'a str, &'a Declared)>,
    /// Declarations of which an axis chooses one, and of which something is left out.
    chosen: Vec<(&'a Chosen, &'a str, &'a Declared)>,
    /// Measurements of which it reads what is left.
    all: Vec<(&'a str, &'a Declared)>,
}

impl<'a> LeftOut<'a> {
    /// Prepares the decisions for a declaration.
    pub(super) fn new(
        decl: &NodeDecl,
        mentions: &'a Mentions,
        declared: &'a DeclaredAll,
        sources: &Sources,
        problems: &mut Problems,
    ) -> Self {
        let mut when = Vec::new();
        for value in &decl.when {
            match When::parse(value, sources) {
                Ok(parsed) => when.push(parsed),
                Err(problem) => problems.push(problem),
            }
        }
        let pruned = |(sort, name): (NodeSort, &'a str)| {
            let declared = declared.get(sort, name)?;
            (!declared.pruned.is_empty()).then_some((name, declared))
        };
        let all = mentions.all.iter().map(|n| (NodeSort::Step, n.as_str()));
        let chosen = mentions.chosen.iter().flat_map(|chosen| {
            let names = chosen.names.iter().map(|n| (chosen.sort, n.as_str()));
            let left_out = names.filter_map(pruned);
            left_out.map(move |(name, declared)| (chosen, name, declared))
        });
        Self {
            when,
            read: read_by(mentions).filter_map(pruned).collect(),
            chosen: chosen.collect(),
            all: all.filter_map(pruned).collect(),
        }
    }

    /// Why the instance at `point` is left out, if it is; `scope` is set to the point.
    pub(super) fn reason(
        &self,
        point: &Point,
        scope: &mut Scope,
        problems: &mut Problems,
    ) -> Option<String> {
        let read = self.read.iter().copied();
        let chosen = self.chosen.iter();
        let chosen = chosen.filter(|(chosen, name, _)| is_chosen(chosen, name, point));
        let chosen = chosen.map(|(_, name, declared)| (*name, *declared));
        for (name, declared) in read.chain(chosen) {
            if declared.pruned.contains(&point.key_on(&declared.axes)) {
                return Some(format!("needs `{name}`, which is left out"));
            }
        }
        for (name, declared) in &self.all {
            if declared.agreeing(point, <[_]>::is_empty) {
                return Some(format!("reads all of `{name}`, of which nothing is left"));
            }
        }
        scope.axes = Some(point.clone());
        for when in &self.when {
            match when.decide(scope) {
                Ok(Holds::Yes) => {}
                Ok(Holds::No(reason)) => return Some(reason),
                Err(problem) => problem.into_iter().for_each(|p| problems.push(p)),
            }
        }
        None
    }
}

/// Whether it is the one of this name that is read at a point.
fn is_chosen(chosen: &Chosen, name: &str, point: &Point) -> bool {
    let value = point.get(&chosen.axis).map(|coordinate| &coordinate.kind);
    let own = name.strip_prefix(&chosen.within);
    matches!(value, Some(Kind::Text(value)) if Some(value.as_str()) == own)
}
