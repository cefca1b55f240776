//! The shape of a model, read from a Hugging Face `config.json`.
//!
//! Everything that changes the computation is read or refused: a file that asks for something
//! else than what would be computed is an error, never a silent approximation.

use super::keys::{ConfigProblem, Keys};
use super::rope::Rope;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of the longest configuration that is read; real ones are a few kilobytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Which of the supported architectures a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFamily {
    /// Llama, and Mistral without a window.
    Llama,
    /// Qwen2: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: per-head norms of queries and keys.
    Qwen3,
}

/// The shape of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The architecture.
    pub family: ModelFamily,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated perceptron.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key-value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Whether the head's weights are the embedding's.
    pub tie_word_embeddings: bool,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Positions that the model supports.
    pub max_position_embeddings: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// Ids that end a generation; may be empty.
    pub eos_token_ids: Vec<u32>,
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the model configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no JSON.
    #[error("the model configuration `{}` is not valid JSON: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key is missing, of the wrong type, or asks for what is not implemented.
    #[error("the model configuration `{}` cannot be used: {problem}", path.display())]
    Problem {
        /// The file.
        path: PathBuf,
        /// The key and what is wrong with it.
        #[source]
        problem: ConfigProblem,
    },
}

impl ModelConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and the key.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        Self::from_file(&dir.join("config.json"))
    }

    /// Reads the configuration file `path`, whatever its name.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and the key.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let text = match read_bounded(&path, MAX_FILE_BYTES) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let value: Value = match serde_json::from_slice(&text) {
            Ok(value) => value,
            Err(source) => return Err(ConfigError::Parse { path, source }),
        };
        Self::from_json(&value).map_err(|problem| ConfigError::Problem { path, problem })
    }

    /// Reads the contents of a `config.json`.
    ///
    /// Keys that are absent take the defaults of their architecture; keys that do not change the
    /// computation are ignored.
    ///
    /// # Errors
    /// [`ConfigProblem`], for the first key that is missing, malformed or unsupported.
    pub fn from_json(value: &Value) -> Result<Self, ConfigProblem> {
        let keys = Keys::new(value)?;
        let family = ModelFamily::read(keys)?;
        refuse_variants(keys)?;
        let num_attention_heads = keys.required_size("num_attention_heads")?;
        let hidden_size = keys.required_size("hidden_size")?;
        let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
        let config = ModelConfig {
            family,
            hidden_size,
            intermediate_size: keys.required_size("intermediate_size")?,
            num_hidden_layers: keys.required_size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: keys
                .size("num_key_value_heads")?
                .unwrap_or(num_attention_heads),
            head_dim: head_dim(keys, family, hidden_size, num_attention_heads)?,
            rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: Rope::read(keys)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            vocab_size: keys.required_size("vocab_size")?,
            max_position_embeddings: keys.required_size("max_position_embeddings")?,
            // Qwen2 has no such key and always these biases.
            qkv_bias: attention_bias || family == ModelFamily::Qwen2,
            output_bias: attention_bias && family != ModelFamily::Qwen2,
            eos_token_ids: keys.token_ids("eos_token_id")?,
        };
        must_divide(
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
        )?;
        Ok(config)
    }

    /// Width of all query heads.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    #[must_use]
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Whether queries and keys are normed per head.
    #[must_use]
    pub fn has_head_norms(&self) -> bool {
        self.family == ModelFamily::Qwen3
    }

    /// Number of parameters; a tied embedding counts once.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        tables * self.head_parameters() + self.body_parameters()
    }

    /// Parameters of the layers and the last norm: all but the embeddings and the head.
    #[must_use]
    pub fn body_parameters(&self) -> u64 {
        self.num_hidden_layers as u64 * self.layer_parameters() + self.hidden_size as u64
    }

    /// Parameters of the head, which a tied embedding is too.
    #[must_use]
    pub fn head_parameters(&self) -> u64 {
        self.vocab_size as u64 * self.hidden_size as u64
    }

    fn layer_parameters(&self) -> u64 {
        let hidden = self.hidden_size as u64;
        let (queries, keys) = (self.query_width() as u64, self.key_value_width() as u64);
        let attention = hidden * (2 * queries + 2 * keys);
        let perceptron = 3 * hidden * self.intermediate_size as u64;
        let qkv_bias = if self.qkv_bias { queries + 2 * keys } else { 0 };
        let output_bias = if self.output_bias { hidden } else { 0 };
        let head_norms = if self.has_head_norms() {
            2 * self.head_dim as u64
        } else {
            0
        };
        attention + perceptron + qkv_bias + output_bias + head_norms + 2 * hidden
    }

    /// Bytes of the parameters at `bytes_per_parameter`, such as 4 for `f32`.
    #[must_use]
    pub fn parameter_bytes(&self, bytes_per_parameter: u64) -> u64 {
        self.parameter_count() * bytes_per_parameter
    }

    /// Bytes of keys and values per token, all layers, at `bytes_per_value`.
    #[must_use]
    pub fn key_value_bytes_per_token(&self, bytes_per_value: u64) -> u64 {
        2 * (self.num_hidden_layers * self.key_value_width()) as u64 * bytes_per_value
    }
}

