//! Services in front of others: what a plan may not ask of them.
//!
//! What stands behind a front comes and goes with it, so each launch has one front, which has none
//! itself.

use crate::graph::{Edge, Graph, NodeId};
use crate::problem::Problem;
use crate::step::StepKind;
use std::collections::BTreeSet;
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

/// A step and the effects before it use each service through one front, or none: what was launched
/// for a front goes when another wants it, or somebody who wants it for itself.
fn check_step(graph: &Graph, step: NodeId) -> Option<Problem> {
    let own = graph.leased(step);
    let company = company(graph, step);
    company.iter().find_map(|service| {
        let is_front = |id: &&NodeId| graph.leases(**id).contains(service);
        let fronts: Vec<NodeId> = company.iter().filter(is_front).copied().collect();
        match fronts[..] {
            [one, two, ..] => Some(behind_both(graph, step, [one, two, *service])),
            [front] if own.contains(service) && !own.contains(&front) => {
                Some(behind_and_by_itself(graph, step, front, *service))
            }
            _ => None,
        }
    })
}

/// Services that are up while a step runs, or an effect that comes before it, in the order of the
/// plan.
fn company(graph: &Graph, step: NodeId) -> Vec<NodeId> {
    let mut company = BTreeSet::new();
    let mut steps = vec![step];
    let mut met = BTreeSet::from([step]);
    while let Some(step) = steps.pop() {
        company.extend(graph.leased(step));
        let before = graph.incoming(step);
        let before = before.filter(|(_, edge)| *edge == Edge::After);
        let effects = before.filter(|(id, _)| graph.step_kind(*id) == Some(StepKind::Effect));
        steps.extend(effects.map(|(id, _)| id).filter(|id| met.insert(*id)));
    }
    company.into_iter().collect()
}

fn behind_both(graph: &Graph, step: NodeId, names: [NodeId; 3]) -> Problem {
    let [one, two, service] = names.map(|id| graph.name(id));
    let message = format!("`{one}` and `{two}` would both stand in front of `{service}`");
    let problem = Problem::at(&graph.node(step).place, message, "uses both");
    let help = format!("let two steps use them, or declare `{service}` twice");
    problem.help(help)
}

fn behind_and_by_itself(graph: &Graph, step: NodeId, front: NodeId, service: NodeId) -> Problem {
    let [front, service] = [front, service].map(|id| graph.name(id));
    let step = graph.node(step);
    let message = format!(
        "`{}` uses `{service}` by itself, and what comes before it uses it behind `{front}`",
        step.name
    );
    let problem = Problem::at(&step.place, message, "would get another launch");
    problem.help(format!(
        "refer to `{front}` here, to `{service}` there, or declare `{service}` twice"
    ))
}
