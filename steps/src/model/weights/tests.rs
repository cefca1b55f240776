//! Random checkpoints as a server loads them.

use super::*;
use embedded_server::model::{LoadFormat, ModelConfig, Weights};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

struct Folders(tempfile::TempDir);

impl Folders {
    fn new(config: &Value) -> Self {
        let folders = Self(tempfile::tempdir().unwrap());
        for name in ["model", "out"] {
            std::fs::create_dir(folders.path(name)).unwrap();
        }
        files::write_json(&folders.path("model/config_full.json"), config).unwrap();
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, step: &ModelWeights) -> Result<String, StepError> {
        step.make(&self.path("model"), &self.path("out"), &|_, _| true)
    }

    fn config(&self) -> Map<String, Value> {
        files::read_json(&self.path("out/config.json")).unwrap()
    }
}

fn step() -> ModelWeights {
    ModelWeights {
        model: Artifact::at("unused"),
        dtype: WeightsDtype::Config,
        seed: 42,
        std: Positive(0.02),
        shard_size: Positive(5.0),
    }
}

fn small(kind: &str) -> Value {
    json!({
        "model_type": kind, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "vocab_size": 320, "max_position_embeddings": 128,
        "torch_dtype": "bfloat16",
    })
}

#[test]
fn the_embedded_server_loads_what_was_written_in_every_type() {
    for kind in ["llama", "mistral", "qwen2", "qwen3"] {
        for dtype in [WeightsDtype::Config, WeightsDtype::F16, WeightsDtype::F32] {
            let folders = Folders::new(&small(kind));
            let sized = ModelWeights {
                dtype,
                shard_size: Positive(40e-6),
                ..step()
            };
            let said = folders.make(&sized).unwrap();
            assert!(said.contains(" files, "), "{said}");
            let dir = folders.path("out");
            let config = ModelConfig::from_dir(&dir).unwrap();
            Weights::load(&config, &LoadFormat::Safetensors { dir })
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert!(
                said.starts_with(&grouped(config.parameter_count())),
                "{said}"
            );
        }
    }
}

#[test]
fn the_configuration_says_what_the_weights_are() {
    let mut config = small("deepseek_v3");
    let more = json!({
        "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16]},
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let folders = Folders::new(&config);
    folders.make(&step()).unwrap();
    assert!(folders.config().contains_key("quantization_config"));
    let folders = Folders::new(&config);
    let half = ModelWeights {
        dtype: WeightsDtype::F16,
        ..step()
    };
    folders.make(&half).unwrap();
    assert!(!folders.config().contains_key("quantization_config"));
    assert_eq!(folders.config()["torch_dtype"], json!("float16"));
}

/// Types of the tensors in the headers of the files that were written.
fn written_types(folders: &Folders) -> BTreeSet<String> {
    let bytes = std::fs::read(folders.path("out/model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
    let header: Map<String, Value> = serde_json::from_slice(&rest[..length]).unwrap();
    let tensors = header
        .values()
        .filter_map(|tensor| tensor["dtype"].as_str());
    tensors.map(str::to_owned).collect()
}

#[test]
fn every_key_of_the_type_is_set_and_the_present_one_decides_what_is_written() {
    let mut both = small("llama");
    both["dtype"] = json!("float32");
    let mut old = small("llama");
    old["text_config"] = json!({"dtype": "float32", "hidden_size": 8});
    let mut none = small("llama");
    none.as_object_mut().unwrap().remove("torch_dtype");
    for (config, dtype, types, keys) in [
        (
            &both,
            WeightsDtype::Config,
            "F32",
            json!(["float32", "bfloat16", null]),
        ),
        (
            &both,
            WeightsDtype::F16,
            "F16",
            json!(["float16", "float16", null]),
        ),
        (
            &both,
            WeightsDtype::Bf16,
            "BF16",
            json!(["bfloat16", "bfloat16", null]),
        ),
        (
            &old,
            WeightsDtype::F16,
            "F16",
            json!([null, "float16", "float16"]),
        ),
        (
            &none,
            WeightsDtype::F32,
            "F32",
            json!([null, "float32", null]),
        ),
        (
            &none,
            WeightsDtype::Config,
            "BF16",
            json!([null, null, null]),
        ),
    ] {
        let folders = Folders::new(config);
        folders.make(&ModelWeights { dtype, ..step() }).unwrap();
        assert_eq!(written_types(&folders), BTreeSet::from([types.to_owned()]));
        let told = Value::Object(folders.config());
        let inner = &told["text_config"]["dtype"];
        assert_eq!(json!([told["dtype"], told["torch_dtype"], inner]), keys);
    }
}

#[test]
fn shapes_that_no_model_can_have_get_no_weights() {
    let mut config = small("llama");
    config["num_key_value_heads"] = json!(3);
    let folders = Folders::new(&config);
    let error = folders.make(&step()).unwrap_err();
    let message = "`num_attention_heads` is 4, which `num_key_value_heads`, 3, does not divide";
    assert_eq!(error.message, message);
    assert_eq!(std::fs::read_dir(folders.path("out")).unwrap().count(), 0);
}

#[test]
fn files_come_before_the_weights_that_take_long() {
    let folders = Folders::new(&small("llama"));
    std::fs::write(folders.path("model/tokenizer.json"), "x").unwrap();
    // Somebody's file is in the way.
    std::fs::write(folders.path("out/tokenizer.json"), "y").unwrap();
    let error = folders.make(&step()).unwrap_err();
    assert!(error.message.starts_with("could not link `"), "{error}");
    assert!(!folders.path("out/model.safetensors").exists());
}

/// READMEs of configurations that ship say so of these, and of no other.
#[test]
fn the_embedded_server_runs_the_models_of_which_it_is_said() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model_conf");
    for entry in std::fs::read_dir(&shipped).unwrap().flatten() {
        let readme = files::read_text(&entry.path().join("README.md")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config: Value = files::read_json(&entry.path().join("config_full.json")).unwrap();
        files::write_json(&folder.path().join("config.json"), &config).unwrap();
        let runs = ModelConfig::from_dir(folder.path()).is_ok();
        let says = readme
            .replace('\n', " ")
            .contains("`server.embedded` runs it");
        assert_eq!(says, runs, "{}", entry.path().display());
    }
}

#[test]
fn what_lies_beside_comes_along_and_old_weights_do_not() {
    let folders = Folders::new(&small("llama"));
    for name in ["tokenizer.json", "own.py", "README.md", "old.safetensors"] {
        std::fs::write(folders.path("model").join(name), name).unwrap();
    }
    let said = folders.make(&step()).unwrap();
    assert!(!said.contains("no tokenizer"), "{said}");
    let listed = super::super::beside::list(&folders.path("out")).unwrap();
    let names: Vec<String> = listed.into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "config.json",
            "model.safetensors",
            "own.py",
            "tokenizer.json"
        ]
    );
}

#[test]
fn an_architecture_without_known_weights_is_named() {
    let folders = Folders::new(&small("mamba"));
    let error = folders.make(&step()).unwrap_err();
    assert_eq!(
        error.message,
        "`model_type` is `mamba`, whose weights are not known"
    );
    assert!(error.help.unwrap().contains("llama, mistral"));
}

#[test]
fn a_lack_of_room_is_said_in_gigabytes() {
    let error = refused(WriteError::NoSpace {
        folder: "outputs".into(),
        needed: 16_060_522_496,
        free: 3_000_000_000,
    });
    assert_eq!(
        error.message,
        "the weights need 16.061 GB in `outputs`, where 3.000 GB are free"
    );
    assert_eq!(grouped(1_234_567), "1,234,567");
}