impl ModelFamily {
    const SUPPORTED: &str = "llama, mistral, qwen2, qwen3";

    /// By `model_type`, or by the first architecture where that is absent.
    fn read(keys: Keys<'_>) -> Result<Self, ConfigProblem> {
        let unsupported = |key, found: &str| {
            Err(ConfigProblem::Unsupported {
                key,
                found: found.into(),
                supported: Self::SUPPORTED,
            })
        };
        if let Some(name) = keys.text("model_type")? {
            return match name {
                "llama" | "mistral" => Ok(ModelFamily::Llama),
                "qwen2" => Ok(ModelFamily::Qwen2),
                "qwen3" => Ok(ModelFamily::Qwen3),
                other => unsupported("model_type", other),
            };
        }
        let first = keys
            .value("architectures")
            .and_then(|list| list.get(0))
            .and_then(Value::as_str);
        match first {
            Some("LlamaForCausalLM" | "MistralForCausalLM") => Ok(ModelFamily::Llama),
            Some("Qwen2ForCausalLM") => Ok(ModelFamily::Qwen2),
            Some("Qwen3ForCausalLM") => Ok(ModelFamily::Qwen3),
            Some(other) => unsupported("architectures", other),
            None => Err(ConfigProblem::Missing { key: "model_type" }),
        }
    }
}

/// Refuses what would change the computation and is not implemented.
fn refuse_variants(keys: Keys<'_>) -> Result<(), ConfigProblem> {
    let activation = keys.text("hidden_act")?.unwrap_or("silu");
    if activation != "silu" {
        return Err(ConfigProblem::Unsupported {
            key: "hidden_act",
            found: activation.to_owned(),
            supported: "silu",
        });
    }
    for key in ["mlp_bias", "use_sliding_window"] {
        if keys.flag(key)?.unwrap_or(false) {
            let found = "true".to_owned();
            return Err(ConfigProblem::Unsupported {
                key,
                found,
                supported: "false",
            });
        }
    }
    // Where it is a number without a switch beside it, it counts.
    let has_switch = keys.value("use_sliding_window").is_some();
    if let (false, Some(window)) = (has_switch, keys.size("sliding_window")?) {
        return Err(ConfigProblem::Unsupported {
            key: "sliding_window",
            found: window.to_string(),
            supported: "null",
        });
    }
    Ok(())
}

fn head_dim(
    keys: Keys<'_>,
    family: ModelFamily,
    hidden_size: usize,
    num_attention_heads: usize,
) -> Result<usize, ConfigProblem> {
    let head_dim = match (keys.size("head_dim")?, family) {
        (Some(head_dim), _) => head_dim,
        (None, ModelFamily::Qwen3) => 128,
        (None, _) => {
            let heads = ("num_attention_heads", num_attention_heads);
            must_divide(("hidden_size", hidden_size), heads)?;
            hidden_size / num_attention_heads
        }
    };
    must_divide(("head_dim", head_dim), ("2 (a rotary pair)", 2))?;
    Ok(head_dim)
}

