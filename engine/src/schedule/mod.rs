//! The schedule: a pure state machine, `on(event) -> actions`. No clock, no IO, no threads.
//!
//! It decides what may be decided, started, launched and stopped next. Services are lazy: one is
//! launched only when a step that leases it really has to run and waits for nothing else, and
//! stopped when no step can want it any more.
//!
//! Every event costs time in proportion to what it changes, so that a run costs time in
//! proportion to its steps. Steps that need the same things to start wait in one *lane*
//! (`lanes`); which lane is served next is decided in `serve`; what becomes of the others when
//! a node fails in `broken`; services that stand in front of others are the matter of `fronts`.

mod broken;
mod fronts;
mod lanes;
mod serve;
mod shape;

pub use shape::{Role, Shape};

use crate::graph::{Graph, NodeId};
use crate::policy::{OnFailure, Policy, Supply};
use crate::pools::Pools;
use crate::step::FailureClass;
use lanes::{LaneId, Lanes};
use shape::{Bond, Track, dependents_of, shape_of, tracks_of};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The longest pause before a further try, however often it doubled.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The key of a node is known, and with it what is left to do.
    Decided(NodeId, Decision),
    /// A step ended well.
    Done(NodeId),
    /// A measurement drew a sample, and so many more are wanted: as many as before if the sample is
    /// suspect, none if another run has drawn them.
    Sampled(NodeId, u32),
    /// A step that was started found that another run has done all of it meanwhile.
    Settled(NodeId),
    /// A step failed, or a service could not be launched or released.
    Failed(NodeId, FailureClass),
    /// The pause before a further try is over.
    Rested(NodeId),
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
    /// Answer with [`Happened::Rested`] after this pause; the step is tried again then.
    Rest(NodeId, Duration),
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
    /// It and its services together want more of the machine than there is.
    NoRoom,
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
    /// Failed, and is tried again after a pause.
    Resting {
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
    positions: Vec<u32>,
    dependents: Vec<Vec<(NodeId, Bond)>>,
    tracks: Vec<Track>,
    lanes: Lanes,
    /// Lanes for which services were moved and that still lack some, in the order of their beginnings.
    coming: Vec<LaneId>,
    /// Nodes whose keys can be computed.
    decidable: VecDeque<NodeId>,
    /// Nodes that failed or were skipped, and whose dependents do not know yet.
    broken: VecDeque<NodeId>,
    /// Nodes that want to run although the run is to end.
    doomed: VecDeque<NodeId>,
    /// Services that are up.
    up: BTreeSet<NodeId>,
    /// For effects that were performed: on which incarnation of each service.
    performed: BTreeMap<NodeId, BTreeMap<NodeId, u32>>,
    pools: Pools,
    seed: u64,
    halt: Option<Because>,
    /// Steps that are neither at their end nor idle, services being decided or up.
    n_open: usize,
    n_deciding: usize,
    /// Steps that run without a service beside others.
    n_free_running: usize,
    n_resting: usize,
    finished: bool,
}

impl Schedule {
    /// Builds the schedule of a sealed graph; `jobs` steps may run at a time.
    pub fn of(graph: &Graph, jobs: u32, seed: u64, supply: &Supply) -> Self {
        let shapes = (0..graph.order().len())
            .map(|i| shape_of(graph, NodeId(u32::try_from(i).unwrap_or(u32::MAX))))
            .collect();
        Self::new(shapes, graph.order().to_vec(), jobs, seed, supply)
    }

    /// Builds the schedule of `shapes`, where a node's position is its id and `order` lists each
    /// node after what it waits for.
    pub fn new(
        shapes: Vec<Shape>,
        order: Vec<NodeId>,
        jobs: u32,
        seed: u64,
        supply: &Supply,
    ) -> Self {
        let mut positions = vec![0; shapes.len()];
        for (at, node) in order.iter().enumerate() {
            positions[node.0 as usize] = u32::try_from(at).unwrap_or(u32::MAX);
        }
        let dependents = dependents_of(&shapes);
        Self {
            tracks: tracks_of(&shapes, &dependents),
            lanes: Lanes::default(),
            coming: Vec::new(),
            decidable: VecDeque::new(),
            broken: VecDeque::new(),
            doomed: VecDeque::new(),
            up: BTreeSet::new(),
            performed: BTreeMap::new(),
            pools: Pools::new(jobs, supply),
            n_open: shapes.iter().filter(|s| !s.is_service()).count(),
            n_deciding: 0,
            n_free_running: 0,
            n_resting: 0,
            halt: None,
            finished: false,
            positions,
            dependents,
            shapes,
            order,
            seed,
        }
    }

    /// Returns what to do at the very beginning.
    pub fn begin(&mut self) -> Vec<Action> {
        let is_free = |n: &&NodeId| self.track(**n).undecided == 0;
        self.decidable = self.order.iter().filter(is_free).copied().collect();
        self.settle()
    }

