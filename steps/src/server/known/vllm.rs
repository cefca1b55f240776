//! `server.vllm`: vLLM from an environment.

use super::applied::Source;
use super::asked::{Asking, Form, Given};
use super::profiler::{Dialect, Profiling, Reach, vllm_config};
use super::ranks::{Follower, Meeting, Ranks};
use super::{Beyond, Nature, USUAL, known_server};
use engine::options::Parser;
use engine::types::{Arguments, Positive};
use engine::value::Table;
use std::num::NonZeroU32;
use std::path::Path;

const VLLM: Nature = Nature {
    name: "vLLM",
    package: "vllm",
    program: &["vllm", "serve"],
    // Without its developer mode it neither empties its cache nor tells what it applied.
    variables: &[("HF_HUB_OFFLINE", "1"), ("VLLM_SERVER_DEV_MODE", "1")],
    version: ("/version", "/version"),
    // The first fails in an environment without pip; the others tell the cache and the longest sequence.
    applied: &[
        Source::Json("/server_info?config_format=json"),
        Source::Labels("vllm:cache_config_info"),
        Source::Models,
    ],
    aliases: &[("scheduling_policy", "policy")],
    // Ranks beside the first have no server.
    follower: Follower::MeetsTheFirst,
    profiling: Profiling::While(Dialect::Vllm),
    ..USUAL
};

/// The flag that describes its profiler.
const PROFILER_CONFIG: &str = "--profiler-config";
/// Where its profiler writes, below the folder of the launch.
const PROFILES: &str = "profiles";

engine::choices! {
    /// Where weights come from and who loads them: all that vLLM 0.32 has.
    pub enum VllmLoadFormat {
        /// The model folder's own weights.
        Auto = "auto",
        /// Random values: right for timing.
        Dummy = "dummy",
        /// The model folder's own safetensors files.
        Safetensors = "safetensors",
        /// The model folder's own weights, never in Mistral's form.
        Hf = "hf",
        /// Files of PyTorch.
        Pt = "pt",
        /// Files of PyTorch, through a cache of numpy files.
        Npcache = "npcache",
        /// The form that Mistral's own files have.
        Mistral = "mistral",
        /// Safetensors files by the package `fastsafetensors`, to a GPU.
        Fastsafetensors = "fastsafetensors",
        /// Safetensors files by the package `instanttensor`, to a GPU.
        Instanttensor = "instanttensor",
        /// Safetensors files by the package `runai_model_streamer`.
        RunaiStreamer = "runai_streamer",
        /// Files that each hold the share of one rank, by the package `runai_model_streamer`.
        RunaiStreamerSharded = "runai_streamer_sharded",
        /// Files that each hold the share of one rank.
        ShardedState = "sharded_state",
        /// Files of the package `tensorizer`.
        Tensorizer = "tensorizer",
        /// From another server or its store, by the package `modelexpress`.
        Modelexpress = "modelexpress",
        /// From another process of this machine that holds them.
        IpcCache = "ipc_cache",
    }
}

engine::choices! {
    /// Which waiting request goes next.
    pub enum VllmPolicy {
        /// First come, first served.
        Fcfs = "fcfs",
        /// By the priority that requests have.
        Priority = "priority",
    }
}

known_server! {
    /// Options of `server.vllm`.
    pub struct ServerVllm {
        /// Where weights come from.
        load_format: Option<VllmLoadFormat>;
        /// Longest sequence, prompt and answer.
        max_model_len: Option<NonZeroU32>, in "tokens";
        /// The share of the GPU's memory that the server takes.
        gpu_memory_utilization: Option<Positive>;
        /// Devices that share each layer.
        tensor_parallel_size: Option<NonZeroU32>, in "devices";
        /// Machines that share the model; `nnodes` among the arguments says the same.
        nodes: NonZeroU32 = NonZeroU32::MIN, in "nodes";
        /// The rank that this machine has, from 0; -1 launches all of them here.
        node_rank: i64 = -1;
        /// Where rank 0 is, `HOST` or `HOST:PORT`, the same for every rank; port 29501 if it names none.
        master: String = String::new();
        /// Tokens per block of the key-value cache.
        block_size: Option<NonZeroU32>, in "tokens";
        /// Which waiting request goes next.
        scheduling_policy: Option<VllmPolicy>;
        /// Whether prefixes stay in the cache.
        enable_prefix_caching: bool = true;
        /// Sequences that may run together.
        max_num_seqs: Option<NonZeroU32>, in "requests";
        /// Tokens that one step computes at most.
        max_num_batched_tokens: Option<NonZeroU32>, in "tokens";
        /// Whether nothing is compiled or captured: a quicker start and slower steps.
        enforce_eager: bool = false;
        /// Whether its profiler can be opened while it serves, which `profile.server` needs: it is launched with
        /// `--profiler-config`.
        profiler: bool = false;
    }
    use "server.vllm", VLLM, 1, "Launches vLLM, and holds it to what was asked of it.";
}

