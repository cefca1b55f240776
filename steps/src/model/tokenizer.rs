//! The tokenizer of a derived model: the base's own, or one that is generated.

use super::of_decoder;
use crate::files;
use embedded_server::tokenizer::{generate, generate_config};
use engine::step::StepError;
use serde_json::{Map, Value};
use std::path::Path;

engine::choices! {
    /// Where the tokenizer of a derived model comes from.
    pub enum TokenizerSource {
        /// The base's own if it has one and the vocabulary is unchanged, else generated.
        Auto = "auto",
        /// The base's own.
        Base = "base",
        /// One word per token id: exact lengths, nothing to download.
        Generated = "generated",
    }
}

/// More words than any vocabulary has; guards against a slip in `vocab_size`.
const MOST_WORDS: usize = 2_000_000;

impl TokenizerSource {
    /// Whether the tokenizer of the folder `base` is taken; `unchanged` says whether the vocabulary
    /// is the base's.
    pub(super) fn is_base(self, base: &Path, unchanged: bool) -> Result<bool, StepError> {
        let own = base.join("tokenizer.json").exists();
        match self {
            TokenizerSource::Base if !own => Err(StepError::new(format!(
                "the base has no `{}`",
                base.join("tokenizer.json").display()
            ))
            .help("put one there, or write `tokenizer = \"generated\"`")),
            TokenizerSource::Base => Ok(true),
            TokenizerSource::Auto => Ok(own && unchanged),
            TokenizerSource::Generated => Ok(false),
        }
    }
}

/// Writes a tokenizer for `config` and makes the configuration name its special tokens.
pub(super) fn write_generated(
    config: &mut Map<String, Value>,
    out: &Path,
) -> Result<(), StepError> {
    let size = of_decoder(config, "vocab_size")
        .and_then(Value::as_u64)
        .ok_or_else(|| {
            StepError::new(
                "the configuration has no `vocab_size`, so no tokenizer can be generated",
            )
        })?;
    let size = usize::try_from(size).unwrap_or(usize::MAX).min(MOST_WORDS);
    let longest = ["max_position_embeddings", "n_positions"]
        .iter()
        .find_map(|key| of_decoder(config, key)?.as_u64())
        .unwrap_or(4096);
    let tokenizer = generate(size);
    let tokenizer_config = generate_config(usize::try_from(longest).unwrap_or(4096));
    align_special_ids(config, &tokenizer, &tokenizer_config);
    let text = serde_json::to_vec(&tokenizer)
        .map_err(|e| StepError::because("could not write the tokenizer", e))?;
    files::write(&out.join("tokenizer.json"), text)?;
    files::write_json(&out.join("tokenizer_config.json"), &tokenizer_config)
}

/// Whether a folder has a tokenizer of any form.
pub(super) fn is_in(folder: &Path) -> bool {
    ["tokenizer.json", "tokenizer.model", "vocab.json"]
        .iter()
        .any(|name| folder.join(name).exists())
}

/// Points `bos_token_id` and `eos_token_id` at the generated tokenizer's own.
fn align_special_ids(config: &mut Map<String, Value>, tokenizer: &Value, tokenizer_config: &Value) {
    for (key, token_key) in [
        ("bos_token_id", "bos_token"),
        ("eos_token_id", "eos_token"),
        ("pad_token_id", "pad_token"),
    ] {
        let token = tokenizer_config.get(token_key).and_then(Value::as_str);
        let id = token
            .and_then(|t| tokenizer.pointer("/model/vocab")?.get(t))
            .cloned();
        match id {
            Some(id) => drop(config.insert(key.to_owned(), id)),
            None => drop(config.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_end_of_sequence_is_the_generated_tokenizers() {
        let Value::Object(mut config) = json!({"eos_token_id": 151_645}) else {
            panic!()
        };
        align_special_ids(&mut config, &generate(64), &generate_config(128));
        let id = config["eos_token_id"].as_u64().expect("an id");
        assert!(id < 64);
    }
}
