//! Which instances are left out: those whose `when` does not hold, and what needs them.

use super::axes::{Point, point_key};
use super::linker::{DeclaredAll, read_by};
use crate::interpolate::{Mentions, Scope};
use crate::plan::NodeDecl;
use crate::problem::Problems;
use crate::source::Sources;
use crate::value::Value;
use crate::when::{Holds, When};
use std::collections::HashSet;

/// Decides which instances of one declaration are left out.
pub(super) struct LeftOut {
    when: Vec<When>,
    /// Declarations that it reads and of which something is left out: name, axes, points.
    read: Vec<(String, Vec<String>, HashSet<String>)>,
    /// Measurements of which it reads what is left: name, axes that both have, points that are.
    all: Vec<(String, Vec<String>, HashSet<String>)>,
}

impl LeftOut {
    /// Prepares the decisions for a declaration that has `axes`.
    pub(super) fn new(
        decl: &NodeDecl,
        mentions: &Mentions,
        axes: &[String],
        declared: &DeclaredAll,
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
        let pruned = |key: &(bool, String)| declared.get(key).filter(|d| !d.pruned.is_empty());
        let read = read_by(mentions).filter_map(|key| {
            let declared = pruned(&key)?;
            Some((key.1, declared.axes.clone(), declared.pruned.clone()))
        });
        let all = mentions.all.iter().filter_map(|name| {
            let declared = pruned(&(false, name.clone()))?;
            let common = declared.axes.iter().filter(|a| axes.contains(a));
            let common: Vec<String> = common.cloned().collect();
            let left = declared.instances.iter();
            let left = left.map(|i| point_key(&on(&i.axes, &common)));
            Some((name.clone(), common.clone(), left.collect()))
        });
        Self {
            when,
            read: read.collect(),
            all: all.collect(),
        }
    }

    /// Why the instance at `point` is left out, if it is.
    pub(super) fn reason(
        &self,
        point: &Point,
        scope: &Scope,
        problems: &mut Problems,
    ) -> Option<String> {
        for (name, axes, pruned) in &self.read {
            let part = on(point, axes);
            if pruned.contains(&point_key(&part)) {
                return Some(format!("needs `{name}`, which is left out"));
            }
        }
        for (name, axes, left) in &self.all {
            if !left.contains(&point_key(&on(point, axes))) {
                return Some(format!("reads all of `{name}`, of which nothing is left"));
            }
        }
        if self.when.is_empty() {
            return None;
        }
        let mut scope = scope.clone();
        scope.axes = Some(point.iter().cloned().collect());
        for when in &self.when {
            match when.decide(&scope) {
                Ok(Holds::Yes) => {}
                Ok(Holds::No(reason)) => return Some(reason),
                Err(problem) => problem.into_iter().for_each(|p| problems.push(p)),
            }
        }
        None
    }
}

/// The part of a point that lies on some axes.
fn on(point: &[(String, Value)], axes: &[String]) -> Point {
    let part = point.iter().filter(|(name, _)| axes.contains(name));
    part.cloned().collect()
}
