//! Folders derived from folders on disk.

use super::*;
use models::{Recipe, write};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A folder with a small model and whatever else belongs to one.
struct Base {
    folder: tempfile::TempDir,
}

impl Base {
    fn new() -> Self {
        let base = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(base.path("base")).unwrap();
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 128,
            "layer_types": ["a", "b", "c"], "eos_token_id": 2, "torch_dtype": "bfloat16",
        });
        base.write("config.json", &config.to_string());
        base
    }

    /// The same with a tokenizer, code, and things for people.
    fn whole() -> Self {
        let base = Self::new();
        for name in [
            "tokenizer.json",
            "tokenizer.model",
            "generation_config.json",
            "modeling_own.py",
            "README.md",
            "pytorch_model.bin",
        ] {
            base.write(name, name);
        }
        base
    }

    fn with_weights(self) -> Self {
        let config = read_config(&self.path("base")).unwrap();
        let inventory = Inventory::of(&config).unwrap();
        let recipe = Recipe {
            seed: 1,
            std: 0.02,
            max_shard_bytes: 60_000,
            threads: None,
        };
        write(&self.path("base"), &inventory, &recipe, &|_| true).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("base").join(name), text).unwrap();
    }

    fn derive(&self, step: &ModelDerive) -> Result<String, StepError> {
        let out = self.path("out");
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        step.make(&self.path("base"), &out, &|_, _, _| true)
    }

    fn config(&self) -> Map<String, Value> {
        files::read_json(&self.path("out/config.json")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let listed = beside::list(&self.path("out")).unwrap();
        listed.into_iter().map(|(name, _)| name).collect()
    }
}

fn step(set: Value) -> ModelDerive {
    let path = Artifact::at("unused");
    ModelDerive {
        base: path,
        set: Json(set.as_object().expect("an object").clone()),
        unset: Vec::new(),
        scale: BTreeMap::new(),
        tokenizer: TokenizerSource::Auto,
        weights: WeightsSource::Auto,
    }
}

