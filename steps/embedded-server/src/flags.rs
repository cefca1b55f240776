//! What a server is told on a command line, and what it means.
//!
//! Flags that SGLang has too are spelled as there. Both the command that serves and steps that play a server
//! in made-up time read them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};

use crate::cache::WritePolicy;
use crate::faults::Fault;
use crate::options::{ExecutorKind, LoadFormat, ModelOptions, ServerOptions};
use crate::scheduler::Policy;
use crate::swapping::{Rules, SwapPolicy};

/// The share of the device that several models get together unless they are told otherwise.
const MEMORY_OF_SEVERAL: f64 = 0.88;

/// Flags that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FlagError {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl FlagError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        FlagError {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// The flags of a server.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// Folder with config.json, tokenizer.json and, unless they are made up, the weights; `sim`
    /// reads no weights, and without a folder makes a tokenizer up
    #[arg(
        long,
        visible_alias = "model",
        value_name = "DIR",
        required_unless_present_any = ["executor", "model_paths"]
    )]
    model_path: Option<PathBuf>,
    /// Folders of several models, which share the device
    #[arg(
        long,
        value_name = "DIR",
        num_args = 1..,
        conflicts_with_all = ["model_path", "served_model_name", "mem_fraction_static"]
    )]
    model_paths: Vec<PathBuf>,
    /// With `--model-paths`: the names that requests ask for [default: the folders' names]
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "model_paths")]
    served_model_names: Vec<String>,
    /// With `--model-paths`: what each model gets of the device's memory, of what those before it leave
    /// where it begins there [default: 0.88 / models that follow, itself included]
    #[arg(long, value_name = "SHARE", num_args = 1.., requires = "model_paths")]
    mem_fraction_statics: Vec<f64>,
    /// With `--model-paths`: the models that begin on the device [default: all]
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "model_paths")]
    init_scheduled_models: Vec<String>,
    /// When models leave the device: `baseline`, where another needs the room, or `enhanced`, also
    /// when idle
    #[arg(long, value_name = "POLICY", default_value = "baseline", value_parser = swap_policy)]
    swap_policy: SwapPolicy,
    /// With `--swap-policy enhanced`: seconds without a request before a model leaves
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    inactivate_threshold: Duration,
    /// Requests that wait for a model before another leaves for it
    #[arg(long, value_name = "N", default_value_t = 10)]
    swap_queue_threshold: usize,
    /// Seconds before the objective of the first waiting request at which its model is brought
    #[arg(long, value_name = "SECONDS", default_value = "100", value_parser = seconds)]
    swap_lead: Duration,
    /// Seconds for which a model stays at least before it leaves for another
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    swap_quantum: Duration,
    /// Seconds between decisions
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = seconds)]
    swap_period: Duration,
    /// Make weights come and go as at so many GB/s [default: as long as it takes; with `sim`, no time]
    #[arg(long, value_name = "GB/S")]
    swap_bandwidth: Option<f64>,
    /// Break requests off, with status 408, that wait and would miss their objective (the field
    /// `slo`, in seconds)
    #[arg(long)]
    enable_abort: bool,
    /// What tokens come from: `cpu` computes them; `sim` answers every request by itself at a stated
    /// pace, for clients to be measured against
    #[arg(long, value_name = "EXECUTOR", value_parser = executor)]
    executor: Option<ExecutorKind>,
    /// With `sim`: from a request to its first token, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50.0)]
    sim_ttft_ms: f64,
    /// With `sim`: from one token to the next, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    sim_tpot_ms: f64,
    /// With `sim`: queue, cache and batch requests as with a model, each step taking a stated time: a
    /// decode step `--sim-tpot-ms`, a prefill step `--sim-prefill-us` per token that it computes
    #[arg(long)]
    sim_steps: bool,
    /// With `--sim-steps`: per prompt token that is computed, microseconds
    #[arg(long, value_name = "US", default_value_t = 200.0)]
    sim_prefill_us: f64,
    /// With `--sim-steps`: bytes of keys and values per token [default: the model's, or 131072
    /// without one]
    #[arg(long, value_name = "BYTES")]
    sim_bytes_per_token: Option<u64>,
    /// With `--sim-steps`: size of the weights, such as `14GiB` [default: the model's, or none
    /// without one]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    sim_weights: Option<u64>,
    /// The device that stands behind the server, `l4`, `a100-40g`, `h100`, `h200` or `tiny-cpu`, or
    /// a file: its memory and the rate of its copies count where none are given, and `sim` takes
    /// steps as long as they would take there
    #[arg(long, value_name = "NAME|FILE")]
    device_profile: Option<String>,
    /// Write to this file, for every answer, when it was received, scheduled and sent, token by token
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Do something wrong on purpose, several times if wanted: `stall=SHARE:DURATION`, `reset=SHARE`,
    /// `error=SHARE`, `429=SHARE`, `503=SHARE`, `split=BYTES`, `merge=EVENTS`, `tokens=N`, `no_done`,
    /// `comments`
    #[arg(long, value_name = "KIND", num_args = 1..)]
    fault: Vec<Fault>,
    /// Decides, with the number of a request, which faults hit it
    #[arg(long, value_name = "N", default_value_t = 0)]
    fault_seed: u64,
    /// The name that requests ask for [default: `default`]
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen at; 0 takes any free one
    #[arg(long, default_value_t = 30000)]
    port: u16,
    /// Where the weights come from; `auto` takes the folder's own, or random ones if it has none
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = load_format)]
    load_format: LoadFormat,
    /// Take prompts with images, each of which stands for so many tokens; none is looked at [default:
    /// they are refused]
    #[arg(long, value_name = "TOKENS")]
    image_tokens: Option<usize>,
    /// Longest prompt and output together, tokens [default: what the model supports]
    #[arg(long, value_name = "TOKENS")]
    context_length: Option<usize>,
    /// Size of the key-value cache, tokens [default: what `--device-memory` leaves for it, or what
    /// `--cache-memory-mib` holds]
    #[arg(long, value_name = "TOKENS")]
    max_total_tokens: Option<usize>,
    /// Memory for the key-value cache, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    cache_memory_mib: u64,
    /// Memory of the device that is accounted for, such as `24GiB`: the cache gets
    /// `--mem-fraction-static` of it less the weights
    #[arg(long, value_name = "SIZE", value_parser = size)]
    device_memory: Option<u64>,
    /// Share of `--device-memory` for weights and cache
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    mem_fraction_static: f64,
    /// Tokens per block of the key-value cache
    #[arg(long, value_name = "TOKENS", default_value_t = 16)]
    page_size: usize,
    /// Requests that run at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_running_requests: usize,
    /// Requests that may wait; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_queued_requests: usize,
    /// Tokens of a prompt that one step computes; -1 never splits a prompt
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 2048,
        allow_negative_numbers = true
    )]
    chunked_prefill_size: i64,
    /// Tokens of one prefill step, beyond which no further prompt joins it
    #[arg(long, value_name = "TOKENS", default_value_t = 16_384)]
    max_prefill_tokens: usize,
    /// Which waiting request goes next: `fcfs`, first come first served, or `lpm`, first what finds
    /// most of its prompt in the cache
    #[arg(long, value_name = "POLICY", default_value = "fcfs", value_parser = schedule_policy)]
    schedule_policy: Policy,
    /// Scales how much output running requests are expected to write: above 1 fewer are admitted,
    /// below 1 more have to be retracted
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    schedule_conservativeness: f64,
    /// Keep nothing in the cache once nobody uses it
    #[arg(long)]
    disable_radix_cache: bool,
    /// Keep prefixes in host memory too, behind the cache
    #[arg(long)]
    enable_hierarchical_cache: bool,
    /// Host memory for prefixes, in sizes of the cache
    #[arg(long, value_name = "RATIO", default_value_t = 2.0)]
    hicache_ratio: f64,
    /// Host memory for prefixes, GB; counts instead of `--hicache-ratio`
    #[arg(long, value_name = "GB")]
    hicache_size: Option<f64>,
    /// When prefixes are copied to host memory: `write_through`, `write_through_selective` (once
    /// they are kept a second time, as a prompt is when its request ends) or `write_back` (once they are evicted)
    #[arg(long, value_name = "POLICY", default_value = "write_through", value_parser = write_policy)]
    hicache_write_policy: WritePolicy,
    /// Make copies to and from host memory take as long as at so many GB/s, each way [default: as
    /// long as they take]
    #[arg(long, value_name = "GB/S")]
    hicache_bandwidth: Option<f64>,
    /// Threads that compute; one leaves the other cores to whoever measures
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Never let a token depend on what else was in its batch, at some cost of speed
    #[arg(long, visible_alias = "enable-deterministic-inference")]
    deterministic: bool,
    /// Start of made-up weights, and of the sampling of requests that name no seed
    #[arg(
        long,
        visible_alias = "random-seed",
        value_name = "N",
        default_value_t = 0
    )]
    seed: u64,
}

