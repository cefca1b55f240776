//! From a model folder to something that can be served.
//!
//! Files are checked cheapest first, and memory is checked before any is taken.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use crate::device_profile::{DeviceProfile, DeviceTimes};
use crate::engine::Pace;
use crate::executor::cpu::{CpuExecutor, CpuOptions};
use crate::executor::sim::{ModelFigures, SimExecutor, SimOptions, StepTimes};
use crate::executor::{CacheShape, Executor};
use crate::memory;
use crate::model::{LoadFormat as WeightSource, ModelConfig, Weights};
use crate::options::{ExecutorKind, LoadFormat, ModelSize, ServerOptions};
use crate::server::ServeError;
use crate::tokenizer::Tokenizer;

/// Words that a server without a model folder knows.
const GENERATED_VOCABULARY: usize = 32_000;
/// Prompt and output of one request where nothing else limits them, tokens.
const SIM_CONTEXT: usize = 1 << 20;
/// Blocks of a simulated cache, and of the host memory behind it: books are kept of each, and no load fills more.
const MOST_SIM_BLOCKS: usize = 1 << 22;
/// Bytes of keys and values per token of a simulated model that has no configuration.
const SIM_BYTES_PER_TOKEN: u64 = 128 << 10;
/// Bytes per weight, key or value of a simulated model, where no device says otherwise.
const SIM_BYTES_PER_VALUE: u64 = 2;
/// Bytes per weight, key or value: the executor computes in single precision.
const BYTES_PER_VALUE: u64 = 4;

/// Where tokens come from.
pub enum Computing {
    /// They come step by step, from a model or from one that is simulated.
    Model(Box<dyn Executor>),
    /// Nobody does: they are told at stated instants.
    Paced(Pace),
}

impl Computing {
    /// Its name in records and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Computing::Model(executor) => executor.name(),
            Computing::Paced(_) => "sim",
        }
    }
}

/// A model ready to be served.
pub struct LoadedModel {
    /// The name that requests ask for.
    pub name: String,
    /// Computes it.
    pub computing: Computing,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// Positions that it supports, at least one.
    pub max_positions: usize,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel")
            .field("computing", &self.computing.name())
            .field("tokenizer", &self.tokenizer)
            .field("max_positions", &self.max_positions)
            .finish()
    }
}

/// Loads the models that `options` name onto the CPU, each with the cache that it would have on a
/// device of its own. Blocks: for seconds, with large weights.
///
/// # Errors
/// [`ServeError`], naming the file or the option that has to change.
pub fn load(options: &ServerOptions) -> Result<Vec<LoadedModel>, ServeError> {
    let each = options.clone().with_device()?.each();
    each.iter().map(|(options, _)| load_one(options)).collect()
}

fn load_one(options: &ServerOptions) -> Result<LoadedModel, ServeError> {
    match options.executor {
        ExecutorKind::Cpu => load_model(options),
        ExecutorKind::Sim => load_sim(options),
    }
}

/// A simulation needs no model; of a folder it reads the tokenizer, and for steps the configuration.
fn load_sim(options: &ServerOptions) -> Result<LoadedModel, ServeError> {
    let folder = Some(options.model_path.as_path()).filter(|path| !path.as_os_str().is_empty());
    let tokenizer = match folder {
        None => Tokenizer::of_words(GENERATED_VOCABULARY)?,
        Some(folder) => Tokenizer::load(folder)?,
    };
    let mut max_positions = options.context_length.unwrap_or(SIM_CONTEXT);
    let computing = if options.sim_steps {
        let simulated = Simulated::of(options, folder)?;
        max_positions = simulated.max_positions(options);
        let executor = simulated.executor(options, tokenizer.vocab_size(), max_positions)?;
        Computing::Model(Box::new(executor))
    } else {
        let first = milliseconds("sim_ttft_ms", options.sim_ttft_ms)?;
        let each = milliseconds("sim_tpot_ms", options.sim_tpot_ms)?;
        Computing::Paced(Pace { first, each })
    };
    Ok(LoadedModel {
        name: options.model_name(),
        computing,
        tokenizer,
        max_positions,
    })
}

/// What is known of a model that is simulated, and of the device that it is simulated on.
struct Simulated {
    device: Option<DeviceProfile>,
    config: Option<ModelConfig>,
    bytes_per_token: u64,
    weight_bytes: u64,
}

impl Simulated {
    fn of(options: &ServerOptions, folder: Option<&Path>) -> Result<Self, ServeError> {
        let device = options.device()?;
        let dtype_bytes = match &device {
            Some(device) => device.dtype_bytes,
            None => SIM_BYTES_PER_VALUE,
        };
        let reads_config = |folder: &&Path| wants_config(options, device.as_ref(), folder);
        let config = folder.filter(reads_config).map(ModelConfig::from_dir);
        let config = config.transpose()?;
        let known = config.as_ref();
        let bytes_per_token = options
            .sim_bytes_per_token
            .or_else(|| known.map(|config| config.key_value_bytes_per_token(dtype_bytes)));
        let weight_bytes = options
            .sim_weight_bytes
            .or_else(|| known.map(|config| config.parameter_bytes(dtype_bytes)));
        Ok(Simulated {
            bytes_per_token: bytes_per_token.unwrap_or(SIM_BYTES_PER_TOKEN),
            weight_bytes: weight_bytes.unwrap_or(0),
            device,
            config,
        })
    }

