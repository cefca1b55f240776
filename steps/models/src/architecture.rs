//! Which architecture a configuration is of, and who knows its weights.

use crate::fields::Fields;
use crate::layouts::{decoder, deepseek, falcon, gpt2, grok, llava, opt};
use crate::shapes::bounded;
use crate::{Dtype, Inventory, Problem};
use serde_json::{Map, Value};

/// An architecture whose weights are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama and its descendants of the same names.
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Llama with biases of queries, keys and values.
    Qwen2,
    /// Llama with norms of each head's queries and keys.
    Qwen3,
    /// Qwen3 with experts.
    Qwen3Moe,
    /// Mistral with experts.
    Mixtral,
    /// Latent attention, routed and shared experts, and layers that predict further tokens.
    DeepseekV3,
    /// Llama with norms' gains less one, wide heads and a tied head.
    Gemma,
    /// Attention and perceptron beside each other, fused queries, keys and values.
    Falcon,
    /// GPT-3's shape with the names of fairseq's descendant.
    Opt,
    /// GPT-2, and GPT-3 in its layout.
    Gpt2,
    /// Four norms a layer and eight experts.
    Grok1,
    /// Images or videos through CLIP into Llama.
    LlavaNext,
}

/// Its names in `architectures` and in `model_type`.
type Name = (&'static str, &'static str, Architecture);

/// Architectures by their names in `architectures` and in `model_type`.
const NAMES: &[Name] = &[
    ("LlamaForCausalLM", "llama", Architecture::Llama),
    ("MistralForCausalLM", "mistral", Architecture::Mistral),
    ("Qwen2ForCausalLM", "qwen2", Architecture::Qwen2),
    ("Qwen3ForCausalLM", "qwen3", Architecture::Qwen3),
    ("Qwen3MoeForCausalLM", "qwen3_moe", Architecture::Qwen3Moe),
    ("MixtralForCausalLM", "mixtral", Architecture::Mixtral),
    (
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        Architecture::DeepseekV3,
    ),
    ("GemmaForCausalLM", "gemma", Architecture::Gemma),
    ("FalconForCausalLM", "falcon", Architecture::Falcon),
    ("OPTForCausalLM", "opt", Architecture::Opt),
    ("GPT2LMHeadModel", "gpt2", Architecture::Gpt2),
    ("Grok1ModelForCausalLM", "grok-1", Architecture::Grok1),
    (
        "LlavaNextVideoForConditionalGeneration",
        "llava_next_video",
        Architecture::LlavaNext,
    ),
    (
        "LlavaNextForConditionalGeneration",
        "llava_next",
        Architecture::LlavaNext,
    ),
];

impl Architecture {
    /// Finds the architecture of a configuration: by the first of `architectures`, or by
    /// `model_type` where that is absent or unknown.
    ///
    /// # Errors
    /// If neither names one whose weights are known, or each names another.
    pub fn of(config: &Map<String, Value>) -> Result<Self, Problem> {
        Self::read(&Fields::new(config))
    }

    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Problem> {
        let first = fields
            .value("architectures")
            .and_then(|list| list.get(0)?.as_str());
        let kind = fields.text("model_type")?;
        let by_name = NAMES.iter().find(|(name, _, _)| first == Some(*name));
        let by_kind = NAMES.iter().find(|(_, name, _)| kind == Some(*name));
        match (by_name, by_kind) {
            (Some(name), Some(kind)) if name.2 != kind.2 => {
                return Err(contradiction(fields, name, kind));
            }
            (Some((_, _, architecture)), _) | (None, Some((_, _, architecture))) => {
                return Ok(*architecture);
            }
            (None, None) => {}
        }
        let known: Vec<&str> = NAMES.iter().map(|(_, name, _)| *name).collect();
        let help = format!("known by `model_type`: {}", known.join(", "));
        let (key, found) = match (kind, first) {
            (Some(kind), _) => ("model_type", kind),
            (None, Some(first)) => ("architectures", first),
            (None, None) => return Err(Problem::missing(fields.name("model_type"))),
        };
        let key = fields.name(key);
        let message = format!("`{key}` is `{found}`, whose weights are not known");
        Err(Problem::new([key], message, help))
    }