fn must_divide(
    (key, value): (&'static str, usize),
    (divisor_key, divisor): (&'static str, usize),
) -> Result<(), ConfigProblem> {
    if value.is_multiple_of(divisor) {
        return Ok(());
    }
    Err(ConfigProblem::NotDivisible {
        key,
        value,
        divisor_key,
        divisor,
    })
}

/// The contents of a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?
        .take(limit + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        let message = format!("longer than the {limit} bytes that such a file may have");
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            message,
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn qwen2() -> Value {
        json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
            "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151936,
            "max_position_embeddings": 32768, "use_sliding_window": false, "eos_token_id": 151643
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut config = qwen2();
        config[key] = value;
        config
    }

    fn problem(value: Value) -> String {
        ModelConfig::from_json(&value).unwrap_err().to_string()
    }

    #[test]
    fn qwen2_is_read_with_its_biases_and_counted() {
        let config = ModelConfig::from_json(&qwen2()).unwrap();
        assert_eq!((config.family, config.head_dim), (ModelFamily::Qwen2, 64));
        assert!(config.qkv_bias && !config.output_bias && !config.has_head_norms());
        assert_eq!(config.eos_token_ids, [151_643]);
        // The published size of Qwen2.5-0.5B.
        assert_eq!(config.parameter_count(), 494_032_768);
        let (body, head) = (config.body_parameters(), config.head_parameters());
        assert_eq!((body, head), (357_898_112, 136_134_656));
        assert_eq!(config.key_value_bytes_per_token(2), 12_288);
    }

    #[test]
    fn qwen3_and_llama_sizes_agree_with_the_published_ones() {
        let qwen3 = ModelConfig::from_json(&json!({
            "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
            "tie_word_embeddings": true, "attention_bias": false, "rope_scaling": null
        }));
        assert_eq!(qwen3.unwrap().parameter_count(), 596_049_920);
        let llama = ModelConfig::from_json(&json!({
            "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": true,
            "eos_token_id": [128001, 128008, 128009],
            "rope_parameters": { "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192 }
        }));
        let llama = llama.unwrap();
        assert_eq!(llama.parameter_count(), 1_235_814_400);
        assert_eq!(
            (llama.eos_token_ids.len(), llama.rope.theta),
            (3, 500_000.0)
        );
    }

    #[test]
    fn the_architecture_stands_in_for_a_missing_type() {
        let mut config = with("architectures", json!(["Qwen3ForCausalLM"]));
        config.as_object_mut().unwrap().remove("model_type");
        let config = ModelConfig::from_json(&config).unwrap();
        assert_eq!((config.family, config.head_dim), (ModelFamily::Qwen3, 128));
    }

    #[test]
    fn what_cannot_be_computed_is_refused_by_key() {
        for (key, value, message) in [
            ("hidden_size", json!(null), "key `hidden_size` is missing"),
            (
                "hidden_size",
                json!("8"),
                "key `hidden_size` is `\"8\"`, expected a positive integer",
            ),
            (
                "vocab_size",
                json!(0),
                "key `vocab_size` is `0`, expected a positive integer",
            ),
            (
                "model_type",
                json!("gpt2"),
                "key `model_type` is `gpt2`, supported: llama, mistral, qwen2, qwen3",
            ),
            (
                "hidden_act",
                json!("gelu"),
                "key `hidden_act` is `gelu`, supported: silu",
            ),
            (
                "use_sliding_window",
                json!(true),
                "key `use_sliding_window` is `true`, supported: false",
            ),
            (
                "head_dim",
                json!(63),
                "key `head_dim` is 63, which is not a multiple of `2 (a rotary pair)`, 2",
            ),
            (
                "hidden_size",
                json!(900),
                "key `hidden_size` is 900, which is not a multiple of `num_attention_heads`, 14",
            ),
            (
                "num_key_value_heads",
                json!(4),
                "key `num_attention_heads` is 14, which is not a multiple of `num_key_value_heads`, 4",
            ),
            (
                "eos_token_id",
                json!([1, -1]),
                "key `eos_token_id` is `[1,-1]`, expected a token id or a list of them",
            ),
        ] {
            assert_eq!(problem(with(key, value)), message);
        }
        assert_eq!(
            problem(json!([])),
            "the document is an array, expected an object"
        );
    }

    #[test]
    fn mistral_is_llama_unless_it_has_a_window() {
        let mut mistral = json!({
            "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": null,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0
        });
        let config = ModelConfig::from_json(&mistral).unwrap();
        assert_eq!(config.parameter_count(), 7_241_732_096);
        assert_eq!(config.key_value_bytes_per_token(2), 131_072);
        mistral["sliding_window"] = json!(4096);
        assert_eq!(
            problem(mistral),
            "key `sliding_window` is `4096`, supported: null"
        );
    }

    #[test]
    fn file_errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let error = || ModelConfig::from_dir(dir.path()).unwrap_err();
        assert!(matches!(error(), ConfigError::Read { .. }));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(error(), ConfigError::Parse { .. }));
        std::fs::write(&path, "{}").unwrap();
        let expected = format!(
            "the model configuration `{}` cannot be used: key `model_type` is missing",
            path.display()
        );
        assert_eq!(error().to_string(), expected);
        std::fs::write(&path, qwen2().to_string()).unwrap();
        assert_eq!(ModelConfig::from_dir(dir.path()).unwrap().hidden_size, 896);
    }
}
