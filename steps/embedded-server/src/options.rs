//! What a server can be told, and what follows from it for one model.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{HostOptions, Keeping, WritePolicy};
use crate::executor::CacheShape;
use crate::faults::Fault;
use crate::model::has_weights;
use crate::scheduler::{Limits, Policy};
use crate::server::ServeError;
use crate::swapping::Rules;

/// Where a model's weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadFormat {
    /// The folder's own weights if it has any, else as `Dummy`.
    #[default]
    Auto,
    /// The folder's `*.safetensors` files.
    Safetensors,
    /// Seeded numbers within ±0.001: right for timing, but logits nearly tie.
    Dummy,
    /// Seeded numbers with a deviation of 0.02: right where tokens are compared.
    DummyScaled,
}

/// What tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutorKind {
    /// The model, computed on the CPU.
    #[default]
    Cpu,
    /// Nothing: tokens are told at stated times, each request by itself or step by step.
    Sim,
}

/// One of several models that share a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// Its folder.
    pub path: PathBuf,
    /// The name that requests ask for, which no other model has.
    pub name: String,
    /// The share of the device's memory that it gets for weights and cache; of what is free then, where it
    /// is there from the start.
    pub mem_fraction_static: f64,
    /// Whether it is on the device from the start.
    pub is_active: bool,
}

