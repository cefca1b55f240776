//! From a plan and its times to a line of the step log.

use std::time::Duration;

use crate::clock::Nanos;
use crate::executor::Operation;
use crate::scheduler::StepPlan;
use crate::steplog::{OPERATIONS, StepRecord};

/// What a plan looks like in the log, before it has been timed.
pub(super) fn shape_of(plan: &StepPlan) -> StepRecord {
    let n_tokens: usize = plan.entries.iter().map(|entry| entry.n_tokens).sum();
    let context: usize = plan
        .entries
        .iter()
        .map(|entry| entry.start + entry.n_tokens)
        .sum();
    StepRecord {
        phase: plan.phase,
        n_sequences: plan.entries.len() as u32,
        n_tokens: n_tokens as u32,
        context_tokens: context as u64,
        n_sampled: 0,
        n_retracted: plan.retracted.len() as u32,
        start: Nanos::default(),
        duration_ns: 0,
        operation_ns: [0; OPERATIONS.len()],
        sampling_ns: 0,
        scheduling_ns: 0,
        late_ns: 0,
    }
}

/// Time per class of work, in the order of [`OPERATIONS`].
pub(super) fn operation_ns(operations: &[(Operation, Duration)]) -> [u64; OPERATIONS.len()] {
    OPERATIONS.map(|wanted| {
        let found = operations
            .iter()
            .filter(|(operation, _)| *operation == wanted);
        found.map(|(_, time)| nanos(*time)).sum()
    })
}

/// A duration as the log writes it.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
