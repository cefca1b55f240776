//! What becomes of the others when a node fails, a service dies, or the run is to end.

use super::{Action, Because, Bond, LONGEST_REST, Role, Schedule, State};
use crate::graph::NodeId;
use crate::policy::OnFailure;
use crate::step::FailureClass;
use std::time::Duration;

impl Schedule {
    /// A step failed, or a service could not be launched or released.
    pub(super) fn failed(&mut self, node: NodeId, class: FailureClass, actions: &mut Vec<Action>) {
        if self.state(node).is_terminal() {
            return;
        }
        if let State::Running { left, next } = self.state(node) {
            self.stop_running(node);
            if let Some(pause) = self.pause_before_retry(node, class) {
                self.track_mut(node).tries += 1;
                self.count_busy(node, true);
                self.set(node, State::Resting { left, next });
                actions.push(Action::Rest(node, pause));
                return;
            }
        }
        if matches!(self.state(node), State::Resting { .. }) {
            self.count_busy(node, false);
        }
        self.pools.release(node);
        self.leave_behind(node);
        self.fail(node, actions);
    }

    fn fail(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        self.dequeue(node);
        self.set(node, State::Failed);
        self.broken.push_back(node);
        let stops = self
            .policy(node)
            .is_some_and(|p| p.on_failure == OnFailure::Stop);
        if stops {
            self.halt(Because::Failure(node), actions);
        }
    }

    /// Returns a service that a node leases and that never comes again.
    pub(super) fn lost_service(&self, node: NodeId) -> Option<NodeId> {
        let is_lost =
            |service: &&NodeId| matches!(self.state(**service), State::Failed | State::Skipped);
        self.shape(node).leases.iter().find(is_lost).copied()
    }

    /// Returns how long to wait before another try, if there is one.
    fn pause_before_retry(&self, node: NodeId, class: FailureClass) -> Option<Duration> {
        let retry = &self.policy(node)?.retry;
        let tries = self.track(node).tries;
        let is_lost = self.lost_service(node).is_some();
        if self.halt.is_some() || is_lost || tries >= retry.max || !retry.on.contains(&class) {
            return None;
        }
        let doubled = retry.backoff.saturating_mul(1 << tries.min(16));
        Some(doubled.min(LONGEST_REST))
    }

    /// A service ended by itself: what runs on it is told to stop.
    pub(super) fn died(&mut self, service: NodeId, actions: &mut Vec<Action>) {
        let state = self.state(service);
        if !state.is_up() {
            return;
        }
        self.pools.release(service);
        let lessees = self.dependents[service.0 as usize].iter();
        let running = lessees.filter(|(n, _)| matches!(self.state(*n), State::Running { .. }));
        let cancels: Vec<Action> = running.map(|(n, _)| Action::Cancel(*n)).collect();
        actions.extend(cancels);
        self.part_from(service);
        // One that was told to end anyway has done what it should.
        if state == State::Stopping {
            return self.set(service, State::Idle);
        }
        self.track_mut(service).deaths += 1;
        if self.track(service).deaths > self.restarts(service) {
            self.fail(service, actions);
        } else {
            self.set(service, State::Idle);
        }
    }

    fn restarts(&self, service: NodeId) -> u32 {
        match &self.shape(service).role {
            Role::Service(policy) => policy.restarts,
            Role::Step(..) => 0,
        }
    }

    /// Starts nothing more; what runs is not touched.
    pub(super) fn halt(&mut self, because: Because, actions: &mut Vec<Action>) {
        if self.halt.is_none() || because == Because::Interrupted {
            self.halt = Some(because);
        }
        for node in self.order.clone() {
            self.skip_when_halted(node, actions);
        }
    }

    /// Skips a node that would run although the run is to end.
    pub(super) fn skip_when_halted(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        let Some(halt) = self.halt else { return };
        let shape = self.shape(node);
        let before = shape.needs.iter().chain(&shape.reads).chain(&shape.after);
        let broken = before
            .chain(&shape.leases)
            .copied()
            .find(|n| matches!(self.state(*n), State::Failed | State::Skipped));
        let because = match (halt, broken) {
            (Because::Interrupted, _) | (_, None) => halt,
            (_, Some(node)) => Because::Dependency(node),
        };
        self.skip(node, because, actions);
    }

    /// Tells the dependents of every node that failed or was skipped.
    pub(super) fn tell_broken(&mut self, actions: &mut Vec<Action>) {
        while let Some(broken) = self.broken.pop_front() {
            let tolerated = self.is_tolerated(broken);
            for (node, bond) in self.dependents[broken.0 as usize].clone() {
                match bond {
                    Bond::Reads if tolerated => self.one_less_undecided(node),
                    Bond::After if tolerated => self.pass_over(broken, node),
                    Bond::Leases => self.skip_lessee(node, broken, actions),
                    Bond::Needs | Bond::Reads | Bond::After => {
                        self.skip(node, Because::Dependency(broken), actions);
                    }
                }
            }
        }
        while let Some(node) = self.doomed.pop_front() {
            match self.lost_service(node) {
                Some(service) if self.halt.is_none() => self.skip_lessee(node, service, actions),
                _ => self.skip_when_halted(node, actions),
            }
        }
    }

    /// A node whose failure is tolerated counts as having come.
    fn pass_over(&mut self, broken: NodeId, node: NodeId) {
        let track = self.track(broken);
        let (is_open, is_known) = (track.is_open, track.is_known);
        if self.is_effect(broken) && !is_known {
            self.one_less_undecided(node);
        }
        if !is_open {
            self.one_less_blocked(node);
        }
    }

    /// The failure of a service is the failure of those that lease it.
    fn skip_lessee(&mut self, node: NodeId, service: NodeId, actions: &mut Vec<Action>) {
        let was_open = !self.state(node).is_terminal();
        self.skip(node, Because::Dependency(service), actions);
        let stops = self
            .policy(node)
            .is_some_and(|p| p.on_failure == OnFailure::Stop);
        let is_halted = self.halt.is_some();
        if was_open && stops && !is_halted {
            self.halt(Because::Failure(service), actions);
        }
    }

    /// Gives a node up that has not begun, or rests.
    pub(super) fn skip(&mut self, node: NodeId, because: Because, actions: &mut Vec<Action>) {
        let state = self.state(node);
        let can_skip = match state {
            State::Waiting | State::Deciding | State::Wanted { .. } | State::Resting { .. } => true,
            State::Idle => self.is_effect(node),
            _ => false,
        };
        if !can_skip {
            return;
        }
        if matches!(state, State::Resting { .. }) {
            self.count_busy(node, false);
        }
        self.dequeue(node);
        self.set(node, State::Skipped);
        self.broken.push_back(node);
        actions.push(Action::Skip(node, because));
    }

    /// A node is at its end: what was kept for its sake may go.
    pub(super) fn close(&mut self, node: NodeId) {
        if std::mem::replace(&mut self.track_mut(node).is_closed, true) {
            return;
        }
        let shape = self.shape(node);
        // Services are not counted among those that keep others up.
        let leases = shape.leases.iter().filter(|_| !shape.is_service());
        let upstream: Vec<NodeId> = leases.chain(&shape.after).copied().collect();
        for from in upstream {
            let track = self.track_mut(from);
            track.open_dependents = track.open_dependents.saturating_sub(1);
            self.close_if_useless(from);
        }
    }

    /// An effect that nobody can ask for any more needs its services no longer.
    pub(super) fn close_if_useless(&mut self, node: NodeId) {
        let track = self.track(node);
        if self.is_effect(node) && track.open_dependents == 0 && track.state == State::Idle {
            self.close(node);
        }
    }
}