/// Options of a server. Every field has a default but the model's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Folder with `config.json`, `tokenizer.json` and, for `safetensors`, the weights. `sim` reads
    /// no weights; without a folder it makes a tokenizer up.
    pub model_path: PathBuf,
    /// The models where there are several, in the order in which those that begin on the device take
    /// its memory; then neither `model_path` nor `served_model_name` nor `mem_fraction_static` counts.
    pub models: Vec<ModelOptions>,
    /// When models leave the device for each other.
    pub swap: Rules,
    /// How often that is decided, more than 0.
    pub swap_period: Duration,
    /// Bytes per second at which weights come and go; `None`: what the machine does, which is no time
    /// at all with `sim`.
    pub swap_bandwidth: Option<f64>,
    /// Whether a request that waits is broken off once it would miss its objective.
    pub aborts_late: bool,
    /// What tokens come from.
    pub executor: ExecutorKind,
    /// With `sim`: from a request to its first token, milliseconds.
    pub sim_ttft_ms: f64,
    /// With `sim`: from one token to the next, milliseconds.
    pub sim_tpot_ms: f64,
    /// With `sim`: whether requests are queued, cached and batched as with a model, each step taking
    /// a stated time, rather than each answered by itself.
    pub sim_steps: bool,
    /// With `sim_steps`: time per prompt token that is computed, microseconds; a decode step takes
    /// `sim_tpot_ms`.
    pub sim_prefill_us: f64,
    /// With `sim_steps`: bytes of keys and values per token; `None`: those of the model's
    /// configuration, or 128 KiB without one.
    pub sim_bytes_per_token: Option<u64>,
    /// With `sim_steps`: bytes of the weights; `None`: those of the model's configuration, or none
    /// without one.
    pub sim_weight_bytes: Option<u64>,
    /// The device that stands behind the server, by the name of a [`crate::DeviceProfile`] or its
    /// file: what [`ServerOptions::with_device`] takes from it, and the time of `sim`'s steps.
    pub device_profile: Option<String>,
    /// A file that says of every answer what was done when, see [`crate::Trace`].
    pub trace: Option<PathBuf>,
    /// What goes wrong on purpose, each kind at most once.
    pub faults: Vec<Fault>,
    /// Decides with a request's number what hits it.
    pub fault_seed: u64,
    /// The name that requests ask for; `None`: `default`.
    pub served_model_name: Option<String>,
    /// Address to listen at.
    pub host: String,
    /// Port to listen at; 0: any free one.
    pub port: u16,
    /// Where the weights come from.
    pub load_format: LoadFormat,
    /// Tokens of the key-value cache; `None`: what `device_memory_bytes` leaves for it, or what
    /// `cache_memory_bytes` holds.
    pub max_total_tokens: Option<usize>,
    /// Memory for the key-value cache where neither `max_total_tokens` nor `device_memory_bytes`
    /// is given, bytes.
    pub cache_memory_bytes: u64,
    /// Memory of the device that is accounted for, bytes. The cache gets `mem_fraction_static` of
    /// it less the weights, at most `max_total_tokens`.
    pub device_memory_bytes: Option<u64>,
    /// Share of `device_memory_bytes` for weights and cache.
    pub mem_fraction_static: f64,
    /// Tokens per block of the cache.
    pub block_tokens: usize,
    /// Requests that run at once.
    pub max_running_requests: usize,
    /// Tokens of one prefill step; longer prompts are computed in chunks. `None`: never split.
    pub chunked_prefill_size: Option<usize>,
    /// Tokens of one prefill step, beyond which no further prompt joins it.
    pub max_prefill_tokens: usize,
    /// Tokens that each image of a prompt stands for; `None`: prompts with images are refused. No image is
    /// looked at.
    pub image_tokens: Option<usize>,
    /// Prompt and output tokens of one request; `None`: what the model supports.
    pub context_length: Option<usize>,
    /// The order in which waiting requests are admitted.
    pub schedule_policy: Policy,
    /// Scales how much output running requests are expected to write.
    pub schedule_conservativeness: f64,
    /// Whether nothing is kept once nobody uses it.
    pub disable_radix_cache: bool,
    /// Whether prefixes are kept in host memory too.
    pub enable_hierarchical_cache: bool,
    /// Host memory for prefixes, in sizes of the device's cache.
    pub hicache_ratio: f64,
    /// Host memory for prefixes, bytes; counts instead of the ratio.
    pub hicache_size_bytes: Option<u64>,
    /// When prefixes are copied to the host.
    pub hicache_write_policy: WritePolicy,
    /// Bytes per second between device and host, each way; `None`: what the machine does.
    pub hicache_bandwidth: Option<f64>,
    /// Requests that may wait; more are refused with status 429.
    pub queue_limit: usize,
    /// Largest request body, bytes; more is refused with status 413.
    pub max_body_bytes: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Whether a token may not depend on what else was in its batch. The `cpu` executor promises
    /// that always, so this changes nothing there.
    pub deterministic: bool,
    /// Start of dummy weights, and of the sampling of requests that name no seed.
    pub seed: u64,
    /// Flags that were accepted although they mean nothing here; shown in `/server_info`.
    pub ignored_flags: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            model_path: PathBuf::new(),
            models: Vec::new(),
            swap: Rules::default(),
            swap_period: Duration::from_millis(100),
            swap_bandwidth: None,
            aborts_late: false,
            executor: ExecutorKind::default(),
            sim_ttft_ms: 50.0,
            sim_tpot_ms: 10.0,
            sim_steps: false,
            sim_prefill_us: 200.0,
            sim_bytes_per_token: None,
            sim_weight_bytes: None,
            device_profile: None,
            trace: None,
            faults: Vec::new(),
            fault_seed: 0,
            served_model_name: None,
            host: "127.0.0.1".to_owned(),
            port: 0,
            load_format: LoadFormat::default(),
            max_total_tokens: None,
            cache_memory_bytes: 256 << 20,
            device_memory_bytes: None,
            mem_fraction_static: 0.9,
            block_tokens: 16,
            max_running_requests: 64,
            chunked_prefill_size: Some(2048),
            max_prefill_tokens: 16_384,
            image_tokens: None,
            context_length: None,
            schedule_policy: Policy::default(),
            schedule_conservativeness: 1.0,
            disable_radix_cache: false,
            enable_hierarchical_cache: false,
            hicache_ratio: 2.0,
            hicache_size_bytes: None,
            hicache_write_policy: WritePolicy::default(),
            hicache_bandwidth: None,
            queue_limit: 1024,
            max_body_bytes: 32 << 20,
            threads: 1,
            deterministic: false,
            seed: 0,
            ignored_flags: Vec::new(),
        }
    }
}

impl ServerOptions {
    /// The name that requests ask for.
    #[must_use]
    pub fn model_name(&self) -> String {
        self.served_model_name
            .clone()
            .unwrap_or_else(|| "default".to_owned())
    }

    /// The options of each model by itself, and whether it begins on the device.
    #[must_use]
    pub fn each(&self) -> Vec<(ServerOptions, bool)> {
        if self.models.is_empty() {
            return vec![(self.clone(), true)];
        }
        let of = |model: &ModelOptions| {
            let options = ServerOptions {
                model_path: model.path.clone(),
                served_model_name: Some(model.name.clone()),
                mem_fraction_static: model.mem_fraction_static,
                ..self.clone()
            };
            (options, model.is_active)
        };
        self.models.iter().map(of).collect()
    }

