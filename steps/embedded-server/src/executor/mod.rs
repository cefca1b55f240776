//! One forward step: what the scheduler asks for and what an executor answers.
//!
//! The scheduler decides *which* tokens of *which* sequences run together and where their
//! keys and values live; an executor only computes. It knows no queue, no request and no clock
//! but the one it times its own operations with.

pub mod cpu;
pub mod sim;

use std::time::Duration;

/// A block of the paged key-value cache: an index in `0..n_blocks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// A block of the host memory behind the cache: an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostBlockId(pub u32);

/// The size of the paged key-value cache that an executor has allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Number of blocks.
    pub n_blocks: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Bytes of keys and values per token, all layers together.
    pub bytes_per_token: u64,
}

/// Which half of inference a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Prompt tokens are computed.
    Prefill,
    /// One new token per running sequence is computed.
    Decode,
}

/// The part of one sequence that a step computes.
#[derive(Debug, Clone, Copy)]
pub struct SequenceChunk<'a> {
    /// Token ids to compute now, `[n_tokens]`, at least one.
    pub tokens: &'a [u32],
    /// How many tokens of this sequence already lie in the cache.
    pub position: usize,
    /// Block table: covers at least `position + tokens.len()` tokens.
    pub blocks: &'a [BlockId],
    /// Whether the logits after the last of `tokens` are wanted.
    pub wants_logits: bool,
}

/// What one step computes.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// Prefill or decode: never mixed.
    pub phase: Phase,
    /// One entry per sequence, `[n_sequences]`.
    pub sequences: Vec<SequenceChunk<'a>>,
}

/// A class of work inside a step, for the phase profile.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Token embedding look-up.
    Embedding,
    /// RMS norms, per-head norms included.
    Norm,
    /// Query, key, value and output projections.
    Projection,
    /// Rotary position embedding and cache write.
    Rotary,
    /// Scores, softmax and weighted values.
    Attention,
    /// Gate, up and down projections and the activation between them.
    Mlp,
    /// The language-model head.
    Head,
}

/// What a step produced.
#[derive(Debug)]
pub struct StepOutput<'a> {
    /// Logits, row-major `[n_wanted, vocab_size]`, in the order of the sequences that wanted them;
    /// none where `certain` has the tokens.
    pub logits: &'a [f32],
    /// The tokens themselves, `[n_wanted]` in the same order, where nothing is computed that they
    /// could be sampled from; else none.
    pub certain: &'a [u32],
    /// Time spent per class of work, each class at most once.
    pub operations: Vec<(Operation, Duration)>,
    /// How long the step is to take, where it was not computed: it is over so long after it began,
    /// and whoever asked for it waits until then.
    pub takes: Option<Duration>,
}

/// Which way blocks are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the cache to host memory.
    ToHost,
    /// From host memory to the cache.
    ToDevice,
}

/// Computes forward steps over a paged key-value cache that it owns.
pub trait Executor: Send {
    /// A short name for records and reports, such as `cpu`.
    fn name(&self) -> &'static str;
    /// Number of token ids.
    fn vocab_size(&self) -> usize;
    /// The cache that was allocated.
    fn cache_shape(&self) -> CacheShape;
    /// Bytes of the weights.
    fn weight_bytes(&self) -> u64;
    /// Copies the weights between device and host memory, and frees where they were: blocks the
    /// calling thread until it is done.
    fn move_weights(&mut self, direction: Direction);
    /// Gives the cache another number of blocks; what it held is gone, on the host too.
    fn resize_cache(&mut self, n_blocks: u32);
    /// Computes one step: blocks the calling thread until it is done.
    ///
    /// # Errors
    /// [`StepError`] when the batch does not fit the model or the cache; nothing is written then.
    fn step(&mut self, batch: &Batch<'_>) -> Result<StepOutput<'_>, StepError>;
    /// Whether it says how long steps [take](StepOutput::takes) instead of computing them.
    fn states_times(&self) -> bool {
        false
    }
    /// Blocks of host memory behind the cache.
    fn n_host_blocks(&self) -> u32 {
        0
    }
    /// Copies blocks between cache and host memory: blocks the calling thread until it is done.
    ///
    /// # Panics
    /// When a block does not exist.
    fn copy(&mut self, _direction: Direction, _pairs: &[(BlockId, HostBlockId)]) {}
}

/// A batch that an executor cannot compute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A token id at or above the vocabulary size.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// A block table that is too short for its sequence, or names a block that does not exist.
    #[error("sequence {sequence} needs {needed} cache slots, its block table has {available}")]
    BlockTable {
        /// Index within the batch.
        sequence: usize,
        /// Slots needed.
        needed: usize,
        /// Slots the table covers.
        available: usize,
    },
    /// A batch or chunk without tokens.
    #[error("an empty batch or an empty chunk was asked for")]
    Empty,
    /// A position beyond what the model supports.
    #[error("position {position} is beyond the model's {max} positions")]
    PositionOutOfRange {
        /// The position.
        position: usize,
        /// `max_position_embeddings`.
        max: usize,
    },
}
