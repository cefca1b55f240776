//! A model's weights in memory, in the order that the kernels read, as `f32`.
//!
//! Tensor names are those of Hugging Face checkpoints, also for made-up weights, so that a
//! tensor's dummy values do not depend on what else the model has.

use super::checkpoint::{Checkpoint, Elements, WeightsError};
use super::config::ModelConfig;
use super::dummy::{Distribution, DummyTensor, Role};
use crate::kernels::{Buffer, PackedMatrix};
use rayon::prelude::*;
use std::path::PathBuf;

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadFormat {
    /// Made up: uniform in `[-1e-3, 1e-3)`, as SGLang's format of this name. For timing.
    Dummy {
        /// Chooses the values.
        seed: u64,
    },
    /// Made up: bell-shaped with standard deviation 0.02, norm gains around one. Logits are far
    /// enough apart for tokens to be compared.
    DummyScaled {
        /// Chooses the values.
        seed: u64,
    },
    /// `model.safetensors`, or `model.safetensors.index.json` and its shards; F32, F16 or BF16.
    Safetensors {
        /// The folder that holds them.
        dir: PathBuf,
    },
}

/// The weights of one model.
#[derive(Debug, Clone)]
pub struct Weights {
    config: ModelConfig,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Vec<f32>,
    pub(crate) head: PackedMatrix,
}

/// Where token vectors are looked up.
#[derive(Debug, Clone)]
pub(crate) enum Embedding {
    /// In the head.
    Tied,
    /// In a table, `[vocab_size, hidden_size]`.
    Table(Buffer),
}

/// A linear map and its bias.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    pub(crate) matrix: PackedMatrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// The weights of one decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) input_norm: Vec<f32>,
    pub(crate) query: Projection,
    pub(crate) key: Projection,
    pub(crate) value: Projection,
    pub(crate) query_norm: Option<Vec<f32>>,
    pub(crate) key_norm: Option<Vec<f32>>,
    pub(crate) output: Projection,
    pub(crate) post_attention_norm: Vec<f32>,
    pub(crate) gate: Projection,
    pub(crate) up: Projection,
    pub(crate) down: Projection,
}

impl Weights {
    /// Loads or makes up the weights of `config`, on all processors. Tensors that the model does
    /// not need, such as layers beyond its number, are ignored.
    ///
    /// # Errors
    /// [`WeightsError`] when the checkpoint cannot be read, or lacks a tensor, or holds one of
    /// another shape or an unsupported element type.
    pub fn load(config: &ModelConfig, format: &LoadFormat) -> Result<Self, WeightsError> {
        let made_up = |seed: &u64, distribution| Source::MadeUp {
            seed: *seed,
            distribution,
        };
        let source = match format {
            LoadFormat::Dummy { seed } => made_up(seed, Distribution::Small),
            LoadFormat::DummyScaled { seed } => made_up(seed, Distribution::Scaled),
            LoadFormat::Safetensors { dir } => Source::Checkpoint(Checkpoint::open(dir)?),
        };
        // A pool of its own: it takes all processors, and is gone before the first step.
        let pool = rayon::ThreadPoolBuilder::new().build()?;
        pool.install(|| Self::read(config, &source))
    }

    /// The configuration that these weights were loaded for.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Copies the vector of `token`, `[hidden_size]`.
    ///
    /// # Panics
    /// When `token` is outside the vocabulary or `into` has another length.
    pub(crate) fn embed(&self, token: u32, into: &mut [f32]) {
        let token = token as usize;
        match &self.embedding {
            Embedding::Tied => self.head.copy_output(token, into),
            Embedding::Table(table) => {
                into.copy_from_slice(&table.as_slice()[token * into.len()..][..into.len()]);
            }
        }
    }

    fn read(config: &ModelConfig, source: &Source) -> Result<Self, WeightsError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let table = "model.embed_tokens.weight";
        let (embedding, head) = if config.tie_word_embeddings {
            (Embedding::Tied, source.matrix(table, vocab, hidden)?)
        } else {
            let head = source.matrix("lm_head.weight", vocab, hidden)?;
            (Embedding::Table(source.table(table, vocab, hidden)?), head)
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::read(config, source, &format!("model.layers.{index}")))
            .collect::<Result<_, _>>()?;
        let final_norm = source.gain("model.norm", hidden)?;
        Ok(Weights {
            config: config.clone(),
            embedding,
            layers,
            final_norm,
            head,
        })
    }
}

