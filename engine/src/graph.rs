//! The sealed graph: every instance of every step and service, with typed edges.
//!
//! A different type from [`Plan`](crate::plan::Plan): a graph has no unknown names, no cycles and
//! no problems. Waiting for a service to *finish* cannot be written, because services are only
//! ever leased.

use crate::library::{ServiceEntry, StepEntry};
use crate::options::Walk;
use crate::point::Point;
use crate::policy::{Policy, ServicePolicy};
use crate::secrets::SecretSource;
use crate::service::DynService;
use crate::source::Place;
use crate::step::{DynStep, StepKind};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::BTreeSet;
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
    /// A service, leased while the step runs or the service in front of it serves.
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
    /// A secret: its value is outside of every key.
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
    /// It uses the other, a service, while it runs; a service, while it serves.
    Leases,
}

/// One node waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// The node that waits.
    pub node: NodeId,
    /// The node that it waits for.
    pub on: NodeId,
    /// Why.
    pub edge: Edge,
}

/// A node's canonical name: `load[radix=true,request_rate=4]`, never an ordinal.
#[derive(Debug, Clone)]
pub struct NodeName {
    /// The name in the plan.
    pub decl: Arc<str>,
    /// The values of its axes; shown by name, so that the order in the plan does not matter.
    pub axes: Point,
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.decl)?;
        let labels = self.axes.labels();
        for (i, label) in labels.iter().enumerate() {
            f.write_str(if i == 0 { "[" } else { "," })?;
            f.write_str(label)?;
        }
        f.write_str(if labels.is_empty() { "" } else { "]" })
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
    /// Seals `nodes`; a node's position is its [`NodeId`]. Costs time in proportion to nodes and
    /// dependencies.
    ///
    /// # Errors
    /// [`Cycle`] if nodes wait for each other.
    pub fn seal(nodes: Vec<Node>, dependencies: &[Dependency]) -> Result<Self, Cycle> {
        let edges = connect(nodes.len(), dependencies);
        // Then the ids are an order already, and the one that is otherwise as in the plan.
        let order = if dependencies.iter().all(|d| d.on < d.node) {
            edges.node_weights().copied().collect()
        } else if let Err(cycle) = petgraph::algo::toposort(&edges, None) {
            let node = edges[cycle.node_id()];
            return Err(Cycle(nodes[node.index()].name.to_string()));
        } else {
            stable_order(&edges)
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
        let is_kin = |id: &NodeId| {
            let rest = name.strip_prefix(&*self.node(*id).name.decl);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        };
        let mut kin = self.order.iter().copied().filter(is_kin);
        kin.find(|id| self.name(*id) == name)
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

    /// Returns the services that must be up while the node at `id` runs or serves: those that it
    /// leases, and those that stand behind them.
    pub fn leased(&self, id: NodeId) -> Vec<NodeId> {
        let mut leased = self.leases(id);
        for front in leased.clone() {
            let behind = self.leases(front).into_iter();
            let new: Vec<NodeId> = behind.filter(|node| !leased.contains(node)).collect();
            leased.extend(new);
        }
        leased
    }

    /// Returns the services that the node at `id` itself leases.
    pub fn leases(&self, id: NodeId) -> Vec<NodeId> {
        let leases = self.incoming(id).filter(|(_, edge)| *edge == Edge::Leases);
        leases.map(|(service, _)| service).collect()
    }

    /// Returns the steps that need the service at `id` up: those that lease it, or a service that
    /// stands in front of it.
    pub fn lessees(&self, id: NodeId) -> Vec<NodeId> {
        let lessees = |id: NodeId| {
            let lessees = self.outgoing(id).filter(|(_, edge)| *edge == Edge::Leases);
            lessees.map(|(node, _)| node).collect::<Vec<NodeId>>()
        };
        let (steps, fronts): (Vec<NodeId>, Vec<NodeId>) = lessees(id)
            .into_iter()
            .partition(|node| self.step(*node).is_some());
        steps
            .into_iter()
            .chain(fronts.into_iter().flat_map(lessees))
            .collect()
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

/// Builds the edges, each once.
fn connect(n_nodes: usize, dependencies: &[Dependency]) -> DiGraph<NodeId, Edge> {
    let mut edges = DiGraph::with_capacity(n_nodes, dependencies.len());
    for i in 0..n_nodes {
        edges.add_node(NodeId(u32::try_from(i).unwrap_or(u32::MAX)));
    }
    // By kind of edge, which node was connected last: the dependencies of one stand together.
    let mut last: Vec<[Option<NodeId>; 4]> = vec![[None; 4]; n_nodes];
    for Dependency { node, on, edge } in dependencies {
        let seen = &mut last[on.index()][*edge as usize];
        if seen.replace(*node) != Some(*node) {
            let (from, to) = (NodeIndex::new(on.index()), NodeIndex::new(node.index()));
            edges.add_edge(from, to, *edge);
        }
    }
    edges
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
    use crate::point::Coordinate;
    use crate::step::AxisValue;
    use crate::value::Kind;

    #[test]
    fn names_sort_their_axes_and_compare_numbers_by_value() {
        let axes = [
            ("request_rate", AxisValue::Number(4.0)),
            ("radix", AxisValue::Bool(true)),
        ];
        let coordinate = |(axis, shown): (&str, AxisValue)| {
            let kind = Kind::Bool(true);
            Arc::new(Coordinate::new(axis.into(), kind, Some(shown), 0))
        };
        let name = NodeName {
            decl: "load".into(),
            axes: axes.into_iter().map(coordinate).collect(),
        };
        assert_eq!(name.to_string(), "load[radix=true,request_rate=4]");
    }
}
