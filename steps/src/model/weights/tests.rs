//! Random checkpoints as a server loads them.

use super::*;
use embedded_server::model::{LoadFormat, ModelConfig, Weights};
use serde_json::json;
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
