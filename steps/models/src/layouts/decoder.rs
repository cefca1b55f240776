//! Llama and what differs from it little: Mistral, Qwen2, Qwen3, Gemma, and with experts Mixtral
//! and Qwen3-MoE.
//!
//! Names as in the checkpoints `meta-llama/Llama-2-7b-hf`, `mistralai/Mixtral-8x7B-v0.1`,
//! `Qwen/Qwen3-30B-A3B` and `google/gemma-7b` on the hub.

use super::{Builder, Layout};
use crate::fields::Fields;
use crate::shapes::head_width;
use crate::{Architecture, Dtype, Experts, Problem, Role};

/// A decoder of this family.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) hidden: u64,
    n_layers: u64,
    vocab: u64,
    /// Width of all query heads.
    queries: u64,
    /// Width of all key heads, and of all value heads.
    keys: u64,
    head_dim: u64,
    qkv_bias: bool,
    output_bias: bool,
    mlp_bias: bool,
    head_norms: bool,
    tied: bool,
    feed: Feed,
}

/// What follows attention.
#[derive(Debug)]
enum Feed {
    /// One perceptron of a width.
    Dense { inner: u64 },
    /// Experts in every layer, with Mixtral's names.
    Mixtral { experts: Experts, inner: u64 },
    /// Experts in some layers, a perceptron in the others, with Qwen's names.
    Qwen {
        experts: Experts,
        inner: u64,
        dense_inner: u64,
        /// Every so manieth layer has experts.
        every: u64,
        /// Layers that have none even so.
        dense: Vec<u64>,
    },
}

pub(crate) fn tensors(architecture: Architecture, fields: &Fields<'_>, dtype: Dtype) -> Layout {
    let decoder = Decoder::read(architecture, fields)?;
    let mut builder = Builder::new(dtype);
    if architecture == Architecture::Gemma {
        builder = builder.with_norm_offsets();
    }
    decoder.list(&mut builder, "");
    Ok((builder.finish(), decoder.experts()))
}

impl Decoder {
    pub(super) fn read(architecture: Architecture, fields: &Fields<'_>) -> Result<Self, Problem> {
        let head_dim = head_width(fields, default_head_dim(architecture))?;
        let heads = fields.need("num_attention_heads")?;
        let kv_heads = fields.size("num_key_value_heads")?.unwrap_or(heads);
        let bias = fields.flag("attention_bias", false)?;
        let is_qwen2 = architecture == Architecture::Qwen2;
        let tied = architecture == Architecture::Gemma;
        Ok(Self {
            hidden: fields.need("hidden_size")?,
            n_layers: fields.need("num_hidden_layers")?,
            vocab: fields.need("vocab_size")?,
            queries: heads * head_dim,
            keys: kv_heads * head_dim,
            head_dim,
            qkv_bias: bias || is_qwen2,
            output_bias: bias && !is_qwen2,
            mlp_bias: fields.flag("mlp_bias", false)?,
            head_norms: matches!(architecture, Architecture::Qwen3 | Architecture::Qwen3Moe),
            tied: fields.flag("tie_word_embeddings", tied)?,
            feed: Feed::read(architecture, fields)?,
        })
    }

    pub(super) fn experts(&self) -> Option<Experts> {
        match &self.feed {
            Feed::Dense { .. } => None,
            Feed::Mixtral { experts, .. } | Feed::Qwen { experts, .. } => Some(*experts),
        }
    }

    /// Lists the tensors; every name begins with `above`.
    pub(super) fn list(&self, builder: &mut Builder, above: &str) {
        builder.enter(crate::Section::Text, format!("{above}model."));
        builder.matrix("embed_tokens", self.vocab, self.hidden, Role::Embedding);
        for layer in 0..self.n_layers {
            builder.enter_layer(layer, format!("{above}model.layers.{layer}."));
            builder.norm("input_layernorm", self.hidden);
            self.attention(builder);
            builder.norm("post_attention_layernorm", self.hidden);
            self.feed(builder, layer);
        }
        builder.enter(crate::Section::Text, format!("{above}model."));
        builder.norm("norm", self.hidden);
        if !self.tied {
            builder.enter(crate::Section::Text, above);
            builder.matrix("lm_head", self.vocab, self.hidden, Role::Head);
        }
    }

