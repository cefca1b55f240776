//! What the schedule knows of nodes: their shape, which never changes, and what does.

use super::State;
use super::lanes::LaneId;
use crate::graph::{Body, Edge, Graph, NodeId};
use crate::policy::{Policy, ServicePolicy};
use crate::step::StepKind;
use std::sync::Arc;

/// What the schedule knows of one node.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What it is, and what the plan says of it.
    pub role: Role,
    /// Nodes whose outputs it reads.
    pub needs: Vec<NodeId>,
    /// Measurements whose samples it reads, as many as there are.
    pub reads: Vec<NodeId>,
    /// Nodes that come before it.
    pub after: Vec<NodeId>,
    /// Services that it uses while it runs or serves, and those behind them.
    pub leases: Vec<NodeId>,
}

/// What a node is, as far as the schedule cares.
#[derive(Debug, Clone)]
pub enum Role {
    /// A service.
    Service(Arc<ServicePolicy>),
    /// A step of this kind.
    Step(StepKind, Arc<Policy>),
}

impl Shape {
    pub(super) fn is_service(&self) -> bool {
        matches!(self.role, Role::Service(_))
    }

    pub(super) fn is_effect(&self) -> bool {
        matches!(self.role, Role::Step(StepKind::Effect, _))
    }
}

/// Why one node waits for another, from the other's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    Needs,
    Reads,
    After,
    Leases,
}

/// What changes of one node.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) state: State,
    /// What its key still waits for.
    pub(super) undecided: u32,
    /// What its order still waits for.
    pub(super) blocked: u32,
    /// For effects: whether their key is known.
    pub(super) is_known: bool,
    /// For effects: whether their order waits for nothing any more.
    pub(super) is_open: bool,
    /// Whether it is at its end, or an effect that nobody can ask for any more.
    pub(super) is_closed: bool,
    /// Failed tries of the sample that is next.
    pub(super) tries: u32,
    /// Nodes that wait for it and may still run; of services the steps that lease it.
    pub(super) open_dependents: u32,
    /// For services: lessees that run or rest.
    pub(super) busy: u32,
    /// For services: how often it was launched.
    pub(super) incarnation: u32,
    /// For services: deaths since a step last ended well on it.
    pub(super) deaths: u32,
    /// For services: the one in front of it for whose sake it was launched.
    pub(super) front: Option<NodeId>,
    /// For services: whether what it was launched with is gone, so that it has to go too.
    pub(super) is_stale: bool,
    pub(super) lane: Option<LaneId>,
}

pub(super) fn shape_of(graph: &Graph, id: NodeId) -> Shape {
    let edges = |wanted: Edge| {
        let incoming = graph.incoming(id).filter(|(_, edge)| *edge == wanted);
        incoming.map(|(node, _)| node).collect()
    };
    Shape {
        role: match &graph.node(id).body {
            Body::Service(service) => Role::Service(service.policy.clone()),
            Body::Step(step) => Role::Step(step.entry.kind, step.policy.clone()),
        },
        needs: edges(Edge::Needs),
        reads: edges(Edge::Reads),
        after: edges(Edge::After),
        leases: graph.leased(id),
    }
}

pub(super) fn dependents_of(shapes: &[Shape]) -> Vec<Vec<(NodeId, Bond)>> {
    let mut dependents = vec![Vec::new(); shapes.len()];
    for (i, shape) in shapes.iter().enumerate() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        let bonds = [
            (&shape.needs, Bond::Needs),
            (&shape.reads, Bond::Reads),
            (&shape.after, Bond::After),
            (&shape.leases, Bond::Leases),
        ];
        for (list, bond) in bonds {
            for from in list {
                dependents[from.0 as usize].push((id, bond));
            }
        }
    }
    dependents
}

pub(super) fn tracks_of(shapes: &[Shape], dependents: &[Vec<(NodeId, Bond)>]) -> Vec<Track> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let track = |(i, shape): (usize, &Shape)| {
        let effects = shape.after.iter();
        let n_effects = effects.filter(|n| shapes[n.0 as usize].is_effect()).count();
        // A service wants others only while it is up, for the sake of its own lessees.
        let is_step = |(node, bond): &&(NodeId, Bond)| {
            *bond != Bond::Leases || !shapes[node.0 as usize].is_service()
        };
        let n_inputs = shape.needs.len() + shape.reads.len() + shape.leases.len();
        Track {
            state: State::Waiting,
            undecided: count(n_inputs + n_effects),
            blocked: count(shape.after.len()),
            is_known: false,
            is_open: false,
            is_closed: false,
            tries: 0,
            open_dependents: count(dependents[i].iter().filter(is_step).count()),
            busy: 0,
            incarnation: 0,
            deaths: 0,
            front: None,
            is_stale: false,
            lane: None,
        }
    };
    shapes.iter().enumerate().map(track).collect()
}
