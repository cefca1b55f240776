//! `server.sglang`: SGLang from an environment.

use super::applied::Source;
use super::asked::{Asking, Form, Given};
use super::profiler::{Dialect, Profiling};
use super::ranks::{Follower, Meeting, Ranks};
use super::{Beyond, Nature, USUAL, known_server};
use crate::server::{SchedulePolicy, WritePolicy};
use engine::types::Positive;
use std::num::NonZeroU32;

const SGLANG: Nature = Nature {
    name: "SGLang",
    package: "sglang",
    program: &["python", "-m", "sglang.launch_server"],
    model_flag: &["--model-path"],
    variables: &[("HF_HUB_OFFLINE", "1")],
    version: ("/server_info", "/version"),
    applied: &[Source::Json("/server_info")],
    aliases: &[
        ("tp", "tp_size"),
        ("tensor_parallel_size", "tp_size"),
        ("dp", "dp_size"),
        ("data_parallel_size", "dp_size"),
        // What was asked for stands under its own name; this is what the cache got.
        ("max_total_tokens", "max_total_num_tokens"),
    ],
    // It takes this flag for an older word of `attn_dp_size`, and counts replicas as `dp_size` then.
    moved: &[("enable_dp_attention", ("dp_size", "attn_dp_size"))],
    // Ranks beside the first answer at `/health`, once they have loaded, and nowhere else.
    follower: Follower::Answers,
    profiling: Profiling::While(Dialect::Sglang),
    ..USUAL
};

engine::choices! {
    /// Where weights come from and who loads them: all that the flag of SGLang 0.5.23 takes.
    pub enum SglangLoadFormat {
        /// The model folder's own weights.
        Auto = "auto",
        /// Random values: right for timing.
        Dummy = "dummy",
        /// The model folder's own safetensors files.
        Safetensors = "safetensors",
        /// Files of PyTorch.
        Pt = "pt",
        /// Files of PyTorch, through a cache of numpy files.
        Npcache = "npcache",
        /// The form that Mistral's own files have.
        Mistral = "mistral",
        /// Files of llama.cpp.
        Gguf = "gguf",
        /// Quantized while they are loaded, by the package `bitsandbytes`.
        Bitsandbytes = "bitsandbytes",
        /// Layer by layer, each quantized before the next is loaded.
        Layered = "layered",
        /// Safetensors files by the package `fastsafetensors`, to a GPU.
        Fastsafetensors = "fastsafetensors",
        /// Safetensors files by the package `instanttensor`, to a GPU.
        Instanttensor = "instanttensor",
        /// Safetensors files by the package `runai_model_streamer`.
        RunaiStreamer = "runai_streamer",
        /// Files that each hold the share of one rank.
        ShardedState = "sharded_state",
        /// Files that were cut for ranks before.
        Presharded = "presharded",
        /// Experts that were packed before.
        ExpertPack = "expert_pack",
        /// Quantized weights as training by reinforcement has them.
        FlashRl = "flash_rl",
        /// From a store or a database over the network.
        Remote = "remote",
        /// From another server that holds them.
        RemoteInstance = "remote_instance",
        /// By a loader that the installation brings.
        Private = "private",
    }
}

