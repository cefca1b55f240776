//! Lanes: steps that want to run and wait for the same services, effects and pools.
//!
//! What is true of the first of a lane is true of all, so one look decides for thousands. Knows
//! which steps wait, not when they may go.

use super::{Role, Schedule, State};
use crate::graph::NodeId;
use crate::policy::{Demand, Machine};
use crate::step::StepKind;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(u32);

/// Earlier samples first, so that a cut leaves whole rounds; within a round by a shuffle that the
/// seed decides, so that drift of the machine does not look like an effect of an axis; otherwise
/// as in the plan.
pub(super) type Rank = (u32, u64, u32);

/// Steps that wait for the same.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) leases: Vec<NodeId>,
    pub(super) effects: Vec<NodeId>,
    pub(super) demand: Demand,
    /// Where the step for which the lane was made stands in the plan's order.
    pub(super) place: u32,
    queue: BTreeSet<(Rank, NodeId)>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    leases: Vec<NodeId>,
    effects: Vec<NodeId>,
    demand: usize,
}

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    list: Vec<Lane>,
    by_key: HashMap<Key, LaneId>,
    demands: Vec<Demand>,
    of_service: BTreeMap<NodeId, Vec<LaneId>>,
    /// Lanes with somebody in them whose steps may run beside others at once.
    free: BTreeSet<(u32, LaneId)>,
    /// Lanes with somebody in them that want services, effects or the whole machine.
    guarded: BTreeSet<(u32, LaneId)>,
}

impl Lane {
    /// Whether its steps have the machine to themselves.
    pub(super) fn is_exclusive(&self) -> bool {
        self.demand.machine == Machine::Exclusive
    }

    fn is_free(&self) -> bool {
        self.leases.is_empty() && self.effects.is_empty() && !self.is_exclusive()
    }

    /// Returns the first of those that wait.
    pub(super) fn first(&self) -> Option<(Rank, NodeId)> {
        self.queue.first().copied()
    }
}

impl Lanes {
    pub(super) fn get(&self, id: LaneId) -> &Lane {
        &self.list[id.0 as usize]
    }

    /// Whether steps of this lane run beside others without a service.
    pub(super) fn is_free(&self, id: LaneId) -> bool {
        self.get(id).is_free()
    }

    /// Lists the lanes of free steps in which somebody waits.
    pub(super) fn free(&self) -> Vec<LaneId> {
        self.free.iter().map(|(_, id)| *id).collect()
    }

    /// Goes through the other lanes in which somebody waits, in the plan's order.
    pub(super) fn guarded(&self) -> impl Iterator<Item = LaneId> {
        self.guarded.iter().map(|(_, id)| *id)
    }

    /// Lists the lanes that lease `service` and in which somebody waits.
    pub(super) fn of_service(&self, service: NodeId) -> impl Iterator<Item = LaneId> {
        let all = self.of_service.get(&service).into_iter().flatten().copied();
        all.filter(|id| self.get(*id).first().is_some())
    }

    /// Whether somebody waits anywhere.
    pub(super) fn first_waiting(&self) -> Option<NodeId> {
        let lanes = self.free.iter().chain(&self.guarded);
        lanes
            .filter_map(|(_, id)| self.get(*id).first())
            .map(|(_, node)| node)
            .next()
    }

    fn list_of(&mut self, id: LaneId) -> &mut BTreeSet<(u32, LaneId)> {
        if self.is_free(id) {
            &mut self.free
        } else {
            &mut self.guarded
        }
    }

    fn push(&mut self, id: LaneId, rank: Rank, node: NodeId) {
        let lane = &mut self.list[id.0 as usize];
        lane.queue.insert((rank, node));
        let place = lane.place;
        self.list_of(id).insert((place, id));
    }

    fn remove(&mut self, id: LaneId, rank: Rank, node: NodeId) {
        let lane = &mut self.list[id.0 as usize];
        lane.queue.remove(&(rank, node));
        let (place, is_empty) = (lane.place, lane.queue.is_empty());
        if is_empty {
            self.list_of(id).remove(&(place, id));
        }
    }

    fn find(
        &mut self,
        leases: &[NodeId],
        effects: Vec<NodeId>,
        demand: &Demand,
        place: u32,
    ) -> LaneId {
        let n_known = self.demands.len();
        let at = self.demands.iter().position(|d| d == demand);
        if at.is_none() {
            self.demands.push(demand.clone());
        }
        let key = Key {
            leases: leases.to_vec(),
            effects: effects.clone(),
            demand: at.unwrap_or(n_known),
        };
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = LaneId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.by_key.insert(key, id);
        let services: BTreeSet<NodeId> = leases.iter().copied().collect();
        for service in services {
            self.of_service.entry(service).or_default().push(id);
        }
        self.list.push(Lane {
            leases: leases.to_vec(),
            effects,
            demand: demand.clone(),
            place,
            queue: BTreeSet::new(),
        });
        id
    }
}

impl Schedule {
    /// Puts a step that wants to run and whose order waits for nothing into its lane.
    pub(super) fn enqueue(&mut self, node: NodeId) {
        let track = self.track(node);
        if !matches!(track.state, State::Wanted { .. }) || track.blocked > 0 {
            return;
        }
        let id = self.lane_of(node);
        self.lanes.push(id, self.rank(node), node);
    }

    /// Takes a step out of its lane, if it is in it.
    pub(super) fn dequeue(&mut self, node: NodeId) {
        if let Some(id) = self.track(node).lane {
            self.lanes.remove(id, self.rank(node), node);
        }
    }

    fn lane_of(&mut self, node: NodeId) -> LaneId {
        if let Some(id) = self.track(node).lane {
            return id;
        }
        let shape = &self.shapes[node.0 as usize];
        let effects = shape.after.iter().copied();
        let effects: Vec<NodeId> = effects.filter(|n| self.is_effect(*n)).collect();
        let demand = match &shape.role {
            Role::Step(_, policy) => &policy.demand,
            Role::Service(policy) => &policy.demand,
        };
        let place = self.positions[node.0 as usize];
        let id = self.lanes.find(&shape.leases, effects, demand, place);
        self.track_mut(node).lane = Some(id);
        id
    }

    fn rank(&self, node: NodeId) -> Rank {
        let at = self.positions[node.0 as usize];
        match (&self.shape(node).role, self.state(node)) {
            (Role::Step(StepKind::Measure, _), State::Wanted { next, .. }) => (
                next + 1,
                mix(self.seed ^ mix(u64::from(next)) ^ mix(u64::from(node.0) << 20)),
                at,
            ),
            _ => (0, 0, at),
        }
    }
}

/// Spreads the bits of a number: the finaliser of `SplitMix64` (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
