//! What a server can be told, and what follows from it for one model.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::executor::CacheShape;
use crate::model::has_weights;
use crate::scheduler::{Limits, Policy};
use crate::server::ServeError;

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
    /// Nothing: each request is answered at a stated pace, for clients to be measured against.
    Sim,
}

/// Options of a server. Every field has a default but the model's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Folder with `config.json`, `tokenizer.json` and, for `safetensors`, the weights. With `sim`
    /// only the tokenizer is read; without a folder it makes one up.
    pub model_path: PathBuf,
    /// What tokens come from.
    pub executor: ExecutorKind,
    /// With `sim`: from a request to its first token, milliseconds.
    pub sim_ttft_ms: f64,
    /// With `sim`: from one token to the next, milliseconds.
    pub sim_tpot_ms: f64,
    /// A file that says of every streamed answer when its events were sent, see [`crate::Trace`].
    pub trace: Option<PathBuf>,
    /// The name that requests ask for; `None`: `default`.
    pub served_model_name: Option<String>,
    /// Address to listen at.
    pub host: String,
    /// Port to listen at; 0: any free one.
    pub port: u16,
    /// Where the weights come from.
    pub load_format: LoadFormat,
    /// Tokens of the key-value cache; `None`: what `cache_memory_bytes` holds, but not more than
    /// all running requests can fill.
    pub max_total_tokens: Option<usize>,
    /// Memory for the key-value cache where `max_total_tokens` is not given, bytes.
    pub cache_memory_bytes: u64,
    /// Tokens per block of the cache.
    pub block_tokens: usize,
    /// Requests that run at once.
    pub max_running_requests: usize,
    /// Tokens of one prefill step; longer prompts are computed in chunks. `None`: never split.
    pub chunked_prefill_size: Option<usize>,
    /// Tokens of one prefill step, beyond which no further prompt joins it.
    pub max_prefill_tokens: usize,
    /// Prompt and output tokens of one request; `None`: what the model supports.
    pub context_length: Option<usize>,
    /// The order in which waiting requests are admitted.
    pub schedule_policy: Policy,
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
            executor: ExecutorKind::default(),
            sim_ttft_ms: 50.0,
            sim_tpot_ms: 10.0,
            trace: None,
            served_model_name: None,
            host: "127.0.0.1".to_owned(),
            port: 0,
            load_format: LoadFormat::default(),
            max_total_tokens: None,
            cache_memory_bytes: 256 << 20,
            block_tokens: 16,
            max_running_requests: 64,
            chunked_prefill_size: Some(2048),
            max_prefill_tokens: 16_384,
            context_length: None,
            schedule_policy: Policy::default(),
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

    /// Where the weights come from in the end: never [`LoadFormat::Auto`].
    #[must_use]
    pub fn weights(&self) -> LoadFormat {
        match self.load_format {
            LoadFormat::Auto if has_weights(&self.model_path) => LoadFormat::Safetensors,
            LoadFormat::Auto => LoadFormat::Dummy,
            format => format,
        }
    }

    /// The bounds of a step.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_running_requests: self.max_running_requests,
            chunked_prefill_size: self.chunked_prefill_size,
            max_prefill_tokens: self.max_prefill_tokens,
            policy: self.schedule_policy,
        }
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

    /// Tokens of the cache, for a model with that context and so many bytes of keys and values
    /// per token. Always whole blocks.
    ///
    /// # Errors
    /// [`ServeError::Option`] when that is not even one block.
    pub fn cache_tokens_for(
        &self,
        context_length: usize,
        bytes_per_token: u64,
    ) -> Result<usize, ServeError> {
        let block = self.block_tokens;
        let blocks = match self.max_total_tokens {
            Some(tokens) => tokens / block,
            None => {
                let within_memory = self.cache_memory_bytes / bytes_per_token.max(1) / block as u64;
                let useful = context_length
                    .div_ceil(block)
                    .saturating_mul(self.max_running_requests);
                usize::try_from(within_memory)
                    .unwrap_or(usize::MAX)
                    .min(useful)
            }
        };
        if blocks == 0 {
            let (name, value) = match self.max_total_tokens {
                Some(tokens) => ("max_total_tokens", tokens as u64),
                None => ("cache_memory_bytes", self.cache_memory_bytes),
            };
            let problem = format!("{value} does not hold one block of {block} tokens; raise it");
            return Err(wrong(name, problem));
        }
        Ok(blocks * block)
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
            ("context_length", self.context_length),
            ("queue_limit", Some(self.queue_limit)),
            ("threads", Some(self.threads)),
        ] {
            if value == Some(0) {
                return Err(wrong(name, "found 0, expected at least 1".to_owned()));
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
    ) -> serde_json::Value {
        let n_tokens = shape.n_blocks as usize * shape.block_tokens as usize;
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "executor": executor,
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
                "is_prefix_cached": false,
            },
            "options": self,
            "ignored_flags": self.ignored_flags,
        })
    }
}

/// Sizes of a loaded model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelFacts {
    pub(crate) vocab_size: usize,
    pub(crate) tokenizer_vocab_size: usize,
    pub(crate) context_length: usize,
}

fn wrong(name: &'static str, problem: String) -> ServeError {
    ServeError::Option { name, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_what_memory_holds_but_not_more_than_is_useful() {
        let options = ServerOptions {
            cache_memory_bytes: 1 << 20,
            ..ServerOptions::default()
        };
        assert_eq!(options.cache_tokens_for(1 << 20, 1024).unwrap(), 1024);
        assert_eq!(options.cache_tokens_for(100, 1).unwrap(), 112 * 64);
        let asked = ServerOptions {
            max_total_tokens: Some(100),
            ..ServerOptions::default()
        };
        assert_eq!(asked.cache_tokens_for(4096, 1 << 30).unwrap(), 96);
    }

    #[test]
    fn a_cache_without_a_block_is_refused_with_the_option_to_change() {
        let asked = ServerOptions {
            max_total_tokens: Some(15),
            ..ServerOptions::default()
        };
        let message = asked.cache_tokens_for(4096, 1).unwrap_err().to_string();
        assert!(
            message.contains("`max_total_tokens`: 15 does not hold one block"),
            "{message}"
        );
        let message = ServerOptions::default()
            .cache_tokens_for(4096, 1 << 40)
            .unwrap_err();
        assert!(message.to_string().contains("cache_memory_bytes"));
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
        let zero = ServerOptions {
            queue_limit: 0,
            ..ServerOptions::default()
        };
        assert!(
            zero.check()
                .unwrap_err()
                .to_string()
                .contains("`queue_limit`")
        );
    }
}
