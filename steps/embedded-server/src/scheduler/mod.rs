//! Which tokens of which sequences the next step computes.
//!
//! A state machine without clock, thread or IO: sequences come in, plans come out, and what a
//! plan computed is reported back. The rules are SGLang's: prefill goes before decode, at most
//! one prompt is computed in chunks at a time, admission reserves room for the output that
//! running sequences are expected to write, and when the cache overflows after all, the sequences
//! with the fewest outputs give their blocks back and are recomputed later. It knows no text, no
//! sampling and no request beyond its token counts.

mod admission;
mod door;
mod order;
mod reservation;
mod sequence;

use std::collections::VecDeque;

use crate::cache::{Keeping, KvCache, Matched, Progress, Ticket, Transfer};
use crate::executor::{Batch, CacheShape, Phase, SequenceChunk};

pub use door::{Door, Refusal};
pub use order::Policy;
use reservation::Reservation;
pub use sequence::{NewSequence, Sequence, SequenceId};

/// Bounds of a single step and of the running set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Sequences that run at once, at least one.
    pub max_running_requests: usize,
    /// Tokens of one prefill step; a longer prompt is split. `None`: prompts are never split.
    pub chunked_prefill_size: Option<usize>,
    /// Tokens of one prefill step, beyond which no further prompt joins it.
    pub max_prefill_tokens: usize,
    /// The order of admission.
    pub policy: Policy,
    /// Scales the share of their remaining output that running sequences are expected to write:
    /// above 1 fewer are admitted, below 1 more are retracted.
    pub conservativeness: f64,
    /// What stays in the cache.
    pub keeping: Keeping,
}

/// A sequence that left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Which one.
    pub id: SequenceId,
    /// What it need not compute.
    pub cached: Matched,
    /// Whether it had run before, so that it found its own work of then.
    pub is_again: bool,
}

/// Who of those that wait may join a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joining {
    All,
    /// Those that ran and were retracted.
    Begun,
}

/// What one step computes. Indices refer to the running set as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// Prefill or decode: never mixed.
    pub phase: Phase,
    /// One entry per sequence.
    pub entries: Vec<PlanEntry>,
    /// Sequences that left the queue for this step.
    pub admitted: Vec<Admission>,
    /// Sequences that had to give their blocks back, and wait again.
    pub retracted: Vec<SequenceId>,
}

/// The part of one running sequence that a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanEntry {
    /// Position in the running set.
    pub index: usize,
    /// The sequence.
    pub id: SequenceId,
    /// First token to compute.
    pub start: usize,
    /// How many tokens to compute.
    pub n_tokens: usize,
    /// Whether a token is to be sampled afterwards.
    pub wants_logits: bool,
}

/// Sequences that wait, sequences that run, and the cache they share.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    cache: KvCache,
    reservation: Reservation,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    /// Whether the head of the queue did not fit, and nothing has left since.
    is_full: bool,
    /// Retracted since the last plan that said so.
    retracted: Vec<SequenceId>,
}

impl Scheduler {
    /// An idle scheduler over an empty cache.
    #[must_use]
    pub fn new(limits: Limits, shape: CacheShape) -> Self {
        Scheduler {
            limits,
            cache: KvCache::new(shape, limits.keeping),
            reservation: Reservation::new(limits.conservativeness),
            waiting: VecDeque::new(),
            running: Vec::new(),
            is_full: false,
            retracted: Vec::new(),
        }
    }

    /// Puts a sequence at the end of the queue. It must have passed the [`Door`] of this cache:
    /// one that can never fit would wait, and hold the others up, for ever.
    pub fn enqueue(&mut self, sequence: NewSequence) {
        self.waiting.push_back(Sequence::new(sequence));
    }

    /// Sequences that wait, retracted ones included.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that hold cache blocks.
    #[must_use]
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// The copies that have to be made, in this order, before the next step.
    pub fn take_transfers(&mut self) -> Vec<Transfer> {
        self.cache.take_transfers()
    }

