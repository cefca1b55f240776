//! Services in front of others: what a plan may not ask of them.
//!
//! What stands behind a front comes and goes with it, so each launch has one front, which has none
//! itself.

use crate::graph::{Graph, NodeId};
use crate::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Finds fronts of fronts, and steps that use one service through two fronts, one problem for each
/// declaration.
pub(super) fn check(graph: &Graph) -> Vec<Problem> {
    let mut told: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut problems = Vec::new();
    for id in graph.order() {
        let decl = &graph.node(*id).name.decl;
        if told.contains(decl) {
            continue;
        }
        let problem = match graph.step(*id) {
            Some(_) => check_step(graph, *id),
            None => check_front(graph, *id),
        };
        if let Some(problem) = problem {
            told.insert(decl.clone());
            problems.push(problem);
        }
    }
    problems
}

fn check_front(graph: &Graph, front: NodeId) -> Option<Problem> {
    let mut behind = graph.leases(front).into_iter();
    let other = behind.find(|id| !graph.leases(*id).is_empty())?;
    let (front, other) = (graph.node(front), graph.name(other));
    let message = format!(
        "`{}` refers to `{other}`, which refers to services itself",
        front.name
    );
    let problem = Problem::at(&front.place, message, "in front of a front");
    Some(problem.help(format!("refer to the services behind `{other}` directly")))
}

fn check_step(graph: &Graph, step: NodeId) -> Option<Problem> {
    let mut front_of: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for front in graph.leases(step) {
        for service in graph.leases(front) {
            let Some(other) = front_of.insert(service, front) else {
                continue;
            };
            let names = [other, front, service].map(|id| graph.name(id));
            let [one, two, service] = &names;
            let message = format!("`{one}` and `{two}` would both stand in front of `{service}`");
            let problem = Problem::at(&graph.node(step).place, message, "uses both");
            let help = format!("let two steps use them, or declare `{service}` twice");
            return Some(problem.help(help));
        }
    }
    None
}
