//! From a model folder to something that can be served.
//!
//! Files are checked cheapest first, and memory is checked before any is taken.

use std::num::NonZeroUsize;
use std::path::Path;

use crate::executor::Executor;
use crate::executor::cpu::{CpuExecutor, CpuOptions};
use crate::memory;
use crate::model::{LoadFormat as WeightSource, ModelConfig, Weights};
use crate::options::{LoadFormat, ServerOptions};
use crate::server::ServeError;
use crate::tokenizer::Tokenizer;

/// Bytes per weight, key or value: the executor computes in single precision.
const BYTES_PER_VALUE: u64 = 4;

/// A model ready to be served.
pub struct LoadedModel {
    /// Computes it.
    pub executor: Box<dyn Executor>,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// Positions that it supports, at least one.
    pub max_positions: usize,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel")
            .field("executor", &self.executor.name())
            .field("tokenizer", &self.tokenizer)
            .field("max_positions", &self.max_positions)
            .finish()
    }
}

/// Loads the model that `options` name onto the CPU. Blocks: for seconds, with large weights.
///
/// # Errors
/// [`ServeError`], naming the file or the option that has to change.
pub fn load(options: &ServerOptions) -> Result<LoadedModel, ServeError> {
    let folder = options.model_path.as_path();
    if !folder.is_dir() {
        return Err(ServeError::ModelFolder {
            path: folder.to_owned(),
        });
    }
    let config = ModelConfig::from_dir(folder)?;
    let tokenizer = Tokenizer::load(folder)?;
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(ServeError::VocabularyMismatch {
            tokenizer: tokenizer.vocab_size(),
            model: config.vocab_size,
        });
    }
    let max_positions = config.max_position_embeddings;
    let context_length = options.context_for(max_positions)?;
    let bytes_per_token = config.key_value_bytes_per_token(BYTES_PER_VALUE);
    let cache_tokens = options.cache_tokens_for(context_length, bytes_per_token)?;
    check_memory(
        &config,
        cache_tokens as u64 * bytes_per_token,
        memory::available_bytes(),
    )?;
    let weights = Weights::load(&config, &weight_source(options, folder))?;
    let cpu = CpuOptions {
        cache_tokens,
        block_tokens: options.block_tokens,
        // `ServerOptions::check` refuses 0.
        threads: NonZeroUsize::new(options.threads).unwrap_or(NonZeroUsize::MIN),
    };
    let executor = Box::new(CpuExecutor::new(config, weights, cpu)?);
    Ok(LoadedModel {
        executor,
        tokenizer,
        max_positions,
    })
}

fn weight_source(options: &ServerOptions, folder: &Path) -> WeightSource {
    let seed = options.seed;
    match options.weights() {
        LoadFormat::Safetensors => WeightSource::Safetensors {
            dir: folder.to_owned(),
        },
        LoadFormat::Dummy | LoadFormat::Auto => WeightSource::Dummy { seed },
        LoadFormat::DummyScaled => WeightSource::DummyScaled { seed },
    }
}

fn check_memory(
    config: &ModelConfig,
    cache_bytes: u64,
    available: Option<u64>,
) -> Result<(), ServeError> {
    let weight_bytes = config.parameter_bytes(BYTES_PER_VALUE);
    let needed = weight_bytes.saturating_add(cache_bytes);
    match available {
        Some(available_bytes) if needed > available_bytes => Err(ServeError::NotEnoughMemory {
            weight_bytes,
            cache_bytes,
            available_bytes,
        }),
        _ => Ok(()),
    }
}
