//! The schedule: a pure state machine, `on(event) -> actions`. No clock, no IO, no threads.
//!
//! It decides what may be decided, started, launched and stopped next. Services are lazy: one is
//! launched only when a step that leases it really has to run and waits for nothing else, and
//! stopped when no step can want it any more. Two services are up together only when one step
//! leases both, so that a measurement never shares the machine with an idle server.

use crate::graph::{Body, Edge, Graph, NodeId};
use crate::pools::Pools;
use crate::step::StepKind;
use std::collections::BTreeMap;

/// A service that died so often without any step ending well on it is given up.
const MOST_DEATHS: u32 = 3;

/// What the schedule knows of one node.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What it is.
    pub sort: Sort,
    /// Nodes whose outputs it reads.
    pub needs: Vec<NodeId>,
    /// Nodes that come before it.
    pub after: Vec<NodeId>,
    /// Services that it uses while it runs.
    pub leases: Vec<NodeId>,
}

/// What a node is, as far as the schedule cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A service.
    Service,
    /// A step of this kind.
    Step(StepKind),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The key of a node is known, and with it what is left to do.
    Decided(NodeId, Decision),
    /// A step ended well.
    Done(NodeId),
    /// A step failed, or a service could not be launched.
    Failed(NodeId),
    /// A service serves.
    Ready(NodeId),
    /// A service ended by itself.
    Died(NodeId),
    /// A service was torn down.
    Stopped(NodeId),
    /// Somebody wants the run to end.
    Interrupted,
}

/// What is left to do for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Satisfied,
    /// Runs, the first of which draws the sample with this index.
    Run {
        /// How many.
        times: u32,
        /// Index of the first.
        first: u32,
    },
    /// For effects: whatever a step that comes after asks for.
    OnDemand,
    /// For services: its key is known.
    Known,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Compute the node's key and answer with [`Happened::Decided`].
    Decide(NodeId),
    /// Run the step; for measurements, draw the sample with this index.
    Start(NodeId, u32),
    /// Launch the service.
    Launch(NodeId),
    /// Tear the service down.
    Stop(NodeId),
    /// Tell a running step to stop; it answers with [`Happened::Failed`] or [`Happened::Done`].
    Cancel(NodeId),
    /// The node will not run.
    Skip(NodeId, Because),
    /// Nothing is left to do.
    Finish,
}

/// Why a node is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// A node that it waits for failed or was skipped.
    Dependency(NodeId),
    /// Another node failed, and the run stops at the first failure.
    Failure(NodeId),
    /// The run was interrupted.
    Interrupted,
    /// An effect on which nothing that runs depends.
    NotNeeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for what it needs.
    Waiting,
    /// Its key is being computed.
    Deciding,
    /// An effect whose key is known, or a service that is not up.
    Idle,
    /// Has to run this often, next with this sample.
    Wanted {
        left: u32,
        next: u32,
    },
    Running {
        left: u32,
        next: u32,
    },
    Launching,
    Ready,
    Stopping,
    Done,
    Failed,
    Skipped,
}

impl State {
    fn is_terminal(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Skipped)
    }

    fn is_up(self) -> bool {
        matches!(self, State::Launching | State::Ready | State::Stopping)
    }
}

/// The state machine.
pub struct Schedule {
    shapes: Vec<Shape>,
    order: Vec<NodeId>,
    /// Where each node stands in `order`.
    positions: Vec<usize>,
    dependents: Vec<Vec<NodeId>>,
    states: Vec<State>,
    incarnations: Vec<u32>,
    /// For effects that were performed: on which incarnation of each service.
    performed: BTreeMap<NodeId, BTreeMap<NodeId, u32>>,
    /// Deaths of each service since a step last ended well on it.
    deaths: Vec<u32>,
    pools: Pools,
    seed: u64,
    halt: Option<Because>,
    finished: bool,
}