impl Layer {
    fn read(config: &ModelConfig, source: &Source, prefix: &str) -> Result<Self, WeightsError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.query_width(), config.key_value_width());
        let (qkv, bare) = (config.qkv_bias, false);
        let projection = |name: &str, n_outputs, n_inputs, bias| {
            source.projection(&format!("{prefix}.{name}_proj"), n_outputs, n_inputs, bias)
        };
        let gain = |name: &str, n| source.gain(&format!("{prefix}.{name}"), n);
        let head_gain = |name: &str| {
            config
                .has_head_norms()
                .then(|| gain(name, config.head_dim))
                .transpose()
        };
        Ok(Layer {
            input_norm: gain("input_layernorm", hidden)?,
            query: projection("self_attn.q", queries, hidden, qkv)?,
            key: projection("self_attn.k", keys, hidden, qkv)?,
            value: projection("self_attn.v", keys, hidden, qkv)?,
            query_norm: head_gain("self_attn.q_norm")?,
            key_norm: head_gain("self_attn.k_norm")?,
            output: projection("self_attn.o", hidden, queries, config.output_bias)?,
            post_attention_norm: gain("post_attention_layernorm", hidden)?,
            gate: projection("mlp.gate", inner, hidden, bare)?,
            up: projection("mlp.up", inner, hidden, bare)?,
            down: projection("mlp.down", hidden, inner, bare)?,
        })
    }
}

/// Where the elements of tensors come from.
enum Source {
    MadeUp {
        seed: u64,
        distribution: Distribution,
    },
    Checkpoint(Checkpoint),
}

/// The elements of one tensor.
#[derive(Clone, Copy)]
enum Tensor<'a> {
    MadeUp(DummyTensor),
    Stored(Elements<'a>),
}

impl Tensor<'_> {
    #[inline]
    fn value(self, index: usize) -> f32 {
        match self {
            Tensor::MadeUp(tensor) => tensor.value(index),
            Tensor::Stored(elements) => elements.value(index),
        }
    }
}

impl Source {
    fn tensor(&self, name: &str, shape: &[usize], role: Role) -> Result<Tensor<'_>, WeightsError> {
        match self {
            Source::MadeUp { seed, distribution } => Ok(Tensor::MadeUp(DummyTensor::new(
                *seed,
                name,
                *distribution,
                role,
            ))),
            Source::Checkpoint(checkpoint) => Ok(Tensor::Stored(checkpoint.tensor(name, shape)?)),
        }
    }

    fn matrix(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<PackedMatrix, WeightsError> {
        let tensor = self.tensor(name, &[rows, columns], Role::Linear)?;
        Ok(PackedMatrix::from_fn(rows, columns, |index| {
            tensor.value(index)
        }))
    }

    fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Buffer, WeightsError> {
        let tensor = self.tensor(name, &[rows, columns], Role::Linear)?;
        let mut table = Buffer::zeroed(rows * columns);
        table
            .as_mut_slice()
            .par_chunks_mut(columns)
            .enumerate()
            .for_each(|(row, floats)| {
                for (column, value) in floats.iter_mut().enumerate() {
                    *value = tensor.value(row * columns + column);
                }
            });
        Ok(table)
    }

    fn vector(&self, name: &str, n: usize, role: Role) -> Result<Vec<f32>, WeightsError> {
        let tensor = self.tensor(name, &[n], role)?;
        Ok((0..n).map(|index| tensor.value(index)).collect())
    }

    fn gain(&self, name: &str, n: usize) -> Result<Vec<f32>, WeightsError> {
        self.vector(&format!("{name}.weight"), n, Role::Gain)
    }

    fn projection(
        &self,
        name: &str,
        n_outputs: usize,
        n_inputs: usize,
        with_bias: bool,
    ) -> Result<Projection, WeightsError> {
        let matrix = self.matrix(&format!("{name}.weight"), n_outputs, n_inputs)?;
        let bias = || self.vector(&format!("{name}.bias"), n_outputs, Role::Linear);
        Ok(Projection {
            matrix,
            bias: with_bias.then(bias).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(tied: bool) -> ModelConfig {
        ModelConfig::from_json(&json!({
            "model_type": "qwen2", "hidden_size": 12, "intermediate_size": 20,
            "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1,
            "vocab_size": 19, "max_position_embeddings": 64, "tie_word_embeddings": tied
        }))
        .unwrap()
    }

    fn embedding(weights: &Weights, token: u32) -> Vec<f32> {
        let mut vector = vec![0.0; 12];
        weights.embed(token, &mut vector);
        vector
    }

    #[test]
    fn tying_and_layers_do_not_change_a_tensors_made_up_values() {
        let format = LoadFormat::DummyScaled { seed: 7 };
        let tied = Weights::load(&config(true), &format).unwrap();
        let untied = Weights::load(&config(false), &format).unwrap();
        for token in [0, 15, 16, 18] {
            assert_eq!(embedding(&tied, token), embedding(&untied, token));
        }
        let mut one_layer = config(true);
        one_layer.num_hidden_layers = 1;
        let short = Weights::load(&one_layer, &format).unwrap();
        assert_eq!(short.layers.len(), 1);
        assert_eq!(short.layers[0].query.bias, tied.layers[0].query.bias);
        assert_ne!(tied.layers[1].query.bias, tied.layers[0].query.bias);
    }

    #[test]
    fn the_seed_chooses_the_values() {
        let load = |seed| Weights::load(&config(true), &LoadFormat::Dummy { seed }).unwrap();
        assert_eq!(embedding(&load(1), 3), embedding(&load(1), 3));
        assert_ne!(embedding(&load(1), 3), embedding(&load(2), 3));
    }
}
