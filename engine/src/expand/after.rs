//! What comes before an instance without bringing anything.

use super::declared::DeclaredAll;
use crate::graph::NodeId;
use crate::plan::{NodeDecl, NodeSort};
use crate::point::Point;
use crate::problem::{Problem, Problems, did_you_mean};

/// Reports what stands in `after` and is no step.
pub(super) fn check(decl: &NodeDecl, declared: &DeclaredAll, problems: &mut Problems) {
    for (name, place) in &decl.after {
        if declared.get(NodeSort::Step, name).is_some() {
            continue;
        }
        let (message, help) = if declared.get(NodeSort::Service, name).is_some() {
            (
                format!("`{name}` is a service, and a service never ends"),
                "refer to it in `with`: a step that uses a service leases it".to_owned(),
            )
        } else {
            (
                format!("no step is called `{name}`"),
                did_you_mean(name, declared.steps()),
            )
        };
        problems.push(Problem::at(place, message, "cannot come after this").help(help));
    }
}

/// Links `after`: to every instance that agrees on the axes that both have.
pub(super) fn link(decl: &NodeDecl, declared: &DeclaredAll, point: &Point) -> Vec<NodeId> {
    let mut found = Vec::new();
    for (name, _) in &decl.after {
        if let Some(other) = declared.get(NodeSort::Step, name) {
            other.agreeing(point, |nodes| found.extend_from_slice(nodes));
        }
    }
    found
}
