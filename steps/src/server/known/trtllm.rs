//! `server.trtllm`: TensorRT-LLM's own server, `trtllm-serve`.
//!
//! Written from TensorRT-LLM's documents and code of versions 1.2 and later. Part of its options are no flags but
//! stand in a file. The `generate_stream` of a Triton server is another server: `server.external`.

use super::applied::Source;
use super::asked::{Asking, Form, Given};
use super::profiler::Profiling;
use super::{Beyond, Nature, OptionsFile, Spelling, USUAL, known_server};
use engine::step::{Resolved, StepContext, StepError};
use engine::types::{Arguments, Positive};
use serde_json::{Map, Value, json};
use std::num::NonZeroU32;

const TRTLLM: Nature = Nature {
    name: "TensorRT-LLM",
    package: "tensorrt-llm",
    program: &["trtllm-serve"],
    variables: &[("HF_HUB_OFFLINE", "1")],
    spelling: Spelling::Snake,
    version: ("/version", "/version"),
    metrics: "/prometheus/metrics",
    // Told by versions that have these series; others tell nothing of what they applied.
    applied: &[
        Source::Labels("trtllm_model_config_info"),
        Source::Labels("trtllm_parallel_config_info"),
        Source::Labels("trtllm_kv_cache_config_info"),
    ],
    aliases: &[
        ("tp_size", "tensor_parallel_size"),
        ("pp_size", "pipeline_parallel_size"),
        ("max_seq_len", "max_model_len"),
    ],
    keeps_by: Some("enable_block_reuse"),
    profiling: Profiling::Never(
        "its PyTorch engine profiles iterations that its launch names, by `env = { TLLM_PROFILE_START_STOP = \"100-110\", TLLM_TORCH_PROFILE_TRACE = \"/folder/trace.json\" }`",
    ),
    ..USUAL
};

engine::choices! {
    /// Which engine of TensorRT-LLM computes.
    pub enum TrtllmBackend {
        /// PyTorch.
        Pytorch = "pytorch",
        /// An engine that was built before; `model` is its folder.
        Tensorrt = "tensorrt",
        /// PyTorch, with the model rewritten automatically.
        Autodeploy = "_autodeploy",
    }
}

engine::choices! {
    /// Where weights come from.
    pub enum TrtllmLoadFormat {
        /// The model folder's own weights.
        Auto = "auto",
        /// Random values: right for timing.
        Dummy = "dummy",
    }
}

known_server! {
    /// Options of `server.trtllm`.
    pub struct ServerTrtllm {
        /// Which of its engines computes.
        backend: Option<TrtllmBackend>;
        /// Where weights come from.
        load_format: Option<TrtllmLoadFormat>;
        /// Longest sequence, prompt and answer.
        max_seq_len: Option<NonZeroU32>, in "tokens";
        /// The share of the GPU's memory that is free beside the weights and that the key-value cache gets.
        kv_cache_free_gpu_memory_fraction: Option<Positive>;
        /// Devices that share each layer.
        tp_size: Option<NonZeroU32>, in "devices";
        /// Groups of devices that share the layers one after the other.
        pp_size: Option<NonZeroU32>, in "groups";
        /// Devices that share the experts.
        ep_size: Option<NonZeroU32>, in "devices";
        /// Whether prefixes stay in the cache, which cannot be emptied between samples; its own default is true.
        enable_block_reuse: bool = false;
        /// Sequences that may run together.
        max_batch_size: Option<NonZeroU32>, in "requests";
        /// Tokens that one step computes at most.
        max_num_tokens: Option<NonZeroU32>, in "tokens";
        /// Whether long prompts are computed in parts.
        enable_chunked_prefill: bool = false;
        /// Further options that are no flags, as its file of options has them, such as
        /// `cuda_graph_config = { enable_padding = true }`.
        llm_api_options: Arguments = Arguments::default();
    }
    use "server.trtllm", TRTLLM, 1, "Launches TensorRT-LLM's `trtllm-serve`, and waits until it generates.";
}

impl ServerTrtllm {
    fn given(&self) -> Vec<Given> {
        let memory = self.memory();
        let valued = [
            Given::valued("served_model_name", self.served_model_name.as_ref()),
            Given::valued("backend", self.backend.map(TrtllmBackend::word)),
            Given::valued("max_seq_len", self.max_seq_len),
            Given::valued("kv_cache_free_gpu_memory_fraction", memory),
            Given::valued("tp_size", self.tp_size),
            Given::valued("pp_size", self.pp_size),
            Given::valued("ep_size", self.ep_size),
            Given::valued("max_batch_size", self.max_batch_size),
            Given::valued("max_num_tokens", self.max_num_tokens),
        ];
        let on = [
            (
                "enable_chunked_prefill",
                self.enable_chunked_prefill,
                Form::Bare,
            ),
            ("enable_block_reuse", self.enable_block_reuse, Form::InFile),
        ];
        let on = on.map(|(name, is_on, form)| Given::on(name, is_on, form));
        valued.into_iter().flatten().chain(on).collect()
    }

    fn memory(&self) -> Option<f64> {
        self.kv_cache_free_gpu_memory_fraction
            .map(|Positive(share)| share)
    }

    /// What stands in the file: options of this kind, then those of the plan.
    fn in_file(&self, resolved: &Resolved) -> Result<Value, StepError> {
        let mut cache = Map::from_iter([(
            "enable_block_reuse".to_owned(),
            json!(self.enable_block_reuse),
        )]);
        // A cache that the file describes is described by it alone.
        let memory = self.memory().map(|share| json!(share));
        cache.extend(memory.map(|share| ("free_gpu_memory_fraction".to_owned(), share)));
        let mut all = Map::from_iter([("kv_cache_config".to_owned(), Value::Object(cache))]);
        if self.metrics {
            all.insert("return_perf_metrics".to_owned(), json!(true));
        }
        let format = self.load_format.map(|format| json!(format.word()));
        all.extend(format.map(|format| ("load_format".to_owned(), format)));
        let text = |text: &_| StepContext::resolve_text(resolved, text);
        lay_over(&mut all, self.llm_api_options.json(text)?);
        Ok(Value::Object(all))
    }
}

/// Lays a table over another: tables merge, everything else replaces.
fn lay_over(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => lay_over(old, new),
            (_, value) => {
                below.insert(name, value);
            }
        }
    }
}

impl Beyond for ServerTrtllm {
    fn gpus(&self, asking: &Asking<'_>) -> Option<u32> {
        asking.product(&[
            &["tp_size", "tensor_parallel_size"],
            &["pp_size", "pipeline_parallel_size"],
            &["cp_size", "context_parallel_size"],
        ])
    }

    fn options_file(&self, resolved: &Resolved) -> Result<Option<OptionsFile>, StepError> {
        Ok(Some(OptionsFile {
            flag: "--extra_llm_api_options",
            // JSON is YAML.
            name: "llm_api_options.yaml",
            text: format!("{:#}\n", self.in_file(resolved)?),
        }))
    }
}
