//! OPT: learned positions, biases everywhere, and in the small ones vectors of tokens that are
//! narrower than the rest.
//!
//! Names as `transformers` writes `facebook/opt-6.7b`. The head is the embedding and not stored
//! unless the configuration says otherwise.

use super::Builder;
use crate::fields::Fields;
use crate::{Dtype, Problem, Role, Section, Tensor};

/// Positions are counted from here, so the table has so many more.
const FIRST_POSITION: u64 = 2;

pub(crate) fn tensors(fields: &Fields<'_>, dtype: Dtype) -> Result<Vec<Tensor>, Problem> {
    let hidden = fields.need("hidden_size")?;
    let inner = fields.need("ffn_dim")?;
    let vocab = fields.need("vocab_size")?;
    let width = fields.size("word_embed_proj_dim")?.unwrap_or(hidden);
    let positions = fields.need("max_position_embeddings")? + FIRST_POSITION;
    let bias = fields.flag("enable_bias", true)?;
    let mut builder = Builder::new(dtype);
    builder.enter(Section::Text, "model.decoder.");
    builder.matrix("embed_tokens", vocab, width, Role::Embedding);
    builder.matrix("embed_positions", positions, hidden, Role::Position);
    if width != hidden {
        builder.matrix("project_in", hidden, width, Role::Projection);
        builder.matrix("project_out", width, hidden, Role::Projection);
    }
    let norms_last = fields.flag("do_layer_norm_before", true)?
        && !fields.flag("_remove_final_layer_norm", false)?;
    if norms_last {
        builder.norm_with_bias("final_layer_norm", hidden);
    }
    for layer in 0..fields.need("num_hidden_layers")? {
        builder.enter_layer(layer, format!("model.decoder.layers.{layer}."));
        for name in ["k_proj", "v_proj", "q_proj", "out_proj"] {
            let name = format!("self_attn.{name}");
            builder.linear(&name, hidden, hidden, Role::Attention, bias);
        }
        builder.norm_with_bias("self_attn_layer_norm", hidden);
        builder.linear("fc1", inner, hidden, Role::FeedForward, bias);
        builder.linear("fc2", hidden, inner, Role::FeedForward, bias);
        builder.norm_with_bias("final_layer_norm", hidden);
    }
    if !fields.flag("tie_word_embeddings", true)? {
        builder.enter(Section::Text, "");
        builder.matrix("lm_head", vocab, width, Role::Head);
    }
    Ok(builder.finish())
}