impl Schedule {
    /// Builds the schedule of a sealed graph; `jobs` steps may run at a time.
    pub fn of(graph: &Graph, jobs: u32, seed: u64) -> Self {
        let n_nodes = graph.order().len();
        let mut shapes: Vec<Option<Shape>> = vec![None; n_nodes];
        for id in graph.order() {
            let edges = |wanted: Edge| {
                graph
                    .incoming(*id)
                    .filter(|(_, e)| *e == wanted)
                    .map(|(n, _)| n)
                    .collect()
            };
            shapes[id.0 as usize] = Some(Shape {
                sort: match &graph.node(*id).body {
                    Body::Service(_) => Sort::Service,
                    Body::Step(step) => Sort::Step(step.entry.kind),
                },
                needs: edges(Edge::Needs),
                after: edges(Edge::After),
                leases: edges(Edge::Leases),
            });
        }
        Self::new(
            shapes.into_iter().flatten().collect(),
            graph.order().to_vec(),
            jobs,
            seed,
        )
    }

    /// Builds the schedule of `shapes`, where a node's position is its id and `order` lists each
    /// node after what it waits for.
    pub fn new(shapes: Vec<Shape>, order: Vec<NodeId>, jobs: u32, seed: u64) -> Self {
        let n_nodes = shapes.len();
        let mut dependents = vec![Vec::new(); n_nodes];
        for (i, shape) in shapes.iter().enumerate() {
            for from in shape.needs.iter().chain(&shape.after).chain(&shape.leases) {
                dependents[from.0 as usize].push(NodeId(u32::try_from(i).unwrap_or(u32::MAX)));
            }
        }
        let mut positions = vec![0; n_nodes];
        for (at, node) in order.iter().enumerate() {
            positions[node.0 as usize] = at;
        }
        Self {
            positions,
            states: vec![State::Waiting; n_nodes],
            incarnations: vec![0; n_nodes],
            performed: BTreeMap::new(),
            deaths: vec![0; n_nodes],
            pools: Pools::new(jobs.max(1)),
            shapes,
            order,
            dependents,
            seed,
            halt: None,
            finished: false,
        }
    }

    /// Returns what to do at the very beginning.
    pub fn begin(&mut self) -> Vec<Action> {
        self.settle()
    }

    /// Takes in what happened and returns what to do next.
    pub fn on(&mut self, happened: Happened) -> Vec<Action> {
        let mut actions = Vec::new();
        match happened {
            Happened::Decided(node, decision) => self.decided(node, decision),
            Happened::Done(node) => self.done(node),
            Happened::Failed(node) => self.failed(node),
            Happened::Ready(node) => self.ready(node),
            Happened::Died(node) => actions.extend(self.died(node)),
            Happened::Stopped(node) => self.stopped(node),
            Happened::Interrupted => actions.extend(self.interrupted()),
        }
        actions.extend(self.settle());
        actions
    }

    /// Returns how often a service was launched so far.
    pub fn incarnation(&self, service: NodeId) -> u32 {
        self.incarnations[service.0 as usize]
    }

    /// Whether a node failed; a service does so too when it dies again and again.
    pub fn has_failed(&self, node: NodeId) -> bool {
        self.state(node) == State::Failed
    }

    /// Whether a node ended well or had nothing to do.
    pub fn is_done(&self, node: NodeId) -> bool {
        self.state(node) == State::Done
    }

    fn state(&self, node: NodeId) -> State {
        self.states[node.0 as usize]
    }

    fn set(&mut self, node: NodeId, state: State) {
        self.states[node.0 as usize] = state;
    }

    fn shape(&self, node: NodeId) -> &Shape {
        &self.shapes[node.0 as usize]
    }

    fn sort(&self, node: NodeId) -> Sort {
        self.shape(node).sort
    }

    fn is_effect(&self, node: NodeId) -> bool {
        self.sort(node) == Sort::Step(StepKind::Effect)
    }

    fn decided(&mut self, node: NodeId, decision: Decision) {
        if self.state(node) != State::Deciding {
            return;
        }
        let state = match decision {
            Decision::Satisfied | Decision::Run { times: 0, .. } => State::Done,
            Decision::Run { times, first } => State::Wanted {
                left: times,
                next: first,
            },
            Decision::OnDemand | Decision::Known => State::Idle,
        };
        self.set(node, state);
    }

