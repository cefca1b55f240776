//! Which waiting step goes next, and which services come up and go down for it.
//!
//! Free steps go first. Then come lanes whose services serve already, so that a service is used
//! up before it is given up; then one lane at a time gets its services. A service is stopped when
//! nobody can want it any more, or when it is idle and in another lane's way. A lane for which services
//! were moved keeps its turn until it can start: else lanes could take them from each other for ever.

use super::lanes::{LaneId, Rank};
use super::{Action, Because, Role, Schedule, State};
use crate::graph::NodeId;
use crate::policy::{Demand, Machine};
use std::collections::BTreeSet;

/// How many lanes are looked at for one whose services could come up beside what runs.
const LOOKAHEAD: usize = 64;

/// What stands between a lane and the start of its first step.
struct Outlook {
    node: NodeId,
    rank: Rank,
    /// Services that may be up beside it: its own, and those of effects that are still to come.
    company: BTreeSet<NodeId>,
    /// Those of them that do not serve.
    missing: Vec<NodeId>,
    /// Services that must not be up beside it, and are, and its own that were launched for others.
    conflicts: Vec<NodeId>,
}

/// Whether there will be room for a step whose services serve.
enum Room {
    /// Not even alone.
    Never,
    /// Once the services that hold it are gone.
    Soon,
    /// Once something that runs has ended.
    Later,
}

impl Outlook {
    fn is_warm(&self) -> bool {
        self.missing.is_empty() && self.conflicts.is_empty()
    }
}

impl Schedule {
    pub(super) fn serve(&mut self, actions: &mut Vec<Action>) {
        let n_before = actions.len();
        self.stop_unwanted(actions);
        self.start_free(actions);
        let is_making_room = self.start_warm(actions);
        if !is_making_room {
            self.warm_up(actions);
        }
        if actions.len() == n_before && self.is_stuck() {
            self.unstick(actions);
        }
    }

    fn stop_unwanted(&mut self, actions: &mut Vec<Action>) {
        for service in self.up.clone() {
            let track = self.track(service);
            let is_up = matches!(track.state, State::Ready | State::Launching);
            let is_wanted = track.open_dependents > 0 && !track.is_stale;
            if is_up && !is_wanted && track.busy == 0 && !self.is_behind(service) {
                self.stop(service, actions);
            }
        }
    }

    fn stop(&mut self, service: NodeId, actions: &mut Vec<Action>) {
        self.set(service, State::Stopping);
        actions.push(Action::Stop(service));
    }

    fn start_free(&mut self, actions: &mut Vec<Action>) {
        for lane in self.lanes.free() {
            while let Some((_, node)) = self.lanes.get(lane).first() {
                if !self.pools.has_room_for_step(&self.lanes.get(lane).demand) {
                    break;
                }
                self.start(node, actions);
            }
        }
    }

    /// Starts what can start; whether services go so that another one can.
    fn start_warm(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut warm: Vec<(Rank, LaneId)> = self
            .lanes_in_reach()
            .into_iter()
            .filter_map(|lane| Some((self.outlook(lane).filter(Outlook::is_warm)?.rank, lane)))
            .collect();
        warm.sort_unstable();
        let mut is_making_room = false;
        for (_, lane) in warm {
            is_making_room |= self.advance(lane, actions);
        }
        is_making_room
    }

    /// Lists the lanes of services that are up, and those that want no service.
    fn lanes_in_reach(&self) -> BTreeSet<LaneId> {
        let up = self.up.iter().flat_map(|s| self.lanes.of_service(*s));
        let homeless = self.lanes.guarded().take(LOOKAHEAD);
        up.chain(homeless.filter(|id| self.lanes.get(*id).leases.is_empty()))
            .collect()
    }

    /// Starts as many steps of a lane as may run now, or the next effect that they ask for; whether
    /// services go to make room for more.
    fn advance(&mut self, lane: LaneId, actions: &mut Vec<Action>) -> bool {
        while let Some(outlook) = self.outlook(lane).filter(Outlook::is_warm) {
            let node = self.next_effect(outlook.node).unwrap_or(outlook.node);
            let is_waiting = matches!(self.state(node), State::Idle | State::Wanted { .. });
            if !is_waiting {
                return false;
            }
            if self.pools.has_room_for_step(self.demand(node)) {
                self.start(node, actions);
                continue;
            }
            match self.make_room(&outlook, actions) {
                Room::Never => {}
                Room::Soon => return true,
                Room::Later => return false,
            }
        }
        false
    }

    /// Where nothing runs and there still is no room, services hold it: those that the step does
    /// not use go, and if there are none, it is given up.
    fn make_room(&mut self, outlook: &Outlook, actions: &mut Vec<Action>) -> Room {
        if !self.pools.is_quiet() {
            return Room::Later;
        }
        let up = self.up.iter().copied();
        let others: Vec<NodeId> = up.filter(|s| !outlook.company.contains(s)).collect();
        if others.is_empty() {
            self.skip(outlook.node, Because::NoRoom, actions);
            return Room::Never;
        }
        self.stop_idle(&others, actions);
        Room::Soon
    }