    /// Lists the tensors of a model of this architecture.
    pub(crate) fn inventory(self, config: &Map<String, Value>) -> Result<Inventory, Problem> {
        let fields = Fields::new(config);
        bounded(&fields)?;
        if self != Architecture::DeepseekV3 {
            refuse_quantised(&fields)?;
        }
        let dtype = dtype(&fields)?;
        let (tensors, experts) = match self {
            Architecture::DeepseekV3 => deepseek::tensors(&fields, dtype)?,
            Architecture::Falcon => (falcon::tensors(&fields, dtype)?, None),
            Architecture::Opt => (opt::tensors(&fields, dtype)?, None),
            Architecture::Gpt2 => (gpt2::tensors(&fields, dtype)?, None),
            Architecture::Grok1 => grok::tensors(&fields, dtype)?,
            Architecture::LlavaNext => llava::tensors(&fields, dtype)?,
            Architecture::Llama
            | Architecture::Mistral
            | Architecture::Qwen2
            | Architecture::Qwen3
            | Architecture::Qwen3Moe
            | Architecture::Mixtral
            | Architecture::Gemma => decoder::tensors(self, &fields, dtype)?,
        };
        Ok(Inventory {
            architecture: self,
            tensors,
            experts,
        })
    }
}

/// `architectures` and `model_type` name two architectures: servers choose by one or by the other.
fn contradiction(fields: &Fields<'_>, name: &Name, kind: &Name) -> Problem {
    let keys = [fields.name("architectures"), fields.name("model_type")];
    let message = format!(
        "`{}` begins with `{}`, but `{}` is `{}`",
        keys[0], name.0, keys[1], kind.1
    );
    let help = format!(
        "set `{}` to `{}`, or `{}` to `[\"{}\"]`",
        keys[1], name.1, keys[0], kind.0
    );
    Problem::new(keys, message, help)
}

/// Keys of the type of weights in configurations, the present one first, which counts where both are
/// there.
pub const DTYPE_KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// The type that a configuration gives its weights, under its present name or its old one.
fn dtype(fields: &Fields<'_>) -> Result<Dtype, Problem> {
    for key in DTYPE_KEYS {
        return match fields.text(key)? {
            None => continue,
            Some("float32") => Ok(Dtype::F32),
            Some("float16") => Ok(Dtype::F16),
            Some("bfloat16") => Ok(Dtype::Bf16),
            Some(other) => {
                let key = fields.name(key);
                let message = format!("`{key}` is `{other}`, which is no type of weights");
                let help = "write `bfloat16`, `float16` or `float32`";
                Err(Problem::new([key], message, help))
            }
        };
    }
    Ok(Dtype::Bf16)
}

fn refuse_quantised(fields: &Fields<'_>) -> Result<(), Problem> {
    let Some(config) = fields.value("quantization_config") else {
        return Ok(());
    };
    let method = config.get("quant_method").and_then(Value::as_str);
    let message = format!(
        "weights quantised as `{}` are not known for this architecture",
        method.unwrap_or("something without a name")
    );
    let help = "write `unset = [\"quantization_config\"]` for plain weights";
    Err(Problem::new(["quantization_config"], message, help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(config: &Value) -> Result<Architecture, Problem> {
        Architecture::of(config.as_object().expect("an object"))
    }

    #[test]
    fn two_names_of_two_architectures_are_told_with_both() {
        let names =
            |name: &str, kind: &str| of(&json!({"architectures": [name], "model_type": kind}));
        let told = names("LlamaForCausalLM", "mistral").unwrap_err();
        assert_eq!(told.keys, ["architectures", "model_type"]);
        assert_eq!(
            told.message,
            "`architectures` begins with `LlamaForCausalLM`, but `model_type` is `mistral`"
        );
        assert_eq!(
            told.help,
            "set `model_type` to `llama`, or `architectures` to `[\"MistralForCausalLM\"]`"
        );
        for (name, kind, expected) in [
            ("LlamaForCausalLM", "llama", Architecture::Llama),
            // One of its own beside one that is known says nothing against it.
            ("LlamaForCausalLM", "of my own", Architecture::Llama),
            ("OfMyOwn", "mistral", Architecture::Mistral),
            (
                "LlavaNextForConditionalGeneration",
                "llava_next_video",
                Architecture::LlavaNext,
            ),
        ] {
            assert_eq!(names(name, kind), Ok(expected), "{name} {kind}");
        }
    }

    #[test]
    fn the_present_key_of_the_type_counts_before_the_old_one() {
        for (config, expected) in [
            (
                json!({"dtype": "float16", "torch_dtype": "float32"}),
                Dtype::F16,
            ),
            (json!({"torch_dtype": "float32"}), Dtype::F32),
            (json!({"dtype": null, "torch_dtype": "float32"}), Dtype::F32),
            (json!({}), Dtype::Bf16),
        ] {
            let config = config.as_object().expect("an object");
            assert_eq!(dtype(&Fields::new(config)), Ok(expected), "{config:?}");
        }
    }
}
