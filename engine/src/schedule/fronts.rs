//! Services in front of others, such as a router before several servers.
//!
//! What stands behind a front is launched for it, one after the other, before it; and goes with it,
//! after it. Nobody else knows what has become of it meanwhile, so whoever wants it next gets a new
//! launch. If one of them dies, the others go.

use super::{Schedule, State};
use crate::graph::NodeId;
use std::collections::BTreeSet;

impl Schedule {
    /// Whether a service that is up stands in front of this one.
    pub(super) fn is_behind(&self, service: NodeId) -> bool {
        let mut up = self.up.iter();
        up.any(|front| self.shape(*front).leases.contains(&service))
    }

    /// Returns the service of a company that stands in front of this one.
    pub(super) fn front_among(
        &self,
        service: NodeId,
        company: &BTreeSet<NodeId>,
    ) -> Option<NodeId> {
        let mut fronts = company.iter().copied();
        fronts.find(|front| self.shape(*front).leases.contains(&service))
    }

    /// Whether a service that is up was launched for others than this company, or with what is gone.
    pub(super) fn is_foreign(&self, service: NodeId, company: &BTreeSet<NodeId>) -> bool {
        let track = self.track(service);
        let front = self.front_among(service, company);
        track.state.is_up() && (track.is_stale || track.front != front)
    }

    /// Whether everything stands that has to before this service is launched: what is behind it
    /// serves, and no other that is behind the same front is on its way.
    pub(super) fn may_come(&self, service: NodeId, company: &BTreeSet<NodeId>) -> bool {
        let mut behind = self.shape(service).leases.iter();
        let are_ready = behind.all(|s| self.state(*s) == State::Ready);
        let front = self.front_among(service, company);
        let mut beside = front.iter().flat_map(|front| &self.shape(*front).leases);
        are_ready && !beside.any(|s| self.state(*s) == State::Launching)
    }

    /// Returns services together with those that are up in front of them.
    pub(super) fn with_fronts(&self, services: &[NodeId]) -> Vec<NodeId> {
        let is_before = |front: &NodeId| {
            let leases = &self.shape(*front).leases;
            leases.iter().any(|s| services.contains(s))
        };
        let fronts = self.up.iter().copied().filter(is_before);
        let all: BTreeSet<NodeId> = services.iter().copied().chain(fronts).collect();
        all.into_iter().collect()
    }

    /// A service is gone: what was launched for it has to go, too.
    pub(super) fn leave_behind(&mut self, front: NodeId) {
        if !self.shape(front).is_service() {
            return;
        }
        for service in self.shape(front).leases.clone() {
            let track = self.track_mut(service);
            track.is_stale |= track.front == Some(front);
        }
    }

    /// A service died: what stands in front of it and behind it has to go.
    pub(super) fn part_from(&mut self, service: NodeId) {
        self.leave_behind(service);
        let up = self.up.iter().copied();
        let fronts: Vec<NodeId> = up
            .filter(|front| self.shape(*front).leases.contains(&service))
            .collect();
        for front in fronts {
            self.track_mut(front).is_stale = true;
        }
    }
}