    /// The model's, on a device; as many as anybody asks for where times are stated.
    fn max_positions(&self, options: &ServerOptions) -> usize {
        let own = self.config.as_ref().filter(|_| self.device.is_some());
        let own = own.map(|config| config.max_position_embeddings);
        own.unwrap_or(options.context_length.unwrap_or(SIM_CONTEXT))
    }

    fn times(&self, options: &ServerOptions) -> Result<StepTimes, ServeError> {
        let Some(device) = &self.device else {
            let prefill_us = options.sim_prefill_us;
            let given = format_args!("{prefill_us} µs");
            return Ok(StepTimes::Linear {
                prefill_token: span("sim_prefill_us", prefill_us / 1e6, given)?,
                decode_step: milliseconds("sim_tpot_ms", options.sim_tpot_ms)?,
            });
        };
        match (device.times, &self.config) {
            (DeviceTimes::Fitted(fitted), _) => Ok(StepTimes::Fitted(fitted)),
            (DeviceTimes::Roofline(roofline), Some(config)) => {
                let (dtype_bytes, kv_bytes) = (device.dtype_bytes, self.bytes_per_token);
                let mut model = ModelFigures::of(config, dtype_bytes, kv_bytes);
                if let Some(bytes) = options.sim_weight_bytes {
                    model.read_bytes = bytes;
                }
                let device = roofline;
                Ok(StepTimes::Roofline { device, model })
            }
            (DeviceTimes::Roofline(_), None) => Err(ServeError::Option {
                name: "device_profile",
                problem: format!(
                    "`{}` says what a device computes per second, and without a model nothing says \
                     what there is to compute; give `model_path`",
                    device.name
                ),
            }),
        }
    }

    fn executor(
        &self,
        options: &ServerOptions,
        vocab_size: usize,
        max_positions: usize,
    ) -> Result<SimExecutor, ServeError> {
        let bytes_per_token = self.bytes_per_token;
        let cache_tokens = options.cache_tokens_for(ModelSize {
            context_length: options.context_for(max_positions)?,
            bytes_per_token,
            weight_bytes: self.weight_bytes,
        })?;
        let n_blocks = (cache_tokens / options.block_tokens).min(MOST_SIM_BLOCKS);
        let block_bytes = bytes_per_token.saturating_mul(options.block_tokens as u64);
        // Both are numbers of things that this process keeps books on.
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(SimExecutor::new(SimOptions {
            vocab_size,
            shape: CacheShape {
                n_blocks: small(n_blocks),
                block_tokens: small(options.block_tokens),
                bytes_per_token,
            },
            host_blocks: options
                .host_blocks_for(n_blocks, block_bytes)?
                .min(small(MOST_SIM_BLOCKS)),
            weight_bytes: self.weight_bytes,
            times: self.times(options)?,
        }))
    }
}

/// Whether the configuration in a folder is needed: for times, or for sizes if there is one.
fn wants_config(options: &ServerOptions, device: Option<&DeviceProfile>, folder: &Path) -> bool {
    let for_times = device.is_some_and(|d| matches!(d.times, DeviceTimes::Roofline(_)));
    let has_sizes = options.sim_bytes_per_token.is_some() && options.sim_weight_bytes.is_some();
    for_times || !has_sizes && folder.join("config.json").exists()
}

fn milliseconds(name: &'static str, ms: f64) -> Result<Duration, ServeError> {
    span(name, ms / 1e3, format_args!("{ms} ms"))
}

fn span(
    name: &'static str,
    seconds: f64,
    given: std::fmt::Arguments<'_>,
) -> Result<Duration, ServeError> {
    Duration::try_from_secs_f64(seconds).map_err(|_| ServeError::Option {
        name,
        problem: format!("{given} is not a span of time"),
    })
}

fn load_model(options: &ServerOptions) -> Result<LoadedModel, ServeError> {
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
    let cache_tokens = options.cache_tokens_for(ModelSize {
        context_length,
        bytes_per_token,
        weight_bytes: config.parameter_bytes(BYTES_PER_VALUE),
    })?;
    let n_blocks = cache_tokens / options.block_tokens;
    let block_bytes = bytes_per_token * options.block_tokens as u64;
    let host_blocks = options.host_blocks_for(n_blocks, block_bytes)?;
    // Where models come and go, their weights are copied: for a moment they are there twice.
    let n_copies = if options.models.is_empty() { 1 } else { 2 };
    let weight_bytes = config.parameter_bytes(BYTES_PER_VALUE);
    check_memory(
        weight_bytes.saturating_mul(n_copies),
        (n_blocks as u64 + u64::from(host_blocks)).saturating_mul(block_bytes),
        memory::available_bytes(),
    )?;
    let weights = Weights::load(&config, &weight_source(options, folder))?;
    let cpu = CpuOptions {
        cache_tokens,
        block_tokens: options.block_tokens,
        host_blocks,
        // `ServerOptions::check` refuses 0.
        threads: NonZeroUsize::new(options.threads).unwrap_or(NonZeroUsize::MIN),
    };
    let executor: Box<dyn Executor> = Box::new(CpuExecutor::new(config, weights, cpu)?);
    Ok(LoadedModel {
        name: options.model_name(),
        computing: Computing::Model(executor),
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
    weight_bytes: u64,
    cache_bytes: u64,
    available: Option<u64>,
) -> Result<(), ServeError> {
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