impl ServerFlags {
    /// Reads flags as they would stand behind the command.
    ///
    /// # Errors
    /// [`FlagError`], in the words of the command line.
    pub fn read<I: IntoIterator<Item = String>>(flags: I) -> Result<Self, FlagError> {
        #[derive(Parser)]
        #[command(no_binary_name = true, name = "server")]
        struct Alone {
            #[command(flatten)]
            flags: ServerFlags,
        }
        let read = Alone::try_parse_from(flags).map_err(|error| {
            let text = error.to_string();
            FlagError::new(text.trim(), "`benchwright server --help` lists the flags")
        });
        read.map(|alone| alone.flags)
    }

    /// What they mean.
    ///
    /// # Errors
    /// [`FlagError`] for flags that do not go together.
    pub fn options(&self) -> Result<ServerOptions, FlagError> {
        let chunk = match self.chunked_prefill_size {
            -1 => None,
            size => Some(usize::try_from(size).map_err(|_| {
                FlagError::new(
                    format!("`--chunked-prefill-size` is {size}"),
                    "give a number of tokens, or -1 for none",
                )
            })?),
        };
        let executor = self.executor.unwrap_or_default();
        let is_without = self.model_path.is_none() && self.model_paths.is_empty();
        if executor == ExecutorKind::Cpu && is_without {
            return Err(FlagError::new(
                "the executor `cpu` needs a model",
                "give its folder with `--model-path`",
            ));
        }
        let options = ServerOptions {
            model_path: self.model_path.clone().unwrap_or_default(),
            models: self.models()?,
            swap: Rules {
                policy: self.swap_policy,
                queue_threshold: self.swap_queue_threshold,
                lead: self.swap_lead,
                idle: self.inactivate_threshold,
                quantum: self.swap_quantum,
            },
            swap_period: self.swap_period,
            swap_bandwidth: self.swap_bandwidth.map(|gb| gb * 1e9),
            aborts_late: self.enable_abort,
            executor,
            trace: self.trace.clone(),
            faults: self.fault.clone(),
            fault_seed: self.fault_seed,
            served_model_name: self.served_model_name.clone(),
            host: self.host.clone(),
            port: self.port,
            load_format: self.load_format,
            max_total_tokens: self.max_total_tokens,
            cache_memory_bytes: self.cache_memory_mib << 20,
            device_memory_bytes: self.device_memory,
            mem_fraction_static: self.mem_fraction_static,
            block_tokens: self.page_size,
            max_running_requests: self.max_running_requests,
            chunked_prefill_size: chunk,
            max_prefill_tokens: self.max_prefill_tokens,
            image_tokens: self.image_tokens,
            context_length: self.context_length,
            schedule_policy: self.schedule_policy,
            schedule_conservativeness: self.schedule_conservativeness,
            queue_limit: self.max_queued_requests,
            threads: self.threads,
            deterministic: self.deterministic,
            seed: self.seed,
            ..ServerOptions::default()
        };
        Ok(self.with_sim(self.with_cache(options)))
    }

