//! GPT-2, and GPT-3 as far as it is public: the same layout with other figures.
//!
//! Names as in `openai-community/gpt2`: no prefix, matrices `[in, out]`, the head is the embedding
//! and not stored unless the configuration says otherwise. Masks, which some files of GPT-2 hold, are
//! no weights and not listed.

use super::Builder;
use crate::fields::Fields;
use crate::{Dtype, Problem, Role, Section, Tensor};

pub(crate) fn tensors(fields: &Fields<'_>, dtype: Dtype) -> Result<Vec<Tensor>, Problem> {
    let hidden = fields.need_any(&["n_embd", "hidden_size"])?;
    let inner = fields.size("n_inner")?.unwrap_or(4 * hidden);
    let vocab = fields.need("vocab_size")?;
    let positions = fields.need_any(&["n_positions", "max_position_embeddings"])?;
    let mut builder = Builder::new(dtype);
    builder.enter(Section::Text, "");
    builder.matrix("wte", vocab, hidden, Role::Embedding);
    builder.matrix("wpe", positions, hidden, Role::Position);
    for layer in 0..fields.need_any(&["n_layer", "num_hidden_layers"])? {
        builder.enter_layer(layer, format!("h.{layer}."));
        builder.norm_with_bias("ln_1", hidden);
        transposed(
            &mut builder,
            "attn.c_attn",
            hidden,
            3 * hidden,
            Role::Attention,
        );
        transposed(&mut builder, "attn.c_proj", hidden, hidden, Role::Attention);
        builder.norm_with_bias("ln_2", hidden);
        transposed(&mut builder, "mlp.c_fc", hidden, inner, Role::FeedForward);
        transposed(&mut builder, "mlp.c_proj", inner, hidden, Role::FeedForward);
    }
    builder.enter(Section::Text, "");
    builder.norm_with_bias("ln_f", hidden);
    if !fields.flag("tie_word_embeddings", true)? {
        builder.matrix("lm_head", vocab, hidden, Role::Head);
    }
    Ok(builder.finish())
}

/// Adds a projection whose matrix is `[n_in, n_out]`, and its bias.
fn transposed(builder: &mut Builder, name: &str, n_in: u64, n_out: u64, role: Role) {
    builder.add(&format!("{name}.weight"), &[n_in, n_out], role);
    builder.bias(name, n_out);
}
