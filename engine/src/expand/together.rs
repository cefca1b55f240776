//! What a step and the services that must be up beside it want together, checked against what
//! there is: each alone may fit where all of them never do.

use crate::graph::{Body, Edge, Graph, NodeId};
use crate::policy::{Demand, Supply, is_port_pool};
use crate::problem::Problem;
use crate::step::StepKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Finds steps that could never start, one for each declaration.
pub(super) fn check(graph: &Graph, supply: &Supply) -> Vec<Problem> {
    let mut told: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut problems = Vec::new();
    for id in graph.order() {
        let decl = &graph.node(*id).name.decl;
        if graph.step(*id).is_none() || told.contains(decl) {
            continue;
        }
        if let Some(problem) = check_step(graph, supply, *id) {
            told.insert(decl.clone());
            problems.push(problem);
        }
    }
    problems
}

fn check_step(graph: &Graph, supply: &Supply, step: NodeId) -> Option<Problem> {
    let mut company = BTreeSet::new();
    add_company(graph, step, &mut company);
    if company.is_empty() {
        return None;
    }
    let mut wanted: BTreeMap<&str, Vec<(NodeId, u32)>> = BTreeMap::new();
    for node in company.into_iter().chain([step]) {
        for (pool, amount) in &demand(graph, node).amounts {
            wanted.entry(pool).or_default().push((node, *amount));
        }
    }
    wanted.into_iter().find_map(|(pool, by)| {
        let sum: u64 = by.iter().map(|(_, amount)| u64::from(*amount)).sum();
        let size = u64::from(supply.get(pool)?.size());
        (sum > size).then(|| too_much(graph, step, pool, &by, size))
    })
}

/// Adds the services that must be up when `step` starts: its own with those behind them, and those
/// of the effects that come before it.
fn add_company(graph: &Graph, step: NodeId, company: &mut BTreeSet<NodeId>) {
    company.extend(graph.leased(step));
    for (on, edge) in graph.incoming(step) {
        if edge == Edge::After && graph.step_kind(on) == Some(StepKind::Effect) {
            add_company(graph, on, company);
        }
    }
}

fn demand(graph: &Graph, node: NodeId) -> &Demand {
    match &graph.node(node).body {
        Body::Step(step) => &step.policy.demand,
        Body::Service(service) => &service.policy.demand,
    }
}

fn too_much(graph: &Graph, step: NodeId, pool: &str, by: &[(NodeId, u32)], size: u64) -> Problem {
    let place = &graph.node(step).place;
    let name = |node: &NodeId| format!("`{}`", graph.name(*node));
    if is_port_pool(pool) {
        let services: Vec<String> = by.iter().map(|(node, _)| name(node)).collect();
        let message = format!("{} would listen on {pool} together", services.join(" and "));
        return Problem::at(place, message, "needs them at the same time")
            .help("give each a port of its own, or remove `port` to take any free one");
    }
    let amounts = by.iter().map(|(n, amount)| format!("{} {amount}", name(n)));
    let message = format!(
        "{} of `{pool}` are wanted at the same time, and the machine has {size}",
        by.iter().map(|(_, amount)| u64::from(*amount)).sum::<u64>(),
    );
    let label = format!("wanted by {}", amounts.collect::<Vec<_>>().join(", "));
    Problem::at(place, message, label).help(format!(
        "take less, or say what there is in `[resources]`: `{pool} = …`"
    ))
}
