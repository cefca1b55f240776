//! `model.derive`: another model configuration from one that exists.

use crate::files;
use crate::kinds::Model;
use embedded_server::tokenizer::{generate, generate_config};
use engine::options::Parser;
use engine::problem::did_you_mean;
use engine::source::Place;
use engine::step::{OutputSpec, Step, StepContext, StepError, StepKind, StepReport, StepType};
use engine::types::{Artifact, Json, Origin};
use engine::value::Table;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

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

engine::options! {
    /// Options of `model.derive`.
    pub struct ModelDerive {
        /// A folder with `config_full.json` or `config.json`.
        base: Artifact<Model>;
        /// Keys of the configuration and their new values, such as `num_hidden_layers`. A key
        /// that the base does not have needs a `+` before it.
        set: Json = Json::default();
        /// Where the tokenizer comes from.
        tokenizer: TokenizerSource = TokenizerSource::Auto;
    }
}

impl StepType for ModelDerive {
    const NAME: &'static str = "model.derive";
    const KIND: StepKind = StepKind::Pure;
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Derives a model folder from another: fewer layers, another vocabulary, a tokenizer.";

    fn outputs() -> &'static [OutputSpec] {
        &[OutputSpec {
            name: "dir",
            file: "model",
            kind: "model",
            doc: "The model's folder: `config.json` and tokenizer, without weights.",
        }]
    }

    fn check(&self, table: &Table, place: &Place, parser: &mut Parser<'_>) {
        let Origin::Path(base) = &self.base.origin else {
            return;
        };
        let at = table.get("base").map_or(place, |v| &v.place);
        match read_config(base) {
            Err(error) => {
                parser.wrong::<()>(
                    at,
                    error.message,
                    "no model configuration",
                    "name a folder with `config_full.json` or `config.json`",
                );
            }
            Ok((config, _)) => {
                let at = table.get("set").map_or(place, |v| &v.place);
                for key in unknown_keys(&config, &self.set.0) {
                    let help = format!(
                        "{}; write `\"+{key}\"` to add a key",
                        did_you_mean(&key, config.keys().map(String::as_str))
                    );
                    parser.wrong::<()>(
                        at,
                        format!("the base has no key `{key}`"),
                        "unknown key",
                        &help,
                    );
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Step for ModelDerive {
    async fn run(&self, context: &StepContext) -> Result<StepReport, StepError> {
        let base = context.path(&self.base)?;
        let (mut config, folder) = read_config(&base)?;
        if let Some(key) = unknown_keys(&config, &self.set.0).first() {
            let help = did_you_mean(key, config.keys().map(String::as_str));
            return Err(StepError::new(format!("the base has no key `{key}`")).help(help));
        }
        let full_layers = config
            .get("num_hidden_layers")
            .cloned()
            .unwrap_or(Value::Null);
        let full_vocabulary = config.get("vocab_size").cloned();
        for (key, value) in &self.set.0 {
            config.insert(key.trim_start_matches('+').to_owned(), value.clone());
        }
        trim_per_layer_lists(&mut config);
        let out = context.output("model");
        files::create_dir(&out)?;
        let generated =
            self.write_tokenizer(&folder, &out, &mut config, full_vocabulary.as_ref())?;
        files::write_json(&out.join("config.json"), &config)?;
        let layers = config
            .get("num_hidden_layers")
            .cloned()
            .unwrap_or(Value::Null);
        let tokenizer = if generated {
            "generated tokenizer"
        } else {
            "the base's tokenizer"
        };
        let vocabulary = config.get("vocab_size").cloned().unwrap_or(Value::Null);
        Ok(StepReport::line(format!(
            "{layers} of {full_layers} layers, vocabulary {vocabulary}, {tokenizer}"
        )))
    }
}

impl ModelDerive {
    /// Writes the tokenizer; returns whether it was generated.
    fn write_tokenizer(
        &self,
        base: &Path,
        out: &Path,
        config: &mut Map<String, Value>,
        full_vocabulary: Option<&Value>,
    ) -> Result<bool, StepError> {
        let own = base.join("tokenizer.json").exists();
        let unchanged = config.get("vocab_size") == full_vocabulary;
        let copy = match self.tokenizer {
            TokenizerSource::Base if !own => {
                return Err(StepError::new(format!(
                    "the base has no `{}`",
                    base.join("tokenizer.json").display()
                ))
                .help("put one there, or write `tokenizer = \"generated\"`"));
            }
            TokenizerSource::Base => true,
            TokenizerSource::Auto => own && unchanged,
            TokenizerSource::Generated => false,
        };
        if copy {
            for name in [
                "tokenizer.json",
                "tokenizer_config.json",
                "generation_config.json",
            ] {
                if base.join(name).exists() {
                    files::copy(&base.join(name), &out.join(name))?;
                }
            }
            return Ok(false);
        }
        let size = config
            .get("vocab_size")
            .and_then(Value::as_u64)
            .ok_or_else(|| {
                StepError::new(
                    "the configuration has no `vocab_size`, so no tokenizer can be generated",
                )
            })?;
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(MOST_WORDS);
        let longest = config
            .get("max_position_embeddings")
            .and_then(Value::as_u64)
            .unwrap_or(4096);
        let tokenizer = generate(size);
        let tokenizer_config = generate_config(usize::try_from(longest).unwrap_or(4096));
        align_special_ids(config, &tokenizer, &tokenizer_config);
        let text = serde_json::to_vec(&tokenizer)
            .map_err(|e| StepError::because("could not write the tokenizer", e))?;
        files::write(&out.join("tokenizer.json"), text)?;
        files::write_json(&out.join("tokenizer_config.json"), &tokenizer_config)?;
        Ok(true)
    }
}

/// More words than any vocabulary has; guards against a slip in `vocab_size`.
const MOST_WORDS: usize = 2_000_000;

/// Reads `config_full.json` or `config.json` of a folder.
fn read_config(base: &Path) -> Result<(Map<String, Value>, PathBuf), StepError> {
    if base.is_file() {
        // Its folder is what the tokenizer comes from, and what the key has to cover.
        return Err(StepError::new(format!(
            "`{}` is a file; name its folder",
            base.display()
        )));
    }
    for name in ["config_full.json", "config.json"] {
        let path = base.join(name);
        if path.exists() {
            return Ok((files::read_json(&path)?, base.to_owned()));
        }
    }
    Err(StepError::new(format!(
        "`{}` has neither `config_full.json` nor `config.json`",
        base.display()
    )))
}

fn unknown_keys(config: &Map<String, Value>, set: &Map<String, Value>) -> Vec<String> {
    set.keys()
        .filter(|k| !k.starts_with('+') && !config.contains_key(*k))
        .cloned()
        .collect()
}

/// Shortens lists that have one entry per layer, such as `layer_types`.
fn trim_per_layer_lists(config: &mut Map<String, Value>) {
    let Some(layers) = config
        .get("num_hidden_layers")
        .and_then(Value::as_u64)
        .and_then(|n| usize::try_from(n).ok())
    else {
        return;
    };
    if let Some(Value::Array(types)) = config.get_mut("layer_types") {
        types.truncate(layers);
    }
    if let Some(window) = config.get_mut("max_window_layers")
        && window
            .as_u64()
            .is_some_and(|w| usize::try_from(w).is_ok_and(|w| w > layers))
    {
        *window = layers.into();
    }
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
    fn lists_with_one_entry_per_layer_follow_the_number_of_layers() {
        let Value::Object(mut config) =
            json!({"num_hidden_layers": 2, "layer_types": ["a", "b", "c"], "max_window_layers": 3})
        else {
            panic!()
        };
        trim_per_layer_lists(&mut config);
        assert_eq!(config["layer_types"], json!(["a", "b"]));
        assert_eq!(config["max_window_layers"], json!(2));
    }

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
    fn only_unmarked_new_keys_are_unknown() {
        let Value::Object(config) = json!({"a": 1}) else {
            panic!()
        };
        let Value::Object(set) = json!({"a": 2, "+b": 3, "c": 4}) else {
            panic!()
        };
        assert_eq!(unknown_keys(&config, &set), ["c"]);
    }
}
