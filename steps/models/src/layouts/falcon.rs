//! Falcon: queries, keys and values in one matrix, and attention beside the perceptron.
//!
//! Names as in `tiiuae/falcon-40b` and `tiiuae/falcon-7b`, whose files hold the head although it
//! repeats the embedding.

use super::Builder;
use crate::fields::Fields;
use crate::shapes::head_width;
use crate::{Dtype, Problem, Role, Section, Tensor};

pub(crate) fn tensors(fields: &Fields<'_>, dtype: Dtype) -> Result<Vec<Tensor>, Problem> {
    let hidden = fields.need("hidden_size")?;
    let vocab = fields.need("vocab_size")?;
    let layer = Layer::read(fields, hidden)?;
    let mut builder = Builder::new(dtype);
    builder.enter(Section::Text, "transformer.");
    builder.matrix("word_embeddings", vocab, hidden, Role::Embedding);
    for l in 0..fields.need_any(&["num_hidden_layers", "n_layer"])? {
        builder.enter_layer(l, format!("transformer.h.{l}."));
        layer.list(&mut builder);
    }
    builder.enter(Section::Text, "transformer.");
    builder.norm_with_bias("ln_f", hidden);
    builder.enter(Section::Text, "");
    builder.matrix("lm_head", vocab, hidden, Role::Head);
    if fields.flag("tie_word_embeddings", true)? {
        builder.repeats("transformer.word_embeddings.weight");
    }
    Ok(builder.finish())
}

/// Heads of keys and of values.
pub(crate) fn kv_heads(fields: &Fields<'_>, heads: u64) -> Result<u64, Problem> {
    // Falcon-7B has one head of keys; what is older has as many as of queries.
    if fields.flag("new_decoder_architecture", false)? {
        fields.need_any(&["num_kv_heads", "n_head_kv"])
    } else if fields.flag("multi_query", true)? {
        Ok(1)
    } else {
        Ok(heads)
    }
}

struct Layer {
    hidden: u64,
    inner: u64,
    /// Width of queries, keys and values together.
    fused: u64,
    bias: bool,
    norms: &'static [&'static str],
}

impl Layer {
    fn read(fields: &Fields<'_>, hidden: u64) -> Result<Self, Problem> {
        let heads = fields.need_any(&["num_attention_heads", "n_head"])?;
        let is_new = fields.flag("new_decoder_architecture", false)?;
        let is_parallel = fields.flag("parallel_attn", true)?;
        let kv_heads = kv_heads(fields, heads)?;
        let two_norms = is_new && fields.size("num_ln_in_parallel_attn")?.unwrap_or(2) == 2;
        Ok(Self {
            hidden,
            inner: fields.size("ffn_hidden_size")?.unwrap_or(4 * hidden),
            fused: (heads + 2 * kv_heads) * head_width(fields, None)?,
            bias: fields.flag("bias", false)?,
            norms: if two_norms {
                &["ln_attn", "ln_mlp"]
            } else if is_parallel {
                &["input_layernorm"]
            } else {
                &["input_layernorm", "post_attention_layernorm"]
            },
        })
    }

    fn list(&self, builder: &mut Builder) {
        let (hidden, bias) = (self.hidden, self.bias);
        for norm in self.norms {
            builder.norm_with_bias(norm, hidden);
        }
        let (attention, feed) = (Role::Attention, Role::FeedForward);
        builder.linear(
            "self_attention.query_key_value",
            self.fused,
            hidden,
            attention,
            bias,
        );
        builder.linear("self_attention.dense", hidden, hidden, attention, bias);
        builder.linear("mlp.dense_h_to_4h", self.inner, hidden, feed, bias);
        builder.linear("mlp.dense_4h_to_h", hidden, self.inner, feed, bias);
    }
}