    /// A copy to the host has been made.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        self.cache.acknowledge(ticket);
        self.is_full = false;
    }

    /// Empties the cache. Nothing may run.
    ///
    /// # Panics
    /// When something runs.
    pub fn flush(&mut self) {
        self.cache.flush();
    }

    /// The running set, in the order that [`PlanEntry::index`] refers to.
    #[must_use]
    pub fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Plans the next step; `None` when the scheduler is idle, or nothing fits before a copy to
    /// the host is acknowledged.
    pub fn schedule(&mut self) -> Option<StepPlan> {
        self.plan(Joining::All)
    }

    /// As [`Scheduler::schedule`], but of those that wait only retracted ones join.
    pub fn schedule_begun(&mut self) -> Option<StepPlan> {
        self.plan(Joining::Begun)
    }

    fn plan(&mut self, joining: Joining) -> Option<StepPlan> {
        let (entries, admitted) = self.plan_prefill(joining);
        if !entries.is_empty() {
            return Some(StepPlan {
                phase: Phase::Prefill,
                entries,
                admitted,
                retracted: std::mem::take(&mut self.retracted),
            });
        }
        self.make_room_for_decode();
        if self.running.is_empty() || self.n_missing_blocks() > 0 {
            return None;
        }
        self.reservation.decay();
        let entries = (0..self.running.len())
            .map(|index| self.entry(index, 1))
            .collect();
        Some(StepPlan {
            phase: Phase::Decode,
            entries,
            admitted,
            retracted: std::mem::take(&mut self.retracted),
        })
    }

    /// The plan in the executor's terms.
    #[must_use]
    pub fn batch(&self, plan: &StepPlan) -> Batch<'_> {
        let chunk = |entry: &PlanEntry| {
            let sequence = &self.running[entry.index];
            SequenceChunk {
                tokens: &sequence.tokens[entry.start..entry.start + entry.n_tokens],
                position: entry.start,
                blocks: sequence.blocks(),
                wants_logits: entry.wants_logits,
            }
        };
        Batch {
            phase: plan.phase,
            sequences: plan.entries.iter().map(chunk).collect(),
        }
    }

    /// Records that the tokens of `plan` lie in the cache now. Prompts are kept as far as they
    /// have been computed.
    pub fn computed(&mut self, plan: &StepPlan) {
        for entry in &plan.entries {
            let sequence = &mut self.running[entry.index];
            sequence.n_computed += entry.n_tokens;
            let progress = match sequence.is_prefilling() {
                true => Progress::Chunk,
                false => Progress::Whole,
            };
            if let (Phase::Prefill, Some(lease)) = (plan.phase, &mut sequence.lease) {
                let computed = &sequence.tokens[..sequence.n_computed];
                self.cache.keep(lease, computed, progress);
            }
        }
    }

    /// Appends a sampled token to the running sequence at `index`.
    pub fn append(&mut self, index: usize, token: u32) {
        self.running[index].tokens.push(token);
    }

    /// Forgets sequences wherever they are. What running ones have computed is kept.
    pub fn remove(&mut self, ids: &[SequenceId]) {
        if ids.is_empty() {
            return;
        }
        // Who did not fit may have been one of them.
        self.is_full = false;
        let gone = |sequence: &mut Sequence| ids.contains(&sequence.id);
        for mut sequence in self.running.extract_if(.., gone) {
            if let Some(lease) = sequence.lease.take() {
                self.cache.finish(lease, sequence.computed());
            }
        }
        self.waiting.retain(|sequence| !ids.contains(&sequence.id));
    }

    /// Those that run, and those that ran and wait to run again.
    pub fn begun_ids(&self) -> impl Iterator<Item = SequenceId> {
        let again = self.waiting.iter().filter(|sequence| sequence.has_run);
        self.running.iter().chain(again).map(Sequence::id)
    }

    /// Those that wait and never ran, in their order.
    pub fn unbegun_ids(&self) -> impl Iterator<Item = SequenceId> {
        let unbegun = self.waiting.iter().filter(|sequence| !sequence.has_run);
        unbegun.map(Sequence::id)
    }

    /// Sends everything that runs back to the queue, and names it with what no plan has said to be
    /// retracted yet.
    pub fn retract_all(&mut self) -> Vec<SequenceId> {
        while !self.running.is_empty() {
            self.retract_one();
        }
        std::mem::take(&mut self.retracted)
    }

    /// Puts an empty cache of another size in place of this one, which goes on with its counts, and names
    /// those that wait and can never run with it.
    ///
    /// # Panics
    /// When something runs.
    pub fn replace_cache(&mut self, shape: CacheShape) -> Vec<SequenceId> {
        assert!(self.running.is_empty(), "the cache is in use");
        let counts = self.cache.counts();
        self.cache = KvCache::new(shape, self.limits.keeping).counting_from(counts);
        self.is_full = false;
        let n_tokens = self.cache.blocks().capacity_tokens();
        let needed = |sequence: &Sequence| sequence.n_prompt.saturating_add(sequence.max_tokens);
        let too_large = self.waiting.iter().filter(|s| needed(s) > n_tokens);
        too_large.map(|sequence| sequence.id).collect()
    }

    /// Gives every running sequence a slot for one more token, retracting some where that fails.
    fn make_room_for_decode(&mut self) {
        let n_running = self.running.len();
        while self.n_missing_blocks() > self.cache.n_available() && self.running.len() > 1 {
            self.retract_one();
        }
        if self.running.len() < n_running {
            self.reservation.learn(&self.running);
        }
        if self.n_missing_blocks() <= self.cache.n_available() {
            for sequence in &mut self.running {
                let n_tokens = sequence.tokens.len();
                let grown = sequence.lease.as_mut();
                let grown = grown.map(|lease| self.cache.grow(lease, n_tokens));
                debug_assert_eq!(grown, Some(Ok(())));
            }
        }
    }

    /// Blocks that running sequences lack for the tokens they have.
    fn n_missing_blocks(&self) -> usize {
        let missing = |sequence: &Sequence| {
            let needed = self.cache.blocks().blocks_for(sequence.tokens.len());
            needed.saturating_sub(sequence.blocks().len())
        };
        self.running.iter().map(missing).sum()
    }

    /// Sends the sequence with the fewest outputs, then the longest prompt, back to the queue.
    /// What it computed beyond the shared prefix is not kept.
    fn retract_one(&mut self) {
        let cost = |sequence: &Sequence| (sequence.n_outputs(), usize::MAX - sequence.n_prompt);
        let index = (0..self.running.len()).min_by_key(|index| cost(&self.running[*index]));
        let mut sequence = self.running.remove(index.unwrap_or(0));
        if let Some(lease) = sequence.stop() {
            self.cache.give_back(lease);
        }
        self.is_full = false;
        self.retracted.push(sequence.id);
        self.waiting.push_front(sequence);
    }

    /// Checks the cache against everything that runs.
    ///
    /// # Panics
    /// When something is not as it has to be.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) {
        let leases = self.running.iter();
        self.cache
            .check(leases.filter_map(|sequence| sequence.lease.as_ref()));
        assert!(self.waiting.iter().all(|sequence| sequence.lease.is_none()));
    }

    fn entry(&self, index: usize, n_tokens: usize) -> PlanEntry {
        let sequence = &self.running[index];
        let start = sequence.n_computed;
        let wants_logits = start + n_tokens == sequence.tokens.len();
        PlanEntry {
            index,
            id: sequence.id,
            start,
            n_tokens,
            wants_logits,
        }
    }
}

#[cfg(test)]
mod random_loads;
#[cfg(test)]
mod tests;