    /// Where the weights come from in the end: never [`LoadFormat::Auto`].
    #[must_use]
    pub fn weights(&self) -> LoadFormat {
        match self.load_format {
            LoadFormat::Auto if has_weights(&self.model_path) => LoadFormat::Safetensors,
            LoadFormat::Auto => LoadFormat::Dummy,
            format => format,
        }
    }

    /// The bounds of a step, over host memory of so many blocks.
    #[must_use]
    pub fn limits(&self, n_host_blocks: u32) -> Limits {
        Limits {
            max_running_requests: self.max_running_requests,
            chunked_prefill_size: self.chunked_prefill_size,
            max_prefill_tokens: self.max_prefill_tokens,
            policy: self.schedule_policy,
            conservativeness: self.schedule_conservativeness,
            keeping: match (self.disable_radix_cache, n_host_blocks) {
                (true, _) => Keeping::Nothing,
                (false, 0) => Keeping::Prefixes,
                (false, n_blocks) => Keeping::PrefixesAndHost(HostOptions {
                    n_blocks,
                    policy: self.hicache_write_policy,
                }),
            },
        }
    }

    /// Blocks of host memory behind a cache of `n_blocks`, each of so many bytes.
    ///
    /// # Errors
    /// [`ServeError::Option`] when host memory is wanted and does not hold one block.
    pub fn host_blocks_for(&self, n_blocks: usize, block_bytes: u64) -> Result<u32, ServeError> {
        if !self.enable_hierarchical_cache || self.disable_radix_cache {
            return Ok(0);
        }
        let (name, n_host_blocks) = match self.hicache_size_bytes {
            Some(bytes) => ("hicache_size", bytes / block_bytes.max(1)),
            // Ratios are positive and small: `check` refuses others.
            None => {
                let n_host_blocks = n_blocks as f64 * self.hicache_ratio;
                ("hicache_ratio", n_host_blocks as u64)
            }
        };
        if n_host_blocks == 0 {
            let problem = format!("no block of {block_bytes} bytes fits into that; raise it");
            return Err(wrong(name, problem));
        }
        Ok(u32::try_from(n_host_blocks).unwrap_or(u32::MAX))
    }

    /// Prompt and output tokens of one request, for a model that supports `max_positions`.
    ///
    /// # Errors
    /// [`ServeError::Option`] when more is asked for than the model supports.
    pub fn context_for(&self, max_positions: usize) -> Result<usize, ServeError> {
        match self.context_length {
            Some(asked) if asked > max_positions => Err(wrong(
                "context_length",
                format!("{asked} is more than the {max_positions} positions of the model"),
            )),
            asked => Ok(asked.unwrap_or(max_positions)),
        }
    }

    /// Tokens of the cache, for a model of that size. Always whole blocks.
    ///
    /// # Errors
    /// [`ServeError::Option`] when that is not even one block.
    pub fn cache_tokens_for(&self, size: ModelSize) -> Result<usize, ServeError> {
        let block = self.block_tokens;
        let share = self.mem_fraction_static;
        if let Some(tokens) = self.max_total_tokens.filter(|tokens| *tokens < block) {
            let problem = format!("{tokens} does not hold one block of {block} tokens; raise it");
            return Err(wrong("max_total_tokens", problem));
        }
        let in_bytes = |bytes: u64| bytes / size.bytes_per_token.max(1) / block as u64;
        let (name, value, n_blocks) = match (self.device_memory_bytes, self.max_total_tokens) {
            (None, Some(tokens)) => ("max_total_tokens", tokens as u64, (tokens / block) as u64),
            (None, None) => {
                let useful = self.useful_blocks(size.context_length);
                let n_blocks = in_bytes(self.cache_memory_bytes).min(useful);
                ("cache_memory_bytes", self.cache_memory_bytes, n_blocks)
            }
            (Some(device), asked) => {
                let most = asked.map_or(u64::MAX, |tokens| (tokens / block) as u64);
                let n_blocks = in_bytes(self.ledger(device, size.weight_bytes)).min(most);
                ("device_memory_bytes", device, n_blocks)
            }
        };
        if n_blocks == 0 {
            let less = match name {
                "device_memory_bytes" => {
                    format!(", {share} of it less {} of weights", size.weight_bytes)
                }
                _ => String::new(),
            };
            let problem =
                format!("{value} does not hold one block of {block} tokens{less}; raise it");
            return Err(wrong(name, problem));
        }
        Ok(usize::try_from(n_blocks)
            .unwrap_or(usize::MAX)
            .saturating_mul(block))
    }