impl ServerVllm {
    fn given(&self) -> Vec<Given> {
        let memory = self.gpu_memory_utilization.map(|Positive(share)| share);
        let valued = [
            Given::valued("served_model_name", self.served_model_name.as_ref()),
            Given::valued("load_format", self.load_format.map(VllmLoadFormat::word)),
            Given::valued("max_model_len", self.max_model_len),
            Given::valued("gpu_memory_utilization", memory),
            Given::valued("tensor_parallel_size", self.tensor_parallel_size),
            Given::valued("block_size", self.block_size),
            Given::valued(
                "scheduling_policy",
                self.scheduling_policy.map(VllmPolicy::word),
            ),
            Given::valued("max_num_seqs", self.max_num_seqs),
            Given::valued("max_num_batched_tokens", self.max_num_batched_tokens),
        ];
        let on = [
            (
                "enable_prefix_caching",
                self.enable_prefix_caching,
                Form::Switch,
            ),
            ("enforce_eager", self.enforce_eager, Form::Bare),
            ("enable_prompt_tokens_details", self.metrics, Form::Bare),
        ];
        let on = on.map(|(name, is_on, form)| Given::on(name, is_on, form));
        valued.into_iter().flatten().chain(on).collect()
    }
}

impl Beyond for ServerVllm {
    fn ranks(&self) -> Option<Ranks<'_>> {
        Some(Ranks {
            nodes: self.nodes,
            node_rank: self.node_rank,
            master: &self.master,
            meeting: Meeting::MasterAddr,
        })
    }

    fn gpus(&self, asking: &Asking<'_>) -> Option<u32> {
        asking.product(&[
            &["tensor_parallel_size", "tp"],
            &["pipeline_parallel_size", "pp"],
            &["data_parallel_size", "dp"],
        ])
    }

    fn words_of_places(&self, folder: &Path) -> Vec<String> {
        if !self.profiler {
            return Vec::new();
        }
        let config = vllm_config(&folder.join(PROFILES)).to_string();
        vec![PROFILER_CONFIG.to_owned(), config]
    }

    fn reach(&self, nature: &Nature, processes: u32, folder: &Path) -> Reach {
        if !self.profiler {
            return Reach::Not {
                why: format!("{} was launched without its profiler", nature.name),
                help: "write `profiler = true` among the options of its service".to_owned(),
            };
        }
        Reach::Open {
            dialect: Dialect::Vllm,
            folder: Some(folder.join(PROFILES)),
            processes,
        }
    }

    fn check(&self, args: &Arguments, table: &Table, parser: &mut Parser<'_>) {
        let memory = self
            .gpu_memory_utilization
            .filter(|Positive(share)| *share > 1.0);
        let place = table.get("gpu_memory_utilization");
        if let (Some(_), Some(value)) = (memory, place) {
            let message = "expected a share of memory up to 1";
            let help = "write 0.9 for ninety percent";
            parser.wrong::<()>(&value.place, message, "out of range", help);
        }
        let flag = |key: &str| format!("--{}", key.replace('_', "-"));
        let is_twice = args
            .iter()
            .any(|(key, _)| flag(key).starts_with(PROFILER_CONFIG));
        let place = table.get("profiler").map(|value| &value.place);
        if let Some(place) = place.filter(|_| self.profiler && is_twice) {
            let message = "`profiler_config` among the arguments says what `profiler` says already";
            let help = "remove one of both; `profile.server` needs this one";
            parser.wrong::<()>(place, message, "the same again", help);
        }
    }
}