#[test]
fn a_folder_with_a_configuration_alone_gets_a_tokenizer() {
    let base = Base::new();
    let said = base.derive(&step(json!({"num_hidden_layers": 2}))).unwrap();
    assert_eq!(
        said,
        "2 of 3 layers, vocabulary 320, generated tokenizer; `layer_types` cut to 2 of 3"
    );
    let names = ["config.json", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(base.names(), names);
    assert_eq!(base.config()["layer_types"], json!(["a", "b"]));
}

#[test]
fn what_lies_beside_is_linked_and_the_source_stays_as_it_is() {
    let base = Base::whole();
    let before = std::fs::read(base.path("base/config.json")).unwrap();
    let said = base.derive(&step(json!({"num_hidden_layers": 2}))).unwrap();
    assert!(said.contains("the base's tokenizer"), "{said}");
    assert!(
        said.ends_with(
            "; 4 files linked; the base's weights left out: there is neither `model.safetensors` nor \
             `model.safetensors.index.json`"
        ),
        "{said}"
    );
    assert_eq!(
        base.names(),
        [
            "config.json",
            "generation_config.json",
            "modeling_own.py",
            "tokenizer.json",
            "tokenizer.model",
        ]
    );
    let inode = |path: &str| std::fs::metadata(base.path(path)).unwrap().ino();
    for name in ["tokenizer.model", "modeling_own.py"] {
        let (from, to) = (format!("base/{name}"), format!("out/{name}"));
        assert_eq!(inode(&from), inode(&to), "{name}");
    }
    assert_ne!(inode("base/config.json"), inode("out/config.json"));
    assert_eq!(
        std::fs::read(base.path("base/config.json")).unwrap(),
        before
    );
}

#[test]
fn another_vocabulary_leaves_the_tokenizer_and_what_speaks_of_its_ids_out() {
    let base = Base::whole();
    let said = base.derive(&step(json!({"vocab_size": 300}))).unwrap();
    assert!(
        said.contains("vocabulary 300, generated tokenizer"),
        "{said}"
    );
    assert_eq!(
        base.names(),
        [
            "config.json",
            "modeling_own.py",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    let tokenizer = std::fs::read(base.path("base/tokenizer.json")).unwrap();
    assert_eq!(tokenizer, b"tokenizer.json");
}

#[test]
fn weights_are_linked_where_they_fit_and_told_where_not() {
    let base = Base::new().with_weights();
    let said = base.derive(&step(json!({"eos_token_id": 3}))).unwrap();
    let end = " files linked; the base's weights are among them";
    assert!(said.ends_with(end), "{said}");
    let config = base.config();
    let inventory = Inventory::of(&config).unwrap();
    let linked = Checkpoint::read(&base.path("out"))
        .unwrap()
        .expect("weights");
    assert_eq!(linked.fit(&inventory), Fit::Fits { idle: 0 });

    let said = base.derive(&step(json!({"num_hidden_layers": 2}))).unwrap();
    let end = "of which 12 tensors have no place in the model";
    assert!(said.ends_with(end), "{said}");

    let wider = step(json!({"hidden_size": 128}));
    let said = base.derive(&wider).unwrap();
    let why = "`model.embed_tokens.weight` is [320, 64] there and [320, 128] here";
    assert!(
        said.ends_with(&format!("weights left out: {why}")),
        "{said}"
    );
    assert!(!base.names().iter().any(|name| name.contains("safetensors")));

    let error = base.derive(&ModelDerive {
        weights: WeightsSource::Base,
        ..wider
    });
    let error = error.unwrap_err();
    assert_eq!(
        error.message,
        format!("the base's weights do not fit: {why}")
    );
    assert!(error.help.unwrap().contains("`model.weights`"));
    let none = ModelDerive {
        weights: WeightsSource::None,
        ..step(json!({}))
    };
    assert!(!base.derive(&none).unwrap().contains("weights"));
}

#[test]
fn weights_that_cannot_be_read_are_left_out_unless_they_were_asked_for() {
    let index = json!({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).to_string();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (name, text) in [
        ("model.safetensors.index.json", index.as_str()),
        ("model.safetensors", pointer),
    ] {
        let base = Base::new();
        base.write(name, text);
        let said = base.derive(&step(json!({}))).unwrap();
        let start = "; the base's weights left out: could not read the weights in `";
        assert!(said.contains(start), "{said}");
        assert_eq!(base.names().len(), 3, "{:?}", base.names());
        let error = base.derive(&ModelDerive {
            weights: WeightsSource::Base,
            ..step(json!({}))
        });
        let help = error.unwrap_err().help.expect("help");
        assert!(help.contains("`weights = \"none\"`"), "{help}");
    }
}

#[test]
fn weights_of_which_most_would_be_idle_come_along_only_if_asked_for() {
    let base = Base::new();
    let mut config = read_config(&base.path("base")).unwrap();
    config.insert("num_hidden_layers".to_owned(), 6.into());
    config.remove("layer_types");
    base.write("config.json", &Value::Object(config).to_string());
    let base = base.with_weights();
    let one = step(json!({"num_hidden_layers": 1}));
    let said = base.derive(&one).unwrap();
    let end = "left out: 60 of 75 tensors have no place in the model \
               (`weights = \"base\"` brings them)";
    assert!(said.ends_with(end), "{said}");
    let said = base.derive(&ModelDerive {
        weights: WeightsSource::Base,
        ..one
    });
    let said = said.unwrap();
    let end = "of which 60 tensors have no place in the model";
    assert!(said.ends_with(end), "{said}");
}

#[test]
fn what_is_wrong_at_run_time_is_said_with_its_mend() {
    let base = Base::new();
    let error = base.derive(&step(json!({"hidden_sise": 1}))).unwrap_err();
    assert_eq!(error.message, "the base has no key `hidden_sise`");
    assert_eq!(
        error.help.unwrap(),
        "did you mean `hidden_size`? (`\"+hidden_sise\"` adds a key)"
    );
    let mut scaled = step(json!({}));
    scaled.scale = BTreeMap::from([("num_attention_heads".to_owned(), Positive(1.25))]);
    let error = base.derive(&scaled).unwrap_err();
    assert!(
        error
            .message
            .starts_with("`hidden_size` is 64, which `num_attention_heads`, 5"),
        "{}",
        error.message
    );
}

#[test]
fn a_key_that_is_not_known_is_looked_for_elsewhere_and_beside() {
    let known: Vec<String> = ["a", "text.width", "text.depth", "vision.width"]
        .map(str::to_owned)
        .to_vec();
    for (key, expected) in [
        ("width", "did you mean `text.width` or `vision.width`?"),
        ("text.dept", "did you mean `text.depth`?"),
        ("text.other", "known: `text.width`, `text.depth`"),
        ("something", "known: `a`"),
        ("nowhere.x", "none is declared"),
    ] {
        assert_eq!(meant(&known, key), expected, "{key}");
    }
}