    fn attention(&self, builder: &mut Builder) {
        let (hidden, queries, keys) = (self.hidden, self.queries, self.keys);
        let role = Role::Attention;
        builder.linear("self_attn.q_proj", queries, hidden, role, self.qkv_bias);
        builder.linear("self_attn.k_proj", keys, hidden, role, self.qkv_bias);
        builder.linear("self_attn.v_proj", keys, hidden, role, self.qkv_bias);
        builder.linear("self_attn.o_proj", hidden, queries, role, self.output_bias);
        if self.head_norms {
            builder.norm("self_attn.q_norm", self.head_dim);
            builder.norm("self_attn.k_norm", self.head_dim);
        }
    }

    fn feed(&self, builder: &mut Builder, layer: u64) {
        let hidden = self.hidden;
        match &self.feed {
            Feed::Dense { inner } => self.perceptron(builder, *inner),
            Feed::Mixtral { experts, inner } => {
                let moe = "block_sparse_moe";
                builder.matrix(&format!("{moe}.gate"), experts.total, hidden, Role::Router);
                for e in 0..experts.total {
                    builder.expert(e, &format!("{moe}.experts.{e}.w1"), *inner, hidden);
                    builder.expert(e, &format!("{moe}.experts.{e}.w2"), hidden, *inner);
                    builder.expert(e, &format!("{moe}.experts.{e}.w3"), *inner, hidden);
                }
            }
            Feed::Qwen {
                experts,
                inner,
                dense_inner,
                every,
                dense,
            } => {
                let is_sparse = (layer + 1).is_multiple_of(*every) && !dense.contains(&layer);
                if is_sparse {
                    routed(builder, *experts, *inner, hidden);
                } else {
                    self.perceptron(builder, *dense_inner);
                }
            }
        }
    }

    fn perceptron(&self, builder: &mut Builder, inner: u64) {
        gated(
            builder,
            "mlp",
            inner,
            self.hidden,
            Role::FeedForward,
            self.mlp_bias,
        );
    }
}

impl Feed {
    fn read(architecture: Architecture, fields: &Fields<'_>) -> Result<Self, Problem> {
        let per_token = || fields.need("num_experts_per_tok");
        match architecture {
            Architecture::Mixtral => Ok(Feed::Mixtral {
                experts: Experts {
                    total: fields.need("num_local_experts")?,
                    per_token: per_token()?,
                },
                inner: fields.need("intermediate_size")?,
            }),
            Architecture::Qwen3Moe => Ok(Feed::Qwen {
                experts: Experts {
                    total: fields.need_any(&["num_experts", "num_local_experts"])?,
                    per_token: per_token()?,
                },
                inner: fields.need("moe_intermediate_size")?,
                dense_inner: fields.need("intermediate_size")?,
                every: fields.size("decoder_sparse_step")?.unwrap_or(1),
                dense: fields.indices("mlp_only_layers")?,
            }),
            _ => Ok(Feed::Dense {
                inner: fields.need("intermediate_size")?,
            }),
        }
    }
}

/// Widths of heads that configurations may leave out although they do not follow from others.
pub(crate) fn default_head_dim(architecture: Architecture) -> Option<u64> {
    match architecture {
        Architecture::Gemma => Some(256),
        Architecture::Qwen3 | Architecture::Qwen3Moe => Some(128),
        _ => None,
    }
}

/// Adds a gated perceptron of width `inner` under `name`.
pub(super) fn gated(
    builder: &mut Builder,
    name: &str,
    inner: u64,
    hidden: u64,
    role: Role,
    bias: bool,
) {
    builder.linear(&format!("{name}.gate_proj"), inner, hidden, role, bias);
    builder.linear(&format!("{name}.up_proj"), inner, hidden, role, bias);
    builder.linear(&format!("{name}.down_proj"), hidden, inner, role, bias);
}

/// Adds a router and its experts of width `inner`, with the names that Qwen and DeepSeek use.
pub(super) fn routed(builder: &mut Builder, experts: Experts, inner: u64, hidden: u64) {
    builder.matrix("mlp.gate", experts.total, hidden, Role::Router);
    for e in 0..experts.total {
        builder.expert(e, &format!("mlp.experts.{e}.gate_proj"), inner, hidden);
        builder.expert(e, &format!("mlp.experts.{e}.up_proj"), inner, hidden);
        builder.expert(e, &format!("mlp.experts.{e}.down_proj"), hidden, inner);
    }
}
