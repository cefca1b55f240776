//! The sealed graph: every instance of every step and service, with typed edges.
//!
//! A different type from [`Plan`](crate::plan::Plan): a graph has no unknown names, no cycles and
//! no problems. Waiting for a service to *finish* cannot be written, because services are only
//! ever leased.

use crate::library::{ServiceEntry, StepEntry};
use crate::options::Walk;
use crate::policy::{Policy, ServicePolicy};
use crate::secrets::SecretSource;
use crate::service::DynService;
use crate::source::Place;
use crate::step::{AxisValue, DynStep, StepKind};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Names a node of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// A resolved reference to what another node brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// One output of a step.
    Output {
        /// The step.
        node: NodeId,
        /// The output's name.
        output: String,
    },
    /// All samples of a measurement's instances.
    All {
        /// The instances.
        nodes: Vec<NodeId>,
    },
    /// A service, leased while the step runs.
    Service {
        /// The service.
        node: NodeId,
    },
    /// A fact of a service, which leases it too.
    Fact {
        /// The service.
        node: NodeId,
        /// The fact's name.
        fact: String,
    },
    /// A secret: outside of every key.
    Secret {
        /// Its name.
        name: String,
        /// Where its value comes from.
        source: SecretSource,
    },
}

/// Why a node waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It reads what the other brings.
    Needs,
    /// It reads the samples of the other, as many as there are.
    Reads,
    /// It comes later.
    After,
    /// It uses the other, a service, while it runs.
    Leases,
}

/// A node's canonical name: `load[radix=true,request_rate=4]`, never an ordinal.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeName {
    /// The name in the plan.
    pub decl: String,
    /// Axes by name, so that the order in the plan does not matter.
    pub axes: Vec<(String, AxisValue)>,
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.decl)?;
        if self.axes.is_empty() {
            return Ok(());
        }
        let mut axes: Vec<String> = self.axes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        axes.sort();
        write!(f, "[{}]", axes.join(","))
    }
}

/// An instance of a step or service.
#[derive(Clone)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Where it is declared.
    pub place: Place,
    /// What it is.
    pub body: Body,
    /// Nodes that come before it without bringing anything.
    pub after: Vec<NodeId>,
}

/// What a node is.
#[derive(Clone)]
pub enum Body {
    /// A step.
    Step(StepNode),
    /// A service.
    Service(ServiceNode),
}

/// A step with its settings.
#[derive(Clone)]
pub struct StepNode {
    /// Its kind.
    pub entry: Arc<StepEntry>,
    /// Its options.
    pub step: Arc<dyn DynStep>,
    /// What the plan says besides.
    pub policy: Arc<Policy>,
}

impl StepNode {
    /// Returns how many samples are wanted; 1 for everything that is not a measurement.
    pub fn target(&self) -> u32 {
        self.policy.samples.target.get()
    }
}

/// A service with its settings.
#[derive(Clone)]
pub struct ServiceNode {
    /// Its kind.
    pub entry: Arc<ServiceEntry>,
    /// Its options.
    pub service: Arc<dyn DynService>,
    /// What the plan says besides.
    pub policy: Arc<ServicePolicy>,
}

impl Body {
    /// Walks the options.
    pub fn walk(&self, walk: &mut dyn Walk) {
        match self {
            Body::Step(step) => step.step.walk(walk),
            Body::Service(service) => service.service.walk(walk),
        }
    }
}

/// A sealed graph: acyclic, every link resolved.
pub struct Graph {
    nodes: Vec<Node>,
    edges: DiGraph<NodeId, Edge>,
    order: Vec<NodeId>,
}

/// Nodes that wait for each other.
#[derive(Debug, thiserror::Error)]
#[error("these wait for each other: {0}")]
pub struct Cycle(String);