    /// Bytes that a device of that size leaves for the cache: its share less the weights.
    fn ledger(&self, device_bytes: u64, weight_bytes: u64) -> u64 {
        let share = (device_bytes as f64 * self.mem_fraction_static) as u64;
        share.saturating_sub(weight_bytes)
    }

    /// Blocks that can be of use: without kept prefixes, what running requests can fill.
    fn useful_blocks(&self, context_length: usize) -> u64 {
        let filled = context_length
            .div_ceil(self.block_tokens)
            .saturating_mul(self.max_running_requests);
        match self.disable_radix_cache {
            true => filled as u64,
            false => u64::MAX,
        }
    }

    /// Checks what can be checked before a model is known.
    ///
    /// # Errors
    /// [`ServeError::Option`], for the first option that is out of its range.
    pub fn check(&self) -> Result<(), ServeError> {
        for (name, value) in [
            ("block_tokens", Some(self.block_tokens)),
            ("max_running_requests", Some(self.max_running_requests)),
            ("chunked_prefill_size", self.chunked_prefill_size),
            ("max_prefill_tokens", Some(self.max_prefill_tokens)),
            ("image_tokens", self.image_tokens),
            ("context_length", self.context_length),
            ("queue_limit", Some(self.queue_limit)),
            ("threads", Some(self.threads)),
            (
                "sim_bytes_per_token",
                self.sim_bytes_per_token
                    .and_then(|n| usize::try_from(n).ok()),
            ),
        ] {
            if value == Some(0) {
                return Err(wrong(name, "found 0, expected at least 1".to_owned()));
            }
        }
        if self.swap_period.is_zero() {
            // It would be a loop that never rests.
            let problem = "found 0 s, expected more";
            return Err(wrong("swap_period", problem.to_owned()));
        }
        self.check_factors()?;
        if let Some(twice) = repeated(&self.faults) {
            let problem = format!(
                "`{}` is given twice; give each kind once",
                twice.kind().name()
            );
            return Err(wrong("fault", problem));
        }
        self.check_models()?;
        if self.enable_hierarchical_cache && self.disable_radix_cache {
            let problem = "the host tier is one of the radix cache; enable one or neither";
            return Err(wrong("enable_hierarchical_cache", problem.to_owned()));
        }
        Ok(())
    }

    /// Checks what several models need.
    fn check_models(&self) -> Result<(), ServeError> {
        if self.models.is_empty() {
            return Ok(());
        }
        if self.device_memory_bytes.is_none() {
            let problem = "missing; several models share a device: say how much memory it has";
            return Err(wrong("device_memory", problem.to_owned()));
        }
        if self.executor == ExecutorKind::Sim && !self.sim_steps {
            let problem = "missing; without steps there is no device for several models to share";
            return Err(wrong("sim_steps", problem.to_owned()));
        }
        for (at, model) in self.models.iter().enumerate() {
            if self.models[..at]
                .iter()
                .any(|other| other.name == model.name)
            {
                let name = &model.name;
                let problem = format!("two models are called `{name}`; name each its own way");
                return Err(wrong("served_model_names", problem));
            }
            let share = model.mem_fraction_static;
            if !(0.001..=1.0).contains(&share) {
                let problem = format!("found {share}, expected at least 0.001, at most 1");
                return Err(wrong("mem_fraction_statics", problem));
            }
        }
        Ok(())
    }

