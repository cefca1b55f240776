//! The executor that computes nothing: every step takes the time that a simple model says.
//!
//! A prefill takes so long per token that it computes, a decode so long whatever runs. What comes
//! out is a token that follows from the last one and its position, so that an answer depends on its
//! prompt alone, as a model's does. Queue, cache and batching above it are the real ones; it says
//! how they behave, not how fast any hardware is.

use std::time::Duration;

use super::{Batch, CacheShape, Executor, Phase, StepError, StepOutput};
use crate::clock::{Clock, MonotonicClock};

/// A logit beside which no other is ever sampled.
const CERTAIN: f32 = 1000.0;

/// The sizes and times of a model that nobody computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimOptions {
    /// Token ids.
    pub vocab_size: usize,
    /// The cache that it would have.
    pub shape: CacheShape,
    /// Blocks of host memory behind it.
    pub host_blocks: u32,
    /// Time per token of a prefill.
    pub prefill_token: Duration,
    /// Time of a decode step.
    pub decode_step: Duration,
}

/// Waits instead of computing.
#[derive(Debug)]
pub struct SimExecutor {
    options: SimOptions,
    /// Zeros but where the last step's tokens are.
    logits: Vec<f32>,
    certain: Vec<usize>,
}

impl SimExecutor {
    /// An executor of that model.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        SimExecutor {
            options,
            logits: Vec::new(),
            certain: Vec::new(),
        }
    }

    fn duration(&self, batch: &Batch<'_>) -> Duration {
        let n_tokens: usize = batch.sequences.iter().map(|one| one.tokens.len()).sum();
        let n_tokens = u32::try_from(n_tokens).unwrap_or(u32::MAX);
        match batch.phase {
            Phase::Prefill => self.options.prefill_token.saturating_mul(n_tokens),
            Phase::Decode => self.options.decode_step,
        }
    }

    /// Writes one row of logits per sequence that wants them.
    fn write_logits(&mut self, batch: &Batch<'_>) -> usize {
        for at in self.certain.drain(..) {
            self.logits[at] = 0.0;
        }
        let vocab_size = self.options.vocab_size;
        let wanted = batch.sequences.iter().filter(|one| one.wants_logits);
        let mut n_rows = 0;
        for sequence in wanted {
            let (last, position) = (sequence.tokens.last(), sequence.position);
            let position = position + sequence.tokens.len();
            let mixed = (u64::from(*last.unwrap_or(&0)) << 32 | position as u64)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let row = n_rows * vocab_size;
            self.logits
                .resize((row + vocab_size).max(self.logits.len()), 0.0);
            self.certain.push(row + (mixed >> 33) as usize % vocab_size);
            n_rows += 1;
        }
        for at in &self.certain {
            self.logits[*at] = CERTAIN;
        }
        n_rows
    }
}

impl Executor for SimExecutor {
    fn name(&self) -> &'static str {
        "sim-steps"
    }

    fn vocab_size(&self) -> usize {
        self.options.vocab_size
    }

    fn cache_shape(&self) -> CacheShape {
        self.options.shape
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<StepOutput<'_>, StepError> {
        let began = MonotonicClock.now();
        if batch.sequences.iter().any(|one| one.tokens.is_empty()) || batch.sequences.is_empty() {
            return Err(StepError::Empty);
        }
        let took = self.duration(batch);
        let n_rows = self.write_logits(batch);
        MonotonicClock.sleep_until(began.after(took));
        Ok(StepOutput {
            logits: &self.logits[..n_rows * self.options.vocab_size],
            // None is computed.
            operations: Vec::new(),
        })
    }

    fn n_host_blocks(&self) -> u32 {
        self.options.host_blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::SequenceChunk;

    fn executor() -> SimExecutor {
        SimExecutor::new(SimOptions {
            vocab_size: 50,
            shape: CacheShape {
                n_blocks: 4,
                block_tokens: 4,
                bytes_per_token: 1,
            },
            host_blocks: 0,
            prefill_token: Duration::from_micros(100),
            decode_step: Duration::from_micros(300),
        })
    }

    /// The tokens that a step ends with, and how long it says it took.
    fn step(
        executor: &mut SimExecutor,
        phase: Phase,
        chunks: &[(&[u32], usize)],
    ) -> (Vec<usize>, Duration) {
        let chunk = |&(tokens, position)| SequenceChunk {
            tokens,
            position,
            blocks: &[],
            wants_logits: true,
        };
        let sequences = chunks.iter().map(chunk).collect();
        let batch = Batch { phase, sequences };
        let took = executor.duration(&batch);
        let output = executor.step(&batch).unwrap();
        let certain = |row: &[f32]| row.iter().position(|logit| *logit == CERTAIN).unwrap();
        let rows = output.logits.chunks(50);
        let is_single = |row: &[f32]| row.iter().filter(|logit| **logit != 0.0).count() == 1;
        assert!(rows.clone().all(is_single));
        (rows.map(certain).collect(), took)
    }

    #[test]
    fn a_prefill_costs_its_tokens_and_a_decode_the_same_whatever_runs() {
        let mut executor = executor();
        let began = std::time::Instant::now();
        let (_, took) = step(
            &mut executor,
            Phase::Prefill,
            &[(&[1, 2, 3], 0), (&[4, 5], 8)],
        );
        assert_eq!(took, Duration::from_micros(500));
        assert!(began.elapsed() >= took);
        let (_, took) = step(&mut executor, Phase::Decode, &[(&[1], 9), (&[2], 3)]);
        assert_eq!(took, Duration::from_micros(300));
    }

    #[test]
    fn a_token_follows_from_the_last_one_and_its_position() {
        let mut executor = executor();
        let together = step(&mut executor, Phase::Decode, &[(&[7], 9), (&[8], 9)]).0;
        let alone = step(&mut executor, Phase::Decode, &[(&[8], 9)]).0;
        let in_a_prompt = step(&mut executor, Phase::Prefill, &[(&[1, 2, 8], 7)]).0;
        assert_eq!((together[1], alone[0]), (alone[0], in_a_prompt[0]));
    }
}
