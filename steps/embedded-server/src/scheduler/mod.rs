//! Which tokens of which sequences the next step computes.
//!
//! A state machine without clock, thread or IO: sequences come in, plans come out, and what a
//! plan computed is reported back. The rules are SGLang's: prefill goes before decode, at most
//! one prompt is computed in chunks at a time, admission reserves room for the output that
//! running sequences are expected to write, and when the cache overflows after all, the sequences
//! with the fewest outputs give their blocks back and are recomputed later. It knows no text, no
//! sampling and no request beyond its token counts.

mod door;
mod reservation;
mod sequence;

use std::collections::VecDeque;

use crate::cache::BlockAllocator;
use crate::executor::{Batch, CacheShape, Phase, SequenceChunk};

pub use door::{Door, Refusal};
use reservation::Reservation;
pub use sequence::{NewSequence, Sequence, SequenceId};

/// The order in which waiting sequences are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// First come, first served. A sequence that does not fit yet holds up those behind it.
    #[default]
    Fcfs,
}

/// Bounds of a single step and of the running set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that run at once, at least one.
    pub max_running_requests: usize,
    /// Tokens of one prefill step; a longer prompt is split. `None`: prompts are never split.
    pub chunked_prefill_size: Option<usize>,
    /// Tokens of one prefill step, beyond which no further prompt joins it.
    pub max_prefill_tokens: usize,
    /// The order of admission.
    pub policy: Policy,
}

/// What one step computes. Indices refer to the running set as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// Prefill or decode: never mixed.
    pub phase: Phase,
    /// One entry per sequence.
    pub entries: Vec<PlanEntry>,
    /// Sequences that left the queue for this step.
    pub admitted: Vec<SequenceId>,
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

/// Sequences that wait, sequences that run, and the blocks they hold.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    blocks: BlockAllocator,
    reservation: Reservation,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
}

