//! The order of declarations: each after everything that it mentions. A circle is a problem.

use super::linker::chosen_by;
use crate::graph::stable_order;
use crate::interpolate::Mentions;
use crate::plan::{NodeDecl, NodeSort};
use crate::problem::{Problem, Problems};
use petgraph::graph::DiGraph;
use std::collections::HashMap;

/// Orders declarations by their position; those that wait for each other are left out, and what
/// comes after them.
pub(super) fn order(
    decls: &[NodeDecl],
    mentions: &[Mentions],
    problems: &mut Problems,
) -> Vec<usize> {
    let graph = mentioned(decls, mentions);
    let circles: Vec<Vec<usize>> = petgraph::algo::tarjan_scc(&graph)
        .into_iter()
        .filter(|scc| scc.len() > 1 || graph.contains_edge(scc[0], scc[0]))
        .map(|scc| scc.into_iter().map(|n| graph[n]).collect())
        .collect();
    for circle in circles {
        problems.push(circle_problem(decls, circle));
    }
    stable_order(&graph)
}

fn mentioned(decls: &[NodeDecl], mentions: &[Mentions]) -> DiGraph<usize, ()> {
    let at: HashMap<(bool, &str), usize> = decls
        .iter()
        .enumerate()
        .map(|(i, n)| ((n.sort == NodeSort::Service, n.key.name.as_str()), i))
        .collect();
    let mut graph = DiGraph::<usize, ()>::new();
    let ids: Vec<_> = (0..decls.len()).map(|i| graph.add_node(i)).collect();
    for (i, found) in mentions.iter().enumerate() {
        let after = decls[i].after.iter().map(|(n, _)| n);
        let steps = found.steps.iter().chain(&found.all).chain(after);
        let steps = steps.filter_map(|n| at.get(&(false, n.as_str())));
        let services = found.services.iter();
        let services = services.filter_map(|n| at.get(&(true, n.as_str())));
        let chosen = chosen_by(found);
        let chosen = chosen.filter_map(|(sort, n)| at.get(&(sort == NodeSort::Service, n)));
        for from in steps.chain(services).chain(chosen) {
            graph.add_edge(ids[*from], ids[i], ());
        }
    }
    graph
}

fn circle_problem(decls: &[NodeDecl], mut circle: Vec<usize>) -> Problem {
    circle.sort_unstable();
    let names = circle.iter().map(|i| format!("`{}`", decls[*i].key.name));
    let names: Vec<String> = names.collect();
    let first = &decls[circle[0]];
    let message = match names.as_slice() {
        [head @ .., last] if !head.is_empty() => {
            format!("{} and {last} wait for each other", head.join(", "))
        }
        alone => format!("{} waits for itself", alone.concat()),
    };
    Problem::at(&first.key.place, message, "part of a circle")
        .help("remove one of the references or one `after`")
}