    /// What they mean for a server that waits rather than computes.
    fn with_sim(&self, options: ServerOptions) -> ServerOptions {
        ServerOptions {
            sim_ttft_ms: self.sim_ttft_ms,
            sim_tpot_ms: self.sim_tpot_ms,
            sim_steps: self.sim_steps,
            sim_prefill_us: self.sim_prefill_us,
            sim_bytes_per_token: self.sim_bytes_per_token,
            sim_weight_bytes: self.sim_weights,
            device_profile: self.device_profile.clone(),
            ..options
        }
    }

    /// What they mean for the cache.
    fn with_cache(&self, options: ServerOptions) -> ServerOptions {
        ServerOptions {
            disable_radix_cache: self.disable_radix_cache,
            enable_hierarchical_cache: self.enable_hierarchical_cache,
            hicache_ratio: self.hicache_ratio,
            // One that is no number of bytes holds no block, which is refused when that is known.
            hicache_size_bytes: self.hicache_size.map(|gb| (gb * 1e9) as u64),
            hicache_write_policy: self.hicache_write_policy,
            hicache_bandwidth: self.hicache_bandwidth.map(|gb| gb * 1e9),
            ..options
        }
    }

    /// The models that share the device, where there are several.
    fn models(&self) -> Result<Vec<ModelOptions>, FlagError> {
        let paths = &self.model_paths;
        let n = paths.len();
        let is_complete = |flag: &str, given: usize| match given {
            0 => Ok(()),
            _ if given == n => Ok(()),
            _ => {
                let message = format!("`{flag}` has {given} values for {n} models");
                let help = "give one for each of `--model-paths`, in their order";
                Err(FlagError::new(message, help))
            }
        };
        is_complete("--served-model-names", self.served_model_names.len())?;
        is_complete("--mem-fraction-statics", self.mem_fraction_statics.len())?;
        let name = |at: usize, path: &Path| {
            let folder = || {
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned())
            };
            let given = self.served_model_names.get(at).cloned();
            given
                .or_else(folder)
                .unwrap_or_else(|| path.display().to_string())
        };
        let names: Vec<String> = paths.iter().enumerate().map(|(i, p)| name(i, p)).collect();
        let first = &self.init_scheduled_models;
        // By its name or, as the scripts had it, by its path.
        let is_it =
            |wanted: &str, path: &Path, name: &str| wanted == name || Path::new(wanted) == path;
        let is_known = |wanted: &str| paths.iter().zip(&names).any(|(p, n)| is_it(wanted, p, n));
        if let Some(unknown) = first.iter().find(|wanted| !is_known(wanted)) {
            let message = format!("`--init-scheduled-models` names `{unknown}`");
            let help = format!("the models are `{}`", names.join("`, `"));
            return Err(FlagError::new(message, help));
        }
        let model = |(at, (path, name)): (usize, (&PathBuf, String))| {
            let share = self.mem_fraction_statics.get(at).copied();
            ModelOptions {
                path: path.clone(),
                mem_fraction_static: share.unwrap_or(MEMORY_OF_SEVERAL / (n - at) as f64),
                is_active: first.is_empty()
                    || first.iter().any(|wanted| is_it(wanted, path, &name)),
                name,
            }
        };
        let models = paths.iter().zip(names).enumerate().map(model);
        Ok(models.collect())
    }
}

