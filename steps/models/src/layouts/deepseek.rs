//! DeepSeek-V3: latent attention, dense layers first, then routed and shared experts, and behind
//! the last layer those that predict further tokens.
//!
//! Names, types and what is quantised as in `deepseek-ai/DeepSeek-V3`, whose
//! `README_WEIGHTS.md` describes them.

use super::decoder::{gated, routed};
use super::{Builder, Layout};
use crate::fields::Fields;
use crate::{Dtype, Experts, Problem, Role, Section, Tensor};
use serde_json::Value;

#[derive(Debug)]
struct Deepseek {
    hidden: u64,
    n_layers: u64,
    n_predictors: u64,
    vocab: u64,
    heads: u64,
    /// Width of a head's part without positions.
    plain: u64,
    /// Width of a head's part that is rotated.
    rotated: u64,
    value: u64,
    query_rank: Option<u64>,
    key_rank: u64,
    dense_inner: u64,
    n_dense: u64,
    /// Every so manieth layer has experts.
    every: u64,
    experts: Experts,
    inner: u64,
    n_shared: u64,
    tied: bool,
}

pub(crate) fn tensors(fields: &Fields<'_>, dtype: Dtype) -> Layout {
    let model = Deepseek::read(fields)?;
    let block = fp8_block(fields)?;
    let mut builder = Builder::new(dtype);
    model.list(&mut builder);
    let mut tensors = builder.finish();
    if let Some(block) = block {
        tensors = quantised(tensors, block);
    }
    Ok((tensors, Some(model.experts)))
}

impl Deepseek {
    fn read(fields: &Fields<'_>) -> Result<Self, Problem> {
        Ok(Self {
            hidden: fields.need("hidden_size")?,
            n_layers: fields.need("num_hidden_layers")?,
            n_predictors: fields.count("num_nextn_predict_layers")?,
            vocab: fields.need("vocab_size")?,
            heads: fields.need("num_attention_heads")?,
            plain: fields.need("qk_nope_head_dim")?,
            rotated: fields.need("qk_rope_head_dim")?,
            value: fields.need("v_head_dim")?,
            query_rank: fields.size("q_lora_rank")?,
            key_rank: fields.need("kv_lora_rank")?,
            dense_inner: fields.need("intermediate_size")?,
            n_dense: fields.count("first_k_dense_replace")?,
            every: fields.size("moe_layer_freq")?.unwrap_or(1),
            experts: Experts {
                total: fields.need("n_routed_experts")?,
                per_token: fields.need("num_experts_per_tok")?,
            },
            inner: fields.need("moe_intermediate_size")?,
            n_shared: fields.count("n_shared_experts")?,
            tied: fields.flag("tie_word_embeddings", false)?,
        })
    }

    fn list(&self, builder: &mut Builder) {
        builder.enter(Section::Text, "model.");
        builder.matrix("embed_tokens", self.vocab, self.hidden, Role::Embedding);
        for layer in 0..self.n_layers {
            builder.enter_layer(layer, format!("model.layers.{layer}."));
            let is_sparse = layer >= self.n_dense && layer.is_multiple_of(self.every);
            self.layer(builder, is_sparse);
        }
        builder.enter(Section::Text, "model.");
        builder.norm("norm", self.hidden);
        if !self.tied {
            builder.enter(Section::Text, "");
            builder.matrix("lm_head", self.vocab, self.hidden, Role::Head);
        }
        for layer in self.n_layers..self.n_layers + self.n_predictors {
            builder.enter(Section::Prediction, "");
            builder.enter_layer(layer, format!("model.layers.{layer}."));
            self.predictor(builder);
        }
    }

    fn layer(&self, builder: &mut Builder, is_sparse: bool) {
        builder.norm("input_layernorm", self.hidden);
        self.attention(builder);
        builder.norm("post_attention_layernorm", self.hidden);
        if !is_sparse {
            gated(
                builder,
                "mlp",
                self.dense_inner,
                self.hidden,
                Role::FeedForward,
                false,
            );
            return;
        }
        routed(builder, self.experts, self.inner, self.hidden);
        builder.add(
            "mlp.gate.e_score_correction_bias",
            &[self.experts.total],
            Role::Bias,
        );
        builder.always_f32();
        if self.n_shared > 0 {
            let inner = self.inner * self.n_shared;
            gated(
                builder,
                "mlp.shared_experts",
                inner,
                self.hidden,
                Role::SharedExpert,
                false,
            );
        }
    }

