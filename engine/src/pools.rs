//! What running steps share: a number of places, all of which a measurement takes.
//!
//! A measurement runs alone, so that a plot or a download never disturbs it.

use crate::graph::NodeId;
use crate::step::StepKind;
use std::collections::BTreeMap;

/// Places for running steps.
#[derive(Debug)]
pub struct Pools {
    free: u32,
    all: u32,
    taken: BTreeMap<NodeId, u32>,
}

impl Pools {
    /// Builds pools for `jobs` steps at a time.
    pub fn new(jobs: u32) -> Self {
        Self {
            free: jobs,
            all: jobs,
            taken: BTreeMap::new(),
        }
    }

    /// Takes what a step of this kind needs; false if it is not free.
    pub fn take(&mut self, node: NodeId, kind: StepKind) -> bool {
        if !self.could_take(kind) {
            return false;
        }
        let wanted = self.wanted(kind);
        self.free -= wanted;
        self.taken.insert(node, wanted);
        true
    }

    /// Whether what a step of this kind needs is free.
    pub fn could_take(&self, kind: StepKind) -> bool {
        self.free >= self.wanted(kind)
    }

    fn wanted(&self, kind: StepKind) -> u32 {
        match kind {
            StepKind::Measure | StepKind::Effect => self.all,
            StepKind::Pure | StepKind::Fetch | StepKind::Report => 1,
        }
    }

    /// Gives back what `node` has taken, if anything.
    pub fn release(&mut self, node: NodeId) {
        self.free += self.taken.remove(&node).unwrap_or(0);
    }
}