/// A size such as `24GiB`, in bytes.
///
/// # Errors
/// What would be one.
pub fn size(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("TiB", 40), ("B", 0)];
    let found = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let bytes = found.and_then(|(number, shift)| {
        let number: u64 = number.trim().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    bytes.ok_or_else(|| "expected a size such as `50GiB` or `500MiB`".to_owned())
}

fn executor(text: &str) -> Result<ExecutorKind, String> {
    match text {
        "cpu" => Ok(ExecutorKind::Cpu),
        "sim" => Ok(ExecutorKind::Sim),
        _ => Err("expected `cpu` or `sim`".to_owned()),
    }
}

fn swap_policy(text: &str) -> Result<SwapPolicy, String> {
    match text {
        "baseline" => Ok(SwapPolicy::Baseline),
        "enhanced" => Ok(SwapPolicy::Enhanced),
        _ => Err("expected `baseline` or `enhanced`".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (0.0..=1e6).contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds, at most 1e6".to_owned())
}

fn load_format(text: &str) -> Result<LoadFormat, String> {
    match text {
        "auto" => Ok(LoadFormat::Auto),
        "safetensors" => Ok(LoadFormat::Safetensors),
        "dummy" => Ok(LoadFormat::Dummy),
        "dummy-scaled" => Ok(LoadFormat::DummyScaled),
        _ => Err("expected `auto`, `safetensors`, `dummy` or `dummy-scaled`".to_owned()),
    }
}

fn schedule_policy(text: &str) -> Result<Policy, String> {
    match text {
        "fcfs" => Ok(Policy::Fcfs),
        "lpm" => Ok(Policy::Lpm),
        _ => Err("expected `fcfs` or `lpm`".to_owned()),
    }
}

fn write_policy(text: &str) -> Result<WritePolicy, String> {
    match text {
        "write_through" => Ok(WritePolicy::WriteThrough),
        "write_through_selective" => Ok(WritePolicy::WriteThroughSelective),
        "write_back" => Ok(WritePolicy::WriteBack),
        _ => Err("expected `write_through`, `write_through_selective` or `write_back`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_parse(flags: &[&str]) -> Result<ServerOptions, FlagError> {
        ServerFlags::read(flags.iter().map(|flag| (*flag).to_owned()))?.options()
    }

    fn parse(flags: &[&str]) -> ServerOptions {
        try_parse(&[&["--model-path", "m"], flags].concat()).expect("options")
    }

    #[test]
    fn without_flags_it_is_what_the_server_says() {
        let wanted = ServerOptions {
            model_path: "m".into(),
            port: 30000,
            ..ServerOptions::default()
        };
        assert_eq!(parse(&[]), wanted);
    }

    #[test]
    fn flags_reach_the_options_that_they_name() {
        let options = parse(&[
            "--page-size",
            "32",
            "--chunked-prefill-size",
            "-1",
            "--load-format",
            "dummy",
            "--random-seed",
            "7",
            "--schedule-policy",
            "lpm",
            "--enable-hierarchical-cache",
            "--hicache-write-policy",
            "write_through_selective",
            "--hicache-bandwidth",
            "2",
            "--device-memory",
            "24GiB",
            "--fault",
            "split=7",
            "stall=0.1:2s",
            "--fault",
            "comments",
            "--fault-seed",
            "3",
        ]);
        assert_eq!(options.block_tokens, 32);
        assert_eq!(options.chunked_prefill_size, None);
        assert_eq!(options.load_format, LoadFormat::Dummy);
        assert_eq!(options.seed, 7);
        assert_eq!(options.schedule_policy, Policy::Lpm);
        assert!(options.enable_hierarchical_cache && !options.disable_radix_cache);
        let policy = WritePolicy::WriteThroughSelective;
        assert_eq!(options.hicache_write_policy, policy);
        assert_eq!(options.hicache_bandwidth, Some(2e9));
        assert_eq!(options.device_memory_bytes, Some(24 << 30));
        let faults: Vec<String> = options.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults, ["split=7", "stall=0.1:2s", "comments"]);
        assert_eq!(options.fault_seed, 3);
    }

    #[test]
    fn several_models_have_names_shares_and_those_that_begin() {
        let flags = ["--model-paths", "x/a", "y/b", "--device-memory", "24GiB"];
        let models = try_parse(&flags).expect("options").models;
        let told: Vec<_> = models
            .iter()
            .map(|m| (&*m.name, m.mem_fraction_static, m.is_active))
            .collect();
        assert_eq!(told, [("a", 0.44, true), ("b", 0.88, true)]);
        let more = [
            "--served-model-names",
            "one",
            "two",
            "--mem-fraction-statics",
            "0.8",
            "0.7",
            "--init-scheduled-models",
            "two",
        ];
        let models = try_parse(&[&flags[..], &more].concat())
            .expect("options")
            .models;
        let told: Vec<_> = models
            .iter()
            .map(|m| (&*m.name, m.mem_fraction_static, m.is_active))
            .collect();
        assert_eq!(told, [("one", 0.8, false), ("two", 0.7, true)]);
        for wrong in [
            ["--mem-fraction-statics", "0.5"],
            ["--init-scheduled-models", "c"],
        ] {
            assert!(try_parse(&[&flags[..], &wrong].concat()).is_err());
        }
    }
}
