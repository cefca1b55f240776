//! What every forward step was and how long it took: the ground truth for a profile.
//!
//! A bounded ring: the engine appends, readers page through by step id and are told what they
//! missed. It knows no request; times are of the machine's monotonic clock.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Nanos;
use crate::executor::{Operation, Phase};

/// Steps that are remembered: a quarter of an hour at 20 ms a step, about 10 MB.
pub const CAPACITY: usize = 49_152;

/// Most steps in one answer, so that a reader cannot hold the log for long.
pub const PAGE: usize = 8192;

/// All classes of work, in the order of [`StepRecord::operation_ns`].
pub const OPERATIONS: [Operation; 7] = [
    Operation::Embedding,
    Operation::Norm,
    Operation::Projection,
    Operation::Rotary,
    Operation::Attention,
    Operation::Mlp,
    Operation::Head,
];

/// One forward step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRecord {
    /// Prefill or decode.
    pub phase: Phase,
    /// Sequences in the step.
    pub n_sequences: u32,
    /// Tokens computed, all sequences together.
    pub n_tokens: u32,
    /// Tokens attended to: per sequence those computed before and now, all sequences together.
    pub context_tokens: u64,
    /// Tokens sampled at its end.
    pub n_sampled: u32,
    /// Sequences retracted while it was planned.
    pub n_retracted: u32,
    /// When the executor was called.
    pub start: Nanos,
    /// Time in the executor.
    pub duration_ns: u64,
    /// Time in each class of work, in the order of [`OPERATIONS`].
    pub operation_ns: [u64; OPERATIONS.len()],
    /// Time to sample.
    pub sampling_ns: u64,
    /// Time from the end of the last step's sampling, or from waking up, until the step was planned.
    pub scheduling_ns: u64,
    /// How much later it ended than it was to, where its time is stated; else zero.
    pub late_ns: u64,
}

/// A page of the log.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StepPage {
    /// The clock that `start_ns` is of.
    pub clock: &'static str,
    /// Steps in order.
    pub steps: Vec<Numbered>,
    /// The id to ask for next.
    pub next: u64,
    /// Steps from the asked id on that were forgotten before they were read.
    pub dropped: u64,
}

/// A step with its id: the first step of a server is 0.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Its id.
    pub id: u64,
    /// The step.
    pub record: StepRecord,
}

impl serde::Serialize for Numbered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let step = &self.record;
        let mut out = serializer.serialize_struct("Step", 13)?;
        out.serialize_field("id", &self.id)?;
        out.serialize_field("phase", &step.phase)?;
        out.serialize_field("n_sequences", &step.n_sequences)?;
        out.serialize_field("n_tokens", &step.n_tokens)?;
        out.serialize_field("context_tokens", &step.context_tokens)?;
        out.serialize_field("n_sampled", &step.n_sampled)?;
        out.serialize_field("n_retracted", &step.n_retracted)?;
        out.serialize_field("start_ns", &step.start)?;
        out.serialize_field("duration_ns", &step.duration_ns)?;
        out.serialize_field("operations_ns", &PerOperation(step.operation_ns))?;
        out.serialize_field("sampling_ns", &step.sampling_ns)?;
        out.serialize_field("scheduling_ns", &step.scheduling_ns)?;
        out.serialize_field("late_ns", &step.late_ns)?;
        out.end()
    }
}

struct PerOperation([u64; OPERATIONS.len()]);

impl serde::Serialize for PerOperation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(OPERATIONS.iter().zip(self.0))
    }
}

