//! What a decoder attends with: heads, what is kept of a token, windows. Weights are the layouts'.

use crate::fields::Fields;
use crate::layouts::{decoder, falcon};
use crate::shapes::head_width;
use crate::{Architecture, Problem};
use serde_json::{Map, Value};

/// How a layer attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Heads of keys and values, each shared by as many heads of queries: MHA, GQA and MQA.
    Heads {
        /// Heads of queries.
        heads: u64,
        /// Heads of keys, and of values.
        kv_heads: u64,
        /// Width of a head.
        head_dim: u64,
    },
    /// One latent vector a token, of which keys and values of all heads are made: MLA.
    Latent {
        /// Heads of queries.
        heads: u64,
        /// Width of the latent vector that queries are made of, if there is one.
        query_rank: Option<u64>,
        /// Width of the latent vector.
        rank: u64,
        /// Width of a head's queries and keys that is not rotated.
        plain: u64,
        /// Width of what is rotated, kept once for all heads.
        rotated: u64,
        /// Width of a head's values.
        value: u64,
    },
}

/// Layers that attend to the last so many tokens only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many tokens, the own one included.
    pub tokens: u64,
    /// How many of the layers do so.
    pub n_layers: u64,
}

/// The figures of a decoder that its weights do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderShape {
    /// Width of the residual stream.
    pub hidden: u64,
    /// Number of layers.
    pub n_layers: u64,
    /// Size of the vocabulary.
    pub vocab: u64,
    /// How layers attend.
    pub attention: Attention,
    /// Which layers attend to the last tokens only; `None` if all attend to all.
    pub window: Option<Window>,
}

impl Attention {
    /// Heads of queries.
    #[must_use]
    pub fn heads(&self) -> u64 {
        match *self {
            Attention::Heads { heads, .. } | Attention::Latent { heads, .. } => heads,
        }
    }
}

impl DecoderShape {
    /// Reads the figures of the decoder that `config`, a `config.json`, describes; of a model that
    /// also sees, those of the part that reads text.
    ///
    /// # Errors
    /// The first key that is missing or malformed; an architecture that is not known.
    pub fn of(config: &Map<String, Value>) -> Result<Self, Problem> {
        let fields = Fields::new(config);
        match Architecture::read(&fields)? {
            Architecture::LlavaNext => {
                let text = fields.inner("text_config")?;
                Self::read(Architecture::read(&text)?, &text)
            }
            architecture => Self::read(architecture, &fields),
        }
    }

    fn read(architecture: Architecture, fields: &Fields<'_>) -> Result<Self, Problem> {
        let n_layers = fields.need_any(&["num_hidden_layers", "n_layer"])?;
        Ok(Self {
            hidden: fields.need_any(&["hidden_size", "n_embd"])?,
            n_layers,
            vocab: fields.need("vocab_size")?,
            attention: attention(architecture, fields)?,
            window: window(architecture, fields, n_layers)?,
        })
    }
}

fn attention(architecture: Architecture, fields: &Fields<'_>) -> Result<Attention, Problem> {
    let heads = fields.need_any(&["num_attention_heads", "n_head"])?;
    if architecture == Architecture::DeepseekV3 {
        return Ok(Attention::Latent {
            heads,
            query_rank: fields.size("q_lora_rank")?,
            rank: fields.need("kv_lora_rank")?,
            plain: fields.need("qk_nope_head_dim")?,
            rotated: fields.need("qk_rope_head_dim")?,
            value: fields.need("v_head_dim")?,
        });
    }
    let kv_heads = match architecture {
        Architecture::Falcon => falcon::kv_heads(fields, heads)?,
        Architecture::Opt | Architecture::Gpt2 => heads,
        _ => fields.size("num_key_value_heads")?.unwrap_or(heads),
    };
    Ok(Attention::Heads {
        heads,
        kv_heads,
        head_dim: head_width(fields, decoder::default_head_dim(architecture))?,
    })
}

/// Windows as `transformers` reads them: by `layer_types` where that is there, else by
/// architecture. Llama and its like have none, whatever their configuration says.
fn window(
    architecture: Architecture,
    fields: &Fields<'_>,
    n_layers: u64,
) -> Result<Option<Window>, Problem> {
    let Some(tokens) = fields.size("sliding_window")? else {
        return Ok(None);
    };
    let types = fields.value("layer_types").and_then(Value::as_array);
    let is_sliding = |kind: &&Value| kind.as_str() == Some("sliding_attention");
    let n_layers = match (architecture, types) {
        (_, Some(types)) => types.iter().filter(is_sliding).count() as u64,
        (Architecture::Mistral | Architecture::Mixtral, None) => n_layers,
        (Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe, None) => {
            match fields.flag("use_sliding_window", false)? {
                true => n_layers.saturating_sub(fields.count("max_window_layers")?),
                false => 0,
            }
        }
        _ => 0,
    };
    Ok((n_layers > 0).then_some(Window { tokens, n_layers }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(config: &Value) -> Result<DecoderShape, Problem> {
        DecoderShape::of(config.as_object().expect("an object"))
    }

    fn qwen(more: Value) -> Value {
        let mut config = json!({
            "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 6, "vocab_size": 100,
            "num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 16,
        });
        let more = more.as_object().expect("an object").clone();
        config.as_object_mut().expect("an object").extend(more);
        config
    }

    #[test]
    fn windows_are_those_that_the_architecture_uses() {
        let window = |more| of(&qwen(more)).expect("sound").window;
        let some = |n_layers| {
            Some(Window {
                tokens: 16,
                n_layers,
            })
        };
        assert_eq!(window(json!({})), None);
        let used = json!({"use_sliding_window": true, "max_window_layers": 4});
        assert_eq!(window(used), some(2));
        assert_eq!(window(json!({"model_type": "mistral"})), some(6));
        assert_eq!(window(json!({"model_type": "llama"})), None);
        let types = json!({"layer_types": ["sliding_attention", "full_attention"]});
        assert_eq!(window(types), some(1));
    }

    #[test]
    fn a_head_is_as_wide_as_the_configuration_or_the_architecture_says() {
        let heads = |more| of(&qwen(more)).expect("sound").attention;
        let expected = |kv_heads, head_dim| Attention::Heads {
            heads: 8,
            kv_heads,
            head_dim,
        };
        assert_eq!(heads(json!({})), expected(2, 8));
        assert_eq!(heads(json!({"head_dim": 32})), expected(2, 32));
        assert_eq!(heads(json!({"model_type": "qwen3"})), expected(2, 128));
        let falcon = json!({"model_type": "falcon", "num_key_value_heads": null});
        assert_eq!(heads(falcon), expected(1, 8));
    }

    #[test]
    fn a_key_that_is_missing_is_named_where_it_stands() {
        let config =
            json!({"model_type": "llava_next", "text_config": qwen(json!({"vocab_size": null}))});
        let told = of(&config).expect_err("no vocabulary");
        assert_eq!(told.keys, ["text_config.vocab_size"]);
    }
}
