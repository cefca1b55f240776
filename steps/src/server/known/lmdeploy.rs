//! `server.lmdeploy`: LMDeploy from an environment.
//!
//! Written from LMDeploy 0.18.0's own code. It tells neither its version nor what it applied, and cannot empty
//! its prefix cache.

use super::asked::{Asking, Form, Given};
use super::profiler::Profiling;
use super::ranks::{Follower, Meeting, Ranks};
use super::{Beyond, Nature, USUAL, known_server};
use engine::options::Parser;
use engine::types::{Argument, Arguments, Positive, TextPart};
use engine::value::Table;
use std::num::NonZeroU32;

const LMDEPLOY: Nature = Nature {
    name: "LMDeploy",
    package: "lmdeploy",
    program: &["lmdeploy", "serve", "api_server"],
    variables: &[("HF_HUB_OFFLINE", "1")],
    address: ["--server-name", "--server-port"],
    keeps_by: Some("enable_prefix_caching"),
    follower: Follower::Answers,
    profiling: Profiling::Never(
        "its PyTorch engine profiles from its launch on, by `env = { LMDEPLOY_PROFILE_CUDA = \"1\", LMDEPLOY_PROFILE_DELAY = \"60\", LMDEPLOY_PROFILE_DURATION = \"10\", LMDEPLOY_PROFILE_OUT_PREFIX = \"/folder/profile_\" }`, and writes when it ends",
    ),
    ..USUAL
};

engine::choices! {
    /// Which engine of LMDeploy computes.
    pub enum LmdeployBackend {
        /// Its own kernels in C++.
        Turbomind = "turbomind",
        /// PyTorch, for what the other does not know.
        Pytorch = "pytorch",
    }
}

known_server! {
    /// Options of `server.lmdeploy`.
    pub struct ServerLmdeploy {
        /// Which of its engines computes; its own choice by the model if absent.
        backend: Option<LmdeployBackend>;
        /// Longest sequence, prompt and answer.
        session_len: Option<NonZeroU32>, in "tokens";
        /// The share of the GPU's memory that is free beside the weights and that the key-value cache gets.
        cache_max_entry_count: Option<Positive>;
        /// Tokens per block of the key-value cache.
        cache_block_seq_len: Option<NonZeroU32>, in "tokens";
        /// Devices that share each layer.
        tp: Option<NonZeroU32>, in "devices";
        /// Machines that share the model, with the TurboMind engine; `nnodes` among the arguments says the same.
        nodes: NonZeroU32 = NonZeroU32::MIN, in "nodes";
        /// The rank that this machine has, from 0; -1 launches all of them here.
        node_rank: i64 = -1;
        /// Where rank 0 is, `HOST` or `HOST:PORT`, the same for every rank; port 29501 if it names none.
        master: String = String::new();
        /// Whether prefixes stay in the cache, which cannot be emptied between samples.
        enable_prefix_caching: bool = false;
        /// Sequences that may run together.
        max_batch_size: Option<NonZeroU32>, in "requests";
        /// Prompt tokens that one step computes at most.
        max_prefill_token_num: Option<NonZeroU32>, in "tokens";
    }
    use "server.lmdeploy", LMDEPLOY, 1, "Launches LMDeploy, and waits until it generates.";
}

impl ServerLmdeploy {
    fn given(&self) -> Vec<Given> {
        let memory = self.cache_max_entry_count.map(|Positive(share)| share);
        let valued = [
            Given::valued("model_name", self.served_model_name.as_ref()),
            Given::valued("backend", self.backend.map(LmdeployBackend::word)),
            Given::valued("session_len", self.session_len),
            Given::valued("cache_max_entry_count", memory),
            Given::valued("cache_block_seq_len", self.cache_block_seq_len),
            Given::valued("tp", self.tp),
            Given::valued("max_batch_size", self.max_batch_size),
            Given::valued("max_prefill_token_num", self.max_prefill_token_num),
        ];
        let bare = [
            ("enable_prefix_caching", self.enable_prefix_caching),
            ("disable_metrics", !self.metrics),
        ];
        let bare = bare.map(|(name, is_on)| Given::on(name, is_on, Form::Bare));
        valued.into_iter().flatten().chain(bare).collect()
    }
}

impl ServerLmdeploy {
    /// Whether the plan says that the PyTorch engine computes.
    fn is_pytorch(&self, args: &Arguments) -> bool {
        let word = LmdeployBackend::Pytorch.word();
        let among = match args.get("backend") {
            Some(Argument::Text(text)) => text.parts == [TextPart::Plain(word.to_owned())],
            _ => false,
        };
        among || self.backend == Some(LmdeployBackend::Pytorch)
    }
}

impl Beyond for ServerLmdeploy {
    fn ranks(&self) -> Option<Ranks<'_>> {
        Some(Ranks {
            nodes: self.nodes,
            node_rank: self.node_rank,
            master: &self.master,
            meeting: Meeting::DistInitAddr,
        })
    }

    fn gpus(&self, asking: &Asking<'_>) -> Option<u32> {
        asking.product(&[&["tp"]])
    }

    fn check(&self, args: &Arguments, table: &Table, parser: &mut Parser<'_>) {
        let is_several = self.ranks().is_some_and(|ranks| ranks.nodes(args) > 1);
        if !(self.is_pytorch(args) && is_several) {
            return;
        }
        let place = ["nodes", "args", "backend"]
            .iter()
            .find_map(|option| table.get(option).map(|value| &value.place));
        if let Some(place) = place {
            let message = "LMDeploy's PyTorch engine is not launched as ranks: one process reaches all machines through a cluster of Ray";
            let help = "leave `nodes` out, join the machines by `ray start` and let `tp` count their devices; or write `backend = \"turbomind\"`";
            parser.wrong::<()>(place, message, "of TurboMind alone", help);
        }
    }
}
