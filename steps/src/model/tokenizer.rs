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
        let own = is_in(base);
        match self {
            TokenizerSource::Base if !own => Err(StepError::new(format!(
                "the base `{}` has no tokenizer",
                base.display()
            ))
            .help("put a `tokenizer.json` there, or write `tokenizer = \"generated\"`")),
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
    let known = |name: &str| {
        let whole = [
            "tokenizer.json",
            "tokenizer.model",
            "tekken.json",
            "tiktoken.model",
            "vocab.json",
        ];
        whole.contains(&name) || name.ends_with(".tiktoken")
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(known))
}

/// Points the special tokens' ids at the generated tokenizer's own, also those of the decoder where
/// that is an object within.
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
        if let Some(Value::Object(text)) = config.get_mut("text_config") {
            put(text, key, id.clone());
        }
        put(config, key, id);
    }
}

fn put(config: &mut Map<String, Value>, key: &str, id: Option<Value>) {
    match id {
        Some(id) => drop(config.insert(key.to_owned(), id)),
        // The other keys keep their order.
        None => drop(config.shift_remove(key)),
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

    #[test]
    fn a_decoder_within_names_the_same_special_tokens() {
        let Value::Object(mut config) = json!({
            "text_config": {"bos_token_id": 151_643, "eos_token_id": 151_645, "width": 1},
        }) else {
            panic!()
        };
        let mut told = generate_config(128);
        told.as_object_mut().expect("an object").remove("bos_token");
        align_special_ids(&mut config, &generate(64), &told);
        assert!(config["text_config"].get("bos_token_id").is_none());
        for key in ["eos_token_id", "pad_token_id"] {
            let text = &config["text_config"];
            assert_eq!(text.get(key), config.get(key), "{key}");
        }
        assert!(config["eos_token_id"].as_u64().expect("an id") < 64);
    }

    #[test]
    fn a_tokenizer_of_any_form_is_found() {
        for name in [
            "tokenizer.json",
            "tekken.json",
            "tiktoken.model",
            "qwen.tiktoken",
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("tokenization_own.py"), "").unwrap();
            assert!(!is_in(folder.path()));
            let refused = TokenizerSource::Base.is_base(folder.path(), true);
            let message = refused.unwrap_err().message;
            assert!(message.ends_with("` has no tokenizer"), "{message}");
            std::fs::write(folder.path().join(name), "").unwrap();
            assert!(is_in(folder.path()), "{name}");
            for (source, unchanged, expected) in [
                (TokenizerSource::Base, false, true),
                (TokenizerSource::Auto, true, true),
                (TokenizerSource::Auto, false, false),
                (TokenizerSource::Generated, true, false),
            ] {
                let is_base = source.is_base(folder.path(), unchanged).unwrap();
                assert_eq!(is_base, expected, "{name}");
            }
        }
    }
}