    /// Checks the options that are no whole numbers.
    fn check_factors(&self) -> Result<(), ServeError> {
        for (name, value, least, most) in [
            (
                "mem_fraction_static",
                Some(self.mem_fraction_static),
                0.001,
                1.0,
            ),
            ("hicache_ratio", Some(self.hicache_ratio), 0.001, 1000.0),
            (
                "schedule_conservativeness",
                Some(self.schedule_conservativeness),
                0.001,
                100.0,
            ),
            // In GB/s, as it is given: a slower copy would hold a step up for minutes.
            (
                "hicache_bandwidth",
                self.hicache_bandwidth.map(|bytes_per_s| bytes_per_s / 1e9),
                0.01,
                1e6,
            ),
            (
                "swap_bandwidth",
                self.swap_bandwidth.map(|bytes_per_s| bytes_per_s / 1e9),
                0.001,
                1e6,
            ),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let problem = format!("found {value}, expected at least {least}, at most {most}");
                return Err(wrong(name, problem));
            }
        }
        Ok(())
    }

    /// The unchanging part of `/server_info`.
    pub(crate) fn info(
        &self,
        executor: &str,
        model: &ModelFacts,
        shape: CacheShape,
        n_host_blocks: u32,
    ) -> serde_json::Value {
        let n_tokens = shape.n_blocks as usize * shape.block_tokens as usize;
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "executor": executor,
            "simulated": self.simulated(),
            "model_path": self.model_path,
            "served_model_name": self.model_name(),
            "vocab_size": model.vocab_size,
            "tokenizer_vocab_size": model.tokenizer_vocab_size,
            "context_length": model.context_length,
            "max_total_num_tokens": n_tokens,
            "cache": {
                "n_blocks": shape.n_blocks,
                "block_tokens": shape.block_tokens,
                "total_tokens": n_tokens,
                "bytes_per_token": shape.bytes_per_token,
                "is_prefix_cached": !self.disable_radix_cache && executor != "sim",
                "n_host_blocks": n_host_blocks,
            },
            "options": self,
            "ignored_flags": self.ignored_flags,
        })
    }
}

/// What decides how large a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSize {
    /// Prompt and output tokens of one request.
    pub context_length: usize,
    /// Bytes of keys and values per token, all layers together.
    pub bytes_per_token: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
}

/// Sizes of a loaded model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelFacts {
    pub(crate) vocab_size: usize,
    pub(crate) tokenizer_vocab_size: usize,
    pub(crate) context_length: usize,
}

/// A fault of a kind that stands before it too.
fn repeated(faults: &[Fault]) -> Option<&Fault> {
    let stands_before = |at: usize| {
        let before = faults[..at].iter();
        before
            .map(Fault::kind)
            .any(|kind| kind == faults[at].kind())
    };
    (0..faults.len())
        .find(|at| stands_before(*at))
        .map(|at| &faults[at])
}

