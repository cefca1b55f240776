//! Small models with made-up checkpoints, in every variant that is supported.

use embedded_server::model::{LoadFormat, ModelConfig, Weights};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor as the checkpoint holds it.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// A model: its configuration and its tensors by checkpoint name.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) json: Value,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Model {
    fn new(json: Value) -> Self {
        let mut model = Model {
            json,
            tensors: BTreeMap::new(),
        };
        let (hidden, vocab) = (model.size("hidden_size"), model.size("vocab_size"));
        model.add("model.embed_tokens.weight", &[vocab, hidden]);
        model.add("model.norm.weight", &[hidden]);
        if model.json["tie_word_embeddings"] != json!(true) {
            model.add("lm_head.weight", &[vocab, hidden]);
        }
        for layer in 0..model.size("num_hidden_layers") {
            model.add_layer(&format!("model.layers.{layer}"));
        }
        model
    }

    fn add_layer(&mut self, prefix: &str) {
        let (hidden, inner) = (self.size("hidden_size"), self.size("intermediate_size"));
        let head_dim = self.size("head_dim");
        let queries = self.size("num_attention_heads") * head_dim;
        let keys = self.size("num_key_value_heads") * head_dim;
        let mut add = |name: &str, shape: &[usize]| self.add(&format!("{prefix}.{name}"), shape);
        add("input_layernorm.weight", &[hidden]);
        add("post_attention_layernorm.weight", &[hidden]);
        add("self_attn.q_proj.weight", &[queries, hidden]);
        add("self_attn.k_proj.weight", &[keys, hidden]);
        add("self_attn.v_proj.weight", &[keys, hidden]);
        add("self_attn.o_proj.weight", &[hidden, queries]);
        add("mlp.gate_proj.weight", &[inner, hidden]);
        add("mlp.up_proj.weight", &[inner, hidden]);
        add("mlp.down_proj.weight", &[hidden, inner]);
        let attention_bias = self.json["attention_bias"] == json!(true);
        if attention_bias || self.json["model_type"] == json!("qwen2") {
            self.add(&format!("{prefix}.self_attn.q_proj.bias"), &[queries]);
            self.add(&format!("{prefix}.self_attn.k_proj.bias"), &[keys]);
            self.add(&format!("{prefix}.self_attn.v_proj.bias"), &[keys]);
        }
        if attention_bias {
            self.add(&format!("{prefix}.self_attn.o_proj.bias"), &[hidden]);
        }
        if self.json["model_type"] == json!("qwen3") {
            self.add(&format!("{prefix}.self_attn.q_norm.weight"), &[head_dim]);
            self.add(&format!("{prefix}.self_attn.k_norm.weight"), &[head_dim]);
        }
    }

    /// Values large enough that every tensor moves the logits, and attention is far from even.
    fn add(&mut self, name: &str, shape: &[usize]) {
        let (base, spread) = match name {
            _ if name.contains("norm") => (1.0, 0.4),
            _ if name.ends_with("bias") => (0.0, 0.5),
            _ if name.contains("embed") => (0.0, 1.0),
            _ => (0.0, 0.35),
        };
        let mut random = Random::new(name);
        let values = (0..shape.iter().product())
            .map(|_| base + spread * random.uniform())
            .collect();
        self.tensors.insert(
            name.to_owned(),
            Tensor {
                shape: shape.to_vec(),
                values,
            },
        );
    }

    pub(crate) fn size(&self, key: &str) -> usize {
        usize::try_from(self.json[key].as_u64().expect("a size")).expect("a small size")
    }

    pub(crate) fn config(&self) -> ModelConfig {
        ModelConfig::from_json(&self.json).expect("a sound configuration")
    }

    /// Loads the model through a checkpoint on disk.
    pub(crate) fn load(&self) -> Weights {
        let dir = tempfile::tempdir().expect("a folder");
        let names: Vec<_> = self.tensors.keys().cloned().collect();
        self.write(&dir.path().join("model.safetensors"), &names, Dtype::F32);
        let format = LoadFormat::Safetensors {
            dir: dir.path().to_owned(),
        };
        Weights::load(&self.config(), &format).expect("sound weights")
    }

    /// Writes the named tensors as `dtype`, F32 or BF16 (values must then be exact in it).
    pub(crate) fn write(&self, path: &Path, names: &[String], dtype: Dtype) {
        let bytes = |tensor: &Tensor| -> Vec<u8> {
            let words = tensor.values.iter().map(|value| value.to_le_bytes());
            match dtype {
                Dtype::F32 => words.flatten().collect(),
                Dtype::BF16 => words.flat_map(|word| [word[2], word[3]]).collect(),
                other => panic!("{other:?} is not written here"),
            }
        };
        let data: Vec<_> = names
            .iter()
            .map(|name| bytes(&self.tensors[name]))
            .collect();
        let views = names.iter().zip(&data).map(|(name, data)| {
            let shape = self.tensors[name].shape.clone();
            (
                name,
                TensorView::new(dtype, shape, data).expect("a sound tensor"),
            )
        });
        safetensors::serialize_to_file(views, None, path).expect("a written file");
    }
}

/// Numbers that depend on a name only.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(name: &str) -> Self {
        Random(
            name.bytes()
                .fold(99, |state, byte| state * 31 % 1_000_003 + u64::from(byte)),
        )
    }

    /// Knuth's MMIX generator; the upper half of its state.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// In `[-1, 1)`.
    fn uniform(&mut self) -> f32 {
        self.bits() as f32 / (1_u32 << 31) as f32 - 1.0
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }
}

/// Grouped queries, untied, sizes that fill no vector.
pub(crate) fn llama() -> Model {
    Model::new(json!({
        "model_type": "llama", "hidden_size": 40, "intermediate_size": 72,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 10, "vocab_size": 53, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 500.0, "tie_word_embeddings": false
    }))
}

/// One key-value head per query head, tied, with biases on all four projections.
pub(crate) fn llama_with_biases() -> Model {
    Model::new(json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 16, "vocab_size": 48, "max_position_embeddings": 256,
        "attention_bias": true, "tie_word_embeddings": true
    }))
}

/// The key-value group of Qwen2.5-0.5B, seven.
pub(crate) fn qwen2() -> Model {
    Model::new(json!({
        "model_type": "qwen2", "hidden_size": 112, "intermediate_size": 80,
        "num_hidden_layers": 3, "num_attention_heads": 14, "num_key_value_heads": 2,
        "head_dim": 8, "vocab_size": 61, "max_position_embeddings": 256,
        "rope_theta": 1000000.0, "tie_word_embeddings": true
    }))
}

/// Head norms, and heads that are wider together than the residual stream.
pub(crate) fn qwen3() -> Model {
    Model::new(json!({
        "model_type": "qwen3", "hidden_size": 48, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3,
        "head_dim": 32, "vocab_size": 64, "max_position_embeddings": 256,
        "rope_theta": 1000000.0, "tie_word_embeddings": false
    }))
}

pub(crate) fn all() -> [(&'static str, Model); 4] {
    [
        ("llama", llama()),
        ("llama with biases", llama_with_biases()),
        ("qwen2", qwen2()),
        ("qwen3", qwen3()),
    ]
}
