//! The executor that computes nothing: every step is to take the time that [`StepTimes`] say.
//!
//! What comes out is a token that follows from the last one and its position, so that an answer
//! depends on its prompt alone, as a model's does. Queue, cache and batching above it are the real
//! ones; how near its times are to those of any hardware is the business of whoever states them.

mod times;

pub use times::{ModelFigures, StepTimes, Work};

use super::{Batch, CacheShape, Direction, Executor, StepError, StepOutput};

/// The sizes and times of a model that nobody computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimOptions {
    /// Token ids.
    pub vocab_size: usize,
    /// The cache that it would have.
    pub shape: CacheShape,
    /// Blocks of host memory behind it.
    pub host_blocks: u32,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// How long its steps take.
    pub times: StepTimes,
}

/// Says how long steps take instead of computing them.
pub struct SimExecutor {
    options: SimOptions,
    /// The last step's tokens.
    certain: Vec<u32>,
}

impl SimExecutor {
    /// An executor of that model.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        SimExecutor {
            options,
            certain: Vec::new(),
        }
    }

    /// Chooses one token per sequence that wants one.
    fn choose(&mut self, batch: &Batch<'_>) {
        let n_ids = u64::try_from(self.options.vocab_size).unwrap_or(1).max(1);
        let wanted = batch.sequences.iter().filter(|one| one.wants_logits);
        self.certain.clear();
        self.certain.extend(wanted.map(|sequence| {
            let last = sequence.tokens.last().copied().unwrap_or(0);
            let position = sequence.position + sequence.tokens.len();
            let mixed =
                (u64::from(last) << 32 | position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            // Ids are numbers of 32 bits.
            ((mixed >> 33) % n_ids) as u32
        }));
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

    fn weight_bytes(&self) -> u64 {
        self.options.weight_bytes
    }

    fn move_weights(&mut self, _: Direction) {}

    fn resize_cache(&mut self, n_blocks: u32) {
        self.options.shape.n_blocks = n_blocks;
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<StepOutput<'_>, StepError> {
        if batch.sequences.iter().any(|one| one.tokens.is_empty()) || batch.sequences.is_empty() {
            return Err(StepError::Empty);
        }
        let takes = self.options.times.of(&Work::of(batch));
        self.choose(batch);
        Ok(StepOutput {
            logits: &[],
            certain: &self.certain,
            // None is computed.
            operations: Vec::new(),
            takes: Some(takes),
        })
    }

    fn states_times(&self) -> bool {
        true
    }

    fn n_host_blocks(&self) -> u32 {
        self.options.host_blocks
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::executor::{Phase, SequenceChunk};

    fn executor() -> SimExecutor {
        SimExecutor::new(SimOptions {
            vocab_size: 50,
            shape: CacheShape {
                n_blocks: 4,
                block_tokens: 4,
                bytes_per_token: 1,
            },
            host_blocks: 0,
            weight_bytes: 0,
            times: StepTimes::Linear {
                prefill_token: Duration::from_micros(100),
                decode_step: Duration::from_micros(300),
            },
        })
    }

    /// The tokens that a step ends with.
    fn step(executor: &mut SimExecutor, phase: Phase, chunks: &[(&[u32], usize)]) -> Vec<u32> {
        let chunk = |&(tokens, position)| SequenceChunk {
            tokens,
            position,
            blocks: &[],
            wants_logits: true,
        };
        let sequences = chunks.iter().map(chunk).collect();
        let output = executor.step(&Batch { phase, sequences }).unwrap();
        assert!(output.certain.iter().all(|id| *id < 50));
        output.certain.to_vec()
    }

    #[test]
    fn a_step_says_how_long_it_takes() {
        let mut executor = executor();
        let chunk = |tokens, position| SequenceChunk {
            tokens,
            position,
            blocks: &[],
            wants_logits: true,
        };
        let sequences = vec![chunk(&[1, 2, 3], 0), chunk(&[4, 5], 8)];
        let phase = Phase::Prefill;
        let output = executor.step(&Batch { phase, sequences }).unwrap();
        assert_eq!(output.takes, Some(Duration::from_micros(500)));
    }

    #[test]
    fn a_token_follows_from_the_last_one_and_its_position() {
        let mut executor = executor();
        let together = step(&mut executor, Phase::Decode, &[(&[7], 9), (&[8], 9)]);
        let alone = step(&mut executor, Phase::Decode, &[(&[8], 9)]);
        let in_a_prompt = step(&mut executor, Phase::Prefill, &[(&[1, 2, 8], 7)]);
        assert_eq!((together[1], alone[0]), (alone[0], in_a_prompt[0]));
    }
}
