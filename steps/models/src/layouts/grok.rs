//! Grok-1: norms before and after attention and experts alike, and a head that is the embedding.
//!
//! Names as in the safetensors conversion `hpcai-tech/grok-1`; the original is a JAX checkpoint.

use super::{Builder, Layout};
use crate::fields::Fields;
use crate::shapes::head_width;
use crate::{Dtype, Experts, Role, Section};

pub(crate) fn tensors(fields: &Fields<'_>, dtype: Dtype) -> Layout {
    let hidden = fields.need("hidden_size")?;
    let inner = fields.need("intermediate_size")?;
    let vocab = fields.need("vocab_size")?;
    let head_dim = head_width(fields, None)?;
    let heads = fields.need("num_attention_heads")?;
    let queries = heads * head_dim;
    let keys = fields.size("num_key_value_heads")?.unwrap_or(heads) * head_dim;
    let experts = Experts {
        total: fields.need_any(&["num_experts", "num_local_experts"])?,
        per_token: fields.need("num_experts_per_tok")?,
    };
    let mut builder = Builder::new(dtype);
    builder.enter(Section::Text, "model.");
    builder.matrix("embed_tokens", vocab, hidden, Role::Embedding);
    for layer in 0..fields.need("num_hidden_layers")? {
        builder.enter_layer(layer, format!("model.layers.{layer}."));
        builder.matrix("attn.q_proj", queries, hidden, Role::Attention);
        builder.matrix("attn.k_proj", keys, hidden, Role::Attention);
        builder.matrix("attn.v_proj", keys, hidden, Role::Attention);
        builder.matrix("attn.o_proj", hidden, queries, Role::Attention);
        builder.matrix("moe_block.gate", experts.total, hidden, Role::Router);
        for e in 0..experts.total {
            let name = format!("moe_block.experts.{e}");
            builder.expert(e, &format!("{name}.linear"), inner, hidden);
            builder.expert(e, &format!("{name}.linear_v"), inner, hidden);
            builder.expert(e, &format!("{name}.linear_1"), hidden, inner);
        }
        for norm in [
            "pre_attn_norm",
            "post_attn_norm",
            "pre_moe_norm",
            "post_moe_norm",
        ] {
            builder.add(&format!("{norm}.scale"), &[hidden], Role::Norm);
        }
    }
    builder.enter(Section::Text, "model.");
    builder.add("norm.scale", &[hidden], Role::Norm);
    builder.enter(Section::Text, "");
    builder.matrix("lm_head", vocab, hidden, Role::Head);
    if fields.flag("tie_word_embeddings", true)? {
        builder.repeats("model.embed_tokens.weight");
    }
    Ok((builder.finish(), Some(experts)))
}
