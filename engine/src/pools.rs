//! What running steps and services share: places for steps, the machine as a whole, and the pools
//! that a plan declares.
//!
//! Counts within one run; which device or port is given, and what other runs hold, is the
//! business of [`claims`](crate::claims).

use crate::graph::NodeId;
use crate::policy::{Demand, Machine, Supply};
use std::collections::{BTreeMap, HashMap};

/// Places, the machine, and pools.
#[derive(Debug)]
pub struct Pools {
    jobs: u32,
    /// Steps that run.
    running: u32,
    /// Whether one of them has the machine to itself.
    exclusive: bool,
    sizes: BTreeMap<String, u32>,
    free: BTreeMap<String, u32>,
    taken: HashMap<NodeId, Taken>,
}

/// What one node has taken.
#[derive(Debug)]
struct Taken {
    is_step: bool,
    amounts: Vec<(String, u32)>,
}

impl Pools {
    /// Builds pools for `jobs` steps at a time.
    pub fn new(jobs: u32, supply: &Supply) -> Self {
        let sizes: BTreeMap<String, u32> = supply
            .iter()
            .map(|(name, pool)| (name.clone(), pool.size()))
            .collect();
        Self {
            jobs: jobs.max(1),
            running: 0,
            exclusive: false,
            free: sizes.clone(),
            sizes,
            taken: HashMap::new(),
        }
    }

    /// Whether a step could start now.
    pub fn has_room_for_step(&self, demand: &Demand) -> bool {
        let machine = match demand.machine {
            Machine::Exclusive => self.running == 0,
            Machine::Shared => !self.exclusive && self.running < self.jobs,
        };
        machine && self.has_amounts(demand)
    }

    /// Whether the pools hold what a service wants.
    pub fn has_amounts(&self, demand: &Demand) -> bool {
        self.wanted(demand)
            .all(|(pool, amount)| self.free.get(pool).is_some_and(|free| *free >= amount))
    }

    /// Whether a step runs that has the machine to itself.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Whether no step runs.
    pub fn is_quiet(&self) -> bool {
        self.running == 0
    }

    /// Takes what a step wants; it must have room.
    pub fn take_for_step(&mut self, node: NodeId, demand: &Demand) {
        self.running += 1;
        self.exclusive |= demand.machine == Machine::Exclusive;
        self.take(node, demand, true);
    }

    /// Takes what a service wants; the pools must hold it.
    pub fn take_for_service(&mut self, node: NodeId, demand: &Demand) {
        self.take(node, demand, false);
    }

    fn take(&mut self, node: NodeId, demand: &Demand, is_step: bool) {
        let amounts: Vec<(String, u32)> = self
            .wanted(demand)
            .map(|(pool, amount)| (pool.to_owned(), amount))
            .collect();
        for (pool, amount) in &amounts {
            if let Some(free) = self.free.get_mut(pool) {
                *free = free.saturating_sub(*amount);
            }
        }
        self.taken.insert(node, Taken { is_step, amounts });
    }

    /// Gives back what `node` has taken, if anything.
    pub fn release(&mut self, node: NodeId) {
        let Some(taken) = self.taken.remove(&node) else {
            return;
        };
        if taken.is_step {
            self.running -= 1;
            // Whoever has the machine to itself runs alone, so it was this one or nobody.
            self.exclusive = false;
        }
        for (pool, amount) in taken.amounts {
            if let Some(free) = self.free.get_mut(&pool) {
                *free += amount;
            }
        }
    }

    /// The amounts that count: a pool that does not exist holds nobody up, and nobody can wait
    /// for more than there is. Both are problems of a plan that never gets here.
    fn wanted<'a>(&'a self, demand: &'a Demand) -> impl Iterator<Item = (&'a str, u32)> {
        let known = demand.amounts.iter();
        known.filter_map(|(pool, amount)| {
            let size = self.sizes.get(pool)?;
            Some((pool.as_str(), (*amount).min(*size)))
        })
    }
}