    /// Takes in what happened and returns what to do next.
    pub fn on(&mut self, happened: Happened) -> Vec<Action> {
        let mut actions = Vec::new();
        match happened {
            Happened::Decided(node, decision) => self.decided(node, decision),
            Happened::Done(node) => self.done(node, None),
            Happened::Sampled(node, left) => self.done(node, Some(left)),
            Happened::Settled(node) => self.settled(node),
            Happened::Failed(node, class) => self.failed(node, class, &mut actions),
            Happened::Rested(node) => self.rested(node),
            Happened::Ready(node) => self.ready(node),
            Happened::Died(node) => self.died(node, &mut actions),
            Happened::Stopped(node) => self.stopped(node),
            Happened::Interrupted => self.interrupted(&mut actions),
        }
        actions.extend(self.settle());
        actions
    }

    /// Notes that a service was launched once more by a step that has it for itself: what was done to it before
    /// is of another launch.
    pub fn launched_anew(&mut self, service: NodeId) {
        self.track_mut(service).incarnation += 1;
    }

    /// Returns how often a service was launched so far.
    pub fn incarnation(&self, service: NodeId) -> u32 {
        self.track(service).incarnation
    }

    /// Returns the service in front of `service` for whose sake it was launched, if it was.
    pub fn front(&self, service: NodeId) -> Option<NodeId> {
        self.track(service).front
    }

    /// Whether a service could still be launched: it is not up, and something that may use it has
    /// not come to its end.
    pub fn may_launch(&self, service: NodeId) -> bool {
        let track = self.track(service);
        !track.state.is_up() && !track.state.is_terminal() && track.open_dependents > 0
    }

    /// Whether a node failed; a service does so too when it dies again and again.
    pub fn has_failed(&self, node: NodeId) -> bool {
        self.state(node) == State::Failed
    }

    /// Whether a node ended well or had nothing to do.
    pub fn is_done(&self, node: NodeId) -> bool {
        self.state(node) == State::Done
    }

    fn track(&self, node: NodeId) -> &Track {
        &self.tracks[node.0 as usize]
    }

    fn track_mut(&mut self, node: NodeId) -> &mut Track {
        &mut self.tracks[node.0 as usize]
    }

    fn state(&self, node: NodeId) -> State {
        self.track(node).state
    }

    fn shape(&self, node: NodeId) -> &Shape {
        &self.shapes[node.0 as usize]
    }

    fn is_effect(&self, node: NodeId) -> bool {
        self.shape(node).is_effect()
    }

    fn policy(&self, node: NodeId) -> Option<&Arc<Policy>> {
        match &self.shape(node).role {
            Role::Step(_, policy) => Some(policy),
            Role::Service(_) => None,
        }
    }

    /// Whether the failure of a node leaves those alone that merely come after it.
    fn is_tolerated(&self, node: NodeId) -> bool {
        self.policy(node)
            .is_some_and(|p| p.on_failure == OnFailure::Continue)
    }

    /// Whether a node in this state keeps the run from its end.
    fn counts_as_open(&self, node: NodeId, state: State) -> bool {
        match state {
            _ if self.shape(node).is_service() => state.is_up() || state == State::Deciding,
            State::Idle => false,
            state => !state.is_terminal(),
        }
    }

    /// Changes the state of a node and everything that is counted by state.
    fn set(&mut self, node: NodeId, state: State) {
        let old = std::mem::replace(&mut self.track_mut(node).state, state);
        match (
            self.counts_as_open(node, old),
            self.counts_as_open(node, state),
        ) {
            (true, false) => self.n_open -= 1,
            (false, true) => self.n_open += 1,
            _ => {}
        }
        self.n_deciding -= usize::from(old == State::Deciding);
        self.n_deciding += usize::from(state == State::Deciding);
        self.n_resting -= usize::from(matches!(old, State::Resting { .. }));
        self.n_resting += usize::from(matches!(state, State::Resting { .. }));
        if old.is_up() != state.is_up() {
            if state.is_up() {
                self.up.insert(node);
            } else {
                self.up.remove(&node);
            }
        }
        if state.is_terminal() && !old.is_terminal() {
            self.close(node);
        }
    }

    fn decided(&mut self, node: NodeId, decision: Decision) {
        if self.state(node) != State::Deciding {
            return;
        }
        match decision {
            Decision::Satisfied | Decision::Run { times: 0, .. } => self.end_well(node),
            Decision::Run { times, first } => self.want(node, times, first),
            Decision::OnDemand | Decision::Known => {
                self.set(node, State::Idle);
                self.tell_known(node);
            }
        }
    }

    fn want(&mut self, node: NodeId, left: u32, next: u32) {
        self.set(node, State::Wanted { left, next });
        if self.halt.is_some() || self.lost_service(node).is_some() {
            self.doomed.push_back(node);
        } else {
            self.enqueue(node);
        }
    }