    fn attention(&self, builder: &mut Builder) {
        let role = Role::Attention;
        let queries = self.heads * (self.plain + self.rotated);
        match self.query_rank {
            Some(rank) => {
                builder.matrix("self_attn.q_a_proj", rank, self.hidden, role);
                builder.norm("self_attn.q_a_layernorm", rank);
                builder.matrix("self_attn.q_b_proj", queries, rank, role);
            }
            None => builder.matrix("self_attn.q_proj", queries, self.hidden, role),
        }
        let latent = self.key_rank + self.rotated;
        builder.matrix("self_attn.kv_a_proj_with_mqa", latent, self.hidden, role);
        builder.norm("self_attn.kv_a_layernorm", self.key_rank);
        let keys = self.heads * (self.plain + self.value);
        builder.matrix("self_attn.kv_b_proj", keys, self.key_rank, role);
        builder.matrix(
            "self_attn.o_proj",
            self.hidden,
            self.heads * self.value,
            role,
        );
    }

    /// A whole layer, with copies of the embedding and the head.
    fn predictor(&self, builder: &mut Builder) {
        let (vocab, hidden) = (self.vocab, self.hidden);
        builder.matrix("embed_tokens", vocab, hidden, Role::Embedding);
        builder.repeats("model.embed_tokens.weight");
        builder.norm("enorm", hidden);
        builder.norm("hnorm", hidden);
        builder.matrix("eh_proj", hidden, 2 * hidden, Role::Projection);
        self.layer(builder, true);
        builder.norm("shared_head.norm", hidden);
        builder.matrix("shared_head.head", vocab, hidden, Role::Head);
        builder.repeats(if self.tied {
            "model.embed_tokens.weight"
        } else {
            "lm_head.weight"
        });
    }
}

/// The block of weights that share a scale, `[rows, columns]`, if weights are quantised.
fn fp8_block(fields: &Fields<'_>) -> Result<Option<[u64; 2]>, Problem> {
    let Some(config) = fields.value("quantization_config") else {
        return Ok(None);
    };
    let is_fp8 = config.get("quant_method").and_then(Value::as_str) == Some("fp8");
    let block = config.get("weight_block_size").and_then(Value::as_array);
    let sides: Option<Vec<u64>> = block.and_then(|sides| {
        sides
            .iter()
            .map(|n| n.as_u64().filter(|n| *n > 0))
            .collect()
    });
    match sides.as_deref() {
        Some(&[rows, columns]) if is_fp8 => Ok(Some([rows, columns])),
        _ => Err(Problem::new(
            ["quantization_config"],
            "weights quantised otherwise than as `fp8` with a `weight_block_size` are not known",
            "write `unset = [\"quantization_config\"]` for plain weights",
        )),
    }
}

/// Makes the projections of layers eight bits wide and adds the scales of their blocks.
fn quantised(tensors: Vec<Tensor>, [rows, columns]: [u64; 2]) -> Vec<Tensor> {
    let mut all = Vec::with_capacity(tensors.len() * 2);
    for mut tensor in tensors {
        let is_projection = matches!(
            tensor.role,
            Role::Attention | Role::FeedForward | Role::Expert | Role::SharedExpert
        );
        if !is_projection {
            all.push(tensor);
            continue;
        }
        let mut scale = tensor.clone();
        tensor.dtype = Dtype::F8E4M3;
        scale.name.push_str("_scale_inv");
        scale.dtype = Dtype::F32;
        scale.role = Role::Scale;
        scale.shape = vec![
            tensor.shape[0].div_ceil(rows),
            tensor.shape[1].div_ceil(columns),
        ];
        all.extend([tensor, scale]);
    }
    all
}
