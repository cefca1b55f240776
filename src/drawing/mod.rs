//! A plan's graph as a drawing: boxes and arrows, written in one of three ways.

mod state;

mod collapse;

mod dot;
mod layers;
mod legend;
mod mermaid;
mod svg;

pub(crate) use dot::dot;
pub(crate) use mermaid::mermaid;
pub(crate) use state::{State, of_history, of_prospect};
pub(crate) use svg::svg;

use crate::outlook::{kind_word, uses};
use engine::graph::{Edge, Graph, NodeId};
use std::collections::BTreeMap;

/// What is drawn. Each box comes after those that its arrows come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drawing {
    /// The plan's name.
    pub(crate) title: String,
    pub(crate) boxes: Vec<NodeBox>,
    pub(crate) arrows: Vec<Arrow>,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct NodeBox {
    /// Its canonical name.
    pub(crate) name: String,
    /// The name of its declaration.
    pub(crate) decl: String,
    /// The kind of step or service that it uses.
    pub(crate) uses: String,
    /// `measure`, `service` and so on.
    pub(crate) kind: &'static str,
    /// What would become of it, or what became of it; `None` if that is not drawn.
    pub(crate) state: Option<State>,
    /// The same in a few words.
    pub(crate) note: String,
}

impl NodeBox {
    /// Whether it is a service.
    pub(crate) fn is_service(&self) -> bool {
        self.kind == "service"
    }
}

/// Why one node waits for another; positions are those of boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrow {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) edge: Edge,
}

impl Drawing {
    /// Takes every node and edge of a graph.
    pub(crate) fn of(title: &str, graph: &Graph) -> Self {
        let place: BTreeMap<NodeId, usize> = graph
            .order()
            .iter()
            .enumerate()
            .map(|(i, id)| (*id, i))
            .collect();
        let draw = |id: &NodeId| NodeBox {
            name: graph.name(*id),
            decl: graph.node(*id).name.decl.to_string(),
            uses: uses(graph, *id).to_owned(),
            kind: kind_word(graph.step_kind(*id)),
            state: None,
            note: String::new(),
        };
        let mut arrows = Vec::new();
        for (to, id) in graph.order().iter().enumerate() {
            arrows.extend(graph.incoming(*id).filter_map(|(from, edge)| {
                Some(Arrow {
                    from: *place.get(&from)?,
                    to,
                    edge,
                })
            }));
        }
        arrows.sort_by_key(|a| (a.to, a.from));
        Self {
            title: title.to_owned(),
            boxes: graph.order().iter().map(draw).collect(),
            arrows,
        }
    }

    /// Draws the states that `known` returns for names of nodes.
    pub(crate) fn marked(mut self, known: impl Fn(&str) -> Option<(State, String)>) -> Self {
        for node in &mut self.boxes {
            if let Some((state, note)) = known(&node.name) {
                node.state = Some(state);
                node.note = note;
            }
        }
        self
    }

    /// Whether anything is said of the state of nodes.
    fn has_states(&self) -> bool {
        self.boxes.iter().any(|node| node.state.is_some())
    }
}

/// A small drawing with every kind of box and arrow.
#[cfg(test)]
fn sample() -> Drawing {
    let node = |name: &str, uses: &str, kind| NodeBox {
        name: name.into(),
        decl: name.into(),
        uses: uses.into(),
        kind,
        state: None,
        note: String::new(),
    };
    let arrow = |from, to, edge| Arrow { from, to, edge };
    Drawing {
        title: "a <plan>".into(),
        boxes: vec![
            node("model", "model.derive", "pure"),
            node("server", "server.embedded", "service"),
            node("warm", "load.warm", "effect"),
            node("load[mode=\"a&b\"]", "load.test", "measure"),
        ],
        arrows: vec![
            arrow(0, 1, Edge::Needs),
            arrow(1, 2, Edge::Leases),
            arrow(0, 3, Edge::Needs),
            arrow(1, 3, Edge::Leases),
            arrow(2, 3, Edge::After),
        ],
    }
}