fn wrong(name: &'static str, problem: String) -> ServeError {
    ServeError::Option { name, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(context_length: usize, bytes_per_token: u64) -> ModelSize {
        ModelSize {
            context_length,
            bytes_per_token,
            weight_bytes: 1 << 20,
        }
    }

    #[test]
    fn the_cache_is_what_memory_holds_and_what_is_useful() {
        let mut options = ServerOptions {
            cache_memory_bytes: 1 << 20,
            ..ServerOptions::default()
        };
        let tokens = |options: &ServerOptions, size| options.cache_tokens_for(size).unwrap();
        assert_eq!(tokens(&options, size(1 << 20, 1024)), 1024);
        assert_eq!(tokens(&options, size(100, 1)), 1 << 20);
        options.disable_radix_cache = true;
        assert_eq!(tokens(&options, size(100, 1)), 112 * 64);
        options.max_total_tokens = Some(100);
        assert_eq!(tokens(&options, size(4096, 1 << 30)), 96);
    }

    #[test]
    fn a_device_leaves_its_share_less_the_weights() {
        let mut options = ServerOptions {
            device_memory_bytes: Some(4 << 20),
            mem_fraction_static: 0.5,
            ..ServerOptions::default()
        };
        // Half of 4 MiB less 1 MiB of weights.
        let size = size(4096, 1024);
        assert_eq!(options.cache_tokens_for(size).unwrap(), 1024);
        options.max_total_tokens = Some(100);
        assert_eq!(options.cache_tokens_for(size).unwrap(), 96);
        options.mem_fraction_static = 0.25;
        let message = options.cache_tokens_for(size).unwrap_err().to_string();
        assert!(message.contains("`device_memory_bytes`"), "{message}");
    }

    #[test]
    fn a_cache_without_a_block_is_refused_with_the_option_to_change() {
        let asked = ServerOptions {
            max_total_tokens: Some(15),
            ..ServerOptions::default()
        };
        let message = asked.cache_tokens_for(size(4096, 1)).unwrap_err();
        let message = message.to_string();
        assert!(
            message.contains("`max_total_tokens`: 15 does not hold one block"),
            "{message}"
        );
        let message = ServerOptions::default()
            .cache_tokens_for(size(4096, 1 << 40))
            .unwrap_err();
        assert!(message.to_string().contains("cache_memory_bytes"));
    }

    #[test]
    fn factors_out_of_their_range_are_named() {
        for (name, change) in [
            ("mem_fraction_static", 1.5),
            ("hicache_ratio", 0.0),
            ("hicache_bandwidth", 1.0),
            ("schedule_conservativeness", f64::NAN),
        ] {
            let mut options = ServerOptions::default();
            match name {
                "mem_fraction_static" => options.mem_fraction_static = change,
                "hicache_ratio" => options.hicache_ratio = change,
                "hicache_bandwidth" => options.hicache_bandwidth = Some(change),
                _ => options.schedule_conservativeness = change,
            }
            let message = options.check().unwrap_err().to_string();
            assert!(message.contains(&format!("`{name}`: found")), "{message}");
        }
    }

    #[test]
    fn the_host_is_sized_by_ratio_or_by_bytes_and_only_if_enabled() {
        let mut options = ServerOptions::default();
        assert_eq!(options.host_blocks_for(10, 64).unwrap(), 0);
        options.enable_hierarchical_cache = true;
        assert_eq!(options.host_blocks_for(10, 64).unwrap(), 20);
        options.hicache_ratio = 0.05;
        let none = options.host_blocks_for(10, 64).unwrap_err().to_string();
        assert!(
            none.contains("`hicache_ratio`: no block of 64 bytes"),
            "{none}"
        );
        options.hicache_size_bytes = Some(700);
        assert_eq!(options.host_blocks_for(10, 64).unwrap(), 10);
        options.hicache_size_bytes = Some(63);
        let none = options.host_blocks_for(10, 64).unwrap_err().to_string();
        assert!(
            none.contains("`hicache_size`: no block of 64 bytes"),
            "{none}"
        );
        options.disable_radix_cache = true;
        assert!(options.check().is_err());
    }

    #[test]
    fn the_context_is_the_model_s_unless_less_is_asked() {
        let mut options = ServerOptions::default();
        assert_eq!(options.context_for(100).unwrap(), 100);
        options.context_length = Some(50);
        assert_eq!(options.context_for(100).unwrap(), 50);
        options.context_length = Some(101);
        assert!(options.context_for(100).is_err());
    }

    #[test]
    fn weights_are_the_folder_s_own_if_it_has_any() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = ServerOptions {
            model_path: folder.path().to_owned(),
            ..Default::default()
        };
        assert_eq!(options.weights(), LoadFormat::Dummy);
        std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
        assert_eq!(options.weights(), LoadFormat::Safetensors);
        options.load_format = LoadFormat::DummyScaled;
        assert_eq!(options.weights(), LoadFormat::DummyScaled);
    }

    #[test]
    fn a_kind_of_fault_that_is_given_twice_is_named() {
        let mut options = ServerOptions {
            faults: ["split=7", "stall=0.1:2s", "comments"]
                .map(|text| text.parse().unwrap())
                .into(),
            ..ServerOptions::default()
        };
        assert!(options.check().is_ok());
        options.faults.push("split=9".parse().unwrap());
        let message = options.check().unwrap_err().to_string();
        assert!(
            message.contains("`fault`: `split` is given twice"),
            "{message}"
        );
    }

    #[test]
    fn options_survive_json_and_unknown_ones_are_refused() {
        let options = ServerOptions {
            model_path: "m".into(),
            ..ServerOptions::default()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(
            serde_json::from_str::<ServerOptions>(&text).unwrap(),
            options
        );
        assert!(serde_json::from_str::<ServerOptions>(r#"{"tp_size": 2}"#).is_err());
    }

    #[test]
    fn nothing_is_0_that_has_to_be_more() {
        let refused = |change: &dyn Fn(&mut ServerOptions)| {
            let mut options = ServerOptions::default();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        let message = refused(&|options| options.queue_limit = 0);
        assert!(message.contains("`queue_limit`: found 0"), "{message}");
        let message = refused(&|options| options.swap_period = Duration::ZERO);
        assert!(message.contains("`swap_period`: found 0"), "{message}");
    }
}
