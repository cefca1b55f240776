//! What the colours and lines of a picture mean: only those that it has.

use super::{Drawing, State};
use engine::graph::Edge;
use std::collections::BTreeSet;

/// Lists the states that a drawing has, in order.
pub(super) fn states(drawing: &Drawing) -> BTreeSet<State> {
    drawing.boxes.iter().filter_map(|node| node.state).collect()
}

/// A line of the legend: its class and what it means.
pub(super) fn lines(drawing: &Drawing) -> Vec<(&'static str, &'static str)> {
    let all = [
        (Edge::Needs, "arrow", "reads its result"),
        (
            Edge::Leases,
            "arrow leases",
            "uses the service while it runs",
        ),
        (Edge::After, "arrow after", "only comes later"),
    ];
    let has = |edge: Edge| drawing.arrows.iter().any(|arrow| arrow.edge == edge);
    all.into_iter()
        .filter(|(edge, ..)| has(*edge))
        .map(|(_, class, words)| (class, words))
        .collect()
}