impl Scheduler {
    /// An idle scheduler over an empty cache.
    #[must_use]
    pub fn new(limits: Limits, shape: CacheShape) -> Self {
        Scheduler {
            limits,
            blocks: BlockAllocator::new(shape),
            reservation: Reservation::default(),
            waiting: VecDeque::new(),
            running: Vec::new(),
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

    /// The cache's book.
    #[must_use]
    pub fn blocks(&self) -> &BlockAllocator {
        &self.blocks
    }

    /// The running set, in the order that [`PlanEntry::index`] refers to.
    #[must_use]
    pub fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Plans the next step; `None` only when the scheduler is idle.
    pub fn schedule(&mut self) -> Option<StepPlan> {
        let (entries, admitted) = self.plan_prefill();
        if !entries.is_empty() {
            return Some(StepPlan {
                phase: Phase::Prefill,
                entries,
                admitted,
                retracted: Vec::new(),
            });
        }
        if self.running.is_empty() {
            return None;
        }
        let retracted = self.make_room_for_decode();
        self.reservation.decay();
        let entries = (0..self.running.len())
            .map(|index| self.entry(index, 1))
            .collect();
        Some(StepPlan {
            phase: Phase::Decode,
            entries,
            admitted,
            retracted,
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
                blocks: &sequence.blocks,
                wants_logits: entry.wants_logits,
            }
        };
        Batch {
            phase: plan.phase,
            sequences: plan.entries.iter().map(chunk).collect(),
        }
    }

    /// Records that the tokens of `plan` lie in the cache now.
    pub fn computed(&mut self, plan: &StepPlan) {
        for entry in &plan.entries {
            self.running[entry.index].n_computed += entry.n_tokens;
        }
    }

    /// Appends a sampled token to the running sequence at `index`.
    pub fn append(&mut self, index: usize, token: u32) {
        self.running[index].tokens.push(token);
    }

    /// Forgets sequences wherever they are, and frees their blocks.
    pub fn remove(&mut self, ids: &[SequenceId]) {
        if ids.is_empty() {
            return;
        }
        let blocks = &mut self.blocks;
        self.running.retain_mut(|sequence| {
            let stays = !ids.contains(&sequence.id);
            if !stays {
                blocks.release(&mut sequence.blocks);
            }
            stays
        });
        self.waiting.retain(|sequence| !ids.contains(&sequence.id));
    }

    /// Continues the prompt in progress, then admits waiting ones while the budgets last.
    fn plan_prefill(&mut self) -> (Vec<PlanEntry>, Vec<SequenceId>) {
        let mut chunk_left = self.limits.chunked_prefill_size.unwrap_or(usize::MAX);
        let mut tokens_left = self.limits.max_prefill_tokens;
        let mut entries: Vec<PlanEntry> = Vec::new();
        let mut admitted = Vec::new();
        if let Some(index) = self.running.iter().position(Sequence::is_prefilling) {
            let n_tokens = self.running[index].n_left_to_prefill().min(chunk_left);
            entries.push(self.entry(index, n_tokens));
            chunk_left -= n_tokens;
            tokens_left = tokens_left.saturating_sub(n_tokens);
        }
        while chunk_left > 0
            && let Some(next) = self.waiting.front()
        {
            let n_tokens = next.tokens.len().min(chunk_left);
            let is_over_budget = !entries.is_empty() && n_tokens > tokens_left;
            if is_over_budget || !self.try_admit() {
                break;
            }
            let entry = self.entry(self.running.len() - 1, n_tokens);
            admitted.push(entry.id);
            entries.push(entry);
            chunk_left -= n_tokens;
            tokens_left = tokens_left.saturating_sub(n_tokens);
        }
        (entries, admitted)
    }

    /// Moves the head of the queue into the running set, if it may run and its prompt and
    /// expected output fit beside what the running ones are expected to write.
    fn try_admit(&mut self) -> bool {
        if self.running.len() >= self.limits.max_running_requests {
            return false;
        }
        let Policy::Fcfs = self.limits.policy;
        let Some(mut next) = self.waiting.pop_front() else {
            return false;
        };
        let needed = self
            .blocks
            .blocks_for(next.tokens.len() + reservation::at_admission(&next));
        let reserved = self.reservation.blocks(&self.running, &self.blocks);
        let fits = needed + reserved <= self.blocks.n_free()
            && self
                .blocks
                .grow(&mut next.blocks, next.tokens.len())
                .is_ok();
        if !fits {
            self.waiting.push_front(next);
            return false;
        }
        next.start_prefill();
        self.running.push(next);
        true
    }

    /// Gives every running sequence a slot for one more token, retracting some where that fails.
    fn make_room_for_decode(&mut self) -> Vec<SequenceId> {
        let mut retracted = Vec::new();
        while self.blocks_for_decode() > self.blocks.n_free() && self.running.len() > 1 {
            retracted.push(self.retract_one());
        }
        if !retracted.is_empty() {
            self.reservation.learn(&self.running);
        }
        for sequence in &mut self.running {
            let grown = self
                .blocks
                .grow(&mut sequence.blocks, sequence.tokens.len());
            // One sequence alone always fits: it passed the door.
            debug_assert!(grown.is_ok());
        }
        retracted
    }

    fn blocks_for_decode(&self) -> usize {
        let missing = |sequence: &Sequence| {
            self.blocks
                .blocks_for(sequence.tokens.len())
                .saturating_sub(sequence.blocks.len())
        };
        self.running.iter().map(missing).sum()
    }

    /// Sends the sequence with the fewest outputs, then the longest prompt, back to the queue.
    fn retract_one(&mut self) -> SequenceId {
        let cost = |sequence: &Sequence| (sequence.n_outputs(), usize::MAX - sequence.n_prompt);
        let index = (0..self.running.len()).min_by_key(|index| cost(&self.running[*index]));
        let mut sequence = self.running.remove(index.unwrap_or(0));
        self.blocks.release(&mut sequence.blocks);
        sequence.n_computed = 0;
        let id = sequence.id;
        self.waiting.push_front(sequence);
        id
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
mod tests;