    /// Stops those that serve, each before what stands behind it.
    fn stop_idle(&mut self, services: &[NodeId], actions: &mut Vec<Action>) {
        for service in services {
            if self.state(*service) == State::Ready && !self.is_behind(*service) {
                self.stop(*service, actions);
            }
        }
    }

    fn start(&mut self, node: NodeId, actions: &mut Vec<Action>) {
        let (left, next) = match self.state(node) {
            State::Wanted { left, next } => (left, next),
            _ => (1, 0),
        };
        self.dequeue(node);
        let demand = self.demand(node).clone();
        self.pools.take_for_step(node, &demand);
        self.count_busy(node, true);
        self.set(node, State::Running { left, next });
        self.n_free_running += usize::from(self.is_free(node));
        actions.push(Action::Start(node, next));
    }

    /// Gives back what a running step has taken.
    pub(super) fn stop_running(&mut self, node: NodeId) {
        self.pools.release(node);
        self.count_busy(node, false);
        self.n_free_running -= usize::from(self.is_free(node));
    }

    pub(super) fn count_busy(&mut self, node: NodeId, busy: bool) {
        for service in self.shape(node).leases.clone() {
            let track = self.track_mut(service);
            track.busy = if busy {
                track.busy + 1
            } else {
                track.busy.saturating_sub(1)
            };
        }
    }

    fn is_free(&self, node: NodeId) -> bool {
        self.track(node)
            .lane
            .is_some_and(|lane| self.lanes.is_free(lane))
    }

    fn demand(&self, node: NodeId) -> &Demand {
        match &self.shape(node).role {
            Role::Step(_, policy) => &policy.demand,
            Role::Service(policy) => &policy.demand,
        }
    }

    fn wants_machine(&self, node: NodeId) -> bool {
        self.demand(node).machine == Machine::Exclusive
    }

    fn outlook(&self, lane: LaneId) -> Option<Outlook> {
        let (rank, node) = self.lanes.get(lane).first()?;
        let mut company = BTreeSet::new();
        self.add_company(node, &mut company);
        let missing: Vec<NodeId> = company
            .iter()
            .copied()
            .filter(|s| self.state(*s) != State::Ready)
            .collect();
        let is_exclusive =
            self.lanes.get(lane).is_exclusive() || missing.iter().any(|s| self.wants_machine(*s));
        let is_in_the_way = |s: &NodeId| match company.contains(s) {
            true => self.is_foreign(*s, &company),
            false => is_exclusive || self.wants_machine(*s),
        };
        let conflicts = self.up.iter().copied().filter(is_in_the_way).collect();
        Some(Outlook {
            node,
            rank,
            company,
            missing,
            conflicts,
        })
    }

    /// Adds the services of a step, and of the effects that have to come before it.
    fn add_company(&self, node: NodeId, company: &mut BTreeSet<NodeId>) {
        let shape = self.shape(node);
        company.extend(&shape.leases);
        for effect in shape.after.iter().filter(|n| self.is_effect(**n)) {
            if !self.has_come(*effect, node) {
                self.add_company(*effect, company);
            }
        }
    }

    /// Returns the effect that has to be performed next for the sake of `node`.
    fn next_effect(&self, node: NodeId) -> Option<NodeId> {
        let after = self.shape(node).after.iter().copied();
        let mut effects = after.filter(|n| self.is_effect(*n));
        let effect = effects.find(|effect| !self.has_come(*effect, node))?;
        Some(self.next_effect(effect).unwrap_or(effect))
    }

    /// Whether an effect has come as far as `node` is concerned: it lasts as long as the
    /// incarnation of the services that both use; where they share none, once is enough.
    fn has_come(&self, effect: NodeId, node: NodeId) -> bool {
        if self.state(effect).is_terminal() {
            return true;
        }
        let leases = &self.shape(node).leases;
        self.performed.get(&effect).is_some_and(|on| {
            on.iter()
                .filter(|(service, _)| leases.contains(service))
                .all(|(service, then)| {
                    *then == self.incarnation(*service) && self.state(*service) == State::Ready
                })
        })
    }

    /// Brings up the services of the lanes that can have them.
    fn warm_up(&mut self, actions: &mut Vec<Action>) {
        if self.pools.is_exclusive() || self.lanes.guarded().next().is_none() {
            return;
        }
        let in_reach = self.lanes_in_reach();
        let warm: BTreeSet<NodeId> = in_reach
            .iter()
            .filter_map(|lane| self.outlook(*lane).filter(Outlook::is_warm))
            .flat_map(|outlook| outlook.company)
            .collect();
        // What an earlier lane needs no later one takes away: else they could take turns for ever.
        let mut kept = warm.clone();
        for lane in self.cold_lanes(&in_reach) {
            let Some(outlook) = self.outlook(lane) else {
                continue;
            };
            let n_before = actions.len();
            let may_others = self.prepare(lane, &outlook, &warm, &kept, actions);
            if actions.len() > n_before && !self.coming.contains(&lane) {
                self.coming.push(lane);
            }
            if !may_others {
                return;
            }
            kept.extend(outlook.company);
        }
    }