    /// The key of a service or effect is known.
    fn tell_known(&mut self, node: NodeId) {
        let is_effect = self.is_effect(node);
        self.track_mut(node).is_known = true;
        for (dependent, bond) in self.dependents[node.0 as usize].clone() {
            if bond == Bond::Leases || (is_effect && bond == Bond::After) {
                self.one_less_undecided(dependent);
            }
        }
        if !is_effect {
            return;
        }
        self.open_effect(node);
        if self.dependents[node.0 as usize].is_empty() {
            // Nobody asks for it, so it is there for its own sake.
            return self.want(node, 1, 0);
        }
        self.close_if_useless(node);
    }

    /// The order of an effect waits for nothing any more.
    fn open_effect(&mut self, node: NodeId) {
        let track = self.track(node);
        if track.is_open || track.blocked > 0 || track.state != State::Idle {
            return;
        }
        self.track_mut(node).is_open = true;
        self.tell_come(node);
    }

    fn tell_come(&mut self, node: NodeId) {
        for (dependent, bond) in self.dependents[node.0 as usize].clone() {
            if bond == Bond::After {
                self.one_less_blocked(dependent);
            }
        }
    }

    fn one_less_undecided(&mut self, node: NodeId) {
        let track = self.track_mut(node);
        track.undecided = track.undecided.saturating_sub(1);
        if track.undecided == 0 && track.state == State::Waiting {
            self.decidable.push_back(node);
        }
    }

    fn one_less_blocked(&mut self, node: NodeId) {
        let track = self.track_mut(node);
        track.blocked = track.blocked.saturating_sub(1);
        if track.blocked > 0 {
            return;
        }
        if self.is_effect(node) {
            self.open_effect(node);
        }
        self.enqueue(node);
    }

    fn end_well(&mut self, node: NodeId) {
        self.set(node, State::Done);
        for (dependent, bond) in self.dependents[node.0 as usize].clone() {
            match bond {
                Bond::Needs | Bond::Reads => self.one_less_undecided(dependent),
                Bond::After => self.one_less_blocked(dependent),
                Bond::Leases => {}
            }
        }
    }

    /// A step ended well; `wanted` says how often it has to run again, if that is not as planned.
    fn done(&mut self, node: NodeId, wanted: Option<u32>) {
        let State::Running { left, next } = self.state(node) else {
            return;
        };
        self.stop_running(node);
        self.track_mut(node).tries = 0;
        for service in self.shape(node).leases.clone() {
            self.track_mut(service).deaths = 0;
        }
        if self.is_effect(node) {
            self.note_performed(node);
            if !self.dependents[node.0 as usize].is_empty() {
                self.set(node, State::Idle);
                return self.close_if_useless(node);
            }
        }
        match wanted.unwrap_or(left.saturating_sub(1)) {
            0 => self.end_well(node),
            left => self.want(node, left, next + 1),
        }
    }

    fn settled(&mut self, node: NodeId) {
        if matches!(self.state(node), State::Running { .. }) {
            self.stop_running(node);
            self.end_well(node);
        }
    }

    fn note_performed(&mut self, effect: NodeId) {
        let leases = &self.shape(effect).leases;
        let on = leases.iter().map(|s| (*s, self.incarnation(*s))).collect();
        self.performed.insert(effect, on);
    }

    fn ready(&mut self, node: NodeId) {
        if self.state(node) == State::Launching {
            self.set(node, State::Ready);
        }
    }

    fn stopped(&mut self, node: NodeId) {
        if self.state(node) == State::Stopping {
            self.pools.release(node);
            self.leave_behind(node);
            self.set(node, State::Idle);
        }
    }

    fn rested(&mut self, node: NodeId) {
        if let State::Resting { left, next } = self.state(node) {
            self.count_busy(node, false);
            self.want(node, left, next);
        }
    }

    fn interrupted(&mut self, actions: &mut Vec<Action>) {
        let running = |n: &&NodeId| matches!(self.state(**n), State::Running { .. });
        let cancels = self
            .order
            .iter()
            .filter(running)
            .map(|n| Action::Cancel(*n));
        actions.extend(cancels.collect::<Vec<_>>());
        self.halt(Because::Interrupted, actions);
    }

    fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        loop {
            let before = actions.len();
            self.tell_broken(&mut actions);
            self.decide_ready(&mut actions);
            self.serve(&mut actions);
            if actions.len() == before && self.broken.is_empty() && self.decidable.is_empty() {
                break;
            }
        }
        self.finish(&mut actions);
        actions
    }

    /// A key needs the content of every input, and the keys of services and effects.
    fn decide_ready(&mut self, actions: &mut Vec<Action>) {
        while let Some(node) = self.decidable.pop_front() {
            if self.state(node) == State::Waiting {
                self.set(node, State::Deciding);
                actions.push(Action::Decide(node));
            }
        }
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        if self.finished || self.n_open > 0 {
            return;
        }
        self.finished = true;
        for node in self.order.clone() {
            if !self.is_effect(node) || self.state(node) != State::Idle {
                continue;
            }
            if self.performed.contains_key(&node) {
                self.set(node, State::Done);
            } else {
                self.set(node, State::Skipped);
                actions.push(Action::Skip(node, Because::NotNeeded));
            }
        }
        actions.push(Action::Finish);
    }
}

#[cfg(test)]
mod tests;