    fn done(&mut self, node: NodeId) {
        let State::Running { left, next } = self.state(node) else {
            return;
        };
        self.pools.release(node);
        for service in self.shape(node).leases.clone() {
            self.deaths[service.0 as usize] = 0;
        }
        if self.is_effect(node) {
            let leases = &self.shape(node).leases;
            let on = leases.iter().map(|s| (*s, self.incarnation(*s))).collect();
            self.performed.insert(node, on);
            return self.set(node, State::Idle);
        }
        match left {
            0 | 1 => self.set(node, State::Done),
            _ => self.set(
                node,
                State::Wanted {
                    left: left - 1,
                    next: next + 1,
                },
            ),
        }
    }

    fn failed(&mut self, node: NodeId) {
        self.pools.release(node);
        self.set(node, State::Failed);
        self.halt.get_or_insert(Because::Failure(node));
    }

    fn ready(&mut self, node: NodeId) {
        if self.state(node) == State::Launching {
            self.set(node, State::Ready);
        }
    }

    fn died(&mut self, node: NodeId) -> Vec<Action> {
        if !self.state(node).is_up() {
            return Vec::new();
        }
        self.deaths[node.0 as usize] += 1;
        if self.deaths[node.0 as usize] >= MOST_DEATHS {
            self.failed(node);
        } else {
            self.set(node, State::Idle);
        }
        self.running_on(node)
            .into_iter()
            .map(Action::Cancel)
            .collect()
    }

    fn running_on(&self, service: NodeId) -> Vec<NodeId> {
        let lessees = self.dependents[service.0 as usize].iter().copied();
        lessees
            .filter(|n| matches!(self.state(*n), State::Running { .. }))
            .collect()
    }

    fn stopped(&mut self, node: NodeId) {
        if self.state(node) == State::Stopping {
            self.set(node, State::Idle);
        }
    }

    fn interrupted(&mut self) -> Vec<Action> {
        self.halt = Some(Because::Interrupted);
        let running = |n: &&NodeId| matches!(self.state(**n), State::Running { .. });
        self.order
            .iter()
            .filter(running)
            .map(|n| Action::Cancel(*n))
            .collect()
    }

    fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        loop {
            let before = actions.len();
            self.skip_hopeless(&mut actions);
            self.decide_ready(&mut actions);
            self.start_ready(&mut actions);
            self.launch_demanded(&mut actions);
            self.stop_unwanted(&mut actions);
            if actions.len() == before {
                break;
            }
        }
        self.finish(&mut actions);
        actions
    }

    fn skip_hopeless(&mut self, actions: &mut Vec<Action>) {
        for node in self.order.clone() {
            let state = self.state(node);
            let is_service = self.sort(node) == Sort::Service;
            let can_skip = matches!(state, State::Waiting | State::Wanted { .. })
                || (state == State::Idle && self.is_effect(node));
            if !can_skip || (is_service && state != State::Waiting) {
                continue;
            }
            if let Some(because) = self.hopeless(node) {
                self.set(node, State::Skipped);
                actions.push(Action::Skip(node, because));
            }
        }
    }

    fn hopeless(&self, node: NodeId) -> Option<Because> {
        let shape = self.shape(node);
        let before = shape.needs.iter().chain(&shape.after).chain(&shape.leases);
        let broken = before.copied().find(|n| {
            matches!(self.state(*n), State::Failed | State::Skipped) && !self.was_not_needed(*n)
        });
        match (broken, self.halt) {
            (_, Some(Because::Interrupted)) => Some(Because::Interrupted),
            (Some(node), _) => Some(Because::Dependency(node)),
            (None, halt) => halt,
        }
    }

    /// Effects are skipped when nothing needs them, which breaks nothing.
    fn was_not_needed(&self, node: NodeId) -> bool {
        self.is_effect(node) && self.state(node) == State::Skipped && self.halt.is_none()
    }

    fn decide_ready(&mut self, actions: &mut Vec<Action>) {
        for node in self.order.clone() {
            if self.state(node) == State::Waiting && self.can_decide(node) {
                self.set(node, State::Deciding);
                actions.push(Action::Decide(node));
            }
        }
    }

    /// A key needs the content of every input, and the keys of services and effects.
    fn can_decide(&self, node: NodeId) -> bool {
        let shape = self.shape(node);
        let known = |n: &NodeId| !matches!(self.state(*n), State::Waiting | State::Deciding);
        shape.needs.iter().all(|n| self.state(*n) == State::Done)
            && shape.leases.iter().all(known)
            && shape
                .after
                .iter()
                .filter(|n| self.is_effect(**n))
                .all(known)
    }

    fn start_ready(&mut self, actions: &mut Vec<Action>) {
        let mut candidates: Vec<NodeId> = self
            .order
            .iter()
            .copied()
            .filter(|n| self.is_startable(*n) && !self.is_disturbed(*n))
            .collect();
        candidates.sort_by_key(|n| self.rank(*n));
        for node in candidates {
            let Sort::Step(kind) = self.sort(node) else {
                continue;
            };
            if !self.pools.take(node, kind) {
                continue;
            }
            let (left, next) = match self.state(node) {
                State::Wanted { left, next } => (left, next),
                _ => (1, 0),
            };
            self.set(node, State::Running { left, next });
            actions.push(Action::Start(node, next));
        }
    }

    /// Whether a node wants to run, everything came before it, and its services serve.
    fn is_startable(&self, node: NodeId) -> bool {
        let leases = &self.shape(node).leases;
        self.wants_to_run(node)
            && self.order_allows(node)
            && leases.iter().all(|s| self.state(*s) == State::Ready)
    }

    /// Whether a service that a measurement does not use is up beside it.
    fn is_disturbed(&self, node: NodeId) -> bool {
        self.sort(node) == Sort::Step(StepKind::Measure)
            && self
                .services_up()
                .any(|s| !self.shape(node).leases.contains(&s))
    }

    fn services_up(&self) -> impl Iterator<Item = NodeId> {
        let is_up = |n: &NodeId| self.sort(*n) == Sort::Service && self.state(*n).is_up();
        self.order.iter().copied().filter(is_up)
    }

    /// Steps with work to do, and effects that such a step asks for.
    fn wants_to_run(&self, node: NodeId) -> bool {
        match self.state(node) {
            State::Wanted { .. } => true,
            State::Idle if self.is_effect(node) => {
                let is_end = self.dependents[node.0 as usize].is_empty();
                (is_end && !self.performed.contains_key(&node))
                    || self.asking(node).next().is_some()
            }
            _ => false,
        }
    }

    /// The nodes that want to run, wait only for effects, and for this one among them.
    fn asking(&self, effect: NodeId) -> impl Iterator<Item = NodeId> {
        let dependents = self.dependents[effect.0 as usize].iter().copied();
        dependents.filter(move |n| {
            self.wants_to_run(*n) && self.launch_may_help(*n) && !self.has_come(effect, *n)
        })
    }

    fn order_allows(&self, node: NodeId) -> bool {
        self.shape(node)
            .after
            .iter()
            .all(|n| self.has_come(*n, node))
    }

    /// Whether `before` has come as far as `node` is concerned. An effect lasts as long as the
    /// incarnation of the services that both use; where they share none, once is enough.
    fn has_come(&self, before: NodeId, node: NodeId) -> bool {
        if !self.is_effect(before) {
            return self.state(before) == State::Done;
        }
        let leases = &self.shape(node).leases;
        self.performed.get(&before).is_some_and(|on| {
            on.iter()
                .filter(|(service, _)| leases.contains(service))
                .all(|(service, then)| {
                    *then == self.incarnation(*service) && self.state(*service) == State::Ready
                })
        })
    }

    /// Earlier samples first, so that a cut leaves whole rounds; within a round by a shuffle that
    /// the seed decides, so that drift of the machine does not look like an effect of an axis.
    fn rank(&self, node: NodeId) -> (u32, u64, usize) {
        let at = self.positions[node.0 as usize];
        match (self.sort(node), self.state(node)) {
            (Sort::Step(StepKind::Measure), State::Wanted { next, .. }) => (
                next + 1,
                mix(self.seed ^ mix(u64::from(next)) ^ mix(u64::from(node.0) << 20)),
                at,
            ),
            _ => (0, 0, at),
        }
    }

    fn launch_demanded(&mut self, actions: &mut Vec<Action>) {
        for node in self.order.clone() {
            if !self.needs_services(node) {
                continue;
            }
            for service in self.shape(node).leases.clone() {
                let is_free =
                    self.state(service) == State::Idle && self.running_on(service).is_empty();
                if is_free && self.is_alone_for(service, node) {
                    self.incarnations[service.0 as usize] += 1;
                    self.set(service, State::Launching);
                    actions.push(Action::Launch(service));
                }
            }
        }
    }

    /// Whether nothing but services stands between the node and its start.
    fn needs_services(&self, node: NodeId) -> bool {
        let Sort::Step(kind) = self.sort(node) else {
            return false;
        };
        let asked = match self.is_effect(node) {
            // What comes before the effect may itself need a service first.
            true => self.wants_to_run(node) && self.order_allows(node),
            false => self.wants_to_run(node) && self.launch_may_help(node),
        };
        asked && self.pools.could_take(kind)
    }

    /// Whether all that comes before the node, other than effects, has come.
    fn launch_may_help(&self, node: NodeId) -> bool {
        let after = &self.shape(node).after;
        after
            .iter()
            .all(|n| self.is_effect(*n) || self.state(*n) == State::Done)
    }

    /// The services that may be up together for the sake of `node`: its own, and those of the
    /// steps on whose behalf an effect is performed.
    fn company(&self, node: NodeId) -> Vec<NodeId> {
        let mut services = self.shape(node).leases.clone();
        if self.is_effect(node) {
            for step in self.asking(node) {
                services.extend(&self.shape(step).leases);
            }
        }
        services
    }

    fn is_alone_for(&self, service: NodeId, node: NodeId) -> bool {
        let company = self.company(node);
        self.services_up()
            .all(|s| s == service || company.contains(&s))
    }

    fn stop_unwanted(&mut self, actions: &mut Vec<Action>) {
        for service in self.order.clone() {
            let up = matches!(self.state(service), State::Ready | State::Launching);
            if self.sort(service) != Sort::Service || !up {
                continue;
            }
            let unwanted = !self.can_still_be_wanted(service);
            let in_the_way = self.state(service) == State::Ready && self.is_in_the_way(service);
            if unwanted || in_the_way {
                self.set(service, State::Stopping);
                actions.push(Action::Stop(service));
            }
        }
    }

    fn can_still_be_wanted(&self, service: NodeId) -> bool {
        let lessees = &self.dependents[service.0 as usize];
        lessees.iter().any(|n| match self.state(*n) {
            State::Idle => self.wants_to_run(*n),
            state => !state.is_terminal(),
        })
    }

    /// Whether nothing can use the service now, or nothing that comes first, while another node
    /// waits for it to go.
    fn is_in_the_way(&self, service: NodeId) -> bool {
        if !self.running_on(service).is_empty() {
            return false;
        }
        let lessees = self.dependents[service.0 as usize].iter().copied();
        let claims: Vec<NodeId> = lessees
            .filter(|n| self.needs_services(*n) && self.order_allows(*n))
            .collect();
        // Two measurements whose services came up together would wait for each other.
        let gives_way = |claim: NodeId, waiting: NodeId| {
            self.is_startable(claim)
                && self.is_disturbed(claim)
                && self.rank(claim) > self.rank(waiting)
        };
        self.order.iter().any(|waiting| {
            self.waits_for_departure(*waiting, service)
                && claims.iter().all(|claim| gives_way(*claim, *waiting))
        })
    }

    fn waits_for_departure(&self, node: NodeId, service: NodeId) -> bool {
        if self.company(node).contains(&service) {
            return false;
        }
        let lacks = |n: NodeId| {
            self.shape(n)
                .leases
                .iter()
                .any(|s| self.state(*s) == State::Idle)
        };
        (self.needs_services(node) && lacks(node))
            || (self.is_startable(node) && self.is_disturbed(node))
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        let open = |n: &NodeId| match (self.sort(*n), self.state(*n)) {
            (Sort::Service, state) => state.is_up() || state == State::Deciding,
            (_, State::Idle) => false,
            (_, state) => !state.is_terminal(),
        };
        if self.finished || self.order.iter().any(open) {
            return;
        }
        self.finished = true;
        for node in self.order.clone() {
            if self.is_effect(node) && self.state(node) == State::Idle {
                let performed = self.performed.contains_key(&node);
                self.set(
                    node,
                    if performed {
                        State::Done
                    } else {
                        State::Skipped
                    },
                );
                if !performed {
                    actions.push(Action::Skip(node, Because::NotNeeded));
                }
            }
        }
        actions.push(Action::Finish);
    }
}

/// Spreads the bits of a number: the finaliser of `SplitMix64` (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