/// The ring of forward steps.
#[derive(Debug)]
pub struct StepLog {
    ring: Mutex<Ring>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Ring {
    /// Id of the first step that is still here.
    first: u64,
    steps: VecDeque<StepRecord>,
}

impl StepLog {
    /// An empty log that remembers `capacity` steps.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        StepLog {
            ring: Mutex::default(),
            capacity: capacity.max(1),
        }
    }

    /// Appends a step, forgetting the oldest where the log is full, and returns its id.
    pub fn push(&self, step: StepRecord) -> u64 {
        let mut ring = self.lock();
        if ring.steps.len() == self.capacity {
            ring.steps.pop_front();
            ring.first += 1;
        }
        ring.steps.push_back(step);
        ring.first + ring.steps.len() as u64 - 1
    }

    /// Up to [`PAGE`] steps from id `since` on.
    #[must_use]
    pub fn since(&self, since: u64) -> StepPage {
        let ring = self.lock();
        let end = ring.first + ring.steps.len() as u64;
        let from = since.clamp(ring.first, end);
        let skipped = (from - ring.first) as usize;
        let page = ring.steps.iter().skip(skipped).take(PAGE);
        let steps: Vec<_> = (from..)
            .zip(page)
            .map(|(id, record)| Numbered {
                id,
                record: *record,
            })
            .collect();
        StepPage {
            clock: "CLOCK_MONOTONIC",
            next: from + steps.len() as u64,
            dropped: ring.first.saturating_sub(since),
            steps,
        }
    }

    /// Tokens decoded per second over the last `n` steps, pauses included; 0 before the first.
    #[must_use]
    pub fn decode_throughput(&self, n: usize) -> f64 {
        let ring = self.lock();
        let last = ring.steps.range(ring.steps.len().saturating_sub(n)..);
        let decodes = || last.clone().filter(|step| step.phase == Phase::Decode);
        let (Some(first), Some(end)) = (decodes().next(), decodes().next_back()) else {
            return 0.0;
        };
        let n_tokens: u64 = decodes().map(|step| u64::from(step.n_sampled)).sum();
        let ns = (end.start.0 + end.duration_ns + end.sampling_ns).saturating_sub(first.start.0);
        n_tokens as f64 / (ns.max(1) as f64 / 1e9)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Both critical sections leave the ring whole at every point where they might panic.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n_tokens: u32) -> StepRecord {
        StepRecord {
            phase: Phase::Decode,
            n_sequences: 1,
            n_tokens,
            context_tokens: 9,
            n_sampled: 2,
            n_retracted: 0,
            start: Nanos(u64::from(n_tokens) * 1_000_000_000),
            duration_ns: 600_000_000,
            operation_ns: [1, 2, 3, 4, 5, 6, 7],
            sampling_ns: 400_000_000,
            scheduling_ns: 8,
            late_ns: 9,
        }
    }

    #[test]
    fn pages_follow_each_other_and_losses_are_counted() {
        let log = StepLog::new(4);
        assert_eq!(log.since(0).next, 0);
        assert_eq!((0..6).map(|n| log.push(step(n))).last(), Some(5));
        let page = log.since(0);
        let ids: Vec<u64> = page.steps.iter().map(|step| step.id).collect();
        assert_eq!((ids, page.next, page.dropped), (vec![2, 3, 4, 5], 6, 2));
        let page = log.since(5);
        assert_eq!((page.steps.len(), page.next, page.dropped), (1, 6, 0));
        let ahead = log.since(99);
        assert_eq!((ahead.steps.len(), ahead.next, ahead.dropped), (0, 6, 0));
    }

    #[test]
    fn a_step_names_its_operations() {
        let log = StepLog::new(4);
        log.push(step(0));
        let page = serde_json::to_value(log.since(0)).unwrap();
        assert_eq!(page["steps"][0]["phase"], "decode");
        assert_eq!(page["steps"][0]["operations_ns"]["attention"], 5);
        assert_eq!(page["steps"][0]["start_ns"], 0);
    }

    #[test]
    fn throughput_counts_sampled_tokens_over_the_time_they_took() {
        let log = StepLog::new(8);
        assert_eq!(log.decode_throughput(4), 0.0);
        for n in 0..4 {
            log.push(step(n));
        }
        assert!((log.decode_throughput(4) - 2.0).abs() < 1e-9);
    }
}
