//! Which waiting sequences join the next prefill step.
//!
//! The prompt in progress goes first. Then the queue is put in the policy's order, and admitted
//! from its head while budgets last: tokens of the step, sequences at once, and room in the cache
//! for the prompt and for what running sequences are expected to write. What is found in the cache
//! is leased before its room is counted, since leasing takes it from what can be evicted.

use super::order::{self, Policy, Waiting};
use super::{Admission, Joining, PlanEntry, Scheduler, Sequence, reservation};
use crate::cache::{Lease, Matched};

/// Tokens that a prefill step may still compute.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// Before a prompt is split.
    chunk: usize,
    /// Before no further prompt joins.
    prefill: usize,
    is_first: bool,
}

impl Budget {
    fn take(&mut self, n_tokens: usize) {
        self.chunk = self.chunk.saturating_sub(n_tokens);
        self.prefill = self.prefill.saturating_sub(n_tokens);
        self.is_first = false;
    }
}

impl Scheduler {
    /// Continues the prompt in progress, then admits those that may join while the budgets last.
    pub(super) fn plan_prefill(&mut self, joining: Joining) -> (Vec<PlanEntry>, Vec<Admission>) {
        let mut budget = Budget {
            chunk: self.limits.chunked_prefill_size.unwrap_or(usize::MAX),
            prefill: self.limits.max_prefill_tokens,
            is_first: true,
        };
        let mut entries: Vec<PlanEntry> = Vec::new();
        let mut admitted = Vec::new();
        if let Some(index) = self.running.iter().position(Sequence::is_prefilling) {
            let n_tokens = self.running[index].n_left_to_prefill().min(budget.chunk);
            entries.push(self.entry(index, n_tokens));
            budget.take(n_tokens);
        }
        if !self.may_admit() {
            return (entries, admitted);
        }
        self.sort_waiting();
        while budget.chunk > 0
            && let Some(admission) = self.try_admit(joining, budget)
        {
            let index = self.running.len() - 1;
            let n_tokens = self.running[index].n_left_to_prefill().min(budget.chunk);
            entries.push(self.entry(index, n_tokens));
            budget.take(n_tokens);
            admitted.push(admission);
        }
        (entries, admitted)
    }

    fn may_admit(&mut self) -> bool {
        self.is_full &= !self.running.is_empty();
        let has_place = self.running.len() < self.limits.max_running_requests;
        !self.is_full && has_place && !self.waiting.is_empty()
    }

    /// Puts the queue in the order of the policy. Nothing else changes, but that what was matched
    /// counts as used.
    fn sort_waiting(&mut self) {
        let keeps_prefixes = self.cache.keeps_prefixes();
        let policy = order::effective(self.limits.policy, keeps_prefixes, self.waiting.len());
        if policy == Policy::Fcfs {
            return;
        }
        let mut matched = Vec::with_capacity(self.waiting.len());
        for sequence in &self.waiting {
            matched.push(self.cache.matched(&sequence.tokens));
        }
        let waiting = self.waiting.iter().zip(matched);
        let waiting: Vec<_> = waiting
            .map(|(sequence, matched)| Waiting {
                tokens: &sequence.tokens,
                n_on_device: matched.device,
                n_matched: matched.total(),
            })
            .collect();
        let order = order::by_longest_prefix(&waiting);
        let mut sequences: Vec<_> = self.waiting.drain(..).map(Some).collect();
        let sorted = order.into_iter().filter_map(|at| sequences[at].take());
        self.waiting.extend(sorted);
    }

    /// Moves the first of the queue that may join into the running set, if it may run.
    fn try_admit(&mut self, joining: Joining, budget: Budget) -> Option<Admission> {
        if self.running.len() >= self.limits.max_running_requests {
            return None;
        }
        let at = match joining {
            Joining::All => 0,
            Joining::Begun => self.waiting.iter().position(|one| one.has_run)?,
        };
        let mut next = self.waiting.remove(at)?;
        let Some((lease, cached)) = self.lease_for(&next, budget) else {
            self.waiting.insert(at, next);
            return None;
        };
        let admission = Admission {
            id: next.id,
            cached,
            is_again: next.has_run,
        };
        next.start_prefill(lease, cached.total());
        self.running.push(next);
        Some(admission)
    }

    /// Blocks for all the tokens of a sequence, if the budgets allow it: what the cache has of
    /// them, then new ones.
    fn lease_for(&mut self, next: &Sequence, budget: Budget) -> Option<(Lease, Matched)> {
        let mut lease = self.cache.acquire(&next.tokens);
        let device = lease.n_shared() * self.cache.blocks().block_tokens();
        let n_cached = device + self.cache.loadable_tokens(&lease);
        let n_now = (next.tokens.len() - n_cached).min(budget.chunk);
        if !budget.is_first && n_now > budget.prefill {
            self.cache.give_back(lease);
            return None;
        }
        if self.fits(next, &lease) {
            let host = self.cache.load(&mut lease);
            if self.cache.grow(&mut lease, next.tokens.len()).is_ok() {
                return Some((lease, Matched { device, host }));
            }
        }
        self.cache.give_back(lease);
        self.is_full = true;
        None
    }

    /// Whether the prompt and its expected output fit beside what the running sequences are
    /// expected to write.
    fn fits(&self, next: &Sequence, lease: &Lease) -> bool {
        let blocks = self.cache.blocks();
        let n_tokens = next.tokens.len() + reservation::at_admission(next);
        let needed = blocks.blocks_for(n_tokens) - lease.n_shared();
        let reserved = self.reservation.blocks(&self.running, blocks);
        needed + reserved <= self.cache.n_available()
    }
}