impl Graph {
    /// Seals `nodes`; a node's position is its [`NodeId`].
    ///
    /// # Errors
    /// [`Cycle`] if nodes wait for each other.
    pub fn seal(nodes: Vec<Node>) -> Result<Self, Cycle> {
        let mut edges = DiGraph::new();
        for i in 0..nodes.len() {
            edges.add_node(NodeId(u32::try_from(i).unwrap_or(u32::MAX)));
        }
        for (i, node) in nodes.iter().enumerate() {
            let mut found = EdgeWalk::default();
            node.body.walk(&mut found);
            found
                .edges
                .extend(node.after.iter().map(|n| (*n, Edge::After)));
            for (from, edge) in found.edges {
                let (from, to) = (NodeIndex::new(from.index()), NodeIndex::new(i));
                if !edges
                    .edges_connecting(from, to)
                    .any(|e| *e.weight() == edge)
                {
                    edges.add_edge(from, to, edge);
                }
            }
        }
        let order = match petgraph::algo::toposort(&edges, None) {
            Ok(_) => stable_order(&edges),
            Err(cycle) => {
                return Err(Cycle(
                    nodes[edges[cycle.node_id()].index()].name.to_string(),
                ));
            }
        };
        Ok(Self {
            nodes,
            edges,
            order,
        })
    }

    /// Returns a node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Returns a node's canonical name.
    pub fn name(&self, id: NodeId) -> String {
        self.node(id).name.to_string()
    }

    /// Finds a node by its canonical name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.order.iter().copied().find(|id| self.name(*id) == name)
    }

    /// Returns all nodes, each after everything that it waits for, otherwise as in the plan.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Returns what a node waits for.
    pub fn incoming(&self, id: NodeId) -> impl Iterator<Item = (NodeId, Edge)> {
        let at = NodeIndex::new(id.index());
        self.edges
            .edges_directed(at, petgraph::Direction::Incoming)
            .map(|e| (self.edges[e.source()], *e.weight()))
    }

    /// Returns what waits for a node.
    pub fn outgoing(&self, id: NodeId) -> impl Iterator<Item = (NodeId, Edge)> {
        let at = NodeIndex::new(id.index());
        self.edges
            .edges_directed(at, petgraph::Direction::Outgoing)
            .map(|e| (self.edges[e.target()], *e.weight()))
    }

    /// Returns the step at `id`, if it is one.
    pub fn step(&self, id: NodeId) -> Option<&StepNode> {
        match &self.node(id).body {
            Body::Step(step) => Some(step),
            Body::Service(_) => None,
        }
    }

    /// Returns the service at `id`, if it is one.
    pub fn service(&self, id: NodeId) -> Option<&ServiceNode> {
        match &self.node(id).body {
            Body::Service(service) => Some(service),
            Body::Step(_) => None,
        }
    }

    /// Returns the kind of the step at `id`, if it is one.
    pub fn step_kind(&self, id: NodeId) -> Option<StepKind> {
        self.step(id).map(|s| s.entry.kind)
    }
}

/// Collects the edges that a node's options ask for.
#[derive(Default)]
struct EdgeWalk {
    edges: Vec<(NodeId, Edge)>,
}

impl Walk for EdgeWalk {
    fn value(&mut self, _: &str, _: &str) {}

    fn link(&mut self, _: &str, link: &Link) {
        match link {
            Link::Output { node, .. } => self.edges.push((*node, Edge::Needs)),
            Link::All { nodes } => self.edges.extend(nodes.iter().map(|n| (*n, Edge::Reads))),
            Link::Service { node } | Link::Fact { node, .. } => {
                self.edges.push((*node, Edge::Leases))
            }
            Link::Secret { .. } => {}
        }
    }

    fn file(&mut self, _: &str, _: &Path) {}
}

/// Orders nodes so that each follows what it waits for, and otherwise as they were added; nodes
/// that wait for each other are left out.
pub(crate) fn stable_order<N: Copy, E>(graph: &DiGraph<N, E>) -> Vec<N> {
    use petgraph::Direction::{Incoming, Outgoing};
    let mut left: Vec<usize> = graph
        .node_indices()
        .map(|n| graph.edges_directed(n, Incoming).count())
        .collect();
    let mut ready: BTreeSet<usize> = (0..left.len()).filter(|i| left[*i] == 0).collect();
    let mut order = Vec::with_capacity(left.len());
    while let Some(next) = ready.pop_first() {
        let node = NodeIndex::new(next);
        order.push(graph[node]);
        for edge in graph.edges_directed(node, Outgoing) {
            let target = edge.target().index();
            left[target] -= 1;
            if left[target] == 0 {
                ready.insert(target);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_their_axes_and_compare_numbers_by_value() {
        let name = NodeName {
            decl: "load".into(),
            axes: vec![
                ("request_rate".into(), AxisValue::Number(4.0)),
                ("radix".into(), AxisValue::Bool(true)),
            ],
        };
        assert_eq!(name.to_string(), "load[radix=true,request_rate=4]");
    }
}