    /// Lists the lanes that lack services: those for which some were moved already in the order in
    /// which that was begun, then those that lack the fewest.
    fn cold_lanes(&mut self, in_reach: &BTreeSet<LaneId>) -> Vec<LaneId> {
        let mut cold = BTreeSet::new();
        let near = in_reach.iter().map(|lane| (0, *lane));
        let waiting = self.lanes.guarded().take(LOOKAHEAD);
        for (distance, lane) in near.chain(waiting.map(|lane| (1, lane))) {
            if let Some(outlook) = self.outlook(lane).filter(|o| !o.is_warm()) {
                let idle = |s: &&NodeId| self.state(**s) == State::Idle;
                let n_idle = outlook.missing.iter().filter(idle).count();
                cold.insert((distance, n_idle, self.lanes.get(lane).place, lane));
            }
        }
        let mut lanes = std::mem::take(&mut self.coming);
        lanes.retain(|lane| cold.iter().any(|(.., other)| lane == other));
        self.coming.clone_from(&lanes);
        for (.., lane) in cold {
            if !lanes.contains(&lane) {
                lanes.push(lane);
            }
        }
        lanes
    }

    /// Stops what is in a lane's way and launches what it lacks; false if nobody else may do so
    /// before it has come further.
    fn prepare(
        &mut self,
        lane: LaneId,
        outlook: &Outlook,
        warm: &BTreeSet<NodeId>,
        kept: &BTreeSet<NodeId>,
        actions: &mut Vec<Action>,
    ) -> bool {
        if !outlook.conflicts.is_empty() {
            return self.make_way(&outlook.conflicts, kept, actions);
        }
        let wants_machine = self.lanes.get(lane).is_exclusive()
            || outlook.missing.iter().any(|s| self.wants_machine(*s));
        if wants_machine && (!warm.is_empty() || self.is_any_busy()) {
            return true;
        }
        let company = &outlook.company;
        for service in &outlook.missing {
            let is_down = self.state(*service) == State::Idle && self.track(*service).busy == 0;
            if !is_down || !self.may_come(*service, company) {
                continue;
            }
            if self.pools.has_amounts(self.demand(*service)) {
                self.launch(*service, self.front_among(*service, company), actions);
                continue;
            }
            let others = self.up.iter().copied();
            let others: Vec<NodeId> = others.filter(|s| !outlook.company.contains(s)).collect();
            if others.is_empty() && self.pools.is_quiet() {
                self.skip(outlook.node, Because::NoRoom, actions);
                return true;
            }
            return self.make_way(&others, kept, actions);
        }
        !wants_machine
    }

    fn is_any_busy(&self) -> bool {
        self.up.iter().any(|s| self.track(*s).busy > 0)
    }

    /// Stops services that are idle; false if they are told to, or will be soon.
    fn make_way(
        &mut self,
        services: &[NodeId],
        kept: &BTreeSet<NodeId>,
        actions: &mut Vec<Action>,
    ) -> bool {
        let services = self.with_fronts(services);
        let in_use = |s: &NodeId| {
            self.track(*s).busy > 0 || self.state(*s) == State::Launching || kept.contains(s)
        };
        if services.iter().any(in_use) {
            return true;
        }
        // What runs or is decided now may bring more work for a service that serves.
        if self.n_deciding > 0 || self.n_free_running > 0 {
            return false;
        }
        self.stop_idle(&services, actions);
        false
    }

    fn launch(&mut self, service: NodeId, front: Option<NodeId>, actions: &mut Vec<Action>) {
        let demand = self.demand(service).clone();
        self.pools.take_for_service(service, &demand);
        let track = self.track_mut(service);
        track.incarnation += 1;
        track.front = front;
        track.is_stale = false;
        self.set(service, State::Launching);
        actions.push(Action::Launch(service));
    }

    /// Whether somebody waits and nothing is under way that could change that.
    fn is_stuck(&self) -> bool {
        let is_moving = |s: &NodeId| self.state(*s) != State::Ready || self.track(*s).busy > 0;
        self.n_deciding == 0
            && self.pools.is_quiet()
            && self.n_resting == 0
            && !self.up.iter().any(is_moving)
            && self.lanes.first_waiting().is_some()
    }

    /// Idle services hold what a step waits for: they go, and come again when they are wanted.
    fn unstick(&mut self, actions: &mut Vec<Action>) {
        if self.up.is_empty()
            && let Some(node) = self.lanes.first_waiting()
        {
            self.skip(node, Because::NoRoom, actions);
        }
        let up: Vec<NodeId> = self.up.iter().copied().collect();
        self.stop_idle(&up, actions);
    }
}
