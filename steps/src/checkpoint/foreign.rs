//! Loaders that are not ours: programs that are started before anything is timed and asked for one load after
//! the other.

use checkpoints::Format;
use engine::step::StepError;
use std::path::Path;
use std::time::Duration;

/// What one load by a program told of itself.
pub(super) struct ForeignLoad {
    /// From the request until every byte was in memory, as this side saw it.
    pub(super) total: Duration,
    /// Parts of it that the program timed itself, by the names of result columns (`read_ms`, `copy_ms`, …).
    pub(super) parts: Vec<(&'static str, Duration)>,
    /// Bytes of tensors that were loaded.
    pub(super) bytes: u64,
    /// Processor time of the program meanwhile.
    pub(super) cpu: Duration,
    /// The most memory that the program held, bytes, if the system tells it.
    pub(super) peak_memory: Option<u64>,
}

/// A program that loads checkpoints.
pub(super) trait Foreign: Send {
    /// Its name in results, with its version: `safetensors 0.8.0`.
    fn name(&self) -> &str;
    /// Whether it reads checkpoints of this format.
    fn reads(&self, format: Format) -> bool;
    /// Whether it copies into memory of its own, so that nothing but the destination holds what was loaded.
    fn loads_into_memory(&self) -> bool;
    /// Loads a checkpoint once, and forgets it before it returns. Blocks, no longer than the limit.
    ///
    /// # Errors
    ///
    /// If the program refuses, dies, or does not answer within `limit`; with what it said.
    fn load(&mut self, folder: &Path, limit: Duration) -> Result<ForeignLoad, StepError>;
}
