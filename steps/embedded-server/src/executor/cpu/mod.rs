//! The executor that computes on the processor: a packed batch through real weights.
//!
//! Reading order: this file (what a caller sees), `plan` (what a batch asks for, checked),
//! `forward` (the pass), `buffers` (its activations), `host` (memory behind the cache). All sequences of a batch go through each
//! layer together; only attention tells them apart. Results do not depend on what else is in a
//! batch, on how a prompt was chunked, or on the number of threads: see [`crate::kernels`].

mod buffers;
mod forward;
mod host;
mod plan;
mod stopwatch;

use super::{Batch, BlockId, CacheShape, Direction, Executor, HostBlockId, StepError, StepOutput};
use crate::kernels::{Isa, Workers};
use crate::model::{ModelConfig, Weights};
use forward::ForwardPass;
use plan::Limits;
use std::num::NonZeroUsize;

/// How much memory and how many threads a [`CpuExecutor`] uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// Tokens that the key-value cache holds; rounded down to whole blocks.
    pub cache_tokens: usize,
    /// Tokens per block. Any number works; multiples of 16 are fastest.
    pub block_tokens: usize,
    /// Blocks of the host memory behind the cache.
    pub host_blocks: u32,
    /// Threads that compute. One means the thread that calls [`Executor::step`].
    pub threads: NonZeroUsize,
}

/// An executor that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The cache does not hold a single block, or its blocks hold nothing.
    #[error(
        "a cache of {cache_tokens} tokens in blocks of {block_tokens} has no block; \
         blocks need at least one token and the cache at least one block"
    )]
    NoBlocks {
        /// Tokens asked for.
        cache_tokens: usize,
        /// Tokens per block.
        block_tokens: usize,
    },
    /// More blocks than can be numbered.
    #[error(
        "a cache of {n_blocks} blocks has more than the {} that can be numbered",
        u32::MAX
    )]
    TooManyBlocks {
        /// Blocks asked for.
        n_blocks: usize,
    },
    /// The weights were loaded for another configuration.
    #[error("the weights were loaded for another model configuration")]
    OtherConfiguration,
    /// The operating system refused the threads.
    #[error("cannot start the threads that compute")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Computes steps on the processor.
#[derive(Debug)]
pub struct CpuExecutor {
    workers: Workers,
    limits: Limits,
    bytes_per_token: u64,
    pass: ForwardPass,
}

impl CpuExecutor {
    /// Allocates the cache and starts the threads.
    ///
    /// # Errors
    /// [`CpuError`] when the options do not make a cache, the weights belong to another
    /// configuration, or threads cannot be started.
    pub fn new(
        config: ModelConfig,
        weights: Weights,
        options: CpuOptions,
    ) -> Result<Self, CpuError> {
        if *weights.config() != config {
            return Err(CpuError::OtherConfiguration);
        }
        let CpuOptions {
            cache_tokens,
            block_tokens,
            host_blocks,
            threads,
        } = options;
        let n_blocks = cache_tokens.checked_div(block_tokens).unwrap_or(0);
        if n_blocks == 0 {
            return Err(CpuError::NoBlocks {
                cache_tokens,
                block_tokens,
            });
        }
        if u32::try_from(n_blocks).is_err() || u32::try_from(block_tokens).is_err() {
            return Err(CpuError::TooManyBlocks { n_blocks });
        }
        let workers = Workers::new(threads)?;
        let limits = Limits {
            vocab_size: config.vocab_size,
            max_positions: config.max_position_embeddings,
            n_blocks,
            block_tokens,
            host_blocks,
        };
        let bytes_per_token = config.key_value_bytes_per_token(size_of::<f32>() as u64);
        let pass = ForwardPass::new(weights, limits, &workers);
        Ok(CpuExecutor {
            workers,
            limits,
            bytes_per_token,
            pass,
        })
    }

    /// The instruction set that the kernels use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.pass.isa()
    }

    /// Number of threads that compute.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.workers.n_threads()
    }
}

impl Executor for CpuExecutor {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn vocab_size(&self) -> usize {
        self.limits.vocab_size
    }

    fn cache_shape(&self) -> CacheShape {
        // `new` checked that both fit.
        CacheShape {
            n_blocks: self.limits.n_blocks as u32,
            block_tokens: self.limits.block_tokens as u32,
            bytes_per_token: self.bytes_per_token,
        }
    }

    fn weight_bytes(&self) -> u64 {
        self.pass.weight_bytes()
    }

    fn move_weights(&mut self, _: Direction) {
        // Both memories are this machine's.
        self.pass.copy_weights();
    }

    fn resize_cache(&mut self, n_blocks: u32) {
        self.limits.n_blocks = n_blocks as usize;
        self.pass.make_cache(self.limits);
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<StepOutput<'_>, StepError> {
        self.limits.check(batch)?;
        let (workers, pass) = (&self.workers, &mut self.pass);
        let operations = workers.enter(|| pass.run(workers, batch));
        Ok(StepOutput {
            logits: self.pass.logits(),
            certain: &[],
            operations,
            takes: None,
        })
    }

    fn n_host_blocks(&self) -> u32 {
        self.limits.host_blocks
    }

    fn copy(&mut self, direction: Direction, pairs: &[(BlockId, HostBlockId)]) {
        self.pass.copy(direction, pairs);
    }
}