known_server! {
    /// Options of `server.sglang`.
    pub struct ServerSglang {
        /// Where weights come from.
        load_format: Option<SglangLoadFormat>;
        /// Longest sequence, prompt and answer.
        context_length: Option<NonZeroU32>, in "tokens";
        /// The share of memory that weights and cache get.
        mem_fraction_static: Option<Positive>;
        /// Tokens that the key-value cache holds; derived from memory if absent.
        max_total_tokens: Option<NonZeroU32>, in "tokens";
        /// Devices that share each layer.
        tp_size: Option<NonZeroU32>, in "devices";
        /// Machines that share the model; `nnodes` among the arguments says the same.
        nodes: NonZeroU32 = NonZeroU32::MIN, in "nodes";
        /// The rank that this machine has, from 0; -1 launches all of them here.
        node_rank: i64 = -1;
        /// Where rank 0 is, `HOST` or `HOST:PORT`, the same for every rank; port 29501 if it names none.
        master: String = String::new();
        /// Tokens per block of the key-value cache.
        page_size: Option<NonZeroU32>, in "tokens";
        /// Which waiting request goes next.
        schedule_policy: Option<SchedulePolicy>;
        /// Whether nothing stays in the cache once nobody uses it.
        disable_radix_cache: bool = false;
        /// Whether prefixes are kept in host memory too, behind the cache.
        enable_hierarchical_cache: bool = false;
        /// Host memory for prefixes, in sizes of the cache.
        hicache_ratio: Option<Positive>;
        /// When prefixes are copied to host memory.
        hicache_write_policy: Option<WritePolicy>;
        /// Sequences that may run together.
        max_running_requests: Option<NonZeroU32>, in "requests";
        /// Prompt tokens that one step computes at most.
        chunked_prefill_size: Option<NonZeroU32>, in "tokens";
    }
    use "server.sglang", SGLANG, 1, "Launches SGLang, and holds it to what was asked of it.";
}

impl ServerSglang {
    fn given(&self) -> Vec<Given> {
        let positive = |value: Option<Positive>| value.map(|Positive(value)| value);
        let valued = [
            Given::valued("served_model_name", self.served_model_name.as_ref()),
            Given::valued("load_format", self.load_format.map(SglangLoadFormat::word)),
            Given::valued("context_length", self.context_length),
            Given::valued("mem_fraction_static", positive(self.mem_fraction_static)),
            Given::valued("max_total_tokens", self.max_total_tokens),
            Given::valued("tp_size", self.tp_size),
            Given::valued("page_size", self.page_size),
            Given::valued(
                "schedule_policy",
                self.schedule_policy.map(SchedulePolicy::word),
            ),
            Given::valued("hicache_ratio", positive(self.hicache_ratio)),
            Given::valued(
                "hicache_write_policy",
                self.hicache_write_policy.map(WritePolicy::word),
            ),
            Given::valued("max_running_requests", self.max_running_requests),
            Given::valued("chunked_prefill_size", self.chunked_prefill_size),
        ];
        let bare = [
            ("disable_radix_cache", self.disable_radix_cache),
            ("enable_hierarchical_cache", self.enable_hierarchical_cache),
            ("enable_metrics", self.metrics),
            ("enable_cache_report", self.metrics),
        ];
        let bare = bare.map(|(name, is_on)| Given::on(name, is_on, Form::Bare));
        valued.into_iter().flatten().chain(bare).collect()
    }
}

impl Beyond for ServerSglang {
    fn ranks(&self) -> Option<Ranks<'_>> {
        Some(Ranks {
            nodes: self.nodes,
            node_rank: self.node_rank,
            master: &self.master,
            meeting: Meeting::DistInitAddr,
        })
    }

    fn gpus(&self, asking: &Asking<'_>) -> Option<u32> {
        let device = asking.value(&["device"]);
        if device.is_some_and(|device| device != "cuda") {
            return None;
        }
        self.devices(asking)
    }

    fn workers(&self, asking: &Asking<'_>) -> u32 {
        self.devices(asking).unwrap_or(1)
    }
}

impl ServerSglang {
    /// Devices of whatever kind, each with a process.
    fn devices(&self, asking: &Asking<'_>) -> Option<u32> {
        let layers: &[&str] = &["tp_size", "tp", "tensor_parallel_size"];
        let stages: &[&str] = &["pp_size", "pp", "pipeline_parallel_size"];
        let replicas: &[&str] = &["dp_size", "dp", "data_parallel_size"];
        // With attention in parallel over data, that is within the devices of `tp_size`.
        match asking.is_on("enable_dp_attention") {
            true => asking.product(&[layers, stages]),
            false => asking.product(&[layers, stages, replicas]),
        }
    }
}
