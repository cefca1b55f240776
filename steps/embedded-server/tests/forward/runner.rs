//! Sequences and their blocks over an executor: the least that a scheduler does.

use crate::models::Random;
use embedded_server::executor::cpu::{CpuExecutor, CpuOptions};
use embedded_server::executor::{Batch, BlockId, Executor, Phase, SequenceChunk};
use embedded_server::model::Weights;
use std::num::NonZeroUsize;

/// A sequence and how much of it lies in the cache.
#[derive(Clone)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    pub(crate) n_computed: usize,
    pub(crate) blocks: Vec<BlockId>,
}

/// An executor and its free blocks, in shuffled order.
pub(crate) struct Runner {
    pub(crate) executor: CpuExecutor,
    free: Vec<BlockId>,
    block_tokens: usize,
}

impl Runner {
    pub(crate) fn new(weights: Weights, block_tokens: usize, n_threads: usize) -> Self {
        let threads = NonZeroUsize::new(n_threads).expect("threads");
        let options = CpuOptions {
            cache_tokens: 1024,
            block_tokens,
            host_blocks: 0,
            threads,
        };
        let config = weights.config().clone();
        let executor = CpuExecutor::new(config, weights, options).expect("an executor");
        let mut free: Vec<_> = (0..executor.cache_shape().n_blocks).map(BlockId).collect();
        let mut random = Random::new("blocks");
        for i in (1..free.len()).rev() {
            free.swap(i, random.below(i + 1));
        }
        Runner {
            executor,
            free,
            block_tokens,
        }
    }

    /// A new sequence with room for `room` tokens.
    pub(crate) fn sequence(&mut self, tokens: &[u32], room: usize) -> Sequence {
        let n_blocks = room.div_ceil(self.block_tokens);
        let blocks = self.free.split_off(self.free.len() - n_blocks);
        Sequence {
            tokens: tokens.to_vec(),
            n_computed: 0,
            blocks,
        }
    }

    /// Gives a sequence's blocks back, to be handed out again first.
    pub(crate) fn finish(&mut self, sequence: Sequence) {
        self.free.extend(sequence.blocks);
    }

    /// Computes the next `n` tokens of each sequence in one step; the logits after each.
    pub(crate) fn step(&mut self, work: &mut [(&mut Sequence, usize)]) -> Vec<Vec<f32>> {
        let chunk = |(sequence, n): &(&mut Sequence, usize)| {
            let Sequence { n_computed, .. } = **sequence;
            (n_computed, n_computed + n)
        };
        let ranges: Vec<_> = work.iter().map(chunk).collect();
        let sequences = work
            .iter()
            .zip(&ranges)
            .map(|((sequence, _), &(start, end))| SequenceChunk {
                tokens: &sequence.tokens[start..end],
                position: start,
                blocks: &sequence.blocks,
                wants_logits: true,
            });
        let phase = if work.iter().all(|(_, n)| *n == 1) {
            Phase::Decode
        } else {
            Phase::Prefill
        };
        let batch = Batch {
            phase,
            sequences: sequences.collect(),
        };
        let vocab_size = self.executor.vocab_size();
        let output = self.executor.step(&batch).expect("a sound batch");
        let logits = output
            .logits
            .chunks(vocab_size)
            .map(<[f32]>::to_vec)
            .collect();
        for ((sequence, _), (_, end)) in work.iter_mut().zip(ranges) {
            sequence.n_computed = end;
        }
        logits
    }

    /// Computes all of `tokens` alone, `chunk` tokens at a time; the last logits.
    pub(crate) fn alone(&mut self, tokens: &[u32], chunk: usize) -> Vec<f32> {
        let mut sequence = self.sequence(tokens, tokens.len());
        let mut last = Vec::new();
        while sequence.n_computed < tokens.len() {
            let n = chunk.min(tokens.len() - sequence.n_computed);
            last = self.step(&mut [(&mut sequence, n)]).remove(0);
        }
        self.finish(sequence);
        last
    }
}

/// A prompt of `n` tokens.
pub(crate) fn prompt(name: &str, n: usize, vocab_size: usize) -> Vec<u32> {
    let mut random = Random::new(name);
    (0..n).map(|_| random.below(vocab_size) as u32).collect()
}
